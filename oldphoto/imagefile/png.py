"""PNG with all its bits: Pillow has no 16-bit colour, so pixels go through imagecodecs and metadata through chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import imagecodecs
import numpy as np
from PIL.PngImagePlugin import PngImageFile

from oldphoto.imagefile import exif as exif_block
from oldphoto.imagefile.photo import Extra, IntImage, Raster, per_metre

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_COLOURS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_READ = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # texts that are XMP and EXIF
_HEADER_END = len(SIGNATURE) + 25  # the IHDR chunk is 25 bytes long

_LEVEL = 4
"""Of compression: a third of the time that the usual 6 takes, for files of photos that are 0 to 10 % larger."""


def is_deep(data: bytes) -> bool:
    """Tell whether a PNG has 16 bits a sample."""
    return data[24:25] == b"\x10"


def decode_deep(data: bytes) -> tuple[IntImage, IntImage | None]:
    """Decode a 16-bit PNG: pixels (H × W or H × W × 3) and alpha (H × W or None); a transparent colour makes alpha."""
    samples: IntImage = np.asarray(imagecodecs.png_decode(data))
    if samples.ndim == 2:
        return samples, None
    pixels = samples[..., 0] if samples.shape[2] <= 2 else samples[..., :3]
    return pixels, (samples[..., -1] if samples.shape[2] in (2, 4) else None)


def encode(raster: Raster) -> bytes:
    """Encode 8 or 16 bits, gray or RGB, with or without alpha."""
    data = imagecodecs.png_encode(np.ascontiguousarray(raster.samples), level=_LEVEL)
    return b"".join((data[:_HEADER_END], *_metadata_chunks(raster), data[_HEADER_END:]))


def _metadata_chunks(raster: Raster) -> list[bytes]:
    chunks = []
    if raster.icc is not None:
        chunks.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(raster.icc)))
    if raster.dpi is not None:
        x, y = (min(per_metre(value), 2**31 - 1) for value in raster.dpi)
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if raster.exif is not None:
        chunks.append(_chunk(b"eXIf", raster.exif.removeprefix(exif_block.PREFIX)))
    if raster.xmp is not None:
        chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + raster.xmp))
    chunks += [_chunk(extra.kind, extra.content) for extra in raster.extras]
    return chunks


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def open_image(data: bytes) -> tuple[PngImageFile, tuple[Extra, ...]]:
    """Open a PNG with Pillow, for its metadata and for 8-bit pixels.

    Returns
    -------
    image, extras
        The picture, and what Pillow does not give as it stands: texts, and words on colours besides a profile.

    Raises
    ------
    OSError
        If a chunk that the picture needs is damaged or the file ends early.
    """
    extras = []
    for kind, content in _chunks(data):
        if kind in _TEXTS and not bytes(content[:32]).startswith(_READ):
            extras.append(Extra("text", "png", kind, bytes(content)))
        elif kind in _COLOURS:
            extras.append(Extra("gamma and primaries", "png", kind, bytes(content)))
    image = PngImageFile(BytesIO(data))
    bits, is_gray = data[24], data[25] == 0
    if is_gray and 1 < bits < 8 and "transparency" in image.info:
        # Pillow scales the samples to 8 bits, but not the one of them that is transparent.
        image.info["transparency"] *= 255 // (2**bits - 1)
    return image, tuple(extras)


def exif_of_text(text: str) -> bytes:
    """Return the EXIF that older ImageMagick wrote as a text: three lines, then hexadecimal.

    Damaged hexadecimal gives a damaged block.
    """
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return exif_block.PREFIX


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and content of each chunk; raises OSError as `open_image`.

    Damage is found by checksums: libpng would decode some of it and print a warning.
    """
    view, start, name = memoryview(data), len(SIGNATURE), b""
    while name != b"IEND":
        if start + 12 > len(data):
            raise OSError("the end of the file is missing")
        size, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + size
        if end > len(data):
            raise OSError("the end of the file is missing")
        is_critical = name[:1].isupper()
        if is_critical and zlib.crc32(view[start + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise OSError(f"the checksum of chunk {name.decode('latin-1')} is wrong")
        yield name, view[start + 8 : end - 4]
        start = end
