"""Where a face is in a photo, and how it lies on the canonical square."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage
from oldphoto.pyramid import halve

CROP = 256
"""Side of the canonical crop, px."""

# Outer and inner corner of the eye on the picture's right, the same of the one on its left, and the base of the nose,
# in dlib's order, on the canonical square: about the mean of real faces, made symmetric.
CANONICAL = CROP * np.array([[0.687, 0.427], [0.579, 0.432], [0.313, 0.427], [0.421, 0.432], [0.5, 0.63]])


Box = tuple[float, float, float, float]
"""Left, top, right and bottom, px."""


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    ``box``: left, top, right, bottom in px; ``landmarks``: 5 × 2, (x, y) in px: outer and inner corner of each eye,
    base of the nose; ``score``: the detector's, higher is surer.
    """

    box: Box
    landmarks: NDArray[np.float64]
    score: float

    @cached_property
    def transform(self) -> NDArray[np.float64]:
        """The similarity, 2 × 3, from photo to canonical crop: least squares over the landmarks."""
        source, target = (points[:, 0] + 1j * points[:, 1] for points in (self.landmarks, CANONICAL))
        centred = source - source.mean()
        factor = np.vdot(centred, target - target.mean()) / np.vdot(centred, centred)
        shift = target.mean() - factor * source.mean()
        return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])

    @property
    def magnification(self) -> float:
        """Pixels of the canonical crop per pixel of the photo."""
        return float(np.hypot(self.transform[0, 0], self.transform[1, 0]))


def crop_face(rgb: FloatImage, face: Face) -> FloatImage:
    """The canonical crop of a face, CROP × CROP × 3; what lies outside the photo is mirrored."""
    transform = face.transform.copy()
    left, top, right, bottom = extent(face, rgb.shape)
    piece = rgb[top:bottom, left:right]
    transform[:, 2] += transform[:, :2] @ (left, top)
    # Halve first where the crop is much coarser than the photo: warping reads single pixels only.
    while np.hypot(transform[0, 0], transform[1, 0]) < 0.6 and min(piece.shape[:2]) > 4:
        piece = halve(piece)
        transform[:, 2] += transform[:, :2] @ (0.5, 0.5)
        transform[:, :2] *= 2
    crop = cv2.warpAffine(piece, transform, (CROP, CROP), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(np.clip(crop, 0, 1), np.float32)


def extent(face: Face, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The part of the photo that the canonical crop covers: left, top, right, bottom in px."""
    inverse = cv2.invertAffineTransform(face.transform)
    corners = np.array([[0, 0, 1], [CROP, 0, 1], [0, CROP, 1], [CROP, CROP, 1]]) @ inverse.T
    left, top = np.floor(corners.min(0) - 2).astype(int)
    right, bottom = np.ceil(corners.max(0) + 3).astype(int)
    height, width = shape[:2]
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)
