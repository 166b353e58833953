"""Fill holes smoothly before a network sees them: pyramid diffusion, fast at any size.

Push-pull (Gortler et al., *The Lumigraph*, SIGGRAPH 1996, sec. 3.4.1): averages of the known pixels are pushed down a
pyramid until every hole is covered, then pulled up into the holes only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from oldphoto.arrays import FloatImage, HalfImage
from oldphoto.pyramid import blend_into, doubled, halve, to_float
from oldphoto.sparse import SparsePicture

FAINT = 0.1
"""Masks below this are the noise of a mask saved as JPEG, not a hole."""


def prefill(picture: FloatImage, mask: FloatImage) -> FloatImage:
    """Return a copy of ``picture`` (H × W × 3) whose holes are diffused in from their surroundings.

    ``mask`` is H × W in [0, 1], 1 = hole; partly masked pixels are mixed. A picture that is all hole comes back as
    it is.
    """
    filled = picture.copy()
    fill_holes(filled, mask)
    return filled


def fill_holes(picture: FloatImage, mask: FloatImage | HalfImage) -> SparsePicture:
    """As `prefill`, in place; returns what is hidden now: the picture as it was minus as it is, H × W × 3.

    Memory besides that: a third as much as the picture, and half a mask.
    """
    known = (mask < FAINT).astype(np.float16)

    def filled() -> Iterator[tuple[NDArray[np.bool_], FloatImage]]:
        for rows, pulled in doubled(_coarser(picture, known), picture.shape):
            holes = known[rows] == 0
            share = np.clip(to_float(mask[rows][holes]), 0, 1)
            before = picture[rows][holes]
            after = before.copy()
            blend_into(after, pulled[holes], (1 - share)[:, None])
            picture[rows][holes] = after
            yield holes, before - after

    return SparsePicture(picture.shape, filled() if known.any() and not known.all() else ())


def _coarser(picture: FloatImage, weight: HalfImage) -> FloatImage:
    """Half the size of a picture that is known where ``weight`` is 1 and a hole where it is 0, all holes filled."""
    coarse, coarse_weight = halve(picture, weight), halve(weight)
    coarse /= np.maximum(coarse_weight, 0.25)[..., None]
    # A coarse pixel is known as soon as a quarter of it is: holes close from their rims inwards.
    np.minimum(4 * coarse_weight, 1, out=coarse_weight)
    if coarse_weight.min() == 0 and max(coarse_weight.shape) > 1:
        for rows, pulled in doubled(_coarser(coarse, coarse_weight), coarse.shape):
            blend_into(coarse[rows], pulled, coarse_weight[rows][..., None])
    return coarse
