"""Photoshop's image resources, which JPEG and TIFF carry alike: IPTC captions, paths, print settings, previews."""

from __future__ import annotations

import struct

_CAPTIONS = 1028  # IPTC
_THUMBNAILS = (1033, 1036)  # of the picture as it was before


def without_thumbnails(resources: bytes) -> bytes:
    """Leave the previews out of Photoshop's image resources; what is not made as those are stays as it is."""
    kept, start = b"", 0
    while start + 12 <= len(resources):
        signature, number, name = struct.unpack_from(">4sHB", resources, start)
        name_end = start + 6 + (name // 2 + 1) * 2  # a name with its length, padded to an even size
        if signature != b"8BIM" or name_end + 4 > len(resources):
            return resources
        (size,) = struct.unpack_from(">I", resources, name_end)
        end = name_end + 4 + size + size % 2
        if number not in _THUMBNAILS:
            kept += resources[start:end]
        start = end
    return kept


def with_captions(resources: bytes, captions: bytes) -> bytes:
    """Add IPTC captions, if there are any, to Photoshop's image resources, unless some are among them."""
    head = struct.pack(">4sH", b"8BIM", _CAPTIONS)
    if not captions or head in resources:
        return resources
    return resources + head + bytes(2) + struct.pack(">I", len(captions)) + captions + bytes(len(captions) % 2)
