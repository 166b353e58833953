"""A picture that is black but for a few places, in the memory that those take."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage, HalfImage


class SparsePicture:
    """The pixels of a picture, H × W × 3, that are not black, in half precision: ten bytes each.

    Made from the whole ``shape`` and, strip by strip from the top, what is not black, as booleans, rows × W, and the
    values there, count × 3. Slices of it are arrays.
    """

    dtype = np.dtype(np.float16)
    ndim = 3

    def __init__(
        self, shape: tuple[int, ...], strips: Iterable[tuple[NDArray[np.bool_], FloatImage | HalfImage]]
    ) -> None:
        counts, row = np.zeros(shape[0] + 1, np.int64), 1
        columns, values = [np.empty(0, np.uint32)], [np.empty((0, 3), np.float16)]
        for places, colours in strips:
            counts[row : row + len(places)] = places.sum(1)
            row += len(places)
            columns.append(np.nonzero(places)[1].astype(np.uint32))
            values.append(np.asarray(colours, np.float16))
        self.shape = shape
        self._starts = counts.cumsum()
        self._columns = np.concatenate(columns)
        self._values = np.concatenate(values)

    def __getitem__(self, part: slice | tuple[slice, slice]) -> HalfImage:
        """Some rows, or of some rows some columns; slices without a step."""
        rows, columns = part if isinstance(part, tuple) else (part, slice(None))
        top, bottom, _ = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        dense = np.zeros((bottom - top, right - left, 3), np.float16)
        kept, down = self._of_rows(top, bottom)
        across = self._columns[kept].astype(np.int64) - left
        inside = (across >= 0) & (across < right - left)
        dense[down[inside], across[inside]] = self._values[kept][inside]
        return dense

    def replace(self, rows: slice, strip: FloatImage) -> None:
        """Take the values of some rows, where they are not black, from what these rows shall be."""
        top, bottom, _ = rows.indices(self.shape[0])
        kept, down = self._of_rows(top, bottom)
        self._values[kept] = strip[down, self._columns[kept]]

    def _of_rows(self, top: int, bottom: int) -> tuple[slice, NDArray[np.int64]]:
        """Which pixels the rows hold, and in which of them each is."""
        starts = self._starts[top : bottom + 1]
        return slice(int(starts[0]), int(starts[-1])), np.repeat(np.arange(bottom - top), np.diff(starts))
