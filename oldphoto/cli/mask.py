"""``oldphoto mask``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oldphoto import loading
from oldphoto.cli.common import (
    Run,
    batch_options,
    carry_out,
    network_options,
    photo_arguments,
    pixel_option,
)

if TYPE_CHECKING:
    from oldphoto.batch import Plan


@click.command()
@photo_arguments
@pixel_option
@network_options
@batch_options("masked")
def mask(
    source: Path,
    output: Path,
    max_pixels: int,
    tile: int | None,
    weights: str | None,
    overwrite: bool,
    run: Run,
) -> None:
    """Write the damage masks of photos alone.

    A mask is an 8-bit PNG, white = damaged. It can be edited and given back: oldphoto restore INPUT OUTPUT --mask MASKS
    """

    def make_plan() -> Plan:
        from oldphoto import batch
        from oldphoto.work import mask_naming

        return batch.plan(source, output, mask_naming(), overwrite=overwrite)

    make_work = partial(loading.finding_masks, weights, device=run.device, tile=tile, max_pixels=max_pixels)
    carry_out(run, make_plan, make_work)
