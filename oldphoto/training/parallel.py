"""Training on several processors: ``torchrun --nproc-per-node N -m oldphoto train ...``, each with examples of its own.

Gradients are averaged after every step, so that all processes keep the same weights; the first one decides when to
stop, and alone writes. Without torchrun nothing here does anything.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oldphoto.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator


@cache
def accelerator() -> Accelerator | None:
    """What connects the processes; None where there is only this one. Raises UsageError where it is not installed."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise UsageError("training on several processors needs: pip install 'oldphoto[parallel]'") from error
    connected = Accelerator(cpu=not torch.cuda.is_available())
    atexit.register(_disconnect, connected)  # a connection still open at the end of a process can abort it
    return connected


def _disconnect(connected: Accelerator) -> None:
    connected.wait_for_everyone()
    connected.end_training()


def writes() -> bool:
    """Whether this process is the one that saves weights."""
    connected = accelerator()
    return connected is None or bool(connected.is_main_process)


def device(otherwise: str) -> str:
    """The device of this process."""
    connected = accelerator()
    return otherwise if connected is None else str(connected.device)


def seed(of_all: int) -> int:
    """A seed for the examples of this process."""
    connected = accelerator()
    return of_all if connected is None else 1000 * of_all + int(connected.process_index)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    connected = accelerator()
    if connected is None:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    flat = _reduced(connected, flat)
    for gradient, mean in zip(gradients, torch.split(flat, [part.numel() for part in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def agreed(value: float) -> float:
    """The mean over the processes of a number that has to be the same in all."""
    connected = accelerator()
    if connected is None:
        return value
    return float(_reduced(connected, torch.tensor([value], dtype=torch.float64, device=connected.device)))


def _reduced(connected: Accelerator, tensor: Tensor) -> Tensor:
    mean: Tensor = connected.reduce(tensor, "mean")
    return mean
