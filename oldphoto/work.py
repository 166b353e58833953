"""What is done with each photo of a batch: read, restore, age or find the damage, write; and what is told of it.

The command line hands these to `oldphoto.batch`: a plan first, then the work on it, made only if there is any to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np

from oldphoto import __version__, audit, batch
from oldphoto.arrays import FloatImage, neutralise
from oldphoto.batch import Found, Job, Naming, Outcome, Plan, Result, Work
from oldphoto.errors import OldphotoError, PhotoError, UsageError
from oldphoto.imagefile import (
    INPUT_SUFFIXES,
    OUTPUT_SUFFIX,
    PIXEL_LIMIT,
    Photo,
    PhotoFile,
    check_pages,
    format_of,
    mask_of,
    open_photo,
    output_format,
    read_mask,
    read_photo,
    write_mask,
    write_pages,
    write_photo,
)
from oldphoto.report import ReportEntry, preview, preview_mask
from oldphoto.shortage import WithLessMemory

if TYPE_CHECKING:
    from oldphoto.pipeline import Restoration, RestoreOptions, Restorer
    from oldphoto.training.ageing import Aged

DAMAGED = 0.5
"""Mask values from here on count as damage where it has to be yes or no: in masks, logs and reports."""

SOFTWARE = f"oldphoto {__version__}"
"""What the EXIF Software tag says of photos that were changed."""

_PRINT_SIDE = 400  # short side, in pixels, of the photo that blur, grain and defects of ageing are measured for
_SMALLEST_PRINT = 20  # below it defects shrink no more: they would be endlessly many on a narrow strip


# What becomes which file


def photo_naming(format: str = "same") -> Naming:
    """Return how restored photos are called: as their sources, or with the suffix of `format`.

    Parameters
    ----------
    format
        "same", or a key of `oldphoto.imagefile.OUTPUT_SUFFIX`.
    """

    def target(name: str) -> str:
        if format == "same" and format_of(Path(name)) is not None:
            return name
        path = PurePosixPath(name)
        return path.stem + OUTPUT_SUFFIX[output_format(path.suffix) if format == "same" else format]

    formats = {suffix: format_of(Path(f"photo{suffix}")) for suffix in INPUT_SUFFIXES}
    writable = {suffix for suffix, its in formats.items() if its is not None and format in ("same", its)}
    return Naming(INPUT_SUFFIXES, frozenset(writable), target)


def mask_naming() -> Naming:
    """Return how the masks of photos are called."""
    return Naming(INPUT_SUFFIXES, frozenset({".png"}), batch.mask_name)


def plan_restoration(
    source: Path,
    output: Path,
    *,
    format: str = "same",
    overwrite: bool = False,
    masks: Path | None = None,
    save_masks: Path | None = None,
    max_pixels: int = PIXEL_LIMIT,
) -> Plan:
    """Plan a restoration: see `oldphoto.batch.plan`.

    Parameters
    ----------
    source, output
        A folder and a folder, or a photo and a folder or a file.
    format
        "same", or the format of all outputs.
    overwrite
        Do finished outputs again.
    masks
        The user's own masks: one file for every photo, or a folder with the same names. A photo without one is
        treated as if there were none.
    save_masks
        A folder for the masks that were used.
    max_pixels
        A larger mask is refused.

    Raises
    ------
    UsageError
        As `oldphoto.batch.plan`; or the masks are missing, are no picture, or would be overwritten.
    """
    if masks is not None and not masks.exists():
        raise UsageError(f"no such mask: {masks}")
    if masks is not None and source.is_dir() and batch.inside(source, masks):
        raise UsageError(f"the masks ({masks}) and the photos ({source}) need folders of their own")
    if masks is not None and masks.is_file():
        try:
            read_mask(masks, max_pixels)
        except PhotoError as error:
            raise UsageError(str(error)) from error
    plan = batch.plan(source, output, photo_naming(format), overwrite=overwrite, save_masks=save_masks, leave_out=masks)
    # To do photos again is no word about the masks, which a person may have edited since.
    plan = replace(plan, jobs=tuple(replace(job, keeps_mask=job.save_mask is not None) for job in plan.jobs))
    return plan if masks is None else _with_own_masks(plan, masks)


def _with_own_masks(plan: Plan, masks: Path) -> Plan:
    own = _own_masks(masks, plan.found.names) if masks.is_dir() else dict.fromkeys(plan.found.names, masks)
    if not own:
        raise UsageError(f"no mask in {masks} has the name of a photo: call a.jpg's a.png, as oldphoto mask does")
    batch.refuse_overwriting(plan, set(own.values()), "one of your own masks")
    return replace(plan, jobs=tuple(replace(job, mask=own.get(job.name)) for job in plan.jobs))


def _own_masks(folder: Path, names: Sequence[PurePosixPath]) -> dict[PurePosixPath, Path]:
    """Find masks by the name that ``oldphoto mask`` gives them, by the photo's own, or by that with any suffix."""
    try:
        masks = batch.find_photos(folder, INPUT_SUFFIXES).names
    except UsageError as error:
        raise UsageError(f"no mask found in {folder}") from error
    by_name = {batch.fold(mask): mask for mask in masks}
    assigned = zip(names, batch.assign_names(names, batch.mask_name), strict=True)
    found = {name: by_name[batch.fold(given)] for name, given in assigned if batch.fold(given) in by_name}
    rest = sorted(set(masks) - set(found.values()), reverse=True)
    of = {by_name[batch.fold(name)]: name for name in names if name not in found and batch.fold(name) in by_name}
    found |= {name: mask for mask, name in of.items()}
    by_stem = {batch.fold(mask.with_suffix("")): mask for mask in sorted(rest, key=lambda mask: mask not in of)}
    for name in names:
        mask = by_stem.get(batch.fold(name.with_suffix("")))
        if name not in found and mask is not None:
            if mask in of:
                wanted = f"{of[mask].name}.png or {name.name}.png"
                raise UsageError(f"{folder / mask} may be the mask of {of[mask]} or of {name}: call it {wanted}")
            of[mask] = name
    found |= {name: mask for mask, name in of.items()}
    return {name: folder / mask for name, mask in found.items()}


# The work


def restoring(
    options: RestoreOptions,
    *,
    device: str = "auto",
    checkpoints: Path | None = None,
    quality: int = 95,
    previews: bool = False,
    stamp: bool = True,
    max_pixels: int = PIXEL_LIMIT,
) -> Work:
    """Load the networks, once, and return the work that restores a photo with them.

    Parameters
    ----------
    options
        What the restoration does.
    device
        "auto", "cpu", "cuda", "cuda:N" or "mps".
    checkpoints
        A folder of weights; by default the bundled ones.
    quality
        The quality of JPEG and WebP, 1 to 100.
    previews
        Make small pictures for the before/after page; of several pages, of the first.
    stamp
        Let the EXIF Software tag say that the photo was restored.
    max_pixels
        Larger photos are refused.

    Raises
    ------
    UsageError
        The device is unknown or absent.
    CheckpointError
        The weights are missing or altered.
    """
    from oldphoto.pipeline import Restorer

    def make(tile: int | None, device: str) -> Restorer:
        return Restorer(replace(options, tile=tile), device, checkpoints)

    restorers = WithLessMemory(make, options.tile, device)
    software = SOFTWARE if stamp else None
    made_by = audit.made_by(options, device, checkpoints, quality, software)

    def work(job: Job) -> Result:
        watch = _Stopwatch()
        with watch.timing("read"):
            file = _Pages(job.source, max_pixels)
            own = None if job.mask is None else open_photo(job.mask, max_pixels)
        format = format_of(job.target) or ""
        _check_pages(job, file.count, format)
        tally = _Tally()

        def read(index: int) -> tuple[Photo, FloatImage | None]:
            with watch.timing("read"):
                photo = file.read(index)
                mask = None if own is None else _fitting_mask(own, photo)
            if previews and index == 0:
                tally.before = preview(photo.rgb)  # now: the photo's memory becomes the restored one's
            return photo, mask

        def restored() -> Iterator[Photo]:
            for index in range(file.count):
                (photo, restoration), notice = restorers.apply(partial(_attempt, partial(read, index)))
                watch.add(restoration.seconds)
                tally.add(photo, restoration, notice)
                if job.save_mask is not None:
                    # The photo comes last: a rerun takes a job whose photo exists for finished.
                    kept = _save_mask(_used_mask(restoration), job.save_mask, job.keeps_mask)
                    tally.warnings[-1] += () if kept is None else (kept,)
                yield photo.with_rgb(restoration.rgb)

        with watch.timing_the_rest("write"):
            written = write_pages(restored(), job.target, format, quality, software)
        return replace(
            tally.result(),
            seconds=watch.seconds,
            warnings=(*_by_page(tally.warnings), *written.warnings),
            input_sha256=file.sha256,
            mask_sha256=None if own is None else own.sha256,
            output_sha256=written.sha256,
            made_by=made_by,
        )

    return work


def _check_pages(job: Job, pages: int, format: str) -> None:
    check_pages(pages, format)
    if pages > 1 and (job.mask is not None or job.save_mask is not None):
        raise PhotoError(f"has {pages} pages, but masks are given and saved for single photos: split it, or leave them")


def _attempt(read: Callable[[], tuple[Photo, FloatImage | None]], restorer: Restorer) -> tuple[Photo, Restoration]:
    """Restore the photo, with the mask, that ``read`` gives, in its own memory: each attempt asks for it anew."""
    photo, mask = read()
    return photo, restorer.restore(photo.rgb, mask, photo.gray, in_place=True)


class _Pages:
    """The photos of a file; one that is asked for a second time is read from the disk anew.

    With the last page its bytes are let go of: they would be in memory while that is restored.
    """

    def __init__(self, source: Path, max_pixels: int) -> None:
        self._file, self._max_pixels = open_photo(source, max_pixels), max_pixels
        self._read = 0
        self.sha256, self.count = self._file.sha256, self._file.pages

    def read(self, index: int) -> Photo:
        """Decode a page. Raises PhotoError as `read_photo`, and where the file is another one by now."""
        if index < self._read:
            again = open_photo(self._file.path, self._max_pixels)
            if again.sha256 != self.sha256:
                raise PhotoError("was changed while it was worked on: restore it again")
            return again.page(index)
        photo = self._file.page(index)
        self._read = index + 1
        if self._read == self.count:
            self._file.close()
        return photo


@dataclass
class _Tally:
    """What is told of the pages of a file."""

    warnings: list[tuple[str, ...]] = field(default_factory=list)
    before: bytes | None = None
    _notices: list[str] = field(default_factory=list)
    _faces: list[tuple[float, float, float, float]] = field(default_factory=list)
    _damaged: list[tuple[int, float]] = field(default_factory=list)
    _pages: int = 0
    _first: Result = field(default_factory=Result)

    def add(self, photo: Photo, restoration: Restoration, notice: str | None) -> None:
        self._pages += 1
        self.warnings.append((*photo.warnings, *restoration.warnings))
        self._notices += [] if notice is None else [notice]
        self._faces += _face_shares(restoration, photo)
        share = _damaged_share(restoration)
        if share is not None:
            self._damaged.append((photo.rgb.size, share))
        if self.before is not None and self._pages == 1:
            self._first = _with_previews(Result(), self.before, restoration)

    def result(self) -> Result:
        pixels = sum(size for size, _ in self._damaged)
        return replace(
            self._first,
            faces=tuple(self._faces),
            damaged_share=sum(size * share for size, share in self._damaged) / pixels if pixels else None,
            notices=tuple(dict.fromkeys(self._notices)),
            pages=self._pages,
        )


def finding_masks(
    *,
    device: str = "auto",
    checkpoints: Path | None = None,
    tile: int | None = None,
    max_pixels: int = PIXEL_LIMIT,
) -> Work:
    """Load the scratch detector and return the work that writes the damage mask of a photo.

    Parameters
    ----------
    device
        "auto", "cpu", "cuda", "cuda:N" or "mps".
    checkpoints
        A folder of weights; by default the bundled ones.
    tile
        The side of the tiles, in pixels; by default one that fits the memory.
    max_pixels
        Larger photos are refused.

    Raises
    ------
    UsageError
        The device is unknown or absent.
    CheckpointError
        The weights are missing or altered.
    """
    from oldphoto.stages import scratch_detector

    detectors = WithLessMemory(lambda tile, device: scratch_detector(device, checkpoints, tile), tile, device)

    def work(job: Job) -> Result:
        watch = _Stopwatch()
        with watch.timing("read"):
            photo = read_photo(job.source, max_pixels)
        with watch.timing("scratches"):
            found, notice = detectors.apply(lambda detector: detector.detect(photo.rgb))
            mask = (found >= DAMAGED).astype(np.float32)
        with watch.timing("write"):
            write_mask(mask, job.target)
        return Result(
            seconds=watch.seconds,
            damaged_share=float((mask >= DAMAGED).mean()),
            warnings=tuple(photo.warnings),
            notices=() if notice is None else (notice,),
        )

    return work


def age_by_name(rgb: FloatImage, name: str, seed: int = 0, severity: float | None = None) -> Aged:
    """Age a picture with the chance that its name and a seed give it, whatever is aged before or beside it.

    Parameters
    ----------
    rgb
        H × W × 3 in [0, 1]; it is not changed. Blur, grain and defects grow with its short side.
    name
        What tells the picture from others; case and Unicode form do not count.
    seed
        Another seed, another ageing.
    severity
        How hard each family of ageing hits, 0 to 1; by default random for each family.
    """
    from oldphoto.training.ageing import Severity, age

    digest = hashlib.sha256(f"{seed}/{batch.fold(name)}".encode("utf-8", "surrogateescape")).digest()
    families = None if severity is None else Severity(severity, severity, severity, severity, severity)
    scale = max(min(rgb.shape[:2]), _SMALLEST_PRINT) / _PRINT_SIDE
    return age(rgb, np.random.default_rng(int.from_bytes(digest)), families, scale)


def ageing(*, seed: int = 0, severity: float | None = None, quality: int = 95, max_pixels: int = PIXEL_LIMIT) -> Work:
    """Return the work that ages a clean photo; gray ones stay gray.

    Parameters
    ----------
    seed, severity
        As `age_by_name`; the name of a photo is its path below INPUT.
    quality
        The quality of JPEG and WebP, 1 to 100.
    max_pixels
        Larger photos are refused.
    """

    def work(job: Job) -> Result:
        watch = _Stopwatch()
        with watch.timing("read"):
            photo = read_photo(job.source, max_pixels)
        with watch.timing("ageing"):
            aged = age_by_name(photo.rgb, str(job.name), seed, severity)
            if photo.gray:
                neutralise(aged.photo)
        with watch.timing("write"):
            if job.save_mask is not None:
                kept = _save_mask(aged.mask, job.save_mask, job.keeps_mask)
                if kept is not None:  # a photo beside the mask of another one would deceive whoever trains on it
                    raise PhotoError(kept)
            written = write_photo(photo.with_rgb(aged.photo), job.target, format_of(job.target), quality)
        return Result(
            seconds=watch.seconds,
            damaged_share=float((aged.mask >= DAMAGED).mean()),
            warnings=(*photo.warnings, *written),
        )

    return work


@dataclass(frozen=True)
class Filtered:
    """The new pixels of a page, H × W × 3 in [0, 1], and what the log tells of how they came about."""

    rgb: FloatImage
    how: Mapping[str, str] = field(default_factory=dict)


Filter = Callable[[FloatImage], Filtered]
"""Changes the pixels of a page, H × W × 3 in [0, 1]: others, the old ones stay as they are."""


def filtering(
    make: Callable[[int | None, str], Filter],
    stage: str,
    *,
    tile: int | None = None,
    device: str = "auto",
    quality: int = 95,
    stamp: bool = True,
    max_pixels: int = PIXEL_LIMIT,
    weights: Mapping[str, str] | None = None,
) -> Work:
    """Return the work that writes a photo, or every page of a TIFF, with other pixels; gray ones stay gray.

    Parameters
    ----------
    make
        Makes the filter, once, for tiles of a side in pixels and a device; again where the memory is short.
    stage
        What the log calls the time that it takes.
    tile, device
        The side of the tiles, None for the usual, and "auto", "cpu", "cuda", "cuda:N" or "mps".
    quality
        The quality of JPEG and WebP, 1 to 100.
    stamp
        Let the EXIF Software tag say what changed the photo.
    max_pixels
        Larger photos are refused.
    weights
        The networks that take part, and the hashes of their weights.

    Raises
    ------
    OldphotoError
        What `make` raises.
    """
    filters = WithLessMemory(make, tile, device)
    software = SOFTWARE if stamp else None
    made_by = {"version": __version__} | ({"weights": dict(weights)} if weights else {})

    def work(job: Job) -> Result:
        watch = _Stopwatch()
        with watch.timing("read"):
            file = open_photo(job.source, max_pixels)
        format = format_of(job.target) or ""
        check_pages(file.pages, format)
        warnings: list[tuple[str, ...]] = []
        notices: list[str] = []
        how: dict[str, list[str]] = {}

        def changed(index: int) -> Photo:
            with watch.timing("read"):
                photo = file.page(index)
            warnings.append(photo.warnings)
            with watch.timing(stage), _naming_page(index, file.pages):
                filtered, notice = filters.apply(lambda change: change(photo.rgb))
            notices.extend([] if notice is None else [notice])
            for key, told in filtered.how.items():
                how.setdefault(key, []).append(told)
            if photo.gray:
                neutralise(filtered.rgb)
            return photo.with_rgb(filtered.rgb)

        with watch.timing_the_rest("write"):
            written = write_pages(map(changed, range(file.pages)), job.target, format, quality, software)
        return Result(
            seconds=watch.seconds,
            warnings=(*_by_page(warnings), *written.warnings),
            notices=tuple(dict.fromkeys(notices)),
            pages=file.pages,
            input_sha256=file.sha256,
            output_sha256=written.sha256,
            made_by=made_by | {key: told[0] if file.pages == 1 else told for key, told in how.items()},
        )

    return work


def _by_page(warnings: Sequence[tuple[str, ...]]) -> list[str]:
    """What is told of the pages of a file: each sentence once, with the pages that it is about unless these are all."""
    pages: dict[str, list[int]] = {}
    for number, told in enumerate(warnings, 1):
        for sentence in dict.fromkeys(told):
            pages.setdefault(sentence, []).append(number)
    return [
        told if len(on) == len(warnings) else f"page{'s' * (len(on) > 1)} {', '.join(map(str, on))}: {told}"
        for told, on in pages.items()
    ]


@contextmanager
def _naming_page(index: int, pages: int) -> Iterator[None]:
    """Let what fails on one of several pages say which."""
    try:
        yield
    except PhotoError as error:
        if pages == 1:
            raise
        raise PhotoError(f"page {index + 1}: {error}") from error


@dataclass
class _Stopwatch:
    """Adds up the time of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.add({stage: time.perf_counter() - start})

    @contextmanager
    def timing_the_rest(self, stage: str) -> Iterator[None]:
        """Time a block without what other stages take inside it."""
        start, before = time.perf_counter(), sum(self.seconds.values())
        yield
        others = sum(self.seconds.values()) - before
        self.add({stage: time.perf_counter() - start - others})

    def add(self, seconds: Mapping[str, float]) -> None:
        for stage, more in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + more


def _fitting_mask(file: PhotoFile, photo: Photo) -> FloatImage:
    mask = mask_of(file.page())
    height, width = photo.rgb.shape[:2]
    if mask.shape != (height, width):
        sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, the photo {width} x {height}"
        raise PhotoError(f"its mask {file.path} has {sizes}: make the mask as large as the photo")
    return mask


def _used_mask(restoration: Restoration) -> FloatImage:
    return restoration.mask if restoration.mask is not None else np.zeros(restoration.rgb.shape[:2], np.float32)


def _face_shares(restoration: Restoration, photo: Photo) -> tuple[tuple[float, float, float, float], ...]:
    height, width = photo.rgb.shape[:2]
    boxes = (face.box for face in restoration.faces)
    return tuple((left / width, top / height, right / width, bottom / height) for left, top, right, bottom in boxes)


def _save_mask(mask: FloatImage, path: Path, keeps: bool) -> str | None:
    """Write a mask; where another is there and ``keeps`` says that it stays, return a word about that instead."""
    if not (keeps and path.exists()):
        write_mask(mask, path)
        return None
    there = read_mask(path)
    if there.shape == mask.shape and np.abs(there - mask).max() < 1 / 255:
        return None
    return f"{path} is there, another mask, and is kept: delete it, give another folder, or --mask to repair by it"


def _damaged_share(restoration: Restoration) -> float | None:
    return None if restoration.mask is None else float((restoration.mask >= DAMAGED).mean())


def _with_previews(result: Result, before: bytes, restoration: Restoration) -> Result:
    return replace(
        result,
        before=before,
        after=preview(restoration.rgb),
        mask=None if restoration.mask is None else preview_mask(restoration.mask),
    )


# What is told of it

_MOST_KEPT = 50_000_000
"""Pixels of a photo that an earlier run restored up to which the page shows it: it is decoded where the run is planned,
which must not run out of memory."""


def unreadable_outcomes(found: Found) -> tuple[Outcome, ...]:
    """Return a failure for each folder that could not be searched: its photos must not be passed over in silence."""
    return tuple(
        Outcome(
            Job(folder, PurePosixPath(folder.as_posix()), folder), "failed", error=f"{why}: its photos are left out"
        )
        for folder, why in found.unreadable
    )


def report_entry(outcome: Outcome) -> ReportEntry:
    """Return what the before/after page shows of an outcome; the pictures of a kept photo are read for it."""
    result = outcome.result
    if outcome.status == "kept":
        result = _with_kept_pictures(result, outcome.job)
    return ReportEntry(
        name=str(outcome.job.name),
        status=outcome.status,
        before=result.before,
        after=result.after,
        mask=result.mask,
        faces=(result.faces or ()) if result.pages == 1 else (),  # the page shows the first of several
        seconds=result.seconds,
        damaged_share=result.damaged_share,
        warnings=(*result.warnings, *_shown_of(result.pages)),
        error=outcome.error or None,
    )


def _shown_of(pages: int) -> Iterator[str]:
    if pages > 1:
        yield f"shown is the first of {pages} pages, counted are all"


def _with_kept_pictures(result: Result, job: Job) -> Result:
    """Previews of a photo that an earlier run restored, where both files are here, not huge, and of one size."""
    if not job.is_here:
        return result
    previews, sizes = [], set()
    for path in (job.source, job.target):
        try:
            rgb = open_photo(path, _MOST_KEPT).page(0).rgb
        except OldphotoError:
            return result
        previews.append(preview(rgb))
        sizes.add(rgb.shape)
    return replace(result, before=previews[0], after=previews[1]) if len(sizes) == 1 else result


def open_log(path: Path) -> IO[str]:
    """Open a log to append to, each line written out as it ends.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.is_file() and _last_byte(path) not in (b"", b"\n")
        log = path.open("a", encoding="ascii", buffering=1, newline="\n")
        if torn:
            log.write("\n")  # a killed run broke off inside a line
    except OSError as error:
        raise UsageError(f"cannot write the log {path}: {error.strerror}") from error
    return log


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        return file.read()


def log_line(outcome: Outcome) -> str:
    """Return an outcome as one line of JSON, in ASCII (names that are not UTF-8 keep their bytes as surrogates)."""
    result = outcome.result
    return json.dumps(
        {
            "input": outcome.job.input,
            "output": None if outcome.status == "failed" else outcome.job.output,
            "status": outcome.status,
            "error": outcome.error or None,
            "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
            "faces": None if result.faces is None else len(result.faces),
            "damaged_share": None if result.damaged_share is None else round(result.damaged_share, 6),
            "warnings": [*result.warnings, *result.notices],
            "pages": result.pages,
            "input_sha256": result.input_sha256,
            "mask": None if outcome.job.mask is None else str(outcome.job.mask),
            "mask_sha256": result.mask_sha256,
            "output_sha256": result.output_sha256,
            **result.made_by,
        }
    )
