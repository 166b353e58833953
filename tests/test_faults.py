"""Kill it, fill the disk, take the folder away: nothing half-written, no input changed, and a rerun completes."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import skimage.data

from oldphoto.imagefile import Photo, read_photo, write_photo

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and file systems")

ROOT = Path(__file__).resolve().parent.parent
# Ageing writes files as restoring does, through the same batch, workers and encoders, but needs no network.
COMMAND = (sys.executable, "-m", "oldphoto", "age")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of eight photos."""
    picture = skimage.data.astronaut().astype(np.float32) / 255
    for number in range(8):
        corner = picture[number * 20 : number * 20 + 160, number * 20 : number * 20 + 200]
        write_photo(Photo(np.ascontiguousarray(corner)), tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(folder: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "in", str(output), *options],
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(folder: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, output, *options)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    before = {name: (content, (folder / name).stat().st_mtime_ns) for name, content in contents(folder).items()}
    yield
    assert before == {name: (content, (folder / name).stat().st_mtime_ns) for name, content in contents(folder).items()}


def assert_whole(output: Path, names: set[str] | None = None) -> None:
    """Every file that has a photo's name is a whole photo."""
    found = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    assert names is None or found == names
    for name in found:
        assert read_photo(output / name).rgb.shape == (160, 200, 3)


ALL = {f"{number}.png" for number in range(8)}


@pytest.mark.parametrize(
    ("number", "jobs", "code"),
    [
        (signal.SIGKILL, "2", -signal.SIGKILL),
        (signal.SIGINT, "1", 130),
        (signal.SIGINT, "2", 130),
        (signal.SIGTERM, "2", 130),
    ],
)
def test_a_run_that_is_ended_leaves_whole_photos_and_a_rerun_the_rest(
    tmp_path: Path, photos: Path, number: signal.Signals, jobs: str, code: int
) -> None:
    out = tmp_path / "out"
    with unchanged(photos):
        process = start(tmp_path, out, "--jobs", jobs, "--log", "log.jsonl")
        wait_for(lambda: out.is_dir() and any(path.suffix == ".png" for path in out.iterdir()))
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "Traceback" not in err
        psutil.wait_procs(workers, timeout=30)
        assert not any(worker.is_running() for worker in workers)
        assert_whole(out)
        if number != signal.SIGKILL:
            assert "interrupted: finished photos stay" in err
            assert not list(out.glob(".*"))
        finished = contents(out)
        assert finished
        again = run(tmp_path, out, "--jobs", jobs, "--log", "log.jsonl")
    assert again.returncode == 0, again.stderr
    assert_whole(out, ALL)
    assert not list(out.glob(".*")), "temporary files are left"
    assert {name: content for name, content in contents(out).items() if name in finished} == {
        name: content for name, content in finished.items() if name in ALL
    }
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_has_ended_is_logged_though_the_run_is_ended_while_it_logs(
    tmp_path: Path, photos: Path, number: signal.Signals
) -> None:
    program = (
        "import time, oldphoto.work as work\n"
        "from oldphoto.cli import main\n"
        "log_line = work.log_line\n"
        "work.log_line = lambda outcome: (time.sleep(0.5), log_line(outcome))[1]\n"
        "if __name__ == '__main__': main()\n"
    )
    (tmp_path / "slow.py").write_text(program)
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    command = [sys.executable, "slow.py", "age", str(photos), str(out), "--jobs", "2", "--log", str(log)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: log.is_file() and len(log.read_text().splitlines()) == 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    logged = [Path(json.loads(line)["output"]).name for line in log.read_text().splitlines()]
    assert sorted(logged) == sorted(path.name for path in out.iterdir())


def test_a_part_that_a_killed_run_left_is_removed_by_the_rerun(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    program = (
        "import sys, os, signal; from pathlib import Path; from oldphoto.imagefile import atomically\n"
        "with atomically(Path(sys.argv[1])) as part:\n"
        "    part.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(out / "0.png")], env=environment(), check=False)
    assert [path.suffix for path in out.iterdir()] == [".oldphoto-part"]
    assert run(tmp_path, out).returncode == 0
    assert_whole(out, ALL)
    assert not list(out.glob(".*"))


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of `size` bytes; skip the test where that is not allowed."""
    folder.mkdir()
    mounted = shutil.which("mount") and sys.platform == "linux" and os.geteuid() == 0
    options = ["-t", "tmpfs", "-o", f"size={size}", "oldphoto-test", str(folder)]
    if not mounted or subprocess.run(["mount", *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_fails_what_does_not_fit_and_a_rerun_with_room_completes(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "disk"
    with unchanged(photos), small_disk(out, 300_000):
        full = run(tmp_path, out, "--log", str(out / "log.jsonl"))
        assert full.returncode == 1
        assert "No space left on device" in full.stderr
        assert "Traceback" not in full.stderr
        some = {path.name for path in out.glob("*.png")}
        assert some and some < ALL
        assert_whole_besides_log(out, some)
        subprocess.run(["mount", "-o", "remount,size=4m", str(out)], check=True)
        again = run(tmp_path, out)
        assert again.returncode == 0, again.stderr
        assert_whole_besides_log(out, ALL)


def assert_whole_besides_log(output: Path, names: set[str]) -> None:
    assert not list(output.glob(".*")), "temporary files are left"
    for path in output.glob("*.png"):
        assert read_photo(path).rgb.shape == (160, 200, 3)
    assert {path.name for path in output.iterdir()} - {"log.jsonl"} == names


def test_a_limit_on_the_size_of_files_acts_as_a_full_disk(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "out"
    program = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    program += "sys.argv[0] = 'oldphoto'; runpy.run_module('oldphoto', run_name='__main__')"
    limited = subprocess.run(
        [sys.executable, "-c", program, "age", "in", "out", "--log", "log.jsonl"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert limited.returncode == 1, limited.stderr
    assert "Traceback" not in limited.stderr
    assert "cannot be written (File too large)" in limited.stderr
    assert not out.exists() or not list(out.iterdir())
    assert run(tmp_path, out).returncode == 0
    assert_whole(out, ALL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_the_log_is_told_once_and_stops_no_photo(tmp_path: Path, photos: Path) -> None:
    done = run(tmp_path, tmp_path / "out", "--log", "/dev/full")
    assert done.returncode == 1
    assert done.stderr.count("No space left") == 1
    assert "/dev/full: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert_whole(tmp_path / "out", ALL)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_what_can_not_be_told_stops_no_photo(tmp_path: Path, photos: Path, redirection: str) -> None:
    (photos / "0.png").write_bytes(b"junk")
    command = f"exec {shlex.join([*COMMAND, 'in', 'out'])} {redirection}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment(), timeout=120, check=False)
    assert done.returncode == 1
    assert_whole(tmp_path / "out", ALL - {"0.png"})


def test_an_output_folder_that_vanishes_is_made_again_and_a_rerun_completes(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, out, "--jobs", "1")
    wait_for(lambda: out.is_dir() and any(path.suffix == ".png" for path in out.iterdir()))
    out.rename(tmp_path / "gone")
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1), err
    assert "Traceback" not in err
    assert_whole(tmp_path / "gone")
    assert run(tmp_path, out).returncode == 0
    assert_whole(out, ALL)
    assert not list(out.glob(".*"))


def test_an_output_folder_that_becomes_a_file_fails_each_photo_with_a_word(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, out, "--jobs", "1")
    wait_for(lambda: out.is_dir() and any(path.suffix == ".png" for path in out.iterdir()))
    out.rename(tmp_path / "gone")
    with contextlib.suppress(FileExistsError), out.open("x"):
        pass
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1)
    assert "Traceback" not in err
    assert_whole(tmp_path / "gone")
    if out.is_file():  # else the run was faster, and the folder is there again
        assert err.count("cannot be written") >= 1
        assert process.returncode == 1


def test_a_read_only_output_folder_is_refused_or_told(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "disk"
    with small_disk(out, 4_000_000):
        (out / "sub").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
        refused = run(tmp_path, out)
        assert refused.returncode in (1, 2)
        assert "Traceback" not in refused.stderr
        assert "cannot write into" in refused.stderr or "Read-only file system" in refused.stderr
        assert list(out.iterdir()) == [out / "sub"]


def test_inputs_that_disappear_or_change_fail_alone(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, out, "--jobs", "1", "--log", "log.jsonl")
    wait_for(lambda: out.is_dir() and any(path.suffix == ".png" for path in out.iterdir()))
    (photos / "7.png").unlink()
    (photos / "6.png").write_bytes((photos / "6.png").read_bytes()[:2000])
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    records = {Path(record["input"]).name: record for record in map(json.loads, (tmp_path / "log.jsonl").open())}
    assert {name for name, record in records.items() if record["status"] == "aged"} >= ALL - {"6.png", "7.png"}
    if process.returncode == 1:  # else the run was faster
        assert "7.png: cannot be opened (No such file or directory)" in err
        assert "6.png: is damaged or incomplete" in err
    assert_whole(out)
