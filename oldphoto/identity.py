"""Who a face shows: dlib's face descriptor, with gradients, and with what refinement does to it measured.

dlib computes its descriptor without gradients, and slowly where it was built without a linear-algebra library. So its
weights are read into the same network in PyTorch: the descriptors are the same.
"""

from __future__ import annotations

import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from oldphoto.errors import CheckpointError
from oldphoto.faces import model_file
from oldphoto.nets.identity import Affine, IdentityNet

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"

_CHIP = (slice(49, 242), slice(33, 226))
"""Rows and columns of the canonical crop that the network was trained to see: dlib's face chip, with 25 % padding."""


def descriptors(net: IdentityNet, crops: Tensor) -> Tensor:
    """Descriptors, N × 128, of canonical crops, N × 3 × CROP × CROP in [0, 1]. Gradients flow back."""
    chips = crops[:, :, _CHIP[0], _CHIP[1]]
    return net(F.interpolate(chips, (net.SIDE, net.SIDE), mode="bilinear", align_corners=False))  # type: ignore[no-any-return]


def load_identity_net(path: Path | None = None) -> IdentityNet:
    """The network with dlib's weights, fixed. Raises CheckpointError where the file is missing or another one."""
    path = path or model_file(WEIGHTS)
    net = IdentityNet()
    try:
        with torch.no_grad():
            _read_weights(net, path.read_bytes())
    except (ValueError, struct.error, OSError) as error:
        raise CheckpointError(
            f"{path}: not dlib's face descriptor ({error}); reinstall face-recognition-models"
        ) from error
    return net.eval().requires_grad_(False)


def _read_weights(net: IdentityNet, content: bytes) -> None:
    """Fill the network with the tensors of a dlib network file: one a layer, in order, each after its layer's name.

    A tensor is its version, its four sizes, and its values as little-endian float32; a convolution's holds the filters,
    then the biases.
    """
    position = 0
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            position, values = _tensor_after(content, b"con_4", position)
            filters = layer.weight.numel()
            layer.weight.copy_(values[:filters].reshape(layer.weight.shape))
            assert layer.bias is not None
            layer.bias.copy_(values[filters:])
        elif isinstance(layer, Affine):
            position, values = _tensor_after(content, b"affine_", position)
            layer.gain.copy_(values[: len(layer.gain)].reshape(layer.gain.shape))
            layer.offset.copy_(values[len(layer.gain) :].reshape(layer.offset.shape))
        elif isinstance(layer, torch.nn.Linear):
            position, values = _tensor_after(content, b"fc_2", position, leading=2)
            layer.weight.copy_(values.reshape(layer.weight.shape[::-1]).T)


def _tensor_after(content: bytes, name: bytes, start: int, leading: int = 0) -> tuple[int, Tensor]:
    """The values of the first tensor after a layer's name and ``leading`` numbers, and where they end."""
    position = content.find(name, start)
    if position < 0:
        raise ValueError(f"no layer {name.decode()} at {start}")
    position += len(name)
    numbers = []
    for _ in range(leading + 5):
        size = content[position]
        if not 1 <= size <= 4:
            raise ValueError(f"no tensor in layer {name.decode()} at {position}")
        numbers.append(int.from_bytes(content[position + 1 : position + 1 + size], "little"))
        position += 1 + size
    samples, channels, rows, columns = numbers[-4:]
    count = samples * channels * rows * columns
    end = position + 4 * count
    return end, torch.tensor(struct.unpack(f"<{count}f", content[position:end]))
