"""From a `Photo` to a complete file, or to none at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from oldphoto.arrays import LUMA, FloatImage
from oldphoto.errors import PhotoError, UsageError
from oldphoto.imagefile import exif as exif_block
from oldphoto.imagefile import jpeg, png, tiff, webp
from oldphoto.imagefile.colour import srgb_profile, to_srgb
from oldphoto.imagefile.files import atomically
from oldphoto.imagefile.photo import OUTPUT_SUFFIX, Extra, IntImage, Photo, Raster, eight_bits, format_of, per_metre
from oldphoto.imagefile.photoshop import with_captions

_NAMES = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WebP", "bmp": "BMP"}
_LONGEST_SIDE = {"jpg": 65500, "webp": 16383}
_STRIP_ROWS = 256
_XMP_PADDING = re.compile(rb"\s{2,}(?=<\?xpacket end|\Z)")  # room that packets keep for editing in place
_LEAST_DPI, _MOST_DPI = 0.02, 5e7  # that PNG and TIFF can state


@dataclass(frozen=True)
class Written:
    """What became of a photo: `warnings` name what the format could not hold; `sha256` is of the file's bytes."""

    warnings: tuple[str, ...]
    sha256: str


def write_photo(photo: Photo, path: Path, format: str | None = None, quality: int = 95) -> tuple[str, ...]:
    """Write a photo with its metadata; the file appears complete or not at all.

    Parameters
    ----------
    photo
        What to write; values outside [0, 1] are clipped.
    path
        The file; missing folders are made.
    format
        "jpg", "png", "tif", "webp" or "bmp"; by default what the suffix of `path` says, else the photo's own.
    quality
        1 to 100 for JPEG and WebP; from 90 on JPEG keeps full colour resolution, at 100 WebP is lossless.

    Returns
    -------
    tuple of str
        What the format could not hold, a sentence each.

    Raises
    ------
    PhotoError
        If the file cannot be written or the photo does not fit into the format.
    UsageError
        If the format or the quality does not exist.
    """
    return write_pages([photo], path, format or format_of(path) or photo.format, quality).warnings


def write_pages(
    photos: Iterable[Photo], path: Path, format: str, quality: int = 95, software: str | None = None
) -> Written:
    """Write photos as the pages of one file, which appears complete or not at all.

    Parameters
    ----------
    photos
        One photo, or several for a TIFF; taken one after the other and kept as integers, so that they can be made as
        they are asked for.
    path, format, quality
        As `write_photo`.
    software
        What the EXIF Software tag shall say, where the format has one: see `oldphoto.imagefile.exif.stamped`.

    Raises
    ------
    PhotoError, UsageError
        As `write_photo`; or a format of single photos is asked to hold several. What `photos` raises passes through.
    """
    if format not in OUTPUT_SUFFIX:
        raise UsageError(f"unknown format {format!r}: choose one of {', '.join(OUTPUT_SUFFIX)}")
    if not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is not within 1 to 100")
    rasters: list[Raster] = []
    for photo in photos:
        with _told(path, format):
            if rasters:
                check_pages(len(rasters) + 1, format)
            rasters.append(_fitted(photo, format, software))
    with _told(path, format):
        data = _encode(rasters, format, quality)
    with atomically(path) as part:
        part.write_bytes(data)
    warnings = dict.fromkeys(warning for raster in rasters for warning in raster.warnings)
    return Written(tuple(warnings), hashlib.sha256(data).hexdigest())


def check_pages(pages: int, format: str) -> None:
    """Raise PhotoError, without the file's name, if a format cannot hold so many pages."""
    if pages > 1 and format != "tif":
        raise PhotoError(f"{_NAMES[format]} cannot hold several pages: write TIFF")


@contextmanager
def _told(path: Path, format: str) -> Iterator[None]:
    """Turn whatever encoding raises into a PhotoError that names the file."""
    try:
        yield
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error
    except MemoryError as error:
        raise PhotoError(f"{path}: cannot be encoded, it does not fit into memory: close other programs") from error
    except Exception as error:  # encoders raise anything
        raise PhotoError(f"{path}: cannot be encoded as {_NAMES[format]} ({error}): try another format") from error


def write_mask(mask: FloatImage, path: Path) -> None:
    """Write a mask (H × W in [0, 1], 1 = damaged) as an 8-bit gray PNG, white = damaged, complete or not at all.

    Raises
    ------
    PhotoError
        If the file cannot be written or the mask holds NaN.
    """
    try:
        data = png.encode(Raster(_quantised(mask, 8)))
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error
    with atomically(path) as part:
        part.write_bytes(data)


def _fitted(photo: Photo, target: str, software: str | None) -> Raster:
    """Return what of a photo the target format holds, with a warning for all that it does not."""
    if photo.rgb.ndim != 3 or photo.rgb.shape[2] != 3 or photo.rgb.size == 0:
        raise PhotoError(f"pixels of shape {photo.rgb.shape} are no photo of height by width by 3")
    height, width = photo.rgb.shape[:2]
    if max(height, width) > _LONGEST_SIDE.get(target, height + width):
        raise PhotoError(f"{_NAMES[target]} holds at most {_LONGEST_SIDE[target]} pixels a side: write TIFF or PNG")
    if photo.alpha is not None and photo.alpha.shape != (height, width):
        raise PhotoError(f"alpha of shape {photo.alpha.shape} does not fit {width} by {height} pixels")
    raster = Raster(np.empty(0, np.uint8), photo.alpha, photo.icc, photo.exif, photo.xmp, photo.dpi)
    raster.lossless = photo.lossless
    if photo.dpi is not None and not _LEAST_DPI <= min(photo.dpi) <= max(photo.dpi) <= _MOST_DPI:
        raster.dpi = None
        raster.warnings.append("resolution of {:g} by {:g} dpi left out: no scan has it".format(*photo.dpi))
    depth = photo.bit_depth if target in ("png", "tif") else 8
    if depth < photo.bit_depth:
        kind = "gray" if photo.gray else "colour"
        raster.warnings.append(f"16-bit {kind} reduced to 8 bit: {_NAMES[target]} holds no more")
    raster.pixels = _quantised(photo.rgb, depth, gray=photo.gray)
    if raster.alpha is not None:
        raster.alpha = _with_depth(raster.alpha, depth)
    if target in ("jpg", "bmp") and raster.alpha is not None:
        raster.alpha = None
        raster.warnings.append(f"alpha left out: {_NAMES[target]} holds none")
    if photo.gray and (target == "webp" or (target == "bmp" and photo.icc is not None)):
        _as_colour(raster)
    extras = _extras_for(photo, target)
    raster.extras = tuple(extra for extra in extras if extra.format == target)
    lost = dict.fromkeys(extra.name for extra in extras if extra.format != target)
    if lost:
        raster.warnings.append(f"{', '.join(lost)} left out: {_NAMES[target]} has no place for that")
    if target in ("png", "webp") and exif_block.captions(photo.exif):
        raster.warnings.append(f"IPTC left in EXIF, where few programs look: {_NAMES[target]} has no place for it")
    if target == "bmp":
        _drop_all_metadata(raster)
    if target == "jpg":
        _drop_long_metadata(raster)
    if software is not None and target != "bmp":
        _stamp(raster, software, exif_block.LONGEST if target != "jpg" else jpeg.SEGMENT_LIMIT)
    return raster


def _extras_for(photo: Photo, target: str) -> tuple[Extra, ...]:
    """Return the extras of a photo, Photoshop's data as JPEG and TIFF hold them where they become part of one."""
    if target == "tif" and (resources := jpeg.resources_of(photo.extras)):
        others = tuple(extra for extra in photo.extras if not jpeg.resources_of([extra]))
        return (*others, *tiff.resource_extras(resources))
    if target != "jpg" or jpeg.resources_of(photo.extras):
        return photo.extras
    resources = b"".join(extra.content for extra in photo.extras if extra.format == "tif")
    resources = with_captions(resources, exif_block.captions(photo.exif))
    return tuple(extra for extra in photo.extras if extra.format != "tif") + jpeg.resource_extras(resources)


def _stamp(raster: Raster, software: str, limit: int) -> None:
    stamped = exif_block.stamped(raster.exif, software)
    if len(stamped) > limit:
        raster.warnings.append("EXIF does not say that it was restored: it has no room for that")
    else:
        raster.exif = stamped


def _as_colour(raster: Raster) -> None:
    """Repeat gray over three channels; a gray profile, which fits RGB no more, is applied."""
    converted = None
    if raster.icc is not None and raster.icc[16:20] == b"GRAY":
        converted = to_srgb(Image.fromarray(raster.pixels), raster.icc)
        raster.icc = None if converted is None else srgb_profile()
        if converted is None:
            raster.warnings.append("unusable gray colour profile left out")
    colours: IntImage = np.dstack([raster.pixels] * 3) if converted is None else np.asarray(converted)
    raster.pixels = colours


def _drop_all_metadata(raster: Raster) -> None:
    present = [
        name for name, value in (("ICC", raster.icc), ("EXIF", raster.exif), ("XMP", raster.xmp)) if value is not None
    ]
    raster.icc = raster.exif = raster.xmp = None
    if present:
        raster.warnings.append(f"{', '.join(present)} left out: BMP holds none")


def _drop_long_metadata(raster: Raster) -> None:
    if raster.exif is not None and len(raster.exif) > jpeg.SEGMENT_LIMIT:
        raster.exif = None
        raster.warnings.append("EXIF left out: it is longer than a segment of a JPEG")
    room = jpeg.SEGMENT_LIMIT - len(jpeg.XMP_PREFIX)
    if raster.xmp is not None and len(raster.xmp) > room:
        raster.xmp = _XMP_PADDING.sub(b"\n", raster.xmp)
    if raster.xmp is not None and len(raster.xmp) > room:
        raster.xmp = None
        raster.warnings.append("XMP left out: it is longer than a segment of a JPEG")


def _encode(rasters: Sequence[Raster], target: str, quality: int) -> bytes:
    if target == "tif":
        return tiff.encode(rasters)
    (raster,) = rasters
    if target == "jpg":
        return jpeg.encode(raster, quality)
    if target == "png":
        return png.encode(raster)
    if target == "webp":
        return webp.encode(raster, quality)
    return _encode_bmp(raster)


def _encode_bmp(raster: Raster) -> bytes:
    stream = BytesIO()
    dpi = (0.0, 0.0) if raster.dpi is None else tuple(per_metre(value) / 39.3701 for value in raster.dpi)
    Image.fromarray(raster.pixels).save(stream, "BMP", dpi=dpi)
    return stream.getvalue()


def _quantised(values: FloatImage, depth: int, gray: bool = False) -> IntImage:
    """Round [0, 1] to integers of 8 or 16 bits, in strips; `gray` makes one luminance of three channels."""
    top = np.float32(255 if depth == 8 else 65535)
    shape = values.shape[:2] if gray else values.shape
    result: IntImage = np.empty(shape, np.uint8 if depth == 8 else np.uint16)
    for row in range(0, shape[0], _STRIP_ROWS):
        strip = values[row : row + _STRIP_ROWS]
        if not np.isfinite(strip).all():
            raise PhotoError("the restored pixels are not finite numbers: report this photo")
        scaled = np.multiply(strip @ LUMA if gray else strip, top, dtype=np.float32)
        np.rint(scaled, out=scaled)
        np.clip(scaled, 0, top, out=scaled)
        result[row : row + _STRIP_ROWS] = scaled
    return result


def _with_depth(alpha: IntImage, depth: int) -> IntImage:
    if depth == 8 and alpha.dtype == np.uint16:
        return eight_bits(alpha)
    return alpha.astype(np.uint16) * np.uint16(257) if depth == 16 and alpha.dtype == np.uint8 else alpha
