"""``oldphoto weights``: what is listed, and that nothing altered passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from oldphoto import checkpoints
from oldphoto.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = {"run": 1, "hours": 9.0, "steps": 900, "resumed": False}
    checkpoints.save("tone", {"w": torch.ones(7)}, {}, tmp_path / "w", run)
    run = {"run": 2, "hours": 1.5, "steps": 100, "resumed": False}
    checkpoints.save("tone", {"w": torch.ones(3, 4), "b": torch.ones(4)}, {}, tmp_path / "w", run)
    run = {"run": 3, "hours": 0.5, "steps": 50, "resumed": True}
    checkpoints.save("tone", {"w": torch.ones(3, 4), "b": torch.ones(4)}, {}, tmp_path / "w", run, {"PSNR": 24.5})
    checkpoints.save("scratches", {"w": torch.zeros(5)}, {"width": 5}, tmp_path / "w", {"run": 1})
    return tmp_path / "w"


def weights(command: str, folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["weights", command, "--weights", str(folder), *options], prog_name="oldphoto")


def change_manifest(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / checkpoints.MANIFEST
    content = json.loads(path.read_text())
    change(content["networks"])
    path.write_text(json.dumps(content))


def test_what_was_trained_before_a_mean_counts(folder):
    change_manifest(folder, lambda nets: nets["tone"]["training"].append({"run": 9, "mean of": ["a", "b"]}))
    told = json.loads(weights("list", folder, "--json").stdout)["networks"]["tone"]
    assert (told["hours"], told["steps"]) == (2.0, 150)


def test_the_list_tells_size_parameters_training_and_scores(folder):
    listed = weights("list", folder, "--json")
    assert listed.exit_code == 0, listed.output
    told = json.loads(listed.stdout)
    assert told["folder"] == str(folder)
    assert list(told["networks"]) == ["scratches", "tone"]
    assert told["networks"]["tone"] == {
        "file": "tone.safetensors",
        "sha256": checkpoints.sha256(folder / "tone.safetensors"),
        "architecture": "compact",
        "bytes": (folder / "tone.safetensors").stat().st_size,
        "parameters": 16,
        "gigaflop": {"per": "photo", "count": 0.299},
        "hours": 2.0,  # the first run was begun anew by the second, which the third went on from
        "steps": 150,
        "scores": {"PSNR": 24.5},
        "licence": None,
    }
    assert told["networks"]["scratches"]["gigaflop"] is None  # no such network can be made of its configuration
    table = weights("list", folder).stdout
    assert told["networks"]["tone"]["sha256"] in table and "0.3 GFLOP a photo" in table
    assert "tone" in table and "16 parameters" in table and "2.0 h, 150 steps" in table and "PSNR 24.5" in table


def test_values_too_large_for_half_precision_are_kept(tmp_path):
    variances, others = torch.tensor([1e5, 3.0]), torch.tensor([0.1, 2.0])
    path = checkpoints.save("net", {"variances": variances, "others": others}, {}, tmp_path, {"run": 0})
    stored = load_file(path)
    assert torch.equal(stored["variances"], variances)
    assert torch.equal(stored["others"], others.half())


def test_bundled_weights_are_all_numbers():
    bundled = checkpoints.checkpoint_folder()
    for record in checkpoints.read_manifest(bundled).values():
        for key, value in load_file(checkpoints.verify(bundled, record)).items():
            assert value.isfinite().all(), f"{record.name}: {key}"


def test_intact_weights_are_verified(folder):
    verified = weights("verify", folder)
    assert verified.exit_code == 0
    assert [line.split() for line in verified.stdout.splitlines()] == [["ok", "scratches"], ["ok", "tone"]]


def alter_byte(folder: Path) -> None:
    content = bytearray((folder / "tone.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "tone.safetensors").write_bytes(content)


def remove_file(folder: Path) -> None:
    (folder / "tone.safetensors").unlink()


def lie_about_hash(folder: Path) -> None:
    change_manifest(folder, lambda networks: networks["tone"].update(sha256="0" * 64))


def lie_about_file(folder: Path) -> None:
    change_manifest(folder, lambda networks: networks["tone"].update(file="scratches.safetensors"))


def lead_out(folder: Path) -> None:
    (folder / "tone.safetensors").rename(folder.parent / "tone.safetensors")
    change_manifest(folder, lambda networks: networks["tone"].update(file="../tone.safetensors"))


@pytest.mark.parametrize("tamper", [alter_byte, remove_file, lie_about_hash, lie_about_file, lead_out])
def test_altered_weights_are_found_and_refused(folder, tamper):
    tamper(folder)
    verified = weights("verify", folder)
    assert verified.exit_code == 2
    lines = verified.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].split() == ["ok", "scratches"]
    assert lines[1].startswith("altered  tone: ")
    assert "1 of 2" in verified.stderr
    with pytest.raises(checkpoints.CheckpointError):
        checkpoints.load(torch.nn.Identity, "tone", folder)


def test_the_list_survives_a_missing_file_and_does_not_follow_one_that_leads_out(folder):
    lead_out(folder)
    tone = json.loads(weights("list", folder, "--json").stdout)["networks"]["tone"]
    assert (tone["bytes"], tone["parameters"]) == (None, None)
    assert "missing" in weights("list", folder).stdout


def test_a_file_that_is_no_checkpoint_has_no_parameters(folder):
    (folder / "tone.safetensors").write_bytes(b"rubbish")
    tone = json.loads(weights("list", folder, "--json").stdout)["networks"]["tone"]
    assert (tone["bytes"], tone["parameters"]) == (7, None)


@pytest.mark.parametrize("command", ["list", "verify"])
@pytest.mark.parametrize("manifest", ["", "[]", '{"networks": {"tone": {}}}', '{"networks": 3}'])
def test_an_unreadable_manifest_is_refused(tmp_path, command, manifest):
    (tmp_path / checkpoints.MANIFEST).write_text(manifest)
    refused = weights(command, tmp_path)
    assert refused.exit_code == 2
    assert "not a readable manifest" in refused.stderr


def test_a_folder_without_weights_is_refused(tmp_path):
    refused = weights("verify", tmp_path / "nowhere")
    assert refused.exit_code == 2
    assert "no weights here" in refused.stderr


def test_an_empty_list_is_no_error(tmp_path):
    (tmp_path / checkpoints.MANIFEST).write_text('{"networks": {}}')
    assert weights("list", tmp_path).exit_code == 0
    assert weights("verify", tmp_path).exit_code == 0
