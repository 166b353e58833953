"""Train the classifier of noise types and compare it with hand-made rules.

    python scripts/train_noise_types.py DATA [--photos 200] [--write]

DATA holds ``photos/`` and the list of those held out. Noise of every type is added to crops of them; the classifier
is a logistic regression on the features of ``oldphoto.classical.noise``. The table shows how often each is right on
the photos held out and on those that come with scikit-image; --write keeps the classifier if it beats the rules.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import scipy.optimize
from measure_classical import KINDS, PHOTOS, scikit_image_photo
from numpy.random import Generator
from numpy.typing import NDArray

from oldphoto.classical import noise
from oldphoto.classical.noise import TYPES, add_noise, expand, measure
from oldphoto.imagefile import atomically
from oldphoto.training.datasets import load_held_out, load_images, random_crop

Array = NDArray[np.float64]

SIDE = 256


def rules(features: Mapping[str, float]) -> str:
    """The type by thresholds, as one would set them by hand."""
    if features["impulses"] > -2.4 and features["kurtosis"] > 1.2:
        return "salt-and-pepper"
    if features["grid"] > 2.0:
        return "jpeg"
    if features["sigma"] < -2.3 or features["evenness"] > 0.5:
        return "none"
    if features["neighbours"] > -0.5:
        return "grain" if features["evenness"] < 0.35 else "none"
    if features["slope"] > 1.5:
        return "speckle"
    return "poisson" if features["slope"] > 0.5 else "gaussian"


def random_level(kind: str, rng: Generator) -> float:
    """A level of noise as it occurs."""
    low, high = {
        "none": (1.0, 1.0),
        "gaussian": (0.012, 0.15),
        "poisson": (8.0, 300.0),
        "salt-and-pepper": (0.004, 0.2),
        "speckle": (0.06, 0.35),
        "jpeg": (6.0, 55.0),
        "grain": (0.02, 0.12),
    }[kind]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def examples(photos: Sequence[NDArray[np.uint8]], rng: Generator) -> tuple[list[Mapping[str, float]], list[int]]:
    """Features and types: one crop of each photo with noise of each type, some of them blurred before."""
    features, types = [], []
    for photo in photos:
        for index, kind in enumerate(TYPES):
            clean = random_crop(photo, SIDE, rng, (0.45, 1.0))
            if rng.random() < 0.3:
                clean = np.asarray(cv2.GaussianBlur(clean, (0, 0), rng.uniform(0.5, 3)))
            noisy = np.round(add_noise(clean, kind, random_level(kind, rng), rng) * 255) / np.float32(255)
            features.append(measure(noisy).features)
            types.append(index)
    return features, types


def fit(x: Array, types: Array, penalty: float = 3e-4) -> Array:
    """Weights of a multinomial logistic regression, features × types, by L-BFGS."""
    target = np.eye(len(TYPES))[types]
    shape = (x.shape[1], len(TYPES))

    def loss(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(shape)
        logits = x @ weights
        logits -= logits.max(1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        gradient = x.T @ (np.exp(log_probabilities) - target) / len(x) + 2 * penalty * weights
        return float(-(target * log_probabilities).sum() / len(x) + penalty * (flat @ flat)), gradient.ravel()

    solution = scipy.optimize.minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(solution.x.reshape(shape))


def main() -> None:
    """Train, compare, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    photos = load_images(arguments.data, "photos")
    chosen = [photos[index] for index in rng.permutation(len(photos))[: arguments.photos]]
    features, types = examples(chosen, rng)
    names = list(features[0])

    def matrix(rows: Sequence[Mapping[str, float]]) -> Array:
        return np.array([[row[name] for name in names] for row in rows])

    x = matrix(features)
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    weights = fit(expand((x - mean) / deviation), np.array(types))

    def classified(rows: Sequence[Mapping[str, float]]) -> list[int]:
        return [int(index) for index in (expand((matrix(rows) - mean) / deviation) @ weights).argmax(1)]

    def compare(title: str, rows: Sequence[Mapping[str, float]], truth: Sequence[int]) -> tuple[float, float]:
        found, ruled = classified(rows), [TYPES.index(rules(row)) for row in rows]
        shares = [float(np.mean(np.array(answer) == truth)) for answer in (found, ruled)]
        print(f"{title}: classifier {shares[0]:.1%}, rules {shares[1]:.1%}")
        for index in sorted(set(truth)):
            row = [sum(1 for t, f in zip(truth, found, strict=True) if (t, f) == (index, k)) for k in range(len(TYPES))]
            print(f"  {TYPES[index]:16s} {' '.join(f'{count:4d}' for count in row)}")
        return shares[0], shares[1]

    compare("held-out photos", *examples(load_held_out(arguments.data, "photos")[::2], rng))
    bar = [
        (measure(np.round(add_noise(scikit_image_photo(name), kind, level, rng) * 255) / np.float32(255)).features, k)
        for name in PHOTOS
        for kind, level in KINDS.items()
        for k in (TYPES.index(kind),)
    ]
    learned, by_hand = compare("scikit-image, the five types of the bar", [f for f, _ in bar], [k for _, k in bar])
    if arguments.write and learned >= by_hand:
        content = {
            "features": names,
            "mean": mean.round(5).tolist(),
            "deviation": deviation.round(5).tolist(),
            "weights": weights.round(4).tolist(),
        }
        with atomically(Path(noise.__file__).with_name("noise_types.json")) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
