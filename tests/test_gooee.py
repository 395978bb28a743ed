"""Gooee, as its documents say it, and what the tap makes of each of its answers."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from conftest import Result, Sandbox, run_tap, start_tap

ENERGY = "6092953b-94a6-476d-aad8-f4b42a0f0c08"
EMPTY = "00c0ffee-0000-4000-8000-000000000000"
CREATE = r"/analytics/exports?/?$"
ONE = r"/analytics/exports/[^/?]+/$"
HOST = r"\.csv\?"


def lights(sandbox: Sandbox, *exports: dict[str, Any], **block: Any) -> dict[str, Any]:
    """Some exports, one of energy if none is named."""
    config = sandbox.config("gooee")
    exports = exports or ({},)
    named = [
        {"name": f"x{i}" if i else "energy", "query_id": ENERGY, **each} for i, each in enumerate(exports)
    ]
    config["gooee"] |= {"exports": named, **block}
    return config


def asked(sandbox: Sandbox, service: str = "gooee") -> list[tuple[str, str, int]]:
    """Each request's method, path and status."""
    seen = sandbox.get("requests", service=service)
    return [(each["method"], urlsplit(each["path"]).path, each["status"]) for each in seen]


def jobs(sandbox: Sandbox) -> list[dict[str, Any]]:
    return sandbox.get("jobs", service="gooee")


def statuses(result: Result) -> list[str]:
    return [run["status"] for run in result.runs]


def devices(result: Result, stream: str = "energy") -> list[tuple[str, str]]:
    return [(record["timestamp"], record["device_id"]) for record in result.records(stream)]


def expected(sandbox: Sandbox, result: Result) -> list[tuple[str, str]]:
    """The rows of the snapshot that was handed out last."""
    as_of = sandbox.get("served", service="gooee")[-1]["as_of"]
    rows = sandbox.get("expected", provider="gooee", export=ENERGY, as_of=as_of)
    return [(row["timestamp"], row["device_id"]) for row in rows]


def good(sandbox: Sandbox, result: Result) -> None:
    assert (result.exit_code, statuses(result)[-1]) == (0, "loaded"), result.stderr
    assert devices(result) == expected(sandbox, result)
    assert len(result.of("ACTIVATE_VERSION", "energy")) == 1


# The way of a snapshot


def test_an_export_is_created_awaited_and_its_url_fetched_anew(sandbox):
    result = run_tap(lights(sandbox), env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    good(sandbox, result)
    everything = sorted(sandbox.get("requests"), key=lambda each: each["time"])
    here, *_, last, file = [each for each in everything if each["service"] in ("gooee", "gooee_files")]
    assert here["path"].startswith("/analytics/exports/?")  # whether it is there already
    assert re.search(ONE, last["path"])
    assert (file["service"], file["authorization"], file["cookies"]) == ("gooee_files", None, [])
    assert {each["authorization"] for each in everything if each["service"] == "gooee"} == {"raw"}
    assert sandbox.get("statistics")["counts"] == {}
    (state,) = [job for state in result.of("STATE") for job in state["value"]["bookmarks"]["energy"]["jobs"]]
    assert state["handle"] == {"id": jobs(sandbox)[0]["id"]}
    for secret in (sandbox.config()["gooee"]["api_token"], "Signature="):
        assert secret not in result.stdout + result.stderr


def test_its_name_has_the_fingerprint_and_our_id_in_a_hundred_signs(sandbox):
    result = run_tap(lights(sandbox, {}, {}))
    assert result.exit_code == 0, result.stderr
    names = {job["request"]["name"].split(" ")[-1]: job["request"]["name"] for job in jobs(sandbox)}
    assert set(names) == {run["export_id"] for run in result.runs}
    for name in names.values():
        assert re.fullmatch(r"tap-analytics-exports [0-9a-f]{32} [0-9a-f-]{36}", name)
        assert len(name) <= 100


def test_an_empty_export_empties_the_table_and_tells_its_columns(sandbox):
    result = run_tap(lights(sandbox, {"query_id": EMPTY}))
    assert (result.exit_code, statuses(result)) == (0, ["empty"]), result.stderr
    assert len(result.of("ACTIVATE_VERSION", "energy")) == 1
    assert [name for name in result.schema("energy") if not name.startswith("_sdc_")]


def test_an_empty_export_may_have_no_file(sandbox):
    without = {"substitute": ['"url":"[^"]*"', '"url":null']}
    sandbox.post("faults", [{"service": "gooee", "path": ONE, "times": None, "action": without}])
    result = run_tap(lights(sandbox, {"query_id": EMPTY}))
    assert (result.exit_code, statuses(result)) == (0, ["empty"]), result.stderr
    assert not asked(sandbox, "gooee_files")


@pytest.mark.parametrize("status", [404, 405, 301])
def test_either_spelling_of_the_path_creates(sandbox, status):
    sandbox.post("settings", {"gooee_create_path": "/analytics/export"})
    headers = {"Location": "/analytics/exports"} if status == 301 else {}
    rule = {"service": "gooee", "method": "POST", "path": "/exports/$", "times": None}
    sandbox.post("faults", [{**rule, "action": {"status": status, "headers": headers}}])
    good(sandbox, run_tap(lights(sandbox)))
    posts = [each for each in asked(sandbox) if each[0] == "POST"]
    assert posts == [("POST", "/analytics/exports/", status), ("POST", "/analytics/export", 201)]


# Credentials


@pytest.mark.parametrize("scheme", ["raw", "Bearer"])
def test_an_api_token_raw_or_as_bearer(sandbox, scheme):
    good(sandbox, run_tap(lights(sandbox, auth_scheme=scheme)))
    seen = {each["authorization"] for each in sandbox.get("requests", service="gooee")}
    assert seen == {scheme}


def logged_in(sandbox: Sandbox, **block: Any) -> dict[str, Any]:
    config = lights(sandbox, username="lights@example.com", password="gooee-pass", **block)
    del config["gooee"]["api_token"]
    return config


def test_a_jwt_that_is_given(sandbox):
    config = logged_in(sandbox)
    login = {key: config["gooee"].pop(key) for key in ("username", "password")}
    url = f"{config['gooee']['base_url']}/auth/login"
    token = requests.post(url, json=login, timeout=10).json()["token"]
    config["gooee"] |= {"api_token": token, "auth_scheme": "JWT"}
    good(sandbox, run_tap(config))


def test_a_login_gives_a_jwt_which_is_renewed_once_it_is_refused(sandbox):
    sandbox.post("faults", [{"service": "gooee", "path": ONE, "after": 1, "action": {"status": 401}}])
    result = run_tap(logged_in(sandbox), env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    good(sandbox, result)
    paths = [path for _, path, _ in asked(sandbox)]
    assert paths.count("/auth/login") == 2
    assert "gooee-pass" not in result.stderr
    assert len(jobs(sandbox)) == 1


@pytest.mark.parametrize("how", ["token", "login"])
def test_refused_credentials_fail_the_provider_by_name(sandbox, how):
    config = lights(sandbox, api_token="not-the-right-one") if how == "token" else logged_in(sandbox)
    if how == "login":
        config["gooee"]["password"] = "not-the-right-one"
    result = run_tap(config)
    assert (result.exit_code, result.runs, jobs(sandbox)) == (1, [], [])
    assert re.search("gooee.*check (the credentials|username and password)", result.stderr)
    tested = run_tap(config, "--test")
    assert tested.exit_code == 1
    assert "not-the-right-one" not in result.stderr + tested.stdout + tested.stderr


def test_no_credentials_are_a_mistake_in_the_settings(sandbox):
    config = lights(sandbox)
    del config["gooee"]["api_token"]
    result = run_tap(config)
    assert result.exit_code == 1
    assert "gooee.api_token: is required, or `username` and `password`" in result.stderr


def test_test_asks_who_we_are(sandbox):
    result = run_tap(lights(sandbox), "--test")
    assert (result.exit_code, asked(sandbox)) == (0, [("GET", "/me", 200)]), result.stderr


# What is checked


def test_number_of_rows_is_checked(sandbox):
    sandbox.post("settings", {"row_count_lie": 1})
    result = run_tap(lights(sandbox))
    assert (result.exit_code, set(statuses(result))) == (3, {"failed"})
    assert "100 rows where the vendor says 101" in result.runs[0]["error"]
    assert (devices(result), result.of("ACTIVATE_VERSION", "energy")) == ([], [])


def test_total_bytes_is_checked(sandbox):
    lie = {"substitute": [r'"total_bytes":(\d+)', r'"total_bytes":9\1']}
    sandbox.post("faults", [{"service": "gooee", "path": ONE, "times": None, "action": lie}])
    result = run_tap(lights(sandbox))
    assert (result.exit_code, statuses(result), devices(result)) == (3, ["failed"], [])
    assert "bytes arrived where 9" in result.runs[0]["error"]


def test_an_expired_url_is_fetched_anew(sandbox):
    sandbox.post("faults", [{"service": "gooee_files", "action": {"status": 403, "body": "expired"}}])
    good(sandbox, run_tap(lights(sandbox)))
    seen = [each for each in sandbox.get("requests") if each["service"] in ("gooee", "gooee_files")]
    order = [each["service"] for each in sorted(seen, key=lambda each: each["time"])]
    assert order[-4:] == ["gooee", "gooee_files", "gooee", "gooee_files"]


def test_urls_that_are_always_expired_fail_the_export(sandbox):
    sandbox.post("settings", {"url_seconds": -5})
    result = run_tap(lights(sandbox))
    assert (result.exit_code, statuses(result)) == (3, ["failed"])
    assert "answered 403" in result.runs[0]["error"]
    assert "Signature" not in result.stdout + result.stderr


# Deleting


def test_delete_after_deletes_once_the_rows_are_out(sandbox):
    result = run_tap(lights(sandbox, {"delete_after": True}, {}))
    assert result.exit_code == 0, result.stderr
    state = {job["request"]["name"].split(" ")[-1]: job["state"] for job in jobs(sandbox)}
    runs = {run["stream"]: run["export_id"] for run in result.runs}
    assert (state[runs["energy"]], state[runs["x1"]]) == ("deleted", "done")


def test_an_export_that_failed_is_not_deleted(sandbox):
    sandbox.post("settings", {"row_count_lie": 1})
    result = run_tap(lights(sandbox, {"delete_after": True}))
    assert result.exit_code == 3
    assert {job["state"] for job in jobs(sandbox)} == {"done"}


def test_a_delete_that_is_refused_is_only_a_warning(sandbox):
    rule = {"service": "gooee", "method": "DELETE", "times": None, "action": {"status": 403}}
    sandbox.post("faults", [rule])
    result = run_tap(lights(sandbox, {"delete_after": True}))
    good(sandbox, result)
    assert "not deleted" in result.stderr


# Finding exports again


@pytest.mark.parametrize("answer", [{"close": "before_headers"}, {"status": 504}, {"replace_body": "<html>"}])
def test_an_export_that_was_created_without_an_answer_is_found_by_name(sandbox, answer):
    sandbox.post("settings", {"gooee_page_size": 1})
    before = run_tap(lights(sandbox, {"query_id": EMPTY}, {"query_id": EMPTY}))
    assert before.exit_code == 0
    rule = {"service": "gooee", "method": "POST", "action": {"run": True, **answer}}
    sandbox.post("faults", [rule])
    result = run_tap(lights(sandbox))
    good(sandbox, result)
    assert len(jobs(sandbox)) == 3
    assert jobs(sandbox)[-1]["request"]["name"].endswith(result.runs[0]["export_id"])


def test_an_export_that_was_perhaps_not_created_is_not_created_twice(sandbox):
    rule = {"service": "gooee", "method": "POST", "action": {"close": "before_headers"}}
    sandbox.post("faults", [rule])
    result = run_tap(lights(sandbox))
    assert (result.exit_code, statuses(result), jobs(sandbox)) == (3, ["failed"], [])
    assert "whether a job was triggered is not known" in result.runs[0]["error"]
    assert len([each for each in asked(sandbox) if each[0] == "POST"]) == 1


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
    good(sandbox, found)
    assert len(jobs(sandbox)) == 1
    assert found.runs[0]["resumed"] is True
    assert jobs(sandbox)[0]["request"]["name"].endswith(found.runs[0]["export_id"])
    assert found.bookmark("energy")["last_export_id"] == found.runs[0]["export_id"]


def test_a_snapshot_whose_rows_are_safe_is_not_taken_for_the_next(sandbox):
    config = {**lights(sandbox), "ledger": ""}
    state: dict[str, Any] | None = None
    for run in range(3):  # the third may find the first, which was consumed before the second
        result = run_tap(config, state=state)
        good(sandbox, result)
        assert (len(jobs(sandbox)), result.runs[0]["resumed"]) == (run + 1, False)
        state = result.state


def test_a_list_that_is_not_allowed_is_no_obstacle(sandbox):
    rule = {"service": "gooee", "method": "GET", "path": r"/exports/\?", "action": {"status": 403}}
    sandbox.post("faults", [{**rule, "times": None}])
    good(sandbox, run_tap(lights(sandbox)))


def test_a_list_may_be_an_object_with_results(sandbox):
    sandbox.post("settings", {"job_seconds": 3})
    config = {**lights(sandbox), "ledger": ""}
    until_triggered(config)
    wrapped = {"substitute": [r"(?s)^(.*)$", r'{"results":\1,"next":null}']}
    sandbox.post("faults", [{"service": "gooee", "path": r"/exports/\?", "action": wrapped}])
    good(sandbox, run_tap(config))
    assert len(jobs(sandbox)) == 1


# The table of outcomes


STATES = [
    # What a running export is called, how it ends, the exit code, the runs, the message.
    (["queued", "running"], "done", 0, ["loaded"], None),
    (["Queued"], "done", 0, ["loaded"], None),
    (["queued"], "failed", 3, ["failed"], "the export failed: .*cancelled by the warehouse"),
    (["paused"], "stuck", 3, ["failed"], "'paused', a word it does not document"),
]


@pytest.mark.parametrize("case", STATES, ids=str)
def test_states(sandbox, case):
    words, outcome, exit_code, runs, message = case
    fail = [{"service": "gooee", "outcome": outcome, "times": 1}]
    sandbox.post("settings", {"gooee_words": words, "fail_jobs": fail})
    result = run_tap({**lights(sandbox), "poll_interval_max": "PT0.2S"})
    assert (result.exit_code, statuses(result)) == (exit_code, runs), result.stderr
    assert message is None or re.search(message, result.runs[0]["error"])


def fault(path: str, times: int | None = 1, method: str = "GET", **action: Any) -> dict[str, Any]:
    service = "gooee_files" if path == HOST else "gooee"
    return {"service": service, "method": method, "path": path, "times": times, "action": action}


def create(**action: Any) -> dict[str, Any]:
    return fault(CREATE, method="POST", **action)


WRONG = {"query": ['Invalid pk "1" - object does not exist.']}
OUTCOMES = {
    # What goes wrong: the exit code, the runs, the exports that were created, the message.
    "create 400": (create(status=400, body=WRONG), 3, ["failed"], 0, "400.*Invalid pk"),
    "create 403": (create(status=403), 3, ["failed"], 0, "answered 403"),
    "create 404, at either path": (
        fault(CREATE, None, method="POST", status=404),
        3,
        ["failed"],
        0,
        "answered 404",
    ),
    "create 429": (create(status=429, headers={"Retry-After": "1"}), 0, ["loaded"], 1, None),
    "create 503": (create(status=503), 0, ["loaded"], 1, None),
    "create 201 without an id": (create(replace_body={}), 0, ["loaded"], 1, None),
    "status 500 for a while": (fault(ONE, 2, status=500), 0, ["loaded"], 1, None),
    "status no JSON for a while": (fault(ONE, 2, status=200, body="<html>"), 0, ["loaded"], 1, None),
    "status 403": (fault(ONE, status=403), 3, ["failed"], 1, "answered 403"),
    "status 404": (fault(ONE, status=404), 0, ["failed", "loaded"], 2, "does not know the export"),
    "complete without numbers": (
        fault(ONE, None, substitute=[r'"(number_of_rows|total_bytes)":\d+', r'"\1":null']),
        0,
        ["loaded"],
        1,
        None,
    ),
    "complete without a url": (
        fault(ONE, None, substitute=['"url":"[^"]*"', '"url":""']),
        3,
        ["failed"],
        1,
        "has no url yet",
    ),
    "file 404": (fault(HOST, status=404), 0, ["failed", "loaded"], 2, "does not keep the file"),
    "file 400": (fault(HOST, status=400, body="SigKey"), 3, ["failed"], 1, "answered 400(?!.*SigKey)"),
    "file 503": (fault(HOST, status=503), 0, ["loaded"], 1, None),
    "file cut by its length": (fault(HOST, truncate_after_bytes=500), 0, ["loaded"], 1, None),
    "file cut without a length": (
        fault(HOST, truncate_after_bytes=500, no_length=True),
        0,
        ["loaded"],
        1,
        None,
    ),
    "file cut again and again": (fault(HOST, None, truncate_after_bytes=5000), 0, ["loaded"], 1, None),
    "file always cut": (
        fault(HOST, None, truncate_after_bytes=0),
        3,
        ["failed"],
        1,
        "did not arrive whole",
    ),
    "file whole without a length": (fault(HOST, no_length=True), 0, ["loaded"], 1, None),
    "file packed for the way": (fault(HOST, gzip_encode=True), 0, ["loaded"], 1, None),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_outcomes(sandbox, case):
    rule, exit_code, runs, created, message = OUTCOMES[case]
    sandbox.post("faults", [rule])
    result = run_tap(lights(sandbox))
    assert (result.exit_code, statuses(result)) == (exit_code, runs), result.stderr
    assert len(jobs(sandbox)) == created
    errors = " ".join(run["error"] or "" for run in result.runs)
    assert message is None or re.search(message, errors), errors
    if runs[-1] == "loaded":
        good(sandbox, result)
    else:
        assert not result.of("ACTIVATE_VERSION", "energy")
