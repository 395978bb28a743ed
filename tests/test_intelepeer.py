"""IntelePeer Insights through the front door: queries, and the files that they leave on other servers."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from conftest import Result, Sandbox, run_tap, start_tap

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=2)
COMMON = [
    "EventName",
    "EventVersion",
    "TimeStamp",
    "CustomerId",
    "FlowId",
    "FlowName",
    "ActionId",
    "ActionName",
    "IsTriggerAction",
    "SessionId",
    "TransactionId",
    "ApplicationRegion",
]
CALL = ["Direction", "FromNumber", "ToNumber", "AnswerTime", "Duration", "Cost"]
EMPTY = "All data fields have empty values, advise adding core fields"
WIDE = "Query range to wide"
PAGE = "/_rest/v4/dwh/Q"
STATUS = r"/Q/[0-9a-f]+/status$"
LOCATION = r"/Q/[0-9a-f]+$"


def config(sandbox: Sandbox, *, days: int = 1, block: dict | None = None, export: dict | None = None) -> dict:
    """One export of some days; a setting of None is left out."""
    settings = sandbox.config(
        "intelepeer",
        start_date=START.isoformat(),
        end_date=(START + timedelta(days=days)).isoformat(),
    )
    calls = {"name": "calls", "event": "CallEvent", **(export or {})}
    block = {**settings["intelepeer"], **(block or {}), "exports": [calls]}
    settings["intelepeer"] = {name: value for name, value in block.items() if value is not None}
    return settings


def asked(sandbox: Sandbox, method: str = "", service: str = "intelepeer") -> list[dict]:
    return [one for one in sandbox.get("requests", service=service) if method in one["method"]]


def queries(sandbox: Sandbox) -> list[dict]:
    return [json.loads(one["body"]) for one in asked(sandbox, "POST")]


def expected(sandbox: Sandbox, days: float = 1, event: str = "CallEvent") -> list[dict]:
    span = {"start": START.isoformat(), "end": (START + timedelta(days=days)).isoformat()}
    return sandbox.get("expected", provider="intelepeer", export=event, **span)


def actions(rows: list[dict], name: str = "TransactionId") -> Counter[str]:
    """Rows, in whatever order they lie in the parts."""
    return Counter(row[name] for row in rows)


def loaded(result: Result) -> Counter[str]:
    return actions(result.records("calls"), "transaction_id")


def fault(sandbox: Sandbox, *rules: dict) -> None:
    sandbox.post("faults", [{"service": "intelepeer", **rule} for rule in rules])


def answer(path: str, body: object, *, status: int = 200, times: int | None = None, **more) -> dict:
    return {"path": path, "times": times, **more, "action": {"status": status, "body": body}}


# The token


def test_a_token_from_credentials_goes_along_as_bearer(sandbox):
    result = run_tap(config(sandbox))
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    assert len(asked(sandbox, service="intelepeer_auth")) == 1
    assert {one["authorization"] for one in asked(sandbox)} == {"Bearer"}


def test_a_token_that_is_given_needs_no_login(sandbox):
    given = {"api_token": "0sjey2n81hamxis=/", "username": None, "password": None}
    result = run_tap(config(sandbox, block=given))
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    assert asked(sandbox, service="intelepeer_auth") == []


def test_a_token_that_has_ended_is_renewed_and_no_query_is_sent_twice(sandbox):
    sandbox.post("settings", {"intelepeer_token_seconds": 0.6, "job_seconds": 2})
    result = run_tap(config(sandbox, days=2))
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox, 2))), result.stderr
    assert len(asked(sandbox, service="intelepeer_auth")) > 2
    assert [one["status"] for one in asked(sandbox, "POST") if one["status"] != 401] == [201, 201]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"password": "nope"}, "answered 401: Unauthorized; check auth_url, username and password"),
        ({"api_token": "nope"}, "answered 401"),
    ],
)
def test_refused_credentials(sandbox, block, words):
    result = run_tap(config(sandbox, block=block))
    assert (result.exit_code, result.runs, queries(sandbox)) == (1, [], []), result.stderr
    assert words in result.stderr
    assert len(asked(sandbox, service="intelepeer_auth")) <= 1


# Fields


def test_the_fields_are_the_common_ones_and_those_that_the_api_lists(sandbox):
    result = run_tap(config(sandbox))
    (query,) = queries(sandbox)
    assert query["data"] == {"CallEvent": {"fields": [*COMMON, *CALL]}}
    properties = result.schema("calls")
    types = {name: properties[name]["type"][0] for name in ("event_version", "is_trigger_action", "duration")}
    assert types == {"event_version": "integer", "is_trigger_action": "boolean", "duration": "string"}
    assert properties["time_stamp"]["format"] == "date-time"


def test_the_values_are_those_of_the_vendor(sandbox):
    result = run_tap(config(sandbox))
    rows = {row["TransactionId"]: row for row in expected(sandbox)}
    assert any("." in row["TimeStamp"] for row in rows.values())
    for record in result.records("calls"):
        row = rows[record["transaction_id"]]
        assert record["event_version"] == int(row["EventVersion"])
        assert record["is_trigger_action"] is (row["IsTriggerAction"] == "true")
        moment = datetime.fromisoformat(row["TimeStamp"].replace(" UTC", "+00:00"))
        assert record["time_stamp"].endswith("+00:00")
        assert datetime.fromisoformat(record["time_stamp"]) == moment
        assert record["answer_time"] == (row["AnswerTime"] or None)


def test_discover_asks_for_the_fields_and_still_works_when_that_fails(sandbox):
    def properties() -> list[str]:
        found = run_tap(config(sandbox), "--discover")
        assert found.exit_code == 0, found.stderr
        streams = {stream["stream"]: stream for stream in json.loads(found.stdout)["streams"]}
        return [name for name in streams["calls"]["schema"]["properties"] if not name.startswith("_sdc")]

    assert {"event_name", "time_stamp", "direction", "cost"} <= set(properties())
    assert queries(sandbox) == []
    fault(sandbox, answer(PAGE, "", status=503))
    fewer = properties()
    assert "time_stamp" in fewer
    assert "direction" not in fewer


def test_configured_fields_need_no_network_and_are_asked_for_as_they_are(sandbox):
    export = {"fields": ["TransactionId", "Passthrough", "TransactionId"]}
    settings = config(sandbox, export=export, block={"base_url": "http://127.0.0.1:9/dwh"})
    found = run_tap(settings, "--discover")
    assert found.exit_code == 0, found.stderr
    assert asked(sandbox) == []
    result = run_tap(config(sandbox, export=export))
    assert queries(sandbox)[0]["data"] == {"CallEvent": {"fields": ["TransactionId", "Passthrough"]}}
    assert {name for name in result.records("calls")[0] if not name.startswith("_sdc")} == {
        "transaction_id",
        "passthrough",
    }


def test_columns_that_are_deselected_are_not_asked_for_and_not_shown(sandbox):
    catalog = json.loads(run_tap(config(sandbox), "--discover").stdout)
    for stream in catalog["streams"]:
        for entry in stream["metadata"]:
            if entry["breadcrumb"][-1:] in (["cost"], ["flow_name"], ["session_id"]):
                entry["metadata"]["selected"] = False
    result = run_tap(config(sandbox), catalog=catalog)
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    fields = queries(sandbox)[0]["data"]["CallEvent"]["fields"]
    assert set(fields) == {*COMMON, *CALL} - {"Cost", "FlowName"}  # SessionId is a core field
    for record in result.records("calls"):
        assert not {"cost", "flow_name", "session_id"} & set(record)


def test_an_unknown_event_is_answered_with_those_that_there_are(sandbox):
    result = run_tap(config(sandbox, export={"event": "callevent"}))
    assert (result.exit_code, [run["status"] for run in result.runs]) == (3, ["failed"])
    assert "'callevent'; the API knows ApplicationExitEvent, DtmfEvent, CallEvent, MsgEvent" in result.stderr
    assert queries(sandbox) == []


# The query


def test_the_end_is_left_out(sandbox):
    run_tap(config(sandbox))
    (query,) = queries(sandbox)
    assert query["timestamp"] == {
        "$gte": f"{START:%Y-%m-%d}T00:00:00Z",
        "$lte": f"{START + timedelta(days=1):%Y-%m-%d}T00:00:00Z",
        "$lt": f"{START + timedelta(days=1):%Y-%m-%d}T00:00:00Z",
    }
    assert set(query) == {"timestamp", "data"}


@pytest.mark.parametrize("timestamp_lt", [True, False])
def test_adjacent_windows_share_no_row_and_lose_none(sandbox, timestamp_lt):
    sandbox.post("settings", {"timestamp_lt": timestamp_lt, "job_seconds": 0.05})
    rows = expected(sandbox)
    assert any(row["TimeStamp"].endswith(":00:00 UTC") for row in rows)  # on a boundary
    assert any(row["TimeStamp"].endswith("23:59:59.7 UTC") for row in rows)  # in the last second
    settings = config(sandbox, export={"window": "PT3H"})
    settings["poll_interval"] = "PT0.05S"
    result = run_tap(settings)
    assert (result.exit_code, loaded(result)) == (0, actions(rows)), result.stderr
    for record in result.records("calls"):
        assert record["_sdc_window_start"] <= record["time_stamp"] < record["_sdc_window_end"]


def test_filters_go_along_by_event_or_without(sandbox):
    wanted = actions([row for row in expected(sandbox) if row["ActionName"] == "Dial"])
    condition = {"ActionName": {"$eq": "Dial"}}
    for filters in (condition, {"CallEvent": condition}):
        sandbox.post("reset")
        result = run_tap(config(sandbox, export={"filters": filters}))
        assert (result.exit_code, loaded(result)) == (0, wanted), result.stderr
        assert queries(sandbox)[0]["filters"] == {"CallEvent": condition}


def test_filters_hold_where_the_end_is_left_out_by_one_more(sandbox):
    sandbox.post("settings", {"timestamp_lt": False})
    wanted = actions([row for row in expected(sandbox) if row["ActionName"] == "Dial"])
    result = run_tap(config(sandbox, export={"filters": {"ActionName": {"$eq": "Dial"}}}))
    assert (result.exit_code, loaded(result)) == (0, wanted), result.stderr


def test_scope_goes_along(sandbox):
    session = expected(sandbox)[0]["SessionId"]
    scope = {"filters": {"CallEvent": {"SessionId": {"$eq": session}}}, "scope": {"CallEvent": {}}}
    result = run_tap(config(sandbox, export={"scope": scope}))
    assert result.exit_code == 0, result.stderr
    assert {record["session_id"] for record in result.records("calls")} == {session}
    assert queries(sandbox)[0]["scope"] == scope


def test_half_a_scope_is_a_mistake(sandbox):
    result = run_tap(config(sandbox, export={"scope": {"filters": {}}}))
    assert result.exit_code == 1
    assert "intelepeer.exports[0].scope: needs both filters and scope" in result.stderr


def test_wrong_filters_fail_with_the_words_of_the_vendor(sandbox):
    result = run_tap(config(sandbox, export={"filters": {"ActionName": {"$like": "D%"}}}))
    assert result.exit_code == 3
    assert "Invalid operators [$like], try to use any of these" in result.stderr
    result = run_tap(config(sandbox, export={"fields": ["Flow Id"]}))
    assert result.exit_code == 3
    assert "400: Flow Id is not a valid field." in result.stderr


def test_never_more_than_two_run_and_429_means_wait(sandbox):
    settings = config(sandbox, days=2, export={"window": "PT8H"})
    for event in ("MsgEvent", "ApplicationExitEvent"):
        settings["intelepeer"]["exports"].append({"name": event.lower(), "event": event, "window": "P1D"})
    sandbox.post("settings", {"max_running": 1})
    result = run_tap(settings)
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox, 2))), result.stderr
    statistics = sandbox.get("statistics")
    assert statistics["counts"]["intelepeer_429"] > 0
    assert statistics["max_running"]["intelepeer"] == 1

    sandbox.post("reset")
    assert run_tap(settings).exit_code == 0
    statistics = sandbox.get("statistics")
    assert statistics["max_running"]["intelepeer"] == 2
    assert "intelepeer_429" not in statistics["counts"]


# The result


def test_all_parts_are_read_and_none_of_their_headers_is_a_row(sandbox):
    result = run_tap(config(sandbox))
    assert [(run["files"], run["rows"]) for run in result.runs] == [(3, 100)]
    served = sandbox.get("served", service="intelepeer")
    assert sum(one["rows"] == 0 for one in served) == 1  # a header alone
    assert sum(one["bytes"] for one in served) == result.runs[0]["bytes"]
    numbers = [record["_sdc_row_number"] for record in result.records("calls")]
    assert numbers == list(range(1, 101))


def test_an_empty_window_moves_the_bookmark_and_keeps_the_columns(sandbox):
    sandbox.post("settings", {"fail_jobs": [{"service": "intelepeer", "outcome": "empty"}]})
    result = run_tap(config(sandbox))
    assert (result.exit_code, [run["status"] for run in result.runs]) == (0, ["empty"])
    assert result.bookmark("calls")["replication_key_value"] == (START + timedelta(days=1)).isoformat()
    assert "direction" in result.schema("calls")


@pytest.mark.parametrize("messages", [[WIDE], [WIDE, EMPTY], ["Query range TOO wide"]])
def test_a_window_that_is_too_wide_is_split_until_it_is_not(sandbox, messages):
    sandbox.post("settings", {"wide_after_seconds": 6 * 3600, "wide_messages": messages, "job_seconds": 0.05})
    settings = config(sandbox)
    settings["poll_interval"] = "PT0.05S"
    result = run_tap(settings)
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    assert [(run["status"], run["rows"]) for run in result.runs] == [("loaded", 100)]
    assert len(queries(sandbox)) == 7
    numbers = [record["_sdc_row_number"] for record in result.records("calls")]
    assert numbers == list(range(1, 101))


def test_where_an_empty_window_is_also_called_too_wide_the_splitting_ends(sandbox):
    sandbox.post(
        "settings",
        {
            "fail_jobs": [{"service": "intelepeer", "outcome": "empty"}],
            "empty_messages": [WIDE, EMPTY],
            "job_seconds": 0.02,
        },
    )
    settings = config(sandbox, export={"window": "PT4H"})
    settings |= {"poll_interval": "PT0.02S", "end_date": (START + timedelta(hours=4)).isoformat()}
    result = run_tap(settings)
    assert (result.exit_code, [run["status"] for run in result.runs]) == (0, ["empty"]), result.stderr
    assert len(queries(sandbox)) == 7  # of four hours, of two, and of one


def test_a_window_without_a_whole_second_is_not_asked_for(sandbox):
    settings = config(sandbox, export={"window": "PT1S"})
    settings |= {
        "start_date": (START + timedelta(seconds=0.2)).isoformat(),
        "end_date": (START + timedelta(seconds=0.7)).isoformat(),
    }
    result = run_tap(settings)
    assert (result.exit_code, [run["status"] for run in result.runs]) == (0, ["empty"]), result.stderr
    assert queries(sandbox) == []


def test_a_job_in_the_state_is_resumed(sandbox):
    sandbox.post("settings", {"job_seconds": 2.5})
    settings = config(sandbox)
    state = None
    with start_tap(settings) as tap:
        for line in tap.stdout:
            message = json.loads(line)
            if message["type"] == "STATE" and message["value"]["bookmarks"]["calls"]["jobs"]:
                state = message["value"]
                break
    (job,) = state["bookmarks"]["calls"]["jobs"]
    assert job["handle"] == {"id": sandbox.get("jobs", service="intelepeer")[0]["id"]}
    result = run_tap(settings, state=state)
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    assert [run["resumed"] for run in result.runs] == [True]
    assert len(queries(sandbox)) == 1


def test_a_query_that_is_forgotten_is_sent_once_more(sandbox):
    first = run_tap(config(sandbox))
    job = {
        "export_id": "0b2f1c9e-5d53-4c43-9a35-9a0a5e1b0001",
        "window": [START.isoformat(), (START + timedelta(days=1)).isoformat()],
        "submitted_at": datetime.now(UTC).isoformat(),
        "request": _fingerprint(sandbox),
        "handle": {"id": "ae9faa8e3cee29e5185578ad028e29f2"},
    }
    sandbox.post("reset")
    result = run_tap(config(sandbox), state={"bookmarks": {"calls": {"jobs": [job]}}})
    assert (result.exit_code, loaded(result)) == (0, loaded(first)), result.stderr
    assert [(run["status"], run["resumed"]) for run in result.runs] == [("failed", True), ("loaded", False)]
    assert "QueryRequest matching query does not exist" in result.runs[0]["error"]


# What each answer comes to


def said(word: object, **more: object) -> dict:
    return {"status": word, "guid": "ae9faa8e3cee29e5185578ad028e29f2", **more}


def jobs(outcome: str, times: int | None = None) -> dict:
    return {"fail_jobs": [{"service": "intelepeer", "outcome": outcome, "times": times}]}


UNKNOWN = [
    {"message": "could not get QueryRequest object: QueryRequest matching query does not exist.", "code": 500}
]
TABLE = {
    # name: (faults, knobs, exit code, status of the runs, whether there are rows, words of the message)
    "Completed": ([], {}, 0, ["loaded"], True, None),
    "states in other cases": (
        [
            answer(STATUS, said("PENDING"), times=1),
            answer(STATUS, said("processing"), times=1),
            {"path": STATUS, "times": None, "action": {"substitute": ["Completed", "COMPLETED"]}},
        ],
        {},
        0,
        ["loaded"],
        True,
        None,
    ),
    "Failed, empty": ([], jobs("empty"), 0, ["empty"], False, None),
    "Failed, for another reason": (
        [],
        jobs("failed"),
        3,
        ["failed"],
        False,
        "the query failed: Internal error",
    ),
    "Failed without a reason": (
        [answer(STATUS, said("Failed"))],
        {},
        3,
        ["failed"],
        False,
        "no reason was given",
    ),
    "Failed, with text in place of a list": (
        [answer(STATUS, said("Failed", messages=EMPTY))],
        {},
        0,
        ["empty"],
        False,
        None,
    ),
    "Canceled once": ([], jobs("Canceled", 1), 0, ["failed", "loaded"], True, "canceled"),
    "Canceled always": ([], jobs("Canceled"), 3, ["failed"] * 3, False, "canceled"),
    "a word that nobody knows": ([], jobs("Archived"), 3, ["failed"], False, "'Archived'"),
    "no word at all": ([answer(STATUS, {})], {}, 3, ["failed"], False, "''"),
    "the files need a moment more": (
        [
            answer(
                LOCATION,
                said("Process has not finish yet, please verify the status of your request"),
                times=2,
            )
        ],
        {},
        0,
        ["loaded"],
        True,
        None,
    ),
    "an unknown id, once": (
        [answer(STATUS, UNKNOWN, status=500, times=1)],
        {},
        0,
        ["failed", "loaded"],
        True,
        "does not exist",
    ),
    "an unknown id at the download": (
        [answer(LOCATION, UNKNOWN, status=500, times=1)],
        {},
        0,
        ["failed", "loaded"],
        True,
        "does not exist",
    ),
    "another 500 while polled": (
        [answer(STATUS, "oops", status=500, times=2)],
        {},
        0,
        ["loaded"],
        True,
        None,
    ),
    "503 while polled": ([answer(STATUS, "", status=503, times=2)], {}, 0, ["loaded"], True, None),
    "403 while polled": (
        [answer(STATUS, {"code": 403, "message": "no"}, status=403)],
        {},
        3,
        ["failed"],
        False,
        "403: no",
    ),
    "429 at the trigger": (
        [answer(PAGE, {"code": 429, "message": "max"}, status=429, times=2, method="POST")],
        {},
        0,
        ["loaded"],
        True,
        None,
    ),
    "400 at the trigger": (
        [
            answer(
                PAGE,
                {"code": 400, "message": {"Date_Filters": {"message": "Invalid dates", "code": "422-6"}}},
                status=400,
                method="POST",
            )
        ],
        {},
        3,
        ["failed"],
        False,
        "400: Invalid dates; check event",
    ),
    "500 at the trigger": (
        [answer(PAGE, "oops", status=500, method="POST")],
        {},
        3,
        ["failed"],
        False,
        "whether a job was triggered is not known",
    ),
    "no id": ([answer(PAGE, {}, status=201, method="POST")], {}, 3, ["failed"], False, "without an id"),
    "no JSON": (
        [answer(PAGE, "<html>", status=201, method="POST")],
        {},
        3,
        ["failed"],
        False,
        "without an id",
    ),
    "no files": (
        [answer(LOCATION, said("Process finished. Download: []"))],
        {},
        3,
        ["failed"],
        False,
        "names no files",
    ),
    "a damaged part": ([], {"damage_shards": 99}, 3, ["failed"], False, ".csv.gz"),
}


@pytest.mark.parametrize("name", TABLE)
def test_outcome(sandbox, name):
    faults, knobs, exit_code, status, rows, words = TABLE[name]
    sandbox.post("settings", knobs)
    fault(sandbox, *faults)
    result = run_tap(config(sandbox))
    assert result.exit_code == exit_code, result.stderr
    assert [run["status"] for run in result.runs] == status
    assert loaded(result) == (actions(expected(sandbox)) if rows else Counter())
    if words is not None:
        assert words in result.runs[0]["error"]
    assert ("replication_key_value" in result.bookmark("calls")) == (exit_code == 0)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("[u'../../etc/passwd']", "leads out of the folder"),
        ("[u'reports/../../secret.csv.gz']", "leads out of the folder"),
        ("[u'/etc/passwd']", "leads out of the folder"),
        (r"[u'reports\\..\\x.csv.gz']", "leads out of the folder"),
        (r"[u'reports/\x00.csv.gz']", "leads out of the folder"),
        ("[__import__('os').system('touch hacked')]", "names no files"),
        ("[u'a.csv.gz', 7]", "names no files"),
        ("[" * 3000 + "]" * 3000, "names no files"),
        ("[u'a.csv.gz'", "names no files"),
        ("soon", "names no files"),
    ],
)
def test_the_list_of_files_is_read_and_never_run(sandbox, listed, words):
    fault(sandbox, answer(LOCATION, said(f"Process finished. Download: {listed}")))
    result = run_tap(config(sandbox))
    assert (result.exit_code, [run["status"] for run in result.runs]) == (3, ["failed"]), result.stderr
    assert words in result.runs[0]["error"]
    assert asked(sandbox, "OPEN", "intelepeer_sftp") == []


def test_a_part_that_is_named_twice_is_read_once(sandbox):
    doubled = {"path": LOCATION, "times": None, "action": {"substitute": [r"\[(.*)\]", r"[\1, \1]"]}}
    fault(sandbox, doubled)
    result = run_tap(config(sandbox))
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr


# The server of the files; a real one is in test_sftp.py

SFTP = {
    # name: (what happens when a file is opened, how often, exit code, status of the runs, words)
    "cut off, once": ({"truncate_after_bytes": 1000}, 1, 0, ["loaded"], None),
    "cut off, always": ({"truncate_after_bytes": 1000}, None, 3, ["failed"], "its file did not arrive whole"),
    "hung up, once": ({"close": "before_headers"}, 1, 0, ["loaded"], None),
    "a failure, once": ({"status": 4, "body": "Failure"}, 1, 0, ["loaded"], None),
    "may not be read": ({"status": 3, "body": "Denied"}, None, 3, ["failed"], "check what acme may read"),
    "gone, once": ({"status": 2, "body": "No such file"}, 1, 0, ["failed", "loaded"], "not there any more"),
}


@pytest.mark.parametrize("name", SFTP)
def test_outcome_of_a_transfer(sandbox, name):
    action, times, exit_code, status, words = SFTP[name]
    sandbox.post(
        "faults", [{"service": "intelepeer_sftp", "method": "OPEN", "times": times, "action": action}]
    )
    result = run_tap(config(sandbox))
    assert result.exit_code == exit_code, result.stderr
    assert [run["status"] for run in result.runs] == status
    assert loaded(result) == (Counter() if exit_code else actions(expected(sandbox)))
    if words is not None:
        assert words in result.runs[0]["error"]
    assert "Traceback" not in result.stderr


# Checks


def test_check_tries_the_api_and_the_files_server(sandbox):
    result = run_tap(config(sandbox), "--test")
    assert (result.exit_code, result.stdout) == (0, "intelepeer: ok\n"), result.stderr
    assert queries(sandbox) == []
    assert [one["method"] for one in asked(sandbox, service="intelepeer_sftp")] == ["CONNECT", "PASSWORD"]


def test_check_says_what_is_wrong_with_each(sandbox):
    result = run_tap(config(sandbox, block={"password": "nope", "sftp_password": "nope"}), "--test")
    assert result.exit_code == 1
    assert "check auth_url, username and password" in result.stdout
    assert "acme is not let in" in result.stdout
    url = config(sandbox)["intelepeer"]["files_url"].replace("outbox", "elsewhere")
    result = run_tap(config(sandbox, block={"files_url": url}), "--test")
    assert result.exit_code == 1
    assert "there is no folder /elsewhere/; check files_url" in result.stdout


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            {"username": None, "password": None},
            "intelepeer.api_token: is required, or `username` and `password`",
        ),
        ({"auth_url": "customer.intelepeer.com"}, "intelepeer.auth_url: must be an http or https URL"),
        ({"files_url": None}, "intelepeer.files_url: is required"),
        ({"files_url": "ftp://host/x"}, "intelepeer.files_url: must be sftp://user@host:port/base or s3://"),
        (
            {"files_url": "sftp://acme@host:port/x"},
            "intelepeer.files_url: must be sftp://user@host:port/base",
        ),
        ({"files_url": "sftp://acme:pw@host/x"}, "intelepeer.files_url: must name the user and no password"),
        ({"sftp_password": None}, "intelepeer.sftp_password: is required, or else sftp_private_key"),
        ({"sftp_private_key": "AAAA"}, "intelepeer.sftp_private_key: is no private key"),
        ({"sftp_private_key_file": "/nope"}, "intelepeer.sftp_private_key_file: is no private key"),
        ({"sftp_known_hosts": "/nope"}, "intelepeer.sftp_known_hosts: is not a file"),
        ({"sftp_host_key": "ssh-ed25519 nope"}, "intelepeer.sftp_host_key: must be type and key"),
        ({"sftp_pasword": "x"}, "intelepeer.sftp_pasword: is not a setting"),
    ],
)
def test_mistakes_are_named_before_any_request(sandbox, block, words):
    result = run_tap(config(sandbox, block=block))
    assert result.exit_code == 1
    assert words in result.stderr
    assert "sftp-pass" not in result.stderr
    assert asked(sandbox) == []


def test_no_secret_is_printed(sandbox):
    sandbox.post("settings", jobs("failed"))
    settings = config(sandbox, block={"sftp_private_key_file": str(sandbox.folder / "client_key")})
    result = run_tap(settings, env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    assert result.exit_code == 3
    for secret in ("insights-pass", "sftp-pass", "Bearer"):
        assert secret not in result.stderr
        assert secret not in result.stdout


def _fingerprint(sandbox: Sandbox) -> str:
    """What the tap calls the request of `config()`, as its state tells."""
    with start_tap(config(sandbox)) as tap:
        for line in tap.stdout:
            message = json.loads(line)
            if message["type"] == "STATE" and message["value"]["bookmarks"]["calls"]["jobs"]:
                return message["value"]["bookmarks"]["calls"]["jobs"][0]["request"]
    raise AssertionError
