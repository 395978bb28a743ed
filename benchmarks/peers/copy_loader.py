# /// script
# requires-python = ">=3.11"
# dependencies = ["polars==2.1.0", "psycopg[binary]==3.3.9"]
# ///
"""A loader for PostgreSQL that copies batch files: BATCH messages on its standard input, COPY into a table.

The configuration is that of target-postgres. A SCHEMA message makes a table where there is none, a BATCH
message of Parquet files is copied into it, and a STATE message is written to standard output once what came
before it is committed. It appends: rows of another run of the same window are not replaced.
"""

import io
import json
import sys
from pathlib import Path

import polars as pl
from psycopg import connect
from psycopg.sql import SQL, Identifier

KINDS = {"integer": "bigint", "number": "double precision", "boolean": "boolean", "object": "jsonb"}
FORMATS = {"date": "date", "date-time": "timestamptz", "singer.decimal": "numeric"}

if __name__ == "__main__":
    config = json.loads(Path(sys.argv[2]).read_text())
    names = {"host": "host", "port": "port", "user": "user", "database": "dbname"}
    with connect(**{name: config[setting] for setting, name in names.items()}) as connection:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if message["type"] == "STATE":
                connection.commit()
                print(json.dumps(message["value"]), flush=True)
            table = Identifier(config["default_target_schema"], message.get("stream", ""))
            if message["type"] == "SCHEMA":
                columns = []
                for name, schema in message["schema"]["properties"].items():
                    kind = next(kind for kind in [*schema["type"]] if kind != "null")
                    kind = FORMATS.get(schema.get("format", "")) or KINDS.get(kind, "text")
                    columns.append(SQL("{} " + kind).format(Identifier(name)))
                create = SQL("CREATE TABLE IF NOT EXISTS {} ({})")
                connection.execute(create.format(table, SQL(", ").join(columns)))
            for url in message.get("manifest", ()):
                frame, text = pl.read_parquet(url.removeprefix("file://")), io.BytesIO()
                frame.write_csv(text, include_header=False)
                columns = SQL(", ").join(map(Identifier, frame.columns))
                copy = SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table, columns)
                with connection.cursor().copy(copy) as copying:
                    copying.write(text.getbuffer())
