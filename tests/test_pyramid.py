"""Halving, doubling and filling of holes, for pictures of any size."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from oldphoto import pyramid
from oldphoto.arrays import FloatImage
from oldphoto.prefill import prefill
from oldphoto.pyramid import depth, doubled, halve, strips

STEADY = settings(max_examples=40, deadline=None, derandomize=True)
SIZE = st.integers(1, 600)
LEVEL = st.floats(0, 1, width=32)
STRIP = st.sampled_from([2, 4, 30, 256])


def noise(*shape: int, seed: int = 0) -> FloatImage:
    return np.random.default_rng(seed).random(shape, np.float32)


def smooth(height: int, width: int) -> FloatImage:
    """A picture without detail: slopes and slow waves, another one in each channel."""
    ys, xs = np.mgrid[:height, :width] / max(height, width)
    waves = [0.2 + 0.6 * xs, 0.5 + 0.3 * np.sin(3 * ys + 2 * xs), 0.8 - 0.5 * xs * ys]
    return np.stack(waves, 2).astype(np.float32)


def holes(height: int, width: int, seed: int = 0) -> FloatImage:
    """Scattered pixels, a scratch and a blot."""
    mask = (noise(height, width, seed=seed + 1) < 0.05).astype(np.float32)
    cv2.line(mask, (0, height // 3), (width, height // 2), 1.0, 3)
    cv2.circle(mask, (width // 2, 2 * height // 3), min(height, width) // 8, 1.0, -1)
    return mask


def twice(coarse: FloatImage, shape: tuple[int, ...]) -> FloatImage:
    """``doubled``, put together."""
    out = np.full(shape, np.nan, np.float32)
    for rows, strip in doubled(coarse, shape):
        out[rows] = strip
    return out


def in_strips(height: int, work: Callable[[], FloatImage]) -> FloatImage:
    """What ``work`` gives when pictures are gone through in strips of ``height`` rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "_STRIP", height)
        return work()


@STEADY
@given(SIZE, SIZE, LEVEL)
def test_a_constant_picture_stays_constant_when_halved_and_doubled(height: int, width: int, level: float) -> None:
    picture = np.full((height, width, 3), level, np.float32)
    half = halve(picture)
    assert half.shape == ((height + 1) // 2, (width + 1) // 2, 3)
    np.testing.assert_allclose(half, level, atol=1e-6)
    np.testing.assert_allclose(twice(half, picture.shape), level, atol=1e-6)


@STEADY
@given(SIZE, SIZE, STRIP)
def test_halving_takes_means_of_four_in_whatever_strips(height: int, width: int, strip: int) -> None:
    picture, weight = noise(height, width, 3), noise(height, width, seed=1)
    padded = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    means = padded.reshape(len(padded) // 2, 2, -1, 2, 3).mean((1, 3))
    np.testing.assert_allclose(in_strips(strip, lambda: halve(picture)), means, atol=1e-6)
    np.testing.assert_array_equal(in_strips(strip, lambda: halve(picture, weight)), halve(picture * weight[..., None]))


@STEADY
@given(SIZE, SIZE, STRIP)
def test_doubling_is_bilinear_in_whatever_strips(height: int, width: int, strip: int) -> None:
    coarse = noise((height + 1) // 2, (width + 1) // 2, 3)
    tensor = torch.from_numpy(coarse).permute(2, 0, 1)[None]
    expected = F.interpolate(tensor, scale_factor=2, mode="bilinear")[0].permute(1, 2, 0).numpy()
    result = in_strips(strip, lambda: twice(coarse, (height, width, 3)))
    np.testing.assert_allclose(result, expected[:height, :width], atol=1e-6)


@STEADY
@given(SIZE, STRIP)
def test_strips_cover_every_row_once_and_begin_at_even_rows(height: int, strip: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "_STRIP", strip)
        slices = list(strips(height))
    rows = [row for rows in slices for row in range(rows.start, rows.stop)]
    assert rows == list(range(height))
    assert all(rows.start % 2 == 0 for rows in slices)


@STEADY
@given(st.integers(1, 30000), st.integers(1, 30000), st.integers(16, 512))
def test_depth_brings_the_short_side_between_base_and_twice_base(height: int, width: int, base: int) -> None:
    short = min(height, width)
    levels = depth((height, width, 3), base)
    assert short // 2**levels < 2 * base
    assert levels == 0 or short // 2**levels >= base


@STEADY
@given(SIZE, SIZE)
def test_prefill_changes_holes_only_and_not_its_arguments(height: int, width: int) -> None:
    picture, mask = noise(height, width, 3), holes(height, width)
    kept_picture, kept_mask = picture.copy(), mask.copy()
    filled = prefill(picture, mask)
    np.testing.assert_allclose(filled[mask == 0], picture[mask == 0], atol=1e-6)
    np.testing.assert_array_equal(picture, kept_picture)
    np.testing.assert_array_equal(mask, kept_mask)
    assert not np.shares_memory(filled, picture)


def test_prefill_leaves_intact_pixels_exactly_as_they_were() -> None:
    picture, mask = noise(300, 400, 3), holes(300, 400)
    np.testing.assert_array_equal(prefill(picture, mask)[mask == 0], picture[mask == 0])


@STEADY
@given(SIZE, SIZE, STRIP)
def test_prefill_is_the_same_in_whatever_strips(height: int, width: int, strip: int) -> None:
    picture, mask = noise(height, width, 3), holes(height, width)
    whole = in_strips(10_000, lambda: prefill(picture, mask))
    np.testing.assert_allclose(in_strips(strip, lambda: prefill(picture, mask)), whole, atol=1e-6)


@STEADY
@given(SIZE, SIZE, LEVEL)
def test_holes_in_a_constant_picture_vanish(height: int, width: int, level: float) -> None:
    mask = holes(height, width)
    mask.flat[0] = 0
    picture = np.full((height, width, 3), level, np.float32)
    np.testing.assert_allclose(prefill(picture + mask[..., None], mask), level, atol=1e-4)


@pytest.mark.parametrize("shape", [(200, 300), (301, 157), (64, 600)])
def test_a_hole_in_a_smooth_picture_is_filled_to_within_a_small_error(shape: tuple[int, int]) -> None:
    picture, mask = smooth(*shape), holes(*shape)
    damaged = np.where(mask[..., None] > 0, 1.0, picture).astype(np.float32)
    error = np.abs(prefill(damaged, mask) - picture)
    assert error.max() < 0.08
    assert error[mask > 0].mean() < 0.012


def test_what_lies_under_a_hole_does_not_matter() -> None:
    picture, mask = noise(200, 300, 3), holes(200, 300)
    white, black = (np.where(mask[..., None] > 0, level, picture).astype(np.float32) for level in (1, 0))
    np.testing.assert_array_equal(prefill(white, mask), prefill(black, mask))


def test_what_is_filled_in_stays_within_what_is_known() -> None:
    picture, mask = noise(200, 300, 3), holes(200, 300)
    known = picture[mask == 0]
    filled = prefill(picture, mask)[mask > 0]
    assert (filled >= known.min(0) - 1e-5).all()
    assert (filled <= known.max(0) + 1e-5).all()


def test_a_large_picture_is_filled_from_one_known_pixel() -> None:
    picture, mask = noise(300, 500, 3), np.ones((300, 500), np.float32)
    mask[120, 40] = 0
    np.testing.assert_allclose(prefill(picture, mask), np.broadcast_to(picture[120, 40], picture.shape), atol=1e-4)


@STEADY
@given(SIZE, SIZE, st.sampled_from([0.0, 1.0]))
def test_a_picture_without_holes_or_all_hole_comes_back_as_it_is(height: int, width: int, level: float) -> None:
    picture = noise(height, width, 3)
    filled = prefill(picture, np.full((height, width), level, np.float32))
    np.testing.assert_array_equal(filled, picture)
    assert not np.shares_memory(filled, picture)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_partly_masked_pixels_are_mixed_of_old_and_filled_in(share: float) -> None:
    picture, mask = smooth(100, 100), np.zeros((100, 100), np.float32)
    mask[40:60, 40:60] = 1
    blemished = picture + 0.2 * mask[..., None]
    whole, part, none = (np.abs(prefill(blemished, s * mask) - picture)[mask > 0].mean() for s in (1, share, 0))
    assert whole < 0.9 * part
    assert part < 0.9 * none


def test_a_mask_with_a_dark_gray_ground_is_filled_all_the_same() -> None:
    """A mask drawn or saved as JPEG is nowhere quite black; that must not switch the filling off."""
    picture, mask = smooth(100, 100), np.full((100, 100), 0.01, np.float32)
    mask[40:60, 40:60] = 1
    damaged = np.where(mask[..., None] == 1, 1.0, picture).astype(np.float32)
    assert np.abs(prefill(damaged, mask) - picture).max() < 0.08
