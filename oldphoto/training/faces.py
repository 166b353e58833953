"""Train the face-refinement GAN on aligned faces, aged as faces in old prints are."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.arrays import ByteImage, FloatImage, black_and_white
from oldphoto.errors import CheckpointError, UsageError
from oldphoto.evaluation import fit_tone
from oldphoto.faces import CROP, Face, FaceFinder, crop_face
from oldphoto.faces.identity import descriptors, load_identity_net
from oldphoto.nets.discriminators import PatchDiscriminator
from oldphoto.nets.facegan import FaceNet
from oldphoto.nets.identity import IdentityNet
from oldphoto.training.ageing import Severity, age
from oldphoto.training.datasets import Batch, Example, Maker, batches, load_held_out, load_images, resized, to_float
from oldphoto.training.loop import Optimiser, Settings, autocast, channels_last, on_device, run
from oldphoto.training.losses import PerceptualDistance, adversarial, charbonnier, feature_matching
from oldphoto.training.replay import training_batches
from oldphoto.translation import Translator

NAME = "faces"
ADVERSARY_FROM = 0.6
"""Progress from which on the discriminator takes part; before, there is nothing worth judging."""

ADVERSARIAL_WEIGHT = 0.01
MATCHING_WEIGHT = 0.05
PERCEPTUAL_WEIGHT = 0.8
IDENTITY_WEIGHT = 1.2

ESTRANGED_WEIGHT = 3.0
"""Of what a face lost of who it shows: a refinement that makes one face another's is worse than one that helps none."""

WHOLE_EVERY = 4
"""Of so many steps one sees whole faces, and who they show; the others two windows of each, for a third of the cost."""

WINDOW = 128
"""Side of the windows, px."""

SIDES = (32, 1.5 * CROP)
"""Pixels that the canonical crop has in the photo: faces of 20 px, and those larger than the crop."""

TRANSLATED_SHARE = 0.85
"""Share of the examples that went through the translation, as all faces will; the others make up for its changing."""

UNTOUCHED_SHARE = 0.12
MILD_SHARE = 0.3
"""Share of the aged examples that aged little: most faces are not in a bad way, and must not suffer."""

_MIDDLE = slice(16, CROP - 16)
"""Rows and columns of the crop that the blending shows; nothing else is judged."""


def aligned(photos: Sequence[ByteImage]) -> list[tuple[ByteImage, Face]]:
    """The photos in which exactly one face is found, with it. Raises UsageError if there is none."""
    finder = FaceFinder(magnify=2.0)
    found = [(photo, finder.find(to_float(photo))) for photo in photos]
    single = [(photo, faces[0]) for photo, faces in found if len(faces) == 1]
    if not single:
        raise UsageError(f"no face found in the {len(photos)} photographs of faces; see that they show one each")
    return single


def face_examples(faces: Sequence[tuple[ByteImage, Face]], translator: Translator) -> Maker:
    """Canonical crops: ``photo`` as it comes out of the translation of an old photo, ``clean`` as it was.

    Both have the resolution that the face has in the photo: what is finer would be lost at the paste.
    """

    def make(rng: Generator) -> Example:
        photo, face = faces[int(rng.integers(len(faces)))]
        shaken = Face(face.box, face.landmarks + rng.normal(0, 0.015 * CROP / face.magnification, (5, 2)), face.score)
        clean = crop_face(to_float(photo), shaken)
        if rng.random() < 0.5:
            clean = clean[:, ::-1]
        if rng.random() < 0.6:
            clean = black_and_white(clean)
        clean = _toned(np.ascontiguousarray(clean), rng)
        if rng.random() < UNTOUCHED_SHARE:
            return {"photo": clean, "clean": clean}
        side = min(round(np.exp(rng.uniform(*np.log(SIDES)))), CROP)
        small = resized(clean, side)
        return {"photo": resized(_degraded(small, rng, translator), CROP), "clean": resized(small, CROP)}

    return make


def _toned(clean: FloatImage, rng: Generator) -> FloatImage:
    """Other exposures and contrasts than those of studio portraits: target and input share them."""
    curved = clean ** np.float32(np.exp(rng.normal(0, 0.25)))
    low, high = 0.15 * rng.random(), 1 - 0.2 * rng.random()
    return np.asarray(low + (high - low) * curved, np.float32)


def _degraded(clean: FloatImage, rng: Generator, translator: Translator) -> FloatImage:
    """Age a face as small as it is in the photo, and leave of that what the stages before leave."""
    drawn = rng.random(3) * (rng.random(3) > 0.15)
    if rng.random() < MILD_SHARE:
        drawn *= 0.3
    damage = 0.3 * float(rng.random() < 0.12)
    severity = Severity(0.8 * drawn[0], 0.0, 0.5 * drawn[1], damage, 0.7 * drawn[2])
    # The face may fill a 400-px photo or be a seventh of it: blur and grain are then fine or coarse for it.
    scale = len(clean) / np.exp(rng.uniform(np.log(60), np.log(CROP)))
    aged = age(clean, rng, severity, float(np.clip(scale, 0.3, 2.5)))
    if rng.random() < TRANSLATED_SHARE:
        translated = translator.translate(aged.photo, aged.mask if damage else None)
        return fit_tone(translated, aged.photo)  # tone is decided by the whole photo, not here
    if rng.random() < 0.4:  # what denoising leaves: smooth skin and faint blotches
        calm = cv2.bilateralFilter(aged.photo, 5, rng.uniform(0.02, 0.12), rng.uniform(1, 3))
        return np.asarray(calm, np.float32)
    return aged.photo


def train(settings: Settings) -> None:
    """Train within the budget of ``settings`` and keep checkpoint and manifest in ``settings.out``.

    Least-squares GAN with feature matching (Wang et al., pix2pixHD, CVPR 2018), perceptual distance, L1, and the
    squared distance of the descriptors that tell people apart.
    """
    torch.manual_seed(settings.seed)
    started = time.time()
    net = checkpoints.load(FaceNet, NAME, settings.out) if settings.resume else FaceNet()
    net = channels_last(net, settings.device)
    optimiser = Optimiser([net], settings.learning_rate)
    adversary = channels_last(PatchDiscriminator(), settings.device)
    critic = Optimiser([adversary], 0.3 * settings.learning_rate)
    perceptual = channels_last(PerceptualDistance(), settings.device)
    identity = channels_last(load_identity_net(), settings.device)
    translator = _translator(settings)
    make = face_examples(aligned(load_images(settings.data, "faces")), translator)
    stream = training_batches(make, settings, settings.seed_of_examples(started))
    check = face_examples(aligned(load_held_out(settings.data, "faces")), translator)
    held_out = on_device(next(batches(check, 60, 7, workers=0)), settings.device)
    before = _scores(held_out["photo"], perceptual, identity, held_out)
    places = np.random.default_rng(settings.seed)
    turns = itertools.count(1)

    def step(progress: float) -> Mapping[str, Tensor]:
        whole = next(turns) % WHOLE_EVERY == 0
        batch = on_device(next(stream), settings.device)
        if not whole:
            batch = _windows(batch, places)
        with autocast(settings):
            output = net(batch["photo"]).float()
        seen = {"output": output, "clean": batch["clean"]}
        loss, measured = torch.zeros((), device=output.device), {}
        if whole:
            # The descriptors are taken a little beside the place, elsewhere each time: no pattern can be made to fit.
            shift = [int(value) for value in places.integers(-5, 6, 2)]
            pictures = (output, batch["clean"], batch["photo"])
            ours, theirs, unrefined = (descriptors(identity, picture.roll(shift, (2, 3))) for picture in pictures)
            stranger = (ours - theirs).square().sum(1)
            estranged = (stranger - (unrefined - theirs).square().sum(1)).relu()
            loss = loss + IDENTITY_WEIGHT * stranger.mean() + ESTRANGED_WEIGHT * estranged.mean()
            measured["identity"] = WHOLE_EVERY * stranger.mean().detach()
            measured["estranged"] = WHOLE_EVERY * estranged.mean().detach()
            seen = _windows(seen, places)
        error = charbonnier(_middle(output), _middle(batch["clean"])) if whole else charbonnier(*seen.values())
        with autocast(settings):
            distance = perceptual(seen["output"].clamp(0, 1), seen["clean"]).mean()
        loss = loss + error + PERCEPTUAL_WEIGHT * distance
        measured |= {"error": error.detach(), "perceptual": distance.detach()}
        if progress > ADVERSARY_FROM:
            with autocast(settings):
                scores, features = adversary(seen["output"])
                _, real_features = adversary(seen["clean"])
                fooled = adversarial(scores, True)
                matched = feature_matching(features, real_features)
            loss = loss + ADVERSARIAL_WEIGHT * fooled.float() + MATCHING_WEIGHT * matched.float()
            measured |= {"fooled": fooled.detach(), "matched": matched.detach()}
        optimiser.step(loss, progress)
        if progress > ADVERSARY_FROM:
            with autocast(settings):
                fake_scores, _ = adversary(seen["output"].detach())
                real_scores, _ = adversary(seen["clean"])
                told = adversarial(fake_scores, False) + adversarial(real_scores, True)
            critic.step(told.float(), 0.5 * progress)
            measured["told"] = told.detach()
        return measured

    def save(steps: int) -> None:
        average = optimiser.averages[0]
        after = _scores(_refined(average, held_out), perceptual, identity, held_out)
        scores = _compared(before, after)
        record = settings.record(started, steps) | {"scores": scores}
        checkpoints.save(NAME, average.state_dict(), {}, settings.out, record, scores)

    run(NAME, settings, step, save)


def _translator(settings: Settings) -> Translator:
    """The translation that faces come out of: the one trained beside them, or the bundled one."""
    try:
        return Translator("cpu", settings.out)
    except CheckpointError:
        return Translator("cpu")


def _middle(picture: Tensor) -> Tensor:
    return picture[:, :, _MIDDLE, _MIDDLE]


def _windows(batch: Batch, rng: Generator) -> Batch:
    """Two windows of each picture of a batch, at the same places in all that belongs together."""
    places = rng.integers(_MIDDLE.start, _MIDDLE.stop - WINDOW + 1, (2, 2)).tolist()
    return {
        key: torch.cat([pictures[:, :, top : top + WINDOW, left : left + WINDOW] for top, left in places]).contiguous(
            memory_format=torch.channels_last
        )
        for key, pictures in batch.items()
    }


@torch.inference_mode()
def _refined(net: FaceNet, held_out: Batch) -> Tensor:
    return torch.cat([net(part) for part in torch.split(held_out["photo"], 10)]).clamp(0, 1)


@torch.inference_mode()
def _scores(pictures: Tensor, perceptual: PerceptualDistance, identity: IdentityNet, held_out: Batch) -> Tensor:
    """PSNR in dB, perceptual and descriptor distance of each held-out face to the clean one: 3 × N."""
    pairs = zip(torch.split(pictures, 10), torch.split(held_out["clean"], 10), strict=True)
    scores = []
    for ours, clean in pairs:
        psnr = -10 * (_middle(ours) - _middle(clean)).square().mean((1, 2, 3)).clamp_min(1e-5).log10()
        strangeness = (descriptors(identity, ours) - descriptors(identity, clean)).norm(dim=1)
        scores.append(torch.stack([psnr, perceptual(_middle(ours), _middle(clean)), strangeness]))
    return torch.cat(scores, 1)


def _compared(before: Tensor, after: Tensor) -> dict[str, float]:
    """Means, aged and refined, and how much who they show was lost at worst."""
    means = {
        f"{name} {kind}": round(float(value), 4)
        for kind, scores in (("aged", before), ("refined", after))
        for name, value in zip(("PSNR", "perceptual", "identity"), scores.mean(1), strict=True)
    }
    return means | {"identity lost at worst": round(float((after - before)[2].max()), 4)}
