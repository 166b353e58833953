"""Train the networks of Wan et al. at their published size, with the project's examples, losses and loop.

As published: two autoencoders, whose latents of real and synthetic old photographs an adversary makes alike; then the
mapping between them, both frozen; the scratch detector and the face generator by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from oldphoto import checkpoints
from oldphoto.errors import UsageError
from oldphoto.faces import CROP, Face, crop_face
from oldphoto.nets.discriminators import LatentDiscriminator, PatchDiscriminator
from oldphoto.nets.wan2020.autoencoder import Autoencoder
from oldphoto.nets.wan2020.detector import Detector
from oldphoto.nets.wan2020.faces import FaceGenerator
from oldphoto.nets.wan2020.translation import Translation
from oldphoto.published import SQUARE
from oldphoto.training.ageing import Severity, age
from oldphoto.training.datasets import (
    Batch,
    Example,
    Maker,
    load_images,
    load_scenes,
    plain_crops,
    scratch_examples,
    to_float,
    translation_examples,
)
from oldphoto.training.faces import aligned
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, require_crop, run
from oldphoto.training.losses import (
    PerceptualDistance,
    adversarial,
    charbonnier,
    dice,
    feature_matching,
    kl_divergence,
)
from oldphoto.training.replay import training_batches

WIDTH = 64
"""Channels of the published networks' widest pictures; all other widths are multiples."""

KL_WEIGHT, LATENT_WEIGHT, ADVERSARIAL_WEIGHT, PERCEPTUAL_WEIGHT = 1e-2, 1.0, 0.02, 0.1

_SMALLEST_FACE = 44


class Autoencoders(nn.Module):
    """Both autoencoders, as one checkpoint."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.clean = Autoencoder(width)
        self.old = Autoencoder(width)


Losses = Table[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What is trained and how: ``losses`` of a batch, and, where there is an ``adversary``, what it has to tell apart.

    ``part``: the name of the part of ``net`` that is trained, if not all of it.
    """

    net: nn.Module
    config: Table[str, Any]
    stream: Iterator[Batch]
    losses: Callable[[Batch], Losses]
    part: str = ""
    adversary: nn.Module | None = None
    told: Callable[[], Tensor] | None = None


def train(network: str, settings: Settings) -> None:
    """Train one of TASKS within the budget of ``settings``, and keep checkpoint and manifest in ``settings.out``.

    Raises UsageError for a network that the published model does not have.
    """
    if network not in TASKS:
        raise UsageError(f"the published model has no network '{network}', only {', '.join(TASKS)}")
    torch.manual_seed(settings.seed)
    started = time.time()
    task = TASKS[network](settings)
    optimiser = Optimiser([task.net.get_submodule(task.part)], settings.learning_rate)
    critic = None if task.adversary is None else Optimiser([task.adversary], 0.5 * settings.learning_rate)

    def step(progress: float) -> Losses:
        batch = on_device(next(task.stream), settings.device)
        with autocast(settings):
            losses = task.losses(batch)
        optimiser.step(torch.stack([loss.float() for loss in losses.values()]).sum(), progress)
        measured = {name: loss.detach() for name, loss in losses.items()}
        if critic is not None and task.told is not None:
            with autocast(settings):
                told = task.told()
            critic.step(told.float(), progress)
            measured["told"] = told.detach()
        return measured

    def save(steps: int) -> None:
        prefix = f"{task.part}." if task.part else ""
        averaged = {f"{prefix}{key}": value for key, value in optimiser.averages[0].state_dict().items()}
        checkpoints.save(
            network,
            task.net.state_dict() | averaged,
            task.config,
            settings.out,
            settings.record(started, steps),
            half=False,
            architecture=checkpoints.PUBLISHED,
        )

    run(network, settings, step, save)


def _begun(kind: type[nn.Module], name: str, config: Table[str, Any], settings: Settings) -> Any:
    """A network to train: anew, or with ``resume`` from where it was left."""
    net = checkpoints.load(kind, name, settings.out) if settings.resume else kind(**config)
    return channels_last(net.train(), settings.device)


def _stream(make: Maker, settings: Settings, size: int | None = None) -> Iterator[Batch]:
    """Batches of examples, others in every process and after every resumption."""
    seed = settings.seed_of_examples(time.time())
    return training_batches(make, settings, seed, size)


def _scratches(settings: Settings) -> Task:
    require_crop(settings, 32)
    config = {"width": WIDTH}
    net = _begun(Detector, "scratches", config, settings)
    photos, textures = load_scenes(settings.data), load_images(settings.data, "textures", "L")

    def losses(batch: Batch) -> Losses:
        logits = net(batch["photo"]).float()
        entropy = F.binary_cross_entropy_with_logits(logits, batch["mask"])
        return {"entropy": entropy, "dice": 0.3 * dice(logits, batch["mask"])}

    return Task(net, config, _stream(scratch_examples(photos, textures, settings.crop), settings), losses)


def _autoencoders(settings: Settings) -> Task:
    """Both at once: the clean one on clean photographs, the old one on real and synthetic old ones."""
    require_crop(settings, 4)
    config = {"width": WIDTH}
    nets = _begun(Autoencoders, "autoencoders", config, settings)
    adversary = channels_last(LatentDiscriminator(WIDTH), settings.device)
    photos, textures = load_scenes(settings.data), load_images(settings.data, "textures", "L")
    made = _stream(translation_examples(photos, textures, settings.crop), settings)
    found = _stream(plain_crops(load_images(settings.data, "old"), settings.crop), settings)
    latents: list[Tensor] = []

    def losses(batch: Batch) -> Losses:
        clean, _ = _coded(nets.clean, batch["clean"])
        old, mean = _coded(nets.old, torch.cat([batch["photo"], batch["real"]]))
        latents[:] = torch.tensor_split(mean, 2)
        # Either side is pulled towards what the adversary takes for the other.
        fooled = adversarial(adversary(latents[0]), True) + adversarial(adversary(latents[1]), False)
        return {"clean": clean, "old": old, "fooled": ADVERSARIAL_WEIGHT * fooled}

    def told() -> Tensor:
        synthetic, real = (latent.detach() for latent in latents)
        return adversarial(adversary(synthetic), False) + adversarial(adversary(real), True)

    stream = (synthetic | {"real": real["photo"]} for synthetic, real in zip(made, found, strict=False))
    return Task(nets, config, stream, losses, adversary=adversary, told=told)


def _coded(net: Autoencoder, picture: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of an autoencoder, and the latents."""
    output, mean, log_variance = net(picture)
    divergence = kl_divergence(mean.float(), log_variance.float())
    return charbonnier(output.float(), picture) + KL_WEIGHT * divergence, mean


def _translation(settings: Settings) -> Task:
    """The mapping for structured damage, between autoencoders that are kept as they are (CVPR 2020, eq. 4)."""
    require_crop(settings, 32)
    stages = checkpoints.load(Autoencoders, "autoencoders", settings.out).eval().requires_grad_(False)
    config = {"kind": "scratch", "width": WIDTH}
    net = _begun(Translation, "translation", config, settings)
    net.encoder, net.decoder = (
        channels_last(part, settings.device) for part in (stages.old.encoder, stages.clean.decoder)
    )
    target = channels_last(stages.clean.encoder, settings.device)
    photos, textures = load_scenes(settings.data), load_images(settings.data, "textures", "L")

    def losses(batch: Batch) -> Losses:
        holed = torch.where(batch["mask"] > 0.5, 1, batch["photo"])
        mapped = net.mapping(net.encoder(holed), batch["mask"])
        latent = LATENT_WEIGHT * F.l1_loss(mapped.float(), target(batch["clean"]).float())
        return {"latent": latent, "picture": charbonnier(net.decoder(mapped).float(), batch["clean"])}

    stream = _stream(translation_examples(photos, textures, settings.crop), settings)
    return Task(net, config, stream, losses, "mapping")


def _faces(settings: Settings) -> Task:
    config = {"size": CROP, "width": WIDTH}
    net = _begun(FaceGenerator, "faces", config, settings)
    adversary = channels_last(PatchDiscriminator(), settings.device)
    perceptual = channels_last(PerceptualDistance(), settings.device)
    made: dict[str, Tensor] = {}

    def losses(batch: Batch) -> Losses:
        made["fake"], made["real"] = net(batch["photo"]), batch["clean"]
        scores, features = adversary(made["fake"])
        return {
            "error": charbonnier(made["fake"].float(), batch["clean"]),
            "perceptual": PERCEPTUAL_WEIGHT * perceptual(made["fake"], batch["clean"]).mean(),
            "fooled": ADVERSARIAL_WEIGHT * adversarial(scores, True),
            "matched": ADVERSARIAL_WEIGHT * feature_matching(features, adversary(batch["clean"])[1]),
        }

    def told() -> Tensor:
        return adversarial(adversary(made["fake"].detach())[0], False) + adversarial(adversary(made["real"])[0], True)

    make = _face_examples([(to_float(photo), face) for photo, face in aligned(load_images(settings.data, "faces"))])
    return Task(net, config, _stream(make, settings), losses, adversary=adversary, told=told)


def _face_examples(faces: list[tuple[Any, Face]]) -> Maker:
    """Faces on the published square: ``photo`` aged at the resolution that faces have in old prints, and ``clean``."""

    def make(rng: Generator) -> Example:
        photo, face = faces[int(rng.integers(len(faces)))]
        clean = cv2.warpAffine(crop_face(photo, face), SQUARE, (CROP, CROP), flags=cv2.INTER_CUBIC).clip(0, 1)
        clean = np.ascontiguousarray(clean[:, :: rng.choice([-1, 1])], np.float32)
        side = round(np.exp(rng.uniform(np.log(_SMALLEST_FACE), np.log(CROP))))
        small = np.asarray(cv2.resize(clean, (side, side), interpolation=cv2.INTER_AREA), np.float32)
        optics, noise, scan = rng.random(3)
        aged = age(small, rng, Severity(0.5 * optics, 0.0, 0.4 * noise, 0.0, 0.6 * scan), side / CROP).photo
        shown = cv2.resize(aged, (CROP, CROP), interpolation=cv2.INTER_CUBIC)
        return {"photo": np.asarray(np.clip(shown, 0, 1), np.float32), "clean": clean}

    return make


TASKS: Table[str, Callable[[Settings], Task]] = {
    "scratches": _scratches,
    "autoencoders": _autoencoders,
    "translation": _translation,
    "faces": _faces,
}
