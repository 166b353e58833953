"""Refine canonical crops: with the bundled network, or with a face restorer of the user's own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage, as_image
from oldphoto.errors import CheckpointError, UsageError
from oldphoto.faces.alignment import CROP
from oldphoto.nets.facegan import FaceNet

_NAME = "faces"

MODEL_SIDE = 512
"""Side of the square that published face restorers take, px."""

# The centres of the eyes on the canonical crop, and on the square of 512 px on which FFHQ's faces are aligned for
# published restorers: what lies between the two frames is a scale and a shift.
_EYES = CROP * np.array([[0.367, 0.4295], [0.633, 0.4295]])
_MODEL_EYES = np.array([[193.0, 240.0], [319.0, 240.0]])


class FaceRefiner:
    """Refines canonical crops, face after face.

    With the bundled network, which is read when the first face comes; or with ``model``, a file of any face restorer
    that ``spandrel`` knows (GFPGAN, RestoreFormer; CodeFormer where ``spandrel_extra_arches`` is installed), under the
    same alignment.

    Raises CheckpointError or UsageError for missing or unsuitable weights, or an unknown device.
    """

    def __init__(self, device: str = "auto", checkpoints_folder: Path | None = None, model: Path | None = None) -> None:
        self.device = checkpoints.pick_device(device)
        self._folder = checkpoints_folder
        self._model = None if model is None else load_face_model(model, self.device)
        if model is None:
            checkpoints.verify(*checkpoints.find(_NAME, checkpoints_folder))

    @cached_property
    def net(self) -> FaceNet:
        """The bundled network."""
        net = checkpoints.load(FaceNet, _NAME, self._folder).eval()
        return net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def refine(self, crop: FloatImage) -> FloatImage:
        """The refined face of a canonical crop, CROP × CROP × 3 in [0, 1]. Raises PhotoError as `as_image`."""
        crop = as_image(crop, 3, "a face")
        if self._model is None:
            refined = self._run(self.net, crop)
        else:
            framed = _warped(crop, _TO_MODEL, MODEL_SIDE)
            change = np.subtract(self._run(self._model, framed), framed)
            refined = np.add(crop, _warped(change, _FROM_MODEL, CROP))
        return np.asarray(np.clip(refined, 0, 1), np.float32)

    def _run(self, net: Callable[[Tensor], Tensor], picture: FloatImage) -> FloatImage:
        tensor = torch.from_numpy(picture)[None].permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            return np.asarray(net(tensor)[0].permute(1, 2, 0).float().cpu().numpy(), np.float32)


def _frame() -> NDArray[np.float64]:
    """The matrix, 2 × 3, from the canonical crop to the published restorers' square."""
    factor = (_MODEL_EYES[1, 0] - _MODEL_EYES[0, 0]) / (_EYES[1, 0] - _EYES[0, 0])
    return np.column_stack([factor * np.eye(2), _MODEL_EYES[0] - factor * _EYES[0]])


_TO_MODEL = _frame()
_FROM_MODEL = np.asarray(cv2.invertAffineTransform(_TO_MODEL), np.float64)


def _warped(picture: FloatImage, matrix: NDArray[np.float64], side: int) -> FloatImage:
    """A picture under an affine map; where the square is coarser than the picture, blurred first as much as that."""
    factor = matrix[0, 0]
    if factor < 1:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.4 / factor), np.float32)
    warped = cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, np.float32)


def load_face_model(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A user's face restorer: takes and gives 1 × 3 × MODEL_SIDE × MODEL_SIDE in [0, 1].

    ``.safetensors``, or ``.pth``, ``.pt`` and ``.ckpt`` of which nothing but tensors is unpickled.

    Raises UsageError where ``spandrel`` is missing, or the file is no face restorer that it knows; CheckpointError
    where the file can not be read.
    """
    try:
        import spandrel
    except ImportError as error:
        raise UsageError("--face-model needs spandrel: pip install 'oldphoto[face-models]'") from error
    state = spandrel.canonicalize_state_dict(_read_state(path))
    try:
        model = spandrel.ModelLoader(registry=_architectures()).load_from_state_dict(state)
    except spandrel.UnsupportedModelError as error:
        raise UsageError(f"{path}: not a model that spandrel {spandrel.__version__} knows") from error
    except (RuntimeError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: its weights do not fit the architecture that they name ({reason})") from error
    if not isinstance(model, spandrel.ImageModelDescriptor) or model.purpose != "FaceSR" or model.scale != 1:
        kind = f"{model.architecture.name}, for {model.purpose}"
        raise UsageError(f"{path}: a model of another kind ({kind}); --face-model needs a face restorer")
    restorer: Callable[[Tensor], Tensor] = model.to(device).eval()
    return restorer


def _architectures() -> Any:
    """All architectures that spandrel knows, with those under other licences where they are installed."""
    import spandrel

    registry = spandrel.ArchRegistry()
    registry.add(*spandrel.MAIN_REGISTRY)
    try:
        from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError:
        return registry
    registry.add(*EXTRA_REGISTRY)
    return registry


def _read_state(path: Path) -> dict[str, object]:
    """The tensors of a file of weights, whatever wraps them. Raises CheckpointError or UsageError."""
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; --face-model takes a file of weights")
    try:
        if path.suffix.lower() == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: can not be read as weights ({reason})") from error
