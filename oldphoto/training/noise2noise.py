"""Fine-tune the translation on scans of one's own, of which nobody has a clean version.

Two pictures of one scene with independent noise teach a network to denoise as well as clean pictures do (Lehtinen et
al., *Noise2Noise*, ICML 2018), and neighbouring pixels of a single picture make two such pictures (Huang et al.,
*Neighbor2Neighbor*, CVPR 2021). Only the noise of those scans is learnt: repairs of holes are held where they were.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.arrays import HalfImage
from oldphoto.errors import OldphotoError, UsageError
from oldphoto.imagefile import INPUT_SUFFIXES, read_photo
from oldphoto.nets.translation import TranslationNet
from oldphoto.prefill import prefill
from oldphoto.pyramid import depth, halve
from oldphoto.training.damage import damage
from oldphoto.training.datasets import Example, Maker, batches
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, require_crop, run
from oldphoto.training.replay import training_batches
from oldphoto.translation import BASE, Translator, apply_tone

logger = logging.getLogger(__name__)

NAME = "translation"

CONSISTENCY = 2.0
"""Final weight of the term that keeps the two halves of a denoised picture as different as they are (eq. 7)."""

_HELD_OUT_EVERY = 8

# Ordered pairs of neighbours in a cell of 2 × 2 pixels, numbered as pixel_unshuffle does.
_NEIGHBOURS = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2))


def neighbours(picture: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw for each cell of 2 × 2 pixels which two neighbours to take: 2 × N × 1 × H/2 × W/2 indices for `take`."""
    n, _, height, width = picture.shape
    drawn = torch.randint(len(_NEIGHBOURS), (n, height // 2, width // 2), generator=generator)
    pairs = torch.tensor(_NEIGHBOURS)[drawn].permute(3, 0, 1, 2)
    return pairs[:, :, None].to(picture.device)


def take(picture: Tensor, index: Tensor) -> Tensor:
    """The pixel of each 2 × 2 cell of a picture, N × C × H × W, that ``index`` (N × 1 × H/2 × W/2) names."""
    n, channels = picture.shape[:2]
    cells = F.pixel_unshuffle(picture, 2).view(n, channels, 4, *index.shape[-2:])
    return cells.gather(2, index[:, :, None].expand(-1, channels, -1, -1, -1))[:, :, 0]


def self_supervised_loss(net: TranslationNet, noisy: Tensor, weight: float) -> Tensor:
    """The loss of Neighbor2Neighbor, eq. 7, of pictures N × 3 × H × W; H and W are multiples of 2 × ``net.multiple``.

    ``weight`` is that of the consistency term. No pixel is taken for damaged.
    """
    first, second = neighbours(noisy)
    with torch.no_grad():
        denoised = _undamaged(net, noisy)
        expected = take(denoised, first) - take(denoised, second)
    difference = _undamaged(net, take(noisy, first)) - take(noisy, second)
    loss: Tensor = difference.square().mean() + weight * (difference - expected).square().mean()
    return loss


def _undamaged(net: TranslationNet, picture: Tensor) -> Tensor:
    nothing = torch.zeros_like(picture)
    output: Tensor = net(picture, nothing[:, :1], nothing).float()
    return output


def load_scans(folder: Path, side: int) -> list[HalfImage]:
    """The scans of a folder and those below, as the local repair first sees them: corrected in tone, and halved.

    In half precision: there may be many.

    Raises UsageError where none can be read that is ``side`` px or more, high and wide, then.
    """
    translator = Translator("cpu")
    scans = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in INPUT_SUFFIXES:
            continue
        try:
            picture = read_photo(path).rgb
        except OldphotoError:
            continue
        tone, share = translator.estimate_tone(picture)
        apply_tone(tone, picture, share)
        for _ in range(depth(picture.shape, BASE)):
            picture = halve(picture)
        if min(picture.shape[:2]) >= side:
            scans.append(picture.astype(np.float16))
    if not scans:
        raise UsageError(f"{folder}: no readable scans of {side} x {side} px or more; --noise2noise needs some")
    return scans


def scan_examples(scans: list[HalfImage], side: int) -> Maker:
    """Crops of scans: ``photo`` as it is; ``holed``, ``mask`` and ``hidden``: with damage drawn on and prefilled."""

    def make(rng: Generator) -> Example:
        scan = scans[int(rng.integers(len(scans)))]
        top, left = (int(rng.integers(length - side + 1)) for length in scan.shape[:2])
        photo = scan[top : top + side, left : left + side].astype(np.float32)
        if rng.random() < 0.5:
            photo = photo[:, ::-1]
        damaged, mask = damage(photo, rng, 2)
        mask = np.asarray(cv2.dilate(mask, np.ones((3, 3), np.uint8)), np.float32)
        holed = prefill(damaged, mask)
        return {"photo": photo, "holed": holed, "mask": mask, "hidden": damaged - holed}

    return make


def train(settings: Settings) -> None:
    """Fine-tune on the scans in ``settings.data``; keeps a complete folder of weights in ``settings.out``.

    Goes on from the translation there, or, in a folder without weights, from the bundled ones. Raises UsageError where
    there are no scans, or only weights of other networks.
    """
    require_crop(settings, 2 * TranslationNet.multiple)
    torch.manual_seed(settings.seed)
    started = time.time()
    scans = load_scans(settings.data, settings.crop)
    kept = scans[::_HELD_OUT_EVERY]
    shown = [scan for number, scan in enumerate(scans) if number % _HELD_OUT_EVERY]
    if not shown:
        logger.warning("there is but one scan: the scores tell of what was trained on")
        shown = scans
    _complete(settings.out)
    net = channels_last(checkpoints.load(TranslationNet, NAME, settings.out), settings.device)
    before = deepcopy(net).eval().requires_grad_(False)
    optimiser = Optimiser([net], settings.learning_rate)
    make = scan_examples(shown, settings.crop)
    stream = training_batches(make, settings, settings.seed_of_examples(started))
    held_out = next(batches(scan_examples(kept, settings.crop), 16, 7, workers=0))["photo"].to(settings.device)

    def step(progress: float) -> Mapping[str, Tensor]:
        batch = on_device(next(stream), settings.device)
        with autocast(settings):
            loss = self_supervised_loss(net, batch["photo"], CONSISTENCY * progress)
            holes = batch["holed"], batch["mask"], batch["hidden"]
            with torch.no_grad():
                repaired = before(*holes).float()
            moved = (batch["mask"] * (net(*holes).float() - repaired)).square().mean()
        optimiser.step(loss + moved, progress)
        return {"noise2noise": loss.detach(), "moved": moved.detach()}

    def save(steps: int) -> None:
        average = optimiser.averages[0]
        scores = evaluate(before, average, held_out)
        record = settings.record(started, steps) | {"noise2noise": True, "scores": scores}
        checkpoints.save(NAME, average.state_dict(), {}, settings.out, record, scores)

    run(f"{NAME} (noise2noise)", settings, step, save)


def _complete(folder: Path) -> None:
    """Copy the bundled weights and their manifest to a folder that has none of its own.

    Raises UsageError for a folder of other weights.
    """
    if (folder / checkpoints.MANIFEST).exists() and not checkpoints.holds(folder, NAME):
        raise UsageError(f"{folder} holds weights, but none of '{NAME}' to go on with: give another folder")
    if not (folder / checkpoints.MANIFEST).exists():
        shutil.copytree(checkpoints.checkpoint_folder(), folder, dirs_exist_ok=True)


@torch.inference_mode()
def evaluate(before: TranslationNet, after: TranslationNet, scans: Tensor) -> dict[str, float]:
    """How well one half of the pixels of held-out scans predicts its neighbours, in dB, before and after training."""

    def fit(net: TranslationNet) -> float:
        first, second = neighbours(scans, torch.Generator().manual_seed(7))
        error = (_undamaged(net, take(scans, first)) - take(scans, second)).square().mean()
        return round(float(-10 * error.log10()), 3)

    return {"neighbours predicted before, dB": fit(before), "neighbours predicted, dB": fit(after)}
