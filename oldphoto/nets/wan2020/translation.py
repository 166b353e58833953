"""Encoder, mapping and decoder in a row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oldphoto.nets.wan2020.autoencoder import Decoder, Encoder
from oldphoto.nets.wan2020.mapping import Mapping


class Translation(nn.Module):
    """What inference needs of the triplet: encoder of old photographs, mapping, decoder of clean ones.

    ``forward(picture, mask)``: H and W multiples of ``multiple``, ``mask`` of zeros and ones. The mappings for
    structured damage were trained on pictures whose damage is painted white, and so it is here.
    """

    def __init__(self, kind: str = "quality", width: int = 64) -> None:
        super().__init__()
        self.multiple = 32 if kind == "hr" else 4
        self.masked = kind != "quality"
        self.encoder = Encoder(width)
        self.mapping = Mapping(kind, width)
        self.decoder = Decoder(width)

    def forward(self, picture: Tensor, mask: Tensor) -> Tensor:
        if self.masked:
            picture = torch.where(mask > 0.5, 1, picture)
        translated: Tensor = self.decoder(self.mapping(self.encoder(picture), mask))
        return translated
