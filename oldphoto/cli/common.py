"""What the commands over photos share: options, messages, and carrying out a plan."""

from __future__ import annotations

import math
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from oldphoto import __version__
from oldphoto.errors import PhotoError, UsageError

if TYPE_CHECKING:
    from oldphoto.batch import Job, Outcome, Plan, Work

FAILED, REFUSED, INTERRUPTED = 1, 2, 130

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
        return super().convert(value, param, ctx)


class ShareType(click.FloatRange):
    """A number from 0 to 1; "nan" passes every comparison of a range, so it is refused by itself."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Check the number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number from 0 to 1", param, ctx)
        return number


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

batch_options = _all(
    click.option("--overwrite", is_flag=True, help="Do finished photos again (by default they are kept)."),
    click.option("--log", type=PathType(), metavar="FILE.jsonl", help="Append one record a photo."),
    click.option(
        "--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Photos at once."
    ),
    click.option("--dry-run", is_flag=True, help="Print what would become which file, and touch nothing."),
    click.option("-v", "--verbose", is_flag=True, callback=_remember_verbose, help="Tell more; show tracebacks."),
    click.option("-q", "--quiet", is_flag=True, help="Tell nothing but errors."),
)


def weights_folder(weights: str | None) -> Path | None:
    """Return the folder that --weights names, None for the default."""
    if weights is None or weights == "bundled":
        return None
    if weights == "published":
        from oldphoto.published_weights import installed

        return installed()
    return Path(weights)


def is_verbose(ctx: click.Context) -> bool:
    """Tell whether -v was given to the command at work."""
    return bool(ctx.meta.get(_VERBOSE))


def printable(text: object) -> str:
    """Return a text, such as a file name, with everything escaped that would not print as one line."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(text)
    )


def say(text: str, err: bool = True) -> None:
    """Print one line, whatever is in it, by default on stderr."""
    stream = sys.stderr if err else sys.stdout
    encoding = stream.encoding or "utf-8"
    click.echo(printable(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


@dataclass(frozen=True)
class Run:
    """How a plan is carried out: the options that all commands over photos have."""

    jobs: int = 1
    log: Path | None = None
    report: Path | None = None
    dry_run: bool = False
    verbose: bool = False
    quiet: bool = False
    done: str = "restored"


def carry_out(run: Run, make_plan: Callable[[], Plan], make_work: Callable[[], Work]) -> None:
    """Plan, do the work, tell how each photo ended, and exit with the code for it.

    Parameters
    ----------
    run
        How it is carried out.
    make_plan
        Makes the plan.
    make_work
        Loads what the work needs; called only if there is work to do, and before anything is touched.

    Raises
    ------
    UsageError
        The request is refused; nothing was touched.
    KeyboardInterrupt
        After an interrupt; what was finished is told.
    """
    from oldphoto import batch

    try:
        plan = make_plan()
        for side_file in (run.log, run.report):
            _refuse_side_file(side_file)
    except OSError as error:
        raise UsageError(str(error)) from error
    if not run.quiet:
        for note in _notes(plan, run.verbose):
            say(f"oldphoto: {note}")
    if run.dry_run:
        _show(plan)
        return
    with warnings.catch_warnings():
        if not run.verbose:
            warnings.simplefilter("ignore")
        work = make_work() if plan.pending else _no_work
        batch.remove_stale_parts(plan.jobs)
        complete = _work_through(run, plan, work)
    if not complete:
        click.get_current_context().exit(FAILED)


def _work_through(run: Run, plan: Plan, work: Work) -> bool:
    """Do the jobs and write log and report as each ends; return whether nothing failed."""
    from tqdm import tqdm

    from oldphoto import batch
    from oldphoto.report import ReportWriter
    from oldphoto.work import log_line, open_log, report_entry, unreadable_outcomes

    start = time.monotonic()
    counts: Counter[str] = Counter()
    complete = True
    with ExitStack() as stack:
        records: list[Callable[[Outcome], object]] = []
        if run.log is not None:
            log = stack.enter_context(open_log(run.log))
            records.append(lambda outcome: log.write(log_line(outcome) + "\n"))
        if run.report is not None:
            try:
                page = stack.enter_context(ReportWriter(run.report, "Restored photos", __version__))
            except PhotoError as error:
                raise UsageError(str(error)) from error
            records.append(lambda outcome: page.add(report_entry(outcome)))
        # None: tqdm itself looks whether stderr is a terminal.
        bar = stack.enter_context(
            tqdm(total=len(plan.jobs) + len(plan.found.unreadable), unit="photo", disable=run.quiet or None)
        )
        outcomes = chain(unreadable_outcomes(plan.found), batch.run(plan.jobs, work, run.jobs, run.done))
        try:
            for outcome in outcomes:
                counts[outcome.status] += 1
                with bar.external_write_mode():
                    _tell(outcome, run)
                    for record in tuple(records):
                        try:
                            record(outcome)
                        except (OSError, PhotoError) as error:  # a full disk: the photos matter more
                            say(f"oldphoto: {error}")
                            records.remove(record)
                            complete = False
                bar.update()
        finally:
            bar.close()
            if not run.quiet:
                say(f"oldphoto: {_summary(counts, run.done, time.monotonic() - start)}")
    return complete and counts["failed"] == 0


def _no_work(job: Job) -> Any:
    raise AssertionError(f"{job.source} is finished")


def _refuse_side_file(path: Path | None) -> None:
    from oldphoto.batch import refuse_unwritable
    from oldphoto.imagefile import INPUT_SUFFIXES

    if path is None:
        return
    if path.suffix.lower() in INPUT_SUFFIXES:
        raise UsageError(f"{path} has the name of a photo: give the log or report another")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give the log or report a file name")
    refuse_unwritable(path.parent)


def _notes(plan: Plan, verbose: bool) -> Iterator[str]:
    """Say what the user should know before it starts."""
    renamed = [f"{job.name} -> {job.target.name}" for job in plan.jobs if job.renamed]
    if renamed:
        more = f" and {len(renamed) - 4} more (--dry-run lists them)" if len(renamed) > 4 else ""
        yield f"note: outputs renamed, for they would overwrite each other: {', '.join(renamed[:4])}{more}"
    unmasked = sum(1 for job in plan.jobs if job.kept and job.save_mask and not job.save_mask.exists())
    if unmasked:
        yield f"note: {unmasked} finished photos are kept and get no mask (--overwrite does them again)"
    if verbose:
        yield f"{len(plan.jobs)} photos, {len(plan.jobs) - len(plan.pending)} of them finished"
        yield f"{plan.found.ignored} other files and folders left out (hidden, not photos, or links to folders)"


def _show(plan: Plan) -> None:
    for job in plan.jobs:
        say(f"{'keep' if job.kept else 'write'}: {job.source} -> {job.target}{' (renamed)' * job.renamed}", err=False)
        if job.mask is not None and not job.kept:
            say(f"  with the mask {job.mask}", err=False)
        if job.save_mask is not None and not job.kept:
            say(f"  its mask -> {job.save_mask}", err=False)
    for folder, why in plan.found.unreadable:
        say(f"oldphoto: {folder}: {why}")


def _tell(outcome: Outcome, run: Run) -> None:
    source, result = outcome.job.source, outcome.result
    if outcome.error:
        say(f"oldphoto: {source}: {outcome.error}")
        if run.verbose and outcome.traceback:
            click.echo(outcome.traceback, err=True)
    if run.quiet:
        return
    for warning in result.warnings:
        say(f"oldphoto: {source}: warning: {warning}")
    if run.verbose and not outcome.error:
        faces = f", faces: {len(result.faces)}" if result.faces is not None else ""
        damaged = f", damaged: {result.damaged_share:.1%}" if result.damaged_share is not None else ""
        say(f"oldphoto: {source}: {outcome.status} in {sum(result.seconds.values()):.1f} s{faces}{damaged}")


def _summary(counts: Counter[str], done: str, seconds: float) -> str:
    parts = [f"{counts[done]} {done}"]
    parts += [f"{counts[status]} {status}" for status in ("kept", "failed") if counts[status]]
    minutes, rest = divmod(round(seconds), 60)
    return f"{', '.join(parts)} in {f'{minutes} min ' * (minutes > 0)}{rest} s"
