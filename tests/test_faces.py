"""Faces: found where they are, cut out upright, and none where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import Photo
from numpy.typing import NDArray

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage
from oldphoto.errors import CheckpointError
from oldphoto.faces import CANONICAL, CROP, Face, FaceFinder, FaceRefiner, crop_face, extent, model_file
from oldphoto.nets.facegan import FaceNet

CENTRE = (220, 120)
"""Where the astronaut's face is, px."""

FACE = 90
"""How large it is, px."""


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


@pytest.fixture(scope="module")
def astronaut(photo: Photo, finder: FaceFinder) -> Face:
    """Her face as it is found in the whole picture."""
    return at(finder.find(photo("astronaut")), CENTRE)


def centre(face: Face) -> NDArray[np.float64]:
    left, top, right, bottom = face.box
    return np.array([(left + right) / 2, (top + bottom) / 2])


def at(faces: Sequence[Face], place: Sequence[float], size: float = FACE) -> Face:
    """The one face within a third of its size of a place."""
    near = [face for face in faces if np.abs(centre(face) - place).max() < size / 3]
    assert len(near) == 1, f"{len(near)} faces at {place}, of {[face.box for face in faces]}"
    return near[0]


def placed(face: Face) -> NDArray[np.float64]:
    """The landmarks on the canonical crop."""
    return face.landmarks @ face.transform[:, :2].T + face.transform[:, 2]


def moved(points: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return result


def resized(picture: FloatImage, factor: float) -> FloatImage:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.clip(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=how), 0, 1)


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.4, 1, 3])
def test_a_face_is_found_in_small_and_large_scans_alike(
    photo: Photo, finder: FaceFinder, astronaut: Face, factor: float
) -> None:
    face = at(finder.find(resized(photo("astronaut"), factor)), np.multiply(CENTRE, factor), FACE * factor)
    assert np.abs(placed(face) - CANONICAL).max() < 4
    expected = (astronaut.landmarks + 0.5) * factor - 0.5
    assert np.abs(face.landmarks - expected).max() * face.magnification < 6
    assert 0.7 < face.magnification / (astronaut.magnification / factor) < 1.4


@pytest.mark.parametrize("angle", [-20, 20])
def test_a_tilted_face_is_found_and_put_upright(
    photo: Photo, finder: FaceFinder, astronaut: Face, angle: float
) -> None:
    turn = cv2.getRotationMatrix2D(CENTRE, angle, 1)
    turned = cv2.warpAffine(photo("astronaut"), turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    face = at(finder.find(turned), CENTRE)
    assert np.abs(face.landmarks - moved(astronaut.landmarks, turn)).max() * face.magnification < 8
    assert np.abs(placed(face) - CANONICAL).max() < 4
    # The canonical crops of the upright and of the tilted photo show the same.
    crops = [crop_face(photo("astronaut"), astronaut), crop_face(turned, face)]
    middle = [cv2.GaussianBlur(crop, (0, 0), 3)[64:192, 64:192].ravel() for crop in crops]
    assert np.corrcoef(*middle)[0, 1] > 0.9


@pytest.mark.parametrize(("top", "left"), [(70, 0), (0, 190), (60, 180)])
def test_a_face_at_the_border_is_found_and_its_crop_is_mirrored_there(
    photo: Photo, finder: FaceFinder, astronaut: Face, top: int, left: int
) -> None:
    whole = photo("astronaut")
    cut = np.ascontiguousarray(whole[top:, left:])
    face = at(finder.find(cut), np.subtract(CENTRE, (left, top)))
    assert np.abs(np.add(face.landmarks, (left, top)) - astronaut.landmarks).max() * face.magnification < 6
    # The same face in both photos: what lies inside the cut photo is cropped as from the whole one.
    there = Face((0, 0, 0, 0), astronaut.landmarks - (left, top), 1)
    crop, full = crop_face(cut, there), crop_face(whole, astronaut)
    inside = cv2.warpAffine(np.ones(cut.shape[:2], np.float32), there.transform, (CROP, CROP))
    inside = cv2.erode(inside, np.ones((9, 9))) == 1
    assert 0.3 < inside.mean() < 0.95, "a part of the crop lies outside"
    assert np.abs(crop - full)[inside].max() < 1 / 255
    assert crop[~inside].std() > 0.02, "mirrored, not blank"


def test_two_faces_side_by_side_are_found_from_left_to_right(photo: Photo, finder: FaceFinder, astronaut: Face) -> None:
    picture = photo("astronaut")
    faces = finder.find(np.concatenate([picture, picture[:, ::-1]], 1))
    first, second = at(faces, CENTRE), at(faces, (1023 - CENTRE[0], CENTRE[1]))
    assert [face.box for face in faces] == sorted(face.box for face in faces)
    assert np.abs(first.landmarks - astronaut.landmarks).max() * first.magnification < 6
    assert second.landmarks[:, 0].min() > 512


@pytest.mark.parametrize("name", ["coffee", "brick", "chelsea", "rocket"])
def test_a_picture_without_faces_gives_an_empty_list(photo: Photo, finder: FaceFinder, name: str) -> None:
    assert finder.find(photo(name)) == []


@pytest.mark.parametrize("name", ["grass", "gravel", "page", "coins", "moon", "hubble_deep_field", "clock", "cell"])
def test_nothing_else_is_taken_for_a_face(photo: Photo, finder: FaceFinder, name: str) -> None:
    assert finder.find(photo(name)) == []


def test_only_the_face_of_a_portrait_is_taken_for_one(photo: Photo, finder: FaceFinder) -> None:
    """What is taken for a face gets a face painted on it."""
    assert len(finder.find(photo("astronaut"))) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 2), (20, 20)])
def test_tiny_and_thin_pictures_have_no_faces(finder: FaceFinder, shape: tuple[int, int]) -> None:
    assert finder.find(np.full((*shape, 3), 0.5, np.float32)) == []


def test_one_finder_serves_four_threads(photo: Photo, finder: FaceFinder) -> None:
    pictures = [photo("astronaut")[:300], resized(photo("astronaut")[:300], 0.5), photo("coffee")] * 2
    serial = [finder.find(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(finder.find, pictures))
    for expected, found in zip(serial, parallel, strict=True):
        assert [face.box for face in found] == [face.box for face in expected]
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one.landmarks, other.landmarks)


def test_finding_leaves_the_photo_as_it_was(photo: Photo, finder: FaceFinder) -> None:
    picture = photo("astronaut")
    finder.find(picture)
    np.testing.assert_array_equal(picture, photo("astronaut"))


def test_missing_weights_are_named_with_the_remedy() -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.dat.*pip install"):
        model_file("nothing.dat")


# --- the canonical crop ----------------------------------------------------------------------------------------------


def face_at(middle: tuple[float, float], scale: float, angle: float = 0) -> Face:
    """A face whose canonical crop lies about ``middle``, ``scale`` px of the photo a pixel, turned by ``angle``."""
    turn = scale * np.exp(1j * np.radians(angle))
    points = turn * (CANONICAL[:, 0] + 1j * CANONICAL[:, 1] - CROP / 2 * (1 + 1j)) + complex(*middle)
    return Face((0, 0, 0, 0), np.stack([points.real, points.imag], 1), 1)


def test_a_face_that_lies_canonically_is_cropped_as_it_is(photo: Photo) -> None:
    picture = photo("astronaut")
    crop = crop_face(picture, face_at((40 + CROP / 2, 30 + CROP / 2), 1))
    np.testing.assert_allclose(crop, picture[30 : 30 + CROP, 40 : 40 + CROP], atol=1e-4)


@pytest.mark.parametrize("scale", [0.3, 0.7, 1.7, 4.3])
@pytest.mark.parametrize("angle", [0, 35, 180])
def test_a_crop_shows_every_point_where_the_transform_puts_it(scale: float, angle: float) -> None:
    """On a slope of brightness, interpolation and halving are exact, and any shift would show."""
    face = face_at((800, 850), scale, angle)
    ys, xs = np.mgrid[:1700, :1700].astype(np.float32)
    slope = np.stack([xs, ys, xs + ys], 2) / 4000
    inverse = cv2.invertAffineTransform(face.transform)
    places = np.stack([*np.meshgrid(np.arange(CROP), np.arange(CROP))], 2) @ inverse[:, :2].T + inverse[:, 2]
    expected = np.concatenate([places, places.sum(2, keepdims=True)], 2) / 4000
    assert face.magnification == pytest.approx(1 / scale)
    inside = (slice(3, -3), slice(3, -3))  # the very border may be mirrored
    tenth = 0.1 * max(1, scale) / 4000  # of a pixel of the photo or of the crop, whichever is coarser
    np.testing.assert_allclose(crop_face(slope, face)[inside], expected[inside], atol=2 * tenth)


def test_fine_detail_of_a_large_face_does_not_alias() -> None:
    """Alternating columns, eight to a pixel of the crop, become their mean, not a pattern."""
    stripes = np.zeros((2300, 2300, 3), np.float32)
    stripes[:, ::2] = 1
    np.testing.assert_allclose(crop_face(stripes, face_at((1150, 1150), 8)), 0.5, atol=0.03)


@pytest.mark.parametrize("middle", [(20, 10), (500, 480), (80, 400)])
def test_the_extent_stays_inside_the_photo_and_covers_the_crop(middle: tuple[float, float], photo: Photo) -> None:
    picture = photo("astronaut")
    face = face_at(middle, 0.8, 20)
    left, top, right, bottom = extent(face, picture.shape)
    assert 0 <= left < right <= 512
    assert 0 <= top < bottom <= 512
    covered = cv2.warpAffine(np.ones((CROP, CROP)), cv2.invertAffineTransform(face.transform), (512, 512))
    covered[top:bottom, left:right] = 0
    assert not covered.any()


def test_refining_with_untrained_weights_gives_the_crop_back(tmp_path: Path, photo: Photo, astronaut: Face) -> None:
    torch.manual_seed(0)
    checkpoints.save("faces", FaceNet().state_dict(), {}, tmp_path, {"run": 0})
    crop = crop_face(photo("astronaut"), astronaut)
    refined = FaceRefiner("cpu", tmp_path).refine(crop)
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined, crop, atol=1e-6)
