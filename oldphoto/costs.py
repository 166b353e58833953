"""What it costs to run a network, counted on its definition: no weights are needed and nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from oldphoto.checkpoints import COMPACT, PUBLISHED, Record
from oldphoto.nets.denoiser import DenoiserNet
from oldphoto.nets.facegan import FaceNet
from oldphoto.nets.tone import ToneNet
from oldphoto.nets.translation import TranslationNet
from oldphoto.nets.unet import ScratchUNet
from oldphoto.nets.wan2020.detector import Detector
from oldphoto.nets.wan2020.faces import FaceGenerator
from oldphoto.nets.wan2020.mapping import PatchAttention
from oldphoto.nets.wan2020.translation import Translation

_SIDE = 1024  # all networks can do it; the cost is told for a million pixels
_PICTURE, _MASK = (3, _SIDE, _SIDE), (1, _SIDE, _SIDE)

_RUNS: dict[tuple[str, str], tuple[type[nn.Module], tuple[tuple[int, ...], ...], str]] = {
    (COMPACT, "scratches"): (ScratchUNet, (_PICTURE, _MASK), "megapixel"),
    (COMPACT, "tone"): (ToneNet, ((3, ToneNet.SIDE, ToneNet.SIDE),), "photo"),
    (COMPACT, "translation"): (TranslationNet, (_PICTURE, _MASK, _PICTURE), "megapixel"),
    (COMPACT, "denoiser"): (DenoiserNet, (_PICTURE, _PICTURE), "megapixel"),
    (COMPACT, "faces"): (FaceNet, ((3, 256, 256),), "face"),
    (PUBLISHED, "scratches"): (Detector, ((1, 256, 384),), "photo"),
    (PUBLISHED, "translation"): (Translation, (_PICTURE, _MASK), "megapixel"),
    (PUBLISHED, "translation-scratch"): (Translation, (_PICTURE, _MASK), "megapixel"),
    (PUBLISHED, "translation-hr"): (Translation, (_PICTURE, _MASK), "megapixel"),
    (PUBLISHED, "faces"): (FaceGenerator, ((3, 256, 256),), "face"),
    (PUBLISHED, "faces-hr"): (FaceGenerator, ((3, 512, 512),), "face"),
}
"""Of each network that runs by itself: its definition, the shapes of what it is given, and what that is."""


@dataclass(frozen=True)
class Cost:
    """Billions of floating-point operations for one ``unit``; a multiplication with its addition counts as two."""

    gigaflop: float
    unit: str


def cost(record: Record) -> Cost | None:
    """The cost of a network of a manifest; None for one that only training runs, or whose record does not fit it."""
    run = _RUNS.get((record.architecture, record.name))
    if run is None:
        return None
    kind, shapes, unit = run
    try:
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            net = kind(**record.config).eval()
            for part in net.modules():
                if isinstance(
                    part, PatchAttention
                ):  # which patches are compared, only the picture tells; it costs little
                    part.composed = _as_it_is  # type: ignore[method-assign]
            net(*(torch.empty(1, *shape) for shape in shapes))
    except Exception:  # a manifest from elsewhere: its configuration may be wrong in any way
        return None
    pixels = 1e6 / _SIDE**2 if unit == "megapixel" else 1.0
    return Cost(pixels * counter.get_total_flops() / 1e9, unit)


def _as_it_is(x: Tensor, damaged: Tensor) -> Tensor:
    return x
