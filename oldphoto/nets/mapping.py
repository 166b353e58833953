"""The mapping from the latents of old photographs to those of clean ones (Wan et al., CVPR 2020, sec. 3.2, 3.3).

Two branches: a *local* one of residual blocks for what can be repaired in place, and a *global* one with a partial
non-local block, which borrows from undamaged places only. Both are fused into a change of the latent.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oldphoto.nets.blocks import Downsample, ResidualBlock, Upsample, residual_blocks, start_at_zero
from oldphoto.nets.windows import Window

LOCAL, FUSED = 64, 40
"""Pixels around what is wanted that the local branch and what follows it see; 62 and 38 in truth."""

BAND = 4
"""Rows of groups whose attention is computed at a time: their windows hold every key nine times."""


class PartialNonLocal(nn.Module):
    """Attention whose keys are limited to undamaged cells of the neighbourhood.

    The softmax over masked keys equals eq. 6 of Wan et al. (affinities times one minus the mask, renormalised).
    Queries of a ``block`` × ``block`` group of cells attend to the group and a ``halo`` of cells around it (Vaswani et
    al., *HaloNet*, CVPR 2021), so that the result at a place depends on a bounded surrounding: a tile and the whole
    picture give the same, and cost grows with the pixels.
    """

    def __init__(self, channels: int, heads: int = 4, block: int = 4, halo: int = 4) -> None:
        super().__init__()
        self.heads, self.block, self.halo = heads, block, halo
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1)
        self.merge = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.2))
        window = block + 2 * halo
        self.position = nn.Parameter(torch.zeros(heads, block * block, window * window))

    def forward(self, features: Tensor, intact: Tensor) -> Tensor:
        """``features`` N × C × H × W, H and W multiples of ``block``; ``intact`` N × 1 × H × W in [0, 1]."""
        queries, around = self.query(features), (self.halo,) * 4
        keys_values, trust = F.pad(self.key_value(features), around), F.pad(intact, around)
        attended = torch.empty_like(features, dtype=queries.dtype)
        for top in range(0, features.shape[2], BAND * self.block):
            band, seen = slice(top, top + BAND * self.block), slice(top, top + BAND * self.block + 2 * self.halo)
            attended[:, :, band] = self._attended(queries[:, :, band], keys_values[:, :, seen], trust[:, :, seen])
        merged: Tensor = features + self.scale * self.merge(attended)
        return merged

    def _attended(self, queries: Tensor, keys_values: Tensor, trust: Tensor) -> Tensor:
        """What is found for the queries of whole groups; of all else, the halo around them is given, too."""
        n, rows, columns = len(queries), queries.shape[2] // self.block, queries.shape[3] // self.block

        def windows(x: Tensor, side: int, heads: int) -> Tensor:
            # N × C × H × W -> (N rows columns) × heads × cells × C/heads
            x = x.unfold(2, side, self.block).unfold(3, side, self.block)
            x = x.view(n, heads, -1, *x.shape[2:]).permute(0, 3, 4, 1, 5, 6, 2)
            return x.reshape(n * rows * columns, heads, side**2, -1)

        wide = self.block + 2 * self.halo
        keys, values = (windows(x, wide, self.heads) for x in keys_values.chunk(2, 1))
        # The log of the intact share lets a half-damaged cell count half; the floor keeps a fully damaged
        # neighbourhood defined (it then attends evenly to nothing useful, and the merge learns to ignore it).
        bias = self.position + windows(trust, wide, 1).clamp_min(1e-30).log().transpose(2, 3)
        found = F.scaled_dot_product_attention(
            windows(queries, self.block, self.heads), keys, values, bias.to(keys.dtype)
        )
        found = found.reshape(n, rows, columns, self.heads, self.block, self.block, -1)
        return found.permute(0, 3, 6, 1, 4, 2, 5).reshape(queries.shape)


class Mapping(nn.Module):
    """Latents of an old photograph and its mask to the latents of the clean one.

    ``forward(latent, mask, hidden)``: ``latent`` N × channels × H/4 × W/4, ``mask`` N × 1 × H × W in [0, 1] (1 =
    damaged) and ``hidden`` N × 3 × H × W as in `TranslationNet`, H and W multiples of 64; returns the mapped latent,
    which equals the given one before training. If ``part`` is given, whose sides are multiples of ``multiple``, it is
    the mapped latent of that part and FUSED px around it, the outer half of which is of no use; only the global branch
    sees more than LOCAL px around the part.
    """

    multiple = 64

    def __init__(
        self,
        channels: int = 64,
        local_blocks: int = 3,
        fuse_blocks: int = 2,
        global_widths: tuple[int, int] = (96, 160),
    ) -> None:
        super().__init__()
        wide, widest = global_widths
        self.mask_stem = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(64, channels, 1))
        self.enter = nn.Conv2d(channels, channels, 3, padding=1)
        self.local = residual_blocks(channels, local_blocks)
        self.down = nn.Sequential(Downsample(channels, wide), ResidualBlock(wide), Downsample(wide, widest))
        self.before = residual_blocks(widest, 2)
        self.non_local = PartialNonLocal(widest)
        self.after = residual_blocks(widest, 2)
        self.up = nn.Sequential(Upsample(widest, wide), ResidualBlock(wide), Upsample(wide, channels))
        self.fuse = residual_blocks(channels, fuse_blocks)
        self.leave = start_at_zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, latent: Tensor, mask: Tensor, hidden: Tensor, part: Window | None = None) -> Tensor:
        whole = Window.whole(mask)
        local, fused = ((part or whole).grown(reach, whole) for reach in (LOCAL, FUSED))
        features = self.enter(latent).add_(self.mask_stem(torch.cat([mask, hidden], 1)))
        coarse = self.before(self.down(features))
        coarse = self.after(self.non_local(coarse, 1 - F.avg_pool2d(mask, 16)))
        both = (
            self.up(local.of(coarse, 16)),
            self.local(local.of(features, 4).contiguous(memory_format=torch.channels_last)),
        )
        mapped: Tensor = self.leave(self.fuse(torch.add(*(fused.of(branch, 4, local) for branch in both))))
        return mapped.add_(fused.of(latent, 4))


class DetailBranch(nn.Module):
    """A second residual local branch, at half size, for what the latent is too coarse for: grain, hairlines, edges.

    It sees the encoder's fine features, what the mapping did to the latent, the mask and what it hides, and gives a
    change of the picture, N × 3 × H × W, which is zero before training.
    """

    def __init__(self, channels: int = 64, fine_width: int = 32, width: int = 40, blocks: int = 3) -> None:
        super().__init__()
        self.fine = nn.Conv2d(fine_width, width, 3, padding=1)
        self.mapped = Upsample(channels, width)
        self.mask_stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, width, 1))
        self.body = residual_blocks(width, blocks)
        self.head = nn.Sequential(start_at_zero(nn.Conv2d(width, 12, 3, padding=1)), nn.PixelShuffle(2))

    def forward(self, fine: Tensor, mapped: Tensor, mask: Tensor, hidden: Tensor) -> Tensor:
        seen = self.fine(fine).add_(self.mapped(mapped)).add_(self.mask_stem(torch.cat([mask, hidden], 1)))
        change: Tensor = self.head(self.body(seen))
        return change
