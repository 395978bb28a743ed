"""All five providers, loaded by dlt: every row as the sandbox has served it, whatever happens between."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import table
from served import EXPORTS, SNAPSHOTS, assert_served

from tap_analytics_exports.dlt import analytics_exports

LOAD = Path(__file__).with_name("load.py")


@pytest.fixture
def config(sandbox, tmp_path):
    return sandbox.config(ledger=str(tmp_path / "ledger"))


def assert_all_served(sandbox, pipeline):
    """Compare each table with what the sandbox says is in the windows that were loaded last."""
    runs = sorted(table(pipeline, "export_runs"), key=lambda run: run["submitted_at"])
    assert {run["status"] for run in runs} <= {"loaded", "empty"}
    last = {(run["stream"], run["window_start"]): run for run in runs}
    for stream in EXPORTS:
        windows = [
            tuple(run[key] and run[key].isoformat() for key in ("window_start", "window_end", "submitted_at"))
            for run in last.values()
            if run["stream"] == stream
        ]
        rows = table(pipeline, stream)
        assert_served(sandbox, stream, windows, rows)
        assert {row["_sdc_export_id"] for row in rows} <= {run["export_id"] for run in last.values()}
    return runs


def assert_triggered_once(sandbox):
    """No export of a whole window was triggered twice."""
    jobs = [job for job in sandbox.get("jobs") if (job["service"], job["export"]) in EXPORTS.values()]
    counts = Counter((job["service"], job["export"], *(job["window"] or ())) for job in jobs)
    assert set(counts.values()) == {1}


def test_every_row_arrives_and_a_second_run_loads_only_what_is_new(sandbox, config, make):
    pipeline = make()
    pipeline.run(analytics_exports(config))
    first = assert_all_served(sandbox, pipeline)
    triggered = len(sandbox.get("jobs"))
    again = make("another machine")
    again.run(analytics_exports(config))
    second = assert_all_served(sandbox, again)
    # Snapshots are taken anew; of the rest, the window that the clock had cut goes on.
    assert len(second) - len(first) == len(sandbox.get("jobs")) - triggered == len(EXPORTS)


def start(config, folder, *args):
    path = folder / "settings.json"
    path.write_text(json.dumps(config))
    return subprocess.Popen([sys.executable, LOAD, path, folder, *args], cwd=folder)


def test_a_run_that_is_killed_before_its_rows_are_loaded(sandbox, config, make, tmp_path):
    config["end_date"] = f"{time.strftime('%Y-%m-%d', time.gmtime())}T00:00:00Z"
    assert start(config, tmp_path, "die").wait(120) == -signal.SIGKILL
    for _ in range(2):  # dlt loads what is extracted, and exports only then
        assert start(config, tmp_path).wait(120) == 0
    runs = assert_all_served(sandbox, make())
    snapshots = sum(run["stream"] in SNAPSHOTS for run in runs)
    assert len(runs) - snapshots == len({(run["stream"], run["window_start"]) for run in runs}) - len(
        SNAPSHOTS
    )
    assert snapshots == 2 * len(SNAPSHOTS)


@pytest.mark.parametrize("jobs", [3, 20])
def test_a_run_that_is_killed_while_it_exports(sandbox, config, make, tmp_path, jobs):
    config["end_date"] = f"{time.strftime('%Y-%m-%d', time.gmtime())}T00:00:00Z"
    process = start(config, tmp_path)
    while len(sandbox.get("jobs")) < jobs:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert start(config, tmp_path).wait(120) == 0
    runs = assert_all_served(sandbox, make())
    assert any(run["resumed"] for run in runs)
    assert_triggered_once(sandbox)
