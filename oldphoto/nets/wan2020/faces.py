"""The face generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2


class SpectralConv2d(nn.Module):
    """A convolution whose weight is divided by its largest singular value (Miyato et al., ICLR 2018).

    The value is estimated by a power iteration a training step; at test time the vectors found are used as they are.
    Parameters are named and ordered as in the checkpoints.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels: int, out_channels: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        like = nn.Conv2d(channels, out_channels, kernel, bias=bias)
        self.bias, self.weight_orig = like.bias, like.weight
        rows = like.weight.detach().flatten(1)
        self.register_buffer("weight_u", F.normalize(torch.randn_like(rows[:, 0]), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn_like(rows[0]), dim=0))
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight_orig.flatten(1)
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(F.normalize(rows.T @ self.weight_u, dim=0))
                self.weight_u.copy_(F.normalize(rows @ self.weight_v, dim=0))
        # Copies: the next step's iteration must not change what this step's gradient needs.
        norm = self.weight_u.clone() @ rows @ self.weight_v.clone()
        return F.conv2d(x, self.weight_orig / norm, self.bias, padding=self.padding)


class _Modulation(nn.Module):
    """Spatially-adaptive normalisation (Park et al., SPADE, CVPR 2019, eq. 1); the condition is the degraded face."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(3, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, face: Tensor) -> Tensor:
        seen = self.mlp_shared(F.interpolate(face, x.shape[-2:], mode="bilinear", align_corners=False))
        modulated: Tensor = self.param_free_norm(x) * (1 + self.mlp_gamma(seen)) + self.mlp_beta(seen)
        return modulated


class _ModulatedBlock(nn.Module):
    """A residual block with spatially-adaptive normalisation; its shortcut is learned where the width changes."""

    def __init__(self, channels: int, out_channels: int, hidden: int) -> None:
        super().__init__()
        middle = min(channels, out_channels)
        self.widens = channels != out_channels
        self.conv_0 = SpectralConv2d(channels, middle, 3)
        self.conv_1 = SpectralConv2d(middle, out_channels, 3)
        if self.widens:
            self.conv_s = SpectralConv2d(channels, out_channels, 1, bias=False)
        self.norm_0 = _Modulation(channels, hidden)
        self.norm_1 = _Modulation(middle, hidden)
        if self.widens:
            self.norm_s = _Modulation(channels, hidden)

    def forward(self, x: Tensor, face: Tensor) -> Tensor:
        change = self.conv_0(F.leaky_relu(self.norm_0(x, face), _SLOPE))
        change = self.conv_1(F.leaky_relu(self.norm_1(change, face), _SLOPE))
        shortcut = self.conv_s(self.norm_s(x, face)) if self.widens else x
        output: Tensor = shortcut + change
        return output


BLOCKS = (
    ("head_0", 16, 16, 1),
    ("G_middle_0", 16, 16, 2),
    ("G_middle_1", 16, 16, 1),
    ("up_0", 16, 8, 2),
    ("up_1", 8, 4, 2),
    ("up_2", 4, 2, 2),
    ("up_3", 2, 1, 2),
)
"""Of each block of the generator: name, channels before and after (in units of its width), enlargement before it."""


class FaceGenerator(nn.Module):
    """Makes an aligned face, N × 3 × size × size, anew from the degraded one (Wan et al., TPAMI 2022, sec. 3.4).

    Coarse to fine from the face at 1/32 of its size, shown the degraded face at every step; the networks for 256 and
    512 px have the same layers and different weights.
    """

    def __init__(self, size: int = 256, width: int = 64) -> None:
        super().__init__()
        self.size = size
        self.fc = nn.Conv2d(3, BLOCKS[0][1] * width, 3, padding=1)
        for name, channels, out_channels, _ in BLOCKS:
            self.add_module(name, _ModulatedBlock(channels * width, out_channels * width, 2 * width))
        self.conv_img = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, face: Tensor) -> Tensor:
        seen = 2 * face - 1
        small = (face.shape[-2] // 32, face.shape[-1] // 32)
        x = self.fc(F.interpolate(seen, small, mode="bilinear", align_corners=False))
        for name, _, _, factor in BLOCKS:
            if factor > 1:
                x = F.interpolate(x, scale_factor=float(factor))
            x = self.get_submodule(name)(x, seen)
        made: Tensor = (self.conv_img(F.leaky_relu(x, _SLOPE)).tanh() + 1) / 2
        return made
