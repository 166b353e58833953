"""Fill holes smoothly before a network sees them: pyramid diffusion, fast at any size.

Push-pull (Gortler et al., *The Lumigraph*, SIGGRAPH 1996, sec. 3.4.1): averages of the known pixels are pushed down a
pyramid until every hole is covered, then pulled up into the holes only.
"""

from __future__ import annotations

import numpy as np

from oldphoto.arrays import FloatImage
from oldphoto.pyramid import doubled, halve

_KNOWN_ENOUGH = 0.5


def prefill(picture: FloatImage, mask: FloatImage) -> FloatImage:
    """Return a copy of ``picture`` (H × W × 3) whose holes are diffused in from their surroundings.

    ``mask`` is H × W in [0, 1], 1 = hole; partly masked pixels are mixed. A picture that is all hole comes back as
    it is. Memory: the copy, the mask's negative, and half as much again.
    """
    filled = picture.copy()
    if mask.any() and not mask.all():
        _fill(filled, 1 - np.clip(mask, 0, 1))
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
        share = weight[rows][..., None]
        picture[rows] = pulled + share * (picture[rows] - pulled)
