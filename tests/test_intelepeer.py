"""IntelePeer Insights: queries, and the files that they leave on other servers; mostly without the tap."""

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from conftest import Result, Sandbox, run_tap, start_tap
from vendors import Outcome, outcome, provider, run, yesterday

from tap_analytics_exports.errors import Refused, SettingsError, Unreachable
from tap_analytics_exports.providers.base import Empty
from tap_analytics_exports.windows import Window

NAME = "intelepeer"
START = yesterday().start
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


def good(sandbox: Sandbox, found: Outcome, days: float = 1) -> None:
    assert found.statuses[-1] == "loaded", found
    assert actions(found.rows) == actions(expected(sandbox, days))


def loaded(result: Result) -> Counter[str]:
    return actions(result.records("calls"), "transaction_id")


def fault(sandbox: Sandbox, *rules: dict) -> None:
    sandbox.post("faults", [{"service": "intelepeer", **rule} for rule in rules])


def answer(path: str, body: object, *, status: int = 200, times: int | None = None, **more) -> dict:
    return {"path": path, "times": times, **more, "action": {"status": status, "body": body}}


# The token


def test_a_token_from_credentials_goes_along_as_bearer(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path))
    assert len(asked(quick, service="intelepeer_auth")) == 1
    assert {one["authorization"] for one in asked(quick)} == {"Bearer"}


def test_a_token_that_is_given_needs_no_login(quick, tmp_path):
    given = {"api_token": "0sjey2n81hamxis=/", "username": None, "password": None}
    good(quick, outcome(quick, NAME, tmp_path, **given))
    assert asked(quick, service="intelepeer_auth") == []


def test_a_token_that_has_ended_is_renewed_and_no_query_is_sent_twice(quick, tmp_path):
    good(quick, outcome(quick, NAME, tmp_path, knobs={"intelepeer_token_seconds": 0.1, "job_seconds": 0.4}))
    assert len(asked(quick, service="intelepeer_auth")) > 2
    assert [one["status"] for one in asked(quick, "POST") if one["status"] != 401] == [201]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"password": "nope"}, "answered 401: Unauthorized; check auth_url, username and password"),
        ({"api_token": "nope"}, "answered 401"),
    ],
)
def test_refused_credentials(quick, block, message):
    with provider(quick, NAME, **block) as (made, request):
        for _ in range(2):
            with pytest.raises(Refused, match=message):
                made.submit(request)
    assert queries(quick) == []
    assert len(asked(quick, service="intelepeer_auth")) <= 1


@pytest.mark.parametrize("status", [302, 404, 405])
def test_a_login_that_is_nowhere_is_no_refusal(quick, status):
    login = {"service": "intelepeer_auth", "times": None, "action": {"status": status}}
    quick.post("faults", [login])
    message = f"answered {status}.*, which is no answer to a login; check auth_url"
    with provider(quick, NAME) as (made, request), pytest.raises(Unreachable, match=message):
        made.submit(request)


# Fields


def test_the_fields_are_the_common_ones_and_those_that_the_api_lists(sandbox):
    result = run_tap(config(sandbox))
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    (query,) = queries(sandbox)
    assert query["data"] == {"CallEvent": {"fields": [*COMMON, *CALL]}}
    properties = result.schema("calls")
    types = {name: properties[name]["type"][0] for name in ("event_version", "is_trigger_action", "duration")}
    assert types == {"event_version": "integer", "is_trigger_action": "boolean", "duration": "string"}
    assert properties["time_stamp"]["format"] == "date-time"
    rows = {row["TransactionId"]: row for row in expected(sandbox)}
    assert any("." in row["TimeStamp"] for row in rows.values())
    for record in result.records("calls"):
        row = rows[record["transaction_id"]]
        assert record["event_version"] == int(row["EventVersion"])
        assert record["is_trigger_action"] is (row["IsTriggerAction"] == "true")
        instant = datetime.fromisoformat(row["TimeStamp"].replace(" UTC", "+00:00"))
        assert record["time_stamp"].endswith("+00:00")
        assert datetime.fromisoformat(record["time_stamp"]) == instant
        assert record["answer_time"] == (row["AnswerTime"] or None)
    assert [(run["files"], run["rows"]) for run in result.runs] == [(3, 100)]
    served = sandbox.get("served", service=NAME)
    assert sum(one["rows"] == 0 for one in served) == 1  # a header alone
    assert sum(one["bytes"] for one in served) == result.runs[0]["bytes"]
    assert [record["_sdc_row_number"] for record in result.records("calls")] == list(range(1, 101))


def test_discover_asks_for_the_fields_and_still_works_when_that_fails(sandbox):
    def properties() -> list[str]:
        found = run_tap(config(sandbox), "--discover")
        assert found.exit_code == 0, found.stderr
        streams = {stream["stream"]: stream for stream in json.loads(found.stdout)["streams"]}
        return [name for name in streams["calls"]["schema"]["properties"] if not name.startswith("_sdc")]

    assert {"event_name", "time_stamp", "direction", "cost"} <= set(properties())
    assert queries(sandbox) == []
    fault(sandbox, answer("/Q$", "<html>"))
    fewer = properties()
    assert "time_stamp" in fewer
    assert "direction" not in fewer


def test_the_common_fields_are_known_where_the_api_can_not_be_asked(quick):
    fault(quick, answer(PAGE, "", status=503))
    with provider(quick, NAME) as (made, request):
        for _ in range(2):
            assert list(made.columns(request.export)) == COMMON
        assert made.wanted(request.export, ["TimeStamp"]) is None
    assert len(asked(quick, "GET")) == 5  # once, and patiently


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


def test_an_unknown_event_is_answered_with_those_that_there_are(quick, tmp_path):
    found = outcome(quick, NAME, tmp_path, export={"event": "callevent"})
    assert found.statuses == ["failed"]
    assert "'callevent'; the API knows ApplicationExitEvent, DtmfEvent, CallEvent, MsgEvent" in found.error
    assert queries(quick) == []


# The query


def test_the_end_is_left_out(quick, tmp_path):
    outcome(quick, NAME, tmp_path)
    (query,) = queries(quick)
    assert query["timestamp"] == {
        "$gte": f"{START:%Y-%m-%d}T00:00:00Z",
        "$lte": f"{START + timedelta(days=1):%Y-%m-%d}T00:00:00Z",
        "$lt": f"{START + timedelta(days=1):%Y-%m-%d}T00:00:00Z",
    }
    assert set(query) == {"timestamp", "data"}


@pytest.mark.parametrize("timestamp_lt", [True, False])
def test_adjacent_windows_share_no_row_and_lose_none(quick, timestamp_lt, tmp_path):
    quick.post("settings", {"timestamp_lt": timestamp_lt})
    rows = expected(quick)
    assert any(row["TimeStamp"].endswith(":00:00 UTC") for row in rows)  # on a boundary
    assert any(row["TimeStamp"].endswith("23:59:59.7 UTC") for row in rows)  # in the last second
    edges = [START + timedelta(hours=3 * n) for n in range(9)]
    found = []
    with provider(quick, NAME) as (made, request):
        for start, end in pairwise(edges):
            part = run(made, replace(request, window=Window(start, end)), tmp_path).rows
            instants = [datetime.fromisoformat(row["TimeStamp"].replace(" UTC", "+00:00")) for row in part]
            assert all(start <= instant < end for instant in instants)
            found += part
    assert actions(found) == actions(rows)


@pytest.mark.parametrize("timestamp_lt", [True, False])
def test_filters_go_along_by_event_or_without(quick, timestamp_lt, tmp_path):
    quick.post("settings", {"timestamp_lt": timestamp_lt})
    wanted = actions([row for row in expected(quick) if row["ActionName"] == "Dial"])
    condition = {"ActionName": {"$eq": "Dial"}}
    for filters in (condition, {"CallEvent": condition}):
        found = outcome(quick, NAME, tmp_path, export={"filters": filters})
        assert (found.statuses, actions(found.rows)) == (["loaded"], wanted)
        assert queries(quick)[-1]["filters"]["CallEvent"].items() >= condition.items()


def test_scope_goes_along(quick, tmp_path):
    session = expected(quick)[0]["SessionId"]
    scope = {"filters": {"CallEvent": {"SessionId": {"$eq": session}}}, "scope": {"CallEvent": {}}}
    found = outcome(quick, NAME, tmp_path, export={"scope": scope})
    assert {row["SessionId"] for row in found.rows} == {session}
    assert queries(quick)[0]["scope"] == scope


def test_half_a_scope_is_a_mistake(sandbox):
    half = {"scope": {"filters": {}}}
    message = r"intelepeer.exports\[0\].scope: needs both filters and scope"
    with pytest.raises(SettingsError, match=message), provider(sandbox, NAME, export=half):
        pass


@pytest.mark.parametrize(
    ("export", "message"),
    [
        (
            {"filters": {"ActionName": {"$like": "D%"}}},
            "Invalid operators [$like], try to use any of these ($gte, $lte, $gt, $lt, $ne, $eq).; check",
        ),
        (
            {"fields": ["Flow Id"]},
            "400: Flow Id is not a valid field.; check event, fields, filters and scope",
        ),
    ],
)
def test_wrong_filters_fail_with_the_words_of_the_vendor(quick, export, message, tmp_path):
    found = outcome(quick, NAME, tmp_path, export=export)
    assert (found.statuses, message in found.error) == (["failed"], True), found.error


def test_never_more_than_two_run_and_429_means_wait(sandbox):
    settings = config(sandbox, export={"window": "PT8H"})
    settings[NAME]["exports"].append({"name": "messages", "event": "MsgEvent", "window": "P1D"})
    sandbox.post("settings", {"max_running": 1})
    result = run_tap(settings)
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    statistics = sandbox.get("statistics")
    assert statistics["counts"]["intelepeer_429"] > 0
    assert statistics["max_running"][NAME] == 1

    sandbox.post("reset")
    assert run_tap(settings).exit_code == 0
    statistics = sandbox.get("statistics")
    assert statistics["max_running"][NAME] == 2
    assert "intelepeer_429" not in statistics["counts"]


# The result


def test_an_empty_window_moves_the_bookmark_and_keeps_the_columns(sandbox):
    sandbox.post("settings", {"fail_jobs": [{"service": NAME, "outcome": "empty"}]})
    result = run_tap(config(sandbox))
    assert (result.exit_code, [run["status"] for run in result.runs]) == (0, ["empty"])
    assert result.bookmark("calls")["replication_key_value"] == (START + timedelta(days=1)).isoformat()
    assert "direction" in result.schema("calls")


@pytest.mark.parametrize("messages", [[WIDE], [WIDE, EMPTY], ["Query range TOO wide"]])
def test_a_window_that_is_too_wide_is_split_until_it_is_not(quick, messages, tmp_path):
    knobs = {"wide_after_seconds": 6 * 3600, "wide_messages": messages}
    good(quick, outcome(quick, NAME, tmp_path, knobs=knobs))
    assert len(queries(quick)) == 7


def test_the_parts_of_a_split_window_are_numbered_through(sandbox):
    sandbox.post("settings", {"wide_after_seconds": 12 * 3600, "job_seconds": 0.05})
    result = run_tap({**config(sandbox), "poll_interval": "PT0.05S"})
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    assert [(run["status"], run["rows"]) for run in result.runs] == [("loaded", 100)]
    assert [record["_sdc_row_number"] for record in result.records("calls")] == list(range(1, 101))


def test_where_an_empty_window_is_also_called_too_wide_the_splitting_ends(quick, tmp_path):
    quick.post(
        "settings", {"fail_jobs": [{"service": NAME, "outcome": "empty"}], "empty_messages": [WIDE, EMPTY]}
    )
    with provider(quick, NAME, export={"window": "PT4H"}) as (made, request):
        window = Window(START, START + timedelta(hours=4))
        assert run(made, replace(request, window=window), tmp_path).statuses == ["empty"]
    assert len(queries(quick)) == 7  # of four hours, of two, and of one


def test_a_window_without_a_whole_second_is_not_asked_for_whatever_its_handle_is(quick, tmp_path):
    window = Window(START + timedelta(seconds=0.2), START + timedelta(seconds=0.7))
    with provider(quick, NAME) as (made, request):
        within = replace(request, window=window)
        assert run(made, within, tmp_path).statuses == ["empty"]
        assert made.poll(within, {"odd": 1}) == Empty()
    assert queries(quick) == []


def test_a_job_in_the_state_is_resumed_and_one_that_is_forgotten_is_sent_once_more(sandbox):
    sandbox.post("settings", {"job_seconds": 2})
    settings = config(sandbox)
    with start_tap(settings) as tap:
        for line in tap.stdout:
            message = json.loads(line)
            if message["type"] == "STATE" and message["value"]["bookmarks"]["calls"]["jobs"]:
                state = message["value"]
                break
    (job,) = state["bookmarks"]["calls"]["jobs"]
    assert job["handle"] == {"id": sandbox.get("jobs", service=NAME)[0]["id"]}
    result = run_tap(settings, state=state)
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
    assert [run["resumed"] for run in result.runs] == [True]
    assert len(queries(sandbox)) == 1

    sandbox.post("reset")
    result = run_tap(settings, state=state)
    assert (result.exit_code, loaded(result)) == (0, actions(expected(sandbox))), result.stderr
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
    # name: (faults, knobs, what the jobs come to, the message)
    "Completed": ([], {}, ["loaded"], None),
    "states in other cases": (
        [
            answer(STATUS, said("PENDING"), times=1),
            answer(STATUS, said("processing"), times=1),
            {"path": STATUS, "times": None, "action": {"substitute": ["Completed", "COMPLETED"]}},
        ],
        {},
        ["loaded"],
        None,
    ),
    "Failed, empty": ([], jobs("empty"), ["empty"], None),
    "Failed, for another reason": (
        [],
        jobs("failed"),
        ["failed"],
        "the query failed: Internal error",
    ),
    "Failed without a reason": (
        [answer(STATUS, said("Failed"))],
        {},
        ["failed"],
        "no reason was given",
    ),
    "Failed, with text in place of a list": (
        [answer(STATUS, said("Failed", messages=EMPTY))],
        {},
        ["empty"],
        None,
    ),
    "Canceled once": ([], jobs("Canceled", 1), ["failed", "loaded"], "canceled"),
    "Canceled always": ([], jobs("Canceled"), ["failed"] * 3, "canceled.*make the window shorter"),
    "a word that nobody knows": ([], jobs("Archived"), ["failed"], "unknown state 'Archived'"),
    "no word at all": (
        [answer(STATUS, {})],
        {},
        ["failed"],
        "unknown state 'intelepeer: GET .*/status answered 200 with a malformed answer: .*status",
    ),
    "the files need a moment more": (
        [
            answer(
                LOCATION,
                said("Process has not finish yet, please verify the status of your request"),
                times=2,
            )
        ],
        {},
        ["loaded"],
        None,
    ),
    "an unknown id, once": (
        [answer(STATUS, UNKNOWN, status=500, times=1)],
        {},
        ["failed", "loaded"],
        "does not exist.*does not know the query any more",
    ),
    "an unknown id at the download": (
        [answer(LOCATION, UNKNOWN, status=500, times=1)],
        {},
        ["failed", "loaded"],
        "does not exist",
    ),
    "another 500 while polled": (
        [answer(STATUS, "oops", status=500, times=2)],
        {},
        ["loaded"],
        None,
    ),
    "503 while polled": ([answer(STATUS, "", status=503, times=2)], {}, ["loaded"], None),
    "403 while polled": (
        [answer(STATUS, {"code": 403, "message": "no"}, status=403)],
        {},
        ["failed"],
        "403: no",
    ),
    "429 at the trigger": (
        [answer(PAGE, {"code": 429, "message": "max"}, status=429, times=2, method="POST")],
        {},
        ["loaded"],
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
        ["failed"],
        "400: Invalid dates; check event",
    ),
    "500 at the trigger": (
        [answer(PAGE, "oops", status=500, method="POST")],
        {},
        ["failed"],
        "whether a job was triggered is not known",
    ),
    "no id": ([answer(PAGE, {}, status=201, method="POST")], {}, ["failed"], "without an id"),
    "no JSON": (
        [answer(PAGE, "<html>", status=201, method="POST")],
        {},
        ["failed"],
        "without an id",
    ),
    "no files": (
        [answer(LOCATION, said("Process finished. Download: []"))],
        {},
        ["failed"],
        "names no files",
    ),
    "a damaged part": ([], {"damage_shards": 99}, ["failed"], ".csv.gz"),
}


@pytest.mark.parametrize("name", TABLE)
def test_outcome(quick, name, tmp_path):
    faults, knobs, statuses, message = TABLE[name]
    found = outcome(quick, NAME, tmp_path, *faults, knobs=knobs)
    assert found.statuses == statuses, found.error
    assert re.search(message or "", found.error, re.DOTALL), found.error
    if statuses[-1] == "loaded":
        good(quick, found)


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
def test_the_list_of_files_is_read_and_never_run(quick, listed, words, tmp_path):
    found = outcome(quick, NAME, tmp_path, answer(LOCATION, said(f"Process finished. Download: {listed}")))
    assert found.statuses == ["failed"]
    assert words in found.error
    assert asked(quick, "OPEN", "intelepeer_sftp") == []


def test_a_part_that_is_named_twice_is_read_once(quick, tmp_path):
    doubled = {"path": LOCATION, "times": None, "action": {"substitute": [r"\[(.*)\]", r"[\1, \1]"]}}
    good(quick, outcome(quick, NAME, tmp_path, doubled))


# The server of the files; a real one is in test_sftp.py

SFTP = {
    # name: (what happens when a file is opened, how often, what the jobs come to, the message)
    "cut off, once": ({"truncate_after_bytes": 1000}, 1, ["loaded"], ""),
    "cut off, always": ({"truncate_after_bytes": 0}, None, ["failed"], "its file did not arrive whole"),
    "hung up, once": ({"close": "before_headers"}, 1, ["loaded"], ""),
    "a failure, once": ({"status": 4, "body": "Failure"}, 1, ["loaded"], ""),
    "may not be read": ({"status": 3, "body": "Denied"}, None, ["failed"], "check what acme may read"),
    "gone, once": ({"status": 2, "body": "No such file"}, 1, ["failed", "loaded"], "not there any more"),
}


@pytest.mark.parametrize("name", SFTP)
def test_outcome_of_a_transfer(quick, name, tmp_path):
    action, times, statuses, message = SFTP[name]
    rule = {"service": "intelepeer_sftp", "method": "OPEN", "times": times, "action": action}
    found = outcome(quick, NAME, tmp_path, rule)
    assert found.statuses == statuses, found.error
    assert message in found.error
    if statuses[-1] == "loaded":
        good(quick, found)


# Checks


def test_check_tries_the_api_and_the_files_server(quick):
    with provider(quick, NAME) as (made, _):
        made.check()
    assert queries(quick) == []
    assert [one["method"] for one in asked(quick, service="intelepeer_sftp")] == ["CONNECT", "PASSWORD"]


def test_check_says_what_is_wrong_with_each(quick):
    with (
        provider(quick, NAME, password="nope", sftp_password="nope") as (made, _),
        pytest.raises(Refused, match=r"check auth_url, username and pass.*acme is not let in"),
    ):
        made.check()
    url = config(quick)[NAME]["files_url"].replace("outbox", "elsewhere")
    message = "there is no folder /elsewhere/; check files_url"
    with provider(quick, NAME, files_url=url) as (made, _), pytest.raises(Refused, match=message):
        made.check()
    fault(quick, answer("/Q$", ["no object"]))
    message = r"malformed answer.*check base_url"
    with provider(quick, NAME) as (made, _), pytest.raises(Unreachable, match=message):
        made.check()


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
def test_mistakes_are_named(sandbox, block, words):
    with pytest.raises(SettingsError) as raised, provider(sandbox, NAME, **block):
        pass
    assert words in str(raised.value)
    assert "sftp-pass" not in str(raised.value)


def test_no_secret_is_printed(sandbox):
    sandbox.post("settings", jobs("failed"))
    settings = config(sandbox, block={"sftp_private_key_file": str(sandbox.folder / "client_key")})
    result = run_tap(settings, env={"TAP_ANALYTICS_EXPORTS_LOGLEVEL": "DEBUG"})
    assert result.exit_code == 3
    for secret in ("insights-pass", "sftp-pass", "Bearer"):
        assert secret not in result.stderr
        assert secret not in result.stdout


def test_a_run_connects_to_the_server_of_files_once_before_its_first_trigger(sandbox):
    settings = config(sandbox) | {"start_date": (START - timedelta(days=2)).isoformat(), "lookback": "PT0S"}
    result = run_tap(settings)
    assert result.exit_code == 0, result.stderr
    every = [(one["service"], one["method"]) for one in sandbox.get("requests")]
    before = every[: every.index(("intelepeer", "POST"))]
    assert before.count(("intelepeer_sftp", "CONNECT")) == 1
    sandbox.post("reset")
    again = run_tap(settings, state=result.state)
    assert again.exit_code == 0, again.stderr
    assert asked(sandbox, service="intelepeer_sftp") == queries(sandbox) == []
