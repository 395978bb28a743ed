"""giosg, as its documents say it, and what each of its answers comes to; first without the tap."""

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import Sandbox, run_tap, start_tap
from vendors import CALLS, outcome, provider, run, yesterday

from tap_analytics_exports.errors import Refused, SettingsError
from tap_analytics_exports.transport.download import download
from tap_analytics_exports.windows import Window

NAME = "giosg"
DAY = yesterday()
POPUPS = "c1f7e0d2-98b4-4a36-b5c3-2e4f6a8b0c1d"


def expected(sandbox: Sandbox, step: str = f"{CALLS}/1") -> list[dict[str, str]]:
    span = {"start": DAY.start.isoformat(), "end": DAY.end.isoformat()}
    return sandbox.get("expected", provider=NAME, export=step, **span)


def asked(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The bodies of all download requests."""
    seen = sandbox.get("requests", service=NAME)
    return [json.loads(each["body"]) for each in seen if each["path"].endswith("/download/")]


def infos(sandbox: Sandbox) -> int:
    return len([each for each in sandbox.get("requests", service=NAME) if each["path"].endswith("/info/")])


def events(rows: list[dict[str, str]]) -> list[str]:
    return [row["event_id"] for row in rows]


def good(sandbox: Sandbox, found) -> None:
    assert found.statuses[-1] == "loaded", found
    assert events(found.rows) == events(expected(sandbox))


# The download


def test_the_answer_to_one_post_is_the_file(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path))
    (request,) = quick.get("requests", service=NAME)
    organization = quick.config()[NAME]["organization_id"]
    path = f"/api/reporting/workflow/v1/orgs/{organization}/workflows/{CALLS}/step/1/download/"
    assert (request["method"], request["path"], request["authorization"]) == ("POST", path, "Token")
    assert json.loads(request["body"]) == {
        "filters": [],
        "target": "default",
        "format": "csv",
        "interval": {
            "start": DAY.start.isoformat(),
            "end": (DAY.end - timedelta(microseconds=1)).isoformat(),
        },
    }


def test_a_bearer_token(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path, auth_scheme="Bearer"))
    (request,) = quick.get("requests", service=NAME)
    assert request["authorization"] == "Bearer"


@pytest.mark.parametrize("inclusive", [True, False])
def test_events_on_the_edges_of_windows_come_once(quick, inclusive, tmp_path):
    quick.post("settings", {"giosg_end_inclusive": inclusive})
    rows = expected(quick)
    instants = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    assert DAY.start in instants  # and the next day's first event is on the other edge
    edges = [DAY.start + timedelta(hours=6 * n) for n in range(5)]
    with provider(quick, NAME) as (made, request):
        parts = [run(made, replace(request, window=Window(*span)), tmp_path) for span in pairwise(edges)]
    assert [event for part in parts for event in events(part.rows)] == events(rows)


STEP_DATA = [{}, {"actions": ["Call ended"]}]
FILTERS = [{"property": "action", "values": ["User dialed", "Call ended"]}]


@pytest.mark.parametrize(
    ("export", "chosen"),
    [
        ({"filters": FILTERS}, lambda row: row["action"] in {"User dialed", "Call ended"}),
        ({"workflow_id": POPUPS, "step_data": STEP_DATA}, lambda row: row["action"] == "Call ended"),
        ({"target": "triggered_goal"}, lambda row: row["category"] == "goal"),
    ],
)
def test_filters_step_data_and_target_choose(quick, export, chosen, tmp_path):
    found = outcome(quick, NAME, tmp_path, export=export)
    rows = expected(quick, f"{export.get('workflow_id', CALLS)}/1")
    assert events(found.rows) == events([row for row in rows if chosen(row)])
    (sent,) = asked(quick)
    assert sent.items() >= {name: part for name, part in export.items() if name != "workflow_id"}.items()


def test_a_limit_goes_along_and_its_window_is_never_split(quick, tmp_path):
    found = outcome(quick, NAME, tmp_path, export={"limit": 7})
    assert events(found.rows) == events(expected(quick)[:7])
    assert asked(quick)[0]["limit"] == 7
    found = outcome(quick, NAME, tmp_path, fault(status=504), export={"limit": 5})
    assert found.statuses == ["failed"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"export": {"filters": [{"property": "label", "values": []}]}},
            "406 .*not yet implemented.*change `filters`",
        ),
        (
            {"organization_id": "another"},
            "403 .*do not have access to the organization.*check that the organization has a subscr",
        ),
    ],
)
def test_a_refused_request_fails_with_the_words_of_giosg(quick, how, message, tmp_path):
    found = outcome(quick, NAME, tmp_path, **how)
    assert found.statuses == ["failed"]
    assert re.search(message, found.error)


def test_the_settings_know_what_giosg_takes(sandbox):
    wrong = {"limit": 0, "target": "goal", "format": "json", "step_index": -1}
    with pytest.raises(SettingsError) as raised, provider(sandbox, NAME, export=wrong):
        pass
    for name in wrong:
        assert f"giosg.exports[0].{name}: " in str(raised.value)


# No data, and no such workflow, for which giosg has one answer


def test_a_step_without_data_is_an_empty_window_and_its_workflow_is_asked_for_once(quick, tmp_path):
    with provider(quick, NAME, export={"step_index": 3}) as (made, request):  # which the workflow skips
        for half in DAY.halves():
            assert run(made, replace(request, window=half), tmp_path).statuses == ["empty"]
    assert infos(quick) == 1


def test_a_mistyped_workflow_is_a_failure_and_not_an_empty_day(quick, tmp_path):
    mistyped = CALLS.replace("0d9a", "0d9b")
    with provider(quick, NAME, export={"workflow_id": mistyped}) as (made, request):
        found = [run(made, replace(request, window=half), tmp_path) for half in DAY.halves()]
    for each in found:
        assert each.statuses == ["failed"]
        assert re.search(
            f"giosg: .*404.*no workflow {mistyped}.*check workflow_id and organization_id", each.error
        )
    assert infos(quick) == 1


@pytest.mark.parametrize("status", [403, 405, 501])
def test_where_nobody_may_see_the_workflow_it_is_believed_in(quick, status, tmp_path, caplog):
    info = {"path": "/info/", "times": None, "action": {"status": status}}
    found = outcome(quick, NAME, tmp_path, info, export={"step_index": 3})
    assert found.statuses == ["empty"]
    assert f"answered {status}; whether the workflow exists can't be seen" in caplog.text


def test_a_workflow_that_can_not_be_seen_now_is_asked_for_again(quick, tmp_path):
    info = {"path": "/info/", "times": 6, "action": {"status": 503}}
    found = outcome(quick, NAME, tmp_path, info, export={"step_index": 3})
    assert found.statuses == ["failed", "empty"]
    assert "info/ answered 503" in found.error


# Credentials


def test_refused_credentials(quick, tmp_path):
    with provider(quick, NAME, api_token="not-the-right-one") as (made, request):
        (file,) = made.files(request, made.submit(request))
        for verb in (made.check, lambda: download(file, tmp_path / "file")):
            with pytest.raises(Refused, match=r"giosg: .*401.*check the credentials") as raised:
                verb()
            assert "not-the-right-one" not in str(raised.value)


def test_check_asks_for_the_workflow(quick):
    with provider(quick, NAME) as (made, _):
        made.check()
    (request,) = quick.get("requests", service=NAME)
    assert (request["method"], urlsplit(request["path"]).path[-6:]) == ("GET", "/info/")


# The table of outcomes


def fault(times: int | None = 1, after: int = 0, **action: Any) -> dict[str, Any]:
    return {"method": "POST", "times": times, "after": after, "action": action}


FORMAT = {"format": ["Format must be 'xlsx' or 'csv'. Change the value or omit the field from payload."]}
OUTCOMES = {
    # What goes wrong: what the jobs come to, the requests, the message.
    "400": (
        fault(status=400, body=FORMAT),
        ["failed"],
        1,
        "400.*Format must be 'xlsx' or 'csv'.*check filters",
    ),
    "404 without words": (fault(status=404), ["empty"], 1, ""),
    "204": (fault(status=204), ["empty"], 1, ""),
    "410": (fault(status=410), ["failed"], 1, "answered 410"),
    "429, come back": (fault(status=429, headers={"Retry-After": "2"}), ["loaded"], 2, ""),
    "503 twice": (fault(2, status=503), ["loaded"], 3, ""),
    "500 once": (fault(status=500), ["loaded"], 3, ""),  # then in halves
    "500 always": (fault(None, status=500, body={"m": "query"}), ["failed"] * 3, None, "500.*query"),
    "502 once": (fault(status=502), ["failed", "loaded"], 2, "answered 502"),
    "504 for the whole day": (fault(status=504), ["loaded"], 3, ""),
    "no answer": (fault(close="before_headers"), ["failed", "loaded"], 2, "did not arrive whole"),
    "cut by its length": (fault(truncate_after_bytes=900), ["failed", "loaded"], 2, "broke off"),
    "packed, cut, in whole chunks": (
        fault(gzip_encode=True, chunked_truncate=True),
        ["failed", "loaded"],
        2,
        "broke off",
    ),
    "whole without a length": (fault(no_length=True), ["failed"], 1, "allow_unverified_downloads"),
    "packed for the way": (fault(gzip_encode=True), ["loaded"], 1, ""),
    "JSON in place of the file": (
        fault(status=200, body={"detail": "Try later"}),
        ["failed"],
        1,
        "in place of the file.*Try later",
    ),
    "a web page": (
        fault(status=200, body="<html>", headers={"Content-Type": "text/html"}),
        ["failed", "loaded"],
        2,
        "web page",
    ),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_outcomes(quick, case, tmp_path):
    rule, statuses, requests, message = OUTCOMES[case]
    found = outcome(quick, NAME, tmp_path, rule)
    assert found.statuses == statuses, found.error
    assert requests is None or len(asked(quick)) == requests
    assert re.search(message, found.error), found.error
    if statuses[-1] == "loaded":
        good(quick, found)


# Through the front door


def steps(sandbox: Sandbox, *exports: dict[str, Any], **block: Any) -> dict[str, Any]:
    """One day of some steps, of the calls' first one if none is named."""
    config = sandbox.config(NAME, start_date=DAY.start.isoformat(), end_date=DAY.end.isoformat())
    exports = exports or ({},)
    step = {"workflow_id": CALLS, "step_index": 1}
    named = [{"name": f"x{i}" if i else "calls", **step, **export} for i, export in enumerate(exports)]
    config[NAME] |= {"exports": named, **block}
    return config


def test_csv_and_xlsx_give_the_same_typed_rows_which_say_where_they_come_from(sandbox):
    columns = {"value": "number", "properties": "json", "device_screen_height": "integer", "dim5": "integer"}
    both = [{"format": kind, "columns": columns} for kind in ("csv", "xlsx")]
    result = run_tap(steps(sandbox, *both))
    assert result.exit_code == 0, result.stderr

    def rows(stream: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "_sdc_export_id"} for row in result.records(stream)]

    assert events(rows("calls")) == events(expected(sandbox))
    assert rows("calls") == rows("x1")
    assert isinstance(rows("x1")[0]["value"], float | int)
    first, served = result.records("calls")[0], expected(sandbox)[0]
    assert first["event_version"] == 1
    assert first["timestamp"].endswith("+00:00")
    assert datetime.fromisoformat(first["timestamp"]) == datetime.fromisoformat(served["timestamp"])
    assert result.schema("calls")["timestamp"]["format"] == "date-time"
    assert first["_sdc_organization_id"] == sandbox.config()[NAME]["organization_id"]
    assert (first["_sdc_workflow_id"], first["_sdc_step_index"]) == (CALLS, 1)


def test_no_data_moves_the_bookmark_and_a_mistyped_workflow_does_not(sandbox):
    result = run_tap(steps(sandbox, {"step_index": 3}, {"workflow_id": "mistyped"}))
    assert result.exit_code == 3, result.stderr
    runs = {run["stream"]: run for run in result.runs}
    assert {stream: run["status"] for stream, run in runs.items()} == {"calls": "empty", "x1": "failed"}
    assert (runs["calls"]["sha256"], runs["calls"]["files"]) == (None, 0)
    assert "no workflow mistyped" in runs["x1"]["error"]
    assert result.bookmark("calls")["replication_key_value"] == DAY.end.isoformat()
    assert "replication_key_value" not in result.bookmark("x1")


def test_giosg_may_compute_as_long_as_the_export_may_take(sandbox):
    sandbox.post("settings", {"giosg_seconds": 2})
    result = run_tap({**steps(sandbox), "export_timeout": "PT1S"})
    assert (result.exit_code, len(asked(sandbox))) == (3, 1)
    assert "no answer in time" in result.runs[0]["error"]
    result = run_tap({**steps(sandbox), "export_timeout": "PT30S"})
    assert (result.exit_code, events(result.records("calls"))) == (0, events(expected(sandbox)))


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
    result = run_tap(config, state=state)
    assert (result.exit_code, events(result.records("calls"))) == (0, events(expected(sandbox)))


def test_halves_that_are_here_are_not_asked_for_again(sandbox):
    sandbox.post(
        "faults", [{"service": NAME, **rule} for rule in (fault(status=504), fault(2, 1, status=502))]
    )
    result = run_tap(steps(sandbox))
    assert [run["status"] for run in result.runs] == ["failed", "failed", "loaded"]
    starts = [body["interval"]["start"] for body in asked(sandbox)]
    middle = (DAY.start + timedelta(hours=12)).isoformat()
    assert starts == [DAY.start.isoformat(), DAY.start.isoformat(), middle, middle, middle]


def test_a_workbook_without_a_length_is_proved_by_its_directory(quick, tmp_path):
    with provider(quick, NAME, export={"format": "xlsx"}) as (made, request):
        quick.post("faults", [{"service": NAME, **fault(no_length=True)}])
        assert run(made, request, tmp_path).statuses == ["loaded"]
        cut = fault(no_length=True, truncate_after_bytes=5000)
        quick.post("faults", [{"service": NAME, **cut}])
        assert run(made, request, tmp_path).statuses == ["failed", "loaded"]


def test_a_host_that_refuses_connections_makes_no_record_of_jobs_that_never_were(sandbox):
    result = run_tap(steps(sandbox, base_url="http://127.0.0.1:9"))
    assert (result.exit_code, result.runs) == (3, [])
    assert "connection refused" in result.stderr
    assert "jobs" in result.bookmark("calls")
    assert result.bookmark("calls")["jobs"] == []
