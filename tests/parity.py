"""The published networks beside the official code: what it gave for weights and inputs made by rule.

The fixtures in ``tests/data/published`` hold its outputs; `measured` compares. Also run by ``scripts/check_parity.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oldphoto import checkpoints
from oldphoto.checkpoints import Record
from oldphoto.nets.wan2020.autoencoder import Autoencoder
from oldphoto.nets.wan2020.detector import Detector
from oldphoto.nets.wan2020.faces import FaceGenerator
from oldphoto.nets.wan2020.mapping import Mapping as LatentMapping
from oldphoto.nets.wan2020.translation import Translation
from oldphoto.published import TEMPLATE, PublishedDetector, PublishedTranslator, detector_size, similarity

FOLDER = Path(__file__).parent / "data" / "published"
Array = NDArray[np.generic]

NETS: dict[str, Callable[[], nn.Module]] = {
    "detection": Detector,
    "vae_a": Autoencoder,
    "mapping_quality": LatentMapping,
    "mapping_scratch": lambda: LatentMapping("scratch"),
    "mapping_hr_scratch": lambda: LatentMapping("hr"),
    "face_256": FaceGenerator,
}
MAPPINGS = {"quality": "quality", "scratch": "scratch", "hr_scratch": "hr"}


# Weights and inputs by rule


def value(key: str, shape: tuple[int, ...]) -> Tensor:
    """What stands under a key of a state dict: it depends on nothing but the key and the shape."""
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if leaf == "filt":
        return (torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16).expand(shape).clone()
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    drawn = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if leaf in ("weight_u", "weight_v"):
        return torch.from_numpy((drawn / np.sqrt(np.square(drawn, dtype=np.float64).sum())).astype(np.float32))
    tenth = np.float32(0.1)
    if leaf == "running_var":
        return torch.from_numpy(1 + tenth * np.abs(drawn))
    if len(shape) < 2:
        return torch.from_numpy(tenth * drawn + np.float32(leaf == "weight"))
    fan_in = int(np.prod(shape[1:]))
    weight = torch.from_numpy(drawn * np.float32(1 / np.sqrt(fan_in)))
    if leaf == "weight_orig":
        u, v = (value(key.removesuffix("orig") + side, (size,)) for side, size in (("u", shape[0]), ("v", fan_in)))
        weight += 2 * torch.outer(u, v).view(shape)
    return weight


def filled(net: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Weights by the rule for a network, or for the part of it whose keys begin with ``prefix``."""
    return {
        key: value(key.removeprefix(prefix), tuple(tensor.shape))
        for key, tensor in net.state_dict().items()
        if key.startswith(prefix)
    }


def build(kind: Callable[[], nn.Module]) -> nn.Module:
    """A network with weights by the rule."""
    with torch.device("meta"):
        net = kind()
    weights = filled(net)
    if isinstance(net, Translation):  # its parts were files of their own
        weights |= {f"mapping.{key}": tensor for key, tensor in filled(net.mapping).items()}
    net.load_state_dict(weights, assign=True)
    return net.eval().requires_grad_(False)


def uniform(shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape).astype(np.float32))


def latent(height: int, width: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((1, 64, height, width)).astype(np.float32))


def damage(height: int, width: int) -> Tensor:
    mask = torch.zeros(1, 1, height, width)
    mask[..., :36, 32:68] = mask[..., 40:56, 8:26] = mask[..., width - 13 : width - 11] = 1
    return mask


# Comparison


@dataclass(frozen=True)
class Difference:
    """Of one array of a fixture: the largest difference, and the range of the official values."""

    fixture: str
    array: str
    largest: float
    range: float

    @property
    def relative(self) -> float:
        return self.largest / self.range


def fixture(name: str) -> Mapping[str, Array]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def keys() -> dict[str, dict[str, tuple[list[int], str]]]:
    """Names, shapes and types of the state dicts of the official code."""
    content: dict[str, dict[str, tuple[list[int], str]]] = json.loads((FOLDER / "keys.json").read_text())
    return content


def compared(name: str, array: str, ours: Tensor | Array) -> Difference:
    official = fixture(name)[array]
    assert official.shape == tuple(ours.shape), (name, array)
    official, ours = official.astype(np.float64), np.asarray(ours, np.float64)
    return Difference(name, array, float(np.abs(official - ours).max()), float(np.ptp(official)))


@torch.inference_mode()
def measured(net: str) -> Iterator[Difference]:
    """The differences of all fixtures that are about one network of NETS."""
    yield from {"detection": _detector, "vae_a": _autoencoder, "face_256": _faces}.get(net, _mapping)(net)


def _signed(picture: Tensor) -> Tensor:
    """The official code's range."""
    return 2 * picture - 1


def _detector(net: str) -> Iterator[Difference]:
    detector = build(NETS[net])
    for size in ((64, 96), (48, 80)):
        name = f"detection_{size[0]}x{size[1]}"
        logits = detector(uniform((1, 1, *size)))
        yield compared(name, "logits", logits)
        yield compared(name, "prob", logits.sigmoid())
    official = fixture("e2e_detection")
    detector.last[1].bias -= 0.677
    stage = _stage(PublishedDetector, {"scratches": detector})
    photo = np.float32(official["resized_u8"] / 255)
    assert detector_size(*photo.shape[:2]) == tuple(official["net_hw"])
    seen = {}
    stage._network = lambda gray: seen.setdefault("prob", detector(seen.setdefault("gray", gray)).sigmoid())
    mask = stage.detect(photo)
    yield compared("e2e_detection", "net_input_stride4", _signed(seen["gray"])[..., ::4, ::4])
    yield compared("e2e_detection", "prob_stride4", seen["prob"][..., ::4, ::4])
    wrong = np.mean(mask != official["mask_u8"][..., 0] / 255)
    yield Difference("e2e_detection", "mask_u8 (share that differs)", float(wrong), 1)


def _autoencoder(net: str) -> Iterator[Difference]:
    autoencoder = build(NETS[net])
    yield compared("vae_a_enc", "feat", autoencoder.encoder(uniform((1, 3, 64, 96))))
    yield compared("vae_a_enc_72x56", "feat", autoencoder.encoder(uniform((1, 3, 72, 56))))
    yield compared("vae_b_dec", "image", _signed(autoencoder.decoder(latent(16, 24))))


def _mapping(net: str) -> Iterator[Difference]:
    kind = MAPPINGS[net.removeprefix("mapping_")]
    translation = build(lambda: Translation(kind))
    mapping, mask = translation.mapping, damage(64, 96)
    inner: dict[str, Tensor] = {}
    if kind == "scratch":
        mapping.NL.register_forward_hook(lambda _, given, result: inner.update(before=given[0], after=result))
    yield compared(net, "feat", mapping(latent(16, 24), mask))
    for when, tensor in inner.items():
        yield compared(f"{net}_nl", f"{when}_nl_ch0_63", tensor[:, :64])
    if kind != "quality":
        yield compared(f"{net}_nomask", "feat", mapping(latent(16, 24), torch.zeros_like(mask)))
    if kind == "hr":
        yield compared(f"{net}_80x112", "feat", mapping(latent(20, 28), damage(80, 112)))
    restored = translation.decoder(mapping(translation.encoder(uniform((1, 3, 64, 96))), mask))
    yield compared(f"chain_{net.removeprefix('mapping_')}", "image", _signed(restored))
    yield _restored(kind, translation)


def _restored(kind: str, net: nn.Module) -> Difference:
    """A file through the stage; the stretching to the full range is the official code's, and made here only."""
    name = {"quality": "e2e_quality", "scratch": "e2e_scratch", "hr": "e2e_scratch_hr"}[kind]
    official = fixture(name)
    stage = _stage(PublishedTranslator, {"translation" if kind == "quality" else f"translation-{kind}": net})
    stage.large_scans = kind == "hr"
    if kind == "quality":
        restored = stage.translate(np.float32(official["resized_u8"] / 255))
    else:
        mask = np.float32(official["mask_u8"] / 255)
        restored = stage.translate(np.float32(official["input_u8"] / 255), mask)
    stretched = (restored - restored.min()) / np.ptp(restored)
    return compared(name, "restored_u8", np.floor(stretched * 255 + 0.5))


def _faces(net: str) -> Iterator[Difference]:
    generator = build(NETS[net])
    for size in (256, 512):
        name, middle = f"face_{size}", slice(size // 2 - 32, size // 2 + 32)
        made = _signed(generator(uniform((1, 3, size, size))))
        yield compared(name, "center64", made[..., middle, middle])
        yield compared(name, "corner32", made[..., :32, :32])
        yield compared(name, "stride", made[..., :: size // 64, :: size // 64])
        yield compared(name, "stats", torch.stack([made.mean(), made.std(correction=0), made.abs().mean()]))
        yield from _aligned(f"align_{size}", size)


def _aligned(name: str, size: int) -> Iterator[Difference]:
    given, scale = fixture("align_input"), size / 256
    matrix = similarity(scale * TEMPLATE, np.asarray(given["landmarks"], float))
    yield compared(name, "affine_params", np.vstack([matrix, [0, 0, 1]]))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(np.float32(given["image_u8"]), matrix, (size, size), flags=flags)
    yield compared(name, "crop_u8_stride", np.floor(crop + 0.5)[:: size // 64, :: size // 64])


def _stage(kind: type, nets: Mapping[str, nn.Module]):
    """A stage of the pipeline with networks given, not loaded."""
    stage = kind.__new__(kind)
    stage.device, stage.tile, stage.folder = torch.device("cpu"), None, Path()
    if kind is PublishedDetector:
        (stage.net,) = nets.values()
        return stage
    config = {name: {"kind": name.partition("-")[2] or "quality"} for name in nets}
    stage.records = {name: Record(name, "", "", config[name], architecture=checkpoints.PUBLISHED) for name in nets}
    stage._net = nets.__getitem__
    return stage
