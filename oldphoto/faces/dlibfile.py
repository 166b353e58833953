"""Read the tensors of dlib's network files into networks of PyTorch.

dlib computes without gradients, and slowly where it was built without a linear-algebra library; the same networks in
PyTorch give the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from oldphoto.errors import CheckpointError
from oldphoto.nets.identity import Affine

Net = TypeVar("Net", bound=nn.Module)


def load(net: Net, path: Path) -> Net:
    """The network with the weights of a file, fixed. Raises CheckpointError where it is missing or another one's."""
    try:
        with torch.no_grad():
            _read_weights(net, path.read_bytes())
    except (ValueError, IndexError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"{path}: not dlib's weights of {type(net).__name__} ({error}); reinstall face-recognition-models"
        ) from error
    return net.eval().requires_grad_(False)


def _read_weights(net: nn.Module, content: bytes) -> None:
    """Fill the network with the tensors of a file: one a layer or several, in order, after their layer's name.

    A tensor is its version, its four sizes, and its values as little-endian float32; a convolution's holds the filters,
    then the biases; a normalisation's the gains, then the offsets, and after what says so come means, deviations and
    their running averages.
    """
    position = 0
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            position, values = _tensor_after(content, b"con_4", position)
            filters = layer.weight.numel()
            layer.weight.copy_(values[:filters].reshape(layer.weight.shape))
            assert layer.bias is not None
            layer.bias.copy_(values[filters:])
        elif isinstance(layer, Affine):
            position, values = _tensor_after(content, b"affine_", position)
            layer.gain.copy_(values[: len(layer.gain)].reshape(layer.gain.shape))
            layer.offset.copy_(values[len(layer.gain) :].reshape(layer.offset.shape))
        elif isinstance(layer, nn.BatchNorm2d):
            position, values = _tensor_after(content, b"bn_con2", position)
            layer.weight.copy_(values[: layer.num_features])
            layer.bias.copy_(values[layer.num_features :])
            position, _ = _numbers(content, position, 2 * 5)  # where gains and offsets are in what was read
            statistics = []
            for _ in range(4):
                position, values = _tensor(content, position)
                statistics.append(values)
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.copy_(statistics[2])
            layer.running_var.copy_(statistics[3])
        elif isinstance(layer, nn.Linear):
            position, values = _tensor_after(content, b"fc_2", position, leading=2)
            layer.weight.copy_(values.reshape(layer.weight.shape[::-1]).T)


def _tensor_after(content: bytes, name: bytes, start: int, leading: int = 0) -> tuple[int, Tensor]:
    """Where the first tensor after a layer's name and ``leading`` numbers ends, and its values."""
    position = content.find(name, start)
    if position < 0:
        raise ValueError(f"no layer {name.decode()} at {start}")
    position, _ = _numbers(content, position + len(name), leading)
    return _tensor(content, position)


def _tensor(content: bytes, position: int) -> tuple[int, Tensor]:
    position, (_, samples, channels, rows, columns) = _numbers(content, position, 5)
    count = samples * channels * rows * columns
    end = position + 4 * count
    return end, torch.from_numpy(np.frombuffer(content, "<f4", count, position).astype(np.float32))


def _numbers(content: bytes, position: int, count: int) -> tuple[int, list[int]]:
    """Where so many numbers end, and they: each after the number of its bytes."""
    numbers = []
    for _ in range(count):
        size = content[position]
        if not 1 <= size <= 4:
            raise ValueError(f"no number at {position}")
        numbers.append(int.from_bytes(content[position + 1 : position + 1 + size], "little"))
        position += 1 + size
    return position, numbers
