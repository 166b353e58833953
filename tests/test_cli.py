"""The command line: what it writes, says, refuses and returns, with networks replaced by a stand-in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from in_this_process import InThisProcess

from oldphoto import __version__
from oldphoto.batch import Found, Job, Outcome, Plan
from oldphoto.checkpoints import bundled_folder
from oldphoto.cli import common, main
from oldphoto.errors import CheckpointError, PhotoError, UsageError
from oldphoto.imagefile import PIXEL_LIMIT, Photo, read_mask, read_photo, write_mask, write_photo


@dataclass(frozen=True)
class RestoreOptions:
    with_scratch: bool = False
    faces: bool = True
    strength: float = 1.0
    tile: int | None = None
    deblur: str | None = None
    large_scans: bool = False
    face_fidelity: float = 0.0
    face_model: Path | None = None
    face_detector: str = "hog"
    own_masks: bool = False


@dataclass(frozen=True)
class Face:
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Restoration:
    rgb: np.ndarray
    mask: np.ndarray | None
    faces: tuple[Face, ...]
    seconds: dict[str, float] = field(default_factory=lambda: {"translation": 0.25})
    warnings: tuple[str, ...] = ()


class Stage:
    """Stands for the networks: inverts a photo, counts its calls, and fails by the width of the photo."""

    def __init__(self) -> None:
        self.made: list[tuple] = []
        self.masks: list[np.ndarray | None] = []
        self.refusal: Exception | None = None
        self.failures: dict[int, BaseException] = {}

    def restorer(self, options=RestoreOptions(), device="auto", checkpoints=None):
        if self.refusal is not None:
            raise self.refusal
        self.made.append((options, device, checkpoints))
        return types.SimpleNamespace(
            restore=lambda rgb, mask=None, gray=False, in_place=False: self.restore(options, rgb, mask)
        )

    def restore(self, options, rgb, mask):
        self.masks.append(mask)
        if rgb.shape[1] in self.failures:
            raise self.failures[rgb.shape[1]]
        if mask is None and options.with_scratch:
            mask = np.zeros(rgb.shape[:2], np.float32)
            mask[: rgb.shape[0] // 4] = 1
        warnings = ("very dark",) if rgb.max() < 0.1 else ()
        faces = (Face((0, 0, rgb.shape[1] / 2, rgb.shape[0] / 4)),) if options.faces else ()
        return Restoration(1 - rgb, mask, faces, warnings=warnings)

    def detector(self, device="auto", checkpoints=None, tile=None):
        self.made.append((tile, device, checkpoints))
        return types.SimpleNamespace(detect=lambda rgb: (rgb[..., 0] > 0.5).astype(np.float32))


@pytest.fixture
def stage(monkeypatch):
    stage = Stage()
    monkeypatch.setattr("oldphoto.workers.Workers", InThisProcess)
    monkeypatch.setattr("oldphoto.workers.default_jobs", lambda *_: 1)
    monkeypatch.setattr("oldphoto.audit.made_by", lambda *_: {"version": __version__})
    pipeline = types.ModuleType("oldphoto.pipeline")
    pipeline.RestoreOptions, pipeline.Restorer, pipeline.Restoration = RestoreOptions, stage.restorer, Restoration
    stages = types.ModuleType("oldphoto.stages")
    stages.scratch_detector = stage.detector
    monkeypatch.setitem(sys.modules, "oldphoto.pipeline", pipeline)
    monkeypatch.setitem(sys.modules, "oldphoto.stages", stages)
    return stage


@pytest.fixture(autouse=True)
def inside_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_photo(path: str, value: float = 0.25, width: int = 32) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_photo(Photo(np.full((24, width, 3), value, np.float32)), Path(path))


def oldphoto(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="oldphoto")


def listing(root: str = ".") -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path(root).rglob("*")}


def brightness(path: str) -> float:
    return round(float(read_photo(Path(path)).rgb.mean()), 2)


# --- restore


def test_how_to_deblur_is_checked_though_there_is_nothing_to_do(stage):
    make_photo("in/a.png")
    for wrong in ("wiener:nonsense", "nonsense", "auto:motion:5,0"):
        refused = oldphoto("restore", "in", "out", "--deblur", wrong, "--dry-run")
        assert refused.exit_code == 2, refused.output
        assert not Path("out").exists()
    assert oldphoto("restore", "in", "out", "--deblur", "wiener:motion:5,0", "--dry-run").exit_code == 0


def test_log_and_report_are_two_files_however_they_are_called(stage):
    make_photo("in/a.png")
    Path("there").mkdir()
    refused = oldphoto("restore", "in", "out", "--log", "there/../told.html", "--report", "told.html")
    assert refused.exit_code == 2
    assert "both the log and the report" in refused.output


def test_a_mask_that_was_edited_is_not_overwritten(stage):
    make_photo("in/a.png")
    make_photo("in/b.png")
    save = ("--with-scratch", "--save-masks", "masks")
    assert oldphoto("restore", "in", "out", *save).exit_code == 0
    write_mask(np.ones((24, 32), np.float32), Path("masks/a.png"))
    edited, found = Path("masks/a.png").read_bytes(), Path("masks/b.png").read_bytes()
    for again in (
        oldphoto("restore", "in", "elsewhere", *save),
        oldphoto("restore", "in", "out", *save, "--overwrite"),
    ):
        assert again.exit_code == 0, again.output
        assert Path("masks/a.png").read_bytes() == edited
        told = [line for line in again.stderr.splitlines() if "warning" in line]
        assert len(told) == 1
        assert str(Path("masks/a.png")) in told[0]
        assert "delete it" in told[0]
    Path("masks/a.png").unlink()
    assert oldphoto("restore", "in", "out", *save, "--overwrite").exit_code == 0
    assert Path("masks/a.png").read_bytes() == found


def test_a_tree_is_restored_with_log_masks_and_page(stage):
    make_photo("in/a.png")
    make_photo("in/sub/b.jpg", 0.75)
    done = oldphoto(
        *("restore", "in", "out", "--with-scratch", "--save-masks", "masks"),
        *("--log", "logs/run.jsonl", "--report", "page/report.html"),
    )
    assert done.exit_code == 0, done.output
    assert brightness("out/a.png") == 0.75
    assert brightness("out/sub/b.jpg") == 0.25
    assert read_mask(Path("masks/sub/b.png"))[:6].min() == 1
    assert "2 restored in" in done.stderr
    assert done.stdout == ""
    first, second = (json.loads(line) for line in Path("logs/run.jsonl").read_text().splitlines())
    assert (first["input"], first["output"], first["status"]) == ("in/a.png", "out/a.png", "restored")
    assert first["error"] is None
    assert set(first["seconds"]) == {"read", "translation", "write"}
    assert (first["faces"], first["damaged_share"], first["warnings"]) == (1, 0.25, [])
    assert second["input"] == "in/sub/b.jpg"
    page = Path("page/report.html").read_text()
    assert page.count("<article") == 2
    assert sorted(Path("out").rglob("*")) == [Path("out/a.png"), Path("out/sub"), Path("out/sub/b.jpg")]


def test_the_url_of_a_folder_is_that_folder(stage):
    make_photo("in/ä b.png")
    done = oldphoto("restore", Path("in").absolute().as_uri(), Path("out").absolute().as_uri())
    assert done.exit_code == 0, done.output
    assert brightness("out/ä b.png") == 0.75
    assert oldphoto("restore", "memory://nowhere", "out").exit_code == 2
    assert oldphoto("restore", "memory://in", "out", "--mask", "in").exit_code == 2


def test_the_options_reach_the_restorer(stage):
    make_photo("in/a.png")
    options = ("--no-faces", "--strength", "0.5", "--tile", "128", "--device", "cpu", "--weights", "mine")
    assert oldphoto("restore", "in", "out", *options).exit_code == 0
    assert stage.made == [(RestoreOptions(False, False, 0.5, 128), "cpu", Path("mine"))]
    assert oldphoto("restore", "in", "out2", "--weights", "bundled").exit_code == 0
    assert stage.made[1] == (RestoreOptions(), "auto", bundled_folder())
    faces = ("--face-fidelity", "0.3", "--face-model", "mine.pth", "--face-detector", "cnn")
    assert oldphoto("restore", "in", "out3", *faces).exit_code == 0
    assert stage.made[2][0] == RestoreOptions(face_fidelity=0.3, face_model=Path("mine.pth"), face_detector="cnn")


@pytest.mark.parametrize(
    "option",
    [
        ("--face-fidelity", "1.1"), ("--face-fidelity", "nan"), ("--face-detector", "eye"),
        ("--no-faces", "--face-fidelity", "1"), ("--no-faces", "--face-detector", "cnn"),
        ("--no-faces", "--face-model", "mine.pth"),
    ],
)  # fmt: skip
def test_face_options_that_make_no_sense_are_refused(stage, option):
    make_photo("in/a.png")
    done = oldphoto("restore", "in", "out", *option)
    assert done.exit_code == 2
    assert not Path("out").exists()


def test_a_bad_photo_in_the_middle_fails_alone(stage):
    make_photo("in/a.png")
    Path("in/b.jpg").write_bytes(b"no picture")
    make_photo("in/c.png")
    make_photo("in/d.png", width=40)
    stage.failures[40] = MemoryError()
    done = oldphoto("restore", "in", "out", "--log", "log.jsonl", "--report", "report.html")
    assert done.exit_code == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "c.png"]
    lines = done.stderr.splitlines()
    assert lines[0].startswith("oldphoto: in/b.jpg: is no JPEG")
    assert lines[1].startswith("oldphoto: in/d.png: out of memory: try --tile 256")
    assert lines[2].startswith("oldphoto: 2 restored, 2 failed in ")
    assert len(lines) == 3
    records = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == ["restored", "failed", "restored", "failed"]
    assert records[1]["error"] == lines[0].removeprefix("oldphoto: in/b.jpg: ")
    assert (records[1]["output"], records[1]["faces"]) == (None, None)
    assert "is no JPEG" in Path("report.html").read_text()
    assert "Traceback" in oldphoto("restore", "in", "out", "-v").stderr


def test_quiet_tells_errors_only(stage):
    make_photo("in/a.png", 0.05)
    Path("in/b.jpg").write_bytes(b"")
    assert "oldphoto: in/a.png: warning: very dark" in oldphoto("restore", "in", "out").stderr
    quiet = oldphoto("restore", "in", "out", "--overwrite", "-q")
    assert quiet.stderr == "oldphoto: in/b.jpg: is empty: replace it by an intact copy\n"
    assert quiet.exit_code == 1


def test_a_rerun_resumes_and_keeps_what_is_finished(stage):
    for name in ("a", "b", "c"):
        make_photo(f"in/{name}.png", width=40 if name == "b" else 32)
    stage.failures[40] = KeyboardInterrupt()
    stopped = oldphoto("restore", "in", "out", "--log", "log.jsonl", "--report", "report.html")
    assert stopped.exit_code == 130
    assert "interrupted" in stopped.stderr
    assert list(Path("out").iterdir()) == [Path("out/a.png")]
    assert Path("report.html").read_text().count("<article") == 1

    Path("out/a.png").write_bytes(b"touched up by hand")
    stage.failures.clear()
    resumed = oldphoto("restore", "in", "out", "--log", "log.jsonl")
    assert resumed.exit_code == 0
    assert "2 restored, 1 kept in" in resumed.stderr
    assert Path("out/a.png").read_bytes() == b"touched up by hand"
    records = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == ["restored", "kept", "restored", "restored"]

    assert oldphoto("restore", "in", "out", "--overwrite").exit_code == 0
    assert brightness("out/a.png") == 0.75


def test_nothing_is_loaded_when_everything_is_finished(stage):
    make_photo("in/a.png")
    make_photo("out/a.png")
    stage.refusal = CheckpointError("would be loaded")
    done = oldphoto("restore", "in", "out", "--report", "report.html")
    assert (done.exit_code, stage.made) == (0, [])
    assert "0 restored, 1 kept" in done.stderr


def test_the_page_shows_kept_photos_as_well(stage):
    make_photo("in/a.png")
    make_photo("out/a.png", 0.75)
    make_photo("in/altered.png")
    make_photo("out/altered.png", width=16)
    make_photo("in/broken.png")
    Path("out/broken.png").write_bytes(b"touched up by hand")
    done = oldphoto("restore", "in", "out", "--report", "report.html")
    assert done.exit_code == 0, done.output
    articles = Path("report.html").read_text().split("<article")[1:]
    assert [article.count("data:image/") for article in articles] == [2, 0, 0]


def test_pictures_that_are_not_read_are_told_of(stage):
    make_photo("in/a.png")
    for name in ("in/b.jp2", "in/sub/c.GIF", "in/notes.txt", "in/.hidden.gif"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"whatever")
    done = oldphoto("restore", "in", "out")
    assert done.exit_code == 0
    (note,) = [line for line in done.stderr.splitlines() if "not read" in line]
    assert note.endswith("left out: b.jp2, sub/c.GIF")


def test_a_huge_kept_photo_is_not_decoded_for_the_page(stage, monkeypatch):
    monkeypatch.setattr("oldphoto.work._MOST_KEPT", 1000)
    for name, width in (("a.png", 32), ("b.png", 64)):
        make_photo(f"in/{name}", width=width)
        make_photo(f"out/{name}", 0.75, width)
    assert oldphoto("restore", "in", "out", "--report", "report.html").exit_code == 0
    articles = Path("report.html").read_text().split("<article")[1:]
    assert [article.count("data:image/") for article in articles] == [2, 0]


def test_photos_of_one_stem_are_both_restored(stage):
    make_photo("in/a.png", 0.2)
    make_photo("in/a.jpg", 0.4)
    same = oldphoto("restore", "in", "same")
    assert sorted(path.name for path in Path("same").iterdir()) == ["a.jpg", "a.png"]
    assert "renamed" not in same.stderr
    png = oldphoto("restore", "in", "png", "--format", "png")
    assert png.exit_code == 0
    assert brightness("png/a.png.png") == 0.8
    assert brightness("png/a.jpg.png") == 0.6
    assert "a.jpg -> a.jpg.png, a.png -> a.png.png" in png.stderr.splitlines()[0]


def test_jobs_change_nothing_but_the_time(stage):
    for number in range(12):
        make_photo(f"in/{number}.png", number / 12)
    Path("in/5.png").write_bytes(b"no picture")
    for jobs in ("1", "4"):
        options = ("--jobs", jobs, "--log", f"log{jobs}", "--report", f"page{jobs}.html")
        assert oldphoto("restore", "in", f"out{jobs}", *options).exit_code == 1
    one, four = ({path.name: path.read_bytes() for path in Path(f"out{jobs}").iterdir()} for jobs in (1, 4))
    assert one == four
    inputs = [[json.loads(line)["input"] for line in Path(f"log{jobs}").read_text().splitlines()] for jobs in (1, 4)]
    assert sorted(inputs[0]) == sorted(inputs[1])
    shown = [re.findall(r"in?\d+\.png|\b\d+\.png", Path(f"page{jobs}.html").read_text()) for jobs in (1, 4)]
    assert len(shown[0]) >= 12
    assert shown[0] == shown[1]


def test_formats_change_the_suffix_and_same_keeps_the_name(stage):
    make_photo("in/A.JPG")
    make_photo("in/b.tiff")
    assert oldphoto("restore", "in", "same").exit_code == 0
    assert sorted(path.name for path in Path("same").iterdir()) == ["A.JPG", "b.tiff"]
    assert oldphoto("restore", "in", "webp", "--format", "webp", "--quality", "50").exit_code == 0
    assert sorted(path.name for path in Path("webp").iterdir()) == ["A.webp", "b.webp"]
    assert oldphoto("restore", "in/A.JPG", "one.png").exit_code == 0
    assert read_photo(Path("one.png")).format == "png"
    refused = oldphoto("restore", "in/A.JPG", "two.png", "--format", "jpg")
    assert refused.exit_code == 2
    assert not Path("two.png").exists()


# --- own masks


def make_mask(path: str, value: float, width: int = 32) -> None:
    write_mask(np.full((24, width), value, np.float32), Path(path))


def test_own_masks_are_found_by_name_and_missing_ones_are_no_error(stage):
    for name in ("a.jpg", "b.png", "sub/c.jpg", "d.jpg"):
        make_photo(f"in/{name}")
    make_mask("masks/a.png", 0.2)
    make_mask("masks/sub/c.png", 0.6)
    make_mask("masks/b.png", 0.4)
    assert oldphoto("restore", "in", "out", "--mask", "masks", "--save-masks", "used").exit_code == 0
    used = [None if mask is None else round(float(mask.mean()), 1) for mask in stage.masks]
    assert used == [0.2, 0.4, None, 0.6]
    assert read_mask(Path("used/d.png")).max() == 0


def test_masks_that_belong_to_no_photo_or_not_to_all_are_told_of(stage):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        make_photo(f"in/{name}")
    make_mask("masks/a_mask.png", 0.2)
    refused = oldphoto("restore", "in", "out", "--mask", "masks")
    assert refused.exit_code == 2
    assert "no mask in masks has the name of a photo" in refused.stderr
    make_mask("masks/a.png", 0.2)
    done = oldphoto("restore", "in", "out", "--mask", "masks")
    assert done.exit_code == 0
    assert "note: 2 of 3 photos have no mask of yours" in done.stderr


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("a.tif", "a.jpg or of a.tif: call it a.jpg.png or a.tif.png"),
        ("a.png", "a.png or of a.jpg: call it a.png.png or a.jpg.png"),
    ],
)
def test_a_mask_that_may_be_of_two_photos_is_not_guessed(stage, other, told):
    """Saved for a.jpg, before the other came."""
    make_photo("in/a.jpg")
    assert oldphoto("restore", "in", "out", "--with-scratch", "--save-masks", "masks").exit_code == 0
    make_photo(f"in/{other}")
    refused = oldphoto("restore", "in", "again", "--mask", "masks")
    assert refused.exit_code == 2
    assert f"masks/a.png may be the mask of {told}" in refused.stderr
    Path("masks/a.png").rename("masks/a.jpg.png")
    assert oldphoto("restore", "in", "again", "--mask", "masks").exit_code == 0
    assert [mask is None for mask in stage.masks[1:]] == [False, True]


def test_a_mask_that_was_edited_since_is_told_of(stage):
    make_photo("in/a.png")
    assert oldphoto("restore", "in", "out", "--with-scratch", "--save-masks", "masks").exit_code == 0
    assert "newer" not in oldphoto("restore", "in", "out", "--mask", "masks").stderr
    os.utime("masks/a.png", (2**32, 2**32))
    done = oldphoto("restore", "in", "out", "--mask", "masks")
    assert "photos or masks newer than their finished outputs, which are kept (--overwrite" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("restore", "in", "out", "--log", "s3://archive/run.jsonl"),
        ("restore", "in", "out", "--report", "s3://archive/page.html"),
        ("mask", "in", "s3://archive/masks"),
        ("denoise", "s3://archive/in", "out"),
    ],
)
def test_urls_are_refused_where_only_paths_are_taken(stage, command):
    """They would become folders of such names here."""
    make_photo("in/a.png")
    done = oldphoto(*command)
    assert done.exit_code == 2
    assert "is a URL" in done.stderr
    assert listing() == {"in": None, "in/a.png": Path("in/a.png").read_bytes()}


@pytest.mark.parametrize("log", ["out", "all"])
def test_the_log_is_no_folder_that_photos_go_into(stage, log):
    make_photo("in/a.png")
    done = oldphoto("restore", "in", "out" if log == "out" else "all/out", "--log", log)
    assert done.exit_code == 2
    assert f"{log} is a folder" in done.stderr
    assert not Path(log).exists()


def test_a_page_that_cannot_be_made_leaves_no_log_behind(stage, monkeypatch):
    make_photo("in/a.png")

    def refuse(*_):
        raise PhotoError("page.html: cannot be written (No space left on device)")

    monkeypatch.setattr("oldphoto.report.ReportWriter.__enter__", refuse)
    assert oldphoto("restore", "in", "out", "--log", "log.jsonl", "--report", "page.html").exit_code == 2
    assert not Path("log.jsonl").exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs permissions that bind")
def test_a_folder_that_cannot_be_entered_costs_its_photos_alone(stage):
    make_photo("in/a.png")
    make_photo("in/locked/b.png")
    Path("in/locked").chmod(0o444)
    done = oldphoto("restore", "in", "out")
    Path("in/locked").chmod(0o755)
    assert done.exit_code == 1
    assert Path("out/a.png").exists()
    assert "in/locked/b.png" in done.stderr


def test_a_photo_newer_than_its_finished_output_is_told_of(stage):
    for name in ("a.jpg", "b.jpg"):
        make_photo(f"in/{name}")
    assert oldphoto("restore", "in", "out", "--format", "png").exit_code == 0
    Path("in/a.jpg").unlink()
    make_photo("in/a.tif", 0.9)
    os.utime("in/a.tif", (2**32, 2**32))
    done = oldphoto("restore", "in", "out", "--format", "png")
    assert done.exit_code == 0
    assert "newer than their finished outputs, which are kept (--overwrite does them again): a.tif\n" in done.stderr
    assert "newer" not in oldphoto("restore", "in", "out", "--format", "png", "--overwrite").stderr


def test_a_name_too_long_for_its_output_fails_alone_whenever_it_is_tried(stage):
    make_photo("in/a.png")
    make_photo(f"in/{'x' * 251}.jpg")
    for status in ("restored", "kept"):
        done = oldphoto("restore", "in", "out", "--format", "webp", "--with-scratch", "--save-masks", "masks")
        assert done.exit_code == 1
        assert f"1 {status}" in done.stderr.replace("0 restored, ", "")
        assert "File name too long" in done.stderr
    assert [path.name for path in Path("out").iterdir()] == ["a.webp"]


def test_a_folder_that_is_a_link_is_told_of(stage):
    make_photo("in/a.jpg")
    make_photo("elsewhere/b.jpg")
    Path("in/more").symlink_to(Path("elsewhere").absolute(), target_is_directory=True)
    done = oldphoto("restore", "in", "out")
    assert done.exit_code == 0
    assert "note: folders that are links are not entered: in/more" in done.stderr


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e9", "0"])
def test_no_photo_begins_with_a_time_that_nothing_can_wait_for(stage, seconds):
    make_photo("in/a.jpg")
    assert oldphoto("restore", "in", "out", "--timeout", seconds).exit_code == 2
    assert not Path("out").exists()


def test_the_log_and_the_page_are_two_files(stage):
    make_photo("in/a.jpg")
    assert oldphoto("restore", "in", "out", "--log", "run.html", "--report", "./run.html").exit_code == 2
    assert not Path("run.html").exists()


@pytest.mark.parametrize("option", ["--log", "--report"])
def test_neither_log_nor_page_lands_on_a_photo_or_a_mask(stage, option):
    make_photo("in/a.jpg")
    make_mask("mask.png", 0.5)
    Path("mask.png").rename("mask")
    Path("link.jsonl").symlink_to("in/a.jpg")
    before = listing()
    for place in ("mask", "./mask", "link.jsonl"):
        assert oldphoto("restore", "in", "out", "--mask", "mask", option, place).exit_code == 2
        assert listing() == before


def test_the_page_is_in_order_as_far_as_memory_allows(monkeypatch):
    monkeypatch.setattr(common, "_HELD", 3)
    jobs = [Job(Path(name), PurePosixPath(name), Path("out", name)) for name in "abcdefgh"]
    passed = []
    with common._InOrder(Plan(tuple(jobs), Found(())), lambda outcome: passed.append(outcome.job.source.name)) as page:
        for index in (1, 2, 3, 4, 6, 0, 7, 5):
            page.add(Outcome(jobs[index], "restored"))
            assert len(page._held) <= 3
    assert "".join(passed) == "bcdeafgh"


def test_masks_written_by_the_mask_command_fit_the_same_photos(stage):
    make_photo("in/a.jpg", 0.9)
    make_photo("in/a.png", 0.1)
    written = oldphoto("mask", "in", "masks")
    assert written.exit_code == 0, written.output
    assert "2 masked in" in written.stderr
    assert sorted(path.name for path in Path("masks").iterdir()) == ["a.jpg.png", "a.png.png"]
    assert oldphoto("restore", "in", "out", "--mask", "masks").exit_code == 0
    assert [float(mask.mean()) for mask in stage.masks] == [1, 0]


def test_masks_beside_the_photos_are_not_restored_as_photos(stage):
    make_photo("in/a.jpg")
    make_mask("in/masks/a.png", 0.5)
    assert oldphoto("restore", "in", "out", "--mask", "in/masks").exit_code == 0
    assert [path.name for path in Path("out").iterdir()] == ["a.jpg"]
    assert stage.masks[0] is not None


def test_a_mask_of_another_size_fails_that_photo(stage):
    make_photo("in/a.jpg")
    make_photo("in/b.jpg", width=40)
    make_mask("mask.png", 0.5)
    done = oldphoto("restore", "in", "out", "--mask", "mask.png")
    assert done.exit_code == 1
    assert "in/b.jpg: its mask mask.png has 32 x 24 pixels, the photo 40 x 24" in done.stderr
    assert [path.name for path in Path("out").iterdir()] == ["a.jpg"]


# --- refusals


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore", "gone", "out"),
        ("restore", "in", "in"),
        ("restore", "in", "in/out"),
        ("restore", "in", "."),
        ("restore", "", "out"),
        ("restore", "in", "file.txt"),
        ("restore", "empty", "out"),
        ("restore", "in", "out", "--mask", "gone"),
        ("restore", "in", "out", "--mask", "file.txt"),
        ("restore", "in", "out", "--mask", "empty"),
        ("restore", "in", "out", "--mask", "in"),
        ("restore", "in", "out", "--save-masks", "masks"),
        ("restore", "in", "out", "--save-masks", "in", "--with-scratch"),
        ("restore", "in", "masked", "--mask", "masked", "--overwrite"),
        ("restore", "in", "out", "--report", "photo.jpg"),
        ("restore", "in", "out", "--report", "empty"),
        ("restore", "in", "out", "--log", "file.txt/log"),
        ("restore", "in", "out", "--strength", "1.5"),
        ("restore", "in", "out", "--strength", "nan"),
        ("restore", "in", "out", "--quality", "0"),
        ("restore", "in", "out", "--tile", "32"),
        ("restore", "in", "out", "--jobs", "0"),
        ("restore", "in", "out", "--device", "cuda:x"),
        ("restore", "in", "out", "--format", "gif"),
        ("restore", "in"),
        ("mask", "in", "in"),
        ("mask", "in/a.jpg", "mask.jpg"),
        ("nonsense",),
    ],
)
def test_refusals_exit_with_2_and_touch_nothing(stage, arguments):
    make_photo("in/a.jpg")
    make_photo("photo.jpg")
    make_mask("masked/a.jpg", 0.5)
    Path("empty").mkdir()
    Path("file.txt").write_text("text")
    before = listing()
    done = oldphoto(*arguments)
    assert done.exit_code == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.output
    assert done.stdout == ""
    assert listing() == before
    assert stage.made == []


@pytest.mark.parametrize("refusal", [CheckpointError("no weights: reinstall"), UsageError("no device cuda:7")])
def test_missing_weights_or_device_touch_nothing(stage, refusal):
    make_photo("in/a.jpg")
    stage.refusal = refusal
    before = listing()
    done = oldphoto("restore", "in", "out", "--log", "log.jsonl", "--report", "report.html")
    assert done.exit_code == 2
    assert done.stderr == f"oldphoto: {refusal}\n"
    assert listing() == before


def test_a_dry_run_prints_the_plan_and_touches_nothing(stage):
    make_photo("in/a.jpg")
    make_photo("in/a.png")
    make_photo("in/b.jpg")
    make_photo("out/b.png")
    before = listing()
    done = oldphoto("restore", "in", "out", "--format", "png", "--dry-run", "--log", "log", "--report", "r.html")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "write: in/a.jpg -> out/a.jpg.png (renamed)",
        "write: in/a.png -> out/a.png.png (renamed)",
        "keep: in/b.jpg -> out/b.png",
    ]
    assert listing() == before
    assert stage.made == []


# --- trouble


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="such names cannot exist there")
def test_strange_file_names_forge_no_line_and_crash_nothing(stage):
    make_photo("in/good.png")
    for name in (b"in/a\noldphoto: fake.jpg", b"in/\xff.jpg", b"in/\x1b[31m.jpg"):
        Path(os.fsdecode(name)).write_bytes(b"")
    done = oldphoto("restore", "in", "out", "--log", "log.jsonl", "--report", "report.html")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 4
    assert "in/a\\noldphoto: fake.jpg: is empty" in done.stderr
    assert "\\x1b[31m" in done.stderr
    inputs = {json.loads(line)["input"] for line in Path("log.jsonl").read_text(encoding="ascii").splitlines()}
    assert os.fsdecode(b"in/\xff.jpg") in inputs
    assert "\\udcff.jpg" in oldphoto("restore", "in", "other", "--dry-run").stdout


@pytest.mark.usefixtures("secret")
def test_a_folder_that_cannot_be_read_counts_as_a_failure(stage):
    make_photo("in/a.png")
    make_photo("in/secret/b.png")
    done = oldphoto("restore", "in", "out", "--log", "log.jsonl", "--report", "report.html")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[0] == "oldphoto: in/secret: Permission denied: its photos are left out"
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


def test_a_log_that_a_killed_run_tore_is_appended_to_on_a_new_line(stage):
    make_photo("in/a.png")
    Path("log.jsonl").write_text('{"input": "in/0')
    assert oldphoto("restore", "in", "out", "--log", "log.jsonl").exit_code == 0
    torn, whole = Path("log.jsonl").read_text().splitlines()
    assert torn == '{"input": "in/0'
    assert json.loads(whole)["input"] == "in/a.png"


def test_a_log_or_page_that_fails_is_told_and_the_photos_go_on(stage, monkeypatch):
    from oldphoto import report, work
    from oldphoto.errors import PhotoError

    def full(*_):
        raise OSError(28, "No space left on device")

    def full_page(*_):
        raise PhotoError("report.html: cannot write the report")

    monkeypatch.setattr(work, "log_line", full)
    monkeypatch.setattr(report.ReportWriter, "add", full_page)
    make_photo("in/a.png")
    make_photo("in/b.png")
    done = oldphoto("restore", "in", "out", "--log", "log.jsonl", "--report", "report.html")
    assert done.exit_code == 1
    assert len(list(Path("out").iterdir())) == 2
    assert done.stderr.count("No space left on device") == 1
    assert done.stderr.count("cannot write the report") == 1


def test_the_mask_of_one_photo(stage):
    make_photo("a.jpg", 0.9)
    assert oldphoto("mask", "a.jpg", "mask.png", "--tile", "256", "--device", "cpu").exit_code == 0
    assert stage.made == [(256, "cpu", None)]
    pixels = cv2.imread("mask.png", cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (24, 32)
    assert pixels.min() == 255


# --- the program


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "oldphoto", *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_help_and_version():
    assert oldphoto("--version").output == f"oldphoto {__version__}\n"
    assert oldphoto("-h").output == oldphoto("--help").output
    listed = oldphoto("--help").output
    assert re.search(r"restore +Restore a photo, or a folder of photos with its tree\.", listed)
    assert "--with-scratch" in oldphoto("restore", "-h").output
    assert f"default: {PIXEL_LIMIT}" in oldphoto("restore", "-h").output


def test_help_and_usage_errors_import_nothing_heavy():
    heavy = "{'torch', 'numpy', 'cv2', 'PIL', 'scipy', 'dlib', 'skimage', 'tqdm'}"
    for arguments in (["--help"], ["restore", "--help"], ["mask", "--help"], ["restore"]):
        code = (
            "import sys; from oldphoto.cli import main\n"
            f"try: main({arguments!r})\n"
            f"finally: print('loaded:', {heavy} & set(sys.modules), file=sys.stderr)"
        )
        root = str(Path(__file__).resolve().parent.parent)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
        )
        assert "loaded: set()" in done.stderr


def test_the_program_returns_the_exit_codes():
    make_photo("in/a.jpg")
    assert program("--help").returncode == 0
    dry = program("restore", "in", "out", "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "write: in/a.jpg -> out/a.jpg\n")
    refused = program("restore", "gone", "out")
    assert refused.returncode == 2
    assert refused.stderr == "oldphoto: no such file or folder: gone\n"
    assert not Path("out").exists()


def test_the_page_takes_the_place_of_no_other_kind_of_file(stage):
    make_photo("in/a.png")
    assert oldphoto("restore", "in", "out", "--log", "log.jsonl").exit_code == 0
    before = listing()
    refused = oldphoto("restore", "in", "again", "--report", "log.jsonl")
    assert refused.exit_code == 2
    assert "give --report a name that ends in .html" in refused.stderr
    assert listing() == before
