"""Hostile and odd files and names: refused with a reason or restored; bounded memory, nothing outside OUTPUT."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import Bundled
from hostile import PICTURE, READ, REFUSED, saved
from PIL import Image

from oldphoto.errors import PhotoError
from oldphoto.imagefile import open_photo, read_photo

ROOT = Path(__file__).resolve().parent.parent
MEMORY = 700 * 2**20
"""Bytes of address space that a reader may take beyond what importing the decoders takes."""


def program(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on address space")
def test_every_hostile_file_is_refused_or_read_in_bounded_memory(tmp_path: Path) -> None:
    """In a process of their own: a crash, a hang or a bomb would take pytest along."""
    done = program(
        tmp_path,
        """
        import re, resource, sys
        from pathlib import Path
        import psutil
        from hostile import READ, REFUSED
        from oldphoto.errors import PhotoError
        from oldphoto.imagefile import read_photo

        contents = {name: (make(), None) for name, make in READ.items()}
        contents |= {name: (make(), said) for name, (make, said) in REFUSED.items()}
        read_photo(Path(sys.argv[2]))
        limit = psutil.Process().memory_info().vms + int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for name, (content, said) in contents.items():
            Path("photo").write_bytes(content)
            try:
                photo = read_photo(Path("photo"), max_pixels=1_000_000)
                outcome = None if said is None else f"read, {photo.rgb.shape}"
            except PhotoError as error:
                outcome = None if said and re.search(said, str(error)) else str(error)
            if outcome is not None:
                print(f"{name}: {outcome}", flush=True)
        print("all tried")
        """,
        str(MEMORY),
        str(ROOT / "examples" / "coffee.jpg"),
    )
    assert done.stdout == "all tried\n", done.stdout + done.stderr
    assert done.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on address space")
def test_damaged_files_give_a_photo_or_a_reason(tmp_path: Path) -> None:
    """The first of the examples that the script goes on with for as long as one likes."""
    script = str(ROOT / "scripts" / "fuzz_decoders.py")
    code = f"import runpy, sys; sys.argv[0] = {script!r}; runpy.run_path({script!r}, run_name='__main__')"
    done = program(tmp_path, code, "--examples", "400")
    assert done.stdout == "400 examples tried, 0 findings\n", done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["a JPEG with broken EXIF", "a PNG with broken EXIF"])
def test_broken_exif_costs_the_exif_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_bytes(READ[name]())
    photo = read_photo(tmp_path / "a")
    assert photo.rgb.shape == PICTURE.shape
    assert photo.exif is None or b"\xff\xff" in photo.exif
    assert photo.warnings == ("damaged EXIF left out",)


def test_the_limit_can_be_raised(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(READ["1 x 1 pixels"]())
    Image.fromarray(PICTURE).save(tmp_path / "b.png")
    assert read_photo(tmp_path / "a.png", max_pixels=1).rgb.shape == (1, 1, 3)
    with pytest.raises(PhotoError, match=r"more than 2,879: .*--max-pixels"):
        read_photo(tmp_path / "b.png", max_pixels=2879)
    assert read_photo(tmp_path / "b.png", max_pixels=2880).rgb.shape == PICTURE.shape


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on address space")
def test_a_bomb_that_the_limit_lets_in_costs_a_small_machine_that_photo_alone(tmp_path: Path, bundled: Bundled) -> None:
    bundled("translation")
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((16000, 16000), bool)).save(tmp_path / "in" / "bomb.png")
    Image.fromarray(PICTURE).save(tmp_path / "in" / "photo.png")
    done = program(
        tmp_path,
        """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
        from oldphoto.cli import main
        main(["restore", "in", "out", "--no-faces"])
        """,
    )
    assert done.returncode == 1
    failure, summary = done.stderr.splitlines()
    assert re.fullmatch(r"oldphoto: in/bomb\.png: out of memory: .*", failure)
    assert "1 restored, 1 failed" in summary
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]


def test_the_pages_of_a_tiff_count_together(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([PICTURE] * 3), photometric="rgb")
    with pytest.raises(PhotoError, match="its 3 pages together have 8,640 pixels"):
        open_photo(tmp_path / "a.tif", max_pixels=8_000)


def test_a_file_heavier_than_any_photo_is_not_even_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.write(saved("JPEG"))
        file.truncate(2**40)  # a hole: it takes no room on the disk
    with pytest.raises(PhotoError, match="bytes, more than a photo of"):
        read_photo(tmp_path / "a.jpg")


def test_a_file_that_is_still_being_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved("JPEG"))
    really = os.fstat
    calls = []

    def growing(descriptor: int) -> os.stat_result:
        calls.append(descriptor)
        if len(calls) == 2:
            with path.open("ab") as file:
                file.write(b"more")
            os.utime(path, (1, 1))
        return really(descriptor)

    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(PhotoError, match="changed while it was read"):
        read_photo(path)


def listing(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="such names cannot exist there")
def test_strange_names_and_links_come_out_whole_and_nowhere_else(tmp_path: Path) -> None:
    photos, elsewhere, out = tmp_path / "in", tmp_path / "elsewhere", tmp_path / "out"
    names = [b"a\nb.png", b"-rf.png", b"--help.png", b"\xff\xfe.png", b" .png", b"'; rm -rf ~.png", b"$(x).png"]
    photos.mkdir()
    elsewhere.mkdir()
    for name in names:
        Image.fromarray(PICTURE).save(photos / os.fsdecode(name))
    Image.fromarray(PICTURE).save(elsewhere / "linked.png")
    (photos / "link.png").symlink_to(elsewhere / "linked.png")
    (photos / "loop.png").symlink_to(photos / "loop.png")
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "outside").symlink_to(elsewhere, target_is_directory=True)
    os.mkfifo(photos / "pipe.png")
    before = listing(photos), listing(elsewhere)
    done = program(
        tmp_path,
        "import runpy, sys; sys.argv[0] = 'oldphoto'; runpy.run_module('oldphoto', run_name='__main__')",
        *("age", "in", "out", "--jobs", "2"),
    )
    assert done.returncode == 1
    assert "loop.png: " in done.stderr
    assert "Too many levels of symbolic links" in done.stderr
    assert "8 aged, 1 failed" in done.stderr
    assert {os.fsencode(path.name) for path in out.iterdir()} == {*names, b"link.png"}
    assert not any(path.is_symlink() for path in out.iterdir())
    assert (listing(photos), listing(elsewhere)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "in", "out"]


def test_a_leading_dash_on_the_command_line(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "-in.png")
    code = "import runpy, sys; sys.argv[0] = 'oldphoto'; runpy.run_module('oldphoto', run_name='__main__')"
    done = program(tmp_path, code, "age", "--", "-in.png", "-out.png")
    assert done.returncode == 0, done.stderr
    assert read_photo(tmp_path / "-out.png").rgb.shape == PICTURE.shape


def test_a_broken_profile_is_no_damage_of_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(READ["a JPEG with one half of a profile"]())
    assert not any("damaged: parts" in warning for warning in read_photo(tmp_path / "a.jpg").warnings)


def test_nothing_is_printed_while_sizes_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(REFUSED["a TIFF that claims 65,535 channels"][0]())
    done = program(
        tmp_path,
        "from pathlib import Path; from oldphoto.imagefile import count_pixels; print(count_pixels(Path('a.tif')))",
    )
    assert (done.stdout, done.stderr) == ("None\n", "")
