"""Run exports as a library: settings and a state in, rows and states out."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import msgspec

from tap_analytics_exports import redaction
from tap_analytics_exports.archive import Archive
from tap_analytics_exports.checking import Checked, check
from tap_analytics_exports.errors import (
    ExportFailed,
    Failure,
    Interrupted,
    SettingsError,
    TapError,
)
from tap_analytics_exports.events import (
    EXPORT_RUNS,
    REJECTED_ROWS,
    Checkpoint,
    Constants,
    Ended,
    Event,
    Rows,
    Stream,
)
from tap_analytics_exports.exports import EXPORT_ID, WINDOW_END, WINDOW_START, ExportStream, Span, Wanted
from tap_analytics_exports.jobs.folders import Folders
from tap_analytics_exports.jobs.job import Job, Outcome, PlannedWindow, now
from tap_analytics_exports.jobs.ledger import headers_in
from tap_analytics_exports.jobs.schedule import Jobs
from tap_analytics_exports.jobs.status import JobStatus, status_of
from tap_analytics_exports.parse import BadRow
from tap_analytics_exports.planning import PlannedJob, planned
from tap_analytics_exports.providers import broken, installed
from tap_analytics_exports.providers.base import Provider
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.replay import Replayed
from tap_analytics_exports.run_streams import as_json, failure_of, rejected_records, run_record
from tap_analytics_exports.sampling import Sample, sample
from tap_analytics_exports.settings import Column, Settings, decode, did_you_mean, secrets
from tap_analytics_exports.state import State
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.windows import Window

CLOSE_SECONDS = 5
LOG_OUT_SECONDS = 10

REJECTED_AT_ONCE = 10_000
"""Bad rows of a window that are held back until its rows are out; of more, memory would have no bound."""

logger = clean_logger(__name__)


class Extraction:
    """One run over the exports of some settings.

    Iterating it exports what is to be exported: `Rows`, `Ended` and `Checkpoint`, in this order: the rows of
    a window, its `rejected_rows`, its `export_runs`, `Ended`, `Checkpoint`. A checkpoint also follows each
    trigger. Leaving the `with` block ends all threads, and cancels no job. It can be iterated once.

    Args:
        settings: As JSON values, nested.
        state: The last checkpoint that was saved; None: there is none.
        streams: The names of the exports to run; None: all.
        span: Start and end (exclusive), without an offset in each export's time zone: the windows that
            touch it are exported again, whatever the state's bookmarks say, which stay as they are; None:
            what the bookmarks have not reached.
        replay: Take the span's files from the archive that `archive_url` names, and ask no vendor.

    Raises:
        SettingsError: The settings, or the state, can't be used.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | Settings,
        state: Mapping[str, Any] | None = None,
        streams: Iterable[str] | None = None,
        *,
        span: Span | None = None,
        replay: bool = False,
    ) -> None:
        if not isinstance(settings, Settings):
            settings = decode(settings, settings_types(), broken=broken())
        redaction.hide(*secrets(settings))
        self.settings = settings
        self._state = State(state)
        self._span = span
        if span is not None:
            Window.between(*span)  # or it is a mistake
        stop = threading.Event()
        network = Network(settings.ca_bundle, stop)
        self._archive = Archive(settings.archive_url, network) if settings.archive_url else None
        self.providers: dict[str, Provider[Any, Any]] = {}
        for name, block in settings.providers.items():
            kind = installed()[name]
            self.providers[name] = Replayed(kind, block, self._archive) if replay else kind(block, network)
        if replay:
            if span is None:
                raise SettingsError(["span: is required for a replay"])
            settings = msgspec.structs.replace(settings, ledger="")  # of jobs, and there are none
        self._wanted = {name: Wanted() for name in self._chosen(streams)}
        self._jobs = Jobs(self.providers, settings, stop, None if replay else self._archive)
        self._folders = Folders(settings)
        self._events = self._run()
        self._failed: list[Job] = []
        self._refused: set[tuple[str, str]] = set()  # what was said, by stream
        self._known: dict[str, set[str]] = {}  # the columns of which each stream's consumer knows
        self._read: set[str] = set()  # the streams of which there was a file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log_out(CLOSE_SECONDS / 2)
        self.close(CLOSE_SECONDS / 2)

    def __iter__(self) -> Generator[Event]:
        self._events = self._run()
        return self._events

    @cached_property
    def streams(self) -> dict[str, Stream]:
        """Each export's stream, and the two that describe the run, by name."""
        return self._streams({export.name: export.known_columns for export in self._exports})

    def discover(self) -> dict[str, Stream]:
        """Tell `streams` with the columns, too, that only files had so far, as the ledger remembers them."""
        folders = {export.name: self._folders.folder(export.key) for export in self._exports}
        return self._streams(
            {export.name: export.columns_with(headers_in(folders[export.name])) for export in self._exports}
        )

    def _streams(self, columns: Mapping[str, Mapping[str, Column]]) -> dict[str, Stream]:
        streams = {
            export.name: Stream(
                export.name,
                export.primary_key,
                WINDOW_START if export.export.incremental else None,
                columns[export.name],
                None if export.export.incremental else export.version,
                frozenset(export.own_columns),
            )
            for export in self._exports
        }
        streams["export_runs"] = Stream("export_runs", ("export_id",), None, EXPORT_RUNS)
        streams["rejected_rows"] = Stream("rejected_rows", ("export_id", "row_number"), None, REJECTED_ROWS)
        return streams

    def stop(self) -> None:
        """Have the iteration end with `Interrupted`, soon; may be called from any thread."""
        self._jobs.stop()

    def choose(self, wanted: Mapping[str, Wanted]) -> None:
        """Run only the exports that are named, and take in what a consumer knows of each."""
        self._wanted = dict(wanted)
        for name in ("_exports", "streams"):
            self.__dict__.pop(name, None)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """End all threads, waiting so long for them, and let other runs have the exports."""
        self._jobs.close(seconds)
        with suppress(ValueError):  # it is being iterated, by another thread, and ends by itself
            self._events.close()
        self._folders.close()

    def log_out(self, seconds: float = LOG_OUT_SECONDS) -> None:
        """End the sessions with the vendors, a matter of courtesy that nobody waits long for."""

        def close() -> None:
            for provider in self.providers.values():
                try:
                    provider.close()
                except (TapError, Interrupted) as error:
                    why = error if isinstance(error, TapError) else "the run was asked to stop"
                    logger.info("%s: the session was not ended: %s", provider.name, why)

        thread = threading.Thread(target=close, daemon=True)
        thread.start()
        thread.join(seconds)

    @property
    def jobs(self) -> list[JobStatus]:
        """Each job of this run as it is now, in the order of their rows; may be asked from any thread."""
        return [status_of(job) for job in self._jobs.all()]

    @property
    def bookmarks(self) -> dict[str, datetime | None]:
        """The end of each incremental export's unbroken row of windows, in UTC; None: there is none yet."""
        return {each.name: each.state.bookmark for each in self._exports if each.export.incremental}

    def check(self) -> Iterator[Checked]:
        """Try the credentials of each provider, and look for what its exports name; triggers nothing."""
        return check(list(self.providers.values()), self._wanted)

    def plan(self) -> list[PlannedJob]:
        """Say which jobs iterating it would trigger, and which it would go on with; changes nothing.

        Nothing is asked of a vendor but what `streams` needs, and a run that goes on is not disturbed.
        """
        return planned(self._exports, self._folders, self._end())

    def sample(self) -> Iterator[Sample]:
        """Export the last whole window of each stream, or a snapshot, and say what its columns look like.

        Nothing is written and no bookmark moves; the next run goes on with these jobs, which the ledger has.
        """
        return sample(self._exports, self._jobs, self._folders, self._end())

    # The run

    def _run(self) -> Generator[Event]:
        for warning in self.settings.warnings:
            logger.warning("%s", warning)
        self._jobs.check_archive()
        windows, told = self._plan()
        self._jobs.start()
        if any(windows.values()):
            threading.Thread(target=self._import_what_rows_need, daemon=True).start()
        for export in self._exports:
            for job in told[export.name]:
                yield from self._tell(export, job)
                self._jobs.told(job)
            yield from self._windows(export, windows[export.name])
            yield self._checkpoint(export)  # also where there was nothing to do
        exports = {export.name: export for export in self._exports}
        for job in self._jobs.untold():
            yield from self._tell(exports[job.planned.stream], job)
            yield self._checkpoint(exports[job.planned.stream])
            self._jobs.told(job)
        for export in self._exports:
            unmatched = export.columns.unmatched() if export.name in self._read else []
            if unmatched:
                logger.warning(
                    "%s: no file had the columns %s, which `columns`, `primary_keys` or `exclude_columns` "
                    "name; check how they are written", export, ", ".join(unmatched),
                )  # fmt: skip
        self._jobs.drop_written(forget=self._span is not None and not self._failed)
        used = {export.provider.name for export in self._exports}
        lacking = [Failure(export.name, why) for export in self._exports for why in export.lacking]
        if error := failure_of(used, self._failed, lacking):
            raise error

    def _plan(self) -> tuple[dict[str, list[PlannedWindow]], dict[str, list[Job]]]:
        """Lay out the windows of all exports, and the jobs of earlier runs that are over, by stream."""
        end = self._end()
        windows, told = {}, {}
        for export in self._exports:
            ledger = self._folders.ledger(export.key, str(export))
            windows[export.name], told[export.name] = export.plan(end, ledger, self._jobs.tell)
        for name, each in windows.items():
            self._jobs.plan(each, told[name])
        return windows, told

    def _end(self) -> datetime:
        """Tell the exclusive end of a run that begins now."""
        return min(now().replace(microsecond=0), self.settings.end_date or now())

    def _windows(self, export: ExportStream, windows: Sequence[PlannedWindow]) -> Generator[Event]:
        """Yield all of one export; windows behind one that failed would leave a gap, so none is written."""
        for i, window in enumerate(windows):
            told = 0
            while window.job.outcome is not Outcome.WRITTEN:
                if told == len(window.attempts):
                    if export.span is not None:  # whose windows don't rest on each other
                        break
                    for later in windows[i:]:
                        self._jobs.leave(later)
                    return
                job = window.attempts[told]
                while not job.ended:
                    if self._jobs.drain(wait=True):
                        yield self._checkpoint(export)
                yield from self._job(export, job)
                told += 1
            self._jobs.leave(window)

    def _job(self, export: ExportStream, job: Job) -> Generator[Event]:
        """Yield the rows of a job that has ended, and what is to be told of it."""
        if job.outcome is None:
            job.writing_at = now()
            try:
                yield from self._rows(export, job)
            except ExportFailed as error:
                job.fail(job.says(error))
            except OSError:  # nobody takes the rows, or the disk is full: no stream fares better
                raise
            except Exception as error:  # one stream's mishap is not to be the others'
                logger.exception("%s: unexpected", job)
                job.fail(f"{job}: {type(error).__name__}: {error}")
        yield from self._tell(export, job)
        if job.outcome is None:
            job.write()
            export.passed(job)
            job.planned.ledger.remember_headers(export.columns.headers)
        yield self._checkpoint(export)
        self._jobs.told(job)
        if job.outcome is Outcome.WRITTEN:
            self._done(export, job)

    def _tell(self, export: ExportStream, job: Job) -> Generator[Event]:
        """Tell `export_runs` of a job, and the log."""
        job.finished_at = now()
        record = run_record(job)
        if job.error is None:
            logger.info("%s: %s", job, status_of(job))
        elif job is job.planned.job and not job.planned.over:
            why = export.name, (job.error or "").removeprefix(f"{job}: ")
            if not job.refused or why not in self._refused:  # one line does for all windows of a stream
                logger.error("%s", job.error)
                self._failed.append(job)
            self._refused.add(why)
        else:
            logger.warning("%s; it is exported anew", job.error)
        if not job.refused and (job.submitted_at or job.sent or job.error is None):
            yield self._records("export_runs", EXPORT_RUNS, [record])
            yield Ended(export.name, as_json(record), None if export.export.incremental else export.version)

    def _rows(self, export: ExportStream, job: Job) -> Generator[Event]:
        """Yield the rows of all files of a job, in their order, and then its bad ones."""
        from tap_analytics_exports.reading import WindowReader

        window, count = job.window, job.count
        constants: Constants = {
            **export.constants,
            EXPORT_ID: job.export_id,
            WINDOW_START: window.start if window else None,
            WINDOW_END: window.end if window else None,
        }
        constants = {name: value for name, value in constants.items() if export.selects(name)}
        types = {name: column for name, column in export.own_columns.items() if name in constants}
        known = self._known.setdefault(export.name, set(export.known_columns))
        held: list[tuple[str, BadRow]] = []
        with closing(WindowReader(export, job.files, self.settings.on_new_column).frames()) as frames:
            for frame in frames:
                self._read.add(export.name)
                if self._jobs.drain():
                    yield self._checkpoint(export)
                try:
                    for row in frame.bad:
                        count.reject(frame.file, row, self.settings)
                        held.append((frame.file, row))
                except ExportFailed:
                    if held:
                        yield self._rejected(job, held)
                    raise
                if len(held) > REJECTED_AT_ONCE:
                    yield self._rejected(job, held)
                    held = []
                new = not known.issuperset(frame.columns)
                known.update(frame.columns)
                if frame.rows.height or new:  # for a consumer has to know of columns without rows, too
                    count.rows += frame.rows.height
                    yield Rows(export.name, frame.rows, frame.columns | types, constants)
                del frame  # while the next one is made, it would be one more in memory
        if held:
            yield self._rejected(job, held)
        count.check()

    def _rejected(self, job: Job, bad: Sequence[tuple[str, BadRow]]) -> Rows:
        return self._records("rejected_rows", REJECTED_ROWS, rejected_records(job, bad))

    def _records(self, stream: str, columns: Mapping[str, Column], records: list[dict[str, Any]]) -> Rows:
        """Make Rows of records of a stream that describes the run."""
        from tap_analytics_exports.columns.arrow import frame_of

        return Rows(stream, frame_of(records, columns), columns, {})

    def _checkpoint(self, export: ExportStream) -> Checkpoint:
        """Make a state that is true of all rows so far, and of all jobs of all exports."""
        self._jobs.drain()
        for each in self._exports:
            each.set_jobs(self._jobs.open_jobs(each.name))
        return Checkpoint(self._state.dump())

    def _done(self, export: ExportStream, job: Job) -> None:
        for part in job.parts:
            if part.handle is None:
                continue
            try:
                export.provider.done(part.request, part.handle)
            except TapError as error:
                logger.warning("%s: its export was not deleted at the vendor: %s", job, error)

    # What it is made of

    def _chosen(self, streams: Iterable[str] | None) -> set[str]:
        """Find the names of the exports to run.

        Raises:
            SettingsError: There is no such export.
        """
        known = [export.name for each in self.providers.values() for export in each.settings.all_exports]
        chosen = set(known if streams is None else streams) - {"export_runs", "rejected_rows"}
        if unknown := chosen - set(known):
            raise SettingsError(
                [
                    f"streams: {name!r} is none of the exports {', '.join(known)}{did_you_mean(name, known)}"
                    for name in sorted(unknown)
                ]
            )
        return chosen

    @cached_property
    def _exports(self) -> list[ExportStream]:
        """Those that are chosen, by name: so their rows come."""
        chosen = [
            ExportStream(
                export,
                provider,
                self.settings,
                self._state.stream(export.name),
                self._wanted[export.name],
                span=self._span,
            )
            for provider in self.providers.values()
            for export in provider.settings.all_exports
            if export.name in self._wanted
        ]
        return sorted(chosen, key=lambda export: export.name)

    def _import_what_rows_need(self) -> None:
        """Import while the vendors are busy what takes its time."""
        formats = {export.provider.dialect(export.export).format for export in self._exports}
        for name in ("reading", "columns.casting", *(f"parse.{each}" for each in sorted(formats))):
            importlib.import_module(f"tap_analytics_exports.{name}")
        importlib.import_module("pyarrow.compute")  # polars does so with the first data from pyarrow


def settings_types() -> dict[str, type[Any]]:
    """List the type of each installed provider's block, by its name."""
    return {name: provider.settings_type for name, provider in installed().items()}
