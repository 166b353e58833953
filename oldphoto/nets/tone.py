"""The tone estimator: fading, casts and uneven light, estimated once from a thumbnail of the whole photograph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oldphoto.nets.blocks import Downsample, ResidualBlock, start_at_zero
from oldphoto.nets.efficientnet import Context

KNOTS = 9
"""Points of the tone curve, evenly spaced over [0, 1]."""

FIELD = 6
"""Cells along each side of the field of uneven fading."""

QUANTILES = (0.005, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.995)

LEVELS = ((0, -1), (1, -2), (2, -3))
"""Pairs of QUANTILES that a correction by hand would take for black and white."""


@dataclass(frozen=True)
class ToneMap:
    """A correction of tone for N pictures.

    ``curve`` N × 3 × KNOTS: values of each channel's curve at its knots; ``matrix`` N × 3 × 3: mixes the channels
    after it; ``gain`` and ``offset`` N × 1 and N × 3 × FIELD × FIELD: corrections that vary over the picture.
    """

    curve: Tensor
    matrix: Tensor
    gain: Tensor
    offset: Tensor

    def apply(self, picture: Tensor, field: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Correct N × 3 × H × W pictures in [0, 1]; ``field``: gain and offset at the picture's own size, if cut."""
        size = picture.shape[-2:]
        gain, offset = field or (self.field(self.gain, size), self.field(self.offset, size))
        position = picture.clamp(0, 1) * (KNOTS - 1)
        index = position.detach().floor().clamp(max=KNOTS - 2)
        flat = index.long().flatten(2)
        low = self.curve.gather(2, flat).view_as(picture)
        high = self.curve.gather(2, flat + 1).view_as(picture)
        curved = low + (position - index) * (high - low)
        return torch.einsum("nij,njhw->nihw", self.matrix, curved) * gain + offset

    @staticmethod
    def field(cells: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
        """Bicubic between the cells, which span the whole picture from edge to edge."""
        return F.interpolate(cells, tuple(size), mode="bicubic", align_corners=True)


class ToneNet(nn.Module):
    """From thumbnails, N × 3 × SIDE × SIDE in [0, 1], to tone maps; the identity before training.

    The whole photograph is squeezed into the square: tone does not care about shapes. Besides the picture, at half the
    size, the network sees its quantiles and the picture with its levels stretched between two of them. Its curves are a
    mix of such stretches, of each channel alone and of all alike, and a remainder: a division by the range of tones is
    what a small network learns worst and a photograph needs most. It is told what the photograph shows, for how bright
    things are depends on what they are.
    """

    SIDE = 128

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(24, width, 3, padding=1),
            ResidualBlock(width),
            Downsample(width, 2 * width),
            ResidualBlock(2 * width),
            Downsample(2 * width, 3 * width),
            ResidualBlock(3 * width),
            ResidualBlock(3 * width),
        )
        self.context = Context()
        self.of_things = nn.Sequential(nn.Linear(Context.CHANNELS, 64), nn.ReLU(), start_at_zero(nn.Linear(64, 128)))
        self.at_things = nn.Sequential(
            nn.Conv2d(Context.CHANNELS, 32, 1), nn.ReLU(), start_at_zero(nn.Conv2d(32, 4, 1))
        )
        self.field = start_at_zero(nn.Conv2d(5 * width, 4, 1))
        pooled = 6 * width + 3 * len(QUANTILES)
        self.summary = nn.Sequential(
            nn.LayerNorm(pooled), nn.Linear(pooled, 128), nn.ReLU(), nn.Linear(128, 2 * width), nn.LayerNorm(2 * width)
        )
        self.mix = start_at_zero(nn.Linear(2 * width, 2 * len(LEVELS)))
        self.curve = start_at_zero(nn.Linear(2 * width, 3 * KNOTS))
        self.matrix = start_at_zero(nn.Linear(2 * width, 9))

    def forward(self, thumbnail: Tensor) -> ToneMap:
        half = F.avg_pool2d(thumbnail, 2)
        levels = torch.tensor(QUANTILES, dtype=thumbnail.dtype, device=thumbnail.device)
        quantiles = torch.quantile(half.flatten(2), levels, dim=2).permute(1, 2, 0)
        black, white = quantiles[..., :1, None], quantiles[..., -1:, None]
        stretched = _stretch(half, black, white).clamp(0, 1)
        features = self.body(torch.cat([half, stretched], 1) - 0.5)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3)), quantiles.flatten(1)], 1)
        even = _stretch(thumbnail, black.amin(1, keepdim=True), white.amax(1, keepdim=True)).clamp(0, 1)
        things = self.context(even)  # whatever their contrast
        told = self.summary[:2](pooled) + self.of_things(things.mean((2, 3)))
        summary = self.summary[2:](told)
        spread = F.adaptive_avg_pool2d(features, FIELD)
        local = self.field(torch.cat([spread, summary[..., None, None].expand(-1, -1, FIELD, FIELD)], 1))
        local = local + ToneMap.field(self.at_things(things), local.shape[-2:])
        identity = torch.linspace(0, 1, KNOTS, device=thumbnail.device).expand(len(thumbnail), 3, -1)
        stretches = torch.stack([_stretch(identity, *ends) for ends in _levels(quantiles)], 1)
        mixed = torch.einsum("nk,nkcp->ncp", self.mix(summary), stretches - identity[:, None])
        return ToneMap(
            identity + mixed + 0.5 * self.curve(summary).view(-1, 3, KNOTS),
            torch.eye(3, device=thumbnail.device) + 0.5 * self.matrix(summary).view(-1, 3, 3),
            1 + 0.5 * local[:, :1],
            0.5 * local[:, 1:],
        )

    def of_mirrored(self, thumbnail: Tensor) -> ToneMap:
        """The mean of the maps of a thumbnail and its three mirror images: part of what each of them says is chance."""
        axes = ((), (3,), (2,), (2, 3))
        tone = self(torch.cat([thumbnail.flip(mirrored) for mirrored in axes]))

        def mean(values: Tensor) -> Tensor:
            return torch.stack(values.chunk(len(axes))).mean(0)

        def unmirrored(fields: Tensor) -> Tensor:
            return torch.cat([part.flip(a) for part, a in zip(fields.chunk(len(axes)), axes, strict=True)])

        return ToneMap(mean(tone.curve), mean(tone.matrix), mean(unmirrored(tone.gain)), mean(unmirrored(tone.offset)))


def _levels(quantiles: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Black and white, N × 3 × 1, for each of LEVELS: of the channels one by one, then of all together."""
    for low, high in LEVELS:
        black, white = quantiles[..., low, None], quantiles[..., high, None]
        yield black, white
        yield black.amin(1, keepdim=True), white.amax(1, keepdim=True)


def _stretch(values: Tensor, black: Tensor, white: Tensor) -> Tensor:
    """Take ``black`` to 0 and ``white`` to 1."""
    return (values - black) / (white - black).clamp_min(0.1)
