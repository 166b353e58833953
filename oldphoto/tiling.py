"""Run a network over a picture of any size in bounded memory, with the same result as over the whole picture.

The networks have a bounded field of view and no normalisation over the picture. Tiles overlap by a margin wider than
what a pixel can see to any visible effect, and begin at multiples of the networks' coarsest grid, so that a pixel
falls on the same grid in every tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oldphoto.arrays import FloatImage


def run_tiled(
    network: Callable[..., Tensor],
    pictures: tuple[FloatImage, ...],
    out: FloatImage,
    multiple: int,
    device: torch.device,
    tile: int,
    margin: int,
) -> None:
    """Write ``network(*pictures)`` into ``out``, tile by tile.

    Parameters
    ----------
    network : takes a tensor 1 × C × h × w for each picture, h and w multiples of ``multiple``; gives 1 × C × h × w
    pictures : of one size, H × W × C or H × W
    out : H × W × C or H × W; must not share memory with the pictures
    multiple : the network's coarsest grid, px
    tile : side of a tile without margins, px (rounded up to ``multiple``)
    margin : what a tile sees of its neighbours on every side, px (likewise)
    """
    side, margin = _round_up(tile, multiple), _round_up(margin, multiple)
    height, width = out.shape[:2]
    row_index, column_index = _mirrored(height, multiple), _mirrored(width, multiple)
    for top, bottom, above, below in _spans(height, side, margin, len(row_index)):
        for left, right, before, after in _spans(width, side, margin, len(column_index)):
            rows, columns = row_index[above:below], column_index[before:after]
            tensors = [_tensor(picture, rows, columns, device) for picture in pictures]
            with torch.inference_mode():
                result = network(*tensors)[0].float().cpu()
            core = result[:, top - above : bottom - above, left - before : right - before]
            out[top:bottom, left:right] = core.permute(1, 2, 0).reshape(out[top:bottom, left:right].shape).numpy()


def run_overlapping(
    network: Callable[..., Tensor],
    pictures: tuple[FloatImage, ...],
    out: FloatImage,
    multiple: int,
    device: torch.device,
    tile: int,
    overlap: int,
) -> None:
    """As `run_tiled`, for networks that normalise over the whole picture: tiles differ, and fade into each other.

    A picture of at most ``tile`` px a side goes through in one piece. ``overlap``: px that neighbours have in common,
    at least.
    """
    side = _round_up(max(tile, 2 * overlap), multiple)
    height, width = out.shape[:2]
    row_index, column_index = _mirrored(height, multiple), _mirrored(width, multiple)
    out[:] = 0
    total = np.zeros((height, width), np.float32)
    for top, down in _faded(len(row_index), side, overlap, multiple):
        for left, across in _faded(len(column_index), side, overlap, multiple):
            rows, columns = row_index[top : top + len(down)], column_index[left : left + len(across)]
            tensors = [_tensor(picture, rows, columns, device) for picture in pictures]
            with torch.inference_mode():
                result = network(*tensors)[0].float().cpu().permute(1, 2, 0).numpy()
            weight = down[: height - top, None] * across[: width - left]
            there = slice(top, top + weight.shape[0]), slice(left, left + weight.shape[1])
            out[there] += weight[..., None] * result[: weight.shape[0], : weight.shape[1]]
            total[there] += weight
    out /= total[..., None]


def _faded(length: int, side: int, overlap: int, multiple: int) -> Iterator[tuple[int, FloatImage]]:
    """Starts of the tiles along one axis, spread evenly, and each one's weights, which fade over the overlaps."""
    if length <= side:
        yield 0, np.ones(length, np.float32)
        return
    count = -(-(length - overlap) // (side - overlap))
    starts = [(length - side) * index // (count - 1) // multiple * multiple for index in range(count)]
    for start in starts:
        place = np.arange(side) + 0.5
        before = place if start else np.full(side, np.inf)
        after = side - place if start + side < length else np.full(side, np.inf)
        yield start, np.minimum(np.minimum(before, after) / overlap, 1).astype(np.float32)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _mirrored(length: int, multiple: int) -> NDArray[np.intp]:
    """Indices 0 … length - 1, then back, as often as it takes to fill a multiple: reflection for any length."""
    position = np.arange(_round_up(length, multiple)) % (2 * length)
    return np.minimum(position, 2 * length - 1 - position)


def _spans(length: int, side: int, margin: int, padded: int) -> Iterator[tuple[int, int, int, int]]:
    """Cores and extents, (start, stop, extent start, extent stop), of the tiles along one axis."""
    for start in range(0, length, side):
        stop = min(start + side, length)
        # The last extent reaches the end of the padded picture, or a multiple: starts and sides are multiples.
        extent = min(start + side + margin, padded)
        yield start, stop, max(start - margin, 0), extent


def _tensor(picture: FloatImage, rows: NDArray[np.intp], columns: NDArray[np.intp], device: torch.device) -> Tensor:
    """A tile as 1 × C × h × w, channels last in memory."""
    if rows[-1] == rows[0] + len(rows) - 1 and columns[-1] == columns[0] + len(columns) - 1:
        piece = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    else:
        piece = picture[rows[:, None], columns[None, :]]
    piece = np.ascontiguousarray(piece).reshape(1, len(rows), len(columns), -1)
    tensor = torch.from_numpy(piece).permute(0, 3, 1, 2)
    return tensor.to(device)
