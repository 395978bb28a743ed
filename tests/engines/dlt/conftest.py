"""Pipelines of dlt, what their tables hold, and a vendor in this process."""

import os

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest
from vendor import PROCESS, START, Fake

from tap_analytics_exports import extraction as core

Make = Callable[..., dlt.Pipeline]


def table(pipeline: dlt.Pipeline, name: str) -> list[dict[str, Any]]:
    """The rows of a table."""
    with pipeline.sql_client() as client, client.execute_query(f"SELECT * FROM {name}") as cursor:
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def csv(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def column(pipeline, name="at", stream="rows"):
    return sorted(row[name] for row in table(pipeline, stream))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a pipeline into the test's DuckDB file; another folder is another machine."""

    def pipeline(folder: str = "here", destination: Any = None) -> dlt.Pipeline:
        database = destination or dlt.destinations.duckdb(str(tmp_path / "database.duckdb"))
        where = {"pipelines_dir": str(tmp_path / folder), "dataset_name": "exports"}
        return dlt.pipeline("exports", destination=database, **where)

    return pipeline


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings with an export `rows` of the vendor in this process, changed by what is given, and others."""
    monkeypatch.setattr(core, "installed", lambda: {"fake": Fake})
    PROCESS.start()

    def made(address: str, *, days: float = 3, others: tuple[dict[str, Any], ...] = (), **export: Any):
        top = {key: export.pop(key) for key in ("lookback", "on_bad_row", "on_new_column") if key in export}
        exports = [{"name": "rows", **export}, *others]
        return {
            "start_date": START.isoformat(),
            "end_date": (START + timedelta(days=days)).isoformat(),
            "poll_interval": "PT0.001S",
            "poll_interval_max": "PT0.001S",
            "ledger": str(tmp_path / "ledger"),
            "fake": {"base_url": address, "exports": exports},
            **top,
        }

    return made
