# /// script
# requires-python = ">=3.11"
# dependencies = ["polars==2.1.0"]
# ///
"""polars alone: a CSV file, which may be gzip, becomes typed columns and these lines of JSON.

    python benchmarks/peers/polars_alone.py --config config.json

The configuration says the `path` of the file and the `types` of its columns. There is no download, no check
of a row's length, no row that is put aside, and no message around a record.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

TYPES: dict[str, Any] = {
    "integer": pl.Int64,
    "number": pl.Float64,
    "decimal": pl.String,
    "boolean": pl.Boolean,
    "date": pl.Date,
    "timestamp": pl.Datetime("us"),
    "string": pl.String,
}

if __name__ == "__main__":
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    schema = {name: TYPES[kind] for name, kind in config["types"].items()}
    pl.scan_csv(config["path"], schema=schema).sink_ndjson("/dev/stdout")
