"""``oldphoto diagnose``."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oldphoto.cli.common import FAILED, PathType, network_options, pixel_option, say, verbosity_options
from oldphoto.errors import UsageError
from oldphoto.loading import weights_folder

if TYPE_CHECKING:
    from oldphoto.diagnosis import Diagnosis


@click.command()
@click.argument("inputs", metavar="INPUT...", type=PathType(), nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON record a line.")
@pixel_option
@network_options
@verbosity_options
def diagnose(
    inputs: tuple[Path, ...],
    as_json: bool,
    max_pixels: int,
    device: str,
    tile: int | None,
    weights: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Tell what ails photos: noise, blur, fading, cast, compression, damage; and which command helps.

    INPUT is a photo or a folder. Nothing is written.

    Exit codes: 0 all done, 1 a photo could not be diagnosed (the others are), 2 refused.
    """
    from oldphoto.batch import reason
    from oldphoto.diagnosis import Diagnostician
    from oldphoto.imagefile import read_photo

    photos, complete = _photos(inputs)
    diagnostician = Diagnostician(device, weights_folder(weights), tile)
    if not as_json:
        say(_row("photo", "noise", "blur", "fading", "cast", "JPEG", "damage", "faces"), err=False)
    for path in photos:
        try:
            diagnosis = diagnostician.diagnose(read_photo(path, max_pixels), path)
        except Exception as error:
            say(f"oldphoto: {path}: {reason(error, path)}")
            if verbose:
                for line in traceback.format_exc().splitlines():
                    say(line)
            complete = False
            continue
        for warning in () if quiet else diagnosis.warnings:
            say(f"oldphoto: {path}: warning: {warning}")
        if as_json:
            click.echo(json.dumps(diagnosis.record()))
        else:
            for line in _lines(diagnosis):
                say(line, err=False)
    if not complete:
        click.get_current_context().exit(FAILED)


def _photos(inputs: tuple[Path, ...]) -> tuple[list[Path], bool]:
    """List the photos, and tell whether all folders could be read; refuse what is not there."""
    from oldphoto.batch import find_photos
    from oldphoto.imagefile import INPUT_SUFFIXES

    photos, complete = [], True
    for path in inputs:
        if path.is_dir():
            found = find_photos(path, INPUT_SUFFIXES)
            photos += [path / name for name in found.names]
            for folder, why in found.unreadable:
                say(f"oldphoto: {folder}: {why}: its photos are left out")
                complete = False
        elif path.exists() or path.is_symlink():
            photos.append(path)
        else:
            raise UsageError(f"no such file or folder: {path}")
    return photos, complete


def _lines(diagnosis: Diagnosis) -> list[str]:
    """A row of the table, and the advice below it."""
    noise, blur, (colour, strength) = diagnosis.noise, diagnosis.blur, diagnosis.cast
    row = _row(
        diagnosis.file,
        noise.type if noise.type == "none" else f"{noise.type} {noise.level:.3g} ({noise.confidence:.0%})",
        f"{blur.psf.text} ({blur.confidence:.0%})" if blur else "none",
        f"{diagnosis.fading:.0%}",
        colour if colour == "none" else f"{colour} {strength:.2f}",
        "-" if diagnosis.jpeg_quality is None else str(diagnosis.jpeg_quality),
        f"{diagnosis.damaged_share:.1%}",
        str(diagnosis.faces),
    )
    return [row, f"    {diagnosis.advice or 'nothing to do'}"]


def _row(*cells: str) -> str:
    widths = (24, 28, 26, 7, 13, 5, 7, 5)
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
