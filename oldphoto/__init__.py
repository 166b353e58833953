"""Brings old photographs back to life: scratches, folds, grain, blur and fading removed, faces refined."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oldphoto.classical.deblurring import deblur
    from oldphoto.diagnosis import diagnose
    from oldphoto.pipeline import Restoration, Restorer, restore

__all__ = ["Restoration", "Restorer", "__version__", "deblur", "diagnose", "restore"]

__version__ = "0.1.0"


_PLACES = {
    "Restoration": "oldphoto.pipeline",
    "Restorer": "oldphoto.pipeline",
    "restore": "oldphoto.pipeline",
    "deblur": "oldphoto.classical.deblurring",
    "diagnose": "oldphoto.diagnosis",
}


def __getattr__(name: str) -> Any:
    """Import the pipeline, and torch with it, only when it is used: ``oldphoto --help`` must not wait for it."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'oldphoto' has no attribute {name!r}")
