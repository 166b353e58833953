"""Make the photos of examples/: pictures that ship with scikit-image, aged until they look a lifetime old.

Run from the top of the repository: PYTHONPATH=. python scripts/make_examples.py [FOLDER]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from oldphoto.arrays import FloatImage, black_and_white
from oldphoto.imagefile import Photo, write_photo
from oldphoto.training.ageing import Severity, age

COMMAND = "PYTHONPATH=. python scripts/make_examples.py"
ORIENTATION, TURNED_LEFT = 0x0112, 6  # the EXIF tag, and its value for pixels that lie on their left side


@dataclass(frozen=True)
class Example:
    """One photo to make: where from, how it ages, and what kind of file it becomes."""

    file: str
    source: str
    seed: int
    severity: Severity
    note: str
    licence: str
    black_and_white: bool = False
    """Before it ages: a faded print of it is brown, not gray."""
    gray: bool = False
    bit_depth: int = 8
    dpi: tuple[float, float] | None = None
    turned: bool = False
    crop: tuple[int, int, int, int] | None = None
    """Top, bottom, left, right."""


NASA = "NASA Great Images, the astronaut Eileen Collins; no known copyright restrictions, public domain"
EXAMPLES = (
    Example("portrait.jpg", "astronaut", 11, Severity(0.25, 0.75, 0.3, 0.5, 0.3), "faded, scratched, torn", NASA),
    Example(
        "album.jpg", "astronaut", 27, Severity(0.25, 0.8, 0.2, 0.6, 0.3), "dust and a scratch on a face", NASA,
        black_and_white=True, crop=(0, 330, 60, 340),
    ),
    Example(
        "cameraman.png", "camera", 11, Severity(0.2, 0.6, 0.4, 0.6, 0.3), "8-bit gray PNG",
        "Lav Varshney; CC0", gray=True, dpi=(300, 300),
    ),
    Example(
        "cat.tif", "chelsea", 12, Severity(0.2, 0.8, 0.3, 0.5, 0.3), "16-bit colour TIFF",
        "Stefan van der Walt; CC0", black_and_white=True, bit_depth=16, dpi=(600, 600),
    ),
    Example(
        "coffee.jpg", "coffee", 9, Severity(0.2, 0.9, 0.25, 0.5, 0.3), "on its side: EXIF orientation 6, 300 dpi",
        "Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0", dpi=(300, 300), turned=True,
    ),
    Example(
        "launch.jpg", "rocket", 8, Severity(0.2, 0.9, 0.3, 0.5, 0.3), "a line of light, dust, faded colours",
        "SpaceX, launch of DSCOVR; released into the public domain",
    ),
)  # fmt: skip


def main(folder: Path) -> None:
    """Write all examples and their README into a folder."""
    for example in EXAMPLES:
        write_photo(make(example), folder / example.file, quality=90)
    (folder / "README.md").write_text(readme(), encoding="utf-8")
    for path in sorted(folder.iterdir()):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def make(example: Example) -> Photo:
    """Age the picture of an example."""
    clean = load(example)
    aged = age(clean, np.random.default_rng(example.seed), example.severity, min(clean.shape[:2]) / 400).photo
    if not example.turned:
        return Photo(aged, example.gray, example.bit_depth, dpi=example.dpi)
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_LEFT
    return Photo(np.rot90(aged), example.gray, example.bit_depth, exif=exif.tobytes(), dpi=example.dpi)


def load(example: Example) -> FloatImage:
    """Return the clean picture of an example, H × W × 3 in [0, 1]."""
    pixels = getattr(data, example.source)()
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, 2)
    if example.crop:
        top, bottom, left, right = example.crop
        pixels = pixels[top:bottom, left:right]
    picture: FloatImage = pixels.astype(np.float32) / 255
    return black_and_white(picture) if example.black_and_white else picture


def readme() -> str:
    """Return the text that tells where the examples come from."""
    rows = (
        f"| {example.file} | `skimage.data.{example.source}` | {example.licence} | {example.note} |"
        for example in EXAMPLES
    )
    return "\n".join(
        (
            "# Examples",
            "",
            "Photos to try oldphoto on: `oldphoto restore examples/ restored/ --with-scratch`. They are not old, but",
            f"pictures that ship with scikit-image ({version('scikit-image')}), aged by oldphoto's own generator with",
            "",
            f"    {COMMAND}",
            "",
            "| file | source | author and licence, as scikit-image documents them | what |",
            "|---|---|---|---|",
            *rows,
            "",
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("examples"))
    main(parser.parse_args().folder)
