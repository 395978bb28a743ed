"""What a run would do is known beforehand, and knowing it changes nothing."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import vendor
from vendor import DAY, PROCESS, START, Died, Fake

from tap_analytics_exports import Extraction, PlannedJob
from tap_analytics_exports import extraction as core
from tap_analytics_exports.jobs.schedule import Jobs


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "installed", lambda: {"fake": Fake})
    PROCESS.start()


def settings(address: str, ledger: Path, **export: Any) -> dict[str, Any]:
    return {
        "start_date": START.isoformat(),
        "end_date": (START + 3 * DAY).isoformat(),
        "poll_interval": "PT0.001S",
        "poll_interval_max": "PT0.001S",
        "ledger": str(ledger),
        "fake": {"base_url": address, "api_token": "x" * 20, "exports": [{"name": "rows", **export}]},
    }


def bookmark(days: float) -> dict[str, Any]:
    when = (START + timedelta(days=days)).isoformat()
    return {
        "bookmarks": {"rows": {"replication_key": "_sdc_window_end", "replication_key_value": when}},
    }


def plan(given: dict[str, Any], state: dict[str, Any] | None = None) -> list[PlannedJob]:
    with Extraction(given, state) as extraction:
        return extraction.plan()


def killed(given: dict[str, Any], steps: int) -> None:
    """A run whose process dies after so many steps."""
    PROCESS.start(steps)
    with pytest.raises(Died), Extraction(given) as extraction:
        list(extraction)
    PROCESS.start()


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    ("export", "state", "why"),
    [
        ({}, None, ["first run"] * 3),
        ({}, 2, ["behind the bookmark"]),
        ({}, 1.5, ["was cut by the end of an earlier run", "behind the bookmark"]),
        ({"lookback": "P1D"}, 2, ["lookback", "behind the bookmark"]),
        ({}, 3, []),
        ({"snapshot": True}, None, ["a snapshot of now"]),
    ],
)
def test_each_job_has_its_reason_and_is_what_the_run_then_does(tmp_path, export, state, why):
    address, world = vendor.world()
    given, state = settings(address, tmp_path, **export), None if state is None else bookmark(state)
    jobs = plan(given, state)
    assert [(job.action, job.source, job.why) for job in jobs] == [("trigger", None, each) for each in why]
    assert world.jobs == {}
    assert list(tmp_path.rglob("*")) == []
    with Extraction(given, state) as extraction:
        list(extraction)
    windows = [
        request.window and (request.window.start, request.window.end) for request in world.jobs.values()
    ]
    assert sorted(windows, key=str) == sorted((job.window for job in jobs), key=str)


def test_what_an_earlier_run_triggered_is_resumed_and_the_ledger_stays_as_it_is(tmp_path):
    address, world = vendor.world(script={"2026-01-01": ["never"]})
    given = settings(address, tmp_path)
    killed(given, 60)
    triggered = {request.window.start: request.export_id for request in world.jobs.values()}
    assert triggered
    before = contents(tmp_path)
    jobs = plan(given)
    resumed = {job.window[0]: job.export_id for job in jobs if job.action == "resume" and job.window}
    assert resumed == triggered
    assert {job.source for job in jobs if job.action == "resume"} == {"ledger"}
    assert all(job.submitted_at for job in jobs if job.action == "resume")
    assert contents(tmp_path) == before


def test_a_job_that_the_state_names_is_of_the_state(tmp_path):
    address, _ = vendor.world()
    given = settings(address, tmp_path)
    with Extraction(given) as extraction:
        events = iter(extraction)
        while not (state := next(events).state)["bookmarks"]["rows"]["jobs"]:
            pass
    jobs = plan({**given, "ledger": ""}, state)
    assert {job.source for job in jobs if job.action == "resume"} == {"state"}


def test_a_job_that_failed_and_was_not_told_of_is_a_reason_too(tmp_path, monkeypatch):
    address, _ = vendor.world(script={"2026-01-01": ["failed"]})
    given = settings(address, tmp_path)

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched, pytest.raises(Died), Extraction(given) as extraction:
        patched.setattr(Jobs, "told", die)
        list(extraction)
    first = plan(given)[0]
    assert (first.action, first.source) == ("trigger", None)
    assert re.fullmatch("first run; an earlier job of it failed: .*it failed", first.why)


def test_a_plan_needs_no_export_that_another_run_has_in_hand(tmp_path):
    address, _ = vendor.world()
    given = settings(address, tmp_path)
    with Extraction(given) as extraction:
        next(iter(extraction))
        assert len(plan(given)) == 3
