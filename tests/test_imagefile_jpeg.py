"""JPEG of the rarer kinds: read, or refused with what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from test_imagefile import COLOUR, GRAY, assert_refused, bytes_of

from oldphoto.imagefile import read_photo

READ = """
import sys
from pathlib import Path
from oldphoto.errors import PhotoError
from oldphoto.imagefile import read_photo

try:
    read_photo(Path(sys.argv[1]))
except PhotoError:
    pass
"""


@pytest.mark.parametrize("garbage", [b"", b"\1garbage"])
@pytest.mark.parametrize("samples", [GRAY, COLOUR], ids=["gray", "colour"])
def test_a_lossless_jpeg_does_no_harm(tmp_path: Path, samples: np.ndarray, garbage: bytes) -> None:
    picture = np.tile(samples, (4, 5) + (1,) * (samples.ndim - 2))
    content = imagecodecs.jpeg8_encode(picture, lossless=True)
    (tmp_path / "a.jpg").write_bytes(content[:2] + garbage + content[2:])
    subprocess.run([sys.executable, "-c", READ, str(tmp_path / "a.jpg")], check=True)  # a crash would end pytest
    if not garbage:
        assert np.array_equal(bytes_of(read_photo(tmp_path / "a.jpg")), picture)


def test_samples_of_more_bits_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(GRAY.astype(np.uint16) * 16, bitspersample=12))
    assert_refused(tmp_path / "a.jpg", r"of a kind that is not read \(12 bits\): save it as PNG")
