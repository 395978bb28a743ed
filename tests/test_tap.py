"""What every provider's streams have in common: windows, state, columns, keys, the command line."""

import hashlib
import json
import signal
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from conftest import Result, Sandbox, run_tap, start_tap

from tap_analytics_exports.sandbox.data import GIOSG_CALLS, GOOEE_EMPTY

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=3)
META = ("_sdc_export_id", "_sdc_window_start", "_sdc_window_end", "_sdc_row_number")


def iso(moment: datetime) -> str:
    return moment.isoformat()


def calls(sandbox: Sandbox, *, export: dict | None = None, **top) -> dict:
    """One incremental CSV export, by a vendor that answers at once."""
    top = {"start_date": iso(START), "end_date": iso(TODAY), **top}
    config = sandbox.config("giosg", **top)
    config["giosg"]["exports"] = [{**config["giosg"]["exports"][0], "name": "calls", **(export or {})}]
    return config


def energy(sandbox: Sandbox, **top) -> dict:
    """One snapshot."""
    config = sandbox.config("gooee", **top)
    config["gooee"]["exports"] = [{**config["gooee"]["exports"][0], "name": "energy"}]
    return config


def spans(result: Result, stream: str = "calls") -> list[tuple[str, str]]:
    return [(run["window_start"], run["window_end"]) for run in result.runs if run["stream"] == stream]


def discover(config: dict) -> dict:
    result = run_tap(config, "--discover")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# Windows and state


def test_a_first_run_takes_each_day_and_leaves_the_bookmark_at_the_end(sandbox):
    result = run_tap(calls(sandbox))
    assert result.exit_code == 0, result.stderr
    days = [iso(START + timedelta(days=n)) for n in range(4)]
    assert spans(result) == list(pairwise(days))
    assert result.bookmark("calls") == {
        "replication_key": "_sdc_window_end",
        "replication_key_value": iso(TODAY),
        "jobs": [],
    }
    expected = sandbox.get(
        "expected",
        provider="giosg",
        export=f"{GIOSG_CALLS}/1",
        start=iso(START),
        end=iso(TODAY),
    )
    assert [record["event_id"] for record in result.records("calls")] == [row["event_id"] for row in expected]


def test_a_second_run_has_nothing_to_do_and_a_later_end_goes_on_from_the_bookmark(sandbox):
    first = run_tap(calls(sandbox, end_date=iso(START + timedelta(days=2))))
    again = run_tap(calls(sandbox, end_date=iso(START + timedelta(days=2))), state=first.state)
    assert (again.exit_code, again.records("calls"), again.runs) == (0, [], [])
    assert again.state == first.state
    nothing = run_tap(calls(sandbox, end_date=iso(START)))
    assert (nothing.exit_code, nothing.bookmark("calls")) == (0, {"jobs": []})
    later = run_tap(calls(sandbox), state=first.state)
    assert spans(later) == [(iso(TODAY - timedelta(days=1)), iso(TODAY))]


def test_a_window_that_was_cut_is_exported_again_from_its_own_beginning(sandbox):
    cut = START + timedelta(days=1, hours=13)
    first = run_tap(calls(sandbox, end_date=iso(cut)))
    assert spans(first)[-1] == (iso(START + timedelta(days=1)), iso(cut))
    assert first.bookmark("calls")["replication_key_value"] == iso(cut)
    later = run_tap(calls(sandbox, end_date=iso(START + timedelta(days=2))), state=first.state)
    assert spans(later) == [(iso(START + timedelta(days=1)), iso(START + timedelta(days=2)))]
    both = first.records("calls") + later.records("calls")
    kept = {(r["_sdc_window_start"], r["_sdc_row_number"]): r for r in both}
    at_once = run_tap(calls(sandbox, end_date=iso(START + timedelta(days=2)), ledger=""))
    assert sorted(r["event_id"] for r in kept.values()) == sorted(
        r["event_id"] for r in at_once.records("calls")
    )


def test_now_cuts_the_last_window(sandbox):
    before = datetime.now(UTC).replace(microsecond=0)
    config = calls(sandbox)
    del config["end_date"]
    result = run_tap(config)
    end = datetime.fromisoformat(result.bookmark("calls")["replication_key_value"])
    assert before <= end <= datetime.now(UTC)


def test_lookback_exports_the_windows_behind_the_bookmark_anew_and_keeps_the_bookmark(sandbox):
    first = run_tap(calls(sandbox))
    again = run_tap(calls(sandbox, lookback="P1DT1H"), state=first.state)
    assert spans(again) == list(pairwise([iso(TODAY - timedelta(days=n)) for n in (2, 1, 0)]))
    assert again.bookmark("calls") == first.bookmark("calls")
    assert not any(run["resumed"] for run in again.runs)


def test_a_start_date_that_moves_does_not_move_the_bookmark_back(sandbox):
    first = run_tap(calls(sandbox, end_date=iso(START + timedelta(days=2))))
    earlier = run_tap(
        calls(sandbox, start_date=iso(START - timedelta(days=5)), end_date=iso(START + timedelta(days=2))),
        state=first.state,
    )
    assert earlier.runs == []
    assert earlier.state == first.state


def test_windows_of_hours_and_of_an_exports_own_time_zone(sandbox):
    config = calls(
        sandbox,
        export={"window": "PT12H", "timezone": "Asia/Kolkata"},
        end_date=iso(START + timedelta(days=1)),
    )
    assert spans(run_tap(config)) == list(
        pairwise([iso(START + timedelta(hours=h)) for h in (0, 6.5, 18.5, 24)])
    )


def test_an_empty_window_moves_the_bookmark(sandbox):
    config = calls(sandbox, export={"step_index": 3})  # a step that nobody took: the vendor answers 404
    result = run_tap(config)
    assert result.exit_code == 0
    assert [run["status"] for run in result.runs] == ["empty"] * 3
    assert result.bookmark("calls")["replication_key_value"] == iso(TODAY)


def test_every_state_is_true_of_the_lines_before_it(sandbox):
    result = run_tap(calls(sandbox))
    days = [iso(START + timedelta(days=n)) for n in range(4)]
    written: set[str] = set()
    finished: list[str] = []
    for message in result.messages:
        if message["type"] == "RECORD" and message["stream"] == "calls":
            written.add(message["record"]["_sdc_window_end"])
        elif message["type"] == "RECORD" and message["stream"] == "export_runs":
            finished.append(message["record"]["window_end"])
        elif message["type"] == "STATE":
            state = message["value"]["bookmarks"]["calls"]
            assert state.get("replication_key_value") == (finished[-1] if finished else None)
            assert not {job["window"][1] for job in state["jobs"]} & set(finished)
    assert finished == days[1:]
    assert written == set(days[1:])


def test_a_state_goes_out_after_every_trigger_and_says_how_to_find_the_job(sandbox):
    result = run_tap(energy(sandbox))
    jobs = [
        m["value"]["bookmarks"]["energy"]["jobs"]
        for m in result.of("STATE")
        if m["value"]["bookmarks"]["energy"]["jobs"]
    ]
    (job,) = jobs[0]
    (vendors,) = sandbox.get("jobs", service="gooee")
    assert job["handle"] == {"id": vendors["id"]}
    assert set(job) == {"export_id", "window", "submitted_at", "request", "handle"}
    assert job["window"] is None


def test_a_broken_state_is_read_as_far_as_it_can_be(sandbox):
    state = {"replication_key_value": iso(START + timedelta(days=2)), "jobs": None}
    result = run_tap(calls(sandbox), state={"bookmarks": {"calls": state}})
    assert spans(result) == [(iso(TODAY - timedelta(days=1)), iso(TODAY))]
    state = {"replication_key_value": "yesterday", "jobs": [{"handle": {}}]}
    result = run_tap(calls(sandbox), state={"bookmarks": {"calls": state}})
    assert (result.exit_code, result.runs) == (1, [])
    assert "state: bookmarks.calls.replication_key_value: is no date-time" in result.stderr
    assert "Traceback" not in result.stderr


# Snapshots


def test_a_snapshot_is_versioned_and_activated_after_its_last_row(sandbox):
    result = run_tap(energy(sandbox))
    kinds = [m["type"] for m in result.messages if m.get("stream") == "energy"]
    assert kinds[0] == "SCHEMA"
    assert kinds[-1] == "ACTIVATE_VERSION"
    assert "ACTIVATE_VERSION" not in kinds[:-1]
    (activated,) = result.of("ACTIVATE_VERSION")
    assert {m["version"] for m in result.of("RECORD", "energy")} == {activated["version"]}
    record = result.records("energy")[0]
    assert (record["_sdc_window_start"], record["_sdc_window_end"]) == (None, None)
    assert result.bookmark("energy") == {
        "jobs": [],
        "last_export_id": record["_sdc_export_id"],
        "version": activated["version"],
    }
    assert result.of("SCHEMA", "energy")[0]["key_properties"] == ["_sdc_row_number"]


def test_a_snapshot_that_fails_activates_nothing(sandbox):
    sandbox.post("settings", {"fail_jobs": [{"service": "gooee", "times": None}]})
    result = run_tap(energy(sandbox))
    assert result.exit_code == 3
    assert result.of("ACTIVATE_VERSION") == []
    assert "last_export_id" not in result.bookmark("energy")


def test_a_snapshot_that_is_complete_and_empty_is_activated(sandbox):
    config = energy(sandbox)
    config["gooee"]["exports"][0]["query_id"] = GOOEE_EMPTY
    result = run_tap(config)
    assert result.exit_code == 0, result.stderr
    assert result.records("energy") == []
    assert len(result.of("ACTIVATE_VERSION", "energy")) == 1


# Going on with jobs


def test_a_running_job_in_the_state_is_resumed_and_not_triggered_anew(sandbox):
    sandbox.post("settings", {"job_seconds": 3})
    config = energy(sandbox, ledger="")
    with start_tap(config) as process:
        assert process.stdout is not None
        state = next(
            message["value"]
            for message in map(json.loads, process.stdout)
            if message["type"] == "STATE" and message["value"]["bookmarks"]["energy"]["jobs"]
        )
        process.kill()
    result = run_tap(config, state=state)
    assert result.exit_code == 0, result.stderr
    (job,) = state["bookmarks"]["energy"]["jobs"]
    (run,) = result.runs
    assert (run["export_id"], run["resumed"], run["status"]) == (job["export_id"], True, "loaded")
    assert len(sandbox.get("jobs", service="gooee")) == 1


def test_a_job_whose_request_is_another_is_not_resumed(sandbox):
    first = run_tap(energy(sandbox, ledger=""))
    job = next(m for m in first.of("STATE") if m["value"]["bookmarks"]["energy"]["jobs"])
    job["value"]["bookmarks"]["energy"]["jobs"][0]["request"] = "0" * 32
    sandbox.post("reset", {})
    result = run_tap(energy(sandbox, ledger=""), state=job["value"])
    assert [run["resumed"] for run in result.runs] == [False]


def test_the_ledger_goes_on_where_no_state_was_saved(sandbox, tmp_path):
    sandbox.post("settings", {"job_seconds": 3})
    config = energy(sandbox, ledger=str(tmp_path))
    with start_tap(config) as process:
        while not sandbox.get("jobs", service="gooee"):
            time.sleep(0.05)
        time.sleep(0.3)
        process.kill()
    result = run_tap(config)
    assert result.exit_code == 0, result.stderr
    assert [(run["resumed"], run["status"]) for run in result.runs] == [(True, "loaded")]
    assert len(sandbox.get("jobs", service="gooee")) == 1


def test_two_runs_at_once(sandbox, tmp_path):
    sandbox.post("settings", {"job_seconds": 60})
    config = energy(sandbox, ledger=str(tmp_path))
    with start_tap(config):
        while not sandbox.get("jobs", service="gooee"):
            time.sleep(0.05)
        second = run_tap(config)
    assert second.exit_code == 1
    assert "another run" in second.stderr
    assert second.of("RECORD") == second.of("STATE") == []
    assert len(sandbox.get("jobs", service="gooee")) == 1


def test_each_job_of_which_nobody_knows_whether_it_runs_is_told(sandbox, tmp_path):
    """As two kills in a row leave it, each between a trigger and its answer."""
    config = calls(sandbox, end_date=iso(START + timedelta(days=1)), ledger=str(tmp_path))
    run_tap(config)
    (path,) = tmp_path.glob("*/*.json")
    entry = json.loads(path.read_text())
    path.unlink()
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    for hour, export_id in enumerate(ids, 1):
        part = {"window": entry["window"], "sent": True, "submitted_at": f"2026-01-01T0{hour}:00:00+00:00"}
        lost = {**entry, "export_id": export_id, "parts": [part], "sha256": None, "written_at": None}
        path.with_name(f"{export_id}.json").write_text(json.dumps(lost))
    result = run_tap(config)
    assert result.exit_code == 0, result.stderr
    told = [(run["export_id"], run["window_start"]) for run in result.runs if run["status"] == "failed"]
    assert told == [(export_id, iso(START)) for export_id in ids]
    assert [run["status"] for run in result.runs][-1] == "loaded"


def test_a_ledger_that_cannot_be_written_is_a_warning(sandbox, tmp_path):
    (tmp_path / "file").touch()
    result = run_tap(energy(sandbox, ledger=str(tmp_path / "file")))
    assert result.exit_code == 0
    assert "the ledger can't be used" in result.stderr


# Columns


def test_columns_are_typed_named_and_keyed(sandbox):
    export = {
        "columns": {
            "timestamp": {"type": "timestamp"},
            "value": "decimal",
            "properties": "json",
            "nothing": "boolean",
        },
        "primary_keys": ["event_id"],
    }
    result = run_tap(calls(sandbox, export=export))
    assert result.exit_code == 0, result.stderr
    schema = result.of("SCHEMA", "calls")[0]
    assert schema["key_properties"] == ["event_id"]
    assert schema["bookmark_properties"] == ["_sdc_window_end"]
    assert schema["schema"]["properties"]["value"]["format"] == "singer.decimal"
    assert schema["schema"]["properties"]["timestamp"]["format"] == "date-time"
    record = result.records("calls")[0]
    assert record["timestamp"] == iso(START)
    assert isinstance(record["value"], str)
    assert isinstance(record["properties"], dict)
    assert record["nothing"] is None
    assert set(META) <= set(record)
    assert (record["_sdc_workflow_id"], record["_sdc_step_index"]) == (
        "0d9a1f7e-3c52-4b8e-8f64-7a1b2c3d4e5f",
        1,
    )


def test_rows_that_do_not_fit_are_diverted_and_counted(sandbox):
    broken = {"substitute": ["768", "7 68"]}
    sandbox.post("faults", [{"service": "giosg", "path": "download", "times": 1, "action": broken}])
    export = {"columns": {"device_screen_height": "integer"}}
    result = run_tap(calls(sandbox, export=export, end_date=iso(START + timedelta(days=1))))
    assert result.exit_code == 0, result.stderr
    (run,) = result.runs
    assert run["rejected_rows"] == len(result.rejected) > 0
    assert run["rows"] == len(result.records("calls"))
    numbers = sorted(r["_sdc_row_number"] for r in result.records("calls")) + sorted(
        r["row_number"] for r in result.rejected
    )
    assert sorted(numbers) == list(range(1, run["rows"] + run["rejected_rows"] + 1))
    rejected = result.rejected[0]
    assert (rejected["stream"], rejected["column"]) == ("calls", "device_screen_height")
    assert "7 68" in rejected["raw"]


@pytest.mark.parametrize("limit", [{"on_bad_row": "fail"}, {"rejected_rows_limit": 1}])
def test_bad_rows_can_fail_an_export(sandbox, limit):
    result = run_tap(calls(sandbox, export={"columns": {"geo_city": "integer"}}, **limit))
    assert result.exit_code == 3
    assert [run["status"] for run in result.runs] == ["failed"]
    assert "geo_city" in result.runs[0]["error"] or "rejected_rows" in result.runs[0]["error"]
    assert "replication_key_value" not in result.bookmark("calls")


def test_new_columns_are_added_ignored_or_refused(sandbox):
    config = calls(sandbox, end_date=iso(START + timedelta(days=1)))
    catalog = discover(config)
    added = run_tap(config, catalog=catalog)
    assert "label" in added.schema("calls")
    known = set(catalog["streams"][0]["schema"]["properties"])
    ignored = run_tap({**config, "on_new_column": "ignore", "ledger": ""}, catalog=catalog)
    assert set(ignored.records("calls")[0]) == known
    new = set(added.records("calls")[0]) - known
    refused = run_tap({**config, "on_new_column": "fail", "ledger": ""}, catalog=catalog)
    assert refused.exit_code == (3 if new else 0)
    assert all(name in refused.stderr for name in new)


def test_deselected_columns_and_streams_stay_out(sandbox):
    export = {"columns": {"timestamp": "timestamp"}}
    config = calls(sandbox, export=export, end_date=iso(START + timedelta(days=1)))
    catalog = discover(config)
    for stream in catalog["streams"]:
        for entry in stream["metadata"]:
            if entry["breadcrumb"] in ([], ["properties", "timestamp"]):
                entry["metadata"]["selected"] = entry["breadcrumb"] == [] and stream["stream"] == "calls"
    result = run_tap(config, catalog=catalog)
    assert result.exit_code == 0, result.stderr
    assert result.records("calls")
    assert "timestamp" not in result.schema("calls")
    assert all("timestamp" not in record for record in result.records("calls"))
    assert result.runs == []


def test_original_names(sandbox):
    config = sandbox.config("flex_insights", column_names="original", ledger="")
    config["flex_insights"]["exports"] = [{**config["flex_insights"]["exports"][1], "columns": {}}]
    result = run_tap(config)
    assert {"Kind", "Date", "Date_2"} <= set(result.records("flex_workload")[0])


def test_stream_maps_and_flattening_see_the_same_values(sandbox):
    config = calls(sandbox, export={"columns": {"properties": "json", "value": "decimal"}}, ledger="")
    plain = run_tap(config)
    mapped = run_tap(
        {**config, "stream_maps": {"calls": {"__alias__": "renamed", "twice": "event_id + event_id"}}}
    )
    assert mapped.exit_code == 0, mapped.stderr
    by_id = {record["event_id"]: record for record in plain.records("calls")}
    assert len(mapped.records("renamed")) == len(by_id)
    for record in mapped.records("renamed"):
        assert record.pop("twice") == record["event_id"] * 2
        record["_sdc_export_id"] = by_id[record["event_id"]]["_sdc_export_id"]
        assert record == by_id[record["event_id"]]
    flat = run_tap({**config, "flattening_enabled": True, "flattening_max_depth": 1})
    assert flat.exit_code == 0, flat.stderr
    assert len(flat.records("calls")) == len(by_id)
    for record in flat.records("calls"):
        assert record["label"] == by_id[record["event_id"]]["label"]


def test_maps_filters_copies_and_flattening_at_once(sandbox):
    config = calls(sandbox, export={"columns": {"properties": "json", "value": "decimal"}}, ledger="")
    plain = run_tap(config)
    maps = {
        "calls": {
            "hash": "md5(event_id)",
            "at": "datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)",
            "label": None,
            "__filter__": "int(_sdc_row_number) % 2 == 1",
        },
        "copy": {"__source__": "calls", "__else__": None, "event_id": "event_id", "__key_properties__": []},
        "__else__": None,
    }
    result = run_tap({**config, "stream_maps": maps, "flattening_enabled": True, "flattening_max_depth": 1})
    assert result.exit_code == 0, result.stderr
    assert {message["stream"] for message in result.of("RECORD")} == {"calls", "copy"}
    assert result.records("copy") == [{"event_id": row["event_id"]} for row in plain.records("calls")]
    odd = [row for row in plain.records("calls") if row["_sdc_row_number"] % 2]
    assert len(result.records("calls")) == len(odd) > 0
    assert any(isinstance(row["properties"], dict) for row in odd)
    for mapped, row in zip(result.records("calls"), odd, strict=True):
        added = {
            "hash": hashlib.md5(row["event_id"].encode()).hexdigest(),
            "at": "2026-01-02T00:00:00+00:00",
            "properties": mapped["properties"],
            "_sdc_export_id": mapped["_sdc_export_id"],
        }
        assert mapped == {name: value for name, value in {**row, **added}.items() if name != "label"}
        if isinstance(row["properties"], dict):
            assert json.loads(mapped["properties"]) == row["properties"]
    # Each state comes after all records of its windows.
    seen = set()
    for message in result.messages:
        if message["type"] == "RECORD" and message["stream"] == "calls":
            seen.add(message["record"]["_sdc_window_end"])
        elif message["type"] == "STATE":
            bookmark = message["value"]["bookmarks"]["calls"].get("replication_key_value")
            assert bookmark == max(seen, default=None)


# The command line


def test_wrong_settings_end_the_run_before_any_request(sandbox):
    config = calls(sandbox, window="P1M", on_bad_row="perhaps")
    config["giosg"]["exports"].append({"name": "calls", "workflow_id": "x", "step_index": -1, "colums": {}})
    config["giosg"]["exports"][0] |= {
        "timezone": "Mars/Base",
        "columns": {"a": {"type": "date", "format": "%Q"}},
    }
    config["giosg"]["api_token"] = 12345678
    result = run_tap(config)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    for path in (
        "window",
        "on_bad_row",
        "giosg.api_token",
        "giosg.exports[1].step_index",
        "giosg.exports[1].colums",
    ):
        assert sum(f" {path}: " in line for line in lines) == 1, path
    assert "12345678" not in result.stderr
    assert sandbox.get("requests") == []


def test_settings_that_no_request_can_be_made_with_are_wrong_too(sandbox):
    config = calls(sandbox, lookback="-P1D", export_timeout="PT0S")
    config["giosg"] |= {"base_url": "http://", "requests_per_minute": 0}
    config["giosg"]["exports"][0]["encoding"] = "base64"
    config["gooee"] = {"api_token": "x", "base_url": "http://localhost:99999", "exports": []}
    config["khoros_care"] = {"username": "x", "password": "", "company_key": "x", "exports": []}
    result = run_tap({name: config[name] for name in config if name != "khoros_care"})
    found = {
        line.split(" | ")[-1].split(": ")[0].strip() for line in result.stderr.splitlines() if ": " in line
    }
    assert result.exit_code == 1
    assert found == {
        "lookback",
        "export_timeout",
        "giosg.base_url",
        "giosg.requests_per_minute",
        "giosg.exports[0].encoding",
        "gooee.base_url",
    }
    assert "khoros_care.password: is required" in run_tap(config).stderr
    assert sandbox.get("requests") == []


def test_settings_come_from_the_environment_too(sandbox):
    config = calls(sandbox, rejected_rows_limit=5)
    env = {
        f"TAP_ANALYTICS_EXPORTS_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in config.items()
    }
    with start_tap(None, "--config=ENV", env=env) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    rows = [line for line in map(json.loads, stdout.splitlines()) if line.get("stream") == "calls"]
    assert len(rows) > 100


def test_discover_makes_no_request_and_no_export(sandbox):
    config = sandbox.config("flex_insights", "khoros_care", "gooee", "giosg")
    names = {stream["tap_stream_id"] for stream in discover(config)["streams"]}
    assert {"export_runs", "rejected_rows", "khoros_posts", "gooee_energy"} < names
    assert sandbox.get("requests") == []


def test_about_names_every_setting():
    about = json.loads(run_tap({}, "--about", "--format=json").stdout)
    settings = about["settings"]["properties"]
    assert settings["khoros_care"]["properties"]["password"]["secret"]
    assert settings["batch_config"]["properties"]["batch_size"]["default"] == 10_000
    assert all("description" in setting and "title" in setting for setting in settings.values()), [
        name for name, setting in settings.items() if "description" not in setting
    ]


def test_refused_credentials_fail_their_provider_alone(sandbox):
    config = {**calls(sandbox), "gooee": energy(sandbox)["gooee"]}
    config["gooee"]["api_token"] = "not-this-one"
    result = run_tap(config)
    assert result.exit_code == 3
    assert {run["stream"] for run in result.runs} == {"calls"}
    assert result.bookmark("calls")["replication_key_value"] == iso(TODAY)
    assert "gooee" in result.stderr
    alone = run_tap({**energy(sandbox), "gooee": config["gooee"]})
    assert (alone.exit_code, alone.runs) == (1, [])


def test_an_export_that_fails_leaves_the_others_whole(sandbox):
    config = {**calls(sandbox), "gooee": energy(sandbox)["gooee"]}
    sandbox.post("settings", {"fail_jobs": [{"service": "gooee", "times": None}]})
    result = run_tap(config)
    assert result.exit_code == 3
    assert {run["status"] for run in result.runs if run["stream"] == "energy"} == {"failed"}
    assert result.bookmark("calls")["replication_key_value"] == iso(TODAY)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_soon_and_jobs_stay_resumable(sandbox, sent):
    sandbox.post("settings", {"job_seconds": 60})
    with start_tap(energy(sandbox)) as process:
        while not sandbox.get("jobs", service="gooee"):
            time.sleep(0.05)
        time.sleep(0.5)
        asked = time.monotonic()
        process.send_signal(sent)
        stdout, _ = process.communicate(timeout=10)
        assert time.monotonic() - asked < 5
    assert process.returncode in (128 + sent, -sent)
    messages = [json.loads(line) for line in stdout.splitlines()]
    (job,) = messages[-1]["value"]["bookmarks"]["energy"]["jobs"]
    assert job["handle"]["id"]


@pytest.mark.parametrize("maps", [{}, {"stream_maps": {"calls": {"twice": "event_id + event_id"}}}])
def test_a_signal_cuts_no_line_where_standard_output_has_no_buffer(sandbox, maps):
    config = calls(sandbox, start_date=iso(START - timedelta(days=60)), **maps)
    with start_tap(config, env={"PYTHONUNBUFFERED": "1"}) as process:
        time.sleep(4)  # the pipe is full by now
        process.terminate()
        stdout, _ = process.communicate(timeout=10)
    assert process.returncode in (143, -15)
    assert stdout.endswith("\n")
    assert all(json.loads(line) for line in stdout.splitlines())


def test_a_signal_ends_the_run_where_nobody_reads(sandbox):
    with start_tap(calls(sandbox, start_date=iso(START - timedelta(days=60)))) as process:
        time.sleep(4)  # the pipe is full by now
        process.terminate()
        try:
            assert process.wait(timeout=6) in (143, -15)
        finally:
            threading.Thread(target=process.kill).start()


def test_no_secret_is_printed(sandbox):
    config = sandbox.config()
    result = run_tap(config, env={"LOGLEVEL": "DEBUG"})
    said = result.stdout + result.stderr
    for block in ("flex_insights", "intelepeer", "khoros_care", "gooee", "giosg"):
        for name in ("password", "api_token", "company_key", "sftp_password"):
            secret = config[block].get(name)
            assert secret is None or secret not in said, (block, name)
    assert "Signature=" not in said
    assert "analyticsAccessToken=" not in said
    assert sandbox.get("statistics")["counts"].get("credentials_leaked", 0) == 0
