"""The synthetic benchmark: clean photos are aged, restored, and compared with what they were.

Four ways are compared: nothing done, a classical baseline (inpainting, non-local means, auto levels) with the mask that
oldphoto found, oldphoto itself, and the classical baseline with the true mask, as good as it can get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.metrics import structural_similarity

from oldphoto.arrays import ByteImage, FloatImage, black_and_white
from oldphoto.errors import UsageError
from oldphoto.work import age_by_name

AGED, CLASSICAL, OLDPHOTO, CLASSICAL_TRUE = "aged input", "classical", "oldphoto", "classical, true masks"
METHODS = (AGED, CLASSICAL, OLDPHOTO, CLASSICAL_TRUE)

PSNR_LIMIT = 100.0
"""The PSNR, in dB, of pictures that are the same: infinity would swallow a mean."""

_SMALLEST_SIDE = 16
_GRAY_EVERY = 3  # of so many photos one is black and white

Distance = Callable[[FloatImage, FloatImage], float]


class Restored(Protocol):
    """What a restorer returns: see `oldphoto.pipeline.Restoration`."""

    @property
    def rgb(self) -> FloatImage:
        """H × W × 3."""

    @property
    def mask(self) -> FloatImage | None:
        """H × W, 1 = was repaired."""


class Restores(Protocol):
    """See `oldphoto.pipeline.Restorer`."""

    def restore(self, rgb: FloatImage) -> Restored:
        """Restore a photo."""


class Detects(Protocol):
    """See `oldphoto.scratches.ScratchDetector`."""

    def probability(self, rgb: FloatImage) -> FloatImage:
        """Tell how likely each pixel is damaged."""


@dataclass(frozen=True)
class Scores:
    """How near pictures are to the clean ones: PSNR in dB, SSIM, perceptual distance (None if not measured)."""

    psnr: float
    ssim: float
    perceptual: float | None


@dataclass(frozen=True)
class Comparison:
    """One picture against the clean one: as it is, and with its tone fitted per channel to the clean one."""

    plain: Scores
    fitted: Scores


@dataclass(frozen=True)
class Measured:
    """What was measured on one photo.

    ``methods``: the comparison for each of METHODS; ``probability`` and ``truth``: the detector's answer and the true
    mask, both one value a pixel; ``clean_psnr``: of the clean photo after a restoration that should leave it alone.
    """

    methods: dict[str, Comparison]
    probability: FloatImage
    truth: NDArray[np.bool_]
    clean_psnr: float


@dataclass(frozen=True)
class Row:
    """A method's means over all photos.

    ``mask_precision``: average precision of the masks it found, pixel by pixel over all photos together, None where it
    found none itself; ``worse`` and ``worse_fitted``: how many photos have a lower PSNR than as aged.
    """

    method: str
    plain: Scores
    fitted: Scores
    mask_precision: float | None
    worse: int
    worse_fitted: int


@dataclass(frozen=True)
class Evaluation:
    """The benchmark's result: a row for each of METHODS, and the PSNR of clean photos passed through."""

    photos: int
    rows: tuple[Row, ...]
    clean_mean: float
    clean_worst: float


def measure(
    photos: Sequence[ByteImage], restorer: Restores, detector: Detects, seed: int = 0, distance: Distance | None = None
) -> Iterator[Measured]:
    """Age, restore and compare photo after photo.

    Parameters
    ----------
    photos
        Clean photos, H × W × 3 in 8 bits; the third, the sixth and so on are made black and white.
    restorer, detector
        What is measured.
    seed
        Decides, with the place of a photo in `photos`, how it ages.
    distance
        The perceptual distance, see `perceptual_distance`; without it, it is left out.

    Raises
    ------
    UsageError
        A photo is too small to be compared.
    """
    for number, image in enumerate(photos, 1):
        if min(image.shape[:2]) < _SMALLEST_SIDE:
            size = f"{image.shape[1]} x {image.shape[0]}"
            raise UsageError(f"photo {number} has {size} pixels: {_SMALLEST_SIDE} x {_SMALLEST_SIDE} are needed")
        clean = _to_float(image)
        if number % _GRAY_EVERY == 0:
            clean = black_and_white(clean)
        yield _measure_one(clean, number, restorer, detector, seed, distance)


def _measure_one(
    clean: FloatImage, number: int, restorer: Restores, detector: Detects, seed: int, distance: Distance | None
) -> Measured:
    aged = age_by_name(clean, f"photo {number}", seed)
    restoration = restorer.restore(aged.photo)
    found = restoration.mask if restoration.mask is not None else np.zeros_like(aged.mask)
    pictures = {
        AGED: aged.photo,
        CLASSICAL: classical(aged.photo, found),
        OLDPHOTO: restoration.rgb,
        CLASSICAL_TRUE: classical(aged.photo, aged.mask),
    }
    return Measured(
        {method: compare(picture, clean, distance) for method, picture in pictures.items()},
        detector.probability(aged.photo).ravel(),
        aged.mask.ravel() > 0.5,
        psnr(restorer.restore(clean).rgb, clean),
    )


def summarise(measured: Sequence[Measured]) -> Evaluation:
    """Average what was measured on each photo; there must be at least one."""
    precision = average_precision(
        np.concatenate([photo.truth for photo in measured]), np.concatenate([photo.probability for photo in measured])
    )
    clean = [photo.clean_psnr for photo in measured]
    rows = tuple(_row(method, measured, precision if method in (CLASSICAL, OLDPHOTO) else None) for method in METHODS)
    return Evaluation(len(measured), rows, float(np.mean(clean)), min(clean))


def _row(method: str, measured: Sequence[Measured], mask_precision: float | None) -> Row:
    results = [photo.methods[method] for photo in measured]
    before = [photo.methods[AGED] for photo in measured]
    pairs = list(zip(results, before, strict=True))
    return Row(
        method,
        _mean([result.plain for result in results]),
        _mean([result.fitted for result in results]),
        mask_precision,
        sum(result.plain.psnr < aged.plain.psnr for result, aged in pairs),
        sum(result.fitted.psnr < aged.fitted.psnr for result, aged in pairs),
    )


def _mean(scores: Sequence[Scores]) -> Scores:
    distances = [score.perceptual for score in scores if score.perceptual is not None]
    return Scores(
        float(np.mean([score.psnr for score in scores])),
        float(np.mean([score.ssim for score in scores])),
        float(np.mean(distances)) if distances else None,
    )


# The metrics


def compare(picture: FloatImage, clean: FloatImage, distance: Distance | None = None) -> Comparison:
    """Compare a picture with the clean one, both H × W × 3 in [0, 1], as it is and with its tone fitted."""
    return Comparison(_scores(picture, clean, distance), _scores(fit_tone(picture, clean), clean, distance))


def _scores(picture: FloatImage, clean: FloatImage, distance: Distance | None) -> Scores:
    similarity = structural_similarity(picture, clean, channel_axis=2, data_range=1)  # type: ignore[no-untyped-call]
    return Scores(psnr(picture, clean), float(similarity), None if distance is None else distance(picture, clean))


def psnr(picture: FloatImage, clean: FloatImage) -> float:
    """Return the peak signal-to-noise ratio, in dB, of pictures in [0, 1]; PSNR_LIMIT at most."""
    error = float(np.mean((picture.astype(np.float64) - clean) ** 2))
    return PSNR_LIMIT if error == 0 else min(PSNR_LIMIT, -10 * float(np.log10(error)))


def fit_tone(picture: FloatImage, clean: FloatImage) -> FloatImage:
    """Give each channel of a picture the gain and the offset that bring it nearest to the clean one's.

    Nearest in least squares, before the result is clipped to [0, 1], which only brings it nearer.
    """
    means, targets = picture.mean((0, 1), np.float64), clean.mean((0, 1), np.float64)
    deviations = picture - means
    variances = (deviations**2).mean((0, 1))
    covariances = (deviations * (clean - targets)).mean((0, 1))
    gains = covariances / np.maximum(variances, 1e-12)
    return np.asarray(np.clip(gains * deviations + targets, 0, 1), np.float32)


def average_precision(truth: ArrayLike, scores: ArrayLike) -> float | None:
    """Return the average precision of a ranking: the mean, over all that is true, of the precision at its score.

    Parameters
    ----------
    truth
        What is true, one boolean each.
    scores
        One number each, the higher the likelier; equal ones stand at one rank.

    Returns
    -------
    float or None
        0 to 1; the share of what is true, for a ranking by chance; None if nothing is true.
    """
    values = np.asarray(scores)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    hits = np.cumsum(np.asarray(truth, bool)[order])
    if not hits.size or hits[-1] == 0:
        return None
    last_of_rank = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = hits[last_of_rank]
    precision = hits / (last_of_rank + 1)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


def perceptual_distance() -> Distance:
    """Load the network of the perceptual distance, and return the distance of two pictures, H × W × 3 in [0, 1].

    Raises
    ------
    UsageError
        Its weights (extra ``train``) are not installed.
    """
    import torch

    from oldphoto.training.losses import PerceptualDistance

    net = PerceptualDistance()

    def distance(picture: FloatImage, clean: FloatImage) -> float:
        one, other = (torch.from_numpy(np.moveaxis(image, 2, 0)[None].copy()) for image in (picture, clean))
        with torch.inference_mode():
            return float(net(one, other))

    return distance


# The classical baseline


def classical(rgb: FloatImage, mask: FloatImage) -> FloatImage:
    """Restore a photo, H × W × 3 in [0, 1], with what OpenCV has: a baseline that a careful user could set up.

    Holes (mask, H × W, 1 = damaged) are inpainted (Telea 2004), noise is removed by non-local means (Buades et al.
    2005) as strong as it is estimated to be, and the levels of each channel are stretched.
    """
    pixels = np.rint(rgb[..., ::-1] * 255).clip(0, 255).astype(np.uint8)  # blue first, as OpenCV wants it
    filled = cv2.inpaint(pixels, (mask > 0.5).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    # Of 0.7, 1, 1.3 and 1.8 times the noise, once is the best on aged photos after the fit of tone.
    strength = 255 * noise_level(_to_float(filled))
    calm = cv2.fastNlMeansDenoisingColored(filled, None, strength, strength) if strength >= 1 else filled
    return auto_levels(_to_float(calm)[..., ::-1])


def _to_float(pixels: ArrayLike) -> FloatImage:
    return np.asarray(pixels, np.float32) / np.float32(255)


def noise_level(picture: FloatImage) -> float:
    """Estimate the standard deviation of the noise in a picture, H × W × 3.

    From the median of the finest diagonal Haar details (Donoho & Johnstone 1994), averaged over the channels;
    `skimage.restoration.estimate_sigma` does the same, but needs PyWavelets.
    """
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    even = picture[:height, :width]
    details = (even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2
    return float(np.mean(np.median(np.abs(details), axis=(0, 1)))) / 0.6745


def auto_levels(picture: FloatImage, clipped: float = 0.5) -> FloatImage:
    """Stretch each channel of a picture, H × W × 3, to [0, 1], with `clipped` percent cut off at either end."""
    low, high = np.percentile(picture, (clipped, 100 - clipped), axis=(0, 1))
    return np.asarray(np.clip((picture - low) / np.maximum(high - low, 1e-3), 0, 1), np.float32)
