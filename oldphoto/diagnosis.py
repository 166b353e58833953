"""What ails a photo: noise, blur, fading, cast, compression, damage, faces; and which command helps."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from oldphoto.arrays import LUMA, FloatImage, is_gray
from oldphoto.checkpoints import own_folder
from oldphoto.classical.blind import Blur, estimate_blur
from oldphoto.classical.deblurring import SURE
from oldphoto.classical.methods import DEFAULT
from oldphoto.classical.noise import SMALLEST, Noise, estimate_noise, is_uniform
from oldphoto.faces import FaceFinder
from oldphoto.imagefile import Photo, read_photo
from oldphoto.stages import scratch_detector
from oldphoto.translation import Translator, apply_tone
from oldphoto.work import DAMAGED

_THUMBNAIL = 256

_HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")

_CAST, _FADING, _DAMAGE = 0.02, 0.05, 0.002
"""From here on a cast, fading (shares of the range), and damage (share of the pixels) are worth repairing."""

# The luminance table of the JPEG standard (ITU-T T.81, table K.1): quality scales it.
_STANDARD_TABLE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What ails a photo.

    ``fading``: share of the tonal range that is lost; ``cast``: name of the colour and strength, of 1, of a cast;
    ``jpeg_quality``: 1 to 100, None for other files; ``damaged_share``: of the pixels; ``advice``: a command, None
    where nothing needs to be done; ``warnings``: what of the file was not seen.
    """

    file: str
    noise: Noise
    blur: Blur | None
    fading: float
    cast: tuple[str, float]
    jpeg_quality: int | None
    damaged_share: float
    faces: int
    advice: str | None
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, object]:
        """The diagnosis as what ``oldphoto diagnose --json`` prints."""
        blur = self.blur
        return {
            "file": self.file,
            "noise": {"type": self.noise.type, "level": self.noise.level, "confidence": self.noise.confidence},
            "blur": {
                "type": blur.psf.kind if blur else "none",
                "psf": blur.psf.text if blur else None,
                "confidence": round(blur.confidence, 3) if blur else 0.0,
            },
            "fading": round(self.fading, 3),
            "cast": {"type": self.cast[0], "strength": round(self.cast[1], 3)},
            "jpeg_quality": self.jpeg_quality,
            "damaged_share": round(self.damaged_share, 6),
            "faces": self.faces,
            "advice": self.advice,
            "warnings": list(self.warnings),
        }


class Diagnostician:
    """Diagnoses photo after photo, with networks loaded once.

    Raises CheckpointError or UsageError for missing weights or an unknown device.
    """

    def __init__(self, device: str = "auto", checkpoints: Path | None = None, tile: int | None = None) -> None:
        self.translator = Translator(device, own_folder(checkpoints), tile)  # for its estimator of tone
        self.detector = scratch_detector(device, checkpoints, tile)
        self.finder = FaceFinder()

    def diagnose(self, photo: Photo, path: Path) -> Diagnosis:
        """Diagnose a photo that was read from ``path``. Raises PhotoError where it is all of one value."""
        small = min(photo.rgb.shape[:2]) < SMALLEST and not is_uniform(photo.rgb)
        noise = Noise("none", 0.0, 0.0) if small else estimate_noise(photo.rgb)
        blur = estimate_blur(photo.rgb)
        fading, cast = self._tone(photo.rgb)
        if photo.gray or is_gray(photo.rgb):
            cast = ("none", 0.0)
        damaged = float((self.detector.detect(photo.rgb) >= DAMAGED).mean())
        faces = len(self.finder.find(photo.rgb))
        advice = _advice(path, noise, blur, fading > _FADING or cast[1] > _CAST, damaged > _DAMAGE)
        quality, warnings = jpeg_quality(path), tuple(photo.warnings)
        return Diagnosis(str(path), noise, blur, fading, cast, quality, damaged, faces, advice, warnings)

    def _tone(self, rgb: FloatImage) -> tuple[float, tuple[str, float]]:
        """Fading and cast: what the correction that the photo would get widens and shifts."""
        tone, share = self.translator.estimate_tone(rgb)
        before = np.asarray(cv2.resize(rgb, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA), np.float32)
        after = before.copy()
        apply_tone(tone, after, share)
        ranges = [float(np.ptp(np.quantile(picture @ LUMA, (0.01, 0.99)))) for picture in (before, after)]
        shift = (before - after).mean((0, 1))
        return float(np.clip(1 - ranges[0] / max(ranges[1], 1e-3), 0, 1)), name_cast(shift - shift.mean())


def diagnose(path: Path | str) -> Diagnosis:
    """Diagnose one photo, with networks loaded for it alone: see Diagnostician for many.

    Raises PhotoError where it can not be read, or is all of one value.
    """
    return Diagnostician().diagnose(read_photo(Path(path)), Path(path))


def name_cast(shift: FloatImage) -> tuple[str, float]:
    """Name the colour of a shift of (red, green, blue) that has no mean, and tell its strength, its largest part."""
    strength = float(np.abs(shift).max())
    if strength < _CAST / 2:
        return "none", strength
    red, green, blue = (float(value) for value in shift)
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
    return _HUES[round(hue / 60) % 6], strength


def jpeg_quality(path: Path) -> int | None:
    """The quality, 1 to 100, that a JPEG was written with, by its quantisation table; None for other files."""
    try:
        with JpegImageFile(path) as image:  # Image.open refuses large scans
            tables: dict[int, list[int]] = image.quantization
    except (OSError, SyntaxError, ValueError):
        return None
    if 0 not in tables:
        return None
    qualities = np.arange(1, 101)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    sums = np.clip((scales[:, None] * _STANDARD_TABLE + 50) // 100, 1, 255).sum(1)
    return int(qualities[np.abs(sums - sum(tables[0])).argmin()])


def _advice(path: Path, noise: Noise, blur: Blur | None, toned: bool, damaged: bool) -> str | None:
    """The command that fits what was found."""
    name = f".{os.sep}{path}" if str(path).startswith("-") else str(path)  # else it would be taken for an option
    photo = subprocess.list2cmdline([name]) if os.name == "nt" else shlex.quote(name)
    blurred = blur is not None and blur.confidence >= SURE
    if toned or damaged:
        options = " --with-scratch" * damaged
        options += f" --deblur {DEFAULT}:{blur.psf.text}" if blur is not None and blurred else ""
        return f"oldphoto restore {photo} restored/{options}"
    if blur is not None and blurred:
        return f"oldphoto deblur {photo} restored/ --{DEFAULT} --psf {blur.psf.text}"
    return None if noise.type == "none" else f"oldphoto denoise {photo} restored/"
