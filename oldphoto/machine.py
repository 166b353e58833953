"""What this process may use: cores, memory, an accelerator; of a container or a batch system's job, its share."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

UNKNOWN = 8 * 1024**3
"""Bytes that are taken to be free where the system does not tell."""

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def cores(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Return how many cores this process may keep busy: those it may run on, or as many as its time makes.

    Parameters
    ----------
    proc, groups
        Where these file systems of Linux are mounted.
    """
    bounds = [len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1]
    for unified, group in _groups_of_this_process("cpu", proc, groups):
        with contextlib.suppress(OSError, ValueError):
            if unified:
                quota, period = map(int, (group / "cpu.max").read_text().split())
            else:
                quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            if quota > 0:  # -1: no bound
                bounds.append(math.ceil(quota / period))
    return min(bounds)


def has_accelerator() -> bool:
    """Tell whether there is a GPU, without importing torch."""
    return Path("/dev/nvidiactl").exists() or sys.platform == "darwin"


def free_memory(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Return the bytes that this process can still get, or UNKNOWN; parameters as `cores`.

    The least of what the machine has available and of what each control group that the process is in leaves of its
    limit; what a group holds of files is given back when it is needed, and counts as free.
    """
    bounds = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (proc / "meminfo").read_text().splitlines()
        bounds.append(1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))))
    for unified, group in _groups_of_this_process("memory", proc, groups):
        names = ("max", "current") if unified else ("limit_in_bytes", "usage_in_bytes")
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit, used = (int((group / f"memory.{name}").read_text()) for name in names)
            held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            bounds.append(limit - used + int(held["inactive_file" if unified else "total_inactive_file"]))
    return max(0, min(bounds, default=UNKNOWN))


def _groups_of_this_process(controller: str, proc: Path, groups: Path) -> Iterator[tuple[bool, Path]]:
    """Yield the control groups that bound this process, from its own up to the root: see cgroups(7).

    Whether they are of the second, unified version comes with each; a system may have both.
    """
    lines = []
    with contextlib.suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    for line in lines:
        _, _, membership = line.partition(":")
        controllers, _, path = membership.partition(":")
        unified = controllers == ""
        if unified or controller in controllers.split(","):
            root = groups if unified else groups / controller
            group = root / path.lstrip("/")
            # A container may see the path that it has outside, which leads nowhere here; what is above it counts.
            for folder in (group, *group.parents):
                yield unified, folder
                if folder == root:
                    break
