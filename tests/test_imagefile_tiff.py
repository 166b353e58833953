"""TIFF as scanners, fax machines and old software write it: read whole, or refused with the reason."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data
from test_imagefile import COLOUR, GRAY, SRGB, assert_refused, bytes_of, full_exif, make_photo

from oldphoto.imagefile import open_photo, read_photo, write_pages, write_photo

LARGE = np.ascontiguousarray(data.astronaut()[:256, 128:384])
BLACK_AND_WHITE = LARGE[..., 1] > 110


def damaged(path: Path, kind: str) -> bytes:
    """The same file with a hole in its last strip or tile, or with half of that strip's bytes disowned."""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        start, size = page.dataoffsets[-1], page.databytecounts[-1]
        counts = page.tags[325 if page.is_tiled else 279]
    if kind == "hole":
        content[start + size // 2 : start + size // 2 + size // 4] = bytes(size // 4)
    else:
        width = counts.valuebytecount // counts.count
        end = counts.valueoffset + counts.valuebytecount
        content[end - width : end] = (size // 2).to_bytes(width, "little")
    return bytes(content)


COMPRESSED: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "jpeg": (LARGE, {"compression": "jpeg"}),
    "jpeg, gray": (LARGE[..., 1], {"compression": "jpeg"}),
    "ccitt": (BLACK_AND_WHITE, {"compression": "tiff_ccitt"}),
    "group 3": (BLACK_AND_WHITE, {"compression": "group3"}),
    "group 3, two-dimensional": (BLACK_AND_WHITE, {"compression": "group3", "tiffinfo": {292: 5}}),
    "group 4": (BLACK_AND_WHITE, {"compression": "group4"}),
    "group 4, several strips": (BLACK_AND_WHITE, {"compression": "group4", "tiffinfo": {278: 50}}),
    "group 4, bits reversed": (BLACK_AND_WHITE, {"compression": "group4", "tiffinfo": {266: 2}}),
}


@pytest.mark.parametrize("kind", ["hole", "cut"])
@pytest.mark.parametrize("name", list(COMPRESSED))
def test_damage_that_decoders_pass_over_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    samples, options = COMPRESSED[name]
    Image.fromarray(samples).save(tmp_path / "a.tif", **options)
    whole = read_photo(tmp_path / "a.tif").rgb * 255
    assert np.abs(whole - (samples * 255 if samples.dtype == bool else samples).reshape(256, 256, -1)).mean() < 4
    (tmp_path / "b.tif").write_bytes(damaged(tmp_path / "a.tif", kind))
    assert_refused(tmp_path / "b.tif", "is damaged")


@pytest.mark.parametrize("kind", ["hole", "cut"])
def test_damaged_tiles_of_jpeg_are_refused(tmp_path: Path, kind: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LARGE, photometric="rgb", tile=(64, 64), compression="jpeg")
    assert np.abs(read_photo(tmp_path / "a.tif").rgb * 255 - LARGE).mean() < 4
    (tmp_path / "b.tif").write_bytes(damaged(tmp_path / "a.tif", kind))
    assert_refused(tmp_path / "b.tif", "is damaged")


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
def test_damaged_ycbcr_is_refused(tmp_path: Path, compression: str) -> None:
    Image.fromarray(COLOUR).convert("YCbCr").save(tmp_path / "a.tif", compression=compression)
    assert np.abs(read_photo(tmp_path / "a.tif").rgb * 255 - COLOUR).max() <= 3
    (tmp_path / "b.tif").write_bytes(damaged(tmp_path / "a.tif", "cut"))
    assert_refused(tmp_path / "b.tif", "is damaged")


@pytest.mark.parametrize("factor", [1, 256, 257], ids=["8-bit", "16-bit, low byte empty", "16-bit"])
def test_palettes_of_any_writer_give_their_colours(tmp_path: Path, factor: int) -> None:
    image = Image.fromarray(COLOUR).quantize(40)
    palette = np.zeros((3, 256), np.uint16)
    colours = np.array(image.getpalette(), np.uint16).reshape(-1, 3)
    palette[:, : len(colours)] = colours.T * factor
    tifffile.imwrite(tmp_path / "a.tif", np.asarray(image), photometric="palette", colormap=palette)
    assert np.array_equal(bytes_of(read_photo(tmp_path / "a.tif")), np.asarray(image.convert("RGB")))


def test_a_mask_in_a_page_of_its_own_is_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(COLOUR, photometric="rgb")
        writer.write(COLOUR[..., 0] > 99, photometric=4, subfiletype=4)
        writer.write(COLOUR[::-1], photometric="rgb")
    file = open_photo(tmp_path / "a.tif")
    assert file.pages == 2
    assert file.page(0).warnings == ("transparency masks, which are pages of their own, left out",)
    assert file.page(1).warnings == ()


@pytest.mark.parametrize("kinds", [(0, 2), (2, 0), (0, 0, 2)])
def test_alpha_is_found_among_other_channels(tmp_path: Path, kinds: tuple[int, ...]) -> None:
    alpha = np.ascontiguousarray(COLOUR[::-1, :, 0])
    others = [alpha if kind == 2 else np.zeros_like(alpha) for kind in kinds]
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": "contig", "extrasamples": kinds}
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([COLOUR, *others]), **options)
    photo = read_photo(tmp_path / "a.tif")
    assert np.array_equal(bytes_of(photo), COLOUR)
    assert np.array_equal(photo.alpha, alpha)
    assert photo.warnings == (f"{len(kinds) - 1} extra channel(s) of unknown meaning left out",)


def test_subsampled_colours_without_compression_are_refused_with_the_reason(tmp_path: Path) -> None:
    blocks = np.full((24, 30, 6), 128, np.uint8)  # four Y, one Cb, one Cr each
    tifffile.imwrite(tmp_path / "a.tif", blocks.reshape(24, 60, 3), photometric="ycbcr")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        for name, value in (
            ("ImageWidth", 60),
            ("ImageLength", 48),
            ("RowsPerStrip", 48),
            ("YCbCrSubSampling", (2, 2)),
        ):
            tiff.pages[0].tags[name].overwrite(value)
    assert_refused(tmp_path / "a.tif", r"of a kind that is not read \(uncompressed, subsampled YCbCr\): save it as RGB")


def test_a_page_of_an_imagej_stack_can_be_opened_alone(tmp_path: Path) -> None:
    stack = np.stack([GRAY, GRAY[::-1], GRAY])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True)
    file = open_photo(tmp_path / "a.tif")
    pages = [file.page(index) for index in range(3)]
    told = ("description by ImageJ left out: it speaks of another number of pages",)
    assert write_pages(pages[:1], tmp_path / "b.tif", "tif").warnings == told
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), GRAY)
    assert write_pages(pages, tmp_path / "c.tif", "tif").warnings == ()
    assert np.array_equal(tifffile.imread(tmp_path / "c.tif"), stack)
    with tifffile.TiffFile(tmp_path / "c.tif") as tiff:
        assert tiff.pages[0].description.startswith("ImageJ=")


def test_a_tiff_that_is_cut_off_within_its_metadata_is_not_taken_for_whole(tmp_path: Path) -> None:
    """They stand behind the pixels: a copy that was interrupted loses them alone."""
    photo = make_photo(exif=full_exif(), icc=SRGB, dpi=(600.0, 600.0))
    write_photo(photo, tmp_path / "a.tif")
    content, whole = (tmp_path / "a.tif").read_bytes(), read_photo(tmp_path / "a.tif")
    assert (whole.warnings, whole.icc, whole.dpi) == ((), SRGB, (600.0, 600.0))
    for lost in (1, 10, 90, 120, 300, 600, 700, 1000, len(content) // 4):
        (tmp_path / "cut.tif").write_bytes(content[:-lost])
        if lost < 100:  # only directories of their own lose something
            assert read_photo(tmp_path / "cut.tif").warnings == ("damaged GPS position left out",)
        else:
            assert_refused(tmp_path / "cut.tif", "truncated|damaged")


def test_exif_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    write_photo(make_photo(exif=full_exif()), tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index(struct.pack(">HHI", 34665, 4, 1))
    struct.pack_into(">I", content, at + 8, 99_999_999)
    (tmp_path / "a.tif").write_bytes(content)
    assert read_photo(tmp_path / "a.tif").warnings == ("damaged EXIF left out",)


def test_pages_of_both_byte_orders_make_one_file(tmp_path: Path) -> None:
    for name, order in (("little.tif", "<"), ("big.tif", ">")):
        tags = [(40000, 3, 2, (1, 2), True), (40001, 5, 1, (7, 3), True), (40002, 2, 0, "scanned 1998", True)]
        tifffile.imwrite(tmp_path / name, COLOUR, photometric="rgb", byteorder=order, extratags=tags)
    photos = [read_photo(tmp_path / name) for name in ("little.tif", "big.tif")]
    write_pages(photos, tmp_path / "both.tif", "tif")
    with tifffile.TiffFile(tmp_path / "both.tif") as tiff:
        for page in tiff.pages:
            assert [page.tags[number].value for number in (40000, 40001, 40002)] == [(1, 2), (7, 3), "scanned 1998"]


@pytest.mark.parametrize("kind", [3, 4, 11, 12])
def test_a_resolution_of_another_type_of_number_is_read(tmp_path: Path, kind: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", resolution=(7, 7), resolutionunit=2)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    packed = struct.pack({3: "<H2x", 4: "<I", 11: "<f", 12: "<d"}[kind], 300)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        places = [tiff.pages[0].tags[number].offset for number in (282, 283)]
    for place in places:
        struct.pack_into("<HI", content, place + 2, kind, 1)
        content[place + 8 : place + 12] = packed if len(packed) == 4 else struct.pack("<I", len(content))
    (tmp_path / "a.tif").write_bytes(bytes(content) + packed)
    assert read_photo(tmp_path / "a.tif").dpi == (300.0, 300.0)


def test_a_strip_that_expands_without_measure_is_refused_before_it_does(tmp_path: Path) -> None:
    strip = zlib.compress(bytes(300_000_000))
    tags = [(530, 3, 2, (2, 2), True)]
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="ycbcr", compression="zlib", extratags=tags)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages[0]
        places = {number: page.tags[number].valueoffset for number in (273, 279)}
    content = bytearray((tmp_path / "a.tif").read_bytes())
    struct.pack_into("<I", content, places[273], len(content))
    struct.pack_into("<I", content, places[279], len(strip))
    (tmp_path / "a.tif").write_bytes(content + strip)
    tracemalloc.start()
    assert_refused(tmp_path / "a.tif", "damaged")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_further_pictures_and_data_of_other_programs_are_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(COLOUR, photometric="rgb", subifds=1, metadata=None, extratags=[(42113, 2, 0, "0", True)])
        writer.write(COLOUR[::-1], photometric="rgb", metadata=None)
    with tifffile.TiffWriter(tmp_path / "b.tif", bigtiff=True) as writer:
        writer.write(COLOUR, photometric="rgb", metadata=None, extratags=[(65001, 16, 1, 5, True)])
    assert read_photo(tmp_path / "a.tif").warnings == (
        "a further picture, which is a page below this one, left out",
        "data of GDAL left out",
    )
    assert read_photo(tmp_path / "b.tif").warnings == ("tags of 64 bits left out",)
