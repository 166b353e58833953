"""Fine-tuning on scans without clean versions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Photo
from safetensors.torch import load_file

from oldphoto import checkpoints
from oldphoto.cli import main
from oldphoto.errors import UsageError
from oldphoto.imagefile import Photo as PhotoFile
from oldphoto.imagefile import write_photo
from oldphoto.nets.translation import TranslationNet
from oldphoto.training import noise2noise
from oldphoto.training.loop import Settings


@pytest.fixture
def scans(photo: Photo, tmp_path: Path) -> Path:
    """Three noisy scans, one of them in a folder of its own, and a file that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "scans"
    (folder / "album").mkdir(parents=True)
    for name, path in (("astronaut", "a.png"), ("coffee", "b.png"), ("chelsea", "album/c.png")):
        clean = photo(name)[:256, :256]
        noisy = clean + rng.normal(0, 0.12, clean.shape).astype(np.float32)
        write_photo(PhotoFile(noisy.clip(0, 1)), folder / path)
    (folder / "broken.jpg").write_bytes(b"not a photo")
    return folder


def test_the_two_pictures_are_of_neighbouring_pixels() -> None:
    ys, xs = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    places = torch.stack([ys, xs])[None].repeat(2, 1, 1, 1)
    first, second = (
        noise2noise.take(places, index) for index in noise2noise.neighbours(places, torch.Generator().manual_seed(0))
    )
    assert first.shape == (2, 2, 32, 24)
    assert ((first - second).abs().sum(1) == 1).all()
    assert torch.equal(first // 2, second // 2)  # of one cell
    assert torch.equal((first // 2)[0, 0, :, 0], torch.arange(32.0))
    assert not torch.equal(first[0], first[1])


def test_noisy_scans_alone_teach_to_denoise(photo: Photo, scans: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    untrained = TranslationNet()
    checkpoints.save("translation", untrained.state_dict(), {}, tmp_path / "out", {"run": 0})
    settings = Settings(scans, tmp_path / "out", None, 40, batch=2, crop=128, learning_rate=2e-2, bfloat16=False)
    noise2noise.train(settings)
    trained = checkpoints.load(TranslationNet, "translation", tmp_path / "out").eval()

    clean = torch.from_numpy(photo("rocket")[:256, :256]).permute(2, 0, 1)[None]
    noisy = clean + 0.12 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros_like(noisy)
    with torch.inference_mode():
        left = float((trained(noisy, nothing[:, :1], nothing) - clean).square().mean())
    assert left < 0.75 * float((noisy - clean).square().mean())
    scores = checkpoints.find("translation", tmp_path / "out")[1].scores
    assert scores is not None
    assert scores["neighbours predicted, dB"] > scores["neighbours predicted before, dB"]


def test_it_starts_from_the_bundled_weights_and_leaves_a_folder_to_restore_with(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    command = ["train", "translation", "--noise2noise", str(scans), "--out", str(out), "--crop", "128", "--batch", "1"]
    result = CliRunner().invoke(main, [*command, "--steps", "1", "--learning-rate", "1e-9"])
    assert result.exit_code == 0, result.output
    bundled = checkpoints.checkpoint_folder()
    before, after = (load_file(folder / "translation.safetensors") for folder in (bundled, out))
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=2e-3, atol=1e-5, msg=key)
    records = json.loads((out / checkpoints.MANIFEST).read_text())["networks"]["translation"]["training"]
    assert records[-1]["noise2noise"] is True
    restored = CliRunner().invoke(
        main, ["restore", str(scans / "a.png"), str(tmp_path / "a.png"), "--weights", str(out), "--no-faces"]
    )
    assert restored.exit_code == 0, restored.output


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no readable scans"):
        noise2noise.train(Settings(tmp_path / "empty", tmp_path / "out", None, 1, crop=128))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_weights_is_no_place_to_train_in(scans: Path, tmp_path: Path) -> None:
    tone = checkpoints.find("tone")[1]
    checkpoints.save("tone", {"weight": torch.zeros(1)}, tone.config, tmp_path / "out", {"run": 1})
    with pytest.raises(UsageError, match="another folder"):
        noise2noise.train(Settings(scans, tmp_path / "out", None, 1, crop=128))


@pytest.mark.parametrize(
    "options", [[], ["--data", "a", "--noise2noise", "b"], ["--noise2noise", "b", "--config", "published"]]
)
def test_contradicting_sources_are_refused(options: list[str], tmp_path: Path) -> None:
    command = ["train", "translation", "--out", str(tmp_path / "out"), "--steps", "1", *options]
    assert CliRunner().invoke(main, command).exit_code == 2
