"""What was done to a photo, so that it can be proved: what a log records of it, and whether that still holds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oldphoto import __version__
from oldphoto.errors import UsageError
from oldphoto.remote import is_url

if TYPE_CHECKING:
    from oldphoto.pipeline import RestoreOptions


def made_by(
    options: RestoreOptions, device: str, checkpoints: Path | None, quality: int, software: str | None
) -> dict[str, Any]:
    """Return the version, the options and the hashes of the weights that restore photos, as a log records them.

    Raises CheckpointError or UsageError where the weights or the device are missing.
    """
    from oldphoto.checkpoints import checkpoint_folder, own_folder, pick_device, read_manifest, sha256

    networks = read_manifest(checkpoint_folder(checkpoints))
    if options.deblur:
        own = read_manifest(checkpoint_folder(own_folder(checkpoints)))
        networks |= {name: record for name, record in own.items() if name == "denoiser"}
    return {
        "version": __version__,
        "options": {
            **dataclasses.asdict(options),
            "face_model": None if options.face_model is None else str(options.face_model),
            "device": str(pick_device(device)),
            "quality": quality,
            "stamp": software is not None,
        },
        "weights": {
            **{name: record.sha256 for name, record in sorted(networks.items())},
            **{path.name: sha256(path) for path in _files_for_faces(options)},
        },
    }


def _files_for_faces(options: RestoreOptions) -> Iterator[Path]:
    """Yield the files of weights, besides the project's own, that find and refine faces."""
    from oldphoto.faces.models import DLIB_FILES, model_file

    if options.faces:
        yield from map(model_file, DLIB_FILES)
        if options.face_model is not None:
            yield options.face_model


_COMPARED = ("input", "input_sha256", "mask", "mask_sha256", "output", "output_sha256")  # of a record, which is long


@dataclass(frozen=True)
class Finding:
    """What became of a file that a log names: `state` is "ok", "altered", "missing" or "unrecorded"."""

    path: str
    state: str
    explanation: str = ""


@dataclass(frozen=True)
class Log:
    """What the records of a log tell of files: for each output the last that says how it was made."""

    restored: Mapping[str, Mapping[str, Any]]
    kept: tuple[tuple[str, str], ...]
    """Inputs and outputs of photos that were found finished, by other inputs than those that made the outputs."""
    unrecorded: tuple[str, ...]
    """Outputs that were found finished, or made by a command that keeps no hashes, and whose making no record tells."""
    torn: int
    """Lines that are no record: a killed run, or a full disk, broke them off."""


def read_log(path: Path) -> Log:
    """Read a log that ``oldphoto restore --log`` wrote.

    Raises
    ------
    UsageError
        It cannot be read, or holds no record of a photo that was restored or kept.
    """
    restored: dict[str, Mapping[str, Any]] = {}
    others: dict[tuple[str, str], None] = {}
    torn = 0
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                record = _record(line)
                if record is None:
                    torn += 1
                elif record["status"] == "failed":
                    continue
                elif record["status"] != "kept" and record.get("output_sha256"):
                    restored[record["output"]] = {name: record.get(name) for name in _COMPARED}
                else:
                    others[record["input"] or "", record["output"]] = None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): give a log that --log wrote") from error
    if not restored and not others:
        raise UsageError(f"{path}: holds no record of a restored photo: give a log that --log wrote")
    kept = tuple(pair for pair in others if pair[1] in restored and pair[0] != restored[pair[1]].get("input"))
    unrecorded = tuple(dict.fromkeys(output for _, output in others if output not in restored))
    return Log(restored, kept, unrecorded, torn)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("status"), str)
    if not is_record or not all(isinstance(record.get(name), str | None) for name in ("input", "output")):
        return None
    return record if record["status"] == "failed" or record["output"] is not None else None


def verify(log: Log) -> Iterator[Finding]:
    """Compare the inputs, masks and outputs of a log, by their hashes, with what lies on the disk.

    A path that is not absolute is looked for from the current folder. Yields a `Finding` a file.
    """
    seen: set[tuple[str, str]] = set()
    for record in log.restored.values():
        for role in ("output", "input", "mask"):
            path, expected = record.get(role), record.get(f"{role}_sha256")
            if isinstance(path, str) and isinstance(expected, str) and (path, expected) not in seen:
                seen.add((path, expected))
                yield _compare(path, expected)
    for path, output in log.kept:
        expected = log.restored[output].get("input_sha256")
        if isinstance(expected, str) and _compare(path, expected).state == "altered":
            yield Finding(path, "unrecorded", f"was not restored: {output} existed, and is of another photo")
    for output in log.unrecorded:
        yield Finding(output, "unrecorded", "is no restored photo, or was finished before: no record holds its hash")


def _compare(path: str, expected: str) -> Finding:
    try:
        with _open(path) as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return Finding(path, "missing", "is not there any more, or not seen from this folder")
    except Exception as error:  # a remote file system has errors of its own
        return Finding(path, "missing", f"cannot be read ({error})")
    return Finding(path, "ok") if actual == expected else Finding(path, "altered", "is not the file it was")


def _open(path: str) -> BufferedReader:
    if not is_url(path):
        return Path(path).open("rb")
    import fsspec

    file: BufferedReader = fsspec.open(path, "rb").open()
    return file
