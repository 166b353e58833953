"""Halve, double and blend pictures of any size, strip by strip, so that no temporary is as large as the picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, overload

import cv2
import numpy as np
import torch

from oldphoto.arrays import FloatImage, HalfImage
from oldphoto.sparse import SparsePicture

Image = TypeVar("Image", bound=FloatImage | HalfImage)

_STRIP = 64
"""Rows of the fine picture worked on at a time; even."""


def strips(height: int) -> Iterator[slice]:
    """Slices of rows that cover a picture of ``height`` rows."""
    for top in range(0, height, _STRIP):
        yield slice(top, min(top + _STRIP, height))


def to_float(picture: FloatImage | HalfImage) -> FloatImage:
    """A picture in single precision, itself if it is; PyTorch converts several times as fast as NumPy."""
    if picture.dtype == np.float32:
        return np.asarray(picture, np.float32)
    return np.asarray(torch.from_numpy(picture).float().numpy(), np.float32)


@overload
def halve(picture: Image, weight: FloatImage | HalfImage | None = None) -> Image: ...
@overload
def halve(picture: SparsePicture, weight: FloatImage | HalfImage | None = None) -> HalfImage: ...
def halve(
    picture: FloatImage | HalfImage | SparsePicture, weight: FloatImage | HalfImage | None = None
) -> FloatImage | HalfImage:
    """Means of 2 × 2 pixels of ``picture`` (H × W or H × W × C), ⌈H/2⌉ × ⌈W/2⌉; an odd last row or column counts twice.

    With ``weight``, H × W, the pixels are multiplied by it first.
    """
    height, width = picture.shape[:2]
    half = np.empty(((height + 1) // 2, (width + 1) // 2, *picture.shape[2:]), picture.dtype)
    for rows in strips(height):
        strip = to_float(picture[rows])
        if weight is not None:
            strip = strip * to_float(weight[rows]).reshape(*strip.shape[:2], *(1,) * (strip.ndim - 2))
        odd_rows, odd_columns = strip.shape[0] % 2, width % 2
        if odd_rows or odd_columns:
            strip = np.asarray(cv2.copyMakeBorder(strip, 0, odd_rows, 0, odd_columns, cv2.BORDER_REPLICATE), np.float32)
        size = (strip.shape[1] // 2, strip.shape[0] // 2)
        half[rows.start // 2 : rows.start // 2 + size[1]] = cv2.resize(strip, size, interpolation=cv2.INTER_AREA)
    return half


def doubled(coarse: FloatImage, shape: tuple[int, ...]) -> Iterator[tuple[slice, FloatImage]]:
    """The picture ``coarse`` at twice its size, bilinear, cut to ``shape``: slices of rows and what they hold."""
    height, width = shape[:2]
    for rows in strips(height):
        first, last = rows.start // 2, (rows.stop + 1) // 2
        above, below = min(first, 1), min(coarse.shape[0] - last, 1)
        piece = coarse[first - above : last + below]
        size = (2 * piece.shape[1], 2 * piece.shape[0])
        strip = np.asarray(cv2.resize(piece, size, interpolation=cv2.INTER_LINEAR), np.float32)
        yield rows, strip[2 * above : 2 * above + rows.stop - rows.start, :width]


def blend_into(picture: FloatImage, other: FloatImage, share: FloatImage | HalfImage | float) -> None:
    """Keep ``share`` of a picture, or of each of its pixels, in place, and take the rest from another.

    Exact where the share is 0 or 1, and the same to the bit however many threads there are: torch.lerp is not.
    """
    kept = np.asarray(share, np.float32)
    picture *= kept
    picture += (1 - kept) * other


def depth(shape: tuple[int, ...], base: int) -> int:
    """How often a picture can be halved until its short side is below twice ``base`` px."""
    short = min(shape[:2])
    return max(0, (short // base).bit_length() - 1)
