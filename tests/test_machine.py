"""What a process may take of its machine, inside the groups of containers and batch systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from oldphoto import machine

GIB = 1024**3


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def system(tmp_path: Path, cgroup: str, groups: dict[str, str], available: int = 64) -> tuple[Path, Path]:
    meminfo = f"MemTotal:       99999999 kB\nMemAvailable:   {available * GIB // 1024} kB\n"
    proc = lay(tmp_path / "proc", {"meminfo": meminfo, "self/cgroup": cgroup})
    return proc, lay(tmp_path / "groups", groups)


def free(*given: Any, **named: Any) -> int:
    return machine.free_memory(*system(*given, **named))


def unified(folder: str, limit: object, current: int, cache: int = 0) -> dict[str, str]:
    stat = f"anon 1\ninactive_file {cache}\nactive_file 2\n"
    contents = {"memory.max": f"{limit}\n", "memory.current": f"{current}\n", "memory.stat": stat}
    return {f"{folder}{name}": content for name, content in contents.items()}


def test_this_machine_has_what_psutil_says() -> None:
    available = psutil.virtual_memory().available
    assert 0 < machine.free_memory() < 1.5 * available
    assert 1 <= machine.cores() <= psutil.cpu_count()


def test_a_machine_without_groups_gives_what_it_has(tmp_path: Path) -> None:
    assert free(tmp_path, "0::/\n", {}, available=7) == 7 * GIB


def test_a_container_gives_what_its_limit_leaves_and_can_take_back_from_its_files(tmp_path: Path) -> None:
    groups = unified("", 10 * GIB, 6 * GIB, cache=3 * GIB)
    assert free(tmp_path, "0::/\n", groups) == 7 * GIB


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    job = "slurm/job_7"
    groups = unified(f"{job}/step_0/", "max", GIB) | unified(f"{job}/", 12 * GIB, 4 * GIB) | unified("slurm/", "max", 9)
    assert free(tmp_path, f"0::/{job}/step_0\n", groups) == 8 * GIB
    assert free(tmp_path, f"0::/{job}/step_0\n", groups, available=3) == 3 * GIB


def test_a_path_that_is_only_seen_from_outside_a_container_leads_to_its_root(tmp_path: Path) -> None:
    assert free(tmp_path, "0::/docker/0123abcd\n", unified("", 5 * GIB, 2 * GIB)) == 3 * GIB


def test_the_first_version_of_groups_is_known_too(tmp_path: Path) -> None:
    job, unlimited = "memory/slurm/uid_1/job_7", 2**63 - 4096
    groups = {
        f"{job}/memory.limit_in_bytes": str(6 * GIB),
        f"{job}/memory.usage_in_bytes": str(2 * GIB),
        f"{job}/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB}\n",
        "memory/memory.limit_in_bytes": str(unlimited),
        "memory/memory.usage_in_bytes": str(90 * GIB),
        "memory/memory.stat": "total_inactive_file 0\n",
    }
    cgroup = "9:name=systemd:/\n4:cpu,memory:/slurm/uid_1/job_7\n0::/\n"
    assert free(tmp_path, cgroup, groups) == 5 * GIB


@pytest.mark.parametrize("cgroup", ["", "0::/\n", "nonsense"])
def test_a_system_that_does_not_tell_is_trusted_with_a_guess(tmp_path: Path, cgroup: str) -> None:
    proc = lay(tmp_path / "proc", {"self/cgroup": cgroup})
    assert machine.free_memory(proc, tmp_path / "groups") == machine.UNKNOWN


def test_a_group_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    assert free(tmp_path, "0::/\n", unified("", GIB, 2 * GIB)) == 0


@pytest.mark.parametrize(
    ("cgroup", "groups", "cores"),
    [
        ("0::/box\n", {"box/cpu.max": "max 100000\n"}, 8),
        ("0::/box\n", {"box/cpu.max": "250000 100000\n"}, 3),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "200000 100000\n"}, 2),
        ("3:cpuacct,cpu:/box\n", {"cpu/box/cpu.cfs_quota_us": "-1\n", "cpu/box/cpu.cfs_period_us": "100000\n"}, 8),
        ("3:cpuacct,cpu:/box\n", {"cpu/box/cpu.cfs_quota_us": "50000\n", "cpu/box/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_bound_on_time_is_a_bound_on_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, groups: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.cores(*system(tmp_path, cgroup, groups)) == cores
