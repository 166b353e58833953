"""Denoising by the technique that fits the noise, and the single techniques it is compared with."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.ndimage
import scipy.special
from skimage import restoration

from oldphoto.arrays import FloatImage, is_gray, neutralise
from oldphoto.classical.learned import Denoiser
from oldphoto.classical.methods import DENOISING
from oldphoto.classical.noise import Noise, estimate_noise, impulse_mask, measure, noise_sigma
from oldphoto.errors import PhotoError, UsageError
from oldphoto.pyramid import doubled, halve, strips

NEEDS_NETWORK = frozenset({"auto", "learned"})

LEAST_CONTRAST = 0.06
"""In a photo known to have impulses, black and white pixels this far from the median around them are taken for some."""

GRAIN_HALVINGS, GRAIN_EXCESS = 2, 2.5
"""How often a grainy photo is halved, and how much more noise it has than its finest structure, measured, shows."""

MOST_JPEG = 0.03
"""The noise level, of 1, that compression is taken for at most."""


@dataclass(frozen=True)
class Denoised:
    """A denoised photo, H × W × 3 in [0, 1], and the noise that was found, where it was looked for."""

    rgb: FloatImage
    noise: Noise | None = None


def require(method: str) -> None:
    """Raise UsageError unless a method is known and, for bm3d, its package installed."""
    if method not in DENOISING:
        raise UsageError(f"{method}: not a method of denoising; use one of {', '.join(DENOISING)}")
    if method == "bm3d" and importlib.util.find_spec("bm3d") is None:
        raise UsageError("bm3d is not installed: pip install bm3d (mind its licence), or use another --method")


def denoise(rgb: FloatImage, method: str = "auto", denoiser: Denoiser | None = None) -> Denoised:
    """Take the noise out of a photo; its level is estimated, and the input is not changed.

    "auto" applies what fits the noise: nothing to a clean photo; the learned denoiser, told how noise grows with
    brightness, to Gaussian noise, photons and speckle, coarse scales first for grain; to impulses a detector, and
    what surrounds them.

    Raises
    ------
    UsageError
        The method is unknown, its package is not installed, or it needs a denoiser and has none.
    """
    require(method)
    if method in NEEDS_NETWORK and denoiser is None:
        raise UsageError(f"{method} needs the learned denoiser")
    noise = None
    if method == "auto" and denoiser is not None:
        try:
            noise = estimate_noise(rgb)
        except PhotoError:  # too small or empty: there is no noise that could be told from a picture
            return Denoised(rgb.copy())
        if noise.type == "none":
            return Denoised(rgb.copy(), noise)
        result = fitting(rgb, noise, denoiser)
    elif method == "learned" and denoiser is not None:
        result = denoiser.denoise(rgb, noise_sigma(rgb))
    elif method == "median":
        result = _by_channel(rgb, lambda plane: np.asarray(cv2.medianBlur(plane, 3), np.float32))
    elif method == "adaptive-median":
        result = _by_channel(rgb, adaptive_median)
    elif method == "tv":
        result = restoration.denoise_tv_chambolle(  # type: ignore[no-untyped-call]
            rgb, weight=max(TV_WEIGHT * noise_sigma(rgb), 1e-4), channel_axis=-1
        )
    elif method == "tv-poisson":
        peak = _peak(rgb)
        result = _by_channel(rgb, lambda plane: tv_poisson(plane, peak))
    elif method == "nlm":
        sigma = noise_sigma(rgb)
        result = restoration.denoise_nl_means(
            rgb, patch_size=5, patch_distance=6, h=max(0.8 * sigma, 1e-4), sigma=sigma, fast_mode=True, channel_axis=-1
        )
    else:
        bm3d = importlib.import_module("bm3d")
        result = bm3d.bm3d(rgb, sigma_psd=max(noise_sigma(rgb), 1e-4))
    return Denoised(_finished(rgb, result), noise)


TV_WEIGHT = 1.0
"""Weight of total variation over the standard deviation of the noise."""


def fitting(rgb: FloatImage, noise: Noise, denoiser: Denoiser) -> FloatImage:
    """A photo without noise that is known, by the technique that fits its type."""
    level = noise.level
    if noise.type == "gaussian":
        return _uncut(rgb, denoiser.denoise(rgb, level), 0.0, level)
    if noise.type == "poisson":
        return _signal_dependent(rgb, denoiser, 0.5, max(level, 1.0) ** -0.5)
    if noise.type == "speckle":
        return _signal_dependent(rgb, denoiser, 1.0, level)
    if noise.type == "salt-and-pepper":
        return _by_channel(rgb, without_impulses)
    if noise.type == "grain":
        return _coarse_to_fine(rgb, denoiser)
    if noise.type == "jpeg":
        return denoiser.denoise(rgb, min(2 * level, MOST_JPEG))
    return rgb


def _signal_dependent(rgb: FloatImage, denoiser: Denoiser, exponent: float, scale: float) -> FloatImage:
    """Denoise with a level of ``scale · brightness^exponent``; the brightness is first a blur's, then a result's."""
    brightness = cv2.GaussianBlur(rgb, (0, 0), 3)
    for _ in range(2):
        level = np.float32(scale) * np.maximum(cv2.blur(brightness, (5, 5)), 1 / 255) ** np.float32(exponent)
        brightness = denoiser.denoise(rgb, np.asarray(level, np.float32))
    return _uncut(rgb, np.asarray(brightness, np.float32), exponent, scale)


def _uncut(rgb: FloatImage, denoised: FloatImage, exponent: float, scale: float) -> FloatImage:
    """Put back what a photo's denoising takes from black and white, where the file cut the noise off; in place.

    A mean over noise of which one half is cut off is gray where it should be black or white, by up to 0.4 of its
    deviation ``scale · brightness^exponent``. What the mean of each brightness is follows from that, and is inverted
    (Foi, *Clipped noisy images*, Signal Processing 2009). Only at an end of the range where as many pixels lie as this
    predicts: noise that was there before a scan was faded is whole. Photons and speckle reach no lower than black.
    """
    brightness = np.linspace(0, 1, 1025)
    sigma = np.maximum(scale * np.maximum(brightness, 1e-4) ** exponent, 1e-6)
    mean = brightness.copy()
    sample, seen = denoised[::4, ::4], rgb[::4, ::4]
    for end, distance in ((0, brightness), (1, 1 - brightness)):
        beyond = scipy.special.ndtr(-distance / sigma)
        expected = np.interp(sample, brightness, beyond).mean()
        if (end == 1 or exponent == 0) and (seen == end).mean() > expected / 2:
            density = np.exp(-((distance / sigma) ** 2) / 2) / np.sqrt(2 * np.pi)
            mean += (1 - 2 * end) * (sigma * density - distance * beyond)
    mean = np.maximum.accumulate(mean)
    for rows in strips(len(denoised)):
        denoised[rows] = np.interp(denoised[rows], mean, brightness)
    return denoised


def _coarse_to_fine(rgb: FloatImage, denoiser: Denoiser, halvings: int = GRAIN_HALVINGS) -> FloatImage:
    """Denoise at a quarter of the size first, where grain a few pixels wide is as white noise, then what is left."""
    picture = rgb.copy()
    if halvings:
        coarse = halve(picture)
        change = _coarse_to_fine(coarse, denoiser, halvings - 1) - coarse
        for rows, strip in doubled(change, picture.shape):
            picture[rows] += strip
    return denoiser.denoise(picture, (GRAIN_EXCESS if halvings else 1) * noise_sigma(picture))


def without_impulses(plane: FloatImage) -> FloatImage:
    """A plane, H × W, in which black and white pixels that stand out are filled from those around them.

    A detector-guided filter: all other pixels stay as they are. Each hole takes a mean of the intact pixels near it,
    weighted by a Gaussian as narrow as finds enough of them.
    """
    open_ = impulse_mask(plane, LEAST_CONTRAST)
    known = (~open_).astype(np.float32)
    filled = plane.copy()
    for sigma in (0.6, 1.2, 2.4, 4.8):
        weight = cv2.GaussianBlur(known, (0, 0), sigma)
        ready = open_ & (weight > 0.2)
        filled[ready] = (cv2.GaussianBlur(known * plane, (0, 0), sigma) / np.maximum(weight, 1e-6))[ready]
        open_ &= ~ready
    return filled


def adaptive_median(plane: FloatImage, largest: int = 7) -> FloatImage:
    """The adaptive median filter, windows of 3 to ``largest`` px (Hwang and Haddad, TIP 1995, algorithm RAMF)."""
    result = plane.copy()
    open_ = np.ones(plane.shape, bool)
    for side in range(3, largest + 1, 2):
        window = np.ones((side, side), np.uint8)
        low, high = cv2.erode(plane, window), cv2.dilate(plane, window)
        median = cv2.medianBlur(plane, side) if side <= 5 else scipy.ndimage.median_filter(plane, side)
        sound = open_ & (low < median) & (median < high)  # the median is no impulse
        replaced = sound & ((plane <= low) | (plane >= high))
        result[replaced] = median[replaced]
        open_ &= ~sound
        if side == largest:
            result[open_] = median[open_]
    return result


def tv_poisson(plane: FloatImage, peak: float, iterations: int = 60) -> FloatImage:
    """Total variation with the likelihood of Poisson noise of ``peak`` photons at white.

    The model is that of Le, Chartrand and Asaki (JMIV 2007), solved by the primal-dual algorithm of Chambolle and Pock
    (JMIV 2011, algorithm 1), whose proximal map of this likelihood is a closed form.
    """
    smoothness, tau = np.float32(np.sqrt(peak)), np.float32(0.05 / np.sqrt(peak))
    sigma = np.float32(1 / (8 * tau))
    picture = ahead = np.maximum(plane, 1e-3)
    dual_x, dual_y = np.zeros_like(plane), np.zeros_like(plane)
    for _ in range(iterations):
        dual_x[:, :-1] += sigma * np.diff(ahead, axis=1)
        dual_y[:-1] += sigma * np.diff(ahead, axis=0)
        excess = np.maximum(np.sqrt(dual_x**2 + dual_y**2) / smoothness, 1)
        dual_x /= excess
        dual_y /= excess
        divergence = np.diff(dual_x, axis=1, prepend=0) + np.diff(dual_y, axis=0, prepend=0)
        moved = picture + tau * (divergence - np.float32(peak))
        updated = (moved + np.sqrt(moved**2 + 4 * tau * np.float32(peak) * plane)) / 2
        ahead = 2 * updated - picture
        picture = updated
    return np.asarray(picture, np.float32)


def _peak(rgb: FloatImage) -> float:
    """The photons at white that a photo's noise would come from."""
    try:
        return float(np.clip(measure(rgb).levels["poisson"], 1, 1e4))
    except PhotoError:
        return 1e4


def _by_channel(rgb: FloatImage, function: Callable[[FloatImage], FloatImage]) -> FloatImage:
    """Apply a function to each channel, to one alone where all are the same."""
    if is_gray(rgb):
        return np.repeat(function(np.ascontiguousarray(rgb[..., 0]))[..., None], 3, 2)
    return np.stack([function(np.ascontiguousarray(rgb[..., channel])) for channel in range(3)], 2)


def _finished(rgb: FloatImage, result: FloatImage) -> FloatImage:
    """The result in [0, 1], gray where the photo is."""
    # scikit-image drops axes of one pixel.
    finished = np.ascontiguousarray(result.reshape(rgb.shape).clip(0, 1), np.float32)
    if is_gray(rgb):
        neutralise(finished)
    return finished
