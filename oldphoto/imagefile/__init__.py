"""Photos on disk: decode and encode with everything that must survive a restoration.

Reading turns a file upright into a `Photo` (float pixels plus bit depth, alpha, profile, EXIF, XMP and resolution);
writing turns a `Photo` back into a complete file, or into none at all.
"""

from __future__ import annotations

from oldphoto.imagefile.files import atomically, remove_stale_parts
from oldphoto.imagefile.photo import INPUT_SUFFIXES, OUTPUT_SUFFIX, PIXEL_LIMIT, Photo, format_of, output_format
from oldphoto.imagefile.reading import PhotoFile, count_pixels, mask_of, open_photo, read_mask, read_photo
from oldphoto.imagefile.writing import Written, check_pages, write_mask, write_pages, write_photo

__all__ = [
    "INPUT_SUFFIXES",
    "OUTPUT_SUFFIX",
    "PIXEL_LIMIT",
    "Photo",
    "PhotoFile",
    "Written",
    "atomically",
    "check_pages",
    "count_pixels",
    "format_of",
    "mask_of",
    "open_photo",
    "output_format",
    "read_mask",
    "read_photo",
    "remove_stale_parts",
    "write_mask",
    "write_pages",
    "write_photo",
]
