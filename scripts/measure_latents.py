"""Measure how far apart the latents of real and of synthetic old photographs are, with and without the adversary.

    python scripts/measure_latents.py DATA WORK [--plot docs/latents.png] [--card README]

WORK is the folder of ``scripts/ablate_translation.py``, which trains the autoencoders both ways. The photographs are
those held out: real old ones, and clean ones aged. The distance is Fréchet's (Heusel et al., NIPS 2017, eq. 6) of the
cells of the latents, 64 channels each, in units of the variance of the real ones, for trainings choose how large their
latents are; that between two halves of the real photographs says what nothing looks like.
--card enters the table into a model card.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from update_readme import enter

from oldphoto import checkpoints
from oldphoto.arrays import ByteImage, FloatImage
from oldphoto.nets.autoencoder import Encoder
from oldphoto.training import autoencoders
from oldphoto.training.datasets import load_held_out, load_images, random_crop, translation_examples

Array = NDArray[np.float64]

SIDE, CROPS, CELLS = 192, 4, 96
"""Crops of each photo and their side, px; cells of the latent that are drawn from each crop."""

TRAININGS = {"without the adversary": "autoencoders-without-adversary", "with the adversary": "autoencoders"}


def real_crops(photos: Sequence[ByteImage]) -> list[FloatImage]:
    """Crops of old photos, as the adversary is trained with."""
    rng = np.random.default_rng(1)
    return [random_crop(photo, SIDE, rng, (0.6, 1.3)) for photo in photos for _ in range(CROPS)]


def synthetic_crops(photos: Sequence[ByteImage], textures: Sequence[ByteImage]) -> list[FloatImage]:
    """As many crops of clean photos, aged as the adversary is trained with."""
    rng, make = np.random.default_rng(2), translation_examples(photos, textures, SIDE)
    return [make(rng)["photo"] for _ in range(CROPS * len(photos))]


@torch.inference_mode()
def cells(encoder: Encoder, pictures: Sequence[FloatImage]) -> Array:
    """Latents at random cells: pictures × CELLS × channels."""
    rng = np.random.default_rng(0)
    drawn = []
    for picture in pictures:
        latent = encoder.encode(torch.from_numpy(picture).permute(2, 0, 1)[None])[0].flatten(1)
        drawn.append(latent[:, rng.choice(latent.shape[1], CELLS, replace=False)].T.double().numpy())
    return np.stack(drawn)


def frechet(one: Array, other: Array) -> float:
    """Fréchet's distance of two sets of latents, pictures × cells × channels, taken for normally distributed.

    In units of the first set's variance, all channels together.
    """
    a, b = (latents.reshape(-1, latents.shape[-1]) for latents in (one, other))
    first, second = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(first @ second).real
    distance = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first + second - 2 * root)
    return float(distance / np.trace(first))


def draw(found: dict[str, tuple[Array, Array]], path: Path) -> None:
    """The mean latent of each crop in the plane in which they differ most, a panel for each training."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(9, 4))
    for axes, (name, (real, synthetic)) in zip(panels, found.items(), strict=True):
        means = np.concatenate([real.mean(1), synthetic.mean(1)])
        _, _, directions = np.linalg.svd(means - means.mean(0), full_matrices=False)
        for label, latents, colour in (("real", real, "C1"), ("synthetic", synthetic, "C0")):
            plane = (latents.mean(1) - means.mean(0)) @ directions[:2].T
            axes.scatter(*plane.T, s=8, alpha=0.5, color=colour, label=label)
        axes.set(title=f"{name}: distance {frechet(real, synthetic):.3f}", xticks=[], yticks=[])
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    """Measure, print, and where asked draw and enter into the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--card", type=Path)
    arguments = parser.parse_args()
    real = real_crops(load_held_out(arguments.data, "old"))
    synthetic = synthetic_crops(load_held_out(arguments.data, "photos"), load_images(arguments.data, "textures", "L"))
    found = {}
    lines = ["| autoencoder | real to synthetic | one half of the real to the other |", "| --- | ---: | ---: |"]
    for name, folder in TRAININGS.items():
        nets = checkpoints.load(autoencoders.Autoencoders, autoencoders.NAME, arguments.work / folder).eval()
        found[name] = (cells(nets.old.encoder, real), cells(nets.old.encoder, synthetic))
        by_photo = found[name][0].reshape(-1, CROPS * CELLS, found[name][0].shape[-1])
        lines.append(f"| {name} | {frechet(*found[name]):.3f} | {frechet(by_photo[::2], by_photo[1::2]):.3f} |")
    text = "\n".join(lines)
    print(text)
    if arguments.plot:
        draw(found, arguments.plot)
    if arguments.card:
        enter(arguments.card, "latents", text)


if __name__ == "__main__":
    main()
