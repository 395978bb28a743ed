"""Planning, in the driver's own Python: windows are laid out, triggered and awaited, and nothing is fetched.

Whoever asks gets jobs that their vendors have the files of, as a state names them; executors find them again
by their handles. At each vendor's account one plan has its turn after the other, each with as many jobs at
once as the provider's cap allows; so the caps hold whatever the number of queries and executors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any

import msgspec

from tap_analytics_exports.errors import ExportFailed, Interrupted, TapError
from tap_analytics_exports.jobs.folders import Folders
from tap_analytics_exports.jobs.job import Job, PlannedWindow, now
from tap_analytics_exports.jobs.ledger import Ledger
from tap_analytics_exports.jobs.schedule import Jobs
from tap_analytics_exports.providers.base import Request
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.settings import DAY
from tap_analytics_exports.settings import Export as ExportSettings
from tap_analytics_exports.spark.chosen import Chosen, forget
from tap_analytics_exports.windows import Grid

CLOSE_SECONDS = 5

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Given = dict[str, Any]
"""A job as a state names it: its id, its window, its handle."""

logger = clean_logger(__name__)


class Asker:
    """Who waits for an answer, and may hang up before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone = False
        self._jobs: Jobs | None = None

    @contextmanager
    def waits_for(self, jobs: Jobs) -> Iterator[None]:
        """Stop the jobs when the asker hangs up, or has done so."""
        with self._lock:
            self._jobs = jobs
            if self._gone:
                jobs.stop()
        try:
            yield
        finally:
            with self._lock:
                self._jobs = None

    def hang_up(self) -> None:
        """Take note that nobody waits any more; may be called from any thread."""
        with self._lock:
            self._gone = True
            if self._jobs is not None:
                self._jobs.stop()


def batch(asker: Asker, chosen: Chosen) -> list[Given]:
    """Have all windows of a DataFrame ready, from `start_date` until now, or a snapshot.

    Its jobs count as written once they are handed over, for what becomes of a DataFrame nobody hears: so one
    that is made anew within the hour uses them again, as a run without a state does.

    Raises:
        ExportFailed: A job failed; those that are ready are gone on with by the next DataFrame.
    """
    end = min(now().replace(microsecond=0), chosen.settings.end_date or now())
    with ready(asker, chosen, None, end) as (windows, ledger):
        for window in windows:
            if window.job.error is not None:
                raise ExportFailed(window.job.error)
        for window in windows:
            ledger.save(msgspec.structs.replace(window.job.entry(), written_at=now()))
        return _given(windows)


def micro_batch(
    asker: Asker, chosen: Chosen, since: str, until: str | None, most: int | None
) -> tuple[str, list[Given]] | None:
    """Have the next windows of a query ready.

    Args:
        asker: Who waits.
        chosen: The export.
        since: Where those end that the query has, ISO 8601.
        until: Where the last of them may end, ISO 8601; None: now.
        most: How many at most; None: all.

    Returns:
        Where they end, and their jobs; None where no whole window has passed since.

    Raises:
        ExportFailed: The first of them failed. Where a later one fails, those before it are returned.
    """
    last = min(datetime.fromisoformat(until) if until else now(), chosen.settings.end_date or now())
    start = datetime.fromisoformat(since)
    ends = list(islice(whole_windows(chosen.export, start, last), most))
    if not ends:
        return None
    begun = chosen.export.start_date is not None and start > chosen.export.start_date
    with ready(asker, chosen, start if begun else None, ends[-1]) as (windows, _):
        good = list(takewhile(lambda window: window.job.error is None, windows))
        if not good:
            raise ExportFailed(windows[0].job.error or "")
        return ends[len(good) - 1].isoformat(), _given(good)


def committed(_asker: Asker, chosen: Chosen, jobs: Sequence[Given]) -> None:
    """Take note that a query's sink has the rows of some jobs."""
    provider = chosen.vendor().provider
    folders = Folders(chosen.settings)
    try:
        export = chosen.stream(provider)
        ledger = folders.ledger(export.key, str(export))
        ids = {job["export_id"] for job in jobs}
        for entry in ledger.entries():
            if entry.export_id not in ids or entry.written_at is not None:
                continue
            ledger.save(msgspec.structs.replace(entry, written_at=now()))
            for part in entry.parts:
                if part.handle is not None:
                    request = Request(chosen.export, None, None, entry.request, entry.export_id)
                    provider.done(request, part.handle)
    except (TapError, Interrupted) as error:  # it is a courtesy, and no reason to end the query
        logger.warning("%s, stream %s: %s", chosen.name, chosen.export.name, error)
    finally:
        folders.close()


def whole_windows(export: ExportSettings, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield where the windows end that a stream may take, in UTC.

    Of a snapshot there is one for each window of the grid, as soon as that has begun: so a query that runs
    on, or is started often, does not take one after the other.

    Args:
        export: The export's settings.
        since: Where those end that were taken.
        until: Behind which none may end.
    """
    assert export.window is not None  # filled in when decoded
    grid = Grid(export.window, export.zone, export.start_date or EPOCH)
    if not export.incremental:
        begun = next(Grid(export.window, export.zone, EPOCH).windows(until, until + DAY)).start
        yield from [begun] if since < begun else []
        return
    # One window more, for the last is cut.
    for window in grid.windows(max(since, grid.origin), until + grid.length + 2 * DAY):
        if window.end > until:
            return
        yield window.end


@contextmanager
def ready(
    asker: Asker, chosen: Chosen, since: datetime | None, end: datetime
) -> Iterator[tuple[list[PlannedWindow], Ledger]]:
    """Have windows triggered and awaited, up to the first that fails; the ledger is theirs meanwhile."""
    vendor = chosen.vendor()
    with vendor.turn:
        folders = Folders(chosen.settings)
        jobs = Jobs({chosen.name: vendor.provider}, chosen.settings, vendor.stop)
        try:
            with asker.waits_for(jobs):
                export = chosen.stream(vendor.provider, since)
                ledger = folders.ledger(export.key, str(export))
                windows, over = export.plan(end, ledger, jobs.tell)
                for job in over:
                    _warn(job)
                    jobs.told(job)
                jobs.plan(windows)
                jobs.start(downloads=False)
                for window in windows:
                    while not window.job.ended:
                        jobs.drain(wait=True)
                    for job in window.attempts[:-1]:
                        _warn(job)
                    if window.job.error is not None:
                        break
            yield windows, ledger
        finally:
            if jobs.close(CLOSE_SECONDS):
                vendor.stop.clear()
            else:
                forget(vendor)
            folders.close()


def _warn(job: Job) -> None:
    logger.warning("%s; it is exported anew", job.error)


def _given(windows: Sequence[PlannedWindow]) -> list[Given]:
    """Name the jobs of windows as a state does; those without rows are left out."""
    given = []
    for window in windows:
        entry = window.job.entry()
        parts = [part for part in entry.parts if part.files != []]
        if parts:
            given.append(msgspec.structs.replace(entry, parts=parts).to_state())
    return given
