"""Time every stage and the whole restoration, and say how far from the machine's limit they are.

    python scripts/benchmark.py [--megapixels 0.25 1 4 24] [--threads 2] [--plot docs/speed.png] [--readme README.md]
        [--resume FILE]

Every size and way runs in a process of its own, so that peak memory is its own; start-up is timed apart. What counts
is the table: seconds by stage, megapixels a second, peak resident memory, and the share of the throughput that plain
convolutions reach on the same machine in the same run. Needs ``pip install '.[dev]'``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from update_readme import enter

from oldphoto import workers
from oldphoto.arrays import FloatImage

ASPECT = 1.5
WAYS = {"plain": (False, False), "scratches": (True, False), "scratches, faces": (True, True)}
"""Name: with scratch repair, with faces."""


@dataclass(frozen=True)
class Timing:
    """One restoration: ``seconds`` by stage and ``total``, peak ``memory`` in GB, ``gflop`` of the networks."""

    way: str
    megapixels: float
    seconds: dict[str, float]
    total: float
    memory: float
    gflop: float

    @property
    def speed(self) -> float:
        """Megapixels a second."""
        return self.megapixels / self.total

    @property
    def throughput(self) -> float:
        """GFLOP of convolutions and attention a second, over the whole run."""
        return self.gflop / self.total


def test_photo(megapixels: float) -> FloatImage:
    """A photograph of people, aged: scratched, noisy and faded, at any size."""
    import cv2
    import skimage.data

    from oldphoto.training.ageing import Severity, age

    height = round(math.sqrt(megapixels * 1e6 / ASPECT))
    clean = skimage.data.astronaut()[:340].astype(np.float32) / 255
    aged = age(clean, np.random.default_rng(3), Severity(0.3, 0.4, 0.3, 0.8, 0.2)).photo
    return np.asarray(cv2.resize(aged, (round(ASPECT * height), height), interpolation=cv2.INTER_CUBIC).clip(0, 1))


def time_one(way: str, megapixels: float, threads: int) -> Timing:
    """Restore one photo in this process, after a small one to warm up; the FLOPs are counted afterwards."""
    import cv2
    import torch

    from oldphoto.pipeline import RestoreOptions, Restorer

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    with_scratch, faces = WAYS[way]
    restorer = Restorer(RestoreOptions(with_scratch=with_scratch, faces=faces), "cpu")
    restorer.restore(test_photo(0.05))
    photo = test_photo(megapixels)
    work = Work()
    started = time.perf_counter()
    with work.watched():
        restoration = restorer.restore(photo, in_place=True)  # as for files
    total = time.perf_counter() - started
    return Timing(way, photo.shape[0] * photo.shape[1] / 1e6, restoration.seconds, total, peak_memory(), work.gflop())


def peak_memory() -> float:
    """The most memory that this process has had resident so far, GB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage gives there begins with the peak of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


class Work:
    """What networks are given while they run, from which their FLOPs are counted without running them again."""

    def __init__(self) -> None:
        self._calls: Counter[tuple[Any, tuple[Any, ...], tuple[tuple[str, Any], ...]]] = Counter()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the calls of the networks, those that no other network calls."""
        import torch
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

        depth = 0

        def before(net: torch.nn.Module, given: tuple[Any, ...]) -> None:
            nonlocal depth
            depth += 1

        def after(net: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any], result: object) -> None:
            nonlocal depth
            depth -= 1
            if depth == 0:
                shapes = (tuple(value.shape) if isinstance(value, torch.Tensor) else value for value in given)
                self._calls[net, tuple(shapes), tuple(named.items())] += 1

        hooks = register_module_forward_pre_hook(before), register_module_forward_hook(after, with_kwargs=True)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def gflop(self) -> float:
        """Billions of operations of all calls."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        total = 0.0
        for (net, given, named), times in self._calls.items():
            net.to("meta")
            inputs = (torch.empty(value, device="meta") if type(value) is tuple else value for value in given)
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                net(*inputs, **dict(named))
            total += times * counter.get_total_flops() / 1e9
        return total


def convolution_limit(threads: int) -> float:
    """GFLOP a second that plain 3 × 3 convolutions reach here, the best of the widths that the networks use."""
    import torch

    torch.set_num_threads(threads)
    best = 0.0
    for channels, side in ((32, 320), (64, 160), (160, 64)):
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        picture = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        gflop = 2 * 9 * channels**2 * side**2 / 1e9
        with torch.inference_mode():
            best = max(best, gflop / fastest(lambda layer=layer, picture=picture: layer(picture), 30))
    return best


def fastest(action: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of so many calls."""

    def once() -> float:
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    return min(once() for _ in range(times))


def network_costs() -> dict[str, float]:
    """GFLOP a megapixel of the networks that see every pixel, and GFLOP a face."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from oldphoto.nets.facegan import FaceNet
    from oldphoto.nets.translation import TranslationNet
    from oldphoto.nets.unet import ScratchUNet

    def cost(network: torch.nn.Module, *inputs: torch.Tensor) -> float:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network.eval()(*inputs)
        return float(counter.get_total_flops()) / 1e9

    picture, mask = torch.rand(1, 3, 512, 512), torch.zeros(1, 1, 512, 512)
    per_megapixel = 1e6 / 512**2
    return {
        "scratches (a megapixel)": per_megapixel * cost(ScratchUNet(), picture, mask),
        "translation (a megapixel)": per_megapixel * cost(TranslationNet(), picture, mask, picture),
        "faces (a face)": cost(FaceNet(), torch.rand(1, 3, 256, 256)),
    }


def start_up() -> dict[str, float]:
    """Wall seconds of whole commands, the fastest of three."""
    from oldphoto.imagefile import Photo, write_photo

    def command(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-m", "oldphoto", *arguments], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as folder:
        small, output = Path(folder, "small.png"), Path(folder, "restored.png")
        write_photo(Photo(test_photo(0.25)), small)
        restoring = command("restore", str(small), str(output), "--with-scratch", "--overwrite")
        return {
            "`oldphoto --help`": fastest(command("--help"), 3),
            "`oldphoto restore --with-scratch`, one photo of 0.25 MP": fastest(restoring, 3),
        }


def in_own_process(way: str, megapixels: float, threads: int) -> Timing:
    """`time_one` in a fresh process."""
    arguments = [sys.executable, __file__, "--one", way, "--megapixels", str(megapixels), "--threads", str(threads)]
    # As the command line sets it for its workers, but for scripts that import each other.
    environment = os.environ | workers.environment(threads) | {"PYTHONSAFEPATH": ""}
    result = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return Timing(**json.loads(result.stdout.splitlines()[-1]))


def slope(timings: Sequence[Timing]) -> float:
    """The exponent of time over pixels: 1 is linear."""
    sizes, seconds = ([math.log(value) for value in values] for values in
                      zip(*((t.megapixels, t.total) for t in timings), strict=True))  # fmt: skip
    return float(np.polyfit(sizes, seconds, 1)[0]) if len(sizes) > 1 else math.nan


def table(timings: Sequence[Timing], limit: float) -> list[str]:
    """The timings as Markdown."""
    lines = [
        "| | MP | mask s | translate s | faces s | total s | MP/s | of the limit | peak GB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for timing in timings:
        stages = " | ".join(f"{timing.seconds.get(stage, 0):.2f}" for stage in ("mask", "translate", "faces"))
        lines.append(
            f"| {timing.way} | {timing.megapixels:.2f} | {stages} | {timing.total:.2f} | {timing.speed:.2f} "
            f"| {timing.throughput / limit:.0%} | {timing.memory:.2f} |"
        )
    return lines


def report(timings: Sequence[Timing], limit: float, threads: int, started: dict[str, float]) -> str:
    """Everything measured, as Markdown."""
    slopes = {way: slope([t for t in timings if t.way == way]) for way in WAYS}
    costs = ", ".join(f"{name} {cost:.0f} GFLOP" for name, cost in network_costs().items())
    return "\n".join(
        [
            f"Measured on {processor()}, {threads} threads, float32, networks loaded; the limit, {limit:.0f} GFLOP/s,",
            "is what plain 3 × 3 convolutions reach there. `python scripts/benchmark.py` measures yours.",
            "",
            *table(timings, limit),
            "",
            "Time grows with pixels to the power of "
            + ", ".join(f"{s:.2f} ({way})" for way, s in slopes.items())
            + ".",
            f"Networks: {costs}.",
            "Start-up: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in started.items()) + ".",
        ]
    )


def processor() -> str:
    """The processor's name, as well as the system tells it, and its widest vectors."""
    import torch

    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]  \
        if info.exists() else []  # fmt: skip
    name = (names[0] if names else platform.processor() or platform.machine()).replace("(R)", "").replace("(TM)", "")
    return f"{os.cpu_count()} cores of {name} ({torch.backends.cpu.get_cpu_capability()})"


def draw(timings: Sequence[Timing], path: Path) -> None:
    """Seconds over megapixels, both logarithmic, the slope in the legend."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for way in WAYS:
        mine = [timing for timing in timings if timing.way == way]
        label = f"{way}: slope {slope(mine):.2f}"
        axes.loglog([t.megapixels for t in mine], [t.total for t in mine], "o-", label=label)
    axes.set(xlabel="megapixels", ylabel="seconds", title="oldphoto restore, without start-up")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    """Measure, print, and where asked draw and enter into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.25, 1, 4, 24])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--resume", type=Path, help="keep what is measured here, and do not measure it again")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.one:
        print(json.dumps(vars(time_one(arguments.one, arguments.megapixels[0], arguments.threads))))
        return
    kept: dict[str, Any] = {}
    if arguments.resume and arguments.resume.exists():
        kept = json.loads(arguments.resume.read_text(encoding="utf-8"))

    def measured(name: str, measure: Callable[[], Any]) -> Any:
        if name not in kept:
            kept[name] = measure()
            print(name, kept[name], file=sys.stderr, flush=True)
            if arguments.resume:
                arguments.resume.write_text(json.dumps(kept), encoding="utf-8")
        return kept[name]

    limit = measured("limit", lambda: convolution_limit(arguments.threads))
    started = measured("start-up", start_up)
    runs = [
        (way, size)
        for way in ("scratches", "plain", "scratches, faces")
        for size in sorted(arguments.megapixels, reverse=True)
    ]
    found = [
        measured(f"{way} {size:g}", lambda way=way, size=size: vars(in_own_process(way, size, arguments.threads)))
        for way, size in runs
    ]
    again = convolution_limit(arguments.threads)
    if not 0.9 < again / limit < 1.1:
        raise SystemExit(f"the machine was busy: its limit was {limit:.0f} GFLOP/s before, {again:.0f} after")
    timings = sorted((Timing(**timing) for timing in found), key=lambda t: (t.megapixels, list(WAYS).index(t.way)))
    text = report(timings, limit, arguments.threads, started)
    print(text)
    if arguments.plot:
        draw(timings, arguments.plot)
    if arguments.readme:
        enter(arguments.readme, "speed", text)


if __name__ == "__main__":
    main()
