"""``oldphoto restore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
    "--face-fidelity",
    type=ShareType(),
    default=0.0,
    show_default=True,
    help="0 = faces as refined, 1 = as the photo shows them.",
)
@click.option(
    "--face-model",
    type=PathType(),
    metavar="FILE",
    help="Refine faces with a model of your own: GFPGAN, RestoreFormer and others that spandrel knows.",
)
@click.option(
    "--face-detector",
    type=click.Choice(["hog", "cnn"]),
    default="hog",
    show_default=True,
    help="How faces are found; cnn takes seconds a photo, and finds more of them.",
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
@click.option("--report", type=PathType(), metavar="FILE.html", help="Write a page that compares before and after.")
@network_options
@batch_options
def restore(
    source: Path,
    output: Path,
    with_scratch: bool,
    mask: Path | None,
    no_faces: bool,
    face_fidelity: float,
    face_model: Path | None,
    face_detector: Literal["hog", "cnn"],
    strength: float,
    file_format: str,
    quality: int,
    save_masks: Path | None,
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
                face_fidelity=face_fidelity,
                face_model=face_model,
                face_detector=face_detector,
            ),
            device=device,
            checkpoints=weights_folder(weights),
            quality=quality,
            previews=report is not None,
        )

    carry_out(Run(jobs, log, report, dry_run, verbose, quiet), make_plan, make_work)
