"""Where in photographs a detector sees damage that is none: the looks at them that teach it most.

Hard example mining (Shrivastava et al., CVPR 2016), before a run and of whole photographs: wires, poles and lattices
are in few of them and in small parts of these, which examples cut out anywhere seldom show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from oldphoto.arrays import ByteImage, FloatImage, black_and_white
from oldphoto.scratches import ScratchDetector
from oldphoto.training.datasets import GRAY_SHARE, Look, Mistaken, to_float
from oldphoto.training.scans import INTACT, Scan
from oldphoto.training.styles import VARIED

PHOTOS, SCANS = 400, 100
"""So many are looked at: each takes as long as it does to find what is damaged in it."""

CLEAN_SHARE = 0.5
"""Share of the photographs that are looked at as they are.

Of a detector that learns only from what it mistakes in damaged ones, clean ones come out with more marked.
"""

ALARMING = 0.001
"""Share of a photograph that is taken for damaged from which on it is shown more often."""


def find_mistakes(
    detector: ScratchDetector,
    photos: Sequence[ByteImage],
    textures: Sequence[ByteImage],
    rng: Generator,
    count: int = PHOTOS,
) -> list[Mistaken]:
    """Of ``count`` of the photographs, H × W × 3, those in which the detector sees damage where there is none.

    Those that are not left clean are aged, and most are damaged, as examples are: a label that passes in a clean
    picture is taken for a blot where scratches run beside it.
    """
    mistaken = []
    for index in islice(rng.permutation(len(photos)), count):
        clean = to_float(photos[index])
        if rng.random() < GRAY_SHARE:
            clean = black_and_white(clean)
        if rng.random() < CLEAN_SHARE:
            alarms = _alarms(detector, clean, np.zeros(clean.shape[:2]))
        else:
            aged = Look.whole(rng).damaged(clean, rng, textures, VARIED)
            alarms = _alarms(detector, aged["photo"], aged["mask"])
        if (alarms > 0).mean() > ALARMING:
            mistaken.append(Mistaken(photos[index], alarms))
    return mistaken


def with_alarms(detector: ScratchDetector, scans: Sequence[Scan], rng: Generator, count: int = SCANS) -> list[Scan]:
    """The scans, ``count`` of them with what is taken for damage where a person was sure that there is none."""
    judged = [index for index, scan in enumerate(scans) if (scan.annotation == INTACT).any()]
    looked_at = set(rng.permutation(judged)[:count].tolist())
    return [_with_alarms(detector, scan) if i in looked_at else scan for i, scan in enumerate(scans)]


def _with_alarms(detector: ScratchDetector, scan: Scan) -> Scan:
    alarms = _alarms(detector, to_float(scan.picture), scan.annotation != INTACT)
    return replace(scan, alarms=alarms if alarms.any() else None)


def _alarms(detector: ScratchDetector, rgb: FloatImage, damage: ArrayLike) -> ByteImage:
    """What of a picture, H × W × 3 in [0, 1], the detector takes for damage away from it, H × W: 255, all else 0."""
    # A pixel beside damage is often marked with it.
    near = cv2.dilate(np.asarray(damage, np.uint8), np.ones((5, 5), np.uint8)) > 0
    return np.asarray(255 * ((detector.detect(rgb) >= 0.5) & ~near), np.uint8)
