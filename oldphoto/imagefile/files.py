"""Files that appear complete, by rename, or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from oldphoto.errors import PhotoError

PART_SUFFIX = ".oldphoto-part"


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block succeeds, its file becomes `path`.

    The temporary lies in the same folder (which is made if missing), begins with "." and ends with ".oldphoto-part".
    Whatever ends the block early (also KeyboardInterrupt) removes it and leaves an existing `path` as it was.

    Raises
    ------
    PhotoError
        On any OSError inside the block or at the commit: disk full, read-only folder, a folder in the way.
    """
    # The name does not repeat the target's, which may already be as long as the file system allows.
    part = path.with_name(f".{uuid.uuid4().hex}{PART_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
