"""Worker processes: each loads the networks once and does one photo at a time; one that dies takes no other along.

A decoder that crashes on a hostile file, the kernel that ends a process for its memory, a photo that never ends: all of
them end one worker. The photo is tried once more in a new one, for the fault may have been somebody else's, and fails
if that dies too. The program itself plans and tells, and never imports torch.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import heapq
import math
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from oldphoto import batch, machine
from oldphoto.batch import Job, Result, Work
from oldphoto.errors import OldphotoError, WorkerError
from oldphoto.remote import remove_staging
from oldphoto.shortage import is_out_of_memory

MEMORY, MEMORY_A_PIXEL = 1_100_000_000, 40
"""Bytes that a worker takes for a photo: whatever its size, and besides for each of its pixels."""

_COMMON = 24_000_000  # pixels that a photo may have though its header was not looked into
_LOOKED_INTO = 8  # files of each kind, the heaviest

THREADS = 4
"""Threads of a worker at most, however many workers there are: a convolution adds up in another order for each number
of threads, and --jobs may not change a byte."""

KEPT = 32 * 1024**2
"""Bytes up to which memory that is freed is kept for what comes next. glibc returns it to the system by default, and
gets it back page by page: a tenth of the time of a network, whose layers are of this size."""

ACCELERATED_JOBS = 2
"""Workers that share a GPU: one decodes or encodes while the other uses it."""

_STARTING = threading.Lock()
_STOPS = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def default_jobs(pending: int, device: str = "auto", pixels: int = 0, memory_a_pixel: int = MEMORY_A_PIXEL) -> int:
    """Return how many photos to work on at once: what the cores and the memory carry, and what is worth the start.

    Parameters
    ----------
    pending
        How many photos there are.
    device
        Where the networks run.
    pixels
        Those of the largest photo, as `most_pixels` finds it.
    memory_a_pixel
        Bytes that the work takes for each of them.
    """
    accelerated = device.startswith(("cuda", "mps")) or (device == "auto" and machine.has_accelerator())
    able = ACCELERATED_JOBS if accelerated else machine.cores()
    room = machine.free_memory() // (MEMORY + memory_a_pixel * max(pixels, _COMMON))
    return max(1, min(able, room, math.ceil(pending / 2)))


def most_pixels(jobs: Iterable[Job]) -> int:
    """Return how many pixels the largest photo has, of those whose files weigh most among each kind."""
    from oldphoto.imagefile import count_pixels

    weights: defaultdict[str, list[tuple[int, Path]]] = defaultdict(list)
    for job in jobs:
        if not job.is_here:
            continue
        with contextlib.suppress(OSError):  # gone: told when it is read
            weights[job.source.suffix.lower()].append((job.source.stat().st_size, job.source))
    heaviest = (path for files in weights.values() for _, path in heapq.nlargest(_LOOKED_INTO, files))
    return max((count_pixels(path) or 0 for path in heaviest), default=0)


class Workers:
    """Does jobs in processes; an instance is a `Work` that several threads may call.

    As a context manager it starts the first worker, unless that was done ahead, and in the end kills all.

    Parameters
    ----------
    make_work
        Loads what the work needs and returns it; it is pickled, so a function of a module, or a `functools.partial`.
    count
        How many workers.
    timeout
        Seconds after which a job is given up and its worker killed; None never does.
    show_warnings
        Let the libraries' warnings through.
    threads
        How many each takes; by default all cores, THREADS at most.

    Raises
    ------
    OldphotoError
        On entering: what `make_work` raises.
    """

    def __init__(
        self,
        make_work: Callable[[], Work],
        count: int,
        timeout: float | None = None,
        show_warnings: bool = False,
        threads: int | None = None,
    ) -> None:
        threads = threads or min(machine.cores(), THREADS)
        self._new = partial(_Worker, make_work, threads, timeout, show_warnings)
        self._workers: list[_Worker] = []
        self._usable = 0
        self._notices: list[str] = []
        self._retiring = threading.Lock()
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self.grow(count)
        atexit.register(self.kill)  # before multiprocessing asks them to end, which they do not hear

    def start_ahead(self) -> None:
        """Let the first worker load while this process has other things to do; whether it could is told on entering."""
        with contextlib.suppress(OSError):
            self._workers[0].launch()

    def grow(self, count: int) -> None:
        """Let there be `count` workers at least."""
        for _ in range(count - len(self._workers)):
            self._workers.append(self._new())
            self._usable += 1
            self._idle.put(self._workers[-1])

    def __enter__(self) -> Workers:
        try:
            self._workers[0].start()
        except (EOFError, OSError) as error:
            self.kill()
            raise WorkerError("the worker process cannot be started: is there memory left?") from error
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def __call__(self, job: Job) -> Result:
        """Do a job in an idle worker, and once more in a new one if that dies.

        A worker that cannot load, for the memory may hold the networks of fewer, does none: the others do its jobs.

        Raises
        ------
        WorkerError
            The job failed there, killed two workers, or took too long; or no worker can load.
        """
        worker = self._loaded()
        try:
            try:
                result = worker.do(job)
            except _WorkerDiedError:
                result = worker.do(job)
            with self._retiring:
                notices, self._notices = self._notices, []
            return replace(result, notices=(*result.notices, *notices))
        except _WorkerDiedError as death:
            raise WorkerError(
                f"the process that worked on it ended twice ({death}): it may need more memory (try --tile 256 and "
                "--jobs 1), or be made to crash a decoder"
            ) from death
        finally:
            self._idle.put(worker)

    def _loaded(self) -> _Worker:
        """An idle worker that is ready; the last of all as it is: with its job it is told why it is not."""
        while True:
            worker = self._idle.get()
            try:
                worker.load()
                return worker
            except (OldphotoError, _WorkerDiedError) as refusal:
                with self._retiring:
                    if self._usable == 1:
                        return worker
                    self._usable -= 1
                    self._notices.append(f"one worker fewer, for it cannot be loaded ({refusal}): see --jobs")

    def kill(self) -> None:
        """End all workers at once, for good; jobs at work fail."""
        atexit.unregister(self.kill)
        for worker in self._workers:
            worker.kill()


class _WorkerDiedError(Exception):
    """A worker ended while it did a job; the message says how."""


class _Worker:
    """One process, started when it is first needed, and anew after it died."""

    def __init__(self, make_work: Callable[[], Work], threads: int, timeout: float | None, show_warnings: bool) -> None:
        self._make_work, self._threads, self._show_warnings = make_work, threads, show_warnings
        self._timeout = timeout
        self._process: SpawnProcess | None = None
        self._killed = False

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, str(Path.cwd()), self._make_work, self._threads, self._show_warnings)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with _STARTING, _surroundings(self._threads):
            self._process.start()
        theirs.close()  # else the end of the process would not end the pipe
        if self._killed:
            self._end()
            raise WorkerError("interrupted")

    def start(self) -> None:
        """Wait until the process, which is started where it was not, has loaded all; raises what `make_work` raises."""
        if self._process is None:
            self.launch()
        refusal = self._receive(None)
        if isinstance(refusal, OldphotoError):
            self._end()
            raise refusal

    def load(self) -> None:
        """Have the process there and all loaded; raises as `start`, and _WorkerDiedError where it ended before."""
        if self._killed:
            raise WorkerError("interrupted")
        if self._process is None or not self._process.is_alive():
            self._end()
            try:
                self.start()
            except (EOFError, OSError) as error:
                raise _WorkerDiedError(self._end()) from error
            except Exception:
                self._end()
                raise

    def do(self, job: Job) -> Result:
        """Do a job; raises WorkerError where it failed or took too long, _WorkerDiedError where the process ended."""
        self.load()
        try:
            self._pipe.send(job)
            answer = self._receive(self._timeout)
        except (EOFError, OSError) as error:
            how = self._end()
            batch.remove_stale_parts([job])
            raise _WorkerDiedError(how) from error
        except Exception:
            self._end()  # what it answers yet would be taken for the answer to another job
            raise
        if isinstance(answer, OldphotoError):
            raise answer
        if answer is None:
            self._end()
            batch.remove_stale_parts([job])
            raise WorkerError(f"took longer than {self._timeout:g} s and was given up: --timeout allows more")
        assert isinstance(answer, Result)
        return answer

    def _receive(self, timeout: float | None) -> object:
        """Return what the process sends, None if it does not in time."""
        return self._pipe.recv() if self._pipe.poll(timeout) else None

    def _end(self) -> str:
        """Make sure that the process has ended; return how it did."""
        process, self._process = self._process, None
        if process is None:
            return "killed"
        process.join(1)  # it may be about to end by itself, in a way worth telling
        self._make_sure(process)
        self._pipe.close()
        code = process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._killed = True
        process = self._process  # the thread that waits for it may let go of it meanwhile
        if process is not None:
            self._make_sure(process)

    def _make_sure(self, process: SpawnProcess) -> None:
        process.kill()
        process.join()
        remove_staging(process.pid or 0)


def environment(threads: int) -> dict[str, str]:
    """The variables that make a process with so many threads fast, and safe to start anywhere.

    Threads that wait for each other do not spin, which on a busy machine takes most of its time; memory is kept (KEPT);
    the current folder, where anything may lie, is no place to import from.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "MALLOC_MMAP_THRESHOLD_": str(KEPT),
        "MALLOC_TRIM_THRESHOLD_": str(4 * KEPT),
        "PYTHONSAFEPATH": "1",
    }


@contextlib.contextmanager
def _surroundings(threads: int) -> Iterator[None]:
    """Set what a process inherits that is started here.

    Besides its `environment`: Ctrl-C, a closed terminal or the end of a batch system's time is for this process to
    answer.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # it would start with the first process, and let the signals through again
    wanted = environment(threads)
    added = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in added})
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS) if sys.platform != "win32" else None
    try:
        yield
    finally:
        if sys.platform != "win32" and blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for name in added:
            del os.environ[name]


def _serve(pipe: Connection, folder: str, make_work: Callable[[], Work], threads: int, show_warnings: bool) -> None:
    """Load, then answer each job with its result or its failure, until the pipe ends."""
    for stop in _STOPS:
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(folder)
    if not show_warnings:
        warnings.simplefilter("ignore")
    gc.disable()  # to import torch makes many objects, none of them garbage: a tenth of the start
    try:
        work = make_work()
        _limit_opencv(threads)
    except OldphotoError as error:
        pipe.send(error)
        return
    except Exception as error:
        short = "out of memory, before any photo: close other programs"
        said = short if is_out_of_memory(error) else f"unexpected {type(error).__name__}: {error}"
        pipe.send(WorkerError(said, traceback.format_exc()))
        return
    gc.freeze()  # nor will they ever be: the collector need not look at them
    gc.enable()
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            job = pipe.recv()
            try:
                pipe.send(work(job))
            except Exception as error:
                pipe.send(WorkerError(batch.reason(error, job.source), traceback.format_exc()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _limit_opencv(threads: int) -> None:
    import cv2

    cv2.setNumThreads(threads)
