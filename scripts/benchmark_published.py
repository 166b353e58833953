"""Time and memory of the published networks beside the project's own, as a Markdown table.

    python scripts/benchmark_published.py [--sides 256 512 1024] [--threads 2] [--weights DIR] [--readme README.md]

Restores one square photo, without faces, in a process of its own for every size and way. DIR holds imported weights
(``oldphoto weights import``); by default stand-ins are made by the rule of the tests: values do not change the work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmark import peak_memory
from update_readme import enter

ROOT = Path(__file__).resolve().parents[1]
FILES = ("detection", "VAE_A_quality", "VAE_B_quality", "VAE_B_scratch",
         "mapping_quality", "mapping_scratch", "mapping_Patch_Attention")  # fmt: skip
WAYS = {"compact": ("", "--with-scratch"), "published": ("", "--with-scratch", "--with-scratch --hr")}


def stand_ins(folder: Path) -> Path:
    """Weights by rule, written as the released files and imported into a folder."""
    sys.path.insert(0, str(ROOT / "tests"))
    import released

    from oldphoto.published_weights import import_published

    with tempfile.TemporaryDirectory(dir=folder) as files:
        for name in FILES:
            released.write(Path(files), name)
        return import_published([Path(files)], folder / "weights").folder


def time_one(options: str, side: int, threads: int, weights: Path | None) -> None:
    """Restore one photo in this process, networks loaded and warm; print seconds and peak GB as JSON."""
    import cv2
    import numpy as np
    import skimage.data
    import torch

    from oldphoto.pipeline import RestoreOptions, Restorer

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    masked, large = "--with-scratch" in options, "--hr" in options
    restorer = Restorer(RestoreOptions(with_scratch=masked, faces=False, large_scans=large), "cpu", weights)
    photo = np.asarray(cv2.resize(skimage.data.astronaut().astype(np.float32) / 255, (side, side)), np.float32)
    mask = np.zeros((side, side), np.float32)
    mask[:, side // 2 : side // 2 + side // 32] = mask[side // 4 : side // 4 + side // 32] = 1
    small = slice(0, 64)
    restorer.restore(photo[small, small], mask[small, small] if masked else None)
    started = time.perf_counter()
    if restorer.detector is not None:
        restorer.detector.detect(photo)  # what stand-ins find is no mask
    restorer.restore(photo, mask if masked else None)
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, peak_memory()]))


def table(sides: list[int], threads: int, weights: Path) -> str:
    """All ways at all sizes."""
    lines = ["| networks | options | " + " | ".join(f"{side} px" for side in sides) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(sides))
    for kind, ways in WAYS.items():
        for options in ways:
            cells = []
            for side in sides:
                command = [
                    sys.executable,
                    __file__,
                    f"--one={options}",
                    "--sides",
                    str(side),
                    "--threads",
                    str(threads),
                ]
                command += ["--weights", str(weights)] if kind == "published" else []
                result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                seconds, peak = json.loads(result.stdout.splitlines()[-1])
                cells.append(f"{seconds:.1f} s, {peak:.1f} GB")
            lines.append(f"| {kind} | {f'`{options}`' if options else '-'} | {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and where asked enter into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.one is not None:
        time_one(arguments.one, arguments.sides[0], arguments.threads, arguments.weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        text = table(arguments.sides, arguments.threads, arguments.weights or stand_ins(Path(folder)))
    print(text)
    if arguments.readme:
        enter(arguments.readme, "published", text)


if __name__ == "__main__":
    main()
