"""What a restoration does to photographs, with the weights that ship: the properties users rely on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Photo

from oldphoto.arrays import FloatImage
from oldphoto.errors import CheckpointError, PhotoError, UsageError
from oldphoto.faces import FaceFinder, FaceRefiner, IdentityGuard, crop_face
from oldphoto.pipeline import RestoreOptions, Restorer
from oldphoto.scratches import ScratchDetector
from oldphoto.training.ageing import Severity, age
from oldphoto.translation import Translator

WORN = Severity(optics=0.3, tone=0.4, noise=0.5, damage=0.6, scan=0.3)


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer(RestoreOptions(with_scratch=True), "cpu")


@pytest.fixture(scope="module")
def plain() -> Restorer:
    return Restorer(RestoreOptions(), "cpu")


def psnr(a: FloatImage, b: FloatImage) -> float:
    return float(-10 * np.log10(np.square(a - b).mean() + 1e-12))


def fitted(picture: FloatImage, clean: FloatImage) -> FloatImage:
    """The picture after the gain and offset of each channel that bring it closest to the clean one."""
    result = np.empty_like(picture)
    for channel in range(3):
        gain, offset = np.polyfit(picture[..., channel].ravel(), clean[..., channel].ravel(), 1)
        result[..., channel] = gain * picture[..., channel] + offset
    return result


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_an_aged_photo_comes_closer_to_the_clean_one(restorer: Restorer, photo: Photo, name: str) -> None:
    clean, gains = photo(name), []
    for seed in (5, 6, 7, 8):
        aged = age(clean, np.random.default_rng(seed), WORN).photo
        restored = restorer.restore(aged).rgb
        gains.append(psnr(fitted(restored, clean), clean) - psnr(fitted(aged, clean), clean))
    assert min(gains) > 0, "no photo may lose"
    assert np.mean(gains) > 1.5


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_a_clean_modern_photo_passes_unharmed(plain: Restorer, photo: Photo, name: str) -> None:
    clean = photo(name)
    assert psnr(plain.restore(clean).rgb, clean) > 30


@pytest.fixture(scope="module")
def without_faces() -> Restorer:
    return Restorer(RestoreOptions(with_scratch=True, faces=False), "cpu")


def test_a_photo_and_a_mask_may_lie_in_memory_as_they_like(without_faces: Restorer, photo: Photo) -> None:
    """Views, other floating-point types, masks that are true or false, values that resampling left beyond black."""
    rgb = cv2.resize(photo("coffee"), (800, 800), interpolation=cv2.INTER_AREA)
    mask = np.zeros((800, 800), np.float32)
    mask[300:340, 100:700] = 1
    expected = without_faces.restore(rgb, mask).rgb
    upside_down = without_faces.restore(rgb[::-1], mask[::-1]).rgb
    np.testing.assert_array_equal(upside_down, without_faces.restore(rgb[::-1].copy(), mask[::-1].copy()).rgb)
    for same, marked in ((rgb, mask > 0), (rgb.astype(np.float64), mask.astype(np.float64)), (rgb, 1.2 * mask)):
        np.testing.assert_array_equal(without_faces.restore(same, marked).rgb, expected)
        np.testing.assert_array_equal(without_faces.restore(same.copy(), marked, in_place=True).rgb, expected)
    beyond = np.where(mask[..., None] > 0, 3 * rgb - 1, rgb).astype(np.float32)
    np.testing.assert_array_equal(
        without_faces.restore(beyond, mask).rgb, without_faces.restore(beyond.clip(0, 1), mask).rgb
    )
    assert without_faces.restore(rgb[::-1]).rgb.shape == rgb.shape  # the detector's own mask


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda rgb, mask: ((255 * rgb).astype(np.uint8), mask), "floating-point"),
        (lambda rgb, mask: (rgb, (255 * mask).astype(np.uint8)), "floating-point"),
        (lambda rgb, mask: (np.where(rgb == rgb.max(), np.nan, rgb), mask), "a photo holds values that are no numbers"),
        (lambda rgb, mask: (rgb, mask * np.inf), "a mask holds values that are no numbers"),
        (lambda rgb, mask: (rgb, mask[..., None]), "a mask must be H × W, this array is 40 × 60 × 1"),
        (lambda rgb, mask: (rgb[..., 0], mask), "a photo must be H × W × 3"),
        (lambda rgb, mask: (rgb, mask[1:]), "must be of one size"),
    ],
)
def test_what_is_no_photo_or_no_mask_is_refused(
    spoil: Callable[[FloatImage, FloatImage], tuple[FloatImage, FloatImage]],
    why: str,
    without_faces: Restorer,
    photo: Photo,
) -> None:
    with pytest.raises(PhotoError, match=why):
        without_faces.restore(*spoil(photo("coffee")[:40, :60], np.ones((40, 60), np.float32)))


def test_every_stage_takes_a_photo_as_it_lies(photo: Photo) -> None:
    rgb = photo("astronaut")[:256, 100:356]
    detector, translator, finder, refiner = ScratchDetector("cpu"), Translator("cpu"), FaceFinder(), FaceRefiner("cpu")
    (face,) = finder.find(rgb)
    crop = crop_face(rgb, face)
    for stage, picture in ((detector.detect, rgb), (translator.translate, rgb), (refiner.refine, crop)):
        expected = stage(picture[:, ::-1].copy())
        np.testing.assert_array_equal(stage(picture[:, ::-1]), expected)
        np.testing.assert_array_equal(stage(picture[:, ::-1].astype(np.float64)), expected)
        with pytest.raises(PhotoError, match="floating-point"):
            stage(np.asarray(255 * picture, np.uint8))  # type: ignore[arg-type]
    (again,) = finder.find(rgb.astype(np.float64))
    assert again.box == face.box


@pytest.mark.parametrize("options", [RestoreOptions(tile=0), RestoreOptions(face_detector="dlib")])  # type: ignore[arg-type]
def test_options_that_mean_nothing_are_refused(options: RestoreOptions) -> None:
    with pytest.raises(UsageError):
        Restorer(options, "cpu")


def test_the_same_photo_gives_the_same_pixels_and_is_not_touched(restorer: Restorer, photo: Photo) -> None:
    aged = age(photo("astronaut")[:256, :256], np.random.default_rng(1), WORN).photo
    kept = aged.copy()
    first, second = restorer.restore(aged), restorer.restore(aged)
    np.testing.assert_array_equal(first.rgb, second.rgb)
    np.testing.assert_array_equal(aged, kept)


def test_a_photo_restored_in_its_own_memory_is_the_same(photo: Photo) -> None:
    aged = age(cv2.resize(photo("astronaut"), (800, 800)), np.random.default_rng(1), WORN).photo
    kept = aged.copy()
    restorer = Restorer(RestoreOptions(with_scratch=True, faces=False), "cpu")
    expected = restorer.restore(aged).rgb
    mirrored = restorer.restore(aged[:, ::-1], in_place=True).rgb  # not contiguous: its memory can not be used
    np.testing.assert_array_equal(aged, kept)
    assert mirrored.shape == aged.shape
    restored = restorer.restore(aged, in_place=True).rgb
    assert np.shares_memory(restored, aged)
    np.testing.assert_array_equal(restored, expected)


def test_a_gray_photo_stays_gray(restorer: Restorer, photo: Photo) -> None:
    gray = np.repeat(photo("astronaut").mean(2, keepdims=True), 3, 2)
    restored = restorer.restore(gray, gray=True)
    assert restored.faces, "the face stage must have had its say"
    assert np.ptp(restored.rgb, axis=2).max() == 0
    np.testing.assert_array_equal(restorer.restore(gray).rgb, restored.rgb, "saved in colour as scans are, it is gray")


@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (600, 17), (333, 517)])
def test_any_size_comes_back_in_its_size(restorer: Restorer, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random((*shape, 3), np.float32)
    restored = restorer.restore(picture)
    assert restored.rgb.shape == picture.shape
    assert restored.mask is not None
    assert restored.mask.shape == shape
    assert np.isfinite(restored.rgb).all()
    assert restored.rgb.min() >= 0
    assert restored.rgb.max() <= 1


def test_strength_scales_the_change(photo: Photo) -> None:
    aged = age(photo("chelsea"), np.random.default_rng(2), WORN).photo
    none, half, full = (
        Restorer(RestoreOptions(with_scratch=True, faces=False, strength=strength), "cpu").restore(aged).rgb
        for strength in (0.0, 0.5, 1.0)
    )
    np.testing.assert_array_equal(none, aged)
    np.testing.assert_allclose(half, (aged + full) / 2, atol=2e-3)
    assert np.abs(full - aged).mean() > 0.01


def test_fidelity_leads_from_the_refined_face_to_the_one_in_the_photo(plain: Restorer, photo: Photo) -> None:
    # Without damage: a face that was scratched is left as found if refinement would change the person.
    worn = replace(WORN, damage=0.0)
    aged = age(photo("astronaut")[:320, 60:380], np.random.default_rng(4), worn).photo
    translated, half, whole = (
        Restorer(options, "cpu").restore(aged).rgb
        for options in (RestoreOptions(faces=False), RestoreOptions(face_fidelity=0.5), RestoreOptions(face_fidelity=1))
    )
    refined = plain.restore(aged).rgb
    np.testing.assert_array_equal(whole, translated)
    assert np.abs(refined - translated).max() > 0.02, "there was a face to refine"
    assert 0.2 < np.abs(half - translated).mean() / np.abs(refined - translated).mean() < 0.8
    with pytest.raises(UsageError, match="between 0 and 1"):
        Restorer(RestoreOptions(face_fidelity=1.5), "cpu")


def test_a_refinement_that_changes_the_person_is_dropped_and_told(
    photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refiner here gives everybody an upside-down face; nobody gets it."""
    picture = photo("astronaut")[:320, 60:380]
    restorer = Restorer(RestoreOptions(), "cpu")
    assert restorer.refiner is not None
    monkeypatch.setattr(restorer.refiner, "refine", lambda crop: crop[::-1].copy())
    restoration = restorer.restore(picture)
    translated = Restorer(RestoreOptions(faces=False), "cpu").restore(picture)
    assert len(restoration.faces) == 1
    assert len(restoration.warnings) == 1
    assert "of 1 face: refinement would have changed who it shows" in restoration.warnings[0]
    before, after = (crop_face(one.rgb, restoration.faces[0]) for one in (translated, restoration))
    assert IdentityGuard().distance(before, after) < IdentityGuard().distance(before, before[::-1].copy()) / 2


def test_the_users_own_mask_takes_the_place_of_the_detector(plain: Restorer, photo: Photo) -> None:
    """A hole in a smooth place, marked by hand, is gone; nothing else needs to be found."""
    clean = photo("coffee")
    torn, mask = clean.copy(), np.zeros(clean.shape[:2], np.float32)
    cv2.line(mask, (40, 20), (360, 60), 1.0, 3)
    torn[mask > 0] = 1
    restored = plain.restore(torn, mask).rgb
    hole = mask > 0
    assert psnr(restored[hole], clean[hole]) > psnr(torn[hole], clean[hole]) + 5


@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
def test_lines_as_thin_and_sharp_as_pixels_are_found(restorer: Restorer, photo: Photo, name: str) -> None:
    """Light ones and dark ones, drawn into a picture as sharp as pictures are on a screen."""
    clean = photo(name)
    height, width = clean.shape[:2]
    found = []
    for shade in (0.95, 0.08):
        mask = np.zeros((height, width), np.uint8)
        for top, left, bottom, right in ((0.1, 0.05, 0.5, 0.95), (0.9, 0.2, 0.15, 0.7), (0.4, 0, 0.6, 1)):
            ends = (int(left * width), int(top * height)), (int(right * width), int(bottom * height))
            cv2.line(mask, *ends, 1, 1)
        scratched = np.where(mask[..., None] > 0, np.float32(shade), clean)
        seen = (mask > 0) & (np.abs(scratched - clean).max(2) > 0.1)
        marked = restorer.restore(scratched).mask
        assert marked is not None
        found.append(float((marked[seen] > 0.5).mean()))
    assert np.mean(found) > 0.75, found


def test_a_scan_of_twice_the_resolution_is_restored_alike(restorer: Restorer, photo: Photo) -> None:
    clean = photo("astronaut")[:448, :448]
    aged = age(clean, np.random.default_rng(3), WORN).photo
    once = restorer.restore(aged).rgb
    fine = cv2.resize(aged, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    twice = cv2.resize(restorer.restore(fine).rgb, (448, 448), interpolation=cv2.INTER_AREA)
    assert abs(psnr(fitted(once, clean), clean) - psnr(fitted(twice, clean), clean)) < 1


@pytest.mark.parametrize("times", [2, 4])
def test_however_finely_a_print_was_scanned_the_same_is_repaired(plain: Restorer, photo: Photo, times: int) -> None:
    clean = photo("chelsea")
    aged = age(clean, np.random.default_rng(4), WORN)
    mask = np.asarray(cv2.dilate(aged.mask, np.ones((3, 3))), np.float32)
    once = plain.restore(aged.photo, mask).rgb
    fine, fine_mask = (
        cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC).clip(0, 1)
        for picture in (aged.photo, mask)
    )
    small = cv2.resize(plain.restore(fine, fine_mask).rgb, clean.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert psnr(fitted(small, clean), clean) > psnr(fitted(once, clean), clean) - 0.3


def test_what_does_not_fit_is_refused(plain: Restorer, photo: Photo, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="of one size"):
        plain.restore(photo("coffee"), np.zeros((10, 10), np.float32))
    with pytest.raises(PhotoError, match="H × W × 3"):
        plain.restore(photo("coffee")[..., 0])
    with pytest.raises(UsageError, match="not a device"):
        Restorer(device="abacus")
    with pytest.raises(CheckpointError, match="weights"):
        Restorer(checkpoints=tmp_path)
