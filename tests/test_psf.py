"""Point-spread functions: their shapes, their texts, and what they do to a photo."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.fft
from conftest import Photo
from hypothesis import given, settings
from hypothesis import strategies as st

from oldphoto.arrays import FloatImage
from oldphoto.classical import psf
from oldphoto.classical.psf import PointSpread, defocus, gaussian, motion, parse
from oldphoto.errors import PhotoError, UsageError

ANY = st.one_of(
    st.builds(motion, st.floats(1, 60), st.floats(-360, 360)),
    st.builds(defocus, st.floats(0.5, 30)),
    st.builds(gaussian, st.floats(0.1, 12)),
)


def moments(kernel: FloatImage) -> np.ndarray:
    """The 2 × 2 covariance of a kernel about its middle, x to the right and y up, px²."""
    height, width = kernel.shape
    y, x = np.mgrid[height // 2 : -(height // 2) - 1 : -1, -(width // 2) : width // 2 + 1]
    return np.array([[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)])


@settings(max_examples=60, deadline=None)
@given(ANY)
def test_every_kernel_is_a_distribution_about_its_middle(spread: PointSpread) -> None:
    kernel = spread.kernel
    assert kernel.dtype == np.float32
    assert all(side % 2 for side in kernel.shape)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-3)
    assert parse(spread.text).kernel.shape == pytest.approx(kernel.shape, abs=2)  # the text rounds


@settings(max_examples=40, deadline=None)
@given(length=st.floats(6, 50), angle=st.floats(0, 179.9))
def test_motion_has_the_length_and_the_angle_asked_for(length: float, angle: float) -> None:
    values, axes = np.linalg.eigh(moments(motion(length, angle).kernel))
    along = axes[:, 1]
    found = np.degrees(np.arctan2(along[1], along[0])) % 180
    assert abs((found - angle + 90) % 180 - 90) < 1
    assert np.sqrt(12 * (values[1] - 1 / 12)) == pytest.approx(length, abs=0.3)


def test_horizontal_motion_over_whole_pixels_is_a_plain_mean() -> None:
    np.testing.assert_allclose(motion(7, 0).kernel, np.full((1, 7), 1 / 7), atol=1e-6)
    np.testing.assert_allclose(motion(7, 90).kernel, np.full((7, 1), 1 / 7), atol=1e-6)


@pytest.mark.parametrize("radius", [1.5, 4.0, 9.7])
def test_a_disc_has_its_radius(radius: float) -> None:
    assert np.trace(moments(defocus(radius).kernel)) == pytest.approx(radius**2 / 2, rel=0.1)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 6.0])
def test_a_gaussian_has_its_deviation(sigma: float) -> None:
    np.testing.assert_allclose(moments(gaussian(sigma).kernel), (sigma**2 + 1 / 12) * np.eye(2), rtol=0.03, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    ["", "motion", "motion:15", "motion:15,", "motion:a,b", "motion:0,30", "motion:1e9,3", "motion:15,30,2",
     "motion:nan,3", "motion:-5,30", "defocus:", "defocus:0", "defocus:-1", "defocus:4px", "gaussian:0", "gaussian:inf",
     "box:3", "missing.png"],
)  # fmt: skip
def test_a_wrong_text_is_refused_with_the_right_ones(text: str) -> None:
    with pytest.raises(UsageError, match=r"motion:|px"):
        parse(text)


def test_a_point_spread_function_is_read_from_an_image(tmp_path: Path) -> None:
    drawn = np.zeros((9, 13), np.uint8)
    drawn[4, 3:10] = 200
    assert cv2.imwrite(str(tmp_path / "spread.png"), drawn)
    kernel = parse(str(tmp_path / "spread.png")).kernel
    assert kernel.shape == (9, 13)
    np.testing.assert_allclose(kernel[4, 3:10], 1 / 7, atol=1e-5)
    assert cv2.imwrite(str(tmp_path / "even.png"), drawn[:8, :12])
    even = parse(str(tmp_path / "even.png")).kernel
    assert even.shape == (9, 13)
    assert even.sum() == pytest.approx(1, abs=1e-5)


def test_an_image_that_is_no_point_spread_function_is_refused(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "black.png"), np.zeros((5, 5), np.uint8))
    (tmp_path / "text.png").write_text("not a picture")
    for name, why in (("black.png", "black"), ("text.png", "text.png")):
        with pytest.raises(UsageError, match=why):
            parse(str(tmp_path / name))


def test_blurring_is_multiplication_by_the_transfer_function(photo: Photo) -> None:
    picture = np.ascontiguousarray(photo("camera")[:128, :160, 0])
    for spread in (motion(9, 37), defocus(3.3), gaussian(1.7)):
        spectrum = scipy.fft.rfft2(picture) * psf.transfer(spread, (128, 160))
        periodic = scipy.fft.irfft2(spectrum, s=picture.shape)
        inner = (slice(12, -12), slice(12, -12))
        np.testing.assert_allclose(periodic[inner], psf.blur(picture, spread)[inner], atol=1e-4)


def test_a_kernel_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(PhotoError, match="larger than the photo"):
        psf.transfer(motion(31, 0), (64, 16))
