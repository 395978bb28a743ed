"""The exports as a source of dlt: `pipeline.run(analytics_exports(settings))`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import dlt
import pyarrow as pa
from dlt.extract import DltResource

from tap_analytics_exports.errors import CredentialsRefused, ExportsFailed
from tap_analytics_exports.events import Checkpoint, Ended, Rows, Stream
from tap_analytics_exports.exports import WINDOW_START
from tap_analytics_exports.extraction import Extraction
from tap_analytics_exports.parse import ROW_NUMBER
from tap_analytics_exports.redaction import clean_logger

DELETED = "_sdc_deleted"
"""The column that is true in the one row that an emptied window sends, which deletes and is not inserted."""

DESCRIBING = ("export_runs", "rejected_rows")

REPLACE = {"disposition": "replace"}
"""As a plain text it would have dlt forget a resource's state at the start of each run."""

IN_MEMORY = 16 << 20
"""Bytes of a window's rows that need no file."""

logger = clean_logger(__name__)


@dlt.source(name="analytics_exports")
def analytics_exports(
    settings: Mapping[str, Any], on_failure: Literal["warn", "raise"] = "warn"
) -> list[DltResource]:
    """Make a source with a resource an export, and the two that describe the run.

    A run of a pipeline is one `Extraction` over the resources that are selected.

    Args:
        settings: As JSON values, nested.
        on_failure: Whether exports that failed are a warning, and the others are loaded, or the run fails.

    Raises:
        SettingsError: The settings can't be used.
        ValueError: `on_failure` is neither.
    """
    if on_failure not in ("warn", "raise"):
        raise ValueError(f"on_failure is {on_failure!r}; it may be 'warn' or 'raise'")
    with Extraction(settings) as extraction:
        streams = extraction.streams
    # No export can have this name; dlt runs the resource once for all that take their rows from it.
    run = dlt.resource(_run, name="_extraction")(settings, list(streams), on_failure)
    return [
        dlt.transformer(_rows_of(name), data_from=run, name=name, **_hints(stream))
        for name, stream in streams.items()
    ]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows on their way to the resource that loads them."""

    stream: str
    rows: pa.RecordBatch | pa.Table


def _rows_of(name: str) -> Callable[[_Piece], pa.RecordBatch | pa.Table | None]:
    return lambda piece: piece.rows if piece.stream == name else None


def _hints(stream: Stream) -> dict[str, Any]:
    """Say how dlt writes a stream's rows."""
    if stream.name in DESCRIBING:
        return {"write_disposition": "append"}
    if stream.window_key is None:
        return {"write_disposition": REPLACE}
    keys = [key for key in stream.primary_key if key not in (WINDOW_START, ROW_NUMBER)]
    return {
        "write_disposition": {"disposition": "merge", "strategy": "delete-insert"},
        "merge_key": WINDOW_START,
        "primary_key": keys or None,
        "columns": {
            # Nullable, for the row of an emptied window has no key, and so deletes by none.
            **{key: {"nullable": True} for key in keys},
            # Of the rows of a key, that of the latest window stays.
            WINDOW_START: {"nullable": True, **({"dedup_sort": "desc"} if keys else {})},
            DELETED: {"data_type": "bool", "hard_delete": True},
        },
    }


def _run(settings: Mapping[str, Any], names: Collection[str], on_failure: str) -> Iterator[_Piece]:
    """Run the exports that are selected, from the state that dlt has of them, and leave theirs with it."""
    resources = dlt.current.source().resources.selected
    states = {
        name: dlt.current.resource_state(name)
        for name in names
        if name in resources and name not in DESCRIBING
    }
    with Extraction(settings, {"bookmarks": states}, states) as extraction:
        snapshots = [name for name in states if extraction.streams[name].window_key is None]
        for name in snapshots:  # until they end: to replace and yield nothing is to empty the table
            resources[name].apply_hints(write_disposition="append")
        try:
            for event in _held(extraction):
                match event:
                    case _Piece():
                        yield event
                    case Ended(stream, _) if stream in snapshots:
                        resources[stream].apply_hints(write_disposition=REPLACE)
                    case Checkpoint(state):
                        # dlt keeps none of this unless all of the run is extracted, and then with the rows.
                        for name, bookmark in state["bookmarks"].items():
                            states[name].clear()
                            states[name].update(bookmark)
        except ExportsFailed as error:
            if on_failure == "raise" or isinstance(error, CredentialsRefused):
                raise
            logger.warning("%d exports failed, the others are loaded: %s", len(error.reasons), error)


def _held(extraction: Extraction) -> Iterator[_Piece | Ended | Checkpoint]:
    """Hold the rows of each window until its end says that they may replace those of before, and yield both.

    dlt deletes by what it is given, so rows of a window that fails in its middle must not reach it. They are
    held in memory, and on disk where they are many.
    """
    parent = extraction.settings.spool_dir
    with tempfile.SpooledTemporaryFile(IN_MEMORY, dir=parent and str(Path(parent).expanduser())) as file:
        for event in extraction:
            match event:
                case Rows(stream, batch) if stream in DESCRIBING:
                    yield _Piece(stream, batch)
                case Rows(_, batch) if batch.num_rows:  # not each destination takes files without rows
                    with pa.ipc.new_stream(file, batch.schema) as writer:
                        writer.write_batch(batch)
                case Ended(stream, job):
                    if job["status"] != "failed":
                        yield event
                        yield from (_Piece(stream, batch) for batch in _batches(file))
                    if job["status"] == "empty" and job["window_start"]:
                        yield _Piece(stream, _deletion(extraction.streams[stream], job["window_start"]))
                    file.seek(0)
                    file.truncate()
                case Checkpoint():
                    yield event


def _batches(file: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """Read what is held, a stream of Arrow's a batch, for a later one may have more columns."""
    end = file.tell()
    file.seek(0)
    while file.tell() < end:
        yield from pa.ipc.open_stream(file)


def _deletion(stream: Stream, window_start: str) -> pa.Table:
    """Make the row that takes away the former rows of a window that is empty now."""
    start = pa.array([datetime.fromisoformat(window_start)], stream.schema.field(WINDOW_START).type)
    row = pa.table({WINDOW_START: start, DELETED: [True]})
    # With all columns that are known, also if no window of the table has had rows before.
    return pa.concat_tables([stream.schema.empty_table(), row], promote_options="default")
