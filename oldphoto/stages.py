"""The stages of the pipeline, by the weights of a folder: the project's own networks, or the published ones.

``folder`` None: the bundled weights. ``tile``: side of the tiles, px. ``large_scans``: of the published networks, those
for large scans.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage, HalfImage
from oldphoto.errors import UsageError
from oldphoto.faces import FaceRefiner
from oldphoto.published import PublishedDetector, PublishedRefiner, PublishedTranslator
from oldphoto.scratches import ScratchDetector
from oldphoto.translation import Translator


class Detects(Protocol):
    """Finds structured damage: see `oldphoto.scratches.ScratchDetector`."""

    def detect(self, rgb: FloatImage) -> FloatImage:
        """The mask of a photo."""

    def probability(self, rgb: FloatImage) -> FloatImage:
        """How likely each pixel is damaged."""


class Translates(Protocol):
    """Translates photos: see `oldphoto.translation.Translator`."""

    def translate(
        self, rgb: FloatImage, mask: FloatImage | HalfImage | None = None, strength: float = 1.0, in_place: bool = False
    ) -> FloatImage:
        """The clean version of a photo."""


class Refines(Protocol):
    """Refines crops of faces: see `oldphoto.faces.FaceRefiner`."""

    def refine(self, crop: FloatImage) -> FloatImage:
        """The refined face."""


def scratch_detector(device: str = "auto", folder: Path | None = None, tile: int | None = None) -> Detects:
    """The first stage. Raises CheckpointError or UsageError."""
    if _published("scratches", folder):
        return PublishedDetector(device, folder)
    return ScratchDetector(device, folder, tile)


def translator(
    device: str = "auto",
    folder: Path | None = None,
    tile: int | None = None,
    masked: bool = False,
    large_scans: bool = False,
) -> Translates:
    """The second stage. ``masked``: photos with damage will come. Raises CheckpointError or UsageError."""
    if not _published("translation", folder):
        if large_scans:
            raise UsageError("only the published weights have networks for large scans; the others do any size")
        return Translator(device, folder, tile)
    published = PublishedTranslator(device, folder, tile, large_scans)
    published.name_for(masked)
    return published


def face_refiner(
    device: str = "auto", folder: Path | None = None, large_scans: bool = False, model: Path | None = None
) -> Refines:
    """The third stage. ``model``: a user's own face restorer. Raises CheckpointError or UsageError."""
    if model is None and _published("faces", folder):
        return PublishedRefiner(device, folder, large_scans)
    return FaceRefiner(device, folder, model)


def _published(name: str, folder: Path | None) -> bool:
    return checkpoints.find(name, folder)[1].architecture == checkpoints.PUBLISHED
