"""Noise: its type and level told from a single photo, and taken out by what fits."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest
from conftest import Bundled, Photo

from oldphoto.arrays import FloatImage
from oldphoto.classical.denoising import denoise
from oldphoto.classical.learned import Denoiser
from oldphoto.classical.noise import add_noise, estimate_noise, noise_sigma
from oldphoto.errors import PhotoError, UsageError
from oldphoto.evaluation import psnr

KINDS = {"none": 0.0, "gaussian": 0.06, "poisson": 40.0, "salt-and-pepper": 0.06, "speckle": 0.2}
PHOTOS = ("camera", "coffee", "astronaut", "chelsea")


def crop(photo: Photo, name: str, side: int = 256) -> FloatImage:
    return np.ascontiguousarray(photo(name)[20 : 20 + side, 30 : 30 + side])


def stored(rgb: FloatImage) -> FloatImage:
    """What an 8-bit file keeps."""
    return (np.round(rgb * 255) / 255).astype(np.float32)


def noisy(photo: Photo, name: str, kind: str, level: float, seed: int = 0) -> FloatImage:
    return stored(add_noise(crop(photo, name), kind, level, np.random.default_rng(seed)))


@pytest.fixture(scope="module")
def denoiser(bundled: Bundled) -> Denoiser:
    bundled("denoiser")
    return Denoiser("cpu")


def test_the_type_is_named_for_nine_photos_in_ten(photo: Photo) -> None:
    right = [
        estimate_noise(noisy(photo, name, kind, level)).type == kind
        for name in (*PHOTOS, "rocket", "coins")
        for kind, level in KINDS.items()
    ]
    assert np.mean(right) >= 0.9


@pytest.mark.parametrize(("kind", "level"), [(k, v) for k, v in KINDS.items() if v] + [("grain", 0.06)])
def test_the_level_is_near_the_true_one(kind: str, level: float, photo: Photo) -> None:
    estimates = [estimate_noise(noisy(photo, name, kind, level)) for name in PHOTOS]
    found = [estimate.level for estimate in estimates if estimate.type == kind]
    assert len(found) >= 3
    assert np.median(found) == pytest.approx(level, rel=0.35)
    assert all(0 < estimate.confidence <= 1 for estimate in estimates)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_border_that_a_program_filled_does_not_hide_the_noise(share: float, photo: Photo) -> None:
    picture = noisy(photo, "astronaut", "gaussian", 0.05)
    width = round((1 / np.sqrt(1 - share) - 1) / 2 * len(picture))
    for value in (128, 240):
        edged = np.pad(picture, ((width, width), (width, width), (0, 0)), constant_values=value / 255)
        assert noise_sigma(edged) == pytest.approx(noise_sigma(picture), rel=0.1)
        assert estimate_noise(edged).type == "gaussian"


def test_what_has_no_level_is_no_noise() -> None:
    stripes = np.zeros((200, 200, 3), np.float32)
    stripes[::16] = 0.6
    noise = estimate_noise(stripes)
    assert noise.level > 0 or noise.type == "none"


def test_the_level_of_speckle_is_measured_where_much_is_black_or_white(photo: Photo) -> None:
    picture = np.asarray(cv2.resize(photo("retina"), (384, 384), interpolation=cv2.INTER_AREA))
    found = estimate_noise(stored(add_noise(picture, "speckle", 0.2, np.random.default_rng(0))))
    assert found.type == "speckle"
    assert found.level == pytest.approx(0.2, rel=0.15)


def test_compression_is_told_from_grain(photo: Photo) -> None:
    for name in ("camera", "astronaut"):
        assert estimate_noise(noisy(photo, name, "jpeg", 15)).type == "jpeg"


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.1])
def test_the_level_of_white_noise_is_measured_within_a_fifth(sigma: float, photo: Photo) -> None:
    for name in ("camera", "coffee"):
        assert noise_sigma(noisy(photo, name, "gaussian", sigma)) == pytest.approx(sigma, rel=0.2, abs=0.003)


def test_a_large_photo_is_measured_by_samples(photo: Photo) -> None:
    large = np.tile(photo("coffee"), (3, 3, 1))
    found = estimate_noise(stored(add_noise(large, "gaussian", 0.05, np.random.default_rng(1))))
    assert found.type == "gaussian"
    assert found.level == pytest.approx(0.05, rel=0.2)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3)])
def test_a_picture_too_small_to_measure_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PhotoError, match="too small"):
        estimate_noise(np.random.default_rng(0).random(shape, np.float32))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_picture_of_one_value_is_refused(value: float) -> None:
    with pytest.raises(PhotoError, match="one value"):
        estimate_noise(np.full((64, 64, 3), value, np.float32))


def test_the_fitting_technique_beats_each_single_one(denoiser: Denoiser, photo: Photo) -> None:
    methods = ("auto", "median", "adaptive-median", "tv", "tv-poisson", "nlm")
    scores: dict[str, list[float]] = {method: [] for method in methods}
    for name in ("camera", "coffee"):
        clean = crop(photo, name, 192)
        for kind, level in KINDS.items():
            picture = stored(add_noise(clean, kind, level, np.random.default_rng(2)))
            for method in methods:
                scores[method].append(min(psnr(denoise(picture, method, denoiser).rgb, clean), 50))
    means = {method: np.mean(values) for method, values in scores.items()}
    assert means["auto"] > max(mean for method, mean in means.items() if method != "auto")


def test_a_photo_without_noise_stays_as_it_is(denoiser: Denoiser, photo: Photo) -> None:
    for name in ("camera", "coffee"):
        clean = stored(crop(photo, name))
        assert np.array_equal(denoise(clean, "auto", denoiser).rgb, clean)


def test_black_and_white_come_back_where_the_file_cut_the_noise_off(denoiser: Denoiser, photo: Photo) -> None:
    middle = photo("camera").mean()
    clean = stored(np.clip(0.5 + 2.5 * (crop(photo, "camera") - middle), 0, 1).astype(np.float32))
    black, white = clean <= 0.01, clean >= 0.99
    assert min(black.mean(), white.mean()) > 0.05
    cut = stored(add_noise(clean, "gaussian", 0.06, np.random.default_rng(0)))
    result = denoise(cut, "auto", denoiser).rgb
    assert cut[black].mean() > 0.02
    assert result[black].mean() < 0.006
    assert result[white].mean() > 0.994
    faded = stored(0.2 + 0.6 * cut)
    kept = denoise(faded, "auto", denoiser).rgb
    assert kept.mean() == pytest.approx(faded.mean(), abs=0.002)


def test_the_pixels_between_impulses_stay_as_they_are(denoiser: Denoiser, photo: Photo) -> None:
    clean = stored(crop(photo, "camera"))
    picture = noisy(photo, "camera", "salt-and-pepper", 0.06)
    result = denoise(picture, "auto", denoiser).rgb
    intact = picture == clean
    assert (np.abs(result[intact] - clean[intact]) < 1e-6).mean() > 0.99
    assert psnr(result, clean) > psnr(picture, clean) + 12


@pytest.mark.parametrize("method", ["auto", "median", "adaptive-median", "tv", "tv-poisson", "nlm", "learned"])
def test_any_size_comes_back_with_that_size_and_gray_stays_gray(method: str, denoiser: Denoiser, photo: Photo) -> None:
    for shape in ((1, 1), (2, 7), (33, 50)):
        picture = stored(photo("camera")[200 : 200 + shape[0], 100 : 100 + shape[1]])
        before = picture.copy()
        result = denoise(picture, method, denoiser).rgb
        assert result.shape == picture.shape
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1
        assert np.ptp(result, 2).max() == 0
        assert np.array_equal(picture, before)


def test_tiles_are_not_visible(bundled: Bundled, photo: Photo) -> None:
    bundled("denoiser")
    picture = noisy(photo, "coffee", "gaussian", 0.08)
    whole, tiled = (Denoiser("cpu", tile=tile).denoise(picture, 0.08) for tile in (512, 64))
    assert np.abs(whole - tiled).max() < 2 / 255


def test_a_method_that_is_not_there_is_refused() -> None:
    picture = np.random.default_rng(0).random((32, 32, 3), np.float32)
    with pytest.raises(UsageError, match="not a method of denoising"):
        denoise(picture, "magic")
    if importlib.util.find_spec("bm3d") is None:
        with pytest.raises(UsageError, match="pip install bm3d"):
            denoise(picture, "bm3d")
