"""Average the weights of a network over several trainings of it.

    python scripts/average.py NETWORK --out FOLDER TRAINED TRAINED...

TRAINED are folders with weights that were trained on from the same ones, such as ``checkpoints`` and what ``oldphoto
train --resume`` made of a copy. Such weights lie in one basin of the loss, and their mean is often better than each
(Wortsman et al., "Model soups", ICML 2022). The manifest names what was averaged, after the trainings of all;
``oldphoto train NETWORK --resume --steps 1`` scores it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from oldphoto import checkpoints
from oldphoto.errors import CheckpointError


def mean(sets: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several sets of weights, which hold tensors of the same names and shapes; counters are the first's.

    Raises CheckpointError where they do not.
    """
    first = sets[0]
    for other in sets[1:]:
        if {name: tensor.shape for name, tensor in other.items()} != {name: t.shape for name, t in first.items()}:
            raise CheckpointError("these weights are not of the same network")
    return {
        name: torch.stack([weights[name].float() for weights in sets]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def main() -> None:
    """Average, and enter the result in the manifest of the folder it is written to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("trained", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if checkpoints.holds(arguments.out, arguments.network):
        raise CheckpointError(f"{arguments.out} holds '{arguments.network}' already: give another folder")
    found = [checkpoints.find(arguments.network, folder) for folder in arguments.trained]
    records = [record for _, record in found]
    first = records[0]
    if any((record.architecture, record.config) != (first.architecture, first.config) for record in records):
        raise CheckpointError("these weights are not of the same network")
    weights = mean([load_file(checkpoints.verify(*place)) for place in found])
    averaged = {"run": int(time.time()), "mean of": [record.sha256 for record in records]}
    runs = {run["run"]: run for record in records for run in record.training}
    earlier = [runs[begun] for begun in sorted(runs, key=str)]
    checkpoints.save(
        arguments.network,
        weights,
        first.config,
        arguments.out,
        averaged,
        half=first.architecture == checkpoints.COMPACT,
        architecture=first.architecture,
        licence=first.licence,
        earlier=earlier,
    )


if __name__ == "__main__":
    try:
        main()
    except CheckpointError as error:
        sys.exit(str(error))
