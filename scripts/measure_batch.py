"""Measure a batch: photos a second for several --jobs, and resident memory early and late in a long run.

    python scripts/measure_batch.py throughput --photos 24 --side 512 --jobs 1 2 --rounds 3
    python scripts/measure_batch.py memory --photos 2000 --side 64 --jobs 2

The rounds of a throughput measurement take turns, so that whatever else the machine does meets all alike. CPU seconds
are told beside the clock's: on a busy machine they are the ones to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import skimage.data

from oldphoto.imagefile import Photo, write_photo

FACE = (slice(60, 188), slice(156, 284))
"""Rows and columns of the astronaut's face."""

FACES = 25
"""One photo in so many shows a face, or the networks for faces would be loaded by chance at any point of a long run."""


def make_photos(folder: Path, count: int, side: int) -> None:
    """Write different cuts, side × side, of pictures that ship with scikit-image, now and then one of a face."""
    pictures = [getattr(skimage.data, name)().astype(np.float32) / 255 for name in ("astronaut", "coffee", "chelsea")]
    random = np.random.default_rng(0)
    for number in range(count):
        picture = pictures[number % len(pictures)]
        reach = [max(length - side, 0) + 1 for length in picture.shape[:2]]
        top, left = (int(random.integers(most)) for most in reach)
        cut = np.ascontiguousarray(picture[top : top + side, left : left + side])
        if number % FACES == 0:
            cut = np.asarray(cv2.resize(pictures[0][FACE], (side, side), interpolation=cv2.INTER_AREA), np.float32)
        write_photo(Photo(cut), folder / f"{number:06}.jpg")


def start(folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    """Restore the photos of a folder, without what an earlier run left."""
    command = [sys.executable, "-m", "oldphoto", "restore", "in", f"out{time.time_ns()}"]
    options = ["--with-scratch", "--jobs", str(jobs), "--log", "log.jsonl", "--quiet"]
    root = str(Path(__file__).resolve().parent.parent)
    return subprocess.Popen(command + options, cwd=folder, env={**os.environ, "PYTHONPATH": root})


def throughput(folder: Path, photos: int, jobs: list[int], rounds: int) -> None:
    """Print photos a second by the clock and CPU seconds a photo, for each number of jobs."""
    for turn in range(rounds):
        for count in jobs:
            began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            if start(folder, count).wait() != 0:
                raise SystemExit("a photo failed")
            clock, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
            told = {"round": turn, "jobs": count, "photos/s": photos / clock, "CPU s/photo": cpu / photos}
            print(json.dumps({name: round(value, 3) for name, value in told.items()}), flush=True)


def memory(folder: Path, photos: int, jobs: int) -> None:
    """Print the resident memory of a run by tenths of the photos: of the process that plans, and of all others."""
    process = start(folder, jobs)
    log = folder / "log.jsonl"
    tree = psutil.Process(process.pid)
    sizes: dict[int, tuple[float, float]] = {}
    while process.poll() is None:
        done = log.read_bytes().count(b"\n") if log.exists() else 0
        try:
            workers = sum(child.memory_info().rss for child in tree.children(recursive=True))
            sizes[done] = tree.memory_info().rss / 2**20, workers / 2**20
        except psutil.Error:
            continue  # one ended while it was looked at
        time.sleep(0.1)
    tenths = []
    for tenth in range(1, 10):
        # Each from the median of its neighbours: a photo at work comes and goes.
        there = [size for done, size in sizes.items() if tenth <= 10 * done / photos < tenth + 1]
        planner, workers = np.median(there, 0)
        tenths.append(planner + workers)
        told = {"photos": photos * tenth // 10, "MB planner": planner, "MB workers": workers}
        print(json.dumps({name: round(float(value), 1) for name, value in told.items()}), flush=True)
    print(json.dumps({"growth from the first of these to the last": round(float(tenths[-1] / tenths[0] - 1), 3)}))


def main() -> None:
    """Make photos in a temporary folder and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "memory"])
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder) / "in", arguments.photos, arguments.side)
        if arguments.what == "throughput":
            throughput(Path(folder), arguments.photos, arguments.jobs, arguments.rounds)
        else:
            memory(Path(folder), arguments.photos, arguments.jobs[-1])


if __name__ == "__main__":
    main()
