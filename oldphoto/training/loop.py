"""The training loop that all trainers share: a budget of time or steps, a schedule, averaged weights, safe saves."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from oldphoto.errors import UsageError
from oldphoto.training import parallel

Net = TypeVar("Net", bound=nn.Module)

logger = logging.getLogger(__name__)

SAVE_EVERY = 240.0
"""Seconds between saves."""

LOG_EVERY = 100
"""Steps between lines in the log."""


@dataclass(frozen=True)
class Settings:
    """What one training run is asked for."""

    data: Path
    out: Path
    minutes: float | None = 10.0
    steps: int | None = None
    resume: bool = False
    seed: int = 0
    batch: int = 8
    crop: int = 128
    learning_rate: float = 8e-4
    device: str = "cpu"
    bfloat16: bool | None = None
    """Whether networks compute in bfloat16; None: where it is faster."""
    workers: int = 1
    """Processes that make examples."""
    replay: int = 0
    """Latest examples that are kept and shown again; 0: each is shown once."""
    annotations: tuple[Path, ...] = ()
    """Folders of what is known of the damage in real scans."""

    def seed_of_examples(self, started: float) -> int:
        """The seed of what this process is shown: its own among several, and another whenever training is resumed."""
        return parallel.seed(self.seed) + int(self.resume) * int(started)

    def record(self, started: float, steps: int) -> dict[str, object]:
        """What the manifest keeps of the run: enough to repeat it."""
        return {
            "run": int(started),
            "data": self.data.name,
            "steps": steps,
            "hours": round((time.time() - started) / 3600, 3),
            "seed": self.seed,
            "batch": self.batch,
            "crop": self.crop,
            "learning rate": self.learning_rate,
            **({"replay": self.replay} if self.replay else {}),
            **({"device": torch.cuda.get_device_name(self.device)} if self.device.startswith("cuda") else {}),
            **({"annotations": [folder.name for folder in self.annotations]} if self.annotations else {}),
            "resumed": self.resume,
        }


class Optimiser(Generic[Net]):
    """AdamW with warm-up, cosine decay, gradient clipping, and an exponential moving average of the weights."""

    def __init__(self, nets: list[Net], learning_rate: float, ema: float = 0.999) -> None:
        self.nets = nets
        self.parameters = [p for net in nets for p in net.parameters() if p.requires_grad]
        self.adam = torch.optim.AdamW(self.parameters, learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
        self.learning_rate, self.ema, self.steps = learning_rate, ema, 0
        self.averages = [deepcopy(net).requires_grad_(False) for net in nets]

    def step(self, loss: Tensor, progress: float) -> None:
        """One step at ``progress`` (0 to 1) of the schedule."""
        self.steps += 1
        warm = min(1.0, self.steps / 200)
        rate = self.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(self.parameters)
        if not torch.nn.utils.clip_grad_norm_(self.parameters, 1.0).isfinite():
            logger.warning("a step whose gradient is no number is left out")
            return
        self.adam.step()
        keep = min(self.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for average, net in zip(self.averages, self.nets, strict=True):
                lerp = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
                lerp(list(average.parameters()), list(net.parameters()), None)
                for kept, current in zip(average.buffers(), net.buffers(), strict=True):
                    kept.copy_(current)


def run(
    name: str,
    settings: Settings,
    step: Callable[[float], Mapping[str, Tensor | float]],
    save: Callable[[int], None],
    share: float = 1.0,
) -> int:
    """Call ``step(progress)`` until the budget (or this stage's ``share`` of it) is spent; returns the steps made.

    Saves every few minutes, at the end, and when interrupted; the weights are never more than minutes old.
    """
    started = saved = time.time()
    minutes = settings.minutes * share if settings.steps is None and settings.minutes else None
    limit = max(1, round(settings.steps * share)) if settings.steps else None
    count, progress = 0, 0.0
    sums: defaultdict[str, Tensor | float] = defaultdict(float)
    torch.backends.cudnn.benchmark = True  # all crops have one size: the fastest algorithm is worth looking for
    try:
        while progress < 1:
            for key, value in step(progress).items():
                sums[key] = sums[key] + value
            count += 1
            now = time.time()
            progress = count / limit if limit else parallel.agreed((now - started) / (60 * (minutes or 1)))
            if count % LOG_EVERY == 0 or progress >= 1:
                shown = (count - 1) % LOG_EVERY + 1
                means = "  ".join(f"{key} {float(value) / shown:.4f}" for key, value in sums.items())
                logger.info("%s  step %d  %.0f s  %s", name, count, now - started, means)
                sums.clear()
            if now - saved > SAVE_EVERY and parallel.writes():
                save(count)
                saved = time.time()
    finally:
        if count and parallel.writes():
            save(count)
    return count


def autocast(settings: Settings) -> torch.autocast:
    """The arithmetic that the settings ask for, or the faster."""
    enabled = bfloat16_is_faster(settings.device) if settings.bfloat16 is None else settings.bfloat16
    return torch.autocast(settings.device.split(":")[0], torch.bfloat16, enabled=enabled)


@cache
def bfloat16_is_faster(device: str) -> bool:
    """Whether a device computes faster in bfloat16 than in float32: a GPU that knows it, a processor if it proves so.

    Of those with AVX-512 for bfloat16, and no matrix tiles, one is twice as fast with it and the next half as fast.
    """
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older PyTorch does not tell
    knows = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return device == "cpu" and bool(knows) and seconds_to_convolve(torch.bfloat16) < seconds_to_convolve(torch.float32)


@torch.inference_mode()
def seconds_to_convolve(number: torch.dtype) -> float:
    """How long a convolution like those of the networks takes one core of the processor, the best of a few."""
    layer = nn.Conv2d(64, 64, 3, padding=1).to(number, memory_format=torch.channels_last)  # type: ignore[call-overload]
    picture = torch.zeros(4, 64, 64, 64, dtype=number).to(memory_format=torch.channels_last)
    threads, took = torch.get_num_threads(), []
    torch.set_num_threads(1)  # several would wait for each other beside other work
    try:
        for _ in range(6):
            started = time.perf_counter()
            layer(picture)
            took.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return min(took)


def on_device(batch: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """Bring a batch to a device, channels last in memory."""
    return {key: value.to(device).contiguous(memory_format=torch.channels_last) for key, value in batch.items()}


def require_crop(settings: Settings, multiple: int) -> None:
    """Raise UsageError unless the crops fit a network's coarsest grid."""
    if settings.crop % multiple:
        raise UsageError(f"--crop {settings.crop}: this network needs a multiple of {multiple} px")


def channels_last(net: Net, device: str) -> Net:
    """Put a network on a device with the memory layout that convolutions are fastest in."""
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
