"""One export of a run: its columns, its windows, its part of the state and of the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from tap_analytics_exports.columns.names import Columns
from tap_analytics_exports.errors import SettingsError, TapError
from tap_analytics_exports.jobs.entries import Entry
from tap_analytics_exports.jobs.job import Job, PlannedWindow, new_export_id, now
from tap_analytics_exports.jobs.ledger import Ledger
from tap_analytics_exports.jobs.reconcile import Reconciled, reconcile
from tap_analytics_exports.parse import ROW_NUMBER
from tap_analytics_exports.providers.base import Provider, Request
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.replay import Replayed
from tap_analytics_exports.settings import Column, Export, Settings
from tap_analytics_exports.state import REPLICATION_KEY, StreamState
from tap_analytics_exports.windows import DAY, Grid, Window, to_do

EXPORT_ID, WINDOW_START, WINDOW_END = "_sdc_export_id", "_sdc_window_start", REPLICATION_KEY

TEXT, COUNT, TIMESTAMP = Column("string"), Column("integer"), Column("timestamp")

Span = tuple[datetime, datetime]

logger = clean_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a consumer knows of a stream, and does not want of it.

    Attributes:
        columns: Its properties, with their types, in order.
        deselected: Properties that are not to come.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    deselected: frozenset[str] = frozenset()


class ExportStream:
    """One export of a run.

    Args:
        export: The export's settings.
        provider: The vendor that makes it.
        settings: The top level's settings.
        state: What earlier runs have written of it.
        wanted: What the consumer knows of it.
        span: Start and end, without an offset in the export's zone, whose windows are exported again, in
            place of those that the bookmark has not reached.

    Attributes:
        columns: Knows its columns.
        has_catalog: Whether a consumer has said which columns it knows.
        constants: Columns of every record that the files lack.
        lacking: What the archive has not of what is to be replayed, in words.
        version: Table version of this run's snapshot; greater than that of the last.
    """

    def __init__(
        self,
        export: Export,
        provider: Provider[Any, Any],
        settings: Settings,
        state: StreamState,
        wanted: Wanted,
        *,
        span: Span | None = None,
    ) -> None:
        self.export = export
        self.provider = provider
        self.state = state
        self.span = span and Window.between(*span, export.zone)
        self._settings = settings
        self._deselected = wanted.deselected
        self.has_catalog = bool(wanted.columns)
        self._headers = self._known_headers()
        self.constants = provider.constants(export)
        self._catalog = {name: column for name, column in wanted.columns.items() if not self._own(name)}
        self.columns = self._columns(self._headers)
        self.lacking: list[str] = []
        self.version = max(int(now().timestamp()), state.version + 1)

    def __str__(self) -> str:
        """Where it is, for messages."""
        return f"{self.provider.name}, stream {self.name}"

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.export.name

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The properties that tell one record from all others."""
        if self.columns.primary_keys:
            return tuple(self.columns.primary_keys)
        return (WINDOW_START, ROW_NUMBER) if self.export.incremental else (ROW_NUMBER,)

    @property
    def own_columns(self) -> dict[str, Column]:
        """The columns that are not of the files."""
        constants = {
            name: COUNT if isinstance(value, int) else TEXT for name, value in self.constants.items()
        }
        own = {EXPORT_ID: TEXT, WINDOW_START: TIMESTAMP, WINDOW_END: TIMESTAMP, ROW_NUMBER: COUNT}
        return constants | own

    @property
    def known_columns(self) -> dict[str, Column]:
        """All columns that are known by now, by property, in order."""
        return self.columns.known | self.own_columns

    def columns_with(self, headers: Sequence[str]) -> dict[str, Column]:
        """List the known columns, by property, and those that a file with these headers would have."""
        headers = [*self._headers, *(each for each in headers if each not in self._headers)]
        return self._columns(headers).known | self.own_columns

    def selects(self, name: str) -> bool:
        """Tell whether a property is wanted, as keys always are."""
        return name not in self._deselected or name in self.primary_key

    @property
    def key(self) -> str:
        """A name for what belongs to this export of this account."""
        return f"{self.name}-{self._fingerprint(None, None)[:12]}"

    def lay_out(self, end: datetime, remembered: Iterable[Entry]) -> tuple[list[Request[Any]], Reconciled]:
        """Find what is to be exported, and what becomes of the jobs of earlier runs; changes nothing.

        Args:
            end: The exclusive end of the run, in UTC.
            remembered: The jobs that the ledger has.
        """
        columns = self._wanted_columns()
        kind = ["replay" if isinstance(self.provider, Replayed) else "backfill"] if self.span else []
        requests = []
        for window in self._windows(end):
            print_ = self._fingerprint(columns, window, *kind)
            requests.append(Request(self.export, window, columns, print_, new_export_id()))
        return requests, reconcile(
            state=self.state.jobs,
            ledger=remembered,
            bookmark=self.state.bookmark,
            last_export_id=self.state.last_export_id,
            wanted={request.fingerprint for request in requests},
            now=now(),
            again=self.span is not None,
        )

    def plan(
        self, end: datetime, ledger: Ledger, tell: Callable[[Job], None]
    ) -> tuple[list[PlannedWindow], list[Job]]:
        """Make the jobs of this run, and let go of those of earlier runs that have served.

        Args:
            end: The exclusive end of the run, in UTC.
            ledger: What earlier runs have triggered.
            tell: Called with a job after each of its transitions.

        Returns:
            The windows to export, in their order, those jobs adopted that are on their way already; and jobs
            of earlier runs that are over, of which nobody was told.
        """
        self._warn(end)
        requests, left = self.lay_out(end, ledger.entries())
        for export_id in left.forgotten:
            ledger.forget(export_id)
        self._tell_of(left.reused, ledger)
        failed = [self._failed(entry, why, ledger, tell) for entry, why in left.failed]
        windows = []
        for request in requests:
            planned = PlannedWindow(
                self.name, self.provider.name, request, ledger, tell, last=self.state.last_export_id
            )
            if entry_ := left.resumed.get(request.fingerprint):
                planned.adopt(entry_)
            windows.append(planned)
        self._waiting = [
            entry.to_state() for entry in left.waiting if entry.triggered and entry.written_at is None
        ]
        return windows, failed

    def passed(self, job: Job) -> None:
        """Say in the state that a job's rows are out; of a span's, its bookmark says nothing."""
        if self.span is None and job.window is not None:
            self.state.pass_window(job.window)
        elif self.span is None:
            self.state.pass_snapshot(job.export_id, self.version)
        elif job.window is None:
            self.state.pass_snapshot(self.state.last_export_id, self.version)
        self.state.remember_names(self.columns.names)

    def sample(self, end: datetime, ledger: Ledger, tell: Callable[[Job], None]) -> PlannedWindow:
        """Make the job of the last whole window, or go on with it where an earlier run has triggered it.

        It asks for what a run asks for, so the next run goes on with it, and finds its files here.

        Args:
            end: The exclusive end of a run, in UTC.
            ledger: What earlier runs have triggered.
            tell: Called with the job after each of its transitions.
        """
        columns, window = self._wanted_columns(), self._last_window(end)
        request = Request(self.export, window, columns, self._fingerprint(columns, window), new_export_id())
        planned = PlannedWindow(
            self.name, self.provider.name, request, ledger, tell, last=self.state.last_export_id
        )
        for entry in ledger.entries():
            if entry.request == request.fingerprint and entry.error is None and entry.written_at is None:
                planned.adopt(entry)
        return planned

    def set_jobs(self, jobs: Iterable[Mapping[str, Any]]) -> None:
        """Say in the state which jobs are triggered and not fully written."""
        replayed = isinstance(self.provider, Replayed)  # so nothing is triggered
        self.state.set_jobs([*self._waiting, *([] if replayed else jobs)])

    def _tell_of(self, reused: Sequence[Entry], ledger: Ledger) -> None:
        """Log which rows are written once more, why, and how to have new ones."""
        for entry in reused:
            what = Window(*entry.window) if entry.window else "snapshot"
            logger.warning(
                "%s, %s: the rows of job %s, triggered at %s, are written once more; no export is triggered",
                self, what, entry.export_id, entry.submitted_at,
            )  # fmt: skip
        if reused:
            logger.warning(
                "%s: an earlier run has written them, and this one was given %s. To have the vendor export "
                "them anew, remove the folder %s, or run once with `ledger` set to an empty text",
                self,
                "a state of before that" if self.state.bookmark or self.state.last_export_id
                else "no state, as with --full-refresh, within an hour of their trigger",
                ledger.folder,
            )  # fmt: skip

    def _failed(self, entry: Entry, why: str, ledger: Ledger, tell: Callable[[Job], None]) -> Job:
        """Make a job of an earlier run that is over."""
        request = Request(
            self.export, entry.window and Window(*entry.window), None, entry.request, entry.export_id
        )
        planned = PlannedWindow(self.name, self.provider.name, request, ledger, tell)
        planned.adopt(entry)
        planned.over = True
        planned.job.fail(why)
        return planned.job

    def _columns(self, headers: Sequence[str]) -> Columns:
        return Columns(
            self.export,
            style=self._settings.column_names,
            dictionary=self.provider.dictionary(self.export),
            catalog=self._catalog,
            headers=headers,
            names=self.state.names,
        )

    def _own(self, name: str) -> bool:
        return name in (*self.constants, EXPORT_ID, WINDOW_START, WINDOW_END, ROW_NUMBER)

    def _known_headers(self) -> Sequence[str]:
        try:
            return self.provider.columns(self.export)
        except TapError as error:
            logger.warning("%s: its columns are not known before it runs: %s", self, error)
            return ()

    def _wanted_columns(self) -> tuple[str, ...] | None:
        """List the columns to ask the vendor for; None: all."""
        if not self._headers:
            return self.provider.wanted(self.export, None)
        selected = [header for header, name in self.columns.listed.items() if self.selects(name)]
        return self.provider.wanted(self.export, selected)

    def _warn(self, end: datetime) -> None:
        """Say why there is nothing to export, where that may be a mistake."""
        start, bookmark = self.export.start_date, self.state.bookmark
        if not self.export.incremental or start is None or self.span is not None:
            return
        if bookmark is not None and bookmark > now():
            logger.warning(
                "%s: its bookmark, %s, is in the future; nothing before it is exported. If that is wrong, "
                "mend the state",
                self,
                bookmark.isoformat(),
            )
        elif bookmark is None and start >= end:
            logger.warning(
                "%s: its start_date, %s, is not before the end of the run, so there is nothing to export; "
                "see start_date and end_date",
                self,
                start.isoformat(),
            )

    def _windows(self, end: datetime) -> Iterable[Window | None]:
        export, bookmark = self.export, self.state.bookmark
        if self.span is not None:
            return self._windows_of(self.span, end)
        if not export.incremental:
            return [None]
        assert export.start_date is not None  # filled in when decoded, as is the window
        assert export.window is not None
        grid = Grid(export.window, export.zone, export.start_date)
        return to_do(grid, bookmark=bookmark, lookback=export.lookback or grid.length * 0, end=end)

    def _windows_of(self, span: Window, end: datetime) -> Sequence[Window | None]:
        """List the windows to export again."""
        export = self.export
        if not (export.incremental or isinstance(self.provider, Replayed)):
            logger.warning("%s: is a snapshot, of which no span is exported; it is left out", self)
            return []
        windows: list[Window] = []
        if export.incremental:
            assert export.start_date is not None  # filled in when decoded, as is the window
            assert export.window is not None
            windows = list(Grid(export.window, export.zone, export.start_date).touching(span, end))
            if not windows:
                logger.warning("%s: no window of %s is before the end of the run, %s", self, span, end)
        if not isinstance(self.provider, Replayed):
            return windows
        found, lacking = self.provider.available(export, windows, span)
        self.lacking = [f"{self}: the archive has {each}" for each in lacking]
        for each in self.lacking:
            logger.error("%s", each)
        return found

    def _last_window(self, end: datetime) -> Window | None:
        """Find the last window that is over; where there is none, the last one.

        Raises:
            SettingsError: There is none at all.
        """
        export = self.export
        if not export.incremental:
            return None
        assert export.start_date is not None  # filled in when decoded, as is the window
        assert export.window is not None
        grid = Grid(export.window, export.zone, export.start_date)
        recent = max(export.start_date, end - 2 * max(grid.length, DAY))
        last: Window | None = None
        for window in grid.windows(recent, end):
            if last is None or window.end < end or window.end - window.start >= last.end - last.start:
                last = window
        if last is None:
            raise SettingsError([f"{self}: start_date is not before the end of the run: nothing to sample"])
        return last

    def _fingerprint(self, columns: Sequence[str] | None, window: Window | None, *kind: str) -> str:
        """Tell requests from each other, as 32 hexadecimal digits that are the same for the same request.

        Those of a backfill and of a replay have a kind, so that no run takes for its own what another kind of
        run has left.
        """
        identity = {"base_url": self.provider.settings.base_url, **self.provider.identity(self.export)}
        span = window and [window.start.isoformat(), window.end.isoformat()]
        parts = [self.provider.name, identity, columns, span, *kind]
        return hashlib.blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=16).hexdigest()
