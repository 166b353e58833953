"""Where in undamaged photographs a detector sees damage: the looks at them that teach it most.

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

from oldphoto.arrays import ByteImage, FloatImage, black_and_white
from oldphoto.scratches import ScratchDetector
from oldphoto.training.datasets import GRAY_SHARE, Mistaken, to_float
from oldphoto.training.scans import INTACT, Scan, where

PHOTOS, SCANS = 500, 200
"""So many are looked at: each takes as long as it does to find what is damaged in it."""

ALARMING = 0.001
"""Share of a photograph that is taken for damaged from which on it is shown more often."""


def find_mistakes(
    detector: ScratchDetector, photos: Sequence[ByteImage], rng: Generator, count: int = PHOTOS
) -> list[Mistaken]:
    """Of ``count`` of the photographs, H × W × 3, those in which the detector sees damage, though there is none."""
    mistaken = []
    for index in islice(rng.permutation(len(photos)), count):
        seen = to_float(photos[index])
        alarms = _marked(detector, black_and_white(seen) if rng.random() < GRAY_SHARE else seen)
        if (alarms > 0).mean() > ALARMING:
            mistaken.append(Mistaken(photos[index], alarms))
    return mistaken


def with_alarms(detector: ScratchDetector, scans: Sequence[Scan], rng: Generator, count: int = SCANS) -> list[Scan]:
    """The scans, ``count`` of them with what is taken for damage where a person was sure that there is none."""
    judged = [index for index, scan in enumerate(scans) if (scan.annotation == INTACT).any()]
    looked_at = set(rng.permutation(judged)[:count].tolist())
    return [replace(scan, alarms=_alarms(detector, scan)) if i in looked_at else scan for i, scan in enumerate(scans)]


def _alarms(detector: ScratchDetector, scan: Scan) -> ByteImage | None:
    # A pixel beside damage is often marked with it.
    surely = cv2.erode(where(scan, INTACT), np.ones((5, 5), np.uint8))
    alarms = np.minimum(surely, _marked(detector, to_float(scan.picture)))
    return alarms if alarms.any() else None


def _marked(detector: ScratchDetector, rgb: FloatImage) -> ByteImage:
    """What of a picture, H × W × 3 in [0, 1], the detector takes for damage, H × W: 255, all else 0."""
    return np.asarray(255 * (detector.detect(rgb) >= 0.5), np.uint8)
