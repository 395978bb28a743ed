"""Typed frames become files, which a loader reads by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.base import without_huge_pages
from tap_analytics_exports.settings import Batch, Column, ColumnKind
from tap_analytics_exports.writers import records
from tap_analytics_exports.writers.records import Constants

_GZIP_LEVEL = 1  # the files are read once
_PARQUET_COMPRESSION = {None: "snappy", "none": "none", "gzip": "gzip"}

# Texts are views, as polars has them: in Parquet, they are strings like all others.
_ARROW_TYPES: dict[ColumnKind, pa.DataType] = {
    "string": pa.string_view(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.string_view(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "json": pa.string_view(),
}

without_huge_pages()


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one file.

    Attributes:
        first: Whether the file begins with them.
        data: Lines of JSON, or a table.
        constants: The columns that are the same in all rows.
    """

    first: bool
    data: Any
    constants: list[str]


class BatchFiles:
    """Writes files of so many rows.

    Args:
        settings: How the files are written.
        stem: What the address of each begins with.
        announce: Called with the address of each file that is finished, by who writes.
    """

    def __init__(self, settings: Batch, stem: str, announce: Callable[[str], None]) -> None:
        self._settings = settings
        self._stem = stem
        self._announce = announce
        # What the thread that renders knows of the last file.
        self._columns: list[str] = []
        self._room = 0
        # What the thread that writes knows of it.
        self._number = 0
        self._url = ""
        self._open = ExitStack()
        self._write: Callable[[Any], object] | None = None

    def abandon(self) -> None:
        """Take the unfinished file away."""
        error = ExportFailed("abandoned")
        with suppress(ExportFailed):
            self._open.__exit__(type(error), error, None)

    def render(
        self, frame: pl.DataFrame, columns: Mapping[str, Column], constants: Constants
    ) -> Iterator[_Part]:
        """Prepare rows, cut to fit into the files; by one thread, in their order.

        Args:
            frame: Typed rows, its columns by property name.
            columns: The type of each of its columns.
            constants: Further columns, which are the same in all rows.
        """
        if frame.columns != self._columns:
            self._columns, self._room = frame.columns, 0
        while frame.height:
            first = self._room == 0
            self._room = self._room or self._settings.batch_size
            some, frame = frame.head(self._room), frame.slice(self._room)
            self._room -= some.height
            if self._settings.encoding.format == "jsonl":
                yield _Part(first, records.lines(some, columns, constants), [])
            else:
                yield _Part(first, self._table(some, columns, constants), list(constants))

    def write(self, body: _Part) -> None:
        """Write what was rendered to its file."""
        if body.first or self._write is None:
            self.flush()
            with self._named():
                self._write = self._begin(body)
        with self._named():
            self._write(body.data)

    def flush(self) -> None:
        """Finish the file, if one is open."""
        if self._write is None:
            return
        self._write = None
        with self._named():
            self._open.close()
        self._announce(self._url)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Have errors say which file they are about."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or self._url
            raise

    def _begin(self, part: _Part) -> Callable[[Any], object]:
        """Open the next file; the answer writes to it."""
        encoding = self._settings.encoding
        self._number += 1
        zipped = encoding.format == "jsonl" and encoding.compression == "gzip"
        self._url = f"{self._stem}-{self._number}.{encoding.format}{'.gz' if zipped else ''}"
        file = self._open.enter_context(_created(self._url))
        if encoding.format == "parquet":
            compression = _PARQUET_COMPRESSION[encoding.compression]
            writer = pq.ParquetWriter(
                file,
                part.data.schema,
                compression=compression,
                compression_level=_GZIP_LEVEL if compression == "gzip" else None,
                # Of the others, to look for repetitions takes longer than all the rest.
                use_dictionary=part.constants,
                write_statistics=False,  # of use to who looks for some rows, and a loader reads all
                store_schema=False,  # or readers that are of Arrow, too, would find views
            )
            self._open.callback(writer.close)
            return writer.write_table  # type: ignore[no-any-return]
        if zipped:
            packed = igzip.IGzipFile(fileobj=file, mode="wb", compresslevel=_GZIP_LEVEL)
            self._open.callback(packed.close)
            return packed.write  # type: ignore[no-any-return]
        return file.write  # type: ignore[no-any-return]

    def _table(self, frame: pl.DataFrame, columns: Mapping[str, Column], constants: Constants) -> pa.Table:
        """Rows, each column of the type that it has, even if it holds nothing."""
        table = frame.to_arrow(compat_level=pl.CompatLevel.newest())
        arrays = {
            name: values.cast(_ARROW_TYPES[columns[name].type])
            for name, values in zip(frame.columns, table.columns, strict=True)
        }
        for name, value in constants.items():
            arrays[name] = pa.repeat(pa.scalar(value, _ARROW_TYPES[columns[name].type]), frame.height)
        return pa.table(list(arrays.values()), names=list(arrays))


@contextmanager
def _created(url: str) -> Iterator[pa.NativeFile]:
    """A new file, which is not left behind unless it becomes whole."""
    if not url.startswith("file://"):
        import smart_open

        with smart_open.open(url, "wb", compression="disable") as file:
            yield pa.PythonFile(file, "w")
        return
    path = Path(url.removeprefix("file://"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pa.OSFile(str(path), "wb") as file:  # which holds up no other thread, as Python's own would
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
