"""A pipeline as a process, which may be told to die once its rows are extracted.

python load.py settings.json folder [die]
"""

import json
import os
import signal
import sys
from pathlib import Path

import dlt

from tap_analytics_exports.dlt import analytics_exports

settings, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
pipeline = dlt.pipeline(
    "exports",
    destination=dlt.destinations.duckdb(str(folder / "database.duckdb")),
    dataset_name="exports",
    pipelines_dir=str(folder / "here"),
)
if sys.argv[3:] == ["die"]:
    pipeline.extract(analytics_exports(settings))
    os.kill(os.getpid(), signal.SIGKILL)
pipeline.run(analytics_exports(settings))
