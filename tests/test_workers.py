"""Worker processes: one that dies, hangs or fails costs one photo at most, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path, PurePosixPath

import psutil
import pytest

from oldphoto import batch
from oldphoto.batch import Job, Result, Work
from oldphoto.errors import CheckpointError, PhotoError, WorkerError
from oldphoto.imagefile import atomically
from oldphoto.workers import Workers, default_jobs

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


def test_a_photo_that_hangs_is_given_up_and_the_rest_goes_on(tmp_path: Path, traces: Path) -> None:
    with Workers(partial(make_work, traces), 1, timeout=1) as workers:
        outcomes = list(batch.run(jobs_of(tmp_path, "hangs", "a"), workers))
    assert [outcome.status for outcome in outcomes] == ["failed", "restored"]
    assert "took longer than 1 s" in outcomes[0].error


@pytest.mark.parametrize("refusal", [CheckpointError("no weights: reinstall"), ValueError("surprise")])
def test_what_cannot_be_loaded_is_told_before_any_work(traces: Path, refusal: Exception) -> None:
    expected = type(refusal) if isinstance(refusal, CheckpointError) else WorkerError
    with pytest.raises(expected, match=str(refusal)), Workers(partial(make_work, traces, refusal), 2):
        pass


@posix
def test_killing_all_makes_jobs_at_work_fail_at_once(tmp_path: Path, traces: Path) -> None:
    with Workers(partial(make_work, traces), 1) as workers:
        workers.kill()
        with pytest.raises(WorkerError, match="interrupted"):
            workers(jobs_of(tmp_path, "a")[0])
    assert list(traces.iterdir()) == []


def test_as_many_at_once_as_there_is_work_and_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oldphoto.workers._cores", lambda: 8)
    monkeypatch.setattr("oldphoto.workers._free_memory", lambda: 64 * 1024**3)
    assert [default_jobs(pending, "cpu") for pending in (1, 2, 3, 100)] == [1, 1, 2, 8]
    monkeypatch.setattr("oldphoto.workers._free_memory", lambda: 5 * 1024**3)
    assert default_jobs(100, "cpu") == 2
    monkeypatch.setattr("oldphoto.workers._free_memory", lambda: 1024**3)
    assert default_jobs(100, "cpu") == 1
    assert default_jobs(100, "cuda:1") == 2
