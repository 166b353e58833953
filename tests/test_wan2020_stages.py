"""The stages that run the published networks: any size, nothing of the damage, faces where the networks know them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import parity
import pytest
import torch
from conftest import Photo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from oldphoto import checkpoints, published
from oldphoto.arrays import FloatImage
from oldphoto.errors import CheckpointError
from oldphoto.faces import CANONICAL, FaceFinder, crop_face
from oldphoto.nets.wan2020.detector import Detector
from oldphoto.nets.wan2020.faces import FaceGenerator
from oldphoto.nets.wan2020.translation import Translation
from oldphoto.pipeline import RestoreOptions, Restorer
from oldphoto.published import (
    TEMPLATE,
    PublishedDetector,
    PublishedRefiner,
    PublishedTranslator,
    detector_size,
)
from oldphoto.tiling import run_overlapping

CPU = torch.device("cpu")
WIDTH = 4
KINDS = {"translation": "quality", "translation-scratch": "scratch", "translation-hr": "hr"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The networks with narrow layers and weights by rule."""
    folder = tmp_path_factory.mktemp("published")
    nets: dict[str, tuple[type[nn.Module], dict[str, object]]] = {
        "scratches": (Detector, {}),
        **{name: (Translation, {"kind": kind}) for name, kind in KINDS.items()},
        "faces": (FaceGenerator, {"size": 256}),
        "faces-hr": (FaceGenerator, {"size": 512}),
    }
    for name, (kind, config) in nets.items():
        config |= {"width": WIDTH}
        weights = parity.filled(kind(**config))
        checkpoints.save(name, weights, config, folder, {"run": 0}, half=False, architecture=checkpoints.PUBLISHED)
    return folder


def masked(height: int, width: int) -> FloatImage:
    mask = np.zeros((height, width), np.float32)
    mask[height // 3 : height // 2 + 1, : width // 2 + 1] = 1
    return mask


@settings(max_examples=12, deadline=None, derandomize=True)
@given(height=st.integers(1, 90), width=st.integers(1, 90), name=st.sampled_from(sorted(KINDS)))
def test_a_picture_of_any_size_comes_back_in_its_size(folder, height, width, name):
    translator = PublishedTranslator("cpu", folder, large_scans=name.endswith("hr"))
    rgb = np.random.default_rng(0).random((height, width, 3), np.float32)
    mask = None if name == "translation" else masked(height, width)
    before = rgb.copy()
    restored = translator.translate(rgb, mask)
    assert restored.shape == rgb.shape and restored.dtype == np.float32
    assert 0 <= restored.min() <= restored.max() <= 1
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(translator.translate(rgb, mask, strength=0), rgb)


@pytest.mark.parametrize("large_scans", [False, True])
def test_nothing_of_what_is_damaged_reaches_the_result(folder, photo: Photo, large_scans):
    translator = PublishedTranslator("cpu", folder, large_scans=large_scans)
    rgb = photo("astronaut")[:96, 150:250]
    mask = masked(*rgb.shape[:2])
    other = rgb.copy()
    other[mask > 0] = np.random.default_rng(0).random((int(mask.sum()), 3))
    np.testing.assert_allclose(translator.translate(rgb, mask), translator.translate(other, mask), atol=1e-6)


@pytest.mark.parametrize("large_scans", [False, True])
def test_a_photo_that_is_all_damage_is_no_error(folder, photo: Photo, large_scans):
    translator = PublishedTranslator("cpu", folder, large_scans=large_scans)
    restored = translator.translate(photo("astronaut")[:64, :64], np.ones((64, 64), np.float32))
    assert np.isfinite(restored).all()


def test_a_network_that_is_not_there_is_named(folder, tmp_path):
    weights = parity.filled(Translation(width=WIDTH))
    config = {"kind": "quality", "width": WIDTH}
    checkpoints.save("translation", weights, config, tmp_path, {"run": 0}, architecture=checkpoints.PUBLISHED)
    translator = PublishedTranslator("cpu", tmp_path)
    with pytest.raises(CheckpointError, match="repairs scratches"):
        translator.translate(np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), np.float32))
    with pytest.raises(CheckpointError, match="repairs scratches"):
        Restorer(RestoreOptions(faces=False, own_masks=True), "cpu", tmp_path)
    Restorer(RestoreOptions(faces=False), "cpu", tmp_path)


def test_a_picture_goes_through_whole_where_it_fits_and_in_bounded_tiles_beyond(folder, monkeypatch):
    seen: list[tuple[int, ...]] = []
    translator = PublishedTranslator("cpu", folder)
    net = translator._net("translation")
    hook = net.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    rgb = np.random.default_rng(0).random((40, 200, 3), np.float32)
    translator.translate(rgb)
    assert seen == [(40, 200)]
    seen.clear()
    monkeypatch.setattr(published, "WHOLE", 40 * 200 - 1)
    monkeypatch.setattr(published, "TILE", 64)
    monkeypatch.setattr(published, "OVERLAP", 16)
    translator.translate(rgb)
    assert set(seen) == {(40, 64)}
    hook.remove()


# Tiles that fade into each other


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    tile=st.integers(20, 70),
    overlap=st.integers(1, 30),
    multiple=st.sampled_from([1, 4, 32]),
)
def test_what_needs_no_neighbours_is_the_same_in_fading_tiles(height, width, tile, overlap, multiple):
    rgb = np.random.default_rng(0).random((height, width, 3), np.float32)
    out = np.empty_like(rgb)
    largest = 0

    def network(picture: Tensor) -> Tensor:
        nonlocal largest
        assert picture.shape[2] % multiple == picture.shape[3] % multiple == 0
        largest = max(largest, *picture.shape[2:])
        return 1 - picture

    run_overlapping(network, (rgb,), out, multiple, CPU, tile, overlap)
    np.testing.assert_allclose(out, 1 - rgb, atol=1e-6)
    assert largest < max(tile, 2 * overlap) + multiple


def test_tiles_that_differ_show_no_border():
    """A network whose answer is the mean of its tile: the picture must turn from one into the other gradually."""
    rgb = np.zeros((64, 400, 3), np.float32)
    rgb[:, 200:] = 1
    out = np.empty_like(rgb)
    run_overlapping(lambda tile: tile.mean().expand_as(tile), (rgb,), out, 4, CPU, 100, 40)
    assert np.ptp(out) > 0.9
    assert np.abs(np.diff(out, axis=1)).max() <= 1 / 40 + 1e-6


# Detector


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((300, 300), (256, 256)),
        ((96, 144), (256, 384)),
        ((2000, 1500), (336, 256)),
        ((7, 40), (256, 1456)),
        ((9000, 1), (288000, 32)),
    ],
)
def test_the_detector_sees_a_short_side_of_256(shape, size):
    assert detector_size(*shape) == size


@pytest.mark.parametrize("shape", [(1, 1), (7, 40), (60, 33), (300, 200)])
def test_the_mask_has_the_size_of_the_photo(folder, shape):
    detector = PublishedDetector("cpu", folder)
    rgb = np.random.default_rng(0).random((*shape, 3), np.float32)
    mask = detector.detect(rgb)
    assert mask.shape == shape
    assert set(np.unique(mask)) <= {0.0, 1.0}
    np.testing.assert_array_equal(mask, detector.probability(rgb) >= published.THRESHOLD)


# Faces


@pytest.fixture(scope="module")
def crop(photo: Photo) -> FloatImage:
    (face,) = FaceFinder().find(photo("astronaut"))
    return crop_face(photo("astronaut"), face)


@pytest.mark.parametrize("large_scans", [False, True])
def test_the_face_network_sees_the_eyes_where_it_knows_them(folder, crop, large_scans):
    refiner = PublishedRefiner("cpu", folder, large_scans)
    dots = crop.copy()
    for x, y in np.round([CANONICAL[2:4].mean(0), CANONICAL[:2].mean(0)]).astype(int):
        dots[y - 2 : y + 3, x - 2 : x + 3] = (0, 1, 0)
    seen: list[Tensor] = []
    refiner.net.register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    refiner.refine(dots)
    red, green, blue = seen[0]
    ys, xs = torch.nonzero((green > 0.8) & (red + blue < 0.4), as_tuple=True)
    scale = seen[0].shape[1] / 256
    for x, y in scale * TEMPLATE[:2]:
        near = (xs - x).abs() + (ys - y).abs() < 12 * scale
        assert abs(float(xs[near].double().mean()) - x) < 1.5 * scale
        assert abs(float(ys[near].double().mean()) - y) < 1.5 * scale


@pytest.mark.parametrize("large_scans", [False, True])
def test_a_network_that_changes_nothing_changes_nothing(folder, crop, large_scans, monkeypatch):
    refiner = PublishedRefiner("cpu", folder, large_scans)
    monkeypatch.setattr(refiner.net, "forward", lambda face: face)
    np.testing.assert_allclose(refiner.refine(crop), crop, atol=1e-6)


@pytest.mark.parametrize("large_scans", [False, True])
def test_what_the_network_changes_comes_to_its_place(folder, crop, large_scans, monkeypatch):
    """Darkening all that the network sees darkens the middle of the crop alike, without a shift."""
    refiner = PublishedRefiner("cpu", folder, large_scans)
    monkeypatch.setattr(refiner.net, "forward", lambda face: 0.5 * face)
    middle = slice(64, 192)
    error = np.abs(refiner.refine(crop) - 0.5 * crop)[middle, middle]
    assert error.mean() < 0.004 and error.max() < 0.1
