"""``oldphoto denoise``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oldphoto.cli.common import (
    Run,
    batch_options,
    carry_out,
    network_options,
    photo_arguments,
    pixel_option,
    weights_folder,
)

if TYPE_CHECKING:
    from oldphoto.arrays import FloatImage
    from oldphoto.batch import Job, Plan, Work
    from oldphoto.imagefile import Photo

METHODS = ("auto", "median", "adaptive-median", "tv", "tv-poisson", "nlm", "bm3d", "learned")


@click.command()
@photo_arguments
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="auto: what fits the noise; bm3d needs the package of that name.",
)
@click.option(
    "--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Quality of JPEG and WebP outputs."
)
@pixel_option
@network_options
@batch_options
def denoise(
    source: Path,
    output: Path,
    method: str,
    quality: int,
    max_pixels: int,
    device: str,
    tile: int | None,
    weights: str | None,
    overwrite: bool,
    log: Path | None,
    jobs: int | None,
    timeout: float,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Take noise and grain out of a photo, or out of a folder of photos with its tree.

    The type of the noise and its level are determined for each photo; a photo without noise stays as it is.
    """

    def make_plan() -> Plan:
        from oldphoto import batch
        from oldphoto.work import photo_naming

        return batch.plan(source, output, photo_naming(), overwrite=overwrite)

    run = Run(
        jobs=jobs,
        log=log,
        dry_run=dry_run,
        verbose=verbose,
        quiet=quiet,
        done="denoised",
        device=device,
        timeout=timeout,
    )
    carry_out(run, make_plan, partial(_make_work, method, device, weights, tile, quality, max_pixels))


def _make_work(method: str, device: str, weights: str | None, tile: int | None, quality: int, max_pixels: int) -> Work:
    from oldphoto.classical import denoising
    from oldphoto.classical.learned import Denoiser
    from oldphoto.work import filtering

    denoising.require(method)
    denoiser = None
    if method in denoising.NEEDS_NETWORK:
        denoiser = Denoiser(device, weights_folder(weights), tile)

    def change(photo: Photo, job: Job) -> FloatImage:
        return denoising.denoise(photo.rgb, method, denoiser).rgb

    return filtering(change, "denoise", quality, max_pixels)
