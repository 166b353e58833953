"""The array types that modules hand to each other, and what brightness is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oldphoto.errors import PhotoError

FloatImage = NDArray[np.float32]
"""A picture, H × W × 3 in [0, 1], or a mask, H × W in [0, 1], 1 = damaged."""

HalfImage = NDArray[np.float16]
"""The same in half the memory, to 11 bits."""

ByteImage = NDArray[np.uint8]
"""The same in 8 bits, 0 to 255."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""The weights of red, green and blue in brightness (ITU-R BT.601)."""


def as_image(values: NDArray[Any], dimensions: int, what: str, in_place: bool = False) -> FloatImage:
    """A picture (3 ``dimensions``) or a mask (2) as stages take it: contiguous float32 in [0, 1].

    Values beyond that range, which resampling leaves, are cut off; ``in_place`` in the memory of ``values``, which else
    do not change. ``what``: the picture's name in an error.

    Raises
    ------
    PhotoError
        It has another shape, holds integers, whose range is unknown, or values that are no numbers.
    """
    shape = " × ".join(map(str, values.shape))
    if values.ndim != dimensions or (dimensions == 3 and values.shape[2] != 3) or 0 in values.shape:
        raise PhotoError(f"{what} must be {'H × W' if dimensions == 2 else 'H × W × 3'}, this array is {shape}")
    if values.dtype.kind not in "fb":
        raise PhotoError(f"{what} must be of floating-point values in [0, 1]; divide the {values.dtype} values first")
    picture = np.ascontiguousarray(values, np.float32)
    low, high = float(picture.min()), float(picture.max())
    if not np.isfinite([low, high]).all():
        raise PhotoError(f"{what} holds values that are no numbers")
    if low < 0 or high > 1:
        picture = np.clip(picture, 0, 1, out=picture if in_place and picture.flags.writeable else None)
    return picture


def is_gray(rgb: FloatImage) -> bool:
    """Whether a picture, H × W × 3, has the same in all three channels everywhere."""
    return np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])


def neutralise(rgb: FloatImage) -> None:
    """Give all three channels of a picture, H × W × 3, their mean, in place."""
    for row in rgb:  # so that no temporary is as large as the picture
        row[:] = row.mean(1, keepdims=True)


def black_and_white(rgb: FloatImage) -> FloatImage:
    """A colour picture, H × W × 3, with its brightness in all three channels."""
    return np.repeat((rgb @ LUMA)[..., None], 3, 2)
