"""Real pictures and weights that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage
from oldphoto.errors import CheckpointError

Photo = Callable[[str], FloatImage]
Bundled = Callable[[str], Path]


@cache
def _loaded(name: str) -> FloatImage:
    picture = getattr(skimage.data, name)()
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, 2)
    return np.asarray(picture[..., :3], np.float32) / 255


@pytest.fixture(scope="session")
def photo() -> Photo:
    """A picture that ships inside scikit-image, by name: float32 H × W × 3 in [0, 1], the caller's own copy."""
    return lambda name: _loaded(name).copy()


@pytest.fixture(scope="session")
def bundled() -> Bundled:
    """The folder of checkpoints that holds a network; skips the test where it is not there yet."""

    def folder(name: str) -> Path:
        try:
            return checkpoints.find(name)[0]
        except CheckpointError as error:
            pytest.skip(f"no weights for '{name}': {error}")

    return folder


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders whose names end in "secret" cannot be listed, whoever runs the tests."""
    really = os.scandir

    def scandir(path: str | os.PathLike[str]) -> object:
        if Path(path).name.endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
