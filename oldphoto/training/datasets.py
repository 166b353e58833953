"""Photographs in memory, and endless streams of training examples made from them on the fly."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from oldphoto.arrays import ByteImage, FloatImage, black_and_white
from oldphoto.errors import PhotoError, UsageError
from oldphoto.imagefile import INPUT_SUFFIXES, mask_of, read_photo
from oldphoto.training.ageing import Severity, age, fade, jpeg
from oldphoto.training.curriculum import as_picture
from oldphoto.training.damage import PLAIN, Repertoire, damage
from oldphoto.training.decoys import paste_decoys, surface

logger = logging.getLogger(__name__)

Example = dict[str, FloatImage]
Batch = dict[str, Tensor]
Maker = Callable[[Generator], Example]

MOST_HIDDEN = 0.35
"""A crop of which more than this is hidden teaches nothing: what was there can only be guessed."""

DECOY_SHARE = 0.35
"""Share of the scratch U-Net's examples with something in the picture that only looks like damage."""

REDUCED_SHARE = 0.6
"""Share of them that were scanned larger, by up to MOST_REDUCED, and saved again, as most pictures are that one meets.

Else a network learns how defects are drawn, which no other defects show: edges of their own at single pixels.
"""

MOST_REDUCED = 2.0

TURNED_SHARE = 0.6
"""Share of them turned by a quarter, a half or three quarters: so lie scans, and what is damage does not hang on it."""

CRISP_SHARE = 0.35
"""Share of them with neither blur nor scan, as sharp as pictures are on a screen, and some sharper.

Else a network takes for damage what is sharper than the picture, and sees none where nothing can be: in a white line
across a sharp picture 0.003, across the same blurred by 1 px 0.99.
"""

SEEN = 0.35
"""A pixel of a reduced picture is damaged if more than this share of it is."""

LOOKS = 6
"""So many looks are taken at a picture until one shows what is wanted."""

MISTAKEN_SHARE = 0.2
"""Share of the examples that show what the detector took for damage before this training, and is none."""

DETAIL_SHARE = 0.4
"""Share of the tone estimator's examples that may show a small part of a photograph."""

SURFACE_SHARE = 0.07
"""Share of them that show a wall, gravel or the like alone."""

GRAY_SHARE = 0.45
"""Share of the training photographs shown in black and white, as most old photographs are."""


def held_out(data: Path) -> frozenset[str]:
    """Names of the files, with their suffixes, that no training ever sees: the lines of ``heldout-*.txt``."""
    lists = sorted(data.glob("heldout-*.txt"))
    return frozenset(name for path in lists for name in path.read_text(encoding="utf-8").splitlines())


def load_images(data: Path, folder: str, mode: str = "RGB") -> list[ByteImage]:
    """Every image of ``data/folder`` that is not held out, 8 bits, in sorted order. Raises UsageError if none."""
    return list(load_named(data, folder, mode).values())


def load_named(data: Path, folder: str, mode: str = "RGB") -> dict[str, ByteImage]:
    """The same by their file names."""
    excluded = held_out(data)
    return _load(data / folder, mode, lambda name: name not in excluded)


def load_held_out(data: Path, folder: str, mode: str = "RGB") -> list[ByteImage]:
    """The held-out images of ``data/folder``, in sorted order. Raises UsageError if none.

    Warns of held-out names that no file has: what was meant is trained on.
    """
    kept = held_out(data)
    unknown = sorted(kept - {path.name for path in data.glob("*/*")})
    if unknown:
        some = ", ".join(unknown[:3])
        logger.warning("%s: %d names are held out that no file here has, as %s", data, len(unknown), some)
    folder_of_data = data / folder
    if folder_of_data.is_dir() and not any(path.name in kept for path in folder_of_data.iterdir()):
        raise UsageError(f"{data}: no heldout-*.txt names a file of '{folder}': some have to be kept from training")
    return list(_load(folder_of_data, mode, lambda name: name in kept).values())


def load_scenes(data: Path) -> list[ByteImage]:
    """Photographs and, since most old photographs show people, every third of the faces if there are any."""
    faces = load_images(data, "faces")[::3] if (data / "faces").is_dir() else []
    return load_images(data, "photos") + faces


def _load(folder: Path, mode: str, wanted: Callable[[str], bool]) -> dict[str, ByteImage]:
    images = {}
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in INPUT_SUFFIXES and wanted(path.name):
            try:
                photo = read_photo(path)
            except PhotoError as error:
                logger.warning("left out: %s", error)
                continue
            picture = photo.rgb if mode == "RGB" else mask_of(photo)
            images[path.name] = np.asarray(np.rint(picture * 255), np.uint8)
    if not images:
        raise UsageError(f"{folder}: no photographs for this here; --data needs a folder that holds '{folder.name}'")
    return images


def to_float(image: ByteImage) -> FloatImage:
    """8 bits to [0, 1]."""
    return image.astype(np.float32) / np.float32(255)


def random_crop(image: ByteImage, side: int, rng: Generator, zoom: tuple[float, float]) -> FloatImage:
    """A randomly scaled, placed and mirrored square of an image, in black and white for GRAY_SHARE of them."""
    factor = max(rng.uniform(*zoom), (side + 0.5) / min(image.shape[:2]))
    need = min(int(np.ceil(side / factor)), *image.shape[:2])
    top, left = rng.integers(image.shape[0] - need + 1), rng.integers(image.shape[1] - need + 1)
    piece = to_float(image[top : top + need, left : left + need])
    if need != side:
        piece = resized(piece, side)
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    if piece.ndim == 3 and rng.random() < GRAY_SHARE:
        piece = black_and_white(piece)
    return np.ascontiguousarray(piece, np.float32)


def resized(square: FloatImage, side: int) -> FloatImage:
    """A square picture or mask in [0, 1] at another size, as the alignment of faces does it."""
    how = cv2.INTER_AREA if side < len(square) else cv2.INTER_CUBIC
    return np.asarray(np.clip(cv2.resize(square, (side, side), interpolation=how), 0, 1), np.float32)


def sharpened(picture: FloatImage, sigma: float, amount: float) -> FloatImage:
    """A picture in [0, 1] with what a blur of ``sigma`` px takes from it added ``amount`` times."""
    soft = cv2.GaussianBlur(picture, (0, 0), sigma)
    return np.asarray(np.clip(picture + np.float32(amount) * (picture - soft), 0, 1), np.float32)


@dataclass(frozen=True)
class Look:
    """How an example of ``side`` px for the scratch U-Net shows a picture, or a mask of it.

    ``larger``: how much larger it was scanned; ``scale``: of its defects; ``crisp``: as sharp as pictures are on a
    screen; ``turns``: by a quarter; ``place``: seed of where it was cut out.
    """

    side: int
    larger: float
    scale: float
    crisp: bool
    turns: int
    place: int

    @classmethod
    def random(cls, side: int, rng: Generator) -> Look:
        """Any."""
        crisp = rng.random() < CRISP_SHARE
        larger = rng.uniform(1, MOST_REDUCED) if not crisp and rng.random() < REDUCED_SHARE else 1.0
        scale = float(larger * np.exp(rng.uniform(np.log(0.6), np.log(2.5))))
        turns = int(rng.integers(1, 4)) if rng.random() < TURNED_SHARE else 0
        return cls(side, larger, scale, crisp, turns, int(rng.integers(2**32)))

    @classmethod
    def whole(cls, rng: Generator) -> Look:
        """One at all of a picture, upright and of its own size."""
        return cls(0, 1.0, float(np.exp(rng.uniform(np.log(0.6), np.log(2.5)))), rng.random() < CRISP_SHARE, 0, 0)

    @classmethod
    def at(cls, wanted: ByteImage, side: int, rng: Generator) -> Look:
        """One that shows some of what is wanted of a picture, H × W and not 0 there, if LOOKS tries find one."""
        for _ in range(LOOKS):
            look = cls.random(side, rng)
            if look.of(wanted).any():
                break
        return look

    def of(self, whole: ByteImage) -> FloatImage:
        """The crop of a picture, or of a mask of its size, before it is reduced."""
        rng = np.random.default_rng(self.place)
        zoom = (0.5 * self.larger, 1.3 * self.larger)
        return random_crop(np.rot90(whole, self.turns), round(self.larger * self.side), rng, zoom)

    def reduced(self, crop: FloatImage) -> FloatImage:
        """A crop in the size of the example."""
        return crop if self.larger == 1 else resized(crop, self.side)

    def damaged(
        self, clean: FloatImage, rng: Generator, textures: Sequence[ByteImage], repertoire: Repertoire
    ) -> Example:
        """``photo`` and ``mask`` of a crop: aged, three in ten without damage, and reduced."""
        if self.crisp:
            clean = sharpened(clean, rng.uniform(0.5, 1.2), max(0.0, rng.uniform(-0.5, 1.8)))
        optics, tone, noise, scan = 0.7 * rng.random(4) * (rng.random(4) > 0.3)
        # Mostly few defects: else a picture without many seems to have none, and a lone line across it stays.
        hidden = rng.random() ** 2 if rng.random() < 0.7 else 0.0
        severity = Severity(0.0 if self.crisp else optics, tone, noise, hidden, 0.0 if self.crisp else scan)
        aged = age(clean, rng, severity, self.scale, textures, repertoire)
        if self.larger == 1:
            return {"photo": aged.photo, "mask": aged.mask}
        photo, mask = self.reduced(aged.photo), self.reduced(aged.mask)
        if rng.random() < 0.5:
            photo = jpeg(photo, int(rng.integers(60, 96)))
        return {"photo": photo, "mask": np.asarray(mask > SEEN, np.float32)}


@dataclass(frozen=True)
class Mistaken:
    """A photograph, H × W × 3, and what of it was taken for damage and is none, H × W: 255, all else 0."""

    picture: ByteImage
    alarms: ByteImage


def scratch_examples(
    photos: Sequence[ByteImage],
    textures: Sequence[ByteImage],
    side: int,
    repertoire: Repertoire = PLAIN,
    mistaken: Sequence[Mistaken] = (),
) -> Maker:
    """Examples of ``photo`` H × W × 3 and ``mask`` H × W for the scratch U-Net; three in ten of them undamaged.

    MISTAKEN_SHARE of them show what was mistaken, where anything was.
    """

    def make(rng: Generator) -> Example:
        if mistaken and rng.random() < MISTAKEN_SHARE:
            chosen = mistaken[int(rng.integers(len(mistaken)))]
            whole, look = chosen.picture, Look.at(chosen.alarms, side, rng)
        else:
            whole, look = photos[int(rng.integers(len(photos)))], Look.random(side, rng)
        clean = look.of(whole)
        if rng.random() < DECOY_SHARE:
            clean = paste_decoys(clean, rng, look.scale)
        return look.damaged(clean, rng, textures, repertoire)

    return make


def translation_examples(
    photos: Sequence[ByteImage],
    textures: Sequence[ByteImage],
    side: int,
    draw: Callable[[Generator], Severity] = Severity.random,
    repertoire: Repertoire = PLAIN,
) -> Maker:
    """Examples for the local translation: ``photo``, ``aged``, ``mask``, ``clean``, and the ``severity`` drawn.

    Tone is the tone estimator's business, so ``photo`` and ``clean`` share one: the aged picture is corrected, more or
    less well, by a linear fit to the clean one, which amplifies its noise as a correction does, and ``clean`` gets the
    same correction of the same fading. ``aged`` is the picture before the correction, which a detector sees, and
    ``mask`` what a person would mark in it: the damage, and a little more.
    """

    def make(rng: Generator) -> Example:
        clean = random_crop(photos[int(rng.integers(len(photos)))], side, rng, (0.6, 1.3))
        if rng.random() < 0.1:  # nothing to do, and nothing may be done
            none, mask = as_picture(Severity(0, 0, 0, 0, 0)), np.zeros((side, side), np.float32)
            return {"photo": clean, "aged": clean, "mask": mask, "clean": clean, "severity": none}
        while True:
            severity = draw(rng)
            aged = age(clean, rng, severity, np.exp(rng.uniform(np.log(0.7), np.log(1.8))), textures, repertoire)
            if aged.mask.mean() <= MOST_HIDDEN:
                break
        correct = _correction(aged.toned, clean, rng)
        brush = int(rng.choice([1, 2, 3, 3, 4]))
        return {
            "photo": correct(aged.photo),
            "aged": aged.photo,
            "mask": np.asarray(cv2.dilate(aged.mask, np.ones((brush, brush), np.uint8)), np.float32),
            "clean": correct(aged.toned),
            "severity": as_picture(severity),
        }

    return make


def _correction(toned: FloatImage, clean: FloatImage, rng: Generator) -> Callable[[FloatImage], FloatImage]:
    """A linear colour correction that takes ``toned`` most of the way to ``clean``, by ridge regression."""
    design = np.concatenate([toned.reshape(-1, 3), np.ones((toned.shape[0] * toned.shape[1], 1), np.float32)], 1)
    gram = design.T @ design / len(design)
    ridge = 2e-3 * np.diag([1, 1, 1, 1e-3])
    prior = np.eye(4, 3)
    target = design.T @ (clean.reshape(-1, 3) - design @ prior) / len(design)
    matrix = prior + np.linalg.solve(gram + ridge, target)
    share = np.float32(rng.uniform(0.4, 1.0))
    matrix = (share * matrix + (1 - share) * prior).astype(np.float32)
    return lambda picture: np.asarray(picture @ matrix[:3] + matrix[3], np.float32)


def tone_examples(photos: Sequence[ByteImage], textures: Sequence[ByteImage], side: int) -> Maker:
    """Thumbnails of whole photographs: ``photo`` faded, ``clean`` true in tone.

    A thumbnail averages noise and blur away, so that fading is all that is simulated, and some defects. Some show but a
    detail: brick walls and lawns have little contrast, and are not faded.
    """

    def make(rng: Generator) -> Example:
        image = photos[int(rng.integers(len(photos)))]
        least = 0.2 if rng.random() < DETAIL_SHARE else 0.6
        shares = rng.uniform(least, 1, 2)
        height, width = (max(32, int(share * n)) for share, n in zip(shares, image.shape, strict=False))
        top, left = int(rng.integers(image.shape[0] - height + 1)), int(rng.integers(image.shape[1] - width + 1))
        piece = image[top : top + height, left : left + width]
        clean = to_float(np.asarray(cv2.resize(piece, (side, side), interpolation=cv2.INTER_AREA), np.uint8))
        if rng.random() < 0.5:
            clean = clean[:, ::-1]
        if rng.random() < SURFACE_SHARE:
            clean = surface(clean, rng, np.exp(rng.uniform(np.log(0.3), np.log(1.5))))
        if rng.random() < GRAY_SHARE:
            clean = black_and_white(clean)
        faded = fade(clean, rng, rng.random() ** 0.6 * (rng.random() > 0.3))
        if rng.random() < 0.15:
            faded, _ = damage(faded, rng, 1, 0.25, textures)
        noise = rng.standard_normal(faded.shape, dtype=np.float32) * np.float32(0.015 * rng.random())
        return {"photo": np.clip(faded + noise, 0, 1), "clean": np.ascontiguousarray(clean)}

    return make


def plain_crops(photos: Sequence[ByteImage], side: int) -> Maker:
    """Crops of photographs as they are: ``photo``."""
    return lambda rng: {"photo": random_crop(photos[int(rng.integers(len(photos)))], side, rng, (0.6, 1.3))}


class _Stream(IterableDataset[Example]):
    """An endless stream of examples; every worker draws its own from the seed."""

    def __init__(self, make: Maker, seed: int) -> None:
        self.make, self.seed = make, seed

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            yield self.make(rng)


def _collate(examples: list[Example]) -> Batch:
    """Stack H × W × 3 pictures and H × W masks into N × C × H × W tensors."""
    batch = {}
    for key in examples[0]:
        array = np.stack([example[key] for example in examples])
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        batch[key] = tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor[:, None]
    return batch


def _step_back(worker: int) -> None:
    """Let the process that trains go first: a GPU waits for it alone."""
    os.nice(10)


def batches(make: Maker, size: int, seed: int, workers: int = 1) -> Iterator[Batch]:
    """Endless batches of ``size`` examples, made by ``workers`` processes (0, or where none can be forked: in this)."""
    if "fork" not in multiprocessing.get_all_start_methods():
        workers = 0
    loader = DataLoader(
        _Stream(make, seed),
        batch_size=size,
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_step_back if workers else None,
    )
    # The processes are forked, and wait for ever for threads that OpenCV had before, and that a fork leaves behind.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)
