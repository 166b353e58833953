"""Take newly trained networks into checkpoints/ where they score better than what is there.

    python scripts/promote.py TRAINED... [--into checkpoints] [--force]

TRAINED are folders that ``oldphoto train --out`` wrote. Weights and the trainer's own record are copied as they are.
Scores compare only where the trainer made them of the same held-out examples, before and after: of weights that are
averages, or were scored by an earlier trainer, ``oldphoto train NETWORK --resume --steps 1`` makes them anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from oldphoto import checkpoints
from oldphoto.checkpoints import MANIFEST
from oldphoto.errors import CheckpointError
from oldphoto.imagefile import atomically

SCORES = {
    "scratches": ("F1 at 2 px", 1),
    "tone": ("PSNR corrected", 1),
    "autoencoders": ("round trip PSNR", 1),
    "translation": ("PSNR translated", 1),
    "faces": ("perceptual refined", -1),
    "denoiser": ("PSNR denoised", 1),
}
"""The score that decides for each network, and whether more (1) or less (-1) is better."""


def better(name: str, candidate: dict[str, Any], present: dict[str, Any] | None) -> bool:
    """Whether a manifest's entry scores higher than the present one, or there is none.

    Raises CheckpointError where they can not be compared.
    """
    if present is None:
        return True
    key, sign = SCORES.get(name, ("", 1))
    of_candidate, of_present = ((entry["scores"] or {}).get(key) for entry in (candidate, present))
    if of_candidate is None or of_present is None:
        raise CheckpointError(f"'{name}': one of both has no score '{key}' to compare: score it, or --force")
    return bool(sign * of_candidate > sign * of_present)


def read(folder: Path) -> dict[str, Any]:
    """The networks of a manifest, none of a folder without one."""
    path = folder / MANIFEST
    networks: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["networks"] if path.exists() else {}
    return networks


def take(folder: Path, name: str, entry: dict[str, Any], into: Path) -> None:
    """Copy verified weights, then enter them in the manifest: what is killed between is found out by their hash."""
    weights = checkpoints.verify(*checkpoints.find(name, folder))
    with atomically(into / entry["file"]) as temporary:
        shutil.copyfile(weights, temporary)
    with atomically(into / MANIFEST) as temporary:
        content = json.dumps({"networks": read(into) | {name: entry}}, indent=2, sort_keys=True)
        temporary.write_text(content + "\n", encoding="utf-8")


def main() -> None:
    """Compare, copy, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, default=Path("checkpoints"))
    parser.add_argument("--force", action="store_true", help="take them whatever they score")
    arguments = parser.parse_args()
    arguments.into.mkdir(exist_ok=True)
    for folder in arguments.trained:
        if not read(folder):
            raise CheckpointError(f"{folder}: no trained networks here ({MANIFEST} is missing)")
        for name, entry in read(folder).items():
            taken = arguments.force or better(name, entry, read(arguments.into).get(name))
            print(f"{name}: {'taken from' if taken else 'kept, not better:'} {folder}  {entry['scores']}")
            if taken:
                take(folder, name, entry, arguments.into)


if __name__ == "__main__":
    try:
        main()
    except CheckpointError as error:
        sys.exit(str(error))
