"""What a worker loads for the command that it works for.

Apart from the command line, which a worker has no use for: it is pickled by the name of its module, and to import that
would be a part of every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oldphoto.arrays import FloatImage
    from oldphoto.batch import Work


def weights_folder(weights: str | None) -> Path | None:
    """Return the folder that --weights names, None for the default."""
    if weights is None:
        return None
    if weights == "bundled":
        from oldphoto.checkpoints import bundled_folder

        return bundled_folder()
    if weights == "published":
        from oldphoto.published_weights import installed

        return installed()
    return Path(weights)


def restoring(options: Mapping[str, Any], weights: str | None, **others: Any) -> Work:
    """Load what restores photos, of this place or at URLs; ``options`` are those of `RestoreOptions`."""
    from oldphoto import work
    from oldphoto.pipeline import RestoreOptions
    from oldphoto.remote import staging

    make = partial(work.restoring, RestoreOptions(**options), checkpoints=weights_folder(weights), **others)
    return staging(make)


def finding_masks(weights: str | None, **options: Any) -> Work:
    """Load what finds damage."""
    from oldphoto import work

    return work.finding_masks(checkpoints=weights_folder(weights), **options)


def deblurring(how: tuple[str, str, float | None], weights: str | None, **others: Any) -> Work:
    """Load what deblurs; ``how``: the method, the point-spread function and the balance."""
    from oldphoto.classical import work
    from oldphoto.classical.deblurring import Deblurrer

    def make(tile: int | None, device: str) -> Deblurrer:
        return Deblurrer(*how, device, weights_folder(weights), tile)

    return work.deblurring(make, weights=_hash_of_denoiser(weights) if how[0] == "hqs" else {}, **others)


def denoising(method: str, weights: str | None, **options: Any) -> Work:
    """Load what takes noise out."""
    from oldphoto.classical import denoising
    from oldphoto.classical.learned import Denoiser
    from oldphoto.work import Filter, Filtered, filtering

    denoising.require(method)

    def make(tile: int | None, device: str) -> Filter:
        learned = method in denoising.NEEDS_NETWORK
        denoiser = Denoiser(device, weights_folder(weights), tile) if learned else None

        def change(rgb: FloatImage) -> Filtered:
            denoised = denoising.denoise(rgb, method, denoiser)
            noise = {} if denoised.noise is None else {"noise": f"{denoised.noise.type} {denoised.noise.level:g}"}
            return Filtered(denoised.rgb, {"method": method} | noise)

        return change

    hashes = _hash_of_denoiser(weights) if method in denoising.NEEDS_NETWORK else {}
    return filtering(make, "denoise", weights=hashes, **options)


def _hash_of_denoiser(weights: str | None) -> dict[str, str]:
    from oldphoto import checkpoints

    _, record = checkpoints.find("denoiser", checkpoints.own_folder(weights_folder(weights)))
    return {record.name: record.sha256}


def ageing(**options: Any) -> Work:
    """Load what ages photos."""
    from oldphoto import work

    return work.ageing(**options)
