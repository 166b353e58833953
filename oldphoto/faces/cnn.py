"""dlib's CNN face detector at many scales, in PyTorch: a tenth of the time that dlib takes where it has no BLAS."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oldphoto.arrays import ByteImage
from oldphoto.faces import dlibfile
from oldphoto.faces.alignment import Box
from oldphoto.faces.models import DETECTOR, model_file
from oldphoto.nets.facesearch import FaceSearchNet

_STEP = 5 / 6
"""From one scale to the next; the one that the detector was trained with."""

_BORDER = 11
"""Black px around the picture, as it was trained with: a face may be cut off."""

_LEAST = 8  # px that a side has at least, at any scale: the network's first layers take as many with the border


class FaceSearch:
    """Looks for faces, also in profile, with a network that is read when it is first needed.

    Raises CheckpointError where dlib's weights are missing.
    """

    def __init__(self) -> None:
        self._weights = model_file(DETECTOR)

    @cached_property
    def _net(self) -> FaceSearchNet:
        net = dlibfile.load(FaceSearchNet(), self._weights)
        return net.to(memory_format=torch.channels_last)

    def hits(self, picture: ByteImage, least: float, largest: float = np.inf) -> Iterator[tuple[Box, float]]:
        """Boxes and scores of all that looks like a face, in a picture H × W × 3.

        The smallest boxes are of 80 px; ``least``: score from which on; ``largest``: width of a box up to which, px.
        Boxes of one face overlap.
        """
        size = np.array(picture.shape[1::-1])
        width = float(FaceSearchNet.WINDOW)
        while width <= min(largest, size.max()):
            scale = FaceSearchNet.WINDOW / width
            scaled = np.round(size * scale).astype(int)
            if scaled.min() < _LEAST:
                return
            scores = self._scores(picture, scaled)
            for row, column in np.argwhere(scores >= least):
                across, down = (FaceSearchNet.FIRST + FaceSearchNet.STRIDE * np.array([column, row]) - _BORDER) / scale
                half = width / 2
                yield (across - half, down - half, across + half, down + half), float(scores[row, column])
            width /= _STEP

    def _scores(self, picture: ByteImage, size: NDArray[np.int_]) -> NDArray[np.float32]:
        scaled = cv2.resize(picture, size.tolist(), interpolation=cv2.INTER_LINEAR)
        framed = cv2.copyMakeBorder(scaled, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_CONSTANT)
        tensor = torch.from_numpy(framed)[None].permute(0, 3, 1, 2)
        with torch.inference_mode():
            scores: Tensor = self._net(tensor.float() / 255)
        return np.asarray(scores[0, 0].numpy(), np.float32)
