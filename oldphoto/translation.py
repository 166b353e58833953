"""Second stage: translate the old photo into a clean one: tone set once for the whole, detail repaired locally."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage, HalfImage, as_image
from oldphoto.nets.inference import rearranged
from oldphoto.nets.tone import FIELD, ToneMap, ToneNet
from oldphoto.nets.translation import TranslationNet
from oldphoto.nets.windows import Window
from oldphoto.prefill import fill_holes
from oldphoto.pyramid import blend_into, depth, doubled, halve, strips
from oldphoto.sparse import SparsePicture
from oldphoto.tiling import run_tiled

BASE = 384
"""Damage is repaired first where the short side is BASE to 2 BASE px, then at every doubling: a print scanned at two
or four times the resolution goes through the same repair as at the first, and only what is new at its own scale
is left to do."""

TILE, MARGIN = 960, 128
"""Sides of a tile and of what it sees of its neighbours, px. With 64 px tiles differ from the whole by up to 10/255,
with 128 px by 1/255."""

TONE_CHANGE = (0.015, 0.03)
"""Mean changes, of 1, of the thumbnail: up to the first no correction of tone is made, from the second on all of it."""


Damage = tuple[FloatImage | HalfImage, SparsePicture | HalfImage]
"""A mask, and what prefilling hid."""


class Translator:
    """Translates photo after photo, with networks loaded once.

    Raises CheckpointError or UsageError for missing weights or an unknown device.
    """

    def __init__(self, device: str = "auto", checkpoints_folder: Path | None = None, tile: int | None = None) -> None:
        self.device = checkpoints.pick_device(device)
        net = rearranged(checkpoints.load(TranslationNet, "translation", checkpoints_folder))
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tone = checkpoints.load(ToneNet, "tone", checkpoints_folder).eval().to(self.device)
        self.tile = tile or TILE

    def translate(
        self, rgb: FloatImage, mask: FloatImage | HalfImage | None = None, strength: float = 1.0, in_place: bool = False
    ) -> FloatImage:
        """The clean version of a photo, H × W × 3 in [0, 1], of which ``mask`` (H × W, 1 = damaged) is repaired.

        ``strength`` scales the whole change, from 0 (the photo as it was) to 1. The input is not changed, unless
        ``in_place`` lets it be worked on, which saves its memory where the strength is 1. Raises PhotoError as
        `as_image`.
        """
        rgb = as_image(rgb, 3, "a photo", in_place)
        usable = rgb.flags.c_contiguous and rgb.flags.writeable
        picture = rgb if in_place and strength == 1 and usable else np.array(rgb, np.float32, order="C")
        damage = None if mask is None or not mask.any() else (mask, fill_holes(picture, mask))
        tone, share = self.estimate_tone(picture)
        if share:
            correct = _tone_correction(tone, share, picture.shape)
            for rows in strips(len(picture)):
                toned = correct(rows, picture[rows])
                if damage and (hidden := damage[1][rows]).any():
                    damage[1].replace(rows, correct(rows, picture[rows] + hidden) - toned)
                picture[rows] = toned
        self._repair(picture, damage)
        for rows in strips(len(picture)):
            np.clip(picture[rows], 0, 1, out=picture[rows])
            if picture is not rgb:
                blend_into(picture[rows], rgb[rows], strength)
        return picture

    def estimate_tone(self, picture: FloatImage) -> tuple[ToneMap, float]:
        """The correction of fading, casts and uneven light that a photo needs, and the share of it to apply.

        Whether a photo is faded or was taken in fog can not be known: a small correction is not made at all.
        """
        thumbnail = cv2.resize(picture, (ToneNet.SIDE, ToneNet.SIDE), interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(thumbnail).permute(2, 0, 1)[None].to(self.device)
        with torch.inference_mode():
            tone = self.tone.of_mirrored(tensor)
            change = float((tone.apply(tensor) - tensor).abs().mean())
        none, full = TONE_CHANGE
        share = min(max((change - none) / (full - none), 0.0), 1.0)
        return ToneMap(tone.curve.cpu(), tone.matrix.cpu(), tone.gain.cpu(), tone.offset.cpu()), share

    def _repair(self, picture: FloatImage, damage: Damage | None) -> None:
        """Local repair from coarse to fine, in place: what shows at half the size is settled there.

        The finer look, in which holes are large and edges soft, would undo some of it; from it comes what is new at its
        own scale alone. So a print is repaired alike, however finely it was scanned.
        """
        settled: HalfImage | None = None
        if depth(picture.shape, BASE):
            coarse = halve(picture)
            # A hairline covers half of a coarse pixel, and is damage there all the same.
            self._repair(coarse, damage and (np.minimum(2 * halve(damage[0]), 1), halve(damage[1])))
            settled = coarse.astype(np.float16)
            del coarse
            _settle(picture, settled)
        network, pictures = (self.net, (picture, *damage)) if damage else (self._undamaged, (picture,))
        run_tiled(network, pictures, picture, self.net.multiple, self.device, self.tile, MARGIN, cuts=True, half=True)
        if settled is not None:
            _settle(picture, settled)

    def _undamaged(self, picture: Tensor, wanted: Window) -> Tensor:
        nothing = torch.zeros_like(picture)
        translated: Tensor = self.net(picture, nothing[:, :1], nothing, wanted)
        return translated


def _settle(picture: FloatImage, half: HalfImage) -> None:
    """Let a picture show, at half the size, what ``half`` does but for its finest details; in place."""
    change = halve(picture)
    np.subtract(half, change, out=change)
    for rows, strip in doubled(change, picture.shape):
        picture[rows] += strip


def apply_tone(tone: ToneMap, picture: FloatImage, share: float = 1.0) -> None:
    """Correct the tone of a picture, H × W × 3, in place, by a share; values may leave [0, 1] a little."""
    if share:
        correct = _tone_correction(tone, share, picture.shape)
        for rows in strips(len(picture)):
            picture[rows] = correct(rows, picture[rows])


def _tone_correction(tone: ToneMap, share: float, shape: tuple[int, ...]) -> Callable[[slice, FloatImage], FloatImage]:
    """A function of a slice of rows, and what a picture of this shape has in them, that corrects it by a share."""
    down, across = _interpolation(shape[0]), _interpolation(shape[1])

    def correct(rows: slice, strip: FloatImage) -> FloatImage:
        gain, offset = (down[rows] @ cells @ across.T for cells in (tone.gain, tone.offset))
        tensor = torch.from_numpy(strip).permute(2, 0, 1)[None]
        corrected = tone.apply(tensor, (gain, offset))
        return np.asarray(torch.lerp(tensor, corrected, share)[0].permute(1, 2, 0).numpy(), np.float32)

    return correct


def _interpolation(length: int) -> Tensor:
    """The matrix, length × FIELD, that interpolates a field's cells along one axis (ToneMap.field is separable)."""
    return F.interpolate(torch.eye(FIELD)[None, :, None], (1, length), mode="bicubic", align_corners=True)[0, :, 0].T
