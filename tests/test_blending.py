"""Refined faces put back: only where they belong, without a seam, a cast, or a loss of detail."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from conftest import Photo

from oldphoto.arrays import FloatImage
from oldphoto.blending import blend
from oldphoto.faces import CANONICAL, CROP, Face, crop_face, extent

FACES = {
    "as the crop": (1.0, 0, (250, 250)),
    "small": (0.25, 10, (200, 120)),
    "tilted": (0.7, -25, (230, 240)),
    "large": (1.9, 5, (260, 250)),
    "at the border": (0.8, 10, (30, 480)),
}
"""Photo pixels a pixel of the crop, angle in degrees, centre in px: of faces in a photo of 512 × 512 px."""

ALL = pytest.mark.parametrize("kind", FACES)


def face_of(scale: float, angle: float, centre: tuple[float, float]) -> Face:
    turn = scale * np.exp(1j * np.radians(angle))
    points = turn * (CANONICAL[:, 0] + 1j * CANONICAL[:, 1] - CROP / 2 * (1 + 1j)) + complex(*centre)
    return Face((0, 0, 0, 0), np.stack([points.real, points.imag], 1), 1)


def waves(period: float, height: float = 0.2) -> FloatImage:
    """A change of the crop without any overall shift of colour: waves in both directions."""
    ys, xs = np.mgrid[:CROP, :CROP] * (2 * np.pi / period)
    return np.repeat((height * np.sin(xs) * np.cos(ys))[..., None], 3, 2).astype(np.float32)


def muted(picture: FloatImage) -> FloatImage:
    """The photo with less contrast, so that changes are not cut off at black and white."""
    return (0.3 + 0.4 * picture).astype(np.float32)


def fine_energy(picture: FloatImage) -> float:
    """How much there is of detail finer than about 3 px."""
    return float((picture - cv2.GaussianBlur(picture, (0, 0), 1.5)).std())


@ALL
def test_an_unchanged_crop_changes_nothing(photo: Photo, kind: str) -> None:
    picture, face = photo("astronaut"), face_of(*FACES[kind])
    np.testing.assert_allclose(blend(picture, face, crop_face(picture, face)), picture, atol=1 / 255)


@ALL
def test_nothing_changes_outside_the_crop_nor_in_the_arguments(photo: Photo, kind: str) -> None:
    picture, face = photo("astronaut"), face_of(*FACES[kind])
    inverted = 1 - crop_face(picture, face)
    kept = inverted.copy()
    blended = blend(picture, face, inverted)
    np.testing.assert_array_equal(picture, photo("astronaut"))
    np.testing.assert_array_equal(inverted, kept)
    left, top, right, bottom = extent(face, picture.shape)
    assert np.abs(blended - picture)[top:bottom, left:right].max() > 0.1
    blended[top:bottom, left:right] = picture[top:bottom, left:right]
    np.testing.assert_array_equal(blended, picture)


@ALL
def test_what_is_blended_stays_a_picture(photo: Photo, kind: str) -> None:
    picture, face = photo("astronaut"), face_of(*FACES[kind])
    blended = blend(picture, face, np.random.default_rng(0).random((CROP, CROP, 3), np.float32))
    assert blended.dtype == np.float32
    assert blended.shape == picture.shape
    assert 0 <= blended.min() <= blended.max() <= 1


@ALL
def test_the_refinement_arrives_where_it_was_made(photo: Photo, kind: str) -> None:
    """Cropped again, the middle of the face shows what refinement made of it."""
    picture, face = muted(photo("astronaut")), face_of(*FACES[kind])
    change = waves(64)
    crop = crop_face(picture, face)
    arrived = crop_face(blend(picture, face, crop + change), face) - crop
    middle = (slice(110, 150), slice(110, 146))
    share = float(np.vdot(arrived[middle], change[middle]) / np.vdot(change[middle], change[middle]))
    assert 0.85 < share < 1.05
    np.testing.assert_allclose(arrived[middle], share * change[middle], atol=0.03)


@ALL
def test_a_constant_added_to_the_refined_crop_changes_nothing(photo: Photo, kind: str) -> None:
    picture, face = muted(photo("astronaut")), face_of(*FACES[kind])
    refined = crop_face(picture, face) + waves(48, 0.1)
    cast = refined + np.array([0.1, -0.05, 0.02], np.float32)
    np.testing.assert_allclose(blend(picture, face, cast), blend(picture, face, refined), atol=1e-5)


@ALL
def test_no_seam_shows_where_the_refined_face_begins(photo: Photo, kind: str) -> None:
    """The change grows from nothing: nowhere on the rim does it step more than on the face itself."""
    picture, face = muted(photo("astronaut")), face_of(*FACES[kind])
    change = blend(picture, face, crop_face(picture, face) + waves(40)) - picture
    steps = np.hypot(np.diff(change, axis=0)[:, :-1], np.diff(change, axis=1)[:-1]).max(2)
    ys, xs = np.mgrid[:511, :511]
    places = np.stack([xs, ys], 2) @ face.transform[:, :2].T + face.transform[:, 2]
    radius = np.abs(places / CROP - 0.5).max(2)  # of the square: 0.5 is the border of the crop
    inside, rim = steps[radius < 0.15].max(), steps[radius > 0.38].max()
    assert inside > 0.005
    assert rim < 0.5 * inside
    assert steps[radius > 0.48].max() < 0.02 * inside


@ALL
def test_a_face_at_the_border_is_blended_as_in_a_wider_photo(photo: Photo, kind: str) -> None:
    """Cut the photo through the middle of the face: what is left of it looks as it did before."""
    wide = muted(photo("astronaut"))
    scale, angle, (x, y) = FACES[kind]
    cut = round(x)
    narrow = np.ascontiguousarray(wide[:, cut:])
    blended = []
    for picture, left in ((wide, 0), (narrow, cut)):
        face = face_of(scale, angle, (x - left, y))
        blended.append(blend(picture, face, crop_face(picture, face) + waves(64)))
    np.testing.assert_allclose(blended[1], blended[0][:, cut:], atol=1 / 255)


def test_a_large_face_keeps_its_own_fine_detail(photo: Photo) -> None:
    """Refinement that blurs everything takes nothing of what is finer than its crop."""
    picture = cv2.resize(muted(photo("astronaut"))[20:220, 120:320], None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(0)
    picture = (picture + 0.04 * rng.standard_normal(picture.shape, np.float32)).clip(0, 1)
    face = face_of(4.0, 0, (600, 600))
    refined = cv2.GaussianBlur(crop_face(picture, face), (0, 0), 4)
    blended = blend(picture, face, refined)
    middle = (slice(450, 750), slice(450, 750))
    assert fine_energy(blended[middle]) > 0.97 * fine_energy(picture[middle])


def test_the_larger_the_face_the_less_of_its_coarse_structure_is_changed(photo: Photo) -> None:
    """Beyond twice the crop's resolution refinement has seen less than there is, and counts for less."""
    picture = cv2.resize(muted(photo("astronaut")), (1400, 1400), interpolation=cv2.INTER_CUBIC)
    changes = []
    for scale in (1.0, 2.0, 4.0):
        face = face_of(scale, 0, (700, 700))
        blended = blend(picture, face, crop_face(picture, face) + waves(64))
        changes.append(np.abs(blended - picture)[600:800, 600:800].max())
    assert changes[1] == pytest.approx(changes[0], rel=0.1)
    assert changes[2] == pytest.approx(0.5 * changes[0], rel=0.1)
