"""What noise a photo has, and how much, from the photo alone.

Features of the residual (what is left when the picture is taken out) are measured, and a small classifier, trained by
``scripts/train_noise_types.py``, names the type. The residual is that of Immerkær (*Fast Noise Variance Estimation*,
CVIU 1996); the dependence of its variance on brightness tells additive noise (none), photons (linear) and speckle
(quadratic) apart, as in Foi et al. (*Practical Poissonian-Gaussian Noise Modeling*, TIP 2008); coarser scales and the
channels tell noise from texture; the 8-px grid tells JPEG.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import cv2
import numpy as np
import scipy.optimize
from numpy.random import Generator
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage, is_gray
from oldphoto.classical.margins import inside_margin
from oldphoto.errors import PhotoError

Array = NDArray[np.float64]

TYPES = ("none", "gaussian", "poisson", "salt-and-pepper", "speckle", "jpeg", "grain")

IMPULSE = 0.2
"""How far a black or white pixel is from the median around it, at least, to be taken for an impulse."""

_BLOCK = 8
_SAMPLE, _MOST_SAMPLES = 512, 9
"""Noise is measured in at most _MOST_SAMPLES squares of this side, px, spread over the photo."""

_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
_QUIET = 0.2
"""The share of the blocks of each brightness, the quietest, that noise is measured in: the others hold texture too."""

SMALLEST = 16
"""Sides, px, of a photo below which its noise can not be measured."""


@dataclass(frozen=True)
class Noise:
    """The noise of a photo.

    ``type``: one of TYPES; ``level``: the standard deviation, of 1, for gaussian, grain and jpeg (of the steps between
    blocks), the relative one for speckle, the photons at white for poisson, the share of the pixels for
    salt-and-pepper, 0 for none; ``confidence``: probability that the type is right.
    """

    type: str
    level: float
    confidence: float


def estimate_noise(rgb: FloatImage) -> Noise:
    """Type and level of a photo's noise, H × W × 3 in [0, 1].

    Raises PhotoError where there is nothing to measure: fewer than 16 × 16 px, or a picture all of one value.
    """
    measured = measure(rgb)
    probabilities = _classifier().probabilities(measured.features)
    index = int(probabilities.argmax())
    level = round(measured.levels[TYPES[index]], 4)
    return Noise(TYPES[index] if level > 0 else "none", level, round(float(probabilities[index]), 3))


def is_uniform(rgb: FloatImage) -> bool:
    """Whether a picture is all of one value (to half a step of 8 bits), so that there is nothing to measure in it."""
    return bool(np.ptp(rgb) < 1 / 512)


def noise_sigma(rgb: FloatImage) -> float:
    """The standard deviation of a photo's white noise, of 1, whatever its type; 0 where nothing can be measured."""
    if min(rgb.shape[:2]) < SMALLEST:
        return 0.0
    rgb = _picture(rgb)
    planes = [_without_impulses(plane)[0] for plane in _planes(_samples(rgb)[0])]
    blocks = [_blocks(plane) for plane in planes]
    quiet = [float(np.quantile(variance, _QUIET)) for _, variance in blocks if variance.size]
    return float(np.sqrt(np.mean(quiet) / _quiet_share())) if quiet else 0.0


@dataclass(frozen=True)
class Measurement:
    """The features of a photo's residual, by name, and the level that each type of noise would have."""

    features: Mapping[str, float]
    levels: Mapping[str, float]


def measure(rgb: FloatImage) -> Measurement:
    """Measure the features that tell types of noise apart. Raises PhotoError as estimate_noise does."""
    if min(rgb.shape[:2]) < SMALLEST:
        raise PhotoError(f"{rgb.shape[1]} × {rgb.shape[0]} px: too small to measure its noise ({SMALLEST} px at least)")
    if is_uniform(rgb):
        raise PhotoError("the picture is all of one value: there is nothing to measure")
    samples = _samples(_picture(rgb))
    planes = [plane for sample in samples for plane in _planes(sample)]
    cleaned = [_without_impulses(plane) for plane in planes]
    impulses = float(np.mean([share for _, share in cleaned]))
    fine = [_blocks(plane) for plane, _ in cleaned]
    coarse = [_blocks(_halved(plane)) for plane, _ in cleaned]
    coarser = [_blocks(_halved(_halved(plane))) for plane, _ in cleaned]
    brightness, variance = (np.concatenate(parts) for parts in zip(*fine, strict=True))
    constant, linear, quadratic = _variance_curve(brightness, variance)
    middle = float(np.sqrt(np.mean(brightness**2))) if brightness.size else 0.5
    parts = np.array([constant, linear * middle, quadratic * middle**2]) + 1e-9
    sigma = _quiet_sigma(variance)
    sigma_half, sigma_quarter = (_quiet_sigma(np.concatenate([v for _, v in level])) for level in (coarse, coarser))
    expected = constant + linear * brightness + quadratic * brightness**2 + 1e-7
    relative = variance / expected
    spread = np.log(np.quantile(relative, [0.1, 0.2, 0.5, 0.8]) + 1e-3) if relative.size else np.zeros(4)
    grid, step = _blocking(np.mean([sample.mean(2) for sample in samples[:1]], 0))
    features = {
        "impulses": np.log10(impulses + 1e-4),
        "sigma": np.log10(sigma + 1e-4),
        "sigma at 1/2": np.log10((sigma_half + 1e-4) / (sigma + 1e-4)),
        "sigma at 1/4": np.log10((sigma_quarter + 1e-4) / (sigma_half + 1e-4)),
        "linear": np.log10(parts[1] / parts[0]).clip(-3, 3),
        "quadratic": np.log10(parts[2] / parts[0]).clip(-3, 3),
        "linear share": parts[1] / parts.sum(),
        "quadratic share": parts[2] / parts.sum(),
        "slope": _log_slope(brightness, variance),
        "evenness": spread[2] - spread[1],
        "tail": spread[3] - spread[2],
        "neighbours": float(np.mean([_neighbour_correlation(plane) for plane, _ in cleaned])),
        "channels": float(np.mean([_channel_correlation(sample) for sample in samples])),
        "grid": grid,
        "extremes": float(np.mean([((plane <= 0) | (plane >= 1)).mean() for plane in planes])),
        "kurtosis": float(np.mean([_kurtosis(plane) for plane, _ in cleaned])),
    }
    total = max(linear + quadratic * middle + constant / max(middle, 0.1), 1e-6)
    levels = {
        "none": 0.0,
        "gaussian": sigma,
        "poisson": 1 / total,
        "salt-and-pepper": impulses,
        "speckle": float(np.sqrt(quadratic + (linear + constant / max(middle, 0.1)) / max(middle, 0.1))),
        "jpeg": step,
        "grain": max(sigma, 2 * sigma_half),
    }
    return Measurement({name: float(value) for name, value in features.items()}, levels)


def add_noise(rgb: FloatImage, type: str, level: float, rng: Generator) -> FloatImage:
    """A picture, H × W × 3 in [0, 1], with noise of one of TYPES, cut off at black and white; gray stays gray.

    ``level``: as in Noise; for jpeg the quality, 1 to 100. Grain is Gaussian noise seen through a Gaussian of one px.
    """
    gray = is_gray(rgb)
    plane = np.asarray(rgb[..., :1] if gray else rgb, np.float64)
    if type == "gaussian":
        noisy = plane + level * rng.standard_normal(plane.shape)
    elif type == "poisson":
        noisy = rng.poisson(level * plane) / level
    elif type == "salt-and-pepper":
        chance = rng.random(plane.shape)
        noisy = np.where(chance < level / 2, 0, np.where(chance > 1 - level / 2, 1, plane))
    elif type == "speckle":
        noisy = plane * (1 + level * rng.standard_normal(plane.shape))
    elif type == "grain":
        grain = np.asarray(cv2.GaussianBlur(rng.standard_normal(plane.shape), (0, 0), 1)).reshape(plane.shape)
        noisy = plane + level * grain / grain.std()
    elif type == "jpeg":
        stored = np.round(plane[..., ::-1] * 255).astype(np.uint8)
        _, code = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, round(level)])
        decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_UNCHANGED), np.float64)
        noisy = decoded.reshape(plane.shape)[..., ::-1] / 255
    else:
        noisy = plane
    return np.ascontiguousarray(np.broadcast_to(noisy.clip(0, 1), rgb.shape), np.float32)


def impulse_mask(plane: FloatImage, contrast: float = IMPULSE) -> NDArray[np.bool_]:
    """Where a plane, H × W in [0, 1], has black or white pixels at least ``contrast`` from the median around them."""
    extreme = (plane <= 1.5 / 255) | (plane >= 253.5 / 255)
    median = cv2.medianBlur(np.ascontiguousarray(plane), 5)
    return np.asarray(extreme & (np.abs(plane - median) > contrast))


def _picture(rgb: FloatImage) -> FloatImage:
    """The photo without a margin that a program filled: in one value there is no noise, whatever there is beside it."""
    inside = rgb[inside_margin(rgb, spread=0)]
    return inside if min(inside.shape[:2]) >= SMALLEST else rgb


def _samples(rgb: FloatImage) -> list[FloatImage]:
    """The photo, or squares spread over a large one."""
    height, width = rgb.shape[:2]
    if height * width <= 2 * _SAMPLE**2:
        return [rgb]
    side = int(_MOST_SAMPLES**0.5)
    tops = np.linspace(0, max(0, height - _SAMPLE), side).astype(int)
    lefts = np.linspace(0, max(0, width - _SAMPLE), side).astype(int)
    # Squares begin at multiples of 8, so that the grid of JPEG is in the same place in all.
    return [rgb[top // 8 * 8 :, left // 8 * 8 :][:_SAMPLE, :_SAMPLE] for top in tops for left in lefts]


def _planes(rgb: FloatImage) -> list[FloatImage]:
    """The channels, or the one that a gray photo has."""
    if np.ptp(rgb, 2).max() < 1e-4:
        return [np.ascontiguousarray(rgb[..., 1])]
    return [np.ascontiguousarray(rgb[..., channel]) for channel in range(3)]


def _without_impulses(plane: FloatImage) -> tuple[FloatImage, float]:
    """The plane with its impulses replaced by medians, and their share."""
    mask = impulse_mask(plane)
    return np.where(mask, cv2.medianBlur(plane, 5), plane), float(mask.mean())


def _halved(plane: FloatImage) -> FloatImage:
    height, width = plane.shape
    return np.asarray(cv2.resize(plane, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA))


def _blocks(plane: FloatImage) -> tuple[Array, Array]:
    """Brightness and residual variance of the blocks of a plane that are not cut off at black or white."""
    residual = cv2.filter2D(plane, -1, _LAPLACIAN)[1:-1, 1:-1] ** 2
    rows, columns = (max(1, side // _BLOCK) for side in residual.shape)
    shape = (columns, rows)
    variance = cv2.resize(residual, shape, interpolation=cv2.INTER_AREA).ravel().astype(np.float64)
    brightness = cv2.resize(plane[1:-1, 1:-1], shape, interpolation=cv2.INTER_AREA).ravel().astype(np.float64)
    cut = ((plane <= 0.5 / 255) | (plane >= 254.5 / 255))[1:-1, 1:-1].astype(np.float32)
    whole = cv2.resize(cut, shape, interpolation=cv2.INTER_AREA).ravel() < 0.05
    if whole.sum() < 8:  # a page, a drawing: cut off nearly everywhere
        whole[:] = True
    return brightness[whole], variance[whole]


@cache
def _quiet_share() -> float:
    """The _QUIET quantile of a block's residual variance, of its mean, for white noise."""
    rng = np.random.default_rng(0)
    plane = (0.5 + 0.02 * rng.standard_normal((512, 512))).astype(np.float32)
    return float(np.quantile(_blocks(plane)[1], _QUIET)) / 0.02**2


def _quiet_sigma(variance: Array) -> float:
    return float(np.sqrt(np.quantile(variance, _QUIET) / _quiet_share())) if variance.size else 0.0


def _bins(brightness: Array, variance: Array) -> tuple[Array, Array, Array]:
    """Brightness, noise variance and count of up to 12 groups of blocks of like brightness."""
    order = np.argsort(brightness)
    groups = np.array_split(order, int(np.clip(len(order) // 40, 3, 12)))
    groups = [group for group in groups if len(group)]
    centres = np.array([brightness[group].mean() for group in groups])
    levels = np.array([np.quantile(variance[group], _QUIET) / _quiet_share() for group in groups])
    return centres, levels, np.array([len(group) for group in groups], np.float64)


def _variance_curve(brightness: Array, variance: Array) -> tuple[float, float, float]:
    """Variance as ``constant + linear · brightness + quadratic · brightness²``, none of them negative."""
    if brightness.size < 3:
        return 0.0, 0.0, 0.0
    centres, levels, counts = _bins(brightness, variance)
    design = np.stack([np.ones_like(centres), centres, centres**2], 1)
    # The error of a variance is proportional to it. Texture adds to it, and what a file rounds off takes from it: where
    # a level and the curve differ, the larger is reckoned with, so that neither draws the curve to itself.
    scale = np.maximum(levels, 0.1 * np.median(levels))
    for _ in range(5):
        weight = np.sqrt(counts) / (scale + 1e-6)
        solution, _ = scipy.optimize.nnls(design * weight[:, None], levels * weight)
        scale = np.maximum(levels, design @ solution)
    return float(solution[0]), float(solution[1]), float(solution[2])


def _log_slope(brightness: Array, variance: Array) -> float:
    """The exponent of the growth of variance with brightness: 0 additive, 1 photons, 2 speckle."""
    if brightness.size < 3:
        return 0.0
    centres, levels, counts = _bins(brightness, variance)
    x, y = np.log(centres + 0.02), np.log(levels + 1e-7)
    weight = counts / counts.sum()
    x = x - weight @ x
    return float(np.clip(weight @ (x * y) / (weight @ x**2 + 0.02), -4, 4))


def _neighbour_correlation(plane: FloatImage) -> float:
    """Correlation of horizontal and vertical neighbours in the residual of the quietest blocks; white noise: -0.67."""
    residual = cv2.filter2D(plane, -1, _LAPLACIAN)[1:-1, 1:-1]
    local = cv2.blur(residual**2, (_BLOCK, _BLOCK))
    quiet = local <= np.quantile(local[::4, ::4], 2 * _QUIET)
    here = residual[:-1, :-1][quiet[:-1, :-1]]
    below, beside = residual[1:, :-1][quiet[:-1, :-1]], residual[:-1, 1:][quiet[:-1, :-1]]
    power = float(here @ here)
    return float((here @ below + here @ beside) / (2 * power)) if power > 0 else 0.0


def _channel_correlation(rgb: FloatImage) -> float:
    """Correlation of the residuals of green with red and blue in the quietest places; 1 for a gray photo."""
    residual = cv2.filter2D(rgb, -1, _LAPLACIAN)[1:-1, 1:-1]
    local = cv2.blur(residual[..., 1] ** 2, (_BLOCK, _BLOCK))
    quiet = residual[local <= np.quantile(local[::4, ::4], 2 * _QUIET)]
    power = np.sqrt((quiet**2).sum(0)) + 1e-6
    return float((quiet[:, 1] @ quiet[:, 0] / power[0] + quiet[:, 1] @ quiet[:, 2] / power[2]) / (2 * power[1]))


def _blocking(gray: FloatImage) -> tuple[float, float]:
    """How much larger steps are at one phase of an 8-px grid than elsewhere, as a logarithm, and the excess itself."""
    ratios, steps = [], []
    for plane in (gray, gray.T):
        bend = np.abs(plane[:, 1:-2] - plane[:, 2:-1]) - 0.5 * (
            np.abs(plane[:, :-3] - plane[:, 1:-2]) + np.abs(plane[:, 2:-1] - plane[:, 3:])
        )
        profile = np.clip(bend, -0.05, 0.05).mean(0)
        phases = np.array([profile[phase::8].mean() for phase in range(8)])
        peak = int(phases.argmax())
        rest = np.delete(phases, peak)
        ratios.append((phases[peak] - rest.mean()) / (rest.std() + 2e-5))
        steps.append(phases[peak] - rest.mean())
    return float(np.log(max(min(ratios), 1e-2))), float(max(min(steps), 0.0))


def _kurtosis(plane: FloatImage) -> float:
    """The logarithm of the kurtosis of the residual, each block brought to one variance; white noise: log 3."""
    residual = cv2.filter2D(plane, -1, _LAPLACIAN)[1:-1, 1:-1]
    local = cv2.blur(residual**2, (_BLOCK + 1, _BLOCK + 1)) + 1e-9
    return float(np.log(np.mean((residual**2 / local) ** 2) + 1e-6))


@dataclass(frozen=True)
class _Classifier:
    """Multinomial logistic regression on standardised features and their squares."""

    names: tuple[str, ...]
    mean: Array
    deviation: Array
    weights: Array

    def probabilities(self, features: Mapping[str, float]) -> Array:
        x = (np.array([features[name] for name in self.names]) - self.mean) / self.deviation
        logits = expand(x[None])[0] @ self.weights
        exponents = np.exp(logits - logits.max())
        return np.asarray(exponents / exponents.sum())


def expand(x: Array) -> Array:
    """Standardised features N × F with a constant and their squares, N × (1 + 2 F): a type may be a band of values."""
    x = x.clip(-4, 4)
    return np.concatenate([np.ones((len(x), 1)), x, x**2], 1)


@cache
def _classifier() -> _Classifier:
    content = json.loads((resources.files(__package__) / "noise_types.json").read_text(encoding="utf-8"))
    arrays = (np.asarray(content[key], np.float64) for key in ("mean", "deviation", "weights"))
    return _Classifier(tuple(content["features"]), *arrays)
