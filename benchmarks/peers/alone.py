# /// script
# requires-python = ">=3.11"
# dependencies = ["polars==2.1.0", "fastexcel==0.21.0", "pyarrow==26.0.1"]
# ///
"""What reads files alone, without a download, a check of a row's length, or a message around a record.

polars makes typed columns and lines of JSON of the CSV file at `path`, which may be gzip; fastexcel reads all
cells of a workbook's first sheet as text, and an empty line a row is all that is written.
"""

import json
import sys
from pathlib import Path

KINDS = {
    "integer": "Int64",
    "number": "Float64",
    "boolean": "Boolean",
    "date": "Date",
    "timestamp": "Datetime",
}

if __name__ == "__main__":
    config = json.loads(Path(sys.argv[2]).read_text())
    if config["path"].endswith(".xlsx"):
        import fastexcel

        table = fastexcel.read_excel(config["path"]).load_sheet(0, dtypes="string").to_arrow()
        sys.stdout.write("\n" * table.num_rows)
    else:
        import polars as pl

        schema = {name: getattr(pl, KINDS.get(kind, "String")) for name, kind in config["types"].items()}
        pl.scan_csv(config["path"], schema=schema).sink_ndjson("/dev/stdout")
