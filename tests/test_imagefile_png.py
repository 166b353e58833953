"""PNG in every shape that the format allows: all that it shows and says arrives."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from test_imagefile import COLOUR, SRGB, XMP, assert_refused, bytes_of, full_exif, make_photo, photo_of

from oldphoto.imagefile import read_photo, write_photo

LONG = np.random.default_rng(0).bytes(1_500_000)


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


def colour_png(*others: bytes, behind: bytes = b"") -> bytes:
    content = imagecodecs.png_encode(COLOUR)
    return content[:33] + b"".join(others) + content[33:-12] + behind + content[-12:]


def test_a_long_profile_xmp_and_text_survive(tmp_path: Path) -> None:
    profile, xmp = SRGB + LONG, b"<x>" + LONG.hex().encode() + b"</x>"
    text = chunk(b"zTXt", b"Scan\0\0" + zlib.compress(LONG))
    other = chunk(b"iTXt", b"Notes\0\1\0de\0Notizen\0" + zlib.compress(LONG.hex().encode()))
    write_photo(make_photo(icc=profile, xmp=xmp), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:-12] + text + other + content[-12:])
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(bytes_of(photo), COLOUR)
    assert (photo.icc, photo.xmp, photo.warnings) == (profile, xmp, ())
    write_photo(photo, tmp_path / "b.png")
    written = (tmp_path / "b.png").read_bytes()
    assert text in written
    assert other in written
    assert read_photo(tmp_path / "b.png").icc == profile


def test_metadata_behind_the_pixels_are_read(tmp_path: Path) -> None:
    behind = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)) + chunk(b"eXIf", full_exif(6)[6:])
    (tmp_path / "a.png").write_bytes(colour_png(behind=behind))
    photo = read_photo(tmp_path / "a.png")
    assert photo.xmp == XMP.replace(b'"6"', b'"1"')
    assert photo.rgb.shape == (60, 48, 3)


@pytest.mark.parametrize(
    ("kind", "content", "name"),
    [
        (b"iCCP", b"ICC\0\0" + zlib.compress(SRGB)[:-900], "colour profile"),
        (b"iCCP", b"ICC", "colour profile"),
        (b"zTXt", b"Scan\0\7" + zlib.compress(b"box 7"), "text"),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0", "text"),
    ],
)
def test_damaged_profiles_and_texts_are_left_out_and_named(
    tmp_path: Path, kind: bytes, content: bytes, name: str
) -> None:
    sound = chunk(b"tEXt", b"Box\0 7")
    wrong_sum = chunk(kind, b"Box\0\0\0\0\0")[:-1] + b"!"
    for damaged in (chunk(kind, content), wrong_sum):
        (tmp_path / "a.png").write_bytes(colour_png(damaged, sound))
        photo = read_photo(tmp_path / "a.png")
        assert np.array_equal(bytes_of(photo), COLOUR)
        assert photo.warnings == (f"damaged {name} left out",)
        assert (photo.icc, photo.xmp, [extra.content for extra in photo.extras]) == (None, None, [b"Box\0 7"])


def test_many_texts_that_expand_beyond_measure_are_refused(tmp_path: Path) -> None:
    text = chunk(b"zTXt", b"Scan\0\0" + zlib.compress(bytes(2**22), 9))
    (tmp_path / "a.png").write_bytes(colour_png(*[text] * 9))
    assert_refused(tmp_path / "a.png", "expand beyond all measure")


@pytest.mark.parametrize("width", [1, 2, 3, 40])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_narrow_pictures_of_noise_can_be_written(tmp_path: Path, width: int, kind: type, channels: int) -> None:
    shape = (12_000, width) if channels == 1 else (12_000, width, 3)
    noise = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
    alpha = None if channels == 1 else np.ascontiguousarray(noise[..., 0])
    write_photo(photo_of(noise, alpha=alpha), tmp_path / "a.png")
    assert np.array_equal(bytes_of(read_photo(tmp_path / "a.png")), noise)


PASSES = {
    False: [(0, 0, 1, 1)],
    True: [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)],
}
"""The first row and column of each part of a picture, and the steps from there."""


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("kind", "bits", "channels"), [(0, 1, 1), (0, 8, 1), (2, 8, 3), (2, 16, 3), (4, 8, 2), (6, 8, 4)]
)
def test_a_picture_that_lacks_rows_is_refused(
    tmp_path: Path, kind: int, bits: int, channels: int, interlaced: bool
) -> None:
    """All chunks and the compressed stream are whole: it only ends too early."""
    shapes = [np.empty((48, 60))[top::down, left::across].shape for top, left, down, across in PASSES[interlaced]]
    rows = [bytes(1 + -(-width * bits * channels // 8)) for height, width in shapes for _ in range(height)]
    head = struct.pack(">IIBBBBB", 60, 48, bits, kind, 0, 0, interlaced)
    for there in (len(rows), len(rows) - 1, len(rows) // 2):
        pixels = zlib.compress(b"".join(rows[:there]))
        chunks = (chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        if there < len(rows):
            assert_refused(tmp_path / "a.png", "is damaged or incomplete")
        else:
            assert read_photo(tmp_path / "a.png").rgb.shape == (48, 60, 3)


def test_chunks_of_other_programs_are_kept_where_the_format_allows_it_and_else_named(tmp_path: Path) -> None:
    content = colour_png(chunk(b"prVt", b"of the archive"), chunk(b"caBX", b"signed"), chunk(b"sBIT", b"\5\5\5"))
    (tmp_path / "a.png").write_bytes(content + b"a film")
    photo = read_photo(tmp_path / "a.png")
    assert photo.warnings == ("data of another program (caBX) left out", "6 bytes behind the picture left out")
    assert write_photo(photo, tmp_path / "b.png") == ()
    assert chunk(b"prVt", b"of the archive") in (tmp_path / "b.png").read_bytes()
    assert write_photo(photo, tmp_path / "b.tif") == (
        "data of another program (prVt) left out: TIFF has no place for that",
    )
