"""Point-spread functions: what a single point of light becomes in a blurred photo.

A kernel is float32, h × w, both odd, its middle the origin; it is not negative and sums to 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage
from oldphoto.errors import PhotoError, UsageError

Spectrum = NDArray[np.complex64]

LONGEST = 256
"""Blur longer than this, px, is refused: nothing is left behind it to bring back, and a typing error is likelier."""

BRIGHT_RIM = 0.5
"""An image whose outermost pixels are on average brighter than this share of its brightest is no point-spread function,
but one drawn dark on white, or a photo."""

_SUPERSAMPLING = 15
"""Points along each side of a pixel at which a shape's coverage of it is counted."""

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_FORMS = "auto, motion:LENGTH,ANGLE, defocus:RADIUS, gaussian:SIGMA or an image file"


@dataclass(frozen=True, eq=False)
class PointSpread:
    """A point-spread function.

    ``kind``: "motion", "defocus", "gaussian" or "file"; ``text``: what names it on the command line
    (``motion:15,30``); ``kernel``: h × w, odd, sums to 1.
    """

    kind: str
    text: str
    kernel: FloatImage


def motion(length: float, angle: float) -> PointSpread:
    """Uniform motion over ``length`` px at ``angle`` degrees, counter-clockwise from the x axis.

    The path is one pixel wide; each pixel counts by the share of it that is covered, so that length and angle may be
    any number. Raises UsageError unless 1 <= length <= LONGEST and the angle is finite.
    """
    _require(1 <= length <= LONGEST and math.isfinite(angle), f"motion:{length:g},{angle:g}", f"1 to {LONGEST} px long")
    across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def covered(x: FloatImage, y: FloatImage) -> NDArray[np.bool_]:
        return (np.abs(x * across - y * up) < length / 2) & (np.abs(x * up + y * across) < 0.5)

    return PointSpread("motion", f"motion:{length:g},{angle:g}", _coverage(covered, length / 2 + 0.5))


def defocus(radius: float) -> PointSpread:
    """A lens out of focus: a disc of ``radius`` px, anti-aliased. Raises UsageError unless 0.5 <= radius <= 128."""
    _require(0.5 <= radius <= LONGEST / 2, f"defocus:{radius:g}", f"a radius of 0.5 to {LONGEST // 2} px")
    kernel = _coverage(lambda x, y: x * x + y * y < radius * radius, radius)
    return PointSpread("defocus", f"defocus:{radius:g}", kernel)


def gaussian(sigma: float) -> PointSpread:
    """A Gaussian of ``sigma`` px, integrated over each pixel. Raises UsageError unless 0 < sigma <= LONGEST / 8."""
    _require(0 < sigma <= LONGEST / 8, f"gaussian:{sigma:g}", f"a sigma above 0, to {LONGEST // 8} px")
    reach = max(1, math.ceil(4 * sigma))
    edges = [math.erf((i - 0.5) / (math.sqrt(2) * sigma)) for i in range(-reach, reach + 2)]
    profile = np.diff(np.asarray(edges))
    return PointSpread("gaussian", f"gaussian:{sigma:g}", _normalised(np.outer(profile, profile)))


def from_file(path: Path) -> PointSpread:
    """A point-spread function drawn in an image, bright on black, its origin the middle. Raises UsageError."""
    from oldphoto.imagefile import read_mask

    try:
        weights = read_mask(path)
    except PhotoError as error:
        raise UsageError(f"{error}; a point-spread function is {_FORMS}") from error
    if not weights.any():
        raise UsageError(f"{path}: all black: a point-spread function is drawn bright on black")
    if max(weights.shape) > LONGEST:
        raise UsageError(f"{path}: larger than {LONGEST} px: cut it to the point-spread function itself")
    height, width = weights.shape
    rim = np.concatenate([weights[0], weights[-1], weights[:, 0], weights[:, -1]])
    if min(height, width) >= 3 and rim.mean() > BRIGHT_RIM * weights.max():
        raise UsageError(f"{path}: bright all around: a point-spread function is drawn bright on black")
    # An even side has no middle pixel: half a pixel of linear interpolation gives it one.
    for axis, side in enumerate((height, width)):
        if side % 2 == 0:
            pad = [(0, 0), (0, 0)]
            pad[axis] = (1, 1)
            padded = np.pad(weights, pad)
            weights = 0.5 * (np.delete(padded, 0, axis) + np.delete(padded, -1, axis))
    return PointSpread("file", str(path), _normalised(weights))


def parse(text: str) -> PointSpread:
    """The point-spread function that a text names: motion:LENGTH,ANGLE, defocus:RADIUS, gaussian:SIGMA, or a file.

    Raises UsageError where it names none.
    """
    kind, _, parameters = text.partition(":")
    if kind == "motion" and (found := re.fullmatch(rf"({_NUMBER}),(-?{_NUMBER})", parameters)):
        return motion(float(found[1]), float(found[2]))
    if kind in ("defocus", "gaussian") and re.fullmatch(_NUMBER, parameters):
        return defocus(float(parameters)) if kind == "defocus" else gaussian(float(parameters))
    if kind in ("motion", "defocus", "gaussian") and not Path(text).is_file():
        raise UsageError(f"'{text}' is not a point-spread function; use {_FORMS}")
    if not Path(text).is_file():
        raise UsageError(f"'{text}' is neither a point-spread function nor a file; use {_FORMS}")
    return from_file(Path(text))


def blur(rgb: FloatImage, psf: PointSpread) -> FloatImage:
    """A picture, H × W or H × W × 3, as it looks through ``psf``, mirrored beyond its edges; the same size."""
    flipped = np.ascontiguousarray(psf.kernel[::-1, ::-1])  # cv2 correlates
    return np.asarray(cv2.filter2D(rgb, -1, flipped, borderType=cv2.BORDER_REFLECT), np.float32)


def transfer(psf: PointSpread, shape: tuple[int, int]) -> Spectrum:
    """The optical transfer function: half spectrum, shape[0] × (shape[1] // 2 + 1), origin at [0, 0].

    Raises PhotoError where the kernel is larger than ``shape``.
    """
    height, width = psf.kernel.shape
    if height > shape[0] or width > shape[1]:
        raise PhotoError(
            f"the point-spread function ({width} × {height} px) is larger than the photo ({shape[1]} × {shape[0]} px)"
        )
    padded = np.zeros(shape, np.float32)
    padded[:height, :width] = psf.kernel
    padded = np.roll(padded, (-(height // 2), -(width // 2)), (0, 1))
    return np.asarray(scipy.fft.rfft2(padded), np.complex64)


def _coverage(covered: Callable[[FloatImage, FloatImage], NDArray[np.bool_]], reach: float) -> FloatImage:
    """The share of each pixel that a shape covers, normalised; ``reach``: how far it goes from the origin."""
    side = max(0, math.ceil(reach - 0.5))
    points = (np.arange((2 * side + 1) * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - side - 0.5
    inside = covered(points[None, :].astype(np.float32), points[:, None].astype(np.float32))
    shares = inside.reshape(2 * side + 1, _SUPERSAMPLING, 2 * side + 1, _SUPERSAMPLING).mean((1, 3))
    used = np.flatnonzero(shares.any(0)), np.flatnonzero(shares.any(1))
    trim = min(used[0][0], 2 * side - used[0][-1]), min(used[1][0], 2 * side - used[1][-1])
    return _normalised(shares[trim[1] : 2 * side + 1 - trim[1], trim[0] : 2 * side + 1 - trim[0]])


def _normalised(weights: NDArray[np.floating]) -> FloatImage:
    return np.asarray(weights / weights.sum(dtype=np.float64), np.float32)


def _require(holds: bool, text: str, what: str) -> None:
    if not holds:
        raise UsageError(f"{text} is out of range: it takes {what}")
