"""dlib's own weights, found where their package keeps them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from oldphoto.errors import CheckpointError

DETECTOR = "mmod_human_face_detector.dat"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"
IDENTITY = "dlib_face_recognition_resnet_model_v1.dat"
DLIB_FILES = (DETECTOR, LANDMARKS, IDENTITY)


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
