"""Jobs of several streams and providers: together, in their order, and one's failure not the others'."""

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conftest import TAP, Sandbox, run_tap, start_tap

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=3)

PROVIDERS = ("flex_insights", "intelepeer", "khoros_care", "gooee", "giosg")


def config(sandbox: Sandbox, *providers: str, **top) -> dict:
    """Three days of the providers' streams, as the sandbox has them."""
    top = {"start_date": START.isoformat(), "end_date": TODAY.isoformat(), **top}
    found = sandbox.config(*providers, **top)
    for provider in providers:
        for export in found[provider]["exports"]:
            export.pop("start_date", None)
    return found


def only(found: dict, provider: str, name: str, **export) -> dict:
    """One stream of a provider."""
    exports = [{**each, **export} for each in found[provider]["exports"] if each["name"] == name]
    return {**found, provider: {**found[provider], "exports": exports}}


def snapshot(sandbox: Sandbox, **top) -> dict:
    return only(config(sandbox, "gooee", **top), "gooee", "gooee_energy")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# Together


def test_no_provider_waits_for_another(sandbox):
    sandbox.post("settings", {"job_seconds": 60})
    with start_tap(config(sandbox, *PROVIDERS, ledger="")):
        wanted = {"flex_insights", "intelepeer", "khoros_care", "gooee"}
        running: set[str] = set()
        until = time.monotonic() + 60
        while not wanted <= running and time.monotonic() < until:
            running = {job["service"] for job in sandbox.get("jobs") if job["state"] == "running"}
            time.sleep(0.1)
        assert running == wanted
        while len([job for job in sandbox.get("jobs") if job["service"] == "giosg"]) < 6:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_jobs_run_at_once_over_all_streams_and_never_more_than_the_cap(sandbox):
    sandbox.post("settings", {"max_running": 9})
    found = config(sandbox, "intelepeer", "khoros_care")
    found["khoros_care"]["max_concurrent_exports"] = 3
    result = run_tap(found)
    assert result.exit_code == 0, result.stderr
    peaks = sandbox.get("statistics")["max_running"]
    assert peaks["intelepeer"] == 2
    assert peaks["khoros_care"] == 3


def test_jobs_are_triggered_in_the_order_in_which_their_rows_are_needed(sandbox):
    found = config(sandbox, "khoros_care")
    found["khoros_care"]["max_concurrent_exports"] = 1
    result = run_tap(found)
    streams = ["conversation", "incoming_post", "raw_brand_post"]
    triggered = [(job["export"].removeprefix("marketing/"), job["window"][0]) for job in sandbox.get("jobs")]
    days = [(START + timedelta(days=n)).isoformat() for n in range(3)]
    written = list(dict.fromkeys(run["stream"] for run in result.runs))
    names = {export["name"]: export["export_id"] for export in found["khoros_care"]["exports"]}
    assert sorted(names.values()) == sorted(streams)
    assert triggered == [(names[stream], day) for stream in written for day in days]


def test_the_next_windows_are_computed_and_fetched_while_nobody_reads_the_first(sandbox):
    with start_tap(config(sandbox, "khoros_care", ledger="")):  # whose output is not read
        until = time.monotonic() + 60
        while len(sandbox.get("served")) < 9:
            assert time.monotonic() < until
            time.sleep(0.1)


# Failures


def test_a_passing_failure_is_tried_again_as_a_new_job_and_both_are_told(sandbox):
    sandbox.post("settings", {"fail_jobs": [{"service": "khoros_care", "times": 1, "outcome": "timed_out"}]})
    found = only(config(sandbox, "khoros_care"), "khoros_care", "khoros_posts")
    result = run_tap(found)
    assert result.exit_code == 0, result.stderr
    assert sorted(run["status"] for run in result.runs) == ["failed", "loaded", "loaded", "loaded"]
    (failed,) = (run for run in result.runs if run["status"] == "failed")
    (again,) = (
        run
        for run in result.runs
        if run["status"] == "loaded" and run["window_start"] == failed["window_start"]
    )
    assert failed["export_id"] != again["export_id"]
    assert "TIMED_OUT" in failed["error"]
    assert result.bookmark("khoros_posts") == {
        "replication_key": "_sdc_window_end",
        "replication_key_value": TODAY.isoformat(),
        "jobs": [],
    }


def test_a_failure_that_passes_too_often_fails_the_export(sandbox):
    sandbox.post(
        "settings", {"fail_jobs": [{"service": "khoros_care", "times": None, "outcome": "timed_out"}]}
    )
    result = run_tap(only(config(sandbox, "khoros_care"), "khoros_care", "khoros_posts"))
    assert result.exit_code == 3
    assert {run["status"] for run in result.runs} == {"failed"}
    assert START.isoformat() in {run["window_start"] for run in result.runs}
    assert "replication_key_value" not in result.bookmark("khoros_posts")


def test_a_window_that_fails_stops_its_export_and_no_other(sandbox):
    day = str(int((START + timedelta(days=1)).timestamp() * 1000))
    rule = {"service": "khoros_care", "match": f'"startTime": \\["{day}"\\]', "times": 1, "outcome": "failed"}
    sandbox.post("settings", {"fail_jobs": [rule]})
    result = run_tap(config(sandbox, "khoros_care"))
    assert result.exit_code == 3
    (failed,) = (run for run in result.runs if run["status"] == "failed")
    ends = {
        name: result.bookmark(name)["replication_key_value"]
        for name in ("khoros_conversations", "khoros_posts", "khoros_campaigns")
    }
    assert ends.pop(failed["stream"]) == failed["window_start"] == (START + timedelta(days=1)).isoformat()
    assert set(ends.values()) == {TODAY.isoformat()}
    later = {record["_sdc_window_start"] for record in result.records(failed["stream"])}
    assert later == {START.isoformat()}


def test_what_was_fetched_behind_a_failed_window_is_used_by_the_next_run(sandbox, tmp_path):
    rule = {"service": "khoros_care", "match": str(int(START.timestamp() * 1000)), "times": 1}
    sandbox.post("settings", {"fail_jobs": [rule]})
    found = only(config(sandbox, "khoros_care", ledger=str(tmp_path)), "khoros_care", "khoros_posts")
    found["spool_dir"] = str(tmp_path)
    found["khoros_care"]["max_concurrent_exports"] = 3
    first = run_tap(found)
    assert first.exit_code == 3
    second = run_tap(found, state=first.state)
    assert second.exit_code == 0, second.stderr
    assert second.bookmark("khoros_posts")["replication_key_value"] == TODAY.isoformat()
    assert len(sandbox.get("jobs")) == 4


def test_a_job_that_takes_too_long_fails_and_is_no_empty_window(sandbox):
    sandbox.post("settings", {"job_seconds": 60})
    found = config(sandbox, "intelepeer", "gooee", export_timeout="PT1S")
    result = run_tap(found)
    assert result.exit_code == 3
    assert {run["status"] for run in result.runs} == {"failed"}
    assert all("export_timeout" in run["error"] for run in result.runs)
    bookmarks = [result.bookmark(stream) for stream in {run["stream"] for run in result.runs}]
    assert all("replication_key_value" not in bookmark for bookmark in bookmarks)
    known = {job["export_id"] for bookmark in bookmarks for job in bookmark["jobs"]}
    assert not known & {run["export_id"] for run in result.runs}


def test_a_place_in_the_vendors_queue_is_waited_for(sandbox):
    busy = {"status": 429, "body": {"code": 429, "message": "max concurrent queries per user (2) reached"}}
    sandbox.post(
        "faults", [{"service": "intelepeer", "method": "POST", "path": "/Q$", "times": 5, "action": busy}]
    )
    result = run_tap(only(config(sandbox, "intelepeer"), "intelepeer", "calls"))
    assert result.exit_code == 0, result.stderr
    assert [run["status"] for run in result.runs] == ["loaded"] * 3
    assert len(sandbox.get("jobs")) == 3


def test_a_job_that_waits_in_the_queue_when_the_process_dies_is_no_lost_one(sandbox, tmp_path):
    busy = {"status": 429, "body": {}}
    rule = {"service": "intelepeer", "method": "POST", "path": "/Q$", "times": None, "action": busy}
    sandbox.post("faults", [rule])
    found = only(config(sandbox, "intelepeer", ledger=str(tmp_path)), "intelepeer", "calls")

    def waits() -> bool:
        """Tell whether the jobs that may go are refused, and the ledger knows that none of them was taken."""
        refused = sum(request["status"] == 429 for request in sandbox.get("requests"))
        entries = [json.loads(path.read_bytes()) for path in tmp_path.glob("*/*.json")]
        return refused == 2 and not any(part["sent"] for entry in entries for part in entry["parts"])

    with start_tap(found | {"poll_interval": "PT1M"}) as process:
        while not waits():
            time.sleep(0.05)
        process.kill()
    sandbox.post("faults", [])
    result = run_tap(found)
    assert result.exit_code == 0, result.stderr
    assert [(run["status"], run["resumed"]) for run in result.runs] == [("loaded", False)] * 3


def test_retry_after_is_waited_for_before_a_trigger(sandbox):
    busy = {"status": 429, "body": {}, "headers": {"Retry-After": "3"}}
    rule = {"service": "intelepeer", "method": "POST", "path": "/Q$", "times": 1, "action": busy}
    sandbox.post("faults", [rule])
    found = only(config(sandbox, "intelepeer"), "intelepeer", "calls")
    found["start_date"] = (TODAY - timedelta(days=1)).isoformat()
    result = run_tap(found)
    assert result.exit_code == 0, result.stderr
    refused, sent = (r for r in sandbox.get("requests") if r["method"] == "POST" and r["path"].endswith("/Q"))
    assert sent["time"] >= refused["time"] + 3


# The spool


def test_a_small_spool_holds_jobs_back_and_the_run_still_ends(sandbox):
    found = config(sandbox, "khoros_care", spool_limit=1)
    found["khoros_care"]["max_concurrent_exports"] = 3
    sandbox.post("settings", {"fail_jobs": [{"service": "khoros_care", "times": 2, "outcome": "timed_out"}]})
    result = run_tap(found)
    assert result.exit_code == 0, result.stderr
    assert sorted(run["status"] for run in result.runs) == ["failed"] * 2 + ["loaded"] * 9


def test_a_small_spool_keeps_the_vendors_from_running_ahead_of_a_slow_reader(sandbox):
    found = config(
        sandbox, "khoros_care", spool_limit=1, ledger="", start_date=(TODAY - timedelta(days=20)).isoformat()
    )
    with start_tap(found):  # whose output is not read
        until = time.monotonic() + 30
        while not sandbox.get("served") and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(3)
        assert 0 < len(sandbox.get("jobs")) < 12


def test_without_a_ledger_no_file_is_left(sandbox, tmp_path):
    result = run_tap(config(sandbox, *PROVIDERS, spool_dir=str(tmp_path), ledger=""))
    assert result.exit_code == 0, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_a_ledger_entries_are_left_until_a_state_has_passed_them_and_no_file(sandbox, tmp_path):
    spool, ledger = tmp_path / "spool", tmp_path / "ledger"
    found = config(sandbox, "khoros_care", spool_dir=str(spool), ledger=str(ledger))
    first = run_tap(found)
    assert list(spool.iterdir()) == []
    assert len(list(ledger.glob("*/*.json"))) == 9
    jobs = len(sandbox.get("jobs", service="khoros_care"))
    again = run_tap(found)  # as if no state had been saved: fetched once more, from the same jobs
    assert [run["export_id"] for run in again.runs] == [run["export_id"] for run in first.runs]
    assert len(sandbox.get("jobs", service="khoros_care")) == jobs
    assert run_tap(found, state=first.state).exit_code == 0
    assert list(ledger.glob("*/*.json")) == []


def test_a_spool_folder_is_made_and_one_that_cannot_be_is_a_mistake_of_the_settings(sandbox, tmp_path):
    spool = tmp_path / "not" / "yet"
    found = config(sandbox, "khoros_care", spool_dir=str(spool), ledger="")
    assert run_tap(found).exit_code == 0
    assert list(spool.iterdir()) == []
    (tmp_path / "file").touch()
    sandbox.post("reset")
    result = run_tap({**found, "spool_dir": str(tmp_path / "file" / "spool")})
    assert result.exit_code == 1
    assert " spool_dir: " in result.stderr
    assert sandbox.get("requests") == []


def test_a_full_spool_disk_fails_in_plain_words_and_costs_no_job(sandbox, tmp_path):
    path, ledger = tmp_path / "config.json", tmp_path / "ledger"
    found = snapshot(sandbox, ledger=str(ledger), spool_dir=str(tmp_path))
    path.write_text(json.dumps(found))
    limit = 'ulimit -f 2; exec "$@"'  # no file larger than that, as if the disk were full
    command = ["/bin/sh", "-c", limit, "sh", str(TAP), "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "set spool_dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [left for left in tmp_path.rglob("*.part") if left.is_file()]
    result = run_tap(found)
    assert result.exit_code == 0, result.stderr
    assert [(run["status"], run["resumed"]) for run in result.runs] == [("loaded", True)]
    assert len(sandbox.get("jobs")) == 1


# The reader


def test_a_reader_that_goes_away_ends_the_run(sandbox):
    found = config(sandbox, "khoros_care", start_date=(TODAY - timedelta(days=9)).isoformat())
    with start_tap(found) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        try:
            assert process.wait(timeout=60) not in (0, 1, 3)
        finally:
            process.kill()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        process.stdout = open(os.devnull)  # noqa: PTH123, SIM115 - for the fixture to close


def test_an_output_that_takes_no_more_ends_the_run(sandbox, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(snapshot(sandbox, ledger="", spool_dir=str(tmp_path))))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [TAP, "--config", path], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode != 0
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert [left.name for left in tmp_path.rglob("*")] == ["config.json"]


def test_a_signal_in_the_middle_of_rows_leaves_whole_lines_and_a_true_state(sandbox):
    found = config(sandbox, "khoros_care", start_date=(TODAY - timedelta(days=9)).isoformat())
    with start_tap(found) as process:
        assert process.stdout is not None
        head = [process.stdout.readline() for _ in range(300)]
        process.send_signal(signal.SIGTERM)
        tail = process.stdout.read()
        assert process.wait(timeout=10) in (143, -15)
    lines = "".join(head) + tail
    assert lines.endswith("\n")
    done: dict[str, str] = {}
    for message in map(json.loads, lines.splitlines()):
        if message["type"] == "RECORD" and message["stream"] == "export_runs":
            done[message["record"]["stream"]] = message["record"]["window_end"]
        elif message["type"] == "STATE":
            for stream, bookmark in message["value"]["bookmarks"].items():
                assert bookmark.get("replication_key_value") == done.get(stream), stream
    assert done
