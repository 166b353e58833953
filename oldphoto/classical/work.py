"""What is done with each photo of a batch that is deblurred."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.batch import Job, Result, Work
from oldphoto.classical.comparison import compare_methods, sheet_of
from oldphoto.classical.deblurring import Deblurrer
from oldphoto.errors import PhotoError
from oldphoto.imagefile import PIXEL_LIMIT, Photo, open_photo, read_photo, write_photo
from oldphoto.work import filtering


def deblurring(
    deblurrer: Deblurrer,
    *,
    quality: int = 95,
    sheet: Path | None = None,
    reference: Path | None = None,
    max_pixels: int = PIXEL_LIMIT,
) -> Work:
    """Return the work that deblurs a photo.

    Parameters
    ----------
    deblurrer
        How it is deblurred.
    quality
        The quality of JPEG and WebP, 1 to 100.
    sheet
        Where all methods are drawn side by side, a PNG.
    reference
        The sharp photo that they are scored against.
    max_pixels
        Larger photos are refused.
    """

    def change(photo: Photo, job: Job) -> FloatImage:
        if sheet is None:
            return deblurrer.deblur(photo.rgb).rgb
        psf = deblurrer.psf_of(photo.rgb)
        sharp = None if reference is None else read_photo(reference).rgb
        entries = compare_methods(photo.rgb, psf, deblurrer, sharp)
        write_photo(Photo(np.ascontiguousarray(sheet_of(entries))), sheet, "png")
        return next(entry.rgb for entry in entries if entry.name == deblurrer.method)

    work = filtering(change, "deblur", quality, max_pixels)
    if sheet is None:
        return work

    def of_one_page(job: Job) -> Result:
        pages = open_photo(job.source, max_pixels).pages
        if pages > 1:
            raise PhotoError(f"has {pages} pages, but a comparison shows one photo: split it")
        return work(job)

    return of_one_page
