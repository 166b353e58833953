"""Blind estimation of blur: the point-spread function read from the spectrum of a single photo.

Blur multiplies the spectrum by a transfer function whose zeros show: parallel dark bands for motion, rings for defocus.
As in homomorphic estimation (Cannon, *Blind Deconvolution of Spatially Invariant Image Blurs with Phase*, TASSP 1976)
the log power spectra of many patches are averaged: what the patches show averages out, the blur stays. From the average
a smooth model of a sharp photo's spectrum is subtracted. What is left is matched with the bands of every length and
angle of motion: a Radon transform sums along such bands, a cepstrum has a dip for their spacing, and this does both at
once. The best candidates, and all radii of a disc, are then fitted to the spectrum, window and noise included, and the
kind is decided by which fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.special
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage
from oldphoto.classical.noise import is_uniform
from oldphoto.classical.psf import PointSpread, defocus, motion
from oldphoto.errors import PhotoError

Array = NDArray[np.float64]

PATCH, SMALLEST = 192, 64
"""Sides of the patches, px, whose spectra are averaged; in a photo smaller than SMALLEST no blur can be told."""

MOST_PATCHES = 36

LENGTHS, RADII = (3.0, 64.0), (1.5, 24.0)
"""Lengths of motion and radii of defocus looked for, px, as far as they fit a quarter of a patch."""

FOUND, CERTAIN = 0.15, 0.45
"""Shares of the spectrum's structure that a blur explains: to the first it is none, from the second on certain."""


@dataclass(frozen=True)
class Blur:
    """A blur that was found, and from 0 to 1 how sure it is."""

    psf: PointSpread
    confidence: float


def estimate_blur(rgb: FloatImage) -> Blur | None:
    """The blur of a photo, H × W × 3 in [0, 1]; None where none shows: it is sharp, or blurred beyond telling."""
    side = min(PATCH, *rgb.shape[:2]) // 2 * 2
    if side < SMALLEST or is_uniform(rgb):
        return None
    spectrum = _measure(rgb, side)
    explained, psf = max((_fit_motion(spectrum), _fit_defocus(spectrum)), key=lambda fit: fit[0])
    if explained <= FOUND:
        return None
    return Blur(psf, float(min(1.0, (explained - FOUND) / (CERTAIN - FOUND))))


def find_psf(rgb: FloatImage) -> PointSpread:
    """The point-spread function of a blurred photo. Raises PhotoError where no blur is found."""
    blur = estimate_blur(rgb)
    if blur is None:
        raise PhotoError("no blur found: it is sharp, or blurred in a way that can not be told; name it with --psf")
    return blur.psf


@dataclass(frozen=True)
class _Spectrum:
    """The averaged log power spectrum, where it stands out from noise; all arrays by frequency, in one dimension.

    ``side``: of the patches, px; ``x``, ``y`` (up), ``radius``: the frequency, cycles a px; ``log_power``; ``noise``:
    its floor; ``basis``, ``inverse``: of the smooth model, its columns and their weighted pseudo-inverse; ``weight``:
    sums to 1; ``smooth``: the model, as power, for no blur; ``scatter``: mean square of what it leaves.
    """

    side: int
    x: Array
    y: Array
    radius: Array
    log_power: Array
    noise: float
    basis: Array
    inverse: Array
    weight: Array
    smooth: Array
    scatter: float

    def explained(self, transmitted: Array) -> float:
        """The share of the scatter that a blur explains, negative where it fits worse than none.

        ``transmitted``: its squared transfer function, as seen through the window.
        """
        expected = np.log(transmitted + _FAINT)
        for _ in range(4):
            smooth = np.exp(self.basis @ (self.inverse @ (self.log_power - expected)))
            expected = np.log(transmitted + self.noise / smooth)
        rest = self.log_power - expected - np.log(smooth)
        return 1 - _scatter(rest, self.weight) / self.scatter


def _measure(rgb: FloatImage, side: int) -> _Spectrum:
    """Average the spectra of the liveliest patches and fit the smooth model of a sharp photo's."""
    log_power = _log_power(rgb, side)
    down, across = scipy.fft.fftfreq(side)[:, None], scipy.fft.rfftfreq(side)[None]
    radius = np.hypot(down, across)
    # The lowest frequencies are the picture's composition, the highest a scanner's and a file format's.
    used = (radius > 2.5 / side) & (radius < 0.45) & ~((across == 0) & (down < 0))
    x, y = (np.broadcast_to(f, radius.shape)[used] for f in (across, -down))
    radius, log_power = radius[used], log_power[used]
    log_radius, angle = np.log(radius / 0.1), np.arctan2(y, x)
    noise = _floor(radius, angle, log_power)
    turns = [np.ones_like(angle), *(wave(k * angle) for k in (2, 4) for wave in (np.cos, np.sin))]
    basis = np.stack([*turns, *(turn * log_radius for turn in turns), log_radius**2], 1)
    weight, smooth, inverse = np.ones_like(radius), np.ones_like(radius), basis.T
    for _ in range(3):
        weighted = basis * weight[:, None]
        inverse = np.linalg.solve(weighted.T @ basis + 1e-3 * np.eye(basis.shape[1]), weighted.T)
        smooth = np.exp(basis @ (inverse @ log_power))
        weight = (smooth / (smooth + 2 * noise)) ** 2
    weight /= weight.sum()
    scatter = _scatter(log_power - np.log(smooth), weight)
    return _Spectrum(side, x, y, radius, log_power, noise, basis, inverse, weight, smooth, scatter)


def _floor(radius: Array, angle: Array, log_power: Array) -> float:
    """The power of white noise: the mean in the quietest of the fields that rings and sectors cut."""
    high = radius > 0.3
    ring = ((radius[high] - 0.3) / 0.03).astype(int)
    field = 8 * ring + ((angle[high] / np.pi + 0.5) * 8).astype(int) % 8
    counts = np.maximum(np.bincount(field), 1)
    means = np.bincount(field, log_power[high]) / counts
    return float(np.exp(means[counts > np.median(counts) / 2].min()))


def _log_power(rgb: FloatImage, side: int) -> Array:
    """The mean log power spectrum, side × (side // 2 + 1), of the livelier half of overlapping patches."""
    height, width = rgb.shape[:2]
    patches = []
    step = max(side // 3, round((height * width / MOST_PATCHES) ** 0.5))
    for top in _starts(height, side, step):
        for left in _starts(width, side, step):
            gray = rgb[top : top + side, left : left + side].mean(2, dtype=np.float64)
            patches.append(gray)
    liveliness = [float(np.abs(np.diff(patch, axis=0)).mean() + np.abs(np.diff(patch)).mean()) for patch in patches]
    profile = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    window = np.outer(profile, profile)
    total = np.zeros((side, side // 2 + 1))
    kept = np.argsort(liveliness)[len(patches) // 2 :]
    for index in kept:
        patch = patches[index]
        centred = patch - (patch * window).sum() / window.sum()
        total += np.log(np.abs(scipy.fft.rfft2(centred * window)) ** 2 / (window**2).sum() + 1e-12)
    return total / len(kept)


def _starts(length: int, side: int, step: int) -> list[int]:
    """Where patches of ``side`` start along an axis, at most ``step`` apart, the last at the end."""
    count = -(-(length - side) // step) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def _scatter(rest: Array, weight: Array) -> float:
    """The weighted mean square about the mean, outliers (a pattern in the photo, a band of a screen) limited."""
    rest = np.clip(rest - np.median(rest), -3, 2)
    return float(weight @ (rest - weight @ rest) ** 2)


_FAINT = 3e-4
"""The squared transfer function below which nothing is reckoned with, before noise is known."""

_BLEED = 1 / 3
"""Mean square, in squared frequency bins, of how far the window smears the spectrum: a zero is seen filled by it."""


def _motion_transmitted(spectrum: _Spectrum, length: float, angle: float) -> Array:
    """The squared transfer function of motion, sinc²(L u), and what the window bleeds into its zeros."""
    u = spectrum.x * np.cos(np.radians(angle)) + spectrum.y * np.sin(np.radians(angle))
    u = np.where(np.abs(u) < 1e-9, 1e-9, u)
    sinc = np.sinc(length * u)
    slope = (np.cos(np.pi * length * u) - sinc) / u
    return np.asarray(sinc**2 + _BLEED * (slope / spectrum.side) ** 2)


def _defocus_transmitted(spectrum: _Spectrum, radius: float) -> Array:
    """The squared transfer function of a disc, (2 J₁(z) / z)², likewise."""
    z = 2 * np.pi * radius * spectrum.radius
    slope = 4 * np.pi * radius * scipy.special.jv(2, z) / z
    return np.asarray((2 * scipy.special.j1(z) / z) ** 2 + _BLEED * (slope / spectrum.side) ** 2)


def _fit_motion(spectrum: _Spectrum) -> tuple[float, PointSpread]:
    """The motion that fits best, and what it explains."""

    def explained(length: float, angle: float) -> float:
        return spectrum.explained(_motion_transmitted(spectrum, length, angle))

    best = max((_refine(explained, candidate) for candidate in _motion_candidates(spectrum)), key=lambda fit: fit[0])
    return best[0], motion(round(best[1], 1), round(best[2] % 180, 1))


def _refine(explained: Callable[[float, float], float], start: tuple[float, float]) -> tuple[float, float, float]:
    """Climb from a length and angle to the best near it."""
    length, angle = start
    best = (explained(length, angle), length, angle)
    along, turn = 0.7, min(8.0, 60 / length)
    while along > 0.05:
        around = [(best[1] + i * along, best[2] + j * turn) for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        better = max((explained(*at), *at) for at in around if at[0] >= LENGTHS[0])
        if better[0] > best[0]:
            best = better
        else:
            along, turn = along / 2, turn / 2
    return best


def _motion_candidates(spectrum: _Spectrum, count: int = 8) -> list[tuple[float, float]]:
    """Lengths and angles by matched filtering of the flattened spectrum: the best ``count`` that are not neighbours."""
    coarse = spectrum.radius < 0.25
    weight = spectrum.weight[coarse]
    rest = np.clip(spectrum.log_power - np.log(spectrum.smooth), -3, 3)[coarse]
    floor = (spectrum.noise / spectrum.smooth)[coarse]
    x, y = spectrum.x[coarse], spectrum.y[coarse]
    basis = spectrum.basis[coarse]
    weighted = basis * weight[:, None]
    inverse = np.linalg.solve(weighted.T @ basis + 1e-6 * np.eye(basis.shape[1]), weighted.T)
    rest = rest - basis @ (inverse @ rest)
    longest = min(LENGTHS[1], spectrum.side / 4)
    scored = []
    length = LENGTHS[0]
    while length <= longest:
        for angle in np.arange(0, 180, min(15.0, 75 / length)):
            u = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
            pattern = np.log(np.sinc(length * u) ** 2 + floor + 2e-3)
            pattern -= basis @ (inverse @ pattern)
            fit = weight @ (pattern * rest) / np.sqrt(weight @ pattern**2)
            scored.append((float(fit), float(length), float(angle)))
        length += max(0.8, 0.05 * length)
    chosen: list[tuple[float, float]] = []
    for _, length, angle in sorted(scored, reverse=True):
        near = [
            abs(length - other) < 2.5 and length * abs((angle - turned + 90) % 180 - 90) < 150
            for other, turned in chosen
        ]
        if not any(near):
            chosen.append((length, angle))
        if len(chosen) == count:
            break
    return chosen


def _fit_defocus(spectrum: _Spectrum) -> tuple[float, PointSpread]:
    """The disc that fits best, and what it explains."""

    def explained(radius: float) -> float:
        return spectrum.explained(_defocus_transmitted(spectrum, radius))

    coarse = np.arange(RADII[0], min(RADII[1], spectrum.side / 8), 0.4)
    middle = max(coarse, key=explained)
    best = max(np.arange(max(RADII[0], middle - 0.4), middle + 0.4, 0.05), key=explained)
    return explained(best), defocus(round(float(best), 2))
