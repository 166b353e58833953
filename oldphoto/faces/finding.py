"""Find faces in photographs that may be small, faint and grainy."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import cv2
import dlib
import numpy as np

from oldphoto.arrays import ByteImage, FloatImage, as_image
from oldphoto.errors import UsageError
from oldphoto.faces.alignment import CANONICAL, CROP, Box, Face
from oldphoto.faces.cnn import FaceSearch
from oldphoto.faces.hog import hog_detector
from oldphoto.faces.models import LANDMARKS, model_file

Detector = Literal["hog", "cnn"]

SEARCH_SIDE = 2560
"""Faces are looked for in a copy of at least this long side, unless the photo would be magnified more than MAGNIFY
times for that; dlib's HOG detector sees faces of 80 px there, and larger."""

LARGEST_SIDE = 3840
"""Of the copy, px."""

MAGNIFY = 4.0

_CNN_SIDE = 3200
"""The long side of the copy for the CNN detector, which takes some times as long."""

_GRAIN = 1.5
"""The standard deviation of the Gaussian that calms the second copy, px of the photo."""

_DOUBTFUL = -0.5
"""HOG scores from here on are looked into; most of them are no faces."""

_SURE = 0.75
"""HOG scores from here on are faces: false ones were seen up to 0.71. Below, the CNN detector is asked."""

_CONFIRMED = 0.25
"""The least score of the CNN detector that is a face."""

_JUDGED, _SURROUNDED = 100, 224
"""Side of a doubtful face when the CNN detector looks at it, and of what is shown of its surroundings, px."""

_JUDGED_GRAIN = 2.0
"""As _GRAIN, at a second look at a doubtful face, px of what is shown."""

_SECOND_LOOK = -0.2
"""HOG scores from here on are worth it; a coin's portrait was taken for a face below."""


class FaceFinder:
    """Finds faces and their five landmarks.

    ``hog`` looks for them with dlib's HOG detector (Dalal & Triggs, CVPR 2005), at many scales, in the photo and in a
    calm copy of even contrast, and asks dlib's CNN detector (King, max-margin object detection, 2015) about each that
    is doubtful. ``cnn`` looks for them with the CNN detector, too: it takes seconds a photo, and finds some in profile.
    Where no small faces are looked for, a smaller ``magnify`` saves time.

    Raises CheckpointError where dlib's weights are missing.
    """

    def __init__(self, detector: Detector = "hog", magnify: float = MAGNIFY) -> None:
        if detector not in get_args(Detector):
            raise UsageError(f"{detector}: not a face detector; use {' or '.join(get_args(Detector))}")
        self._kind, self._magnify = detector, magnify
        self._cnn = FaceSearch()
        self._hog = hog_detector()
        self._other_hog = copy.copy(self._hog)
        self._landmarks = dlib.shape_predictor(str(model_file(LANDMARKS)))
        self._lock = threading.Lock()  # dlib's detectors keep scratch memory

    def find(self, rgb: FloatImage) -> list[Face]:
        """Faces of a photo, H × W × 3 in [0, 1], from left to right; none is an empty list.

        Raises PhotoError as `as_image`.
        """
        rgb = as_image(rgb, 3, "a photo")
        with self._lock:
            faces = self._search_hog(rgb)
            if self._kind == "cnn":
                faces = _without_doubles(faces + self._search_cnn(rgb))
        return sorted(faces, key=lambda face: face.box)

    def _search_hog(self, rgb: FloatImage) -> list[Face]:
        long_side = max(rgb.shape[:2])
        factor = min(max(SEARCH_SIDE / long_side, 1.0), LARGEST_SIDE / long_side, self._magnify)
        gray = _to_bytes(_stretched(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32), factor))
        searches = ((gray, self._hog), (_calm_and_even(gray, _GRAIN * factor), self._other_hog))
        # dlib lets go of the interpreter; OpenCV knows how many threads this process may have.
        with ThreadPoolExecutor(min(len(searches), cv2.getNumThreads())) as pool:
            hits = pool.map(lambda search: search[1].run(search[0], 0, _DOUBTFUL), searches)
        candidates = [
            self._face(picture, (box.left(), box.top(), box.right() + 1, box.bottom() + 1), score, factor)
            for (picture, _), (boxes, scores, _) in zip(searches, hits, strict=True)
            for box, score in zip(boxes, scores, strict=True)
        ]
        faces = _without_doubles([face for face in candidates if _plausible(face)])
        return [face for face in faces if face.score >= _SURE or self._confirmed(rgb, face)]

    def _search_cnn(self, rgb: FloatImage) -> list[Face]:
        factor = min(_CNN_SIDE / max(rgb.shape[:2]), self._magnify)
        picture = _to_bytes(_resized(rgb, factor))
        faces = (self._face(picture, box, score, factor) for box, score in self._cnn.hits(picture, _CONFIRMED))
        return [face for face in faces if _plausible(face)]

    def _face(self, picture: ByteImage, box: Box, score: float, factor: float) -> Face:
        """A hit in a copy, ``factor`` times the photo's size, as a face in the photo."""
        left, top, right, bottom = (round(edge) for edge in box)
        shape = self._landmarks(picture, dlib.rectangle(left, top, right - 1, bottom - 1))
        points = np.array([(point.x, point.y) for point in shape.parts()], float)
        return Face(
            (box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor),
            (points + 0.5) / factor - 0.5,
            float(score),
        )

    def _confirmed(self, rgb: FloatImage, face: Face) -> bool:
        """Whether the CNN detector, too, sees a face of about this size at this place."""
        left, top, right, bottom = face.box
        factor = _JUDGED / (right - left)
        half = _SURROUNDED / 2 / factor
        centre = np.array([left + right, top + bottom]) / 2
        (first, above), (last, below) = (np.round(centre + side * half).astype(int) for side in (-1, 1))
        piece = rgb[max(above, 0) : max(below, 0), max(first, 0) : max(last, 0)]
        if not piece.size:
            return False
        # Beyond the photo its edge goes on; reduced first, for a face may fill a large scan.
        reduced = _SURROUNDED / (below - above)
        inside = _resized(piece, reduced)
        over, before = (round(max(-start, 0) * reduced) for start in (above, first))
        under, behind = max(_SURROUNDED - over - len(inside), 0), max(_SURROUNDED - before - inside.shape[1], 0)
        patch = _to_bytes(np.asarray(cv2.copyMakeBorder(inside, over, under, before, behind, cv2.BORDER_REPLICATE)))
        if self._seen(patch):
            return True
        if face.score < _SECOND_LOOK:
            return False
        calm = _calm_and_even(np.asarray(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), np.uint8), _JUDGED_GRAIN)
        return self._seen(np.asarray(cv2.cvtColor(calm, cv2.COLOR_GRAY2RGB), np.uint8))

    def _seen(self, patch: ByteImage) -> bool:
        """Whether the CNN detector sees a face in the middle of a patch."""
        for (left, top, right, bottom), _ in self._cnn.hits(patch, _CONFIRMED, 1.8 * _JUDGED):
            aside = max(abs(left + right - _SURROUNDED), abs(top + bottom - _SURROUNDED)) / 2
            if aside < 0.2 * _JUDGED:
                return True
        return False


def _stretched(gray: FloatImage, factor: float) -> FloatImage:
    """A picture, ``factor`` times as large, whose values fill [0, 1]: landmarks are lost in a faint or dark one."""
    low, high = np.percentile(gray[::4, ::4], (0.5, 99.5))
    resized = _resized(gray, factor)
    resized -= np.float32(low)
    resized /= np.float32(max(high - low, 0.05))
    return resized


def _calm_and_even(gray: ByteImage, sigma: float) -> ByteImage:
    """A picture without its finest grain, and with contrast evened out over its neighbourhoods.

    By a Gaussian, and by CLAHE (Zuiderveld, Graphics Gems IV, 1994).
    """
    calm = np.asarray(cv2.GaussianBlur(gray, (0, 0), sigma), np.uint8)
    return np.asarray(cv2.createCLAHE(3.0, (8, 8)).apply(calm), np.uint8)


def _plausible(face: Face) -> bool:
    """Whether the landmarks, on the canonical crop, lie about where a face has them."""
    placed = face.landmarks @ face.transform[:, :2].T + face.transform[:, 2]
    return bool(np.abs(placed - CANONICAL).max() < 0.12 * CROP)


def _without_doubles(faces: list[Face]) -> list[Face]:
    """Non-maximum suppression: of faces that overlap by more than a third, the one with the highest score stays."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(_overlap(face, other) < 1 / 3 for other in kept):
            kept.append(face)
    return kept


def _overlap(one: Face, other: Face) -> float:
    """Intersection of two boxes over the smaller of them: a box inside another overlaps it wholly."""
    left, top = max(one.box[0], other.box[0]), max(one.box[1], other.box[1])
    right, bottom = min(one.box[2], other.box[2]), min(one.box[3], other.box[3])
    common = max(right - left, 0.0) * max(bottom - top, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one.box, other.box)]
    return common / max(min(areas), 1e-6)


def _resized(picture: FloatImage, factor: float) -> FloatImage:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.float32)


def _to_bytes(picture: FloatImage) -> ByteImage:
    """8 bits of a picture of our own, which is used up: memory that is new takes longer than the arithmetic."""
    picture *= 255
    np.round(picture.clip(0, 255, out=picture), out=picture)
    return picture.astype(np.uint8)
