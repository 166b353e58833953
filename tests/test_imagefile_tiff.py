"""TIFF as scanners, fax machines and old software write it: read whole, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data
from test_imagefile import COLOUR, GRAY, assert_refused, bytes_of

from oldphoto.imagefile import open_photo, read_photo, write_pages

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
