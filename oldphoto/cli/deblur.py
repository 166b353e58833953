"""``oldphoto deblur``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oldphoto import loading
from oldphoto.classical.methods import BYTES_A_PIXEL, DEBLURRING, DEFAULT
from oldphoto.cli.common import (
    NumberType,
    PathType,
    Run,
    batch_options,
    carry_out,
    network_options,
    photo_arguments,
    pixel_option,
    quality_option,
    stamp_option,
)
from oldphoto.errors import UsageError

if TYPE_CHECKING:
    from oldphoto.batch import Plan


def _methods(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command a flag for every method, and the ``method`` that is chosen."""

    @wraps(function)
    def with_method(**options: Any) -> Any:
        chosen = [name for name in DEBLURRING if options.pop(name.replace("-", "_"))]
        if len(chosen) > 1:
            raise click.UsageError(f"--{chosen[0]} and --{chosen[1]}: one method at a time, or --compare.")
        return function(method=chosen[0] if chosen else DEFAULT, **options)

    for name, text in reversed(DEBLURRING.items()):
        with_method = click.option(f"--{name}", is_flag=True, help=text)(with_method)
    return with_method


@click.command()
@photo_arguments
@_methods
@click.option(
    "--psf",
    metavar="PSF",
    default="auto",
    show_default=True,
    help="The blur: auto (found in each photo), motion:LENGTH,ANGLE, defocus:RADIUS, gaussian:SIGMA (px; degrees"
    " counter-clockwise from the x axis), or an image file of the point-spread function.",
)
@click.option(
    "--balance",
    type=NumberType(min=0, min_open=True),
    metavar="R",
    help="Ratio of the powers of noise and signal for --wiener; by default estimated.",
)
@click.option(
    "--compare", "sheet", type=PathType(), metavar="FILE.png", help="Also draw all methods side by side, of one photo."
)
@click.option("--reference", type=PathType(), metavar="FILE", help="The sharp photo, to score the comparison with.")
@quality_option
@stamp_option
@pixel_option
@network_options
@batch_options("deblurred")
def deblur(
    source: Path,
    output: Path,
    method: str,
    psf: str,
    balance: float | None,
    sheet: Path | None,
    reference: Path | None,
    quality: int,
    no_stamp: bool,
    max_pixels: int,
    tile: int | None,
    weights: str | None,
    overwrite: bool,
    run: Run,
) -> None:
    """Undo motion blur or defocus of a photo, or of a folder of photos with its tree.

    A photo in which --psf auto finds no blur, or none that explains it, fails with that reason, and is not written. The
    plain margin of a print stays as it is.
    """
    if balance is not None and method != "wiener":
        raise click.UsageError("--balance is for --wiener.")
    if reference is not None and sheet is None:
        raise click.UsageError("--reference is for --compare.")

    def make_plan() -> Plan:
        from oldphoto import batch
        from oldphoto.work import photo_naming

        if reference is not None and not reference.is_file():
            raise UsageError(f"no such reference: {reference}")
        plan = batch.plan(source, output, photo_naming(), overwrite=overwrite)
        given = [path for path in (reference, Path(psf)) if path is not None]
        batch.refuse_overwriting(plan, given, "the reference or the point-spread function")
        if sheet is not None:
            refuse_sheet(sheet, plan, given, overwrite)
        return plan

    make_work = partial(
        loading.deblurring,
        (method, psf, balance),
        weights,
        tile=tile,
        device=run.device,
        quality=quality,
        stamp=not no_stamp,
        sheet=sheet,
        reference=reference,
        max_pixels=max_pixels,
    )
    run = replace(run, memory_a_pixel=BYTES_A_PIXEL[method])
    carry_out(run, make_plan, make_work)


def refuse_sheet(sheet: Path, plan: Plan, given: Sequence[Path], overwrite: bool) -> None:
    """Refuse a comparison that would overwrite a photo or what else is ``given``, or that has no single photo to show.

    Raises
    ------
    UsageError
        With the reason.
    """
    from oldphoto import batch

    if len(plan.jobs) != 1 or plan.jobs[0].source.parent / plan.jobs[0].name != plan.jobs[0].source:
        raise UsageError("--compare shows one photo: give a photo as INPUT, not a folder")
    if sheet.suffix.lower() != ".png":
        raise UsageError(f"{sheet}: --compare writes a PNG: give a name that ends in .png")
    job = plan.jobs[0]
    if batch.same_place(sheet, job.target) or any(batch.same(sheet, path) for path in (job.source, *given)):
        raise UsageError(f"{sheet} is another file of this command: give the comparison a name of its own")
    if sheet.exists() and not overwrite:
        raise UsageError(f"{sheet} exists: give another name, or --overwrite")
    if job.kept:
        raise UsageError(f"{job.target} exists: --compare deblurs anew: give another OUTPUT, or --overwrite")
    batch.refuse_unwritable(sheet.parent)
