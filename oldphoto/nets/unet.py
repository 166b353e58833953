"""The scratch-mask U-Net, which tells where a picture is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from oldphoto.nets.blocks import Downsample, NormalisedBlock, Upsample
from oldphoto.nets.windows import Window


class ScratchUNet(nn.Module):
    """A U-Net (Ronneberger et al., MICCAI 2015; Wan et al., CVPR 2020, sec. 3.3) on pixel-unshuffled input.

    ``forward`` takes pictures N × 3 × H × W in [0, 1], H and W multiples of ``multiple``, and returns logits
    N × 1 × H × W, above 0 where damage is more likely than not; of the ``wanted`` part alone, if given, whose sides are
    such multiples too.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 80, 112, 144), blocks: Sequence[int] = (1, 1, 2, 2, 3)) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, widths[0], 3, padding=1))
        self.encoders = nn.ModuleList(
            nn.Sequential(*(NormalisedBlock(width) for _ in range(count)))
            for width, count in zip(widths, blocks, strict=True)
        )
        self.downs = nn.ModuleList(Downsample(a, b) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(Upsample(b, a) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(NormalisedBlock(width) for width in widths[:-1])
        self.head = nn.Sequential(nn.Conv2d(widths[0], 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, picture: Tensor, wanted: Window | None = None) -> Tensor:
        features = self.encoders[0](self.stem(picture - 0.5))
        skips = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=False):
            skips.append(features)
            features = encoder(down(features))
        seen = whole = Window.whole(picture)
        wanted = wanted or whole
        for level in reversed(range(len(skips))):
            grid = 2 ** (level + 1)
            # From here to the logits a pixel depends on fewer than 4 cells around it.
            needed = wanted.grown(4 * grid, whole)
            features = self.ups[level](needed.of(features, 2 * grid, seen))
            features = self.decoders[level](features.add_(needed.of(skips.pop(), grid)))
            seen = needed
        logits: Tensor = self.head(features)
        return wanted.of(logits, 1, seen)
