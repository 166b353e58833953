"""Who a face shows: dlib's face descriptor, with gradients, and a guard that refinement leaves a person that person.

The descriptors are computed by the same network in PyTorch (see :mod:`oldphoto.faces.dlibfile`).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oldphoto.arrays import FloatImage
from oldphoto.faces import dlibfile
from oldphoto.faces.models import IDENTITY, model_file
from oldphoto.nets.identity import IdentityNet

_CHIP = (slice(49, 242), slice(33, 226))
"""Rows and columns of the canonical crop that the network was trained to see: dlib's face chip, with 25 % padding."""

LIMIT = 0.35
"""Descriptors of an unrefined and a refined face that are farther apart may be taken for another person's: two pictures
of one person are within about 0.6. From 0.2 on refinement was weakened where it brought small faces, of which
descriptors say little before, nearer to the person."""


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
    return dlibfile.load(IdentityNet(), path or model_file(IDENTITY))
