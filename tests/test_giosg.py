"""giosg, as its documents say it, and what the tap makes of each of its answers."""

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import Result, Sandbox, run_tap, start_tap

NEXT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = NEXT - timedelta(days=1)
CALLS = "0d9a1f7e-3c52-4b8e-8f64-7a1b2c3d4e5f"
POPUPS = "c1f7e0d2-98b4-4a36-b5c3-2e4f6a8b0c1d"


def steps(sandbox: Sandbox, *exports: dict[str, Any], **block: Any) -> dict[str, Any]:
    """One day of some steps, of the calls' first one if none is named."""
    config = sandbox.config("giosg", start_date=DAY.isoformat(), end_date=NEXT.isoformat())
    exports = exports or ({},)
    step = {"workflow_id": CALLS, "step_index": 1}
    named = [{"name": f"x{i}" if i else "calls", **step, **export} for i, export in enumerate(exports)]
    config["giosg"] |= {"exports": named, **block}
    return config


def expected(sandbox: Sandbox, step: str = f"{CALLS}/1") -> list[dict[str, str]]:
    span = {"start": DAY.isoformat(), "end": NEXT.isoformat()}
    return sandbox.get("expected", provider="giosg", export=step, **span)


def asked(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The bodies of all download requests."""
    seen = sandbox.get("requests", service="giosg")
    return [json.loads(each["body"]) for each in seen if each["path"].endswith("/download/")]


def statuses(result: Result) -> list[str]:
    return [run["status"] for run in result.runs]


def events(result: Result, stream: str = "calls") -> list[str]:
    return [record["event_id"] for record in result.records(stream)]


def good(sandbox: Sandbox, result: Result) -> None:
    assert (result.exit_code, statuses(result)[-1]) == (0, "loaded"), result.stderr
    assert events(result) == [row["event_id"] for row in expected(sandbox)]


# The download


def test_the_answer_to_one_post_is_the_file(sandbox):
    result = run_tap(steps(sandbox))
    good(sandbox, result)
    (request,) = sandbox.get("requests", service="giosg")
    organization = sandbox.config()["giosg"]["organization_id"]
    path = f"/api/reporting/workflow/v1/orgs/{organization}/workflows/{CALLS}/step/1/download/"
    assert (request["method"], request["path"], request["authorization"]) == ("POST", path, "Token")
    assert json.loads(request["body"]) == {
        "filters": [],
        "target": "default",
        "format": "csv",
        "interval": {
            "start": DAY.isoformat(),
            "end": (NEXT - timedelta(microseconds=1)).isoformat(),
        },
    }


def test_a_bearer_token(sandbox):
    good(sandbox, run_tap(steps(sandbox, auth_scheme="Bearer")))
    (request,) = sandbox.get("requests", service="giosg")
    assert request["authorization"] == "Bearer"


def test_csv_and_xlsx_give_the_same_rows(sandbox):
    columns = {"value": "number", "properties": "json", "device_screen_height": "integer", "dim5": "integer"}
    both = [{"format": kind, "columns": columns} for kind in ("csv", "xlsx")]
    result = run_tap(steps(sandbox, *both))
    good(sandbox, result)

    def rows(stream: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "_sdc_export_id"} for row in result.records(stream)]

    assert rows("calls") == rows("x1")
    assert isinstance(rows("x1")[0]["value"], float | int)


def test_records_are_typed_and_say_where_they_come_from(sandbox):
    result = run_tap(steps(sandbox))
    first, served = result.records("calls")[0], expected(sandbox)[0]
    assert first["event_version"] == 1
    assert first["timestamp"].endswith("+00:00")
    assert datetime.fromisoformat(first["timestamp"]) == datetime.fromisoformat(served["timestamp"])
    assert result.schema("calls")["timestamp"]["format"] == "date-time"
    assert first["_sdc_organization_id"] == sandbox.config()["giosg"]["organization_id"]
    assert (first["_sdc_workflow_id"], first["_sdc_step_index"]) == (CALLS, 1)


@pytest.mark.parametrize("inclusive", [True, False])
def test_events_on_the_edges_of_windows_come_once(sandbox, inclusive):
    sandbox.post("settings", {"giosg_end_inclusive": inclusive})
    rows = expected(sandbox)
    moments = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    assert DAY in moments  # and the next day's first event is on the other edge
    result = run_tap(steps(sandbox, {"window": "PT6H"}))
    good(sandbox, result)
    edges = [DAY + timedelta(hours=6 * n) for n in range(5)]
    assert [(run["window_start"], run["window_end"]) for run in result.runs] == [
        (left.isoformat(), right.isoformat()) for left, right in pairwise(edges)
    ]


def test_filters_step_data_target_and_limit_choose(sandbox):
    filters = [{"property": "action", "values": ["User dialed", "Call ended"]}]
    step_data = [{}, {"actions": ["Call ended"]}]
    result = run_tap(
        steps(
            sandbox,
            {"filters": filters},
            {"workflow_id": POPUPS, "step_data": step_data},
            {"target": "triggered_goal"},
            {"limit": 7},
        )
    )
    assert result.exit_code == 0, result.stderr
    calls, popups = expected(sandbox), expected(sandbox, f"{POPUPS}/1")
    assert events(result) == [
        row["event_id"] for row in calls if row["action"] in {"User dialed", "Call ended"}
    ]
    assert events(result, "x1") == [row["event_id"] for row in popups if row["action"] == "Call ended"]
    assert events(result, "x2") == [row["event_id"] for row in calls if row["category"] == "goal"]
    assert events(result, "x3") == [row["event_id"] for row in calls[:7]]
    choices = [{k: v for k, v in each.items() if k not in ("interval", "format")} for each in asked(sandbox)]
    assert {"filters": [], "target": "default", "limit": 7} in choices
    assert {"filters": [], "target": "default", "step_data": step_data} in choices


def test_no_data_is_an_empty_window_that_moves_the_bookmark(sandbox):
    result = run_tap(steps(sandbox, {"step_index": 3}))  # an index that the workflow skips
    assert (result.exit_code, statuses(result), events(result)) == (0, ["empty"], []), result.stderr
    assert result.bookmark("calls")["replication_key_value"] == NEXT.isoformat()
    assert (result.runs[0]["sha256"], result.runs[0]["files"]) == (None, 0)


@pytest.mark.parametrize(
    ("block", "export", "message"),
    [
        (
            {},
            {"filters": [{"property": "label", "values": []}]},
            "406 .*not yet implemented.*change `filters`",
        ),
        (
            {"organization_id": "another"},
            {},
            "403 .*do not have access to the organization.*check the subscr",
        ),
    ],
)
def test_a_refused_request_fails_with_the_words_of_giosg(sandbox, block, export, message):
    result = run_tap(steps(sandbox, export, **block))
    assert (result.exit_code, statuses(result)) == (3, ["failed"])
    assert re.search(message, result.runs[0]["error"])
    assert re.search(message, result.stderr)


def test_the_settings_know_what_giosg_takes(sandbox):
    wrong = {"limit": 0, "target": "goal", "format": "json", "step_index": -1}
    result = run_tap(steps(sandbox, wrong))
    assert result.exit_code == 1
    for name in wrong:
        assert f"giosg.exports[0].{name}: " in result.stderr
    assert not sandbox.get("requests", service="giosg")


# Credentials


def test_refused_credentials_fail_the_provider_by_name(sandbox):
    config = steps(sandbox, api_token="not-the-right-one")
    result = run_tap(config)
    assert (result.exit_code, result.runs) == (1, [])
    assert re.search("giosg.*401.*check the credentials", result.stderr)
    tested = run_tap(config, "--test")
    assert tested.exit_code == 1
    assert "not-the-right-one" not in result.stderr + tested.stdout + tested.stderr


def test_test_asks_for_the_workflow(sandbox):
    result = run_tap(steps(sandbox), "--test")
    assert result.exit_code == 0, result.stderr
    (request,) = sandbox.get("requests", service="giosg")
    assert (request["method"], urlsplit(request["path"]).path[-6:]) == ("GET", "/info/")


# Time


def test_giosg_may_compute_as_long_as_the_export_may_take(sandbox):
    sandbox.post("settings", {"giosg_seconds": 3})
    result = run_tap({**steps(sandbox), "export_timeout": "PT1S"})
    assert (result.exit_code, statuses(result), len(asked(sandbox))) == (3, ["failed"], 1)
    assert "no answer in time" in result.runs[0]["error"]
    good(sandbox, run_tap({**steps(sandbox), "export_timeout": "PT30S"}))


def test_a_later_process_asks_again(sandbox):
    sandbox.post("settings", {"giosg_seconds": 3})
    config = {**steps(sandbox), "ledger": ""}
    with start_tap(config) as process:
        assert process.stdout is not None
        state = next(
            value
            for line in process.stdout
            if (value := json.loads(line).get("value")) and value["bookmarks"]["calls"].get("jobs")
        )
    sandbox.post("settings", {"giosg_seconds": 0})
    good(sandbox, run_tap(config, state=state))


# The table of outcomes


def fault(times: int | None = 1, after: int = 0, **action: Any) -> dict[str, Any]:
    return {"service": "giosg", "method": "POST", "times": times, "after": after, "action": action}


FORMAT = {"format": ["Format must be 'xlsx' or 'csv'. Change the value or omit the field from payload."]}
OUTCOMES = {
    # What goes wrong: the exit code, the runs, the requests, the message.
    "400": (fault(status=400, body=FORMAT), 3, ["failed"], 1, "400.*Format must be 'xlsx' or 'csv'"),
    "404 without words": (fault(status=404), 0, ["empty"], 1, None),
    "204": (fault(status=204), 0, ["empty"], 1, None),
    "410": (fault(status=410), 3, ["failed"], 1, "answered 410"),
    "429, come back": (fault(status=429, headers={"Retry-After": "2"}), 0, ["loaded"], 2, None),
    "503 twice": (fault(2, status=503), 0, ["loaded"], 3, None),
    "500 once": (fault(status=500), 0, ["loaded"], 3, None),  # then in halves
    "500 always": (fault(None, status=500, body={"m": "query"}), 3, ["failed"] * 3, None, "500.*query"),
    "502 once": (fault(status=502), 0, ["failed", "loaded"], 2, "answered 502"),
    "504 for the whole day": (fault(status=504), 0, ["loaded"], 3, None),
    "no answer": (fault(close="before_headers"), 0, ["failed", "loaded"], 2, "did not arrive whole"),
    "cut by its length": (fault(truncate_after_bytes=900), 0, ["failed", "loaded"], 2, "broke off"),
    "packed, cut, in whole chunks": (
        fault(gzip_encode=True, chunked_truncate=True),
        0,
        ["failed", "loaded"],
        2,
        "broke off",
    ),
    "whole without a length": (fault(no_length=True), 3, ["failed"], 1, "allow_unverified_downloads"),
    "packed for the way": (fault(gzip_encode=True), 0, ["loaded"], 1, None),
    "JSON in place of the file": (
        fault(status=200, body={"detail": "Try later"}),
        3,
        ["failed"],
        1,
        "in place of the file.*Try later",
    ),
    "a web page": (
        fault(status=200, body="<html>", headers={"Content-Type": "text/html"}),
        0,
        ["failed", "loaded"],
        2,
        "web page",
    ),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_outcomes(sandbox, case):
    rule, exit_code, runs, requests, message = OUTCOMES[case]
    sandbox.post("faults", [rule])
    result = run_tap(steps(sandbox))
    assert (result.exit_code, statuses(result)) == (exit_code, runs), result.stderr
    sent = [each for each in sandbox.get("requests", service="giosg") if each["method"] == "POST"]
    assert requests is None or len(sent) == requests
    errors = " ".join(run["error"] or "" for run in result.runs)
    assert message is None or re.search(message, errors), errors
    if runs[-1] == "loaded":
        good(sandbox, result)


def test_halves_that_are_here_are_not_asked_for_again(sandbox):
    sandbox.post("faults", [fault(status=504), fault(2, after=1, status=502)])
    result = run_tap(steps(sandbox))
    assert statuses(result) == ["failed", "failed", "loaded"]
    good(sandbox, result)
    starts = [body["interval"]["start"] for body in asked(sandbox)]
    middle = (DAY + timedelta(hours=12)).isoformat()
    assert starts == [DAY.isoformat(), DAY.isoformat(), middle, middle, middle]


def test_a_window_with_a_limit_is_never_split(sandbox):
    sandbox.post("faults", [fault(status=504)])
    result = run_tap(steps(sandbox, {"limit": 5}))
    assert (result.exit_code, statuses(result)) == (3, ["failed"])


def test_a_wide_workbook_is_proved_by_its_directory(sandbox):
    sandbox.post("faults", [fault(no_length=True)])
    good(sandbox, run_tap(steps(sandbox, {"format": "xlsx"})))
    sandbox.post("faults", [fault(no_length=True, truncate_after_bytes=5000)])
    result = run_tap(steps(sandbox, {"format": "xlsx"}))
    assert statuses(result) == ["failed", "loaded"]
