"""The measuring of a restoration on damage that oldphoto's own generator did not draw."""

from __future__ import annotations

from pathlib import Path

import evaluate_elsewhere as elsewhere
import numpy as np
import pytest
from conftest import Photo

from oldphoto.evaluation import Comparison, Scores


@pytest.mark.parametrize("name", elsewhere.PHOTOS)
def test_a_photo_ages_the_same_way_every_time_and_is_damaged_where_it_says(name: str) -> None:
    aged, again = elsewhere.age(name, 1), elsewhere.age(name, 1)
    assert np.array_equal(aged.photo, again.photo) and np.array_equal(aged.damage, again.damage)
    assert aged.photo.shape == aged.clean.shape == (*aged.damage.shape, 3)
    assert aged.photo.min() >= 0 and aged.photo.max() <= 1
    assert 0.0005 < aged.damage.mean() < 0.3
    assert not np.array_equal(aged.photo, elsewhere.age(name, 2).photo)


def test_what_is_marked_differs_more_from_the_original_than_what_is_not() -> None:
    ratios = []
    for seed in range(6):
        aged = elsewhere.age("rocket", seed)
        change = np.abs(aged.photo - aged.clean).mean(2)
        ratios.append(change[aged.damage].mean() / change[~aged.damage].mean())
    assert np.median(ratios) > 2


def test_nothing_of_the_trainers_generator_is_in_it() -> None:
    source = Path(elsewhere.__file__).read_text(encoding="utf-8")
    for module in ("ageing", "damage", "decoys", "styles", "datasets"):
        assert f"oldphoto.training.{module}" not in source


def result(gain: float, true_gain: float, photo: Photo) -> elsewhere.Result:
    clean = photo("rocket")[:40, :40]
    damage = np.zeros((40, 40), bool)
    damage[:8] = True

    def scored(psnr: float) -> Comparison:
        scores = Scores(psnr, 0.5, 10 / psnr)
        return Comparison(scores, scores)

    aged = elsewhere.Aged("rocket", clean, clean, damage)
    return elsewhere.Result(
        aged, scored(20), scored(20 + gain), scored(20 + true_gain), damage.astype(np.float32), clean
    )


def test_the_report_says_what_is_gained_and_how_often_something_is_lost(photo: Photo) -> None:
    lines = elsewhere.report([result(3, 4, photo), result(-1, 2, photo)], 0.001)
    assert lines[0] == "2 photos: average precision 1.000, F1 1.000; marked of undamaged ones 0.10%"
    found, true = (line.split("|") for line in lines[-2:])
    assert [cell.strip() for cell in found[1:4]] == ["found", "+1.00", "+1.00"]
    assert [cell.strip() for cell in found[5:7]] == ["1", "1"]
    assert [cell.strip() for cell in true[1:4]] == ["true", "+3.00", "+3.00"]
    assert [cell.strip() for cell in true[5:7]] == ["0", "0"]
