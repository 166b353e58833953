"""Measure what classical restoration promises, as one table: deblurring, blur found, noise named, noise taken out.

    python scripts/measure_classical.py [--data DATA] [--only deblur blind noise denoise] [--photos N] [--by-photo]

On the photographs inside scikit-image, their middle scaled to 384 px; with --data on those of DATA that no training
saw, 256 px of each. What is blurred in from beyond the edges is real: photos are blurred, then cut, and rounded to 8
bits. Everything follows from fixed seeds. Exit code 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from compare_deblurring import EDGE, degrade

from oldphoto.arrays import FloatImage
from oldphoto.classical.blind import estimate_blur
from oldphoto.classical.deblurring import Deblurrer
from oldphoto.classical.denoising import denoise
from oldphoto.classical.learned import Denoiser
from oldphoto.classical.noise import add_noise, estimate_noise
from oldphoto.classical.psf import motion
from oldphoto.errors import PhotoError
from oldphoto.evaluation import psnr
from oldphoto.training.datasets import load_held_out, to_float

PHOTOS = (
    "astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field",
    "immunohistochemistry", "moon", "retina", "rocket", "stereo_motorcycle",
)  # fmt: skip
"""What scikit-image ships of photographs; not the clock, which is blurred by motion, nor text, drawings and masks."""

SIDE, HELD_OUT_SIDE = 384, 208

ANGLES = (30.0, 0.0, 75.0, 140.0)
"""Directions of the motion of 15 px, degrees; the first is that of the promise."""

NOISES = (0.0, 0.01)
CASES = 8
"""Lengths from 9 to 31 px that are looked for in each photo, their directions spread by the golden angle."""

KINDS = {"none": 0.0, "gaussian": 0.06, "poisson": 40.0, "salt-and-pepper": 0.06, "speckle": 0.2}
SINGLE = ("median", "adaptive-median", "tv", "tv-poisson", "nlm")

HIGHEST = 50.0
"""The PSNR, dB, that counts for a photo without noise that stays as it is."""


@dataclass
class Table:
    """Figures by photo, and what becomes of them: rows of promise, figure, and whether it is kept."""

    figures: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    rows: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def add(self, name: str, photo: str, value: float) -> None:
        """Note one figure of one photo."""
        self.figures[name][photo].append(value)

    def mean(self, name: str) -> float:
        """The mean of all figures of a name."""
        return float(np.mean([value for values in self.figures[name].values() for value in values]))

    def promise(self, text: str, name: str, least: float, unit: str = " dB") -> None:
        """Hold the mean of a name against what it must be at least."""
        value = self.mean(name)
        self.rows.append((text, f"{value:.2f}{unit}", f">= {least:g}{unit}", value >= least))


def square(picture: np.ndarray, side: int) -> FloatImage:
    """The middle of a picture, as a square of ``side`` px, RGB in [0, 1]."""
    rgb = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3]
    short = min(rgb.shape[:2])
    top, left = ((length - short) // 2 for length in rgb.shape[:2])
    cut = np.asarray(rgb[top : top + short, left : left + short], np.float32) / 255
    how = cv2.INTER_AREA if short > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (side, side), interpolation=how).clip(0, 1), np.float32)


def scikit_image_photo(name: str, side: int = SIDE) -> FloatImage:
    """A photo that comes with scikit-image, its middle scaled to a square of ``side`` px."""
    picture = getattr(skimage.data, name)()
    return square(picture[0] if isinstance(picture, tuple) else picture, side)


def held_out_photos(data: Path) -> dict[str, FloatImage]:
    """The middles of the photos that no training saw, with the edges that blurring cuts off, at their own scale."""
    side = HELD_OUT_SIDE + 2 * EDGE
    photos = {}
    for index, photo in enumerate(load_held_out(data, "photos")):
        top, left = ((length - side) // 2 for length in photo.shape[:2])
        photos[f"held out {index}"] = to_float(photo)[top : top + side, left : left + side]
    return photos


def measure_deblurring(photos: Mapping[str, FloatImage], table: Table) -> None:
    """What the inverse filter, Wiener, HQS and Wiener with the blur found gain on motion blur of 15 px."""
    hqs, blind = Deblurrer("hqs", "motion:15,30", device="cpu"), Deblurrer("wiener", "auto")
    for (name, photo), angle in itertools.product(photos.items(), ANGLES):
        psf = motion(15, angle)
        clean, seen = degrade(photo, psf, 0.01, np.random.default_rng(0))
        before = psnr(seen, clean)
        gains = {method: psnr(hqs.apply(seen, psf, method), clean) - before for method in ("inverse", "wiener", "hqs")}
        try:
            found = psnr(blind.deblur(seen).rgb, clean) - before
        except PhotoError:
            found = 0.0
        for what in ("at 30 degrees", "at all angles") if angle == ANGLES[0] else ("at all angles",):
            table.add(f"wiener {what}", name, gains["wiener"])
            table.add(f"wiener over inverse {what}", name, gains["wiener"] - gains["inverse"])
            table.add(f"hqs over wiener {what}", name, gains["hqs"] - gains["wiener"])
            table.add(f"blur found, wiener {what}", name, found)
    for what in ("at 30 degrees", "at all angles"):
        table.promise(f"motion 15 px {what}, sigma 0.01: Wiener gains", f"wiener {what}", 2)
        table.promise(f"motion 15 px {what}, sigma 0.01: Wiener over inverse", f"wiener over inverse {what}", 0)
        table.promise(f"motion 15 px {what}, sigma 0.01: HQS over Wiener", f"hqs over wiener {what}", 1)
        table.promise(f"motion 15 px {what}, sigma 0.01: blur found, Wiener gains", f"blur found, wiener {what}", 1)


def motions(count: int) -> Iterator[tuple[float, float]]:
    """Lengths, px, and angles, degrees, that cover what is promised, others for each photo."""
    for number in range(count):
        yield 9 + 22 * (number % CASES) / (CASES - 1), round(number * 180 * 0.618034 % 180, 1)


def measure_blind(photos: Mapping[str, FloatImage], table: Table) -> None:
    """How often motion is found within 2 px and 5 degrees, and how often a sharp photo is seen to be sharp."""
    cases = motions(CASES * len(photos))
    for name, photo in photos.items():
        for noise in NOISES:
            _, seen = degrade(photo, motion(1, 0), noise, np.random.default_rng(0))
            table.add("sharp", name, estimate_blur(seen) is None)
        for length, angle in itertools.islice(cases, CASES):
            for noise in NOISES:
                _, seen = degrade(photo, motion(length, angle), noise, np.random.default_rng(0))
                found = estimate_blur(seen)
                right = False
                if found is not None and found.psf.kind == "motion":
                    told, direction = (float(part) for part in found.psf.text.removeprefix("motion:").split(","))
                    right = abs(told - length) <= 2 and abs((direction - angle + 90) % 180 - 90) <= 5
                table.add(f"motion found, sigma {noise:g}", name, 100 * right)
    table.promise("motion of 9 to 31 px found, no noise", "motion found, sigma 0", 80, " %")
    table.promise("motion of 9 to 31 px found, sigma 0.01", "motion found, sigma 0.01", 60, " %")


def noisy(photo: FloatImage, kind: str) -> FloatImage:
    """A photo with the noise of a kind, as an 8-bit file keeps it."""
    return np.round(add_noise(photo, kind, KINDS[kind], np.random.default_rng(0)) * 255) / np.float32(255)


def measure_noise(photos: Mapping[str, FloatImage], table: Table) -> None:
    """How often the type of noise is named right."""
    for (name, photo), kind in itertools.product(photos.items(), KINDS):
        right = 100 * (estimate_noise(noisy(photo, kind)).type == kind)
        table.add("noise named right", name, right)
        table.add(f"{kind} named right", name, right)
    table.promise("type of noise named right", "noise named right", 90, " %")


def measure_denoising(photos: Mapping[str, FloatImage], table: Table) -> None:
    """The PSNR of each method over all kinds of noise, and what auto is above the best single classical one."""
    denoiser = Denoiser("cpu")
    for (name, photo), kind in itertools.product(photos.items(), KINDS):
        seen = noisy(photo, kind)
        for method in ("auto", *SINGLE, "learned"):
            value = min(psnr(denoise(seen, method, denoiser).rgb, photo), HIGHEST)
            table.add(f"denoise {method}", name, value)
            table.add(f"denoise {method}, {kind}", name, value)
    best = max(SINGLE, key=lambda method: table.mean(f"denoise {method}"))
    for name in photos:
        auto, single = (np.mean(table.figures[f"denoise {method}"][name]) for method in ("auto", best))
        table.add(f"auto over {best}", name, float(auto - single))
    table.promise(f"denoise auto over the best single classical method ({best})", f"auto over {best}", 0)


PARTS: dict[str, Callable[[Mapping[str, FloatImage], Table], None]] = {
    "deblur": measure_deblurring,
    "blind": measure_blind,
    "noise": measure_noise,
    "denoise": measure_denoising,
}


def main() -> None:
    """Measure, print, and tell whether all is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--photos", type=int)
    parser.add_argument("--by-photo", action="store_true")
    arguments = parser.parse_args()
    if arguments.data is None:
        whole = {name: scikit_image_photo(name) for name in PHOTOS[: arguments.photos]}
        framed = {name: scikit_image_photo(name, SIDE + 2 * EDGE) for name in whole}
    else:
        whole = framed = dict(itertools.islice(held_out_photos(arguments.data).items(), arguments.photos))
    table = Table()
    for part in arguments.only:
        PARTS[part](framed if part in ("deblur", "blind") else whole, table)
    if arguments.by_photo:
        print("| figure | mean | " + " | ".join(whole) + " |")
        print("|---" * (2 + len(whole)) + "|")
        for name, by_photo in table.figures.items():
            means = [table.mean(name), *(float(np.mean(values)) for values in by_photo.values())]
            print(f"| {name} | {' | '.join(f'{mean:.2f}' for mean in means)} |")
        print()
    print("| promise | measured | bar | kept |\n|---|---|---|---|")
    for text, value, bar, kept in table.rows:
        print(f"| {text} | {value} | {bar} | {'yes' if kept else 'NO'} |")
    sys.exit(0 if all(row[-1] for row in table.rows) else 1)


if __name__ == "__main__":
    main()
