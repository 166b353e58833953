"""``oldphoto weights import`` and what is done with what it keeps, from the released files to restored photos."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import released
import torch
from click.testing import CliRunner, Result
from conftest import Photo
from in_this_process import InThisProcess
from PIL import Image
from safetensors.torch import load_file

from oldphoto import checkpoints, published_weights
from oldphoto.cli import main
from oldphoto.faces import FaceFinder
from oldphoto.imagefile import read_photo

QUALITY = ("VAE_A_quality", "VAE_B_quality", "mapping_quality")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The folder of the imported weights, in a home of its own that this process alone knows."""
    monkeypatch.setattr("oldphoto.workers.Workers", InThisProcess)
    return released.narrow(monkeypatch, tmp_path / "home")


def oldphoto(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="oldphoto")


def import_from(*paths: Path, options: tuple[str, ...] = ()) -> Result:
    return oldphoto("weights", "import", *paths, "--as", "published", *options)


@pytest.fixture
def portrait(photo: Photo, tmp_path: Path) -> Path:
    path = tmp_path / "in" / "portrait.png"
    path.parent.mkdir()
    Image.fromarray(np.uint8(photo("astronaut")[:203, 120:321] * 255)).save(path)
    return path


def test_a_release_is_imported_listed_verified_and_restores_photos(home, portrait, tmp_path, monkeypatch):
    done = import_from(released.write_all(tmp_path / "release"))
    assert done.exit_code == 0, done.output
    assert "missing" not in done.output

    listed = json.loads(oldphoto("weights", "list", "--json", "--weights", "published").stdout)
    assert set(listed["networks"]) == set(published_weights.NETWORKS)
    assert all(network["licence"].startswith("MIT") for network in listed["networks"].values())
    assert all(network["gigaflop"]["count"] > 0 for network in listed["networks"].values())
    everything = json.loads(oldphoto("weights", "list", "--json").stdout)
    assert [other["folder"] for other in everything["others"]] == [str(home)]
    verified = oldphoto("weights", "verify", "--weights", "published")
    assert verified.exit_code == 0
    assert verified.stdout.count("ok") == len(published_weights.NETWORKS)

    # Weights that were made by rule leave no face that could be found again.
    faces = FaceFinder().find(read_photo(portrait).rgb)
    monkeypatch.setattr(FaceFinder, "find", lambda self, rgb: faces)
    results = {}
    for name, options in (("plain", ()), ("scratch", ("--with-scratch",)), ("hr", ("--with-scratch", "--hr"))):
        run = oldphoto("restore", portrait.parent, tmp_path / name, "--weights", "published", "--device", "cpu",
                       "--log", tmp_path / f"{name}.jsonl", *options)  # fmt: skip
        assert run.exit_code == 0, run.output
        assert json.loads((tmp_path / f"{name}.jsonl").read_text())["faces"] == 1
        with Image.open(tmp_path / name / "portrait.png") as picture:
            results[name] = np.asarray(picture)
            assert picture.size == (201, 203)  # as it was: neither cut nor resized
    assert not np.array_equal(results["scratch"], results["plain"])
    assert not np.array_equal(results["scratch"], results["hr"])
    masks = oldphoto("mask", portrait.parent, tmp_path / "masks", "--weights", "published", "--device", "cpu")
    assert masks.exit_code == 0, masks.output
    # What the published model has no network for, the project's own do.
    published = ("--weights", "published", "--device", "cpu")
    for command in (
        ("denoise", portrait.parent, tmp_path / "quiet", "--method", "learned"),
        ("deblur", portrait.parent, tmp_path / "sharp", "--psf", "gaussian:1"),
        (
            "restore",
            portrait.parent,
            tmp_path / "both",
            "--deblur",
            "hqs:gaussian:1",
            "--no-faces",
            "--log",
            tmp_path / "both.jsonl",
        ),
        ("diagnose", portrait),
    ):
        done = oldphoto(*command, *published)
        assert done.exit_code == 0, done.output
    assert set(json.loads((tmp_path / "both.jsonl").read_text())["weights"]) > {"denoiser", "translation"}


def test_what_is_kept_is_what_was_released(home, tmp_path):
    assert import_from(released.write_all(tmp_path / "release")).exit_code == 0
    kept = load_file(home / "translation-hr.safetensors")
    whole = {key: value for key, value in released.state_of("VAE_A_quality").items() if key.startswith("encoder")}
    whole |= {key: value for key, value in released.state_of("VAE_B_scratch").items() if key.startswith("decoder")}
    whole |= {f"mapping.{key}": value for key, value in released.state_of("mapping_Patch_Attention").items()}
    assert kept.keys() == whole.keys()
    assert all(torch.equal(value, kept[key]) for key, value in whole.items())
    record = checkpoints.find("translation-hr", home)[1].training[0]
    file = released.path_of(tmp_path / "release", "VAE_B_scratch")
    assert record["files"]["VAE_B_scratch/latest_net_G.pth"] == checkpoints.sha256(file)


class Malice:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("broken-into",)


def without(name: str, key: str) -> dict:
    return {k: value for k, value in released.state_of(name).items() if k != key}


FAULTS = {
    "missing": lambda name: without(name, "encoder.4.bias"),
    "extra": lambda name: released.state_of(name) | {"encoder.99.bias": torch.ones(3)},
    "shape": lambda name: released.state_of(name) | {"encoder.4.bias": torch.ones(5)},
    "kind": lambda name: released.state_of(name) | {"encoder.4.bias": torch.ones(4, dtype=torch.int64)},
    "no tensor": lambda name: released.state_of(name) | {"encoder.4.bias": [1.0] * 4},
    "not a number": lambda name: released.state_of(name) | {"encoder.4.bias": torch.full((4,), torch.nan)},
    "no table": lambda name: [1, 2],
    "code": lambda name: released.state_of(name) | {"encoder.4.bias": Malice()},
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_not_the_published_network_is_refused_and_nothing_kept(fault, old, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "release"
    for name in ("detection", *QUALITY):
        released.write(folder, name)
    path = released.write(folder, "VAE_B_quality", FAULTS[fault]("VAE_B_quality"), old)
    refused = import_from(folder)
    assert refused.exit_code == 2
    assert str(path) in refused.stderr and len(refused.stderr.splitlines()) == 1
    if fault in ("missing", "extra", "shape", "kind"):
        assert "encoder." in refused.stderr
    assert not home.exists()
    assert not Path("broken-into").exists()


def test_a_file_of_another_kind_is_refused_without_running_it(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "release"
    for name in ("detection", *QUALITY):
        path = released.write(folder, name)
    for content in (b"", b"<html>404</html>", path.read_bytes()[:5000], pickle.dumps(Malice())):
        path.write_bytes(content)
        refused = import_from(folder)
        assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1), refused.output
        assert str(path) in refused.stderr
    assert not home.exists()
    assert not Path("broken-into").exists()


def test_extra_entries_are_left_out_when_asked(home, tmp_path):
    folder = tmp_path / "release"
    for name in QUALITY:
        released.write(folder, name, FAULTS["extra"](name) if name == "VAE_B_quality" else None)
    assert import_from(folder, options=("--ignore-extra",)).exit_code == 0
    assert oldphoto("weights", "verify", "--weights", "published").exit_code == 0


def test_part_of_a_release_does_what_it_can_and_says_what_is_missing(home, portrait, tmp_path):
    files = [released.write(tmp_path / "some", name) for name in QUALITY]
    done = import_from(*files)
    assert done.exit_code == 0, done.output
    assert "missing  FaceSR_512/latest_net_G.pth" in done.output
    restore = ("restore", portrait.parent, tmp_path / "out", "--weights", "published", "--device", "cpu")
    for options in ((), ("--no-faces", "--with-scratch")):
        refused = oldphoto(*restore, *options)
        assert refused.exit_code == 2, options
        assert "oldphoto weights import" in refused.stderr
    assert oldphoto(*restore, "--no-faces").exit_code == 0
    # The rest, later:
    assert import_from(released.write_all(tmp_path / "rest")).exit_code == 0
    assert set(checkpoints.read_manifest(home)) == set(published_weights.NETWORKS)


def test_what_cannot_be_told_is_not_guessed(home, tmp_path):
    folder = tmp_path / "release"
    for name in QUALITY:
        released.write(folder, name)
    lost = tmp_path / "latest_net_G.pth"
    lost.write_bytes(released.path_of(folder, "VAE_A_quality").read_bytes())
    again = released.write(tmp_path / "again", "VAE_A_quality")
    for paths, why in (
        ((lost,), "none of the released files"),
        ((folder, again), "there twice"),
        ((tmp_path / "nowhere",), "no such file"),
        ((again,), "no network is complete"),
    ):
        refused = import_from(*paths)
        assert refused.exit_code == 2
        assert why in refused.stderr
    assert not home.exists()


def test_weights_that_are_not_installed_are_asked_for(home, portrait, tmp_path):
    refused = oldphoto("restore", portrait, tmp_path / "out.png", "--weights", "published")
    assert refused.exit_code == 2
    assert "oldphoto weights import" in refused.stderr


def test_an_altered_imported_file_is_found_and_refused(home, portrait, tmp_path):
    assert import_from(*(released.write(tmp_path / "release", name) for name in QUALITY)).exit_code == 0
    path = home / "translation.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert oldphoto("weights", "verify").exit_code == 2
    run = oldphoto("restore", portrait, tmp_path / "out.png", "--weights", "published", "--no-faces")
    assert run.exit_code == 1  # the network is loaded when the first photo needs it
    assert "SHA-256" in run.stderr
