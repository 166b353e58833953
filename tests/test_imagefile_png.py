"""PNG in every shape that the format allows: all that it shows and says arrives."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from oldphoto.imagefile import read_photo


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def gray_png(levels: np.ndarray, bits: int, *others: bytes) -> bytes:
    """A gray PNG of 1, 2 or 4 bits a sample, with further chunks before its pixels."""
    packed = np.packbits(np.unpackbits(levels[..., None], axis=2)[..., -bits:].reshape(len(levels), -1), axis=1)
    head = struct.pack(">IIBBBBB", levels.shape[1], len(levels), bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *others, chunk(b"IDAT", pixels), chunk(b"IEND", b"")))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_gray_of_few_bits_becomes_alpha(tmp_path: Path, bits: int) -> None:
    levels = np.tile(np.arange(2**bits, dtype=np.uint8), (3, 8 // bits))
    for value in range(2**bits):
        (tmp_path / "a.png").write_bytes(gray_png(levels, bits, chunk(b"tRNS", struct.pack(">H", value))))
        photo = read_photo(tmp_path / "a.png")
        assert np.array_equal(photo.alpha == 0, levels == value)
        assert np.allclose(photo.rgb[..., 0], levels / (2**bits - 1), atol=1 / 500)
