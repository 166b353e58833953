"""The plain margin around the picture of a scan: paper, a mount, what a program filled up.

The camera never blurred it and the film gave it no grain. Whatever models the one or the other looks inside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage

Box = tuple[slice, slice]

_LARGEST = 0.7
"""The share of a side that one margin may take, at most."""

_RIM, _INSIDE = 4, 12
"""Within _RIM px a margin ends, a scanner's blur included; a plain sky ends within a blur, or a wood. So most of what
tells the picture from it _INSIDE px further in has to be there at once."""

_AT_ONCE = 0.6

_STEP = 0.04
"""How far from the margin's colour a picture is beside it on average, at least, of 1."""

_LEVEL = 0.01
"""How far the rows of a margin differ from its colour on average, at most, besides by chance."""


def inside_margin(rgb: FloatImage, spread: float = 0.05) -> Box:
    """Rows and columns of the picture, H × W × 3 in [0, 1], within the plain margin of its scan; all without one.

    ``spread``: the standard deviation, of 1, that the rows of a margin have at most; with 0 it is of one value.
    """
    height, width = rgb.shape[:2]
    top, bottom = _depth(rgb, spread), _depth(rgb[::-1], spread)
    rows = slice(top, height - bottom) if top + bottom < height else slice(0, height)
    turned = rgb[rows].transpose(1, 0, 2)
    left, right = _depth(turned, spread), _depth(turned[::-1], spread)
    return rows, slice(left, width - right) if left + right < width else slice(0, width)


def _depth(rgb: FloatImage, spread: float) -> int:
    """How many of the first rows belong to a margin, its rim included."""
    most = int(_LARGEST * len(rgb))
    if most <= _RIM:
        return 0
    # The mean of a row of noise is off by chance, the less, the longer the row is.
    level = 0.5 / 255 if spread == 0 else _LEVEL + 4 * spread / np.sqrt(rgb.shape[1])
    count, noise, colour = 0, 0.0, np.zeros(3, np.float32)
    for row in rgb[:most]:
        mean, deviation = row.mean(0), float(row.std(0).mean())
        with_row = colour + (mean - colour) / (count + 1)
        if deviation > spread + 1e-4 or np.abs(mean - with_row).max() > level:
            break
        count, noise, colour = count + 1, noise + (deviation - noise) / (count + 1), with_row
    if count == 0:
        return 0
    first, further = (_distance(rgb, count + beyond, colour) for beyond in (_RIM, _INSIDE))
    ends = first > _STEP + noise and first >= _AT_ONCE * further
    return count + (_RIM if spread else 0) if ends else 0


def _distance(rgb: FloatImage, row: int, colour: NDArray[np.float32]) -> float:
    """How far a row, or the last one, is from a colour on average."""
    return float(np.abs(rgb[min(row, len(rgb) - 1)] - colour).mean())
