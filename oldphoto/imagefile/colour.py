"""Colour conversions that a file format forces: CMYK inks to RGB, and a gray profile where only RGB fits."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageCms


def srgb_profile() -> bytes:
    """Return an sRGB ICC profile, the same bytes every time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # LittleCMS stamps the profile with the time of its making (bytes 24 to 35 of the header).
    profile[24:36] = bytes.fromhex("07d000010001000000000000")
    return bytes(profile)


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image | None:
    """Convert an 8-bit picture (CMYK, L or RGB) from its profile to sRGB; None if the profile does not fit it."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(icc))
        target = ImageCms.ImageCmsProfile(BytesIO(srgb_profile()))
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def cmyk_to_rgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None, list[str]]:
    """Convert a CMYK picture to RGB.

    Returns
    -------
    image, icc, warnings
        The RGB picture; the sRGB profile, or None where no usable profile told which RGB the inks mean; what was lost.
    """
    converted = to_srgb(image, icc) if icc is not None else None
    if converted is not None:
        return converted, srgb_profile(), []
    reason = "has no colour profile" if icc is None else "has an unusable colour profile"
    return image.convert("RGB"), None, [f"CMYK photo {reason}: its colours are approximate"]
