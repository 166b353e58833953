"""The learned denoiser over photos of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage
from oldphoto.nets.denoiser import DenoiserNet
from oldphoto.nets.inference import rearranged
from oldphoto.tiling import run_tiled

TILE, MARGIN = 512, 48
"""Sides of a tile and of what it sees of its neighbours, px."""


class Denoiser:
    """Takes noise of a known level out of photo after photo, with one network loaded once.

    Raises CheckpointError or UsageError for missing weights or an unknown device.
    """

    def __init__(self, device: str = "auto", checkpoints_folder: Path | None = None, tile: int | None = None) -> None:
        self.device = checkpoints.pick_device(device)
        net = rearranged(checkpoints.load(DenoiserNet, "denoiser", checkpoints.own_folder(checkpoints_folder)))
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tile = tile or TILE

    def denoise(self, rgb: FloatImage, level: float | FloatImage) -> FloatImage:
        """The picture, H × W × 3, nominally in [0, 1], without its noise; not clipped, the input is not changed.

        ``level``: the standard deviation of the noise, of 1, at most 0.2 (more is taken for that): one, or H × W × 3.
        """
        limited = np.minimum(np.asarray(level, np.float32), np.float32(DenoiserNet.highest))
        levels = limited if limited.ndim else np.broadcast_to(limited, rgb.shape)
        out = np.empty_like(rgb)
        run_tiled(self.net, (rgb, levels), out, self.net.multiple, self.device, self.tile, MARGIN)
        return out
