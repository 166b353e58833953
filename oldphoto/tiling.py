"""Run a network over a picture of any size in bounded memory, with the same result as over the whole picture.

The networks have a bounded field of view and no normalisation over the picture. Tiles overlap by a margin wider than
what a pixel can see to any visible effect, and begin at multiples of the networks' coarsest grid, so that a pixel
falls on the same grid in every tile.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from oldphoto.arrays import FloatImage, HalfImage
from oldphoto.nets.windows import Window
from oldphoto.pyramid import to_float
from oldphoto.sparse import SparsePicture

HALF = frozenset({"cuda"})
"""Kinds of devices on which networks may compute in half precision, off by no more than 0.3/255 (measured in float16
on a processor). By up to 2/255 would be bfloat16, which some processors are fast in."""

_LARGE = 5_000_000
"""Pixels of a picture from which on memory matters more than the time to ask the system for it again."""


def run_tiled(
    network: Callable[..., Tensor],
    pictures: tuple[FloatImage | HalfImage | SparsePicture, ...],
    out: FloatImage,
    multiple: int,
    device: torch.device,
    tile: int,
    margin: int,
    cuts: bool = False,
    half: bool = False,
) -> None:
    """Write ``network(*pictures)`` into ``out``, tile by tile.

    Parameters
    ----------
    network : takes a tensor 1 × C × h × w for each picture, h and w multiples of ``multiple``; gives 1 × C × h × w
    pictures : of one size, H × W × C or H × W
    out : H × W × C or H × W; may be one of the pictures
    multiple : the network's coarsest grid, px
    tile : side of a tile without margins, px (rounded up to ``multiple``); a tile at the border, which has a margin
        less, may be larger by that
    margin : what a tile sees of its neighbours on every side, px (likewise)
    half : the network may compute in half precision where the device is one of HALF
    cuts : the network is also given the `Window` that is wanted of the tile, as its last argument, and gives that alone
    """
    side, margin = _round_up(tile, multiple), _round_up(margin, multiple)
    height, width = out.shape[:2]
    down, across = (tuple(_spans(_round_up(length, multiple), side, margin, multiple)) for length in (height, width))
    # The tiles below still see the rows from here on as they were.
    ends = [above for _, _, above, _ in down[1:]] + [height]
    starts = [0, *ends[:-1]]
    tallest = max(bottom - start for (_, bottom, _, _), start in zip(down, starts, strict=True))
    # Allocated once: large arrays that come and go between those of the network scatter the heap.
    held = np.empty((tallest, *out.shape[1:]), np.float32)
    large = height * width >= _LARGE
    for (top, bottom, above, below), start, end in zip(down, starts, ends, strict=True):
        for column, (left, right, before, after) in enumerate(across):
            if large and column < 2:
                _return_memory()  # these are not of the size of those before: their pieces do not fit where those were
            tensors = [_tensor(picture, (above, below), (before, after), device) for picture in pictures]
            window = Window(top - above, bottom - above, left - before, right - before)
            with torch.inference_mode(), torch.autocast(device.type, torch.float16, half and device.type in HALF):
                result = network(*tensors, window) if cuts else window.of(network(*tensors))
            there = held[top - start : min(bottom, height) - start, left:right]
            core = result[0, :, : there.shape[0], : there.shape[1]].float().cpu()
            there[...] = core.permute(1, 2, 0).reshape(there.shape).numpy()
        out[start:end] = held[: end - start]
        kept = held[end - start : bottom - start]
        held[: len(kept)] = kept
    if large:
        _return_memory()


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
    out[:] = 0
    total = np.zeros((height, width), np.float32)
    for top, down in _faded(_round_up(height, multiple), side, overlap, multiple):
        for left, across in _faded(_round_up(width, multiple), side, overlap, multiple):
            rows, columns = (top, top + len(down)), (left, left + len(across))
            tensors = [_tensor(picture, rows, columns, device) for picture in pictures]
            with torch.inference_mode():
                result = network(*tensors)[0].float().cpu().permute(1, 2, 0).numpy()
            weight = down[: height - top, None] * across[: width - left]
            there = slice(top, top + weight.shape[0]), slice(left, left + weight.shape[1])
            out[there] += weight[..., None] * result[: weight.shape[0], : weight.shape[1]]
            total[there] += weight
    out /= total[..., None]


def _return_memory() -> None:
    """Give the system what the networks no longer need of the heap: glibc keeps it, in pieces of no use to others."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)


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


def _spans(length: int, side: int, margin: int, multiple: int) -> Iterator[tuple[int, int, int, int]]:
    """Cores and extents, (start, stop, extent start, extent stop), of as few tiles along one axis as do, all alike.

    ``length``, ``side`` and ``margin`` are multiples of ``multiple``, and so is all that is given.
    """
    count = max(1, -(-(length - 2 * margin) // side))
    extent = _round_up(-(-(length + 2 * margin * (count - 1)) // count), multiple)
    start = 0
    while start < length:
        before = max(start - margin, 0)
        after = min(before + extent, length)
        stop = after if after == length else after - margin
        yield start, stop, before, after
        start = stop


def _tensor(
    picture: FloatImage | HalfImage | SparsePicture,
    rows: tuple[int, int],
    columns: tuple[int, int],
    device: torch.device,
) -> Tensor:
    """A tile as 1 × C × h × w, channels last in memory; beyond its lower and right border a picture is mirrored."""
    height, width = picture.shape[:2]
    below, right = max(rows[1] - height, 0), max(columns[1] - width, 0)
    # What is mirrored may lie farther back than the tile begins.
    top, left = max(rows[0] - below, 0), max(columns[0] - right, 0)
    piece = picture[top : rows[1], left : columns[1]]
    if below or right:
        piece = np.asarray(cv2.copyMakeBorder(to_float(piece), 0, below, 0, right, cv2.BORDER_REFLECT), np.float32)
    piece = np.require(piece[rows[0] - top :, columns[0] - left :], requirements=["C", "W"])  # PyTorch asks for both
    values = torch.from_numpy(piece.reshape(len(piece), -1)).to(device, torch.float32).contiguous()
    return values.view(1, *piece.shape[:2], -1).permute(0, 3, 1, 2)
