"""TIFF with all its bits: pixels through tifffile, the describing tags and the EXIF directories through `exif`."""

from __future__ import annotations

import logging
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import BinaryIO, Literal

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from tifffile import COMPRESSION, PHOTOMETRIC, SAMPLEFORMAT, TiffPage

from oldphoto.errors import PhotoError
from oldphoto.imagefile import exif as exif_block
from oldphoto.imagefile import jpeg
from oldphoto.imagefile.colour import cmyk_to_rgb
from oldphoto.imagefile.exif import Directory, Layout, Tag
from oldphoto.imagefile.photo import RAISE_LIMIT, Extra, IntImage, Raster, aspect_left_out, check_size, eight_bits
from oldphoto.imagefile.photoshop import captions_in, name_of, without_thumbnails

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_STRIP_ROWS = 256
_PAGE_LIMIT, _SAMPLE_LIMIT = 10_000, 16
_DESCRIPTION = 270
_RESOURCES, _LAYERS = 34377, 37724  # tags of Photoshop
_DIRECTORIES = {exif_block.EXIF_IFD: "EXIF", exif_block.GPS_IFD: "GPS position", exif_block.INTEROP_IFD: "EXIF"}
_OF_64_BITS = (16, 17, 18)  # types of numbers that only large files have
_OTHERS = {42112: "GDAL", 42113: "GDAL", 50838: "ImageJ", 50839: "ImageJ"}  # programs whose tags describe the pixels
_FAX: dict[int, Callable[..., NDArray[np.uint8]]] = {
    COMPRESSION.CCITTRLE: imagecodecs.ccittrle_decode,
    COMPRESSION.CCITT_T4: imagecodecs.ccittfax3_decode,
    COMPRESSION.CCITT_T6: imagecodecs.ccittfax4_decode,
}
_T4_OPTIONS = 292
_BIG = 2**32 - 2**25  # bytes of pixels from which offsets of 32 bits may not reach

# tifffile reports oddities of a file through logging, which Python prints if nobody listens.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def count_pages(data: bytes, max_pixels: int) -> int:
    """Count the pages of a TIFF that are photos, without previews and masks.

    Raises
    ------
    PhotoError
        With a message that still lacks the file's name, if there is none, or if together they have too many pixels.
    Exception
        Whatever tifffile raises on damaged data.
    """
    with tifffile.TiffFile(BytesIO(data)) as tiff:
        pages = _photos(tiff)
        _check_chain(tiff)
        total = sum(page.imagewidth * page.imagelength for page in pages)
    if total > max_pixels:
        together = f"its {len(pages)} pages together have " if len(pages) > 1 else "has "
        raise PhotoError(f"{together}{total:,} pixels, more than {max_pixels:,}: {RAISE_LIMIT}")
    return len(pages)


def decode(data: bytes, max_pixels: int, index: int = 0) -> Raster:
    """Decode a page of a TIFF, by its place among those that `count_pages` counts.

    Raises
    ------
    PhotoError
        With a message that still lacks the file's name, if the page is of a kind that is not read or is incomplete.
    Exception
        Whatever tifffile, imagecodecs and Pillow raise on damaged data.
    """
    file = BytesIO(data)
    with tifffile.TiffFile(file) as tiff:
        page = _photos(tiff)[index]
        _check_complete(page, len(data), max_pixels)
        _check_intact(page, data)
        raster = _decode_page(page, data)
        start = page.offset
        others = [other for other in tiff.pages if isinstance(other, TiffPage) and other.offset != start]
        if index == 0 and any(other.is_mask for other in others):
            raster.warnings.append("transparency masks, which are pages of their own, left out")
        if not page.is_reduced and any(isinstance(sub, TiffPage) and not sub.is_reduced for sub in page.pages or ()):
            raster.warnings.append("a further picture, which is a page below this one, left out")
    return _with_metadata(raster, file, start)


def _photos(tiff: tifffile.TiffFile) -> list[TiffPage]:
    """Return the pages that are no previews or masks of others; the first counts whatever it is said to be."""
    if not isinstance(tiff.pages.first, TiffPage):
        raise PhotoError("has no full first page")
    if len(tiff.pages) > _PAGE_LIMIT:
        raise PhotoError(f"has more than {_PAGE_LIMIT:,} pages: split it")
    if tiff.pages.first.is_reduced and tiff.pages.first.pages is not None:
        raise PhotoError("is a raw photo, whose first page is a preview: develop it into a plain TIFF")
    pages = [page for page in tiff.pages if isinstance(page, TiffPage)]
    return pages[:1] + [page for page in pages[1:] if not (page.is_reduced or page.is_mask)]


def _check_chain(tiff: tifffile.TiffFile) -> None:
    """Refuse a chain of pages that leads out of the file, at whose last page that is there tifffile stops."""
    starts = [page.offset for page in tiff.pages]
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(starts[-1])
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(starts[-1] + layout.tagnosize + tags * layout.tagsize)
    link = file.read(layout.offsetsize)
    if len(link) < layout.offsetsize:
        raise PhotoError("is truncated: it ends within its last page")
    (following,) = struct.unpack(layout.offsetformat, link)
    if following != 0 and following not in starts:  # a chain that leads back is odd, but whole
        raise PhotoError("is truncated: it lacks pages")


def _check_complete(page: TiffPage, file_size: int, max_pixels: int) -> None:
    """Refuse lying sizes, and absent or cut-off segments, which tifffile would fill with black."""
    check_size(page.imagewidth, page.imagelength * page.imagedepth, max_pixels)
    check_size(page.tilewidth, page.tilelength * page.tiledepth, max_pixels)
    if page.samplesperpixel > _SAMPLE_LIMIT:
        raise PhotoError(f"has {page.samplesperpixel} channels: save it as RGB")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if any(start <= 0 or size <= 0 or start + size > file_size for start, size in segments):
        raise PhotoError("is truncated: parts of the picture lie beyond its end")
    if len(segments) < math.prod(page.chunked) and not page.is_contiguous:
        raise PhotoError("is truncated: parts of the picture are missing")


def _check_intact(page: TiffPage, data: bytes) -> None:
    """Refuse damage that the decoders of some compressions pass over, leaving black, gray or white."""
    if page.compression == COMPRESSION.JPEG:
        complaint_of = _complaint_of_jpeg
    elif page.compression in _FAX:
        complaint_of = _complaint_of_fax
    elif page.photometric == PHOTOMETRIC.YCBCR:
        complaint_of = _complaint_of_ycbcr
    else:
        return
    for index, segment in enumerate(_segments(page, data)):
        complaint = complaint_of(page, segment, _rows(page, index))
        if complaint is not None:
            raise PhotoError(f"is damaged ({complaint}): replace it by an intact copy")


def _segments(page: TiffPage, data: bytes) -> Iterator[bytes]:
    """Yield the strips or tiles of a page, compressed as they stand in the file."""
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=False):
        segment = data[start : start + size]
        is_reversed = page.fillorder == 2 and page.compression != COMPRESSION.JPEG
        yield bytes(imagecodecs.bitorder_decode(segment)) if is_reversed else segment


def _rows(page: TiffPage, index: int) -> int:
    """Return the rows of a strip or a tile; only the last strip of a picture may have fewer than the others."""
    if page.is_tiled:
        return page.tilelength
    rows = min(page.rowsperstrip, page.imagelength)
    return min(rows, page.imagelength - index % math.ceil(page.imagelength / rows) * rows)


def _complaint_of_jpeg(page: TiffPage, segment: bytes, rows: int) -> str | None:
    tables = page.jpegtables or b""  # of all segments together, as a JPEG without a picture
    channels = page.samplesperpixel if page.planarconfig == 1 else 1
    return jpeg.complaint_of(segment[:2] + tables[2:-2] + segment[2:], channels)


def _complaint_of_fax(page: TiffPage, segment: bytes, rows: int) -> str | None:
    width = page.tilewidth or page.imagewidth
    options = {"t4options": page.tags.valueof(_T4_OPTIONS) or 0} if page.compression == COMPRESSION.CCITT_T4 else {}
    # Told no height, the decoder stops where no row follows; it does not stop at an end without an end mark.
    found = len(_FAX[page.compression](segment + bytes(8), width=width, **options))
    return f"{found} of {rows} rows can be decoded" if found < rows else None


def _complaint_of_ycbcr(page: TiffPage, segment: bytes, rows: int) -> str | None:
    if page.compression == COMPRESSION.OJPEG or page.planarconfig != 1:
        return None
    across, down = page.subsampling or (2, 2)
    width = page.tilewidth or page.imagewidth
    blocks = math.ceil(width / across) * math.ceil(rows / down)
    expected = blocks * (across * down + 2)
    # A strip that would expand to more than it should is refused before it does.
    found = len(tifffile.TIFF.DECOMPRESSORS[page.compression](segment, out=expected + 64))
    return f"{found:,} of {expected:,} bytes can be decoded" if found < expected else None


def _decode_page(page: TiffPage, data: bytes) -> Raster:
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression != COMPRESSION.JPEG:
        return _decode_ycbcr(data, page)
    samples = page.asarray()
    if samples.ndim == 3 and page.planarconfig == 2 and page.samplesperpixel > 1:
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.ndim != 3:
        raise PhotoError(f"holds a volume of shape {samples.shape}, not a photo")
    if page.photometric == PHOTOMETRIC.PALETTE:
        return _with_alpha(Raster(_apply_palette(page, samples[..., 0])), samples, 1, page)

    deep = samples.dtype.itemsize > 2
    samples = _whole_depth(samples, page)
    if page.photometric == PHOTOMETRIC.SEPARATED and samples.shape[2] >= 4:
        return _decode_cmyk(page, samples)
    if page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR) and samples.shape[2] >= 3:
        colours, pixels = 3, samples[..., :3]
    elif page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE):
        colours, pixels = 1, samples[..., 0]
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            pixels = ~pixels
    else:
        kind = getattr(page.photometric, "name", page.photometric)
        raise PhotoError(f"has colours of a kind that is not read ({kind}): save it as RGB")
    notes = ["floating-point samples are kept with 16 bits"] if deep else []
    return _with_alpha(Raster(pixels, warnings=notes), samples, colours, page)


def _whole_depth(samples: NDArray[np.generic], page: TiffPage) -> IntImage:
    """Return samples as uint8 or uint16 over their whole range; refuse what has no agreed range."""
    bits = page.bitspersample
    if samples.dtype.kind == "f":
        low, high = samples.min(), samples.max()
        if np.isnan(low):
            raise PhotoError("has floating-point values that are no numbers (NaN): save it as 16 bit")
        if not (low >= 0 and high <= 1):
            raise PhotoError(
                f"has floating-point values from {low:g} to {high:g}, not within 0 to 1: save it as 16 bit"
            )
        return _quantised(samples)
    if page.sampleformat == SAMPLEFORMAT.INT or samples.dtype.kind not in "ub" or bits > 16:
        raise PhotoError(f"has {samples.dtype} samples, which are not read: save it as 16 bit")
    if bits in (8, 16):
        native: IntImage = samples.astype(np.uint8 if bits == 8 else np.uint16, copy=False)
        return native
    values = np.arange(2**bits, dtype=np.float64) / (2**bits - 1)
    table: IntImage = np.rint(values * 255).astype(np.uint8) if bits < 8 else np.rint(values * 65535).astype(np.uint16)
    return table[samples.astype(np.uint16, copy=False)]


def _quantised(samples: NDArray[np.generic]) -> NDArray[np.uint16]:
    result = np.empty(samples.shape, np.uint16)
    for top in range(0, len(samples), _STRIP_ROWS):
        strip = samples[top : top + _STRIP_ROWS].astype(np.float64)
        result[top : top + _STRIP_ROWS] = np.rint(strip * 65535)
    return result


def _with_alpha(raster: Raster, samples: IntImage, colours: int, page: TiffPage) -> Raster:
    """Add the alpha channel that a page's extra samples hold, and say what other channels are left out."""
    extra = samples.shape[2] - colours
    kinds = [int(kind) for kind in page.extrasamples]
    if extra == 0:
        return raster
    if not kinds and extra == 1:
        kinds = [2]  # RGB with four samples and no word about the fourth is alpha to every other reader
    place = next((index for index, kind in enumerate(kinds[:extra]) if kind in (1, 2)), None)
    if place is not None:
        raster.alpha = samples[..., colours + place]
        extra -= 1
        if kinds[place] == 1:
            raster.pixels = _unpremultiplied(raster.pixels, raster.alpha)
    if extra > 0:
        raster.warnings.append(f"{extra} extra channel(s) of unknown meaning left out")
    return raster


def _unpremultiplied(pixels: IntImage, alpha: IntImage) -> IntImage:
    top = np.iinfo(pixels.dtype).max
    result = np.empty_like(pixels)
    for start in range(0, len(pixels), _STRIP_ROWS):
        strip = np.s_[start : start + _STRIP_ROWS]
        opacity = np.maximum(alpha[strip], 1).astype(np.float32)
        if pixels.ndim == 3:
            opacity = opacity[..., None]
        result[strip] = np.rint(np.minimum(pixels[strip] * (top / opacity), top))
    return result


def _decode_ycbcr(data: bytes, page: TiffPage) -> Raster:
    """Decode subsampled or old-style JPEG colour, which tifffile leaves undone, with Pillow."""
    if page.compression == COMPRESSION.NONE and page.subsampling not in (None, (1, 1)):
        raise PhotoError("has colours of a kind that is not read (uncompressed, subsampled YCbCr): save it as RGB")
    file = BytesIO(data)
    orientation = page.tags.get(exif_block.ORIENTATION)
    if orientation is not None:  # Pillow would turn the picture by it, and it would be turned again
        file.seek(orientation.valueoffset)
        file.write((1).to_bytes(orientation.valuebytecount, "little" if page.parent.byteorder == "<" else "big"))
    file.seek(0)
    image = TiffImageFile(file)
    image.seek(page.index)
    return Raster(np.asarray(image.convert("RGB")))


def _apply_palette(page: TiffPage, indices: NDArray[np.generic]) -> IntImage:
    if page.colormap is None:
        raise PhotoError("has palette colours without a palette")
    # Old software wrote 8 bits where the format asks for 16.
    shift = 8 if page.colormap.max() > 255 else 0
    colours: IntImage = (page.colormap.T >> shift).astype(np.uint8)
    return colours[indices.astype(np.uint16, copy=False)]


def _decode_cmyk(page: TiffPage, samples: IntImage) -> Raster:
    warnings = []
    inks = np.ascontiguousarray(samples[..., :4])
    if inks.dtype == np.uint16:
        warnings.append("16-bit CMYK is read with 8 bits")
        samples = eight_bits(samples)
        inks = np.ascontiguousarray(samples[..., :4])
    image = Image.frombuffer("CMYK", (inks.shape[1], inks.shape[0]), inks, "raw", "CMYK", 0, 1)
    rgb, icc, notes = cmyk_to_rgb(image, page.iccprofile)
    return _with_alpha(Raster(np.asarray(rgb), icc=icc, warnings=warnings + notes), samples, 4, page)


def _with_metadata(raster: Raster, file: BinaryIO, start: int) -> Raster:
    layout, root = exif_block.read_tree(file, start)
    if any(number not in _DIRECTORIES for number in root.damaged):
        raise PhotoError("is truncated: metadata lie beyond its end")
    damaged = [*root.damaged, *(number for number, child in root.children.items() if child.damaged)]
    raster.warnings += [f"damaged {_DIRECTORIES[number]} left out" for number in damaged]
    raster.dpi = exif_block.resolution(root, layout)
    raster.warnings += aspect_left_out(*exif_block.aspect(root, layout))
    profile, packet = root.tags.get(exif_block.ICC), root.tags.get(exif_block.XMP)
    if profile is not None and root.tags[262].data.strip(b"\0") != b"\5":  # CMYK has brought its new profile along
        raster.icc = profile.data
    raster.xmp = None if packet is None else packet.data
    if (resources := root.tags.get(_RESOURCES)) and (kept := without_thumbnails(resources.data)):
        raster.extras = resource_extras(kept)[:1]  # captions are among the tags, too
    if _LAYERS in root.tags:
        raster.warnings.append("Photoshop's layers left out: the picture is read as they show it together")
    programs = dict.fromkeys(name for number, name in _OTHERS.items() if number in root.tags)
    raster.warnings += [f"data of {name} left out" for name in programs]
    if any(tag.kind in _OF_64_BITS for number, tag in root.tags.items() if number not in exif_block.STRUCTURAL):
        raster.warnings.append("tags of 64 bits left out")
    described = exif_block.descriptive(root)
    says_nothing = set(described.tags) <= {exif_block.ORIENTATION} and not described.children
    if not says_nothing or exif_block.integer(described.tags.get(exif_block.ORIENTATION), layout) not in (None, 1):
        raster.exif = exif_block.pack_exif(described, layout.order)
    return raster


def resource_extras(resources: bytes) -> tuple[Extra, ...]:
    """Return the tag that holds Photoshop's resources, and that of the captions among them: some programs read one."""
    kept = [(name_of(resources), _RESOURCES, resources), ("IPTC", exif_block.IPTC, captions_in(resources))]
    return tuple(Extra(name, "tif", struct.pack(">H", number), content) for name, number, content in kept if content)


def encode(rasters: Sequence[Raster]) -> bytes:
    """Encode pages of 8 or 16 bits, gray or RGB, with or without alpha, deflated, with all describing tags."""
    blocks = [(Layout(), Directory()) if page.exif is None else exif_block.open_exif(page.exif) for page in rasters]
    order: Literal["<", ">"] = ">" if any(layout.order == ">" for layout, _ in blocks) else "<"
    size = sum(page.samples.nbytes for page in rasters)
    stream = BytesIO()
    with tifffile.TiffWriter(stream, byteorder=order, bigtiff=size > _BIG) as writer:
        for raster in rasters:
            writer.write(
                raster.samples,
                photometric="minisblack" if raster.pixels.ndim == 2 else "rgb",
                planarconfig="contig",
                extrasamples=None if raster.alpha is None else ["unassalpha"],
                compression="zlib",
                predictor=True,
                metadata=None,
                contiguous=False,
                software=False,
                iccprofile=raster.icc,
            )
    described = [exif_block.reordered(exif_block.descriptive(root), layout.order, order) for layout, root in blocks]
    for ours, raster in zip(described, rasters, strict=True):
        if _pages_of_imagej(ours) not in (None, len(rasters)):
            del ours.tags[_DESCRIPTION]  # readers take the file for as many pages as it says
            raster.warnings.append("description by ImageJ left out: it speaks of another number of pages")
    return _with_directories(stream, described, rasters)


def _pages_of_imagej(directory: Directory) -> int | None:
    """Return how many pages a description that ImageJ wrote speaks of, None where there is none."""
    description = directory.tags[_DESCRIPTION].data if _DESCRIPTION in directory.tags else b""
    if not description.startswith(b"ImageJ="):
        return None
    stated = re.search(rb"^images=(\d{1,9})\s*$", description, re.MULTILINE)
    return 1 if stated is None else int(stated[1])


def _with_directories(stream: BytesIO, described: Sequence[Directory], rasters: Sequence[Raster]) -> bytes:
    """Append new directories that hold tifffile's tags and ours, and chain them instead of tifffile's.

    tifffile itself writes no EXIF directories.
    """
    layout, _ = exif_block.read_tree(stream)
    link = old_link = 8 if layout.big else 4  # where the offset of the next directory stands, in the new and old chain
    for ours, raster in zip(described, rasters, strict=True):
        stream.seek(old_link)
        _, root = exif_block.read_tree(stream, layout.offset.unpack(stream.read(layout.offset.size))[0])
        old_link = root.next_at
        for number in (exif_block.X_RESOLUTION, exif_block.Y_RESOLUTION, exif_block.RESOLUTION_UNIT):
            root.tags.pop(number, None)
        root.tags.update(ours.tags)
        root.children.update(ours.children)
        if raster.dpi is not None:
            root.tags.update(exif_block.resolution_tags(raster.dpi, layout))
        if raster.xmp is not None:
            root.tags[exif_block.XMP] = Tag(1, len(raster.xmp), raster.xmp)
        for extra in raster.extras:
            root.tags[struct.unpack(">H", extra.kind)[0]] = Tag(1, len(extra.content), extra.content)
        stream.seek(0, 2)
        stream.write(bytes(stream.tell() % 2))
        start = stream.tell()
        stream.write(exif_block.pack_directory(root, layout, start))
        stream.seek(link)
        stream.write(layout.offset.pack(start))
        link = start + layout.length.size + len(root.tags | root.children) * layout.entry.size
    return stream.getvalue()
