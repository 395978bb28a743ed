"""What the five providers promise of every call: what is malformed is called so, no handle leads astray."""

import io
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from conftest import Sandbox, run_tap
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vendors import NAMES, provider, run

from tap_analytics_exports.errors import (
    Ambiguous,
    ExportFailed,
    JobGone,
    Refused,
    TapError,
)
from tap_analytics_exports.providers import answers
from tap_analytics_exports.providers.base import Provider, Request
from tap_analytics_exports.transport.download import download


@pytest.mark.parametrize("name", NAMES)
def test_an_export_is_loaded(quick, name, tmp_path):
    with provider(quick, name) as (made, request):
        outcome = run(made, request, tmp_path)
    assert (outcome.statuses, len(outcome.rows)) == (["loaded"], 100), outcome


# What arrives where a vendor's JSON should be.
MALFORMED = {
    "a list": b"[]",
    "a list of lists": b"[[[]]]",
    "a list of numbers": b"[1, 2]",
    "a text": b'"ok"',
    "null": b"null",
    "a number": b"12",
    "true": b"true",
    "nothing": b"",
    "blanks": b" \n ",
    "keys of others": b'{"foo": 1, "detail": "Hello"}',
    "objects for texts": b'{"id": {}, "token": {}, "uri": {}, "status": {}, "result": 7, "workflowId": {}}',
    "lists for texts": b'{"id": [], "token": [], "uri": [], "status": [], "result": [[]]}',
    "numbers for texts": b'{"id": 1.5, "token": 5, "uri": 5, "status": 5, "result": {"runId": 5}}',
    "nulls": b'{"id": null, "token": null, "uri": null, "status": null, "result": null}',
    "empty texts": b'{"id": "", "token": "", "uri": "", "status": "", "results": [""]}',
    "no numbers": b'{"id": NaN, "token": Infinity, "uri": NaN, "status": NaN}',
    "parts that are no objects": b'{"userLogin": [], "userToken": "x", "identifiers": {"a": 1}, "result": 1}',
    "parts of parts": b'{"userLogin": {"token": []}, "userToken": {"token": 7}, "identifiers": [{}, 5]}',
    "a number beyond all": b'{"id": 1e999, "token": 1e999, "status": 1e999}',
    "a cut object": b'{"id": "1", "token": "x", "status": "comp',
    "a deep list": b"[" * 100_000,
    "a deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a web page": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    "UTF-16": '{"id": "1", "token": "x", "status": "Completed"}'.encode("utf-16"),
    "no text at all": bytes(range(128, 256)),
}

# Answers as the vendors document them, by provider, method and the end of the path.
RIGHT: dict[str, dict[tuple[str, str], Any]] = {
    "flex_insights": {
        ("POST", "/account/login"): {"userLogin": {"profile": "/gdc/account/profile/f2", "token": "sst"}},
        ("GET", "/account/token"): {"userToken": {"token": "tt"}},
        ("POST", "/identifiers"): {
            "identifiers": [{"identifier": "date.date.mmddyyyy", "uri": "/gdc/md/w/1"}]
        },
        ("POST", "/execute/raw"): {"uri": "/gdc/projects/w/execute/raw/0a?q=%0A"},
    },
    "intelepeer": {
        ("POST", "/authenticate"): {"token": "fFkq"},
        ("GET", "/Q"): {"CallEvent": {"fields": ["Direction"]}},
        ("POST", "/Q"): {"id": "ae9f"},
        ("GET", "/Q/ae9f/status"): {"status": "Completed", "guid": "ae9f"},
        ("GET", "/Q/ae9f"): {"status": "Process finished. Download: [u'reports/a__000000000000.csv.gz']"},
    },
    "khoros_care": {
        ("GET", "/config/timezones"): {"status": "PASS", "result": []},
        ("POST", "/incoming_post"): {"status": "PASS", "result": {"workflowId": "w", "runId": "r"}},
        ("GET", "/status"): {
            "result": {"jobInfo": {"runId": "r"}, "result": {"runnerState": "CLOSED", "detail": "COMPLETED"}}
        },
    },
    "gooee": {
        ("POST", "/auth/login"): {"token": "jwt"},
        ("GET", "/me"): {"id": "2a31"},
        ("GET", "/exports/"): [],
        ("POST", "/exports/"): {"id": "e06b"},
        ("GET", "/exports/e06b/"): {"id": "e06b", "status": "complete", "url": "https://files.example/x.csv"},
    },
    "giosg": {("GET", "/info/"): {"id": "0d9a"}},
}
HANDLES = {
    "flex_insights": {"uri": "/gdc/projects/w/execute/raw/0a?q=%0A"},
    "intelepeer": {"id": "ae9f"},
    "khoros_care": {"workflowId": "w", "runId": "r"},
    "gooee": {"id": "e06b"},
    "giosg": {},
}
LOGIN = {"api_token": None, "username": "lights@example.com", "password": "gooee-pass"}

Doing = Callable[[Provider[Any, Any], Request[Any]], object]


def handle(made: Provider[Any, Any]) -> dict[str, Any]:
    return dict(HANDLES[made.name])


def fetch(made: Provider[Any, Any], request: Request[Any]) -> None:
    (file,) = made.files(request, handle(made))
    with tempfile.TemporaryDirectory() as folder:
        download(file, Path(folder, "file"))


# Each call of each provider, and what makes it.
CALLS: dict[tuple[str, str, str], Doing] = {
    ("flex_insights", "POST", "/account/login"): lambda made, _: made.check(),
    ("flex_insights", "GET", "/account/token"): lambda made, _: made.check(),
    ("flex_insights", "POST", "/identifiers"): lambda made, request: made.submit(request),
    ("flex_insights", "POST", "/execute/raw"): lambda made, request: made.submit(request),
    ("intelepeer", "POST", "/authenticate"): lambda made, request: made.submit(request),
    ("intelepeer", "GET", "/Q"): lambda made, request: made.submit(request),
    ("intelepeer", "POST", "/Q"): lambda made, request: made.submit(request),
    ("intelepeer", "GET", "/Q/ae9f/status"): lambda made, request: made.poll(request, handle(made)),
    ("intelepeer", "GET", "/Q/ae9f"): lambda made, request: made.poll(request, handle(made)),
    ("khoros_care", "POST", "/incoming_post"): lambda made, request: made.submit(request),
    ("khoros_care", "GET", "/status"): lambda made, request: made.poll(request, handle(made)),
    ("gooee", "POST", "/auth/login"): lambda made, request: made.submit(request),
    ("gooee", "GET", "/exports/"): lambda made, request: made.find(request, None),
    ("gooee", "POST", "/exports/"): lambda made, request: made.submit(request),
    ("gooee", "GET", "/exports/e06b/"): lambda made, request: made.poll(request, handle(made)),
    ("giosg", "GET", "/info/"): fetch,
}


@pytest.fixture(scope="module")
def settings_of(session_sandbox) -> Sandbox:
    """Where the providers' blocks come from; nothing is asked there."""
    return session_sandbox


@contextmanager
def answering(name: str, wrong: tuple[str, str], body: bytes, status: int | None = None) -> Iterator[None]:
    """Let a vendor answer as it documents, without a network, but for one call."""
    table = {call: json.dumps(answer).encode() for call, answer in RIGHT[name].items()} | {wrong: body}
    ends = sorted(table, key=lambda call: len(call[1]), reverse=True)

    def send(adapter: Any, request: requests.PreparedRequest, **how: Any) -> requests.Response:
        path = request.url.partition("?")[0]
        call = next((each for each in ends if each[0] == request.method and path.endswith(each[1])), None)
        code = 404 if call is None else 200 if request.method == "GET" else 201
        if (request.method == "POST" and "/log" in path) or path.endswith("/authenticate"):
            code = 200
        if call == wrong and status is not None:
            code = status
        raw = urllib3.HTTPResponse(io.BytesIO(table.get(call, b"{}")), status=code, preload_content=False)
        return adapter.build_response(request, raw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.adapters.HTTPAdapter, "send", send)
        patch.setattr(time, "sleep", lambda seconds: None)
        for module in [each for at, each in sys.modules.items() if at.startswith("tap_analytics_exports.")]:
            if hasattr(module, "hide"):  # tokens of any form would be taken out of the messages
                patch.setattr(module, "hide", lambda *secrets: None)
        yield


def result(
    settings_of: Sandbox, call: tuple[str, str, str], body: bytes, status: int | None = None
) -> object:
    """What a call comes to when its answer is this: what it returns, or the error that explains it."""
    name, *wrong = call
    block = LOGIN if call[2] == "/auth/login" else {}
    with answering(name, tuple(wrong), body, status), provider(settings_of, name, **block) as (made, request):
        try:
            return CALLS[call](made, request)
        except TapError as error:
            return error


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_the_answers_of_these_tests_are_right(settings_of, call):
    right = json.dumps(RIGHT[call[0]][call[1:]]).encode()
    found = result(settings_of, call, right)
    assert "malformed" not in str(found)
    assert call[0] == "giosg" or not isinstance(found, TapError), found


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_malformed_answer_is_called_malformed_and_not_blamed_on_the_credentials(settings_of, call):
    name, method, path = call
    for what, body in MALFORMED.items():
        if path == "/exports/" and what == "a list" and method == "GET":
            continue  # there are no exports
        found = result(settings_of, call, body)
        assert not isinstance(found, Refused), (what, found)
        assert "malformed answer" in str(found), (what, found)
        assert re.search(rf"{name}: {method} http\S*{path} answered 20[01]", str(found)), (what, found)


WORDS = [
    "id",
    "token",
    "uri",
    "status",
    "result",
    "userLogin",
    "userToken",
    "identifiers",
    "identifier",
    "jobInfo",
]
WORDS += [
    "runnerState",
    "detail",
    "workflowId",
    "runId",
    "results",
    "next",
    "name",
    "created",
    "url",
    "messages",
]
WORDS += [
    "fields",
    "CallEvent",
    "number_of_rows",
    "total_bytes",
    "errors",
    "profile",
    "downloadUrl",
    "statusUrl",
]
TEXTS = st.text() | st.sampled_from(
    ["..", "PASS", "complete", "failed", "Completed", "Failed", "CLOSED", "RUNNING"]
)
TEXTS |= st.sampled_from(
    ["Process finished. Download: [u'x']", "Download: [7]", "http://[", "//x/..", "2026-01-01"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=12,
)


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON, status=st.sampled_from([None, None, None, 302, 400, 404, 406, 410, 422]))
def test_no_answer_of_any_form_is_a_surprise(settings_of, call, document, status):
    found = result(settings_of, call, json.dumps(document).encode(), status)
    refused = isinstance(found, Refused)
    assert not refused or (status == 400 and call[2] in ("/account/login", "/authenticate", "/auth/login")), (
        found
    )
    if isinstance(found, TapError):
        assert str(found).startswith(call[0]), found


def test_a_malformed_answer_leaves_the_other_exports_alone(sandbox):
    odd = {"run": True, "replace_body": ["no object"]}
    path = r"/reports/report/.*startTime"
    sandbox.post("faults", [{"service": "khoros_care", "path": path, "times": None, "action": odd}])
    result = run_tap(sandbox.config("khoros_care", "giosg"))
    assert result.exit_code == 3, result.stderr
    assert {run["provider"] for run in result.runs if run["status"] == "loaded"} == {"giosg"}
    errors = [run["error"] for run in result.runs if run["status"] == "failed"]
    assert len(errors) >= 3  # of each of its exports
    assert all("malformed answer" in error for error in errors)
    assert "Traceback" not in result.stderr


# Credentials, through the front door

SECRETS = {
    "flex_insights": "password",
    "intelepeer": "password",
    "khoros_care": "company_key",
    "gooee": "api_token",
    "giosg": "api_token",
}


def test_credentials_that_are_refused_fail_each_provider_by_its_name(sandbox):
    config = sandbox.config()
    for name, key in SECRETS.items():
        config[name][key] = "not-the-right-one"
    result = run_tap(config)
    tested = run_tap(config, "--test")
    assert (result.exit_code, result.runs, tested.exit_code) == (1, [], 1), result.stderr
    assert sandbox.get("jobs") == []
    for name in NAMES:
        for output in (result.stderr, tested.stdout):
            assert re.search(rf"{name}\b.*401.*check .*(credentials|password)", output), (name, output)
    assert "not-the-right-one" not in result.stderr + tested.stdout + tested.stderr


# Handles, as a state or a ledger may have them


ODD: list[Any] = [
    None, [], "x", 5, {}, {"foo": 1}, {"id": {}}, {"id": []}, {"id": True}, {"id": ""}, {"id": "x" * 10_000},
    {"uri": 5}, {"uri": ""}, {"workflowId": 5, "runId": "r"}, {"workflowId": "w"},
    {"workflowId": "w", "runId": None}, {"parts": []}, {"id": float("nan")},
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NAMES if name != "giosg"])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_a_handle_that_is_none_of_ours_is_a_job_that_is_gone(settings_of, name, odd):
    with answering(name, ("GET", "/nowhere"), b""), provider(settings_of, name) as (made, request):
        for verb in (made.poll, made.files):
            with pytest.raises(JobGone, match=rf"{name}: the handle .* is none of ours"):
                verb(request, odd)


@pytest.mark.parametrize(
    "uri",
    [
        "https://elsewhere.example/gdc/projects/w/execute/raw/0a",
        "//elsewhere.example/gdc/x",
        "http://127.0.0.1:1/gdc/x",
        "/elsewhere/x",
        "x",
        "/gdc/../elsewhere",
        "/gdc/%2e%2e/elsewhere",
        "http://[/gdc/x",
        "file:///gdc/x",
    ],
)
def test_a_result_of_flex_lies_in_its_own_api(settings_of, uri):
    answer = json.dumps({"uri": uri}).encode()
    found = result(settings_of, ("flex_insights", "POST", "/execute/raw"), answer)
    assert isinstance(found, Ambiguous)
    assert "leads out of the API" in str(found)
    with (
        answering("flex_insights", ("GET", "/x"), b""),
        provider(settings_of, "flex_insights") as (made, request),
    ):
        for verb in (made.poll, made.files):
            with pytest.raises(JobGone, match="leads out of the API"):
                verb(request, {"uri": uri})


@pytest.mark.parametrize("name", ["intelepeer", "khoros_care", "gooee"])
@pytest.mark.parametrize("odd", ["..", ".", "../../me", "a/b?c#d", "%2e%2e", "x y", "\ud800"])
def test_an_id_stays_in_its_place_in_the_path(settings_of, name, odd):
    paths = []

    def send(adapter, request, **how):
        paths.append(request.url)
        raw = urllib3.HTTPResponse(io.BytesIO(b"{}"), status=404, preload_content=False)
        return adapter.build_response(request, raw)

    block = {"api_token": "x"} if name == "intelepeer" else {}
    with provider(settings_of, name, **block) as (made, request), pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.adapters.HTTPAdapter, "send", send)
        with pytest.raises(JobGone):
            made.poll(request, {"id": odd, "workflowId": odd, "runId": odd})
    (path,) = paths
    start = {"intelepeer": "/dwh/Q/", "khoros_care": "/reports/report/", "gooee": "/analytics/exports/"}[name]
    assert start in path
    assert not {".", ".."} & set(path.partition("?")[0].split("/"))


# Counts


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (32, 32),
        (0, 0),
        (32.0, 32),
        ("32", 32),
        ("1,234", 1234),
        ("1,234,567.0", 1234567),
        (" 7 ", 7),
        (None, None),
    ],
)
def test_a_count_is_read(value, count):
    assert answers.count("gooee", "number_of_rows", value) == count


@pytest.mark.parametrize(
    "value",
    [
        -1,
        "-1",
        1.5,
        "1.5",
        "many",
        "",
        True,
        float("nan"),
        float("inf"),
        "12,34",
        "1 234",
        "1e3",
        "٣",
        [],
        {},
        "9" * 99,
    ],
)
def test_a_count_that_nobody_can_read_is_named(value):
    with pytest.raises(
        ExportFailed, match=r"gooee: the answer's number_of_rows is .*, which is no count"
    ) as raised:
        answers.count("gooee", "number_of_rows", value)
    shown = f"a {type(value).__name__}" if isinstance(value, list | dict) else repr(value)[:60]
    assert shown in str(raised.value)


@given(JSON)
def test_whatever_a_count_is_it_checks_or_fails(value):
    try:
        count = answers.count("gooee", "total_bytes", value)
    except ExportFailed:
        return
    assert count is None if value is None else count >= 0


@given(JSON)
def test_what_json_says_is_a_short_line(value):
    assert len(answers.said(value)) <= 300
    assert "\n" not in answers.said(value)
