"""Typed frames become batch files, which a loader reads by itself, and BATCH messages that name them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip
from singer_sdk.helpers._batch import BaseBatchFileEncoding, SDKBatchMessage

from tap_analytics_exports.columns.schema import column_of
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.base import without_huge_pages
from tap_analytics_exports.settings import Batch, Column, ColumnKind
from tap_analytics_exports.singer.streams import (
    EXPORT_ID,
    TABLE_VERSION,
    WINDOW_END,
    WINDOW_START,
    ExportStream,
)
from tap_analytics_exports.writers import records as messages
from tap_analytics_exports.writers.records import Constants
from tap_analytics_exports.writers.sinks import Body, Outlet

_GZIP_LEVEL = 1  # the files are read once
_PARQUET_COMPRESSION = {None: "snappy", "none": "none", "gzip": "gzip"}

_CONSTANTS = frozenset({EXPORT_ID, WINDOW_START, WINDOW_END, TABLE_VERSION})

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
    """

    first: bool
    data: Any


class Batches(Outlet):
    """Files of so many rows, each with its BATCH message; the last one of a window may have fewer.

    Args:
        stream: Whose rows they are; no stream map changes them.
        settings: How the files are written, and where.
    """

    def __init__(self, stream: ExportStream, settings: Batch) -> None:
        self._tap = stream.tap
        self._alias = stream.stream_maps[0].stream_alias
        self._version = stream.snapshot_version
        self._settings = settings
        properties = stream.announced_schema["properties"]
        kinds = {name: column_of(each) for name, each in properties.items()}
        self._kinds: dict[str, ColumnKind] = {
            name: "json" if each is None else each.type for name, each in kinds.items()
        }
        name = f"{settings.storage.prefix or ''}{stream.name}-{uuid.uuid4()}"
        self._stem = settings.storage.url(name)
        # What the thread that renders knows of the last file.
        self._columns: list[str] = []
        self._room = 0
        # What the thread that writes knows of it.
        self._number = 0
        self._url = ""
        self._open = ExitStack()
        self._write: Callable[[Any], object] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the last file, or take it away where the window has failed."""
        if error is not None:
            self._open.__exit__(kind, error, trace)
            return
        with self._open:
            self.flush()

    def render(
        self, frame: pl.DataFrame, columns: Mapping[str, Column], constants: Constants
    ) -> Iterator[Body]:
        """Prepare rows, cut to fit into the files."""
        if self._version is not None:
            constants = {**constants, TABLE_VERSION: self._version}
        if frame.columns != self._columns:
            self._columns, self._room = frame.columns, 0
        while frame.height:
            first = self._room == 0
            self._room = self._room or self._settings.batch_size
            some, frame = frame.head(self._room), frame.slice(self._room)
            self._room -= some.height
            if self._settings.encoding.format == "jsonl":
                yield _Part(first, messages.documents(some, columns, constants))
            else:
                yield _Part(first, self._table(some, columns, constants))

    def write(self, body: Body) -> None:
        """Write what was rendered to its files."""
        self._tap.output.safe_point()
        if body.first or self._write is None:
            self.flush()
            with self._named():
                self._write = self._begin(body)
        with self._named():
            self._write(body.data)

    def flush(self) -> None:
        """Close the file, if one is open, and let the target know of it."""
        if self._write is None:
            return
        self._write = None
        with self._named():
            self._open.close()
        encoding = self._settings.encoding
        self._tap.write_message(
            SDKBatchMessage(
                self._alias,
                BaseBatchFileEncoding(encoding.format, encoding.compression),
                manifest=[self._url],
                version=self._version,
            )
        )

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
                use_dictionary=[name for name in part.data.column_names if name in _CONSTANTS],
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
        """Rows, each column of the type that the SCHEMA says, even if it holds nothing.

        Raises:
            ExportFailed: The catalog has another type for a column than the settings.
        """
        table = frame.to_arrow(compat_level=pl.CompatLevel.newest())
        arrays = {}
        for name, values in zip(frame.columns, table.columns, strict=True):
            own = columns[name].type
            expected = self._kinds.setdefault(name, own)
            if _ARROW_TYPES[own] != _ARROW_TYPES[expected] and not pa.types.is_null(values.type):
                raise ExportFailed(
                    f"the catalog has {expected} for the column {name}, and the settings {own}: name its "
                    "type in the export's `columns`, or discover anew"
                )
            arrays[name] = values.cast(_ARROW_TYPES[expected])
        for name, value in constants.items():
            arrays[name] = pa.repeat(pa.scalar(value, _ARROW_TYPES[self._kinds[name]]), frame.height)
        return pa.table(list(arrays.values()), names=list(arrays))


@contextmanager
def _created(url: str) -> Iterator[pa.NativeFile]:
    """A new file, which is not left behind unless it becomes whole."""
    if not url.startswith("file://"):
        import smart_open  # noqa: PLC0415 - it brings boto3 and more, which takes a quarter of a second

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
