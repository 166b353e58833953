"""``oldphoto evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oldphoto.cli.common import PathType, network_options, say
from oldphoto.loading import weights_folder

if TYPE_CHECKING:
    from oldphoto.evaluation import Evaluation, Measured, Row, Scores

_EXPECTED = "a folder that holds photos/ with clean photographs, and heldout-photos.txt with the names of those to use"


@click.command()
@click.option("--data", type=PathType(), metavar="DIR", help=f"{_EXPECTED[0].upper()}{_EXPECTED[1:]}.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, other damage.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Use the first N photos only.")
@network_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
def evaluate(
    data: Path | None,
    seed: int,
    limit: int | None,
    device: str,
    tile: int | None,
    weights: str | None,
    as_json: bool,
    markdown: bool,
) -> None:
    """Run the synthetic benchmark: photos no network has seen are aged, restored and compared with what they were.

    Rows: the aged input, a classical baseline (OpenCV's inpainting of the damage that oldphoto found, non-local means,
    auto levels), oldphoto without its faces stage, and the classical baseline with the true masks. Columns: PSNR in dB,
    SSIM, perceptual distance (lower is better) and the average precision of the masks; then the first three again
    after each picture's channels were fitted by gain and offset to the clean photo's.
    """
    if data is None:
        raise click.UsageError(f"--data is missing: give {_EXPECTED}.")
    if as_json and markdown:
        raise click.UsageError("give either --json or --markdown.")
    import json
    from dataclasses import asdict

    from oldphoto.evaluation import summarise

    evaluation = summarise(_measured(data, seed, limit, device, tile, weights))
    if as_json:
        click.echo(json.dumps({"seed": seed, **asdict(evaluation)}, indent=2))
        return
    table = _cells(evaluation)
    for line in _markdown(table) if markdown else _aligned(table):
        say(line, err=False)
    say("", err=False)
    for line in _remarks(evaluation, seed):
        say(line, err=False)


def _measured(
    data: Path, seed: int, limit: int | None, device: str, tile: int | None, weights: str | None
) -> list[Measured]:
    from tqdm import tqdm

    from oldphoto.errors import UsageError
    from oldphoto.evaluation import measure, perceptual_distance
    from oldphoto.pipeline import RestoreOptions, Restorer
    from oldphoto.stages import scratch_detector
    from oldphoto.training.datasets import load_held_out

    if not (data / "photos").is_dir() or not (data / "heldout-photos.txt").is_file():
        raise UsageError(f"{data}: no photographs to evaluate on here; --data needs {_EXPECTED}")
    photos = load_held_out(data, "photos")[:limit]
    folder = weights_folder(weights)
    restorer = Restorer(RestoreOptions(with_scratch=True, faces=False, tile=tile), device, folder)
    detector = scratch_detector(device, folder, tile)
    try:
        distance = perceptual_distance()
    except UsageError as error:
        say(f"oldphoto: its column is left out: {error}")
        distance = None
    # None: tqdm itself looks whether stderr is a terminal.
    with tqdm(
        measure(photos, restorer, detector, seed, distance), total=len(photos), unit="photo", disable=None
    ) as bar:
        return list(bar)


def _cells(evaluation: Evaluation) -> list[list[str]]:
    """Return the table, the headings first."""
    perceptual = evaluation.rows[0].plain.perceptual is not None
    scores = ["PSNR", "SSIM", "perceptual"] if perceptual else ["PSNR", "SSIM"]
    headings = ["", *scores, "mask AP", *(f"fitted {name}" for name in scores)]
    return [headings, *(_cells_of(row) for row in evaluation.rows)]


def _cells_of(row: Row) -> list[str]:
    precision = "-" if row.mask_precision is None else f"{row.mask_precision:.3f}"
    return [row.method, *_cells_of_scores(row.plain), precision, *_cells_of_scores(row.fitted)]


def _cells_of_scores(scores: Scores) -> list[str]:
    distance = [] if scores.perceptual is None else [f"{scores.perceptual:.3f}"]
    return [f"{scores.psnr:.2f}", f"{scores.ssim:.3f}", *distance]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]


def _markdown(table: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in table[0][1:])]
    return [f"| {' | '.join(row)} |" for row in (table[0], rule, *table[1:])]


def _remarks(evaluation: Evaluation, seed: int) -> list[str]:
    from oldphoto.evaluation import OLDPHOTO

    own = next(row for row in evaluation.rows if row.method == OLDPHOTO)
    return [
        f"{evaluation.photos} photos, seed {seed}; fitted: after a gain and an offset per channel.",
        f"Photos that oldphoto made worse (PSNR): {own.worse}, fitted: {own.worse_fitted}.",
        f"Clean photos passed through: PSNR {evaluation.clean_mean:.2f}, the worst {evaluation.clean_worst:.2f}.",
    ]
