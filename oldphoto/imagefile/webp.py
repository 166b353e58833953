"""WebP: Pillow's decoder has a process-wide size limit, so pixels go through imagecodecs, metadata through chunks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO

import imagecodecs
import numpy as np
from PIL import Image

from oldphoto.errors import PhotoError
from oldphoto.imagefile import exif as exif_block
from oldphoto.imagefile.photo import IntImage, Raster

_KNOWN = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")


def decode(data: bytes) -> Raster:
    """Decode a still WebP.

    Raises
    ------
    PhotoError
        With a message that still lacks the file's name, if it is animated or cut off.
    Exception
        Whatever imagecodecs raises on damaged data.
    """
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if len(data) < end:
        raise PhotoError("is truncated: replace it by an intact copy")
    chunks = list(_chunks(data[:end]))
    frames = sum(1 for name, _ in chunks if name == b"ANMF")
    if frames > 1:
        raise PhotoError(f"is animated ({frames} frames): save the frame to restore as a picture of its own")
    metadata = {name: content for name, content in chunks if content}
    samples: IntImage = np.asarray(imagecodecs.webp_decode(data))
    raster = Raster(samples[..., :3], alpha=samples[..., 3] if samples.shape[2] == 4 else None)
    raster.icc, raster.xmp = metadata.get(b"ICCP"), metadata.get(b"XMP ")
    raster.lossless = any(name == b"VP8L" for name, _ in chunks)
    others = sorted({name.decode("latin-1") for name, _ in chunks if name not in _KNOWN})
    raster.warnings += [f"data of another program ({name}) left out" for name in others]
    if data[end:].strip(b"\0"):
        raster.warnings.append(f"{len(data) - end:,} bytes behind the picture left out")
    if b"EXIF" in metadata:
        raster.exif = exif_block.PREFIX + metadata[b"EXIF"].removeprefix(exif_block.PREFIX)
    return raster


def size(data: bytes) -> tuple[int, int]:
    """Return the largest width and height that a header in the file states, (0, 0) where there is none."""
    sizes = [(0, 0)]
    start = 12
    while start + 18 <= len(data):
        name, length = struct.unpack_from("<4sI", data, start)
        head = data[start + 8 : start + 18]
        if name == b"VP8X":
            sizes.append((int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1))
        elif name == b"VP8L":
            bits = int.from_bytes(head[1:5], "little")
            sizes.append(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        elif name == b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 6)
            sizes.append((width & 0x3FFF, height & 0x3FFF))
        start += 8 + length + length % 2
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk, the content only of those that hold metadata."""
    start = 12
    while start + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, start)
        yield name, data[start + 8 : start + 8 + size] if name in (b"ICCP", b"EXIF", b"XMP ") else b""
        start += 8 + size + size % 2


def encode(raster: Raster, quality: int) -> bytes:
    """Encode 8-bit RGB or RGBA, without loss at quality 100, and what came from a WebP that was so.

    The resolution goes into EXIF: there is no other place.
    """
    stream = BytesIO()
    exif = raster.exif if raster.dpi is None else exif_block.with_resolution(raster.exif, raster.dpi)
    Image.fromarray(raster.samples).save(
        stream,
        "WEBP",
        quality=quality,
        lossless=raster.lossless or quality == 100,
        exact=True,  # keep the colours under full transparency
        icc_profile=raster.icc or b"",
        exif=exif or b"",
        xmp=raster.xmp or b"",
    )
    return stream.getvalue()
