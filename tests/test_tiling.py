"""Tiles: any size, bounded memory, and nothing of it to be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Bundled, Photo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import oldphoto.scratches
import oldphoto.translation
from oldphoto import checkpoints
from oldphoto.arrays import FloatImage
from oldphoto.nets.blocks import NormalisedBlock
from oldphoto.nets.tone import ToneNet
from oldphoto.nets.translation import TranslationNet
from oldphoto.nets.unet import ScratchUNet
from oldphoto.prefill import prefill
from oldphoto.scratches import ScratchDetector
from oldphoto.tiling import run_tiled
from oldphoto.training.ageing import Severity, age
from oldphoto.translation import Translator

CPU = torch.device("cpu")
WHOLE = 100_000
TOLERANCE = 2 / 255
STEADY = settings(max_examples=60, deadline=None, derandomize=True)
SIZE = st.integers(1, 200)


def noise(*shape: int) -> FloatImage:
    return np.random.default_rng(0).random(shape, np.float32)


def blots(height: int, width: int) -> FloatImage:
    """A mask of square blots over a twelfth of the picture."""
    coarse = np.random.default_rng(3).random((height // 8 + 1, width // 8 + 1)) < 0.08
    return np.kron(coarse, np.ones((8, 8)))[:height, :width].astype(np.float32)


def random_scratches() -> ScratchUNet:
    """Random weights, with blocks and logits as strong as those of a trained network."""
    torch.manual_seed(1)
    net = ScratchUNet()
    for block in net.modules():
        if isinstance(block, NormalisedBlock):
            nn.init.constant_(block.body[4].weight, 2)
    net.head[0].weight.data *= 10
    return net.eval()


def random_translation() -> TranslationNet:
    """Random weights, with strong residual blocks, and values in place of the zeros that the mapping starts from."""
    torch.manual_seed(1)
    net = TranslationNet()
    for name, parameter in net.named_parameters():
        if name.endswith(".scale"):
            nn.init.ones_(parameter)
    nn.init.normal_(net.mapping.leave.weight, std=0.02)
    return net.eval()


@pytest.fixture(params=["random", "bundled"])
def scratches(request: pytest.FixtureRequest, bundled: Bundled) -> ScratchUNet:
    if request.param == "random":
        return random_scratches()
    return checkpoints.load(ScratchUNet, "scratches", bundled("scratches")).eval()


@pytest.fixture(params=["random", "bundled"])
def translation(request: pytest.FixtureRequest, bundled: Bundled) -> TranslationNet:
    if request.param == "random":
        return random_translation()
    return checkpoints.load(TranslationNet, "translation", bundled("translation")).eval()


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    nets = {"scratches": random_scratches(), "translation": random_translation(), "tone": ToneNet()}
    for name, net in nets.items():
        checkpoints.save(name, net.state_dict(), {}, folder, {"run": 0})
    return folder


def tiled(
    network: Callable[..., Tensor],
    pictures: tuple[FloatImage, ...],
    channels: int,
    multiple: int,
    tile: int,
    margin: int,
) -> FloatImage:
    shape = pictures[0].shape[:2]
    out = np.full(shape if channels == 1 else (*shape, channels), np.nan, np.float32)
    run_tiled(network, pictures, out, multiple, CPU, tile, margin)
    return out


def assert_seamless(whole: FloatImage, pieces: FloatImage, tile: int) -> None:
    """Equal within 2/255 everywhere; and along the tile borders, on average, no step of even a quarter of 1/255."""
    difference = pieces - whole
    assert np.abs(difference).max() <= TOLERANCE
    for axis in (0, 1):
        steps = np.abs(np.diff(difference, axis=axis))
        at_borders = np.take(steps, range(tile - 1, whole.shape[axis] - 1, tile), axis)
        assert at_borders.mean() < 0.25 / 255


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_scratches_are_found_alike_in_tiles_and_in_the_whole(scratches: ScratchUNet, photo: Photo, name: str) -> None:
    def network(picture: Tensor, hint: Tensor) -> Tensor:
        return scratches(picture, hint).sigmoid()

    # A clean photo would do if the network saw damage in it, which it should not.
    picture = age(photo(name), np.random.default_rng(3), Severity(0, 0, 0.2, 1, 0)).photo
    pictures = (picture, 0.5 * blots(*picture.shape[:2]))
    whole = tiled(network, pictures, 1, scratches.multiple, WHOLE, 0)
    assert whole.std() > 0.02, "a network that says nothing would pass"
    assert_seamless(whole, tiled(network, pictures, 1, scratches.multiple, 256, oldphoto.scratches.MARGIN), 256)


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_tiles_are_translated_like_the_whole(translation: TranslationNet, photo: Photo, name: str) -> None:
    picture = photo(name)
    mask = blots(*picture.shape[:2])
    filled = prefill(picture, mask)
    pictures = (filled, mask, picture - filled)
    whole = tiled(translation, pictures, 3, translation.multiple, WHOLE, 0)
    assert np.abs(whole - pictures[0]).std() > 0.005, "a network that changes nothing would pass"
    assert_seamless(whole, tiled(translation, pictures, 3, translation.multiple, 256, oldphoto.translation.MARGIN), 256)


def test_all_scales_of_a_large_photo_are_seamless(random_weights: Path, photo: Photo) -> None:
    """Detector and translator as users call them, on a photo that goes through them at two scales."""
    picture = np.tile(photo("astronaut"), (2, 2, 1))[:768, :768]
    detectors = (ScratchDetector("cpu", random_weights, tile) for tile in (WHOLE, 384))
    whole, pieces = (detector.probability(picture) for detector in detectors)
    assert_seamless(whole, pieces, 384)
    mask = blots(768, 768)
    translators = (Translator("cpu", random_weights, tile) for tile in (WHOLE, 384))
    whole, pieces = (translator.translate(picture, mask) for translator in translators)
    assert_seamless(whole, pieces, 384)


def test_a_photo_of_which_the_detector_is_told_goes_through_in_one_piece(random_weights: Path, photo: Photo) -> None:
    """What is told of a piece of a photo is not what is told of the whole: not even small tiles cut it."""
    picture = np.tile(photo("astronaut"), (2, 3, 1))[:760, :1500]
    detectors = (ScratchDetector("cpu", random_weights, tile) for tile in (None, 64, WHOLE))
    usual, in_small_tiles, whole = (detector.probability(picture) for detector in detectors)
    np.testing.assert_array_equal(usual, whole)
    np.testing.assert_array_equal(in_small_tiles, whole)


@STEADY
@given(SIZE, SIZE, st.sampled_from([1, 3]), st.sampled_from([2, 8, 32, 64]), st.sampled_from([1, 32, 64, 100, 768]))
def test_a_picture_of_any_size_comes_back_pixel_by_pixel(
    height: int, width: int, channels: int, multiple: int, tile: int
) -> None:
    """Nothing is shifted, mirrored or left out; the network sees only sizes that it can work on."""
    picture = noise(height, width, 3)[..., :channels] if channels > 1 else noise(height, width)

    def network(piece: Tensor) -> Tensor:
        assert piece.shape[:2] == (1, channels)
        assert piece.shape[2] % multiple == 0
        assert piece.shape[3] % multiple == 0
        return piece

    np.testing.assert_array_equal(tiled(network, (picture,), channels, multiple, tile, 50), picture)


@STEADY
@given(SIZE, SIZE)
def test_beyond_its_border_a_picture_is_mirrored(height: int, width: int) -> None:
    seen = []

    def network(piece: Tensor) -> Tensor:
        seen.append(piece[0, 0].numpy())
        return piece

    picture = noise(height, width)
    tiled(network, (picture,), 1, 64, WHOLE, 64)
    mirrored = np.pad(picture, ((0, -height % 64), (0, -width % 64)), "symmetric")
    np.testing.assert_array_equal(seen[0], mirrored)


@settings(STEADY, max_examples=15)
@given(SIZE, SIZE, st.sampled_from([16, 48, 64, 112]))
def test_whatever_sees_no_further_than_the_margin_is_the_same_in_tiles(height: int, width: int, tile: int) -> None:
    """A blur that looks 12 px far, with two pictures of which one is a mask, and tiles with margins of 16 px."""

    def network(picture: Tensor, mask: Tensor) -> Tensor:
        return F.avg_pool2d(picture * mask, 25, 1, 12)

    pictures = (noise(height, width, 3), noise(height, width))
    pieces = tiled(network, pictures, 3, 16, tile, 16)
    np.testing.assert_allclose(pieces, tiled(network, pictures, 3, 16, WHOLE, 0), atol=1e-6)


@STEADY
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 300))
def test_a_tile_never_grows_with_the_picture(height: int, width: int, tile: int) -> None:
    """What bounds the memory: no piece is larger than a tile with its margins, however large the picture."""
    limit = -(-tile // 64) * 64 + 2 * 128
    seen = []

    def network(piece: Tensor) -> Tensor:
        seen.append(max(piece.shape[2:]))
        return piece

    tiled(network, (noise(height, width),), 1, 64, tile, 100)
    assert max(seen) <= limit


def test_a_small_photo_and_its_mirror_image_are_damaged_at_the_same_places(random_weights: Path, photo: Photo) -> None:
    picture = photo("astronaut")[:256, :320]
    detector = ScratchDetector("cpu", random_weights)
    seen, of_mirrored = detector.probability(picture), detector.probability(np.ascontiguousarray(picture[:, ::-1]))
    assert seen.std() > 1e-4, "a network that says the same everywhere would pass"
    np.testing.assert_allclose(of_mirrored[:, ::-1], seen, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (37, 3), (200, 131)])
def test_the_networks_take_the_smallest_and_thinnest_pictures(shape: tuple[int, int], random_weights: Path) -> None:
    picture = noise(*shape, 3)
    mask = ScratchDetector("cpu", random_weights).detect(picture)
    assert mask.shape == shape
    assert 0 <= mask.min() <= mask.max() <= 1
    restored = Translator("cpu", random_weights).translate(picture, mask)
    assert restored.shape == picture.shape
    assert np.isfinite(restored).all()


@pytest.mark.parametrize("shape", [(300, 200, 3), (100, 131, 3)])
def test_no_strength_is_no_change(shape: tuple[int, int, int], random_weights: Path) -> None:
    picture = noise(*shape)
    kept = picture.copy()
    restored = Translator("cpu", random_weights).translate(picture, blots(*shape[:2]), strength=0)
    np.testing.assert_array_equal(restored, kept)
    np.testing.assert_array_equal(picture, kept)
