"""Train the mapping between the latents of the two autoencoders, then the whole translation end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Mapping as Measurements

import torch
import torch.nn.functional as F
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.nets.autoencoder import Encoder
from oldphoto.nets.mapping import Mapping
from oldphoto.nets.translation import TranslationNet
from oldphoto.nets.unet import ScratchUNet
from oldphoto.scratches import graded
from oldphoto.training import autoencoders, scratches
from oldphoto.training.ageing import Severity
from oldphoto.training.curriculum import Curriculum
from oldphoto.training.datasets import (
    Batch,
    batches,
    load_held_out,
    load_images,
    load_scenes,
    translation_examples,
)
from oldphoto.training.holes import prefilled
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, require_crop, run
from oldphoto.training.losses import PerceptualDistance, charbonnier
from oldphoto.training.replay import training_batches
from oldphoto.training.styles import VARIED

NAME = "translation"
LATENT_SHARE = 0.15
"""Share of the budget for the mapping alone, both autoencoders frozen (Wan et al., CVPR 2020, sec. 3.2)."""

PERCEPTUAL_FROM = 0.2
"""Progress of the end-to-end stage from which on the perceptual distance counts."""

PERCEPTUAL_WEIGHT = 0.2

MASK_SHARES = (0.7, 0.15, 0.15)
"""Shares of the examples whose mask is what the detector found, what a person would mark, and none."""


def damaged(batch: Batch, detector: ScratchUNet, shares: tuple[float, float, float] = MASK_SHARES) -> Batch:
    """Give a batch of `translation_examples` masks and prefilled holes as inference gives them.

    ``mask`` becomes one of three kinds for each example, ``photo`` the prefilled picture, ``hidden`` what that covered,
    and ``unasked`` is where there is damage though no mask was given: nobody asked to repair that. What the detector
    missed is repaired as far as the picture itself tells of it.
    """
    chances = torch.tensor(shares, dtype=torch.float32, device=batch["photo"].device)
    kind = torch.multinomial(chances, len(batch["photo"]), replacement=True).view(-1, 1, 1, 1)
    with torch.no_grad():
        # As likely as damage is here, where it is frequent, so that a mask means what it says: see RARER.
        found = graded(scratches.seen(detector, batch["aged"]))
    mask = torch.where(kind == 0, found, batch["mask"] * (kind == 1))
    filled = prefilled(batch["photo"], mask)
    unasked = (batch["mask"] > 0) & (kind == 2)
    return batch | {"photo": filled, "mask": mask, "hidden": batch["photo"] - filled, "unasked": unasked}


def train(settings: Settings, on_demand: bool = True) -> None:
    """Train within the budget of ``settings``, from the autoencoders and the detector in ``settings.out``.

    Keeps checkpoint and manifest in ``settings.out``; with ``resume``, goes on with the end-to-end stage only.
    ``on_demand``: harder kinds of ageing are shown more often (`Curriculum`).
    """
    require_crop(settings, TranslationNet.multiple)
    torch.manual_seed(settings.seed)
    started = time.time()
    photos, textures = load_scenes(settings.data), load_images(settings.data, "textures", "L")
    curriculum = Curriculum()
    draw = curriculum.draw if on_demand else Severity.random
    make = translation_examples(photos, textures, settings.crop, draw, VARIED)
    stream = training_batches(make, settings, settings.seed_of_examples(started))
    detector = channels_last(checkpoints.load(ScratchUNet, scratches.NAME, settings.out).eval(), settings.device)
    check = translation_examples(load_held_out(settings.data, "photos"), textures, 192)
    held_out = on_device(next(batches(check, 60, 7, workers=0)), settings.device)
    if settings.resume:
        net = channels_last(checkpoints.load(TranslationNet, NAME, settings.out), settings.device)
        steps = 0
    else:
        stages = checkpoints.load(autoencoders.Autoencoders, autoencoders.NAME, settings.out)
        net = TranslationNet.from_stages(stages.old, Mapping(), stages.clean)
        net = channels_last(net, settings.device)
        target = channels_last(stages.clean.encoder, settings.device)
        steps = _map_latents(net, target, detector, stream, settings)
    optimiser = Optimiser([net], settings.learning_rate)
    perceptual = channels_last(PerceptualDistance(), settings.device)

    def step(progress: float) -> Measurements[str, Tensor]:
        with autocast(settings):
            batch = damaged(on_device(next(stream), settings.device), detector)
            output = net(batch["photo"], batch["mask"], batch["hidden"]).float()
        clean = batch["clean"]
        output = torch.where(batch["unasked"], clean, output)
        weight = (1 + 2 * batch["mask"]) * _urgency(batch)
        error = (weight * ((output - clean).square() + 1e-6).sqrt()).mean()
        coarse = charbonnier(F.avg_pool2d(output, 4), F.avg_pool2d(clean, 4))
        curriculum.learn(batch["severity"], (output - clean).abs().mean((1, 2, 3)))
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
        scores = evaluate(average, detector, held_out)
        record = settings.record(started, steps + count) | {"scores": scores}
        checkpoints.save(NAME, average.state_dict(), {}, settings.out, record, scores)

    run(NAME, settings, step, save, 1 - (0 if settings.resume else LATENT_SHARE))


def _urgency(batch: Batch) -> Tensor:
    """Weights of the pictures of a batch, N × 1 × 1 × 1: an error counts the more, the less was wrong before.

    Without them a few ruins outweigh all else, and clean pictures are treated as carelessly as ruins.
    """
    wrong = (batch["photo"] - batch["clean"]).abs().mean((1, 2, 3), keepdim=True)
    return 0.07 / (wrong + 0.02)


def _map_latents(
    net: TranslationNet, target: Encoder, detector: ScratchUNet, stream: Iterator[Batch], settings: Settings
) -> int:
    """Train the mapping alone: L1 between mapped and clean latents; returns the steps made."""
    optimiser = Optimiser([net.mapping], settings.learning_rate)

    def step(progress: float) -> Measurements[str, Tensor]:
        with autocast(settings):
            batch = damaged(on_device(next(stream), settings.device), detector)
            with torch.no_grad():
                latent, clean = net.encoder.encode(batch["photo"]), target.encode(batch["clean"])
            mapped = net.mapping(latent, batch["mask"], batch["hidden"])
        error = F.l1_loss(mapped.float(), clean.float())
        optimiser.step(error, 0.5 * progress)
        return {"latent": error.detach(), "identity": F.l1_loss(latent.float(), clean.float())}

    steps = run(f"{NAME} (latents)", settings, step, lambda count: None, LATENT_SHARE)
    net.mapping.load_state_dict(optimiser.averages[0].state_dict())
    return steps


@torch.inference_mode()
def evaluate(net: TranslationNet, detector: ScratchUNet, held_out: Batch) -> dict[str, float]:
    """Mean PSNR in dB of held-out crops with tone set aside: as aged, and translated with marked and found masks."""

    def psnr(picture: Tensor) -> float:
        error = (picture - held_out["clean"]).square().mean((1, 2, 3)).clamp_min(1e-5)
        return round(float(-10 * error.log10().mean()), 3)

    def translated(shares: tuple[float, float, float]) -> Tensor:
        batch = damaged(held_out, detector, shares)
        parts = zip(*(torch.split(batch[key], 10) for key in ("photo", "mask", "hidden")), strict=True)
        return torch.cat([net(*part) for part in parts])

    return {
        "PSNR aged": psnr(held_out["photo"]),
        "PSNR translated": psnr(translated((0, 1, 0))),
        "PSNR translated, found masks": psnr(translated((1, 0, 0))),
    }
