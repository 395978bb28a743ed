"""Twilio Flex Insights: logins, the raw export, and what each answer comes to; first without the tap."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from conftest import Result, Sandbox, run_tap, start_tap
from vendors import HELSINKI, outcome, provider, run, yesterday

from tap_analytics_exports.errors import Refused, SettingsError, Unreachable
from tap_analytics_exports.providers.base import Provider, Request
from tap_analytics_exports.windows import Window

NAME = "flex_insights"
WORKSPACE = "/gdc/md/qx8vgewnj2hyemje8f6bkrkbyqk8psrf"
EXECUTE = "/execute/raw"
RESULT = r"/gdc/projects/.*/execute/raw/"
PASSWORD = "p4ss:with+signs/"


def targets(sandbox: Sandbox, method: str = "", part: str = "") -> list[dict]:
    asked = sandbox.get("requests", service=NAME)
    return [one for one in asked if method in one["method"] and part in one["path"]]


def logins(sandbox: Sandbox) -> int:
    return len(targets(sandbox, "POST", "/gdc/account/login"))


def expected(sandbox: Sandbox, window: Window | None = None) -> list[tuple[str, str]]:
    window = window or yesterday(HELSINKI)
    span = {"start": window.start.isoformat(), "end": window.end.isoformat()}
    rows = sandbox.get("expected", provider=NAME, export="643040", **span)
    return [(row["Conversation ID"], row["Segment"]) for row in rows]


def good(sandbox: Sandbox, found, window: Window | None = None) -> None:
    assert found.statuses[-1] == "loaded", found
    assert [(row["Conversation ID"], row["Segment"]) for row in found.rows] == expected(sandbox, window)


@contextmanager
def flex(sandbox: Sandbox, **how) -> Iterator[tuple[Provider, Request]]:
    with provider(sandbox, NAME, **how) as both:
        yield both


# Logging in and out


def test_the_login_gives_an_sst_which_gets_a_tt_which_goes_along_as_cookie_and_header(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path))
    login, token, *others, logout = targets(quick)
    assert (login["method"], login["path"]) == ("POST", "/gdc/account/login")
    assert (login["token_headers"], login["cookies"]) == ([], [])
    assert (token["method"], token["path"]) == ("GET", "/gdc/account/token")
    assert (token["token_headers"], token["cookies"]) == (["X-Gdc-Authsst"], [])
    assert {(tuple(one["token_headers"]), tuple(one["cookies"])) for one in others} == {
        (("X-Gdc-Authtt",), ("GDCAuthTT",))
    }
    assert (logout["token_headers"], logout["cookies"]) == (["X-Gdc-Authsst"], ["GDCAuthTT"])


@pytest.mark.parametrize("revoked", [None, "tt"])
def test_closing_logs_out_and_leaves_the_user_alone(quick, revoked):
    with flex(quick) as (made, _):
        made.check()
        if revoked:
            quick.post("revoke", {"service": NAME, "what": revoked})
    counts = quick.get("statistics")["counts"]
    assert counts.get("logouts") == 1
    assert "disasters" not in counts
    assert all(one["path"].startswith("/gdc/account/login/") for one in targets(quick, "DELETE"))


@pytest.mark.parametrize("profile", ["/gdc/account/profile/..", "..", ".", "", "/"])
def test_no_profile_leads_the_logout_elsewhere(quick, profile):
    answer = {"userLogin": {"profile": profile, "token": "sst-of-the-test"}}
    login = {"service": NAME, "path": "/account/login", "method": "POST", "action": {"replace_body": answer}}
    quick.post("faults", [login])
    with flex(quick) as (made, request), pytest.raises((Unreachable, Refused)):
        made.submit(request)
    assert all(one["path"].startswith("/gdc/account/login/%2E") for one in targets(quick, "DELETE"))


def test_a_tt_that_has_ended_is_renewed_with_the_sst(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path, knobs={"tt_seconds": 0.1, "job_seconds": 0.5}))
    assert logins(quick) == 1
    assert len(targets(quick, "GET", "/gdc/account/token")) > 2
    assert len(targets(quick, "POST", EXECUTE)) == 1


def test_an_sst_that_has_ended_means_another_login(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path, knobs={"sst_seconds": 0.3, "job_seconds": 0.5}))
    assert logins(quick) > 1
    assert len(targets(quick, "POST", EXECUTE)) == 1


@pytest.mark.parametrize(("cookie", "count"), [("GDCAuthSST", 2), ("GDCAuthTT", 1)])
def test_both_kinds_of_401_are_told_apart_by_their_header(quick, cookie, count, tmp_path):
    gone = {"status": 401, "headers": {"WWW-Authenticate": f'GoodData realm="GoodData API" cookie={cookie}'}}
    good(quick, outcome(quick, NAME, tmp_path, {"path": RESULT, "method": "GET", "action": gone}))
    assert logins(quick) == count


def test_threads_that_meet_the_same_401_renew_once(quick):
    with flex(quick) as (made, request):
        handles = [made.submit(request) for _ in range(4)]
        quick.post("revoke", {"service": NAME, "what": "sst"})
        threads = [threading.Thread(target=made.poll, args=[request, handle]) for handle in handles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert logins(quick) == 2


def test_a_trigger_that_was_refused_before_a_token_could_be_had_is_not_ambiguous(quick, tmp_path):
    """The 401 proves that nothing ran, whatever comes of the new token."""
    refused = {"path": EXECUTE, "method": "POST", "action": {"status": 401}}
    token = {"path": "/account/token", "after": 1, "action": {"status": 503}}
    found = outcome(quick, NAME, tmp_path, refused, {**token, "times": 3})
    good(quick, found)
    assert found.statuses == ["loaded"]
    quick.post("reset")
    quick.post("faults", [{"service": NAME, **rule} for rule in (refused, {**token, "times": None})])
    with flex(quick) as (made, request), pytest.raises(Unreachable, match="account/token answered 503"):
        made.submit(request)
    assert quick.get("jobs", service=NAME) == []


def test_a_bad_password_is_tried_once_whatever_there_is_to_export(quick):
    with flex(quick, password="nope") as (made, request):
        for _ in range(3):
            with pytest.raises(Refused, match=r"401: Bad Login or Password!.*check username"):
                made.submit(request)
    assert logins(quick) == 1


def test_a_user_who_is_locked_out_is_not_made_worse(quick):
    quick.post("settings", {"login_attempts": 0, "login_retry_after": 77})
    with (
        flex(quick) as (made, _),
        pytest.raises(Refused, match=r"too many bad logins.*wait 77 sec"),
    ):
        made.check()
    assert quick.get("statistics")["counts"]["logins_while_locked"] == 1


def test_a_captcha_is_explained(quick):
    body = {"error": {"message": "Login needs security code verification due to failed login attempts."}}
    login = {"path": "/gdc/account/login", "action": {"status": 401, "body": body}, "times": None}
    quick.post("faults", [{"service": NAME, **login}])
    with flex(quick) as (made, _), pytest.raises(Refused, match="in a browser"):
        made.check()
    assert logins(quick) == 1


@pytest.mark.parametrize("status", [302, 404, 405])
def test_a_login_that_is_nowhere_is_no_refusal(quick, status):
    login = {"path": "/gdc/account/login", "action": {"status": status}, "times": None}
    quick.post("faults", [{"service": NAME, **login}])
    with flex(quick) as (made, _), pytest.raises(Unreachable, match=f"answered {status}.*check base_url"):
        made.check()


def test_check_logs_in_and_triggers_nothing(quick):
    with flex(quick) as (made, _):
        made.check()
    assert [one["method"] for one in targets(quick)] == ["POST", "GET", "DELETE"]


# The raw export


def test_the_uri_is_asked_for_byte_for_byte_and_a_fresh_one_is_followed(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path, knobs={"job_seconds": 0.3}))
    polls = targets(quick, "GET", EXECUTE)
    assert all("%0A%2B%2F%3D&c=" in one["path"] for one in polls)
    assert len({one["path"] for one in polls}) == 2  # the first answer 202 names another uri
    assert "mangled_uris" not in quick.get("statistics")["counts"]
    assert [one["status"] for one in polls][-2:] == [202, 200]  # and the report is sent once


def test_a_fresh_uri_that_leads_elsewhere_is_not_followed(quick, tmp_path):
    away = {"substitute": ["/gdc/projects", "https://elsewhere.example/gdc/projects"]}
    polled = {"path": RESULT, "method": "GET", "times": None, "action": away}
    good(quick, outcome(quick, NAME, tmp_path, polled))


def test_a_window_is_filtered_by_the_uri_of_the_date_attribute(quick, tmp_path):
    day = yesterday(HELSINKI)
    two = Window(day.start - timedelta(days=1), day.end)
    with flex(quick) as (made, request):
        for window in (day, two):
            good(quick, run(made, replace(request, window=window), tmp_path), window)
    (identifiers,) = targets(quick, "POST", "/identifiers")
    assert json.loads(identifiers["body"]) == {"identifierToUri": ["date.date.mmddyyyy"]}
    last = day.start.astimezone(HELSINKI).date()
    spans = [(last.isoformat(), last.isoformat()), ((last - timedelta(days=1)).isoformat(), last.isoformat())]
    assert [json.loads(one["body"])["report_req"] for one in targets(quick, "POST", EXECUTE)] == [
        {
            "report": f"{WORKSPACE}/obj/643040",
            "context": {
                "filters": [
                    {
                        "uri": f"{WORKSPACE}/obj/1542",
                        "constraint": {"type": "interval", "from": first, "to": last},
                    }
                ]
            },
        }
        for first, last in spans
    ]


def test_settings_are_checked(sandbox):
    mistakes = {"report": 1, "window": "PT6H"}
    with pytest.raises(SettingsError) as raised, flex(sandbox, workspace_id=None, export=mistakes):
        pass
    assert "flex_insights.workspace_id: is required" in str(raised.value)
    assert "flex_insights.exports[0].report: is not a setting" in str(raised.value)
    shorter = {"window": "PT6H"}
    with (
        pytest.raises(SettingsError, match=r"exports\[0\].window: must be whole"),
        flex(sandbox, export=shorter),
    ):
        pass


# What each answer comes to


def poll(**action) -> dict:
    return {"path": RESULT, "method": "GET", "times": None, "action": action}


def execute(**action) -> dict:
    return {"path": EXECUTE, "method": "POST", "times": None, "action": action}


def printf(message: str, *parameters: object) -> dict:
    return {"error": {"message": message, "parameters": list(parameters), "component": "GDC::Exporter"}}


def ends(outcome: str, times: int | None = None) -> dict:
    return {"fail_jobs": [{"service": NAME, "outcome": outcome, "times": times}]}


MAINTENANCE = "Scheduled maintenance in progress. Please try again later."
TABLE = {
    # name: (faults, knobs, how the jobs end, what the message says)
    "200": ([], {}, ["loaded"], ""),
    "204 at once": ([], ends("empty"), ["empty"], ""),
    "202 without a body": ([{**poll(status=202), "times": 2}], {}, ["loaded"], ""),
    "202 with HTML": ([{**poll(status=202, body="<html>"), "times": 2}], {}, ["loaded"], ""),
    "400 while polled": (
        [],
        ends("failed"),
        ["failed"],
        "400: Report Conversations is not computable.*open the report in Flex Insights",
    ),
    "403 while polled": (
        [poll(status=403, body=printf("No access to %s", "report"))],
        {},
        ["failed"],
        "403: No access to report.*may see all that the report shows",
    ),
    "410 once": ([], ends("gone", 1), ["failed", "loaded"], "410: Task .*no such result any more"),
    "410 always": ([], ends("gone"), ["failed"] * 3, "410: Task "),
    "404 once": ([{**poll(status=404), "times": 1}], {}, ["failed", "loaded"], "404.*no such result"),
    "429 while polled": (
        [{**poll(status=429, headers={"Retry-After": "1"}), "times": 1}],
        {},
        ["loaded"],
        "",
    ),
    "503 while polled": ([{**poll(status=503, body=MAINTENANCE), "times": 7}], {}, ["loaded"], ""),
    "503 for ever": ([poll(status=503, body=MAINTENANCE)], {}, ["failed"], MAINTENANCE),
    "500 while polled": ([{**poll(status=500), "times": 1}], {}, ["loaded"], ""),
    "a page in place of the file": (
        [poll(status=200, headers={"Content-Type": "text/html"}, body="<html>Maintenance</html>")],
        {},
        ["failed"],
        "answered 200 with text/html in place of the report",
    ),
    "cut off within a chunk, once": (
        [{**poll(chunked_truncate=False, truncate_after_bytes=3000), "times": 1}],
        {"job_seconds": 0},
        ["loaded"],
        "",
    ),
    "maintenance at the trigger": (
        [{**execute(status=503, body=MAINTENANCE), "times": 2}],
        {},
        ["loaded"],
        "",
    ),
    "429 at the trigger": (
        [{**execute(status=429, headers={"Retry-After": "1"}), "times": 1}],
        {},
        ["loaded"],
        "",
    ),
    "400 at the trigger": (
        [execute(status=400, body=printf("Malformed %s in %d places", "filter", 2))],
        {},
        ["failed"],
        "400: Malformed filter in 2 places.*check report_id, .*date_identifier",
    ),
    "400 with other parameters": (
        [execute(status=400, body={"message": "No %s, %s, %s", "parameters": [{"a": "b"}]})],
        {},
        ["failed"],
        "400: No b, %s, %s",
    ),
    "400 with odd parameters": (
        [execute(status=400, body={"error": {"message": "No %s", "parameters": 7}})],
        {},
        ["failed"],
        "answered 400: .*No %s",
    ),
    "403 at the trigger": ([execute(status=403)], {}, ["failed"], "403.*may see this report"),
    "404 at the trigger": (
        [execute(status=404, body="<html><h1>Not here</h1></html>")],
        {},
        ["failed"],
        "404: .*<h1>Not here</h1>.*check report_id, .* and workspace_id",
    ),
    "302 at the trigger": (
        [execute(status=302, headers={"Location": "/gdc/elsewhere"})],
        {},
        ["failed"],
        "answered 302.*check base_url",
    ),
    "500 at the trigger": (
        [execute(status=500, body="<html>oops</html>")],
        {},
        ["failed"],
        "whether a job was triggered is not known",
    ),
    "no uri": (
        [execute(run=True, replace_body={"ok": True}, headers={"Location": ""})],
        {},
        ["failed"],
        "without the uri of a result an export may have been triggered",
    ),
    "only a Location": ([execute(run=True, replace_body="")], {}, ["loaded"], ""),
    "identifiers refused": (
        [{"path": "/identifiers", "times": None, "action": {"status": 403, "body": printf("Forbidden")}}],
        {},
        ["failed"],
        "403: Forbidden.*check workspace_id",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_outcome(quick, name, tmp_path):
    faults, knobs, statuses, message = TABLE[name]
    found = outcome(quick, NAME, tmp_path, *faults, knobs=knobs)
    assert found.statuses == statuses, found.error
    assert re.search(message, found.error, re.DOTALL), found.error
    if statuses[-1] == "loaded":
        good(quick, found)


def test_an_unknown_report_and_an_unknown_date_attribute_are_named(quick, tmp_path):
    found = outcome(quick, NAME, tmp_path, export={"report_id": 999})
    assert re.search("obj/999 does not exist.*check report_id", found.error)
    found = outcome(quick, NAME, tmp_path, export={"date_identifier": "date.nope"})
    assert "has no attribute 'date.nope'" in found.error
    assert found.statuses == ["failed"]


# Through the front door


def config(sandbox: Sandbox, *exports: dict, days: int = 1) -> dict:
    settings = sandbox.config(NAME)
    start = yesterday(HELSINKI).end - timedelta(days=days)
    conversations = {
        "name": "conversations",
        "report_id": 643040,
        "date_identifier": "date.date.mmddyyyy",
        "timezone": HELSINKI.key,
        "start_date": start.isoformat(),
    }
    settings[NAME]["exports"] = list(exports) or [conversations]
    return {**settings, "end_date": yesterday(HELSINKI).end.isoformat()}


def ids(result: Result) -> list[tuple[str, str]]:
    return [(row["conversation_id"], row["segment"]) for row in result.records("conversations")]


def test_days_arrive_in_utf_8_though_no_charset_says_so(sandbox):
    result = run_tap(config(sandbox, days=2), env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    end = yesterday(HELSINKI).end
    assert result.exit_code == 0, result.stderr
    assert ids(result) == expected(sandbox, Window(end - timedelta(days=2), end))
    agents = {record["agent"] for record in result.records("conversations")}
    assert {"Zoë Nyström", "Łukasz Wójcik", "陳怡君", "O'Neill, Sean", 'Ann "Annie" Lee'} <= agents
    for secret in (PASSWORD, "GDCAuthTT=", "&c=", "%0A"):
        assert secret not in result.stderr


def test_without_a_date_attribute_each_run_takes_a_snapshot(sandbox):
    workload = config(sandbox, {"name": "workload", "report_id": "643041"})
    first = run_tap(workload)
    second = run_tap(workload, state=first.state)
    for result in (first, second):
        assert result.exit_code == 0, result.stderr
        records = result.records("workload")
        assert all(record["date"] and record["date_2"] for record in records)  # a title that repeats
        assert len(records) > 0
        last = result.messages.index(result.of("RECORD", "workload")[-1])
        assert result.messages.index(result.of("ACTIVATE_VERSION", "workload")[0]) > last
        assert [run["window_start"] for run in result.runs] == [None]
    for one in targets(sandbox, "POST", EXECUTE):
        assert json.loads(one["body"]) == {"report_req": {"report": f"{WORKSPACE}/obj/643041"}}
    assert targets(sandbox, "POST", "/identifiers") == []


def test_a_job_in_the_state_is_resumed_though_its_uri_changed(sandbox):
    sandbox.post("settings", {"job_seconds": 2})
    settings = config(sandbox)
    with start_tap(settings) as tap:
        for line in tap.stdout:
            message = json.loads(line)
            if message["type"] == "STATE" and targets(sandbox, "GET", EXECUTE):
                state = message["value"]
                if state["bookmarks"]["conversations"]["jobs"]:
                    break
        while len({one["path"] for one in targets(sandbox, "GET", EXECUTE)}) < 2:
            time.sleep(0.05)
    result = run_tap(settings, state=state)
    assert (result.exit_code, ids(result)) == (0, expected(sandbox)), result.stderr
    assert [run["resumed"] for run in result.runs] == [True]
    assert len(targets(sandbox, "POST", EXECUTE)) == 1


def test_a_failure_is_told_and_stops_the_bookmark(sandbox):
    sandbox.post("settings", ends("failed"))
    result = run_tap(config(sandbox))
    assert (result.exit_code, ids(result)) == (3, [])
    (failed,) = result.runs
    assert "400: Report Conversations is not computable" in failed["error"]
    assert "replication_key_value" not in result.bookmark("conversations")
