"""EXIF and TIFF directories: read, set upright, carried between containers.

EXIF is a small TIFF file: a header, then directories of tags that may point to further directories. Pillow rebuilds
such a structure with types of its own choice; here values keep their bytes, and an EXIF block that only needs its
orientation reset is patched in place, so that maker notes, which point into the block, stay readable.
"""

from __future__ import annotations

import dataclasses
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from typing import BinaryIO

from oldphoto.imagefile.photo import per_inch

PREFIX = b"Exif\0\0"
LONGEST = 2**32 - 2
"""Bytes that a block can have: its offsets have 32 bits."""

EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
PROCESSING_SOFTWARE, SOFTWARE = 11, 305
WIDTH, HEIGHT, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 256, 257, 274, 282, 283, 296
XMP, IPTC, ICC = 700, 33723, 34675
_EXIF_WIDTH, _EXIF_HEIGHT = 40962, 40963

ASCII, SHORT, LONG, RATIONAL = 2, 3, 4, 5
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", SHORT: "H", LONG: "I", 13: "I", 16: "Q", 18: "Q"}
_NUMBERS = {SHORT: "H", LONG: "I", RATIONAL: "II", 11: "f", 12: "d"}
_LARGEST = 2**32 - 1  # part of a ratio
_MAX_DEPTH = 4
_SHARED_BYTES = 2**16  # that tags may have in common with others, as some writers let equal values have

STRUCTURAL = frozenset(
    # How one particular TIFF file stores its pixels, other directories, layers and previews of the unrestored picture.
    {254, 255, WIDTH, HEIGHT, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291}
    | {
        X_RESOLUTION,
        Y_RESOLUTION,
        292,
        293,
        RESOLUTION_UNIT,
        297,
        317,
        320,
        321,
        322,
        323,
        324,
        325,
        330,
        332,
        333,
        334,
    }
    | {336, 337, 338, 339, 340, 341, 342, 347, *range(512, 522), 529, 530, 531, 532, XMP, 32995, 32996, 32997, 32998}
    | {ICC, 34377, 37724, 42112, 42113, 50838, 50839}
)


@dataclass(frozen=True)
class Layout:
    """How a TIFF structure writes numbers: byte order ("<" or ">"), and 64-bit offsets in a BigTIFF."""

    order: str = "<"
    big: bool = False

    @property
    def offset(self) -> struct.Struct:
        """The type of offsets and value counts."""
        return struct.Struct(self.order + ("Q" if self.big else "I"))

    @property
    def length(self) -> struct.Struct:
        """The type of the number of entries that a directory begins with."""
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def entry(self) -> struct.Struct:
        """One entry: tag, type, count, value or its offset."""
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))


@dataclass(frozen=True)
class Tag:
    """A value as its bytes, and where in the file they stand."""

    kind: int
    count: int
    data: bytes
    at: int = -1


@dataclass
class Directory:
    """The tags of one directory and the directories it points to, both by tag number; which of them are damaged."""

    tags: dict[int, Tag] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)
    next_at: int = -1  # where the offset of the next directory stands


class _Source:
    """A file that gives no more bytes altogether than it has: hostile tags all claim the same."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._left = self.size + _SHARED_BYTES

    def read(self, start: int, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ValueError("directories claim more bytes than there are")
        self._file.seek(start)
        return self._file.read(size)


def read_tree(file: BinaryIO, start: int | None = None) -> tuple[Layout, Directory]:
    """Read a directory of a TIFF structure and those below it, by default the first, else that at offset `start`.

    Raises
    ------
    ValueError
        If the header or the first directory is damaged, or values lie over each other. A damaged tag or child is left
        out, and named in ``damaged``.
    """
    source = _Source(file)
    head = source.read(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("no TIFF header")
    layout = Layout(order, big=struct.unpack(order + "H", head[2:4])[0] == 43)
    if layout.big and len(head) < 16:
        raise ValueError("TIFF header cut off")
    if start is None:
        start = layout.offset.unpack_from(head, 8 if layout.big else 4)[0]
    return layout, _read_directory(source, start, layout, _MAX_DEPTH)


def _read_directory(source: _Source, start: int, layout: Layout, depth: int) -> Directory:
    first = start + layout.length.size
    if first > source.size:
        raise ValueError("directory outside the file")
    count = layout.length.unpack(source.read(start, layout.length.size))[0]
    end = first + count * layout.entry.size
    if end > source.size:
        raise ValueError("directory cut off")
    entries = source.read(first, end - first)
    directory = Directory(next_at=end if end + layout.offset.size <= source.size else -1)
    for index, (number, kind, values, field_bytes) in enumerate(layout.entry.iter_unpack(entries)):
        size = _TYPE_SIZES.get(kind, 0) * values
        at, data = first + (index + 1) * layout.entry.size - len(field_bytes), field_bytes[:size]
        if size > len(field_bytes):
            at = layout.offset.unpack(field_bytes)[0]
        if at + size > source.size:
            directory.damaged.append(number)
        if size == 0 or at + size > source.size:
            continue
        tag = Tag(kind, values, source.read(at, size) if size > len(data) else data, at)
        if number not in (EXIF_IFD, GPS_IFD, INTEROP_IFD):
            directory.tags[number] = tag
        elif depth > 0 and (child := integer(tag, layout)) is not None:
            try:
                directory.children[number] = _read_directory(source, child, layout, depth - 1)
            except ValueError:
                directory.damaged.append(number)
    return directory


def integer(tag: Tag | None, layout: Layout) -> int | None:
    """Return the value of a tag that holds one whole number, else None."""
    if tag is None or tag.count != 1 or tag.kind not in _INTEGERS:
        return None
    return int(struct.unpack(layout.order + _INTEGERS[tag.kind], tag.data)[0])


def pack_directory(directory: Directory, layout: Layout, start: int) -> bytes:
    """Return the bytes of a directory and those below it, to stand at offset `start` of their file."""
    items: dict[int, Tag | Directory] = {**directory.tags, **directory.children}
    body_start = start + layout.length.size + len(items) * layout.entry.size + layout.offset.size
    entries, body = bytearray(), bytearray()
    for number, item in sorted(items.items()):
        here = body_start + len(body)
        if isinstance(item, Directory):
            kind, count, value = (18 if layout.big else LONG), 1, layout.offset.pack(here)
            body += pack_directory(item, layout, here)
        elif len(item.data) > layout.offset.size:
            kind, count, value = item.kind, item.count, layout.offset.pack(here)
            body += item.data
        else:
            kind, count, value = item.kind, item.count, item.data
        body += bytes(len(body) % 2)
        entries += layout.entry.pack(number, kind, count, value)
    return layout.length.pack(len(items)) + bytes(entries) + bytes(layout.offset.size) + bytes(body)


def pack_exif(directory: Directory, order: str) -> bytes:
    """Return an EXIF block, prefix included, with this first directory."""
    layout = Layout(order)
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return PREFIX + head + pack_directory(directory, layout, 8)


def open_exif(exif: bytes) -> tuple[Layout, Directory]:
    """Read an EXIF block (prefix included). Raises ValueError if it is damaged."""
    return read_tree(BytesIO(exif.removeprefix(PREFIX)))


def reordered(directory: Directory, old: str, new: str) -> Directory:
    """Return a directory and those below it in another byte order ("<" or ">")."""
    if old == new:
        return directory
    tags = {number: _reordered(tag) for number, tag in directory.tags.items()}
    return Directory(tags, {number: reordered(child, old, new) for number, child in directory.children.items()})


def _reordered(tag: Tag) -> Tag:
    size = _TYPE_SIZES[tag.kind] // (2 if tag.kind in (RATIONAL, 10) else 1)  # a ratio is a pair of numbers
    values = (tag.data[start : start + size][::-1] for start in range(0, len(tag.data), size))
    return dataclasses.replace(tag, data=b"".join(values))


def descriptive(root: Directory) -> Directory:
    """Return the part of a TIFF's first directory that describes the photo and not how the file stores it."""
    tags = {number: tag for number, tag in root.tags.items() if number not in STRUCTURAL and tag.kind < 16}
    return Directory(tags, root.children)


def upright(exif: bytes, width: int, height: int, keep_orientation: bool = False) -> tuple[bytes, int | None]:
    """Reset the orientation of an EXIF block whose picture is being turned, and unlink its thumbnail.

    Parameters
    ----------
    exif
        The block, prefix included.
    width, height
        Pixels of the picture as stored, before it is turned.
    keep_orientation
        The stored pixels are upright already, whatever the tag says (HEIC).

    Returns
    -------
    exif, orientation
        The block with orientation 1, and with the upright size where it names a size; the orientation it had, 1 to 8,
        None if it had none.

    Raises
    ------
    ValueError
        If the block is damaged.
    """
    layout, root = open_exif(exif)
    block = bytearray(exif.removeprefix(PREFIX))
    orientation = integer(root.tags.get(ORIENTATION), layout)
    if orientation not in range(1, 9):
        orientation = None
    if orientation is not None and orientation >= 5 and not keep_orientation:
        width, height = height, width
        _swap(block, root.tags.get(X_RESOLUTION), root.tags.get(Y_RESOLUTION))
    details = root.children.get(EXIF_IFD, Directory())
    _overwrite(block, root.tags.get(ORIENTATION), 1, layout)
    for directory, number, value in (
        (root, WIDTH, width),
        (root, HEIGHT, height),
        (details, _EXIF_WIDTH, width),
        (details, _EXIF_HEIGHT, height),
    ):
        _overwrite(block, directory.tags.get(number), value, layout)
    if root.next_at >= 0:
        block[root.next_at : root.next_at + layout.offset.size] = bytes(layout.offset.size)
    return PREFIX + bytes(block), orientation


def _overwrite(block: bytearray, tag: Tag | None, value: int, layout: Layout) -> None:
    if tag is not None and integer(tag, layout) is not None and value < 256 ** len(tag.data):
        struct.pack_into(layout.order + _INTEGERS[tag.kind], block, tag.at, value)


def _swap(block: bytearray, one: Tag | None, other: Tag | None) -> None:
    if one is not None and other is not None and len(one.data) == len(other.data):
        block[one.at : one.at + len(one.data)] = other.data
        block[other.at : other.at + len(other.data)] = one.data


def captions(exif: bytes | None) -> bytes:
    """Return the IPTC captions that a TIFF holds among its tags, nothing where there are none."""
    tag = None if exif is None else open_exif(exif)[1].tags.get(IPTC)
    return b"" if tag is None else tag.data


def upright_xmp(xmp: bytes) -> bytes:
    """Reset tiff:Orientation in an XMP packet, written as an attribute or as an element."""
    return re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)[2-8]", rb"\g<1>1", xmp)


def resolution(root: Directory, layout: Layout) -> tuple[float, float] | None:
    """Return the pixels an inch, (x, y), that a directory states, None where it states none."""
    unit = integer(root.tags.get(RESOLUTION_UNIT), layout)
    x, y = (_ratio(root.tags.get(number), layout) for number in (X_RESOLUTION, Y_RESOLUTION))
    if x is None or y is None or unit not in (None, 2, 3):
        return None
    return (per_inch(x * 100), per_inch(y * 100)) if unit == 3 else (x, y)


def aspect(root: Directory, layout: Layout) -> tuple[float, float]:
    """Return the shape of the pixels, x to y, where a directory states that instead of a resolution; else (1, 1)."""
    if integer(root.tags.get(RESOLUTION_UNIT), layout) != 1:
        return 1, 1
    x, y = (_ratio(root.tags.get(number), layout) for number in (X_RESOLUTION, Y_RESOLUTION))
    return x or 1, y or 1


def _ratio(tag: Tag | None, layout: Layout) -> float | None:
    """Return the positive number that a tag holds: a ratio, as the format asks for, or another, as some write."""
    if tag is None or tag.count != 1 or tag.kind not in _NUMBERS:
        return None
    numerator, *denominators = struct.unpack(layout.order + _NUMBERS[tag.kind], tag.data)
    if 0 in denominators or not 0 < numerator < math.inf:
        return None
    return float(numerator / math.prod(denominators))


def resolution_tags(dpi: tuple[float, float], layout: Layout) -> dict[int, Tag]:
    """Return the three tags that state a resolution in pixels an inch."""
    tags = {RESOLUTION_UNIT: Tag(SHORT, 1, struct.pack(layout.order + "H", 2))}
    for number, value in zip((X_RESOLUTION, Y_RESOLUTION), dpi, strict=True):
        ratio = Fraction(value).limit_denominator(max(1, min(10_000, int(_LARGEST / value))))
        tags[number] = Tag(RATIONAL, 1, struct.pack(layout.order + "II", ratio.numerator, ratio.denominator))
    return tags


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Return an EXIF block that states `dpi`, for containers that have no other place for it (WebP)."""
    layout, root = (Layout(), Directory()) if exif is None else open_exif(exif)
    if exif is not None and resolution(root, layout) == dpi:
        return exif
    root.tags.update(resolution_tags(dpi, layout))
    return pack_exif(root, layout.order)


def stamped(exif: bytes | None, software: str) -> bytes:
    """Return an EXIF block whose Software tag names what made the picture, for a picture that was changed.

    The value it had moves unchanged to ProcessingSoftware, behind what may stand there; one that already begins with
    the same program's name gives way. The rest of the block keeps its place, so that maker notes, which point into it,
    stay readable: a new first directory is appended.

    Raises
    ------
    ValueError
        If the block is damaged.
    """
    text = software.encode("ascii") + b"\0"
    tags = {SOFTWARE: Tag(ASCII, len(text), text)}
    if exif is None:
        return pack_exif(Directory(tags), "<")
    layout, root = open_exif(exif)
    earlier, processing = root.tags.get(SOFTWARE), root.tags.get(PROCESSING_SOFTWARE)
    if earlier is not None and earlier.data.partition(b" ")[0] != text.partition(b" ")[0]:
        kept = earlier.data if processing is None else processing.data.rstrip(b"\0 ") + b"; " + earlier.data
        tags[PROCESSING_SOFTWARE] = Tag(ASCII, len(kept), kept)
    return _with_tags(exif, tags, layout)


def _with_tags(exif: bytes, tags: Mapping[int, Tag], layout: Layout) -> bytes:
    """Return a block with other values of some tags of its first directory, everything else at its old offset."""
    block = bytearray(exif.removeprefix(PREFIX))
    header_at = 8 if layout.big else 4
    start = layout.offset.unpack_from(block, header_at)[0]
    first = start + layout.length.size
    count = layout.length.unpack_from(block, start)[0]
    raw = block[first : first + count * layout.entry.size]
    entries = [entry for entry in layout.entry.iter_unpack(raw) if entry[0] not in tags]
    for number, tag in tags.items():
        value = tag.data
        if len(value) > layout.offset.size:
            block += bytes(len(block) % 2)
            value = layout.offset.pack(len(block))
            block += tag.data
        entries.append((number, tag.kind, tag.count, value))
    block += bytes(len(block) % 2)
    layout.offset.pack_into(block, header_at, len(block))
    block += layout.length.pack(len(entries))
    block += b"".join(layout.entry.pack(*entry) for entry in sorted(entries)) + bytes(layout.offset.size)
    return PREFIX + bytes(block)
