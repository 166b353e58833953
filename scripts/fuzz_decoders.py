"""Read and write damaged photos without end: each must give a photo or a PhotoError, in bounded time and memory.

    python scripts/fuzz_decoders.py --seconds 3600 --keep findings/

Every example is intact, odd or hostile to begin with (tests/hostile.py), then bits are flipped, numbers made extreme,
parts cut out, doubled or taken from another file. What is read is written again in every format that holds it, and
what is written must be readable. Examples are numbered and come back by their number: --first N --examples 1.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from hostile import PICTURE, READ, REFUSED, saved, tiff

from oldphoto.errors import PhotoError
from oldphoto.imagefile import OUTPUT_SUFFIX, open_photo, read_photo, write_pages

CPU_SECONDS, MEMORY, MAX_PIXELS = 20, 700 * 2**20, 1_000_000
"""What one example may take: seconds of computing, and bytes beyond what the program itself takes."""

_PNG = b"\x89PNG\r\n\x1a\n"
EXTREME = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def corpus() -> list[bytes]:
    """Return what examples are made from; bombs of more than 100 kB are left out, for they make slow examples."""
    deep = PICTURE.astype(np.uint16) * 257
    plain = [saved(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")]
    plain += [saved("JPEG", progressive=True), saved("WEBP", lossless=True), saved("TIFF", compression="jpeg")]
    plain += [tiff(deep, compression=how, rowsperstrip=8) for how in ("lzw", "zlib", "packbits")]
    plain += [tiff(deep, tile=(16, 16)), tiff(np.stack([PICTURE] * 3)), tiff(PICTURE, byteorder=">", bigtiff=True)]
    odd = [make() for make in (*READ.values(), *(make for make, _ in REFUSED.values()))]
    return plain * 3 + [data for data in odd if 0 < len(data) < 100_000]


def damaged(number: int, files: list[bytes]) -> bytes:
    """Return example `number`: always the same bytes for the same corpus."""
    chance = random.Random(number)
    data = bytearray(chance.choice(files))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        # Headers and directories are where it hurts: half of the damage is done near one end.
        reach = min(len(data), 400)
        at = chance.choice((chance.randrange(reach), len(data) - 1 - chance.randrange(reach)))
        if chance.random() < 0.5:
            at = chance.randrange(len(data))
        size = int(math.exp(chance.uniform(0, 6)))
        how = chance.randrange(6)
        if how == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            form = chance.choice(("B", "<H", ">H", "<I", ">I"))
            value = chance.choice(EXTREME) & (256 ** struct.calcsize(form) - 1)
            data[at : at + struct.calcsize(form)] = struct.pack(form, value)
        elif how == 2:
            data[at : at + size] = chance.randbytes(size)
        elif how == 3 and len(data) > size + 16:
            del data[at : at + size]
        elif how == 4:
            data[at:at] = data[at : at + size]
        else:
            other = chance.choice(files)
            start = chance.randrange(len(other))
            data[at : at + size] = other[start : start + size]
    if data.startswith(_PNG) and chance.random() < 0.7:
        _mend_checksums(data)  # else nothing behind them is ever reached
    return bytes(data)


def _mend_checksums(data: bytearray) -> None:
    start = len(_PNG)
    while start + 12 <= len(data):
        end = start + 8 + struct.unpack_from(">I", data, start)[0]
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[start + 4 : end]))
        start = end + 4


def attempt(data: bytes, folder: Path) -> None:
    """Read an example and write it in every format; raises what must not happen."""
    source = folder / "example"
    source.write_bytes(data)
    with contextlib.suppress(PhotoError):
        file = open_photo(source, MAX_PIXELS)
        for page in range(min(file.pages, 3)):
            photo = file.page(page)
            assert photo.rgb.ndim == 3 and photo.rgb.shape[2] == 3 and np.isfinite(photo.rgb).all()
            if photo.rgb.size < 50_000:
                for name, suffix in OUTPUT_SUFFIX.items():
                    target = folder / f"out{suffix}"
                    write_pages([photo], target, name, software="oldphoto fuzz")
                    try:
                        again = read_photo(target)
                    except PhotoError as error:
                        raise AssertionError(f"what was written cannot be read: {error}") from error
                    assert again.rgb.shape == photo.rgb.shape


def work(first: int, last: int) -> None:
    """Try examples in this process, with limits, and say each number before it is tried."""
    files = corpus()
    with tempfile.TemporaryDirectory() as folder:
        attempt(files[0], Path(folder))  # whatever is loaded late
        limit = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in range(first, last):
            print(number, flush=True)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process
            attempt(damaged(number, files), Path(folder))
            names = {path.name for path in Path(folder).iterdir()}
            assert names <= {"example", *(f"out{suffix}" for suffix in OUTPUT_SUFFIX.values())}, names
    print("end", flush=True)


def supervise(first: int, examples: int | None, seconds: float | None, keep: Path | None) -> int:
    """Try examples in a process of their own, go on after each finding, and return how many there were."""
    end = None if seconds is None else time.monotonic() + seconds
    last = sys.maxsize if examples is None else first + examples
    number, findings = first, 0
    while number < last and (end is None or time.monotonic() < end):
        command = [sys.executable, __file__, "--worker", "--first", str(number), "--examples", str(last - number)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stderr is not None
        said = ""
        for line in process.stdout:
            said = line.strip()
            if end is not None and time.monotonic() > end:
                process.kill()
                break
        complaint = process.stderr.read()
        code = process.wait()
        if said == "end" or (end is not None and time.monotonic() > end):
            number = last if said == "end" else int(said or number)
            break
        if not said:
            raise SystemExit(f"the worker does not start:\n{complaint}")
        findings += 1
        number = int(said) + 1
        reason = complaint.strip().splitlines()[-1] if complaint.strip() else f"ended with {code}"
        print(f"example {said}: {reason}", flush=True)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / said).write_bytes(damaged(int(said), corpus()))
            (keep / f"{said}.txt").write_text(complaint)
    print(f"{number - first} examples tried, {findings} findings")
    return findings


def main() -> None:
    """Fuzz, and end with 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--examples", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the examples that were findings here")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.first, arguments.first + arguments.examples)
        return
    if arguments.seconds is None and arguments.examples is None:
        arguments.seconds = 60.0
    sys.exit(supervise(arguments.first, arguments.examples, arguments.seconds, arguments.keep) > 0)


if __name__ == "__main__":
    main()
