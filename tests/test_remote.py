"""Photos at URLs: the same plan, work and resume as in folders, whole objects only."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec")

import numpy as np  # noqa: E402
import skimage.data  # noqa: E402
from PIL import Image  # noqa: E402

from oldphoto import audit, batch, remote  # noqa: E402
from oldphoto.batch import Job, Outcome, Plan, Result, Work  # noqa: E402
from oldphoto.cli import common  # noqa: E402
from oldphoto.errors import UsageError  # noqa: E402
from oldphoto.imagefile import read_photo  # noqa: E402
from oldphoto.imagefile.files import temporary_folder  # noqa: E402
from oldphoto.work import ageing, log_line, photo_naming, report_entry  # noqa: E402
from oldphoto.workers import most_pixels  # noqa: E402

PICTURE = np.ascontiguousarray(skimage.data.astronaut()[0:240:5, 100:400:5])


def encoded(kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def memory():
    """An empty file system in memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


def fill(files, *paths: str) -> None:
    for path in paths:
        files.pipe_file(path, encoded("JPEG" if path.endswith("jpg") else "PNG"))


def carried_out(made: Plan, make_work=ageing) -> list[Outcome]:
    return list(batch.run(made.jobs, remote.staging(make_work), done="aged"))


def test_a_tree_of_objects_is_worked_on_and_a_rerun_keeps_what_is_there(memory, tmp_path: Path) -> None:
    fill(memory, "/in/a.png", "/in/sub/b.jpg", "/in/.hidden.png", "/in/notes.txt", "/in/sub/broken.png")
    memory.pipe_file("/in/sub/broken.png", b"no picture")
    made = remote.plan("memory://in", "memory://out", photo_naming())
    assert [(job.input, job.output, job.kept) for job in made.jobs] == [
        ("memory:///in/a.png", "memory:///out/a.png", False),
        ("memory:///in/sub/b.jpg", "memory:///out/sub/b.jpg", False),
        ("memory:///in/sub/broken.png", "memory:///out/sub/broken.png", False),
    ]
    assert made.found.ignored == 2
    before = {path: memory.cat_file(path) for path in memory.find("/in")}
    outcomes = carried_out(made)
    assert [outcome.status for outcome in outcomes] == ["aged", "aged", "failed"]
    assert outcomes[2].error.startswith("is no JPEG")
    assert set(outcomes[0].result.seconds) >= {"fetch", "store", "read", "write"}
    assert sorted(memory.find("/out")) == ["/out/a.png", "/out/sub/b.jpg"]
    assert {path: memory.cat_file(path) for path in memory.find("/in")} == before
    (tmp_path / "a.png").write_bytes(memory.cat_file("/out/a.png"))
    assert read_photo(tmp_path / "a.png").rgb.shape == PICTURE.shape

    again = remote.plan("memory://in", "memory://out", photo_naming())
    assert [job.kept for job in again.jobs] == [True, True, False]
    assert not any(job.kept for job in remote.plan("memory://in", "memory://out", photo_naming(), True).jobs)


def test_the_page_never_shows_a_file_of_this_folder_for_a_photo_at_a_url(
    memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(memory, "/in/a.png", "/out/a.png")
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(encoded())
    (job,) = remote.plan("memory://in", "memory://out", photo_naming()).jobs
    entry = report_entry(Outcome(job, "kept"))
    assert (entry.before, entry.after) == (None, None)


def test_files_of_this_folder_say_nothing_of_photos_at_a_url(memory, tmp_path: Path, monkeypatch) -> None:
    fill(memory, "/in/a.png", "/out/a.tif")
    monkeypatch.chdir(tmp_path)
    for name, time in (("a.png", 2), ("a.tif", 1)):
        Path(name).write_bytes(encoded())
        os.utime(name, (time, time))
    made = remote.plan("memory://in", "memory://out", photo_naming("tif"))
    assert made.jobs[0].kept
    assert list(common._notes(made, verbose=False)) == []
    assert most_pixels(made.jobs) == 0


def test_the_same_photo_gives_the_same_bytes_at_a_url_and_in_a_folder(memory, tmp_path: Path) -> None:
    fill(memory, "/in/a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(memory.cat_file("/in/a.png"))
    carried_out(remote.plan("memory://in", "memory://out", photo_naming()))
    list(batch.run(batch.plan(tmp_path / "in", tmp_path / "out", photo_naming()).jobs, ageing()))
    assert memory.cat_file("/out/a.png") == (tmp_path / "out" / "a.png").read_bytes()


def test_one_side_may_be_a_folder(memory, tmp_path: Path) -> None:
    fill(memory, "/in/sub/a.png")
    carried_out(remote.plan("memory://in", tmp_path / "out", photo_naming("tif")))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["out/sub/a.tif"]
    carried_out(remote.plan(tmp_path / "out", "memory://back", photo_naming()))
    assert memory.find("/back") == ["/back/sub/a.tif"]


@pytest.mark.usefixtures("secret")
def test_a_folder_beside_a_url_is_searched_as_folders_are(memory, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("in/secret", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "in" / "a.png").write_bytes(encoded())
    made = remote.plan(tmp_path / "in", "memory://out", photo_naming())
    assert made.found.unreadable == ((tmp_path / "in" / "secret", "Permission denied"),)
    assert made.found.linked == (tmp_path / "in" / "more",)
    assert [str(name) for name in made.found.names] == ["a.png"]


def test_a_name_that_a_url_would_lead_elsewhere_fails_alone(memory, tmp_path: Path) -> None:
    """What stands before two colons would be looked for inside of what stands behind them."""
    (tmp_path / "in").mkdir()
    Image.fromarray(PICTURE).save(tmp_path / "in" / "a.png")
    Image.fromarray(255 - PICTURE).save(tmp_path / "in" / "a.png::z.png")
    first, second = carried_out(remote.plan(tmp_path / "in", "memory://out", photo_naming()))
    assert (first.status, second.status) == ("aged", "failed")
    assert "rename the file" in second.error
    assert memory.find("/out") == ["/out/a.png"]
    (tmp_path / "in" / "a.png::z.png").unlink()
    carried_out(remote.plan(tmp_path / "in", "memory://other", photo_naming()))
    assert memory.cat("/out/a.png") == memory.cat("/other/a.png")


def test_a_single_object(memory) -> None:
    fill(memory, "/in/a.png")
    carried_out(remote.plan("memory://in/a.png", "memory://out", photo_naming()))
    assert memory.find("/out") == ["/out/a.png"]
    carried_out(remote.plan("memory://in/a.png", "memory://new.tif", photo_naming()))
    assert memory.isfile("/new.tif")
    (again,) = remote.plan("memory://in/a.png", "memory://new.tif", photo_naming()).jobs
    assert again.kept
    fill(memory, "/folder.png/b.png")
    (inside,) = remote.plan("memory://in/a.png", "memory://folder.png", photo_naming()).jobs
    assert inside.target_url == "memory:///folder.png/a.png"


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("memory://gone", "memory://out", "no photo found"),
        ("memory://in", "memory://in", "overlap"),
        ("memory://in", "memory://in/out", "overlap"),
        ("memory://in/sub", "memory://in", "overlap"),
        ("nonsense://in", "memory://out", "nonsense"),
    ],
)
def test_what_cannot_end_well_is_refused(memory, source: str, output: str, said: str) -> None:
    fill(memory, "/in/sub/a.png")
    with pytest.raises(UsageError, match=said):
        remote.plan(source, output, photo_naming())
    assert memory.find("/") == ["/in/sub/a.png"]


def test_a_store_that_fails_leaves_nothing_and_the_rest_goes_on(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(memory, "/in/a.png", "/in/b.png")
    really = type(memory).put_file

    def put_file(self, local: str, path: str, **options: object) -> None:
        if path.endswith("a.png"):
            raise ConnectionError("the store\nis away")
        really(self, local, path, **options)

    monkeypatch.setattr(type(memory), "put_file", put_file)
    first, second = carried_out(remote.plan("memory://in", "memory://out", photo_naming()))
    assert (first.status, second.status) == ("failed", "aged")
    assert "cannot be stored" in first.error and "is away" in first.error and "\n" not in first.error
    assert memory.find("/out") == ["/out/b.png"]


def with_hashes(plain: Work) -> Work:
    def work(job: Job) -> Result:
        plain(job)
        return Result(input_sha256="0" * 64, output_sha256="1" * 64)

    return work


def test_a_log_of_urls_is_verified_where_they_lead(memory, tmp_path: Path) -> None:
    fill(memory, "/in/a.png")
    outcomes = carried_out(remote.plan("memory://in", "memory://out", photo_naming()), partial(with_hashes, ageing()))
    (tmp_path / "log").write_text("".join(log_line(outcome) + "\n" for outcome in outcomes))
    findings = list(audit.verify(audit.read_log(tmp_path / "log")))
    assert [(finding.path, finding.state) for finding in findings] == [
        ("memory:///out/a.png", "altered"),
        ("memory:///in/a.png", "altered"),
    ]


def test_two_places_of_this_machine_that_are_one_by_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded())
    (tmp_path / "alias").symlink_to("in")
    with pytest.raises(UsageError, match="the output is the input"):
        remote.plan(f"local://{tmp_path}/in", tmp_path / "alias", photo_naming())


@pytest.mark.skipif(os.name == "nt", reason="needs locks")
def test_what_a_killed_run_had_fetched_is_removed_and_nothing_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder("oldphoto-1-") as used:
        (used / "in.png").touch()
        left = tmp_path / "oldphoto-2-dead"
        left.mkdir()
        for name in ("in.png", ".in-use"):
            (left / name).touch()
        remote.staging(ageing)
        assert (used / "in.png").exists()
        assert not left.exists()
    assert not used.exists()
