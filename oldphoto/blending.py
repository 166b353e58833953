"""Fourth stage: put a refined face back so that nobody sees where it begins."""

from __future__ import annotations

import cv2
import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.faces import CROP, Face, crop_face, extent

_OWN_DETAIL = 2.0
"""A face this many times finer than the canonical crop has detail that refinement never saw: beyond, the change of
its coarse structure is taken back in proportion."""


def _soft_mask() -> FloatImage:
    """Weight of the refined face on the canonical crop: 1 on the features, 0 well inside the border."""
    ys, xs = (np.mgrid[:CROP, :CROP].astype(np.float32) + 0.5) / CROP
    radius = np.hypot((xs - 0.5) / 0.40, (ys - 0.53) / 0.43)
    ramp = np.clip((1 - radius) / 0.45, 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


_MASK = _soft_mask()


def blend(rgb: FloatImage, face: Face, refined: FloatImage) -> FloatImage:
    """Return a copy of a photo, H × W × 3, with the refined canonical crop of one of its faces in place.

    What is put back is the *change* that refinement made, through the inverse of the alignment: detail of the photo
    that is finer than the crop stays. The change is made free of any overall shift of colour first.
    """
    crop = crop_face(rgb, face)
    change = refined - crop
    change -= np.tensordot(_MASK, change, 2) / _MASK.sum()
    change *= _MASK[..., None] * min(1.0, _OWN_DETAIL * face.magnification)
    left, top, right, bottom = extent(face, rgb.shape)
    blended = rgb.copy()
    piece = blended[top:bottom, left:right]
    piece += _unwarped(change, face, left, top, piece.shape)
    np.clip(piece, 0, 1, out=piece)
    return blended


def _unwarped(change: FloatImage, face: Face, left: int, top: int, shape: tuple[int, ...]) -> FloatImage:
    """The change on the canonical crop as it lies in the photo's cut-out at (left, top)."""
    inverse = np.asarray(cv2.invertAffineTransform(face.transform), np.float64)
    if face.magnification > 1:
        # Reduce to the photo's resolution by averaging; warping alone would skip pixels.
        side = max(8, round(CROP / face.magnification))
        change = np.asarray(cv2.resize(change, (side, side), interpolation=cv2.INTER_AREA), np.float32)
        ratio = CROP / side
        inverse[:, 2] += inverse[:, :2] @ ((ratio - 1) / 2, (ratio - 1) / 2)
        inverse[:, :2] *= ratio
    inverse[:, 2] -= (left, top)
    size = (shape[1], shape[0])
    return np.asarray(cv2.warpAffine(change, inverse, size, flags=cv2.INTER_CUBIC), np.float32)
