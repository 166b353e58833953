"""``oldphoto mask``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oldphoto.cli.common import Run, batch_options, carry_out, network_options, photo_arguments, weights_folder

if TYPE_CHECKING:
    from oldphoto.batch import Plan, Work


@click.command()
@photo_arguments
@network_options
@batch_options
def mask(
    source: Path,
    output: Path,
    device: str,
    tile: int | None,
    weights: str | None,
    overwrite: bool,
    log: Path | None,
    jobs: int,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Write the damage masks of photos alone.

    A mask is an 8-bit PNG, white = damaged. It can be edited and given back: oldphoto restore INPUT OUTPUT --mask MASKS
    """

    def make_plan() -> Plan:
        from oldphoto import batch
        from oldphoto.work import mask_naming

        return batch.plan(source, output, mask_naming(), overwrite=overwrite)

    def make_work() -> Work:
        from oldphoto.work import finding_masks

        return finding_masks(device=device, checkpoints=weights_folder(weights), tile=tile)

    run = Run(jobs=jobs, log=log, dry_run=dry_run, verbose=verbose, quiet=quiet, done="masked")
    carry_out(run, make_plan, make_work)
