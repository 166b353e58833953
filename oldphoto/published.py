"""The stages that run the published networks of Wan et al., with the contracts of the project's own stages.

Before and after the networks all is done as published (detector at a short side of 256 px, damage painted white, masks
grown for large scans), but for what harms photographs: sizes are padded by reflection and cut back, not resized; the
result is not stretched to the full range; every side comes out whole; a picture that is all damage is no error.

The networks normalise by statistics of the whole picture. A picture of up to WHOLE pixels goes through in one piece;
a larger one in overlapping tiles that fade into each other. Each tile has statistics of its own, so the result is not
that of the whole, and how far it is depends on the weights: give a larger tile where the memory allows it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage, HalfImage
from oldphoto.errors import CheckpointError
from oldphoto.faces import CANONICAL, CROP
from oldphoto.nets.wan2020.detector import Detector
from oldphoto.nets.wan2020.faces import FaceGenerator
from oldphoto.nets.wan2020.translation import Translation
from oldphoto.pyramid import strips
from oldphoto.tiling import run_overlapping, run_tiled

DETECTOR_SIDE = 256
"""Short side, px, of the picture that the detector sees, however large the photo is."""

THRESHOLD = 0.4
"""Probability from which on a pixel counts as damaged."""

_LUMA = np.array([19595, 38470, 7471], np.int32)
"""ITU-R BT.601 in units of 2^-16."""

GROWTH = 3
"""Pixels by which the mask is grown for the networks for large scans."""

WHOLE = 1_600_000
"""Pixels up to which a picture is translated in one piece: about 3 GB."""

TILE, OVERLAP = 1024, 256
"""Sides of the tiles of larger pictures and of what they have in common, px."""

_SMALLEST = 32
"""Sides below it are padded to it: deeper layers would have nothing to reflect or to normalise."""

_LONGEST = 16384
"""Long side, px, of what the detector sees, up to which its short side is DETECTOR_SIDE."""

_LACKING = {
    "quality": "the network for photos without a mask",
    "scratch": "the network that repairs scratches",
    "hr": "the network that repairs damage in large scans",
}

_PLACES = np.array([[196, 226], [316, 226], [256, 286], [220, 360.4], [292, 360.4]]) / 256 - 1
TEMPLATE = CROP * (1.3 * _PLACES + 1) / 2
"""Centres of the eyes, tip of the nose and corners of the mouth on the published square, (x, y) in px."""


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The similarity, 2 × 3, that takes points N × 2 nearest to others: least squares (Umeyama, PAMI 1991)."""
    a, b = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    centred = a - a.mean()
    factor = np.vdot(centred, b - b.mean()) / np.vdot(centred, centred)
    shift = b.mean() - factor * a.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


SQUARE = similarity(np.array([CANONICAL[2:4].mean(0), CANONICAL[:2].mean(0)]), TEMPLATE[:2])
"""From the project's own crop to the published square, where a face is a little larger; eyes are put on eyes."""


class PublishedDetector:
    """Finds structured damage, photo after photo, with one network loaded once.

    Raises CheckpointError or UsageError for missing weights or an unknown device.
    """

    def __init__(self, device: str = "auto", checkpoints_folder: Path | None = None) -> None:
        self.device = checkpoints.pick_device(device)
        self.net = checkpoints.load(Detector, "scratches", checkpoints_folder).eval().to(self.device)

    def detect(self, rgb: FloatImage) -> FloatImage:
        """The mask of a photo H × W × 3 in [0, 1]: H × W, 1 = damaged, 0 = intact."""
        return (self.probability(rgb) >= THRESHOLD).astype(np.float32)

    def probability(self, rgb: FloatImage) -> FloatImage:
        """How likely each pixel is damaged, H × W in [0, 1]; all that is in a pixel of the small picture is alike."""
        height, width = rgb.shape[:2]
        gray = _gray(rgb)
        small = np.asarray(_resized(gray, detector_size(height, width)), np.float32)
        found = np.empty_like(small)
        run_tiled(self._network, (small,), found, self.net.multiple, self.device, TILE, OVERLAP)
        rows = np.arange(height) * found.shape[0] // height
        columns = np.arange(width) * found.shape[1] // width
        return np.asarray(found[rows[:, None], columns])

    def _network(self, gray: Tensor) -> Tensor:
        probability: Tensor = self.net(gray).sigmoid()
        return probability


def detector_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the picture that the detector sees of a photo: small for a strip, which would be huge."""
    ratio, step = max(height, width) / min(height, width), Detector.multiple
    short = min(DETECTOR_SIDE, max(_SMALLEST, round(_LONGEST / ratio / step) * step))
    long = round(ratio * short / step) * step
    return (short, long) if height <= width else (long, short)


def _gray(rgb: FloatImage) -> FloatImage:
    """The luma of a photo in the 256 levels that the detector was trained with, rounded as Pillow rounds it."""
    gray = np.empty(rgb.shape[:2], np.float32)
    for rows in strips(len(gray)):
        levels = np.round(rgb[rows].clip(0, 1) * 255).astype(np.int32)
        gray[rows] = (levels @ _LUMA + (1 << 15) >> 16) / np.float32(255)
    return gray


def _resized(gray: FloatImage, size: tuple[int, int]) -> FloatImage:
    """Bilinear between the nearest pixels, without averaging, as published: what is thin may fall through."""
    tensor = torch.from_numpy(gray)[None, None]
    return torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0].numpy()


class PublishedTranslator:
    """Translates photo after photo; each of its networks is loaded when the first photo needs it.

    Parameters
    ----------
    device, checkpoints_folder
        As for the other stages.
    tile
        Side of the tiles, px; by default pictures of up to WHOLE pixels are not cut at all.
    large_scans
        Use the network for large scans where there is a mask.

    Raises
    ------
    CheckpointError, UsageError
        Weights are missing, or the device is unknown.
    """

    def __init__(
        self,
        device: str = "auto",
        checkpoints_folder: Path | None = None,
        tile: int | None = None,
        large_scans: bool = False,
    ) -> None:
        self.device = checkpoints.pick_device(device)
        self.folder = checkpoints.checkpoint_folder(checkpoints_folder)
        self.records = checkpoints.read_manifest(self.folder)
        self.tile, self.large_scans = tile, large_scans
        self._nets: dict[str, Translation] = {}
        self._lock = threading.Lock()
        self.name_for(False)

    def name_for(self, masked: bool) -> str:
        """The network for photos with or without a mask. Raises CheckpointError where there is none."""
        kind = "quality" if not masked else "hr" if self.large_scans else "scratch"
        for name in (f"translation-{kind}", "translation"):
            record = self.records.get(name)
            if record and (record.config.get("kind", "quality") == kind or not masked):
                return name
        raise CheckpointError(
            f"{self.folder}: {_LACKING[kind]} is not here; import its files too (oldphoto weights import)"
        )

    def translate(
        self, rgb: FloatImage, mask: FloatImage | HalfImage | None = None, strength: float = 1.0, in_place: bool = False
    ) -> FloatImage:
        """The clean version of a photo, H × W × 3 in [0, 1], of which ``mask`` (H × W, 1 = damaged) is repaired.

        ``strength`` scales the whole change, from 0 (the photo as it was) to 1. The input is not changed, even where
        it may be (``in_place``).
        """
        net = self._net(self.name_for(mask is not None))
        holes = np.zeros(rgb.shape[:2], np.float32) if mask is None else (mask > 0.5).astype(np.float32)
        if self.large_scans and mask is not None:
            holes = np.asarray(cv2.dilate(holes, np.ones((2 * GROWTH + 1, 2 * GROWTH + 1), np.uint8)), np.float32)
        out = np.empty_like(rgb)
        multiple = net.multiple if min(rgb.shape[:2]) >= _SMALLEST else max(net.multiple, _SMALLEST)
        tile = self.tile or (max(rgb.shape[:2]) if holes.size <= WHOLE else TILE)
        run_overlapping(net, (rgb, holes), out, multiple, self.device, tile, min(OVERLAP, tile // 2))
        for rows in strips(len(out)):
            out[rows] = rgb[rows] + np.float32(strength) * (out[rows].clip(0, 1) - rgb[rows])
        return out

    def _net(self, name: str) -> Translation:
        with self._lock:
            if name not in self._nets:
                net = checkpoints.load(Translation, name, self.folder).eval()
                self._nets[name] = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            return self._nets[name]


class PublishedRefiner:
    """Makes faces anew, face after face, with a network loaded once.

    ``large_scans``: the network for 512-px faces. The pipeline's crops have 256 px; they are enlarged for it.
    Raises CheckpointError or UsageError for missing weights or an unknown device.
    """

    def __init__(self, device: str = "auto", checkpoints_folder: Path | None = None, large_scans: bool = False) -> None:
        self.device = checkpoints.pick_device(device)
        name = "faces-hr" if large_scans else "faces"
        net = checkpoints.load(FaceGenerator, name, checkpoints_folder).eval()
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def refine(self, crop: FloatImage) -> FloatImage:
        """The refined face of a canonical crop, CROP × CROP × 3 in [0, 1]; what the square leaves out stays."""
        size, ratio = self.net.size, self.net.size / CROP
        seen = cv2.warpAffine(
            crop, ratio * SQUARE, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        seen = np.asarray(seen.clip(0, 1), np.float32)
        tensor = torch.from_numpy(seen)[None].permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            change = self.net(tensor)[0].permute(1, 2, 0).cpu().numpy() - seen
        back = SQUARE.copy()
        if ratio != 1:
            change = cv2.resize(change, (CROP, CROP), interpolation=cv2.INTER_AREA)
            back[:, 2] -= (ratio - 1) / (2 * ratio)  # pixels' centres, not their corners, were put on each other
        change = cv2.warpAffine(change, back, (CROP, CROP), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        return np.asarray(np.clip(crop + change, 0, 1), np.float32)
