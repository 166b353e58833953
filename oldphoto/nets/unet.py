"""The scratch-mask U-Net, which tells where a picture is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oldphoto.nets.blocks import Downsample, NormalisedBlock, Upsample, start_at_zero
from oldphoto.nets.efficientnet import Context
from oldphoto.nets.windows import Window

BAND = 448
"""Rows whose finest features are decoded at a time, at most: they are the largest."""

CONTEXT_LEVEL = 3
"""The level of the encoder, at 1/16, that is told what the picture shows."""


class ScratchUNet(nn.Module):
    """A U-Net (Ronneberger et al., MICCAI 2015; Wan et al., CVPR 2020, sec. 3.3) on pixel-unshuffled input.

    ``forward`` takes pictures N × 3 × H × W in [0, 1], H and W multiples of ``multiple``, and a ``hint`` N × 1 × H × W:
    how likely each pixel is damaged by the picture of half the size, or 0 where there was none. It returns logits
    N × 1 × H × W, above 0 where damage is more likely than not; of the ``wanted`` part alone, if given, whose sides are
    such multiples too.

    The network sees some two hundred pixels far. By the hint it takes part in what was seen of the whole picture: that
    a white surface is a torn corner, and not a wall. Of a picture that is small, and thus whole, it is also told what
    it shows, where that is ``told``.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 80, 112, 144), blocks: Sequence[int] = (1, 1, 2, 3, 6)) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, widths[0], 3, padding=1))
        self.encoders = nn.ModuleList(
            nn.Sequential(*(NormalisedBlock(width) for _ in range(count)))
            for width, count in zip(widths, blocks, strict=True)
        )
        self.downs = nn.ModuleList(Downsample(a, b) for a, b in pairwise(widths))
        self.context = Context()
        self.of_things = start_at_zero(nn.Conv2d(Context.CHANNELS, widths[CONTEXT_LEVEL], 1))
        self.ups = nn.ModuleList(Upsample(b, a) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(NormalisedBlock(width) for width in widths[:-1])
        self.head = nn.Sequential(nn.Conv2d(widths[0], 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, picture: Tensor, hint: Tensor, wanted: Window | None = None, told: bool = False) -> Tensor:
        features = self.encoders[0](self.stem(torch.cat([picture - 0.5, hint], 1)))
        skips = []
        for level, (down, encoder) in enumerate(zip(self.downs, self.encoders[1:], strict=True), 1):
            skips.append(features)
            features = down(features)
            if told and level == CONTEXT_LEVEL:
                features = features + self.of_things(self.context(picture))
            features = encoder(features)
        seen = whole = Window.whole(picture)
        wanted = wanted or whole
        for level in reversed(range(1, len(skips))):
            # From here to the logits a pixel depends on fewer than 4 cells around it.
            needed = wanted.grown(4 * 2 ** (level + 1), whole)
            features = self._decoded(level, features, skips.pop(), needed, seen)
            seen = needed

        def logits(band: Window) -> Tensor:
            needed = band.grown(8, whole)
            return band.of(self.head(self._decoded(0, features, skips[0], needed, seen)), 1, needed)

        return torch.cat([logits(band) for band in wanted.bands(BAND, self.multiple)], 2)

    def _decoded(self, level: int, features: Tensor, skip: Tensor, needed: Window, seen: Window) -> Tensor:
        """A level's features of the part that is needed, by those of the next coarser level, of the part ``seen``."""
        grid = 2 ** (level + 1)
        coarse = self.ups[level](needed.of(features, 2 * grid, seen))
        decoded: Tensor = self.decoders[level](coarse.add_(needed.of(skip, grid)))
        return decoded

    def hint(self, picture: Tensor, halvings: int) -> Tensor:
        """What the picture halved so many times, then at every doubling up to half its size, tells of its damage.

        It is halved less often where its sides, which are even, would be below ``multiple``.
        """
        height, width = (side // 2 for side in picture.shape[-2:])
        if not halvings or min(height, width) < self.multiple:
            return torch.zeros_like(picture[:, :1])
        half = F.avg_pool2d(picture, 2)
        half = F.pad(half, (0, -width % self.multiple, 0, -height % self.multiple), "reflect")
        seen = self(half, self.hint(half, halvings - 1), told=True).sigmoid()
        return F.interpolate(seen[..., :height, :width], scale_factor=2.0, mode="bilinear", align_corners=False)
