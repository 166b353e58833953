"""The residual network whose descriptors tell people apart (King, dlib 2017), as it has to be to take its weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEANS = (122.782, 117.001, 104.298)
"""Of red, green and blue, of 255; subtracted from what the network sees, which is then divided by 256."""


class Affine(nn.Module):
    """Gain and offset of every channel: what is left of batch normalisation when training is over."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = torch.addcmul(self.offset, x, self.gain)
        return output


class IdentityBlock(nn.Module):
    """Two convolutions beside a skip; with ``stride`` 2, and with more channels, the skip is pooled and filled up."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        # dlib pads none of its strided convolutions.
        self.body = nn.Sequential(
            nn.Conv2d(channels, out_channels, 3, stride, padding=int(stride == 1)),
            Affine(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            Affine(out_channels),
        )
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        change = self.body(x)
        skip = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        # Where the two differ in size or in channels, dlib's sum counts the missing values as zero.
        height, width = (max(skip.shape[axis], change.shape[axis]) for axis in (2, 3))
        skip = _filled_up(skip, change.shape[1], height, width)
        change = _filled_up(change, change.shape[1], height, width)
        return (skip + change).relu()


def _filled_up(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Features with zeros after the last channel, row and column, up to the given numbers of them."""
    return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1]))


class IdentityNet(nn.Module):
    """Descriptors, N × 128, of faces, N × 3 × 150 × 150 in [0, 1]: those of one person are within about 0.6."""

    SIDE = 150

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 7, 2), Affine(32), nn.ReLU(), nn.MaxPool2d(3, 2))
        blocks: list[nn.Module] = []
        channels = 32
        for width, count in ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1)):
            for index in range(count):
                blocks.append(IdentityBlock(channels, width, 2 if index == 0 and len(blocks) >= 3 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(256, 128, bias=False)
        self.means: Tensor
        self.register_buffer("means", torch.tensor(MEANS).reshape(3, 1, 1), persistent=False)

    def forward(self, face: Tensor) -> Tensor:
        features = self.blocks(self.stem((face * 255 - self.means) / 256))
        descriptor: Tensor = self.last(features.mean((2, 3)))
        return descriptor
