"""Import the released checkpoints of *Bringing Old Photos Back to Life*: strictly, and without running what is in them.

The files are pickles. They are read with ``weights_only=True``, which builds tensors and nothing else; every entry and
shape is checked against the networks' definitions; what is kept is safetensors with a manifest.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from oldphoto import checkpoints
from oldphoto.errors import CheckpointError, UsageError
from oldphoto.nets.wan2020.autoencoder import Autoencoder
from oldphoto.nets.wan2020.detector import Detector
from oldphoto.nets.wan2020.faces import FaceGenerator
from oldphoto.nets.wan2020.mapping import Mapping as LatentMapping

LICENCE = "MIT (Microsoft Corporation)"

RELEASED: dict[str, tuple[str, type[nn.Module], dict[str, Any]]] = {
    "detection": ("detection/FT_Epoch_latest.pt", Detector, {}),
    "VAE_A_quality": ("VAE_A_quality/latest_net_G.pth", Autoencoder, {}),
    "VAE_B_quality": ("VAE_B_quality/latest_net_G.pth", Autoencoder, {}),
    "VAE_B_scratch": ("VAE_B_scratch/latest_net_G.pth", Autoencoder, {}),
    "mapping_quality": ("mapping_quality/latest_net_mapping_net.pth", LatentMapping, {"kind": "quality"}),
    "mapping_scratch": ("mapping_scratch/latest_net_mapping_net.pth", LatentMapping, {"kind": "scratch"}),
    "mapping_Patch_Attention": ("mapping_Patch_Attention/latest_net_mapping_net.pth", LatentMapping, {"kind": "hr"}),
    "Setting_9_epoch_100": ("Setting_9_epoch_100/latest_net_G.pth", FaceGenerator, {"size": 256}),
    "FaceSR_512": ("FaceSR_512/latest_net_G.pth", FaceGenerator, {"size": 512}),
}
"""The released files that inference needs: folder and name, network and its configuration."""


@dataclass(frozen=True)
class Made:
    """What becomes one of oldphoto's networks: its configuration, and the released files by the part they give."""

    config: Mapping[str, Any]
    parts: Mapping[str, str]
    purpose: str


def _translation(kind: str, mapping: str, decoder: str, purpose: str) -> Made:
    return Made({"kind": kind}, {"encoder": "VAE_A_quality", "mapping": mapping, "decoder": decoder}, purpose)


NETWORKS = {
    "scratches": Made({}, {"": "detection"}, "finding scratches"),
    "translation": _translation("quality", "mapping_quality", "VAE_B_quality", "restoring at all"),
    "translation-scratch": _translation("scratch", "mapping_scratch", "VAE_B_scratch", "repairing scratches"),
    "translation-hr": _translation("hr", "mapping_Patch_Attention", "VAE_B_scratch", "repairing scratches with --hr"),
    "faces": Made({"size": 256}, {"": "Setting_9_epoch_100"}, "refining faces"),
    "faces-hr": Made({"size": 512}, {"": "FaceSR_512"}, "refining faces with --hr"),
}
"""The networks of the folder that weights are imported to, and what each is for."""

_SHOWN = 3  # entries named in a message


@dataclass(frozen=True)
class Imported:
    """What an import found and made: ``read``: released name and path; ``missing``: released files, and what for."""

    folder: Path
    networks: tuple[str, ...]
    read: Mapping[str, Path]
    missing: Mapping[str, str]


def installed() -> Path:
    """The folder of the imported weights. Raises CheckpointError where there are none."""
    folder = checkpoints.installed_folder(checkpoints.PUBLISHED)
    if not (folder / checkpoints.MANIFEST).is_file():
        raise CheckpointError("the published weights are not installed: oldphoto weights import FILES --as published")
    return folder


def find_released(paths: Sequence[Path]) -> dict[str, Path]:
    """The released files among files and in folders, through all levels, by their released names.

    A file is known by its own name and that of its folder, as in the release.

    Raises
    ------
    UsageError
        A path does not exist, a file is none of the release, or one is there twice.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"no such file or folder: {path}")
        candidates = sorted(path.rglob("*.pt*")) if path.is_dir() else [path]
        for candidate in candidates:
            name = _released_name(candidate)
            if name is None:
                if path.is_file():
                    raise UsageError(f"{path}: none of the released files; leave them in the folders they come in")
            elif name in found and not found[name].samefile(candidate):
                raise UsageError(f"{name} is there twice, {found[name]} and {candidate}: give one of them")
            else:
                found[name] = candidate
    return found


def _released_name(path: Path) -> str | None:
    tail = "/".join(path.absolute().parts[-2:]).lower()
    return next((name for name, (file, _, _) in RELEASED.items() if file.lower() == tail), None)


def read_released(name: str, path: Path, ignore_extra: bool = False) -> dict[str, Tensor]:
    """The weights in a released file, float32, once every entry is found to be the published network's.

    ``ignore_extra``: leave out what the network has no use for, instead of refusing. Raises CheckpointError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PyTorch finds odd of a file that it refuses anyway, or reads
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a file that is no pickle can fail in any way
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(f"{path}: can not be read as tensors alone, so it is not loaded ({reason})") from error
    if isinstance(content, Mapping) and isinstance(content.get("model_state"), Mapping):
        content = content["model_state"]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no table of tensors")
    _, kind, config = RELEASED[name]
    with torch.device("meta"):
        expected: dict[str, Tensor] = kind(**config).state_dict()
    extra = [key for key in content if key not in expected]
    other = [key for key, value in expected.items() if key in content and _differs(content[key], value)]
    faults = [
        _listed("missing", [key for key in expected if key not in content]),
        _listed("extra", [] if ignore_extra else extra),
        _listed("of another kind or shape", other),
    ]
    if any(faults):
        remedy = "; --ignore-extra leaves what is extra out" if extra and not ignore_extra else ""
        told = ", ".join(fault for fault in faults if fault)
        raise CheckpointError(f"{path}: not the published network ({len(expected)} entries): {told}{remedy}")
    weights = {key: content[key].to(value.dtype) for key, value in expected.items()}
    broken = [key for key, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path}: damaged: values that are no numbers in {broken[0]}")
    return weights


def _differs(value: object, expected: Tensor) -> bool:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.shape != expected.shape:
        return True
    return value.is_floating_point() != expected.is_floating_point()


def _listed(fault: str, keys: Sequence[object]) -> str:
    if not keys:
        return ""
    more = ", ..." if len(keys) > _SHOWN else ""
    return f"{len(keys)} {fault} ({', '.join(map(str, keys[:_SHOWN]))}{more})"


def import_published(paths: Sequence[Path], folder: Path | None = None, ignore_extra: bool = False) -> Imported:
    """Convert the released files among ``paths`` and keep them in ``folder``, by default the user's own.

    Nothing is written unless all files found are right. Networks whose files are not all there are left out.

    Raises
    ------
    UsageError
        As `find_released`; or no network is complete.
    CheckpointError
        A file is not what it should be.
    """
    folder = folder or checkpoints.installed_folder(checkpoints.PUBLISHED)
    read = find_released(paths)
    complete = {name: made for name, made in NETWORKS.items() if set(made.parts.values()) <= set(read)}
    missing: dict[str, str] = {}
    for made in NETWORKS.values():
        for file in (RELEASED[part][0] for part in made.parts.values() if part not in read):
            missing[file] = f"{missing[file]} and {made.purpose}" if file in missing else made.purpose
    if not complete:
        raise UsageError(f"no network is complete; missing: {', '.join(missing)}")
    for name, path in read.items():  # all are looked at before any is kept; they are too large to be held meanwhile
        read_released(name, path, ignore_extra)
    hashes = {name: checkpoints.sha256(path) for name, path in read.items()}
    for name, made in complete.items():
        record = {"run": "released", "files": {RELEASED[part][0]: hashes[part] for part in made.parts.values()}}
        checkpoints.save(
            name,
            _joined(made, {part: read_released(part, read[part], ignore_extra) for part in made.parts.values()}),
            made.config,
            folder,
            record,
            half=False,
            architecture=checkpoints.PUBLISHED,
            licence=LICENCE,
        )
    return Imported(folder, tuple(complete), read, missing)


def _joined(made: Made, weights: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The weights of a network from those of its parts; of an autoencoder, the half that is needed."""
    joined: dict[str, Tensor] = {}
    for part, file in made.parts.items():
        for key, value in weights[file].items():
            if part == "mapping":
                joined[f"mapping.{key}"] = value
            elif key.startswith(part):
                joined[key] = value
    return joined
