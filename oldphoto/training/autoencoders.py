"""Train the two autoencoders: one for clean photographs, one for old ones, real and synthetic alike."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from oldphoto import checkpoints
from oldphoto.nets.autoencoder import Autoencoder
from oldphoto.nets.discriminators import LatentDiscriminator
from oldphoto.training.datasets import (
    batches,
    load_held_out,
    load_images,
    plain_crops,
    translation_examples,
)
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, require_crop, run
from oldphoto.training.losses import adversarial, charbonnier, kl_divergence
from oldphoto.training.replay import training_batches

NAME = "autoencoders"
KL_WEIGHT = 1e-5
ADVERSARIAL_WEIGHT = 0.02
CLEAN_SHARE = 0.55
"""Share of the budget for the clean autoencoder, from which the other one starts."""


class Autoencoders(nn.Module):
    """Both autoencoders, as one checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.clean = Autoencoder()
        self.old = Autoencoder()


def train(settings: Settings, adversarial_weight: float = ADVERSARIAL_WEIGHT) -> None:
    """Train within the budget of ``settings`` and keep checkpoint and manifest in ``settings.out``.

    First the clean autoencoder; then the one for old photographs, begun from its weights, with the adversary that
    makes the latents of real and synthetic old photographs alike (Wan et al., CVPR 2020, eq. 1 and 2), unless its
    weight is 0.
    """
    require_crop(settings, 4)
    torch.manual_seed(settings.seed)
    started = time.time()
    nets = checkpoints.load(Autoencoders, NAME, settings.out) if settings.resume else Autoencoders()
    nets = channels_last(nets, settings.device)
    photos, textures = load_images(settings.data, "photos"), load_images(settings.data, "textures", "L")
    real = load_images(settings.data, "old")
    check = plain_crops(load_held_out(settings.data, "photos"), 256)
    held_out = on_device(next(batches(check, 40, 7, workers=0)), settings.device)["photo"]
    seed = settings.seed_of_examples(started)

    clean = Optimiser([nets.clean], settings.learning_rate)
    crops = training_batches(plain_crops(photos, settings.crop), settings, seed)

    def save(steps: int, old_net: nn.Module) -> None:
        scores = {"round trip PSNR": round(round_trip(clean.averages[0], held_out), 2)}
        weights = {f"clean.{key}": value for key, value in clean.averages[0].state_dict().items()}
        weights |= {f"old.{key}": value for key, value in old_net.state_dict().items()}
        record = settings.record(started, steps) | {"scores": scores}
        checkpoints.save(NAME, weights, {}, settings.out, record, scores, half=False)

    def clean_step(progress: float) -> Mapping[str, Tensor]:
        picture = on_device(next(crops), settings.device)["photo"]
        with autocast(settings):
            output, mean, log_variance = nets.clean(picture)
        error, divergence = charbonnier(output.float(), picture), kl_divergence(mean.float(), log_variance.float())
        clean.step(error + KL_WEIGHT * divergence, progress)
        return {"clean error": error.detach(), "KL": divergence.detach()}

    run(
        NAME,
        settings,
        clean_step,
        lambda steps: save(steps, nets.old if settings.resume else clean.averages[0]),
        CLEAN_SHARE,
    )
    nets.clean.load_state_dict(clean.averages[0].state_dict())
    if not settings.resume:
        nets.old.load_state_dict(nets.clean.state_dict())

    old = Optimiser([nets.old], 0.5 * settings.learning_rate)
    adversary = channels_last(LatentDiscriminator(), settings.device)
    critic = Optimiser([adversary], 0.5 * settings.learning_rate)
    ageing, crop_real = translation_examples(photos, textures, settings.crop), plain_crops(real, settings.crop)
    made = training_batches(ageing, settings, seed + 1, max(1, settings.batch // 2))
    found = training_batches(crop_real, settings, seed + 2, settings.batch - settings.batch // 2)

    def old_step(progress: float) -> Mapping[str, Tensor]:
        synthetic, genuine = next(made)["photo"], next(found)["photo"]
        picture = torch.cat([synthetic, genuine]).to(settings.device)
        with autocast(settings):
            output, mean, log_variance = nets.old(picture)
            latents = mean.split([len(synthetic), len(genuine)])
            # Either side is pulled towards what the adversary takes for the other.
            fooled = adversarial(adversary(latents[0]), True) + adversarial(adversary(latents[1]), False)
        error, divergence = charbonnier(output.float(), picture), kl_divergence(mean.float(), log_variance.float())
        old.step(error + KL_WEIGHT * divergence + adversarial_weight * fooled.float(), progress)
        with autocast(settings):
            told = adversarial(adversary(latents[0].detach()), False) + adversarial(
                adversary(latents[1].detach()), True
            )
        critic.step(told.float(), progress)
        return {"old error": error.detach(), "fooled": fooled.detach(), "told": told.detach()}

    run(NAME, settings, old_step, lambda steps: save(clean.steps + steps, old.averages[0]), 1 - CLEAN_SHARE)


@torch.inference_mode()
def round_trip(net: Autoencoder, picture: Tensor) -> float:
    """Mean PSNR in dB of clean pictures after encoding and decoding."""
    output = net.decoder(net.encoder.encode(picture)).clamp(0, 1)
    return float(-10 * (output - picture).square().mean((1, 2, 3)).clamp_min(1e-8).log10().mean())
