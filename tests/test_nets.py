"""The networks: what they are before training, what they see, and what they must not see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oldphoto import pyramid
from oldphoto.nets.autoencoder import Autoencoder, Decoder, Encoder
from oldphoto.nets.blocks import start_at_zero
from oldphoto.nets.discriminators import LatentDiscriminator, PatchDiscriminator
from oldphoto.nets.efficientnet import Context
from oldphoto.nets.facegan import FaceNet
from oldphoto.nets.mapping import Mapping, PartialNonLocal
from oldphoto.nets.tone import FIELD, KNOTS, ToneMap, ToneNet
from oldphoto.nets.translation import TranslationNet
from oldphoto.nets.unet import ScratchUNet
from oldphoto.translation import apply_tone

CHANNELS, CELLS = 16, 24


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def awakened(net: nn.Module) -> nn.Module:
    """The network with small random values in place of the zeros that its last layers start from."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


# --- before training -------------------------------------------------------------------------------------------------


def test_translation_is_the_identity_before_training() -> None:
    picture, mask = torch.rand(2, 3, 64, 128), (torch.rand(2, 1, 64, 128) < 0.2).float()
    hidden = mask * torch.randn(2, 3, 64, 128)
    torch.testing.assert_close(TranslationNet()(picture, mask, hidden), picture, rtol=0, atol=1e-5)


def test_mapping_is_the_identity_before_training() -> None:
    latent, mask, hidden = torch.randn(2, 64, 16, 32), torch.rand(2, 1, 64, 128), torch.randn(2, 3, 64, 128)
    torch.testing.assert_close(Mapping()(latent, mask, hidden), latent, rtol=0, atol=0)


def test_face_refinement_is_the_identity_before_training() -> None:
    face = torch.rand(2, 3, 256, 256)
    torch.testing.assert_close(FaceNet()(face), face, rtol=0, atol=0)


def test_tone_correction_is_the_identity_before_training() -> None:
    tone = ToneNet()(torch.rand(2, 3, ToneNet.SIDE, ToneNet.SIDE))
    picture = torch.rand(2, 3, 50, 70)
    torch.testing.assert_close(tone.apply(picture), picture, rtol=0, atol=1e-5)


def test_joined_stages_are_the_modules_that_were_trained() -> None:
    old, clean, mapping = Autoencoder(), Autoencoder(), awakened(Mapping())
    assert isinstance(mapping, Mapping)
    net = TranslationNet.from_stages(old, mapping, clean)
    picture, mask, hidden = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64)
    latent = old.encoder.encode(picture)
    change = clean.decoder(mapping(latent, mask, hidden)) - clean.decoder(latent)
    torch.testing.assert_close(net(picture, mask, hidden), picture + change, rtol=0, atol=1e-5)
    fresh = TranslationNet()
    fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(fresh(picture, mask, hidden), net(picture, mask, hidden), rtol=0, atol=1e-5)


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (4, 8)])
def test_latents_are_a_quarter_and_pictures_come_back_in_size(height: int, width: int) -> None:
    picture = torch.rand(2, 3, height, width)
    mean, log_variance = Encoder(48, 24)(picture)
    assert mean.shape == log_variance.shape == (2, 48, height // 4, width // 4)
    assert Decoder(48, 24)(mean).shape == picture.shape
    assert Autoencoder()(picture)[0].shape == picture.shape


def test_the_encoder_means_what_inference_takes() -> None:
    encoder, picture = Encoder(), torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(encoder.encode(picture), encoder(picture)[0])


def test_the_unet_gives_one_logit_a_pixel_from_its_multiple_on() -> None:
    net = ScratchUNet().eval()
    for height, width in ((net.multiple, net.multiple), (net.multiple, 3 * net.multiple)):
        picture = torch.rand(2, 3, height, width)
        assert net(picture, net.hint(picture, 3)).shape == (2, 1, height, width)


def test_the_unet_takes_the_hint_of_a_look_at_half_the_size() -> None:
    net = awakened(ScratchUNet()).eval()
    picture = torch.rand(1, 3, 4 * net.multiple, 3 * net.multiple)
    hint = net.hint(picture, 1)
    half = torch.nn.functional.avg_pool2d(picture, 2)
    padded = torch.nn.functional.pad(half, (0, net.multiple // 2, 0, 0), "reflect")
    alone = net(padded, torch.zeros_like(padded[:, :1])).sigmoid()[..., : half.shape[-1]]
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(hint, 2), alone, rtol=0, atol=0.2)
    assert not net.hint(picture, 0).any()
    assert (net(picture, hint) - net(picture, 0 * hint)).abs().max() > 1e-3


def test_the_unet_is_told_what_the_picture_shows() -> None:
    net, other = awakened(ScratchUNet()).eval(), torch.rand(1, 3, 128, 96)
    picture, hint = torch.rand(1, 3, 128, 96), torch.zeros(1, 1, 128, 96)
    alone = net(picture, hint)
    assert (net(picture, hint, told=True) - alone).abs().max() > 1e-3
    net.of_things = start_at_zero(net.of_things)
    torch.testing.assert_close(net(picture, hint, told=True), alone)
    assert net.context(other).shape == (1, Context.CHANNELS, 8, 6)


def test_the_pictures_of_a_batch_do_not_see_each_other() -> None:
    picture, mask = torch.rand(3, 3, 64, 64), (torch.rand(3, 1, 64, 64) < 0.3).float()
    hidden = mask * torch.randn(3, 3, 64, 64)
    net = awakened(TranslationNet())
    alone = torch.cat([net(p[None], m[None], h[None]) for p, m, h in zip(picture, mask, hidden, strict=True)])
    torch.testing.assert_close(net(picture, mask, hidden), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mirrored", [(2,), (3,), (2, 3)])
def test_the_tone_of_a_photo_does_not_depend_on_its_side(mirrored: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    net = awakened(ToneNet()).eval()
    photo = torch.rand(2, 3, ToneNet.SIDE, ToneNet.SIDE) ** 2
    toned = net.of_mirrored(photo).apply(photo)
    assert (toned - photo).abs().max() > 0.01, "a network that changes nothing would pass"
    other = photo.flip(mirrored)
    torch.testing.assert_close(net.of_mirrored(other).apply(other).flip(mirrored), toned, rtol=0, atol=1e-4)


# --- the partial non-local block -------------------------------------------------------------------------------------


FOCUS = pytest.mark.parametrize("focus", [0.2, 0.6], ids=["even", "peaked"])
"""How far the affinities of different keys lie apart: about as at the start of training, or a few times more."""


def non_local(focus: float = 0.2) -> PartialNonLocal:
    """A block whose attention is not even, with a merge that passes on what it borrowed."""
    block = PartialNonLocal(CHANNELS)
    nn.init.normal_(block.query.weight, std=focus)
    nn.init.normal_(block.key_value.weight, std=focus)
    nn.init.normal_(block.position, std=focus)
    nn.init.ones_(block.scale)
    return block.eval()


def damaged_cells(share: float) -> Tensor:
    """Intact shares N × 1 × H × W with a share of fully damaged cells."""
    return (torch.rand(1, 1, CELLS, CELLS) > share).float()


def written_out(net: PartialNonLocal, features: Tensor, intact: Tensor) -> NDArray[np.float64]:
    """Attention in plain loops: softmax over the keys of the window × their intact share, renormalised."""
    x = features[0].double().numpy()
    weights = {name: value.detach().double().numpy() for name, value in net.state_dict().items()}
    share = intact[0, 0].double().numpy()
    channels, height, width = x.shape

    def linear(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        weight, bias = weights[f"{name}.weight"][:, :, 0, 0], weights[f"{name}.bias"]
        return np.einsum("oc,chw->ohw", weight, values) + bias[:, None, None]

    query = linear("query", x)
    key, value = np.split(linear("key_value", x), 2)
    attended = np.zeros_like(x)
    depth, window = channels // net.heads, net.block + 2 * net.halo
    for row, column in np.ndindex(height, width):
        top, left = (place // net.block * net.block - net.halo for place in (row, column))
        cells = [
            (r, c, (r - top) * window + c - left)
            for r in range(max(top, 0), min(top + window, height))
            for c in range(max(left, 0), min(left + window, width))
        ]
        rows, columns, places = map(list, zip(*cells, strict=True))
        own = row % net.block * net.block + column % net.block
        for head in range(net.heads):
            part = slice(head * depth, (head + 1) * depth)
            affinity = query[part, row, column] @ key[part][:, rows, columns] / np.sqrt(depth)
            affinity += weights["position"][head, own, places]
            trusted = np.exp(affinity - affinity.max()) * share[rows, columns]
            attended[part, row, column] = value[part][:, rows, columns] @ (trusted / trusted.sum())
    result: NDArray[np.float64] = x + weights["scale"] * linear("merge", attended)
    return result


@FOCUS
@torch.inference_mode()
def test_attention_is_the_formula_written_out(focus: float) -> None:
    net, features = non_local(focus), torch.randn(1, CHANNELS, CELLS, CELLS)
    intact = damaged_cells(0.4) * (0.2 + 0.8 * torch.rand(1, 1, CELLS, CELLS))
    result = net(features, intact)[0].numpy()
    np.testing.assert_allclose(result, written_out(net, features, intact), atol=1e-3)


@FOCUS
@torch.inference_mode()
def test_nothing_is_borrowed_from_damaged_places(focus: float) -> None:
    net, features, intact = non_local(focus), torch.randn(1, CHANNELS, CELLS, CELLS), damaged_cells(0.4)
    other = torch.where(intact > 0, features, torch.randn_like(features))
    change = (net(other, intact) - net(features, intact)).abs().amax(1)
    assert change[intact[:, 0] > 0].max() < 1e-3
    assert change[intact[:, 0] == 0].min() > 0.1, "damaged places themselves do change"


@torch.inference_mode()
def test_nothing_is_borrowed_from_a_blot_however_loud() -> None:
    """Features inside a blot that match the queries best still weigh nothing against the intact ones beside it."""
    net, features = non_local(), torch.randn(1, CHANNELS, CELLS, CELLS)
    intact = torch.ones(1, 1, CELLS, CELLS)
    intact[..., 9:15, 9:15] = 0
    loud = torch.where(intact > 0, features, 5 * features)
    change = (net(loud, intact) - net(features, intact)).abs().amax(1)
    assert change[intact[:, 0] > 0].max() < 1e-3


@torch.inference_mode()
def test_damaged_places_borrow_from_intact_ones() -> None:
    net, features = non_local(), torch.randn(1, CHANNELS, CELLS, CELLS)
    intact = torch.ones(1, 1, CELLS, CELLS)
    intact[..., 10:13, 10:13] = 0
    other = torch.where(intact > 0, torch.randn_like(features), features)
    change = (net(other, intact) - net(features, intact)).abs().amax(1)
    assert change[:, 10:13, 10:13].min() > 0.05


@torch.inference_mode()
def test_a_place_depends_on_a_bounded_neighbourhood() -> None:
    net, features, intact = non_local(), torch.randn(1, CHANNELS, CELLS, CELLS), damaged_cells(0.3)
    reach = net.block - 1 + net.halo
    other, other_intact = features.clone(), intact.clone()
    other[..., 12, 12] += 10
    other_intact[..., 12, 12] = 1 - intact[..., 12, 12]
    changed = (net(other, other_intact) - net(features, intact)).abs().amax((0, 1)) > 1e-6
    rows, columns = changed.nonzero(as_tuple=True)
    assert changed[12, 12]
    assert max((rows - 12).abs().max(), (columns - 12).abs().max()) <= reach


@torch.inference_mode()
def test_an_entirely_damaged_neighbourhood_stays_finite() -> None:
    features = torch.randn(1, CHANNELS, CELLS, CELLS)
    assert non_local()(features, torch.zeros(1, 1, CELLS, CELLS)).isfinite().all()


@torch.inference_mode()
def test_the_translation_of_a_place_depends_on_a_bounded_neighbourhood() -> None:
    """Far away, where no chain of layers reaches, a change changes nothing at all: cost and tiles are bounded."""
    net = awakened(TranslationNet()).eval()
    picture, mask = torch.rand(1, 3, 64, 1024), torch.zeros(1, 1, 64, 1024)
    hidden = torch.zeros_like(picture)
    other, other_mask, other_hidden = picture.clone(), mask.clone(), hidden.clone()
    other[..., :64], other_mask[..., :32], other_hidden[..., :32] = 0, 1, 1
    change = (net(other, other_mask, other_hidden) - net(picture, mask, hidden)).abs().amax((0, 1, 2))
    assert change[:64].max() > 1e-3
    assert change[64 + 512 :].max() < 1e-5


# --- tone ------------------------------------------------------------------------------------------------------------


def tone_map(count: int = 1) -> ToneMap:
    """Any correction: a bent curve, mixed channels, an uneven field."""
    return ToneMap(
        torch.linspace(0, 1, KNOTS) + 0.1 * torch.randn(count, 3, KNOTS),
        torch.eye(3) + 0.1 * torch.randn(count, 3, 3),
        1 + 0.2 * torch.randn(count, 1, FIELD, FIELD),
        0.1 * torch.randn(count, 3, FIELD, FIELD),
    )


def even(tone: ToneMap) -> ToneMap:
    """The same correction at every place."""
    return ToneMap(
        tone.curve,
        tone.matrix,
        tone.gain.mean((2, 3), keepdim=True).expand_as(tone.gain),
        tone.offset.mean((2, 3), keepdim=True).expand_as(tone.offset),
    )


def test_tone_is_curve_then_matrix_then_gain_and_offset() -> None:
    tone = even(tone_map(2))
    picture = 1.4 * torch.rand(2, 3, 20, 30) - 0.2
    knots = np.linspace(0, 1, KNOTS)
    expected = np.empty(picture.shape)
    for index in range(2):
        curved = [np.interp(picture[index, c].numpy(), knots, tone.curve[index, c].numpy()) for c in range(3)]
        mixed = np.einsum("ij,jhw->ihw", tone.matrix[index].numpy(), np.stack(curved))
        gain, offset = tone.gain[index, 0, 0, 0].item(), tone.offset[index, :, 0, 0].numpy()
        expected[index] = mixed * gain + offset[:, None, None]
    np.testing.assert_allclose(tone.apply(picture).numpy(), expected, atol=1e-5)


def test_the_field_spans_the_picture_from_edge_to_edge() -> None:
    cells = torch.randn(1, 1, FIELD, FIELD)
    field = ToneMap.field(cells, (101, 151))
    torch.testing.assert_close(field[..., ::20, ::30], cells, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (515, 64), (700, 333)])
@pytest.mark.parametrize("strip", [2, 256])
def test_tone_applied_in_strips_is_tone_applied_to_the_whole(
    shape: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid, "_STRIP", strip)
    tone, picture = tone_map(), np.random.default_rng(0).random((*shape, 3), np.float32)
    expected = tone.apply(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    apply_tone(tone, picture)
    np.testing.assert_allclose(picture, expected, atol=1e-5)


# --- gradients -------------------------------------------------------------------------------------------------------


def translation_loss(net: nn.Module) -> Tensor:
    picture, mask = torch.rand(2, 3, 128, 128), (torch.rand(2, 1, 128, 128) < 0.2).float()
    hidden = mask * torch.randn(2, 3, 128, 128)
    return (net(picture, mask, hidden) - torch.rand_like(picture)).square().mean()


def autoencoder_loss(net: nn.Module) -> Tensor:
    output, mean, log_variance = net(torch.rand(2, 3, 32, 32))
    return (output - torch.rand_like(output)).square().mean() + (mean.square() + log_variance.exp()).mean()


def tone_loss(net: nn.Module) -> Tensor:
    picture = torch.rand(4, 3, ToneNet.SIDE, ToneNet.SIDE)
    return (net(picture).apply(picture) - torch.rand_like(picture)).square().mean()


def patch_loss(net: nn.Module) -> Tensor:
    scores, features = net(torch.rand(2, 3, 64, 64))
    return torch.stack([value.square().mean() for value in (*scores, *features)]).sum()


LOSSES: dict[type[nn.Module], Callable[[nn.Module], Tensor]] = {
    ScratchUNet: lambda net: net(torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64), told=True).square().mean(),
    TranslationNet: translation_loss,
    Autoencoder: autoencoder_loss,
    FaceNet: lambda net: (net(torch.rand(1, 3, 256, 256)) - 0.5).square().mean(),
    ToneNet: tone_loss,
    LatentDiscriminator: lambda net: net(torch.randn(2, 64, 16, 16))[0].square().mean(),
    PatchDiscriminator: patch_loss,
}
UNUSED = {TranslationNet: ("encoder.log_variance", "decoder.body.3.second.bias", "decoder.body.4.bias")}
"""What is documented to take no part: inference needs the mean of the latents alone, and of the decoder the
difference between two pictures, in which the last constants cancel."""


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
def test_gradients_reach_every_parameter(kind: type[nn.Module]) -> None:
    """No dead modules: whatever is stored and shipped takes part in the result."""
    net = awakened(kind())
    LOSSES[kind](net).backward()
    trained = [(name, value) for name, value in net.named_parameters() if value.requires_grad]
    dead = [name for name, value in trained if value.grad is None or not value.grad.any()]
    assert [name for name in dead if not name.startswith(UNUSED.get(kind, ("\0",)))] == []


@pytest.mark.parametrize("kind", [TranslationNet, FaceNet, ToneNet], ids=lambda kind: kind.__name__)
def test_training_can_leave_the_identity(kind: type[nn.Module]) -> None:
    """Zeros only in the last layers: a first step has a direction."""
    net = kind()
    LOSSES[kind](net).backward()
    assert any(value.grad is not None and value.grad.abs().max() > 1e-6 for value in net.parameters())
