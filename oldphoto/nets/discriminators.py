"""Discriminators: networks that tell real from made, and exist only while training."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class LatentDiscriminator(nn.Module):
    """Tells the latents of real old photographs from those of synthetic ones (Wan et al., CVPR 2020, eq. 2).

    ``forward`` takes latents N × channels × h × w and gives a list of one score map.
    """

    def __init__(self, channels: int = 64, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            spectral_norm(nn.Conv2d(channels, width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * width, 1, 1)),
        )

    def forward(self, latent: Tensor) -> list[Tensor]:
        return [self.body(latent)]


class PatchDiscriminator(nn.Module):
    """Judges patches of pictures at several scales (Wang et al., pix2pixHD, CVPR 2018, sec. 3.2).

    ``forward`` takes N × channels × H × W and gives the score maps and the features of every scale.
    """

    def __init__(self, channels: int = 3, width: int = 32, scales: int = 2) -> None:
        super().__init__()

        def layers() -> nn.ModuleList:
            widths = (channels, width, 2 * width, 4 * width)
            convs = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths)]
            return nn.ModuleList(spectral_norm(conv) for conv in (*convs, nn.Conv2d(4 * width, 1, 3, padding=1)))

        self.scales = nn.ModuleList(layers() for _ in range(scales))

    def forward(self, picture: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        scores, features = [], []
        for index, layers in enumerate(self.scales):
            x = F.avg_pool2d(picture, 2**index) if index else picture
            *hidden, last = layers.children()
            for layer in hidden:
                x = F.leaky_relu(layer(x), 0.2)
                features.append(x)
            scores.append(last(x))
        return scores, features
