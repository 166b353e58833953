"""``oldphoto denoise``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oldphoto import loading
from oldphoto.classical.methods import BYTES_A_PIXEL, DENOISING
from oldphoto.cli.common import (
    Run,
    batch_options,
    carry_out,
    network_options,
    photo_arguments,
    pixel_option,
    quality_option,
    stamp_option,
)

if TYPE_CHECKING:
    from oldphoto.batch import Plan


@click.command()
@photo_arguments
@click.option(
    "--method",
    type=click.Choice(DENOISING),
    default="auto",
    show_default=True,
    help="auto: what fits the noise; bm3d needs the package of that name.",
)
@quality_option
@stamp_option
@pixel_option
@network_options
@batch_options("denoised")
def denoise(
    source: Path,
    output: Path,
    method: str,
    quality: int,
    no_stamp: bool,
    max_pixels: int,
    tile: int | None,
    weights: str | None,
    overwrite: bool,
    run: Run,
) -> None:
    """Take noise and grain out of a photo, or out of a folder of photos with its tree.

    The type of the noise and its level are determined for each photo; of one without noise the pixels stay
    as they are, and are encoded anew.
    """

    def make_plan() -> Plan:
        from oldphoto import batch
        from oldphoto.work import photo_naming

        return batch.plan(source, output, photo_naming(), overwrite=overwrite)

    run = replace(run, memory_a_pixel=BYTES_A_PIXEL.get(method, 0))
    options = {"device": run.device, "tile": tile, "quality": quality, "stamp": not no_stamp, "max_pixels": max_pixels}
    carry_out(run, make_plan, partial(loading.denoising, method, weights, **options))
