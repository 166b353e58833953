"""From a file to an upright `Photo`: the kind is told by content, never by suffix."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile

from oldphoto.arrays import LUMA, FloatImage
from oldphoto.errors import PhotoError
from oldphoto.imagefile import exif as exif_block
from oldphoto.imagefile import jpeg, png, tiff, webp
from oldphoto.imagefile.colour import cmyk_to_rgb
from oldphoto.imagefile.photo import (
    PIXEL_LIMIT,
    RAISE_LIMIT,
    IntImage,
    Photo,
    Raster,
    aspect_left_out,
    check_size,
    per_inch,
)

# Pillow reports oddities of a file through logging, which Python prints if nobody listens.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_STRIP_ROWS = 256
_BMP_HEADER, _BMP_WITH_PROFILE = 14, 124  # where a BMP's begins, and its size from version 5 on
_BYTES_A_PIXEL, _OTHER_BYTES = 12, 2**28  # what a file may weigh: more than RGBA in 16 bits, and room for metadata


@dataclass
class PhotoFile:
    """A file as it was read, once and wholly: what is decoded is what the hash is of, whatever becomes of the file.

    `close` lets go of its bytes.

    Attributes
    ----------
    path
        Where it was read.
    sha256
        Of its bytes, in hexadecimal.
    pages
        How many photos it holds: the pages of a TIFF, without its previews; 1 in every other format.
    """

    path: Path
    sha256: str
    pages: int
    _data: bytes = field(repr=False)
    _kind: str
    _max_pixels: int

    def page(self, index: int = 0) -> Photo:
        """Decode a page.

        Raises
        ------
        PhotoError
            As `read_photo`.
        """
        with _told(self.path if self.pages == 1 else f"{self.path}: page {index + 1}"):
            return _photo(_decode(self._data, self._kind, self._max_pixels, index), self._kind)

    def close(self) -> None:
        """Let go of the bytes: no page can be decoded any more."""
        self._data = b""


def open_photo(path: Path, max_pixels: int = PIXEL_LIMIT) -> PhotoFile:
    """Read a file and count its pages.

    Parameters
    ----------
    path
        The file.
    max_pixels
        Pixels, of all pages together, beyond which it is refused before they are decoded.

    Raises
    ------
    PhotoError
        If the file cannot be opened, changes while it is read, is no photo, or is larger than any photo of
        `max_pixels`.
    """
    with _told(path):
        data = _read_whole(path, max_pixels)
        kind = _kind(data[:32])
        pages = tiff.count_pages(data, max_pixels) if kind == "tif" else 1
        return PhotoFile(path, hashlib.sha256(data).hexdigest(), pages, data, kind, max_pixels)


def read_photo(path: Path, max_pixels: int = PIXEL_LIMIT) -> Photo:
    """Read a photo with all its bits and metadata, turned upright; of several pages the first.

    A JPEG that is cut off, or has lost a piece, is read as far as it decodes, with a warning in `Photo.warnings`; other
    damage is refused.

    Raises
    ------
    PhotoError
        If the file cannot be opened, is no photo, is animated, damaged or larger than `max_pixels`: one line with the
        file, what is wrong and what to do.
    """
    file = open_photo(path, max_pixels)
    photo = file.page()
    if file.pages > 1:
        told = (*photo.warnings, f"only the first of {file.pages} pages is read")
        return dataclasses.replace(photo, warnings=told)
    return photo


def _read_whole(path: Path, max_pixels: int) -> bytes:
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size > max_pixels * _BYTES_A_PIXEL + _OTHER_BYTES:
            raise PhotoError(f"has {before.st_size:,} bytes, more than a photo of {max_pixels:,} pixels: {RAISE_LIMIT}")
        data = file.read(before.st_size + 1)
        after = os.fstat(file.fileno())
    if len(data) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise PhotoError("changed while it was read: run again when it is complete")
    return data


@contextmanager
def _told(path: Path | str) -> Iterator[None]:
    """Turn whatever decoding raises into a PhotoError that names the file."""
    try:
        yield
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from error
    except MemoryError as error:
        raise PhotoError(f"{path}: does not fit into memory: close other programs or scale it down") from error
    except OSError as error:
        if error.errno is not None:
            raise PhotoError(
                f"{path}: cannot be opened ({error.strerror}): check the path and its permissions"
            ) from error
        raise _damaged(path, error) from error
    except Exception as error:  # decoders raise anything on damaged data
        raise _damaged(path, error) from error


def _damaged(path: Path | str, error: Exception) -> PhotoError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return PhotoError(f"{path}: is damaged or incomplete ({reason}): replace it by an intact copy")


def count_pixels(path: Path) -> int | None:
    """Return the pixels that a file's header claims, PIXEL_LIMIT if Pillow takes it for a bomb, None without one.

    The pages of a TIFF are taken to be as large as the first.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are large for Pillow
            with Image.open(path) as image:
                pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
                return image.width * image.height * pages
    except UnidentifiedImageError:
        return _pixels_of_heif(path)
    except Image.DecompressionBombError:
        return PIXEL_LIMIT
    except Exception:  # what is wrong with the file is told when it is read
        return None


def _pixels_of_heif(path: Path) -> int | None:
    try:
        import pillow_heif

        width, height = pillow_heif.open_heif(path).size
    except Exception:  # no HEIC, damaged, or the package is not there: told when it is read
        return None
    return int(width * height)


def read_mask(path: Path, max_pixels: int = PIXEL_LIMIT) -> FloatImage:
    """Read any image as a mask of damage, H × W in [0, 1], 1 (white) = damaged; what is transparent is undamaged.

    Raises
    ------
    PhotoError
        As `read_photo`.
    """
    return mask_of(read_photo(path, max_pixels))


def mask_of(photo: Photo) -> FloatImage:
    """Return the mask that a photo shows: see `read_mask`."""
    mask = np.array(photo.rgb[..., 0]) if photo.gray else np.clip(photo.rgb @ LUMA, 0, 1)
    if photo.alpha is not None:
        mask *= photo.alpha / np.float32(np.iinfo(photo.alpha.dtype).max)
    return np.asarray(mask, np.float32)


def _kind(head: bytes) -> str:
    """Return "jpg", "png", "tif", "webp", "bmp" or "heif" by the first bytes of a file."""
    if not head:
        raise PhotoError("is empty: replace it by an intact copy")
    if head.startswith(jpeg.SIGNATURE):
        return "jpg"
    if head.startswith(png.SIGNATURE):
        return "png"
    if head.startswith(tiff.SIGNATURES):
        return "tif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"BM"):
        return "bmp"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "heif"
    if head.startswith(b"GIF8"):
        raise PhotoError("is a GIF, which may be animated and is not read: save it as PNG")
    raise PhotoError("is no JPEG, PNG, TIFF, WebP, BMP or HEIC image: convert it to one of these, or leave it out")


def _decode(data: bytes, kind: str, max_pixels: int, page: int) -> Raster:
    if kind == "jpg":
        return _decode_jpeg(data, max_pixels)
    if kind == "png":
        return _decode_png(data, max_pixels)
    if kind == "tif":
        return tiff.decode(data, max_pixels, page)
    if kind == "webp":
        check_size(*webp.size(data), max_pixels)
        return webp.decode(data)
    if kind == "bmp":
        return _decode_bmp(data, max_pixels)
    return _decode_heif(data, max_pixels)


# Each format's Pillow class is called by itself: Image.open refuses large scans, by a limit global to the process.


def _decode_jpeg(data: bytes, max_pixels: int) -> Raster:
    check_size(*jpeg.size(data), max_pixels)
    image, warnings = jpeg.open_image(data)
    raster = _decode_with_pillow(image)
    raster.dpi, raster.extras = jpeg.density(image), jpeg.extras(data)
    raster.warnings = warnings + raster.warnings + jpeg.left_out(data, image)
    return raster


def _decode_png(data: bytes, max_pixels: int) -> Raster:
    parts = png.take_apart(data)
    image = png.open_image(parts.picture)
    check_size(*image.size, max_pixels)
    raster = _decode_with_pillow(image)
    raster.icc, raster.xmp, raster.extras = parts.icc, parts.xmp, parts.extras
    raster.exif = exif_block.PREFIX + parts.exif.removeprefix(exif_block.PREFIX) if parts.exif else None
    raster.warnings += parts.warnings
    x, y = image.info.get("dpi", (0, 0))
    if x and y:
        raster.dpi = (per_inch(x / 0.0254), per_inch(y / 0.0254))
    raster.warnings += aspect_left_out(*image.info.get("aspect", (1, 1)))
    image.close()
    png.check_complete(parts.picture)
    if png.is_deep(data):
        raster.pixels, raster.alpha = png.decode_deep(parts.picture)
    return raster


def _decode_bmp(data: bytes, max_pixels: int) -> Raster:
    image = BmpImageFile(BytesIO(data))
    check_size(*image.size, max_pixels)
    raster = _decode_with_pillow(image)
    x, y = image.info.get("dpi", (0, 0))
    if x and y:
        raster.dpi = (per_inch(round(x * 39.3701)), per_inch(round(y * 39.3701)))
    raster.icc, notes = _profile_of_bmp(data)
    raster.warnings += notes
    return raster


def _profile_of_bmp(data: bytes) -> tuple[bytes | None, list[str]]:
    """Return the colour profile in a BMP, if its header is of the version that can hold one, and what is left out."""
    (header,) = struct.unpack_from("<I", data, _BMP_HEADER)
    kind = data[_BMP_HEADER + 56 : _BMP_HEADER + 60][::-1] if header >= _BMP_WITH_PROFILE else b""
    if kind == b"LINK":
        return None, ["colour profile left out: the file names another that holds it"]
    if kind != b"MBED":
        return None, []
    start, size = struct.unpack_from("<II", data, _BMP_HEADER + 112)
    profile = data[_BMP_HEADER + start : _BMP_HEADER + start + size]
    if size == 0 or len(profile) < size:
        return None, ["damaged colour profile left out"]
    return profile, []


def _decode_heif(data: bytes, max_pixels: int) -> Raster:
    try:
        import pillow_heif
    except ImportError as error:
        raise PhotoError("is HEIC, which needs one more package: pip install 'oldphoto[heif]'") from error
    opened = pillow_heif.open_heif(BytesIO(data))
    width, height = opened.size
    check_size(width, height, max_pixels)
    image: Image.Image = opened.to_pillow()
    raster = _decode_with_pillow(image)
    if len(opened) > 1:
        raster.warnings.append(f"only the first of {len(opened)} pictures is read")
    if opened.info.get("bit_depth", 8) > 8:
        raster.warnings.append(f"{opened.info['bit_depth']}-bit samples are read with 8 bits")
    return raster


def _decode_with_pillow(image: Image.Image) -> Raster:
    """Take 8-bit pixels, alpha, profile, EXIF and XMP from a Pillow image; each format finds its resolution itself."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise PhotoError(f"is animated ({frames} frames): save the frame to restore as a picture of its own")
    image.load()
    icc: bytes | None = image.info.get("icc_profile") or None
    if image.mode == "CMYK":
        pixels, icc, warnings = cmyk_to_rgb(image, icc)
        return Raster(np.asarray(pixels), icc=icc, exif=_exif(image), xmp=_xmp(image), warnings=warnings)
    samples: IntImage = np.asarray(image.convert(_plain_mode(image)))
    alpha = None
    if samples.ndim == 3 and samples.shape[2] in (2, 4):
        samples, alpha = samples[..., :-1], samples[..., -1]
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    return Raster(samples, alpha, icc, _exif(image), _xmp(image))


def _plain_mode(image: Image.Image) -> str:
    """Return the Pillow mode, of L, LA, RGB and RGBA, that holds all that an image shows."""
    gray = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return ("L" if gray else "RGB") + ("A" if transparent else "")


def _exif(image: Image.Image) -> bytes | None:
    exif: bytes | None = image.info.get("exif")
    return exif_block.PREFIX + exif.removeprefix(exif_block.PREFIX) if exif else None


def _xmp(image: Image.Image) -> bytes | None:
    xmp: bytes | None = image.info.get("xmp")
    return xmp


def _photo(raster: Raster, kind: str) -> Photo:
    """Turn a raster upright and into floats."""
    height, width = raster.pixels.shape[:2]
    if height == 0 or width == 0:
        raise PhotoError("has no pixels: replace it by an intact copy")
    exif, xmp, dpi, orientation = raster.exif, raster.xmp, raster.dpi, None
    if exif is not None:
        try:
            exif, orientation = exif_block.upright(exif, width, height, keep_orientation=kind == "heif")
        except ValueError:
            exif = None
            raster.warnings.append("damaged EXIF left out")
    if xmp is not None and orientation is not None:
        xmp = exif_block.upright_xmp(xmp)
    orientation = orientation if orientation is not None and kind != "heif" else 1
    if dpi is not None and orientation >= 5:
        dpi = (dpi[1], dpi[0])
    if dpi is None and exif is not None and kind != "tif":
        layout, root = exif_block.open_exif(exif)
        dpi = exif_block.resolution(root, layout)
    alpha: IntImage | None = None
    if raster.alpha is not None:
        alpha = np.ascontiguousarray(_turned(raster.alpha, orientation))
    return Photo(
        rgb=_to_float(_turned(raster.pixels, orientation)),
        gray=raster.pixels.ndim == 2,
        bit_depth=16 if raster.pixels.dtype == np.uint16 else 8,
        alpha=alpha,
        icc=raster.icc,
        exif=exif,
        xmp=xmp,
        dpi=dpi,
        extras=raster.extras,
        lossless=raster.lossless,
        format="jpg" if kind == "heif" else kind,
        warnings=tuple(raster.warnings),
    )


def _turned(pixels: IntImage, orientation: int) -> IntImage:
    """Return an upright view of stored pixels for an EXIF orientation of 1 to 8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _to_float(pixels: IntImage) -> FloatImage:
    """Return H × W × 3 float32 in [0, 1], made in strips so that no second float copy exists."""
    height, width = pixels.shape[:2]
    rgb = np.empty((height, width, 3), np.float32)
    top = np.float32(np.iinfo(pixels.dtype).max)
    samples = pixels[..., None] if pixels.ndim == 2 else pixels
    for row in range(0, height, _STRIP_ROWS):
        strip = rgb[row : row + _STRIP_ROWS]
        np.copyto(strip, samples[row : row + _STRIP_ROWS])
        strip /= top
    return rgb
