"""The array types that modules hand to each other, and what brightness is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
"""A picture, H × W × 3 in [0, 1], or a mask, H × W in [0, 1], 1 = damaged."""

HalfImage = NDArray[np.float16]
"""The same in half the memory, to 11 bits."""

ByteImage = NDArray[np.uint8]
"""The same in 8 bits, 0 to 255."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""The weights of red, green and blue in brightness (ITU-R BT.601)."""


def is_gray(rgb: FloatImage) -> bool:
    """Whether a picture, H × W × 3, has the same in all three channels everywhere."""
    return np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])


def black_and_white(rgb: FloatImage) -> FloatImage:
    """A colour picture, H × W × 3, with its brightness in all three channels."""
    return np.repeat((rgb @ LUMA)[..., None], 3, 2)
