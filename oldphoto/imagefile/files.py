"""Files that appear complete, by rename, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from oldphoto.errors import PhotoError

if sys.platform != "win32":
    import fcntl

PART_SUFFIX = ".oldphoto-part"

_LOCK = ".in-use"
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_PART_NAME = re.compile(r"\.([0-9a-f]{8})[0-9a-f]{24}" + re.escape(PART_SUFFIX))
_STALE_AFTER = 600  # seconds without a write, where no lock tells more: none is written that slowly, its writer is dead


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block succeeds, its file becomes `path`.

    The temporary lies in the same folder (which is made if missing), begins with "." and ends with ".oldphoto-part".
    Whatever ends the block early (also KeyboardInterrupt) removes it and leaves an existing `path` as it was; what a
    killed process leaves is removed by `remove_stale_parts`.

    Raises
    ------
    PhotoError
        On any OSError inside the block or at the commit: disk full, read-only folder, a folder in the way.
    """
    # The name does not repeat the target's, which may already be as long as the file system allows.
    part = path.with_name(f".{_HOST}{uuid.uuid4().hex[:24]}{PART_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _marked_in_use(part):
            yield part
            _flush_to_disk(part)
            part.replace(path)
    except OSError as error:
        _remove(part)
        reason = error.strerror or str(error)
        raise PhotoError(
            f"{path}: cannot be written ({reason}): check the folder's free space and permissions"
        ) from error
    except BaseException:
        _remove(part)
        raise


def remove_stale_parts(folder: Path) -> None:
    """Remove what processes that died in the middle of a write left in a folder; never what is in use.

    A living writer holds a lock on its file, which ends with it. Where locks do not reach (files of other machines,
    file systems without them, Windows) a file is given up after ten minutes without a write.
    """
    for part in folder.glob(".*"):
        name = _PART_NAME.fullmatch(part.name)
        if name is not None:
            with contextlib.suppress(OSError):  # another run may be first
                _remove_if_abandoned(part, here=name[1] == _HOST)


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a new folder among the system's temporary files; of a killed process, `remove_stale_folders` removes it."""
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, _marked_in_use(Path(folder, _LOCK)):
        yield Path(folder)


def remove_stale_folders(prefix: str) -> None:
    """Remove the temporary folders of processes that died; none where locks do not tell which these are."""
    for lock in Path(tempfile.gettempdir()).glob(f"{prefix}*/{_LOCK}"):
        with contextlib.suppress(OSError):  # another run may be first, or it belongs to somebody else
            if sys.platform != "win32" and _is_free(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)


def _is_free(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def _marked_in_use(part: Path) -> Iterator[None]:
    if sys.platform == "win32":  # an open file cannot be renamed there
        yield
        return
    descriptor = _create_locked(part)
    try:
        yield
    finally:
        os.close(descriptor)


def _create_locked(part: Path) -> int:
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor
        os.close(descriptor)  # another run took it for abandoned before it was locked


def _remove_if_abandoned(part: Path, here: bool) -> None:
    if sys.platform != "win32" and here:
        descriptor = os.open(part, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()  # with the lock: a writer that waits for it sees then that its file is gone
            return
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            pass
        finally:
            os.close(descriptor)
    if time.time() - part.stat().st_mtime > _STALE_AFTER:
        part.unlink()


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
