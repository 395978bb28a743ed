"""Ways from typed frames to the target: RECORD messages, written columnar or by the SDK, and batch files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from tap_analytics_exports.jobs.runner import now
from tap_analytics_exports.settings import Column
from tap_analytics_exports.writers import records as messages
from tap_analytics_exports.writers.records import Constants

if TYPE_CHECKING:
    from tap_analytics_exports.singer.streams import ExportStream

Body = Any
"""What an outlet makes of rows; nobody else looks into it."""

# So many at once become text, which takes several times the memory of a frame.
_CELLS = 64_000


class Outlet(ABC):
    """Where the rows of one window go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()

    @abstractmethod
    def render(
        self, frame: pl.DataFrame, columns: Mapping[str, Column], constants: Constants
    ) -> Iterator[Body]:
        """Prepare rows, in pieces; called in their order, by one thread, which need not be the main one.

        Args:
            frame: Rows, its columns by property name.
            columns: The type of each of its columns.
            constants: Further properties, which are the same in all rows of a window.
        """

    @abstractmethod
    def write(self, body: Body) -> None:
        """Write a piece that was rendered; by the main thread.

        Raises:
            Interrupted: The run was asked to stop.
        """

    def flush(self) -> None:  # noqa: B027 - most have nothing to do
        """Let everything that was written be with the target."""


class _Lines(Outlet):
    """RECORD messages that are rendered columnar."""

    def __init__(self, stream: ExportStream) -> None:
        self._alias = stream.stream_maps[0].stream_alias
        self._version = stream.snapshot_version
        self._write = stream.tap.output.write_lines

    def render(
        self, frame: pl.DataFrame, columns: Mapping[str, Column], constants: Constants
    ) -> Iterator[Body]:
        moment = now()
        for rows in frame.iter_slices(max(_CELLS // frame.width, 1)):
            yield messages.lines(
                rows,
                columns,
                constants,
                stream=self._alias,
                time_extracted=moment,
                version=self._version,
            )

    def write(self, body: Body) -> None:
        self._write(body)


class _Mapped(Outlet):
    """RECORD messages that the SDK makes of each record, with stream maps and flattening."""

    def __init__(self, stream: ExportStream) -> None:
        self._stream = stream

    def render(
        self, frame: pl.DataFrame, columns: Mapping[str, Column], constants: Constants
    ) -> Iterator[Body]:
        yield frame, columns, constants

    def write(self, body: Body) -> None:
        self._stream.write_mapped(messages.records(*body))


def outlet_of(stream: ExportStream) -> Outlet:
    """The way for the rows of a stream's next window."""
    if not stream.passes_unchanged:
        return _Mapped(stream)
    if stream.settings.batch_config is None:
        return _Lines(stream)
    from tap_analytics_exports.writers.batches import Batches  # noqa: PLC0415 - costs time to import

    return Batches(stream, stream.settings.batch_config)
