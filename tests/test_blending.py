"""Refined faces put back: only where they belong, without a seam, a cast, or a loss of detail."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from conftest import Photo

from oldphoto.arrays import FloatImage
from oldphoto.blending import blend, blend_all, soft_mask
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


# --- the mask --------------------------------------------------------------------------------------------------------


def test_the_mask_covers_the_features_and_ends_inside_the_crop() -> None:
    mask = soft_mask(face_of(1, 0, (128, 128)))
    for x, y in np.round(CANONICAL).astype(int):
        assert mask[y, x] > 0.9
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 0.01
    assert np.abs(np.diff(mask, axis=0)).max() < 0.05


def test_the_mask_follows_the_landmarks() -> None:
    """It does not depend on where and how large the face is, reaches down a long face, and round a turned head."""
    straight = face_of(1, 0, (128, 128))
    np.testing.assert_allclose(soft_mask(face_of(0.3, 40, (60, 90))), soft_mask(straight), atol=1e-4)

    def with_nose(shift: tuple[float, float]) -> FloatImage:
        landmarks = straight.landmarks.copy()
        landmarks[4] += shift
        return soft_mask(Face(straight.box, landmarks, 1))

    columns = np.arange(CROP)
    means = [float((with_nose((shift, 0)).sum(0) * columns).sum() / with_nose((shift, 0)).sum()) for shift in (-20, 20)]
    assert means[0] > means[1] + 5, "the farther the nose to one side, the more of the other is seen"
    assert (with_nose((0, 12)) > 0.5).any(1).sum() > (with_nose((0, -8)) > 0.5).any(1).sum() + 10


# --- several faces ---------------------------------------------------------------------------------------------------


def test_faces_that_overlap_are_not_changed_twice(photo: Photo) -> None:
    """Two boxes on one face, slightly apart: together they change it by no more than one does."""
    picture = muted(photo("astronaut"))
    faces = [face_of(0.8, 0, (250, 250)), face_of(0.8, 0, (256, 250))]
    refined = [crop_face(picture, face) + waves(200) for face in faces]
    both = blend_all(picture, list(zip(faces, refined, strict=True))) - picture
    one = blend(picture, faces[0], refined[0]) - picture
    assert np.abs(both).max() < 1.1 * np.abs(one).max()
    assert np.abs(both).max() > 0.8 * np.abs(one).max()


def test_the_order_of_faces_does_not_matter(photo: Photo) -> None:
    picture = muted(photo("astronaut"))
    faces = [face_of(0.5, 0, (220, 250)), face_of(0.7, 15, (300, 250)), face_of(0.4, 0, (100, 100))]
    pairs = [(face, crop_face(picture, face) + waves(48)) for face in faces]
    np.testing.assert_allclose(blend_all(picture, pairs), blend_all(picture, pairs[::-1]), atol=1e-5)
    alone = blend(picture, *pairs[2])
    np.testing.assert_allclose(blend_all(picture, pairs)[:160, :160], alone[:160, :160], atol=1e-5)


def test_a_photo_changes_only_where_that_is_asked_for(photo: Photo) -> None:
    """In place the same comes out, in the photo's own memory, overlapping faces or not; else the photo stays."""
    picture = muted(photo("astronaut"))
    faces = [face_of(0.8, 0, (250, 250)), face_of(0.8, 0, (280, 250)), face_of(0.4, 0, (100, 100))]
    pairs = [(face, crop_face(picture, face) + waves(48)) for face in faces]
    before = picture.copy()
    blended = blend_all(picture, pairs)
    np.testing.assert_array_equal(picture, before)
    changed = blend_all(picture, pairs, in_place=True)
    assert changed is picture
    np.testing.assert_array_equal(changed, blended)


# --- grain -----------------------------------------------------------------------------------------------------------


def grainy(picture: FloatImage, strength: float, coarseness: float) -> FloatImage:
    grain = np.random.default_rng(3).standard_normal(picture.shape[:2], np.float32)
    if coarseness:
        grain = cv2.GaussianBlur(grain, (0, 0), coarseness)
    return (picture + (strength * grain / grain.std())[..., None]).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("coarseness", [0, 0.8, 1.5])
def test_a_refined_face_gets_the_grain_of_its_photo(photo: Photo, coarseness: float) -> None:
    """Refined to the clean face, it is as grainy as what is around it, at fine and at coarse scales."""
    smooth = cv2.GaussianBlur(muted(photo("astronaut")), (0, 0), 6)
    picture, face = grainy(smooth, 0.05, coarseness), face_of(1.2, 0, (250, 250))
    blended = blend(picture, face, crop_face(smooth, face))
    middle = (slice(215, 285), slice(215, 285))
    for scale in (1, 2):
        had, has = (
            cv2.resize(one - smooth, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)[
                tuple(slice(edge.start // scale, edge.stop // scale) for edge in middle)
            ].std()
            for one in (picture, blended)
        )
        assert has / had == pytest.approx(1, abs=0.25)


def test_a_face_in_a_clean_photo_gets_no_grain(photo: Photo) -> None:
    """Fine detail around a face, as of hair and clothes, is no grain."""
    picture, face = muted(photo("astronaut")), face_of(1.2, 0, (220, 120))
    refined = cv2.GaussianBlur(crop_face(picture, face), (0, 0), 1)
    change = blend(picture, face, refined) - picture
    expected = cv2.GaussianBlur(picture, (0, 0), 1.2) - picture
    middle = (slice(95, 145), slice(195, 245))
    assert fine_energy(change[middle] - expected[middle]) < 0.01


def test_grain_is_the_same_every_time(photo: Photo) -> None:
    picture, face = grainy(muted(photo("astronaut")), 0.05, 1), face_of(0.8, 0, (250, 250))
    refined = cv2.GaussianBlur(crop_face(picture, face), (0, 0), 4)
    np.testing.assert_array_equal(blend(picture, face, refined), blend(picture, face, refined))


def test_the_grain_of_a_refined_face_is_the_photos_own(photo: Photo) -> None:
    """Not another that is as strong: on a small face that would be noise on top of noise."""
    smooth = cv2.GaussianBlur(muted(photo("astronaut")), (0, 0), 6)
    picture, face = grainy(smooth, 0.05, 0.8), face_of(0.8, 0, (250, 250))
    blended = blend(picture, face, crop_face(smooth, face))
    middle = (slice(235, 265), slice(235, 265))
    own, given = ((one - smooth)[middle].ravel() for one in (picture, blended))
    assert np.corrcoef(own, given)[0, 1] > 0.8


@ALL
def test_the_gradient_across_the_border_is_as_it_was(photo: Photo, kind: str) -> None:
    """A face of other sharpness and brightness: along the border of the mask nothing steeper, and nothing wiped."""
    picture, face = grainy(muted(photo("astronaut")), 0.02, 0.8), face_of(*FACES[kind])
    refined = cv2.GaussianBlur(crop_face(picture, face), (0, 0), 2) * 1.05 + 0.03
    blended = blend(picture, face, refined.astype(np.float32))
    place = cv2.invertAffineTransform(face.transform)
    mask = cv2.warpAffine(soft_mask(face), place, (512, 512))
    across = np.stack(np.gradient(cv2.GaussianBlur(mask, (0, 0), 2)), 2)
    across /= np.maximum(np.linalg.norm(across, axis=2, keepdims=True), 1e-6)
    border = (mask > 0.02) & (mask < 0.3)
    before, after = (
        np.abs((np.stack(np.gradient(one.mean(2)), 2) * across).sum(2))[border].mean() for one in (picture, blended)
    )
    assert after / before == pytest.approx(1, abs=0.1)
