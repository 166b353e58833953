"""What a photo is, outside and inside: `Photo` for the pipeline, `Raster` for the codecs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage
from oldphoto.errors import PhotoError

IntImage = NDArray[np.uint8 | np.uint16]

PIXEL_LIMIT = 300_000_000
"""Pixels of the largest photo that is read unless more is asked for: an A3 sheet at 1200 dpi has 280 million. Beyond
it a file is taken for broken or hostile."""

RAISE_LIMIT = "scale it down, or raise --max-pixels if you trust it"

_FORMATS = {
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".jpe": "jpg",
    ".jfif": "jpg",
    ".png": "png",
    ".tif": "tif",
    ".tiff": "tif",
    ".webp": "webp",
    ".bmp": "bmp",
}
_HEIF_SUFFIXES = frozenset({".heic", ".heif"})

INPUT_SUFFIXES: frozenset[str] = frozenset(_FORMATS) | _HEIF_SUFFIXES
"""The lower-case suffixes that folders are searched for."""

OUTPUT_SUFFIX: dict[str, str] = {name: f".{name}" for name in ("jpg", "png", "tif", "webp", "bmp")}
"""Output format -> the suffix of its files."""


@dataclass(frozen=True)
class Extra:
    """What one format alone can say, and is carried as it stands into a file of the same format.

    ``name``: what a user calls it; ``format``: see `Photo`; ``kind`` and ``content``: of the segment or the chunk.
    """

    name: str
    format: str
    kind: bytes
    content: bytes


@dataclass(frozen=True, eq=False)
class Photo:
    r"""An upright picture and what its file says about it.

    Attributes
    ----------
    rgb
        H × W × 3 float32 in [0, 1], in the colour space of `icc`; the EXIF orientation is already applied.
    gray
        The file's own mode is gray: it is written gray.
    bit_depth
        8 or 16, the bits a sample has in the file.
    alpha
        H × W opacity in the file's depth, not premultiplied.
    icc
        The colour profile.
    exif
        ``b"Exif\0\0"`` and a TIFF structure, as `PIL.Image.Exif.tobytes` gives; its orientation is 1.
    xmp
        The XMP packet; where EXIF had an orientation, its tiff:Orientation is 1.
    dpi
        Pixels an inch, (x, y), where the file says so.
    extras
        IPTC, comments and the like.
    lossless
        It comes from a WebP without loss, and is written as such a one.
    format
        "jpg", "png", "tif", "webp" or "bmp": what the photo is written in if nothing else is asked for.
    warnings
        What the reader had to leave out or guess.
    """

    rgb: FloatImage
    gray: bool = False
    bit_depth: int = 8
    alpha: IntImage | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    extras: tuple[Extra, ...] = ()
    lossless: bool = False
    format: str = "png"
    warnings: tuple[str, ...] = ()

    def with_rgb(self, rgb: FloatImage) -> Photo:
        """Return the same photo with other pixels (H × W × 3 float32 in [0, 1])."""
        return dataclasses.replace(self, rgb=rgb)


@dataclass
class Raster:
    """The pixels of a file as they are stored, with its metadata: when read not turned upright yet.

    `pixels` is H × W for gray or H × W × 3, `alpha` H × W, both uint8 or both uint16.
    """

    pixels: IntImage
    alpha: IntImage | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    extras: tuple[Extra, ...] = ()
    lossless: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def samples(self) -> IntImage:
        """H × W or H × W × C array of pixels and alpha together (gray, gray + alpha, RGB or RGBA)."""
        if self.alpha is None:
            return self.pixels
        samples: IntImage = np.dstack((self.pixels, self.alpha))
        return samples


def format_of(path: Path) -> str | None:
    """Return the output format that the suffix of `path` asks for, None if it asks for none."""
    return _FORMATS.get(path.suffix.lower())


def output_format(source_suffix: str) -> str:
    """Return the format that "same" means for a photo with this input suffix: "jpg" for HEIC, which is not written."""
    suffix = source_suffix.lower()
    return "jpg" if suffix in _HEIF_SUFFIXES else _FORMATS.get(suffix, "png")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise PhotoError, without the file's name, for more pixels than are asked for."""
    if width * height > max_pixels:
        raise PhotoError(f"has {width} by {height} pixels, more than {max_pixels:,}: {RAISE_LIMIT}")


def eight_bits(samples: IntImage) -> NDArray[np.uint8]:
    """Round samples of 16 bits to 8 bits."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def per_metre(dpi: float) -> int:
    """Convert pixels an inch to whole pixels a metre, the unit of PNG and BMP."""
    return round(dpi / 0.0254)


def per_inch(per_metre: float) -> float:
    """Convert pixels a metre to pixels an inch; a rounded 300 dpi (11811) comes back as 300."""
    dpi = per_metre * 0.0254
    return float(round(dpi)) if abs(dpi - round(dpi)) <= 0.0127 else dpi


def aspect_left_out(x: float, y: float) -> list[str]:
    """Say that a file states the shape of its pixels, x to y, instead of a resolution; nothing of square ones."""
    return [] if x == y else [f"the shape of the pixels ({x:g}:{y:g}) left out: the file states no resolution with it"]
