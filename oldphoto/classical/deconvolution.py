"""Deconvolution: blur of a known point-spread function inverted, by six methods from the inverse filter to a prior.

All work on the whole photo by Fourier transform, each channel through the same point-spread function. The transform
takes a picture for periodic, and a photo does not know what is beyond its edges, so the photo is extended first: see
``extend``. What scikit-image has is taken from there.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from skimage import restoration

from oldphoto.arrays import FloatImage
from oldphoto.classical.methods import require_deblurring
from oldphoto.classical.noise import is_uniform, noise_sigma
from oldphoto.classical.psf import PointSpread, Spectrum, transfer
from oldphoto.errors import PhotoError, UsageError

LEAST_NOISE = 0.002
"""The standard deviation of noise, of 1, that is reckoned with at least: that of rounding to 8 bits, and some more."""

TRUNCATED = 0.1
"""The inverse filter leaves out the frequencies of which less than this comes through."""

BOUNDARY_STEPS, BOUNDARY_CAUTION = 5, 3.0
"""How often what is beyond the edges is estimated anew, and how much more noise than there is is reckoned with."""

HQS_STEPS, HQS_FIRST, HQS_LAMBDA = 8, 49 / 255, 0.23
"""Iterations, first noise level and weight of the prior (Zhang et al., TPAMI 2021, sec. 4.2)."""


class Prior(Protocol):
    """A denoiser: what takes white noise of a known level out of a picture."""

    def denoise(self, rgb: FloatImage, level: float) -> FloatImage:
        """The picture, H × W × 3, without its noise of standard deviation ``level``, of 1."""


def deconvolve(
    rgb: FloatImage, psf: PointSpread, method: str, balance: float | None = None, prior: Prior | None = None
) -> FloatImage:
    """The photo, H × W × 3 in [0, 1], as it was before it was blurred by ``psf``; the input is not changed.

    Parameters
    ----------
    rgb : float32 H × W × 3 in [0, 1]
    psf : the point-spread function, alike for all channels
    method : one of `oldphoto.classical.methods.DEBLURRING`
    balance : the ratio of the powers of noise and signal, alike at all frequencies; by default it is the estimated
        noise over the spectrum of a photograph. For "wiener" alone.
    prior : the denoiser that "hqs" needs

    Raises
    ------
    UsageError
        The method is unknown, or "hqs" has no prior.
    PhotoError
        There is nothing to deconvolve: the picture is all of one value, or smaller than the point-spread function.
    """
    require_deblurring(method)
    check(rgb, psf)
    noise = max(noise_sigma(rgb), LEAST_NOISE)
    extended, core = extend(rgb, psf, noise)
    response = transfer(psf, (extended.shape[0], extended.shape[1]))
    if method == "hqs":
        if prior is None:
            raise UsageError("hqs needs a denoiser as its prior")
        restored = half_quadratic_splitting(extended, response, noise, prior)
    elif method == "tv":
        restored = total_variation(extended, response, noise)
    else:
        restored = np.empty_like(extended)
        for channel in range(3):
            plane = np.ascontiguousarray(extended[..., channel])
            if channel and np.array_equal(plane, extended[..., 0]):
                restored[..., channel] = restored[..., 0]  # a gray photo
            elif method == "inverse":
                restored[..., channel] = inverse(plane, response)
            elif method == "wiener":
                restored[..., channel] = wiener(plane, response, noise, balance)
            elif method == "unsupervised-wiener":
                restored[..., channel] = unsupervised_wiener(plane, response)
            else:
                restored[..., channel] = richardson_lucy(plane, psf, noise)
    return np.ascontiguousarray(restored[core].clip(0, 1), np.float32)


def check(rgb: FloatImage, psf: PointSpread | None = None) -> None:
    """Raise PhotoError where there is nothing to deconvolve, or the point-spread function is too large."""
    height, width = rgb.shape[:2]
    if psf is not None and (psf.kernel.shape[0] > height or psf.kernel.shape[1] > width):
        size = f"{psf.kernel.shape[1]} × {psf.kernel.shape[0]} px"
        raise PhotoError(f"the point-spread function {psf.text} ({size}) is larger than the photo ({width} × {height})")
    if min(height, width) < 2:
        raise PhotoError(f"{width} × {height} px: too small to deblur")
    if is_uniform(rgb):
        raise PhotoError("the picture is all of one value: there is nothing to deblur")


def extend(rgb: FloatImage, psf: PointSpread, noise: float) -> tuple[FloatImage, tuple[slice, slice]]:
    """Continue a blurred photo beyond its edges to a periodic one; also returns where the photo itself is.

    What is blurred into the photo from beyond its edges can not be seen, yet must be there, or the edges ring. The
    outermost pixels are continued and opposite borders faded into each other. Then, a few times, the whole is
    deconvolved and blurred again, and what comes out beyond the edges replaces what was there: an unknown boundary is
    estimated with the picture (Almeida and Figueiredo, *Deconvolving Images With Unknown Boundaries*, TIP 2013).
    """
    height, width = rgb.shape[:2]
    reach = max(psf.kernel.shape)
    pads = []
    for side in (height, width):
        whole = scipy.fft.next_fast_len(side + max(16, 2 * reach), real=True)
        whole = whole if whole % 2 == 0 else scipy.fft.next_fast_len(whole + 1, real=True)
        pads.append(((whole - side) // 2, whole - side - (whole - side) // 2))
    (top, bottom), (left, right) = pads
    core = slice(top, top + height), slice(left, left + width)
    extended = np.pad(rgb, (*pads, (0, 0)), mode="edge")
    _fade(extended, top, bottom, 0)
    _fade(extended, left, right, 1)
    response = transfer(psf, (extended.shape[0], extended.shape[1]))
    for channel in range(3):
        plane = np.ascontiguousarray(extended[..., channel])
        for _ in range(BOUNDARY_STEPS):
            blurred = _inverse_transform(
                response * _transform(wiener(plane, response, BOUNDARY_CAUTION * noise)), plane.shape
            )
            blurred[core] = plane[core]
            plane = blurred
        extended[..., channel] = plane
    return extended, core


def _fade(extended: FloatImage, before: int, after: int, axis: int) -> None:
    """Fade what was added on both sides of an axis into each other across the seam of the period, in place."""
    view = np.moveaxis(extended, axis, 0)
    count = len(view)
    ring = np.concatenate([np.arange(count - after, count), np.arange(before)])
    added = view[ring].copy()
    # Each side, continued over the whole seam by its outermost row, then mixed with the other.
    first, last = added[:after], added[after:]
    forward = np.concatenate([first, np.repeat(first[-1:], before, 0)])
    backward = np.concatenate([np.repeat(last[:1], after, 0), last])
    share = np.linspace(0, 1, len(ring), dtype=np.float32)
    share = (share * share * (3 - 2 * share)).reshape(-1, *(1,) * (view.ndim - 1))
    view[ring] = (1 - share) * forward + share * backward


def inverse(plane: FloatImage, response: Spectrum) -> FloatImage:
    """The inverse filter, truncated: frequencies of which less than TRUNCATED comes through are left out."""
    strength = np.abs(response)
    known = strength >= TRUNCATED
    spectrum = _transform(plane) * np.where(known, response.conj() / np.where(known, strength, 1) ** 2, 0)
    return _inverse_transform(spectrum, plane.shape)


def wiener(plane: FloatImage, response: Spectrum, noise: float, balance: float | None = None) -> FloatImage:
    """The Wiener filter, with the power spectrum of a photograph or a constant noise-to-signal ratio ``balance``."""
    if balance is not None:
        return _wiener(plane, response, balance, np.ones_like(response))
    power = _photograph_power(plane, response, noise)
    return _wiener(plane, response, noise**2, (1 / np.sqrt(power)).astype(response.dtype))


def _wiener(plane: FloatImage, response: Spectrum, balance: float, regulariser: Spectrum) -> FloatImage:
    restored = restoration.wiener(plane, response, balance, reg=regulariser, clip=False)  # type: ignore[no-untyped-call]
    return np.asarray(restored, np.float32)


def _photograph_power(plane: FloatImage, response: Spectrum, noise: float) -> NDArray[np.float32]:
    """The expected power of the sharp photo at each frequency, in units in which white noise has its variance.

    Photographs have power in inverse proportion to the squared frequency (Field, JOSA A 1987); how much there is
    follows from what came through.
    """
    height, width = plane.shape
    down, across = scipy.fft.fftfreq(height)[:, None], scipy.fft.rfftfreq(width)[None]
    shape = (1 / (down**2 + across**2 + 1 / (height * width))).astype(np.float32)
    through = np.abs(response) ** 2
    measured = np.abs(_transform(plane)) ** 2 / (height * width)
    told = through > 0.01
    told[0, 0] = False
    band = told & (shape < 400)  # shorter than 20 px: what is longer says little of detail
    if not band.any():
        band = told  # but is all that a wide blur lets through
    signal = float(np.maximum(measured[band] - noise**2, 0).sum()) / float((shape * through)[band].sum())
    return np.asarray(max(signal, 1e-9) * shape, np.float32)


def unsupervised_wiener(plane: FloatImage, response: Spectrum) -> FloatImage:
    """The Wiener filter whose noise and signal are estimated with it (Orieux et al., JOSA A 2010)."""
    estimate, _ = restoration.unsupervised_wiener(  # type: ignore[no-untyped-call]
        plane, response, clip=False, rng=0
    )
    return np.asarray(estimate, np.float32)


def richardson_lucy(plane: FloatImage, psf: PointSpread, noise: float) -> FloatImage:
    """Richardson-Lucy, stopped the earlier, the more noise there is to amplify."""
    iterations = int(np.clip(0.3 / noise, 8, 60))
    # scikit-image takes what is beyond the edges for black, which eats inwards: the period goes on there instead.
    pad = 4 * max(psf.kernel.shape)
    repeated = np.pad(np.maximum(plane, 1e-4), pad, mode="wrap")
    restored = restoration.richardson_lucy(  # type: ignore[no-untyped-call]
        repeated, psf.kernel, iterations, clip=False
    )
    return np.asarray(restored[pad:-pad, pad:-pad], np.float32)


def total_variation(rgb: FloatImage, response: Spectrum, noise: float) -> FloatImage:
    """The picture of least total variation that the blurred one can come from (Wang et al., FTVd, SIIMS 2008).

    The gradient, of all channels together, is split off and shrunk; both steps are closed forms. ``rgb`` is periodic.
    """
    fidelity = TV_FIDELITY / noise**2
    shape = (rgb.shape[0], rgb.shape[1])
    down, across = scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None]
    laplacian = (4 - 2 * np.cos(2 * np.pi * down) - 2 * np.cos(2 * np.pi * across)).astype(np.float32)
    channels = range(rgb.shape[2])
    seen = [response.conj() * _transform(rgb[..., channel]) for channel in channels]
    picture = rgb
    for penalty in (2.0**step for step in range(TV_STEPS)):
        ratio = np.float32(fidelity / penalty)
        normal = ratio * np.abs(response) ** 2 + laplacian
        for _ in range(2):
            dx, dy = np.roll(picture, -1, 1) - picture, np.roll(picture, -1, 0) - picture
            length = np.sqrt((dx**2 + dy**2).sum(2, keepdims=True))
            shrink = np.maximum(1 - 1 / np.maximum(np.float32(penalty) * length, 1e-9), 0)
            dx *= shrink
            dy *= shrink
            divergence = np.roll(dx, 1, 1) - dx + np.roll(dy, 1, 0) - dy
            planes = [
                _inverse_transform((ratio * seen[c] + _transform(divergence[..., c])) / normal, shape) for c in channels
            ]
            picture = np.stack(planes, 2)
    return picture


TV_FIDELITY, TV_STEPS = 0.05, 8
"""Weight of the data at unit noise variance and the number of penalties, each twice the last (ibid., sec. 5)."""


def half_quadratic_splitting(rgb: FloatImage, response: Spectrum, noise: float, prior: Prior) -> FloatImage:
    """Plug-and-play restoration with a denoiser for a prior (Zhang et al., DPIR, TPAMI 2021, sec. 4).

    Data step, closed in the Fourier domain, and denoising take turns, while the level of noise falls from HQS_FIRST
    to that of the photo. ``rgb`` is periodic; it is overwritten.
    """
    shape = (rgb.shape[0], rgb.shape[1])
    channels = range(rgb.shape[2])
    power = np.abs(response) ** 2
    seen = [response.conj() * _transform(rgb[..., channel]) for channel in channels]
    picture = rgb
    for level in np.geomspace(max(HQS_FIRST, noise), noise, HQS_STEPS):
        weight = np.float32(HQS_LAMBDA * noise**2 / level**2)
        for c in channels:
            spectrum = seen[c] + weight * _transform(picture[..., c])
            picture[..., c] = _inverse_transform(spectrum / (power + weight), shape)
        picture = prior.denoise(picture, float(level))
    return picture


def _transform(plane: FloatImage) -> Spectrum:
    return np.asarray(scipy.fft.rfft2(plane), np.complex64)


def _inverse_transform(spectrum: NDArray[Any], shape: tuple[int, ...]) -> FloatImage:
    return np.asarray(scipy.fft.irfft2(spectrum, s=shape), np.float32)
