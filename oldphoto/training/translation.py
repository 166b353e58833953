"""Train the mapping between the latents of the two autoencoders, then the whole translation end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Mapping as Measurements

import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.nets.autoencoder import Encoder
from oldphoto.nets.mapping import Mapping
from oldphoto.nets.translation import TranslationNet
from oldphoto.prefill import prefill
from oldphoto.training import autoencoders
from oldphoto.training.datasets import (
    Batch,
    Example,
    Maker,
    batches,
    load_held_out,
    load_images,
    translation_examples,
)
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, require_crop, run
from oldphoto.training.losses import PerceptualDistance, charbonnier

NAME = "translation"
LATENT_SHARE = 0.15
"""Share of the budget for the mapping alone, both autoencoders frozen (Wan et al., CVPR 2020, sec. 3.2)."""

PERCEPTUAL_FROM = 0.7
"""Progress of the end-to-end stage from which on the perceptual distance counts."""

PERCEPTUAL_WEIGHT = 0.03


def prefilled(make: Maker) -> Maker:
    """The same examples, their holes filled as inference fills them."""

    def make_prefilled(rng: Generator) -> Example:
        example = make(rng)
        return example | {"photo": prefill(example["photo"], example["mask"])}

    return make_prefilled


def train(settings: Settings) -> None:
    """Train within the budget of ``settings``, from the autoencoders in ``settings.out``.

    Keeps checkpoint and manifest in ``settings.out``; with ``resume``, goes on with the end-to-end stage only.
    """
    require_crop(settings, TranslationNet.multiple)
    torch.manual_seed(settings.seed)
    started = time.time()
    photos, textures = load_images(settings.data, "photos"), load_images(settings.data, "textures", "L")
    make = prefilled(translation_examples(photos, textures, settings.crop))
    stream = batches(make, settings.batch, settings.seed + int(settings.resume) * int(started))
    check = prefilled(translation_examples(load_held_out(settings.data, "photos"), textures, 192))
    held_out = on_device(next(batches(check, 60, 7, workers=0)), settings.device)
    if settings.resume:
        net = channels_last(checkpoints.load(TranslationNet, NAME, settings.out), settings.device)
        steps = 0
    else:
        stages = checkpoints.load(autoencoders.Autoencoders, autoencoders.NAME, settings.out)
        net = TranslationNet.from_stages(stages.old, Mapping(), stages.clean)
        net = channels_last(net, settings.device)
        target = channels_last(stages.clean.encoder, settings.device)
        steps = _map_latents(net, target, stream, settings)
    optimiser = Optimiser([net], settings.learning_rate)
    perceptual = channels_last(PerceptualDistance(), settings.device)

    def step(progress: float) -> Measurements[str, Tensor]:
        batch = on_device(next(stream), settings.device)
        with autocast(settings):
            output = net(batch["photo"], batch["mask"]).float()
        clean = batch["clean"]
        weight = (1 + 2 * batch["mask"]) * _urgency(batch)
        error = (weight * ((output - clean).square() + 1e-6).sqrt()).mean()
        coarse = charbonnier(F.avg_pool2d(output, 4), F.avg_pool2d(clean, 4))
        square = (output - clean).square().mean()
        loss = error + coarse + 2 * square
        measured = {"error": error.detach(), "coarse": coarse.detach(), "square": square.detach()}
        if progress > PERCEPTUAL_FROM:
            with autocast(settings):
                distance = perceptual(output.clamp(0, 1), clean.clamp(0, 1)).mean()
            loss = loss + PERCEPTUAL_WEIGHT * distance
            measured["perceptual"] = distance.detach()
        optimiser.step(loss, progress)
        return measured

    def save(count: int) -> None:
        average = optimiser.averages[0]
        scores = evaluate(average, held_out)
        record = settings.record(started, steps + count) | {"scores": scores}
        checkpoints.save(NAME, average.state_dict(), {}, settings.out, record, scores)

    run(NAME, settings, step, save, 1 - (0 if settings.resume else LATENT_SHARE))


def _urgency(batch: Batch) -> Tensor:
    """Weights of the pictures of a batch, N × 1 × 1 × 1: an error counts the more, the less was wrong before.

    Without them a few ruins outweigh all else, and clean pictures are treated as carelessly as ruins.
    """
    wrong = (batch["photo"] - batch["clean"]).abs().mean((1, 2, 3), keepdim=True)
    return 0.07 / (wrong + 0.02)


def _map_latents(net: TranslationNet, target: Encoder, stream: Iterator[Batch], settings: Settings) -> int:
    """Train the mapping alone: L1 between mapped and clean latents; returns the steps made."""
    optimiser = Optimiser([net.mapping], settings.learning_rate)

    def step(progress: float) -> Measurements[str, Tensor]:
        batch = on_device(next(stream), settings.device)
        with autocast(settings):
            with torch.no_grad():
                latent, clean = net.encoder.encode(batch["photo"]), target.encode(batch["clean"])
            mapped = net.mapping(latent, batch["mask"])
        error = F.l1_loss(mapped.float(), clean.float())
        optimiser.step(error, 0.5 * progress)
        return {"latent": error.detach(), "identity": F.l1_loss(latent.float(), clean.float())}

    steps = run(f"{NAME} (latents)", settings, step, lambda count: None, LATENT_SHARE)
    net.mapping.load_state_dict(optimiser.averages[0].state_dict())
    return steps


@torch.inference_mode()
def evaluate(net: TranslationNet, held_out: Batch) -> dict[str, float]:
    """Mean PSNR in dB of held-out crops with tone set aside, before and after."""

    def psnr(picture: Tensor) -> float:
        error = (picture - held_out["clean"]).square().mean((1, 2, 3)).clamp_min(1e-5)
        return round(float(-10 * error.log10().mean()), 3)

    parts = zip(torch.split(held_out["photo"], 10), torch.split(held_out["mask"], 10), strict=True)
    output = torch.cat([net(picture, mask) for picture, mask in parts])
    return {"PSNR aged": psnr(held_out["photo"]), "PSNR translated": psnr(output)}
