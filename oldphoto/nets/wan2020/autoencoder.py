"""Encoder and decoder, and the blocks that the mappings share with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """``x`` plus two 3 × 3 convolutions of it, instance-normalised (Johnson et al., ECCV 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.conv_block(x)
        return output


def residual_blocks(channels: int, count: int) -> tuple[ResidualBlock, ...]:
    """``count`` residual blocks."""
    return tuple(ResidualBlock(channels) for _ in range(count))


def normalised(layer: nn.Module, channels: int) -> tuple[nn.Module, ...]:
    """A convolution, instance normalisation and ReLU."""
    return layer, nn.InstanceNorm2d(channels), nn.ReLU()


class Encoder(nn.Sequential):
    """Pictures N × 3 × H × W, H and W multiples of 4 and at least 8, to latents N × width × H/4 × W/4."""

    def __init__(self, width: int = 64) -> None:
        super().__init__(
            nn.ReflectionPad2d(3),
            *normalised(nn.Conv2d(3, width, 7), width),
            *normalised(nn.Conv2d(width, width, 4, stride=2, padding=1), width),
            *normalised(nn.Conv2d(width, width, 4, stride=2, padding=1), width),
            *residual_blocks(width, 4),
        )

    def forward(self, picture: Tensor) -> Tensor:
        latent: Tensor = super().forward(2 * picture - 1)  # type: ignore[no-untyped-call]
        return latent

    encode = forward


class Decoder(nn.Sequential):
    """Latents N × width × H/4 × W/4 to pictures N × 3 × H × W."""

    def __init__(self, width: int = 64) -> None:
        super().__init__(
            *residual_blocks(width, 4),
            *normalised(nn.ConvTranspose2d(width, width, 4, stride=2, padding=1), width),
            *normalised(nn.ConvTranspose2d(width, width, 4, stride=2, padding=1), width),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7),
            nn.Tanh(),
        )

    def forward(self, latent: Tensor) -> Tensor:
        picture: Tensor = (super().forward(latent) + 1) / 2  # type: ignore[no-untyped-call]
        return picture


class Autoencoder(nn.Module):
    """Encoder and decoder; ``forward`` decodes a latent drawn with unit variance, and returns what the losses need."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.decoder = Decoder(width)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = self.encoder(picture)
        return self.decoder(mean + torch.randn_like(mean)), mean, torch.zeros_like(mean)
