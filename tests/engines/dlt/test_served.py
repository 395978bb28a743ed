"""All five providers, loaded by dlt: every row as the sandbox has served it, whatever happens between."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import table
from served import EXPORTS, SNAPSHOTS, assert_served

from tap_analytics_exports.dlt import analytics_exports

LOAD = Path(__file__).with_name("load.py")


@pytest.fixture
def config(sandbox, tmp_path):
    def made(*providers, **top):
        return sandbox.config(*providers, ledger=str(tmp_path / "ledger"), **top)

    return made


def assert_all_served(sandbox, pipeline, *, lost=0):
    """Compare each table with what the sandbox says is in the windows that were loaded last.

    Args:
        sandbox: The services.
        pipeline: Whose tables are read.
        lost: The most jobs of which no answer had come when their process was killed.
    """
    runs = sorted(table(pipeline, "export_runs"), key=lambda run: run["submitted_at"])
    failed = [run["error"] for run in runs if run["status"] == "failed"]
    assert len(failed) <= lost, failed
    last = {(run["stream"], run["window_start"]): run for run in runs if run["status"] != "failed"}
    for stream in {run["stream"] for run in runs}:
        windows = [
            tuple(run[key] and run[key].isoformat() for key in ("window_start", "window_end", "submitted_at"))
            for run in last.values()
            if run["stream"] == stream
        ]
        rows = table(pipeline, stream)
        assert_served(sandbox, stream, windows, rows)
        assert {row["_sdc_export_id"] for row in rows} <= {run["export_id"] for run in last.values()}
    return runs


def midnight(days):
    """The beginning of a day, so many days ago, in UTC."""
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT00:00:00Z")


def test_every_row_arrives_and_a_second_run_loads_only_what_is_new(sandbox, config, make):
    pipeline = make()
    pipeline.run(analytics_exports(config()))
    first = assert_all_served(sandbox, pipeline)
    triggered = len(sandbox.get("jobs"))
    again = make("another machine")
    again.run(analytics_exports(config()))
    second = assert_all_served(sandbox, again)
    # Snapshots are taken anew; of the rest, the window that the clock had cut goes on.
    assert len(second) - len(first) == len(sandbox.get("jobs")) - triggered == len(EXPORTS)


def start(config, folder, *args):
    path = folder / "settings.json"
    path.write_text(json.dumps(config))
    return subprocess.Popen([sys.executable, LOAD, path, folder, *args], cwd=folder)


# Of giosg, whose download is the job, and of the providers that can't look a job up, other rules hold.
RESUMABLE = ("intelepeer", "khoros_care", "gooee")


def test_a_run_that_is_killed_before_its_rows_are_loaded(sandbox, config, make, tmp_path):
    assert start(config("giosg", "gooee", end_date=midnight(1)), tmp_path).wait(120) == 0
    until = config("giosg", "gooee", end_date=midnight(0))
    assert start(until, tmp_path, "die").wait(120) == -signal.SIGKILL
    triggered = len(sandbox.get("jobs"))
    before = {stream: len(table(make(), stream)) for stream in ("giosg_calls", "giosg_popups")}
    assert start(until, tmp_path).wait(120) == 0  # dlt loads what is extracted, and extracts nothing
    assert len(sandbox.get("jobs")) == triggered
    runs = assert_all_served(sandbox, make())
    assert len(runs) == triggered
    assert all(len(table(make(), stream)) > rows for stream, rows in before.items())
    assert start(until, tmp_path).wait(120) == 0
    assert len(assert_all_served(sandbox, make())) == triggered + len(SNAPSHOTS) - 1


@pytest.mark.parametrize("jobs", [3, 12])
def test_a_run_that_is_killed_while_it_exports(sandbox, config, make, tmp_path, jobs):
    until = config(*RESUMABLE, end_date=midnight(0))
    process = start(until, tmp_path)
    while len(sandbox.get("jobs")) < jobs:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert start(until, tmp_path).wait(120) == 0
    runs = assert_all_served(sandbox, make(), lost=len(RESUMABLE))
    assert any(run["resumed"] for run in runs)
    assert len(sandbox.get("jobs")) <= len(runs)
