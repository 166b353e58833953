"""Third stage: find faces, cut each out upright on a canonical square, and refine it."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import dlib
import numpy as np
import torch
from numpy.typing import NDArray

from oldphoto import checkpoints
from oldphoto.arrays import ByteImage, FloatImage
from oldphoto.errors import CheckpointError
from oldphoto.nets.facegan import FaceNet
from oldphoto.pyramid import halve

CROP = 256
"""Side of the canonical crop, px."""

SEARCH_SIDE = 1280
"""Faces are looked for in a copy of at most this long side; dlib sees faces of 80 px there, and larger."""

_SURE_ENOUGH = 0.3
"""Detector scores below are badges and patterns: false ones were seen up to 0.15, faces from 0.57."""

_MAGNIFY = 2.0
"""Small pictures are magnified up to this for the search."""

# Outer and inner corner of the eye on the picture's right, the same of the one on its left, and the base of the nose,
# in dlib's order, on the canonical square: about the mean of real faces, made symmetric.
CANONICAL = CROP * np.array([[0.687, 0.427], [0.579, 0.432], [0.313, 0.427], [0.421, 0.432], [0.5, 0.63]])


@dataclass(frozen=True)
class Face:
    """A face in a photo.

    ``box``: left, top, right, bottom in px; ``landmarks``: 5 × 2, (x, y) in px: outer and inner corner of each eye,
    base of the nose; ``score``: the detector's, higher is surer.
    """

    box: tuple[float, float, float, float]
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


def model_file(name: str) -> Path:
    """A file of the package ``face-recognition-models``, found without importing it (it needs ``pkg_resources``).

    Raises CheckpointError where it is not installed.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / "models" / name
        if path.is_file():
            return path
    raise CheckpointError(f"{name}: dlib's weights are missing; pip install face-recognition-models")


class FaceFinder:
    """Finds faces with dlib's HOG detector (Dalal & Triggs, CVPR 2005) and their five landmarks."""

    def __init__(self) -> None:
        self._detector = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(str(model_file("shape_predictor_5_face_landmarks.dat")))
        self._lock = threading.Lock()  # dlib's detectors keep scratch memory

    def find(self, rgb: FloatImage) -> list[Face]:
        """Faces of a photo, H × W × 3 in [0, 1], from left to right; none is an empty list."""
        factor = min(SEARCH_SIDE / max(rgb.shape[:2]), _MAGNIFY)
        picture = _to_bytes(_resized(rgb, factor))
        with self._lock:
            boxes, scores, _ = self._detector.run(picture, 0, _SURE_ENOUGH)
            shapes = [self._landmarks(picture, box) for box in boxes]
        faces = []
        for box, score, shape in zip(boxes, scores, shapes, strict=True):
            points = np.array([(point.x, point.y) for point in shape.parts()], float)
            corners = np.array([box.left(), box.top(), box.right() + 1, box.bottom() + 1], float)
            face = Face(tuple((corners / factor).tolist()), (points + 0.5) / factor - 0.5, float(score))
            if _plausible(face):
                faces.append(face)
        return sorted(faces, key=lambda face: face.box)


def _plausible(face: Face) -> bool:
    """Whether the landmarks, on the canonical crop, lie about where a face has them."""
    placed = face.landmarks @ face.transform[:, :2].T + face.transform[:, 2]
    return bool(np.abs(placed - CANONICAL).max() < 0.12 * CROP)


def _resized(rgb: FloatImage, factor: float) -> FloatImage:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    return np.asarray(cv2.resize(rgb, size, interpolation=how), np.float32)


def _to_bytes(rgb: FloatImage) -> ByteImage:
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


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


class FaceRefiner:
    """Refines canonical crops, face after face, with a network loaded once.

    Raises CheckpointError or UsageError for missing weights or an unknown device.
    """

    def __init__(self, device: str = "auto", checkpoints_folder: Path | None = None) -> None:
        self.device = checkpoints.pick_device(device)
        net = checkpoints.load(FaceNet, "faces", checkpoints_folder).eval()
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def refine(self, crop: FloatImage) -> FloatImage:
        """The refined face of a canonical crop, CROP × CROP × 3 in [0, 1]."""
        tensor = torch.from_numpy(crop)[None].permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            refined = self.net(tensor)[0].permute(1, 2, 0).cpu().numpy()
        return np.asarray(np.clip(refined, 0, 1), np.float32)
