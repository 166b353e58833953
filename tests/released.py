"""The published release as its users have it, in small: the same files and entries, networks a sixteenth as wide."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import parity
import pytest
import torch
from torch import Tensor

from oldphoto import checkpoints, published_weights

WIDTH = 4
PLACES = {"Setting_9_epoch_100": "Face_Enhancement/checkpoints", "FaceSR_512": "Face_Enhancement/checkpoints"}


def narrow(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """Make the import expect narrow networks and keep them in ``home``."""
    for name, (file, kind, config) in list(published_weights.RELEASED.items()):
        monkeypatch.setitem(published_weights.RELEASED, name, (file, kind, {**config, "width": WIDTH}))
    for name, made in list(published_weights.NETWORKS.items()):
        config = {**made.config, "width": WIDTH}
        monkeypatch.setitem(published_weights.NETWORKS, name, replace(made, config=config))
    monkeypatch.setattr(checkpoints, "installed_folder", lambda name: home / "weights" / name)
    return home / "weights" / checkpoints.PUBLISHED


def path_of(folder: Path, name: str) -> Path:
    """Where a released file lies in the folder that the archives were unpacked to."""
    place = PLACES.get(name, "Global/checkpoints/restoration").removesuffix("/restoration" * (name == "detection"))
    return folder / place / published_weights.RELEASED[name][0]


def state_of(name: str) -> dict[str, Tensor]:
    """The weights of a released file, by the rule of the fixtures."""
    _, kind, config = published_weights.RELEASED[name]
    return parity.filled(kind(**config))


def write(folder: Path, name: str, content: Any = None, old: bool = False) -> Path:
    """Write one file; ``old``: as a plain pickle, as torch did before 1.6."""
    path = path_of(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = state_of(name) if content is None else content
    if name == "detection" and isinstance(content, dict):
        content = {"epoch": 40, "model_state": content, "optimizer_state": {"param_groups": [{"lr": 0.1}]}}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def write_all(folder: Path, leave_out: Collection[str] = ()) -> Path:
    """Write the release, every other file as a plain pickle, and files of it that inference does not need."""
    for index, name in enumerate(published_weights.RELEASED):
        if name not in leave_out:
            write(folder, name, old=bool(index % 2))
    other = path_of(folder, "VAE_A_quality").with_name("latest_net_D.pth")
    other.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"unused": torch.ones(1)}, other)
    return folder
