"""The Singer streams: one an export, and two that describe the run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from singer_sdk import Stream
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import RemoveRecordTransform, SameRecordTransform
from singer_sdk.singerlib import Catalog

from tap_analytics_exports.columns.names import Bound, Columns
from tap_analytics_exports.columns.schema import property_schema
from tap_analytics_exports.errors import ExportFailed, TapError
from tap_analytics_exports.jobs.ledger import Entry, Ledger, is_lost
from tap_analytics_exports.jobs.runner import LOST, Job, fingerprint, new_export_id, now
from tap_analytics_exports.parse import ROW_NUMBER
from tap_analytics_exports.providers.base import Provider, Request
from tap_analytics_exports.settings import Column, Export, Settings
from tap_analytics_exports.windows import Grid, Window, to_do

if TYPE_CHECKING:
    from tap_analytics_exports.singer.tap import TapAnalyticsExports
    from tap_analytics_exports.singer.writing import WindowWriter

EXPORT_ID, WINDOW_START, WINDOW_END = "_sdc_export_id", "_sdc_window_start", "_sdc_window_end"

TABLE_VERSION = "_sdc_table_version"
"""Where SDK targets keep the version of a record; in a batch, the record itself has to bring it along."""

_JOB_KEYS = {"export_id", "window", "submitted_at", "request", "handle"}

REUSE = timedelta(hours=1)
"""How long rows that were all written may be written once more from the same job, where no state has them."""

_TOGETHER = 100
"""Mapped records that are written at once: to write each by itself takes longer than to make it."""

TEXT, COUNT, MOMENT = Column("string"), Column("integer"), Column("timestamp")


class _TapStream(Stream):
    """What all streams of this tap have in common: their state is the tap's own business, not the SDK's."""

    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE  # it would make "false" true

    @property
    def tap(self) -> TapAnalyticsExports:
        """The tap that the stream belongs to."""
        return self._tap  # type: ignore[return-value]

    @property
    def emit_activate_version_messages(self) -> bool:
        """Never by the SDK, which sends it before the first row."""
        return False

    def get_batch_config(self, config: Mapping[str, Any]) -> None:
        """None, as the SDK's own way to batches takes records one by one, the deselected columns too."""
        return

    def get_replication_key_signpost(self, context: Mapping[str, Any] | None = None) -> None:
        """None, as no bookmark moves past a window's end."""
        return

    def finalize_state_progress_markers(self, state: dict[str, Any] | None = None) -> None:
        """Nothing to do: the state is whole after every window."""

    def get_records(self, context: Mapping[str, Any] | None) -> Iterable[dict[str, Any]]:
        """No record is made one by one."""
        return ()


class RunStream(_TapStream):
    """A stream that describes the run; its records are written as things happen."""

    def __init__(
        self,
        tap: TapAnalyticsExports,
        name: str,
        columns: Mapping[str, Column],
        keys: Sequence[str],
        moment: str,
    ) -> None:
        properties = {name: property_schema(column) for name, column in columns.items()}
        super().__init__(tap, {"type": "object", "properties": properties}, name)
        self.primary_keys = keys
        self.replication_key = moment
        self._announced = False

    def write(self, record: dict[str, Any]) -> None:
        """Write a record, unless the stream is deselected."""
        if self.selected:
            self._write_schema_message()
            self._write_record_message(record)

    def _write_schema_message(self) -> None:
        if not self._announced:
            self._announced = True
            super()._write_schema_message()

    def _sync_records(
        self,
        context: Mapping[str, Any] | None = None,
        *,
        write_messages: bool = True,
    ) -> Generator[dict[str, Any]]:
        yield from ()


def export_runs(tap: TapAnalyticsExports) -> RunStream:
    """The stream with one record per job that ended."""
    columns = {
        "export_id": TEXT,
        "stream": TEXT,
        "provider": TEXT,
        "window_start": MOMENT,
        "window_end": MOMENT,
        "status": TEXT,
        "resumed": Column("boolean"),
        "submitted_at": MOMENT,
        "ready_at": MOMENT,
        "downloaded_at": MOMENT,
        "finished_at": MOMENT,
        "files": COUNT,
        "bytes": COUNT,
        "rows": COUNT,
        "rejected_rows": COUNT,
        "sha256": TEXT,
        "error": TEXT,
    }
    return RunStream(tap, "export_runs", columns, ["export_id"], "finished_at")


def rejected_rows(tap: TapAnalyticsExports) -> RunStream:
    """The stream with one record per diverted row."""
    columns = {
        "export_id": TEXT,
        "row_number": COUNT,
        "stream": TEXT,
        "file": TEXT,
        "reason": TEXT,
        "column": TEXT,
        "raw": TEXT,
        "rejected_at": MOMENT,
    }
    return RunStream(tap, "rejected_rows", columns, ["export_id", "row_number"], "rejected_at")


class ExportStream(_TapStream):
    """The rows of one export.

    Args:
        tap: The tap.
        export: The export's settings.
        provider: The vendor that makes it.
        settings: The top level's settings.
    """

    def __init__(
        self, tap: TapAnalyticsExports, export: Export, provider: Provider[Any, Any], settings: Settings
    ) -> None:
        self.export = export
        self.provider = provider
        self.settings = settings
        self._headers = self._known_headers(tap)
        self.columns = Columns(
            export,
            style=settings.column_names,
            dictionary=provider.dictionary(export),
            headers=self._headers,
        )
        properties = {name: property_schema(column) for name, column in self.columns.known.items()}
        self.constants = provider.constants(export)
        properties |= {
            name: {"type": "integer" if isinstance(value, int) else "string"}
            for name, value in self.constants.items()
        }
        moment = property_schema(MOMENT)
        if export.incremental:
            moment = {**moment, "type": "string"}
        properties |= {
            EXPORT_ID: {"type": "string"},
            WINDOW_START: moment,
            WINDOW_END: moment,
            ROW_NUMBER: {"type": "integer"},
        }
        super().__init__(tap, {"type": "object", "properties": properties}, export.name)
        if export.primary_keys:
            self.primary_keys = self.columns.primary_keys
        else:
            self.primary_keys = [WINDOW_START, ROW_NUMBER] if export.incremental else [ROW_NUMBER]
        self.replication_key = WINDOW_END if export.incremental else None

    def apply_catalog(self, catalog: Catalog) -> None:
        """Take selection and keys from the catalog; the types of what the tap knows stay the tap's."""
        super().apply_catalog(catalog)
        if self._input_schema is not None:
            own = self.schema["properties"]
            given = self._input_schema.get("properties", {})
            self._input_schema["properties"] = {name: own.get(name, given[name]) for name in given}

    @property
    def key(self) -> str:
        """A name for what belongs to this export of this account."""
        return f"{self.name}-{fingerprint(self.provider.name, self._identity, None, None)[:12]}"

    @property
    def _identity(self) -> dict[str, Any]:
        """What makes a request this export's and no other's."""
        return {"base_url": self.provider.settings.base_url, **self.provider.identity(self.export)}

    def plan(self, end: datetime, ledger: Ledger) -> list[Job]:
        """The jobs of this run, in the order of their windows; those that are known already are adopted.

        Args:
            end: The exclusive end of the run, in UTC.
            ledger: What earlier runs have triggered.
        """
        state = self.stream_state
        # There from the first STATE on, because merged states can't lose a key.
        state["jobs"] = [job for job in state.get("jobs") or () if set(job) >= _JOB_KEYS]
        entries: dict[str, Entry] = {}
        for entry in ledger.entries():
            if self._is_over(entry, state):
                ledger.forget(entry["export_id"])
                continue
            if older := entries.get(entry["request"]):
                self._replaced(older, ledger)
            entries[entry["request"]] = entry
        known = {job["request"]: job for job in state["jobs"]} | entries
        columns = self._wanted_columns()
        identity = self._identity
        jobs = []
        for window in self._windows(state, end):
            print_ = fingerprint(self.provider.name, identity, columns, window)
            request = Request(self.export, window, columns, print_, new_export_id())
            job = Job(self.name, self.provider.name, request, state.get("last_export_id"))
            if print_ in known:
                job.adopt(known[print_], ledger.files(known[print_]["export_id"]))
            jobs.append(job)
        return jobs

    def _replaced(self, entry: Entry, ledger: Ledger) -> None:
        """Forget a job whose place another has taken, but not before its fate is told if nobody knows it."""
        if is_lost(entry):
            request = Request(self.export, None, None, entry["request"], entry["export_id"])
            job = Job(self.name, self.provider.name, request, status="failed", error=LOST)
            job.adopt(entry, ledger.files(entry["export_id"]))
            self.tap.export_runs.write(self.tap.window_writer(self, job).run_record())
        ledger.forget(entry["export_id"])

    def _is_over(self, entry: Entry, state: Mapping[str, Any]) -> bool:
        """Whether an entry has served: its rows are safe, or too old to be written again."""
        bookmark = self._bookmark(state)
        window = entry["window"]
        if window and bookmark and datetime.fromisoformat(window[1]) <= bookmark:
            return True
        if window is None and entry["export_id"] == state.get("last_export_id"):
            return True
        if entry["written_at"] is None or (window and bookmark):
            return False
        return now() - datetime.fromisoformat(entry["written_at"]) > REUSE

    def write_state(self) -> None:
        """Write a STATE message that is true of all lines before it."""
        self.stream_state["jobs"] = [job.to_state() for job in self.tap.jobs.open_jobs(self.name)]
        self.tap.state_writer.write_state(self.tap.state)

    def _known_headers(self, tap: TapAnalyticsExports) -> Sequence[str]:
        try:
            return self.provider.columns(self.export)
        except TapError as error:
            tap.logger.warning("%s: its columns are not known before it runs: %s", self.export.name, error)
            return ()

    def _wanted_columns(self) -> tuple[str, ...] | None:
        selected = [header for header, name in self.columns.listed.items() if self.selects(name)]
        return self.provider.wanted(self.export, selected if self._headers else None)

    def selects(self, name: str) -> bool:
        """Whether a property is selected, as keys always are."""
        return name in self.primary_keys or self.mask["properties", name]

    def _bookmark(self, state: Mapping[str, Any]) -> datetime | None:
        """The bookmark of a state, which is UTC where it does not say."""
        text = state.get("replication_key_value")
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except (ValueError, TypeError):
            raise TapError(
                f"{self.provider.name}, stream {self.name}: the state has a bookmark that is no date-time: "
                f"{text!r}; mend it, or do without"
            ) from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _windows(self, state: Mapping[str, Any], end: datetime) -> Iterable[Window | None]:
        export = self.export
        if not export.incremental:
            return [None]
        grid = Grid(export.window, export.zone, export.start_date)  # type: ignore[arg-type] # filled in when decoded
        return to_do(
            grid,
            bookmark=self._bookmark(state),
            lookback=export.lookback,  # type: ignore[arg-type]
            end=end,
        )

    # Writing

    def _sync_records(
        self,
        context: Mapping[str, Any] | None = None,
        *,
        write_messages: bool = True,
    ) -> Generator[dict[str, Any]]:
        """Write every window of this run, each with its state; the generator yields nothing."""
        for job in self.tap.jobs.ended(self.name):
            writer = self.tap.window_writer(self, job)
            if job.status != "failed":
                self._write(job, writer)
            if not job.refused:
                self.tap.export_runs.write(writer.run_record())
            if job.next is not None:
                self.logger.warning("%s; it is exported anew", job.error)
            elif job.status == "failed":
                self.tap.failed(job)
            self.write_state()
            if job.written:
                self._clean_up(job)
        self.write_state()  # also where there was nothing to do
        yield from ()

    def _write(self, job: Job, writer: WindowWriter) -> None:
        try:
            writer.write()
        except ExportFailed as error:
            job.status, job.error = "failed", f"{job}: {error}"
        except OSError:  # nobody reads, or the disk is full: no stream fares better
            raise
        except Exception as error:  # one stream's mishap is not to be the others'
            self.logger.exception("%s: unexpected", job)
            job.status, job.error = "failed", f"{job}: {type(error).__name__}: {error}"
        else:
            self._advance(job)

    def _advance(self, job: Job) -> None:
        job.written = True
        state = self.stream_state
        if job.window is None:
            if self.selected:
                self._write_activate_version_message(self.version)
            state["last_export_id"] = job.export_id
            return
        state["replication_key"] = WINDOW_END
        bookmark = self._bookmark(state)
        if bookmark is None or bookmark < job.window.end:
            state["replication_key_value"] = job.window.end.isoformat()

    def _clean_up(self, job: Job) -> None:
        for part in job.parts:
            if part.handle is None:
                continue
            try:
                self.provider.done(part.request, part.handle)
            except TapError as error:
                self.logger.warning("%s: its export was not deleted at the vendor: %s", job, error)

    @property
    def version(self) -> int:
        """The version of this run's snapshot, in seconds since 1970."""
        return self.tap.initialized_at // 1000

    @property
    def announced_schema(self) -> dict[str, Any]:
        """The schema of what is sent: the selected properties, as RECORD or BATCH have them."""
        schema = self.effective_schema
        properties = {name: kind for name, kind in schema["properties"].items() if self.selects(name)}
        batch = self.settings.batch_config
        if batch and batch.encoding.format == "parquet":  # no type of Parquet's comes back as any JSON value
            text = property_schema(TEXT)
            properties = {name: text if "object" in p["type"] else p for name, p in properties.items()}
        if batch and not self.export.incremental:
            properties[TABLE_VERSION] = property_schema(COUNT)
        return {**schema, "properties": properties}

    def _write_schema_message(self) -> None:
        self.tap.mapper.register_raw_stream_schema(self.name, self.announced_schema, self.primary_keys)
        self._stream_maps = None
        super()._write_schema_message()

    def take_in(self, bound: Sequence[Bound], before_schema: Callable[[], None]) -> None:
        """Make the columns of a file known to the target.

        Args:
            bound: All columns of the file.
            before_schema: Called before the target hears of new ones.

        Raises:
            ExportFailed: A column is new, or a declared key is missing, and the settings don't allow it.
        """
        properties = self.effective_schema["properties"]
        new = [each for each in bound if each.name not in properties]
        policy = self.settings.on_new_column
        if new and policy == "fail":
            unknown = ", ".join(each.name for each in new)
            raise ExportFailed(f"the catalog does not know the columns {unknown}, and on_new_column is fail")
        if new and policy == "add":
            before_schema()
            properties.update({each.name: property_schema(each.column) for each in new})
            self._write_schema_message()
        names = {each.name for each in bound}
        missing = [key for key in self.primary_keys if key not in names and not key.startswith("_sdc_")]
        if missing and bound:
            raise ExportFailed(
                f"the file has no column for the primary key {missing[0]}; it has {', '.join(names)}"
            )

    def write_mapped(self, records: Iterable[dict[str, Any]]) -> None:
        """Write records through stream maps and flattening."""
        from tap_analytics_exports.writers import records as messages  # noqa: PLC0415 - costs time to import

        maps, version, rest = self.stream_maps, self.snapshot_version, iter(records)
        while some := list(islice(rest, _TOGETHER)):
            self.tap.output.safe_point()  # a filter may leave no line to write
            lines = messages.mapped(some, maps, time_extracted=now(), version=version)
            self.tap.output.write_lines(b"".join(lines))

    @property
    def snapshot_version(self) -> int | None:
        """The version of the records, which only snapshots have."""
        return None if self.export.incremental else self.version

    @property
    def batchable(self) -> bool:
        """Whether batches can hold the records that the SDK would make, or there are none."""
        return self.passes_unchanged or all(
            isinstance(each, RemoveRecordTransform) for each in self.stream_maps
        )

    @property
    def passes_unchanged(self) -> bool:
        """Whether the records that the SDK would make of a frame are the frame's own.

        Flattening changes no record of a stream whose schema it does not change.
        """
        (first, *more) = self.stream_maps
        return (
            not more and type(first) is SameRecordTransform and first.transformed_schema == first.raw_schema
        )
