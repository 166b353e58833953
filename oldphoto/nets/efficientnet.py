"""The first blocks of EfficientNet-Lite0, which know from ImageNet what things look like.

EfficientNet (Tan & Le, ICML 2019) without squeeze-and-excitation and with ReLU6, as its authors published it for small
devices. Batch normalisation is folded into the convolutions: these weights are taken as they are, or tuned a little.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_STEM = 32
_BLOCKS = (
    (16, 1, 3, 1),
    (24, 6, 3, 2),
    (24, 6, 3, 1),
    (40, 6, 5, 2),
    (40, 6, 5, 1),
    (80, 6, 3, 2),
    (80, 6, 3, 1),
    (80, 6, 3, 1),
    (112, 6, 5, 1),
    (112, 6, 5, 1),
    (112, 6, 5, 1),
)
"""Of each block: channels, expansion, kernel and stride."""


class MobileBlock(nn.Module):
    """An inverted residual block (Sandler et al., MobileNetV2, CVPR 2018)."""

    def __init__(self, channels: int, out_channels: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Conv2d(channels, wide, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide)
        self.project = nn.Conv2d(wide, out_channels, 1)
        self.skips = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        output: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + output if self.skips else output


class EfficientNetLite(nn.Module):
    """From pictures, N × 3 × H × W in [0, 1], the features that each of the first ``count`` blocks gives.

    CHANNELS of them, at strides 2, 4, 4, 8, 8, and 16 from then on.
    """

    CHANNELS = tuple(channels for channels, *_ in _BLOCKS)

    def __init__(self, count: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, 2, 1)
        blocks: list[MobileBlock] = []
        channels = _STEM
        for width, expansion, kernel, stride in _BLOCKS[:count]:
            blocks.append(MobileBlock(channels, width, expansion, kernel, stride))
            channels = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, picture: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(picture * 2 - 1))
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features


class Context(nn.Module):
    """What pictures, N × 3 × H × W in [0, 1], show and where: N × CHANNELS × H/16 × W/16.

    How bright a thing was, and whether white is a collar or a tear, depends on what it is; far more photographs than
    these networks are trained on are needed to know things. Only the normalisation over channels is trained.
    """

    BLOCKS = 11
    CHANNELS = EfficientNetLite.CHANNELS[BLOCKS - 1]

    def __init__(self) -> None:
        super().__init__()
        self.net = EfficientNetLite(self.BLOCKS).requires_grad_(False)
        self.norm = nn.LayerNorm(self.CHANNELS)

    def forward(self, picture: Tensor) -> Tensor:
        shown: Tensor = self.norm(self.net(picture)[-1].permute(0, 2, 3, 1))
        return shown.permute(0, 3, 1, 2)
