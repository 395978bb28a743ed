"""What the command line offers besides a run: to check, to plan, to sample."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from conftest import run_tap, start_tap

from tap_analytics_exports import Checked, Extraction
from tap_analytics_exports.sandbox.data import GIOSG_CALLS

PROVIDERS = ("flex_insights", "giosg", "gooee", "intelepeer", "khoros_care")


# --test


def test_all_that_is_right_is_said_to_be_in_a_line_each_and_nothing_is_triggered(sandbox):
    config = sandbox.config()
    result = run_tap(config, "--test")
    assert result.exit_code == 0, result.stdout + result.stderr
    expected = []
    for name in PROVIDERS:
        expected.append(f"{name}: ok")
        expected += [f"{name}.{export['name']}: ok" for export in config[name]["exports"]]
    assert result.stdout.splitlines() == expected
    assert sandbox.get("jobs") == []


def test_what_is_wrong_is_said_and_the_rest_is_checked_all_the_same(sandbox):
    config = sandbox.config("gooee", "khoros_care")
    config["gooee"]["api_token"] = "not-this-one"
    result = run_tap(config, "--test")
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert result.exit_code == 1
    assert "401" in lines["gooee"]
    assert {lines[name] for name in lines if name.startswith("gooee.")} == {
        "not checked; see what is said of gooee"
    }
    assert {lines[name] for name in lines if name.startswith("khoros_care")} == {"ok"}
    assert "not-this-one" not in result.stdout + result.stderr


def test_help_says_what_test_does():
    shown = " ".join(run_tap({}, "--help").stdout.split())
    assert "without triggering any" in shown
    assert "sync a single record" not in shown


WRONG = [
    ("flex_insights", {"report_id": 99}, r"none of the workspace.s reports, 643040 \(Conversations\)"),
    ("flex_insights", {"report_id": 1542}, "is no report but: attribute"),
    ("flex_insights", {"date_identifier": "date.no.such"}, "no attribute 'date.no.such'; check date_ident"),
    ("intelepeer", {"event": "callevent"}, "no event 'callevent'; the API knows"),
    ("intelepeer", {"fields": ["SesionId"]}, "no field 'SesionId'; did you mean SessionId?"),
    ("intelepeer", {"filters": {"Pth": {"$eq": "x"}}}, "filters: .* no field 'Pth'"),
    ("khoros_care", {"export_id": "Raw Conversation"}, "did you mean conversation, which is called Raw Conv"),
    (
        "khoros_care",
        {"export_id": "conversations"},
        r"no export .*; did you mean conversation\?",
    ),
    ("khoros_care", {"export_id": "team_performance_interval"}, "needs parameters.timeInterval"),
    ("khoros_care", {"parameters": {"timezone": "Europe/Helsinky"}}, "did you mean Europe/Helsinki"),
    ("giosg", {"workflow_id": "8d7c6b5a-0000-4d2c-9b1a-0f9e8d7c6b5a"}, "no workflow 8d7c.*check workflow_id"),
    ("giosg", {"workflow_id": GIOSG_CALLS, "step_index": 3}, "step 3 of the workflow has had no event"),
]


def checked(sandbox, provider: str, export: dict, **block) -> Checked:
    """What is found of one export."""
    config = sandbox.config(provider)
    first = {**config[provider]["exports"][0], "name": "one", **export}
    config[provider] |= {"exports": [first], **block}
    with Extraction(config) as extraction:
        about, found = extraction.check()
    assert (about, found.name) == (Checked(provider, None), f"{provider}.one")
    assert sandbox.get("jobs") == []
    return found


@pytest.mark.parametrize(("provider", "export", "words"), WRONG)
def test_what_an_export_names_wrong_is_said(quick, provider, export, words):
    problem = checked(quick, provider, export).problem or ""
    assert re.search(words, problem), problem


def test_a_report_that_is_no_table_is_told(quick):
    quick.post("settings", {"flex_report_format": "oneNumber"})
    assert "save it as a table" in (checked(quick, "flex_insights", {}).problem or "")


def test_a_workspace_that_is_not_there_is_told(quick):
    found = checked(quick, "flex_insights", {}, workspace_id="another")
    assert "check workspace_id" in (found.problem or "")


def test_a_step_is_not_called_wrong_where_no_step_can_be_seen(quick):
    rule = {"service": "giosg", "path": "/step/", "times": None, "action": {"status": 404}}
    quick.post("faults", [rule])
    assert checked(quick, "giosg", {"workflow_id": GIOSG_CALLS, "step_index": 3}).problem is None


def test_what_nobody_can_see_beforehand_is_a_warning(quick, caplog):
    assert checked(quick, "gooee", {"query_id": "no-such-query"}).problem is None
    assert checked(quick, "khoros_care", {"export_id": "xyz"}).problem is None
    assert "whether the query no-such-query of one exists" in caplog.text
    assert "no export 'xyz'" in caplog.text


def test_a_server_of_files_that_is_not_the_configured_one_is_told(sandbox):
    config = sandbox.config("intelepeer")
    del config["intelepeer"]["sftp_host_key"]
    with Extraction(config) as extraction:
        first, *_ = extraction.check()
    assert "set sftp_host_key to" in (first.problem or "")


def test_only_the_chosen_streams_are_checked(sandbox):
    config = sandbox.config("giosg")
    name = config["giosg"]["exports"][0]["name"]
    with Extraction(config, streams=[name]) as extraction:
        assert [each.name for each in extraction.check()] == ["giosg", f"giosg.{name}"]


# --plan


def test_a_plan_is_a_table_with_the_limits_and_triggers_nothing(sandbox):
    config = sandbox.config("giosg", "intelepeer", start_date="2000-01-01", end_date="2026-11-01")
    result = run_tap(config, "--plan")
    assert result.exit_code == 0, result.stderr
    head, *rows, empty, giosg, intelepeer = result.stdout.splitlines()
    assert head.split() == ["stream", "provider", "window", "jobs", "action", "why"]
    assert [re.split("  +", row) for row in rows] == [
        [export["name"], name, "2000-01-01T00:00Z/2026-11-01T00:00Z", "9801", "trigger", "first run"]
        for export, name in sorted(
            ((export, name) for name in ("giosg", "intelepeer") for export in config[name]["exports"]),
            key=lambda each: each[0]["name"],
        )
    ]
    assert empty == ""
    assert giosg.startswith(
        "giosg: 19602 to trigger, 0 to resume; at most 1 at once; the vendor's own limits: none"
    )
    assert "2 running queries a customer" in intelepeer
    assert sandbox.get("jobs") == []


def test_a_plan_for_programs_has_every_job_and_heeds_state_and_catalog(sandbox):
    config = sandbox.config("khoros_care", "gooee", start_date="2026-01-01", end_date="2026-01-04", ledger="")
    names = [export["name"] for export in config["khoros_care"]["exports"]]
    catalog = json.loads(run_tap(config, "--discover").stdout)
    for stream in catalog["streams"]:
        about = next(each["metadata"] for each in stream["metadata"] if each["breadcrumb"] == [])
        about["selected"] = stream["stream"] == names[0]
    edge = "2026-01-03T00:00:00+00:00"
    state = {"bookmarks": {names[0]: {"replication_key_value": edge}}}
    result = run_tap(config, "--plan", "--format", "json", state=state, catalog=catalog)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["jobs"] == [
        {
            "stream": names[0],
            "provider": "khoros_care",
            "window": ["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"],
            "action": "trigger",
            "source": None,
            "why": "behind the bookmark",
            "export_id": None,
            "submitted_at": None,
        }
    ]
    assert found["providers"]["khoros_care"]["trigger"] == 1
    assert found["providers"]["khoros_care"]["documented_limits"] == "20 requests a minute"


def test_a_plan_of_what_is_wrong_is_refused(sandbox):
    wrong = {"bookmarks": {"gooee_energy": 5}}
    result = run_tap(sandbox.config("gooee"), "--plan", state=wrong)
    assert (result.exit_code, result.stdout) == (1, ""), result.stderr
    assert "Traceback" not in result.stderr
    assert run_tap(sandbox.config("gooee"), "--plan", "--format", "markdown").exit_code == 2


# --sample


def blocks(text: str) -> dict[str, dict]:
    """The settings that a sample prints, by stream."""
    found = {}
    for block in text.strip().split("\n\n"):
        stream = re.match(r"# (\w+) ", block)
        assert stream, block
        found[stream[1]] = yaml.safe_load(block) or {}
    return found


def test_a_sample_prints_columns_that_the_next_run_takes_with_the_same_exports(sandbox, tmp_path):
    start = (datetime.now(UTC) - timedelta(days=2)).date()
    config = sandbox.config(ledger=str(tmp_path / "ledger"), start_date=start.isoformat())
    result = run_tap(config, "--sample")
    assert result.exit_code == 0, result.stderr
    found = blocks(result.stdout)
    exports = {each["name"]: each for name in PROVIDERS for each in config[name]["exports"]}
    assert found.keys() == exports.keys()
    triggered = len(sandbox.get("jobs"))
    assert triggered == len(exports)
    listed = json.loads(run_tap(config, "--discover").stdout)["streams"]
    assert "dim4" in next(each for each in listed if each["stream"] == "giosg_calls")["schema"]["properties"]
    for name, block in found.items():
        exports[name] |= block
    run = run_tap({**config, "on_bad_row": "fail"}, env={"TMPDIR": str(tmp_path)})
    assert run.exit_code == 0, run.stderr
    assert {each["stream"] for each in run.runs if each["resumed"]} == exports.keys()
    assert run.schema("flex_missed")["date"]["format"] == "date"


def test_a_sample_says_what_went_wrong_and_shows_the_rest(sandbox):
    config = sandbox.config("giosg", "gooee", ledger="")
    config["gooee"]["api_token"] = "not-this-one"
    result = run_tap(config, "--sample")
    assert result.exit_code == 3
    found = blocks(result.stdout)
    assert "columns" in found["giosg_calls"]
    assert found["gooee_energy"] == {}
    assert re.search(r"# gooee_energy \(gooee\): .*401", result.stdout)
    assert "the ledger is turned off" in result.stderr
    assert "not-this-one" not in result.stdout + result.stderr


# What `meltano config … test` does: it reads until the first record, and then leaves


@pytest.mark.parametrize(
    ("until", "leave", "exit_code"),
    [
        ("RECORD", lambda tap: tap.terminate(), 143),
        ("replication_key_value", lambda tap: tap.stdout.close(), 141),
    ],
    ids=["terminates at the first record", "goes away while nothing is written"],
)
def test_a_reader_that_leaves_ends_the_run_and_costs_no_job(sandbox, tmp_path, until, leave, exit_code):
    start = (datetime.now(UTC) - timedelta(days=4)).date()
    span = {"start_date": start.isoformat(), "end_date": (start + timedelta(days=3)).isoformat()}
    config = sandbox.config("flex_insights", ledger=str(tmp_path), **span)
    config["flex_insights"]["exports"] = [{**config["flex_insights"]["exports"][0], "timezone": "UTC"}]
    others = "|".join(str(start + timedelta(days=n)) for n in (1, 2))
    stuck = {"service": "flex_insights", "match": f'"from": "({others})', "times": None, "outcome": "stuck"}
    sandbox.post("settings", {"fail_jobs": [stuck]})
    with start_tap(config) as tap:
        assert tap.stdout is not None
        assert any(until in line for line in tap.stdout)
        leave(tap)
        assert tap.wait(20) == exit_code
    begun = {job["id"] for job in sandbox.get("jobs")}
    result = run_tap(config, "--plan", "--format", "json")
    resumed = [job for job in json.loads(result.stdout)["jobs"] if job["action"] == "resume"]
    assert len(resumed) == len(begun)
