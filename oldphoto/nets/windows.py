"""The part of a tile that is wanted of it: what only the margins need, late layers need not compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Window:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of a picture, px."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, picture: Tensor) -> Window:
        """All of a picture N × C × H × W."""
        return cls(0, picture.shape[-2], 0, picture.shape[-1])

    def grown(self, reach: int, picture: Window) -> Window:
        """The window and ``reach`` px around it, as far as the picture goes."""
        return Window(
            max(self.top - reach, picture.top),
            min(self.bottom + reach, picture.bottom),
            max(self.left - reach, picture.left),
            min(self.right + reach, picture.right),
        )

    def bands(self, rows: int, grid: int) -> Iterator[Window]:
        """The window in as few bands of at most ``rows`` rows as do, all about as high, in multiples of ``grid``."""
        count = -(-(self.bottom - self.top) // rows)
        height = -(-(self.bottom - self.top) // (count * grid)) * grid
        for top in range(self.top, self.bottom, height):
            yield Window(top, min(top + height, self.bottom), self.left, self.right)

    def of(self, features: Tensor, grid: int = 1, seen: Window | None = None) -> Tensor:
        """What the window holds of features with cells of ``grid`` px that cover ``seen``, by default the whole.

        All sides are multiples of ``grid``.
        """
        top, left = (0, 0) if seen is None else (seen.top, seen.left)
        rows = slice((self.top - top) // grid, (self.bottom - top) // grid)
        columns = slice((self.left - left) // grid, (self.right - left) // grid)
        return features[..., rows, columns]
