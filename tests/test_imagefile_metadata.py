"""What a file says besides its pixels: broken, it costs no photo; whole, it is carried or named."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image, IptcImagePlugin
from test_imagefile import COLOUR, SRGB, assert_refused, bytes_of, full_exif, load_exif, make_photo

from oldphoto.imagefile import exif as exif_block
from oldphoto.imagefile import read_photo, write_photo

DAMAGED_EXIF = ("damaged EXIF left out",)


def png_with(name: bytes, content: bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "PNG")
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return stream.getvalue()[:33] + chunk + stream.getvalue()[33:]


def directory(*entries: tuple[int, int, int, int]) -> bytes:
    """A little-endian TIFF structure of one directory with these tags: number, type, count, value or offset."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


# -------------------------------------------------------------------------------------------------- hostile and broken


def test_tags_that_all_claim_the_same_bytes_take_no_memory(tmp_path: Path) -> None:
    block = directory(*((50_000 + index, 7, 1_000_000, 8) for index in range(2000))) + bytes(1_000_000)
    (tmp_path / "a.png").write_bytes(png_with(b"eXIf", block))
    before = psutil.Process().memory_info().rss
    photo = read_photo(tmp_path / "a.png")
    assert photo.warnings == DAMAGED_EXIF
    assert np.array_equal(bytes_of(photo), COLOUR)
    shape = ((256, 4, 1, 1000), (257, 4, 1, 1000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8))
    claims = tuple((50_000 + index, 7, 1_000_000, 8) for index in range(2000))
    (tmp_path / "a.tif").write_bytes(directory(*shape, (279, 4, 1, 1_000_000), *claims) + bytes(1_000_000))
    assert_refused(tmp_path / "a.tif", "claim more bytes than there are")
    if sys.platform == "linux":
        assert psutil.Process().memory_info().rss - before < 200 * 2**20


def test_directories_that_contain_themselves_take_no_time(tmp_path: Path) -> None:
    block = directory(*((34665 + index % 2 * 188, 4, 1, 8) for index in range(5000)))
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    assert read_photo(tmp_path / "a.jpg").rgb.shape == COLOUR.shape


def test_values_that_two_tags_share_are_read() -> None:
    block = directory((282, 5, 1, 50), (283, 5, 1, 50), (296, 3, 1, 2)).ljust(50, b"\0") + struct.pack("<II", 300, 1)
    layout, root = exif_block.open_exif(b"Exif\0\0" + block)
    assert exif_block.resolution(root, layout) == (300.0, 300.0)


@pytest.mark.parametrize("block", [b"II+\0", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0" + bytes(7), b"II*\0"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_that_ends_in_its_header_is_left_out(tmp_path: Path, block: bytes, suffix: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / f"a{suffix}", exif=b"Exif\0\0" + block)
    photo = read_photo(tmp_path / f"a{suffix}")
    assert (photo.exif, photo.warnings) == (None, DAMAGED_EXIF)


def test_exif_in_a_text_of_a_png_is_read(tmp_path: Path) -> None:
    exif = full_exif(6)
    text = f"\nexif\n{len(exif):8d}\n{exif.hex()}\n".encode()
    (tmp_path / "a.png").write_bytes(png_with(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))
    photo = read_photo(tmp_path / "a.png")
    assert photo.rgb.shape == (60, 48, 3)
    assert load_exif(photo.exif)[0x010F] == "Agfa"


BAD_TEXTS = ["\nexif\n 9\nno hexa\n", "\nexif\n 3\n49492a\n", "\nexif\n 9\n45786\n"]


@pytest.mark.parametrize("text", ["", "\nexif\n", *BAD_TEXTS])
def test_damaged_exif_in_a_text_of_a_png_costs_no_photo(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_bytes(png_with(b"tEXt", b"Raw profile type exif\0" + text.encode()))
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(bytes_of(photo), COLOUR)
    assert photo.exif is None
    assert photo.warnings == (DAMAGED_EXIF if text in BAD_TEXTS else ())


# ----------------------------------------------------------------------------------------------- what else a JPEG holds


def jpeg_of(samples: np.ndarray = COLOUR, *segments: tuple[int, bytes], **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(samples).save(stream, "JPEG", **options)
    made = b"".join(struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content for kind, content in segments)
    return stream.getvalue()[:2] + made + stream.getvalue()[2:]


def warnings_of(path: Path, content: bytes) -> tuple[str, ...]:
    path.write_bytes(content)
    return read_photo(path).warnings


@pytest.mark.parametrize("progressive", [False, True])
def test_further_pictures_and_films_behind_a_jpeg_are_named(tmp_path: Path, progressive: bool) -> None:
    whole = jpeg_of(progressive=progressive, exif=full_exif(), comment=b"a \xff\xd9 is no end here")
    assert warnings_of(tmp_path / "a.jpg", whole) == ()
    assert warnings_of(tmp_path / "a.jpg", whole + b"\r\n" + bytes(100)) == ()
    (pictures,) = warnings_of(tmp_path / "a.jpg", whole + jpeg_of(COLOUR[::-1]))
    assert pictures == "further pictures behind the first left out"
    (film,) = warnings_of(tmp_path / "a.jpg", whole + b"\0\0\0\x18ftypmp42" + b"film" * 100)
    assert film.startswith("412 bytes behind the picture left out")


def test_pictures_of_several_kinds_in_one_jpeg_are_named(tmp_path: Path) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    frames[0].save(tmp_path / "a.mpo", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.mpo").read_bytes()
    assert warnings_of(tmp_path / "a.jpg", content) == ("further pictures behind the first left out",)


def test_data_of_other_programs_in_a_jpeg_are_named(tmp_path: Path) -> None:
    content = jpeg_of(COLOUR, (0xEB, b"JP\0\1c2pa"), (0xEB, b"JP\0\2c2pa"), (0xE2, b"FPXR\0"), (0xEC, b"Ducky\0\1"))
    assert warnings_of(tmp_path / "a.jpg", content) == (
        "data of another program (APP2) left out",
        "data of another program (APP11) left out",
    )


def test_a_profile_that_lacks_parts_is_named(tmp_path: Path) -> None:
    whole = jpeg_of(icc_profile=SRGB)
    assert warnings_of(tmp_path / "a.jpg", whole) == ()
    part = whole.replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2")
    assert warnings_of(tmp_path / "a.jpg", part) == ("damaged colour profile left out",)


# ---------------------------------------------------------------------------------------------------------- resolution


@pytest.mark.parametrize("dots", [105, 118, 237])
def test_a_resolution_in_dots_a_centimetre_stays(tmp_path: Path, dots: int) -> None:
    jfif = bytearray(jpeg_of(dpi=(dots, dots)))
    jfif[13] = 2
    (tmp_path / "a.jpg").write_bytes(jfif)
    for name in ("b.jpg", "c.tif", "d.jpg"):
        photo = read_photo(tmp_path / "a.jpg")
        assert write_photo(photo, tmp_path / name) == ()
        assert read_photo(tmp_path / name).dpi == pytest.approx((dots * 2.54, dots * 2.54), abs=0.02)


def test_a_resolution_that_jpeg_cannot_hold_is_named(tmp_path: Path) -> None:
    (rounded,) = write_photo(make_photo(dpi=(300.4, 300.4)), tmp_path / "a.jpg")
    assert rounded == "resolution rounded from 300.4 by 300.4 dpi: JPEG holds whole numbers"
    assert read_photo(tmp_path / "a.jpg").dpi == (300.0, 300.0)
    (lost,) = write_photo(make_photo(dpi=(0.4, 0.4)), tmp_path / "a.jpg")
    assert lost.startswith("resolution of 0.4 by 0.4 dpi left out")
    (lost,) = write_photo(make_photo(dpi=(170_000.0, 170_000.0)), tmp_path / "a.jpg")
    assert "left out" in lost


def test_the_shape_of_pixels_without_a_resolution_is_named(tmp_path: Path) -> None:
    jfif = bytearray(jpeg_of(dpi=(2, 1)))
    jfif[13] = 0
    (tmp_path / "a.jpg").write_bytes(jfif)
    (tmp_path / "a.png").write_bytes(png_with(b"pHYs", struct.pack(">IIB", 2, 1, 0)))
    none = tifffile.RESUNIT.NONE
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", resolution=(2, 1), resolutionunit=none)
    for name in ("a.jpg", "a.png", "a.tif"):
        photo = read_photo(tmp_path / name)
        assert photo.dpi is None
        assert photo.warnings == ("the shape of the pixels (2:1) left out: the file states no resolution with it",)
    (tmp_path / "b.png").write_bytes(png_with(b"pHYs", struct.pack(">IIB", 5, 5, 0)))
    assert read_photo(tmp_path / "b.png").warnings == ()


# ------------------------------------------------------------------------------------------------------------- captions


@pytest.mark.parametrize("tags", ["IPTC", "Photoshop", "both"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_the_captions_of_a_tiff_are_found_in_a_jpeg(tmp_path: Path, tags: str, byteorder: Any) -> None:
    caption = b"\x1c\x02\x78" + struct.pack(">H", 9) + b"Oma Erna!"
    resources = b"8BIM" + struct.pack(">HHI", 1028, 0, len(caption)) + caption
    extratags = [(33723, 7, len(caption), caption, True), (34377, 7, len(resources), resources, True)]
    chosen = {"IPTC": extratags[:1], "Photoshop": extratags[1:], "both": extratags}[tags]
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", byteorder=byteorder, extratags=chosen)
    photo = read_photo(tmp_path / "a.tif")
    assert write_photo(photo, tmp_path / "b.jpg") == ()
    write_photo(read_photo(tmp_path / "b.jpg"), tmp_path / "c.jpg")
    for name in ("b.jpg", "c.jpg"):
        with Image.open(tmp_path / name) as image:
            assert IptcImagePlugin.getiptcinfo(image) == {(2, 120): b"Oma Erna!"}
        assert (tmp_path / name).read_bytes().count(b"Photoshop 3.0") == 1
    for suffix in ("png", "webp"):
        assert any(warning.startswith("IPTC") for warning in write_photo(photo, tmp_path / f"b.{suffix}"))


# ---------------------------------------------------------------------------------------------------- the other formats


def bmp_with_profile(profile: bytes, kind: int = 0x4D424544) -> bytes:
    """A BMP of version 5 that ends in a colour profile."""
    height, width = COLOUR.shape[:2]
    pixels = COLOUR[::-1, :, ::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(pixels), 11811, 11811, 0, 0) + bytes(16)
    head += struct.pack("<I", kind) + bytes(48) + struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(profile), 0, 0, 138) + head + pixels + profile


def test_the_profile_of_a_bmp_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(bmp_with_profile(SRGB))
    photo = read_photo(tmp_path / "a.bmp")
    assert np.array_equal(bytes_of(photo), COLOUR)
    assert photo.icc == SRGB
    assert write_photo(photo, tmp_path / "b.png") == ()
    assert write_photo(photo, tmp_path / "b.bmp") == ("ICC left out: BMP holds none",)


def test_a_profile_of_a_bmp_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(bmp_with_profile(SRGB)[:-20])
    assert read_photo(tmp_path / "a.bmp").warnings == ("damaged colour profile left out",)
    (tmp_path / "a.bmp").write_bytes(bmp_with_profile(b"scanner.icc", kind=0x4C494E4B))
    assert read_photo(tmp_path / "a.bmp").warnings == ("colour profile left out: the file names another that holds it",)


def test_a_lossless_webp_stays_so(tmp_path: Path) -> None:
    for lossless in (False, True):
        Image.fromarray(COLOUR).save(tmp_path / "a.webp", lossless=lossless)
        photo = read_photo(tmp_path / "a.webp")
        write_photo(photo, tmp_path / "b.webp")
        again = read_photo(tmp_path / "b.webp")
        assert np.array_equal(bytes_of(again), bytes_of(photo)) == lossless
        assert (b"VP8L" in (tmp_path / "b.webp").read_bytes()) == lossless


def test_what_else_a_webp_holds_is_named(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.webp", exif=Image.Exif().tobytes())
    content = bytearray((tmp_path / "a.webp").read_bytes())
    content += b"C2PA" + struct.pack("<I", 6) + b"signed"
    content[4:8] = struct.pack("<I", len(content) - 8)
    (tmp_path / "a.webp").write_bytes(content + b"a film")
    assert read_photo(tmp_path / "a.webp").warnings == (
        "data of another program (C2PA) left out",
        "6 bytes behind the picture left out",
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("dpi", [(5e9, 300.0), (300.0, 1e-6), (5.4e7, 5.4e7)])
def test_a_resolution_beyond_all_measure_costs_no_photo(tmp_path: Path, suffix: str, dpi: tuple[float, float]) -> None:
    (told,) = write_photo(make_photo(dpi=dpi), tmp_path / f"a{suffix}")
    assert "dpi left out" in told
    assert bytes_of(read_photo(tmp_path / f"a{suffix}")).shape == COLOUR.shape


def test_xmp_that_is_long_by_its_padding_alone_goes_into_a_jpeg(tmp_path: Path) -> None:
    packet = b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/">Oma</x:xmpmeta>'
    photo = make_photo(xmp=packet + 70_000 * b" " + b'<?xpacket end="w"?>')
    assert write_photo(photo, tmp_path / "a.jpg") == ()
    assert read_photo(tmp_path / "a.jpg").xmp == packet + b'\n<?xpacket end="w"?>'
