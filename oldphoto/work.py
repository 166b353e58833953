"""What is done with each photo of a batch: read, restore, age or find the damage, write; and what is told of it.

The command line hands these to `oldphoto.batch`: a plan first, then the work on it, made only if there is any to do.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np

from oldphoto import batch
from oldphoto.arrays import FloatImage
from oldphoto.batch import Found, Job, Naming, Outcome, Plan, Result, Work
from oldphoto.errors import PhotoError, UsageError
from oldphoto.imagefile import (
    INPUT_SUFFIXES,
    OUTPUT_SUFFIX,
    Photo,
    format_of,
    output_format,
    read_mask,
    read_photo,
    write_mask,
    write_photo,
)
from oldphoto.report import ReportEntry, preview, preview_mask

if TYPE_CHECKING:
    from oldphoto.pipeline import Restoration, RestoreOptions
    from oldphoto.training.ageing import Aged

_DAMAGED = 0.5  # mask values from here on count as damage in the log and the report
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
            read_mask(masks)
        except PhotoError as error:
            raise UsageError(str(error)) from error
    plan = batch.plan(source, output, photo_naming(format), overwrite=overwrite, save_masks=save_masks, leave_out=masks)
    return plan if masks is None else _with_own_masks(plan, masks)


def _with_own_masks(plan: Plan, masks: Path) -> Plan:
    own = _own_masks(masks, plan.found.names) if masks.is_dir() else dict.fromkeys(plan.found.names, masks)
    for path in (path for job in plan.jobs for path in (job.target, job.save_mask)):
        if path is not None and any(batch.same(path, mask) for mask in set(own.values())):
            raise UsageError(f"{path} is one of your own masks and would be overwritten: give another folder")
    return replace(plan, jobs=tuple(replace(job, mask=own.get(job.name)) for job in plan.jobs))


def _own_masks(folder: Path, names: Sequence[PurePosixPath]) -> dict[PurePosixPath, Path]:
    """Find masks by the name that ``oldphoto mask`` gives them, by the photo's own, or by that with any suffix."""
    try:
        masks = batch.find_photos(folder, INPUT_SUFFIXES).names
    except UsageError as error:
        raise UsageError(f"no mask found in {folder}") from error
    by_name = {batch.fold(mask): mask for mask in masks}
    found = {}
    for name, given in zip(names, batch.assign_names(names, batch.mask_name), strict=True):
        mask = by_name.get(batch.fold(given)) or by_name.get(batch.fold(name))
        if mask is not None:
            found[name] = mask
    rest = set(masks) - set(found.values())
    by_stem = {batch.fold(mask.with_suffix("")): mask for mask in sorted(rest, reverse=True)}
    for name in names:
        mask = by_stem.get(batch.fold(name.with_suffix("")))
        if name not in found and mask is not None:
            found[name] = mask
    return {name: folder / mask for name, mask in found.items()}


# The work


def restoring(
    options: RestoreOptions,
    *,
    device: str = "auto",
    checkpoints: Path | None = None,
    quality: int = 95,
    previews: bool = False,
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
        Make small pictures for the before/after page.

    Raises
    ------
    UsageError
        The device is unknown or absent.
    CheckpointError
        The weights are missing or altered.
    """
    from oldphoto.pipeline import Restorer

    restorer = Restorer(options, device, checkpoints)

    def work(job: Job) -> Result:
        watch = _Stopwatch()
        with watch.timing("read"):
            photo = read_photo(job.source)
            mask = None if job.mask is None else _read_fitting_mask(job.mask, photo)
        restoration = restorer.restore(photo.rgb, mask, photo.gray)
        watch.seconds.update(restoration.seconds)
        with watch.timing("write"):
            if job.save_mask is not None:
                used = restoration.mask if restoration.mask is not None else np.zeros(photo.rgb.shape[:2], np.float32)
                write_mask(used, job.save_mask)
            # The photo comes last: a rerun takes a job whose photo exists for finished.
            written = write_photo(photo.with_rgb(restoration.rgb), job.target, format_of(job.target), quality)
        result = Result(
            seconds=watch.seconds,
            faces=_face_shares(restoration, photo),
            damaged_share=_damaged_share(restoration),
            warnings=(*photo.warnings, *restoration.warnings, *written),
        )
        return _with_previews(result, photo, restoration) if previews else result

    return work


def finding_masks(*, device: str = "auto", checkpoints: Path | None = None, tile: int | None = None) -> Work:
    """Load the scratch detector and return the work that writes the damage mask of a photo.

    Parameters
    ----------
    device
        "auto", "cpu", "cuda", "cuda:N" or "mps".
    checkpoints
        A folder of weights; by default the bundled ones.
    tile
        The side of the tiles, in pixels; by default one that fits the memory.

    Raises
    ------
    UsageError
        The device is unknown or absent.
    CheckpointError
        The weights are missing or altered.
    """
    from oldphoto.stages import scratch_detector

    detector = scratch_detector(device, checkpoints, tile)

    def work(job: Job) -> Result:
        watch = _Stopwatch()
        with watch.timing("read"):
            photo = read_photo(job.source)
        with watch.timing("scratches"):
            mask = (detector.detect(photo.rgb) >= _DAMAGED).astype(np.float32)
        with watch.timing("write"):
            write_mask(mask, job.target)
        return Result(
            seconds=watch.seconds, damaged_share=float((mask >= _DAMAGED).mean()), warnings=tuple(photo.warnings)
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


def ageing(*, seed: int = 0, severity: float | None = None, quality: int = 95) -> Work:
    """Return the work that ages a clean photo; gray ones stay gray.

    Parameters
    ----------
    seed, severity
        As `age_by_name`; the name of a photo is its path below INPUT.
    quality
        The quality of JPEG and WebP, 1 to 100.
    """

    def work(job: Job) -> Result:
        watch = _Stopwatch()
        with watch.timing("read"):
            photo = read_photo(job.source)
        with watch.timing("ageing"):
            aged = age_by_name(photo.rgb, str(job.name), seed, severity)
            rgb = np.repeat(aged.photo.mean(2, keepdims=True), 3, 2) if photo.gray else aged.photo
        with watch.timing("write"):
            if job.save_mask is not None:
                write_mask(aged.mask, job.save_mask)
            written = write_photo(photo.with_rgb(rgb), job.target, format_of(job.target), quality)
        return Result(
            seconds=watch.seconds,
            damaged_share=float((aged.mask >= _DAMAGED).mean()),
            warnings=(*photo.warnings, *written),
        )

    return work


def filtering(change: Callable[[Photo, Job], FloatImage], stage: str, quality: int = 95) -> Work:
    """Return the work that writes a photo with other pixels; gray ones stay gray.

    Parameters
    ----------
    change
        Makes the new pixels, H × W × 3 in [0, 1].
    stage
        What the log calls the time that it takes.
    quality
        The quality of JPEG and WebP, 1 to 100.
    """

    def work(job: Job) -> Result:
        watch = _Stopwatch()
        with watch.timing("read"):
            photo = read_photo(job.source)
        with watch.timing(stage):
            rgb = change(photo, job)
            if photo.gray:
                rgb = np.repeat(rgb.mean(2, keepdims=True), 3, 2)
        with watch.timing("write"):
            written = write_photo(photo.with_rgb(rgb), job.target, format_of(job.target), quality)
        return Result(seconds=watch.seconds, warnings=(*photo.warnings, *written))

    return work


@dataclass
class _Stopwatch:
    """Adds up the time of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


def _read_fitting_mask(path: Path, photo: Photo) -> FloatImage:
    mask = read_mask(path)
    height, width = photo.rgb.shape[:2]
    if mask.shape != (height, width):
        sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, the photo {width} x {height}"
        raise PhotoError(f"its mask {path} has {sizes}: make the mask as large as the photo")
    return mask


def _face_shares(restoration: Restoration, photo: Photo) -> tuple[tuple[float, float, float, float], ...]:
    height, width = photo.rgb.shape[:2]
    boxes = (face.box for face in restoration.faces)
    return tuple((left / width, top / height, right / width, bottom / height) for left, top, right, bottom in boxes)


def _damaged_share(restoration: Restoration) -> float | None:
    return None if restoration.mask is None else float((restoration.mask >= _DAMAGED).mean())


def _with_previews(result: Result, photo: Photo, restoration: Restoration) -> Result:
    return replace(
        result,
        before=preview(photo.rgb),
        after=preview(restoration.rgb),
        mask=None if restoration.mask is None else preview_mask(restoration.mask),
    )


# What is told of it


def unreadable_outcomes(found: Found) -> tuple[Outcome, ...]:
    """Return a failure for each folder that could not be searched: its photos must not be passed over in silence."""
    return tuple(
        Outcome(
            Job(folder, PurePosixPath(folder.as_posix()), folder), "failed", error=f"{why}: its photos are left out"
        )
        for folder, why in found.unreadable
    )


def report_entry(outcome: Outcome) -> ReportEntry:
    """Return what the before/after page shows of an outcome."""
    result = outcome.result
    return ReportEntry(
        name=str(outcome.job.name),
        status=outcome.status,
        before=result.before,
        after=result.after,
        mask=result.mask,
        faces=result.faces or (),
        seconds=result.seconds,
        damaged_share=result.damaged_share,
        warnings=result.warnings,
        error=outcome.error or None,
    )


def open_log(path: Path) -> IO[str]:
    """Open a log to append to, each line written out as it ends.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")
        log = path.open("a", encoding="ascii", buffering=1, newline="\n")
        if torn:
            log.write("\n")  # a killed run broke off inside a line
    except OSError as error:
        raise UsageError(f"cannot write the log {path}: {error.strerror}") from error
    return log


def log_line(outcome: Outcome) -> str:
    """Return an outcome as one line of JSON, in ASCII (names that are not UTF-8 keep their bytes as surrogates)."""
    result = outcome.result
    return json.dumps(
        {
            "input": str(outcome.job.source),
            "output": None if outcome.status == "failed" else str(outcome.job.target),
            "status": outcome.status,
            "error": outcome.error or None,
            "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
            "faces": None if result.faces is None else len(result.faces),
            "damaged_share": None if result.damaged_share is None else round(result.damaged_share, 6),
            "warnings": list(result.warnings),
        }
    )
