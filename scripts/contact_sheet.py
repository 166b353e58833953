"""Restore photos and lay them out before and after, to look at: rows of aged, mask, restored.

    python scripts/contact_sheet.py SHEET.png PHOTO... [--cell 480] [--weights DIR]

The sheet is for the eye; where the photos may not be published, neither may the sheet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.imagefile import Photo, read_photo, write_photo
from oldphoto.pipeline import RestoreOptions, Restorer


def cell(picture: FloatImage, side: int) -> FloatImage:
    """A picture fitted into a square of ``side`` px, on gray."""
    factor = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    square = np.full((side, side, 3), 0.5, np.float32)
    square[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=how).clip(0, 1)
    return square


def row(path: Path, restorer: Restorer, side: int) -> FloatImage:
    """Before, mask with the boxes of faces, and after."""
    photo = read_photo(path)
    restoration = restorer.restore(photo.rgb, None, photo.gray)
    mask = restoration.mask if restoration.mask is not None else np.zeros(photo.rgb.shape[:2], np.float32)
    shown = np.repeat(mask[..., None], 3, 2)
    for face in restoration.faces:
        left, top, right, bottom = (round(edge) for edge in face.box)
        cv2.rectangle(shown, (left, top), (right, bottom), (1.0, 0.6, 0.0), max(1, max(mask.shape) // 250))
    print(f"{path.name}: marked {mask.mean():.2%}, faces {len(restoration.faces)}")
    return np.concatenate([cell(picture, side) for picture in (photo.rgb, shown, restoration.rgb)], 1)


def main() -> None:
    """Restore, lay out, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--cell", type=int, default=480)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    restorer = Restorer(RestoreOptions(with_scratch=True), checkpoints=arguments.weights)
    rows = [row(path, restorer, arguments.cell) for path in arguments.photos]
    write_photo(Photo(np.concatenate(rows)), arguments.sheet)


if __name__ == "__main__":
    main()
