"""Khoros Care, as its documents say it, and what the tap makes of each of its answers."""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import Result, Sandbox, run_tap, start_tap

NEXT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = NEXT - timedelta(days=1)
TRIGGER = r"/reports/report/(?!.*/(status|download)\?)"
STATUS = "/status"
DOWNLOAD = "/download"

# "About Analytics Reports" and the reference of each: the export, and its method.
EXPORTS = {
    "raw_agent_states": "POST",
    "combined": "POST",
    "conversation_actions": "GET",
    "conversation_history_action": "POST",
    "author": "POST",
    "conversation": "GET",
    "raw_expert_help": "POST",
    "incoming_post": "POST",
    "response": "POST",
    "response_approval": "POST",
    "team_performance": "POST",
    "team_performance_interval": "POST",
    "user": "GET",
}


def care(sandbox: Sandbox, *exports: dict[str, Any], **block: Any) -> dict[str, Any]:
    """One day of some exports, of incoming posts if none is named."""
    config = sandbox.config("khoros_care", start_date=DAY.isoformat(), end_date=NEXT.isoformat())
    exports = exports or ({"export_id": "incoming_post"},)
    named = [{"name": f"x{i}" if i else "posts", **export} for i, export in enumerate(exports)]
    config["khoros_care"] |= {"exports": named, **block}
    return config


def expected(
    sandbox: Sandbox, export: str, start: datetime = DAY, end: datetime = NEXT
) -> list[dict[str, str]]:
    span = {"start": start.isoformat(), "end": end.isoformat()}
    return sandbox.get("expected", provider="khoros_care", export=export, **span)


def requests(sandbox: Sandbox, path: str = "") -> list[dict[str, Any]]:
    return [each for each in sandbox.get("requests", service="khoros_care") if path in each["path"]]


def triggers(sandbox: Sandbox) -> int:
    return len(sandbox.get("jobs", service="khoros_care"))


def query(request: dict[str, Any]) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request["path"]).query)


def statuses(result: Result) -> list[str]:
    return [run["status"] for run in result.runs]


def ids(result: Result, stream: str, name: str) -> list[str]:
    return [str(record[name.lower()]) for record in result.records(stream)]


# Exports


def test_every_documented_export_and_a_marketing_one(sandbox):
    exports = [{"export_id": name, "name": f"x_{name}"} for name in EXPORTS]
    exports[-2]["parameters"] = {"timeInterval": 3600000}
    exports.append({"export_id": "raw_brand_post", "section": "marketing", "name": "x_marketing"})
    result = run_tap(care(sandbox, *exports, max_concurrent_exports=8))
    assert result.exit_code == 0, result.stderr
    for name in EXPORTS:
        rows = expected(sandbox, name)
        if name == "conversation":  # OPEN_AT_END, unless the user says otherwise
            rows = [row for row in rows if row["STATUS"] != "CLOSED"]
        first = next(iter(rows[0]))
        assert ids(result, f"x_{name}", first) == [row[first] for row in rows], name
    assert len(result.records("x_marketing")) == len(expected(sandbox, "marketing/raw_brand_post"))
    used = {
        urlsplit(each["path"]).path.removeprefix("/api/public/reports/report/"): each["method"]
        for each in requests(sandbox)
        if "reportFormat" in each["path"]
    }
    assert used == {**EXPORTS, "marketing/raw_brand_post": "GET"}


def test_csv_and_json_give_the_same_rows(sandbox):
    columns = {"POST_ID": "integer", "SENTIMENT": "integer"}
    both = [{"export_id": "incoming_post", "format": kind, "columns": columns} for kind in ("csv", "json")]
    result = run_tap(care(sandbox, *both))
    assert result.exit_code == 0, result.stderr

    def rows(stream: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "_sdc_export_id"} for row in result.records(stream)]

    assert len(rows("posts")) == len(expected(sandbox, "incoming_post")) > 0
    assert rows("posts") == rows("x1")
    assert [query(each)["reportFormat"] for each in requests(sandbox, "reportFormat")] == [["csv"], ["json"]]


def test_a_window_is_asked_for_in_milliseconds_with_inclusive_ends(sandbox):
    config = care(sandbox, {"export_id": "incoming_post", "window": "PT12H"})
    result = run_tap(config)
    noon = DAY + timedelta(hours=12)
    asked = [query(each) for each in requests(sandbox, "startTime")]
    assert sorted((int(each["startTime"][0]), int(each["endTime"][0])) for each in asked) == [
        (DAY.timestamp() * 1000, noon.timestamp() * 1000 - 1),
        (noon.timestamp() * 1000, NEXT.timestamp() * 1000 - 1),
    ]
    assert ids(result, "posts", "POST_ID") == [row["POST_ID"] for row in expected(sandbox, "incoming_post")]


def test_parameters_go_along_and_a_list_repeats_one(sandbox):
    parameters = {"teamIds": ["1", 2], "includeDisabled": True, "locale": "fr"}
    run_tap(care(sandbox, {"export_id": "team_performance", "parameters": parameters}))
    (asked,) = [query(each) for each in requests(sandbox, "startTime")]
    assert asked["teamIds"] == ["1", "2"]
    assert asked["includeDisabled"] == ["true"]
    assert asked["locale"] == ["fr"]


def test_a_parameter_of_the_taps_own_is_a_mistake_in_the_settings(sandbox):
    result = run_tap(care(sandbox, {"export_id": "author", "parameters": {"companyKey": "x"}}))
    assert result.exit_code == 1
    assert "khoros_care.exports[0].parameters.companyKey: is sent by the tap" in result.stderr
    assert not requests(sandbox)


# Columns


def test_metrics_select_columns_and_the_catalog_selects_among_them(sandbox):
    config = care(sandbox, {"export_id": "conversation", "metrics": ["CONVERSATION_ID", "STATUS", "NETWORK"]})
    catalog = json.loads(run_tap(config, "--discover").stdout)
    stream = next(each for each in catalog["streams"] if each["tap_stream_id"] == "posts")
    assert {"conversation_id", "status", "network"} < set(stream["schema"]["properties"])
    for entry in stream["metadata"]:
        if entry["breadcrumb"] == ["properties", "network"]:
            entry["metadata"]["selected"] = False
    result = run_tap(config, catalog=catalog)
    assert result.exit_code == 0, result.stderr
    (asked,) = [query(each) for each in requests(sandbox, "startTime")]
    assert asked["reportMetrics"] == ["CONVERSATION_ID", "STATUS"]
    names = {name for name in result.records("posts")[0] if not name.startswith("_sdc_")}
    assert names == {"conversation_id", "status"}


# Credentials


def test_every_call_is_signed_and_the_file_host_gets_nothing(sandbox):
    result = run_tap(care(sandbox), env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    assert result.exit_code == 0, result.stderr
    trigger, *_ = asked = requests(sandbox)
    assert {each["authorization"] for each in asked} == {"Basic"}
    assert all({"companyKey", "analyticsAccessToken"} & set(query(each)) for each in asked)
    assert (trigger["body"], query(trigger)["locale"]) == ("", ["en"])
    (file,) = sandbox.get("requests", service="khoros_files")
    assert (file["authorization"], file["cookies"]) == (None, [])
    assert sandbox.get("statistics")["counts"] == {}
    (job,) = [job for state in result.of("STATE") for job in state["value"]["bookmarks"]["posts"]["jobs"]]
    assert set(job["handle"]) == {"workflowId", "runId"}
    config = sandbox.config()["khoros_care"]
    for secret in (config["password"], config["company_key"], "analyticsAccessToken", "Signature="):
        assert secret not in result.stderr + result.stdout


def test_the_urls_of_another_host_get_no_credentials(sandbox):
    home, away = (r"127\.0\.0\.1(:\d+/[^\"]*/{})", r"localhost\1")
    faults = [
        {"service": "khoros_care", "path": TRIGGER, "action": {"substitute": [home.format("status"), away]}},
        {
            "service": "khoros_care",
            "path": STATUS,
            "times": None,
            "action": {"substitute": [home.format("download"), away]},
        },
    ]
    sandbox.post("faults", faults)
    result = run_tap(care(sandbox))
    assert (result.exit_code, statuses(result)) == (0, ["loaded"]), result.stderr
    assert {each["authorization"] for each in requests(sandbox, STATUS)} == {"Basic"}
    # The one at localhost is asked for as it is, and wants credentials; then the documented one is used.
    assert [each["authorization"] for each in requests(sandbox, DOWNLOAD)] == [None, "Basic"]


@pytest.mark.parametrize("key", ["password", "company_key"])
def test_refused_credentials_fail_the_provider_by_name(sandbox, key):
    config = care(sandbox, **{key: "not-the-right-one"})
    result = run_tap(config)
    assert (result.exit_code, result.runs, triggers(sandbox)) == (1, [], 0)
    assert "khoros_care" in result.stderr
    assert "check the credentials" in result.stderr
    tested = run_tap(config, "--test")
    assert tested.exit_code == 1
    assert "khoros_care" in tested.stdout + tested.stderr
    assert "not-the-right-one" not in result.stderr + tested.stdout + tested.stderr


def test_test_triggers_nothing(sandbox):
    result = run_tap(care(sandbox), "--test")
    assert (result.exit_code, triggers(sandbox)) == (0, 0), result.stderr
    assert [urlsplit(each["path"]).path for each in requests(sandbox)] == ["/api/public/config/timezones"]


# The answers' shapes and words


@pytest.mark.parametrize("export", ["combined", "author", "user"])  # no URLs, an empty one, an early one
def test_a_missing_status_url_is_built(sandbox, export):
    result = run_tap(care(sandbox, {"export_id": export}))
    assert (result.exit_code, statuses(result)) == (0, ["loaded"]), result.stderr
    assert requests(sandbox, "%2F%2BA%3D/status?")


def test_too_many_buckets_split_the_window(sandbox):
    export = {
        "export_id": "team_performance_interval",
        "window": "P2D",
        "parameters": {"timeInterval": 3600000},
    }
    start = DAY - timedelta(days=1)
    result = run_tap({**care(sandbox, export), "start_date": start.isoformat()})
    assert (result.exit_code, statuses(result)) == (0, ["loaded"]), result.stderr
    rows = expected(sandbox, "team_performance_interval", start, NEXT)
    assert ids(result, "posts", "INTERVAL_START") == [row["INTERVAL_START"] for row in rows]
    assert result.runs[0]["files"] == 2


STATES = [
    # What a running workflow is called, how it ends, the exit code, the runs, the message.
    (["RUNNING"], "done", 0, ["loaded"], None),
    (["running"], "done", 0, ["loaded"], None),
    (["RUNNING", "CLOSED/CONTINUED_AS_NEW"], "done", 0, ["loaded"], None),
    (["RUNNING"], "failed", 3, ["failed"], "closed with FAILED"),
    (["RUNNING"], "canceled", 3, ["failed"], "closed with CANCELED"),
    (["RUNNING"], "terminated", 3, ["failed"], "closed with TERMINATED"),
    (["RUNNING"], "exploded", 3, ["failed"], "closed with EXPLODED"),
    (["RUNNING"], "timed_out", 0, ["failed", "loaded"], "closed with TIMED_OUT"),
    (["PAUSED"], "stuck", 3, ["failed"], "'PAUSED/', a word it does not document"),
    (["CLOSED"], "stuck", 3, ["failed"], "'CLOSED/', a word it does not document"),
]


@pytest.mark.parametrize("case", STATES, ids=str)
def test_states(sandbox, case):
    words, outcome, exit_code, runs, message = case
    fail = [{"service": "khoros_care", "outcome": outcome, "times": 1}]
    sandbox.post("settings", {"khoros_words": words, "fail_jobs": fail})
    result = run_tap({**care(sandbox), "poll_interval_max": "PT0.2S"})
    assert (result.exit_code, statuses(result)) == (exit_code, runs), result.stderr
    assert message is None or message in result.runs[0]["error"]


def fault(path: str, times: int | None = 1, **action: Any) -> dict[str, Any]:
    return {"service": "khoros_care", "path": path, "times": times, "action": action}


BUCKETS = "Unable to hydrate filter: HydrationException: Too many buckets (745) requested"
OUTCOMES = {
    # What goes wrong: the exit code, the runs, the workflows that were started, the message.
    "trigger 400": (fault(TRIGGER, status=400, body={}), 3, ["failed"], 0, "answered 400 {}"),
    "trigger 403": (
        fault(TRIGGER, status=403, body={"m": "no API"}),
        3,
        ["failed"],
        0,
        "answered 403.*no API",
    ),
    "trigger 404, at either path": (fault(TRIGGER, None, status=404), 3, ["failed"], 0, "answered 404"),
    "trigger 404, at the first path": (fault(TRIGGER, status=404), 0, ["loaded"], 1, None),
    "trigger 405, with the first method": (
        fault(TRIGGER, status=405),
        0,
        ["loaded"],
        1,
        None,
    ),
    "trigger 429": (fault(TRIGGER, 2, status=429), 0, ["loaded"], 1, None),
    "trigger 503, come back": (
        fault(TRIGGER, status=503, headers={"Retry-After": "1"}),
        0,
        ["loaded"],
        1,
        None,
    ),
    "trigger 500": (fault(TRIGGER, status=500), 3, ["failed"], 0, "whether a job was triggered is not known"),
    "trigger started, no answer": (
        fault(TRIGGER, run=True, close="before_headers"),
        3,
        ["failed"],
        1,
        "whether a job was triggered is not known",
    ),
    "trigger no JSON": (fault(TRIGGER, replace_body="<html>"), 3, ["failed"], 1, "but no JSON"),
    "trigger a text": (
        fault(TRIGGER, replace_body={"status": "FAIL", "result": "No such report"}),
        3,
        ["failed"],
        1,
        "incoming_post was not started: No such report",
    ),
    "trigger not passed": (
        fault(TRIGGER, replace_body={"status": "FAIL", "message": "No licence", "result": None}),
        3,
        ["failed"],
        1,
        "not started: No licence",
    ),
    "trigger no ids": (
        fault(TRIGGER, replace_body={"status": "PASS", "result": {}}),
        3,
        ["failed"],
        1,
        "the answer has no ids",
    ),
    "trigger too large": (
        fault(TRIGGER, replace_body={"status": "FAIL", "result": BUCKETS}),
        0,
        ["loaded"],
        3,
        None,
    ),
    "status 500 for a while": (fault(STATUS, 2, status=500), 0, ["loaded"], 1, None),
    "status no JSON for a while": (fault(STATUS, 2, status=200, body="<html>"), 0, ["loaded"], 1, None),
    "status breaks off": (fault(STATUS, 2, close="mid_body"), 0, ["loaded"], 1, None),
    "status 404": (fault(STATUS, status=404), 0, ["failed", "loaded"], 2, "does not know the workflow"),
    "status 400": (fault(STATUS, status=400, body={}), 3, ["failed"], 1, "answered 400"),
    "status a text for a while": (
        fault(STATUS, 2, replace_body={"status": "FAIL", "result": "Try later"}),
        0,
        ["loaded"],
        1,
        None,
    ),
    "status older name of the detail": (
        fault(STATUS, None, substitute=['"detail"', '"details"']),
        0,
        ["loaded"],
        1,
        None,
    ),
    "status without a downloadUrl": (
        fault(STATUS, None, substitute=['"downloadUrl":"[^"]*"', '"downloadUrl":""']),
        0,
        ["loaded"],
        1,
        None,
    ),
    "download 403, its token has expired": (fault(DOWNLOAD, status=403), 0, ["loaded"], 1, None),
    "download 404": (fault(DOWNLOAD, 2, status=404), 0, ["failed", "loaded"], 2, "does not keep the file"),
    "download 400": (fault(DOWNLOAD, 2, status=400, body={}), 3, ["failed"], 1, "answered 400 {}"),
    "download 204": (fault(DOWNLOAD, status=204), 0, ["empty"], 1, None),
    "download 503, come back": (
        fault(DOWNLOAD, status=503, headers={"Retry-After": "1"}),
        0,
        ["loaded"],
        1,
        None,
    ),
    "download a text": (
        fault(DOWNLOAD, 2, status=200, body={"status": "FAIL", "result": "Expired"}),
        3,
        ["failed"],
        1,
        "in place of the file.*Expired",
    ),
    "download a web page": (
        fault(DOWNLOAD, status=200, body="<html>", headers={"Content-Type": "text/html"}),
        0,
        ["loaded"],
        1,
        None,
    ),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_outcomes(sandbox, case):
    rule, exit_code, runs, started, message = OUTCOMES[case]
    sandbox.post("faults", [rule])
    result = run_tap(care(sandbox))
    assert (result.exit_code, statuses(result)) == (exit_code, runs), result.stderr
    assert triggers(sandbox) == started
    errors = " ".join(run["error"] or "" for run in result.runs)
    assert message is None or re.search(message, errors), errors
    if runs[-1] == "loaded":
        rows = expected(sandbox, "incoming_post")
        assert ids(result, "posts", "POST_ID") == [row["POST_ID"] for row in rows]


# The clock


@pytest.mark.timeout(200)
def test_twenty_requests_a_minute_over_all_streams(sandbox):
    sandbox.post("settings", {"khoros_rate": 20})
    config = care(sandbox, *[{"export_id": "author"}] * 7)
    del config["khoros_care"]["requests_per_minute"]
    started = time.monotonic()
    result = run_tap(config, timeout=180)
    assert (result.exit_code, statuses(result)) == (0, ["loaded"] * 7), result.stderr
    assert len(requests(sandbox)) > 20
    assert time.monotonic() - started > 60
    assert {each["status"] for each in requests(sandbox)} == {200, 302}


def test_a_workflow_that_never_ends_is_a_failure_and_not_empty(sandbox):
    sandbox.post("settings", {"fail_jobs": [{"service": "khoros_care", "outcome": "stuck"}]})
    result = run_tap({**care(sandbox), "export_timeout": "PT2S"})
    assert (result.exit_code, statuses(result), triggers(sandbox)) == (3, ["failed"], 1)
    assert "export_timeout" in result.runs[0]["error"]


def test_a_later_process_goes_on_with_a_workflow(sandbox):
    sandbox.post("settings", {"job_seconds": 3})
    config = {**care(sandbox), "ledger": ""}
    with start_tap(config) as process:
        assert process.stdout is not None
        state = next(
            value
            for line in process.stdout
            if (value := json.loads(line).get("value")) and value["bookmarks"]["posts"].get("jobs")
        )
    result = run_tap(config, state=state)
    assert (result.exit_code, triggers(sandbox)) == (0, 1), result.stderr
    assert [(run["status"], run["resumed"]) for run in result.runs] == [("loaded", True)]
