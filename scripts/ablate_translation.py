"""Train the translation without each of its parts in turn, with the same budget, and compare.

    python scripts/ablate_translation.py DATA WORK [--steps 1500] [--autoencoder-steps 1500] [--card README]

DATA is as for ``oldphoto train``. Everything trained is kept in WORK, and what is there is not trained again: an
interrupted comparison goes on. Seeds and photographs are the same for all; what the curriculum draws also depends on
time. The scores are those of held-out crops, tone aside, with the masks that the bundled detector finds. --card enters
the table into a model card.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from update_readme import enter

from oldphoto import checkpoints
from oldphoto.nets.mapping import PartialNonLocal
from oldphoto.nets.translation import TranslationNet
from oldphoto.nets.unet import ScratchUNet
from oldphoto.training import autoencoders, scratches, translation
from oldphoto.training.datasets import batches, load_held_out, load_images, translation_examples
from oldphoto.training.loop import Settings
from oldphoto.training.losses import PerceptualDistance

CROPS, SIDE = 100, 192
"""Held-out crops that are compared, and their side, px."""


@dataclass(frozen=True)
class Variant:
    """What a training does without."""

    adversary: bool = True
    non_local: bool = True
    end_to_end: bool = True
    on_demand: bool = True


VARIANTS = {
    "everything": Variant(),
    "without the latent adversary": Variant(adversary=False),
    "without the partial non-local block": Variant(non_local=False),
    "without the end-to-end stage": Variant(end_to_end=False),
    "without the curriculum": Variant(on_demand=False),
}


@contextmanager
def parts_of(variant: Variant) -> Iterator[None]:
    """The translation's parts as a variant has them; what the trainers ask for themselves is theirs."""
    forward, share = PartialNonLocal.forward, translation.LATENT_SHARE
    try:
        if not variant.non_local:
            PartialNonLocal.forward = lambda block, features, intact: features
        if not variant.end_to_end:
            translation.LATENT_SHARE = 1.0
        yield
    finally:
        PartialNonLocal.forward, translation.LATENT_SHARE = forward, share


def once(settings: Settings, train: Callable[[], object]) -> None:
    """Train, unless that was done with these settings before; raises SystemExit if it was with others."""
    done = settings.out / "done"
    if not done.exists():
        train()
        done.write_text(repr(settings), encoding="utf-8")
    elif done.read_text(encoding="utf-8") != repr(settings):
        raise SystemExit(f"{settings.out} was trained with other settings: take another folder")


def train_autoencoders(variant: Variant, settings: Settings) -> None:
    """The triplet's autoencoders, with the adversary or without."""
    autoencoders.train(settings, autoencoders.ADVERSARIAL_WEIGHT if variant.adversary else 0.0)


def train_translation(variant: Variant, settings: Settings, start: Path) -> None:
    """The translation of a variant, from autoencoders and the bundled detector."""
    shutil.copytree(start, settings.out, ignore=shutil.ignore_patterns("done"), dirs_exist_ok=True)
    detector = checkpoints.load(ScratchUNet, scratches.NAME)
    checkpoints.save(scratches.NAME, detector.state_dict(), {}, settings.out, {"run": 0})
    with parts_of(variant):
        translation.train(settings, variant.on_demand)


@torch.inference_mode()
def scores(variant: Variant, folder: Path, data: Path) -> dict[str, float]:
    """PSNR in dB, SSIM and perceptual distance of held-out crops, means."""
    net = checkpoints.load(TranslationNet, translation.NAME, folder).eval()
    detector = checkpoints.load(ScratchUNet, scratches.NAME, folder).eval()
    textures = load_images(data, "textures", "L")
    make = translation_examples(load_held_out(data, "photos"), textures, SIDE)
    torch.manual_seed(0)
    batch = translation.damaged(next(batches(make, CROPS, 11, workers=0)), detector, (1, 0, 0))
    with parts_of(variant):
        given = zip(*(torch.split(batch[key], 10) for key in ("photo", "mask", "hidden")), strict=True)
        output = torch.cat([net(*part) for part in given]).clamp(0, 1)
    clean = batch["clean"].clamp(0, 1)
    perceptual = PerceptualDistance()
    distance = torch.cat(
        [perceptual(*pair) for pair in zip(torch.split(output, 10), torch.split(clean, 10), strict=True)]
    )
    psnr = -10 * (output - clean).square().mean((1, 2, 3)).clamp_min(1e-5).log10()
    return {
        "PSNR": float(psnr.mean()),
        "SSIM": float(np.mean([_ssim(*pair) for pair in zip(output, clean, strict=True)])),
        "perceptual": float(distance.mean()),
    }


def _ssim(one: Tensor, other: Tensor) -> float:
    return float(structural_similarity(one.numpy(), other.numpy(), channel_axis=0, data_range=1))


def table(rows: dict[str, dict[str, float]], steps: int, autoencoder_steps: int) -> str:
    """The comparison as Markdown."""
    lines = [
        f"Trained for {autoencoder_steps:,} steps of the autoencoders and {steps:,} of the translation each, far",
        f"less than what ships; {CROPS} held-out crops of {SIDE} px.",
        "",
        "| translation | PSNR | SSIM | perceptual distance |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['PSNR']:.2f} | {row['SSIM']:.3f} | {row['perceptual']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, score all, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--autoencoder-steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--card", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s")

    def settings(folder: Path, steps: int) -> Settings:
        return Settings(arguments.data, folder, None, steps, batch=arguments.batch, crop=arguments.crop, seed=1)

    rows = {}
    for name, variant in VARIANTS.items():
        short = name.replace(" ", "-")
        start = arguments.work / ("autoencoders" if variant.adversary else "autoencoders-without-adversary")
        out = arguments.work / short
        first, second = settings(start, arguments.autoencoder_steps), settings(out, arguments.steps)
        once(first, partial(train_autoencoders, variant, first))
        once(second, partial(train_translation, variant, second, start))
        kept = out / "scores.json"
        if not kept.exists():
            kept.write_text(json.dumps(asdict(variant) | scores(variant, out, arguments.data)), encoding="utf-8")
        rows[name] = json.loads(kept.read_text(encoding="utf-8"))
        print(name, rows[name], flush=True)
    text = table(rows, arguments.steps, arguments.autoencoder_steps)
    print(text)
    if arguments.card:
        enter(arguments.card, "ablations", text)


if __name__ == "__main__":
    main()
