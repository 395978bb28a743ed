# /// script
# requires-python = ">=3.11"
# dependencies = ["singer-sdk[msgspec,parquet]==0.54.9"]
# ///
"""A tap as the SDK's documentation shows how to write one: csv.DictReader, and a dict a row for the SDK.

The configuration says the `path` of the file, which may be gzip, and the `types` and the `schema` of its
columns. A `writer` of `msgspec` is the SDK's faster one; a `conformance` of `false` turns its check of each
value off. It reads a file that is there already, so it has nothing to download and to prove.
"""

import csv
import gzip
import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from singer_sdk import Stream, Tap
from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.helpers.conform import TypeConformanceLevel


def timestamp(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


CONVERT: dict[str, Any] = {
    "integer": int,
    "number": float,
    "decimal": lambda text: str(Decimal(text)),
    "boolean": {"true": True, "false": False}.__getitem__,
    "date": date.fromisoformat,
    "timestamp": timestamp,
}


class Rows(Stream):
    """The rows of the file."""

    name = "rows"
    primary_keys = ("id",)

    def get_records(self, context: Mapping[str, Any] | None) -> Iterable[dict[str, Any]]:
        convert = {name: CONVERT[kind] for name, kind in self.config["types"].items() if kind in CONVERT}
        opening = gzip.open if self.config["path"].endswith(".gz") else open
        with opening(self.config["path"], "rt", encoding="utf-8", newline="") as file:
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

    def discover_streams(self) -> list[Stream]:
        return [Rows(self, schema=self.config["schema"])]


if __name__ == "__main__":
    config = json.loads(Path(sys.argv[2]).read_text())
    if config.get("writer") == "msgspec":
        PlainTap.message_writer_class = MsgSpecWriter
    if config.get("conformance") is False:
        Rows.TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE
    PlainTap.cli()
