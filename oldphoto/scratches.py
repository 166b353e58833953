"""First stage: find where the photo is scratched, folded, torn, stained or dusty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage, as_image
from oldphoto.nets.inference import rearranged
from oldphoto.nets.unet import ScratchUNet
from oldphoto.nets.windows import Window
from oldphoto.pyramid import depth, doubled, halve, strips
from oldphoto.tiling import run_tiled

BASE = 96
"""The photo is looked at with a short side of BASE to 2 BASE px first, then at every doubling up to its own size, with
what was seen before as a hint: large tears and wide folds show in the smallest, hairlines in the largest."""

MIRRORED = 192
"""With a short side below twice this, px, what the network says of the mirror image counts as much: there, that costs
little."""

TOLD = 384
"""With a short side below twice this, px, the network is told what a photo shows, which goes through in one piece,
however small the tiles. From there on a scan shows no more than a smaller one, but thinner things: what was found in
that stays found."""

ENLARGEMENTS = (1.2, 1.4)
"""A photo of such a size is looked at so many times enlarged, and damage is what any of these looks shows. As sharp as
on a screen, a line of a pixel's width is often overlooked, and much that is sharp taken for damage. A panorama, longer
than TILE, is not enlarged: it would take much memory."""

TILE, MARGIN = 1536, 256
"""Sides of a tile and of what it sees of its neighbours, px. The network sees far: with 192 px tiles still differ
from the whole by more than 1/255, with 256 px by less than 0.1/255."""

FAINT = 0.1
"""Probabilities below this are no reason to touch a pixel."""

RARER = 8.0
"""Damage is so many times rarer in what is restored than in what the network is trained on: its odds are divided by it
(Saerens et al., *Neural Computation* 14, 2002)."""

SURE = 0.98
"""The highest value of a mask that was found: only a person's mask says 1, repair this whatever it looks like."""


def where_rare(probability: Tensor) -> Tensor:
    """How likely damage is where it is RARER, by how likely it was where the network was trained; both in [0, 1]."""
    return probability / (probability + RARER * (1 - probability))


def graded(probability: Tensor) -> Tensor:
    """Turn how likely damage is, N × 1 × H × W in [0, 1], into the mask that repair goes by.

    Nothing where that is faint, and grown by a pixel.
    """
    return F.max_pool2d(probability.clamp(max=SURE) * (probability >= FAINT), 3, 1, 1)


def to_mask(probability: FloatImage) -> FloatImage:
    """As `graded`, of one picture where damage is rare, H × W: in place, and faster."""
    np.minimum(probability, np.float32(SURE), out=probability)
    probability[probability < FAINT] = 0
    return np.asarray(cv2.dilate(probability, np.ones((3, 3), np.uint8)), np.float32)


class ScratchDetector:
    """Finds structured damage, photo after photo, with one network loaded once.

    Raises CheckpointError or UsageError for missing weights or an unknown device.
    """

    def __init__(self, device: str = "auto", checkpoints_folder: Path | None = None, tile: int | None = None) -> None:
        self.device = checkpoints.pick_device(device)
        net = rearranged(checkpoints.load(ScratchUNet, "scratches", checkpoints_folder))
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tile = tile or TILE

    def detect(self, rgb: FloatImage) -> FloatImage:
        """The mask of a photo H × W × 3 in [0, 1]: H × W, 0 = intact, up to SURE = damaged, grown by a pixel.

        Values between say how likely damage is; half and more counts as damaged. Raises PhotoError as `as_image`.
        """
        return to_mask(self.probability(rgb))

    def probability(self, rgb: FloatImage) -> FloatImage:
        """How likely each pixel is damaged, H × W in [0, 1]. Raises PhotoError as `as_image`."""
        probability = self._seen(as_image(rgb, 3, "a photo"))
        for rows in strips(len(probability)):
            probability[rows] = where_rare(torch.from_numpy(probability[rows])).numpy()
        return probability

    def _seen(self, rgb: FloatImage) -> FloatImage:
        """The same, were damage as frequent as in training."""
        if depth(rgb.shape, TOLD):
            return self._looked_at(rgb, self._keeping, self._seen(halve(rgb)), self.tile, half=True)
        found = np.zeros(rgb.shape[:2], np.float32)
        height, width = rgb.shape[:2]
        for factor in ENLARGEMENTS if max(height, width) <= TILE else (1.0,):
            enlarged = cv2.resize(rgb, (round(factor * width), round(factor * height)), interpolation=cv2.INTER_LINEAR)
            seen = self._coarse_to_fine(np.asarray(enlarged, np.float32), round(factor * max(self.tile, TILE)))
            np.maximum(found, cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA), out=found)
        return found

    def _coarse_to_fine(self, rgb: FloatImage, tile: int) -> FloatImage:
        """The same of a photo of which the network is told what it shows, at one scale after the other."""
        coarse = self._coarse_to_fine(halve(rgb), tile) if depth(rgb.shape, BASE) else None
        network = self._told if depth(rgb.shape, MIRRORED) else self._mirrored
        # In half precision the most that a pixel of an enlarged photo is off would be 5 %.
        return self._looked_at(rgb, network, coarse, tile, half=False)

    def _looked_at(
        self, rgb: FloatImage, network: Callable[..., Tensor], coarse: FloatImage | None, tile: int, half: bool
    ) -> FloatImage:
        """The same of a single scale, with what was seen at half of it as a hint."""
        found = np.zeros(rgb.shape[:2], np.float32)
        if coarse is not None:
            for rows, hint in doubled(coarse, found.shape):
                found[rows] = hint
        pictures = (rgb, found)
        run_tiled(network, pictures, found, self.net.multiple, self.device, tile, MARGIN, cuts=True, half=half)
        return found

    def _told(self, picture: Tensor, hint: Tensor, wanted: Window) -> Tensor:
        probability: Tensor = self.net(picture, hint, wanted, told=True).sigmoid()
        return probability

    def _mirrored(self, picture: Tensor, hint: Tensor, wanted: Window) -> Tensor:
        """The mean of two answers; upside down the network, which never was trained so for long, sees half as much."""
        pictures, hints = (torch.cat([given, given.flip(3)]) for given in (picture, hint))
        seen, of_mirrored = self.net(pictures, hints, told=True).sigmoid().chunk(2)
        return wanted.of((seen + of_mirrored.flip(3)) / 2)

    def _keeping(self, picture: Tensor, hint: Tensor, wanted: Window) -> Tensor:
        return torch.maximum(self.net(picture, hint, wanted).sigmoid(), wanted.of(hint))
