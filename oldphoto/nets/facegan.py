"""The generator of the face-refinement GAN (its discriminator is in :mod:`oldphoto.nets.discriminators`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from oldphoto.nets.blocks import Downsample, ResidualBlock, Upsample, residual_blocks, start_at_zero


class Modulation(nn.Module):
    """Scale and shift features by what the degraded face shows at the same place and scale.

    Spatially-adaptive modulation (Park et al., SPADE, CVPR 2019, eq. 1) without its normalisation, as the coarse-to-
    fine face network of Wan et al. (TPAMI 2022, sec. 3.4) uses it; here the condition is the encoder's features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.condition = start_at_zero(nn.Conv2d(channels, 2 * channels, 3, padding=1))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.condition(condition).chunk(2, 1)
        modulated: Tensor = features * (1 + gain) + shift + condition
        return modulated


class FaceNet(nn.Module):
    """Refines an aligned face, N × 3 × 256 × 256 in [0, 1]: the face plus a change that starts at zero.

    An encoder sees the degraded face at 128 down to 8 px; the decoder builds the refined one from a strong bottleneck,
    modulated at every scale by what the encoder saw.
    """

    def __init__(self, widths: Sequence[int] = (24, 56, 96, 160, 224), bottleneck: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, widths[0], 3, padding=1))
        self.downs = nn.ModuleList(Downsample(a, b) for a, b in pairwise(widths))
        self.encoders = nn.ModuleList(ResidualBlock(width) for width in widths[1:])
        self.bottleneck = residual_blocks(widths[-1], bottleneck)
        self.ups = nn.ModuleList(Upsample(b, a) for a, b in pairwise(widths))
        self.modulations = nn.ModuleList(Modulation(width) for width in widths[:-1])
        self.decoders = nn.ModuleList(ResidualBlock(width) for width in widths[:-1])
        self.head = nn.Sequential(start_at_zero(nn.Conv2d(widths[0], 12, 3, padding=1)), nn.PixelShuffle(2))

    def forward(self, face: Tensor) -> Tensor:
        seen = [self.stem(face - 0.5)]
        for down, encoder in zip(self.downs, self.encoders, strict=True):
            seen.append(encoder(down(seen[-1])))
        features = self.bottleneck(seen.pop())
        layers = zip(reversed(self.ups), reversed(self.modulations), reversed(self.decoders), strict=True)
        for up, modulation, decoder in layers:
            features = decoder(modulation(up(features), seen.pop()))
        refined: Tensor = face + self.head(features)
        return refined
