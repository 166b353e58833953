"""Real scans of old photographs, what a person said of the damage in them, and training examples made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from oldphoto.arrays import ByteImage
from oldphoto.errors import UsageError
from oldphoto.training.damage import PLAIN, Repertoire
from oldphoto.training.datasets import Example, Look, Maker, load_named

INTACT, DAMAGED, UNSURE = 0, 1, 2
"""Values of an annotation."""


@dataclass(frozen=True)
class Scan:
    """A scan, H × W × 3, and what is known of its pixels, H × W of INTACT, DAMAGED and UNSURE."""

    picture: ByteImage
    annotation: ByteImage


def load_scans(data: Path, annotations: Sequence[Path] = ()) -> list[Scan]:
    """Every scan of ``data/old`` that is not held out, with its annotation from one of the folders if it has one.

    Raises
    ------
    UsageError
        There are no scans, an annotation is not of its scan's size, or a folder annotates none of the scans.
    """
    pictures = load_named(data, "old")
    known: dict[str, ByteImage] = {}
    for folder in annotations:
        found = {path.stem: path for path in folder.glob("*.png") if path.stem in pictures}
        if not found:
            raise UsageError(f"{folder}: no annotation of a scan to train on; --annotations needs NAME.png")
        for name, path in found.items():
            with Image.open(path) as image:
                known[name] = np.asarray(image)
            if known[name].shape != pictures[name].shape[:2]:
                raise UsageError(f"{path}: not of the size of its scan; paint it anew")
    return [
        Scan(picture, known[name] if name in known else np.full(picture.shape[:2], UNSURE, np.uint8))
        for name, picture in pictures.items()
    ]


def scan_examples(
    scans: Sequence[Scan], textures: Sequence[ByteImage], side: int, repertoire: Repertoire = PLAIN
) -> Maker:
    """Examples of scans damaged further: ``photo`` H × W × 3, ``scan`` before it, ``mask`` H × W, ``known`` H × W.

    ``mask`` tells of what was drawn, and of what a person marked; ``known`` is 1 where a person was sure of the scan.
    """

    def make(rng: Generator) -> Example:
        scan = scans[int(rng.integers(len(scans)))]
        look = Look.random(side, rng)
        before = look.of(scan.picture)
        damaged, unsure = (
            look.of(np.asarray(255 * (scan.annotation == value), np.uint8)) for value in (DAMAGED, UNSURE)
        )
        drawn = look.damaged(before, rng, textures, repertoire)
        mask = np.maximum(drawn["mask"], look.reduced(damaged) > 0.5)
        known = np.asarray(look.reduced(unsure) < 0.5, np.float32)
        return drawn | {"mask": mask, "known": known, "scan": look.reduced(before)}

    return make
