"""Deblurring photo after photo: a method, a point-spread function given or found, and what the method needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oldphoto.arrays import FloatImage, is_gray, neutralise
from oldphoto.classical.blind import estimate_blur, find_psf
from oldphoto.classical.deconvolution import check, deconvolve
from oldphoto.classical.margins import inside_margin
from oldphoto.classical.methods import DEFAULT, method_and_psf, require_deblurring
from oldphoto.classical.noise import is_uniform, noise_sigma
from oldphoto.classical.psf import PointSpread, blur, parse
from oldphoto.errors import PhotoError

if TYPE_CHECKING:
    from oldphoto.classical.learned import Denoiser

SURE = 0.5
"""The confidence from which on a blur that nobody asserted is undone."""

MISFIT = 0.06
"""Blurred again, 99 % of a deblurred photo's values differ from the photo by less than this, of 1, and what three
standard deviations of its noise explain; else the blur was another one, or not everywhere."""


@dataclass(frozen=True)
class Deblurred:
    """A deblurred photo, H × W × 3 in [0, 1], and the point-spread function it was deblurred with."""

    rgb: FloatImage
    psf: PointSpread


class Deblurrer:
    """Deblurs photos, with the network of the prior loaded once, if the method has one.

    ``method``: one of `oldphoto.classical.methods.DEBLURRING`; ``psf``: a text as `oldphoto.classical.psf.parse` takes,
    or "auto", by which it is found for each photo; ``balance``: see `oldphoto.classical.deconvolution.deconvolve`.

    Raises
    ------
    UsageError
        The method or the point-spread function is none, or the device is unknown or absent.
    CheckpointError
        The weights of the prior are missing or altered.
    """

    def __init__(
        self,
        method: str = DEFAULT,
        psf: str = "auto",
        balance: float | None = None,
        device: str = "auto",
        checkpoints: Path | None = None,
        tile: int | None = None,
    ) -> None:
        require_deblurring(method)
        self.method, self.balance = method, balance
        self.psf = None if psf == "auto" else parse(psf)
        self._prior_of = (device, checkpoints, tile)
        self.prior: Denoiser | None = None
        if method == "hqs":
            self._load_prior()

    @classmethod
    def from_text(
        cls, text: str, device: str = "auto", checkpoints: Path | None = None, tile: int | None = None
    ) -> Deblurrer:
        """The deblurrer that ``METHOD``, ``METHOD:PSF`` or ``auto`` names. Raises as the constructor."""
        return cls(*method_and_psf(text), None, device, checkpoints, tile)

    def deblur(self, rgb: FloatImage) -> Deblurred:
        """Deblur a photo, H × W × 3 in [0, 1]; the input is not changed.

        Raises PhotoError where it is too small, empty, or no blur is found in it.
        """
        psf = self.psf_of(rgb)
        restored = self.apply(rgb, psf, self.method)
        if self.psf is None and not explains(psf, restored, rgb):
            raise PhotoError(f"the blur found ({psf.text}) does not explain the photo: name another with --psf")
        return Deblurred(restored, psf)

    def prefilter(self, rgb: FloatImage) -> FloatImage:
        """Deblur a photo with the point-spread function given, or only if one is found with confidence and fits."""
        if is_uniform(rgb):
            return rgb
        if self.psf is not None:
            return self.apply(rgb, self.psf, self.method)
        found = estimate_blur(rgb[inside_margin(rgb)])
        if found is None or found.confidence < SURE:
            return rgb
        restored = self.apply(rgb, found.psf, self.method)
        return restored if explains(found.psf, restored, rgb) else rgb

    def psf_of(self, rgb: FloatImage) -> PointSpread:
        """The point-spread function given, or the one found in a photo. Raises PhotoError as deblur."""
        if self.psf is None:
            check(rgb)
        return self.psf or find_psf(rgb[inside_margin(rgb)])

    def apply(self, rgb: FloatImage, psf: PointSpread, method: str) -> FloatImage:
        """Undo a blur by any method; a photo that is gray in all its pixels stays so, and a margin as it is."""
        if method == "hqs" and self.prior is None:
            self._load_prior()
        inside, restored = inside_margin(rgb), rgb.copy()
        restored[inside] = deconvolve(rgb[inside], psf, method, self.balance, self.prior)
        if is_gray(rgb):
            neutralise(restored)
        return restored

    def _load_prior(self) -> None:
        from oldphoto.classical.learned import Denoiser

        self.prior = Denoiser(*self._prior_of)


def explains(psf: PointSpread, restored: FloatImage, rgb: FloatImage) -> bool:
    """Whether a deblurred photo, blurred by ``psf``, is the photo but for its noise; both H × W × 3, see MISFIT."""
    inside = inside_margin(rgb)
    seen = rgb[inside]
    misfit = np.abs(blur(restored[inside], psf) - seen)
    # At its edges a photo shows what was beyond them.
    down, across = (min(reach, (side - 1) // 2) for reach, side in zip(psf.kernel.shape, seen.shape, strict=False))
    core = misfit[down : len(seen) - down, across : seen.shape[1] - across]
    return bool(np.quantile(core, 0.99) < MISFIT + 3 * noise_sigma(seen))


def deblur(rgb: FloatImage, psf: str = "auto", method: str = DEFAULT) -> FloatImage:
    """Deblur one picture, H × W × 3 in [0, 1], its prior loaded for it alone: see Deblurrer for many."""
    return Deblurrer(method, psf).deblur(rgb).rgb
