"""``oldphoto age``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oldphoto import loading
from oldphoto.cli.common import (
    PathType,
    Run,
    ShareType,
    batch_options,
    carry_out,
    photo_arguments,
    pixel_option,
    quality_option,
)

if TYPE_CHECKING:
    from oldphoto.batch import Plan


@click.command()
@photo_arguments
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, other damage.")
@click.option(
    "--severity", type=ShareType(), help="0 = hardly, 1 = worst; by default random for each photo and kind of ageing."
)
@click.option("--save-masks", type=PathType(), metavar="DIR", help="Write masks of the structured damage here.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["same", "png", "jpg", "tif", "webp"]),
    default="same",
    show_default=True,
    help="File format of the outputs.",
)
@quality_option
@pixel_option
@batch_options("aged")
def age(
    source: Path,
    output: Path,
    seed: int,
    severity: float | None,
    save_masks: Path | None,
    file_format: str,
    quality: int,
    max_pixels: int,
    overwrite: bool,
    run: Run,
) -> None:
    """Make clean photos look old: blur, fading, grain, scratches, folds, stains, and the flaws of a scan.

    INPUT is a photo or a folder, OUTPUT a folder, or a file for a photo. How a photo ages depends on the seed and its
    name below INPUT alone, not on what else is in the folder. A gray photo stays gray; size and metadata are kept.
    """

    def make_plan() -> Plan:
        from oldphoto import batch
        from oldphoto.work import photo_naming

        return batch.plan(source, output, photo_naming(file_format), overwrite=overwrite, save_masks=save_masks)

    make_work = partial(loading.ageing, seed=seed, severity=severity, quality=quality, max_pixels=max_pixels)
    carry_out(run, make_plan, make_work)
