# /// script
# requires-python = ">=3.11"
# dependencies = ["fastexcel==0.21.0", "pyarrow==26.0.1"]
# ///
"""fastexcel alone: all cells of a workbook's first sheet, as text in Arrow's memory.

    python benchmarks/peers/fastexcel_alone.py --config config.json

The configuration says the `path` of the file. A line a row is all that it writes, an empty one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fastexcel

if __name__ == "__main__":
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    table = fastexcel.read_excel(config["path"]).load_sheet(0, dtypes="string").to_arrow()
    sys.stdout.write("\n" * table.num_rows)
