"""The two variational autoencoders whose latents the mapping connects (Wan et al., CVPR 2020, sec. 3.1).

One is for old photographs, real (R) and synthetic (X), the other for clean ones (Y). Both have this architecture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oldphoto.nets.blocks import Downsample, ResidualBlock, Upsample


class Encoder(nn.Module):
    """Pictures N × 3 × H × W in [0, 1] to the mean and log-variance of latents, N × channels × H/4 × W/4."""

    def __init__(self, channels: int = 64, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, width, 3, padding=1),
            ResidualBlock(width),
            Downsample(width, channels),
            ResidualBlock(channels),
        )
        self.mean = nn.Conv2d(channels, channels, 1)
        self.log_variance = nn.Conv2d(channels, channels, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(picture - 0.5)
        return self.mean(features), self.log_variance(features).clamp(-12, 4)

    def encode(self, picture: Tensor) -> Tensor:
        """The mean alone."""
        return self.encode_in_detail(picture)[0]

    def encode_in_detail(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The mean, and the features at half size on the way to it, N × width × H/2 × W/2."""
        fine = self.body[:3](picture - 0.5)
        mean: Tensor = self.mean(self.body[3:](fine))
        return mean, fine


class Decoder(nn.Module):
    """Latents N × channels × H/4 × W/4 to pictures N × 3 × H × W."""

    def __init__(self, channels: int = 64, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            ResidualBlock(channels),
            Upsample(channels, width),
            ResidualBlock(width),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latent: Tensor) -> Tensor:
        picture: Tensor = self.body(latent) + 0.5
        return picture


class Autoencoder(nn.Module):
    """Encoder and decoder; ``forward`` reconstructs through a sampled latent and returns what the losses need."""

    def __init__(self, channels: int = 64, width: int = 32) -> None:
        super().__init__()
        self.encoder = Encoder(channels, width)
        self.decoder = Decoder(channels, width)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(picture)
        latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(latent), mean, log_variance
