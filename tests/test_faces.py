"""Faces: found where they are, cut out upright, and none where there is none."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
import torch
from conftest import Bundled, Photo
from numpy.typing import NDArray
from safetensors.torch import save_file

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage
from oldphoto.errors import CheckpointError, UsageError
from oldphoto.evaluation import psnr
from oldphoto.faces import (
    CANONICAL,
    CROP,
    Face,
    FaceFinder,
    FaceRefiner,
    IdentityGuard,
    crop_face,
    extent,
    identity,
    model_file,
)
from oldphoto.faces.cnn import FaceSearch
from oldphoto.faces.hog import hog_detector
from oldphoto.faces.models import DETECTOR, IDENTITY
from oldphoto.nets.facegan import FaceNet
from oldphoto.training.ageing import Severity, age
from oldphoto.translation import Translator

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


@pytest.mark.parametrize("side", [22, 34])
def test_faces_as_small_as_in_group_portraits_are_found(
    photo: Photo, finder: FaceFinder, astronaut: Face, side: int
) -> None:
    factor = side / FACE
    face = at(finder.find(resized(photo("astronaut"), factor)), np.multiply(CENTRE, factor), side)
    expected = (astronaut.landmarks + 0.5) * factor - 0.5
    assert np.abs(face.landmarks - expected).max() * face.magnification < 12


@pytest.mark.parametrize("kind", ["faded", "grainy", "faint and grainy", "dark"])
def test_faces_in_bad_photographs_are_found(photo: Photo, finder: FaceFinder, astronaut: Face, kind: str) -> None:
    gray = photo("astronaut").mean(2, keepdims=True).repeat(3, 2)
    grain = cv2.GaussianBlur(np.random.default_rng(0).standard_normal((512, 512, 1), np.float32), (0, 0), 0.8)[
        ..., None
    ]
    bad = {
        "faded": 0.6 + 0.12 * gray,
        "grainy": gray + 0.25 * grain,
        "faint and grainy": 0.55 + 0.2 * gray + 0.05 * grain,
        "dark": 0.15 * gray,
    }[kind]
    face = at(finder.find(bad.clip(0, 1).astype(np.float32)), CENTRE)
    assert np.abs(face.landmarks - astronaut.landmarks).max() * face.magnification < 12


def test_the_cnn_detector_finds_the_same_face(photo: Photo, astronaut: Face) -> None:
    cut = np.ascontiguousarray(photo("astronaut")[:256, 92:348])
    (face,) = FaceFinder("cnn").find(cut)
    assert np.abs(np.add(face.landmarks, (92, 0)) - astronaut.landmarks).max() * face.magnification < 8


@pytest.mark.parametrize("damage", ["none", "another content", "empty", "a folder", "no cache"])
def test_the_hog_detector_is_kept_and_never_taken_damaged(
    photo: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    unpacked = []
    unpack = dlib.get_frontal_face_detector
    monkeypatch.setattr(dlib, "get_frontal_face_detector", lambda: unpacked.append(None) or unpack())
    cache = tmp_path / "cache"
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: cache)
    if damage == "no cache":
        cache.write_text("a file in the way")
    hog_detector()
    if damage != "no cache":
        (kept,) = cache.iterdir()
        if damage == "another content":
            kept.write_bytes(kept.read_bytes()[:-1] + b"x")
        elif damage == "empty":
            kept.write_bytes(b"")
        elif damage == "a folder":
            kept.unlink()
            kept.mkdir()
    picture = np.round(photo("astronaut") * 255).astype(np.uint8)
    assert hog_detector().run(picture, 1, -0.5) == unpack().run(picture, 1, -0.5)
    assert len(unpacked) == (1 if damage == "none" else 2)


@pytest.mark.parametrize("place", [(0, 92, 256), (0, 0, 512), (40, 150, 150)])
def test_the_cnn_detector_says_what_that_of_dlib_says(photo: Photo, place: tuple[int, int, int]) -> None:
    top, left, side = place
    picture = np.round(photo("astronaut")[top : top + side, left : left + side] * 255).astype(np.uint8)
    picture = np.ascontiguousarray(cv2.resize(picture, (400, 400), interpolation=cv2.INTER_LINEAR))
    theirs = max(
        dlib.cnn_face_detection_model_v1(str(model_file(DETECTOR)))(picture, 0), key=lambda hit: hit.confidence
    )
    (left_edge, top_edge, right, bottom), score = max(FaceSearch().hits(picture, 0.5), key=lambda hit: hit[1])
    assert score == pytest.approx(theirs.confidence, abs=0.1)
    assert right - left_edge == pytest.approx(theirs.rect.width(), rel=0.25)
    centre = np.array([left_edge + right, top_edge + bottom]) / 2
    assert np.abs(centre - (theirs.rect.center().x, theirs.rect.center().y)).max() < 0.2 * (right - left_edge)


@pytest.mark.parametrize("shape", [(1, 1), (8, 2000), (300, 9), (79, 79)])
def test_no_picture_is_too_small_or_too_narrow_for_the_cnn_detector(shape: tuple[int, int]) -> None:
    assert list(FaceSearch().hits(np.full((*shape, 3), 127, np.uint8), 0.5)) == []


def test_a_face_is_found_once(photo: Photo, finder: FaceFinder) -> None:
    """In two copies and at many scales, it is still one."""
    assert len(finder.find(photo("astronaut")[:300])) == 1


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


# --- refinement ------------------------------------------------------------------------------------------------------


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A folder of weights that change nothing."""
    torch.manual_seed(0)
    checkpoints.save("faces", FaceNet().state_dict(), {}, tmp_path, {"run": 0})
    return tmp_path


def test_refining_with_untrained_weights_gives_the_crop_back(untrained: Path, photo: Photo, astronaut: Face) -> None:
    crop = crop_face(photo("astronaut"), astronaut)
    refined = FaceRefiner("cpu", untrained).refine(crop)
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined, crop, atol=1e-6)


def test_altered_weights_are_refused_before_any_face_is_met(untrained: Path) -> None:
    weights = untrained / "faces.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match="altered or damaged"):
        FaceRefiner("cpu", untrained)


def test_refined_faces_lose_neither_fidelity_nor_who_they_show(photo: Photo, astronaut: Face, bundled: Bundled) -> None:
    """Large and small, as they come out of the translation of an aged photo."""
    refiner, guard, translator = FaceRefiner("cpu", bundled("faces")), IdentityGuard(), Translator("cpu")
    gains, strangeness = [], []
    for seed, factor in enumerate((1, 0.5, 0.3)):
        picture = resized(photo("astronaut")[:260, 90:350], factor)
        face = Face((0, 0, 0, 0), (astronaut.landmarks - (90, 0) + 0.5) * factor - 0.5, 1)
        clean = crop_face(picture, face)
        aged = age(picture, np.random.default_rng(seed), Severity(0.5, 0, 0.4, 0, 0.4)).photo
        worn = crop_face(translator.translate(aged), face)
        refined = refiner.refine(worn)
        refined = worn + np.float32(guard.share(worn, refined)) * (refined - worn)
        gains.append(psnr(refined, clean) - psnr(worn, clean))
        strangeness.append(guard.distance(refined, clean) - guard.distance(worn, clean))
    assert min(gains) > -0.5
    assert np.mean(gains) > 0
    assert max(strangeness) < 0.05


# --- who it is -------------------------------------------------------------------------------------------------------


def descriptor(crop: FloatImage) -> NDArray[np.float32]:
    with torch.inference_mode():
        tensor = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None]
        return np.asarray(identity.descriptors(identity.load_identity_net(), tensor)[0].numpy())


def test_the_network_gives_the_descriptors_of_dlib(photo: Photo, finder: FaceFinder) -> None:
    """On dlib's own face chip, number for number; on our crop, aligned by the same landmarks, nearly."""
    whole = photo("astronaut")
    pixels = np.round(255 * whole).astype(np.uint8)
    theirs = dlib.face_recognition_model_v1(str(model_file(IDENTITY)))
    box = dlib.get_frontal_face_detector()(pixels, 1)[0]
    shape = dlib.shape_predictor(str(model_file("shape_predictor_5_face_landmarks.dat")))(pixels, box)
    chip = dlib.get_face_chip(pixels, shape, 150, 0.25)
    expected = np.array(theirs.compute_face_descriptor(chip))
    with torch.inference_mode():
        given = identity.load_identity_net()(torch.from_numpy(chip).permute(2, 0, 1)[None] / 255)[0].numpy()
    np.testing.assert_allclose(given, expected, atol=1e-5)
    points = np.array([(point.x, point.y) for point in shape.parts()], float)
    cropped = descriptor(crop_face(whole, Face((0, 0, 0, 0), points, 1)))
    assert np.linalg.norm(cropped - expected) < 0.15


def test_descriptors_have_gradients(photo: Photo, astronaut: Face) -> None:
    """One step against the gradient brings a face nearer to whom it should show."""
    net = identity.load_identity_net()
    clean = torch.from_numpy(crop_face(photo("astronaut"), astronaut)).permute(2, 0, 1)[None]
    target = identity.descriptors(net, clean)
    blurred = torch.nn.functional.avg_pool2d(clean, 9, 1, 4).requires_grad_()
    before = (identity.descriptors(net, blurred) - target).norm()
    (slope,) = torch.autograd.grad(before, blurred)
    after = (identity.descriptors(net, blurred - 0.5 * slope / slope.norm()) - target).norm()
    assert after < before


def test_another_file_is_not_taken_for_the_descriptor(tmp_path: Path) -> None:
    for content in (b"", b"con_4" * 100, model_file("mmod_human_face_detector.dat").read_bytes()):
        other = tmp_path / "other.dat"
        other.write_bytes(content)
        with pytest.raises(CheckpointError, match="not dlib's weights of IdentityNet"):
            identity.load_identity_net(other)


@pytest.mark.parametrize("kind", ["the same", "sharper", "darker", "upside down", "noise", "blank"])
def test_what_the_guard_lets_through_leaves_the_person_within_its_limit(
    photo: Photo, astronaut: Face, kind: str
) -> None:
    guard = IdentityGuard()
    crop = crop_face(photo("astronaut"), astronaut)
    refined = {
        "the same": crop,
        "sharper": (crop + 0.7 * (crop - cv2.GaussianBlur(crop, (0, 0), 2))).clip(0, 1),
        "darker": 0.95 * crop,
        "upside down": crop[::-1],
        "noise": np.random.default_rng(0).random(crop.shape, np.float32),
        "blank": np.full_like(crop, 0.5),
    }[kind].astype(np.float32)
    share = guard.share(crop, refined)
    assert guard.distance(crop, crop + np.float32(share) * (refined - crop)) <= guard.limit
    if kind in ("the same", "sharper", "darker"):
        assert share == 1
    else:
        assert share < 0.5


# --- the user's own models -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_model() -> dict[str, torch.Tensor]:
    """The weights of a RestoreFormer with a hundredth of the usual parameters."""
    pytest.importorskip("spandrel")
    from spandrel.architectures.RestoreFormer import RestoreFormer

    torch.manual_seed(0)
    small = {"n_embed": 16, "embed_dim": 32, "ch": 32, "ch_mult": (1,) * 6, "num_res_blocks": 1, "z_channels": 32}
    net = RestoreFormer(**small, attn_resolutions=(16,), enable_mid=True, head_size=8, resolution=512)
    return {key: value.contiguous() for key, value in net.state_dict().items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_model_of_the_users_own_refines_faces(
    tiny_model: dict[str, torch.Tensor], tmp_path: Path, photo: Photo, astronaut: Face, suffix: str
) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"params_ema": tiny_model}, path)
    else:
        save_file(tiny_model, path)
    crop = crop_face(photo("astronaut"), astronaut)
    refined = FaceRefiner("cpu", tmp_path / "no weights needed", path).refine(crop)
    assert refined.shape == crop.shape
    assert refined.dtype == np.float32
    assert 0 <= refined.min() <= refined.max() <= 1
    assert np.abs(refined - crop).mean() > 0.01, "an untrained model changes the face"


def test_models_of_the_users_own_see_the_face_where_they_expect_it(photo: Photo, astronaut: Face) -> None:
    """On the square of 512 px the eyes lie as in FFHQ's alignment, and what is painted there comes back in place."""
    seen = []

    def paint(face: torch.Tensor) -> torch.Tensor:
        seen.append(face)
        painted = face.clone()
        painted[:, :, 236:245, 189:198] = 1  # about (193, 240), the centre of the eye on the left
        return painted

    refiner = FaceRefiner.__new__(FaceRefiner)
    refiner.device, refiner._model = torch.device("cpu"), paint
    crop = crop_face(0.5 * photo("astronaut"), astronaut)
    refined = refiner.refine(crop)
    assert seen[0].shape == (1, 3, 512, 512)
    changed = np.argwhere((refined - crop).min(2) > 0.2)
    middle = CANONICAL[2:4].mean(0)[::-1]
    np.testing.assert_allclose(changed.mean(0), middle, atol=1)
    assert len(changed) < 40
    untouched = np.ones(crop.shape[:2], bool)
    untouched[round(middle[0]) - 8 : round(middle[0]) + 9, round(middle[1]) - 8 : round(middle[1]) + 9] = False
    np.testing.assert_allclose(refined[untouched], crop[untouched], atol=1e-3)


def test_files_that_are_no_face_restorer_are_refused_with_the_reason(tmp_path: Path) -> None:
    spandrel = pytest.importorskip("spandrel")
    with pytest.raises(UsageError, match="no such file"):
        FaceRefiner("cpu", model=tmp_path / "absent.pth")
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="can not be read"):
        FaceRefiner("cpu", model=garbage)
    unknown = tmp_path / "unknown.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3)}, unknown)
    with pytest.raises(UsageError, match="not a model that spandrel"):
        FaceRefiner("cpu", model=unknown)
    from spandrel.architectures.DnCNN import DnCNN

    other = tmp_path / "denoiser.safetensors"
    save_file(DnCNN(in_nc=3, out_nc=3, nc=8, nb=17, act_mode="R").state_dict(), other)
    assert spandrel.ModelLoader().load_from_file(other).purpose != "FaceSR"
    with pytest.raises(UsageError, match="another kind"):
        FaceRefiner("cpu", model=other)


def test_pickled_code_in_a_model_is_never_run(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    torch.save({"params": _Evil(str(marker))}, path)
    with pytest.raises(CheckpointError, match="can not be read"):
        FaceRefiner("cpu", model=path)
    assert not marker.exists()


class _Evil:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.marker,)


def test_without_spandrel_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError, match=r"pip install 'oldphoto\[face-models\]'"):
        FaceRefiner("cpu", model=tmp_path / "mine.pth")
