"""Compare the faces that are found in old photographs with those that were counted by eye.

    python scripts/count_faces.py PHOTOS [--counted scripts/counted_faces.csv] [--detector hog|cnn] [--sheets DIR]

The list names a photo and the centre and the width of a face in each line, in px; a photo without faces has a line with
none. Counted are faces of 16 px and more, and apart from each other those in front view (both eyes are to be seen) and
those in side view, or looking down. With --sheets, the photos are written with green boxes for faces that were counted,
red for what was not, and blue for those that were missed.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import cv2

from oldphoto.faces import Face, FaceFinder
from oldphoto.imagefile import Photo, read_photo, write_photo
from oldphoto.translation import Translator

Place = tuple[float, float, float, str]
"""Centre and width, px, and view: "front" or "side", "" where it is not known."""

GREEN, RED, BLUE = (0.1, 0.9, 0.1), (1.0, 0.1, 0.1), (0.2, 0.5, 1.0)


def read_counted(path: Path) -> dict[str, list[Place]]:
    """The faces counted by eye, by file name."""
    counted: defaultdict[str, list[Place]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            places = counted[line["file"]]
            if line["x"]:
                places.append((float(line["x"]), float(line["y"]), float(line["width"]), line["view"]))
    return counted


def place(face: Face) -> Place:
    """Where a found face is."""
    left, top, right, bottom = face.box
    return (left + right) / 2, (top + bottom) / 2, right - left, ""


def same(one: Place, other: Place) -> bool:
    """Whether a found and a counted face are one."""
    apart = max(abs(one[0] - other[0]), abs(one[1] - other[1]))
    return apart < 0.5 * other[2] and 0.4 < one[2] / other[2] < 2.5


def match(found: list[Place], counted: list[Place]) -> tuple[list[Place], list[Place], list[Place]]:
    """Which of the counted are found, which of the found are not counted, and which of the counted are missed."""
    missed, hits, false = list(counted), [], []
    for candidate in found:
        partner = next((one for one in missed if same(candidate, one)), None)
        if partner is None:
            false.append(candidate)
        else:
            missed.remove(partner)
            hits.append(partner)
    return hits, false, missed


def main() -> None:
    """Find, match, add up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--counted", type=Path, default=Path(__file__).with_name("counted_faces.csv"))
    parser.add_argument("--detector", choices=["hog", "cnn"], default="hog")
    parser.add_argument("--untranslated", action="store_true", help="look for faces in the photos as they are")
    parser.add_argument("--sheets", type=Path)
    arguments = parser.parse_args()
    finder = FaceFinder(arguments.detector)
    translator = None if arguments.untranslated else Translator("cpu")
    totals: tuple[list[Place], ...] = ([], [], [])
    for name, counted in read_counted(arguments.counted).items():
        rgb = read_photo(arguments.photos / name).rgb
        if translator is not None:
            rgb = translator.translate(rgb)
        groups = match([place(face) for face in finder.find(rgb)], counted)
        print(f"{name}: counted {len(counted)}, found {len(groups[0])}, false {len(groups[1])}", flush=True)
        for total, group in zip(totals, groups, strict=True):
            total.extend(group)
        if arguments.sheets:
            arguments.sheets.mkdir(exist_ok=True)
            for group, colour in zip(groups, (GREEN, RED, BLUE), strict=True):
                for x, y, width, _ in group:
                    corners = [(round(x + side * width / 2), round(y + side * width / 2)) for side in (-1, 1)]
                    cv2.rectangle(rgb, *corners, colour, 1)
            write_photo(Photo(rgb), arguments.sheets / f"{Path(name).stem}.png")
    hits, false, missed = totals
    for view in ("front", "side"):
        found, lost = (sum(one[3] == view for one in group) for group in (hits, missed))
        print(f"{view} view: counted {found + lost}, found {found} ({found / max(found + lost, 1):.1%})")
    print(f"false: {len(false)}")


if __name__ == "__main__":
    main()
