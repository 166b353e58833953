"""What is done where the memory does not suffice: the same with smaller tiles, in the end on the CPU."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from oldphoto.errors import OldphotoError

Does = TypeVar("Does")
Done = TypeVar("Done")

_SMALL_TILES = (512, 256, 128)  # sides in pixels, tried one after the other where the memory does not hold the usual

# What torch (CPU, MPS, Windows), safetensors, OpenCV, oneDNN and CUDA's libraries say in errors of no class of its own.
_SAID = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "insufficient memory",
    "could not create a primitive",
    "_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is a lack of memory, of the machine or of its GPU."""
    # CUDA's is a class of torch, which is not imported for this.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OldphotoError):  # it could not be read for want of memory
        return error.__cause__ is not None and is_out_of_memory(error.__cause__)
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error).lower()
    return any(phrase in said for phrase in _SAID)


class WithLessMemory(Generic[Does]):
    """What works on photos, made at once, and others of its kind that need less memory, each made when needed.

    Every photo begins with the first again, so that what becomes of it does not depend on those before it.

    Parameters
    ----------
    make
        Makes one, that takes tiles of a side, in pixels, or None for the usual, on a device.
    tile, device
        Those of the first.
    """

    def __init__(self, make: Callable[[int | None, str], Does], tile: int | None, device: str) -> None:
        self._make, self._tile, self._device = make, tile, device
        self._made = {(tile, device): make(tile, device)}

    def apply(self, attempt: Callable[[Does], Done]) -> tuple[Done, str | None]:
        """Return what an attempt gives, and what had to be changed for want of memory, None if nothing.

        Where the memory is short it is attempted again; what it raises then, and any other error, passes through.
        """
        shortage: Exception | None = None
        for tile, device in self._ways():
            try:
                return attempt(self._one(tile, device)), self._told(tile, device)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                _let_go(error)
                shortage = shortage or error
        try:
            assert shortage is not None
            raise shortage
        finally:
            del shortage  # it holds this frame, which would hold it

    def _ways(self) -> Iterator[tuple[int | None, str]]:
        yield self._tile, self._device
        largest = self._tile or math.inf
        for tile in _SMALL_TILES:
            if tile < largest:
                yield tile, self._device
        if self._device != "cpu":
            yield self._tile, "cpu"

    def _one(self, tile: int | None, device: str) -> Does:
        if (tile, device) not in self._made:
            self._made[tile, device] = self._make(tile, device)
        return self._made[tile, device]

    def _told(self, tile: int | None, device: str) -> str | None:
        if (tile, device) == (self._tile, self._device):
            return None
        if device != self._device:
            return (
                f"out of memory: some photos are done on the CPU, which is slower (--tile {_SMALL_TILES[-1]} may help)"
            )
        return f"out of memory: some photos are done with tiles of {tile} pixels (--tile {tile} does all so)"


def _let_go(error: BaseException | None) -> None:
    """Release the frames that an error and its causes hold, which hold what fills the memory, and torch's reserves."""
    import torch

    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
