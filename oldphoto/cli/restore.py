"""``oldphoto restore``."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from oldphoto import loading
from oldphoto.classical.methods import BYTES_A_PIXEL, method_and_psf
from oldphoto.cli.common import (
    FAILED,
    NumberType,
    PathType,
    PlaceType,
    Run,
    ShareType,
    batch_options,
    carry_out,
    network_options,
    pixel_option,
    quality_option,
    say,
    stamp_option,
)
from oldphoto.errors import UsageError

if TYPE_CHECKING:
    from oldphoto.batch import Plan
    from oldphoto.ray_batch import Cluster


def _verify(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None or ctx.resilient_parsing:
        return
    from oldphoto import audit

    log = audit.read_log(path)
    counts: Counter[str] = Counter()
    for finding in audit.verify(log):
        counts[finding.state] += 1
        if finding.state != "ok":
            say(f"oldphoto: {finding.path}: {finding.state}: it {finding.explanation}")
    if log.torn:
        say(f"oldphoto: note: {log.torn} lines of {path} are no records: a killed run broke them off")
    told = ", ".join(f"{counts[state]} {state}" for state in ("ok", "altered", "missing", "unrecorded"))
    say(f"oldphoto: {len(log.restored)} restored photos, files: {told}", err=False)
    ctx.exit(0 if counts.total() == counts["ok"] else FAILED)


@click.command()
@click.argument("source", metavar="INPUT", type=PlaceType())
@click.argument("output", metavar="OUTPUT", type=PlaceType())
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
    help="How faces are found; cnn takes a second or two more a photo, and finds some in profile.",
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
@quality_option
@click.option("--save-masks", type=PathType(), metavar="DIR", help="Write the masks that were used here.")
@click.option("--hr", "large_scans", is_flag=True, help="With --weights published: its networks for large scans.")
@click.option("--report", type=PathType(), metavar="FILE.html", help="Write a page that compares before and after.")
@stamp_option
@pixel_option
@network_options
@batch_options("restored")
@click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="",
    help="Work on a Ray cluster: the one at ADDRESS, else one that runs here, else one started here.",
)
@click.option(
    "--worker-cpus",
    type=NumberType(min=0, min_open=True),
    default=1,
    show_default=True,
    metavar="N",
    help="Cores for each worker of a Ray cluster.",
)
@click.option(
    "--worker-gpus",
    type=NumberType(min=0),
    metavar="SHARE",
    help="GPUs, or a share of one, for each (by default half a one where there are any).",
)
@click.option(
    "--verify",
    type=PathType(),
    metavar="LOG",
    is_eager=True,
    expose_value=False,
    callback=_verify,
    help="Instead of restoring, compare all files that a log names with what it says of them.",
)
def restore(
    source: Path | str,
    output: Path | str,
    with_scratch: bool,
    mask: Path | None,
    no_faces: bool,
    deblur: str | None,
    face_fidelity: float,
    face_model: Path | None,
    face_detector: Literal["hog", "cnn"],
    strength: float,
    file_format: str,
    quality: int,
    save_masks: Path | None,
    large_scans: bool,
    report: Path | None,
    no_stamp: bool,
    max_pixels: int,
    tile: int | None,
    weights: str | None,
    overwrite: bool,
    run: Run,
    ray: str | None,
    worker_cpus: float,
    worker_gpus: float | None,
) -> None:
    """Restore a photo, or a folder of photos with its tree.

    INPUT is a photo or a folder, OUTPUT a folder, or a file for a photo; both may be URLs (s3://...). Photos whose
    output exists are kept, so that running the same command again goes on where it stopped.

    Exit codes: 0 all done, 1 a photo failed (the others are written), 2 refused (nothing is touched), 130 interrupted.
    """
    if save_masks is not None and not (with_scratch or mask):
        raise click.UsageError("--save-masks needs masks to save: add --with-scratch or --mask.")
    if no_faces and (face_model is not None or face_detector != "hog" or face_fidelity > 0):
        raise click.UsageError("--face-model, --face-detector and --face-fidelity are for faces: leave out --no-faces.")
    if ray is None and (worker_cpus != 1 or worker_gpus is not None):
        raise click.UsageError("--worker-cpus and --worker-gpus are for --ray.")

    def make_plan() -> Plan:
        from oldphoto import remote
        from oldphoto.work import photo_naming, plan_restoration

        if remote.is_url(source) or remote.is_url(output):
            if mask is not None or save_masks is not None:
                raise UsageError("--mask and --save-masks need photos in folders, not at URLs")
            return remote.plan(source, output, photo_naming(file_format), overwrite)
        return plan_restoration(
            Path(source),
            Path(output),
            format=file_format,
            overwrite=overwrite,
            masks=mask,
            save_masks=save_masks,
            max_pixels=max_pixels,
        )

    make_work = partial(
        loading.restoring,
        {
            "with_scratch": with_scratch,
            "faces": not no_faces,
            "strength": strength,
            "tile": tile,
            "deblur": deblur,
            "large_scans": large_scans,
            "face_fidelity": face_fidelity,
            "face_model": face_model,
            "face_detector": face_detector,
            "own_masks": mask is not None,
        },
        weights,
        device=run.device,
        quality=quality,
        previews=report is not None,
        stamp=not no_stamp,
        max_pixels=max_pixels,
    )
    gpus = 0.0 if run.device == "cpu" and worker_gpus is None else worker_gpus
    cluster = None if ray is None else partial(_connect, ray, worker_cpus, gpus, run.jobs)
    memory = 0 if deblur is None else _memory_to_deblur(deblur)
    run = replace(run, report=report, memory_a_pixel=memory, cluster=cluster)
    carry_out(run, make_plan, make_work)


def _memory_to_deblur(text: str) -> int:
    """Bytes a pixel that deblurring takes, as --deblur names it. Raises UsageError where that names nothing."""
    from oldphoto.classical.psf import parse

    method, psf = method_and_psf(text)
    if psf != "auto":
        parse(psf)
    return BYTES_A_PIXEL[method]


def _connect(address: str, cpus: float, gpus: float | None, most: int | None) -> Cluster:
    from oldphoto.ray_batch import Cluster

    return Cluster(address, cpus, gpus, most)
