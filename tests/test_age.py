"""``oldphoto age``: files, options, messages and exit codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from skimage import data

from oldphoto.cli import main
from oldphoto.imagefile import Photo, read_mask, read_photo, write_photo


@pytest.fixture(autouse=True)
def inside_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return data.astronaut()[:96, 160:288].astype(np.float32) / 255


def oldphoto(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="oldphoto")


def contents(folder: str) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.*")}


def test_a_tree_is_aged_with_masks(picture):
    write_photo(Photo(picture), Path("in/a.png"))
    write_photo(Photo(picture), Path("in/sub/b.jpg"))
    done = oldphoto("age", "in", "out", "--save-masks", "masks", "--severity", "0.6")
    assert done.exit_code == 0, done.output
    assert "2 aged in" in done.stderr
    assert done.stdout == ""
    assert set(contents("out")) == {"a.png", "sub/b.jpg"}
    for name in ("a", "sub/b"):
        mask = read_mask(Path(f"masks/{name}.png"))
        assert mask.shape == picture.shape[:2]
        assert mask.any()
    assert np.abs(read_photo(Path("out/a.png")).rgb - picture).mean() > 0.02


def test_no_photo_stands_beside_the_mask_of_another(picture):
    write_photo(Photo(picture), Path("in/a.png"))
    ageing = ("--save-masks", "masks", "--severity", "0.6")
    assert oldphoto("age", "in", "out", *ageing).exit_code == 0
    mask = Path("masks/a.png").read_bytes()
    assert oldphoto("age", "in", "same", *ageing).exit_code == 0
    other = oldphoto("age", "in", "other", *ageing, "--seed", "1")
    assert other.exit_code == 1
    assert "another mask" in other.stderr
    assert not Path("other/a.png").exists()
    assert Path("masks/a.png").read_bytes() == mask


def test_a_photo_ages_the_same_in_any_company(picture):
    for name in ("a.png", "b.png", "sub/a.png"):
        write_photo(Photo(picture), Path("in", name))
    assert oldphoto("age", "in", "all", "--seed", "5", "--jobs", "3").exit_code == 0
    assert oldphoto("age", "in/b.png", "one.png", "--seed", "5").exit_code == 0
    shutil.rmtree("in/sub")
    assert oldphoto("age", "in", "fewer", "--seed", "5").exit_code == 0
    every = contents("all")
    assert Path("one.png").read_bytes() == every["b.png"]
    assert contents("fewer") == {name: every[name] for name in ("a.png", "b.png")}
    assert len(set(every.values())) == 3  # photos alike age differently
    assert oldphoto("age", "in", "other", "--seed", "6").exit_code == 0
    assert contents("other")["b.png"] != every["b.png"]


def test_a_gray_scan_stays_gray_and_keeps_its_metadata(picture):
    exif = Image.Exif()
    exif[0x010E] = "Grandmother"
    gray = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    write_photo(Photo(gray, gray=True, bit_depth=16, exif=exif.tobytes(), dpi=(600, 600)), Path("in/a.tif"))
    assert oldphoto("age", "in", "out", "--severity", "0.5").exit_code == 0
    aged = read_photo(Path("out/a.tif"))
    assert (aged.gray, aged.bit_depth, aged.dpi) == (True, 16, (600, 600))
    assert aged.exif is not None and b"Grandmother" in aged.exif
    assert aged.rgb.shape == picture.shape


def test_no_severity_leaves_the_pixels(picture):
    write_photo(Photo(picture), Path("in/a.png"))
    assert oldphoto("age", "in", "out", "--severity", "0").exit_code == 0
    assert np.array_equal(read_photo(Path("out/a.png")).rgb, read_photo(Path("in/a.png")).rgb)


def test_finished_photos_are_kept_and_a_bad_one_fails_alone(picture):
    write_photo(Photo(picture), Path("in/a.png"))
    Path("in/b.jpg").write_bytes(b"no picture")
    first = oldphoto("age", "in", "out", "--format", "jpg", "--quality", "80")
    assert first.exit_code == 1
    assert first.stderr.count("in/b.jpg: ") == 1
    assert set(contents("out")) == {"a.jpg"}
    before = contents("out")
    assert "1 kept" in oldphoto("age", "in", "out", "--format", "jpg", "--seed", "9").stderr
    assert contents("out") == before
    oldphoto("age", "in", "out", "--format", "jpg", "--seed", "9", "--overwrite")
    assert contents("out") != before


def test_a_dry_run_touches_nothing(picture):
    write_photo(Photo(picture), Path("in/a.png"))
    done = oldphoto("age", "in", "out", "--save-masks", "masks", "--dry-run")
    assert done.exit_code == 0
    assert "in/a.png -> out/a.png" in done.stdout
    assert not Path("out").exists() and not Path("masks").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("missing", "out"),
        ("in", "in"),
        ("in", "in/out"),
        ("in", "out", "--severity", "1.5"),
        ("in", "out", "--severity", "nan"),
        ("in", "out", "--seed", "-1"),
        ("in", "out", "--quality", "0"),
        ("in", "out", "--save-masks", "out"),
        ("in",),
    ],
)
def test_a_wrong_request_is_refused_and_touches_nothing(picture, arguments):
    write_photo(Photo(picture), Path("in/a.png"))
    before = contents(".")
    refused = oldphoto("age", *arguments)
    assert refused.exit_code == 2, refused.output
    assert "Traceback" not in refused.output
    assert contents(".") == before
