"""Gooee, as its documents say it, and what each of its answers comes to; first without the tap."""

import json
import re
import uuid
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from conftest import Result, Sandbox, run_tap, start_tap
from vendors import ENERGY, outcome, provider, run

from tap_analytics_exports.errors import (
    Ambiguous,
    ExportFailed,
    Refused,
    SettingsError,
    Unreachable,
)
from tap_analytics_exports.providers.base import Empty, Failed, Ready

NAME = "gooee"
EMPTY = "00c0ffee-0000-4000-8000-000000000000"
CREATE = r"/analytics/exports?/?$"
ONE = r"/analytics/exports/[^/?]+/$"
LIST = r"/exports/\?"
HOST = r"\.csv\?"
LOGIN = {"api_token": None, "username": "lights@example.com", "password": "gooee-pass"}


def asked(sandbox: Sandbox, service: str = NAME) -> list[tuple[str, str, int]]:
    """Each request's method, path and status."""
    seen = sandbox.get("requests", service=service)
    return [(each["method"], urlsplit(each["path"]).path, each["status"]) for each in seen]


def jobs(sandbox: Sandbox) -> list[dict[str, Any]]:
    return sandbox.get("jobs", service=NAME)


def expected(sandbox: Sandbox) -> list[tuple[str, str]]:
    """The rows of the snapshot that was handed out last, by instant and device."""
    as_of = sandbox.get("served", service=NAME)[-1]["as_of"]
    rows = sandbox.get("expected", provider=NAME, export=ENERGY, as_of=as_of)
    return [(row["timestamp"], row["device_id"]) for row in rows]


def good(sandbox: Sandbox, found) -> None:
    assert found.statuses[-1] == "loaded", found
    assert [(row["timestamp"], row["device_id"]) for row in found.rows] == expected(sandbox)


def fault(path: str, times: int | None = 1, method: str = "GET", **action: Any) -> dict[str, Any]:
    service = "gooee_files" if path == HOST else NAME
    return {"service": service, "method": method, "path": path, "times": times, "action": action}


def create(**action: Any) -> dict[str, Any]:
    return fault(CREATE, method="POST", **action)


# The way of a snapshot


def test_an_export_is_created_awaited_and_its_url_fetched_anew(quick, tmp_path):
    with provider(quick, NAME) as (made, request):
        good(quick, run(made, request, tmp_path))
    everything = sorted(quick.get("requests"), key=lambda each: each["time"])
    *_, last, file = [each for each in everything if each["service"] in (NAME, "gooee_files")]
    assert re.search(ONE, last["path"])
    assert (file["service"], file["authorization"], file["cookies"]) == ("gooee_files", None, [])
    assert {each["authorization"] for each in everything if each["service"] == NAME} == {"raw"}
    assert quick.get("statistics")["counts"] == {}
    (job,) = jobs(quick)
    name = job["request"]["name"]
    assert name == f"tap-analytics-exports {request.fingerprint} {request.export_id}"
    assert (len(request.fingerprint), len(name) <= 100) == (32, True)


def test_an_empty_export_may_have_no_file(quick, tmp_path):
    without = {"substitute": ['"url":"[^"]*"', '"url":null']}
    rule = {"path": ONE, "times": None, "action": without}
    assert outcome(quick, NAME, tmp_path, rule, export={"query_id": EMPTY}).statuses == ["empty"]
    assert not asked(quick, "gooee_files")


@pytest.mark.parametrize("status", [404, 405, 301])
def test_either_spelling_of_the_path_creates(quick, status, tmp_path):
    headers = {"Location": "/analytics/exports"} if status == 301 else {}
    rule = fault("/exports/$", None, "POST", status=status, headers=headers)
    knobs = {"gooee_create_path": "/analytics/export"}
    good(quick, outcome(quick, NAME, tmp_path, rule, knobs=knobs))
    posts = [each for each in asked(quick) if each[0] == "POST"]
    assert posts == [("POST", "/analytics/exports/", status), ("POST", "/analytics/export", 201)]


# Credentials


@pytest.mark.parametrize("scheme", ["raw", "Bearer"])
def test_an_api_token_raw_or_as_bearer(quick, scheme, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path, auth_scheme=scheme))
    seen = {each["authorization"] for each in quick.get("requests", service=NAME)}
    assert seen == {scheme}


def test_a_jwt_that_is_given(quick, tmp_path):
    url = f"{quick.config()[NAME]['base_url']}/auth/login"
    login = {"username": LOGIN["username"], "password": LOGIN["password"]}
    token = requests.post(url, json=login, timeout=10).json()["token"]
    good(quick, outcome(quick, NAME, tmp_path, api_token=token, auth_scheme="JWT"))


def test_a_login_gives_a_jwt_which_is_renewed_once_it_is_refused(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path, {**fault(ONE, status=401), "after": 1}, **LOGIN))
    assert [path for _, path, _ in asked(quick)].count("/auth/login") == 2
    assert len(jobs(quick)) == 1


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"api_token": "not-the-right-one"}, r"gooee: .*401.*check the credentials"),
        ({**LOGIN, "password": "not-the-right-one"}, r"gooee: .*401.*check username and password"),
    ],
)
def test_refused_credentials(quick, block, message):
    with provider(quick, NAME, **block) as (made, request):
        for verb in (made.check, lambda: made.submit(request)):
            with pytest.raises(Refused, match=message) as raised:
                verb()
            assert "not-the-right-one" not in str(raised.value)
    assert jobs(quick) == []


@pytest.mark.parametrize("status", [302, 404, 405])
def test_a_login_that_is_nowhere_is_no_refusal(quick, status):
    quick.post("faults", [fault("/auth/login", None, "POST", status=status)])
    with (
        provider(quick, NAME, **LOGIN) as (made, _),
        pytest.raises(Unreachable, match=f"answered {status}, which is no answer to a login; check base_url"),
    ):
        made.check()


def test_no_credentials_are_a_mistake_in_the_settings(sandbox):
    message = "gooee.api_token: is required, or `username` and `password`"
    with pytest.raises(SettingsError, match=message), provider(sandbox, NAME, api_token=None):
        pass


def test_check_asks_who_we_are(quick):
    with provider(quick, NAME) as (made, _):
        made.check()
    assert asked(quick) == [("GET", "/me", 200)]


# What is checked


@pytest.mark.parametrize("written", ["{}", "{}.0", '"{}"'])
def test_counts_go_along_with_the_file_however_they_are_written(quick, written):
    substitute = [r'"(number_of_rows|total_bytes)":(\d+)', rf'"\1":{written.format(chr(92) + "2")}']
    quick.post("faults", [fault(ONE, None, substitute=substitute)])
    with provider(quick, NAME) as (made, request):
        handle = made.submit(request)
        while made.poll(request, handle) != Ready():
            pass
        (file,) = made.files(request, handle)
    assert file.rows == 100
    assert isinstance(file.size, int)
    assert file.size > 1000


@pytest.mark.parametrize("field", ["number_of_rows", "total_bytes"])
@pytest.mark.parametrize("value", ["-1", '"many"', "1.5", "true", "[]"])
def test_a_count_that_nobody_can_read_fails_the_export(quick, field, value, tmp_path):
    rule = fault(ONE, None, substitute=[rf'"{field}":\d+', f'"{field}":{value}'])
    found = outcome(quick, NAME, tmp_path, rule)
    assert found.statuses == ["failed"]
    assert re.search(rf"gooee: the answer's {field} is .*, which is no count", found.error)


def test_total_bytes_is_checked(quick, tmp_path):
    lie = fault(ONE, None, substitute=[r'"total_bytes":(\d+)', r'"total_bytes":9\1'])
    found = outcome(quick, NAME, tmp_path, lie)
    assert (found.statuses, "bytes arrived where 9" in found.error) == (["failed"], True)


def test_an_expired_url_is_fetched_anew(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path, fault(HOST, status=403, body="expired")))
    seen = [each for each in quick.get("requests") if each["service"] in (NAME, "gooee_files")]
    order = [each["service"] for each in sorted(seen, key=lambda each: each["time"])]
    assert order[-4:] == [NAME, "gooee_files", NAME, "gooee_files"]


def test_urls_that_are_always_expired_fail_the_export(quick, tmp_path):
    found = outcome(quick, NAME, tmp_path, knobs={"url_seconds": -5})
    assert found.statuses == ["failed"]
    assert "answered 403" in found.error
    assert "Signature" not in found.error


# Deleting


@pytest.mark.parametrize(("wanted", "state"), [(True, "deleted"), (False, "done")])
def test_delete_after_deletes(quick, wanted, state, tmp_path):
    with provider(quick, NAME, export={"delete_after": wanted}) as (made, request):
        run(made, request, tmp_path)
        made.done(request, {"id": jobs(quick)[0]["id"]})
    assert [job["state"] for job in jobs(quick)] == [state]


def test_a_delete_that_is_refused_says_what_to_do(quick):
    quick.post("faults", [fault(ONE, None, "DELETE", status=403)])
    with provider(quick, NAME, export={"delete_after": True}) as (made, request):
        handle = made.submit(request)
        with pytest.raises(ExportFailed, match=r"403.*may delete exports, or turn delete_after off"):
            made.done(request, handle)


# Finding exports again


@pytest.mark.parametrize("answer", [{"close": "before_headers"}, {"status": 504}, {"replace_body": "<html>"}])
def test_an_export_that_was_created_without_an_answer_is_found_by_name(quick, answer):
    quick.post("settings", {"gooee_page_size": 1})
    with provider(quick, NAME) as (made, request):
        for _ in range(2):
            made.submit(replace(request, fingerprint=uuid.uuid4().hex, export_id=str(uuid.uuid4())))
        quick.post("faults", [create(run=True, **answer)])
        with pytest.raises(Ambiguous):
            made.submit(request)
        assert made.find(request, None) == (request.export_id, {"id": jobs(quick)[-1]["id"]})


def test_an_export_that_was_perhaps_not_created_is_not_found(quick):
    quick.post("faults", [create(close="before_headers")])
    with provider(quick, NAME) as (made, request):
        with pytest.raises(Ambiguous, match="whether a job was triggered is not known"):
            made.submit(request)
        assert made.find(request, None) is None
    assert jobs(quick) == []
    assert len([each for each in asked(quick) if each[0] == "POST"]) == 1


def test_an_export_of_another_process_is_found_unless_its_rows_are_safe(quick):
    with provider(quick, NAME) as (made, request):
        first = made.submit(request)
    with provider(quick, NAME) as (made, again):
        assert made.find(again, None) == (request.export_id, first)
    with provider(quick, NAME) as (made, again):
        assert made.find(again, request.export_id) is None
        made.submit(again)
    with provider(quick, NAME) as (made, third):  # the first was consumed before the second
        assert made.find(third, again.export_id) is None
    with provider(quick, NAME, export={"query_id": EMPTY}) as (made, other):
        assert made.find(other, None) is None


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"status": 403}, "answered 403.*can't be seen.*may list them"),
        ({"status": 404}, "answered 404.*can't be seen"),
        ({"replace_body": {"count": 0}}, "malformed.*can't be seen"),
        (
            {"replace_body": [], "headers": {"Link": '<https://elsewhere.example/>; rel="next"'}},
            "another host",
        ),
        ({"replace_body": [], "headers": {"Link": '</analytics/exports/>; rel="next"'}}, "has no end"),
        ({"replace_body": {"results": [], "next": "/analytics/exports/"}}, "has no end"),
    ],
)
def test_a_list_that_is_refused_does_not_count_as_not_found(quick, action, message, monkeypatch):
    monkeypatch.setattr("tap_analytics_exports.providers.gooee._PAGES", 5)
    quick.post("faults", [fault("/exports/", None, **action)])
    with provider(quick, NAME) as (made, request), pytest.raises(Unreachable, match=message):
        made.find(request, None)


def test_a_list_may_be_an_object_with_results(quick):
    with provider(quick, NAME) as (made, request):
        handle = made.submit(request)
        quick.post("faults", [fault(LIST, substitute=[r"(?s)^(.*)$", r'{"results":\1,"next":null}'])])
        assert made.find(request, None) == (request.export_id, handle)


# The table of outcomes


STATES = [
    # What a running export is called, how it ends, what the jobs come to, the message.
    (["queued", "running"], "done", ["loaded"], ""),
    (["Queued"], "done", ["loaded"], ""),
    (
        ["queued"],
        "failed",
        ["failed"],
        "the export failed: Query execution was cancelled.*see whether the query",
    ),
    (["paused"], "stuck", ["failed"], "unknown state 'paused'"),
]


@pytest.mark.parametrize("case", STATES, ids=str)
def test_states(quick, case, tmp_path):
    words, ends, statuses, message = case
    fail = [{"service": NAME, "outcome": ends, "times": 1}]
    found = outcome(quick, NAME, tmp_path, knobs={"gooee_words": words, "fail_jobs": fail})
    assert found.statuses == statuses
    assert re.search(message, found.error)


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        (None, "Gooee does not say why"),
        ("", "Gooee does not say why"),
        ("no JSON", "no JSON"),
        ('{"detail": ["a", {"b": "c"}]}', "a; c"),
        ({"detail": "an object"}, "an object"),
        ([1, [2]], "1; 2"),
    ],
)
def test_why_an_export_failed(quick, errors, why):
    quick.post("faults", [fault(ONE, replace_body={"status": "failed", "errors": errors})])
    with provider(quick, NAME) as (made, request):
        state = made.poll(request, made.submit(request))
    assert isinstance(state, Failed)
    assert f"the export failed: {why}; " in state.why


def test_a_complete_export_of_no_rows_and_no_url_is_empty(quick):
    body = {"status": "complete", "number_of_rows": "0", "url": None}
    quick.post("faults", [fault(ONE, replace_body=body)])
    with provider(quick, NAME) as (made, request):
        assert made.poll(request, made.submit(request)) == Empty()


WRONG = {"query": ['Invalid pk "1" - object does not exist.']}
OUTCOMES = {
    # What goes wrong: what the jobs come to, the exports that were created, the message.
    "create 400": (create(status=400, body=WRONG), ["failed"], 0, "400.*Invalid pk.*check query_id"),
    "create 403": (create(status=403), ["failed"], 0, "answered 403.*may create exports"),
    "create 404, at either path": (
        fault(CREATE, None, "POST", status=404),
        ["failed"],
        0,
        "answered 404.*check base_url",
    ),
    "create 429": (create(status=429, headers={"Retry-After": "1"}), ["loaded"], 1, ""),
    "create 503": (create(status=503), ["loaded"], 1, ""),
    "create 201 without an id": (create(replace_body={}), ["loaded"], 1, ""),
    "status 500 for a while": (fault(ONE, 2, status=500), ["loaded"], 1, ""),
    "status no JSON for a while": (fault(ONE, 2, status=200, body="<html>"), ["loaded"], 1, ""),
    "status 403": (fault(ONE, status=403), ["failed"], 1, "answered 403.*may see exports"),
    "status 404": (fault(ONE, status=404), ["failed", "loaded"], 2, "does not know the export"),
    "complete without numbers": (
        fault(ONE, None, substitute=[r'"(number_of_rows|total_bytes)":\d+', r'"\1":null']),
        ["loaded"],
        1,
        "",
    ),
    "complete without a url": (
        fault(ONE, None, substitute=['"url":"[^"]*"', '"url":""']),
        ["failed"],
        1,
        "has no url yet",
    ),
    "file 404": (fault(HOST, status=404), ["failed", "loaded"], 2, "does not keep the file"),
    "file 400": (fault(HOST, status=400, body="SigKey"), ["failed"], 1, "answered 400(?!.*SigKey)"),
    "file 503": (fault(HOST, status=503), ["loaded"], 1, ""),
    "file cut by its length": (fault(HOST, truncate_after_bytes=500), ["loaded"], 1, ""),
    "file cut without a length": (
        fault(HOST, truncate_after_bytes=500, no_length=True),
        ["loaded"],
        1,
        "",
    ),
    "file always cut": (fault(HOST, None, truncate_after_bytes=0), ["failed"], 1, "did not arrive whole"),
    "file whole without a length": (fault(HOST, no_length=True), ["loaded"], 1, ""),
    "file packed for the way": (fault(HOST, gzip_encode=True), ["loaded"], 1, ""),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_outcomes(quick, case, tmp_path):
    rule, statuses, created, message = OUTCOMES[case]
    found = outcome(quick, NAME, tmp_path, rule)
    assert found.statuses == statuses, found.error
    assert len(jobs(quick)) == created
    assert re.search(message, found.error), found.error
    if statuses[-1] == "loaded":
        good(quick, found)


# Through the front door


def lights(sandbox: Sandbox, *exports: dict[str, Any], **block: Any) -> dict[str, Any]:
    """Some exports, one of energy if none is named."""
    config = sandbox.config(NAME)
    exports = exports or ({},)
    named = [
        {"name": f"x{i}" if i else "energy", "query_id": ENERGY, **each} for i, each in enumerate(exports)
    ]
    config[NAME] |= {"exports": named, **block}
    return config


def loaded(sandbox: Sandbox, result: Result) -> None:
    assert (result.exit_code, result.runs[-1]["status"]) == (0, "loaded"), result.stderr
    rows = [(record["timestamp"], record["device_id"]) for record in result.records("energy")]
    assert rows == expected(sandbox)
    assert len(result.of("ACTIVATE_VERSION", "energy")) == 1


def test_snapshots_one_of_them_empty_and_one_deleted_once_its_rows_are_out(sandbox):
    exports = ({"delete_after": True}, {"query_id": EMPTY})
    result = run_tap(lights(sandbox, *exports), env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    assert result.exit_code == 0, result.stderr
    assert {run["stream"]: run["status"] for run in result.runs} == {"energy": "loaded", "x1": "empty"}
    assert [len(result.of("ACTIVATE_VERSION", stream)) for stream in ("energy", "x1")] == [1, 1]
    assert [name for name in result.schema("x1") if not name.startswith("_sdc_")]
    state = {job["request"]["name"].split(" ")[-1]: job["state"] for job in jobs(sandbox)}
    ours = {run["stream"]: run["export_id"] for run in result.runs}
    assert (state[ours["energy"]], state[ours["x1"]]) == ("deleted", "done")
    for secret in (sandbox.config()[NAME]["api_token"], "Signature="):
        assert secret not in result.stdout + result.stderr


def test_number_of_rows_is_checked_and_what_failed_is_not_deleted(sandbox):
    sandbox.post("settings", {"row_count_lie": 1})
    result = run_tap(lights(sandbox, {"delete_after": True}))
    assert (result.exit_code, {run["status"] for run in result.runs}) == (3, {"failed"})
    assert "100 rows where the vendor says 101" in result.runs[0]["error"]
    assert (result.records("energy"), result.of("ACTIVATE_VERSION", "energy")) == ([], [])
    assert {job["state"] for job in jobs(sandbox)} == {"done"}


def test_a_list_or_a_delete_that_is_refused_is_only_a_warning(sandbox):
    refused = [fault(LIST, None, status=403), fault(ONE, None, "DELETE", status=403)]
    sandbox.post("faults", refused)
    result = run_tap(lights(sandbox, {"delete_after": True}))
    loaded(sandbox, result)
    assert "not deleted" in result.stderr


def until_triggered(config: dict[str, Any]) -> None:
    """A run that dies right after its trigger."""
    with start_tap(config) as process:
        assert process.stdout is not None
        for line in process.stdout:
            value = json.loads(line).get("value")
            if value and value["bookmarks"]["energy"].get("jobs"):
                return


def test_an_export_is_found_though_nothing_of_ours_survived(sandbox):
    sandbox.post("settings", {"job_seconds": 3})
    config = {**lights(sandbox), "ledger": ""}
    until_triggered(config)
    found = run_tap(config)
    loaded(sandbox, found)
    assert len(jobs(sandbox)) == 1
    assert found.runs[0]["resumed"] is True
    assert jobs(sandbox)[0]["request"]["name"].endswith(found.runs[0]["export_id"])
    assert found.bookmark("energy")["last_export_id"] == found.runs[0]["export_id"]


def test_a_snapshot_whose_rows_are_safe_is_not_taken_for_the_next(sandbox):
    config = {**lights(sandbox), "ledger": ""}
    state: dict[str, Any] | None = None
    for run_number in range(2):
        result = run_tap(config, state=state)
        loaded(sandbox, result)
        assert (len(jobs(sandbox)), result.runs[0]["resumed"]) == (run_number + 1, False)
        state = result.state
