"""Synthetic ageing: what holds for every photo, every seed and every severity."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from conftest import Photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage import data

from oldphoto.arrays import black_and_white
from oldphoto.training import decoys
from oldphoto.training.ageing import Aged, Severity, age, jpeg
from oldphoto.training.damage import Kind, Layer, Repertoire, damage, fold
from oldphoto.training.datasets import scratch_examples
from oldphoto.training.styles import STYLES, VARIED, confined, missing, styled
from oldphoto.work import age_by_name

NOTHING = Severity(0, 0, 0, 0, 0)
EIGHT_BITS = 0.5 / 255 + 1e-6  # what a scan of 8 bits may round away


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return data.astronaut()[:160, 120:320].astype(np.float32) / 255


def aged(clean: np.ndarray, seed: int, severity: Severity | None = None, **options) -> Aged:
    return age(clean, np.random.default_rng(seed), severity, **options)


def same(one: Aged, other: Aged) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("photo", "mask", "toned"))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(16, 200),
    width=st.integers(16, 200),
    seed=st.integers(0, 2**32),
    scale=st.floats(0.04, 3),
)
def test_any_picture_ages_within_its_shape_and_range(height, width, seed, scale):
    rng = np.random.default_rng(seed)
    picture = rng.random((height, width, 3), dtype=np.float32)
    before = picture.copy()
    result = age(picture, rng, scale=scale, textures=[np.eye(9, dtype=np.uint8) * 255])
    assert np.array_equal(picture, before)
    for image in (result.photo, result.toned):
        assert (image.shape, image.dtype) == (picture.shape, np.float32)
        assert image.min() >= 0 and image.max() <= 1
    assert (result.mask.shape, result.mask.dtype) == ((height, width), np.float32)
    assert set(np.unique(result.mask)) <= {0, 1}


@pytest.mark.parametrize("seed", range(6))
def test_the_same_seed_ages_the_same(clean, seed):
    assert same(aged(clean, seed), aged(clean, seed))
    assert not same(aged(clean, seed), aged(clean, seed + 100))


@pytest.mark.parametrize("seed", range(6))
def test_no_severity_no_change(clean, seed):
    result = aged(clean, seed, NOTHING)
    assert np.abs(result.photo - clean).max() <= EIGHT_BITS
    assert np.abs(result.toned - clean).max() <= 1e-6
    assert not result.mask.any()


@pytest.mark.parametrize("seed", range(10))
def test_without_damage_nothing_is_marked(clean, seed):
    assert not aged(clean, seed, Severity(1, 1, 1, 0, 1)).mask.any()


@pytest.mark.parametrize("seed", range(20))
def test_the_mask_is_where_damage_alone_changes_a_photo(clean, seed):
    result = aged(clean, seed, replace(NOTHING, damage=0.7))
    change = np.abs(result.photo - clean).max(2)
    marked = result.mask > 0
    assert marked.any()
    # A later defect may by chance bring a few pixels back to what they were.
    assert (change[marked] > EIGHT_BITS).mean() > 0.98
    assert change[marked].mean() > 2 * change[~marked].mean()


def test_the_mask_covers_what_differs_most(clean):
    covered = []
    for seed in range(30):
        result = aged(clean, seed, replace(NOTHING, damage=0.5))
        change = np.abs(result.photo - clean).max(2)
        covered.append(result.mask[change > 0.3].mean() if (change > 0.3).any() else 1.0)
    assert np.mean(covered) > 0.9


def every_kind() -> list[Kind]:
    return list(dict.fromkeys(kind for kind, _ in VARIED.kinds))


@pytest.mark.parametrize("kind", every_kind())
def test_every_kind_of_damage_is_seen_and_stays_in_range(clean, kind):
    changed = 0  # not always: a tear may miss the picture
    for seed in range(8):
        layer = kind(clean, np.random.default_rng(seed), 1.0)
        colour = np.broadcast_to(layer.colour, clean.shape)
        assert layer.opacity.shape == clean.shape[:2]
        assert min(layer.opacity.min(), colour.min()) >= 0 and max(layer.opacity.max(), colour.max()) <= 1
        covered = clean + layer.opacity[..., None] * (colour - clean)
        changed += np.abs(covered - clean).max() > 0.1
    assert changed >= 4


@pytest.mark.parametrize("style", [style for style, _ in STYLES])
@pytest.mark.parametrize("kind", [kind for kind in every_kind() if kind is not fold])
def test_every_style_changes_how_damage_looks_and_stays_in_range(clean, kind, style):
    changed = 0  # not always: a tear may miss the picture, wear the cracks
    for seed in range(6):
        rng = np.random.default_rng(seed)
        plain = kind(clean, rng, 1.0)
        layer = style(plain, clean, rng, 1.0)
        colour = np.broadcast_to(layer.colour, clean.shape)
        assert layer.opacity.shape == clean.shape[:2]
        assert min(layer.opacity.min(), colour.min()) >= -1e-6
        assert max(layer.opacity.max(), colour.max()) <= 1 + 1e-6
        changed += not np.array_equal(layer.opacity, plain.opacity) or not np.array_equal(layer.colour, plain.colour)
    assert changed >= 3


def test_varied_damage_is_marked_where_it_hides_the_photo(clean):
    for seed in range(40):
        damaged, mask = damage(clean, np.random.default_rng(seed), 3, repertoire=VARIED)
        change = np.abs(damaged - clean).max(2)
        assert mask[change > 0.4].mean() > 0.9 if (change > 0.4).any() else True
        assert not mask[change == 0].any() or mask[change == 0].mean() < 0.02


def test_a_fold_keeps_its_light_and_shadow_in_every_style(clean):
    for seed in range(20):
        layer = fold(clean, np.random.default_rng(seed), 1.0)
        assert styled(layer, clean, np.random.default_rng(seed), 1.0) is layer


def test_the_soft_shadow_of_a_fold_hides_nothing_however_soft_it_is_drawn(clean):
    only_folds = Repertoire(((fold, 1.0),))
    for seed in range(30):
        damaged, mask = damage(clean, np.random.default_rng(seed), 1, repertoire=only_folds)
        change = np.abs(damaged - clean).max(2)
        assert not mask[change < 0.079].any()
        assert mask[change > 0.081].all()


def test_damage_of_a_texture_lies_where_the_texture_is(clean):
    texture = np.zeros((400, 400), np.uint8)
    texture[::40] = 255
    _, nothing = damage(clean, np.random.default_rng(1), 0)
    assert not nothing.any()
    seen = [damage(clean, np.random.default_rng(seed), 2, 1, [texture])[1].mean() for seed in range(8)]
    assert 0 < np.mean(seen) < 0.4


def test_more_severity_takes_more_away(clean):
    def error(severity: float) -> float:
        wear = Severity(severity, severity, severity, severity, severity)
        return float(np.mean([np.square(aged(clean, seed, wear).photo - clean).mean() for seed in range(12)]))

    assert error(0.1) < error(0.5) < error(1)


def test_a_larger_scan_ages_like_a_small_one(clean):
    large = np.repeat(np.repeat(clean, 3, 0), 3, 1)
    fine, coarse = ([], [])
    for seed in range(12):
        wear = replace(NOTHING, damage=0.5)
        fine.append(aged(large, seed, wear, scale=1.2).mask.mean())
        coarse.append(aged(clean, seed, wear, scale=0.4).mask.mean())
    assert 0.5 < np.mean(fine) / np.mean(coarse) < 2


def test_ageing_by_name_depends_on_name_and_seed_alone(clean):
    first = age_by_name(clean, "sub/a.jpg", 3)
    age_by_name(clean, "sub/b.jpg", 3)
    assert same(first, age_by_name(clean, "sub/a.jpg", 3))
    assert not same(first, age_by_name(clean, "sub/b.jpg", 3))
    assert not same(first, age_by_name(clean, "sub/a.jpg", 4))
    assert same(age_by_name(clean, "\u00e9.jpg"), age_by_name(clean, "e\u0301.jpg"))  # as Linux and macOS name a file
    assert age_by_name(clean, "\udcff.jpg").photo.shape == clean.shape  # a name that is not UTF-8
    assert np.abs(age_by_name(clean, "a.jpg", severity=0).photo - clean).max() <= EIGHT_BITS


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (5, 2)])
def test_even_a_strip_ages(shape):
    result = age_by_name(np.full((*shape, 3), 0.5, np.float32), "strip.png", severity=1)
    assert result.photo.shape == (*shape, 3)
    assert np.isfinite(result.photo).all()


def test_decoys_in_a_black_and_white_picture_have_no_colour(photo: Photo) -> None:
    gray = black_and_white(photo("rocket")[:128, :128])
    for seed in range(20):
        picture = decoys.paste_decoys(gray, np.random.default_rng(seed))
        assert np.ptp(picture, axis=2).max() < 1e-6
        assert not np.array_equal(picture, gray)


@pytest.mark.parametrize("kind", [kind for kind, _ in decoys.KINDS])
def test_a_decoy_belongs_to_the_picture(kind: decoys.Kind, photo: Photo) -> None:
    """It changes part of a picture, in range, by chance alone, and leaves the rest as it was."""
    clean = photo("coffee")[:200, :300]
    pasted = [kind(clean, np.random.default_rng(seed), 1.0) for seed in (4, 4, 5)]
    np.testing.assert_array_equal(pasted[0], pasted[1])
    assert np.abs(pasted[0] - pasted[2]).max() > 0.05
    for picture in pasted:
        assert picture.shape == clean.shape
        assert picture.dtype == np.float32
        assert picture.min() >= 0
        assert picture.max() <= 1
        untouched = np.abs(picture - clean).max(2) == 0
        assert untouched.mean() < 1
        assert kind in (decoys.masonry, decoys.pebbles) or untouched.mean() > 0.1


def test_a_surface_covers_the_picture(photo: Photo) -> None:
    pictures = [photo(name)[:90, :120] for name in ("coffee", "rocket")]
    for seed in range(12):
        on_one, on_other = (decoys.surface(picture, np.random.default_rng(seed), 1.0) for picture in pictures)
        np.testing.assert_allclose(on_one, on_other, atol=1e-6)
        assert on_one.shape == (90, 120, 3)
        assert on_one.std() > 0.005


def test_what_is_missing_of_a_photo_lies_at_its_border(clean):
    hidden = []
    for seed in range(40):
        gone = missing(clean, np.random.default_rng(seed), 1.0).opacity
        pieces, _ = ndimage.label(gone > 0.3)
        rim = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
        assert set(range(1, pieces.max() + 1)) <= set(rim.tolist())
        hidden.append((gone > 0.3).mean())
    assert min(hidden) > 0.005
    assert max(hidden) < 0.35
    assert 0.02 < np.mean(hidden) < 0.1


def test_confined_damage_leaves_the_rest_of_the_photo_alone(clean):
    everywhere = Layer(np.ones(clean.shape[:2], np.float32), np.zeros(3, np.float32))
    for seed in range(20):
        opacity = confined(everywhere, clean, np.random.default_rng(seed), 1.0).opacity
        assert 0.01 < (opacity > 0).mean() < 0.9


def test_decoys_are_no_damage(photo: Photo) -> None:
    """What a detector is shown as undamaged may hold wires; only damage laid over them is marked."""
    picture = (photo("coffee") * 255).astype(np.uint8)
    make = scratch_examples([picture], [], 96)
    rng = np.random.default_rng(0)
    undamaged = [example for example in (make(rng) for _ in range(40)) if not example["mask"].any()]
    assert 5 < len(undamaged) < 25


def test_a_detector_is_shown_sharp_and_reduced_defects_alike(photo: Photo) -> None:
    picture = (photo("coffee") * 255).astype(np.uint8)
    make = scratch_examples([picture], [], 96)
    rng = np.random.default_rng(0)
    examples = [make(rng) for _ in range(40)]
    assert all(example["photo"].shape == (96, 96, 3) for example in examples)
    assert all(np.isin(example["mask"], (0, 1)).all() for example in examples)
    assert sum(example["mask"].any() for example in examples) > 15


def test_a_colour_picture_saved_as_jpeg_is_what_other_software_makes_of_it() -> None:
    picture = data.astronaut()[100:260, 100:260]
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=40)
    theirs = np.asarray(Image.open(stream), np.float32) / 255
    ours = jpeg(picture.astype(np.float32) / 255, 40)
    assert np.abs(ours - theirs).mean() < 0.002
