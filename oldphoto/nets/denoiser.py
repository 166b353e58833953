"""The denoiser: Gaussian noise of a known level removed, the prior of plug-and-play restoration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from oldphoto.nets.blocks import Downsample, Upsample, residual_blocks, start_at_zero


class DenoiserNet(nn.Module):
    """A small residual U-Net that is told the noise level of every pixel.

    The noise-level map beside the picture is FFDNet's (Zhang et al., TIP 2018, sec. III), the residual U-Net DRUNet's
    (Zhang et al., *Plug-and-Play Image Restoration with Deep Denoiser Prior*, TPAMI 2021, sec. 3), at a fiftieth of
    its size.

    ``forward(picture, level)``: ``picture`` N × 3 × H × W, nominally in [0, 1]; ``level`` N × 3 × H × W, the standard
    deviation of its noise in each channel, 0 to ``highest``; H and W multiples of ``multiple``. Returns the picture
    without the noise; the identity before training.
    """

    highest = 0.2

    def __init__(
        self,
        widths: Sequence[int] = (32, 56, 88),
        encoder_blocks: Sequence[int] = (1, 1, 2),
        decoder_blocks: Sequence[int] = (2, 1),
    ) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(24, widths[0], 3, padding=1))
        self.encoders = nn.ModuleList(
            residual_blocks(width, count) for width, count in zip(widths, encoder_blocks, strict=True)
        )
        self.downs = nn.ModuleList(Downsample(a, b) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(Upsample(b, a) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(
            residual_blocks(width, count) for width, count in zip(widths[:-1], decoder_blocks, strict=True)
        )
        self.head = nn.Sequential(start_at_zero(nn.Conv2d(widths[0], 12, 3, padding=1)), nn.PixelShuffle(2))

    def forward(self, picture: Tensor, level: Tensor) -> Tensor:
        features = self.encoders[0](self.stem(torch.cat([picture - 0.5, 5 * level], 1)))
        skips = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=False):
            skips.append(features)
            features = encoder(down(features))
        for up, decoder, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(skips), strict=True):
            features = decoder(up(features) + skip)
        clean: Tensor = picture - self.head(features)
        return clean
