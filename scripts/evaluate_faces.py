"""Measure the faces stage on held-out faces: aged, translated, found, refined, and compared with what they were.

    python scripts/evaluate_faces.py DATA [--photos 40] [--strengths 0.25 0.5 0.75] [--weights DIR] [--model FILE]

DATA is the folder of photographs that the networks are trained on; its held-out faces are used. Each is made as small
as faces are in old photographs, 24 to 200 px wide, and aged at each strength. Tone is left alone, it is decided
elsewhere. All is compared on the canonical crop, with that of the clean photo in the size of the aged one; PSNR and
perceptual distance on the face alone: around it, both pictures show the clean photo.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from oldphoto.arrays import LUMA, FloatImage, black_and_white
from oldphoto.blending import blend, soft_mask
from oldphoto.evaluation import Distance, fit_tone, perceptual_distance, psnr
from oldphoto.faces import Face, FaceFinder, FaceRefiner, IdentityGuard, crop_face
from oldphoto.training.ageing import Severity, age
from oldphoto.training.datasets import load_held_out, to_float
from oldphoto.translation import Translator


@dataclass(frozen=True)
class Measured:
    """One face. Pairs are (translated, refined), compared with the clean face."""

    strength: float
    width: float
    found: bool
    false: int
    psnr: tuple[float, float] = (0.0, 0.0)
    perceptual: tuple[float, float] = (0.0, 0.0)
    identity: tuple[float, float] = (0.0, 0.0)
    changed: float = 0.0
    share: float = 1.0
    seam: float = 1.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Stages:
    """The networks, loaded once."""

    translator: Translator
    finder: FaceFinder
    refiner: FaceRefiner
    guard: IdentityGuard
    distance: Distance


def smaller(photo: FloatImage, face: Face, width: float) -> tuple[FloatImage, Face]:
    """A photo reduced so that its face is ``width`` px wide, or as it is where it would have to be magnified."""
    factor = min(width / (face.box[2] - face.box[0]), 1.0)
    size = (round(photo.shape[1] * factor), round(photo.shape[0] * factor))
    small = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.float32)
    box = tuple(factor * edge for edge in face.box)
    return small, Face((box[0], box[1], box[2], box[3]), (face.landmarks + 0.5) * factor - 0.5, face.score)


def is_there(face: Face, true: Face) -> bool:
    """Whether a found face is the true one."""
    centre, place = ((np.add(one.box[:2], one.box[2:]) / 2) for one in (face, true))
    return float(np.abs(centre - place).max()) < 0.4 * (true.box[2] - true.box[0])


def seam(before: FloatImage, after: FloatImage, mask: FloatImage) -> float:
    """Gradient across the border of the blend: how many times as steep as it was before, against that inside.

    1 where nothing changed; a step at the border makes it larger, a border wiped smooth makes it smaller.
    """
    along = np.stack(np.gradient(mask), 2)
    along /= np.maximum(np.linalg.norm(along, axis=2, keepdims=True), 1e-6)
    border = (mask > 0.02) & (mask < 0.3)

    def across(picture: FloatImage) -> float:
        gradient = np.stack(np.gradient(picture @ LUMA), 2)
        return float(np.abs((gradient * along).sum(2))[border].mean())

    return across(after) / max(across(before), 1e-6)


def measure_one(clean: FloatImage, true: Face, strength: float, seed: int, stages: Stages) -> Measured:
    """Age a photo of one face and restore the face."""
    rng = np.random.default_rng(seed)
    photo, true = smaller(clean, true, float(np.exp(rng.uniform(np.log(24), np.log(200)))))
    width = true.box[2] - true.box[0]
    severity = Severity(strength, 0.0, strength, 0.0, strength)
    aged = age(photo, rng, severity, max(0.3, min(photo.shape[:2]) / 400)).photo
    translated = stages.translator.translate(aged)
    faces = stages.finder.find(translated)
    hits = [face for face in faces if is_there(face, true)]
    if not hits:
        return Measured(strength, width, False, len(faces))
    face = max(hits, key=lambda face: face.score)
    started = time.process_time()
    crop = crop_face(translated, face)
    refined = stages.refiner.refine(crop)
    share = stages.guard.share(crop, refined)
    blended = blend(translated, face, crop + np.float32(share) * (refined - crop))
    seconds = time.process_time() - started
    target, *ours = (crop_face(picture, true) for picture in (photo, translated, blended))
    mask = soft_mask(true)
    only = [target + mask[..., None] * (fit_tone(one, target) - target) for one in ours]

    def pair(measure: Distance, pictures: list[FloatImage]) -> tuple[float, float]:
        return measure(pictures[0], target), measure(pictures[1], target)

    return Measured(
        strength,
        width,
        True,
        len(faces) - len(hits),
        pair(psnr, only),
        pair(stages.distance, only),
        pair(stages.guard.distance, ours),
        stages.guard.distance(crop, refined),
        share,
        seam(ours[0], ours[1], mask),
        seconds,
    )


def measure(data: Path, count: int, strengths: list[float], stages: Stages) -> Iterator[Measured]:
    """All photos at all strengths."""
    photos = [to_float(photo) for photo in load_held_out(data, "faces")]
    for number, clean in enumerate(photos[:: max(1, len(photos) // count)][:count]):
        faces = stages.finder.find(clean)
        if len(faces) != 1:
            continue
        if number % 2:
            clean = black_and_white(clean)
        for index, strength in enumerate(strengths):
            yield measure_one(clean, faces[0], strength, 100 * number + index, stages)


def report(results: list[Measured], title: str) -> None:
    """Means, and the worst where it counts."""
    faces = [one for one in results if one.found]
    print(f"{title}: {len(results)} faces, found {len(faces)}, false {sum(one.false for one in results)}")
    if not faces:
        return
    table = {name: np.array([getattr(one, name) for one in faces]) for name in ("psnr", "perceptual", "identity")}
    for name, values in table.items():
        before, after = values.mean(0)
        change = f"{after - before:+.2f} dB" if name == "psnr" else f"{after / before - 1:+.1%}"
        print(f"  {name}: translated {before:.4f}, refined {after:.4f} ({change})")
    worse = table["identity"][:, 1] - table["identity"][:, 0]
    shares, seams = (np.array([getattr(one, name) for one in faces]) for name in ("share", "seam"))
    print(f"  identity: at worst {worse.max():+.3f}, more than 0.05 worse {int((worse > 0.05).sum())}")
    print(f"  guard: less {int(((shares > 0) & (shares < 1)).sum())}, none {int((shares == 0).sum())}")
    print(f"  seam: mean {seams.mean():.3f}, {np.quantile(seams, 0.05):.3f} to {np.quantile(seams, 0.95):.3f}")
    print(f"  CPU seconds a face: {np.mean([one.seconds for one in faces]):.2f}", flush=True)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--limit", type=float, help="of the identity guard")
    parser.add_argument("--json", type=Path, help="write what was measured on each face here")
    arguments = parser.parse_args()
    guard = IdentityGuard() if arguments.limit is None else IdentityGuard(arguments.limit)
    refiner = FaceRefiner("cpu", arguments.weights, arguments.model)
    stages = Stages(Translator("cpu"), FaceFinder(), refiner, guard, perceptual_distance())
    results = []
    for one in measure(arguments.data, arguments.photos, arguments.strengths, stages):
        results.append(one)
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(one) for one in results], indent=1), encoding="utf-8")
    for strength in arguments.strengths:
        report([one for one in results if one.strength == strength], f"strength {strength}")
    report(results, "all")


if __name__ == "__main__":
    main()
