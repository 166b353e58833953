"""``oldphoto restore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oldphoto.cli.common import (
    PathType,
    Run,
    ShareType,
    batch_options,
    carry_out,
    network_options,
    photo_arguments,
    weights_folder,
)

if TYPE_CHECKING:
    from oldphoto.batch import Plan, Work


@click.command()
@photo_arguments
@click.option("--with-scratch", is_flag=True, help="Find and repair scratches, folds and other structured damage.")
@click.option(
    "--mask",
    type=PathType(),
    metavar="PATH",
    help="Your own masks, white = damaged: a file, or a folder with the names of the photos.",
)
@click.option("--no-faces", is_flag=True, help="Leave faces as they come out.")
@click.option(
    "--deblur",
    metavar="METHOD[:PSF]",
    help="Deblur first, by a method of oldphoto deblur; auto: only where blur is found with confidence.",
)
@click.option("--strength", type=ShareType(), default=1.0, show_default=True, help="0 = untouched, 1 = full.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["same", "png", "jpg", "tif", "webp"]),
    default="same",
    show_default=True,
    help="File format of the outputs.",
)
@click.option(
    "--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Quality of JPEG and WebP outputs."
)
@click.option("--save-masks", type=PathType(), metavar="DIR", help="Write the masks that were used here.")
@click.option("--hr", "large_scans", is_flag=True, help="With --weights published: its networks for large scans.")
@click.option("--report", type=PathType(), metavar="FILE.html", help="Write a page that compares before and after.")
@network_options
@batch_options
def restore(
    source: Path,
    output: Path,
    with_scratch: bool,
    mask: Path | None,
    no_faces: bool,
    deblur: str | None,
    strength: float,
    file_format: str,
    quality: int,
    save_masks: Path | None,
    large_scans: bool,
    report: Path | None,
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
    """Restore a photo, or a folder of photos with its tree.

    INPUT is a photo or a folder, OUTPUT a folder, or a file for a photo. Photos whose output exists are kept, so that
    running the same command again goes on where it stopped.

    Exit codes: 0 all done, 1 a photo failed (the others are written), 2 refused (nothing is touched), 130 interrupted.
    """
    if save_masks is not None and not (with_scratch or mask):
        raise click.UsageError("--save-masks needs masks to save: add --with-scratch or --mask.")

    def make_plan() -> Plan:
        from oldphoto.work import plan_restoration

        return plan_restoration(
            source, output, format=file_format, overwrite=overwrite, masks=mask, save_masks=save_masks
        )

    def make_work() -> Work:
        from oldphoto.pipeline import RestoreOptions
        from oldphoto.work import restoring

        return restoring(
            RestoreOptions(
                with_scratch=with_scratch,
                faces=not no_faces,
                strength=strength,
                tile=tile,
                deblur=deblur,
                large_scans=large_scans,
            ),
            device=device,
            checkpoints=weights_folder(weights),
            quality=quality,
            previews=report is not None,
        )

    carry_out(Run(jobs, log, report, dry_run, verbose, quiet), make_plan, make_work)
