"""``oldphoto weights``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oldphoto.cli.common import say, weights_folder

if TYPE_CHECKING:
    from oldphoto.checkpoints import Record

_weights_option = click.option(
    "--weights", "--checkpoints", "weights", metavar="NAME|DIR", help="Other weights than the bundled ones."
)


@click.group()
def weights() -> None:
    """Show and verify the weights of the networks."""


@weights.command("list")
@_weights_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_weights(weights: str | None, as_json: bool) -> None:
    """List the networks: file, size, parameters, training and scores."""
    import json

    from oldphoto import checkpoints

    folder = checkpoints.checkpoint_folder(weights_folder(weights))
    entries = {name: _entry(folder, record) for name, record in sorted(checkpoints.read_manifest(folder).items())}
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "networks": entries}, indent=2))
        return
    say(f"{len(entries)} networks in {folder}", err=False)
    width = max(map(len, entries), default=0)
    for name, entry in entries.items():
        say(f"{name:{width}}  {_described(entry)}", err=False)


@weights.command()
@_weights_option
def verify(weights: str | None) -> None:
    """Check every file against the hash in the manifest; exit with 2 if one is missing or altered."""
    from oldphoto import checkpoints
    from oldphoto.errors import CheckpointError

    folder = checkpoints.checkpoint_folder(weights_folder(weights))
    records = sorted(checkpoints.read_manifest(folder).items())
    bad = 0
    for name, record in records:
        try:
            checkpoints.verify(folder, record)
            say(f"ok       {name}", err=False)
        except CheckpointError as error:
            bad += 1
            say(f"altered  {name}: {error}", err=False)
    if bad:
        raise CheckpointError(f"{folder}: {bad} of {len(records)} networks are not what the manifest says")


def _entry(folder: Path, record: Record) -> dict[str, Any]:
    """Return what is listed of a network; size and parameters are None for a file that is missing or no checkpoint."""
    path = folder / Path(record.file).name  # a name that leads out of the folder is not followed
    lasting = _runs_that_count(record)
    return {
        "file": record.file,
        "bytes": path.stat().st_size if path.is_file() else None,
        "parameters": _parameters(path),
        "hours": round(sum(_number(run.get("hours")) for run in lasting), 3),
        "steps": round(sum(_number(run.get("steps")) for run in lasting)),
        "scores": dict(record.scores) if isinstance(record.scores, Mapping) else {},
    }


def _runs_that_count(record: Record) -> list[Mapping[str, Any]]:
    """Return the last run that began anew, and all that went on from it."""
    runs = [run for run in record.training if isinstance(run, Mapping)]
    began = [index for index, run in enumerate(runs) if not run.get("resumed")]
    return runs[began[-1] if began else 0 :]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _parameters(path: Path) -> int | None:
    import math

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return int(sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys()))  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError):
        return None


def _described(entry: dict[str, Any]) -> str:
    size = "missing" if entry["bytes"] is None else f"{entry['bytes'] / 1e6:.2f} MB"
    count = "? parameters" if entry["parameters"] is None else f"{entry['parameters']:,} parameters"
    scores = ", ".join(f"{name} {value}" for name, value in entry["scores"].items()) or "no scores"
    training = f"{entry['hours']:.1f} h, {entry['steps']:,} steps"
    return f"{entry['file']}  {size}  {count}  trained {training}  {scores}"
