# /// script
# requires-python = ">=3.11"
# dependencies = ["polars==2.1.0", "psycopg[binary]==3.3.9"]
# ///
"""A loader for PostgreSQL that copies batch files: BATCH messages on its standard input, COPY into a table.

    tap ... | python benchmarks/peers/copy_loader.py --config config.json

The configuration says the `url` of the database. A SCHEMA message makes a table where there is none, a BATCH
message of Parquet files is copied into it, and a STATE message is written to standard output once what came
before it is committed. It appends: rows of another run of the same window are not replaced.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

KINDS = {"integer": "bigint", "number": "double precision", "boolean": "boolean", "object": "jsonb"}
FORMATS = {"date": "date", "date-time": "timestamptz", "singer.decimal": "numeric"}


def column_type(schema: dict[str, Any]) -> str:
    """The type of a property's column."""
    given = schema["type"]
    kinds = [kind for kind in ([given] if isinstance(given, str) else given) if kind != "null"]
    return FORMATS.get(schema.get("format", "")) or KINDS.get(kinds[0], "text")


def main() -> None:
    """Load what comes."""
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    with psycopg.connect(config["url"]) as connection:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            match message["type"]:
                case "SCHEMA":
                    columns = [
                        sql.SQL("{} " + column_type(schema)).format(sql.Identifier(name))
                        for name, schema in message["schema"]["properties"].items()
                    ]
                    table = sql.Identifier(message["stream"])
                    words = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})")
                    connection.execute(words.format(table, sql.SQL(", ").join(columns)))
                case "BATCH":
                    for url in message["manifest"]:
                        copy(connection, message["stream"], url.removeprefix("file://"))
                case "STATE":
                    connection.commit()
                    print(json.dumps(message["value"]), flush=True)


def copy(connection: psycopg.Connection[Any], stream: str, path: str) -> None:
    """Copy a file into a table."""
    frame = pl.read_parquet(path)
    text = io.BytesIO()
    frame.write_csv(text, include_header=False)
    names = sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    words = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(stream), names)
    with connection.cursor().copy(words) as copying:
        copying.write(text.getbuffer())


if __name__ == "__main__":
    main()
