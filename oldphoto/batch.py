"""Plan, work, commit over folders: which photo becomes which file, what is finished already, and what failed.

`plan` looks and decides but touches nothing; `run` does the jobs of a plan, collects failures, and yields one `Outcome`
a job as it ends. An output appears by rename only, so an output that exists is finished: a rerun resumes.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import traceback
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from typing import Any

from oldphoto.errors import OldphotoError, UsageError, WorkerError
from oldphoto.shortage import is_out_of_memory

UNREAD_PICTURES = frozenset({
    ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".jxr", ".avif", ".hif", ".gif", ".psd", ".psb", ".xcf", ".svg",
    ".mpo", ".jif", ".jfi", ".dib", ".tga", ".pcx", ".pcd", ".pct", ".sgi", ".pbm", ".pgm", ".ppm", ".pnm",
    ".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".x3f",
})  # fmt: skip
"""Suffixes of pictures of kinds that are not read, in lower case."""

_LOOK_AHEAD = 4  # photos a worker that are handed out before one of them has ended
_UNHEARD = 1.0  # seconds after which one that waits looks for signals, where these do not wake it (Windows)


@dataclass(frozen=True)
class Naming:
    """Which files are photos, and what their outputs are called."""

    readable: frozenset[str]
    """Suffixes of the files taken from a folder, in lower case with the dot."""
    writable: frozenset[str]
    """Suffixes that OUTPUT may have when it names a file."""
    target: Callable[[str], str]
    """The output's file name for a source's file name."""


@dataclass(frozen=True)
class Job:
    """One photo to work on."""

    source: Path
    name: PurePosixPath
    """The source relative to INPUT."""
    target: Path
    mask: Path | None = None
    """The user's own mask of this photo."""
    save_mask: Path | None = None
    """Where the mask that was used is written."""
    keeps_mask: bool = False
    """A mask that is there already stays: a person may have edited it."""
    kept: bool = False
    """The output exists and stays."""
    renamed: bool = False
    """Another photo wants the same output, so this one got a longer name."""

    @property
    def is_here(self) -> bool:
        """Whether its files lie on this machine, where `source` and `target` say."""
        return True

    @property
    def input(self) -> str:
        """Where the photo comes from, as it is told."""
        return str(self.source)

    @property
    def output(self) -> str:
        """Where its output goes, as it is told."""
        return str(self.target)

    @property
    def folders(self) -> set[Path]:
        """The folders that files are written into."""
        return {path.parent for path in (self.target, self.save_mask) if path is not None}


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    names: tuple[PurePosixPath, ...]
    """The photos, relative to the folder and sorted."""
    ignored: int = 0
    """How many files and folders were left out: hidden, or not photos."""
    unread: tuple[PurePosixPath, ...] = ()
    """Those of them that are pictures of kinds that are not read, by their suffixes."""
    linked: tuple[Path, ...] = ()
    """Links to folders, which are not followed: they can form loops."""
    unreadable: tuple[tuple[Path, str], ...] = ()
    """Folders that cannot be read, with the reason."""


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    jobs: tuple[Job, ...]
    found: Found

    @property
    def pending(self) -> tuple[Job, ...]:
        """The jobs that are not finished already."""
        return tuple(job for job in self.jobs if not job.kept)


@dataclass(frozen=True)
class Result:
    """What is told of a finished photo."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    faces: tuple[tuple[float, float, float, float], ...] | None = None
    """Left, top, right, bottom of each face as shares of the width and height."""
    damaged_share: float | None = None
    warnings: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    """What is wrong with the machine and not with the photo: worth telling once."""
    pages: int = 1
    input_sha256: str | None = None
    mask_sha256: str | None = None
    """Of the user's own mask."""
    output_sha256: str | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """Version, options and hashes of the weights that made the output, or the method and what it found."""
    before: bytes | None = None
    after: bytes | None = None
    mask: bytes | None = None


Work = Callable[[Job], Result]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `status` is "kept", "failed", or the word that `run` was given for success."""

    job: Job
    status: str
    result: Result = Result()
    error: str = ""
    traceback: str = ""


Inbox = SimpleQueue[Outcome | BaseException | None]
"""How jobs ended, and requests to end: None. Signal handlers may put these in: its `put` may interrupt itself."""


def plan(
    source: Path,
    output: Path,
    naming: Naming,
    *,
    overwrite: bool = False,
    save_masks: Path | None = None,
    leave_out: Path | None = None,
) -> Plan:
    """Decide what becomes of each photo, and refuse what cannot end well; touch nothing.

    Parameters
    ----------
    source
        A photo, or a folder that is searched through all levels.
    output
        A folder (the tree below `source` is kept), or for one photo also the name of the output file.
    naming
        Which files are photos, and what their outputs are called.
    overwrite
        Do finished outputs again. By default they are kept, and so are masks that are there.
    save_masks
        A folder for the masks that were used.
    leave_out
        A file or folder below `source` that holds no photos to work on, such as the user's masks.

    Raises
    ------
    UsageError
        `source` is missing, not readable or without photos; outputs would land on inputs, among them or on each
        other; or a folder cannot be written to.
    """
    if source.is_dir():
        refuse_overlap(source, output)
        found = find_photos(source, naming.readable, leave_out)
        sources = [source / name for name in found.names]
        targets = [output / name for name in assign_names(found.names, naming.target)]
        wanted = [output / name.with_name(naming.target(name.name)) for name in found.names]
    elif source.is_file():
        found = Found((PurePosixPath(source.name),))
        sources = [source]
        targets = wanted = [_target_of_file(source, output, naming)]
    else:
        raise UsageError(f"no such file or folder: {source}")
    sides = [save_masks / name if save_masks else None for name in assign_names(found.names, mask_name)]
    jobs = tuple(
        Job(
            path,
            name,
            target,
            save_mask=side,
            keeps_mask=side is not None and not overwrite,
            kept=exists(target) and not overwrite,
            renamed=target != wish,
        )
        for path, name, target, side, wish in zip(sources, found.names, targets, sides, wanted, strict=True)
    )
    _refuse_bad_outputs(jobs, source)
    if source.is_dir():
        _refuse_ways_out(targets, output)
        if save_masks is not None:
            _refuse_ways_out([side for side in sides if side is not None], save_masks)
    return Plan(jobs, found)


def mask_name(name: str) -> str:
    """Return the file name of a photo's mask."""
    return f"{PurePosixPath(name).stem}.png"


def assign_names(names: Sequence[PurePosixPath], target: Callable[[str], str]) -> list[PurePosixPath]:
    """Give every source an output name of its own, whatever their order and whatever is on the disk.

    Names that differ only in case or in Unicode form count as one, as on Windows and macOS. Where several sources want
    one name, each gets its own suffix into it (``a.jpg.png``, ``a.png.png``), and where that is not enough a number.

    Parameters
    ----------
    names
        The sources, relative to their folder, all different.
    target
        The wanted file name for a source's file name.
    """
    wanted = {name: name.with_name(target(name.name)) for name in sorted(names)}
    taken = {fold(folder) for name in names for folder in name.parents}
    given: dict[PurePosixPath, PurePosixPath] = {}

    def give(candidates: Mapping[PurePosixPath, PurePosixPath]) -> None:
        wishes = Counter(fold(candidate) for candidate in candidates.values())
        free = {key for key, wishers in wishes.items() if wishers == 1} - taken
        given.update((name, candidate) for name, candidate in candidates.items() if fold(candidate) in free)
        taken.update(free)

    give(wanted)
    give({name: wish.with_name(name.name + wish.suffix) for name, wish in wanted.items() if name not in given})
    for name, wish in wanted.items():
        if name not in given:
            numbered = (wish.with_name(f"{wish.stem}-{number}{wish.suffix}") for number in count(1))
            given[name] = next(candidate for candidate in numbered if fold(candidate) not in taken)
            taken.add(fold(given[name]))
    return [given[name] for name in names]


def refuse_unwritable(folder: Path) -> None:
    """Check that files can be made in `folder`, which need not exist yet.

    Raises
    ------
    UsageError
        It is a file, or it (or the nearest folder above it that exists) cannot be written to.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"not a folder: {there}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into {there}: give another folder, or yourself the right to write there")


def find_photos(folder: Path, suffixes: frozenset[str], leave_out: Path | None = None) -> Found:
    """List the photos of a folder and of those below it.

    Raises
    ------
    UsageError
        There is no photo.
    """
    photos: list[PurePosixPath] = []
    errors: list[OSError] = []
    linked: list[Path] = []
    unread: list[PurePosixPath] = []
    ignored = 0
    for place, folders, files in os.walk(folder, onerror=errors.append):
        here = Path(place)
        seen = [name for name in folders if not (name.startswith(".") or same(here / name, leave_out))]
        ignored += len(folders) - len(seen)
        links = {name for name in seen if (here / name).is_symlink()}
        linked += [here / name for name in sorted(links)]
        folders[:] = [name for name in seen if name not in links]  # os.walk goes only into these
        for name in files:
            relative = PurePosixPath((here / name).relative_to(folder).as_posix())
            if _is_photo(here / name, suffixes) and not same(here / name, leave_out):
                photos.append(relative)
                continue
            ignored += 1
            if is_unread_picture(relative):
                unread.append(relative)
    unreadable = tuple((Path(error.filename), error.strerror or "cannot be read") for error in errors)
    if not photos:
        raise UsageError(": ".join(map(str, unreadable[0])) if unreadable else f"no photo found in {folder}")
    return Found(tuple(sorted(photos)), ignored, tuple(sorted(unread)), tuple(sorted(linked)), unreadable)


def is_unread_picture(name: PurePosixPath) -> bool:
    """Tell whether a file that is no photo to work on is a picture all the same, and not hidden."""
    return name.suffix.lower() in UNREAD_PICTURES and not any(part.startswith(".") for part in name.parts)


def _is_photo(path: Path, suffixes: frozenset[str]) -> bool:
    """Tell photos by their names; one that cannot be looked at, as a broken link, is reported and not passed over."""
    if path.suffix.lower() not in suffixes or path.name.startswith("."):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _target_of_file(source: Path, output: Path, naming: Naming) -> Path:
    """Find the output of a single photo: OUTPUT itself, or a file in it."""
    if source.suffix.lower() not in naming.readable:
        raise UsageError(f"{source}: not a photo that can be read ({', '.join(sorted(naming.readable))})")
    if not os.access(source, os.R_OK):
        raise UsageError(f"{source}: no permission to read it")
    if output.is_dir():
        return output / naming.target(source.name)
    if output.suffix.lower() in naming.writable:
        return output
    if output.suffix or output.exists():
        allowed = ", ".join(sorted(naming.writable))
        raise UsageError(f"{output}: make this folder first, or name a file that ends in {allowed}")
    return output / naming.target(source.name)


def refuse_overlap(source: Path, output: Path) -> None:
    """Refuse an output that is the input, or one inside the other, by whatever links. Raises UsageError."""
    if same(output, source):
        raise UsageError(f"the output is the input ({source}): give another folder")
    if inside(output, source):
        raise UsageError(f"the output ({output}) is inside the input ({source}): give a folder outside it")
    if inside(source, output):
        raise UsageError(f"the input ({source}) is inside the output ({output}): give a folder beside it")


def _refuse_bad_outputs(jobs: Sequence[Job], source: Path) -> None:
    """Refuse outputs that would land on an input, among the inputs, on each other, or where nothing can be written."""
    inputs = {os.path.realpath(job.source) for job in jobs}
    outputs = [path for job in jobs for path in (job.target, job.save_mask) if path is not None]
    seen: set[str] = set()
    for path in outputs:
        real = str(Path(os.path.realpath(path.parent), path.name))  # a link there would be replaced, not followed
        if real in inputs or (len(jobs) == 1 and same(path, jobs[0].source)):
            raise UsageError(f"{path} is an input and would be overwritten: give another output")
        if exists(path) and path.is_dir():
            raise UsageError(f"{path} is a folder, but a file would be written there")
        if fold(real) in seen:
            raise UsageError(f"{path} would be written twice: give the masks a folder of their own")
        seen.add(fold(real))
    for folder in sorted({path.parent for path in outputs}):
        if source.is_dir() and inside(folder, source):
            raise UsageError(f"{folder} is inside the input ({source}): give a folder outside it")
        refuse_unwritable(folder)


def _refuse_ways_out(paths: Sequence[Path], folder: Path) -> None:
    """Refuse to write through a link in the output folder that leads out of it."""
    if folder.exists():
        for place in sorted({path.parent for path in paths}):
            if not inside(place, folder):
                raise UsageError(f"{place} leads out of {folder} by a link: remove the link, or give another folder")


def refuse_overwriting(plan: Plan, read: Iterable[Path], what: str) -> None:
    """Refuse a plan with an output that is one of other files that are ``read``; ``what`` those are called.

    Raises
    ------
    UsageError
        With the output.
    """
    places = {_place(path) for path in read if exists(path)}
    for path in (path for job in plan.jobs for path in (job.target, job.save_mask)):
        if path is not None and exists(path) and _place(path) in places:
            raise UsageError(f"{path} is {what} and would be overwritten: give another output")


def _place(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def same(path: Path, other: Path | None) -> bool:
    """Tell whether two paths lead to one existing file or folder; case and links deceive a comparison of names."""
    return other is not None and exists(path) and exists(other) and path.samefile(other)


def exists(path: Path) -> bool:
    """Tell whether a path leads to something; one with a name too long for any file does not."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def same_place(path: Path, other: Path) -> bool:
    """Tell whether two paths, of files that need not exist, are one."""
    return same(path, other) or fold(os.path.realpath(path)) == fold(os.path.realpath(other))


def inside(path: Path, folder: Path) -> bool:
    """Tell whether `path`, which need not exist, is `folder` or below it."""
    real = Path(os.path.realpath(path))  # unlike Path.resolve it survives a loop of links
    return any(same(above, folder) for above in (real, *real.parents))


def fold(path: PurePosixPath | str) -> str:
    """Return what names have in common that Windows or macOS take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", str(path)).casefold())


def run(
    jobs: Iterable[Job],
    work: Work,
    workers: int = 1,
    done: str = "restored",
    abort: Callable[[], None] = lambda: None,
    inbox: Inbox | None = None,
) -> Iterator[Outcome]:
    """Do the jobs and yield how each ended, as it ends; with one worker that is their order.

    A job that fails, for whatever reason, becomes an outcome and never stops the others; one that takes long holds none
    up. A request to end, which is a None in the `inbox` or, without one, a KeyboardInterrupt, aborts the job at work;
    with several workers no new job starts, those at work finish and are yielded, unless a second request comes.

    Parameters
    ----------
    jobs
        The jobs of a plan.
    work
        Does one job: reads, restores and writes. Called from several threads where `workers` is more than 1, from
        another than this where there is an `inbox`.
    workers
        How many jobs are worked on at once.
    done
        The status of a job that succeeded.
    abort
        Makes the calls of `work` that are under way fail at once.
    inbox
        Where a signal handler, which may raise nothing, puts requests to end: an exception that comes between an
        outcome and whom it is told to would cost it.

    Raises
    ------
    KeyboardInterrupt
        After a request to end, when the jobs at work have ended.
    """
    if workers == 1 and inbox is None:
        for job in jobs:
            yield _attempt(job, work, done)
        return
    inbox = inbox or SimpleQueue()
    feed = _Feed(jobs, workers * _LOOK_AHEAD)
    threads = [_post((_attempt(job, work, done) for job in feed), inbox) for _ in range(workers)]
    requests = 0
    try:
        for outcome in _received(inbox, workers):
            if outcome is None:
                requests += 1
                feed.stop()
                if workers == 1 or requests > 1:
                    abort()
            elif not (requests and workers == 1 and outcome.status == "failed"):
                feed.more()
                yield outcome
    finally:
        feed.stop()
        for thread in threads:
            thread.join()
    if requests:
        raise KeyboardInterrupt


def awaited(outcomes: Iterable[Outcome], inbox: Inbox) -> Iterator[Outcome]:
    """Yield the outcomes, for which another thread waits, as they come; raise KeyboardInterrupt at a request to end."""
    _post(outcomes, inbox)
    for outcome in _received(inbox, 1):
        if outcome is None:
            raise KeyboardInterrupt
        yield outcome


class _Feed:
    """Jobs for several threads, so many ahead of those that were asked for; none after a stop."""

    def __init__(self, jobs: Iterable[Job], ahead: int) -> None:
        self._jobs = iter(jobs)
        self._one_takes = threading.Lock()
        self._room = threading.Semaphore(ahead)
        self._stopped = False

    def __iter__(self) -> Iterator[Job]:
        while True:
            self._room.acquire()
            with self._one_takes:
                job = None if self._stopped else next(self._jobs, None)
            if job is None:
                self._room.release()  # to the next that waits
                return
            yield job

    def more(self) -> None:
        """Let one job more be taken."""
        self._room.release()

    def stop(self) -> None:
        """Let no more be taken."""
        self._stopped = True
        self._room.release()


def _post(outcomes: Iterable[Outcome], inbox: Inbox) -> threading.Thread:
    """Start a thread that puts the outcomes into the inbox, as they come, and at last what they end with."""

    def post() -> None:
        try:
            for outcome in outcomes:
                inbox.put(outcome)
            inbox.put(StopIteration())
        except BaseException as error:
            inbox.put(error)

    thread = threading.Thread(target=post, name="oldphoto", daemon=True)
    thread.start()
    return thread


def _received(inbox: Inbox, threads: int) -> Iterator[Outcome | None]:
    """Yield what so many threads post, and before it None for each request to end; raise what ends one too early."""
    waiting: deque[Outcome | BaseException | None] = deque()
    while threads or waiting:
        try:
            # Requests overtake: outcomes may be told more slowly than they come.
            while not waiting or not inbox.empty():
                waiting.append(inbox.get(timeout=_UNHEARD))
        except Empty:
            continue
        except KeyboardInterrupt:
            waiting.append(None)
        if None in waiting:
            waiting.remove(None)
            yield None
            continue
        received = waiting.popleft()
        if isinstance(received, StopIteration):
            threads -= 1
        elif isinstance(received, BaseException):
            raise received
        else:
            yield received


def _attempt(job: Job, work: Work, done: str) -> Outcome:
    if job.kept:
        return Outcome(job, "kept")
    try:
        return Outcome(job, done, work(job))
    except Exception as error:
        told = error.traceback if isinstance(error, WorkerError) else traceback.format_exc()
        return Outcome(job, "failed", error=reason(error, job.source), traceback=told)


def reason(error: Exception, source: Path) -> str:
    """Say in one line what went wrong with a photo, and the remedy where one is known."""
    text = str(error).removeprefix(f"{source}: ")
    if is_out_of_memory(error):
        text = "out of memory: try --tile 256, and --jobs 1"
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = "the disk is full: free some space and run again, finished photos are kept"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    elif not isinstance(error, OldphotoError):
        text = f"unexpected {type(error).__name__}: {text}"
    return " ".join(text.split())


def remove_stale_parts(jobs: Iterable[Job]) -> None:
    """Remove what runs that were killed in the middle of a write left in the output folders; never what is in use."""
    from oldphoto import imagefile

    for folder in {folder for job in jobs for folder in job.folders}:
        imagefile.remove_stale_parts(folder)
