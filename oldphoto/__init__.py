"""Brings old photographs back to life: scratches, folds, grain, blur and fading removed, faces refined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oldphoto.pipeline import Restoration, Restorer, restore

__all__ = ["Restoration", "Restorer", "__version__", "restore"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the pipeline, and torch with it, only when it is used: ``oldphoto --help`` must not wait for it."""
    if name in ("Restoration", "Restorer", "restore"):
        from oldphoto import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'oldphoto' has no attribute {name!r}")
