"""PyAirbyte as the client of the source, which runs as a process from the tap's own environment."""

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import airbyte
import pytest
from airbyte.caches import DuckDBCache
from airbyte.exceptions import AirbyteConnectorCheckFailedError, AirbyteConnectorFailedError
from airbyte_protocol.models import AirbyteMessage
from pydantic import BaseModel
from served import EXPORTS, SNAPSHOTS, assert_served, property_name

SOURCE = Path(__file__).resolve().parents[3] / ".venv/bin/source-analytics-exports"


def source(config, executable=SOURCE):
    return airbyte.get_source(SOURCE.name, config=config, local_executable=executable, streams="*")


@pytest.fixture
def config(sandbox, tmp_path):
    """The sandbox's, with all columns declared that are not known before, as a table has no others."""
    config = sandbox.config(ledger=str(tmp_path / "ledger"))
    known = {each.name: each.json_schema["properties"] for each in source(config).discovered_catalog.streams}
    for name, (provider, export) in EXPORTS.items():
        if provider != "intelepeer":  # whose fields are known, and not all of them are asked for
            (settings,) = [each for each in config[provider]["exports"] if each["name"] == name]
            rows = sandbox.get("expected", provider=provider, export=export)
            new = [title for title in map(property_name, rows[0]) if title not in known[name]]
            settings["columns"] = dict.fromkeys(new, "string") | settings.get("columns", {})
    return config


def cache(tmp_path):
    return DuckDBCache(db_path=tmp_path / "cache.duckdb", schema_name="exports")


def table(result, stream):
    return [dict(row) for row in result[stream]]


def runs(result):
    """The windows that were loaded, of each the last export, by stream and start."""
    found = [run for run in table(result, "export_runs") if run["status"] != "failed"]
    return {
        (run["stream"], run["window_start"]): run for run in sorted(found, key=lambda r: r["submitted_at"])
    }


def assert_all_served(sandbox, result):
    """Compare each table with what the sandbox says is in the windows that were loaded last."""
    last = runs(result)
    for stream in EXPORTS:
        ours = [run for (name, _), run in last.items() if name == stream]
        windows = [
            tuple(
                run[key] and f"{run[key].isoformat()}Z"
                for key in ("window_start", "window_end", "submitted_at")
            )
            for run in ours
        ]
        exports = {run["export_id"] for run in ours}
        rows = [row for row in table(result, stream) if row["_sdc_export_id"] in exports]
        assert_served(sandbox, stream, windows, rows)
        assert len(table(result, stream)) == len(rows) or stream in SNAPSHOTS, (
            "what was replaced is still there"
        )


def test_credentials_are_checked(config):
    source(config).check()
    config["giosg"]["api_token"] = "not-the-right-one"
    with pytest.raises(AirbyteConnectorCheckFailedError) as failed:
        source(config).check()
    assert "giosg: " in failed.value.context["failure_reason"]
    assert "not-the-right-one" not in str(failed.value)


def test_every_row_arrives_and_a_second_run_loads_only_what_is_new(sandbox, config, tmp_path):
    store = cache(tmp_path)
    result = source(config).read(cache=store)
    assert_all_served(sandbox, result)
    first, triggered = len(table(result, "export_runs")), len(sandbox.get("jobs"))
    result = source(config).read(cache=store)
    assert_all_served(sandbox, result)
    # Snapshots are taken anew; of the rest, the window that the clock had cut goes on.
    assert len(table(result, "export_runs")) - first == len(EXPORTS)
    assert len(sandbox.get("jobs")) - triggered == len(EXPORTS)


def test_a_run_that_was_killed_is_gone_on_with(sandbox, config, tmp_path):
    sandbox.post("settings", {"job_seconds": 3})
    store = cache(tmp_path)
    pids, mortal = tmp_path / "pids", tmp_path / "source"
    mortal.write_text(f'#!/bin/sh\necho $$ >> {pids}\nexec {SOURCE} "$@"\n')
    mortal.chmod(0o755)

    def kill():
        while len(sandbox.get("jobs")) < 6:
            time.sleep(0.05)
        os.kill(int(pids.read_text().split()[-1]), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(AirbyteConnectorFailedError):
        source(config, mortal).read(cache=store)
    killer.join()
    sandbox.post("settings", {"job_seconds": 0.3})
    result = source(config).read(cache=store)
    assert_all_served(sandbox, result)
    ended = table(result, "export_runs")
    assert any(run["resumed"] for run in ended)
    # A job whose trigger nobody heard of is the only one that may be needed twice; giosg's end with a run.
    jobs = Counter(
        (job["export"], str(job["window"])) for job in sandbox.get("jobs") if job["service"] != "giosg"
    )
    lost = [run for run in ended if "is not known" in (run["error"] or "")]
    assert sum(jobs.values()) - len(jobs) <= len(lost)


def unknown(model):
    """The fields of a message that the protocol does not know."""
    found = list(model.model_extra or {})
    for value in vars(model).values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, BaseModel) and type(each).__name__ != "AirbyteStateBlob":
                found += unknown(each)
    return found


def test_the_protocol_knows_every_field_of_every_message(config, tmp_path):
    def run(verb, **files):
        arguments = [SOURCE, verb]
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content))
            arguments += [f"--{name}", tmp_path / name]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
        return [AirbyteMessage.model_validate_json(line) for line in done.stdout.splitlines()]

    messages = [*run("spec"), *run("check", config=config), *run("discover", config=config)]
    streams = messages[-1].catalog.model_dump(mode="json", exclude_none=True)["streams"]
    catalog = {"streams": [{"stream": stream, "sync_mode": "incremental"} for stream in streams]}
    read = run("read", config=config, catalog=catalog)
    messages += read
    kinds = {"SPEC", "CONNECTION_STATUS", "CATALOG", "RECORD", "STATE", "TRACE", "LOG"}
    assert {message.type.value for message in messages} == kinds
    assert Counter(field for message in messages for field in unknown(message)) == {}
