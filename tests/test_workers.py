"""Worker processes: one that dies, hangs or fails costs one photo at most, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np
import psutil
import pytest
import skimage.data
from click.testing import CliRunner
from PIL import Image

from oldphoto import batch
from oldphoto.batch import Job, Result, Work
from oldphoto.classical.methods import BYTES_A_PIXEL
from oldphoto.cli import main
from oldphoto.errors import CheckpointError, PhotoError, WorkerError
from oldphoto.imagefile import Photo, atomically, write_photo
from oldphoto.pipeline import RestoreOptions
from oldphoto.remote import RemoteJob, staging
from oldphoto.work import photo_naming, restoring
from oldphoto.workers import Workers, default_jobs, most_pixels

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def make_work(traces: Path, refusal: Exception | None = None) -> Work:
    """Work that does, in the process it runs in, what the name of a photo says."""
    if refusal is not None:
        raise refusal

    def work(job: Job) -> Result:
        trace = traces / f"{job.name}.{len(list(traces.glob(f'{job.name}.*')))}"
        trace.write_text(str(os.getpid()))
        if job.name.stem == "fails":
            raise PhotoError(f"{job.source}: is empty")
        if job.name.stem == "surprises":
            raise ZeroDivisionError("by zero")
        if job.name.stem == "hangs":
            time.sleep(60)
        with atomically(job.target) as part:
            part.write_bytes(b"half")
            if job.name.stem == "kills" or (job.name.stem == "unlucky" and trace.suffix == ".0"):
                os.kill(os.getpid(), signal.SIGKILL)
        return Result(seconds={"read": 1.0})

    return work


def jobs_of(folder: Path, *names: str) -> tuple[Job, ...]:
    return tuple(Job(Path("in", name), PurePosixPath(name), folder / "out" / name) for name in names)


def workers_of_this() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    (tmp_path / "traces").mkdir()
    return tmp_path / "traces"


@posix
def test_a_worker_that_dies_costs_its_photo_alone_and_leaves_nothing(tmp_path: Path, traces: Path) -> None:
    jobs = jobs_of(tmp_path, "a", "unlucky", "b", "kills", "c", "fails", "surprises", "d")
    with Workers(partial(make_work, traces), 2) as workers:
        outcomes = {str(outcome.job.name): outcome for outcome in batch.run(jobs, workers, 2)}
    assert {name for name, outcome in outcomes.items() if outcome.status == "failed"} == {"kills", "fails", "surprises"}
    assert "ended twice (SIGKILL)" in outcomes["kills"].error
    assert outcomes["fails"].error == "is empty"
    assert "unexpected ZeroDivisionError" in outcomes["surprises"].error
    assert "in work" in outcomes["surprises"].traceback
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "c", "d", "unlucky"]
    assert len(list(traces.glob("unlucky.*"))) == len(list(traces.glob("kills.*"))) == 2
    assert not any(psutil.pid_exists(int(trace.read_text())) for trace in traces.iterdir())


def make_work_once(traces: Path) -> Work:
    """As `make_work`, in the first process that asks: the memory holds what is loaded once."""
    try:
        (traces / "loaded").touch(exist_ok=False)
    except FileExistsError as error:
        raise MemoryError from error
    return make_work(traces)


def test_a_worker_that_cannot_load_leaves_its_photos_to_the_others(tmp_path: Path, traces: Path) -> None:
    names = [f"photo {number}" for number in range(12)]
    with Workers(partial(make_work_once, traces), 3) as workers:
        outcomes = list(batch.run(jobs_of(tmp_path, *names), workers, 3))
    assert sorted(str(outcome.job.name) for outcome in outcomes if outcome.status == "restored") == sorted(names)
    notices = [notice for outcome in outcomes for notice in outcome.result.notices]
    assert len(notices) == 2
    assert all("one worker fewer, for it cannot be loaded (out of memory" in notice for notice in notices)


def test_a_photo_that_hangs_is_given_up_and_the_rest_goes_on(tmp_path: Path, traces: Path) -> None:
    with Workers(partial(make_work, traces), 1, timeout=1) as workers:
        outcomes = list(batch.run(jobs_of(tmp_path, "hangs", "a"), workers))
    assert [outcome.status for outcome in outcomes] == ["failed", "restored"]
    assert "took longer than 1 s" in outcomes[0].error


def test_what_a_killed_worker_had_fetched_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    write_photo(Photo(np.zeros((8, 8, 3), np.float32)), tmp_path / "a.png")
    job = RemoteJob(
        Path("hangs"), PurePosixPath("hangs"), tmp_path / "out",
        source_url=f"file://{tmp_path}/a.png", target_url=f"file://{tmp_path}/out",
    )  # fmt: skip
    (tmp_path / "traces").mkdir()
    with Workers(partial(staging, partial(make_work, tmp_path / "traces")), 1, timeout=3) as workers:
        (outcome,) = batch.run([job], workers)
    assert "took longer" in outcome.error
    assert [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("oldphoto-")] == []


@posix
def test_requests_to_end_are_left_to_the_program(tmp_path: Path, traces: Path) -> None:
    """In a terminal Ctrl-C reaches every process of the program."""
    with Workers(partial(make_work, traces), 2) as workers:
        assert [outcome.status for outcome in batch.run(jobs_of(tmp_path, "a", "b"), workers, 2)] == ["restored"] * 2
        for worker, stop in product(workers_of_this(), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
            worker.send_signal(stop)
        assert [outcome.status for outcome in batch.run(jobs_of(tmp_path, "c", "d"), workers, 2)] == ["restored"] * 2
    assert len({trace.read_text() for trace in traces.iterdir()}) <= 2, "no worker was started anew"


@pytest.mark.parametrize("refusal", [CheckpointError("no weights: reinstall"), ValueError("surprise")])
def test_what_cannot_be_loaded_is_told_before_any_work(traces: Path, refusal: Exception) -> None:
    expected = type(refusal) if isinstance(refusal, CheckpointError) else WorkerError
    with pytest.raises(expected, match=str(refusal)), Workers(partial(make_work, traces, refusal), 2):
        pass


@pytest.mark.parametrize("refusal", [None, CheckpointError("no weights: reinstall")])
def test_a_worker_that_loads_ahead_does_the_work_or_tells_why_not(
    tmp_path: Path, traces: Path, refusal: Exception | None
) -> None:
    workers = Workers(partial(make_work, traces, refusal), 1)
    workers.start_ahead()
    workers.grow(2)
    if refusal is None:
        with workers:
            outcomes = list(batch.run(jobs_of(tmp_path, "a", "b"), workers, 2))
        assert [outcome.status for outcome in outcomes] == ["restored", "restored"]
    else:
        with pytest.raises(CheckpointError, match=str(refusal)), workers:
            pass
    assert workers_of_this() == []


@posix
def test_killing_all_makes_jobs_at_work_fail_at_once(tmp_path: Path, traces: Path) -> None:
    with Workers(partial(make_work, traces), 1) as workers:
        workers.kill()
        with pytest.raises(WorkerError, match="interrupted"):
            workers(jobs_of(tmp_path, "a")[0])
    assert list(traces.iterdir()) == []


def test_as_many_at_once_as_there_is_work_and_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oldphoto.machine.cores", lambda: 8)
    monkeypatch.setattr("oldphoto.machine.free_memory", lambda: 64 * 1024**3)
    assert [default_jobs(pending, "cpu") for pending in (1, 2, 3, 100)] == [1, 1, 2, 8]
    monkeypatch.setattr("oldphoto.machine.free_memory", lambda: 5 * 1024**3)
    assert default_jobs(100, "cpu") == 2
    monkeypatch.setattr("oldphoto.machine.free_memory", lambda: 1024**3)
    assert default_jobs(100, "cpu") == default_jobs(100, "cuda:1") == 1
    monkeypatch.setattr("oldphoto.machine.free_memory", lambda: 20 * 1024**3)
    assert default_jobs(100, "cuda:1") == 2
    assert (default_jobs(100, "cpu"), default_jobs(100, "cpu", memory_a_pixel=BYTES_A_PIXEL["tv"])) == (8, 3)


def test_large_scans_are_worked_on_by_as_many_as_the_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oldphoto.machine.cores", lambda: 8)
    monkeypatch.setattr("oldphoto.machine.free_memory", lambda: 20 * 10**9)
    jobs = batch.plan(small_photos(tmp_path / "in", 20), tmp_path / "out", photo_naming()).jobs
    assert default_jobs(100, "cpu", most_pixels(jobs)) == 8
    Image.fromarray(np.zeros((10000, 10000), bool)).save(tmp_path / "in" / "large.tif", compression="group4")
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    jobs = batch.plan(tmp_path / "in", tmp_path / "out", photo_naming()).jobs
    assert most_pixels(jobs) == 10**8
    assert default_jobs(100, "cpu", most_pixels(jobs)) == 3
    page = Image.fromarray(np.zeros((10000, 10000), bool))
    page.save(tmp_path / "in" / "album.tif", compression="group4", save_all=True, append_images=[page] * 2)
    jobs = batch.plan(tmp_path / "in", tmp_path / "out", photo_naming()).jobs
    assert most_pixels(jobs) == 3 * 10**8


def small_photos(folder: Path, count: int) -> Path:
    picture = skimage.data.astronaut().astype(np.float32) / 255
    for number in range(count):
        corner = picture[number % 20 * 20 :, number % 21 * 20 :][:64, :72]
        write_photo(Photo(np.ascontiguousarray(corner)), folder / f"{number:03}.png")
    return folder


def test_the_networks_give_the_same_bytes_whatever_the_number_of_jobs(tmp_path: Path, bundled) -> None:
    bundled("translation")
    photos = small_photos(tmp_path / "in", 5)
    for jobs in ("1", "3"):
        arguments = ["restore", str(photos), str(tmp_path / jobs), "--with-scratch", "--jobs", jobs]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    one, three = ({path.name: path.read_bytes() for path in (tmp_path / jobs).iterdir()} for jobs in ("1", "3"))
    assert len(one) == 5
    assert one == three


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path: Path, bundled) -> None:
    bundled("translation")
    jobs = batch.plan(small_photos(tmp_path / "in", 120), tmp_path / "out", photo_naming()).jobs
    with Workers(partial(restoring, RestoreOptions(with_scratch=True), device="cpu"), 1) as workers:
        sizes = []
        for outcome in batch.run(jobs, workers):
            assert outcome.status == "restored", outcome.error
            (worker,) = workers_of_this()
            sizes.append(worker.memory_info().rss)
    assert max(sizes[-10:]) < 1.05 * max(sizes[20:40])
