"""Fill holes smoothly before a network sees them: pyramid diffusion, fast at any size.

Push-pull (Gortler et al., *The Lumigraph*, SIGGRAPH 1996, sec. 3.4.1): averages of the known pixels are pushed down a
pyramid until every hole is covered, then pulled up into the holes only.
"""

from __future__ import annotations

import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.pyramid import blend_into, doubled, halve, strips

_KNOWN_ENOUGH = 0.5

_FAINT = 0.1
"""Masks below this are the noise of a mask saved as JPEG, not a hole."""


def prefill(picture: FloatImage, mask: FloatImage) -> FloatImage:
    """Return a copy of ``picture`` (H × W × 3) whose holes are diffused in from their surroundings.

    ``mask`` is H × W in [0, 1], 1 = hole; partly masked pixels are mixed. A picture that is all hole comes back as
    it is. Memory: the copy, two masks, and half as much again.
    """
    hidden = np.clip(mask, 0, 1)
    known = (hidden < _FAINT).astype(np.float32)
    filled = picture.copy()
    if known.all() or not known.any():
        return filled
    _fill(filled, known)
    for rows in strips(len(filled)):
        blend_into(filled[rows], picture[rows], hidden[rows][..., None])
    return filled


def _fill(picture: FloatImage, weight: FloatImage) -> None:
    """Fill ``picture`` in place where ``weight`` is below 1."""
    if weight.min() > _KNOWN_ENOUGH or max(weight.shape) == 1:
        return
    coarse, coarse_weight = halve(picture, weight), halve(weight)
    coarse /= np.maximum(coarse_weight, 1e-6)[..., None]
    # A coarse pixel is known as soon as a quarter of it is: holes close from their rims inwards.
    np.minimum(4 * coarse_weight, 1, out=coarse_weight)
    _fill(coarse, coarse_weight)
    for rows, pulled in doubled(coarse, picture.shape):
        blend_into(picture[rows], pulled, weight[rows][..., None])
