"""The three mappings between latents, one configuration each of the same parts."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Table
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oldphoto.nets.wan2020.autoencoder import ResidualBlock, normalised, residual_blocks


class PartialNonLocal(nn.Module):
    """Fills holes of the features by attention over what is intact (Wan et al., CVPR 2020, eq. 5 to 7).

    The published formula multiplies the softmax over all places by the mask and normalises again; that is the
    softmax with the mask's logarithm added, which needs no matrix of all pairs in memory.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(channels, channels, 1)
        self.W = nn.Conv2d(channels, channels, 1)
        self.theta = nn.Conv2d(channels, channels, 1)
        self.phi = nn.Conv2d(channels, channels, 1)
        self.res_block = nn.Sequential(*residual_blocks(channels, blocks))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        size = x.shape[-2:]
        clear = F.interpolate(mask, size, mode="bilinear", align_corners=False) == 0
        intact = clear * F.interpolate(1 - mask, size)
        weight = intact.flatten(1)[:, None, None]
        # A picture without any intact place has no keys: it attends to everything, and the result is put to zero.
        some = weight.amax(-1, keepdim=True) > 0
        bias = torch.where(some, weight, 1).log().to(x.dtype)
        # The kernels that keep no matrix of all pairs want channels last in memory.
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2).contiguous()[:, None] for layer in (self.theta, self.phi, self.g)
        )
        attended = F.scaled_dot_product_attention(query, key, value, bias, scale=1.0) * some
        filled = self.res_block(self.W(attended[:, 0].transpose(1, 2).reshape(x.shape)))
        output: Tensor = intact * x + (1 - intact) * filled
        return output


class PatchAttention(nn.Module):
    """Replaces every damaged patch of the features by the intact one that is most like it (Wan et al., TPAMI 2022).

    Where height or width is no multiple of ``patch``, what is left over at the border comes out empty as soon as there
    is a damaged patch, as published: give multiples of 8.
    """

    _DAMAGED = 0.6  # share of a patch from which on it is replaced
    _ROWS = 512  # damaged patches compared at a time

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.F_Combine = nn.Conv2d(2 * channels + 1, channels, 3, padding=1)
        self.res_block = nn.Sequential(ResidualBlock(channels))

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        x = self.res_block(z)
        damaged = (F.interpolate(mask, x.shape[-2:], mode="bilinear", align_corners=False) > 0).to(x.dtype)
        composed = torch.cat(
            [self.composed(*pair) for pair in zip(torch.split(x, 1), torch.split(damaged, 1), strict=True)]
        )
        output: Tensor = self.F_Combine(torch.cat([z, composed, damaged], 1))
        return output

    def composed(self, x: Tensor, damaged: Tensor) -> Tensor:
        """One picture's features, 1 × C × h × w, with its damaged patches replaced."""
        hole = F.unfold(damaged, self.patch, stride=self.patch)[0].mean(0) > self._DAMAGED
        if not hole.any() or hole.all():  # nothing to replace, or nothing to replace it by
            return x
        patches = F.unfold(x, self.patch, stride=self.patch)[0].T
        unit = F.normalize(patches, dim=1, eps=1e-12)
        keys, sources = unit[~hole].T, patches[~hole]
        nearest = torch.cat([(rows @ keys).argmax(1) for rows in torch.split(unit[hole], self._ROWS)])
        composed = patches.index_put((hole,), sources[nearest])
        return F.fold(composed.T[None], x.shape[-2:], self.patch, stride=self.patch)


@dataclass(frozen=True)
class Layers:
    """Part of a mapping: convolutions that ``widen``, residual ``blocks``, convolutions that ``narrow`` again."""

    widen: bool = False
    blocks: int = 0
    narrow: bool = False


@dataclass(frozen=True)
class Attention:
    """Part of a mapping: the partial non-local block with ``blocks`` residual blocks, or attention between patches."""

    blocks: int = 0
    patch: int = 0


MAPPINGS: Table[str, Table[str, Layers | Attention]] = {
    "quality": {"model": Layers(widen=True, blocks=6, narrow=True)},
    "scratch": {
        "before_NL": Layers(widen=True),
        "NL": Attention(blocks=3),
        "after_NL": Layers(blocks=6, narrow=True),
    },
    "hr": {
        "before_NL": Layers(widen=True, blocks=2),
        "NL_scale_1": Attention(patch=8),
        "res_block_1": Layers(blocks=2),
        "NL_scale_2": Attention(patch=4),
        "res_block_2": Layers(blocks=2),
        "NL_scale_3": Attention(patch=2),
        "after_NL": Layers(blocks=2, narrow=True),
    },
}
"""The parts of each published mapping, in order, by their names in the checkpoints: for pictures without structured
damage, with it, and with it on large scans."""


class Mapping(nn.Module):
    """Latents of old photographs to those of clean ones: ``forward(latent, mask)``, ``mask`` at the picture's size.

    The ``quality`` mapping has no use for the mask.
    """

    def __init__(self, kind: str = "quality", width: int = 64) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 8 * width, 8 * width)
        for name, part in MAPPINGS[kind].items():
            self.add_module(name, _part(part, widths))

    def forward(self, latent: Tensor, mask: Tensor) -> Tensor:
        for part in self.children():
            latent = part(latent) if isinstance(part, nn.Sequential) else part(latent, mask)
        return latent


def _part(part: Layers | Attention, widths: tuple[int, ...]) -> nn.Module:
    if isinstance(part, Attention):
        return PatchAttention(widths[-1], part.patch) if part.patch else PartialNonLocal(widths[-1], part.blocks)

    def convolutions(widths: tuple[int, ...]) -> Iterator[nn.Module]:
        for a, b in pairwise(widths):
            yield from normalised(nn.Conv2d(a, b, 3, padding=1), b)

    layers: list[nn.Module] = []
    if part.widen:
        layers += convolutions(widths)
    layers += residual_blocks(widths[-1], part.blocks)
    if part.narrow:
        layers += convolutions(widths[:0:-1])
        layers.append(nn.Conv2d(widths[1], widths[0], 3, padding=1))
    return nn.Sequential(*layers)
