"""Measure what fine-tuning on scans without clean versions is worth, on scans whose clean versions are hidden from it.

    python scripts/measure_noise2noise.py DATA [--photos 24] [--steps 200] [--sigma 0.08] [--grain 0]

Held-out photographs of DATA get one kind of noise, as the scans of one film on one scanner have it: normally
distributed, or, with --grain, blurred by so many px, and are saved. The translation is fine-tuned on the files as
``oldphoto train translation --noise2noise`` does it, and both translations are compared with the clean photographs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.checkpoints import checkpoint_folder
from oldphoto.evaluation import fit_tone, psnr
from oldphoto.imagefile import Photo, read_photo, write_photo
from oldphoto.training import noise2noise
from oldphoto.training.datasets import load_held_out, to_float
from oldphoto.training.loop import Settings
from oldphoto.translation import Translator


def noisy(clean: FloatImage, sigma: float, grain: float, rng: np.random.Generator) -> FloatImage:
    """A photo with noise of this standard deviation, blurred by ``grain`` px."""
    noise = rng.standard_normal(clean.shape, np.float32)
    if grain:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), grain), np.float32)
    return np.clip(clean + np.float32(sigma) * noise / noise.std(), 0, 1)


def mean_psnr(cleans: list[FloatImage], folder: Path, weights: Path | None) -> float:
    """Mean PSNR in dB of the translated scans of a folder after the fit of tone, or, for no weights, of the scans."""
    translator = Translator("cpu", weights) if weights else None
    values = []
    for number, clean in enumerate(cleans):
        scan = read_photo(folder / f"{number:03}.png").rgb
        values.append(psnr(fit_tone(translator.translate(scan) if translator else scan, clean), clean))
    return float(np.mean(values))


def main() -> None:
    """Make scans, measure, fine-tune, measure again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--sigma", type=float, default=0.08)
    parser.add_argument("--grain", type=float, default=0.0)
    arguments = parser.parse_args()
    cleans = [to_float(photo) for photo in load_held_out(arguments.data, "photos")[: arguments.photos]]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        scans, out = Path(temporary) / "scans", Path(temporary) / "weights"
        scans.mkdir()
        for number, clean in enumerate(cleans):
            write_photo(Photo(noisy(clean, arguments.sigma, arguments.grain, rng)), scans / f"{number:03}.png")
        bundled = checkpoint_folder()
        rate = arguments.learning_rate
        noise2noise.train(Settings(scans, out, None, arguments.steps, batch=4, learning_rate=rate, bfloat16=False))
        for name, weights in (("scans", None), ("bundled weights", bundled), ("fine-tuned", out)):
            print(f"{name}: {mean_psnr(cleans, scans, weights):.2f} dB", flush=True)


if __name__ == "__main__":
    main()
