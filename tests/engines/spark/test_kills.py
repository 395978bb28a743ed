"""Drivers and executors that are killed: every row once, and no export triggered twice."""

import json

import pytest
from conftest import sunk

# Each file takes a while, so that there is something to kill.
SLOW = {"service": "khoros_care", "path": "/download", "times": None, "action": {"delay": 1}}


def downloads(sandbox):
    return [each for each in sandbox.get("requests", service="khoros_care") if "/download" in each["path"]]


@pytest.mark.parametrize("mode", ["batch", "stream"])
def test_a_driver_is_killed_while_rows_are_read(exported, sandbox, start_driver, tmp_path, mode):
    exported = exported("khoros_care", days=6)
    sandbox.post("faults", [SLOW])
    driver = start_driver(exported, mode)
    driver.until(lambda: downloads(sandbox))
    driver.kill()
    assert len(exported.jobs()) == 6
    sandbox.post("faults", [])
    start_driver(exported, mode).finish()
    assert not exported.differences(sunk(tmp_path / "rows"))
    assert len(exported.jobs()) == 6


def test_a_driver_is_killed_while_it_awaits_jobs_that_no_offset_has(
    exported, sandbox, start_driver, tmp_path
):
    sandbox.post("settings", {"job_seconds": 3})
    exported = exported("khoros_care", days=2)
    driver = start_driver(exported, "stream")
    driver.until(lambda: len(exported.jobs()) == 2)
    driver.kill()
    assert not list((tmp_path / "checkpoint/offsets").glob("[0-9]*"))
    start_driver(exported, "stream").finish()
    assert not exported.differences(sunk(tmp_path / "rows"))
    assert len(exported.jobs()) == 2
    offset = json.loads((tmp_path / "checkpoint/offsets/0").read_text().splitlines()[-1])
    assert offset["end"] == exported.end.isoformat()
    assert all(set(job["handle"]) == {"workflowId", "runId"} for job in json.loads(offset["jobs"]))


def test_an_executor_of_a_cluster_is_killed(exported, sandbox, cluster, start_driver, tmp_path):
    exported = exported("khoros_care", days=6)
    sandbox.post("faults", [{**SLOW, "action": {"delay": 8}}])
    driver = start_driver(exported, "batch", master=cluster.address)
    driver.until(lambda: len(downloads(sandbox)) == 2)  # so each executor has one in hand
    assert cluster.kill_executors(0)
    sandbox.post("faults", [])
    driver.finish()
    assert not exported.differences(sunk(tmp_path / "rows"))
    assert len(exported.jobs()) == 6
    assert len(downloads(sandbox)) > 6  # one of them was made again
