"""The jobs of a plan on many machines, by Ray Data: actors that each keep one worker with its networks loaded.

Ray starts the actors, hands out the photos and does again what a lost machine had in flight. Inside an actor the same
`oldphoto.workers.Workers` as on one machine keep a photo that kills its process from being handed out for ever.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from oldphoto import batch
from oldphoto.batch import Job, Outcome, Work
from oldphoto.errors import OldphotoError, UsageError
from oldphoto.workers import Workers

_BLOCKS = 20_000  # of jobs at most; a lost actor costs one, so up to here each is a single photo
_Row = dict[str, Any]


class Cluster:
    """A connection to a Ray cluster; as a context manager it ends the connection, and a cluster that it started.

    Parameters
    ----------
    address
        Of a running cluster ("ray://HOST:10001", "HOST:6379" or "auto"); "" takes the one of RAY_ADDRESS, else one that
        runs on this machine, else starts one here.
    cpus, gpus
        What each actor takes of a machine: more than 0 cores, and any share of a GPU; None takes half a GPU where the
        cluster has any.
    most
        Actors at once; None lets the cluster decide.

    Raises
    ------
    UsageError
        Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str, cpus: float = 1, gpus: float | None = None, most: int | None = None) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise UsageError("--ray needs more packages: pip install 'oldphoto[ray]'") from error
        try:
            ray.init(
                address=address or None, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True
            )
        except Exception as error:
            raise UsageError(f"--ray {address}: no cluster can be reached there ({error})") from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        held = ray.cluster_resources()
        self._cpus = cpus
        self._gpus = (0.5 if held.get("GPU") else 0.0) if gpus is None else gpus
        room = int(held.get("CPU", 0) // cpus)
        self._actors = max(1, min(room, most or room))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    def check(self, make_work: Callable[[], Work]) -> None:
        """Load the networks once somewhere on the cluster; raises what that raises."""
        import ray

        probe = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=1)(_refusal)
        refusal = ray.get(probe.remote(make_work, str(Path.cwd())))
        if refusal is not None:
            raise refusal

    def run(
        self, jobs: Sequence[Job], make_work: Callable[[], Work], done: str = "restored", timeout: float | None = None
    ) -> Iterator[Outcome]:
        """Do the jobs and yield how each ended, as it ends; parameters as `oldphoto.batch.run` and `Workers`."""
        import ray

        yield from (Outcome(job, "kept") for job in jobs if job.kept)
        rows = [{"job": pickle.dumps(job)} for job in jobs if not job.kept]
        if not rows:
            return
        outcomes = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map(
            _Actor,
            fn_constructor_args=(make_work, str(Path.cwd()), done, timeout, max(1, round(self._cpus))),
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            concurrency=(1, min(self._actors, len(rows))),
        )
        for row in outcomes.iter_rows():
            yield pickle.loads(row["outcome"])


def _enter(folder: str) -> None:
    """Let relative paths lead where they do for the user; on another machine none does if the folder is not there."""
    with suppress(OSError):
        os.chdir(folder)


def _refusal(make_work: Callable[[], Work], folder: str) -> OldphotoError | None:
    _enter(folder)
    try:
        make_work()
    except OldphotoError as error:
        return error
    return None


class _Actor:
    """Does one job after the other in a worker of its own."""

    def __init__(
        self, make_work: Callable[[], Work], folder: str, done: str, timeout: float | None, threads: int
    ) -> None:
        _enter(folder)
        self._done = done
        self._workers = Workers(make_work, 1, timeout, threads=threads)

    def __call__(self, row: _Row) -> _Row:
        job = pickle.loads(row["job"])
        (outcome,) = batch.run([job], self._workers, done=self._done)
        return {"outcome": pickle.dumps(outcome)}
