"""Photoshop's image resources, which JPEG and TIFF carry alike: IPTC captions, paths, print settings, previews."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_CAPTIONS = 1028  # IPTC
_THUMBNAILS = (1033, 1036)  # of the picture as it was before


def without_thumbnails(resources: bytes) -> bytes:
    """Leave the previews out of Photoshop's image resources; what is not made as those are stays as it is."""
    try:
        return b"".join(whole for number, _, whole in _resources(resources) if number not in _THUMBNAILS)
    except ValueError:
        return resources


def captions_in(resources: bytes) -> bytes:
    """Return the IPTC captions among Photoshop's image resources, nothing where there are none."""
    try:
        return next((content for number, content, _ in _resources(resources) if number == _CAPTIONS), b"")
    except ValueError:
        return b""


def name_of(resources: bytes) -> str:
    """Return what a user calls Photoshop's image resources: IPTC, if there are captions among them."""
    return "IPTC" if captions_in(resources) else "Photoshop's data"


def with_captions(resources: bytes, captions: bytes) -> bytes:
    """Add IPTC captions, if there are any, to Photoshop's image resources, unless some are among them."""
    if not captions or captions_in(resources):
        return resources
    head = struct.pack(">4sHHI", b"8BIM", _CAPTIONS, 0, len(captions))
    return resources + head + captions + bytes(len(captions) % 2)


def _resources(resources: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, content and all of each resource; raises ValueError where something else stands."""
    start = 0
    while start + 12 <= len(resources):
        signature, number, name = struct.unpack_from(">4sHB", resources, start)
        name_end = start + 6 + (name // 2 + 1) * 2  # a name with its length, padded to an even size
        if signature != b"8BIM" or name_end + 4 > len(resources):
            raise ValueError("no image resource")
        (size,) = struct.unpack_from(">I", resources, name_end)
        content, end = resources[name_end + 4 : name_end + 4 + size], name_end + 4 + size + size % 2
        yield number, content, resources[start:end]
        start = end
