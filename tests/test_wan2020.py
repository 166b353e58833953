"""The published networks: names, shapes and outputs of the official code; attention in memory linear in the pixels."""

from __future__ import annotations

import numpy as np
import parity
import pytest
import torch
import torch.nn.functional as F
from conftest import Photo

from oldphoto.nets.wan2020.detector import Detector
from oldphoto.nets.wan2020.faces import FaceGenerator, SpectralConv2d
from oldphoto.nets.wan2020.mapping import PartialNonLocal, PatchAttention
from oldphoto.nets.wan2020.translation import Translation

CLOSE = 1e-4
"""The largest difference from the official code's output, of its range."""


@pytest.mark.parametrize("name", parity.NETS)
def test_names_shapes_and_types_are_those_of_the_checkpoints_in_their_order(name):
    with torch.device("meta"):
        state = parity.NETS[name]().state_dict()
    own = {key: (list(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in state.items()}
    official = {key: tuple(told) for key, told in parity.keys()[name].items()}
    assert list(own.items()) == list(official.items())


@pytest.mark.parametrize("name", parity.NETS)
def test_outputs_are_those_of_the_official_code(name):
    for found in parity.measured(name):
        if "share" in found.array:
            assert found.largest < 1e-3, found
        elif "_u8" in found.array:
            assert found.largest <= 1, found  # of 255 levels
        else:
            assert found.relative < CLOSE, found


def published_formula(net: PartialNonLocal, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Wan et al., CVPR 2020, eq. 5 to 7, with the matrix of all pairs."""
    size = x.shape[-2:]
    intact = (F.interpolate(mask, size, mode="bilinear") == 0) * F.interpolate(1 - mask, size)
    theta, phi, g = (layer(x).flatten(2) for layer in (net.theta, net.phi, net.g))
    attention = (theta.transpose(1, 2) @ phi).softmax(-1) * intact.flatten(1)[:, None]
    attention = attention / attention.sum(-1, keepdim=True).clamp_min(1e-12)
    attended = (attention @ g.transpose(1, 2)).transpose(1, 2).reshape(x.shape)
    return intact * x + (1 - intact) * net.res_block(net.W(attended))


@pytest.mark.parametrize("damaged", ["some", "none", "all"])
def test_attention_over_intact_places_is_the_published_formula(damaged):
    torch.manual_seed(0)
    net = PartialNonLocal(32, 1)
    x = torch.randn(2, 32, 12, 20)
    mask = torch.full((2, 1, 48, 80), float(damaged == "all"))
    if damaged == "some":
        mask[0, :, 10:30, 20:61] = mask[1, :, ::9, :40] = 1
    with torch.inference_mode():
        torch.testing.assert_close(net(x, mask), published_formula(net, x, mask), rtol=1e-4, atol=1e-5)


def test_attention_holds_no_matrix_of_all_pairs():
    """The kernels that hold none want key, value and query with the channels side by side; others are refused here."""
    net = PartialNonLocal(16, 1).eval()
    with torch.inference_mode(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        net(torch.randn(1, 16, 24, 24), torch.zeros(1, 1, 96, 96))


def test_a_damaged_patch_becomes_the_intact_one_most_like_it():
    torch.manual_seed(0)
    net = PatchAttention(4, 2)
    net.res_block = torch.nn.Identity()
    x = torch.randn(1, 4, 8, 8)
    x[..., 4:6, 4:6] = 1.5 * x[..., :2, 2:4] + 0.01  # in the hole: like that patch, but stronger
    damaged = torch.zeros(1, 1, 8, 8)
    damaged[..., 4:6, 4:6] = 1
    composed = net.composed(x, damaged)
    assert torch.equal(composed[..., 4:6, 4:6], x[..., :2, 2:4])
    composed[..., 4:6, 4:6] = x[..., 4:6, 4:6]
    assert torch.equal(composed, x)


def test_nothing_to_replace_patches_by_is_no_error():
    net = PatchAttention(4, 2)
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(net.composed(x, torch.ones(1, 1, 8, 8)), x)


@pytest.mark.parametrize("kind", ["quality", "scratch", "hr"])
def test_translation_has_a_gradient_for_every_weight(kind):
    torch.manual_seed(0)
    net = Translation(kind, width=4)
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 16:32, 16:40] = 1
    net(torch.rand(2, 3, 64, 64), mask).square().mean().backward()
    idle = {key for key, weight in net.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()}
    assert idle == set()


def test_the_power_iteration_finds_the_norm_that_training_divides_by():
    torch.manual_seed(0)
    layer = SpectralConv2d(8, 12, 3)
    for _ in range(60):
        layer(torch.zeros(1, 8, 4, 4))
    rows = layer.weight_orig.detach().flatten(1)
    assert layer.weight_u @ rows @ layer.weight_v == pytest.approx(float(torch.linalg.matrix_norm(rows, 2)), rel=1e-3)
    vectors = layer.weight_u.clone()
    layer.eval()(torch.zeros(1, 8, 4, 4))
    assert torch.equal(layer.weight_u, vectors)  # as they are at test time


def test_the_detector_sees_the_luma_of_colour_pictures(photo: Photo):
    torch.manual_seed(0)
    net = Detector(width=4).eval()
    rgb = torch.from_numpy(photo("astronaut")[:64, :96]).permute(2, 0, 1)[None]
    gray = (rgb * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    with torch.inference_mode():
        np.testing.assert_allclose(net(rgb), net(gray), atol=1e-5)


def test_the_face_generator_does_any_multiple_of_32():
    net = FaceGenerator(width=4).eval()
    with torch.inference_mode():
        made = net(torch.rand(1, 3, 64, 96))
    assert made.shape == (1, 3, 64, 96)
    assert 0 <= made.min() <= made.max() <= 1
