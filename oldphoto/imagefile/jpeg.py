"""JPEG: what decodes of a truncated file, and an encoder that grainy photos do not overflow.

Pillow's encoder has a fixed buffer when it optimises, which fine grain at high quality exceeds ("broken data stream");
so the picture is encoded by imagecodecs and the metadata segments are put in here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from io import BytesIO

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from oldphoto.errors import PhotoError
from oldphoto.imagefile import exif as exif_block
from oldphoto.imagefile.photo import Extra, Raster, aspect_left_out
from oldphoto.imagefile.photoshop import name_of, without_thumbnails

SIGNATURE = b"\xff\xd8\xff"
SEGMENT_LIMIT = 65533
"""Bytes that one metadata segment can hold: EXIF and XMP have to fit into one."""

XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
_ICC_PREFIX = b"ICC_PROFILE\0"
_ICC_PART = SEGMENT_LIMIT - len(_ICC_PREFIX) - 2
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_RESOURCES = b"Photoshop 3.0\0"
_RESOURCES_PART = SEGMENT_LIMIT - len(_RESOURCES)
_APP0, _APP1, _APP2, _APP13, _COMMENT, _SCAN = 0xE0, 0xE1, 0xE2, 0xED, 0xFE, 0xDA
_BARE = (0x01, *range(0xD0, 0xDA))  # markers without a segment
_KNOWN: dict[int, tuple[bytes, ...]] = {  # what the segments of programs begin with that are read, or describe the file
    _APP0: (b"",),
    _APP1: (exif_block.PREFIX, XMP_PREFIX, _EXTENDED_XMP),
    _APP2: (_ICC_PREFIX, b"MPF\0"),
    0xEC: (b"Ducky",),
    _APP13: (_RESOURCES, b"Adobe_CM"),
    0xEE: (b"Adobe",),
}
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # but for those within the picture's data
# Where the frame begins: also behind garbage, and hardly ever by chance within metadata.
_LOSSLESS = re.compile(rb"\xff[\xc3\xc7\xcb\xcf]\0.[\2-\x10]", re.DOTALL)
_PADDING = b"\0\r\n \xff"  # that some programs fill files up with
_NOT_OF_THE_PICTURE = "bad ICC marker"
_END_OF_IMAGE = b"\xff\xd9"
_BLOCK_ROWS = 16  # rows that are coded together
_MISSING = (127, 128)  # what the decoder leaves where data is missing: middle gray, inverted or not


class _Jpeg(JpegImageFile):
    """Pillow's reader without its search for a resolution in EXIF, which warns about damaged EXIF on stderr."""

    def _read_dpi_from_exif(self) -> None:
        pass


def size(data: bytes) -> tuple[int, int]:
    """Return width and height by the header alone.

    Raises
    ------
    PhotoError
        With a message that still lacks the file's name, if the samples have other than 8 bits.
    """
    try:
        return _Jpeg(BytesIO(data)).size
    except SyntaxError as error:
        if bits := re.search(r"(\d+)-bit layers", str(error)):
            raise PhotoError(f"is a JPEG of a kind that is not read ({bits[1]} bits): save it as PNG") from error
        raise


def open_image(data: bytes) -> tuple[Image.Image, list[str]]:
    """Decode a JPEG as far as its data reaches.

    Returns
    -------
    image, warnings
        The decoded picture, and what is missing of it: from which row on, if the file is cut off.

    Raises
    ------
    OSError
        If nothing of the picture decodes, or only part of its first rows.
    """
    image = _Jpeg(BytesIO(data))
    try:
        image.load()
    except OSError:
        # With an end marker the decoder takes what there is for the whole file; Pillow's own switch for this is global.
        image = _Jpeg(BytesIO(data + _END_OF_IMAGE))
        image.load()
        return image, [_describe_truncation(image)]
    return image, _damage_in(data, image)


def _damage_in(data: bytes, image: Image.Image) -> list[str]:
    complaint = complaint_of(data, len(image.getbands()))
    if complaint is None:
        return []
    return [f"damaged: parts of the picture may be missing or wrong ({complaint}); look for an intact copy"]


def complaint_of(data: bytes, channels: int) -> str | None:
    """Return what libjpeg warns of: Pillow and imagecodecs drop it, and show black or gray where a piece is lost."""
    colours = {4: "CMYK", 1: "GRAY"}.get(channels, "RGB")
    # All of the file is read, but only an eighth of the picture is made, save where that would crash the decoder.
    scale = {} if _LOSSLESS.search(data) else {"min_height": 1, "min_width": 1, "min_factor": 8}
    try:
        simplejpeg.decode_jpeg(data, colours, fastdct=True, fastupsample=True, **scale)
    except ValueError as error:
        complaint = str(error).removeprefix("Corrupt JPEG data: ")
        is_damage = complaint != str(error) or complaint.startswith("Premature end")
        if is_damage and complaint != _NOT_OF_THE_PICTURE:
            return complaint
    return None


def _describe_truncation(image: Image.Image) -> str:
    samples = np.asarray(image).reshape(image.height, -1)
    last = image.height
    while last > 0 and np.isin(samples[last - 1], _MISSING).all():
        last -= 1
    if last <= _BLOCK_ROWS < image.height or last == 0:
        raise OSError("truncated within the first rows of the picture")
    if last == image.height:
        return "truncated: the end of the file is missing, the picture may be coarser than it was or lack its last rows"
    return f"truncated: the part below row about {last} of {image.height} is missing in the file"


def extras(data: bytes) -> tuple[Extra, ...]:
    """Return comments, Photoshop's resources with IPTC captions among them, and XMP that goes on from its packet."""
    found: list[Extra] = []
    resources = b""
    for marker, content in _segments(data):
        if marker == _COMMENT:
            found.append(Extra("comment", "jpg", bytes((marker,)), content))
        elif marker == _APP1 and content.startswith(_EXTENDED_XMP):
            found.append(Extra("extended XMP", "jpg", bytes((marker,)), content))
        elif marker == _APP13 and content.startswith(_RESOURCES):
            resources += content.removeprefix(_RESOURCES)
    return (*found, *resource_extras(without_thumbnails(resources)))


def resource_extras(resources: bytes) -> tuple[Extra, ...]:
    """Return the segments that hold Photoshop's resources."""
    parts = [resources[start : start + _RESOURCES_PART] for start in range(0, len(resources), _RESOURCES_PART)]
    name = name_of(resources)
    return tuple(Extra(name, "jpg", bytes((_APP13,)), _RESOURCES + part) for part in parts)


def resources_of(extras: Iterable[Extra]) -> bytes:
    """Return Photoshop's resources that such segments hold."""
    contents = (extra.content for extra in extras if extra.format == "jpg")
    return b"".join(content.removeprefix(_RESOURCES) for content in contents if content.startswith(_RESOURCES))


def left_out(data: bytes, image: Image.Image) -> list[str]:
    """Say what of a file is not read: further pictures, other programs' data, a profile that lacks parts."""
    notes, segments = [], list(_segments(data))
    has_profile = any(marker == _APP2 and content.startswith(_ICC_PREFIX) for marker, content in segments)
    if has_profile and not image.info.get("icc_profile"):
        notes.append("damaged colour profile left out")
    if sum(content.startswith(XMP_PREFIX) for marker, content in segments if marker == _APP1) > 1:
        notes.append("all XMP packets but one left out")
    if image.info.get("jfif_unit") == 0:
        notes += aspect_left_out(*image.info["jfif_density"])
    others = sorted({marker - _APP0 for marker, content in segments if _is_unknown(marker, content)})
    notes += [f"data of another program (APP{number}) left out" for number in others]
    behind = data[_end_of_picture(data) :]
    if behind.lstrip(b"\0\r\n").startswith(SIGNATURE):
        notes.append("further pictures behind the first left out")
    elif behind.strip(_PADDING):
        notes.append(f"{len(behind):,} bytes behind the picture left out: a film, a sound or another program's data")
    return notes


def _is_unknown(marker: int, content: bytes) -> bool:
    known = _KNOWN.get(marker, () if _APP0 <= marker <= _APP0 + 15 else (b"",))
    return not content.startswith(known)


def _end_of_picture(data: bytes) -> int:
    """Return where the file goes on behind the mark that ends its picture; its size if there is none."""
    found = _MARKER.search(data, 2)
    while found is not None and found[0] != _END_OF_IMAGE:
        size = int.from_bytes(data[found.end() : found.end() + 2], "big") if found[0][1] not in _BARE else 0
        found = _MARKER.search(data, found.end() + size)
    return len(data) if found is None else found.end()


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment before the picture's data; nothing more where the chain is broken."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != _SCAN:
        marker = data[start + 1]
        if marker == 0xFF:  # a filling byte
            start += 1
        elif marker in _BARE:
            start += 2
        else:
            end = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
            yield marker, data[start + 4 : end]
            start = end


def density(image: Image.Image) -> tuple[float, float] | None:
    """Return the JFIF resolution in pixels an inch; Pillow's info["dpi"] says 72 where the file says nothing."""
    unit_scale = {1: 1.0, 2: 2.54}.get(image.info.get("jfif_unit", 0))
    x, y = image.info.get("jfif_density", (0, 0))
    return None if unit_scale is None or not x or not y else (x * unit_scale, y * unit_scale)


def encode(raster: Raster, quality: int) -> bytes:
    """Encode 8-bit gray or RGB as a baseline JPEG; from quality 90 on the colours keep their full resolution."""
    data = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(raster.pixels), level=quality, subsampling="444" if quality >= 90 else "420", optimize=True
    )
    jfif_end = 4 + struct.unpack_from(">H", data, 4)[0]
    return b"".join((data[:2], _jfif(raster), *_metadata_segments(raster), data[jfif_end:]))


def _jfif(raster: Raster) -> bytes:
    """Return the segment with the resolution, in whole dots an inch or, where that fits better, a centimetre."""
    unit, density, dpi = 0, (1, 1), raster.dpi
    if dpi is not None:
        choices = [(1, dpi), (2, (dpi[0] / 2.54, dpi[1] / 2.54))]
        unit, exact = min(choices, key=lambda choice: sum(abs(value - round(value)) > 0.02 for value in choice[1]))
        density = (round(exact[0]), round(exact[1]))
        if not all(0 < value < 65536 for value in density):
            unit, density = 0, (1, 1)
            raster.warnings.append(f"resolution of {dpi[0]:g} by {dpi[1]:g} dpi left out: JPEG holds 1 to 65535")
        elif max(abs(value - round(value)) for value in exact) > 0.02:
            raster.warnings.append(f"resolution rounded from {dpi[0]:g} by {dpi[1]:g} dpi: JPEG holds whole numbers")
    return _segment(_APP0, b"JFIF\0\x01\x01" + struct.pack(">BHHBB", unit, *density, 0, 0))


def _metadata_segments(raster: Raster) -> list[bytes]:
    segments = []
    if raster.exif is not None:
        segments.append(_segment(_APP1, exif_block.PREFIX + raster.exif.removeprefix(exif_block.PREFIX)))
    if raster.xmp is not None:
        segments.append(_segment(_APP1, XMP_PREFIX + raster.xmp))
    if raster.icc is not None:
        parts = [raster.icc[start : start + _ICC_PART] for start in range(0, len(raster.icc), _ICC_PART)]
        for number, part in enumerate(parts, start=1):
            segments.append(_segment(_APP2, _ICC_PREFIX + bytes((number, len(parts))) + part))
    segments += [_segment(extra.kind[0], extra.content) for extra in raster.extras]
    return segments


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
