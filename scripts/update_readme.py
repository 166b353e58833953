"""Remake what the README shows: docs/before-after.jpg and the benchmark's table, from the committed weights.

    python scripts/update_readme.py --data DATA

DATA is a folder with photos/ and heldout-photos.txt, as ``oldphoto evaluate`` wants it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.imagefile import Photo, read_photo, write_photo
from oldphoto.pipeline import RestoreOptions, Restorer

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ("portrait.jpg", "album.jpg", "coffee.jpg", "cat.tif")
HEIGHT = 340


def with_section(text: str, name: str, content: str) -> str:
    """A text with new content between its markers ``<!-- name -->`` and ``<!-- /name -->``; they must be there."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise SystemExit(f"the page has no place for this: put {start} and {end} where it belongs")
    head, tail = text.split(start)[0], text.split(end)[1]
    return f"{head}{start}\n{content}\n{end}{tail}"


def enter(page: Path, name: str, content: str) -> None:
    """Give a page new content between the markers of a name."""
    page.write_text(with_section(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def of_height(picture: FloatImage, height: int) -> FloatImage:
    """A picture scaled to a height in px."""
    size = (round(picture.shape[1] * height / picture.shape[0]), height)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def before_after(examples: Path) -> FloatImage:
    """Example photos side by side, restored ones below."""
    restorer = Restorer(RestoreOptions(with_scratch=True), "cpu")
    columns = []
    for name in SHOWN:
        photo = read_photo(examples / name)
        restored = restorer.restore(photo.rgb, None, photo.gray).rgb
        columns.append(np.concatenate([of_height(photo.rgb, HEIGHT), of_height(restored, HEIGHT)]))
    return np.concatenate(columns, 1)


def benchmark(data: Path) -> str:
    """The benchmark's table and remarks, as Markdown."""
    command = [sys.executable, "-m", "oldphoto", "evaluate", "--data", str(data), "--device", "cpu", "--markdown"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Write the picture and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    write_photo(Photo(before_after(ROOT / "examples")), ROOT / "docs" / "before-after.jpg", "jpg", 88)
    enter(ROOT / "README.md", "benchmark", benchmark(arguments.data))


if __name__ == "__main__":
    main()
