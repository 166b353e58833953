from itertools import product
from pathlib import Path

import numpy as np
import pytest
from annotate import Scan, paint
from evaluate_masks import HALVES, roc_auc
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data, draw

from oldphoto.errors import UsageError
from oldphoto.training.scans import DAMAGED, INTACT, UNSURE
from oldphoto.training.scratches import tolerant_f1

ANNOTATIONS = Path(__file__).parent / "annotations"


def test_every_scan_is_annotated_once() -> None:
    names = {half: {path.stem for path in (ANNOTATIONS / half).glob("*.png")} for half in HALVES}
    assert not names["tuning"] & names["test"]
    training = {path.stem for path in (ANNOTATIONS / "training").glob("*.png")}
    assert training and not training & (names["tuning"] | names["test"])
    assert all(len(names[half]) >= 12 for half in HALVES)
    for folder, painted in {**names, "training": training}.items():
        assert {path.stem for path in (ANNOTATIONS / folder).glob("*.txt")} == painted


@pytest.mark.parametrize("path", sorted(ANNOTATIONS.glob("*/*.png")), ids=lambda path: path.stem)
def test_masks_hold_known_values_only(path: Path) -> None:
    mask = np.asarray(Image.open(path))
    assert mask.ndim == 2
    assert set(np.unique(mask)) <= {INTACT, DAMAGED, UNSURE}
    assert path.parent.name == "training" or np.mean(mask == INTACT) > 0.5


def test_a_loose_stroke_takes_the_scratch_alone(scratched: tuple[Scan, np.ndarray]) -> None:
    scan, scratch = scratched
    mask = paint(["light-line 13 60,100  200,118  # sloppy", ""], scan)
    assert tolerant_f1(mask == DAMAGED, scratch) > 0.95
    assert np.mean(mask == DAMAGED) < 2 * np.mean(scratch)


def test_later_decisions_paint_over_earlier_ones(scratched: tuple[Scan, np.ndarray]) -> None:
    scan, _ = scratched
    mask = paint(
        ["area 10,10 29,10 29,29 10,29", "unsure-area 10,10 29,10 29,14 10,14", "erase-line 3 10,20 29,20"], scan
    )
    assert [np.sum(mask == value) for value in (DAMAGED, UNSURE)] == [20 * 20 - 20 * 5 - 20 * 3, 20 * 5]


def test_a_blank_photo_has_no_candidates(tmp_path: Path) -> None:
    Image.new("L", (60, 40), 128).save(tmp_path / "blank.png")
    decisions = ["keep 1 -1", "light-area 0,0 59,0 59,39 0,39", "dark-line 5 3,3 50,30"]
    assert not paint(decisions, Scan(tmp_path / "blank.png")).any()


@pytest.mark.parametrize(
    "line", ["lihgt-line 3 1,1 2,2", "line 3 1,1 2", "keep one", "line 3", "area", "above-line 3 1,1"]
)
def test_a_decision_that_makes_no_sense_is_named(line: str, scratched: tuple[Scan, np.ndarray]) -> None:
    with pytest.raises(UsageError, match="line 2"):
        paint(["# first", line], scratched[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_roc_auc_is_how_often_the_true_one_scores_higher(ranked: list[tuple[bool, int]]) -> None:
    true = [score for truth, score in ranked if truth]
    untrue = [score for truth, score in ranked if not truth]
    found = roc_auc([truth for truth, _ in ranked], [score for _, score in ranked])
    if not true or not untrue:
        assert found is None
    else:
        wins = [(one > other) + (one == other) / 2 for one, other in product(true, untrue)]
        assert found == pytest.approx(np.mean(wins))


@pytest.fixture(scope="module")
def scratched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scan, np.ndarray]:
    """A photo with a light scratch three px wide, and where it is."""
    pixels = data.moon()[100:356, 100:356].copy()
    scratch = np.zeros(pixels.shape, bool)
    for shift in (-1, 0, 1):
        scratch[draw.line(102 + shift, 60, 116 + shift, 200)] = True
    pixels[scratch] = 250
    path = tmp_path_factory.mktemp("scans") / "scan.png"
    Image.fromarray(pixels).save(path)
    return Scan(path), scratch
