"""What a network says of a picture and of its mirror images: part of what it says of one alone is chance."""

from __future__ import annotations

import torch
from torch import Tensor

_AXES = ((), (3,), (2,), (2, 3))


def mirrored(pictures: Tensor) -> Tensor:
    """Pictures N × C × H × W and their three mirror images, 4N × C × H × W."""
    return torch.cat([pictures.flip(axes) for axes in _AXES])


def unmirrored(pictures: Tensor) -> Tensor:
    """Pictures in the order of `mirrored`, each mirrored back."""
    parts = pictures.chunk(len(_AXES))
    return torch.cat([part.flip(axes) for part, axes in zip(parts, _AXES, strict=True)])


def mean(answers: Tensor) -> Tensor:
    """The mean, N × ..., of answers for each of the images in the order of `mirrored`, 4N × ..."""
    return torch.stack(answers.chunk(len(_AXES))).mean(0)
