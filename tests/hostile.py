"""Files as an attacker, a broken scanner or a failing disk makes them; each is small, whatever it claims to be."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial

import imagecodecs
import numpy as np
import skimage.data
import tifffile
from PIL import Image

from oldphoto.imagefile.jpeg import XMP_PREFIX

PICTURE = np.ascontiguousarray(skimage.data.astronaut()[0:240:5, 100:400:5])  # 48 × 60 × 3
BOMB_SIDE = 16_000
"""Sides of a picture that a few kilobytes expand to: 256 million pixels, 768 MB."""


def saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, kind, **options)
    return stream.getvalue()


def tiff(samples: np.ndarray = PICTURE, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, **{"photometric": "rgb", **options})
    return stream.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_png_chunk(name: bytes, content: bytes) -> bytes:
    data = imagecodecs.png_encode(PICTURE)
    return data[:33] + png_chunk(name, content) + data[33:]


def zeros(size: int) -> bytes:
    """Zlib data that expands to `size` zero bytes, made without ever holding them."""
    packer, block = zlib.compressobj(9), bytes(2**20)
    parts = [packer.compress(block) for _ in range(size // len(block))]
    return b"".join([*parts, packer.compress(bytes(size % len(block))), packer.flush()])


def png_bomb() -> bytes:
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 2, 0, 0, 0)
    body = zeros((1 + 3 * BOMB_SIDE) * BOMB_SIDE)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def png_that_lies(width: int, height: int) -> bytes:
    data = bytearray(imagecodecs.png_encode(PICTURE))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg_that_lies(width: int, height: int) -> bytes:
    data = bytearray(saved("JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def with_jpeg_segment(marker: int, content: bytes) -> bytes:
    data = saved("JPEG")
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


def webp_that_lies() -> bytes:
    data = bytearray(saved("WEBP", lossless=True, exif=Image.Exif().tobytes() + bytes(8)))
    canvas = data.index(b"VP8X") + 12
    data[canvas : canvas + 6] = b"\xff" * 6
    return bytes(data)


def bmp_that_lies(width: int, height: int) -> bytes:
    data = bytearray(saved("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def tiff_with(number: int, value: int, **options: object) -> bytes:
    """A TIFF with the value of a tag of its first directory overwritten in place."""
    data = bytearray(tiff(**options))
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] == number:
            struct.pack_into("<HII", data, entry + 2, 4, 1, value)
    return bytes(data)


def tiff_strip_bomb() -> bytes:
    """48 × 60 pixels whose one strip expands to half a gigabyte."""
    return tiff_of_a_strip(zeros(2**29), 8, bits=8, photometric=1)


def tiff_of_a_strip(strip: bytes, compression: int, bits: int = 1, photometric: int = 0) -> bytes:
    """A TIFF of 60 × 48 pixels, black and white or gray, whose one strip holds these bytes."""
    entries = {
        256: 60,
        257: 48,
        258: bits,
        259: compression,
        262: photometric,
        273: 8,
        277: 1,
        278: 48,
        279: len(strip),
    }
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in entries.items())
    padded = strip + bytes(len(strip) % 2)
    return struct.pack("<2sHI", b"II", 42, 8 + len(padded)) + padded + directory + bytes(4)


def tiff_loop() -> bytes:
    """A TIFF whose second page is its first."""
    data = bytearray(tiff())
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    return bytes(data)


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1])]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def floats(value: float) -> bytes:
    samples = PICTURE.astype(np.float32) / 255
    samples[10, 11, 1] = value
    return tiff(samples)


BROKEN_EXIF = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(200))
LOOPED_EXIF = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 34665, 4, 1, 8, 8)

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PNG of 256 megapixels in a few kilobytes": (png_bomb, "more than 1,000,000"),
    "a PNG that claims 40,000 x 30,000": (lambda: png_that_lies(40_000, 30_000), "more than 1,000,000"),
    "a PNG that claims 600 x 480": (lambda: png_that_lies(600, 480), "damaged or incomplete"),
    "a PNG that claims no height": (lambda: png_that_lies(60, 0), "damaged or incomplete|has no pixels"),
    "a JPEG that claims 65,000 x 65,000": (lambda: jpeg_that_lies(65_000, 65_000), "more than 1,000,000"),
    "a WebP that claims 16,777,216 x 16,777,216": (webp_that_lies, "more than 1,000,000"),
    "a BMP that claims 30,000 x 30,000": (lambda: bmp_that_lies(30_000, 30_000), "more than 1,000,000"),
    "a BMP that claims a height of -2^31": (lambda: bmp_that_lies(60, -(2**31)), "damaged|more than|no pixels"),
    "a TIFF that claims 2^32 - 1 columns": (lambda: tiff_with(256, 2**32 - 1), "more than 1,000,000"),
    "a TIFF that claims 65,535 channels": (lambda: tiff_with(277, 65_535), "channels|damaged|truncated"),
    "a TIFF with tiles of 2^20 x 2^20": (
        lambda: tiff_with(322, 2**20, tile=(16, 16)),
        "more than 1,000,000|truncated",
    ),
    "a TIFF whose strips begin beyond its end": (lambda: tiff_with(273, 2**31), "truncated"),
    "a TIFF whose strip expands to half a gigabyte": (
        tiff_strip_bomb,
        "damaged or incomplete",
    ),
    **{
        f"a TIFF whose {name} strip is no such": (
            partial(tiff_of_a_strip, bytes(range(1, 200)) * 20, compression),
            "damaged",
        )
        for name, compression in (("group 3 fax", 3), ("group 4 fax", 4), ("LZW", 5), ("JPEG", 7))
    },
    "a PNG with a profile that expands to 64 MB": (
        lambda: with_png_chunk(b"iCCP", b"x\0\0" + zeros(2**26)),
        "damaged or incomplete",
    ),
    "a PNG with a text that expands to 64 MB": (
        lambda: with_png_chunk(b"zTXt", b"x\0\0" + zeros(2**26)),
        "damaged or incomplete",
    ),
    "an animated PNG": (lambda: animated("PNG"), "is animated .2 frames."),
    "an animated WebP": (lambda: animated("WEBP"), "is animated .2 frames."),
    "a GIF": (lambda: animated("GIF"), "is a GIF"),
    "a float TIFF with NaN": (lambda: floats(np.nan), "values that are no numbers"),
    "a float TIFF with infinity": (lambda: floats(np.inf), "floating-point values"),
    "an empty file": (lambda: b"", "is empty"),
    "a script": (lambda: b"#!/bin/sh\nrm -rf /\n", "is no JPEG"),
}
"""What it is -> its bytes, and what is said of it where a million pixels are allowed."""

READ: dict[str, Callable[[], bytes]] = {
    "a TIFF whose pages form a loop": tiff_loop,
    "a JPEG with broken EXIF": lambda: with_jpeg_segment(0xE1, BROKEN_EXIF),
    "a JPEG with EXIF that contains itself": lambda: with_jpeg_segment(0xE1, LOOPED_EXIF),
    "a JPEG with a broken profile": lambda: saved("JPEG", icc_profile=b"this is no profile" * 20),
    "a JPEG with one half of a profile": lambda: with_jpeg_segment(0xE2, b"ICC_PROFILE\0\x01\x02" + bytes(500)),
    "a JPEG with XMP that is no XML": lambda: with_jpeg_segment(0xE1, XMP_PREFIX + b"<<<\xff&"),
    "a PNG with broken EXIF": lambda: with_png_chunk(b"eXIf", BROKEN_EXIF[6:]),
    "a TIFF with a broken profile": lambda: tiff(iccprofile=b"this is no profile" * 20),
    "1 x 1 pixels": lambda: imagecodecs.png_encode(PICTURE[:1, :1].copy()),
    "100,000 x 1 pixels": lambda: imagecodecs.png_encode(np.tile(PICTURE[:1], (1, 1667, 1))[:, :100_000].copy()),
    "1 x 100,000 pixels": lambda: tiff(np.tile(PICTURE[:, :1], (2084, 1, 1))[:100_000]),
}
"""What can be read, with or without a warning."""
