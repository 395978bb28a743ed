# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "azure-storage-blob==12.31.1",
#     "boto3==1.44.5",
#     "google-cloud-storage==3.17.1",
#     "jsonpath-ng==1.16.0",
#     "openpyxl==3.1.5",
#     "paramiko==5.1.0",
#     "pyarrow==26.0.1",
#     "python-dateutil==2.9.0.post0",
#     "pytz==2026.6",
#     "requests==2.34.2",
#     "singer-python==6.8.0",
#     "smart-open==9.0.2",
#     "voluptuous==0.16.0",
#     "xlrd==2.0.2",
# ]
# ///
"""tap-spreadsheets-anywhere, which reads a workbook that lies in a folder.

    python benchmarks/peers/spreadsheets_anywhere.py --config config.json

PyPI does not have it, and it can't be installed from its repository, as its setup.py lacks a comma between
two requirements. So the configuration says the `checkout` of the repository, and what it imports is named
above.
Without a `checkout`, its engine alone reads the `path`: openpyxl, row by row, and a line of JSON a row.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def whole(checkout: str, path: Path) -> None:
    """Run the tap as it is."""
    sys.path.insert(0, checkout)
    table = {
        "path": f"file://{path.parent}",
        "name": "rows",
        "pattern": f"^{path.name}$",
        "start_date": "2000-01-01T00:00:00Z",
        "key_properties": [],
        "format": "excel",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
        json.dump({"tables": [table]}, config)
        config.flush()
        sys.argv[1:] = ["--config", config.name]
        import dateutil.parser  # noqa: F401 - the tap takes it for granted
        from tap_spreadsheets_anywhere import main as run

        run()


def engine(path: Path) -> None:
    """Read the rows with what it reads them with."""
    import openpyxl

    rows = iter(openpyxl.load_workbook(path, read_only=True).worksheets[0].iter_rows(values_only=True))
    header = next(rows)
    for row in rows:
        record: dict[Any, Any] = dict(zip(header, row, strict=True))
        print(json.dumps({"type": "RECORD", "stream": "rows", "record": record}, default=str))


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    if settings.get("checkout"):
        whole(settings["checkout"], Path(settings["path"]))
    else:
        engine(Path(settings["path"]))
