"""``oldphoto weights``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oldphoto.cli.common import PathType, say
from oldphoto.loading import weights_folder

if TYPE_CHECKING:
    from oldphoto.checkpoints import Record

_weights_option = click.option(
    "--weights",
    "--checkpoints",
    "weights",
    metavar="NAME|DIR",
    help="These alone: bundled, published, or a folder; by default all that is installed.",
)


@click.group()
def weights() -> None:
    """Show, verify and import the weights of the networks."""


@weights.command("list")
@_weights_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_weights(weights: str | None, as_json: bool) -> None:
    """List the networks: file, hash, size, parameters, cost, training, scores and licence."""
    import json

    from oldphoto import checkpoints

    listed = {
        folder: {name: _entry(folder, record) for name, record in sorted(checkpoints.read_manifest(folder).items())}
        for folder in _folders(weights)
    }
    if as_json:
        first, *others = ({"folder": str(folder), "networks": entries} for folder, entries in listed.items())
        click.echo(json.dumps(first | ({"others": others} if others else {}), indent=2))
        return
    for folder, entries in listed.items():
        say(f"{len(entries)} networks in {folder}", err=False)
        width = max(map(len, entries), default=0)
        for name, entry in entries.items():
            for index, line in enumerate(_described(entry)):
                say(f"{'' if index else name:{width}}  {line}", err=False)


@weights.command()
@_weights_option
def verify(weights: str | None) -> None:
    """Check every file against the hash in the manifest; exit with 2 if one is missing or altered."""
    from oldphoto import checkpoints
    from oldphoto.errors import CheckpointError

    bad = []
    for folder in _folders(weights):
        records = sorted(checkpoints.read_manifest(folder).items())
        wrong = 0
        for name, record in records:
            try:
                checkpoints.verify(folder, record)
                say(f"ok       {name}", err=False)
            except CheckpointError as error:
                wrong += 1
                say(f"altered  {name}: {error}", err=False)
        if wrong:
            bad.append(f"{folder}: {wrong} of {len(records)} networks are not what the manifest says")
    if bad:
        raise CheckpointError("; ".join(bad))


@weights.command("import")
@click.argument("paths", metavar="DIR_OR_FILES...", type=PathType(), nargs=-1, required=True)
@click.option(
    "--as",
    "architecture",
    type=click.Choice(["published"]),
    required=True,
    help="What they are: the checkpoints released with Bringing Old Photos Back to Life.",
)
@click.option("--ignore-extra", is_flag=True, help="Leave out entries that the networks have no use for.")
def import_weights(paths: tuple[Path, ...], architecture: str, ignore_extra: bool) -> None:
    """Import the checkpoints of another project, for restore --weights published.

    Give the folder that the released archives were unpacked to, or files, in the folders that they came in. They are
    read as tensors alone, nothing in them is run, and every entry is checked; what is kept are safetensors files in
    your own data folder. Nothing is kept unless all files that were found are right.
    """
    from oldphoto.published_weights import RELEASED, import_published

    done = import_published(paths, ignore_extra=ignore_extra)
    for name, path in done.read.items():
        say(f"read     {RELEASED[name][0]}  {path.stat().st_size / 1e6:.1f} MB", err=False)
    for file, purpose in done.missing.items():
        say(f"missing  {file}  (for {purpose})", err=False)
    say(f"installed {', '.join(done.networks)} in {done.folder}", err=False)


def _folders(weights: str | None) -> list[Path]:
    """Return the folder asked for; by default the bundled one and what the user imported."""
    from oldphoto import checkpoints

    folders = [checkpoints.checkpoint_folder(weights_folder(weights))]
    imported = checkpoints.installed_folder(checkpoints.PUBLISHED)
    if weights is None and (imported / checkpoints.MANIFEST).is_file():
        folders.append(imported)
    return folders


def _entry(folder: Path, record: Record) -> dict[str, Any]:
    """Return what is listed of a network; size and parameters are None for a file that is missing or no checkpoint."""
    from oldphoto.costs import cost

    path = folder / Path(record.file).name  # a name that leads out of the folder is not followed
    lasting = _runs_that_count(record)
    costs = cost(record)
    return {
        "file": record.file,
        "sha256": record.sha256,
        "architecture": record.architecture,
        "bytes": path.stat().st_size if path.is_file() else None,
        "parameters": _parameters(path),
        "gigaflop": None if costs is None else {"per": costs.unit, "count": round(costs.gigaflop, 3)},
        "hours": round(sum(_number(run.get("hours")) for run in lasting), 3),
        "steps": round(sum(_number(run.get("steps")) for run in lasting)),
        "scores": dict(record.scores) if isinstance(record.scores, Mapping) else {},
        "licence": record.licence,
    }


def _runs_that_count(record: Record) -> list[Mapping[str, Any]]:
    """Return the last run that began anew, and all that went on from it, as a mean of several does."""
    runs = [run for run in record.training if isinstance(run, Mapping)]
    began = [index for index, run in enumerate(runs) if not (run.get("resumed") or "mean of" in run)]
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


def _described(entry: dict[str, Any]) -> tuple[str, str]:
    size = "missing" if entry["bytes"] is None else f"{entry['bytes'] / 1e6:.2f} MB"
    count = "? parameters" if entry["parameters"] is None else f"{entry['parameters']:,} parameters"
    costs = entry["gigaflop"]
    cost = "no cost of its own" if costs is None else f"{costs['count']:,.1f} GFLOP a {costs['per']}"
    scores = ", ".join(f"{name} {value}" for name, value in entry["scores"].items()) or "no scores"
    training = f"trained {entry['hours']:.1f} h, {entry['steps']:,} steps" if entry["steps"] else "imported"
    licence = entry["licence"] or "see its model card"
    return (
        f"{entry['file']}  {size}  {count}  {cost}  {training}  {scores}",
        f"sha256 {entry['sha256']}  licence: {licence}",
    )
