"""A photo keeps its pixels, bits and metadata through a file, and a file is complete or not there."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, IptcImagePlugin, PngImagePlugin, TiffImagePlugin
from skimage import data

from oldphoto.errors import PhotoError, UsageError
from oldphoto.imagefile import (
    INPUT_SUFFIXES,
    OUTPUT_SUFFIX,
    Photo,
    atomically,
    format_of,
    open_photo,
    output_format,
    read_mask,
    read_photo,
    write_mask,
    write_pages,
    write_photo,
)
from oldphoto.imagefile import exif as exif_block

COLOUR = np.ascontiguousarray(data.astronaut()[0:240:5, 100:400:5])  # 48 × 60 × 3
GRAY = np.ascontiguousarray(data.camera()[50:290:5, 100:400:5])  # 48 × 60
CAT = np.ascontiguousarray(data.chelsea()[60:180:3, 100:250:3])  # 40 × 50 × 3
# 16-bit pictures whose low bytes carry detail of their own: cutting them to 8 bits and back is noticed.
COLOUR16 = COLOUR.astype(np.uint16) * 256 + np.roll(COLOUR, 7, axis=0)
GRAY16 = GRAY.astype(np.uint16) * 256 + np.roll(GRAY, 7, axis=0)
ALPHA = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (48, 1))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" dc:title="Oma"/></x:xmpmeta>'

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def bytes_of(photo: Photo) -> np.ndarray:
    """The pixels of a photo as integers of its own depth, gray as one channel."""
    top = 255 if photo.bit_depth == 8 else 65535
    values = np.rint(photo.rgb.astype(np.float64) * top).astype(np.uint16 if top > 255 else np.uint8)
    return values[..., 0] if photo.gray else values


def wide_gamut_profile() -> bytes:
    """An RGB profile with Display P3's primaries, made by changing the colorants of sRGB."""
    profile = bytearray(SRGB)
    for index in range(struct.unpack_from(">I", profile, 128)[0]):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        colorants = {
            b"rXYZ": (0.5151, 0.2412, -0.0011),
            b"gXYZ": (0.2919, 0.6922, 0.0419),
            b"bXYZ": (0.1571, 0.0666, 0.7841),
        }
        if name in colorants:
            struct.pack_into(">3i", profile, offset + 8, *(round(value * 65536) for value in colorants[name]))
    return bytes(profile)


def icc_profile(colour_space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A minimal ICC profile, version 2."""
    tags = {**tags, b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0none\0"
    table, body, offset = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, offset + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(body), bytes(4), 0x02400000, kind, colour_space, pcs, bytes(12), b"acsp"
    )
    head += bytes(68 - len(head)) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def cmyk_profile(swap: bool = False) -> bytes:
    """A CMYK profile of two grid points an ink; `swap` exchanges cyan and yellow, as no default conversion would."""
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    ramp = bytes(range(256))
    nodes = bytearray()
    for index in range(16):
        c, m, y, k = (index >> shift & 1 for shift in (3, 2, 1, 0))
        if swap:
            c, y = y, c
        rgb = np.array([[[(1 - c) * (1 - k), (1 - m) * (1 - k), (1 - y) * (1 - k)]]], np.uint8) * 255
        lab = ImageCms.createProfile("LAB")
        nodes += ImageCms.profileToProfile(
            Image.fromarray(rgb), ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
        ).tobytes()
    # Pillow stores a and b as signed bytes, an ICC table offset by 128.
    for position in range(len(nodes)):
        if position % 3:
            nodes[position] ^= 0x80
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(nodes) + ramp * 3
    return icc_profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut})


def gray_profile(gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    return icc_profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve})


def full_exif(orientation: int | None = 6, size: tuple[int, int] = (60, 48)) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132], exif[0x8298] = "Agfa", "Isolette", "1962:08:01 12:00:00", "Oma Erna"
    if orientation is not None:
        exif[0x0112] = orientation
    details = exif.get_ifd(0x8769)
    details[0x829A], details[0x927C] = TiffImagePlugin.IFDRational(1, 125), b"Agfa\0maker note \x01\x02\x03"
    details[0xA002], details[0xA003] = size
    details[0xA005] = {1: "R98"}
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "N", (48.0, 8.0, 14.5), "E", (11.0, 34.0, 31.75)
    return exif.tobytes()


def load_exif(block: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    assert block is not None
    exif.load(block)
    return exif


def assert_exif_carried(block: bytes | None) -> None:
    exif = load_exif(block)
    assert [exif[tag] for tag in (0x010F, 0x0110, 0x0132, 0x8298)] == [
        "Agfa",
        "Isolette",
        "1962:08:01 12:00:00",
        "Oma Erna",
    ]
    details, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    assert details[0x829A] == 1 / 125
    assert details[0x927C] == b"Agfa\0maker note \x01\x02\x03"
    assert exif.get_ifd(0xA005)[1] == "R98"
    assert (gps[1], gps[2], gps[3], gps[4]) == ("N", (48.0, 8.0, 14.5), "E", (11.0, 34.0, 31.75))


def make_photo(**changes: object) -> Photo:
    values: dict[str, Any] = {"rgb": COLOUR.astype(np.float32) / 255}
    return Photo(**{**values, **changes})  # type: ignore[arg-type]


def photo_of(samples: np.ndarray, **changes: object) -> Photo:
    """A photo with these integer samples, H × W or H × W × 3."""
    depth = 16 if samples.dtype == np.uint16 else 8
    rgb = samples.astype(np.float32) / np.float32(2**depth - 1)
    if samples.ndim == 2:
        rgb = np.repeat(rgb[..., None], 3, axis=2)
    return make_photo(rgb=rgb, gray=samples.ndim == 2, bit_depth=depth, **changes)


def written(photo: Photo, path: Path, quality: int = 100) -> Photo:
    write_photo(photo, path, quality=quality)
    return read_photo(path)


# --------------------------------------------------------------------------------------- captions and comments


def resource(number: int, content: bytes) -> bytes:
    """A block of Photoshop's image resources."""
    padding = bytes(len(content) % 2)
    return b"8BIM" + struct.pack(">H", number) + bytes(2) + struct.pack(">I", len(content)) + content + padding


def captioned_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG", comment=b"Box 7, no. 3")
    caption = b"\x1c\x02\x78" + struct.pack(">H", 9) + b"Oma Erna!"
    blocks = resource(1036, b"preview" * 3) + resource(1028, caption) + resource(1034, b"\1")
    extended = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + bytes(8) + b"<more/>"
    segments = [(0xED, b"Photoshop 3.0\0" + blocks), (0xE1, extended)]
    made = b"".join(struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content for kind, content in segments)
    return stream.getvalue()[:2] + made + stream.getvalue()[2:]


def test_a_jpeg_keeps_its_captions_comments_and_long_xmp_but_no_old_preview(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(captioned_jpeg())
    assert write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / "b.jpg") == ()
    with Image.open(tmp_path / "b.jpg") as image:
        assert IptcImagePlugin.getiptcinfo(image) == {(2, 120): b"Oma Erna!"}
        assert image.info["comment"] == b"Box 7, no. 3"
        assert image.info["photoshop"][1034] == b"\1"
        assert 1036 not in image.info["photoshop"]
    content = (tmp_path / "b.jpg").read_bytes()
    assert b"<more/>" in content
    assert b"preview" not in content


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_tiff_keeps_what_photoshop_says_but_no_old_preview(tmp_path: Path, byteorder: Any) -> None:
    caption = b"\x1c\x02\x78" + struct.pack(">H", 9) + b"Oma Erna!"
    blocks = resource(1036, b"preview" * 3) + resource(1028, caption) + resource(1034, b"\1")
    tags = [(34377, 1, len(blocks), blocks, True), (37724, 7, 8, b"a layer!", True)]
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", byteorder=byteorder, extratags=tags)
    photo = read_photo(tmp_path / "a.tif")
    assert photo.warnings == ("Photoshop's layers left out: the picture is read as they show it together",)
    assert write_photo(photo, tmp_path / "b.tif") == ()
    with Image.open(tmp_path / "b.tif") as image:
        assert bytes(image.tag_v2[34377]) == resource(1028, caption) + resource(1034, b"\1")
        assert 37724 not in image.tag_v2
        assert np.array_equal(np.asarray(image), COLOUR)
    assert write_photo(photo, tmp_path / "b.png") == ("IPTC left out: PNG has no place for that",)


def test_a_png_keeps_its_texts_and_what_it_says_of_its_colours(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Copyright", "the archive")
    texts.add_text("Description", "Oma Erna, 1931", zip=True)
    texts.add_itxt("Title", "Großmutter", lang="de")
    texts.add(b"gAMA", struct.pack(">I", 100000))
    Image.fromarray(COLOUR).save(tmp_path / "a.png", pnginfo=texts)
    photo = read_photo(tmp_path / "a.png")
    assert write_photo(photo, tmp_path / "b.png") == ()
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as image:
            assert image.text == {"Copyright": "the archive", "Description": "Oma Erna, 1931", "Title": "Großmutter"}
            assert image.info["gamma"] == 1.0


@pytest.mark.parametrize(
    ("target", "lost"),
    [("tif", "extended XMP, comment"), ("webp", "extended XMP, comment, IPTC"), ("bmp", "extended XMP, comment, IPTC")],
)
def test_what_another_format_cannot_say_is_told(tmp_path: Path, target: str, lost: str) -> None:
    (tmp_path / "a.jpg").write_bytes(captioned_jpeg())
    warnings = write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / f"b.{target}")
    assert any(warning.startswith(f"{lost} left out") for warning in warnings)


def test_captions_of_a_jpeg_are_those_of_its_tiff_and_of_the_jpeg_that_this_becomes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(captioned_jpeg())
    write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / "b.tif")
    write_photo(read_photo(tmp_path / "b.tif"), tmp_path / "c.jpg")
    for name in ("b.tif", "c.jpg"):
        with Image.open(tmp_path / name) as image:
            assert IptcImagePlugin.getiptcinfo(image) == {(2, 120): b"Oma Erna!"}
    with Image.open(tmp_path / "b.tif") as image:
        assert bytes(image.tag_v2[34377]).endswith(resource(1034, b"\1"))


def test_photoshops_data_without_captions_is_not_called_so(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG")
    content = b"Photoshop 3.0\0" + resource(1034, b"\1")
    segment = struct.pack(">BBH", 0xFF, 0xED, len(content) + 2) + content
    (tmp_path / "a.jpg").write_bytes(stream.getvalue()[:2] + segment + stream.getvalue()[2:])
    told = write_photo(read_photo(tmp_path / "a.jpg"), tmp_path / "b.png")
    assert told == ("Photoshop's data left out: PNG has no place for that",)


@quick
@given(place=st.floats(0, 1, exclude_max=True), garbage=st.binary(min_size=1, max_size=8))
def test_damaged_captions_do_not_cost_the_photo(tmp_path: Path, place: float, garbage: bytes) -> None:
    content = bytearray(captioned_jpeg())
    position = 2 + int(place * 120)
    content[position : position + len(garbage)] = garbage
    (tmp_path / "a.jpg").write_bytes(content)
    try:
        photo = read_photo(tmp_path / "a.jpg")
    except PhotoError:
        return
    write_photo(photo, tmp_path / "b.jpg")
    assert read_photo(tmp_path / "b.jpg").extras == photo.extras


# ---------------------------------------------------------------------------------------------------------- names


def test_formats_by_suffix() -> None:
    assert format_of(Path("a.JPEG")) == "jpg"
    assert format_of(Path("a.b.Tiff")) == "tif"
    assert format_of(Path("a.heic")) is None
    assert format_of(Path("a.txt")) is None
    assert [output_format(s) for s in (".heic", ".HEIF", ".jfif", ".tiff", ".BMP")] == [
        "jpg",
        "jpg",
        "jpg",
        "tif",
        "bmp",
    ]
    assert all(OUTPUT_SUFFIX[output_format(suffix)] in INPUT_SUFFIXES for suffix in INPUT_SUFFIXES)
    assert not any(suffix in INPUT_SUFFIXES for suffix in (".gif", ".txt", ".pdf"))


def test_other_pixels_keep_everything_else() -> None:
    photo = make_photo(icc=b"profile", dpi=(300.0, 300.0), alpha=ALPHA, warnings=("one",))
    other = photo.with_rgb(photo.rgb * 0.5)
    assert np.array_equal(other.rgb, photo.rgb * 0.5)
    assert (other.icc, other.dpi, other.warnings, other.format) == (b"profile", (300.0, 300.0), ("one",), "png")
    assert other.alpha is ALPHA


# ------------------------------------------------------------------------------------------------- pixels unchanged


@quick
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    deep=st.booleans(),
    gray=st.booleans(),
    opacity=st.booleans(),
    suffix=st.sampled_from([".png", ".tif"]),
    seed=st.integers(0, 99),
)
def test_lossless_formats_return_every_bit(
    tmp_path: Path, height: int, width: int, deep: bool, gray: bool, opacity: bool, suffix: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    kind = np.uint16 if deep else np.uint8
    shape = (height, width) if gray else (height, width, 3)
    samples = random.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
    alpha = random.integers(0, np.iinfo(kind).max, (height, width), kind, endpoint=True) if opacity else None
    result = written(photo_of(samples, alpha=alpha), tmp_path / f"a{suffix}")
    assert (result.gray, result.bit_depth, result.format) == (gray, 16 if deep else 8, suffix[1:])
    assert np.array_equal(bytes_of(result), samples)
    assert result.rgb.dtype == np.float32
    assert result.rgb.flags.c_contiguous
    if opacity:
        assert np.array_equal(result.alpha, alpha)
        assert result.alpha.dtype == kind
    else:
        assert result.alpha is None


@pytest.mark.parametrize("suffix", [".webp", ".bmp"])
@pytest.mark.parametrize("samples", [COLOUR, GRAY], ids=["colour", "gray"])
def test_lossless_webp_and_bmp_return_every_bit(tmp_path: Path, suffix: str, samples: np.ndarray) -> None:
    result = written(photo_of(samples), tmp_path / f"a{suffix}")
    assert np.array_equal(np.rint(result.rgb * 255), samples if samples.ndim == 3 else np.dstack([samples] * 3))
    assert result.gray == (samples.ndim == 2 and suffix == ".bmp")  # WebP has no gray mode


def test_webp_keeps_alpha_and_the_colours_under_it(tmp_path: Path) -> None:
    result = written(make_photo(alpha=ALPHA), tmp_path / "a.webp")
    assert np.array_equal(result.alpha, ALPHA)
    assert np.array_equal(bytes_of(result), COLOUR)


@pytest.mark.parametrize("samples", [COLOUR16, GRAY16], ids=["colour", "gray"])
def test_sixteen_bits_agree_with_other_readers(tmp_path: Path, samples: np.ndarray) -> None:
    for suffix, decode in ((".png", imagecodecs.imread), (".tif", tifffile.imread)):
        write_photo(photo_of(samples), tmp_path / f"a{suffix}")
        assert np.array_equal(decode(tmp_path / f"a{suffix}"), samples)


def test_pillow_opens_what_is_written(tmp_path: Path) -> None:
    photo = make_photo(icc=SRGB, exif=full_exif(1), xmp=XMP, dpi=(300.0, 300.0))
    for name in OUTPUT_SUFFIX:
        write_photo(photo, tmp_path / f"a.{name}", quality=100)
        with Image.open(tmp_path / f"a.{name}") as image:
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - COLOUR).mean() < 3
            if name != "bmp":
                assert image.info["icc_profile"] == SRGB
                assert image.getexif()[0x010F] == "Agfa"
                assert image.getexif().get_ifd(0x8825)[2] == (48.0, 8.0, 14.5)


@pytest.mark.parametrize("name", list(OUTPUT_SUFFIX))
def test_same_photo_same_bytes(tmp_path: Path, name: str) -> None:
    photo = make_photo(icc=SRGB, exif=full_exif(), xmp=XMP, dpi=(300.0, 150.0))
    write_photo(photo, tmp_path / f"a.{name}")
    os.utime(tmp_path / f"a.{name}", (0, 0))
    write_photo(photo, tmp_path / f"b.{name}")
    assert (tmp_path / f"a.{name}").read_bytes() == (tmp_path / f"b.{name}").read_bytes()


def test_format_by_argument_suffix_or_photo(tmp_path: Path) -> None:
    write_photo(make_photo(), tmp_path / "a.png", format="jpg")
    write_photo(make_photo(), tmp_path / "b.tif")
    write_photo(make_photo(format="webp"), tmp_path / "c")
    assert [read_photo(tmp_path / name).format for name in ("a.png", "b.tif", "c")] == ["jpg", "tif", "webp"]
    with pytest.raises(UsageError, match="gif"):
        write_photo(make_photo(), tmp_path / "d.gif", format="gif")
    with pytest.raises(UsageError, match="101"):
        write_photo(make_photo(), tmp_path / "d.jpg", quality=101)
    assert not (tmp_path / "d.jpg").exists()


def test_values_outside_the_range_are_clipped(tmp_path: Path) -> None:
    rgb = np.stack([np.full((4, 4), value, np.float32) for value in (-0.5, 0.5, 1.5)], axis=2)
    assert np.array_equal(bytes_of(written(make_photo(rgb=rgb), tmp_path / "a.png"))[0, 0], [0, 128, 255])


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    rgb = make_photo().rgb.copy()
    rgb[3, 4, 1] = np.nan
    with pytest.raises(PhotoError, match=r"a\.png: .*not finite"):
        write_photo(make_photo(rgb=rgb), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- JPEG


def test_jpeg_quality_subsampling_and_mode(tmp_path: Path) -> None:
    sizes = {}
    for quality, factors in ((60, (2, 2)), (90, (1, 1)), (100, (1, 1))):
        path = tmp_path / f"{quality}.jpg"
        write_photo(photo_of(CAT), path, quality=quality)
        sizes[quality] = path.stat().st_size
        with Image.open(path) as image:
            assert image.layer[0][1:3] == factors
            assert "progressive" not in image.info
    assert sizes[60] < sizes[90] < sizes[100]
    write_photo(photo_of(GRAY), tmp_path / "gray.jpg")
    with Image.open(tmp_path / "gray.jpg") as image:
        assert image.mode == "L"
    assert read_photo(tmp_path / "gray.jpg").gray


def test_coarsest_grain_at_best_quality(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (700, 700, 3), np.uint8)  # overflows Pillow's encoder
    result = written(photo_of(noise), tmp_path / "a.jpg", quality=100)
    assert np.abs(bytes_of(result).astype(int) - noise).mean() < 2


def test_neutral_colour_file_stays_colour(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([GRAY] * 3)).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert not photo.gray
    write_photo(photo, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "RGB"


# ----------------------------------------------------------------------------------------- what a format does not hold


def test_fewer_bits_are_rounded_with_a_warning(tmp_path: Path) -> None:
    photo = photo_of(COLOUR16, alpha=ALPHA.astype(np.uint16) * 257)
    (warning,) = write_photo(photo, tmp_path / "a.webp", quality=100)
    assert warning == "16-bit colour reduced to 8 bit: WebP holds no more"
    result = read_photo(tmp_path / "a.webp")
    assert np.array_equal(bytes_of(result), np.rint(COLOUR16 / 257))
    assert np.array_equal(result.alpha, ALPHA)
    assert write_photo(photo_of(GRAY16), tmp_path / "a.jpg") == ("16-bit gray reduced to 8 bit: JPEG holds no more",)
    assert write_photo(photo, tmp_path / "a.tif") == ()


def test_lost_alpha_and_metadata_are_told(tmp_path: Path) -> None:
    photo = make_photo(alpha=ALPHA, icc=SRGB, exif=full_exif(), xmp=XMP)
    assert write_photo(photo, tmp_path / "a.jpg") == ("alpha left out: JPEG holds none",)
    assert write_photo(photo, tmp_path / "a.bmp") == (
        "alpha left out: BMP holds none",
        "ICC, EXIF, XMP left out: BMP holds none",
    )
    assert read_photo(tmp_path / "a.jpg").alpha is None


def test_metadata_too_long_for_jpeg_are_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    photo = make_photo(exif=exif.tobytes(), xmp=b"y" * 70_000)
    assert len(write_photo(photo, tmp_path / "a.jpg")) == 2
    result = read_photo(tmp_path / "a.jpg")
    assert (result.exif, result.xmp) == (None, None)
    assert written(photo, tmp_path / "a.png").xmp == b"y" * 70_000


@pytest.mark.parametrize(("name", "shape"), [("webp", (2, 16384, 3)), ("jpg", (65501, 1, 3))])
def test_too_long_a_side_is_refused(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(PhotoError, match="pixels a side"):
        write_photo(make_photo(rgb=np.zeros(shape, np.float32)), tmp_path / f"a.{name}")


# --------------------------------------------------------------------------------------------------------- orientation


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """A picture as a file of this orientation stores it: EXIF says where its first row and column belong."""
    ways = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(ways[orientation])


@quick
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    orientation=st.integers(1, 8),
    suffix=st.sampled_from([".png", ".tif", ".jpg", ".webp"]),
)
def test_orientation_is_applied_once(tmp_path: Path, height: int, width: int, orientation: int, suffix: str) -> None:
    upright = np.ascontiguousarray(COLOUR[:height, :width])
    stored = as_stored(upright, orientation)
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    if suffix == ".jpg":
        options = {"quality": 100, "subsampling": 0}
    if suffix == ".png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    exif = load_exif(full_exif(orientation, size=stored.shape[1::-1]))
    if suffix == ".tif":
        exif[700] = XMP
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    Image.fromarray(stored).save(source, exif=exif, xmp=XMP, **options)
    photo = read_photo(source)
    assert photo.rgb.shape == upright.shape
    assert np.abs(bytes_of(photo).astype(int) - upright).max() <= (12 if suffix == ".jpg" else 0)
    again = written(photo, target)
    assert again.rgb.shape == photo.rgb.shape
    assert np.abs(again.rgb - photo.rgb).max() <= (12 / 255 if suffix == ".jpg" else 0)
    with Image.open(target) as image:
        assert image.size == (width, height)
        assert image.getexif().get(0x0112, 1) == 1
        details = image.getexif().get_ifd(0x8769)
    assert (details[0xA002], details[0xA003]) == upright.shape[1::-1]
    assert photo.xmp == XMP.replace(b'Orientation="6"', b'Orientation="1"')


def test_alpha_and_resolution_turn_with_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = np.dstack([COLOUR, ALPHA])
    Image.fromarray(samples).save(tmp_path / "a.png", exif=exif, dpi=(300, 600))
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.alpha, np.rot90(ALPHA, -1))
    assert photo.dpi == (600.0, 300.0)


def test_orientation_of_a_tiff_by_its_own_tag(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR16, photometric="rgb", extratags=[(274, 3, 1, 8, True)])
    photo = read_photo(tmp_path / "a.tif")
    assert np.array_equal(bytes_of(photo), np.rot90(COLOUR16, 1))
    write_photo(photo, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert tiff.pages[0].tags["Orientation"].value == 1


def test_xmp_orientation_as_an_element(tmp_path: Path) -> None:
    xmp = b"<x><tiff:Orientation>8</tiff:Orientation><exif:PixelXDimension>8</exif:PixelXDimension></x>"
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=full_exif(8), xmp=xmp)
    assert read_photo(tmp_path / "a.jpg").xmp == xmp.replace(b"Orientation>8", b"Orientation>1")


def test_exif_thumbnail_of_the_old_picture_is_unlinked(tmp_path: Path) -> None:
    # Little-endian EXIF: one tag (orientation), then a second directory, the thumbnail's.
    first = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 26)
    second = struct.pack("<HHHIHHI", 1, 0x0103, 3, 1, 6, 0, 0)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=block)
    exif = read_photo(tmp_path / "a.jpg").exif
    assert load_exif(block).get_ifd(ExifTags.IFD.IFD1)
    assert not load_exif(exif).get_ifd(ExifTags.IFD.IFD1)


# ------------------------------------------------------------------------------------------------------------ metadata


@pytest.mark.parametrize("deep", [False, True], ids=["8-bit", "16-bit"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".webp"])
def test_metadata_are_carried_between_all_formats(tmp_path: Path, source: str, target: str, deep: bool) -> None:
    wide = wide_gamut_profile()
    photo = photo_of(COLOUR16 if deep else COLOUR, exif=full_exif(1), icc=wide, xmp=XMP, dpi=(300.0, 300.0))
    first = written(photo, tmp_path / f"a{source}")
    second = written(first, tmp_path / f"b{target}")
    assert_exif_carried(second.exif)
    assert second.icc == wide
    assert second.xmp == XMP.replace(b'"6"', b'"1"')
    assert second.dpi == (300.0, 300.0)


def test_exif_that_needs_no_change_keeps_its_bytes(tmp_path: Path) -> None:
    block = full_exif(1)
    for name in ("jpg", "png"):
        assert written(make_photo(exif=block), tmp_path / f"a.{name}").exif == block


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tags_of_a_tiff_in_either_byte_order(tmp_path: Path, order: str, big: bool) -> None:
    tags = [(271, 2, 0, "Agfa", True), (34434, 5, 1, (1, 125), True), (33723, 1, 9, b"IPTC data", True)]
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=order, bigtiff=big) as writer:  # type: ignore[arg-type]
        writer.write(COLOUR16, photometric="rgb", software="scan", metadata=None, extratags=tags, resolution=(240, 240))
    photo = written(read_photo(tmp_path / "a.tif"), tmp_path / "b.tif")
    assert np.array_equal(bytes_of(photo), COLOUR16)
    exif = load_exif(photo.exif)
    assert (exif[271], exif[305], exif[33723], photo.dpi) == ("Agfa", "scan", b"IPTC data", (240.0, 240.0))
    assert set(exif) == {271, 305, 33723, 34434}  # nothing of how the file stored its pixels


def test_wide_gamut_pixels_stay_with_their_profile(tmp_path: Path) -> None:
    wide = wide_gamut_profile()
    Image.fromarray(COLOUR).save(tmp_path / "a.png", icc_profile=wide)
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(bytes_of(photo), COLOUR)
    assert photo.icc == wide


def test_a_long_profile_survives_jpeg(tmp_path: Path) -> None:
    profile = SRGB + np.random.default_rng(0).bytes(150_000)
    assert written(make_photo(icc=profile), tmp_path / "a.jpg").icc == profile


def test_gray_profile_is_applied_where_only_colour_fits(tmp_path: Path) -> None:
    photo = photo_of(GRAY, icc=gray_profile(1.0))  # linear light: looks much brighter than its numbers
    assert written(photo, tmp_path / "a.png").icc == gray_profile(1.0)
    result = written(photo, tmp_path / "a.webp")
    assert result.icc is not None
    assert result.icc[16:20] == b"RGB "
    linear = GRAY / 255
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(result.rgb[..., 1] - expected).mean() < 0.01
    assert np.abs(GRAY / 255 - expected).mean() > 0.1  # it makes a difference


@pytest.mark.parametrize("name", list(OUTPUT_SUFFIX))
def test_no_resolution_is_invented(tmp_path: Path, name: str) -> None:
    assert written(make_photo(), tmp_path / f"a.{name}").dpi is None
    assert written(make_photo(exif=full_exif(None)), tmp_path / f"b.{name}").dpi is None


@pytest.mark.parametrize("name", list(OUTPUT_SUFFIX))
def test_resolution_of_either_axis(tmp_path: Path, name: str) -> None:
    assert written(make_photo(dpi=(300.0, 150.0)), tmp_path / f"a.{name}").dpi == (300.0, 150.0)


def test_resolution_a_centimetre(tmp_path: Path) -> None:
    unit = tifffile.RESUNIT.CENTIMETER
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", resolution=(118.11, 236.22), resolutionunit=unit)
    assert read_photo(tmp_path / "a.tif").dpi == (300.0, 600.0)
    tifffile.imwrite(
        tmp_path / "b.tif", COLOUR, photometric="rgb", resolution=(4, 3), resolutionunit=tifffile.RESUNIT.NONE
    )
    assert read_photo(tmp_path / "b.tif").dpi is None
    content = io.BytesIO()
    Image.fromarray(COLOUR).save(content, "JPEG", dpi=(100, 100))
    jfif = bytearray(content.getvalue())
    assert jfif[13] == 1
    jfif[13] = 2
    (tmp_path / "c.jpg").write_bytes(jfif)
    assert read_photo(tmp_path / "c.jpg").dpi == (254.0, 254.0)


def test_jpeg_resolution_by_exif_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = TiffImagePlugin.IFDRational(240), TiffImagePlugin.IFDRational(120), 2
    exif[0x0112] = 8
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=exif)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.dpi == (120.0, 240.0)
    assert (load_exif(photo.exif)[282], load_exif(photo.exif)[283]) == (120, 240)


def test_damaged_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    for index, block in enumerate((b"Exif\0\0garbage", full_exif()[:20], b"Exif\0\0II*\0\xff\xff\xff\xff")):
        Image.fromarray(COLOUR).save(tmp_path / f"{index}.webp", lossless=True, exif=block)
        photo = read_photo(tmp_path / f"{index}.webp")
        assert np.array_equal(bytes_of(photo), COLOUR)
        assert photo.warnings == ("damaged EXIF left out",)
        assert photo.exif is None


@quick
@given(cut=st.integers(6, 400), place=st.integers(6, 400), value=st.integers(0, 255))
def test_no_exif_block_however_broken_stops_a_photo(tmp_path: Path, cut: int, place: int, value: int) -> None:
    block = bytearray(full_exif(1))
    block[min(place, len(block) - 1)] = value
    Image.fromarray(CAT).save(tmp_path / "a.png", exif=bytes(block[: 14 + cut]))
    photo = read_photo(tmp_path / "a.png")
    for name in ("jpg", "tif", "webp"):
        assert written(photo, tmp_path / f"b.{name}").rgb.shape == photo.rgb.shape


# --------------------------------------------------------------------------------------------------------- file modes


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_black_and_white_files_are_gray(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(GRAY).convert("1")
    image.save(tmp_path / f"a{suffix}")
    photo = read_photo(tmp_path / f"a{suffix}")
    assert photo.gray
    assert np.array_equal(photo.rgb[..., 0], np.asarray(image))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_palette_files_are_colour(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(COLOUR).quantize(40)
    image.save(tmp_path / f"a{suffix}")
    photo = read_photo(tmp_path / f"a{suffix}")
    assert not photo.gray
    assert photo.alpha is None
    assert np.array_equal(bytes_of(photo), np.asarray(image.convert("RGB")))


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(40)
    opacity = bytes(range(0, 240, 6))
    image.save(tmp_path / "a.png", transparency=opacity)
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.alpha, np.frombuffer(opacity, np.uint8)[np.asarray(image)])
    assert np.array_equal(bytes_of(photo), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("samples", [GRAY, COLOUR, GRAY16, COLOUR16], ids=["gray", "colour", "gray16", "colour16"])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, samples: np.ndarray) -> None:
    content = imagecodecs.png_encode(samples)
    name, value = b"tRNS", np.array(samples[5, 7], ">u2").tobytes()
    chunk = struct.pack(">I", len(value)) + name + value + struct.pack(">I", zlib.crc32(name + value))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    photo = read_photo(tmp_path / "a.png")
    same = samples == samples[5, 7]
    assert np.array_equal(photo.alpha == 0, same.all(axis=2) if samples.ndim == 3 else same)
    assert np.array_equal(bytes_of(photo), samples)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_spans_black_to_white(tmp_path: Path, bits: int) -> None:
    levels = np.tile(np.arange(2**bits, dtype=np.uint8), (3, 8 // bits))
    packed = np.packbits(np.unpackbits(levels[..., None], axis=2)[..., -bits:].reshape(3, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", levels.shape[1], 3, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    png = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    tifffile.imwrite(
        tmp_path / "a.tif", levels if bits > 1 else levels > 0, bitspersample=bits, photometric="minisblack"
    )
    for name in ("a.png", "a.tif"):
        photo = read_photo(tmp_path / name)
        assert photo.gray
        assert np.allclose(photo.rgb[..., 0], levels / (2**bits - 1), atol=1 / 500)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_its_profile(tmp_path: Path, suffix: str) -> None:
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # pure cyan
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    for swap, expected in ((False, (0, 255, 255)), (True, (255, 255, 0))):
        inks.save(tmp_path / f"a{suffix}", icc_profile=cmyk_profile(swap), **options)
        photo = read_photo(tmp_path / f"a{suffix}")
        assert np.abs(bytes_of(photo).astype(int) - expected).max() < 24
        assert photo.warnings == ()
        assert photo.icc is not None
        assert photo.icc[16:20] == b"RGB "
        assert written(photo, tmp_path / f"b{suffix}").icc == photo.icc


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_without_a_usable_profile_is_told(tmp_path: Path, suffix: str) -> None:
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for profile in (b"", b"no profile at all", SRGB):
        inks.save(tmp_path / f"a{suffix}", icc_profile=profile)
        photo = read_photo(tmp_path / f"a{suffix}")
        assert np.abs(bytes_of(photo).astype(int) - (0, 255, 255)).max() < 8
        assert photo.icc is None
        assert len(photo.warnings) == 1
        assert "CMYK" in photo.warnings[0]


TIFF_KINDS: dict[str, tuple[np.ndarray, dict[str, Any], np.ndarray]] = {
    "lzw": (COLOUR16, {"photometric": "rgb", "compression": "lzw"}, COLOUR16),
    "deflate": (COLOUR16, {"photometric": "rgb", "compression": "zlib", "predictor": True}, COLOUR16),
    "packbits": (COLOUR, {"photometric": "rgb", "compression": "packbits"}, COLOUR),
    "strips": (COLOUR16, {"photometric": "rgb", "rowsperstrip": 7}, COLOUR16),
    "tiles": (COLOUR16, {"photometric": "rgb", "tile": (16, 16), "compression": "zlib"}, COLOUR16),
    "planar": (np.moveaxis(COLOUR16, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}, COLOUR16),
    "planar strips": (
        np.moveaxis(COLOUR16, 2, 0),
        {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 9, "compression": "lzw"},
        COLOUR16,
    ),
    "white is zero": (255 - GRAY, {"photometric": "miniswhite"}, GRAY),
    "white is zero, 16 bit": (65535 - GRAY16, {"photometric": "miniswhite", "compression": "zlib"}, GRAY16),
    "float": (COLOUR16.astype(np.float32) / 65535, {"photometric": "rgb"}, COLOUR16),
    "float gray": (GRAY16.astype(np.float32) / 65535, {"photometric": "minisblack"}, GRAY16),
}


@pytest.mark.parametrize("kind", list(TIFF_KINDS))
def test_kinds_of_tiff(tmp_path: Path, kind: str) -> None:
    samples, options, expected = TIFF_KINDS[kind]
    tifffile.imwrite(tmp_path / "a.tif", samples, **options)
    photo = read_photo(tmp_path / "a.tif")
    told = ("floating-point samples are kept with 16 bits",) if "float" in kind else ()
    assert (photo.gray, photo.warnings) == (expected.ndim == 2, told)
    assert photo.bit_depth == (8 if expected.dtype == np.uint8 else 16)
    assert np.array_equal(bytes_of(photo), expected)
    assert np.array_equal(bytes_of(written(photo, tmp_path / "b.tif")), expected)


@pytest.mark.parametrize("mode", ["RGB", "YCbCr"])
def test_jpeg_in_tiff(tmp_path: Path, mode: str) -> None:
    smooth = Image.fromarray(COLOUR).resize((480, 384), Image.Resampling.BICUBIC)
    smooth.convert(mode).save(tmp_path / "a.tif", compression="jpeg", quality=90)
    assert np.abs(bytes_of(read_photo(tmp_path / "a.tif")).astype(int) - np.asarray(smooth)).mean() < 4


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_ycbcr_tiff_is_turned_once(tmp_path: Path, orientation: int, compression: str | None) -> None:
    stored = Image.fromarray(as_stored(COLOUR, orientation)).convert("YCbCr")
    stored.save(tmp_path / "a.tif", compression=compression, tiffinfo={274: orientation})
    found = bytes_of(read_photo(tmp_path / "a.tif"))
    assert found.shape == COLOUR.shape
    wrong = np.abs(found.astype(int) - COLOUR)
    if compression == "jpeg":
        assert wrong.mean() <= 8  # a picture turned otherwise is off by 60 and more
    else:
        assert wrong.max() <= 3


@pytest.mark.parametrize("samples", [GRAY, COLOUR], ids=["gray", "colour"])
def test_alpha_of_tiff(tmp_path: Path, samples: np.ndarray) -> None:
    options: dict[str, Any] = {"photometric": "rgb" if samples.ndim == 3 else "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([samples, ALPHA]), extrasamples=["unassalpha"], **options)
    photo = read_photo(tmp_path / "a.tif")
    assert np.array_equal(photo.alpha, ALPHA)
    assert np.array_equal(bytes_of(photo), samples)
    opacity = np.maximum(ALPHA, 64)
    factor = opacity / 255 if samples.ndim == 2 else opacity[..., None] / 255
    premultiplied = np.rint(samples * factor).astype(np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", np.dstack([premultiplied, opacity]), extrasamples=["assocalpha"], **options)
    assert np.abs(bytes_of(read_photo(tmp_path / "b.tif")).astype(int) - samples).max() <= 2
    tifffile.imwrite(tmp_path / "c.tif", np.dstack([samples, ALPHA]), extrasamples=["unspecified"], **options)
    photo = read_photo(tmp_path / "c.tif")
    assert photo.alpha is None
    assert photo.warnings == ("1 extra channel(s) of unknown meaning left out",)


def test_only_the_first_page_and_a_word_about_it(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([COLOUR, COLOUR[::-1], COLOUR]), photometric="rgb")
    photo = read_photo(tmp_path / "a.tif")
    assert photo.warnings == ("only the first of 3 pages is read",)
    assert np.array_equal(bytes_of(photo), COLOUR)


def pages_of(path: Path) -> list[Photo]:
    file = open_photo(path)
    return [file.page(index) for index in range(file.pages)]


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_every_page_of_a_tiff_is_read_and_written_with_what_it_says(tmp_path: Path, byteorder: Any) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=byteorder) as writer:
        sized: dict[str, Any] = {"resolution": (600, 600), "resolutionunit": 2}
        writer.write(COLOUR16, photometric="rgb", description="recto", metadata=None, **sized)
        preview = np.ascontiguousarray(COLOUR[::4, ::4])
        writer.write(preview, photometric="rgb", subfiletype=1)
        icc = gray_profile(1.8)
        writer.write(GRAY, photometric="minisblack", description="verso", metadata=None, iccprofile=icc)
    pages = pages_of(tmp_path / "a.tif")
    write_pages(pages, tmp_path / "b.tif", "tif", software="oldphoto 1.0")
    for photos in (pages, pages_of(tmp_path / "b.tif")):
        recto, verso = photos
        assert np.array_equal(bytes_of(recto), COLOUR16)
        assert np.array_equal(bytes_of(verso), GRAY)
        assert (recto.bit_depth, recto.gray, verso.bit_depth, verso.gray) == (16, False, 8, True)
        assert recto.dpi == (600.0, 600.0)
        assert verso.icc == gray_profile(1.8)
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert [page.description for page in tiff.pages] == ["recto", "verso"]
        assert [page.tags["Software"].value for page in tiff.pages] == ["oldphoto 1.0"] * 2


def test_other_formats_hold_one_page(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"a\.jpg: JPEG cannot hold several pages: write TIFF"):
        write_pages([make_photo(), make_photo()], tmp_path / "a.jpg", "jpg")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- the software


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("samples", [COLOUR, GRAY, COLOUR16, GRAY16], ids=["colour", "gray", "colour16", "gray16"])
def test_the_software_is_named_and_everything_else_stays(tmp_path: Path, suffix: str, samples: np.ndarray) -> None:
    exif = Image.Exif()
    exif.load(full_exif(1))
    exif[0x0131] = "EPSON Scan 3.4"
    photo = photo_of(samples, exif=exif.tobytes(), icc=SRGB if samples.ndim == 3 else None, dpi=(300.0, 300.0))
    write_pages([photo], tmp_path / f"plain{suffix}", suffix[1:], 100)
    write_pages([photo], tmp_path / f"named{suffix}", suffix[1:], 100, software="oldphoto 1.0")
    plain, named = (read_photo(tmp_path / f"{name}{suffix}") for name in ("plain", "named"))
    assert load_exif(plain.exif)[0x0131] == "EPSON Scan 3.4"
    assert load_exif(named.exif)[0x0131] == "oldphoto 1.0"
    assert load_exif(named.exif)[0x000B] == "EPSON Scan 3.4"
    assert_exif_carried(named.exif)
    assert np.array_equal(plain.rgb, named.rgb)
    assert (plain.gray, plain.bit_depth, plain.icc, plain.dpi) == (named.gray, named.bit_depth, named.icc, named.dpi)


@pytest.mark.parametrize("order", ["II", "MM"])
def test_naming_the_software_leaves_offsets_in_exif_where_they_were(order: str) -> None:
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    exif.load(full_exif(1))
    block = exif_block.stamped(exif.tobytes(), "oldphoto 1.0")
    maker_note = b"Agfa\0maker note \x01\x02\x03"
    assert block.index(maker_note) == exif.tobytes().index(maker_note)
    assert_exif_carried(block)


def test_naming_the_software_again_keeps_what_was_there_first() -> None:
    once = exif_block.stamped(None, "oldphoto 1.0")
    assert load_exif(once)[0x0131] == "oldphoto 1.0"
    scanned = Image.Exif()
    scanned[0x0131], scanned[0x000B] = "EPSON Scan 3.4", "exiftool"
    twice = exif_block.stamped(exif_block.stamped(scanned.tobytes(), "oldphoto 1.0"), "oldphoto 2.0")
    assert load_exif(twice)[0x0131] == "oldphoto 2.0"
    assert load_exif(twice)[0x000B] == "exiftool; EPSON Scan 3.4"


def test_a_block_without_room_is_carried_unnamed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "x" * 65_480
    (warning,) = write_pages(
        [make_photo(exif=exif.tobytes())], tmp_path / "a.jpg", "jpg", software="oldphoto 1.0"
    ).warnings
    assert "no room" in warning
    assert load_exif(read_photo(tmp_path / "a.jpg").exif)[0x010F] == "x" * 65_480


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.25, 255.0])
def test_floats_without_an_agreed_range_are_refused(tmp_path: Path, value: float) -> None:
    samples = COLOUR.astype(np.float32) / 255
    samples[10, 11, 1] = value
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    with pytest.raises(PhotoError, match=r"a\.tif: has floating-point values"):
        read_photo(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [np.int16, np.uint32, np.complex64])
def test_other_samples_are_refused(tmp_path: Path, kind: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(kind), photometric="minisblack")
    with pytest.raises(PhotoError, match=r"a\.tif: "):
        read_photo(tmp_path / "a.tif")


def test_lab_tiff_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="cielab")
    with pytest.raises(PhotoError, match="CIELAB"):
        read_photo(tmp_path / "a.tif")


def test_heic(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    smooth = Image.fromarray(COLOUR).resize((240, 192))
    heif.from_pillow(smooth).save(tmp_path / "a.heic", quality=95, exif=full_exif(6), icc_profile=wide_gamut_profile())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(PhotoError, match=r"pip install 'oldphoto\[heif\]'"):
            read_photo(tmp_path / "a.heic")
    photo = read_photo(tmp_path / "a.heic")
    expected = np.asarray(heif.open_heif(tmp_path / "a.heic").to_pillow())
    assert photo.rgb.shape == expected.shape  # turned by the container, not again by EXIF
    assert np.array_equal(bytes_of(photo), expected)
    assert photo.format == "jpg"
    assert_exif_carried(photo.exif)
    assert load_exif(photo.exif).get(0x0112, 1) == 1
    assert photo.warnings == ()
    several = heif.from_pillow(smooth)
    several.add_from_pillow(smooth.rotate(180))
    several.save(tmp_path / "b.heic")
    assert read_photo(tmp_path / "b.heic").warnings == ("only the first of 2 pictures is read",)


def test_a_raw_photo_is_not_restored_as_its_preview(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(COLOUR[::2, ::2], photometric="rgb", subfiletype=1, subifds=1)
        writer.write(COLOUR, photometric="rgb")
    assert_refused(tmp_path / "a.tif", "is a raw photo, whose first page is a preview")


# ------------------------------------------------------------------------------------------------------------- failures


def assert_refused(path: Path, reason: str | None = None) -> None:
    with pytest.raises(PhotoError, match=reason) as caught:
        read_photo(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.count(str(path)) == 1


def test_what_is_no_photo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert_refused(tmp_path / "empty.jpg", "is empty")
    (tmp_path / "text.png").write_text("Dear Oma, here are the photos of 1962.")
    assert_refused(tmp_path / "text.png", "is no JPEG")
    (tmp_path / "folder.tif").mkdir()
    assert_refused(tmp_path / "folder.tif", "directory")
    assert_refused(tmp_path / "missing.jpg", "No such file")
    Image.fromarray(GRAY).save(tmp_path / "a.gif")
    assert_refused(tmp_path / "a.gif", "GIF")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert_refused(tmp_path / "a.png", "ermission")


def test_kind_is_told_by_content(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", "PNG")
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.format == "png"
    assert np.array_equal(bytes_of(photo), COLOUR)


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    assert_refused(tmp_path / f"a{suffix}", "animated")


def test_more_pixels_than_the_limit_are_refused_by_the_header(tmp_path: Path) -> None:
    content = bytearray(imagecodecs.png_encode(COLOUR))
    content[16:24] = struct.pack(">II", 40_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    assert_refused(tmp_path / "a.png", "300,000,000")
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 40_000, 30_000)
    (tmp_path / "a.jpg").write_bytes(content)
    assert_refused(tmp_path / "a.jpg", "300,000,000")
    Image.fromarray(GRAY).save(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tags = tiff.pages[0].tags
        tags["ImageWidth"].overwrite(40_000)
        tags["ImageLength"].overwrite(30_000)
    assert_refused(tmp_path / "a.tif", "300,000,000")


@pytest.mark.filterwarnings("error")
def test_big_scans_pass_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit, exceeded more than twice
    for name in OUTPUT_SUFFIX:
        assert written(make_photo(), tmp_path / f"a.{name}").rgb.shape == COLOUR.shape


def big_jpeg(progressive: bool = False) -> tuple[np.ndarray, bytes]:
    picture = np.ascontiguousarray(data.astronaut()[:256, 128:384])
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=90, progressive=progressive, dpi=(300, 300))
    return picture, stream.getvalue()


def test_truncated_jpeg_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    picture, content = big_jpeg()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    photo = read_photo(tmp_path / "a.jpg")
    (warning,) = photo.warnings
    assert warning.startswith("truncated: the part below row about ")
    row = int(warning.split("about ")[1].split()[0])
    assert 64 < row < 192
    assert photo.rgb.shape == picture.shape
    assert photo.dpi == (300.0, 300.0)
    top, bottom = bytes_of(photo)[: row - 32].astype(int), bytes_of(photo)[row:]
    assert np.abs(top - picture[: row - 32]).mean() < 4
    assert np.ptp(bottom) <= 1  # flat gray


def test_truncated_progressive_jpeg_is_read_coarsely(tmp_path: Path) -> None:
    picture, content = big_jpeg(progressive=True)
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    photo = read_photo(tmp_path / "a.jpg")
    assert len(photo.warnings) == 1
    assert photo.warnings[0].startswith("truncated")
    assert np.abs(bytes_of(photo).astype(int) - picture).mean() < 16


@pytest.mark.parametrize("kind", ["hole", "lost piece", "cut and closed"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_that_lost_a_piece_is_read_with_a_warning(tmp_path: Path, kind: str, mode: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(data.astronaut()).convert(mode).save(stream, "JPEG", quality=90)
    whole = stream.getvalue()
    (tmp_path / "a.jpg").write_bytes(whole)
    assert not any(warning.startswith("damaged") for warning in read_photo(tmp_path / "a.jpg").warnings)
    half = len(whole) // 2
    behind = whole[half + 2048 :]
    rest = {"hole": bytes(2048) + behind, "lost piece": behind, "cut and closed": b"\xff\xd9"}
    (tmp_path / "a.jpg").write_bytes(whole[:half] + rest[kind])
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.rgb.shape == (512, 512, 3)
    assert any(warning.startswith("damaged: parts of the picture may be missing") for warning in photo.warnings)


def test_jpeg_without_any_picture_is_refused(tmp_path: Path) -> None:
    _, content = big_jpeg()
    scan = content.index(b"\xff\xda")
    for end in (4, scan // 2, scan, scan + 14):
        (tmp_path / "a.jpg").write_bytes(content[:end])
        assert_refused(tmp_path / "a.jpg", "damaged|truncated")


CONTAINERS: dict[str, bytes] = {}


def container(name: str) -> bytes:
    """A small intact file of a kind, made once."""
    if name not in CONTAINERS:
        stream = io.BytesIO()
        if name == "png16":
            stream.write(imagecodecs.png_encode(COLOUR16))
        elif name == "tif16":
            tifffile.imwrite(stream, COLOUR16, photometric="rgb", compression="lzw", rowsperstrip=8)
        elif name == "raw tif":
            tifffile.imwrite(stream, COLOUR16, photometric="rgb")
        elif name == "tif of libtiff":  # its pages lie behind each other, each before its directory
            pages = [Image.fromarray(COLOUR)] * 3
            pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
        else:
            Image.fromarray(COLOUR).save(stream, name)
        CONTAINERS[name] = stream.getvalue()
    return CONTAINERS[name]


@quick
@given(name=st.sampled_from(["png", "png16", "webp", "bmp"]), share=st.floats(0.01, 0.95))
def test_other_truncated_files_are_refused(tmp_path: Path, name: str, share: float) -> None:
    content = container(name)
    (tmp_path / "a").write_bytes(content[: max(1, int(len(content) * share))])
    assert_refused(tmp_path / "a")


@pytest.mark.parametrize("name", ["tiff", "tif16", "raw tif", "tif of libtiff"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.7, 0.9])
def test_truncated_tiff_is_refused(tmp_path: Path, name: str, share: float) -> None:
    content = container(name)
    (tmp_path / "a").write_bytes(content[: max(1, int(len(content) * share))])
    assert_refused(tmp_path / "a")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["png", "png16", "webp", "bmp", "tiff", "tif16", "jpeg"]),
    place=st.floats(0, 1, exclude_max=True),
    garbage=st.binary(min_size=1, max_size=24),
    near_start=st.booleans(),
)
def test_garbage_in_a_file_gives_a_photo_or_a_photo_error(
    tmp_path: Path, name: str, place: float, garbage: bytes, near_start: bool
) -> None:
    content = bytearray(container(name))
    position = int(place * (200 if near_start else len(content)))
    content[position : position + len(garbage)] = garbage
    (tmp_path / "a").write_bytes(content)
    try:
        photo = read_photo(tmp_path / "a")
    except PhotoError as error:
        assert str(tmp_path / "a") in str(error)
    else:
        assert photo.rgb.shape[2] == 3
        assert np.isfinite(photo.rgb).all()


@pytest.mark.filterwarnings("error")
def test_nothing_is_printed_about_damaged_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken_exif = io.BytesIO()
    Image.fromarray(COLOUR).save(broken_exif, "JPEG", exif=full_exif()[:60])
    contents = [broken_exif.getvalue().replace(b"JFIF", b"JUNK"), big_jpeg()[1][:9000]]
    for name in ("png", "png16", "webp", "bmp", "tiff", "tif16", "raw tif", "jpeg"):
        content = bytearray(container(name))
        contents.append(bytes(content[: len(content) // 2]))
        content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
        contents.append(bytes(content))
    outcomes = []
    for content in contents:
        (tmp_path / "a").write_bytes(content)
        try:
            outcomes.append(read_photo(tmp_path / "a").warnings)
        except PhotoError as error:
            outcomes.append(str(error))
    assert all(isinstance(outcome, tuple) for outcome in outcomes[:2])
    assert any(isinstance(outcome, str) for outcome in outcomes)
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------------------ atomicity


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "a.png"
    write_photo(make_photo(), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("failure", [OSError("no"), ValueError("no"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_things_as_they_were(tmp_path: Path, failure: BaseException) -> None:
    (tmp_path / "old.html").write_text("old")
    for name in ("old.html", "new.html"):
        expected = PhotoError if isinstance(failure, OSError) else type(failure)
        with pytest.raises(expected), atomically(tmp_path / name) as part:
            part.write_text("half")
            assert part.parent == tmp_path
            assert part.name.startswith(".")
            assert part.name.endswith(".oldphoto-part")
            raise failure
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "old"
    with atomically(tmp_path / "old.html") as part:
        part.write_text("new")
        assert (tmp_path / "old.html").read_text() == "old"
    assert (tmp_path / "old.html").read_text() == "new"


@pytest.mark.parametrize("name", list(OUTPUT_SUFFIX))
def test_a_failing_encoder_leaves_things_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / f"a.{name}"
    path.write_bytes(b"the old file")
    for bad in (np.zeros((0, 5, 3), np.float32), np.zeros((4, 5, 7), np.float32), np.zeros(9, np.float32)):
        with pytest.raises(PhotoError, match=f"a.{name}"):
            write_photo(make_photo(rgb=bad), path)

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("out of luck")

    for place in ("imagecodecs.png_encode", "imagecodecs.jpeg8_encode", "tifffile.TiffWriter", "PIL.Image.Image.save"):
        monkeypatch.setattr(place, fail)
    with pytest.raises(PhotoError, match=f"a.{name}: .*out of luck"):
        write_photo(make_photo(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"the old file"


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_photo(make_photo(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to set")
def test_a_full_disk_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from oldphoto.errors import PhotoError
        from oldphoto.imagefile import Photo, write_photo
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        noise = np.random.default_rng(0).random((64, 64, 3), np.float32)
        try:
            write_photo(Photo(noise), Path(sys.argv[1]))
        except PhotoError as error:
            print(error)
        """
    )
    path = tmp_path / "a.png"
    result = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert str(path) in result.stdout
    assert "cannot be written" in result.stdout
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(PhotoError, match=r"a\.png: cannot be written"):
        write_photo(make_photo(), tmp_path / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(PhotoError, match=r"b\.png: cannot be written"):
        write_photo(make_photo(), tmp_path / "file" / "b.png")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "file"]


def test_the_longest_file_name(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".png")
    write_photo(make_photo(), path)
    assert path.exists()


# ---------------------------------------------------------------------------------------------------------------- masks


@quick
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_masks_come_back(tmp_path: Path, height: int, width: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width))
    write_mask((levels / 255).astype(np.float32), tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.dtype == np.float32
    assert np.array_equal(np.rint(mask * 255), levels)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "L"


def test_any_image_is_a_mask_by_its_luminance(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    luminance = COLOUR @ np.array([0.299, 0.587, 0.114]) / 255
    assert np.allclose(read_mask(tmp_path / "a.png"), luminance, atol=1e-5)
    Image.new("RGB", (3, 2), "white").save(tmp_path / "b.bmp")
    mask = read_mask(tmp_path / "b.bmp")
    assert mask.shape == (2, 3)
    assert mask.min() > 0.9999
    assert mask.max() <= 1


def test_what_is_transparent_is_not_damaged(tmp_path: Path) -> None:
    strokes = np.full((4, 4, 4), 255, np.uint8)
    strokes[:2, :, 3] = 0
    Image.fromarray(strokes).save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert np.all(mask[:2] == 0)
    assert np.all(mask[2:] > 0.9999)


def test_a_mask_turns_with_its_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRAY).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.rint(read_mask(tmp_path / "a.png") * 255), np.rot90(GRAY, -1))
