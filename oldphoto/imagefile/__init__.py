"""Photos on disk: decode and encode with everything that must survive a restoration.

Reading turns a file upright into a `Photo` (float pixels plus bit depth, alpha, profile, EXIF, XMP and resolution);
writing turns a `Photo` back into a complete file, or into none at all.
"""

from __future__ import annotations

from oldphoto.imagefile.files import atomically
from oldphoto.imagefile.photo import INPUT_SUFFIXES, OUTPUT_SUFFIX, Photo, format_of, output_format
from oldphoto.imagefile.reading import read_mask, read_photo
from oldphoto.imagefile.writing import write_mask, write_photo

__all__ = [
    "INPUT_SUFFIXES",
    "OUTPUT_SUFFIX",
    "Photo",
    "atomically",
    "format_of",
    "output_format",
    "read_mask",
    "read_photo",
    "write_mask",
    "write_photo",
]
