"""A batch on a cluster of two nodes with an object store: a worker and a node are lost in the middle, no photo is."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import skimage.data
from click.testing import CliRunner, Result
from PIL import Image

from oldphoto.cli import main

ray = pytest.importorskip("ray")
s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = 10


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """What the nodes of the cluster inherit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield


@pytest.fixture(scope="module")
def store(environment: None) -> Iterator[s3fs.S3FileSystem]:
    """An S3 server on this machine with a bucket of small photos."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        end = time.monotonic() + 120
        while True:
            try:
                files.mkdir("photos")
                break
            except Exception:
                assert time.monotonic() < end and server.poll() is None, "the S3 server does not start"
                time.sleep(0.5)
        picture = skimage.data.astronaut()
        for number in range(PHOTOS):
            stream = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(picture[number * 9 :: 8, ::8])).save(stream, "PNG")
            files.pipe_file(f"photos/in/{number % 2}/{number}.png", stream.getvalue())
        files.pipe_file("photos/in/broken.png", b"no picture")
        yield files
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def cluster(store: object) -> Iterator[object]:
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 100 * 2**20, "num_cpus": 1}
    cluster = Cluster(initialize_head=True, head_node_args={**memory, "include_dashboard": False})
    cluster.add_node(**memory)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def restore(cluster, *options: str) -> Result:
    arguments = ("restore", "s3://photos/in", "s3://photos/out", "--no-faces", "--ray", cluster.address, *options)
    return CliRunner().invoke(main, arguments, prog_name="oldphoto")


def actors() -> list[psutil.Process]:
    """The processes of Ray that hold a worker."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "ray::" in " ".join(process.info["cmdline"] or []) and "_Actor" in " ".join(process.info["cmdline"] or [])
    ]


def test_a_lost_worker_costs_only_what_it_had_in_flight(cluster, store, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        while not store.find("photos/out"):
            time.sleep(0.1)
            store.invalidate_cache()
        for process in actors()[:1]:
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)

    assassin = threading.Thread(target=kill_one, daemon=True)
    assassin.start()
    log = tmp_path / "log.jsonl"
    done = restore(cluster, "--log", str(log), "--report", str(tmp_path / "report.html"))
    assassin.join(10)
    assert done.exit_code == 1, done.output
    assert killed
    assert "s3://photos/in/broken.png: is no JPEG" in done.stderr
    assert f"{PHOTOS} restored, 1 failed" in done.stderr
    store.invalidate_cache()
    expected = {f"photos/out/{number % 2}/{number}.png" for number in range(PHOTOS)}
    assert set(store.find("photos/out")) == expected
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(records) == PHOTOS + 1
    assert {record["output"] for record in records if record["status"] == "restored"} == {f"s3://{p}" for p in expected}

    verified = CliRunner().invoke(main, ["restore", "--verify", str(log)])
    assert verified.exit_code == 0, verified.output
    assert f"files: {2 * PHOTOS} ok" in verified.stdout

    # The same photo gives the same bytes on this machine alone.
    store.get_file("photos/in/0/0.png", str(tmp_path / "0.png"))
    alone = CliRunner().invoke(main, ["restore", str(tmp_path / "0.png"), str(tmp_path / "alone.png"), "--no-faces"])
    assert alone.exit_code == 0, alone.output
    assert (tmp_path / "alone.png").read_bytes() == store.cat_file("photos/out/0/0.png")


def test_a_rerun_resumes_on_the_cluster(cluster, store) -> None:
    store.rm_file("photos/in/broken.png")
    store.rm_file("photos/out/0/0.png")
    done = restore(cluster)
    assert done.exit_code == 0, done.output
    assert f"1 restored, {PHOTOS - 1} kept" in done.stderr


def test_a_cluster_that_is_not_there_or_weights_that_are_not_touch_nothing(cluster, store, tmp_path: Path) -> None:
    before = store.find("photos/out")
    done = restore(cluster, "--overwrite", "--weights", str(tmp_path / "nowhere"))
    assert done.exit_code == 2, done.output
    assert "no weights here" in done.stderr
    assert store.find("photos/out") == before
