# /// script
# requires-python = ">=3.11"
# dependencies = ["tap-analytics-exports[dlt]", "dlt[duckdb,postgres]==1.31.0"]
# [tool.uv.sources]
# tap-analytics-exports = { path = "../.." }
# ///
"""The exports as a source of dlt, loaded into a DuckDB file or into the PostgreSQL at `postgres`.

`settings` are those of the exports. An empty line for each row of the table `rows` is all that is written.
"""

import json
import os
import sys
from pathlib import Path

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt

from tap_analytics_exports.dlt import analytics_exports

if __name__ == "__main__":
    config = json.loads(Path(sys.argv[2]).read_text())
    destination, files = dlt.destinations.duckdb("rows.duckdb"), "parquet"
    if "postgres" in config:
        destination, files = dlt.destinations.postgres(config["postgres"]), "csv"
    pipeline = dlt.pipeline(
        "rows", destination=destination, dataset_name="dlt", pipelines_dir=str(Path.cwd())
    )
    pipeline.run(analytics_exports(config["settings"]), loader_file_format=files)
    with pipeline.sql_client() as client:
        sys.stdout.write("\n" * client.execute_sql("SELECT count(*) FROM rows")[0][0])
