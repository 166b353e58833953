"""The before/after page: one HTML file that needs no network and no other file.

Every photo is written to disk as soon as it is known, so that a report over thousands of photos takes no more memory
than one over a single photo. Previews hold plain RGB numbers: an ICC profile is not carried into them, so a wide-gamut
photo looks a little duller here than in its own file.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from types import TracebackType

import cv2
import numpy as np
from PIL import Image

from oldphoto.arrays import ByteImage, FloatImage
from oldphoto.errors import PhotoError
from oldphoto.imagefile import atomically, remove_stale_parts

PREVIEW_SIDE = 960
"""The long side of a preview, in pixels, at most."""

_JPEG_QUALITY = 82
_STATUS_LABELS = {"restored": "Restored", "kept": "Kept from an earlier run", "failed": "Failed"}
_SUMMARY_BYTES = 4096
_CONTROL_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0))}


@dataclass(frozen=True)
class ReportEntry:
    """What the page shows of one photo.

    Parameters
    ----------
    name
        The path relative to the input folder.
    status
        ``"restored"``, ``"kept"`` (the output of an earlier run) or ``"failed"``.
    before, after
        JPEG previews, made by `preview`.
    mask
        A PNG preview made by `preview_mask`, of the size of `before`; white = damaged.
    faces
        Left, top, right and bottom of each face, as shares of the width and the height, 0 to 1.
    seconds
        The time of each stage.
    damaged_share
        The share of damaged pixels, 0 to 1.
    warnings
        One line each.
    error
        Why the photo failed.
    """

    name: str
    status: str
    before: bytes | None = None
    after: bytes | None = None
    mask: bytes | None = None
    faces: tuple[tuple[float, float, float, float], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    damaged_share: float | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


def preview(rgb: FloatImage) -> bytes:
    """Make a small JPEG of a picture.

    Parameters
    ----------
    rgb
        The picture, H × W × 3 in [0, 1].

    Returns
    -------
    bytes
        A JPEG whose long side is `PREVIEW_SIDE` or less; a smaller picture keeps its size.
    """
    return _encoded(_shrunk(rgb), "JPEG", quality=_JPEG_QUALITY)


def preview_mask(mask: FloatImage) -> bytes:
    """Make a small PNG of a damage mask.

    Parameters
    ----------
    mask
        The mask, H × W in [0, 1], 1 = damaged.

    Returns
    -------
    bytes
        An 8-bit gray PNG of the size that `preview` gives to a picture of the same size.
    """
    side = math.ceil(max(mask.shape) / PREVIEW_SIDE)
    if side > 1:
        # A mean alone would fade a hairline scratch of a large scan until nobody sees it.
        mask = np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), dtype=np.float32)
    return _encoded(_shrunk(mask), "PNG", optimize=True)


class ReportWriter:
    """Writes the page, one photo at a time; as a context manager it commits even when the block is interrupted.

    The page grows in a hidden temporary file beside `path` and takes its final name in `close`.

    Parameters
    ----------
    path
        The HTML file to write; missing parent folders are made, an existing file is replaced.
    title
        The heading of the page.
    version
        The version of oldphoto to name on the page.

    Raises
    ------
    PhotoError
        The file cannot be written. `add` and `close` raise it too.
    """

    def __init__(self, path: Path, title: str, version: str) -> None:
        self._path = path
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._ended_early = False
        page = resources.files("oldphoto").joinpath("report.html").read_text(encoding="utf-8")
        top, rest = page.split("<!-- summary -->")
        middle, self._tail = rest.split("<!-- entries -->\n")
        top = Template(top).substitute(title=_escaped(title), version=_escaped(version))
        start = _utf8(top)
        # The summary is known last and stands first: its place is kept free and filled in `close`.
        self._summary_at = len(start)
        try:
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            remove_stale_parts(path.parent)  # of a page whose run was killed
            self._commit = ExitStack()
            part = self._commit.enter_context(atomically(path))
            self._file = part.open("wb", buffering=0)
        except (OSError, PhotoError) as error:
            raise self._failure(error) from error
        self._end = 0
        try:
            self._append(start + b" " * _SUMMARY_BYTES + _utf8(middle))
        except PhotoError as error:
            self._discard(error)
            raise

    def add(self, entry: ReportEntry) -> None:
        """Write one photo to the page.

        Parameters
        ----------
        entry
            What to show; its status decides under which number of the summary it counts.
        """
        if entry.status not in _STATUS_LABELS:
            raise ValueError(f"unknown status {entry.status!r}: use one of {', '.join(_STATUS_LABELS)}")
        number = self._counts.total() + 1
        self._append(_utf8(_article(entry, number)))
        self._counts[entry.status] += 1
        self._seconds += sum(entry.seconds.values())

    def close(self) -> None:
        """Write the summary and give the page its final name; a second call does nothing."""
        if self._file.closed:
            return
        summary = _utf8(_summary(self._counts, self._seconds, self._ended_early)).ljust(_SUMMARY_BYTES)
        try:
            self._append(_utf8(self._tail))
            self._write_at(self._summary_at, summary)
            self._file.truncate(self._end)
            self._file.close()
            self._commit.close()
        except (OSError, PhotoError) as error:
            self._discard(error)
            raise self._failure(error) from error

    def __enter__(self) -> ReportWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended_early = error is not None
        try:
            self.close()
        except PhotoError as failure:
            if error is None:
                raise
            # What ended the run matters more than the lost report: it must reach the caller as it is.
            error.add_note(str(failure))

    def _append(self, data: bytes) -> None:
        try:
            self._write_at(self._end, data)
        except OSError as error:
            raise self._failure(error) from error
        self._end += len(data)

    def _write_at(self, position: int, data: bytes) -> None:
        """Write all of `data` at `position`: what an earlier, failed write has left behind is written over."""
        self._file.seek(position)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _discard(self, error: Exception) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError, PhotoError):
            self._commit.__exit__(type(error), error, error.__traceback__)

    def _failure(self, error: Exception) -> PhotoError:
        cause = error.__cause__ if isinstance(error, PhotoError) else error
        reason = getattr(cause, "strerror", None) or str(cause or error)
        return PhotoError(
            f"{self._path}: cannot write the report: {reason}; "
            "name a file in a folder that you may write to, on a disk with free space"
        )


def _shrunk(image: FloatImage) -> ByteImage:
    height, width = image.shape[:2]
    scale = PREVIEW_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _encoded(pixels: ByteImage, file_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def _utf8(text: str) -> bytes:
    """Encode text that may hold the lone surrogates of an undecodable file name."""
    return text.encode("utf-8", errors="backslashreplace")


def _escaped(text: str) -> str:
    """Make foreign text harmless inside an element or a quoted attribute, with control characters made visible."""
    return html.escape(text.translate(_CONTROL_ESCAPES))


def _duration(seconds: float) -> str:
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{share * 100:.1f} %"


def _summary(counts: Mapping[str, int], seconds: float, ended_early: bool) -> str:
    total = sum(counts.values())
    buttons = [_show_button("all", total, "photo" if total == 1 else "photos")]
    for status, label in _STATUS_LABELS.items():
        buttons.append(_show_button(status, counts.get(status, 0), label.lower()))
    note = ""
    if ended_early:
        note = '<p class="note">The run ended early: this page shows the photos finished until then.</p>'
    return (
        f'<div class="sum" role="group" aria-label="Show">{"".join(buttons)}'
        f'<p class="time"><strong>{_duration(seconds)}</strong>of processing</p></div>{note}'
    )


def _show_button(status: str, count: int, label: str) -> str:
    pressed = "true" if status == "all" else "false"
    disabled = "" if count else " disabled"
    return (
        f'<button type="button" class="{status}" data-show="{status}" aria-pressed="{pressed}"{disabled}>'
        f"<strong>{count}</strong>{label}</button>"
    )


def _article(entry: ReportEntry, number: int) -> str:
    pair = _pair(entry, number)
    bare = "" if pair else " bare"
    return (
        f'<article class="photo {entry.status}{bare}" id="photo-{number}" aria-labelledby="name-{number}">\n'
        f'<header class="head"><h2 id="name-{number}">{_name(entry.name)}</h2>'
        f'<p class="status">{_STATUS_LABELS[entry.status]}</p></header>\n'
        f'{pair}<div class="more">{_tools(entry, number)}{_messages(entry)}{_facts(entry)}</div>\n</article>\n'
    )


def _name(name: str) -> str:
    folder, slash, file_name = name.rpartition("/")
    shown_folder = f'<bdi class="folder">{_escaped(folder + slash)}</bdi>' if folder else ""
    return f"{shown_folder}<bdi>{_escaped(file_name)}</bdi>"


def _pair(entry: ReportEntry, number: int) -> str:
    """Lay out the pictures with what lies over them, or nothing where there is no picture."""
    picture = entry.before or entry.after
    if picture is None:
        return ""
    width, height = _size(picture)
    figures = _figure("before", entry.before, entry.name) + _figure("after", entry.after, entry.name)
    both = entry.before is not None and entry.after is not None
    kind = "two" if both else "one"
    slider = _slider(entry.name, number) if both else ""
    return (
        f'<div class="stage"><div class="pair {kind}" style="--w: {width}; --h: {height}; --cut: 50%">{figures}'
        f'<div class="overlay">{_mask(entry, number)}{_faces(entry, number)}{slider}</div></div></div>\n'
    )


def _size(picture: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(picture)) as image:
            return image.size
    except OSError:
        # The browser shows a broken picture; that is no reason to lose the report.
        return (3, 2)


def _figure(role: str, picture: bytes | None, name: str) -> str:
    if picture is None:
        return ""
    label = role.capitalize()
    image = _image(picture, "image/jpeg", f"{label} restoration: {name}")
    return f'<figure class="{role}">{image}<figcaption>{label}</figcaption></figure>'


def _image(data: bytes, media_type: str, description: str, attributes: str = "") -> str:
    width, height = _size(data)
    encoded = base64.b64encode(data).decode("ascii")
    return (
        f'<img{attributes} loading="lazy" decoding="async" width="{width}" height="{height}" '
        f'alt="{_escaped(description)}" src="data:{media_type};base64,{encoded}">'
    )


def _slider(name: str, number: int) -> str:
    return (
        f'<label class="unseen" for="cut-{number}">Line between before and after: {_escaped(name)}</label>'
        f'<input class="slider" id="cut-{number}" type="range" min="0" max="100" step="any" value="50" '
        'autocomplete="off" aria-valuetext="50 % before, 50 % after">'
        '<div class="handle"><div class="knob"></div></div>'
    )


def _mask(entry: ReportEntry, number: int) -> str:
    if entry.mask is None:
        return ""
    description = f"Damage found: {entry.name}"
    return _image(entry.mask, "image/png", description, f' class="mask" id="mask-{number}" hidden')


def _faces(entry: ReportEntry, number: int) -> str:
    if not entry.faces:
        return ""
    boxes = "".join(_face(*face) for face in entry.faces)
    return f'<div class="faces" id="faces-{number}" hidden>{boxes}</div>'


def _face(left: float, top: float, right: float, bottom: float) -> str:
    return (
        f'<span class="face" style="left: {left:.2%}; top: {top:.2%}; '
        f'width: {right - left:.2%}; height: {bottom - top:.2%}"></span>'
    )


def _tools(entry: ReportEntry, number: int) -> str:
    if entry.before is None and entry.after is None:
        return ""
    buttons = []
    if entry.mask is not None:
        buttons.append(_toggle(f"mask-{number}", "Damage"))
    if entry.faces:
        count = len(entry.faces)
        label = "Face" if count == 1 else "Faces"
        buttons.append(_toggle(f"faces-{number}", f'{label} <span class="count">{count}</span>'))
    return f'<div class="tools">{"".join(buttons)}</div>' if buttons else ""


def _toggle(layer: str, label: str) -> str:
    return f'<button type="button" aria-pressed="false" aria-controls="{layer}">{label}</button>'


def _messages(entry: ReportEntry) -> str:
    error = f'<p class="error">{_escaped(entry.error)}</p>' if entry.error is not None else ""
    if not entry.warnings:
        return error
    lines = "".join(f"<li>{_escaped(warning)}</li>" for warning in entry.warnings)
    return f'{error}<ul class="warnings" aria-label="Warnings">{lines}</ul>'


def _facts(entry: ReportEntry) -> str:
    rows = []
    if entry.damaged_share is not None:
        rows.append(_fact("Damaged area", _percent(entry.damaged_share)))
    if entry.faces:
        rows.append(_fact("Faces found", str(len(entry.faces))))
    total = sum(entry.seconds.values())
    for stage, seconds in entry.seconds.items():
        share = seconds / total if total > 0 else 0
        rows.append(_fact(stage, _duration(seconds), f' class="stage-time" style="--share: {share:.1%}"'))
    if len(entry.seconds) > 1:
        rows.append(_fact("Total", _duration(total)))
    return f'<dl class="facts">{"".join(rows)}</dl>' if rows else ""


def _fact(term: str, value: str, attributes: str = "") -> str:
    return f"<div{attributes}><dt>{_escaped(term)}</dt><dd>{value}</dd></div>"
