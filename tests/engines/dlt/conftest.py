"""Pipelines of dlt, and what their tables hold."""

import os

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pytest

Make = Callable[..., dlt.Pipeline]


def table(pipeline: dlt.Pipeline, name: str) -> list[dict[str, Any]]:
    """The rows of a table."""
    with pipeline.sql_client() as client, client.execute_query(f"SELECT * FROM {name}") as cursor:
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a pipeline into the test's DuckDB file; another folder is another machine."""

    def pipeline(folder: str = "here", destination: Any = None) -> dlt.Pipeline:
        database = destination or dlt.destinations.duckdb(str(tmp_path / "database.duckdb"))
        where = {"pipelines_dir": str(tmp_path / folder), "dataset_name": "exports"}
        return dlt.pipeline("exports", destination=database, **where)

    return pipeline
