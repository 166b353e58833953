"""Planning and running a batch: nothing is lost, nothing overwrites anything, one failure stops nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import unicodedata
from pathlib import Path, PurePosixPath
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oldphoto.batch import (
    Inbox,
    Job,
    Naming,
    Plan,
    Result,
    assign_names,
    mask_name,
    plan,
    refuse_unwritable,
    remove_stale_parts,
    run,
)
from oldphoto.errors import PhotoError, UsageError
from oldphoto.imagefile import atomically

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif"})
SAME = Naming(SUFFIXES, SUFFIXES, lambda name: name)
PNG = Naming(SUFFIXES, frozenset({".png"}), lambda name: PurePosixPath(name).stem + ".png")


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def listing(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def targets(made: Plan, output: Path) -> dict[str, str]:
    return {str(job.name): job.target.relative_to(output).as_posix() for job in made.jobs}


def key(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path).casefold())


# --- names


names_strategy = st.sets(
    st.builds(
        lambda folder, stem, suffixes: PurePosixPath(folder, stem + suffixes),
        st.sampled_from(["", "A", "a", "a.png", "a.jpg", "x/Y"]),
        st.sampled_from(["a", "A", "a-1", "ä", "a\u0308", "ß", "ss", "ẞ", "\udcff"]),
        st.lists(st.sampled_from([".jpg", ".JPG", ".jpeg", ".png", ".Png", ".tif"]), min_size=1, max_size=3).map(
            "".join
        ),
    ),
    max_size=40,
)


@given(names=names_strategy, naming=st.sampled_from([SAME, PNG]), shuffle=st.randoms(use_true_random=False))
def test_no_two_photos_share_an_output_and_order_does_not_matter(names, naming, shuffle):
    ordered = sorted(names)
    given_names = assign_names(ordered, naming.target)
    keys = [key(path) for path in given_names]
    assert len(set(keys)) == len(keys)
    folders = {key(folder) for path in given_names for folder in path.parents}
    assert not folders & set(keys), "a file and a folder cannot have one name"
    assert all(path.parent == name.parent for path, name in zip(given_names, ordered, strict=True))
    assert all(
        path.suffix == PurePosixPath(naming.target(name.name)).suffix
        for path, name in zip(given_names, ordered, strict=True)
    )
    shuffled = list(ordered)
    shuffle.shuffle(shuffled)
    again = dict(zip(shuffled, assign_names(shuffled, naming.target), strict=True))
    assert [again[name] for name in ordered] == given_names


def test_a_photo_without_rival_keeps_its_name_exactly():
    names = [PurePosixPath(name) for name in ("a.JPG", "b.jpeg", "sub/a.JPG", "c d.tif")]
    assert assign_names(names, SAME.target) == names


def test_rivals_get_their_own_suffix_into_the_name_then_a_number():
    def resolved(*names):
        return [str(path) for path in assign_names([PurePosixPath(name) for name in names], PNG.target)]

    assert resolved("a.jpg", "a.png", "b.jpg") == ["a.jpg.png", "a.png.png", "b.png"]
    assert resolved("A.jpg", "a.jpg") == ["A-1.png", "a-2.png"]
    assert resolved("a.jpg", "a.jpg.jpg", "a.tif") == ["a-1.png", "a.jpg.png", "a.tif.png"]


# --- plan


def test_a_folder_is_searched_through_all_levels_and_the_tree_kept(tmp_path):
    photos = make_files(tmp_path / "in", "b.JPG", "a.png", "sub/deep/c.tif", "Thumbs.db", "notes.txt", ".hidden.jpg")
    make_files(photos, ".thumbnails/x.jpg")
    made = plan(photos, tmp_path / "out", SAME)
    assert [str(job.name) for job in made.jobs] == ["a.png", "b.JPG", "sub/deep/c.tif"]
    assert set(targets(made, tmp_path / "out").values()) == {"a.png", "b.JPG", "sub/deep/c.tif"}
    assert made.found.ignored == 4
    assert not (tmp_path / "out").exists()


def test_linked_photos_are_read_but_linked_folders_are_not_followed(tmp_path):
    photos = make_files(tmp_path / "in", "a.jpg")
    elsewhere = make_files(tmp_path / "elsewhere", "b.jpg")
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "folder").symlink_to(elsewhere, target_is_directory=True)
    (photos / "link.jpg").symlink_to(elsewhere / "b.jpg")
    (photos / "broken.jpg").symlink_to(elsewhere / "gone.jpg")
    made = plan(photos, tmp_path / "out", SAME)
    assert [str(job.name) for job in made.jobs] == ["a.jpg", "broken.jpg", "link.jpg"]


@pytest.mark.parametrize(
    ("output", "expected"),
    [("out", "out/a.jpg"), ("out.png", "out.png"), ("there", "there/a.jpg"), ("deep/er/b.jpg", "deep/er/b.jpg")],
)
def test_the_output_of_one_photo_is_a_folder_or_a_file(tmp_path, output, expected):
    make_files(tmp_path, "in/a.jpg")
    (tmp_path / "there").mkdir()
    (job,) = plan(tmp_path / "in" / "a.jpg", tmp_path / output, SAME).jobs
    assert job.target == tmp_path / expected


def test_finished_outputs_are_kept_unless_overwritten(tmp_path):
    photos = make_files(tmp_path / "in", "a.jpg", "b.jpg")
    out = make_files(tmp_path / "out", "a.jpg")
    assert [job.kept for job in plan(photos, out, SAME).jobs] == [True, False]
    assert [job.kept for job in plan(photos, out, SAME, overwrite=True).jobs] == [False, False]


def test_what_lies_in_the_output_changes_no_name(tmp_path):
    photos = make_files(tmp_path / "in", "a.jpg", "a.png")
    before = targets(plan(photos, tmp_path / "out", PNG), tmp_path / "out")
    make_files(tmp_path / "out", "a.png", "a.jpg.png", "a-1.png")
    assert (
        targets(plan(photos, tmp_path / "out", PNG), tmp_path / "out")
        == before
        == {
            "a.jpg": "a.jpg.png",
            "a.png": "a.png.png",
        }
    )


def test_masks_get_names_of_their_own_too(tmp_path):
    photos = make_files(tmp_path / "in", "a.jpg", "a.png", "sub/b.jpg")
    made = plan(photos, tmp_path / "out", SAME, save_masks=tmp_path / "masks")
    saved = [job.save_mask.relative_to(tmp_path / "masks").as_posix() for job in made.jobs]
    assert saved == ["a.jpg.png", "a.png.png", "sub/b.png"]
    assert mask_name("b.jpg") == "b.png"


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("gone", "out", "no such file or folder"),
        ("in", "in", "the output is the input"),
        ("in", "in/sub/out", "inside the input"),
        ("in", "link/out", "inside the input"),
        ("in", ".", "inside the output"),
        ("in", "file.txt", "not a folder"),
        ("in", "file.txt/deeper", "not a folder"),
        ("empty", "out", "no photo found"),
        ("in/a.jpg", "in", "is an input"),
        ("in/a.jpg", "in/a.jpg", "is an input"),
        ("in/a.jpg", "link/a.jpg", "is an input"),
        ("in/a.jpg", "hard.jpg", "is an input"),
        ("in/a.jpg", "out.gif", "make this folder first"),
        ("in/a.jpg", "file.txt", "make this folder first"),
        ("file.txt", "out", "not a photo"),
        ("in", "blocked", "is a folder"),
        ("in", "linked", "is an input"),
        ("in", "leads-out", "leads out of .*leads-out by a link"),
        ("points-out", "other", "is an input"),
    ],
)
def test_refusals_touch_nothing(tmp_path, source, output, said):
    make_files(tmp_path, "in/a.jpg", "in/sub/b.jpg", "file.txt", "blocked/a.jpg/inside", "other/c.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "hard.jpg").hardlink_to(tmp_path / "in" / "a.jpg")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "sub").symlink_to(tmp_path / "in" / "sub", target_is_directory=True)
    (tmp_path / "leads-out").mkdir()
    (tmp_path / "leads-out" / "sub").symlink_to(tmp_path / "other", target_is_directory=True)
    (tmp_path / "points-out").mkdir()
    (tmp_path / "points-out" / "c.jpg").symlink_to(tmp_path / "other" / "c.jpg")
    before = listing(tmp_path)
    with pytest.raises(UsageError, match=said):
        plan(tmp_path / source, tmp_path / output, SAME, overwrite=True)
    assert listing(tmp_path) == before


def test_masks_may_not_be_written_over_photos(tmp_path):
    photos = make_files(tmp_path / "in", "a.png", "b.jpg")
    with pytest.raises(UsageError, match="written twice"):
        plan(photos, tmp_path / "out", SAME, save_masks=tmp_path / "out")
    with pytest.raises(UsageError, match="input"):
        plan(photos, tmp_path / "out", SAME, save_masks=photos)
    plan(photos, tmp_path / "out", SAME, save_masks=tmp_path / "out" / "masks")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    photos = make_files(tmp_path / "in", "a.jpg")
    locked = tmp_path / "locked"
    locked.mkdir()
    really = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and really(path, mode))
    with pytest.raises(UsageError, match=r"cannot write into .*locked"):
        plan(photos, locked / "new" / "out", SAME)
    with pytest.raises(UsageError, match=r"cannot write into .*locked"):
        refuse_unwritable(locked)
    assert list(locked.iterdir()) == []


@pytest.mark.usefixtures("secret")
def test_folders_that_cannot_be_read_are_told(tmp_path):
    photos = make_files(tmp_path / "in", "a.jpg", "secret/b.jpg")
    made = plan(photos, tmp_path / "out", SAME)
    assert [str(job.name) for job in made.jobs] == ["a.jpg"]
    assert made.found.unreadable == ((photos / "secret", "Permission denied"),)
    (tmp_path / "all-secret").mkdir()
    with pytest.raises(UsageError, match="all-secret: Permission denied"):
        plan(tmp_path / "all-secret", tmp_path / "out", SAME)


# --- run


def jobs_of(*names: str) -> tuple[Job, ...]:
    return tuple(Job(Path("in", name), PurePosixPath(name), Path("out", name)) for name in names)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_in_the_middle_stops_nothing(workers):
    def work(job: Job) -> Result:
        number = int(job.source.stem)
        time.sleep(0.002 * (number % 3))
        if number == 5:
            raise PhotoError(f"{job.source}: is empty\n(0 bytes)")
        return Result(seconds={"read": number})

    jobs = jobs_of(*(f"{number}.jpg" for number in range(30)))
    outcomes = list(run(jobs, work, workers))
    if workers > 1:  # they are told as they end
        outcomes.sort(key=lambda outcome: jobs.index(outcome.job))
    assert [outcome.job for outcome in outcomes] == list(jobs)
    assert [outcome.job.source.stem for outcome in outcomes if outcome.status == "failed"] == ["5"]
    assert outcomes[5].error == "is empty (0 bytes)"
    assert "Traceback" in outcomes[5].traceback


def test_one_slow_photo_holds_up_no_other():
    others_done = threading.Event()

    def work(job: Job) -> Result:
        if job.source.stem == "0":
            assert others_done.wait(30)
        return Result()

    told = []
    for outcome in run(jobs_of(*(f"{number}.jpg" for number in range(60))), work, 2):
        told.append(outcome.job.source.stem)
        if len(told) == 59:
            others_done.set()
    assert told[-1] == "0"
    assert len(told) == 60


@pytest.mark.parametrize("workers", [1, 2])
def test_kept_photos_are_not_worked_on(workers):
    jobs = (Job(Path("a.jpg"), PurePosixPath("a.jpg"), Path("out/a.jpg"), kept=True), *jobs_of("b.jpg"))
    seen = []
    outcomes = list(run(jobs, lambda job: seen.append(job.source.name) or Result(), workers, done="masked"))
    assert seen == ["b.jpg"]
    assert sorted(outcome.status for outcome in outcomes) == ["kept", "masked"]


class OutOfMemoryError(RuntimeError):
    """As torch's, by name."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "--tile 256"),
        (OutOfMemoryError("CUDA"), "--tile 256"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "--tile 256"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (PermissionError(13, "Permission denied", "out/a.jpg"), "Permission denied: out/a.jpg"),
        (ValueError("surprise"), "unexpected ValueError: surprise"),
    ],
)
def test_every_failure_is_one_line_with_its_remedy(error, told):
    def work(job: Job) -> Result:
        raise error

    (outcome,) = run(jobs_of("a.jpg"), work)
    assert outcome.status == "failed"
    assert told in outcome.error
    assert "\n" not in outcome.error


def test_workers_do_not_run_far_ahead():
    started = []
    outcomes = run(jobs_of(*(f"{number}.jpg" for number in range(100))), lambda job: started.append(job) or Result(), 2)
    next(outcomes)
    time.sleep(0.05)
    assert len(started) < 20
    outcomes.close()


def test_an_interrupt_ends_one_worker_at_once_and_what_is_finished_is_told():
    def work(job: Job) -> Result:
        if job.source.stem == "b":
            raise KeyboardInterrupt
        return Result()

    told = []
    with pytest.raises(KeyboardInterrupt):
        told.extend(outcome.job.source.stem for outcome in run(jobs_of("a.jpg", "b.jpg", "c.jpg"), work))
    # extend appends as it goes, so what came before the interrupt is there
    assert told == ["a"]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_an_interrupt_lets_several_workers_finish_and_starts_no_more():
    started = []

    def work(job: Job) -> Result:
        started.append(job.source.name)
        time.sleep(0.05)
        if job.source.name == "1.jpg":  # by now the main thread waits for the first
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.05)
        return Result()

    told = []
    with pytest.raises(KeyboardInterrupt):
        for outcome in run(jobs_of(*(f"{number}.jpg" for number in range(50))), work, 2):
            told.append(outcome.job.source.name)
    assert sorted(told) == sorted(started)
    assert len(started) < 10


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_a_second_interrupt_aborts_what_is_at_work():
    aborted, started = threading.Event(), threading.Barrier(3)

    def work(job: Job) -> Result:
        started.wait(30)
        assert aborted.wait(30)
        raise PhotoError("interrupted")

    def interrupt_twice() -> None:
        started.wait(30)
        for _ in range(2):
            time.sleep(0.2)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt_twice, daemon=True).start()
    outcomes = run(jobs_of(*(f"{number}.jpg" for number in range(9))), work, 2, abort=aborted.set)
    told = []
    with pytest.raises(KeyboardInterrupt):
        for outcome in outcomes:
            told.append(outcome.status)
    assert told == ["failed", "failed"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")
@pytest.mark.parametrize("workers", [1, 2])
def test_no_outcome_is_lost_to_a_request_to_end_whenever_it_comes(workers: int) -> None:
    rng = np.random.default_rng(workers)
    for _ in range(60):
        inbox: Inbox = SimpleQueue()
        worked, told = [], []

        def work(job: Job, worked: list[str] = worked) -> Result:
            time.sleep(0.001)
            worked.append(job.source.name)
            return Result()

        before = signal.signal(signal.SIGALRM, lambda *_, inbox=inbox: inbox.put(None))
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.03))
            with pytest.raises(KeyboardInterrupt):
                for outcome in run(jobs_of(*map(str, range(500))), work, workers, inbox=inbox):
                    told.append(outcome.job.source.name)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert sorted(told) == sorted(worked)


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")
def test_only_parts_of_dead_writers_are_removed(tmp_path, monkeypatch):
    out = tmp_path / "out"
    foreign, stale = (
        ".0123456789abcdef0123456789abcdef.oldphoto-part",
        ".fedcba9876543210fedcba9876543210.oldphoto-part",
    )
    make_files(out, foreign, stale, "sub/" + stale, ".mine.oldphoto-part", "a.jpg")
    for path in (out / stale, out / "sub" / stale, out / ".mine.oldphoto-part"):
        os.utime(path, (1, 1))
    with atomically(out / "b.jpg") as living:
        os.utime(living, (1, 1))  # it writes slowly, but lives
        dead = out / (living.name[:9] + "0123456789abcdef01234567.oldphoto-part")
        dead.write_bytes(b"half")
        remove_stale_parts([Job(Path("in/a.jpg"), PurePosixPath("a.jpg"), out / "a.jpg")])
        assert sorted(listing(out)) == sorted(
            [foreign, living.name, ".mine.oldphoto-part", "a.jpg", "sub", "sub/" + stale]
        )
    assert (out / "b.jpg").exists()

    fcntl, unlink = pytest.importorskip("fcntl"), Path.unlink

    def unlocked(path: Path) -> None:
        """A writer that waits for its part's lock must not get it before the part is gone."""
        with path.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlink(path)

    dead.write_bytes(b"half")
    monkeypatch.setattr(Path, "unlink", unlocked)
    remove_stale_parts([Job(Path("in/a.jpg"), PurePosixPath("a.jpg"), out / "a.jpg")])
    assert not dead.exists()
    monkeypatch.undo()
    remove_stale_parts([Job(Path("in/a.jpg"), PurePosixPath("a.jpg"), tmp_path / "not-yet" / "a.jpg")])
