"""The Airbyte source: an extraction, told in the messages of Airbyte's protocol.

https://docs.airbyte.com/platform/understanding-airbyte/airbyte-protocol
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tap_analytics_exports import process, redaction
from tap_analytics_exports.ahead import ahead
from tap_analytics_exports.columns.schema import column_of, property_schema
from tap_analytics_exports.errors import ExportsFailed, Failure, SettingsError, TapError
from tap_analytics_exports.events import GROWS_BY, Checkpoint, Event, Rows, Stream
from tap_analytics_exports.exports import WINDOW_END, Wanted
from tap_analytics_exports.extraction import Extraction, settings_types
from tap_analytics_exports.parse import ROW_NUMBER
from tap_analytics_exports.settings import Column, json_schema
from tap_analytics_exports.writers.output import LineOutput

_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}

logger = redaction.clean_logger(__name__)

Json = dict[str, Any]


def main() -> None:
    """Do what the command line asks for, and end the process with the code that tells how it went."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # before there is anything to stop, it ends the process
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, files in {
        "spec": "",
        "check": "config",
        "discover": "config",
        "read": "config catalog",
    }.items():
        command = commands.add_parser(name)
        for file in files.split():
            command.add_argument(f"--{file}", type=Path, required=True)
    commands.choices["read"].add_argument("--state", type=Path)
    asked = parser.parse_args()

    output = LineOutput()
    logs: SimpleQueue[logging.LogRecord] = SimpleQueue()
    # By a thread of its own, as no thread that polls a job is to wait for a reader of the output.
    listener = QueueListener(logs, _LogLines(output))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[QueueHandler(logs)])
    redaction.install()
    listener.start()
    try:
        code = _run(asked, output)
    finally:
        listener.stop()
    process.end(code)


def _run(asked: argparse.Namespace, output: LineOutput) -> int:
    """Do what is asked for.

    Returns:
        The exit code; 0 also where `check` answers that something is wrong, as Airbyte has it.
    """
    try:
        if asked.command == "spec":
            output.write_lines(spec())
            return 0
        config = _json(asked.config, "config")
        if asked.command == "check":
            output.write_lines(check(config))
            return 0
        if asked.command == "discover":
            output.write_lines(discover(config))
            return 0
        catalog = Catalog.of(_json(asked.catalog, "catalog"))
        state = catalog.state(_json(asked.state, "state") if asked.state else [])
        extraction = Extraction(config, state)
        return process.exit_code(partial(read, extraction, catalog, output), extraction, output)
    except TapError as error:
        output.write_lines(_error(error))
        return process.EXIT_SETTINGS
    except Exception as error:
        output.write_lines(_error(error))
        raise


# The commands


def spec() -> bytes:
    """Say what the settings are; batch files are no matter of Airbyte's."""
    schema = _for_airbyte(json_schema(settings_types()))
    del schema["properties"]["batch_config"]
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Analytics exports"}
    return _message("SPEC", {"connectionSpecification": head | schema})


def check(config: Any) -> bytes:
    """Try what the settings say, as far as can be without an export."""
    try:
        with Extraction(config) as extraction:
            problems = [f"{each.name}: {each.problem}" for each in extraction.check() if each.problem]
    except SettingsError as error:
        problems = error.problems
    status: Json = {"status": "FAILED" if problems else "SUCCEEDED"}
    if problems:
        status["message"] = redaction.clean("\n".join(problems))
    return _message("CONNECTION_STATUS", status)


def discover(config: Any) -> bytes:
    """List the streams."""
    with Extraction(config) as extraction:
        return _message("CATALOG", {"streams": [_stream(each) for each in extraction.streams.values()]})


def read(extraction: Extraction, catalog: Catalog, output: LineOutput) -> None:
    """Write all messages of a run.

    Raises:
        TapError: Some exports failed, or nothing could be done at all.
        Interrupted: The run was asked to stop.
    """
    if extraction.settings.batch_config is not None:
        logger.warning("batch_config: Airbyte takes no batch files; all rows go as records")
    messages = Messages(extraction, catalog)
    try:
        with closing(ahead(messages.lines(), "renders")) as pieces:
            for lines in pieces:
                output.write_lines(lines)
                del lines  # they may be large
    finally:
        extraction.log_out()


# What Airbyte hands over


@dataclass(frozen=True)
class Catalog:
    """The streams to read, by name: what is known of their columns, and whether anew or from a bookmark."""

    columns: Mapping[str, Mapping[str, Column]]
    anew: Collection[str]

    @classmethod
    def of(cls, content: Any) -> Catalog:
        """Take a configured catalog apart.

        Raises:
            SettingsError: It is none.
        """
        try:
            columns = {
                each["stream"]["name"]: {
                    name: column
                    for name, schema in each["stream"]["json_schema"].get("properties", {}).items()
                    if (column := column_of(schema)) is not None
                }
                for each in content["streams"]
            }
            anew = {
                each["stream"]["name"] for each in content["streams"] if each["sync_mode"] != "incremental"
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise SettingsError([f"catalog: is no configured catalog of Airbyte's: {error!r}"]) from None
        return cls(columns, anew)

    def state(self, given: Any) -> Json:
        """Make the core's state of Airbyte's, without the bookmarks of streams that are read anew.

        Args:
            given: A list of messages, or the one object of old.

        Raises:
            SettingsError: It is neither.
        """
        bookmarks: Json = {}
        if not isinstance(given, list):
            given = [{"data": given}] if given else []
        for message in given:
            match message:
                case {"stream": {"stream_descriptor": {"name": str(name)}} as stream}:
                    bookmarks[name] = stream.get("stream_state") or {}
                case {"data": {"bookmarks": dict(old)}}:
                    bookmarks |= old
                case _:
                    raise SettingsError(
                        ["state: is neither a list of STREAM states nor an object with `bookmarks`"]
                    )
        for name in self.anew & bookmarks.keys():
            if isinstance(bookmarks[name], dict):
                unwanted = ("replication_key", "replication_key_value")
                bookmarks[name] = {key: each for key, each in bookmarks[name].items() if key not in unwanted}
        return {"bookmarks": bookmarks}


# What Airbyte gets


class Messages:
    """Makes the messages of a run.

    Args:
        extraction: The run.
        catalog: What is to be read.
    """

    def __init__(self, extraction: Extraction, catalog: Catalog) -> None:
        known = extraction.streams
        self._missing = [name for name in catalog.columns if name not in known]
        self._streams = [name for name in catalog.columns if name in known]
        self._extraction = extraction
        wanted = {name: Wanted(catalog.columns[name]) for name in self._streams if name not in GROWS_BY}
        extraction.choose(wanted)
        self._running: set[str] = set()
        self._sent: dict[str, Json] = {}
        self._counts: Counter[str] = Counter()

    def lines(self) -> Generator[bytes | memoryview]:
        """Make all messages, in pieces of whole lines; may run in a thread of its own.

        Raises:
            TapError: Some exports failed, or nothing could be done at all; after the messages that tell so.
        """
        failures = [
            Failure(
                name, f"stream {name}: the settings have no such export; refresh the schema", refused=True
            )
            for name in self._missing
        ]
        failed = ExportsFailed(failures) if failures else None
        for name in self._streams:
            yield _status(name, "STARTED")
        try:
            with closing(iter(self._extraction)) as events:
                for event in events:
                    yield from self._event(event)
                    del event  # it may be large, and the next one is made now
        except ExportsFailed as error:
            failures += error.failures
            failed = error
        except (TapError, OSError) as error:
            yield _error(error)
            raise
        for failure in failures:
            yield _error(failure, failure.stream)
        for name in self._streams:
            if self._counts[name] or name not in self._sent:
                yield self._state(name, self._sent.get(name, {}))
        incomplete = {failure.stream for failure in failures}
        for name in (*self._streams, *self._missing):
            yield _status(name, "INCOMPLETE" if name in incomplete else "COMPLETE")
        if failed is not None:
            raise failed

    def _event(self, event: Event) -> Iterator[bytes | memoryview]:
        match event:
            case Rows() if event.stream in self._streams and event.frame.height:
                yield from self._rows(event)
            case Checkpoint(state):
                for name in self._streams:
                    content = state["bookmarks"].get(name, {})
                    if content != self._sent.get(name) or (name in GROWS_BY and self._counts[name]):
                        yield self._state(name, content)

    def _rows(self, rows: Rows) -> Iterator[bytes | memoryview]:
        # Its import costs time, and takes rows to be of use.
        from tap_analytics_exports.writers.records import lines, slices

        if rows.stream not in self._running:
            self._running.add(rows.stream)
            yield _status(rows.stream, "RUNNING")
        start = f'{{"type":"RECORD","record":{{"stream":{json.dumps(rows.stream)},"data":'
        around = start, f',"emitted_at":{_now()}}}}}'
        for some in slices(rows.frame):
            self._counts[rows.stream] += some.height
            yield lines(some, rows.columns, rows.constants, envelope=around)

    def _state(self, name: str, content: Json) -> bytes:
        self._sent[name] = content
        stream = {"stream_descriptor": {"name": name}, "stream_state": content}
        count = float(self._counts.pop(name, 0))
        return _message("STATE", {"type": "STREAM", "stream": stream, "sourceStats": {"recordCount": count}})


class _LogLines(logging.Handler):
    """Writes log lines as messages."""

    def __init__(self, output: LineOutput) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        level = _LEVELS.get(record.levelname, record.levelname)
        line = _message("LOG", {"level": level, "message": self.format(record)})
        with suppress(OSError):  # who writes rows finds out
            self._output.put(memoryview(line))


def _stream(stream: Stream) -> Json:
    """Describe a stream as a catalog has it."""
    cursor = WINDOW_END if stream.window_key else GROWS_BY.get(stream.name)
    described: Json = {
        "name": stream.name,
        "json_schema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "additionalProperties": True,
            "properties": {name: _property(column) for name, column in stream.columns.items()},
        },
        "supported_sync_modes": ["full_refresh", *(["incremental"] if cursor else [])],
        "is_resumable": False,  # a full refresh begins anew, and finds its jobs by itself
    }
    if cursor:
        described |= {"source_defined_cursor": True, "default_cursor_field": [cursor]}
    if stream.primary_key != (ROW_NUMBER,):  # by which destinations would merge one snapshot into another
        described["source_defined_primary_key"] = [[name] for name in stream.primary_key]
    return described


def _property(column: Column) -> Json:
    zone = {"airbyte_type": "timestamp_with_timezone"} if column.type == "timestamp" else {}
    return property_schema(column) | zone


def _for_airbyte(schema: Any) -> Any:
    """The settings' JSON Schema, with the words that Airbyte has for secrets and for the order of fields."""
    if isinstance(schema, list):
        return [_for_airbyte(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {"airbyte_secret" if key == "secret" else key: _for_airbyte(part) for key, part in schema.items()}
    for order, field in enumerate(made.get("properties", {}).values()):
        field["order"] = order
    return made


def _error(error: Exception | Failure, stream: str | None = None) -> bytes:
    """Make the TRACE of an error, of one stream or of all."""
    if isinstance(error, Failure):
        message, settings = error.reason, error.refused
    else:
        message, settings = str(error) or repr(error), isinstance(error, SettingsError)
    told: Json = {
        "message": redaction.clean(message),
        "failure_type": "config_error" if settings else "system_error",
    }
    if stream is not None:
        told["stream_descriptor"] = {"name": stream}
    return _trace("ERROR", error=told)


def _status(stream: str, status: str) -> bytes:
    return _trace("STREAM_STATUS", stream_status={"stream_descriptor": {"name": stream}, "status": status})


def _trace(kind: str, **told: Json) -> bytes:
    return _message("TRACE", {"type": kind, "emitted_at": float(_now()), **told})


def _message(kind: str, content: Json) -> bytes:
    """Make a message, a line."""
    key = "connectionStatus" if kind == "CONNECTION_STATUS" else kind.lower()
    return f"{json.dumps({'type': kind, key: content}, separators=(',', ':'))}\n".encode()


def _now() -> int:
    """Tell the time in milliseconds."""
    return time.time_ns() // 1_000_000


def _json(path: Path, what: str) -> Any:
    """Read the JSON of a file.

    Raises:
        SettingsError: It can't be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            return process.load_json(file, what)
    except OSError as error:
        raise SettingsError([f"{what}: {path}: {error.strerror}"]) from None
