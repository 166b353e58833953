"""The U-Net that finds structured damage."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oldphoto.arrays import LUMA

_SLOPE = 0.2


class Blur(nn.Module):
    """Halve height and width after a binomial filter, so that nothing aliases (Zhang, ICML 2019)."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        binomial = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (torch.outer(binomial, binomial) / 16).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), self.filt, stride=2, groups=len(self.filt))


def _leaky(channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """A padded 3 × 3 convolution, batch normalisation and leaky ReLU."""
    convolution = nn.Conv2d(channels, out_channels, 3)
    return nn.ReflectionPad2d(1), convolution, nn.BatchNorm2d(out_channels), nn.LeakyReLU(_SLOPE)


class _Pair(nn.Module):
    """Two convolutions of the U-Net."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_leaky(channels, out_channels), *_leaky(out_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.block(x)
        return output


class _Up(nn.Module):
    """Double height and width, join the features from the way down, and mix."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, out_channels, 3),
        )
        self.conv_block = _Pair(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        output: Tensor = self.conv_block(torch.cat([self.up(x), skip], 1))
        return output


class Detector(nn.Module):
    """The U-Net that finds structured damage (Wan et al., CVPR 2020, sec. 3.3).

    ``forward`` takes pictures N × 3 × H × W, of which it sees the luma, or gray ones, N × 1 × H × W; H and W multiples
    of ``multiple`` and at least 32. It returns logits N × 1 × H × W, above 0 where damage is more likely than not.
    """

    multiple = 16

    def __init__(self, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.first = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(1, width, 7), nn.LeakyReLU(_SLOPE))
        self.down_path = nn.ModuleList(_Pair(a, b) for a, b in pairwise(widths))
        self.down_sample = nn.ModuleList(nn.Sequential(*_leaky(a, a), Blur(a)) for a in widths[:-1])
        self.up_path = nn.ModuleList(_Up(a, b) for a, b in pairwise(reversed(widths)))
        self.last = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(width, 1, 3))

    def forward(self, picture: Tensor) -> Tensor:
        if picture.shape[1] == 3:
            picture = (picture * picture.new_tensor(LUMA.tolist()).view(3, 1, 1)).sum(1, keepdim=True)
        features = self.first(2 * picture - 1)
        skips = []
        for down, pair in zip(self.down_sample, self.down_path, strict=True):
            skips.append(features)
            features = pair(down(features))
        for up in self.up_path:
            features = up(features, skips.pop())
        logits: Tensor = self.last(features)
        return logits
