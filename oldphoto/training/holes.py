"""Prefill the holes of a whole batch at once, on the device it is on: as :mod:`oldphoto.prefill` does of one photo."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from oldphoto.prefill import FAINT


def prefilled(pictures: Tensor, masks: Tensor) -> Tensor:
    """`oldphoto.prefill.prefill` of each of the pictures, N × 3 × H × W, with its mask, N × 1 × H × W in [0, 1]."""
    known = (masks < FAINT).to(pictures.dtype)
    share = masks.clamp(0, 1) * (1 - known) * known.amax((2, 3), keepdim=True)
    return pictures.lerp(_doubled(_coarser(pictures, known), pictures), share)


def _coarser(pictures: Tensor, weight: Tensor) -> Tensor:
    """Half the size of pictures that are known where ``weight`` is 1 and holes where it is 0, all holes filled."""
    coarse, coarse_weight = _halved(pictures * weight), _halved(weight)
    coarse = coarse / coarse_weight.clamp_min(0.25)
    coarse_weight = (4 * coarse_weight).clamp_max(1)
    if max(coarse.shape[2:]) > 1:
        coarse = _doubled(_coarser(coarse, coarse_weight), coarse).lerp(coarse, coarse_weight)
    return coarse


def _halved(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[2:]
    return F.avg_pool2d(F.pad(pictures, (0, width % 2, 0, height % 2), "replicate"), 2)


def _doubled(coarse: Tensor, like: Tensor) -> Tensor:
    height, width = like.shape[2:]
    return F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)[:, :, :height, :width]
