"""Fourth stage: put refined faces back so that nobody sees where they begin."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage
from oldphoto.faces.alignment import CANONICAL, CROP, Face, crop_face, extent
from oldphoto.pyramid import halve

_OWN_DETAIL = 2.0
"""A face this many times finer than the canonical crop has detail that refinement never saw: beyond, the change of
its coarse structure is taken back in proportion."""

_GRAIN_LEVELS = 3
"""Grain is measured and given back at the photo's resolution, at a half and at a quarter of it."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_EYES, _NOSE = CANONICAL[:4].mean(0), CANONICAL[4]
_CENTRE, _RADII = CROP * np.array([0.5, 0.53]), CROP * np.array([0.40, 0.43])
"""Of the ellipse about the features, on the canonical crop, for a face that lies as CANONICAL does."""


def blend(rgb: FloatImage, face: Face, refined: FloatImage) -> FloatImage:
    """Return a copy of a photo, H × W × 3, with the refined canonical crop of one of its faces in place.

    See `blend_all`.
    """
    return blend_all(rgb, [(face, refined)])


def blend_all(rgb: FloatImage, faces: Sequence[tuple[Face, FloatImage]]) -> FloatImage:
    """Return a copy of a photo, H × W × 3, with the refined canonical crops of its faces in place.

    What is put back is the *change* that refinement made, through the inverse of the alignment: detail of the photo
    that is finer than the crop stays. The change is made free of any overall shift of colour first. Where faces
    overlap, each is changed as its own crop says, and the line between them is as soft as the masks are. Grain that a
    refinement took, and that lies on the photo around the face, is laid over the face anew.
    """
    blended = rgb.copy()
    placed = [_placed(rgb, face, refined) for face, refined in faces]
    claimed = np.zeros(rgb.shape[:2], np.float32) if len(placed) > 1 else None
    if claimed is not None:
        for (left, top, right, bottom), _, mask in placed:
            claimed[top:bottom, left:right] += mask
    for (left, top, right, bottom), change, mask in placed:
        if claimed is not None:
            share = 1 / np.maximum(claimed[top:bottom, left:right], 1)  # where masks add up to more than one
            change *= share[..., None]
            mask *= share
        piece = blended[top:bottom, left:right]
        before = rgb[top:bottom, left:right]
        piece += change
        piece += _lost_grain(before, before + change, mask)[..., None]
    for (left, top, right, bottom), _, _ in placed:
        piece = blended[top:bottom, left:right]
        np.clip(piece, 0, 1, out=piece)
    return blended


def soft_mask(face: Face) -> FloatImage:
    """Weight of the refined face on its canonical crop, CROP × CROP: 1 on the features, 0 well inside the border.

    An ellipse about the features as the landmarks place them: a longer face gets a longer one, and a head that is
    turned, whose nose is beside the middle of the eyes, one that reaches farther to the side that shows more of it.
    """
    points = face.landmarks @ face.transform[:, :2].T + face.transform[:, 2]
    eyes, nose = points[:4].mean(0), points[4]
    length = np.clip((nose[1] - eyes[1]) / (_NOSE[1] - _EYES[1]), 0.8, 1.25)
    turn = np.clip(eyes[0] - nose[0], -0.1 * CROP, 0.1 * CROP)
    centre = _CENTRE + (eyes - _EYES + nose - _NOSE) / 2 + (turn / 2, 0)
    ys, xs = np.mgrid[:CROP, :CROP].astype(np.float32) + 0.5
    radius = np.hypot((xs - centre[0]) / _RADII[0], (ys - centre[1]) / (_RADII[1] * length))
    border = np.minimum(np.minimum(xs, CROP - xs), np.minimum(ys, CROP - ys)) / (0.1 * CROP)
    return np.asarray(_smoothstep((1 - radius) / 0.45) * _smoothstep(border), np.float32)


def _smoothstep(ramp: FloatImage) -> FloatImage:
    ramp = np.clip(ramp, 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


def _placed(
    rgb: FloatImage, face: Face, refined: FloatImage
) -> tuple[tuple[int, int, int, int], FloatImage, FloatImage]:
    """The part of the photo that a face's crop covers, the change there, h × w × 3, and the mask's weight, h × w."""
    mask = soft_mask(face)
    change = refined - crop_face(rgb, face)
    change -= np.tensordot(mask, change, 2) / mask.sum()
    weight = min(1.0, _OWN_DETAIL * face.magnification)
    place = extent(face, rgb.shape)
    left, top, right, bottom = place
    layers = np.dstack([weight * mask[..., None] * change, mask])
    layers = _unwarped(layers, face, left, top, (bottom - top, right - left))
    return place, layers[..., :3], layers[..., 3].clip(0, 1)


def _unwarped(layers: FloatImage, face: Face, left: int, top: int, shape: tuple[int, int]) -> FloatImage:
    """Layers on the canonical crop, CROP × CROP × C, as they lie in the photo's cut-out at (left, top)."""
    inverse = np.asarray(cv2.invertAffineTransform(face.transform), np.float64)
    if face.magnification > 1:
        # Reduce to the photo's resolution by averaging; warping alone would skip pixels.
        side = max(8, round(CROP / face.magnification))
        layers = np.asarray(cv2.resize(layers, (side, side), interpolation=cv2.INTER_AREA), np.float32)
        ratio = CROP / side
        inverse[:, 2] += inverse[:, :2] @ ((ratio - 1) / 2, (ratio - 1) / 2)
        inverse[:, :2] *= ratio
    inverse[:, 2] -= (left, top)
    size = (shape[1], shape[0])
    return np.asarray(cv2.warpAffine(layers, inverse, size, flags=cv2.INTER_CUBIC), np.float32)


def _lost_grain(before: FloatImage, after: FloatImage, mask: FloatImage) -> FloatImage:
    """Grain, h × w, for what refinement took of it: a photo keeps one grain all over.

    Only what lay on the face *and* lies around it is grain; fine detail of either alone is not. It is measured at
    several scales, so that its coarseness comes out right as well as its strength.
    """
    rng = np.random.default_rng(0)  # the same photo gives the same pixels
    inside, outside = (mask > 0.6).astype(np.float32), (mask < 0.05).astype(np.float32)
    old, new = before @ _LUMA, after @ _LUMA
    missing = []
    for _ in range(_GRAIN_LEVELS):
        around, had, has = _noise(old, outside), _noise(old, inside), _noise(new, inside)
        missing.append(float(np.sqrt(max(0.0, min(around, had) ** 2 - has**2))))
        old, new, inside, outside = (halve(layer) for layer in (old, new, inside, outside))
    return _grain(before.shape[:2], missing, rng) * mask if any(missing) else np.zeros_like(mask)


def _noise(picture: FloatImage, where: FloatImage) -> float:
    """The standard deviation of noise in the finest detail of the picture where ``where`` is 1; 0 if that is nowhere.

    From the median of the diagonal Haar details (Donoho & Johnstone, 1994), which edges hardly move.
    """
    details = _diagonal(picture)
    chosen = np.abs(details)[_diagonal_support(where)]
    return float(np.median(chosen)) / 0.6745 if chosen.size >= 32 else 0.0


def _diagonal(picture: FloatImage) -> FloatImage:
    """The diagonal details of the Haar transform, at half the size."""
    height, width = (side // 2 * 2 for side in picture.shape)
    even = picture[:height, :width]
    return np.asarray((even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2, np.float32)


def _diagonal_support(where: FloatImage) -> NDArray[np.bool_]:
    """Which of the details of `_diagonal` come from places where ``where`` is 1."""
    height, width = (side // 2 * 2 for side in where.shape)
    even = where[:height, :width]
    least = np.minimum.reduce([even[::2, ::2], even[1::2, ::2], even[::2, 1::2], even[1::2, 1::2]])
    return np.asarray(least > 0.99)


def _grain(shape: tuple[int, int], levels: Sequence[float], rng: Generator) -> FloatImage:
    """Noise whose finest detail has the given standard deviations, at full resolution, at a half, and so on."""
    steps = 2 ** len(levels)
    height, width = (-(-side // steps) * steps for side in shape)
    grain = np.zeros((height // steps, width // steps), np.float32)
    for strength in reversed(levels):
        grain = grain.repeat(2, 0).repeat(2, 1)
        white = rng.standard_normal(grain.shape, dtype=np.float32)
        white -= halve(white).repeat(2, 0).repeat(2, 1)  # what is coarser than this level is not its business
        grain += np.float32(strength) * white
    return grain[: shape[0], : shape[1]]
