"""Ways from typed rows to standard output: RECORD messages, columnar or through stream maps, and batches."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from singer_sdk.helpers._batch import BaseBatchFileEncoding, SDKBatchMessage
from singer_sdk.mapper import StreamMap

from tap_analytics_exports.events import Rows
from tap_analytics_exports.exports import COUNT
from tap_analytics_exports.jobs.job import now
from tap_analytics_exports.settings import Batch
from tap_analytics_exports.singer.mapped import envelope, mapped
from tap_analytics_exports.singer.output import Output
from tap_analytics_exports.singer.streams import TABLE_VERSION, TapStream
from tap_analytics_exports.writers import records

Body = Any
"""What a sink makes of rows; nobody else reads it."""

_TOGETHER = 100
"""Mapped records that are written at once: to write each by itself takes longer than to make it."""


class Sink(ABC):
    """Where the rows of one window go."""

    def __init__(self, output: Output) -> None:
        self._output = output

    @abstractmethod
    def render(self, rows: Rows) -> Iterator[Body]:
        """Prepare rows, in pieces; called in their order, by one thread, which is not the one that writes."""

    def write(self, body: Body) -> None:
        """Write a piece that was rendered; by the main thread.

        Raises:
            Interrupted: The run was asked to stop.
        """
        self._output.write_lines(body)

    def flush(self) -> None:
        """Let everything that was written be with the target."""

    def abandon(self) -> None:
        """Take away what the target was not told of."""


class Lines(Sink):
    """RECORD messages that are rendered columnar."""

    def __init__(self, stream: TapStream, output: Output) -> None:
        super().__init__(output)
        self._alias = stream.stream_maps[0].stream_alias
        self._version = stream.version

    def render(self, rows: Rows) -> Iterator[Body]:
        """Make the lines of some cells after the other."""
        around = envelope(self._alias, now(), self._version)
        for some in records.slices(rows.frame):
            yield records.lines(some, rows.columns, rows.constants, envelope=around)


class Mapped(Sink):
    """RECORD messages that the SDK makes of each record, with stream maps and flattening."""

    def __init__(self, stream: TapStream, output: Output) -> None:
        super().__init__(output)
        self._maps: list[StreamMap] = stream.stream_maps
        self._version = stream.version

    def render(self, rows: Rows) -> Iterator[Body]:
        """Make the lines of some records after the other."""
        for some in rows.frame.iter_slices(_TOGETHER):
            made = records.records(some, rows.columns, rows.constants)
            yield b"".join(mapped(made, self._maps, time_extracted=now(), version=self._version))


class Batches(Sink):
    """Files of so many rows, each with its BATCH message; the last one of a window may have fewer."""

    def __init__(self, stream: TapStream, output: Output, settings: Batch) -> None:
        # Parquet brings all of Arrow's file systems along: 20 MiB that records have no use for.
        from tap_analytics_exports.writers.batches import BatchFiles

        super().__init__(output)
        self._alias = stream.stream_maps[0].stream_alias
        self._version = stream.version
        self._encoding = settings.encoding
        name = f"{settings.storage.prefix or ''}{stream.name}-{uuid.uuid4()}"
        self._files = BatchFiles(settings, settings.storage.url(name), self._announce)

    def render(self, rows: Rows) -> Iterator[Body]:
        """Cut rows to fit into the files."""
        if self._version is None:
            return self._files.render(rows.frame, rows.columns, rows.constants)
        columns = {**rows.columns, TABLE_VERSION: COUNT}
        return self._files.render(rows.frame, columns, {**rows.constants, TABLE_VERSION: self._version})

    def write(self, body: Body) -> None:
        """Write what was rendered to its file."""
        self._output.safe_point()
        self._files.write(body)

    def flush(self) -> None:
        """Close the file, if one is open, and let the target know of it."""
        self._files.flush()

    def abandon(self) -> None:
        """Remove the file that is not finished."""
        self._files.abandon()

    def _announce(self, url: str) -> None:
        encoding = BaseBatchFileEncoding(self._encoding.format, self._encoding.compression)
        self._output.write_message(
            SDKBatchMessage(self._alias, encoding, manifest=[url], version=self._version)
        )


def sink_of(stream: TapStream, output: Output) -> Sink:
    """Choose the way for the rows of a stream's next window."""
    if not stream.passes_unchanged:
        return Mapped(stream, output)
    if stream.batch is None:
        return Lines(stream, output)
    return Batches(stream, output, stream.batch)
