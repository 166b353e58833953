"""The translation of old photographs into clean ones: encode, map, decode, and add what changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oldphoto.nets.autoencoder import Autoencoder, Decoder, Encoder
from oldphoto.nets.mapping import FUSED, DetailBranch, Mapping
from oldphoto.nets.windows import Window

REACH = 20
"""Pixels that the decoder and the detail branch see around each; 18 and 16 in truth."""

BAND = 448
"""Rows whose picture is decoded at a time, at most: the features of half size are the largest."""


class TranslationNet(nn.Module):
    """What inference needs of the triplet: the encoder of old photographs, the mapping, the decoder of clean ones.

    ``forward(picture, mask, hidden)``: ``picture`` N × 3 × H × W in [0, 1] with its holes prefilled, ``mask`` N × 1 ×
    H × W, how surely each pixel is damaged, ``hidden`` N × 3 × H × W, the photo minus ``picture``: what prefilling
    covered, so that a false alarm can be undone. H and W are multiples of ``multiple``. Returns ``picture`` plus the
    difference that the mapping makes to the decoded picture, plus the change of the detail branch: what the
    autoencoders lose is not lost, and a network that has nothing to change changes nothing. If ``wanted`` is given,
    whose sides are multiples of ``multiple`` too, that part alone.
    """

    multiple = Mapping.multiple

    def __init__(self, channels: int = 64, width: int = 32) -> None:
        super().__init__()
        self.encoder = Encoder(channels, width)
        self.mapping = Mapping(channels)
        self.decoder = Decoder(channels, width)
        self.detail = DetailBranch(channels, width)

    @classmethod
    def from_stages(cls, old: Autoencoder, mapping: Mapping, clean: Autoencoder) -> TranslationNet:
        """Join separately trained stages; the modules are shared, not copied."""
        net = cls()
        net.encoder, net.mapping, net.decoder = old.encoder, mapping, clean.decoder
        return net

    def forward(self, picture: Tensor, mask: Tensor, hidden: Tensor, wanted: Window | None = None) -> Tensor:
        whole = Window.whole(picture)
        wanted = wanted or whole
        mapped_part = wanted.grown(FUSED, whole)
        latent, fine = self.encoder.encode_in_detail(picture)
        mapped = self.mapping(latent, mask, hidden, wanted)

        def decoded(band: Window) -> Tensor:
            seen = band.grown(REACH, whole)
            before, after = seen.of(latent, 4), seen.of(mapped, 4, mapped_part)
            change = self.detail(seen.of(fine, 2), after - before, seen.of(mask), seen.of(hidden))
            change = change.add_(self.decoder(after)).sub_(self.decoder(before))
            # The picture keeps its precision where the networks compute in half of it.
            return band.of(change.float(), 1, seen) + band.of(picture)

        return torch.cat([decoded(band) for band in wanted.bands(BAND, self.multiple)], 2)
