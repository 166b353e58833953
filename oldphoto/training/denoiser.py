"""Train the denoiser on photographs with noise added."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.arrays import ByteImage, is_gray
from oldphoto.nets.denoiser import DenoiserNet
from oldphoto.training.datasets import Batch, Example, Maker, batches, load_held_out, load_images, random_crop
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, require_crop, run
from oldphoto.training.replay import training_batches

NAME = "denoiser"

SIGNAL_DEPENDENT = 0.3
"""Share of the examples whose noise grows with brightness, as that of photons (with its root) and speckle."""

CLIPPED = 0.3
"""Share of the examples cut off at black and white, as files are and the pictures inside an iteration are not."""

CHECKED = (0.01, 0.03, 0.06, 0.12)
"""Noise levels that the scores are measured at."""


def denoising_examples(photos: Sequence[ByteImage], side: int, levels: Sequence[float] | None = None) -> Maker:
    """Examples of ``photo`` with noise, its ``level`` and the ``clean`` picture, each H × W × 3.

    The level is drawn from [0, 0.2], small ones more often, or from ``levels`` (then alike everywhere). Where it varies
    with the signal, the map shows what can be known of it: it comes from a blurred picture.
    """

    def make(rng: Generator) -> Example:
        clean = random_crop(photos[int(rng.integers(len(photos)))], side, rng, (0.5, 1.1))
        exponent = float(rng.choice([0.5, 1.0])) if levels is None and rng.random() < SIGNAL_DEPENDENT else 0.0
        sigma = np.float32(DenoiserNet.highest * rng.random() ** 1.6 if levels is None else rng.choice(levels))
        gray = is_gray(clean)
        # The noise of a black-and-white photograph is one, too, unless it was scanned in colour.
        noise = rng.standard_normal((side, side, 1 if gray and rng.random() < 0.85 else 3), np.float32)
        photo = clean + sigma * clean**exponent * noise
        # The running sums of a blur may come out a little below zero.
        level = sigma * np.maximum(cv2.blur(clean, (9, 9)), 0) ** np.float32(exponent)
        if levels is None and rng.random() < CLIPPED:
            photo = photo.clip(0, 1)
        return {"photo": photo, "level": np.asarray(level, np.float32), "clean": clean}

    return make


def train(settings: Settings) -> None:
    """Train within the budget of ``settings`` and keep checkpoint and manifest in ``settings.out``."""
    torch.manual_seed(settings.seed)
    started = time.time()
    net = checkpoints.load(DenoiserNet, NAME, settings.out) if settings.resume else DenoiserNet()
    require_crop(settings, net.multiple)
    net = channels_last(net, settings.device)
    optimiser = Optimiser([net], settings.learning_rate)
    make = denoising_examples(load_images(settings.data, "photos"), settings.crop)
    stream = training_batches(make, settings, settings.seed_of_examples(started))
    check = denoising_examples(load_held_out(settings.data, "photos"), 160, CHECKED)
    held_out = on_device(next(batches(check, 80, 7, workers=0)), settings.device)

    def step(progress: float) -> Mapping[str, Tensor]:
        batch = on_device(next(stream), settings.device)
        with autocast(settings):
            output = net(batch["photo"], batch["level"]).float()
        # The logarithm of each picture's error is its PSNR (Chen et al., HINet, CVPRW 2021, sec. 3.2): all levels
        # of noise count alike.
        square = (output - batch["clean"]).square().mean((1, 2, 3))
        loss = (square + 1e-5).log10().mean()
        optimiser.step(loss, progress)
        return {"loss": loss.detach(), "square": square.mean().detach()}

    def save(steps: int) -> None:
        average = optimiser.averages[0]
        scores = evaluate(average, held_out)
        record = settings.record(started, steps) | {"scores": scores}
        checkpoints.save(NAME, average.state_dict(), {}, settings.out, record, scores)

    run(NAME, settings, step, save)


@torch.inference_mode()
def evaluate(net: DenoiserNet, held_out: Batch) -> dict[str, float]:
    """Mean PSNR in dB of held-out crops, before and after."""

    def psnr(picture: Tensor) -> float:
        error = (picture - held_out["clean"]).square().mean((1, 2, 3)).clamp_min(1e-6)
        return round(float(-10 * error.log10().mean()), 3)

    parts = zip(torch.split(held_out["photo"], 10), torch.split(held_out["level"], 10), strict=True)
    output = torch.cat([net(picture, level) for picture, level in parts])
    return {"PSNR noisy": psnr(held_out["photo"]), "PSNR denoised": psnr(output)}
