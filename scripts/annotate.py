"""Annotate the structured damage of scans: candidates are shown, decisions are written down, masks are painted.

    python scripts/annotate.py show SHEETS PHOTO... [--zoom 2] [--found] [--plain]
    python scripts/annotate.py paint ANNOTATIONS PHOTOS [--sheets SHEETS]

``show`` draws each photo enlarged, in overlapping pieces of a screen's size, with a grid of photo coordinates and the
outlines of what may be damage: light candidates numbered from 1 (green), dark ones from -1 (magenta). ``--found``
outlines what the bundled detector finds as well (blue), ``--plain`` leaves the candidates out.

The decisions stand in ANNOTATIONS/NAME.txt, one a line, each painting over the ones before it; ``#`` starts a comment:

    keep 12 -7              these candidates
    line 3 10,20 15,80      a stroke 3 px wide along points x,y
    area 10,20 90,20 50,60  a polygon
    light-line, dark-line   what is lighter or darker than its surroundings within such a stroke
    light-area, dark-area   the candidates, numbered or not, that begin in such a polygon
    above-area, below-area  with a level first, 0 to 1: what is lighter or darker than that in such a polygon
    unsure-line, -area      nobody can tell, or it lies outside the picture: not to be measured
    erase-line, erase-area  nothing there

``paint`` turns them into ANNOTATIONS/NAME.png, where 0, black, is intact, 1, white, damaged, and 2, gray, unsure, and
with ``--sheets`` draws the outlines of what was painted (red, unsure: yellow). Photos are found by name in PHOTOS.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from oldphoto.arrays import LUMA, ByteImage, FloatImage
from oldphoto.batch import same
from oldphoto.errors import UsageError
from oldphoto.imagefile import read_photo
from oldphoto.scratches import ScratchDetector
from oldphoto.training.scans import DAMAGED, INTACT, UNSURE

Mask = NDArray[np.bool_]
Points = NDArray[np.int32]
"""N × 2, x and y in px of the photo."""

NARROW, WIDE = 9, 17
"""Diameters of the disc, px, that a candidate, and what is taken along a stroke, must be narrower than."""

SHOWN = 120
"""So many candidates of either kind are numbered: those that stand out most."""

SCREEN = (1250, 930)
"""Width and height of a sheet, px."""

LIGHT, DARK, FOUND, PAINTED, DOUBTED = (0, 230, 0), (255, 0, 255), (0, 120, 255), (255, 60, 0), (255, 255, 0)

PALETTE = (0, 0, 0, 255, 255, 255, 128, 128, 128)
"""Colours of the values of a mask."""


def contrast(gray: FloatImage, width: int) -> FloatImage:
    """How much lighter each pixel is than what a disc of some width, px, can reach around it: the white top-hat."""
    calm = cv2.GaussianBlur(gray, (0, 0), 0.6)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return np.asarray(cv2.morphologyEx(calm, cv2.MORPH_TOPHAT, disc), np.float32)


@dataclass(frozen=True)
class Candidates:
    """What stands out of a photo to one side, light or dark.

    ``contrast``: of what is narrower than WIDE; ``labels``: H × W, the numbers from 1 of connected candidates, those
    that stand out most first, 0 = none.
    """

    contrast: FloatImage
    labels: NDArray[np.int32]

    @classmethod
    def of(cls, gray: FloatImage) -> Candidates:
        """Those lighter than their surroundings; give the negative for the darker ones."""
        standing_out = contrast(gray, NARROW)
        # Texture stands out everywhere, a speck does so alone.
        texture = cv2.blur(standing_out, (41, 41))
        strong = standing_out > np.maximum(0.08, 4 * texture)
        weak = standing_out > np.maximum(0.04, 2 * texture)
        labels, count = ndimage.label(weak, np.ones((3, 3)))
        numbers = np.arange(1, count + 1)
        weights = ndimage.sum_labels(standing_out, labels, numbers) * ndimage.maximum(strong, labels, numbers)
        order = np.argsort(-weights, kind="stable")
        order = order[weights[order] > 0]
        renumber = np.zeros(count + 1, np.int32)
        renumber[order + 1] = np.arange(1, len(order) + 1)
        return cls(contrast(gray, WIDE), renumber[labels])

    def near(self, region: Mask) -> Mask:
        """What stands out within a region nearly half as much as the most within a few px around."""
        inside = np.where(region, self.contrast, 0)
        peak = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)))
        return np.asarray(inside > np.maximum(0.02, 0.4 * peak))

    def begun_in(self, region: Mask) -> Mask:
        """The candidates with a pixel in a region, whole."""
        return np.isin(self.labels, np.unique(self.labels[region & (self.labels > 0)]))


class Scan:
    """A photo to annotate, H × W × 3, and its candidates."""

    def __init__(self, path: Path) -> None:
        self.rgb = read_photo(path).rgb
        self.gray: FloatImage = self.rgb @ LUMA

    @cached_property
    def light(self) -> Candidates:
        """What is lighter than its surroundings."""
        return Candidates.of(self.gray)

    @cached_property
    def dark(self) -> Candidates:
        """What is darker than its surroundings."""
        return Candidates.of(1 - self.gray)


# Decisions


def paint(decisions: Iterable[str], scan: Scan) -> ByteImage:
    """The mask, H × W of INTACT, DAMAGED and UNSURE, that decisions make of a photo.

    Raises
    ------
    UsageError
        A line cannot be understood.
    """
    mask = np.full(scan.rgb.shape[:2], INTACT, np.uint8)
    for number, line in enumerate(decisions, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            _apply(words[0], words[1:], mask, scan)
        except (ValueError, IndexError) as error:
            raise UsageError(f"line {number}, '{line.strip()}', is no decision: {error}") from error
    return mask


def _apply(verb: str, words: list[str], mask: ByteImage, scan: Scan) -> None:
    """Carry out one decision on the mask, in place."""
    match verb:
        case "keep":
            numbers = np.array([int(word) for word in words])
            region = np.isin(scan.light.labels, numbers[numbers > 0]) | np.isin(scan.dark.labels, -numbers[numbers < 0])
        case "line" | "unsure-line" | "erase-line":
            region = stroke(mask.shape, words)
        case "light-line":
            region = scan.light.near(stroke(mask.shape, words))
        case "dark-line":
            region = scan.dark.near(stroke(mask.shape, words))
        case "area" | "unsure-area" | "erase-area":
            region = polygon(mask.shape, words)
        case "light-area":
            region = scan.light.begun_in(polygon(mask.shape, words))
        case "dark-area":
            region = scan.dark.begun_in(polygon(mask.shape, words))
        case "above-area":
            region = polygon(mask.shape, words[1:]) & (scan.gray > float(words[0]))
        case "below-area":
            region = polygon(mask.shape, words[1:]) & (scan.gray < float(words[0]))
        case _:
            raise ValueError(f"there is no '{verb}'")
    mask[region] = {"unsure": UNSURE, "erase": INTACT}.get(verb.partition("-")[0], DAMAGED)


def points(words: list[str]) -> Points:
    """Read points written as x,y; there must be one."""
    if not words:
        raise ValueError("points are missing")
    return np.array([[int(number) for number in word.split(",")] for word in words], np.int32).reshape(len(words), 2)


def stroke(shape: tuple[int, ...], words: list[str]) -> Mask:
    """Pixels within half a width of a polyline; its width and its points as written."""
    canvas = np.ones(shape, np.uint8)
    cv2.polylines(canvas, [points(words[1:])], isClosed=False, color=0)
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= max(0.0, (float(words[0]) - 1) / 2))


def polygon(shape: tuple[int, ...], words: list[str]) -> Mask:
    """Pixels of a polygon, its border included; its corners as written."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [points(words)], 1)
    return canvas > 0


# Sheets


def pieces(shape: tuple[int, ...], zoom: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of as few overlapping pieces of equal size as show a photo on sheets of SCREEN px."""
    spans = []
    for length, screen in ((shape[0], SCREEN[1]), (shape[1], SCREEN[0])):
        side = min(length, screen // zoom)
        count = -(-(length - 20) // (side - 20)) if length > side else 1
        starts = np.linspace(0, length - side, count).astype(int)
        spans.append([slice(int(start), int(start) + side) for start in starts])
    return ((rows, columns) for rows in spans[0] for columns in spans[1])


def sheet(scan: Scan, layers: list[tuple[NDArray[np.int32], tuple[int, int, int], int]], zoom: int) -> ByteImage:
    """The photo enlarged, with a grid and the outlines of labelled layers: labels, colour, and the sign of the numbers.

    A layer of sign 0 is not numbered.
    """
    picture = np.rint(scan.rgb * 255).astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    for labels, colour, sign in layers:
        fine = labels.repeat(zoom, 0).repeat(zoom, 1)
        # The outline lies outside, so that what it surrounds stays visible.
        picture[(fine == 0) & (cv2.dilate((fine > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)] = colour
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            if sign and box is not None:
                corner = (box[1].stop * zoom + 1, box[0].start * zoom + 3)
                cv2.putText(picture, str(sign * number), corner, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour)
    return picture


def with_grid(piece: ByteImage, top: int, left: int, zoom: int) -> ByteImage:
    """A piece of a sheet that begins at a row and a column of the photo, with lines every 50 px and their places."""
    result = piece.copy()
    height, width = piece.shape[:2]
    for x in range(-(-left // 50) * 50, left + width // zoom, 50):
        result[:, (x - left) * zoom] = result[:, (x - left) * zoom] // 2 + np.array((128, 128, 0), np.uint8)
        cv2.putText(result, str(x), ((x - left) * zoom + 2, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 0))
    for y in range(-(-top // 50) * 50, top + height // zoom, 50):
        result[(y - top) * zoom] = result[(y - top) * zoom] // 2 + np.array((128, 128, 0), np.uint8)
        cv2.putText(result, str(y), (2, (y - top) * zoom - 2), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 0))
    return result


def write_sheets(picture: ByteImage, shape: tuple[int, ...], zoom: int, folder: Path, name: str) -> None:
    """Cut an enlarged photo into sheets, and write them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (rows, columns) in enumerate(pieces(shape, zoom), 1):
        piece = picture[rows.start * zoom : rows.stop * zoom, columns.start * zoom : columns.stop * zoom]
        Image.fromarray(with_grid(piece, rows.start, columns.start, zoom)).save(folder / f"{name}-{number}.png")


# Commands


def photo_of(name: str, photos: Path) -> Path:
    """The file in a folder with some name before its suffix; UsageError if there is none."""
    for path in sorted(photos.glob(f"{name}.*")):
        return path
    raise UsageError(f"{photos} has no photo {name}")


def show(photos: list[Path], folder: Path, zoom: int, found: bool, plain: bool) -> None:
    """Write the sheets of photos with their candidates."""
    detector = ScratchDetector("cpu") if found else None
    for path in photos:
        scan = Scan(path)
        layers = []
        if detector:
            layers.append((ndimage.label(detector.detect(scan.rgb))[0], FOUND, 0))
        if not plain:
            for candidates, colour, sign in ((scan.light, LIGHT, 1), (scan.dark, DARK, -1)):
                layers.append((np.where(candidates.labels <= SHOWN, candidates.labels, 0), colour, sign))
        write_sheets(sheet(scan, layers, zoom), scan.rgb.shape, zoom, folder, path.stem)


def paint_all(annotations: Path, photos: Path, sheets: Path | None, zoom: int) -> None:
    """Paint the masks of all decisions in a folder, and say how much is marked.

    Raises UsageError for a decision that cannot be understood, or a photo that is not there, or would be overwritten.
    """
    if same(annotations, photos):
        raise UsageError(
            f"{annotations} is the folder of the photos: give their masks, which have their names, another"
        )
    for decisions in sorted(annotations.glob("*.txt")):
        scan = Scan(photo_of(decisions.stem, photos))
        try:
            mask = paint(decisions.read_text(encoding="utf-8").splitlines(), scan)
        except UsageError as error:
            raise UsageError(f"{decisions}: {error}") from error
        image = Image.fromarray(mask)
        image.putpalette(PALETTE)
        image.save(decisions.with_suffix(".png"), optimize=True)
        shares = f"{np.mean(mask == DAMAGED):.3%} damaged, {np.mean(mask == UNSURE):.3%} unsure"
        print(f"{decisions.stem}: {mask.shape[1]} x {mask.shape[0]}, {np.sum(mask == DAMAGED)} px, {shares}")
        if sheets:
            layers = [
                (ndimage.label(mask == value)[0], colour, 0)
                for value, colour in ((DAMAGED, PAINTED), (UNSURE, DOUBTED))
            ]
            painted = sheet(scan, layers, zoom)
            write_sheets(painted, mask.shape, zoom, sheets, decisions.stem)


def main() -> None:
    """Show or paint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    showing = commands.add_parser("show")
    showing.add_argument("sheets", type=Path)
    showing.add_argument("photos", type=Path, nargs="+")
    showing.add_argument("--found", action="store_true")
    showing.add_argument("--plain", action="store_true")
    painting = commands.add_parser("paint")
    painting.add_argument("annotations", type=Path)
    painting.add_argument("photos", type=Path)
    painting.add_argument("--sheets", type=Path)
    for command in (showing, painting):
        command.add_argument("--zoom", type=int, default=2, choices=range(1, 17), metavar="1..16")
    arguments = parser.parse_args()
    try:
        if arguments.command == "show":
            show(arguments.photos, arguments.sheets, arguments.zoom, arguments.found, arguments.plain)
        else:
            paint_all(arguments.annotations, arguments.photos, arguments.sheets, arguments.zoom)
    except UsageError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
