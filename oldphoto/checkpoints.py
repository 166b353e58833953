"""Find, verify and load weights; keep their manifest.

A folder of checkpoints holds ``*.safetensors`` and ``manifest.json``: for every network its file, SHA-256,
configuration, training records and scores. The bundled folder stands at the top of the repository and inside the
installed package; ``OLDPHOTO_CHECKPOINTS`` or an argument points elsewhere. What users import is kept in their own data
folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oldphoto.errors import CheckpointError, UsageError
from oldphoto.imagefile import atomically
from oldphoto.shortage import is_out_of_memory

ENVIRONMENT = "OLDPHOTO_CHECKPOINTS"
MANIFEST = "manifest.json"
COMPACT, PUBLISHED = "compact", "published"
"""Architectures: the project's own, and that of Wan et al. at its published size; also what its weights are called."""

Net = TypeVar("Net", bound=nn.Module)

_HERE = Path(__file__).resolve().parent
_REMEDY = "reinstall oldphoto, or point --weights at a folder of intact checkpoints"


@dataclass(frozen=True)
class Record:
    """What the manifest says of one network; ``architecture``: which networks' definitions the weights are for."""

    name: str
    file: str
    sha256: str
    config: Mapping[str, Any]
    training: tuple[Mapping[str, Any], ...] = ()
    scores: Mapping[str, Any] | None = None
    architecture: str = COMPACT
    licence: str | None = None


def installed_folder(name: str) -> Path:
    """Where weights that the user imported under a name are kept, whether they are there or not."""
    return platformdirs.user_data_path("oldphoto", appauthor=False) / "weights" / name


def own_folder(folder: Path | None) -> Path | None:
    """The folder to look in for a network that the published model has none of: there, the bundled one (None)."""
    return None if folder == installed_folder(PUBLISHED) else folder


def checkpoint_folder(folder: Path | None = None) -> Path:
    """The folder asked for, or by the environment, or the bundled one.

    Raises CheckpointError where none of them has a manifest.
    """
    asked = folder or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    return _first_with_manifest(asked) if asked else bundled_folder()


def bundled_folder() -> Path:
    """The folder that came with the program. Raises CheckpointError where it has no manifest."""
    return _first_with_manifest(_HERE / "checkpoints", _HERE.parent / "checkpoints")


def _first_with_manifest(*candidates: Path) -> Path:
    for candidate in candidates:
        if (candidate / MANIFEST).is_file():
            return candidate
    raise CheckpointError(f"{candidates[0]}: no weights here ({MANIFEST} is missing); {_REMEDY}")


def read_manifest(folder: Path) -> dict[str, Record]:
    """Every network of a folder of checkpoints, by name. Raises CheckpointError."""
    path = folder / MANIFEST
    try:
        networks = json.loads(path.read_text(encoding="utf-8"))["networks"]
        return {
            name: Record(
                name,
                str(entry["file"]),
                str(entry["sha256"]),
                dict(entry["config"]),
                tuple(entry.get("training", ())),
                entry.get("scores"),
                str(entry.get("architecture", COMPACT)),
                entry.get("licence"),
            )
            for name, entry in networks.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable manifest ({error!r}); {_REMEDY}") from error


def holds(folder: Path, name: str) -> bool:
    """Whether a folder has a manifest that names a network. Raises CheckpointError where it cannot be read."""
    return (folder / MANIFEST).exists() and name in read_manifest(folder)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path, record: Record) -> Path:
    """The path of a network's weights, once its hash is found right. Raises CheckpointError."""
    path = folder / record.file
    if Path(record.file).name != record.file:
        raise CheckpointError(f"{folder / MANIFEST}: '{record.file}' is not a plain file name; {_REMEDY}")
    if not path.is_file():
        raise CheckpointError(f"{path}: weights are missing; {_REMEDY}")
    try:
        actual = sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can not be read ({error.strerror}); {_REMEDY}") from error
    if actual != record.sha256:
        raise CheckpointError(f"{path}: altered or damaged, its SHA-256 is not the manifest's; {_REMEDY}")
    return path


def find(name: str, folder: Path | None = None) -> tuple[Path, Record]:
    """The folder and the manifest's record of a network. Raises CheckpointError."""
    where = checkpoint_folder(folder)
    record = read_manifest(where).get(name)
    if record is None:
        imported = where == installed_folder(PUBLISHED)
        remedy = "import its files too: oldphoto weights import FILES --as published" if imported else _REMEDY
        raise CheckpointError(f"{where / MANIFEST}: no network '{name}' in it; {remedy}")
    return where, record


def load(kind: type[Net], name: str, folder: Path | None = None) -> Net:
    """Build a network by its manifest's configuration and give it its verified weights, as float32.

    Raises CheckpointError where file, hash, configuration or shapes do not fit.
    """
    where, record = find(name, folder)
    path = verify(where, record)
    try:
        weights = {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
        with torch.device("meta"):  # without memory: a configuration that lies may ask for any amount
            net = kind(**record.config)
        expected = net.state_dict()
        wrong = {key for key in expected | weights if _shape(expected.get(key)) != _shape(weights.get(key))}
        if wrong:
            raise ValueError(f"other shapes than its configuration says: {min(wrong)}")
        net.load_state_dict(weights, assign=True)
    except Exception as error:  # a constructor raises anything on a configuration that lies
        if is_out_of_memory(error):
            raise CheckpointError(f"{path}: does not fit into memory: close other programs") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: does not hold the network '{name}' ({reason}); {_REMEDY}") from error
    return net


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def save(
    name: str,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    folder: Path,
    training: Mapping[str, Any],
    scores: Mapping[str, Any] | None = None,
    half: bool = True,
    architecture: str = COMPACT,
    licence: str | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write weights (float16 unless ``half`` is False) and enter them, with their training record, in the manifest.

    A tensor with values that float16 cannot hold, such as variances of batch normalisation, stays as it is.
    The record of the run that wrote the file before under the same ``run`` id is replaced, earlier runs stay; of
    weights that come from another folder, those are ``earlier``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    tensors = {
        key: _stored(value.detach().cpu(), half).clone(memory_format=torch.contiguous_format)
        for key, value in weights.items()
    }
    with atomically(path) as temporary:
        save_file(tensors, temporary)
        temporary.chmod(0o644)  # it comes out readable by its owner alone, and would be installed so
    manifest = folder / MANIFEST
    content = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {"networks": {}}
    known = content["networks"].get(name, {})
    history = [record for record in known.get("training", earlier) if record.get("run") != training.get("run")]
    content["networks"][name] = {
        "file": path.name,
        "sha256": sha256(path),
        "config": dict(config),
        "training": [*history, dict(training)],
        "scores": dict(scores) if scores is not None else None,
        **({"architecture": architecture} if architecture != COMPACT else {}),
        **({"licence": licence} if licence else {}),
    }
    with atomically(manifest) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _stored(value: Tensor, half: bool) -> Tensor:
    if not value.is_floating_point():
        return value
    halved = value.half()
    return halved if half and bool(halved.isfinite().all()) else value.float()


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a device of this machine. Raises UsageError."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: not a device; use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"--device {name}: this machine has no such CUDA device; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: Metal is not available on this machine; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: not supported; use auto, cpu, cuda, cuda:N or mps")
    return device
