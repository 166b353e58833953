"""The network of dlib's CNN face detector (King, max-margin object detection, 2015), so that it takes its weights."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from oldphoto.nets.identity import MEANS

_EPSILON = 1e-4  # what dlib adds to a variance


class FaceSearchNet(nn.Module):
    """How much what lies around a point looks like a face of ``WINDOW`` px: above 0 rather than not, about 1 surely.

    ``forward`` takes pictures N × 3 × H × W in [0, 1] and returns scores N × 1 × h × w, one for every ``STRIDE`` px;
    the first is that of the point ``FIRST`` px from the left and from the top.
    """

    WINDOW, STRIDE, FIRST = 80, 8, 14

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (channels, width) in enumerate(pairwise((3, 16, 32, 32, 45, 45, 45))):
            # dlib pads none of its strided convolutions.
            stride, padding = (2, 0) if number < 3 else (1, 2)
            layers += [
                nn.Conv2d(channels, width, 5, stride, padding),
                nn.BatchNorm2d(width, eps=_EPSILON),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(45, 1, 9, padding=4))
        self.means: Tensor
        self.register_buffer("means", torch.tensor(MEANS).reshape(3, 1, 1), persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        scores: Tensor = self.layers((picture * 255 - self.means) / 256)
        return scores
