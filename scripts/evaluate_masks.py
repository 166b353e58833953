"""Measure the scratch detector on annotated scans, and print a Markdown table.

    python scripts/evaluate_masks.py PHOTOS [--annotations tests/annotations] [--weights DIR] [--base N] [--each]

The annotations are masks made by scripts/annotate.py in folders ``tuning`` and ``test``; PHOTOS holds the scans they
belong to. What is unsure is not measured. A threshold may be chosen on ``tuning``; figures to report are those of
``test``. ``--base`` changes the smallest scale that the detector looks at (see `oldphoto.scratches.BASE`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from annotate import photo_of
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import stats

from oldphoto import scratches, work
from oldphoto.arrays import ByteImage, FloatImage
from oldphoto.errors import OldphotoError, UsageError
from oldphoto.evaluation import average_precision
from oldphoto.imagefile import read_photo
from oldphoto.training.scans import DAMAGED, UNSURE
from oldphoto.training.scratches import tolerant_f1

HALVES = ("tuning", "test")
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
TOLERATED = 0.001
"""So much of intact photos may be marked, as a share, for a threshold to be chosen."""


@dataclass(frozen=True)
class Example:
    """An annotated scan: its mask, H × W of INTACT, DAMAGED and UNSURE, and the detector's answer, H × W in [0, 1]."""

    name: str
    mask: ByteImage
    probability: FloatImage

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Where it can be measured."""
        return np.asarray(self.mask != UNSURE)

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Where it is damaged."""
        return np.asarray(self.mask == DAMAGED)

    def marked(self, threshold: float) -> float:
        """The share of sure pixels that the detector takes for damaged."""
        return float(np.mean(self.probability[self.sure] > threshold))

    def f1(self, threshold: float) -> float:
        """The F1 score of the detector with some tolerance of place."""
        return tolerant_f1((self.probability > threshold) & self.sure, self.truth)

    def auc(self) -> float | None:
        """The area under the receiver operating characteristic, None without damage."""
        return roc_auc(self.truth[self.sure], self.probability[self.sure])

    def precision(self) -> float | None:
        """The average precision, None without damage."""
        return average_precision(self.truth[self.sure], self.probability[self.sure])


def roc_auc(truth: ArrayLike, scores: ArrayLike) -> float | None:
    """Return the area under the receiver operating characteristic.

    That is how often something true has a higher score than something untrue, ties counted half (Hanley & McNeil
    1982, the statistic of Mann and Whitney); None if all is true, or nothing.
    """
    positive = np.asarray(truth, bool)
    hits = int(positive.sum())
    misses = positive.size - hits
    if not hits or not misses:
        return None
    ranks = stats.rankdata(np.asarray(scores))
    return float((ranks[positive].sum(dtype=np.float64) - hits * (hits + 1) / 2) / hits / misses)


def load(annotations: Path, photos: Path, detector: scratches.ScratchDetector) -> list[Example]:
    """Read the masks of a folder, and let the detector look at their photos.

    Raises UsageError if there are none, or a mask and its photo differ in size.
    """
    examples = []
    for path in sorted(annotations.glob("*.png")):
        mask = np.asarray(Image.open(path))
        rgb = read_photo(photo_of(path.stem, photos)).rgb
        if mask.shape != rgb.shape[:2]:
            raise UsageError(f"{path} is {mask.shape[1]} x {mask.shape[0]}, its photo {rgb.shape[1]} x {rgb.shape[0]}")
        examples.append(Example(path.stem, mask, detector.probability(rgb)))
    if not examples:
        raise UsageError(f"{annotations} has no masks")
    return examples


def best_threshold(examples: Sequence[Example]) -> float:
    """The one of THRESHOLDS with the highest F1 over damaged photos that marks no more than TOLERATED of intact ones.

    The highest of all if none does.
    """
    damaged, intact = apart(examples)
    quiet = [level for level in THRESHOLDS if mean([example.marked(level) for example in intact]) <= TOLERATED]
    return max(quiet or THRESHOLDS[-1:], key=lambda level: mean([example.f1(level) for example in damaged]))


def apart(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Those with damage, and those without."""
    damaged = [example for example in examples if example.truth.any()]
    return damaged, [example for example in examples if not example.truth.any()]


def mean(values: Sequence[float | None]) -> float:
    """The mean of those values that there are, 0 without any."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else 0.0


def row(name: str, examples: Sequence[Example], thresholds: Sequence[float]) -> str:
    """A row of the table for photos together and on average."""
    truth = np.concatenate([example.truth[example.sure] for example in examples])
    scores = np.concatenate([example.probability[example.sure] for example in examples])
    damaged, intact = apart(examples)
    cells = [name, f"{len(damaged)} + {len(intact)}", _number(roc_auc(truth, scores))]
    cells += [_number(mean([example.auc() for example in damaged])), _number(average_precision(truth, scores))]
    cells += [_number(mean([example.precision() for example in damaged]))]
    for threshold in thresholds:
        cells.append(_number(mean([example.f1(threshold) for example in damaged])))
        cells.append(f"{mean([example.marked(threshold) for example in intact]):.3%}" if intact else "-")
    return _line(cells)


def row_of_one(example: Example, thresholds: Sequence[float]) -> str:
    """A row of the table for one photo."""
    auc, precision = _number(example.auc()), _number(example.precision())
    cells = [example.name, f"{np.mean(example.truth[example.sure]):.3%}", auc, auc, precision, precision]
    for threshold in thresholds:
        cells.append(_number(example.f1(threshold)) if example.truth.any() else "-")
        cells.append(f"{example.marked(threshold):.3%}")
    return _line(cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--annotations", type=Path, default=Path("tests/annotations"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--base", type=int)
    parser.add_argument("--each", action="store_true", help="a row for each photo, too")
    arguments = parser.parse_args()
    if arguments.base is not None:
        scratches.BASE = arguments.base
    try:
        detector = scratches.ScratchDetector(checkpoints_folder=arguments.weights)
        halves = {half: load(arguments.annotations / half, arguments.photos, detector) for half in HALVES}
    except OldphotoError as error:
        raise SystemExit(str(error)) from error
    thresholds = sorted({work.DAMAGED, best_threshold(halves["tuning"])})
    titles = ["", "damaged + intact", "ROC-AUC", "mean over photos", "average precision", "mean over photos"]
    for threshold in thresholds:
        titles += [f"F1 at {threshold}", "marked of intact"]
    print(_line(titles), _line(["---"] * len(titles)), sep="\n")
    for half, examples in halves.items():
        print(row(half, examples, thresholds))
    if arguments.each:
        for examples in halves.values():
            for example in examples:
                print(row_of_one(example, thresholds))


if __name__ == "__main__":
    main()
