"""Compare the methods of deblurring on photographs held out from training, as a table for the README.

    python scripts/compare_deblurring.py DATA [--photos 12] [--weights DIR] [--write]

Three tasks: motion blur of 15 px at 30 degrees; the same with noise of standard deviation 0.01; a lens out of focus by
4 px, with noise of 0.01. Every method knows the true point-spread function; the last row finds it first. What is
blurred in from beyond the edges is real: photos are blurred, then cut, and rounded to 8 bits. PSNR in dB / SSIM, means.
--write puts the table into the README.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.random import Generator
from update_readme import ROOT, enter

from oldphoto.arrays import FloatImage
from oldphoto.classical.deblurring import Deblurrer
from oldphoto.classical.methods import DEBLURRING
from oldphoto.classical.noise import add_noise
from oldphoto.classical.psf import PointSpread, blur, parse
from oldphoto.errors import PhotoError
from oldphoto.evaluation import compare
from oldphoto.training.datasets import load_held_out, to_float

TASKS = {
    "motion": ("motion:15,30", 0.0),
    "noisy motion": ("motion:15,30", 0.01),
    "noisy mis-focus": ("defocus:4", 0.01),
}
EDGE = 24
"""What is cut off after blurring, px."""

CAPTION = (
    "Deblurring {count} photos held out from training, PSNR in dB / SSIM (motion of 15 px at 30 degrees; noise of 1 %;"
    " a lens 4 px out of focus);\nall but the last row are told the blur:"
)

ROWS = ("blurred", *DEBLURRING, "wiener, PSF found")


def degrade(clean: FloatImage, psf: PointSpread, noise: float, rng: Generator) -> tuple[FloatImage, FloatImage]:
    """The clean picture and its degraded version, without their edges."""
    inner = (slice(EDGE, -EDGE), slice(EDGE, -EDGE))
    degraded = add_noise(blur(clean, psf)[inner], "gaussian", noise, rng)
    return clean[inner], np.round(degraded * 255) / np.float32(255)


def main() -> None:
    """Degrade, deblur, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    photos = load_held_out(arguments.data, "photos")
    chosen = [to_float(photos[index]) for index in np.linspace(0, len(photos) - 1, arguments.photos).astype(int)]
    deblurrer = Deblurrer("hqs", "auto", device="cpu", checkpoints=arguments.weights)
    blind = Deblurrer("wiener", "auto")
    rng = np.random.default_rng(0)
    cells: dict[str, list[str]] = {row: [] for row in ROWS}
    for text, noise in TASKS.values():
        psf = parse(text)
        scores: dict[str, list[tuple[float, float]]] = {row: [] for row in ROWS}
        for photo in chosen:
            clean, degraded = degrade(photo, psf, noise, rng)
            results = {"blurred": degraded}
            results |= {method: deblurrer.apply(degraded, psf, method) for method in DEBLURRING}
            try:
                results["wiener, PSF found"] = blind.deblur(degraded).rgb
            except PhotoError:  # no blur found: the photo stays as it is
                results["wiener, PSF found"] = degraded
            for row, picture in results.items():
                measured = compare(picture, clean).plain
                scores[row].append((measured.psnr, measured.ssim))
        for row, values in scores.items():
            psnr, ssim = np.mean(values, 0)
            cells[row].append(f"{psnr:.2f} / {ssim:.3f}")
    lines = [f"| {' | '.join(['method', *TASKS])} |", "|---" * (1 + len(TASKS)) + "|"]
    lines += [f"| {' | '.join([row, *values])} |" for row, values in cells.items()]
    print("\n".join(lines))
    if arguments.write:
        enter(ROOT / "README.md", "deblurring", "\n".join([CAPTION.format(count=len(chosen)), "", *lines]))


if __name__ == "__main__":
    main()
