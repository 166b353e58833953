"""What is done for speed changes no picture, and starting loads nothing that is not needed."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import Photo
from torch import Tensor, nn

from oldphoto import tiling
from oldphoto.nets import inference, mapping, translation, unet
from oldphoto.nets.denoiser import DenoiserNet
from oldphoto.nets.inference import rearranged
from oldphoto.nets.translation import TranslationNet
from oldphoto.nets.unet import ScratchUNet
from oldphoto.nets.windows import Window
from oldphoto.scratches import ScratchDetector
from oldphoto.training.ageing import Severity, age
from oldphoto.translation import Translator
from oldphoto.work import DAMAGED

TOLERANCE = 0.1 / 255


def lively(kind: type[nn.Module]) -> nn.Module:
    """A network none of whose parameters and statistics is what it is before training."""
    torch.manual_seed(2)
    net = kind().eval()
    for name, tensor in net.state_dict().items():
        if name.endswith(("scale", "running_var")):
            tensor.uniform_(0.3, 0.7)
        elif name.endswith(("bias", "running_mean")):
            tensor.uniform_(-0.1, 0.1)
        elif tensor.ndim == 4 and not tensor.any():
            tensor.normal_(std=0.02)
    return net


def inputs(kind: type[nn.Module], height: int, width: int) -> list[Tensor]:
    channels = {ScratchUNet: (3, 1), TranslationNet: (3, 1, 3), DenoiserNet: (3, 3)}[kind]
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(1, count, height, width, generator=generator) for count in channels]


@pytest.mark.parametrize("kind", [ScratchUNet, TranslationNet, DenoiserNet])
@pytest.mark.parametrize("fusing", [True, False])
@torch.inference_mode()
def test_a_network_rearranged_for_inference_gives_the_same_picture(
    kind: type[nn.Module], fusing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "FUSING", fusing and inference.FUSING)
    net = lively(kind)
    pictures = inputs(kind, 192, 128)
    plain = net(*pictures)
    assert plain.std() > 0.01, "a network that says nothing would pass"
    fast = rearranged(deepcopy(net))(*pictures)
    assert (fast - plain).abs().max() < TOLERANCE


@pytest.mark.parametrize("kind", [ScratchUNet, TranslationNet])
@pytest.mark.parametrize("window", [(64, 128, 64, 192), (0, 64, 192, 256), (128, 192, 0, 256), (0, 192, 0, 256)])
@torch.inference_mode()
def test_the_wanted_part_is_that_part_of_the_whole(kind: type[nn.Module], window: tuple[int, ...]) -> None:
    net = rearranged(lively(kind))
    pictures = inputs(kind, 192, 256)
    wanted = Window(*window)
    np.testing.assert_allclose(net(*pictures, wanted), wanted.of(net(*pictures)), atol=TOLERANCE)


@pytest.mark.parametrize("kind", [ScratchUNet, TranslationNet])
@torch.inference_mode()
def test_what_is_computed_in_bands_is_what_the_whole_gives(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = rearranged(lively(kind))
    pictures = inputs(kind, 320, 128)
    whole = net(*pictures)
    for module, rows in ((unet, 128), (translation, 128), (mapping, 1)):
        monkeypatch.setattr(module, "BAND", rows)
    np.testing.assert_allclose(net(*pictures), whole, atol=TOLERANCE)
    part = Window(64, 320, 0, 128)
    np.testing.assert_allclose(net(*pictures, part), part.of(whole), atol=TOLERANCE)


def test_half_precision_as_a_gpu_computes_in_changes_no_picture(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = age(photo("astronaut")[:320, :384], np.random.default_rng(1), Severity()).photo
    detector, translator = ScratchDetector("cpu"), Translator("cpu")
    mask = detector.detect(picture)
    assert (mask > DAMAGED).any()
    large = np.tile(picture, (3, 2, 1))  # of smaller ones the detector is told what they show, always in full precision
    full, probability = translator.translate(picture, mask), detector.probability(large)
    monkeypatch.setattr(tiling, "HALF", {"cpu"})
    assert not np.array_equal(detector.probability(large), probability)
    np.testing.assert_allclose(detector.probability(large), probability, atol=0.01)
    np.testing.assert_allclose(translator.translate(picture, mask), full, atol=1 / 255)
    assert np.abs(translator.translate(picture, mask) - full).mean() < 0.1 / 255


def test_the_networks_load_without_what_is_slow_to_import() -> None:
    """The compiler of PyTorch takes seconds, what deblurring needs of SciPy half a second."""
    code = (
        "import sys; from oldphoto.pipeline import RestoreOptions, Restorer; "
        "Restorer(RestoreOptions(with_scratch=True), 'cpu'); "
        "print([name for name in ('torch._dynamo', 'scipy.optimize', 'skimage') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
