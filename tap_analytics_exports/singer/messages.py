"""Events of an extraction become what is written to standard output."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from singer_sdk.singerlib import Message, StateMessage

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.events import Checkpoint, Ended, Event, Rows
from tap_analytics_exports.singer.output import Output
from tap_analytics_exports.singer.streams import TapStream

if TYPE_CHECKING:
    from tap_analytics_exports.singer.sinks import Sink

Piece = Callable[[], object]
"""Writes something; called by the main thread, in order."""


class Messages:
    """Makes messages of events.

    Args:
        streams: All streams, by name.
        output: Where messages go.
    """

    def __init__(self, streams: Mapping[str, TapStream], output: Output) -> None:
        self._streams = streams
        self._output = output
        self._sinks: dict[str, Sink] = {}

    def pieces(self, events: Generator[Event]) -> Generator[Piece]:
        """Make the messages of all events; may run in a thread of its own.

        What can't be made into messages fails the window that it is of, not the run.
        """
        error: ExportFailed | None = None
        with closing(events):
            while True:
                try:
                    event = next(events) if error is None else events.throw(error)
                except StopIteration:
                    break
                error = None
                try:
                    yield from self._pieces(event)
                except Exception as trouble:  # noqa: BLE001 - of a stream map, for one
                    error = ExportFailed(f"its records can't be made into messages: {trouble}")
                del event  # which may be large, and the next one is made now
        for stream in self._streams.values():
            yield from self._schema(stream)

    def abandon(self) -> None:
        """Take away what was begun and is not finished."""
        for sink in self._sinks.values():
            sink.abandon()

    def _pieces(self, event: Event) -> Generator[Piece]:
        match event:
            case Rows():
                yield from self._rows(event)
            case Ended(name):
                yield from self._schema(self._streams[name])
                yield from self._ended(event)
            case Checkpoint(state):
                yield partial(self._output.write_message, StateMessage(state))

    def _rows(self, rows: Rows) -> Generator[Piece]:
        from tap_analytics_exports.singer.sinks import (
            sink_of,
        )  # which costs time, and takes rows to be of use

        stream = self._streams[rows.stream]
        if not stream.selected:
            return
        if stream.know({**rows.columns}):
            if sink := self._sinks.get(stream.name):
                yield sink.flush
            yield from self._write(stream.schema_messages())
            self._sinks.pop(stream.name, None)  # whose stream map is one for the schema of before
        if stream.name not in self._sinks:
            self._sinks[stream.name] = sink_of(stream, self._output)
        sink = self._sinks[stream.name]
        for body in sink.render(rows):
            yield partial(sink.write, body)

    def _ended(self, event: Ended) -> Generator[Piece]:
        sink = self._sinks.pop(event.stream, None)
        if event.job["status"] == "failed":
            if sink is not None:
                yield sink.abandon
            return
        if sink is not None:
            yield sink.flush
        if event.version is not None:
            yield from self._write([self._streams[event.stream].activate_version()])

    def _schema(self, stream: TapStream) -> Generator[Piece]:
        if stream.selected and stream.know({}) and stream.name not in ("export_runs", "rejected_rows"):
            yield from self._write(stream.schema_messages())

    def _write(self, messages: Iterable[Message]) -> Generator[Piece]:
        for message in messages:
            yield partial(self._output.write_message, message)
