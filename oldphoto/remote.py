"""Photos on object stores and other remote places, by fsspec URLs: planned as folders are, copied around the work.

Only whole files travel: a photo is fetched into a temporary folder, worked on as a local one, and its output stored
under its name at once, so that here too an output that exists is finished.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from oldphoto import batch
from oldphoto.batch import Found, Job, Naming, Plan, Result, Work
from oldphoto.errors import OldphotoError, PhotoError, UsageError

_HERE = "file://"
_STAGING = "oldphoto-"  # begins the name of a folder for a photo at work, before the process' number
_STORES_AT_ONCE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"})
"""Protocols by which an object is there completely or not at all; others get a temporary name first."""


@dataclass(frozen=True)
class RemoteJob(Job):
    """A job whose files lie at URLs; `source` and `target` are where they lie while they are worked on."""

    source_url: str = ""
    target_url: str = ""

    @property
    def is_here(self) -> bool:
        """Not before it is worked on: a file of the current folder may have its name."""
        return False

    @property
    def input(self) -> str:
        """Where the photo comes from."""
        return self.source_url

    @property
    def output(self) -> str:
        """Where its output goes."""
        return self.target_url

    @property
    def folders(self) -> set[Path]:
        """The folder of the output, where it lies on this machine."""
        is_here = self.target_url.startswith(_HERE)
        return {Path(self.target_url.removeprefix(_HERE)).parent} if is_here else set()


def is_url(place: object) -> bool:
    """Tell whether a place is a URL and no path."""
    return isinstance(place, str) and "://" in place


def plan(source: str | Path, output: str | Path, naming: Naming, overwrite: bool = False) -> Plan:
    """Decide what becomes of each photo below a URL; touch nothing.

    Parameters
    ----------
    source, output
        URLs, or one a URL and the other a path; `source` is a photo or everything below it, `output` holds the tree, or
        is the output of a photo if it has the suffix of one and no files below it.
    naming, overwrite
        As `oldphoto.batch.plan`.

    Raises
    ------
    UsageError
        A place cannot be reached, there is no photo, or one place is inside the other; or a package is missing.
    """
    files, root = _opened(source)
    targets, goal = _opened(output)
    if _is_here(files) and _is_here(targets):
        batch.refuse_overlap(Path(root), Path(goal))
    elif type(files) is type(targets):
        for inner, outer in ((goal, root), (root, goal)):
            if f"{inner}/".startswith(f"{outer}/"):
                raise UsageError(f"INPUT ({source}) and OUTPUT ({output}) overlap: give places beside each other")
    if _is_here(files) and Path(root).is_dir():
        listed, found = [], batch.find_photos(Path(root), naming.readable)
    else:
        with _reached(source):
            listed = _list(files, root)
        found = _find(listed, root, naming.readable)
    if not found.names:
        raise UsageError(f"no photo found at {source}")
    with _reached(output):
        there = set(_list(targets, goal))
    only = found.names[0] if listed == [root] else None
    assigned = batch.assign_names(found.names, naming.target)
    jobs = []
    as_file = only is not None and PurePosixPath(goal).suffix.lower() in naming.writable and there <= {goal}
    for name, target in zip(found.names, assigned, strict=True):
        source_path = root if only == name else f"{root}/{name}"
        target_path = goal if as_file else f"{goal}/{target}"
        job = RemoteJob(
            Path(name),
            name,
            Path(PurePosixPath(target_path).name if as_file else target),
            kept=target_path in there and not overwrite,
            renamed=target != name.with_name(naming.target(name.name)),
            source_url=files.unstrip_protocol(source_path),
            target_url=targets.unstrip_protocol(target_path),
        )
        jobs.append(job)
    return Plan(tuple(jobs), found)


def _opened(place: str | Path) -> tuple[Any, str]:
    """Return the file system of a place, and the path there."""
    try:
        import fsspec.core
    except ImportError as error:
        raise UsageError(f"{place}: URLs need more packages: pip install 'oldphoto[ray]'") from error
    try:
        files, path = fsspec.core.url_to_fs(str(place) if is_url(place) else str(Path(place).absolute()))
    except (ImportError, ValueError) as error:
        raise UsageError(f"{place}: {error}") from error
    return files, path.rstrip("/")


@contextmanager
def _reached(place: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each file system has errors of its own
        raise UsageError(f"{place}: cannot be listed ({' '.join(str(error).split())})") from error


def _list(files: Any, root: str) -> list[str]:
    try:
        found: list[str] = files.find(root)
    except FileNotFoundError:
        return []
    return found


def _find(listed: Sequence[str], root: str, suffixes: frozenset[str]) -> Found:
    names, unread, ignored = [], [], 0
    for path in listed:
        name = PurePosixPath(path.removeprefix(root).lstrip("/") or PurePosixPath(path).name)
        hidden = any(part.startswith(".") for part in name.parts)
        if ".." in name.parts or hidden or name.suffix.lower() not in suffixes:
            ignored += 1
            if batch.is_unread_picture(name):
                unread.append(name)
        else:
            names.append(name)
    return Found(tuple(sorted(names)), ignored, tuple(sorted(unread)))


def staging(make_work: Callable[[], Work]) -> Work:
    """Return the work that `make_work` returns, for jobs at URLs as well as for local ones."""
    from oldphoto.imagefile.files import remove_stale_folders, temporary_folder

    work = make_work()
    remove_stale_folders(_STAGING)

    def staged(job: Job) -> Result:
        if not isinstance(job, RemoteJob):
            return work(job)
        with temporary_folder(f"{_STAGING}{os.getpid()}-") as folder:
            # The names inside are ours: what a URL ends in may be no file name here, or a path that leads out.
            here = replace(
                job,
                source=folder / f"in{job.source.suffix}",
                target=folder / f"out{job.target.suffix}",
            )
            began = time.perf_counter()
            _transfer(job.source_url, "fetched", lambda files, path: files.get_file(path, str(here.source)))
            fetched = time.perf_counter()
            try:
                result = work(here)
            except OldphotoError as error:
                told = str(error).removeprefix(f"{here.source}: ").removeprefix(f"{here.target}: ")
                raise PhotoError(told) from error
            worked = time.perf_counter()
            _transfer(job.target_url, "stored", lambda files, path: _store(files, here.target, path))
            seconds = {"fetch": fetched - began, **result.seconds, "store": time.perf_counter() - worked}
        return replace(result, seconds=seconds)

    return staged


def remove_staging(pid: int) -> None:
    """Remove what a process of this machine that was killed had fetched."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_STAGING}{pid}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _transfer(url: str, what: str, transfer: Callable[[Any, str], None]) -> None:
    import fsspec.core

    if "::" in url:  # fsspec would take what stands before it for a file inside of what follows
        raise PhotoError(f"cannot be {what} ({url}): two colons name another place in a URL, rename the file")
    try:
        transfer(*fsspec.core.url_to_fs(url))
    except Exception as error:  # each file system has errors of its own
        raise PhotoError(f"cannot be {what} ({url}: {error}): run again when it can be reached") from error


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else files.protocol


def _is_here(files: Any) -> bool:
    return "file" in _protocols(files)


def _store(files: Any, source: Path, target: str) -> None:
    from oldphoto.imagefile import atomically

    if _is_here(files):
        with atomically(Path(target)) as part:
            shutil.copyfile(source, part)
        return
    if _STORES_AT_ONCE.intersection(_protocols(files)):
        files.put_file(str(source), target)
        return
    folder, _, _ = target.rpartition("/")
    aside = f"{folder}/.{uuid.uuid4().hex}.oldphoto-part"
    files.makedirs(folder, exist_ok=True)
    try:
        files.put_file(str(source), aside)
        files.mv(aside, target)
    except BaseException:
        with suppress(Exception):
            files.rm_file(aside)
        raise
