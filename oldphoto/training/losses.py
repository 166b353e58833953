"""Losses and distances of the trainers. Pictures are N × 3 × H × W in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oldphoto.training.imagenet import imagenet_features


def charbonnier(output: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """A smooth L1 (Charbonnier et al., ICIP 1994)."""
    return ((output - target).square() + epsilon**2).sqrt().mean()


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of the latents' distribution from the standard normal one, per latent value (Kingma & Welling, 2014)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def dice(logits: Tensor, mask: Tensor, counted: Tensor | None = None, smooth: float = 32.0) -> Tensor:
    """One minus the soft Dice overlap of each picture, on average (Milletari et al., 3DV 2016).

    A lone hairline weighs as much as a picture full of stains. ``counted``: 1 where pixels count, 0 where not, all of
    them if not given. ``smooth``, px: less than this, found or missed, costs little.
    """
    probability = logits.sigmoid()
    if counted is not None:
        probability, mask = probability * counted, mask * counted
    overlap = 2 * (probability * mask).sum((1, 2, 3)) + smooth
    return (1 - overlap / ((probability + mask).sum((1, 2, 3)) + smooth)).mean()


def adversarial(scores: list[Tensor], real: bool) -> Tensor:
    """Least-squares GAN loss (Mao et al., ICCV 2017) of a discriminator's scores at several scales."""
    target = 1.0 if real else 0.0
    return torch.stack([(score - target).square().mean() for score in scores]).mean()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 between a discriminator's features (Wang et al., pix2pixHD, CVPR 2018, eq. 4)."""
    return torch.stack([F.l1_loss(a, b.detach()) for a, b in zip(fake, real, strict=True)]).mean()


class PerceptualDistance(nn.Module):
    """A distance of deep features: EfficientNet-Lite0 trained on ImageNet, at strides 2, 4, 8 and 16.

    As LPIPS (Zhang et al., CVPR 2018) without its learned weights: features are normalised over channels, squared
    differences summed over channels and averaged over places and layers. ``forward`` gives one distance a picture.

    Raises UsageError when the weights (extra ``train``) are not installed.
    """

    _TAPS = (0, 2, 4, 7)

    def __init__(self) -> None:
        super().__init__()
        self.net = imagenet_features(self._TAPS[-1] + 1)

    def features(self, picture: Tensor) -> list[Tensor]:
        """Features of each tapped layer, normalised over channels."""
        found = self.net(picture)
        return [F.normalize(found[index].float(), dim=1, eps=1e-3) for index in self._TAPS]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        pairs = zip(self.features(output), self.features(target), strict=True)
        distances = [(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]
        return torch.stack(distances).mean(0)
