"""A sparse picture is the array that it stands for."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oldphoto.arrays import HalfImage
from oldphoto.pyramid import halve, strips
from oldphoto.sparse import SparsePicture

STEADY = settings(max_examples=60, deadline=None, derandomize=True)
SIDE = st.integers(1, 150)
SHARE = st.sampled_from([0, 0.01, 0.3, 1])


def random_picture(height: int, width: int, share: float, seed: int) -> tuple[HalfImage, SparsePicture]:
    rng = np.random.default_rng(seed)
    places = rng.random((height, width)) < share
    dense = (rng.uniform(-1, 1, (height, width, 3)) * places[..., None]).astype(np.float16)
    parts = ((places[rows], dense[rows][places[rows]]) for rows in strips(height))
    return dense, SparsePicture(dense.shape, parts)


@STEADY
@given(SIDE, SIDE, SHARE, st.integers(0, 9), st.data())
def test_its_slices_and_half_of_it_are_those_of_the_array(
    height: int, width: int, share: float, seed: int, data: st.DataObject
) -> None:
    dense, sparse = random_picture(height, width, share, seed)
    top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    part = slice(top, data.draw(st.integers(top, height + 9))), slice(left, data.draw(st.integers(left, width + 9)))
    np.testing.assert_array_equal(sparse[part], dense[part])
    np.testing.assert_array_equal(sparse[part[0]], dense[part[0]])
    np.testing.assert_array_equal(halve(sparse), halve(dense))


@STEADY
@given(SIDE, SIDE, SHARE, st.integers(0, 9))
def test_replaced_values_stay_where_something_was(height: int, width: int, share: float, seed: int) -> None:
    dense, sparse = random_picture(height, width, share, seed)
    changed = np.random.default_rng(seed).random(dense.shape, np.float32)
    for rows in strips(height):
        sparse.replace(rows, changed[rows])
    held = dense.any(2, keepdims=True)
    np.testing.assert_array_equal(sparse[:], changed.astype(np.float16) * held)
    nothing = SparsePicture(dense.shape, ())
    nothing.replace(slice(0, height), changed)
    assert not nothing[:].any()
