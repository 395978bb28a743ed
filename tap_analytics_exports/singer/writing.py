"""The rows of one window, from its files to the target.

Four things go on at once, each a frame ahead of the next: a thread parses, one types, one renders, and the
main thread, which alone writes messages, writes. So a reader that does not read stops them all.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from tap_analytics_exports.ahead import ahead
from tap_analytics_exports.columns.names import Bound
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.jobs.runner import Job, now
from tap_analytics_exports.parse import ROW_NUMBER, BadRow, TextFrame, frames
from tap_analytics_exports.settings import Column
from tap_analytics_exports.singer.streams import (
    COUNT,
    EXPORT_ID,
    TEXT,
    WINDOW_END,
    WINDOW_START,
    ExportStream,
)
from tap_analytics_exports.writers.records import Constants
from tap_analytics_exports.writers.sinks import Body, Outlet, outlet_of


@dataclass(frozen=True, slots=True)
class _Typed:
    """A frame of text that has been typed.

    Attributes:
        file: The name of its file.
        bound: All columns of the file.
        bad: Rows that don't fit, numbered within the window.
        rows: Those that do, by property name: the properties that are selected, but the constants.
        columns: The type of each of their columns.
        constants: The selected properties that are the same in all rows.
    """

    file: str
    bound: list[Bound]
    bad: list[BadRow]
    rows: pl.DataFrame
    columns: dict[str, Column]
    constants: Constants


class WindowWriter:
    """Writes the rows of one ended job, and keeps count.

    Args:
        stream: The stream that they are of.
        job: The job.
    """

    def __init__(self, stream: ExportStream, job: Job) -> None:
        self._stream = stream
        self._job = job
        self._settings = stream.settings
        self._columns = stream.columns
        window = job.window
        self._constants: Constants = {
            **stream.constants,
            EXPORT_ID: job.export_id,
            WINDOW_START: window.start if window else None,
            WINDOW_END: window.end if window else None,
        }
        self._bound: dict[tuple[str, ...], list[Bound]] = {}
        # Columns of the files so far and of the catalog, in the order of the target's; the target learns of
        # a new one later, when the main thread comes to the file.
        self._known = list(stream.effective_schema["properties"])
        self._rows = 0
        self._rejected = 0

    def write(self) -> None:
        """Write all rows of all files, in their order.

        Raises:
            ExportFailed: A file can't be read, or the settings don't allow what is in it.
            Interrupted: The run was asked to stop.
        """
        stream = self._stream
        empty = True
        with outlet_of(stream) as outlet, closing(ahead(self._rendered(outlet), "renders")) as rendered:
            for typed, body in rendered:
                stream.tap.jobs.hear()  # what was triggered meanwhile goes into the state
                if typed is not None:
                    stream.take_in(typed.bound, outlet.flush)
                    self._reject(typed.bad, typed.file)
                    self._rows += typed.rows.height
                    empty = empty and not (typed.rows.height or typed.bad)
                if body is not None:
                    outlet.write(body)
                del typed, body  # what is not needed any more is not to add to what is made next
        if empty:
            self._job.status = "empty"  # its files had headers at most

    def run_record(self) -> dict[str, Any]:
        """What `export_runs` says of the job."""
        job = self._job
        return {
            "export_id": job.export_id,
            "stream": job.stream,
            "provider": job.provider,
            "window_start": _iso(job.window.start if job.window else None),
            "window_end": _iso(job.window.end if job.window else None),
            "status": job.status,
            "resumed": job.resumed,
            "submitted_at": _iso(job.submitted_at),
            "ready_at": _iso(job.ready_at),
            "downloaded_at": _iso(job.downloaded_at),
            "finished_at": _iso(now()),
            "files": len(job.files),
            "bytes": sum(file.size for file in job.files),
            "rows": self._rows,
            "rejected_rows": self._rejected,
            "sha256": job.sha256,
            "error": job.error,
        }

    def _rendered(self, outlet: Outlet) -> Generator[tuple[_Typed | None, Body | None]]:
        """All frames of all files, and what is made of their rows; runs in a thread.

        A frame comes with the first piece of its rows, if it has any, and without it come the others.
        """
        with closing(ahead(self._typed(), "types")) as frames:
            for frame in frames:
                typed: _Typed | None = frame
                if not frame.rows.height:
                    yield typed, None
                    continue
                for body in outlet.render(frame.rows, frame.columns, frame.constants):
                    yield typed, body
                    typed = None
                    del body
                del frame

    def _typed(self) -> Generator[_Typed]:
        """All frames of all files; runs in a thread."""
        dialect = self._stream.provider.dialect(self._stream.export)
        before = 0
        for file in self._job.files:
            last = before
            with closing(ahead(frames(file.path, dialect), "parser")) as texts:
                for text in texts:
                    last += text.rows.height + len(text.bad)
                    typed = self._type(text, file.name, before)
                    del text
                    yield typed
                    del typed
            before = last

    def _type(self, text: TextFrame, file: str, before: int) -> _Typed:
        """Type a frame of a file that has so many rows before it."""
        bound = self._bind(text.header)
        known = set(self._known)
        wanted = [each for each in bound if each.name in known and self._stream.selects(each.name)]
        typed, bad = self._columns.cast(text, wanted)
        bad = [BadRow(row.row_number + before, row.raw, row.reason, row.column) for row in bad]
        typed = typed.with_columns(pl.col(ROW_NUMBER) + before)
        columns = {each.name: each.column for each in wanted} | {ROW_NUMBER: COUNT}
        selected = [name for name in self._known if self._stream.selects(name)]
        constants = {name: value for name, value in self._constants.items() if name in selected}
        names = [name for name in selected if name not in constants]
        # By typed[name], as pl.col takes a name that begins with ^ and ends with $ for a pattern.
        rows = pl.DataFrame(
            [
                typed[name] if name in columns else pl.Series(name, [None]).new_from_index(0, typed.height)
                for name in names
            ]
        )
        types = {name: columns.get(name, TEXT) for name in names}
        return _Typed(file, bound, bad, rows, types, constants)

    def _bind(self, header: tuple[str, ...]) -> list[Bound]:
        if header not in self._bound:
            bound = self._bound[header] = self._columns.bind(header)
            if self._settings.on_new_column == "add":
                self._known += [each.name for each in bound if each.name not in self._known]
        return self._bound[header]

    def _reject(self, bad: Sequence[BadRow], file: str) -> None:
        for row in bad:
            if self._settings.on_bad_row == "fail":
                where = f"row {row.row_number} of {file}" + (f", column {row.column}" if row.column else "")
                raise ExportFailed(f"{where}: {row.reason}; on_bad_row is fail")
            self._rejected += 1
            if self._rejected > self._settings.rejected_rows_limit:
                raise ExportFailed(
                    f"more than {self._settings.rejected_rows_limit} rows were rejected, the last, row "
                    f"{row.row_number} of {file}, because: {row.reason}; see the stream rejected_rows, check "
                    "the export's columns, or raise rejected_rows_limit"
                )
            self._stream.tap.rejected_rows.write(
                {
                    "export_id": self._job.export_id,
                    "row_number": row.row_number,
                    "stream": self._job.stream,
                    "file": file,
                    "reason": row.reason,
                    "column": row.column,
                    "raw": row.raw,
                    "rejected_at": _iso(now()),
                }
            )


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
