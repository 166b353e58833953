"""Deblurring photo after photo: a method, a point-spread function given or found, and what the method needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oldphoto.arrays import FloatImage, is_gray
from oldphoto.classical.blind import estimate_blur, find_psf
from oldphoto.classical.deconvolution import METHODS, check, deconvolve
from oldphoto.classical.noise import is_uniform
from oldphoto.classical.psf import PointSpread, parse
from oldphoto.errors import UsageError

if TYPE_CHECKING:
    from oldphoto.classical.learned import Denoiser

SURE = 0.5
"""The confidence from which on a blur that nobody asserted is undone."""

DEFAULT = "hqs"


@dataclass(frozen=True)
class Deblurred:
    """A deblurred photo, H × W × 3 in [0, 1], and the point-spread function it was deblurred with."""

    rgb: FloatImage
    psf: PointSpread


class Deblurrer:
    """Deblurs photos, with the network of the prior loaded once, if the method has one.

    ``method``: one of METHODS; ``psf``: a text as `oldphoto.classical.psf.parse` takes, or "auto", by which it is found
    for each photo; ``balance``: see `oldphoto.classical.deconvolution.deconvolve`.

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
        if method not in METHODS:
            raise UsageError(f"{method}: not a method of deconvolution; use one of {', '.join(METHODS)}")
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
        method, colon, psf = text.partition(":")
        if method == "auto" and colon:
            raise UsageError(f"{text}: auto finds the point-spread function itself; name a method to give it one")
        return cls(DEFAULT if method == "auto" else method, psf or "auto", None, device, checkpoints, tile)

    def deblur(self, rgb: FloatImage) -> Deblurred:
        """Deblur a photo, H × W × 3 in [0, 1]; the input is not changed.

        Raises PhotoError where it is too small, empty, or no blur is found in it.
        """
        psf = self.psf_of(rgb)
        return Deblurred(self.apply(rgb, psf, self.method), psf)

    def prefilter(self, rgb: FloatImage) -> FloatImage:
        """Deblur a photo with the point-spread function given, or only if one is found with confidence."""
        if is_uniform(rgb):
            return rgb
        if self.psf is not None:
            return self.apply(rgb, self.psf, self.method)
        blur = estimate_blur(rgb)
        if blur is None or blur.confidence < SURE:
            return rgb
        return self.apply(rgb, blur.psf, self.method)

    def psf_of(self, rgb: FloatImage) -> PointSpread:
        """The point-spread function given, or the one found in a photo. Raises PhotoError as deblur."""
        if self.psf is None:
            check(rgb)
        return self.psf or find_psf(rgb)

    def apply(self, rgb: FloatImage, psf: PointSpread, method: str) -> FloatImage:
        """Undo a blur by any method; a photo that is gray in all its pixels stays so."""
        if method == "hqs" and self.prior is None:
            self._load_prior()
        restored = deconvolve(rgb, psf, method, self.balance, self.prior)
        if is_gray(rgb):
            restored[:] = restored.mean(2, keepdims=True)
        return restored

    def _load_prior(self) -> None:
        from oldphoto.classical.learned import Denoiser

        self.prior = Denoiser(*self._prior_of)


def deblur(rgb: FloatImage, psf: str = "auto", method: str = DEFAULT) -> FloatImage:
    """Deblur one picture, H × W × 3 in [0, 1], its prior loaded for it alone: see Deblurrer for many."""
    return Deblurrer(method, psf).deblur(rgb).rgb
