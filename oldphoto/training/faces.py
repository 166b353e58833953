"""Train the face-refinement GAN on aligned faces, aged as faces in old prints are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.arrays import ByteImage, FloatImage
from oldphoto.errors import UsageError
from oldphoto.faces import CROP, Face, FaceFinder, crop_face
from oldphoto.nets.discriminators import PatchDiscriminator
from oldphoto.nets.facegan import FaceNet
from oldphoto.training.ageing import LUMA, Severity, age
from oldphoto.training.datasets import Batch, Example, Maker, batches, load_held_out, load_images, to_float
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, run
from oldphoto.training.losses import PerceptualDistance, adversarial, charbonnier, feature_matching

NAME = "faces"
ADVERSARY_FROM = 0.35
"""Progress from which on the discriminator takes part; before, there is nothing worth judging."""

ADVERSARIAL_WEIGHT = 0.01
MATCHING_WEIGHT = 0.05
PERCEPTUAL_WEIGHT = 0.1


def aligned(photos: Sequence[ByteImage]) -> list[tuple[ByteImage, Face]]:
    """The photos in which exactly one face is found, with it. Raises UsageError if there is none."""
    finder = FaceFinder()
    found = [(photo, finder.find(to_float(photo))) for photo in photos]
    single = [(photo, faces[0]) for photo, faces in found if len(faces) == 1]
    if not single:
        raise UsageError(f"no face found in the {len(photos)} photographs of faces; see that they show one each")
    return single


def face_examples(faces: Sequence[tuple[ByteImage, Face]]) -> Maker:
    """Canonical crops: ``photo`` aged at the low resolution that faces have in old prints, ``clean`` as it was."""

    def make(rng: Generator) -> Example:
        photo, face = faces[int(rng.integers(len(faces)))]
        shaken = Face(face.box, face.landmarks + rng.normal(0, 0.015 * CROP / face.magnification, (5, 2)), face.score)
        clean = crop_face(to_float(photo), shaken)
        if rng.random() < 0.5:
            clean = clean[:, ::-1]
        if rng.random() < 0.6:
            clean = np.repeat((clean @ LUMA)[..., None], 3, 2)
        clean = _toned(np.ascontiguousarray(clean), rng)
        return {"photo": _degraded(clean, rng), "clean": clean}

    return make


def _toned(clean: FloatImage, rng: Generator) -> FloatImage:
    """Other exposures and contrasts than those of studio portraits: target and input share them."""
    curved = clean ** np.float32(np.exp(rng.normal(0, 0.25)))
    low, high = 0.15 * rng.random(), 1 - 0.2 * rng.random()
    return np.asarray(low + (high - low) * curved, np.float32)


def _degraded(clean: FloatImage, rng: Generator) -> FloatImage:
    """Age the face at the resolution that it has in the photo; much noise is already gone when faces are refined."""
    side = round(np.exp(rng.uniform(np.log(44), np.log(CROP))))
    small = np.asarray(cv2.resize(clean, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    drawn = rng.random(3) * (rng.random(3) > 0.2)
    severity = Severity(0.5 * drawn[0], 0.0, 0.35 * drawn[1], 0.3 * float(rng.random() < 0.1), 0.6 * drawn[2])
    aged = age(small, rng, severity, side / CROP * rng.uniform(1, 2)).photo
    if rng.random() < 0.5:  # what denoising leaves: smooth skin and faint blotches
        aged = np.asarray(cv2.bilateralFilter(aged, 5, rng.uniform(0.02, 0.12), rng.uniform(1, 3)), np.float32)
    return np.asarray(np.clip(cv2.resize(aged, (CROP, CROP), interpolation=cv2.INTER_CUBIC), 0, 1), np.float32)


def train(settings: Settings) -> None:
    """Train within the budget of ``settings`` and keep checkpoint and manifest in ``settings.out``.

    Least-squares GAN with feature matching (Wang et al., pix2pixHD, CVPR 2018), perceptual distance and L1.
    """
    torch.manual_seed(settings.seed)
    started = time.time()
    net = checkpoints.load(FaceNet, NAME, settings.out) if settings.resume else FaceNet()
    net = channels_last(net, settings.device)
    optimiser = Optimiser([net], settings.learning_rate)
    adversary = channels_last(PatchDiscriminator(), settings.device)
    critic = Optimiser([adversary], 0.3 * settings.learning_rate)
    perceptual = channels_last(PerceptualDistance(), settings.device)
    make = face_examples(aligned(load_images(settings.data, "faces")))
    stream = batches(make, settings.batch, settings.seed + int(settings.resume) * int(started))
    check = face_examples(aligned(load_held_out(settings.data, "faces")))
    held_out = on_device(next(batches(check, 60, 7, workers=0)), settings.device)

    def step(progress: float) -> Mapping[str, Tensor]:
        batch = on_device(next(stream), settings.device)
        with autocast(settings):
            output = net(batch["photo"]).float()
            distance = perceptual(output.clamp(0, 1), batch["clean"]).mean()
        error = charbonnier(output, batch["clean"])
        loss = error + PERCEPTUAL_WEIGHT * distance
        measured = {"error": error.detach(), "perceptual": distance.detach()}
        if progress > ADVERSARY_FROM:
            with autocast(settings):
                scores, features = adversary(output)
                _, real_features = adversary(batch["clean"])
                fooled = adversarial(scores, True)
                matched = feature_matching(features, real_features)
            loss = loss + ADVERSARIAL_WEIGHT * fooled.float() + MATCHING_WEIGHT * matched.float()
            measured |= {"fooled": fooled.detach(), "matched": matched.detach()}
        optimiser.step(loss, progress)
        if progress > ADVERSARY_FROM:
            with autocast(settings):
                fake_scores, _ = adversary(output.detach())
                real_scores, _ = adversary(batch["clean"])
                told = adversarial(fake_scores, False) + adversarial(real_scores, True)
            critic.step(told.float(), 0.5 * progress)
            measured["told"] = told.detach()
        return measured

    def save(steps: int) -> None:
        average = optimiser.averages[0]
        scores = evaluate(average, perceptual, held_out)
        record = settings.record(started, steps) | {"scores": scores}
        checkpoints.save(NAME, average.state_dict(), {}, settings.out, record, scores)

    run(NAME, settings, step, save)


@torch.inference_mode()
def evaluate(net: FaceNet, perceptual: PerceptualDistance, held_out: Batch) -> dict[str, float]:
    """PSNR in dB and perceptual distance of held-out faces to the clean ones, before and after refinement."""

    def psnr(picture: Tensor) -> float:
        error = (picture - held_out["clean"]).square().mean((1, 2, 3)).clamp_min(1e-5)
        return round(float(-10 * error.log10().mean()), 3)

    def distance(picture: Tensor) -> float:
        pairs = zip(torch.split(picture, 10), torch.split(held_out["clean"], 10), strict=True)
        return round(float(torch.cat([perceptual(a, b) for a, b in pairs]).mean()), 4)

    output = torch.cat([net(part) for part in torch.split(held_out["photo"], 10)]).clamp(0, 1)
    return {
        "PSNR aged": psnr(held_out["photo"]),
        "PSNR refined": psnr(output),
        "perceptual aged": distance(held_out["photo"]),
        "perceptual refined": distance(output),
    }
