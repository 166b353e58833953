"""``oldphoto train``."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from oldphoto.cli.common import NumberType, PathType

NETWORKS = ("scratches", "tone", "autoencoders", "translation", "faces", "denoiser")


@click.command()
@click.argument("network", type=click.Choice(NETWORKS))
@click.option("--data", type=PathType(), help="Folder of training photographs.")
@click.option("--out", type=PathType(), required=True, help="Folder for weights and manifest.")
@click.option(
    "--config",
    type=click.Choice(["compact", "published"]),
    default="compact",
    show_default=True,
    help="The project's own networks, or those of the published model at their size.",
)
@click.option(
    "--noise2noise",
    type=PathType(),
    metavar="DIR",
    help="Instead of --data: fine-tune the translation on the noise of your own scans in DIR, without clean versions.",
)
@click.option(
    "--annotations",
    type=PathType(),
    metavar="DIR",
    multiple=True,
    help="Masks of the damage in real scans, for the scratch detector; may be given several times.",
)
@click.option("--minutes", type=NumberType(min=0, min_open=True), help="Stop after so many minutes.")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--resume", is_flag=True, help="Go on from the weights in --out.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--crop", type=click.IntRange(min=64), default=128, show_default=True, help="Side of the crops, px.")
@click.option("--learning-rate", type=NumberType(min=0, min_open=True), default=8e-4, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; 1 beside other work.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that age photos.")
@click.option(
    "--replay",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Aged photos to keep and show again, for a GPU that is faster than they are made; 0: each is shown once.",
)
@click.option("--bfloat16/--float32", default=None, help="Arithmetic of the networks (by default the faster here).")
def train(
    network: str,
    data: Path | None,
    out: Path,
    config: str,
    noise2noise: Path | None,
    annotations: tuple[Path, ...],
    minutes: float | None,
    steps: int | None,
    resume: bool,
    seed: int,
    batch: int,
    crop: int,
    learning_rate: float,
    device: str,
    threads: int | None,
    workers: int,
    replay: int,
    bfloat16: bool | None,
) -> None:
    """Train NETWORK on the photographs in --data, and keep weights and manifest in --out.

    Give a budget with --minutes or --steps. The weights are saved every few minutes; after an interruption,
    --resume goes on from them. On several processors: torchrun --nproc-per-node N -m oldphoto train ...
    """
    import logging

    import torch

    from oldphoto.checkpoints import holds, pick_device
    from oldphoto.errors import UsageError
    from oldphoto.training import parallel
    from oldphoto.training.loop import Settings

    if (minutes is None) == (steps is None):
        raise click.UsageError("give either --minutes or --steps")
    source = data or noise2noise
    if source is None or (data and noise2noise):
        raise click.UsageError("give either --data or --noise2noise")
    if noise2noise and (network, config) != ("translation", "compact"):
        raise click.UsageError("--noise2noise is for the project's own translation network")
    if annotations and (network, config) != ("scratches", "compact"):
        raise click.UsageError("--annotations is for the project's own scratch detector")
    if not (resume or noise2noise) and holds(out, network):
        raise UsageError(
            f"{out} holds '{network}' already: --resume goes on with it; give another folder to begin anew"
        )
    if threads:
        torch.set_num_threads(threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s")
    device = parallel.device(str(pick_device(device)))
    settings = Settings(
        source,
        out,
        minutes,
        steps,
        resume,
        seed,
        batch,
        crop,
        learning_rate,
        device,
        bfloat16,
        workers,
        replay,
        annotations,
    )
    if config == "published":
        from oldphoto.training import published

        published.train(network, settings)
        return
    module = "noise2noise" if noise2noise else network
    importlib.import_module(f"oldphoto.training.{module}").train(settings)
