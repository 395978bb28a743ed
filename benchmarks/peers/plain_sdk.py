# /// script
# requires-python = ">=3.11"
# dependencies = ["singer-sdk[msgspec,parquet]==0.54.9"]
# ///
"""A tap as the SDK's documentation shows how to write one: csv.DictReader, and a dict a row for the SDK.

    python benchmarks/peers/plain_sdk.py --config config.json

The configuration says the `path` of the file, which may be gzip, the `types` of its columns, and:

- `writer`: `simple`, the SDK's default, or `msgspec`, its faster one;
- `conformance`: `false` turns the SDK's check of each value off;
- `batch_config` and `stream_maps`, which are the SDK's own.

It reads a file that is there already, so it has nothing to download and to prove.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from singer_sdk import Stream, Tap
from singer_sdk import typing as th
from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.helpers.conform import TypeConformanceLevel


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


CONVERT: dict[str, Callable[[str], Any]] = {
    "integer": int,
    "number": float,
    "decimal": lambda text: str(Decimal(text)),
    "boolean": {"true": True, "false": False}.__getitem__,
    "date": date.fromisoformat,
    "timestamp": _moment,
}
KINDS: dict[str, th.JSONTypeHelper[Any]] = {
    "integer": th.IntegerType(),
    "number": th.NumberType(),
    "decimal": th.StringType(),
    "boolean": th.BooleanType(),
    "date": th.DateType(),
    "timestamp": th.DateTimeType(),
    "string": th.StringType(),
}


class Rows(Stream):
    """The rows of the file."""

    name = "rows"
    primary_keys = ("id",)

    def __init__(self, tap: Tap) -> None:
        properties = [th.Property(name, KINDS[kind]) for name, kind in tap.config["types"].items()]
        super().__init__(tap, schema=th.PropertiesList(*properties).to_dict())

    def get_records(self, context: Mapping[str, Any] | None) -> Iterable[dict[str, Any]]:
        """Read row by row."""
        path = self.config["path"]
        convert = {name: CONVERT[kind] for name, kind in self.config["types"].items() if kind in CONVERT}
        opening = gzip.open if path.endswith(".gz") else open
        with opening(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if not text:
                        row[name] = None
                    elif name in convert:
                        row[name] = convert[name](text)
                yield row


class PlainTap(Tap):
    """A tap of one stream."""

    name = "tap-plain"
    config_jsonschema = th.PropertiesList(
        th.Property("path", th.StringType, required=True),
        th.Property("types", th.ObjectType(additional_properties=th.StringType), required=True),
        th.Property("writer", th.StringType),
        th.Property("conformance", th.BooleanType),
    ).to_dict()

    def discover_streams(self) -> list[Stream]:
        """The only one."""
        return [Rows(self)]


if __name__ == "__main__":
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    if config.get("writer") == "msgspec":
        PlainTap.message_writer_class = MsgSpecWriter
    if config.get("conformance") is False:
        Rows.TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE
    PlainTap.cli()
