"""What the commands over photos share: options, messages, and carrying out a plan."""

from __future__ import annotations

import functools
import math
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from oldphoto import __version__
from oldphoto.errors import PhotoError, UsageError

if TYPE_CHECKING:
    from oldphoto.batch import Inbox, Job, Outcome, Plan, Work
    from oldphoto.ray_batch import Cluster
    from oldphoto.workers import Workers

FAILED, REFUSED, INTERRUPTED = 1, 2, 130

LONGEST = 1_000_000.0
"""Seconds, eleven days, that a photo may take at most: systems cannot wait for any time."""

_NAMED = 4  # of many things that a note is about
_HELD = 256  # outcomes, with their previews, that wait for an earlier one's before they go on the page all the same
_VERBOSE = "oldphoto.verbose"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class PathType(click.Path):
    """A path; the empty one is refused, for it would mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a text as a path."""
        if not str(value):
            self.fail("the path is empty", param, ctx)
        if "://" in str(value):
            self.fail(f"{value!r} is a URL, which only INPUT and OUTPUT of restore may be", param, ctx)
        return super().convert(value, param, ctx)


class PlaceType(PathType):
    """A path, or the URL of a remote place as text: a path would make one slash of two."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a URL as it is, the rest, and what is a path all the same, as a path."""
        if isinstance(value, str) and value.startswith("file://"):
            from urllib.request import url2pathname  # which imports more than --help has time for

            value = url2pathname(value.removeprefix("file://").removeprefix("localhost"))
        return value if isinstance(value, str) and "://" in value else super().convert(value, param, ctx)


class NumberType(click.FloatRange):
    """A number within a range; "nan" passes every comparison, so it is refused by itself."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Check the number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not in the range {self._describe_range()}", param, ctx)
        return number


class ShareType(NumberType):
    """A number from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(0, 1)


def _check_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check the form of the name; whether the device is there is found out when it is used."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", value):
        raise click.BadParameter(f"{value!r} is not auto, cpu, cuda, cuda:N or mps.")
    return value


def _all(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _remember_verbose(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.meta[_VERBOSE] = value
    return value


photo_arguments = _all(
    click.argument("source", metavar="INPUT", type=PathType()),
    click.argument("output", metavar="OUTPUT", type=PathType()),
)

network_options = _all(
    click.option(
        "--device",
        metavar="DEVICE",
        callback=_check_device,
        default="auto",
        show_default=True,
        help="auto, cpu, cuda[:N] or mps.",
    ),
    click.option(
        "--tile", type=click.IntRange(min=64), metavar="N", help="Side of the tiles; smaller takes less memory."
    ),
    click.option(
        "--weights", "--checkpoints", "weights", metavar="NAME|DIR", help="Other weights: published, or a folder."
    ),
)

verbosity_options = _all(
    click.option("-v", "--verbose", is_flag=True, callback=_remember_verbose, help="Tell more; show tracebacks."),
    click.option("-q", "--quiet", is_flag=True, help="Tell nothing but errors."),
)

quality_option = click.option(
    "--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Quality of JPEG and WebP outputs."
)
stamp_option = click.option(
    "--no-stamp", is_flag=True, help="Do not name oldphoto in the EXIF Software tag of the outputs."
)
pixel_option = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=300_000_000,
    show_default=True,
    metavar="N",
    help="Refuse larger photos: a small file can claim to hold billions.",
)


def is_verbose(ctx: click.Context) -> bool:
    """Tell whether -v was given to the command at work."""
    return bool(ctx.meta.get(_VERBOSE))


def printable(text: object) -> str:
    """Return a text, such as a file name, with everything escaped that would not print as one line."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(text)
    )


def say(text: str, err: bool = True) -> None:
    """Print one line, whatever is in it, by default on stderr.

    Where that cannot be written, on a full disk or for want of one, the photos matter more.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    with suppress(OSError) if err else nullcontext():
        click.echo(printable(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


@dataclass(frozen=True)
class Run:
    """How a plan is carried out: the options that all commands over photos have."""

    jobs: int | None = None
    """Photos at once; by default what the machine carries."""
    log: Path | None = None
    report: Path | None = None
    dry_run: bool = False
    verbose: bool = False
    quiet: bool = False
    done: str = "restored"
    device: str = "cpu"
    timeout: float | None = None
    """Seconds after which a photo is given up."""
    memory_a_pixel: int = 0
    """Bytes that the work takes for each pixel of a photo, where that is more than a restoration does."""
    cluster: Callable[[], Cluster] | None = None
    """Connects to the machines to work on; None works on this one."""


_batch_options = _all(
    click.option("--overwrite", is_flag=True, help="Do finished photos again (by default they are kept)."),
    click.option("--log", type=PathType(), metavar="FILE.jsonl", help="Append one record a photo."),
    click.option(
        "--jobs", type=click.IntRange(min=1), metavar="N", help="Photos at once (by default what the machine carries)."
    ),
    click.option(
        "--timeout",
        type=NumberType(0, LONGEST, min_open=True),
        default=3600,
        show_default=True,
        metavar="SECONDS",
        help="Give up a photo that takes longer.",
    ),
    click.option("--dry-run", is_flag=True, help="Print what would become which file, and touch nothing."),
    verbosity_options,
)


def batch_options(done: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command over photos the options that all of them have: packed as ``run``, besides ``overwrite``.

    ``done`` says what was done to a photo.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def packed(
            *,
            log: Path | None,
            jobs: int | None,
            timeout: float,
            dry_run: bool,
            verbose: bool,
            quiet: bool,
            device: str = "cpu",
            **others: Any,
        ) -> None:
            run = Run(
                jobs=jobs,
                log=log,
                dry_run=dry_run,
                verbose=verbose,
                quiet=quiet,
                done=done,
                device=device,
                timeout=timeout,
            )
            command(run=run, **others)

        return _batch_options(packed)

    return decorate


def carry_out(run: Run, make_plan: Callable[[], Plan], make_work: Callable[[], Work]) -> None:
    """Plan, do the work, tell how each photo ended, and exit with the code for it.

    Parameters
    ----------
    run
        How it is carried out.
    make_plan
        Makes the plan.
    make_work
        Loads what the work needs; called in each worker, only if there is work to do, and before anything is touched.

    Raises
    ------
    UsageError
        The request is refused; nothing was touched.
    KeyboardInterrupt
        After an interrupt; what was finished is told.
    """
    from oldphoto.workers import Workers

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if not run.verbose:
            warnings.simplefilter("ignore")
        interrupts = stack.enter_context(_stops_interrupt())
        workers = Workers(make_work, 1, run.timeout, run.verbose)
        stack.callback(workers.kill)
        if run.cluster is None and not run.dry_run:
            workers.start_ahead()
        plan = _planned(run, make_plan)
        if not run.quiet:
            for note in _notes(plan, run.verbose):
                say(f"oldphoto: {note}")
        if run.dry_run:
            _show(plan)
            complete = not plan.found.unreadable
        else:
            outcomes = _outcomes(run, plan, make_work, workers, stack, interrupts.inbox)
            complete = _work_through(run, plan, outcomes, interrupts)
    if not complete:
        click.get_current_context().exit(FAILED)


def _planned(run: Run, make_plan: Callable[[], Plan]) -> Plan:
    """Make the plan, and look at the other files that will be written. Raises UsageError."""
    from oldphoto.batch import same_place

    try:
        plan = make_plan()
        for side_file in (run.log, run.report):
            _refuse_side_file(side_file, plan)
        if run.report is not None and run.report.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"{run.report} would be replaced by a page: give --report a name that ends in .html")
        if run.log is not None and run.report is not None and same_place(run.log, run.report):
            raise UsageError(f"{run.log} is both the log and the report: give each a name of its own")
    except OSError as error:
        raise UsageError(str(error)) from error
    return plan


def _outcomes(
    run: Run, plan: Plan, make_work: Callable[[], Work], workers: Workers, stack: ExitStack, inbox: Inbox
) -> Iterator[Outcome]:
    """Load what the work needs, before anything is touched; then do the jobs as the outcomes are asked for."""
    from oldphoto import batch
    from oldphoto.workers import MEMORY_A_PIXEL, default_jobs, most_pixels

    pending = len(plan.pending)
    if not pending:
        batch.remove_stale_parts(plan.jobs)
        return batch.run(plan.jobs, _no_work, inbox=inbox)
    if run.cluster is not None:
        cluster = stack.enter_context(run.cluster())
        cluster.check(make_work)
        batch.remove_stale_parts(plan.jobs)
        return batch.awaited(cluster.run(plan.jobs, make_work, run.done, run.timeout), inbox)
    memory = max(run.memory_a_pixel, MEMORY_A_PIXEL)
    jobs = min(run.jobs or default_jobs(pending, run.device, most_pixels(plan.pending), memory), pending)
    workers.grow(jobs)
    stack.callback(batch.remove_stale_parts, plan.jobs)  # of workers that an interrupt killed
    stack.enter_context(workers)
    batch.remove_stale_parts(plan.jobs)
    return batch.run(plan.jobs, workers, jobs, run.done, workers.kill, inbox)


def _work_through(run: Run, plan: Plan, outcomes: Iterator[Outcome], interrupts: _Interrupts) -> bool:
    """Let the jobs be done and write log and report as each ends; return whether nothing failed."""
    from tqdm import tqdm

    from oldphoto.report import ReportWriter
    from oldphoto.work import log_line, open_log, report_entry, unreadable_outcomes

    start = time.monotonic()
    counts: Counter[str] = Counter()
    told: set[str] = set()
    complete = True
    with ExitStack() as stack:
        records: list[Callable[[Outcome], object]] = []
        if run.report is not None:
            try:
                page = stack.enter_context(ReportWriter(run.report, "Restored photos", __version__))
            except PhotoError as error:
                raise UsageError(str(error)) from error
            in_order = stack.enter_context(_InOrder(plan, lambda outcome: page.add(report_entry(outcome))))
            records.append(in_order.add)
        if run.log is not None:  # which cannot be taken back, where the page can not be made
            log = open_log(run.log)
            stack.callback(_close, log)
            records.append(lambda outcome: log.write(log_line(outcome) + "\n"))
        # None: tqdm itself looks whether stderr is a terminal.
        bar = stack.enter_context(
            tqdm(
                total=len(plan.jobs) + len(plan.found.unreadable),
                unit="photo",
                disable=run.quiet or sys.stderr is None or None,
            )
        )
        try:
            with interrupts:
                for outcome in chain(unreadable_outcomes(plan.found), outcomes):
                    counts[outcome.status] += 1
                    with bar.external_write_mode():
                        _tell(outcome, run, told)
                        complete &= _record(outcome, records, run.log)
                    bar.update()
        finally:
            bar.close()
            if not run.quiet:
                say(f"oldphoto: {_summary(counts, run.done, time.monotonic() - start)}")
    return complete and counts["failed"] == 0


def _record(outcome: Outcome, records: list[Callable[[Outcome], object]], log: Path | None) -> bool:
    """Let log and page take an outcome in; one that fails is told of and left, and False is returned."""
    complete = True
    for record in tuple(records):
        try:
            record(outcome)
        except (OSError, PhotoError) as error:  # a full disk: the photos matter more
            say(f"oldphoto: {_of_side_file(error, log)}")
            records.remove(record)
            complete = False
    return complete


class _InOrder:
    """Passes outcomes on in the order of the plan, as far as _HELD at a time allow; on leaving what is held back."""

    def __init__(self, plan: Plan, take: Callable[[Outcome], object]) -> None:
        self._places = {job.name: place for place, job in enumerate(plan.jobs)}
        self._take = take
        self._next = 0
        self._held: dict[int, Outcome] = {}

    def add(self, outcome: Outcome) -> None:
        """Take an outcome in; one that is of no job of the plan is passed on at once."""
        place = self._places.get(outcome.job.name)
        if place is None or place < self._next:
            self._take(outcome)
            return
        self._held[place] = outcome
        if len(self._held) > _HELD:
            self._next = min(self._held)
        while self._next in self._held:
            self._take(self._held.pop(self._next))
            self._next += 1

    def __enter__(self) -> _InOrder:
        return self

    def __exit__(self, *_: object) -> None:
        for place in sorted(self._held):
            with suppress(PhotoError):  # it was told when the page failed first
                self._take(self._held[place])


def _of_side_file(error: OSError | PhotoError, log: Path | None) -> str:
    """What went wrong with the log or the page, which is named; the page's errors name it themselves."""
    if isinstance(error, PhotoError):
        return str(error)
    return f"{log}: {error.strerror or error}: the log ends here, the photos go on"


def _close(log: IO[str]) -> None:
    with suppress(OSError):  # of a full disk: it was told when a line failed
        log.close()


class _Interrupts:
    """Requests to end: Ctrl-C, a batch system's, those of a terminal that closes.

    In a ``with`` block they go into the inbox of `oldphoto.batch.run`; elsewhere they are raised.
    """

    def __init__(self) -> None:
        self.inbox: Inbox = SimpleQueue()
        self._posting = False

    def handle(self, number: int, frame: object) -> None:
        """Take a signal."""
        if not self._posting:
            raise KeyboardInterrupt
        self.inbox.put(None)

    def __enter__(self) -> None:
        self._posting = True

    def __exit__(self, *_: object) -> None:
        self._posting = False


@contextmanager
def _stops_interrupt() -> Iterator[_Interrupts]:
    """Let all requests to end do the same."""
    interrupts, replaced = _Interrupts(), {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                replaced[number] = signal.signal(number, interrupts.handle)  # nohup has it ignored
    try:
        yield interrupts
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _no_work(job: Job) -> Any:
    raise AssertionError(f"{job.source} is finished")


def _refuse_side_file(path: Path | None, plan: Plan) -> None:
    from oldphoto.batch import refuse_unwritable, same
    from oldphoto.imagefile import INPUT_SUFFIXES

    if path is None:
        return
    real = Path(os.path.realpath(path))  # the log is appended to what a link leads to
    if INPUT_SUFFIXES.intersection((path.suffix.lower(), real.suffix.lower())):
        raise UsageError(f"{path} has the name of a photo: give the log or report another")
    if any(same(path, mask) for mask in {job.mask for job in plan.jobs}):
        raise UsageError(f"{path} is one of your own masks: give the log or report another name")
    outputs = {Path(os.path.realpath(folder)) for job in plan.jobs for folder in job.folders}
    if path.is_dir() or any(real in (folder, *folder.parents) for folder in outputs):
        raise UsageError(f"{path} is a folder: give the log or report a file name")
    refuse_unwritable(path.parent)


def _some(things: Sequence[object]) -> str:
    """The first of many things, and how many more there are."""
    more = f" and {len(things) - _NAMED} more" if len(things) > _NAMED else ""
    return ", ".join(map(str, things[:_NAMED])) + more


def _is_newer(job: Job) -> bool:
    """Tell whether a photo, or its mask, was written after its output, or another has taken its place."""
    try:
        finished = job.target.stat().st_mtime if job.is_here else math.inf
        return any(path.stat().st_mtime > finished for path in (job.source, job.mask) if path is not None)
    except OSError:  # gone: told when it is read
        return False


def _notes(plan: Plan, verbose: bool) -> Iterator[str]:
    """Say what the user should know before it starts."""
    from oldphoto.batch import exists

    renamed = [f"{job.name} -> {job.target.name}" for job in plan.jobs if job.renamed]
    if renamed:
        more = " (--dry-run lists them)" if len(renamed) > _NAMED else ""
        yield f"note: outputs renamed, for they would overwrite each other: {_some(renamed)}{more}"
    newer = [job.name for job in plan.jobs if job.kept and _is_newer(job)]
    if newer:
        what = "photos or masks newer" if any(job.mask for job in plan.jobs) else "newer"
        yield f"note: {what} than their finished outputs, which are kept (--overwrite does them again): {_some(newer)}"
    unmasked = sum(1 for job in plan.jobs if job.kept and job.save_mask and not exists(job.save_mask))
    if unmasked:
        yield f"note: {unmasked} finished photos are kept and get no mask (--overwrite does them again)"
    without = sum(1 for job in plan.pending if job.mask is None)
    if without and any(job.mask for job in plan.jobs):
        yield f"note: {without} of {len(plan.pending)} photos have no mask of yours, and are not repaired by one"
    if plan.found.unread:
        yield f"note: pictures of kinds that are not read are left out: {_some(plan.found.unread)}"
    if plan.found.linked:
        yield f"note: folders that are links are not entered: {_some(plan.found.linked)}"
    if verbose:
        yield f"{len(plan.jobs)} photos, {len(plan.jobs) - len(plan.pending)} of them finished"
        yield f"{plan.found.ignored} other files and folders left out (hidden, or not photos)"


def _show(plan: Plan) -> None:
    for job in plan.jobs:
        say(f"{'keep' if job.kept else 'write'}: {job.input} -> {job.output}{' (renamed)' * job.renamed}", err=False)
        if job.mask is not None and not job.kept:
            say(f"  with the mask {job.mask}", err=False)
        if job.save_mask is not None and not job.kept:
            say(f"  its mask -> {job.save_mask}", err=False)
    for folder, why in plan.found.unreadable:
        say(f"oldphoto: {folder}: {why}")


def _tell(outcome: Outcome, run: Run, told: set[str]) -> None:
    """Say how a job ended; what is said of the machine goes into `told`, and is said once."""
    source, result = outcome.job.input, outcome.result
    if outcome.error:
        say(f"oldphoto: {source}: {outcome.error}")
        if run.verbose and outcome.traceback:
            for line in outcome.traceback.splitlines():
                say(line)
    if run.quiet:
        return
    for warning in result.warnings:
        say(f"oldphoto: {source}: warning: {warning}")
    for notice in result.notices:
        if notice not in told:
            say(f"oldphoto: note: {notice}")
            told.add(notice)
    if run.verbose and not outcome.error:
        faces = f", faces: {len(result.faces)}" if result.faces is not None else ""
        damaged = f", damaged: {result.damaged_share:.1%}" if result.damaged_share is not None else ""
        found = "".join(f", {key}: {result.made_by[key]}" for key in ("psf", "noise") if key in result.made_by)
        say(f"oldphoto: {source}: {outcome.status} in {sum(result.seconds.values()):.1f} s{faces}{damaged}{found}")


def _summary(counts: Counter[str], done: str, seconds: float) -> str:
    parts = [f"{counts[done]} {done}"]
    parts += [f"{counts[status]} {status}" for status in ("kept", "failed") if counts[status]]
    minutes, rest = divmod(round(seconds), 60)
    return f"{', '.join(parts)} in {f'{minutes} min ' * (minutes > 0)}{rest} s"
