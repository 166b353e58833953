"""The names of the classical methods, for whoever offers them before anything heavy is imported."""

from __future__ import annotations

from oldphoto.errors import UsageError

DEBLURRING = {
    "inverse": "The inverse filter, truncated.",
    "wiener": "The Wiener filter; see --balance.",
    "unsupervised-wiener": "The same, noise and signal estimated with it.",
    "richardson-lucy": "Richardson-Lucy iterations.",
    "tv": "Least total variation.",
    "hqs": "A learned denoiser as prior, by half-quadratic splitting (the default).",
}
"""The methods of deconvolution, with a line about each."""

DEFAULT = "hqs"

BYTES_A_PIXEL = {
    "inverse": 50, "wiener": 65, "hqs": 75, "unsupervised-wiener": 105, "richardson-lucy": 130, "tv": 195, "nlm": 80,
}  # fmt: skip
"""Bytes that a method takes for each pixel of a photo, that of the photo included, as measured; others take less."""

DENOISING = ("auto", "median", "adaptive-median", "tv", "tv-poisson", "nlm", "bm3d", "learned")


def require_deblurring(method: str) -> None:
    """Raise UsageError unless a method of deconvolution is known."""
    if method not in DEBLURRING:
        raise UsageError(f"{method}: not a method of deconvolution; use one of {', '.join(DEBLURRING)}")


def method_and_psf(text: str) -> tuple[str, str]:
    """What ``METHOD``, ``METHOD:PSF`` or ``auto`` names: a method, and the text of a point-spread function or "auto".

    Raises UsageError where it names none.
    """
    method, colon, psf = text.partition(":")
    if method == "auto" and colon:
        raise UsageError(f"{text}: auto finds the point-spread function itself; name a method to give it one")
    method = DEFAULT if method == "auto" else method
    require_deblurring(method)
    return method, psf or "auto"
