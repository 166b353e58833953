"""Real scans of old photographs, what a person said of the damage in them, and training examples made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from oldphoto.arrays import ByteImage, FloatImage
from oldphoto.errors import UsageError
from oldphoto.training.damage import PLAIN, Repertoire
from oldphoto.training.datasets import MISTAKEN_SHARE, SEEN, Example, Look, Maker, load_named

INTACT, DAMAGED, UNSURE = 0, 1, 2
"""Values of an annotation."""

WORN_SHARE = 0.4
"""Share of the examples that show what a person marked as damage, where anything is: else few would."""

HARDLY = 0.1
"""A pixel of a reduced scan is intact if less than this share of it is damaged."""

AS_IT_IS_SHARE = 0.5
"""Share of the examples of scans that a person judged to which nothing is done: so will the detector meet them, and
ageing them further hides what is faint."""


@dataclass(frozen=True)
class Scan:
    """A scan, H × W × 3, and what is known of its pixels, H × W of INTACT, DAMAGED and UNSURE.

    ``alarms``: what of it was taken for damage and is INTACT, H × W: 255, all else 0; None where nothing was.
    """

    picture: ByteImage
    annotation: ByteImage
    alarms: ByteImage | None = None


def load_scans(data: Path, annotations: Sequence[Path] = ()) -> list[Scan]:
    """Every scan of ``data/old`` that is not held out, with its annotation from one of the folders if it has one.

    Raises
    ------
    UsageError
        There are no scans, an annotation is not of its scan's size or has other values, or a folder annotates none of
        the scans.
    """
    pictures = load_named(data, "old")
    known: dict[str, ByteImage] = {}
    for folder in annotations:
        of_scans = {Path(name).stem: name for name in pictures}
        found = {of_scans[path.stem]: path for path in folder.glob("*.png") if path.stem in of_scans}
        if not found:
            raise UsageError(f"{folder}: no annotation of a scan to train on; --annotations needs NAME.png")
        for name, path in found.items():
            with Image.open(path) as image:
                known[name] = np.asarray(image)
            if known[name].shape != pictures[name].shape[:2]:
                raise UsageError(f"{path}: not of the size of its scan; paint it anew")
            if not np.isin(known[name], (INTACT, DAMAGED, UNSURE)).all():
                values = f"{INTACT} is intact, {DAMAGED} damaged, {UNSURE} unsure"
                raise UsageError(f"{path}: no annotation, in which {values}; make it with scripts/annotate.py")
    return [
        Scan(picture, known[name] if name in known else np.full(picture.shape[:2], UNSURE, np.uint8))
        for name, picture in pictures.items()
    ]


def scan_examples(
    scans: Sequence[Scan], textures: Sequence[ByteImage], side: int, repertoire: Repertoire = PLAIN
) -> Maker:
    """Examples of scans, many of them damaged further: ``photo`` H × W × 3, ``scan`` before, ``mask``, ``known`` H × W.

    ``mask`` tells of what was drawn, and of what a person marked; ``known`` is 1 where a person was sure of the scan.
    """
    worn = [(scan, where(scan, DAMAGED)) for scan in scans if (scan.annotation == DAMAGED).any()]
    mistaken = [(scan, scan.alarms) for scan in scans if scan.alarms is not None]

    def look_at(rng: Generator) -> tuple[Scan, Look]:
        chance = rng.random()
        aimed = worn if chance < WORN_SHARE else mistaken if chance < WORN_SHARE + MISTAKEN_SHARE else []
        if not aimed:
            return scans[int(rng.integers(len(scans)))], Look.random(side, rng)
        scan, wanted = aimed[int(rng.integers(len(aimed)))]
        return scan, Look.at(wanted, side, rng)

    def make(rng: Generator) -> Example:
        scan, look = look_at(rng)
        damaged = _share(DAMAGED, scan, look)
        marked = np.asarray(damaged > SEEN, np.float32)
        before = look.of(scan.picture)
        reduced = look.reduced(before)
        # Nor is it known to be intact where there is a little damage.
        sure = (_share(UNSURE, scan, look) < 0.5) & ((damaged > SEEN) | (damaged < HARDLY))
        known = np.asarray(sure, np.float32)
        if known.any() and rng.random() < AS_IT_IS_SHARE:
            return {"photo": reduced, "mask": marked, "known": known, "scan": reduced}
        drawn = look.damaged(before, rng, textures, repertoire)
        return drawn | {"mask": np.maximum(drawn["mask"], marked), "known": known, "scan": reduced}

    return make


def _share(value: int, scan: Scan, look: Look) -> FloatImage:
    """How much of each pixel of a look at a scan was annotated so, H × W in [0, 1]."""
    return look.reduced(look.of(where(scan, value)))


def where(scan: Scan, value: int) -> ByteImage:
    """Where a scan was annotated so, H × W: 255, all else 0."""
    return np.asarray(255 * (scan.annotation == value), np.uint8)
