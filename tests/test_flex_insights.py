"""Twilio Flex Insights through the front door: logins, the raw export, and what each answer comes to."""

import json
import time
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from conftest import Result, Sandbox, run_tap, start_tap

ZONE = ZoneInfo("Europe/Helsinki")  # the sandbox's workspace is there
TODAY = datetime.now(ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=2)
EXECUTE = "/execute/raw"
RESULT = r"/gdc/projects/.*/execute/raw/"
PASSWORD = "p4ss:with+signs/"


def config(sandbox: Sandbox, *, days: int = 2, block: dict | None = None, export: dict | None = None) -> dict:
    """One incremental export of some days."""
    settings = sandbox.config("flex_insights", end_date=(START + timedelta(days=days)).isoformat())
    flex = settings["flex_insights"]
    report = {
        "name": "conversations",
        "report_id": 643040,
        "date_identifier": "date.date.mmddyyyy",
        "timezone": ZONE.key,
        "start_date": START.isoformat(),
        **(export or {}),
    }
    flex["exports"] = [{name: value for name, value in report.items() if value is not None}]
    flex.update(block or {})
    return settings


def snapshot(sandbox: Sandbox, report: str = "643041") -> dict:
    return config(sandbox, export={"date_identifier": None, "name": "workload", "report_id": report})


def asked(sandbox: Sandbox) -> list[dict]:
    return sandbox.get("requests", service="flex_insights")


def targets(sandbox: Sandbox, method: str, part: str) -> list[dict]:
    return [one for one in asked(sandbox) if one["method"] == method and part in one["path"]]


def logins(sandbox: Sandbox) -> int:
    return len(targets(sandbox, "POST", "/gdc/account/login"))


def expected(sandbox: Sandbox, start: datetime, end: datetime, report: str = "643040") -> list[dict]:
    span = {"start": start.isoformat(), "end": end.isoformat()}
    return sandbox.get("expected", provider="flex_insights", export=report, **span)


def ids(result: Result) -> list[tuple[str, str]]:
    return [(row["conversation_id"], row["segment"]) for row in result.records("conversations")]


def all_ids(sandbox: Sandbox, days: int = 2) -> list[tuple[str, str]]:
    rows = expected(sandbox, START, START + timedelta(days=days))
    return [(row["Conversation ID"], row["Segment"]) for row in rows]


# Logging in and out


def test_the_login_gives_an_sst_which_gets_a_tt_which_goes_along_as_cookie_and_header(sandbox):
    result = run_tap(config(sandbox, days=1))
    assert result.exit_code == 0, result.stderr
    login, token, *others, logout = asked(sandbox)
    assert (login["method"], login["path"]) == ("POST", "/gdc/account/login")
    assert (login["token_headers"], login["cookies"]) == ([], [])
    assert (token["method"], token["path"]) == ("GET", "/gdc/account/token")
    assert (token["token_headers"], token["cookies"]) == (["X-Gdc-Authsst"], [])
    assert {(tuple(one["token_headers"]), tuple(one["cookies"])) for one in others} == {
        (("X-Gdc-Authtt",), ("GDCAuthTT",))
    }
    assert (logout["token_headers"], logout["cookies"]) == (["X-Gdc-Authsst"], ["GDCAuthTT"])


def test_the_run_logs_out_at_its_end_and_leaves_the_user_alone(sandbox):
    run_tap(config(sandbox, days=1))
    counts = sandbox.get("statistics")["counts"]
    assert counts.get("logouts") == 1
    assert "disasters" not in counts
    (delete,) = targets(sandbox, "DELETE", "")
    assert delete["path"].startswith("/gdc/account/login/")


def test_a_tt_that_has_ended_is_renewed_with_the_sst(sandbox):
    sandbox.post("settings", {"tt_seconds": 0.5, "job_seconds": 2})
    result = run_tap(config(sandbox))
    assert (result.exit_code, ids(result)) == (0, all_ids(sandbox)), result.stderr
    assert logins(sandbox) == 1
    assert len(targets(sandbox, "GET", "/gdc/account/token")) > 2
    assert len(targets(sandbox, "POST", EXECUTE)) == 2


def test_an_sst_that_has_ended_means_another_login(sandbox):
    sandbox.post("settings", {"sst_seconds": 1, "job_seconds": 1.7})
    result = run_tap(config(sandbox))
    assert (result.exit_code, ids(result)) == (0, all_ids(sandbox)), result.stderr
    assert logins(sandbox) > 1
    assert len(targets(sandbox, "POST", EXECUTE)) == 2


def test_both_kinds_of_401_are_told_apart_by_their_header(sandbox):
    gone = {"status": 401, "headers": {"WWW-Authenticate": 'GoodData realm="GoodData API" cookie=GDCAuthSST'}}
    fault = {"service": "flex_insights", "path": RESULT, "method": "GET", "action": gone}
    sandbox.post("faults", [fault])
    result = run_tap(config(sandbox, days=1))
    assert result.exit_code == 0, result.stderr
    assert logins(sandbox) == 2

    sandbox.post("reset")
    gone["headers"] = {"WWW-Authenticate": 'GoodData realm="GoodData API" cookie=GDCAuthTT'}
    sandbox.post("faults", [fault])
    assert run_tap(config(sandbox, days=1)).exit_code == 0
    assert logins(sandbox) == 1


def test_threads_that_meet_the_same_401_renew_once(sandbox):
    many = {"max_concurrent_exports": 8}
    with start_tap(config(sandbox, block=many, export={"window": "P1D", "start_date": _ago(8)})) as tap:
        while sandbox.get("statistics")["max_running"].get("flex_insights", 0) < 4:
            time.sleep(0.05)
        sandbox.post("revoke", {"service": "flex_insights", "what": "sst"})
        tap.communicate(timeout=30)
    assert tap.returncode == 0
    assert logins(sandbox) == 2


@pytest.mark.parametrize("days", [1])
def test_a_bad_password_is_tried_once_whatever_there_is_to_export(sandbox, days):
    settings = config(sandbox, days=days, block={"password": "nope"})
    settings["flex_insights"]["exports"].append(
        {**settings["flex_insights"]["exports"][0], "name": "another", "report_id": "643042"}
    )
    result = run_tap(settings)
    assert (result.exit_code, result.runs) == (1, [])
    assert "401: Bad Login or Password!" in result.stderr
    assert "check username and password" in result.stderr
    assert logins(sandbox) == 1


def test_a_user_who_is_locked_out_is_not_made_worse(sandbox):
    sandbox.post("settings", {"login_attempts": 0, "login_retry_after": 77})
    result = run_tap(config(sandbox))
    assert (result.exit_code, result.runs) == (1, [])
    assert "too many bad logins" in result.stderr
    assert "wait 77 seconds" in result.stderr
    assert sandbox.get("statistics")["counts"]["logins_while_locked"] == 1


def test_a_captcha_is_explained(sandbox):
    words = "Login needs security code verification due to failed login attempts."
    body = {"error": {"message": words, "parameters": []}}
    login = {"path": "/gdc/account/login", "action": {"status": 401, "body": body}, "times": None}
    sandbox.post("faults", [{"service": "flex_insights", **login}])
    result = run_tap(config(sandbox))
    assert result.exit_code == 1
    assert "in a browser" in result.stderr
    assert logins(sandbox) == 1


def test_check_logs_in_and_triggers_nothing(sandbox):
    result = run_tap(config(sandbox), "--test")
    assert (result.exit_code, result.stdout) == (0, "flex_insights: ok\n")
    assert [one["method"] for one in asked(sandbox)] == ["POST", "GET", "DELETE"]
    result = run_tap(config(sandbox, block={"password": "nope"}), "--test")
    assert result.exit_code == 1
    assert "Bad Login or Password!" in result.stdout


def test_no_secret_is_printed(sandbox):
    settings = config(sandbox)
    sandbox.post("settings", {"fail_jobs": [{"service": "flex_insights"}]})
    result = run_tap(settings, env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    for secret in (PASSWORD, "GDCAuthTT=", "&c=", "%0A"):
        assert secret not in result.stderr
    assert PASSWORD not in result.stdout


# The raw export


def test_the_uri_is_asked_for_byte_for_byte_and_a_fresh_one_is_followed(sandbox):
    sandbox.post("settings", {"job_seconds": 1})
    result = run_tap(config(sandbox, days=1))
    assert result.exit_code == 0, result.stderr
    polls = [one["path"] for one in targets(sandbox, "GET", EXECUTE)]
    assert all("%0A%2B%2F%3D&c=" in path for path in polls)
    assert len(set(polls)) == 2  # the first answer 202 names another uri
    assert "mangled_uris" not in sandbox.get("statistics")["counts"]
    assert [one["status"] for one in targets(sandbox, "GET", EXECUTE)][-2:] == [202, 200]


def test_a_report_is_sent_once(sandbox):
    result = run_tap(config(sandbox, days=1))
    assert result.exit_code == 0
    assert [one["status"] for one in targets(sandbox, "GET", EXECUTE)].count(200) == 1


def test_incremental_filters_by_the_uri_of_the_date_attribute(sandbox):
    result = run_tap(config(sandbox))
    assert (result.exit_code, ids(result)) == (0, all_ids(sandbox)), result.stderr
    assert [json.loads(one["body"]) for one in targets(sandbox, "POST", "/identifiers")] == [
        {"identifierToUri": ["date.date.mmddyyyy"]}
    ]
    sent = [json.loads(one["body"])["report_req"] for one in targets(sandbox, "POST", EXECUTE)]
    workspace = "/gdc/md/qx8vgewnj2hyemje8f6bkrkbyqk8psrf"
    days = [(START + timedelta(days=n)).date().isoformat() for n in range(2)]
    assert sorted(sent, key=str) == [  # they are triggered by several threads
        {
            "report": f"{workspace}/obj/643040",
            "context": {
                "filters": [
                    {
                        "uri": f"{workspace}/obj/1542",
                        "constraint": {"type": "interval", "from": day, "to": day},
                    }
                ]
            },
        }
        for day in days
    ]


def test_a_window_of_several_days_ends_with_its_last_day(sandbox):
    result = run_tap(config(sandbox, export={"window": "P2D"}))
    assert (result.exit_code, ids(result)) == (0, all_ids(sandbox)), result.stderr
    (sent,) = [json.loads(one["body"])["report_req"] for one in targets(sandbox, "POST", EXECUTE)]
    constraint = sent["context"]["filters"][0]["constraint"]
    assert (date.fromisoformat(constraint["from"]), date.fromisoformat(constraint["to"])) == (
        START.date(),
        START.date() + timedelta(days=1),
    )


def test_a_window_shorter_than_a_day_is_a_mistake(sandbox):
    result = run_tap(config(sandbox, export={"window": "PT6H"}))
    assert result.exit_code == 1
    assert "flex_insights.exports[0].window: must be whole days" in result.stderr
    assert asked(sandbox) == []


def test_without_a_date_attribute_each_run_takes_a_snapshot(sandbox):
    first = run_tap(snapshot(sandbox))
    second = run_tap(snapshot(sandbox), state=first.state)
    for result in (first, second):
        assert result.exit_code == 0, result.stderr
        assert len(result.records("workload")) > 0
        assert result.messages.index(result.of("ACTIVATE_VERSION", "workload")[0]) > result.messages.index(
            result.of("RECORD", "workload")[-1]
        )
        assert [run["window_start"] for run in result.runs] == [None]
    for one in targets(sandbox, "POST", EXECUTE):
        assert json.loads(one["body"]) == {
            "report_req": {"report": "/gdc/md/qx8vgewnj2hyemje8f6bkrkbyqk8psrf/obj/643041"}
        }
    assert targets(sandbox, "POST", "/identifiers") == []


def test_the_text_is_utf_8_though_no_charset_says_so(sandbox):
    result = run_tap(config(sandbox))
    agents = {record["agent"] for record in result.records("conversations")}
    assert {"Zoë Nyström", "Łukasz Wójcik", "陳怡君", "O'Neill, Sean", 'Ann "Annie" Lee'} <= agents


def test_titles_that_repeat_get_a_number(sandbox):
    result = run_tap(snapshot(sandbox))
    assert {"date", "date_2"} <= set(result.schema("workload"))
    assert all(record["date"] and record["date_2"] for record in result.records("workload"))


def test_a_job_in_the_state_is_resumed_though_its_uri_changed(sandbox):
    sandbox.post("settings", {"job_seconds": 3})
    settings = config(sandbox, days=1)
    state = None
    with start_tap(settings) as tap:
        for line in tap.stdout:
            message = json.loads(line)
            if message["type"] == "STATE":
                jobs = message["value"]["bookmarks"]["conversations"]["jobs"]
                polls = len(targets(sandbox, "GET", EXECUTE))
                state = message["value"]
                if jobs and polls > 0:
                    break
        while len({one["path"] for one in targets(sandbox, "GET", EXECUTE)}) < 2:
            time.sleep(0.05)
    result = run_tap(settings, state=state)
    assert (result.exit_code, ids(result)) == (0, all_ids(sandbox, 1)), result.stderr
    assert [run["resumed"] for run in result.runs] == [True]
    assert len(targets(sandbox, "POST", EXECUTE)) == 1


# What each answer comes to


def poll(**action) -> dict:
    return {"path": RESULT, "method": "GET", "times": None, "action": action}


def execute(**action) -> dict:
    return {"path": EXECUTE, "method": "POST", "times": None, "action": action}


def printf(message: str, *parameters: str) -> dict:
    return {"error": {"message": message, "parameters": list(parameters), "component": "GDC::Exporter"}}


TABLE = {
    # name: (faults, knobs, exit code, status of the runs, whether there are rows, words of the message)
    "200": ([], {}, 0, ["loaded"], True, None),
    "204 at once": (
        [],
        {"fail_jobs": [{"service": "flex_insights", "outcome": "empty"}]},
        0,
        ["empty"],
        False,
        None,
    ),
    "202 without a body": ([{**poll(status=202), "times": 2}], {}, 0, ["loaded"], True, None),
    "202 with HTML": ([{**poll(status=202, body="<html>"), "times": 2}], {}, 0, ["loaded"], True, None),
    "400 while polled": (
        [],
        {"fail_jobs": [{"service": "flex_insights"}]},
        3,
        ["failed"],
        False,
        "400: Report Conversations is not computable",
    ),
    "403 while polled": (
        [poll(status=403, body=printf("No access to %s", "report"))],
        {},
        3,
        ["failed"],
        False,
        "403: No access to report",
    ),
    "410 once": (
        [],
        {"fail_jobs": [{"service": "flex_insights", "outcome": "gone", "times": 1}]},
        0,
        ["failed", "loaded"],
        True,
        "410: Task ",
    ),
    "410 always": (
        [],
        {"fail_jobs": [{"service": "flex_insights", "outcome": "gone"}]},
        3,
        ["failed", "failed", "failed"],
        False,
        "410: Task ",
    ),
    "404 once": ([{**poll(status=404), "times": 1}], {}, 0, ["failed", "loaded"], True, "404"),
    "429 while polled": (
        [{**poll(status=429, headers={"Retry-After": "1"}), "times": 1}],
        {},
        0,
        ["loaded"],
        True,
        None,
    ),
    "503 while polled": (
        [{**poll(status=503, body="Scheduled maintenance in progress. Please try again later."), "times": 7}],
        {},
        0,
        ["loaded"],
        True,
        None,
    ),
    "500 while polled": ([{**poll(status=500), "times": 1}], {}, 0, ["loaded"], True, None),
    "a page in place of the file": (
        [poll(status=200, headers={"Content-Type": "text/html"}, body="<html>Maintenance</html>")],
        {},
        3,
        ["failed"],
        False,
        "'200 text/html'",
    ),
    "cut off within a chunk, once": (
        [{**poll(chunked_truncate=False, truncate_after_bytes=3000), "after": 1, "times": 1}],
        {"job_seconds": 0},
        0,
        ["loaded"],
        True,
        None,
    ),
    "maintenance at the trigger": (
        [{**execute(status=503, body="Scheduled maintenance"), "times": 2}],
        {},
        0,
        ["loaded"],
        True,
        None,
    ),
    "429 at the trigger": (
        [{**execute(status=429, headers={"Retry-After": "1"}), "times": 1}],
        {},
        0,
        ["loaded"],
        True,
        None,
    ),
    "400 at the trigger": (
        [execute(status=400, body=printf("Malformed %s in %d places", "filter", 2))],
        {},
        3,
        ["failed"],
        False,
        "400: Malformed filter in 2 places",
    ),
    "500 at the trigger": (
        [execute(status=500, body="<html>oops</html>")],
        {},
        3,
        ["failed"],
        False,
        "whether a job was triggered is not known",
    ),
    "no uri": (
        [execute(run=True, replace_body={"ok": True}, headers={"Location": ""})],
        {},
        3,
        ["failed"],
        False,
        "without the uri",
    ),
    "only a Location": ([execute(run=True, replace_body="")], {}, 0, ["loaded"], True, None),
    "an error as HTML": (
        [execute(status=404, body="<html><h1>Not here</h1></html>")],
        {},
        3,
        ["failed"],
        False,
        "<h1>Not here</h1>",
    ),
    "identifiers refused": (
        [{"path": "/identifiers", "times": None, "action": {"status": 403, "body": printf("Forbidden")}}],
        {},
        3,
        ["failed"],
        False,
        "403: Forbidden",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_outcome(sandbox, name):
    faults, knobs, exit_code, status, rows, words = TABLE[name]
    sandbox.post("settings", knobs)
    sandbox.post("faults", [{"service": "flex_insights", **fault} for fault in faults])
    result = run_tap(config(sandbox, days=1))
    assert result.exit_code == exit_code, result.stderr
    assert [run["status"] for run in result.runs] == status
    assert ids(result) == (all_ids(sandbox, 1) if rows else [])
    if words is not None:
        assert words in result.runs[0]["error"]
    moved = "replication_key_value" in result.bookmark("conversations")
    assert moved == (exit_code == 0)
    assert "Traceback" not in result.stderr


def test_an_unknown_report_and_an_unknown_date_attribute_are_named(sandbox):
    result = run_tap(config(sandbox, days=1, export={"report_id": 999}))
    assert (result.exit_code, result.runs[0]["status"]) == (3, "failed")
    assert "obj/999 does not exist" in result.stderr
    assert "check report_id" in result.stderr
    result = run_tap(config(sandbox, days=1, export={"date_identifier": "date.nope"}))
    assert (result.exit_code, result.runs[0]["status"]) == (3, "failed")
    assert "has no attribute 'date.nope'" in result.stderr


def test_maintenance_that_does_not_end_fails_the_export_and_says_so(sandbox):
    sandbox.post("settings", {"maintenance": True})
    result = run_tap(config(sandbox, days=1, export={"export_timeout": "PT3S"}), timeout=100)
    assert result.exit_code == 3
    assert "Scheduled maintenance in progress" in result.stderr


def test_a_mistake_in_the_block_is_named_with_its_path_before_any_request(sandbox):
    settings = config(sandbox)
    del settings["flex_insights"]["workspace_id"]
    settings["flex_insights"]["exports"][0]["report"] = 1
    result = run_tap(settings)
    assert result.exit_code == 1
    assert "flex_insights.workspace_id: is required" in result.stderr
    assert "flex_insights.exports[0].report: is not a setting" in result.stderr
    assert asked(sandbox) == []


def _ago(days: int) -> str:
    return (TODAY - timedelta(days=days)).isoformat()
