"""The way of a photo through all stages: deblur where asked, mask, translate, faces, blend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oldphoto.arrays import FloatImage, HalfImage, as_image, is_gray, neutralise
from oldphoto.blending import blend_all
from oldphoto.errors import PhotoError, UsageError
from oldphoto.faces import Detector, Face, FaceFinder, IdentityGuard, crop_face
from oldphoto.stages import face_refiner, scratch_detector, translator

if TYPE_CHECKING:
    from oldphoto.classical.deblurring import Deblurrer


@dataclass(frozen=True)
class RestoreOptions:
    """What a restoration does.

    ``with_scratch``: find and repair structured damage; ``faces``: refine faces; ``strength``: share of the whole
    change, 0 to 1; ``tile``: side of the tiles in px (smaller needs less memory), None for the default; ``deblur``:
    "METHOD[:PSF]" to deblur first, "auto" to do so where blur is found with confidence; ``large_scans``: of the
    published networks, those for large scans; ``face_fidelity``: 0 for faces as refined, up to 1 for faces as the photo
    shows them; ``face_model``: a file of a face restorer to use in place of the bundled one; ``face_detector``: what
    finds faces (see FaceFinder); ``own_masks``: masks will come with the photos, so that weights which cannot repair
    damage are refused at once.
    """

    with_scratch: bool = False
    faces: bool = True
    strength: float = 1.0
    tile: int | None = None
    deblur: str | None = None
    large_scans: bool = False
    face_fidelity: float = 0.0
    face_model: Path | None = None
    face_detector: Detector = "hog"
    own_masks: bool = False


@dataclass(frozen=True, eq=False)
class Restoration:
    """A restored photo and how it came about.

    ``rgb``: H × W × 3 in [0, 1]; ``mask``: H × W, 1 = repaired as damaged, None where no damage was looked for;
    ``faces``: those found; ``seconds``: by stage; ``warnings``: what the user should know, such as a face whose
    refinement would have changed the person.
    """

    rgb: FloatImage
    mask: FloatImage | None
    faces: tuple[Face, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Restorer:
    """Restores photo after photo, with networks loaded once.

    Raises
    ------
    CheckpointError
        Weights are missing or altered.
    UsageError
        The device is unknown or absent, the strength or the fidelity is not in [0, 1], or the tile, the face detector
        or the face model is none.
    """

    def __init__(
        self,
        options: RestoreOptions = RestoreOptions(),
        device: str = "auto",
        checkpoints: Path | None = None,
    ) -> None:
        if not 0 <= options.strength <= 1:
            raise UsageError(f"strength {options.strength}: must be between 0 and 1")
        if not 0 <= options.face_fidelity <= 1:
            raise UsageError(f"face fidelity {options.face_fidelity}: must be between 0 and 1")
        if options.tile is not None and options.tile < 1:
            raise UsageError(f"tile {options.tile}: must be a number of pixels")
        self.options = options
        self.deblurrer = _deblurrer(options, device, checkpoints) if options.deblur else None
        masked, large = options.with_scratch or options.own_masks, options.large_scans
        self.detector = scratch_detector(device, checkpoints, options.tile) if options.with_scratch else None
        self.translator = translator(device, checkpoints, options.tile, masked, large)
        self.finder = FaceFinder(options.face_detector) if options.faces else None
        self.refiner = face_refiner(device, checkpoints, large, options.face_model) if options.faces else None
        self.guard = IdentityGuard() if options.faces else None

    def restore(
        self, rgb: FloatImage, mask: FloatImage | None = None, gray: bool = False, in_place: bool = False
    ) -> Restoration:
        """Restore one photo.

        Parameters
        ----------
        rgb : float32 H × W × 3 in [0, 1]; values beyond are cut off
        mask : float32 H × W in [0, 1], or bool, 1 = damaged; takes the place of the detector
        gray : the photo is black and white by its kind, and its restoration shall be so too, as that of a photo is
            whose three channels are equal
        in_place : the memory of ``rgb`` may be used for the result, which takes a third less; what is in it after an
            error is undefined. Else ``rgb`` is not changed

        Raises
        ------
        PhotoError
            The picture or the mask has another shape, is of integers or holds values that are no numbers, or the
            point-spread function to deblur with is larger.
        """
        rgb = as_image(rgb, 3, "a photo", in_place)
        mask = None if mask is None else as_image(mask, 2, "a mask")
        if mask is not None and mask.shape != rgb.shape[:2]:
            raise PhotoError(f"the mask is {_size(mask)} px, the photo {_size(rgb)}: they must be of one size")
        gray = gray or is_gray(rgb)
        seconds: dict[str, float] = {}
        damage: FloatImage | HalfImage | None = mask
        if self.deblurrer is not None:
            with _timed(seconds, "deblur"):
                rgb = rgb + np.float32(self.options.strength) * (self.deblurrer.prefilter(rgb) - rgb)
        if mask is None and self.detector is not None:
            with _timed(seconds, "mask"):
                damage = self.detector.detect(rgb).astype(np.float16)  # of a large scan, that is 50 MB less to hold
        with _timed(seconds, "translate"):
            restored = self.translator.translate(rgb, damage, self.options.strength, in_place)
            if gray:
                neutralise(restored)
        faces: tuple[Face, ...] = ()
        warnings: tuple[str, ...] = ()
        if self.finder is not None and self.options.strength > 0:
            with _timed(seconds, "faces"):
                faces = tuple(self.finder.find(restored))
                if faces:
                    restored, warnings = self._refine(restored, faces)
                if faces and gray:
                    neutralise(restored)
        mask = None if damage is None else damage.astype(np.float32, copy=False)
        return Restoration(restored, mask, faces, seconds, warnings)

    def _refine(self, rgb: FloatImage, faces: tuple[Face, ...]) -> tuple[FloatImage, tuple[str, ...]]:
        """The photo, its faces refined in place as far as they stay who they are, and what to say of the others."""
        assert self.refiner is not None and self.guard is not None
        wanted = np.float32(self.options.strength * (1 - self.options.face_fidelity))
        if wanted == 0:
            return rgb, ()
        pairs, shares = [], []
        for face in faces:
            crop = crop_face(rgb, face)
            change = wanted * (self.refiner.refine(crop) - crop)
            shares.append(self.guard.share(crop, crop + change))
            if shares[-1] > 0:
                pairs.append((face, crop + np.float32(shares[-1]) * change))
        return blend_all(rgb, pairs, in_place=True), _told(shares)


def restore(rgb: FloatImage, mask: FloatImage | None = None, options: RestoreOptions | None = None) -> FloatImage:
    """Restore one picture, H × W × 3 in [0, 1], with networks loaded for it alone: see Restorer for many."""
    return Restorer(options or RestoreOptions(with_scratch=True)).restore(rgb, mask).rgb


def _deblurrer(options: RestoreOptions, device: str, checkpoints: Path | None) -> Deblurrer:
    from oldphoto.classical.deblurring import Deblurrer  # what it needs of SciPy takes half a second to import

    return Deblurrer.from_text(options.deblur or "", device, checkpoints, options.tile)


def _told(shares: list[float]) -> tuple[str, ...]:
    """What to say where the identity guard let only a share of a refinement through."""
    less, none = sum(0 < share < 1 for share in shares), sum(share == 0 for share in shares)
    if not less + none:
        return ()
    parts = [f"{count} {how}" for count, how in ((less, "refined less"), (none, "left as found")) if count]
    whole = f"of {len(shares)} {'face' if len(shares) == 1 else 'faces'}"
    return (f"{' and '.join(parts)} {whole}: refinement would have changed who it shows",)


def _size(picture: FloatImage) -> str:
    return f"{picture.shape[1]} × {picture.shape[0]}"


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
