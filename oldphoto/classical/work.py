"""What is done with each photo of a batch that is deblurred."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.batch import Job, Result, Work
from oldphoto.classical.comparison import compare_methods, sheet_of
from oldphoto.classical.deblurring import Deblurrer
from oldphoto.errors import PhotoError
from oldphoto.imagefile import PIXEL_LIMIT, Photo, open_photo, read_photo, write_photo
from oldphoto.work import Filter, Filtered, filtering


def deblurring(
    make: Callable[[int | None, str], Deblurrer],
    *,
    sheet: Path | None = None,
    reference: Path | None = None,
    max_pixels: int = PIXEL_LIMIT,
    **options: Any,
) -> Work:
    """Return the work that deblurs a photo.

    Parameters
    ----------
    make
        Makes what deblurs, for tiles of a side in pixels and a device.
    sheet
        Where all methods are drawn side by side, a PNG.
    reference
        The sharp photo that they are scored against.
    max_pixels
        Larger photos are refused.
    options
        ``tile``, ``device``, ``quality``, ``stamp`` and ``weights`` of `oldphoto.work.filtering`.
    """

    def change(deblurrer: Deblurrer, rgb: FloatImage) -> Filtered:
        if sheet is None:
            deblurred = deblurrer.deblur(rgb)
            return Filtered(deblurred.rgb, {"method": deblurrer.method, "psf": deblurred.psf.text})
        psf = deblurrer.psf_of(rgb)
        sharp = None if reference is None else read_photo(reference).rgb
        entries = compare_methods(rgb, psf, deblurrer, sharp)
        write_photo(Photo(np.ascontiguousarray(sheet_of(entries))), sheet, "png")
        chosen = next(entry.rgb for entry in entries if entry.name == deblurrer.method)
        return Filtered(chosen, {"method": deblurrer.method, "psf": psf.text})

    def make_filter(tile: int | None, device: str) -> Filter:
        return partial(change, make(tile, device))

    work = filtering(make_filter, "deblur", max_pixels=max_pixels, **options)
    if sheet is None:
        return work

    def of_one_page(job: Job) -> Result:
        pages = open_photo(job.source, max_pixels).pages
        if pages > 1:
            raise PhotoError(f"has {pages} pages, but a comparison shows one photo: split it")
        return work(job)

    return of_one_page
