"""Fourth stage: put refined faces back so that nobody sees where they begin."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from oldphoto.arrays import LUMA, FloatImage
from oldphoto.faces.alignment import CANONICAL, CROP, Face, crop_face, extent
from oldphoto.pyramid import halve

_OWN_DETAIL = 2.0
"""A face this many times finer than the canonical crop has detail that refinement never saw: beyond, the change of
its coarse structure is taken back in proportion."""

_GRAIN_LEVELS = 3
"""Grain is measured and given back at the photo's resolution, at a half and at a quarter of it."""

_LARGEST_GRAIN = 2.5
"""Beyond so many standard deviations, what refinement took from a pixel was no grain."""

_EYES, _NOSE = CANONICAL[:4].mean(0), CANONICAL[4]
_CENTRE, _RADII = CROP * np.array([0.5, 0.53]), CROP * np.array([0.40, 0.43])
"""Of the ellipse about the features, on the canonical crop, for a face that lies as CANONICAL does."""


def blend(rgb: FloatImage, face: Face, refined: FloatImage) -> FloatImage:
    """Return a copy of a photo, H × W × 3, with the refined canonical crop of one of its faces in place.

    See `blend_all`.
    """
    return blend_all(rgb, [(face, refined)])


def blend_all(rgb: FloatImage, faces: Sequence[tuple[Face, FloatImage]], in_place: bool = False) -> FloatImage:
    """Return a photo, H × W × 3, with the refined canonical crops of its faces in place: a copy, or itself changed.

    What is put back is the *change* that refinement made, through the inverse of the alignment: detail of the photo
    that is finer than the crop stays. The change is made free of any overall shift of colour first. Where faces
    overlap, each is changed as its own crop says, and the line between them is as soft as the masks are. Grain that a
    refinement took, and that lies on the photo around the face, is given back to the face.
    """
    placed = [_placed(rgb, face, refined) for face, refined in faces]
    if len(placed) > 1:
        claimed = np.zeros(rgb.shape[:2], np.float32)
        for (left, top, right, bottom), _, mask in placed:
            claimed[top:bottom, left:right] += mask
        for (left, top, right, bottom), change, mask in placed:
            share = 1 / np.maximum(claimed[top:bottom, left:right], 1)  # where masks add up to more than one
            change *= share[..., None]
            mask *= share
    # Of all of them, before the photo changes.
    for (face, _), ((left, top, right, bottom), change, mask) in zip(faces, placed, strict=True):
        change += _lost_grain(rgb[top:bottom, left:right], change, mask, face.magnification)[..., None]
    blended = rgb if in_place else rgb.copy()
    for (left, top, right, bottom), change, _ in placed:
        blended[top:bottom, left:right] += change
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
    np.clip(layers[..., 3], 0, 1, out=layers[..., 3])
    return place, layers[..., :3], layers[..., 3]


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


def _lost_grain(before: FloatImage, change: FloatImage, mask: FloatImage, magnification: float) -> FloatImage:
    """Grain, h × w, that refinement took and that shall lie on the face again: a photo keeps one grain all over.

    Only what lay on the face *and* lies around it is grain; fine detail of either alone is not. It is measured at
    several scales, so that its coarseness comes out right as well as its strength. What is given back is the photo's
    own: other grain as strong would make small faces less like the person.
    """
    # A change made at half the resolution, or less, took nothing that is finer.
    finer = int(np.clip(-np.log2(magnification) - 1, 0, _GRAIN_LEVELS))
    if finer == _GRAIN_LEVELS:
        return np.zeros_like(mask)
    weight = mask
    for _ in range(finer):
        before, change, weight = halve(before), halve(change), halve(weight)
    count = _GRAIN_LEVELS - finer
    beyond = [(0, -side % 2**count) for side in weight.shape]
    old = np.pad(before @ LUMA, beyond, mode="edge")
    new = old + np.pad(change @ LUMA, beyond, mode="edge")
    inside, outside = (np.pad(where, beyond).astype(np.float32) for where in (weight > 0.6, weight < 0.05))
    levels = []
    for _ in range(count):
        taken = old - new
        around, had, has, took = _noise(old, outside), _noise(old, inside), _noise(new, inside), _noise(taken, inside)
        missing = np.sqrt(np.maximum(np.minimum(around, had) ** 2 - has**2, 0))
        share = np.minimum(missing / np.maximum(took, 1e-6), 1)
        most = _LARGEST_GRAIN * took[:, None, None]
        levels.append(share[:, None, None] * np.clip(_details(taken), -most, most))
        old, new, inside, outside = (halve(layer) for layer in (old, new, inside, outside))
    grain = np.zeros_like(old)
    for details in reversed(levels):
        blocks = grain[..., None, None] + np.einsum("khw,kij->hwij", details, _HAAR)
        grain = blocks.swapaxes(1, 2).reshape(2 * grain.shape[0], 2 * grain.shape[1])
    grain = grain[: weight.shape[0], : weight.shape[1]]
    if finer:
        grain = cv2.resize(grain, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grain * mask, np.float32)


_CALM_SIZE = 0.66
"""What a quarter of the means of nine absolute values of the standard normal distribution stay below."""


def _noise(picture: FloatImage, where: FloatImage) -> FloatImage:
    """The standard deviations of noise in the finest Haar details of a picture where ``where`` is 1; 0 if nowhere.

    From their mean sizes in the calmest quarter of small neighbourhoods: noise lies on cheeks as well as on hair and
    lashes, whose detail is none. (The median of all of them, Donoho & Johnstone, 1994, took curls for grain.) Across,
    along and diagonal.
    """
    inside = cv2.copyMakeBorder((_blocks(where).min((2, 3)) > 0.99).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    whole = cv2.erode(inside, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    if whole.sum() < 32:
        return np.zeros(3, np.float32)
    sizes = np.stack([cv2.blur(np.abs(layer), (3, 3)) for layer in _details(picture)])
    return np.asarray(np.quantile(sizes[:, whole], 0.25, 1) / _CALM_SIZE, np.float32)


def _blocks(picture: FloatImage) -> FloatImage:
    """A picture, H × W, as blocks of 2 × 2 pixels: H/2 × W/2 × 2 × 2. An odd last row or column is left out."""
    height, width = (side // 2 for side in picture.shape)
    return picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2).swapaxes(1, 2)


# The three details of a block, as weights of its pixels; orthonormal.
_HAAR = np.array([[[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]], np.float32) / 2


def _details(picture: FloatImage) -> FloatImage:
    """The three details of the finest level of the Haar transform, 3 × H/2 × W/2."""
    return np.asarray(np.einsum("hwij,kij->khw", _blocks(picture), _HAAR), np.float32)
