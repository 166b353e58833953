"""Fill holes smoothly before a network sees them: pyramid diffusion, fast at any size.

Push-pull (Gortler et al., *The Lumigraph*, SIGGRAPH 1996, sec. 3.4.1): averages of the known pixels are pushed down a
pyramid until every hole is covered, then pulled up into the holes only.
"""

from __future__ import annotations

import cv2
import numpy as np

from oldphoto.arrays import FloatImage

_KNOWN_ENOUGH = 0.5


def prefill(picture: FloatImage, mask: FloatImage) -> FloatImage:
    """Return a copy of ``picture`` (H × W × 3) whose holes are diffused in from their surroundings.

    ``mask`` is H × W in [0, 1], 1 = hole; partly masked pixels are mixed. A picture that is all hole comes back as
    it is. Memory: about three times the picture.
    """
    weight = 1 - np.clip(mask, 0, 1)
    if not weight.any():
        return picture.copy()
    if weight.all() and mask.max() == 0:
        return picture.copy()
    return _fill(picture, weight)


def _fill(picture: FloatImage, weight: FloatImage) -> FloatImage:
    height, width = weight.shape
    if weight.min() > _KNOWN_ENOUGH or max(height, width) == 1:
        return picture
    small = (-(-width // 2), -(-height // 2))
    small_weight = cv2.resize(weight, small, interpolation=cv2.INTER_AREA)
    pushed = cv2.resize(picture * weight[..., None], small, interpolation=cv2.INTER_AREA)
    pushed /= np.maximum(small_weight, 1e-6)[..., None]
    # A coarse pixel is known as soon as a quarter of it is: holes close from their rims inwards.
    coarse = _fill(pushed, np.minimum(4 * small_weight, 1))
    pulled = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    pulled += weight[..., None] * (picture - pulled)
    return pulled
