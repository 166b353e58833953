"""Who a face shows: dlib's face descriptor, with gradients, and a guard that refinement leaves a person that person.

dlib computes its descriptor without gradients, and slowly where it was built without a linear-algebra library. So its
weights are read into the same network in PyTorch: the descriptors are the same.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oldphoto.arrays import FloatImage
from oldphoto.errors import CheckpointError
from oldphoto.faces.models import IDENTITY, model_file
from oldphoto.nets.identity import Affine, IdentityNet

_CHIP = (slice(49, 242), slice(33, 226))
"""Rows and columns of the canonical crop that the network was trained to see: dlib's face chip, with 25 % padding."""

LIMIT = 0.2
"""Descriptors of an unrefined and a refined face that are farther apart are another person's, or may be taken for it:
two pictures of one person are within about 0.6."""


def descriptors(net: IdentityNet, crops: Tensor) -> Tensor:
    """Descriptors, N × 128, of canonical crops, N × 3 × CROP × CROP in [0, 1]. Gradients flow back."""
    chips = crops[:, :, _CHIP[0], _CHIP[1]]
    return net(F.interpolate(chips, (net.SIDE, net.SIDE), mode="bilinear", align_corners=False))  # type: ignore[no-any-return]


class IdentityGuard:
    """Measures what refinement does to who a face shows, with a network that is read when it is first asked.

    Raises CheckpointError where dlib's weights are missing.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self._weights = model_file(IDENTITY)

    @cached_property
    def net(self) -> IdentityNet:
        """The network of the descriptors."""
        return load_identity_net(self._weights)

    def distance(self, one: FloatImage, other: FloatImage) -> float:
        """Distance of the descriptors of two canonical crops, CROP × CROP × 3 in [0, 1]."""
        crops = torch.from_numpy(np.stack([one, other])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            first, second = descriptors(self.net, crops)
            return float((first - second).norm())

    def share(self, crop: FloatImage, refined: FloatImage) -> float:
        """The share of a refinement, 0 to 1, that leaves the person who they are: all of it, less of it, or none.

        A share that is too much is made smaller in proportion to the distance, twice; then the refinement is dropped.
        """
        share = 1.0
        for _ in range(3):
            distance = self.distance(crop, crop + np.float32(share) * (refined - crop))
            if distance <= self.limit:
                return share
            share *= 0.95 * self.limit / distance
        return 0.0


def load_identity_net(path: Path | None = None) -> IdentityNet:
    """The network with dlib's weights, fixed. Raises CheckpointError where the file is missing or another one."""
    path = path or model_file(IDENTITY)
    net = IdentityNet()
    try:
        with torch.no_grad():
            _read_weights(net, path.read_bytes())
    except (ValueError, IndexError, RuntimeError, OSError) as error:
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
    return end, torch.from_numpy(np.frombuffer(content, "<f4", count, position).astype(np.float32))
