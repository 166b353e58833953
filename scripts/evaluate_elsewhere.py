"""Measure a restoration where nothing was trained: photographs that ship with scikit-image, aged by other code.

    PYTHONPATH=scripts:. python scripts/evaluate_elsewhere.py [--weights DIR] [--seeds N] [--each] [--sheet PNG]

What `oldphoto evaluate` shows, oldphoto's own generator has drawn, and a network may know its hand. Here ageing is made
of scikit-image's parts alone, and nothing of it may be taken over by the trainers. Printed are the detector's average
precision and F1 score (2 px of tolerance) with the share it marks of the undamaged photographs, and what a restoration
gains, with the masks found and with the true ones. Perceptual distances need the extra ``train``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from skimage import data, draw, exposure, filters, morphology, transform, util

from oldphoto.arrays import FloatImage
from oldphoto.evaluation import Comparison, Distance, average_precision, compare, perceptual_distance
from oldphoto.pipeline import RestoreOptions, Restorer
from oldphoto.scratches import ScratchDetector, to_mask
from oldphoto.training.scratches import tolerant_f1

PHOTOS = (
    "astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "gravel", "rocket", "stereo_motorcycle",
)  # fmt: skip
LARGEST = 480
DAMAGED = 0.5
SHARES = (0.0, 0.3, 0.6, 1.0)
"""How much of tone, blur and noise is given: a photograph may have only one of them."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Aged:
    """A photograph before and after, H × W × 3 in [0, 1], and where it is damaged, H × W."""

    name: str
    clean: FloatImage
    photo: FloatImage
    damage: Mask


def load(name: str) -> FloatImage:
    """A photograph of scikit-image in RGB, its longer side LARGEST px at most."""
    picture = getattr(data, name)()
    picture = util.img_as_float32(picture[0] if isinstance(picture, tuple) else picture)
    picture = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3]
    shrink = min(1.0, LARGEST / max(picture.shape[:2]))
    shape = tuple(round(side * shrink) for side in picture.shape[:2])
    return np.asarray(np.clip(transform.resize(picture, shape, anti_aliasing=True), 0, 1), np.float32)


def age(name: str, seed: int) -> Aged:
    """Age a photograph: fade, blur, damage, noise, and save it as JPEG."""
    rng = np.random.default_rng([seed, PHOTOS.index(name)])
    clean = load(name)
    photo = _fade(clean, rng, rng.choice(SHARES))
    photo = np.asarray(filters.gaussian(photo, 1.2 * rng.choice(SHARES) * rng.random() + 1e-3, channel_axis=2))
    photo, damage = _damage(photo, rng)
    share = rng.choice(SHARES)
    if share:
        photo = util.random_noise(photo, "gaussian", rng=rng, var=(0.08 * share * rng.random()) ** 2 + 1e-9)
        if rng.random() < 0.3:
            photo = util.random_noise(photo, "speckle", rng=rng, var=(0.1 * share) ** 2)
    return Aged(name, clean, _jpeg(np.asarray(photo, np.float32), int(rng.integers(55, 96))), damage)


def _fade(clean: FloatImage, rng: Generator, share: float) -> FloatImage:
    """Contrast, gamma, a sepia or a colour cast, and light that falls off to one side."""
    faded = exposure.adjust_gamma(clean, np.exp(0.35 * share * rng.normal()))
    black, white = 0.3 * share * rng.random(), 1 - 0.35 * share * rng.random()
    faded = black + (white - black) * faded
    if rng.random() < 0.6:
        gray = faded.mean(2, keepdims=True)
        paper = np.array([1.0, 0.9 + 0.1 * rng.random(), 0.6 + 0.3 * rng.random()])
        faded = faded + share * rng.uniform(0.3, 1) * (gray * paper - faded)
    else:
        faded = faded * (1 - 0.25 * share * rng.random(3))
    slope = rng.uniform(-0.2, 0.2, 2) * share
    down, across = (np.linspace(-0.5, 0.5, side) for side in clean.shape[:2])
    return np.asarray(np.clip(faded * (1 + slope[0] * down[:, None] + slope[1] * across)[..., None], 0, 1), np.float32)


def _damage(photo: FloatImage, rng: Generator) -> tuple[FloatImage, Mask]:
    """Two to six defects, each of its own colour, some of them soft."""
    shape = photo.shape[:2]
    whole = np.zeros(shape, bool)
    for _ in range(rng.integers(2, 7)):
        defect = DEFECTS[int(rng.integers(len(DEFECTS)))](shape, rng)
        opacity = rng.uniform(0.6, 1) * defect.astype(np.float32)
        if rng.random() < 0.4:
            opacity = filters.gaussian(opacity, 0.6)
        colour = (rng.uniform(0.75, 1) if rng.random() < 0.6 else rng.uniform(0, 0.25)) * np.array(
            [1, 1 - 0.05 * rng.random(), 1 - 0.15 * rng.random()]
        )
        changed = photo + opacity[..., None] * (colour - photo)
        whole |= defect & (np.abs(changed - photo).max(2) > 0.05)
        photo = np.asarray(changed, np.float32)
    return photo, whole


def _on(shape: tuple[int, int], rows: NDArray[np.integer], columns: NDArray[np.integer], thickness: int) -> Mask:
    """Pixels of a line, as thick as told."""
    mask = np.zeros(shape, bool)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    mask[rows[inside], columns[inside]] = True
    return np.asarray(morphology.dilation(mask, morphology.disk(thickness // 2)) if thickness > 1 else mask, bool)


def _point(shape: tuple[int, int], rng: Generator) -> NDArray[np.integer]:
    return np.asarray(rng.integers(0, shape))


def _lines(shape: tuple[int, int], rng: Generator) -> Mask:
    """Straight scratches."""
    masks = []
    for _ in range(rng.integers(1, 5)):
        masks.append(_on(shape, *draw.line(*_point(shape, rng), *_point(shape, rng)), int(rng.choice([1, 1, 3]))))
    return np.asarray(np.any(masks, axis=0))


def _curve(shape: tuple[int, int], rng: Generator) -> Mask:
    """A hair, or a bent scratch."""
    start = _point(shape, rng)
    ends = [start + rng.integers(-120, 121, 2) for _ in range(2)]
    rows, columns = draw.bezier_curve(*start, *ends[0], *ends[1], weight=float(rng.uniform(0.5, 2)))
    return _on(shape, rows, columns, int(rng.choice([1, 3])))


def _specks(shape: tuple[int, int], rng: Generator) -> Mask:
    """Dust: ellipses of one to a few pixels."""
    mask = np.zeros(shape, bool)
    for _ in range(rng.integers(10, 80)):
        radii = rng.uniform(0.6, 3.5, 2)
        mask[draw.ellipse(*_point(shape, rng), *radii, shape=shape, rotation=float(rng.uniform(0, 3)))] = True
    return mask


def _crack(shape: tuple[int, int], rng: Generator) -> Mask:
    """A zigzag from one side to another: a fold that broke."""
    across = rng.random() < 0.5
    length, width = (shape[1], shape[0]) if across else shape
    steps = np.linspace(0, length - 1, int(rng.integers(6, 25))).astype(int)
    sway = np.cumsum(rng.normal(0, 0.02 * width, len(steps))) + rng.uniform(0.15, 0.85) * width
    mask = np.zeros(shape, bool)
    thickness = int(rng.choice([1, 3, 5]))
    for one in range(len(steps) - 1):
        ends = [(int(sway[index]), int(steps[index])) for index in (one, one + 1)]
        ends = ends if across else [end[::-1] for end in ends]
        mask |= _on(shape, *draw.line(*ends[0], *ends[1]), thickness)
    return mask


def _blot(shape: tuple[int, int], rng: Generator) -> Mask:
    """A spot with an irregular outline."""
    centre, size = _point(shape, rng), rng.uniform(4, 26)
    turns = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    reach = size * rng.uniform(0.5, 1.2, len(turns))
    mask = np.zeros(shape, bool)
    mask[draw.polygon(centre[0] + reach * np.sin(turns), centre[1] + reach * np.cos(turns), shape)] = True
    return mask


def _corner(shape: tuple[int, int], rng: Generator) -> Mask:
    """A corner that is gone."""
    reach = rng.uniform(0.05, 0.25, 2) * shape
    mask = np.zeros(shape, bool)
    mask[draw.polygon([0, reach[0], 0.6 * reach[0], 0], [0, 0, 0.5 * reach[1], reach[1]], shape)] = True
    return np.rot90(mask, 2) if rng.random() < 0.5 else mask[:, ::-1] if rng.random() < 0.5 else mask


DEFECTS: tuple[Callable[[tuple[int, int], Generator], Mask], ...] = (_lines, _curve, _specks, _crack, _blot, _corner)


def _jpeg(photo: FloatImage, quality: int) -> FloatImage:
    buffer = BytesIO()
    Image.fromarray(util.img_as_ubyte(np.clip(photo, 0, 1))).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.float32) / np.float32(255)


@dataclass(frozen=True)
class Result:
    """One photograph: as aged, restored with the mask found and with the true one, and the detector's answers."""

    aged: Aged
    before: Comparison
    found: Comparison
    true: Comparison
    probability: FloatImage
    restored: FloatImage

    def f1(self) -> float:
        """The F1 score of what is marked."""
        return tolerant_f1(self.probability > DAMAGED, self.aged.damage)


def measure(aged: Aged, restorer: Restorer, detector: ScratchDetector, distance: Distance) -> Result:
    """Restore one photograph and compare."""
    probability = detector.probability(aged.photo)
    restored = restorer.restore(aged.photo, to_mask(probability.copy())).rgb
    true = restorer.restore(aged.photo, aged.damage.astype(np.float32)).rgb
    compared = [compare(picture, aged.clean, distance) for picture in (aged.photo, restored, true)]
    return Result(aged, *compared, probability, restored)


def report(results: Sequence[Result], alarms: float) -> list[str]:
    """Lines of Markdown: the masks, then what is gained with those found and with the true ones."""
    precision = average_precision(
        np.concatenate([result.aged.damage.ravel() for result in results]),
        np.concatenate([result.probability.ravel() for result in results]),
    )
    f1 = float(np.mean([result.f1() for result in results]))
    lines = [
        f"{len(results)} photos: average precision {precision:.3f}, F1 {f1:.3f}; marked of undamaged ones {alarms:.2%}",
        "",
        "| masks | PSNR gained | fitted | perceptual, of the input's | made worse | fitted |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for title in ("found", "true"):
        after: list[Comparison] = [getattr(result, title) for result in results]
        pairs = [(one, result.before) for one, result in zip(after, results, strict=True)]
        gains = [(one.plain.psnr - b.plain.psnr, one.fitted.psnr - b.fitted.psnr) for one, b in pairs]
        plain, fitted = np.mean(gains, axis=0)
        worse, worse_fitted = (np.array(gains) < 0).sum(0)
        distances = [(one.plain.perceptual or 0.0, b.plain.perceptual or 0.0) for one, b in pairs]
        ratio = np.divide(*np.sum(distances, axis=0))
        lines.append(f"| {title} | {plain:+.2f} | {fitted:+.2f} | {ratio:.3f} | {worse} | {worse_fitted} |")
    return lines


def sheet(results: Sequence[Result]) -> Image.Image:
    """Rows of clean, aged, marked, restored."""
    rows = []
    for result in results:
        marked = np.repeat(result.probability[..., None], 3, 2)
        row = np.hstack([result.aged.clean, result.aged.photo, marked, result.restored])
        rows.append(np.pad(row, ((0, 4), (0, 4 * LARGEST - row.shape[1]), (0, 0))))
    return Image.fromarray(np.asarray(255 * np.clip(np.vstack(rows), 0, 1), np.uint8))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="times that each photo is aged")
    parser.add_argument("--each", action="store_true", help="a line for each photo, too")
    parser.add_argument("--sheet", type=Path, help="where to save a picture of the first of each photo")
    arguments = parser.parse_args()
    restorer = Restorer(RestoreOptions(faces=False), checkpoints=arguments.weights)
    detector = ScratchDetector(checkpoints_folder=arguments.weights)
    distance = perceptual_distance()
    pictures = [age(name, seed) for seed in range(arguments.seeds) for name in PHOTOS]
    results = [measure(picture, restorer, detector, distance) for picture in pictures]
    alarms = float(np.mean([np.mean(detector.probability(load(name)) > DAMAGED) for name in PHOTOS]))
    for line in report(results, alarms):
        print(line)
    if arguments.each:
        for result in results:
            gain = result.found.plain.psnr - result.before.plain.psnr
            fitted = result.found.fitted.psnr - result.before.fitted.psnr
            print(f"{result.aged.name}: F1 {result.f1():.3f}, {gain:+.2f} dB, fitted {fitted:+.2f} dB")
    if arguments.sheet:
        sheet(results[: len(PHOTOS)]).save(arguments.sheet)


if __name__ == "__main__":
    main()
