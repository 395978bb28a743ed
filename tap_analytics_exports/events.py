"""What comes out of an extraction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tap_analytics_exports.exports import COUNT, TEXT, TIMESTAMP
from tap_analytics_exports.settings import Column

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Constants = Mapping[str, str | int | datetime | None]

EXPORT_RUNS: Mapping[str, Column] = {
    "export_id": TEXT,
    "stream": TEXT,
    "provider": TEXT,
    "window_start": TIMESTAMP,
    "window_end": TIMESTAMP,
    "status": TEXT,
    "resumed": Column("boolean"),
    "submitted_at": TIMESTAMP,
    "ready_at": TIMESTAMP,
    "downloaded_at": TIMESTAMP,
    "finished_at": TIMESTAMP,
    "files": COUNT,
    "bytes": COUNT,
    "rows": COUNT,
    "rejected_rows": COUNT,
    "sha256": TEXT,
    "error": TEXT,
}

REJECTED_ROWS: Mapping[str, Column] = {
    "export_id": TEXT,
    "row_number": COUNT,
    "stream": TEXT,
    "file": TEXT,
    "reason": TEXT,
    "column": TEXT,
    "raw": TEXT,
    "rejected_at": TIMESTAMP,
}

GROWS_BY = {"export_runs": "finished_at", "rejected_rows": "rejected_at"}
"""The column by which each of the two only ever grows."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What comes out under one name.

    Attributes:
        name: The export's name, `export_runs` or `rejected_rows`.
        primary_key: The columns that tell one record from all others.
        window_key: The column by which all rows of a window are replaced; None: no windows.
        columns: Its columns by name, with their types, as far as they are known by now.
        version: Of a snapshot's table, greater than that of the last; None: no snapshot.
        own: Which of its columns are ours, and so never null but for a snapshot's window.
    """

    name: str
    primary_key: tuple[str, ...]
    window_key: str | None
    columns: Mapping[str, Column]
    version: int | None = None
    own: frozenset[str] = frozenset()

    @property
    def schema(self) -> pa.Schema:
        """The columns as Arrow has them; `decimal` and `json` are strings, with the metadata `kind`."""
        from tap_analytics_exports.columns.arrow import arrow_schema

        return arrow_schema(self.columns)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of one stream, and of one of its windows.

    Attributes:
        stream: The stream's name.
        frame: A column for each property, but those that are the same in all rows.
        columns: The type of each of its columns.
        constants: The others.
    """

    __match_args__ = ("stream", "batch")

    stream: str
    frame: pl.DataFrame
    columns: Mapping[str, Column]
    constants: Constants

    @property
    def batch(self) -> pa.RecordBatch:
        """All of them as Arrow; its schema is the stream's as it is from now on."""
        from tap_analytics_exports.columns.arrow import record_batch

        return record_batch(self.frame, self.columns, self.constants)


@dataclass(frozen=True, slots=True)
class Ended:
    """A job has ended, after the last of its Rows.

    Attributes:
        stream: The stream that it is of.
        job: The record that `export_runs` gets; timestamps as RFC 3339.
        version: Of the snapshot that its rows are; None: it has a window.
    """

    __match_args__ = ("stream", "job")

    stream: str
    job: dict[str, Any]
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state, which is true of all Rows before it, and holds nothing that JSON can't."""

    state: dict[str, Any]


Event = Rows | Ended | Checkpoint
