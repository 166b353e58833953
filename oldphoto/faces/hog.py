"""dlib's HOG detector of faces, kept unpacked: dlib takes a third of a second to unpack it, at every start."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import dlib
import platformdirs

from oldphoto.checkpoints import sha256
from oldphoto.errors import PhotoError
from oldphoto.imagefile import atomically


def hog_detector() -> dlib.fhog_object_detector:
    """The detector, from the user's cache if it is there, undamaged; else from dlib, and then kept if it can be."""
    folder = platformdirs.user_cache_path("oldphoto", appauthor=False)
    for kept in folder.glob(f"hog-{dlib.__version__}-*.svm"):
        with contextlib.suppress(OSError, RuntimeError):
            if kept.stem.endswith(sha256(kept)):
                return dlib.fhog_object_detector(str(kept))
    detector = dlib.get_frontal_face_detector()
    with contextlib.suppress(OSError, RuntimeError, PhotoError):
        _keep(detector, folder)
    return detector


def _keep(detector: dlib.fhog_object_detector, folder: Path) -> None:
    """Write the detector to a folder, under its hash."""
    with tempfile.TemporaryDirectory() as made:
        unpacked = Path(made, "hog.svm")
        detector.save(str(unpacked))
        with atomically(folder / f"hog-{dlib.__version__}-{sha256(unpacked)}.svm") as kept:
            kept.write_bytes(unpacked.read_bytes())
