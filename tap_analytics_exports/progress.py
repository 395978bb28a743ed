"""What a person sees of a run while it goes on: on a terminal a line a stream, elsewhere lines of the log."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tap_analytics_exports.extraction import Extraction
from tap_analytics_exports.jobs.job import now
from tap_analytics_exports.jobs.status import JobStatus, amount, duration, size
from tap_analytics_exports.redaction import clean_logger

if TYPE_CHECKING:
    from rich.table import Table

DRAW_SECONDS = 0.5

QUIET = timedelta(minutes=3)
"""How long a run that only waits says nothing."""

logger = clean_logger(__name__)


class Progress:
    """Shows how a run goes while the `with` block lasts, and sums it up at its end.

    It writes to standard error alone. Where that is a terminal and standard output is none, a table is drawn
    again and again; elsewhere, a line of the log tells now and then that nothing happens.

    Args:
        extraction: The run.
        quiet: How long nothing is told while it only waits.
    """

    def __init__(self, extraction: Extraction, quiet: timedelta = QUIET) -> None:
        self._extraction = extraction
        self._quiet = quiet
        self._began = now()
        self._ended = threading.Event()
        show = self._draw if _on_a_terminal() else self._tell
        self._thread = threading.Thread(target=show, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(4 * DRAW_SECONDS)
        for line in summary(self._extraction.jobs, self._extraction.bookmarks, now() - self._began):
            logger.info("%s", line)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        with Live(console=console, auto_refresh=False, redirect_stdout=False) as live, _log_above():
            while not self._ended.wait(DRAW_SECONDS):
                live.update(_table(self._extraction.jobs), refresh=True)
            live.update(_table(self._extraction.jobs), refresh=True)

    def _tell(self) -> None:
        last, since = None, now()
        while not self._ended.wait(self._quiet.total_seconds() / 4):
            jobs = self._extraction.jobs
            seen = [(job.stage, job.bytes, job.rows) for job in jobs]
            if seen != last:
                last, since = seen, now()
            elif now() - since >= self._quiet:
                since = now()
                if line := waiting(jobs, since):
                    logger.info("%s", line)


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far a stream is.

    Attributes:
        stream: Its name.
        windows: How many it has in this run.
        done: How many of them have ended.
        job: The job whose turn it is; None: all have ended.
        bytes: Those of all its files that are here.
        rows: How many were written.
        left: How long it will take, by the windows that have ended; None: too few have.
    """

    stream: str
    windows: int
    done: int
    job: JobStatus | None
    bytes: int
    rows: int
    left: timedelta | None


def streams(jobs: Iterable[JobStatus]) -> list[StreamProgress]:
    """Sum up the jobs of each stream, which come in the order of their rows."""
    found = []
    for name, group in groupby(jobs, key=lambda job: job.stream):
        every = list(group)
        windows = [job for job in every if not job.retried]
        ends = sorted(job.finished_at for job in windows if job.finished_at)
        left = None
        if len(ends) > 1:
            left = (ends[-1] - ends[0]) / (len(ends) - 1) * (len(windows) - len(ends))
        found.append(
            StreamProgress(
                name,
                len(windows),
                len(ends),
                next((job for job in windows if job.stage != "ended"), None),
                sum(job.bytes for job in windows),
                sum(job.rows for job in windows),
                left,
            )
        )
    return found


def waiting(jobs: Iterable[JobStatus], at: datetime) -> str | None:
    """Say what a run waits for: how many jobs, the oldest, what its vendor calls its state; None: nothing."""
    running = [(job.submitted_at, job) for job in jobs if job.stage == "running" and job.submitted_at]
    if not running:
        return None
    since, oldest = min(running, key=lambda each: each[0])
    word = f", which calls it {oldest.word!r}" if oldest.word else ""
    return (
        f"waiting for {amount(len(running), 'job')}; the oldest, of stream {oldest.stream}, has run for "
        f"{duration(at - since)} at {oldest.provider}{word}"
    )


def summary(
    jobs: Sequence[JobStatus], bookmarks: Mapping[str, datetime | None], took: timedelta
) -> Iterator[str]:
    """Sum a run up: a line for all of it, and a line a stream."""
    yield f"the run took {duration(took)}: {_counts(jobs)}"
    told = {job.stream for job in jobs}
    for name in sorted(told | bookmarks.keys()):
        end = f"; bookmark {bookmarks[name] or 'none yet'}" if name in bookmarks else ""
        yield f"stream {name}: {_counts([job for job in jobs if job.stream == name])}{end}"


def _counts(jobs: Sequence[JobStatus]) -> str:
    if not jobs:
        return "nothing to export"
    results = Counter(job.result or "not finished" for job in jobs)
    parts = [f"{count:,} {result}" for result, count in sorted(results.items())]
    return (
        f"{amount(len(jobs), 'job')}, {', '.join(parts)}; {amount(sum(job.rows for job in jobs), 'row')}, "
        f"{sum(job.rejected for job in jobs):,} rejected"
    )


def _table(jobs: Sequence[JobStatus]) -> Table:
    """Draw a line a stream, those on whose windows something happens first."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=False)
    for title in ("stream", "windows", "now", "for", "bytes", "rows", "rows/s", "left"):
        table.add_column(title, justify="left" if title in ("stream", "now") else "right", no_wrap=True)
    at = now()
    order = {"queued": 1, "ended": 2}
    for each in sorted(streams(jobs), key=lambda each: order.get(each.job.stage if each.job else "ended", 0)):
        job = each.job
        rate, since, stage = "", None, "done"
        if job is not None:
            stage = f"{job.stage} ({job.word})" if job.word else job.stage
            since = {
                "running": job.submitted_at,
                "downloading": job.ready_at,
                "fetched": job.downloaded_at,
                "writing": job.writing_at,
            }.get(job.stage, job.planned_at)
            if job.writing_at and at > job.writing_at:
                rate = f"{job.rows / (at - job.writing_at).total_seconds():,.0f}"
        table.add_row(
            each.stream,
            f"{each.done:,} of {each.windows:,}",
            stage,
            duration(at - since) if since else "",
            size(each.bytes),
            f"{each.rows:,}",
            rate,
            duration(each.left) if each.left is not None and job is not None else "",
        )
    return table


def _on_a_terminal() -> bool:
    """Whether a person looks at standard error, and nothing else is written where it is."""
    return (
        sys.stderr.isatty() and not sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    )


@contextmanager
def _log_above() -> Iterator[None]:
    """Have log lines come above what is drawn, which is where `sys.stderr` leads meanwhile."""
    loggers = [logging.root, *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    moved = [
        (handler, handler.setStream(sys.stderr))
        for logger in loggers
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stderr__
    ]
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)
