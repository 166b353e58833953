"""All methods of deconvolution side by side: the pictures, their scores, and a sheet to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.classical.deblurring import Deblurrer
from oldphoto.classical.methods import DEBLURRING
from oldphoto.classical.psf import PointSpread
from oldphoto.errors import PhotoError
from oldphoto.evaluation import compare

CELL, COLUMNS, CAPTION, GAP = 360, 4, 46, 12
"""Side of a picture on the sheet, how many stand beside each other, height of a caption, and what is between, px."""

ZOOM = 3
"""How much the detail is magnified."""

SMALLEST_SCORED = 7
"""The window of SSIM, px."""


@dataclass(frozen=True)
class Entry:
    """One picture of a comparison; ``psnr`` in dB and ``ssim`` where there is a reference."""

    name: str
    rgb: FloatImage
    psnr: float | None = None
    ssim: float | None = None

    @property
    def caption(self) -> str:
        """The name, with the scores where there are any."""
        scores = "" if self.psnr is None or self.ssim is None else f"  {self.psnr:.2f} dB  {self.ssim:.3f}"
        return f"{self.name}{scores}"


def compare_methods(
    rgb: FloatImage, psf: PointSpread, deblurrer: Deblurrer, reference: FloatImage | None = None
) -> list[Entry]:
    """The blurred photo, what each method makes of it, and the reference, each H × W × 3 in [0, 1].

    Raises PhotoError where the reference has another size, or is too small to be compared, or as `Deblurrer.deblur`.
    """
    if reference is not None and reference.shape != rgb.shape:
        sizes = [f"{picture.shape[1]} × {picture.shape[0]}" for picture in (reference, rgb)]
        raise PhotoError(f"the reference is {sizes[0]} px, the photo {sizes[1]}: they must be of one size")
    if reference is not None and min(rgb.shape[:2]) < SMALLEST_SCORED:
        raise PhotoError(
            f"too small to be scored: {SMALLEST_SCORED} × {SMALLEST_SCORED} px at least; leave --reference"
        )

    def entry(name: str, picture: FloatImage) -> Entry:
        if reference is None:
            return Entry(name, picture)
        scores = compare(picture, reference).plain
        return Entry(name, picture, scores.psnr, scores.ssim)

    entries = [entry("input", rgb), *(entry(method, deblurrer.apply(rgb, psf, method)) for method in DEBLURRING)]
    return entries if reference is None else [*entries, Entry("reference", reference)]


def sheet_of(entries: Sequence[Entry]) -> FloatImage:
    """Lay pictures of one size out with captions, each with the same detail magnified below it; H × W × 3."""
    top, left, side = _liveliest(entries[0].rgb)
    cells = []
    for entry in entries:
        caption = np.full((CAPTION, CELL, 3), 255, np.uint8)
        cv2.putText(caption, entry.caption, (2, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (25, 25, 25), 1, cv2.LINE_AA)
        detail = entry.rgb[top : top + side, left : left + side]
        space = np.full((GAP, CELL, 3), 1, np.float32)
        cells.append(
            np.concatenate([caption / np.float32(255), _fitted(entry.rgb), space, _fitted(detail, cv2.INTER_NEAREST)])
        )
    while len(cells) % COLUMNS:
        cells.append(np.ones_like(cells[0]))
    gap = np.ones((cells[0].shape[0], GAP, 3), np.float32)
    rows = []
    for first in range(0, len(cells), COLUMNS):
        parts = [part for cell in cells[first : first + COLUMNS] for part in (gap, cell)]
        rows.append(np.concatenate([*parts, gap], 1))
    return np.ascontiguousarray(np.concatenate(rows), np.float32)


def _liveliest(rgb: FloatImage) -> tuple[int, int, int]:
    """Top, left and side of the square with the strongest contours."""
    height, width = rgb.shape[:2]
    side = max(1, min(height, width, round(max(height, width) / ZOOM)))
    gray = cv2.GaussianBlur(rgb.mean(2), (0, 0), 1)
    contours = np.hypot(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1))
    sums = cv2.integral(contours)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left), side


def _fitted(picture: FloatImage, enlarge: int = cv2.INTER_CUBIC) -> FloatImage:
    """A picture in a square of CELL px, on white."""
    factor = CELL / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    square = np.full((CELL, CELL, 3), 1, np.float32)
    how = cv2.INTER_AREA if factor < 1 else enlarge
    square[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=how).clip(0, 1)
    return square
