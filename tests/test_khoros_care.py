"""Khoros Care, as its documents say it, and what each of its answers comes to; first without the tap."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from conftest import Sandbox, run_tap, start_tap
from vendors import outcome, provider, run, yesterday

from tap_analytics_exports.errors import Refused, SettingsError
from tap_analytics_exports.providers import khoros_care
from tap_analytics_exports.windows import Window

NAME = "khoros_care"
DAY = yesterday()
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
    config = sandbox.config(NAME, start_date=DAY.start.isoformat(), end_date=DAY.end.isoformat())
    exports = exports or ({"export_id": "incoming_post"},)
    named = [{"name": f"x{i}" if i else "posts", **export} for i, export in enumerate(exports)]
    config[NAME] |= {"exports": named, **block}
    return config


def expected(sandbox: Sandbox, export: str = "incoming_post", window: Window = DAY) -> list[dict[str, str]]:
    span = {"start": window.start.isoformat(), "end": window.end.isoformat()}
    return sandbox.get("expected", provider=NAME, export=export, **span)


def asked(sandbox: Sandbox, path: str = "") -> list[dict[str, Any]]:
    return [each for each in sandbox.get("requests", service=NAME) if path in each["path"]]


def triggers(sandbox: Sandbox) -> int:
    return len(sandbox.get("jobs", service=NAME))


def query(request: dict[str, Any]) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request["path"]).query)


def good(sandbox: Sandbox, found) -> None:
    assert found.statuses[-1] == "loaded", found
    assert [row["POST_ID"] for row in found.rows] == [row["POST_ID"] for row in expected(sandbox)]


# Exports


@pytest.mark.parametrize("export", [*EXPORTS, "raw_brand_post"])
def test_every_documented_export_and_a_marketing_one(quick, export, tmp_path):
    block: dict[str, Any] = {"export_id": export}
    if export == "team_performance_interval":
        block["parameters"] = {"timeInterval": 3600000}
    marketing = export not in EXPORTS
    if marketing:
        block["section"] = "marketing"
    found = outcome(quick, NAME, tmp_path, export=block)
    rows = expected(quick, f"marketing/{export}" if marketing else export)
    if export == "conversation":  # OPEN_AT_END, unless the user says otherwise
        rows = [row for row in rows if row["STATUS"] != "CLOSED"]
    assert len(found.rows) == len(rows) > 0
    first = next(iter(rows[0]))
    assert [row[first] for row in found.rows] == [row[first] for row in rows]
    (trigger,) = asked(quick, "reportFormat")
    path = urlsplit(trigger["path"]).path.removeprefix("/api/public/reports/report/")
    assert (trigger["method"], path) == (
        EXPORTS.get(export, "GET"),
        f"marketing/{export}" if marketing else export,
    )


def test_a_window_is_asked_for_in_milliseconds_with_inclusive_ends(quick, tmp_path):
    halves = DAY.halves()
    with provider(quick, NAME) as (made, request):
        found = [run(made, replace(request, window=half), tmp_path) for half in halves]
    sent = [query(each) for each in asked(quick, "startTime")]
    assert [(int(each["startTime"][0]), int(each["endTime"][0])) for each in sent] == [
        (half.start.timestamp() * 1000, half.end.timestamp() * 1000 - 1) for half in halves
    ]
    ids = [row["POST_ID"] for one in found for row in one.rows]
    assert ids == [row["POST_ID"] for row in expected(quick)]


def test_parameters_go_along_and_a_list_repeats_one(quick, tmp_path):
    parameters = {"teamIds": ["1", 2], "includeDisabled": True, "locale": "fr"}
    outcome(quick, NAME, tmp_path, export={"export_id": "team_performance", "parameters": parameters})
    (sent,) = [query(each) for each in asked(quick, "startTime")]
    assert sent["teamIds"] == ["1", "2"]
    assert sent["includeDisabled"] == ["true"]
    assert sent["locale"] == ["fr"]


def test_a_parameter_of_the_taps_own_is_a_mistake_in_the_settings(sandbox):
    own = {"parameters": {"companyKey": "x"}}
    message = r"khoros_care.exports\[0\].parameters.companyKey: is sent by the tap"
    with pytest.raises(SettingsError, match=message), provider(sandbox, NAME, export=own):
        pass


# Credentials


def test_every_call_is_signed_and_the_file_host_gets_nothing(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path))
    trigger, *_ = calls = asked(quick)
    assert {each["authorization"] for each in calls} == {"Basic"}
    assert all({"companyKey", "analyticsAccessToken"} & set(query(each)) for each in calls)
    assert (trigger["body"], query(trigger)["locale"]) == ("", ["en"])
    (file,) = quick.get("requests", service="khoros_files")
    assert (file["authorization"], file["cookies"]) == (None, [])
    assert "companyKey" not in file["path"]
    assert quick.get("statistics")["counts"] == {}


def test_the_urls_of_another_host_get_no_credentials(quick, tmp_path):
    home, away = (r"127\.0\.0\.1(:\d+/[^\"]*/{})", r"localhost\1")
    found = outcome(
        quick,
        NAME,
        tmp_path,
        fault(TRIGGER, substitute=[home.format("status"), away]),
        fault(STATUS, None, substitute=[home.format("download"), away]),
    )
    good(quick, found)
    assert found.statuses == ["loaded"]
    assert {each["authorization"] for each in asked(quick, STATUS)} == {"Basic"}
    # The one at localhost is asked for as it is, and wants credentials; then the documented one is used.
    taken, built = asked(quick, DOWNLOAD)
    assert (taken["authorization"], "companyKey" in taken["path"]) == (None, False)
    assert (built["authorization"], "companyKey" in built["path"]) == ("Basic", True)


@pytest.mark.parametrize("key", ["password", "company_key"])
def test_refused_credentials(quick, key):
    with provider(quick, NAME, **{key: "not-the-right-one"}) as (made, request):
        for verb in (made.check, lambda: made.submit(request)):
            with pytest.raises(Refused, match=r"khoros_care: .*401.*check the credentials") as raised:
                verb()
            assert "not-the-right-one" not in str(raised.value)
    assert triggers(quick) == 0


def test_check_asks_for_time_zones(quick):
    with provider(quick, NAME) as (made, _):
        made.check()
    assert [urlsplit(each["path"]).path for each in asked(quick)] == ["/api/public/config/timezones"]


def test_twenty_requests_a_minute_over_all_threads(quick, monkeypatch):
    """A minute is a second here, and the vendor's limit is the default."""
    monkeypatch.setattr(khoros_care.RateLimiter, "_SPAN", 1.0)
    started = time.monotonic()
    config = quick.config(NAME)[NAME]
    del config["requests_per_minute"]
    settings = msgspec.convert({**config, "exports": []}, khoros_care.KhorosCareSettings)
    made = khoros_care.KhorosCare(settings)
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: made.check(), range(45)):
            pass
    times = sorted(each["time"] for each in asked(quick))
    assert len(times) == 45
    assert time.monotonic() - started > 2
    assert all(late - early >= 0.95 for early, late in zip(times, times[20:], strict=False))


# The answers' shapes and words


@pytest.mark.parametrize("export", ["combined", "author", "user"])  # no URLs, an empty one, an early one
def test_a_missing_status_url_is_built(quick, export, tmp_path):
    found = outcome(quick, NAME, tmp_path, export={"export_id": export})
    assert found.statuses == ["loaded"]
    assert asked(quick, "%2F%2BA%3D/status?")


def test_too_many_buckets_split_the_window(quick, tmp_path):
    export = {"export_id": "team_performance_interval", "parameters": {"timeInterval": 3600000}}
    two = Window(DAY.start - timedelta(days=1), DAY.end)
    with provider(quick, NAME, export=export) as (made, request):
        found = run(made, replace(request, window=two), tmp_path)
    assert (found.statuses, len(found.files)) == (["loaded"], 2)
    rows = expected(quick, "team_performance_interval", two)
    assert [row["INTERVAL_START"] for row in found.rows] == [row["INTERVAL_START"] for row in rows]


STATES = [
    # What a running workflow is called, how it ends, what the jobs come to, the message.
    (["RUNNING"], "done", ["loaded"], ""),
    (["running"], "done", ["loaded"], ""),
    (["RUNNING", "CLOSED/CONTINUED_AS_NEW"], "done", ["loaded"], ""),
    (["RUNNING"], "failed", ["failed"], "closed with FAILED"),
    (["RUNNING"], "canceled", ["failed"], "closed with CANCELED"),
    (["RUNNING"], "terminated", ["failed"], "closed with TERMINATED"),
    (["RUNNING"], "exploded", ["failed"], "closed with EXPLODED"),
    (["RUNNING"], "timed_out", ["failed", "loaded"], "closed with TIMED_OUT"),
    (["PAUSED"], "stuck", ["failed"], "unknown state 'PAUSED'"),
    (["CLOSED"], "stuck", ["failed"], "unknown state 'CLOSED'"),
]


@pytest.mark.parametrize("case", STATES, ids=str)
def test_states(quick, case, tmp_path):
    words, ends, statuses, message = case
    fail = [{"service": NAME, "outcome": ends, "times": 1}]
    found = outcome(quick, NAME, tmp_path, knobs={"khoros_words": words, "fail_jobs": fail})
    assert found.statuses == statuses
    assert message in found.error


def fault(path: str, times: int | None = 1, **action: Any) -> dict[str, Any]:
    return {"path": path, "times": times, "action": action}


BUCKETS = "Unable to hydrate filter: HydrationException: Too many buckets (745) requested"
OUTCOMES = {
    # What goes wrong: what the jobs come to, the workflows that were started, the message.
    "trigger 400": (
        fault(TRIGGER, status=400, body={}),
        ["failed"],
        0,
        "answered 400 {}; check parameters and metrics",
    ),
    "trigger 403": (
        fault(TRIGGER, status=403, body={"m": "no API"}),
        ["failed"],
        0,
        "answered 403.*no API.*may use the Reports API",
    ),
    "trigger 404, at either path": (
        fault(TRIGGER, None, status=404, body={}),
        ["failed"],
        0,
        "answered 404 {}; check export_id and section",
    ),
    "trigger 404, at the first path": (fault(TRIGGER, status=404), ["loaded"], 1, ""),
    "trigger 405, with the first method": (fault(TRIGGER, status=405), ["loaded"], 1, ""),
    "trigger 405, always": (fault(TRIGGER, None, status=405), ["failed"], 0, "405.*neither GET nor POST"),
    "trigger 429": (fault(TRIGGER, 2, status=429), ["loaded"], 1, ""),
    "trigger 503, come back": (
        fault(TRIGGER, status=503, headers={"Retry-After": "1"}),
        ["loaded"],
        1,
        "",
    ),
    "trigger 500": (fault(TRIGGER, status=500), ["failed"], 0, "whether a job was triggered is not known"),
    "trigger started, no answer": (
        fault(TRIGGER, run=True, close="before_headers"),
        ["failed"],
        1,
        "whether a job was triggered is not known",
    ),
    "trigger a text": (
        fault(TRIGGER, replace_body={"status": "FAIL", "result": "No such report"}),
        ["failed"],
        1,
        "incoming_post was not started: No such report; check export_id",
    ),
    "trigger not passed": (
        fault(TRIGGER, replace_body={"status": "FAIL", "message": "No licence", "result": None}),
        ["failed"],
        1,
        "not started: No licence",
    ),
    "trigger no ids": (
        fault(TRIGGER, replace_body={"status": "PASS", "result": {}}),
        ["failed"],
        1,
        "malformed answer: it has no ids; incoming_post may be started",
    ),
    "trigger too large": (
        fault(TRIGGER, replace_body={"status": "FAIL", "result": BUCKETS}),
        ["loaded"],
        3,
        "",
    ),
    "status 500 for a while": (fault(STATUS, 2, status=500), ["loaded"], 1, ""),
    "status no JSON for a while": (fault(STATUS, 2, status=200, body="<html>"), ["loaded"], 1, ""),
    "status breaks off": (fault(STATUS, 2, close="mid_body"), ["loaded"], 1, ""),
    "status 404": (fault(STATUS, status=404), ["failed", "loaded"], 2, "does not know the workflow"),
    "status 400": (fault(STATUS, status=400, body={}), ["failed"], 1, "answered 400 {}; check base_url"),
    "status 403": (fault(STATUS, status=403), ["failed"], 1, "403.*the Analytics Reports API"),
    "status a text for a while": (
        fault(STATUS, 2, replace_body={"status": "FAIL", "result": "Try later"}),
        ["loaded"],
        1,
        "",
    ),
    "status too large": (
        fault(STATUS, None, replace_body={"status": "FAIL", "result": BUCKETS}),
        ["split"],
        1,
        "Too many buckets.*set a larger parameters.timeInterval, or a shorter window",
    ),
    "status older name of the detail": (
        fault(STATUS, None, substitute=['"detail"', '"details"']),
        ["loaded"],
        1,
        "",
    ),
    "status without a downloadUrl": (
        fault(STATUS, None, substitute=['"downloadUrl":"[^"]*"', '"downloadUrl":""']),
        ["loaded"],
        1,
        "",
    ),
    "status with an odd downloadUrl": (
        fault(STATUS, None, substitute=['"downloadUrl":"[^"]*"', '"downloadUrl":"http://[/download"']),
        ["loaded"],
        1,
        "",
    ),
    "download 403, its token has expired": (fault(DOWNLOAD, status=403), ["loaded"], 1, ""),
    "download 404": (fault(DOWNLOAD, 2, status=404), ["failed", "loaded"], 2, "does not keep the file"),
    "download 400": (
        fault(DOWNLOAD, 2, status=400, body={}),
        ["failed"],
        1,
        "answered 400 {}; check base_url",
    ),
    "download 204": (fault(DOWNLOAD, status=204), ["empty"], 1, ""),
    "download 503, come back": (
        fault(DOWNLOAD, status=503, headers={"Retry-After": "1"}),
        ["loaded"],
        1,
        "",
    ),
    "download a text": (
        fault(DOWNLOAD, 2, status=200, body={"status": "FAIL", "result": "Expired"}),
        ["failed"],
        1,
        "in place of the file.*Expired",
    ),
    "download a web page": (
        fault(DOWNLOAD, status=200, body="<html>", headers={"Content-Type": "text/html"}),
        ["loaded"],
        1,
        "",
    ),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_outcomes(quick, case, tmp_path):
    rule, statuses, started, message = OUTCOMES[case]
    if statuses == ["split"]:  # for ever, so it is looked at once
        quick.post("faults", [{"service": NAME, **rule}])
        with provider(quick, NAME) as (made, request):
            state = made.poll(request, made.submit(request))
        assert state.split
        assert re.search(message, state.why)
        return
    found = outcome(quick, NAME, tmp_path, rule)
    assert found.statuses == statuses, found.error
    assert triggers(quick) == started
    assert re.search(message, found.error), found.error
    if statuses[-1] == "loaded":
        good(quick, found)


# Through the front door


def test_csv_and_json_give_the_same_rows(sandbox):
    columns = {"POST_ID": "integer", "SENTIMENT": "integer"}
    both = [{"export_id": "incoming_post", "format": kind, "columns": columns} for kind in ("csv", "json")]
    result = run_tap(care(sandbox, *both), env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    assert result.exit_code == 0, result.stderr

    def rows(stream: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "_sdc_export_id"} for row in result.records(stream)]

    assert len(rows("posts")) == len(expected(sandbox)) > 0
    assert rows("posts") == rows("x1")
    assert sorted(query(each)["reportFormat"] for each in asked(sandbox, "reportFormat")) == [
        ["csv"],
        ["json"],
    ]
    jobs = [job for state in result.of("STATE") for job in state["value"]["bookmarks"]["posts"]["jobs"]]
    assert set(jobs[0]["handle"]) == {"workflowId", "runId"}
    config = sandbox.config()[NAME]
    for secret in (config["password"], config["company_key"], "analyticsAccessToken", "Signature="):
        assert secret not in result.stderr + result.stdout


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
    (sent,) = [query(each) for each in asked(sandbox, "startTime")]
    assert sent["reportMetrics"] == ["CONVERSATION_ID", "STATUS"]
    names = {name for name in result.records("posts")[0] if not name.startswith("_sdc_")}
    assert names == {"conversation_id", "status"}


def test_a_workflow_that_never_ends_is_a_failure_and_not_empty(sandbox):
    sandbox.post("settings", {"fail_jobs": [{"service": NAME, "outcome": "stuck"}]})
    result = run_tap({**care(sandbox), "export_timeout": "PT1S"})
    assert (result.exit_code, triggers(sandbox)) == (3, 1)
    (failed,) = result.runs
    assert (failed["status"], "export_timeout" in failed["error"]) == ("failed", True)


def test_a_later_process_goes_on_with_a_workflow(sandbox):
    sandbox.post("settings", {"job_seconds": 2})
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
