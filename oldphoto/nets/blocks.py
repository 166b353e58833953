"""Building blocks that every network uses. Tensors are N × C × H × W, float32, channels last in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class ResidualBlock(nn.Module):
    """``x + scale · conv(relu(conv(x)))`` with a learned scale per channel.

    No normalisation: statistics over the picture would differ between a tile and the whole (DESIGN).
    """

    def __init__(self, channels: int, dilation: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), scale))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.scale * self.second(self.first(x).relu_())
        return output


class NormalisedBlock(nn.Module):
    """A residual block with batch normalisation (He et al., CVPR 2016), which trains several times as fast.

    Its statistics are fixed once trained, so that a tile and the whole picture still give the same; for networks
    whose output is a decision, not a picture.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = (x + self.body(x)).relu_()
        return output


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    """``count`` residual blocks in a row."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class Downsample(nn.Sequential):
    """Halve height and width: every 2 × 2 block of pixels becomes one pixel, then they are mixed."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(channels, out_channels, 2, stride=2))


class Upsample(nn.Sequential):
    """Double height and width by sub-pixel convolution (Shi et al., CVPR 2016)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(channels, 4 * out_channels, 1), nn.PixelShuffle(2))


def start_at_zero(layer: Layer) -> Layer:
    """Give a layer zero weights, so that the network begins as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
