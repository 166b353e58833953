"""Train the tone estimator on thumbnails of aged photographs."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.nets.tone import ToneMap, ToneNet
from oldphoto.training.datasets import Batch, batches, load_held_out, load_images, load_scenes, tone_examples
from oldphoto.training.imagenet import knowing
from oldphoto.training.loop import Optimiser, Settings, channels_last, on_device, run
from oldphoto.training.replay import training_batches

NAME = "tone"

HARM = 0.2
"""What it costs besides to make a picture worse than it was: who is in doubt leaves it alone."""


def train(settings: Settings) -> None:
    """Train within the budget of ``settings`` and keep checkpoint and manifest in ``settings.out``.

    Thumbnails are small: the batch is four times that of the settings.
    """
    torch.manual_seed(settings.seed)
    started = time.time()
    net = checkpoints.load(ToneNet, NAME, settings.out) if settings.resume else knowing(ToneNet())
    net = channels_last(net, settings.device)
    optimiser = Optimiser([net], settings.learning_rate)
    photos, textures = load_scenes(settings.data), load_images(settings.data, "textures", "L")
    make = tone_examples(photos, textures, ToneNet.SIDE)
    stream = training_batches(make, settings, settings.seed_of_examples(started), 4 * settings.batch)
    check = tone_examples(load_held_out(settings.data, "photos"), textures, ToneNet.SIDE)
    held_out = on_device(next(batches(check, 240, 7, workers=0)), settings.device)

    def step(progress: float) -> Mapping[str, Tensor]:
        batch = on_device(next(stream), settings.device)
        tone = net(batch["photo"])
        output = tone.apply(batch["photo"])
        square = (output - batch["clean"]).square().mean((1, 2, 3))
        # The logarithm asks for a share of each picture's error: one that needs little must be changed little. Below
        # 30 dB or so there is nothing to win: whether a photo is faded at all, inference asks apart.
        errors = (square + 1e-3).log10()
        before = (batch["photo"] - batch["clean"]).square().mean((1, 2, 3))
        harm = (errors - (before + 1e-3).log10()).relu().mean()
        optimiser.step(errors.mean() + HARM * harm + 8 * square.mean() + 0.05 * roughness(tone), progress)
        return {"error": errors.mean().detach(), "square": square.mean().detach(), "harm": harm.detach()}

    def save(steps: int) -> None:
        average = optimiser.averages[0]
        scores = evaluate(average, held_out)
        record = settings.record(started, steps) | {"scores": scores}
        checkpoints.save(NAME, average.state_dict(), {}, settings.out, record, scores)

    run(NAME, settings, step, save)


def roughness(tone: ToneMap) -> Tensor:
    """How much curve and fields bend: kept small, so that tone never imitates local repair."""
    bend = (tone.curve[..., 2:] - 2 * tone.curve[..., 1:-1] + tone.curve[..., :-2]).square().mean()
    fields = torch.cat([tone.gain, tone.offset], 1)
    return 10 * bend + fields.diff(dim=2).square().mean() + fields.diff(dim=3).square().mean()


@torch.inference_mode()
def evaluate(net: ToneNet, held_out: Batch) -> dict[str, float]:
    """PSNR of aged thumbnails, before and after correction, and the share that it makes worse."""

    def psnr(picture: Tensor) -> Tensor:
        error = (picture.clamp(0, 1) - held_out["clean"]).square().mean((1, 2, 3)).clamp_min(1e-4)
        return -10 * error.log10()

    before = psnr(held_out["photo"])
    after = psnr(net(held_out["photo"]).apply(held_out["photo"]))
    return {
        "PSNR aged": round(float(before.mean()), 3),
        "PSNR corrected": round(float(after.mean()), 3),
        "PSNR lost at worst": round(float((before - after).max()), 3),
    }
