"""The same networks rearranged for inference: fewer passes over memory, the same results to rounding."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from oldphoto.nets.blocks import NormalisedBlock, ResidualBlock

Net = TypeVar("Net", bound=nn.Module)

FUSING = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
"""Whether PyTorch has its compiler's operators for convolutions that do more than convolve: it has them on x86."""


class Interleave(nn.Module):
    """PixelShuffle of channels ordered by their place in the enlarged pixel first: whole pixels are copied at once."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        f = self.factor
        cells = x.permute(0, 2, 3, 1).reshape(n, height, width, f, f, channels // f**2)
        return cells.permute(0, 1, 3, 2, 4, 5).reshape(n, f * height, f * width, -1).permute(0, 3, 1, 2)


class FusedBlock(nn.Module):
    """``x + second(relu(first(x)))`` in the memory of ``x``, rectified where the block that it stands for is."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, rectified: bool) -> None:
        super().__init__()
        self.first, self.second, self.rectified = first, second, rectified

    def forward(self, x: Tensor) -> Tensor:
        if FUSING and x.device.type == "cpu" and x.dtype == torch.float32:
            # A convolution of oneDNN rectifies and adds while what it has computed is still in the cache.
            onednn = torch.ops.mkldnn
            inner = onednn._convolution_pointwise(x, *_arguments(self.first), "relu", [], "")
            after = "relu" if self.rectified else None
            onednn._convolution_pointwise_(x, inner, *_arguments(self.second), "add", 1.0, after, [], None)
            return x
        x.add_(self.second(self.first(x).relu_()))
        return x.relu_() if self.rectified else x


def _arguments(layer: nn.Conv2d) -> tuple[object, ...]:
    """What the operators of oneDNN are told of a convolution."""
    return layer.weight, layer.bias, layer.padding, layer.stride, layer.dilation, layer.groups


@torch.no_grad()
def rearranged(net: Net) -> Net:
    """Rearrange a trained network in place and return it; it can not be trained any more.

    Normalisations and scales of residual blocks go into the weights of their convolutions, a convolution after
    PixelUnshuffle becomes one with stride, and channels before PixelShuffle are ordered as it needs them.
    """
    net.eval().requires_grad_(False)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResidualBlock):
                setattr(parent, name, FusedBlock(child.first, _scaled(child.second, child.scale), rectified=False))
            elif isinstance(child, NormalisedBlock):
                first, second = _folded(*child.body[:2]), _folded(*child.body[3:])
                setattr(parent, name, FusedBlock(first, second, rectified=True))
        if isinstance(parent, nn.Sequential):
            for (index, one), (following, other) in pairwise(list(enumerate(parent))):
                if isinstance(one, nn.PixelUnshuffle) and isinstance(other, nn.Conv2d):
                    parent[index], parent[following] = nn.Identity(), _strided(other, one.downscale_factor)
                elif isinstance(one, nn.Conv2d) and isinstance(other, nn.PixelShuffle):
                    _regroup(one, other.upscale_factor)
                    parent[following] = Interleave(other.upscale_factor)
    return net


def _folded(layer: nn.Module, normalisation: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d)
    return fuse_conv_bn_eval(layer, normalisation)


def _scaled(layer: nn.Conv2d, scale: Tensor) -> nn.Conv2d:
    for parameter in layer.parameters():
        parameter.mul_(scale.view(-1, *(1,) * (parameter.ndim - 1)))
    return layer


def _strided(layer: nn.Conv2d, factor: int) -> nn.Conv2d:
    """The convolution that gives what ``layer`` does, of the picture before it is unshuffled."""
    channels, (height, width) = layer.in_channels // factor**2, layer.weight.shape[2:]
    vertical, horizontal = (factor * int(side) for side in layer.padding)
    strided = nn.Conv2d(
        channels, layer.out_channels, (factor * height, factor * width), factor, (vertical, horizontal)
    ).requires_grad_(False)
    weight = layer.weight.view(-1, channels, factor, factor, height, width).permute(0, 1, 4, 2, 5, 3)
    strided.weight.copy_(weight.reshape(strided.weight.shape))
    strided.bias = layer.bias
    return strided


def _regroup(layer: nn.Conv2d, factor: int) -> None:
    """Order the output channels of a layer for `Interleave`."""
    for parameter in layer.parameters():
        grouped = parameter.clone().view(-1, factor**2, *parameter.shape[1:])
        parameter.copy_(grouped.transpose(0, 1).reshape(parameter.shape))
