"""What a log proves: which bytes went in and came out, with what; and what memory cost."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from click.testing import CliRunner, Result

from oldphoto import __version__, audit, checkpoints, pipeline
from oldphoto.batch import Job, Outcome, plan
from oldphoto.batch import Result as BatchResult
from oldphoto.cli import main
from oldphoto.errors import PhotoError
from oldphoto.faces.models import DLIB_FILES
from oldphoto.imagefile import Photo, read_photo, write_photo
from oldphoto.pipeline import RestoreOptions
from oldphoto.shortage import is_out_of_memory
from oldphoto.work import log_line, photo_naming, restoring

PICTURE = np.ascontiguousarray(skimage.data.astronaut()[:128, 160:288]).astype(np.float32) / 255


def oldphoto(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="oldphoto")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with two photos in a folder, one of them of two pages."""
    monkeypatch.chdir(tmp_path)
    write_photo(Photo(PICTURE), Path("in/a.png"))
    pages = (np.stack([PICTURE, PICTURE[::-1]]) * 255).astype(np.uint8)
    tifffile.imwrite("in/b.tif", pages, photometric="rgb", software="EPSON Scan")
    return tmp_path


def test_a_log_proves_what_was_done_and_verify_finds_what_changed(here: Path, bundled) -> None:
    bundled("translation")
    done = oldphoto("restore", "in", "out", "--with-scratch", "--log", "log.jsonl", "--jobs", "1")
    assert done.exit_code == 0, done.output
    first, second = (json.loads(line) for line in Path("log.jsonl").read_text().splitlines())
    for record, name in ((first, "a.png"), (second, "b.tif")):
        assert record["input_sha256"] == checkpoints.sha256(Path("in", name))
        assert record["output_sha256"] == checkpoints.sha256(Path("out", name))
        assert record["version"] == __version__
        assert record["options"]["with_scratch"] is True
        folder, weights = checkpoints.find("translation")
        assert record["weights"]["translation"] == weights.sha256 == checkpoints.sha256(folder / weights.file)
    assert (first["pages"], second["pages"]) == (1, 2)

    verified = oldphoto("restore", "--verify", "log.jsonl")
    assert verified.stdout.endswith("files: 4 ok, 0 altered, 0 missing, 0 unrecorded\n")
    assert verified.exit_code == 0
    again = oldphoto("restore", "in", "out", "--log", "log.jsonl")  # keeps both
    assert again.exit_code == 0
    assert oldphoto("restore", "--verify", "log.jsonl").exit_code == 0

    content = bytearray(Path("out/a.png").read_bytes())
    content[-20] ^= 1
    Path("out/a.png").write_bytes(content)
    Path("in/b.tif").unlink()
    with Path("log.jsonl").open("a") as log:
        log.write('{"input": "in/c.png", "output": "out/c.png", "status": "kept"}\n{"inp')
    found = oldphoto("restore", "--verify", "log.jsonl")
    assert found.exit_code == 1
    assert found.stdout.endswith("files: 2 ok, 1 altered, 1 missing, 1 unrecorded\n")
    assert "oldphoto: out/a.png: altered" in found.stderr
    assert "oldphoto: in/b.tif: missing" in found.stderr
    assert "oldphoto: out/c.png: unrecorded" in found.stderr
    assert "1 lines of log.jsonl are no records" in found.stderr


def test_a_restored_photo_says_so_unless_asked_not_to(here: Path, bundled) -> None:
    bundled("translation")
    assert oldphoto("restore", "in", "out", "--no-faces").exit_code == 0
    assert oldphoto("restore", "in/b.tif", "plain.tif", "--no-faces", "--no-stamp").exit_code == 0
    assert f"oldphoto {__version__}\0".encode() in (read_photo(Path("out/a.png")).exif or b"")
    with tifffile.TiffFile("out/b.tif") as stamped, tifffile.TiffFile("plain.tif") as plain:
        assert [page.tags["Software"].value for page in stamped.pages] == [f"oldphoto {__version__}"] * 2
        assert stamped.pages[0].tags[11].value == plain.pages[0].tags["Software"].value == "EPSON Scan"
        assert "Software" not in plain.pages[1].tags  # as in the scan
        for one, other in zip(stamped.pages, plain.pages, strict=True):
            assert np.array_equal(one.asarray(), other.asarray())


def test_a_log_can_hold_every_option_and_names_every_file_of_weights(tmp_path: Path, bundled) -> None:
    bundled("faces")
    model = tmp_path / "model.pth"
    model.write_bytes(b"not looked into")
    options = RestoreOptions(True, True, 0.5, 256, "wiener:motion:5,20", True, 0.2, model, "cnn")
    made_by = audit.made_by(options, "cpu", None, 90, None)
    job = Job(tmp_path, PurePosixPath("a"), tmp_path)
    record = json.loads(log_line(Outcome(job, "restored", BatchResult(made_by=made_by))))
    assert record["options"]["face_model"] == str(model)
    assert record["weights"]["model.pth"] == checkpoints.sha256(model)
    assert {"scratches", "translation", "tone", "faces", *DLIB_FILES} <= set(record["weights"])


def test_verify_compares_an_input_with_each_record_of_it(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"new")
    (tmp_path / "out").write_bytes(b"out")
    new, old = (hashlib.sha256(content).hexdigest() for content in (b"new", b"old"))
    records = [
        {"input": str(tmp_path / "in"), "input_sha256": digest, "output": str(output), "status": "restored",
         "output_sha256": hashlib.sha256(b"out").hexdigest()}
        for digest, output in ((new, tmp_path / "out"), (old, tmp_path / "out2"))
    ]  # fmt: skip
    (tmp_path / "out2").write_bytes(b"out")
    (tmp_path / "log").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = oldphoto("restore", "--verify", str(tmp_path / "log"))
    assert found.exit_code == 1
    assert found.stdout.endswith("files: 3 ok, 1 altered, 0 missing, 0 unrecorded\n")


def test_verify_tells_of_what_a_log_holds_no_hash_of(tmp_path: Path) -> None:
    """A log may be that of several commands; to find damage records none."""
    (tmp_path / "out").write_bytes(b"out")
    digest = hashlib.sha256(b"out").hexdigest()
    records = [
        {"input": "in", "output": str(tmp_path / "out"), "status": "restored", "output_sha256": digest},
        {"input": "in", "output": "masks/in.png", "status": "masked", "output_sha256": None},
    ]
    (tmp_path / "log").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = oldphoto("restore", "--verify", str(tmp_path / "log"))
    assert found.exit_code == 1
    assert "oldphoto: masks/in.png: unrecorded: it is no restored photo" in found.stderr


def test_a_log_of_kept_photos_is_a_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"input": "in", "output": "out.png", "status": "kept"}\n')
    found = oldphoto("restore", "--verify", str(tmp_path / "log"))
    assert found.exit_code == 1
    assert found.stdout.endswith("files: 0 ok, 0 altered, 0 missing, 1 unrecorded\n")


def test_pages_go_nowhere_that_holds_only_one(here: Path, bundled) -> None:
    bundled("translation")
    done = oldphoto("restore", "in", "out", "--no-faces", "--format", "jpg")
    assert done.exit_code == 1
    assert "in/b.tif: JPEG cannot hold several pages: write TIFF" in done.stderr
    masked = oldphoto("restore", "in", "out2", "--no-faces", "--with-scratch", "--save-masks", "masks")
    assert masked.exit_code == 1
    assert "in/b.tif: has 2 pages, but masks" in masked.stderr
    assert sorted(str(path) for path in Path("out2").iterdir()) == ["out2/a.png"]


@pytest.mark.parametrize("log", ["", "no record\n", '{"status": "failed", "input": "a", "output": null}\n', "[]\n{}\n"])
def test_what_is_no_log_is_refused(tmp_path: Path, log: str) -> None:
    (tmp_path / "log").write_text(log)
    assert oldphoto("restore", "--verify", str(tmp_path / "log")).exit_code == 2
    assert oldphoto("restore", "--verify", str(tmp_path / "gone")).exit_code == 2


# --- a GPU that is too small


class SmallGpu:
    """Stands for `Restorer` on a GPU that holds tiles up to a side, for large photos; remembers what was tried."""

    largest = 0
    tried: list[tuple[str, int | None]]

    def __init__(self, options: RestoreOptions, device: str, checkpoints: Path | None) -> None:
        self.options, self.device = options, device

    def restore(self, rgb: np.ndarray, mask: np.ndarray | None, gray: bool, in_place: bool) -> pipeline.Restoration:
        SmallGpu.tried.append((self.device, self.options.tile))
        fits = rgb.shape[1] < 100 or (self.options.tile or 640) <= SmallGpu.largest
        if self.device != "cpu" and not fits:
            assert in_place
            rgb[:] = 0.5  # half done
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return pipeline.Restoration(1 - rgb, None, ())


@pytest.mark.parametrize(
    ("largest", "asked", "tried", "told"),
    [
        (256, None, [("cuda", None), ("cuda", 512), ("cuda", 256)], "with tiles of 256 pixels"),
        (0, 300, [("cuda", 300), ("cuda", 256), ("cuda", 128), ("cpu", 300)], "on the CPU"),
    ],
)
def test_a_gpu_out_of_memory_gets_smaller_tiles_then_the_cpu_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, asked: int | None, tried: list, told: str
) -> None:
    monkeypatch.setattr(pipeline, "Restorer", SmallGpu)
    monkeypatch.setattr("oldphoto.audit.made_by", lambda *_: {})
    SmallGpu.largest, SmallGpu.tried = largest, []
    write_photo(Photo(PICTURE), tmp_path / "in" / "large.png")
    write_photo(Photo(PICTURE[:, :64].copy()), tmp_path / "in" / "small.png")
    large, small = plan(tmp_path / "in", tmp_path / "out", photo_naming()).jobs
    do = restoring(RestoreOptions(faces=False, tile=asked), device="cuda")
    (notice,) = do(large).notices
    assert told in notice
    assert SmallGpu.tried == tried
    # The next photo begins as if nothing had been: its result must not depend on what came before.
    assert do(small).notices == ()
    assert SmallGpu.tried[len(tried) :] == [("cuda", asked)]
    assert np.allclose(read_photo(tmp_path / "out" / "large.png").rgb, 1 - PICTURE, atol=0.01)


def test_a_photo_that_became_another_one_before_a_second_attempt_is_not_mixed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "Restorer", SmallGpu)
    monkeypatch.setattr("oldphoto.audit.made_by", lambda *_: {})
    SmallGpu.largest, SmallGpu.tried = 256, []
    source = tmp_path / "in" / "a.png"
    write_photo(Photo(PICTURE), source)
    (job,) = plan(tmp_path / "in", tmp_path / "out", photo_naming()).jobs
    attempted = SmallGpu.restore

    def replaced(self: SmallGpu, *given: object, **named: object) -> pipeline.Restoration:
        write_photo(Photo(1 - PICTURE), source)
        return attempted(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(SmallGpu, "restore", replaced)
    with pytest.raises(PhotoError, match="changed"):
        restoring(RestoreOptions(faces=False), device="cuda")(job)
    assert not job.target.exists()


def test_what_libraries_say_of_a_lack_of_memory_is_understood() -> None:
    with pytest.raises(cv2.error) as raised:
        cv2.copyMakeBorder(PICTURE, 0, 0, 2**30, 2**30 - 200, cv2.BORDER_CONSTANT)
    assert is_out_of_memory(raised.value)
    with pytest.raises(cv2.error) as raised:
        cv2.resize(PICTURE, (0, 0))
    assert not is_out_of_memory(raised.value)


def test_memory_that_does_not_suffice_to_read_a_photo_again_is_a_lack_of_memory_too() -> None:
    error = PhotoError("does not fit into memory")
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)
    assert not is_out_of_memory(PhotoError("truncated"))


class SmallGpuFor:
    """Stands for a detector or a denoiser on a GPU that holds tiles of up to 256 px; the CPU holds all."""

    def __init__(self, device: str, folder: Path | None = None, tile: int | None = None) -> None:
        self.device, self.tile = device, tile

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        self._take_memory()
        return np.ones(rgb.shape[:2], np.float32)

    def denoise(self, rgb: np.ndarray, level: object) -> np.ndarray:
        self._take_memory()
        return np.full_like(rgb, 0.25)

    def _take_memory(self) -> None:
        if self.device != "cpu" and (self.tile or 640) > 256:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@pytest.mark.parametrize("command", [("mask",), ("denoise", "--method", "learned")])
def test_masks_and_denoising_get_smaller_tiles_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    from in_this_process import InThisProcess

    monkeypatch.setattr("oldphoto.workers.Workers", InThisProcess)
    monkeypatch.setattr("oldphoto.stages.scratch_detector", SmallGpuFor)
    monkeypatch.setattr("oldphoto.classical.learned.Denoiser", SmallGpuFor)
    write_photo(Photo(PICTURE), tmp_path / "in" / "a.png")
    given = (*command, str(tmp_path / "in"), str(tmp_path / "out"), "--device", "cuda")
    done = oldphoto(*given)
    assert done.exit_code == 0, done.output
    assert "out of memory: some photos are done with tiles of 256 pixels" in done.stderr
    (made,) = (tmp_path / "out").iterdir()
    assert np.ptp(read_photo(made).rgb) == 0
    fits = oldphoto(*given, "--tile", "256", "--overwrite")
    assert fits.exit_code == 0
    assert "out of memory" not in fits.stderr


@pytest.mark.parametrize("command", [("denoise", "--method", "median"), ("deblur", "--wiener", "--psf", "defocus:2")])
def test_what_changes_a_photo_says_so_in_it_unless_told_not_to(here: Path, command: tuple[str, ...]) -> None:
    name, *options = command
    assert oldphoto(name, "in/b.tif", "stamped.tif", *options).exit_code == 0
    assert oldphoto(name, "in/b.tif", "plain.tif", *options, "--no-stamp").exit_code == 0
    with tifffile.TiffFile("stamped.tif") as stamped, tifffile.TiffFile("plain.tif") as plain:
        assert stamped.pages[0].tags["Software"].value == f"oldphoto {__version__}"
        assert stamped.pages[0].tags[11].value == plain.pages[0].tags["Software"].value == "EPSON Scan"


def test_a_lack_of_memory_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from in_this_process import InThisProcess

    monkeypatch.setattr(pipeline, "Restorer", SmallGpu)
    monkeypatch.setattr("oldphoto.workers.Workers", InThisProcess)
    monkeypatch.setattr("oldphoto.audit.made_by", lambda *_: {})
    SmallGpu.largest, SmallGpu.tried = 256, []
    for name in ("a", "b", "c"):
        write_photo(Photo(PICTURE), tmp_path / "in" / f"{name}.png")
    log = tmp_path / "log"
    done = oldphoto("restore", str(tmp_path / "in"), str(tmp_path / "out"), "--device", "cuda", "--log", str(log))
    assert done.exit_code == 0, done.output
    assert done.stderr.count("out of memory") == 1
    assert all("out of memory" in line for line in log.read_text().splitlines())


def test_a_photo_that_was_kept_for_another_of_its_name_is_no_restored_one(here: Path, bundled) -> None:
    """Two folders into one: what the second has under a name of the first is not restored."""
    bundled("translation")
    write_photo(Photo(PICTURE[::-1]), Path("other/a.png"))
    write_photo(Photo(PICTURE), Path("copy/a.png"))
    for folder in ("in", "copy"):
        oldphoto("restore", folder, "out", "--log", "log.jsonl", "--jobs", "1")
    assert oldphoto("restore", "--verify", "log.jsonl").exit_code == 0
    oldphoto("restore", "other", "out", "--log", "log.jsonl", "--jobs", "1")
    verified = oldphoto("restore", "--verify", "log.jsonl")
    assert verified.exit_code == 1
    assert "other/a.png: unrecorded: it was not restored: out/a.png existed, and is of another photo" in verified.stderr
