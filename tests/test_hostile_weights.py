"""Weights that lie or attack: refused with one clear error, nothing run, nothing outside the folder read."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from oldphoto import checkpoints
from oldphoto.errors import CheckpointError


class Small(nn.Module):
    """A network whose configuration decides its size, as that of the bundled ones."""

    def __init__(self, width: int = 4, groups: int = 1) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width // groups)


class Attack:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.trace,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoints.save("small", Small().state_dict(), {"width": 4}, tmp_path / "w", {"run": 1})
    checkpoints.load(Small, "small", tmp_path / "w")  # intact, it loads
    return tmp_path / "w"


def change(folder: Path, **changes: object) -> None:
    path = folder / checkpoints.MANIFEST
    content = json.loads(path.read_text())
    content["networks"]["small"].update(changes)
    path.write_text(json.dumps(content))


def replace_weights(folder: Path, content: bytes) -> None:
    """Put other bytes in the place of the weights, and their hash in the manifest: the attacker owns both."""
    (folder / "small.safetensors").write_bytes(content)
    change(folder, sha256=checkpoints.sha256(folder / "small.safetensors"))


def refused(folder: Path, said: str = "") -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        checkpoints.load(Small, "small", folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
def test_a_pickle_that_poses_as_safetensors_is_not_run(folder: Path, tmp_path: Path, write: Callable) -> None:
    trace = tmp_path / "trace"
    with (tmp_path / "attack").open("wb") as file:
        write(Attack(trace), file)
    replace_weights(folder, (tmp_path / "attack").read_bytes())
    refused(folder, "does not hold the network 'small'")
    assert not trace.exists()


@pytest.mark.parametrize(
    "lead", ["../outside.safetensors", "/etc/passwd", "..", ".", "", "sub/../../outside.safetensors"]
)
def test_a_path_that_leads_out_is_not_followed(folder: Path, lead: str) -> None:
    (folder / "small.safetensors").rename(folder.parent / "outside.safetensors")
    change(folder, file=lead)
    refused(folder, "not a plain file name|weights are missing")


@pytest.mark.parametrize(
    "config",
    [
        {"width": 5},
        {"width": -1},
        {"width": "wide"},
        {"width": 4, "groups": 0},
        {"depth": 3},
        {"width": 200_000},  # 160 GB, if it were built
        {"width": 2**62},
    ],
    ids=str,
)
def test_a_configuration_that_lies_is_refused_before_it_takes_memory(folder: Path, config: dict[str, object]) -> None:
    change(folder, config=config)
    refused(folder, "does not hold the network 'small'")


def test_other_tensors_than_the_network_has_are_refused(folder: Path, tmp_path: Path) -> None:
    for tensors in (
        {"inner.weight": torch.ones(4, 4)},
        {"inner.weight": torch.ones(4, 4), "inner.bias": torch.ones(4), "extra": torch.ones(1)},
        {"inner.weight": torch.ones(4, 5), "inner.bias": torch.ones(4)},
    ):
        save_file(tensors, tmp_path / "other")
        replace_weights(folder, (tmp_path / "other").read_bytes())
        refused(folder, "does not hold the network 'small'")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 64,
        (2**60).to_bytes(8, "little") + b"{}",
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x46\0\0\0\0\0\0\0" + b'{"inner.weight":{"dtype":"F32","shape":[9,9],"data_offsets":[0,99999]}}',
    ],
)
def test_a_header_that_lies_is_refused(folder: Path, content: bytes) -> None:
    replace_weights(folder, content)
    refused(folder, "does not hold the network 'small'")


@pytest.mark.parametrize(
    "manifest",
    [
        b"[" * 100_000,
        b'{"networks": ' + b'{"small": ' * 50_000,
        b"\xff\xfe",
        b'{"networks": {"small": {"file": "a", "sha256": 1, "config": 7}}}',
        b'{"networks": {"small": {"file": "a", "sha256": "0", "config": {}, "training": 3}}}',
    ],
    ids=["brackets", "nested", "no text", "no configuration", "no training"],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, manifest: bytes) -> None:
    (folder / checkpoints.MANIFEST).write_bytes(manifest)
    refused(folder, "not a readable manifest")
