"""What Airbyte is told of a run: which messages, in which order, with which states."""

import json
import signal
import subprocess
import threading
import tomllib
from contextlib import suppress

import pytest
import vendor
import yaml
from conftest import TAP
from programs import ROOT
from vendor import DAY, START, Fake

from tap_analytics_exports import airbyte
from tap_analytics_exports import extraction as core
from tap_analytics_exports.airbyte import Catalog, Messages
from tap_analytics_exports.errors import CredentialsRefused, ExportsFailed, SettingsError
from tap_analytics_exports.extraction import Extraction

SOURCE = TAP.with_name("source-analytics-exports")


@pytest.fixture(autouse=True)
def _fake(request, monkeypatch):
    if "sandbox" not in request.fixturenames:
        monkeypatch.setattr(core, "installed", lambda: {"fake": Fake})
        vendor.PROCESS.start()


def settings(address, days=3, *exports, **top):
    return {
        "start_date": START.isoformat(),
        "end_date": (START + days * DAY).isoformat(),
        "poll_interval": "PT0.001S",
        "poll_interval_max": "PT0.001S",
        "ledger": "",
        "fake": {"base_url": address, "exports": [{"name": "rows"}, *exports]},
        **top,
    }


def told(lines):
    """The one message that there is."""
    (message,) = map(json.loads, lines.splitlines())
    return message


def discovered(config):
    """The catalog's streams by name."""
    return {stream["name"]: stream for stream in told(airbyte.discover(config))["catalog"]["streams"]}


def configured(config, mode="incremental"):
    streams = discovered(config).values()
    return {"streams": [{"stream": stream, "sync_mode": mode} for stream in streams]}


def read(config, catalog=None, state=()):
    """All messages of a run in this process, and the error that it ends with."""
    catalog = Catalog.of(catalog or configured(config))
    messages = []
    with Extraction(config, catalog.state(list(state))) as extraction:
        error = None
        try:
            for lines in Messages(extraction, catalog).lines():
                messages += map(json.loads, bytes(lines).splitlines())
        except ExportsFailed as failed:
            error = failed
    return messages, error


def records(messages, stream="rows"):
    return [
        m["record"]["data"] for m in messages if m["type"] == "RECORD" and m["record"]["stream"] == stream
    ]


def states(messages, stream="rows"):
    found = [m["state"] for m in messages if m["type"] == "STATE"]
    return [each for each in found if each["stream"]["stream_descriptor"] == {"name": stream}]


def last_states(messages):
    """What Airbyte hands over next time."""
    last = {s["stream"]["stream_descriptor"]["name"]: s for m in messages if (s := m.get("state"))}
    return list(last.values())


def statuses(messages, stream="rows"):
    found = [m["trace"].get("stream_status") for m in messages if m["type"] == "TRACE"]
    return [each["status"] for each in found if each and each["stream_descriptor"] == {"name": stream}]


def errors(messages):
    return [m["trace"]["error"] for m in messages if m["type"] == "TRACE" and "error" in m["trace"]]


def expected(first=0, last=3):
    return [(START + i * DAY / 4).isoformat() for i in range(first * 4, last * 4)]


# What there is


def test_the_specification_has_the_settings_and_marks_secrets(monkeypatch):
    monkeypatch.undo()
    properties = told(airbyte.spec())["spec"]["connectionSpecification"]["properties"]
    secrets = {
        f"{name}.{key}"
        for name, block in properties.items()
        for key, setting in block.get("properties", {}).items()
        if setting.get("airbyte_secret")
    }
    assert {"flex_insights.password", "khoros_care.company_key", "giosg.api_token"} <= secrets
    assert not {"giosg.base_url", "flex_insights.username"} & secrets
    assert "batch_config" not in properties


def test_streams_have_the_modes_and_keys_that_they_can_have():
    address, _ = vendor.world()
    snapshots = [
        {"name": "all", "snapshot": True},
        {"name": "keyed", "snapshot": True, "primary_keys": ["at"]},
    ]
    columns = {"at": "timestamp", "n": "decimal"}
    config = settings(address, 3, *snapshots, {"name": "typed", "columns": columns})
    streams = discovered(config)
    both = ["full_refresh", "incremental"]
    assert {name: stream["supported_sync_modes"] for name, stream in streams.items()} == {
        "all": ["full_refresh"],
        "keyed": ["full_refresh"],
        "rows": both,
        "typed": both,
        "export_runs": both,
        "rejected_rows": both,
    }
    assert {name: stream.get("source_defined_primary_key") for name, stream in streams.items()} == {
        "all": None,
        "keyed": [["at"]],
        "rows": [["_sdc_window_start"], ["_sdc_row_number"]],
        "typed": [["_sdc_window_start"], ["_sdc_row_number"]],
        "export_runs": [["export_id"]],
        "rejected_rows": [["export_id"], ["row_number"]],
    }
    cursors = {name: stream.get("default_cursor_field") for name, stream in streams.items()}
    assert cursors["rows"] == ["_sdc_window_end"]
    assert (cursors["export_runs"], cursors["rejected_rows"]) == (["finished_at"], ["rejected_at"])
    properties = streams["typed"]["json_schema"]["properties"]
    assert properties["at"]["airbyte_type"] == "timestamp_with_timezone"
    assert properties["n"] == {"type": ["string", "null"], "format": "singer.decimal"}


def test_a_check_tells_what_is_wrong():
    address, _ = vendor.world()
    assert told(airbyte.check(settings(address)))["connectionStatus"] == {"status": "SUCCEEDED"}
    status = told(airbyte.check(settings(address, windw="P1D")))["connectionStatus"]
    assert status["status"] == "FAILED"
    assert "windw" in status["message"]


# A run


def test_a_run_tells_rows_then_states_and_is_complete_after_the_last_one():
    address, _ = vendor.world()
    messages, error = read(settings(address))
    assert error is None
    assert [row["at"] for row in records(messages)] == expected()
    assert statuses(messages) == ["STARTED", "RUNNING", "COMPLETE"]
    assert statuses(messages, "export_runs") == ["STARTED", "RUNNING", "COMPLETE"]
    assert statuses(messages, "rejected_rows") == ["STARTED", "COMPLETE"]
    last = states(messages)[-1]
    assert last["type"] == "STREAM"
    assert last["stream"]["stream_state"]["replication_key_value"] == (START + 3 * DAY).isoformat()
    kinds = [m["type"] for m in messages]
    ends = [i for i, m in enumerate(messages) if statuses([m]) == ["COMPLETE"]]
    assert ends[0] > len(kinds) - 1 - kinds[::-1].index("STATE")


def test_each_state_counts_the_records_since_the_one_before():
    address, _ = vendor.world(contents={"2026-01-02": b"at\nx,y\nz\n"})
    messages, _ = read(settings(address))
    for stream in ("rows", "export_runs", "rejected_rows"):
        count, counts = 0, []
        for message in messages:
            count += len(records([message], stream))
            if states([message], stream):
                counts.append(count)
                count = 0
        assert [each["sourceStats"]["recordCount"] for each in states(messages, stream)] == counts
        assert (count, sum(counts)) == (0, len(records(messages, stream)))
    assert len(records(messages, "rejected_rows")) == 1


def test_every_state_is_true_of_the_records_before_it():
    address, _ = vendor.world()
    messages, _ = read(settings(address))
    for i, message in enumerate(messages):
        for state in states([message]):
            bookmark = state["stream"]["stream_state"].get("replication_key_value", START.isoformat())
            rows = {row["at"] for row in records(messages[:i])}
            assert {at for at in expected() if at < bookmark} <= rows


def test_a_second_run_reads_what_is_new_and_a_full_refresh_all():
    address, world = vendor.world()
    messages, _ = read(settings(address))
    saved = last_states(messages)
    again, _ = read(settings(address, 4), state=saved)
    assert [row["at"] for row in records(again)] == expected(3, 4)
    full, _ = read(settings(address, 4), configured(settings(address), "full_refresh"), saved)
    assert [row["at"] for row in records(full)] == expected(0, 4)
    assert len(world.jobs) == 3 + 1 + 4


def test_nothing_new_is_a_state_and_a_completion_all_the_same():
    address, _ = vendor.world()
    messages, _ = read(settings(address))
    again, _ = read(settings(address), state=last_states(messages))
    assert records(again) == []
    assert last_states(again) == [{**s, "sourceStats": {"recordCount": 0.0}} for s in last_states(messages)]
    assert statuses(again) == ["STARTED", "COMPLETE"]


@pytest.mark.parametrize("mode", ["incremental", "full_refresh"])
def test_jobs_of_a_state_are_gone_on_with(mode):
    address, world = vendor.world(script={"2026-01-02": ["slow slow ok"]})
    config = settings(address)
    catalog = configured(config, mode)
    with Extraction(config) as extraction:
        for lines in Messages(extraction, Catalog.of(catalog)).lines():
            (message, *_) = map(json.loads, bytes(lines).splitlines())
            jobs = states([message])[-1]["stream"]["stream_state"]["jobs"] if states([message]) else []
            if len(jobs) == len(world.jobs) == 3:
                break
        else:
            raise AssertionError("no state has all jobs")
    messages, _ = read(config, catalog, [message["state"]])
    assert [row["at"] for row in records(messages)] == expected()
    assert len(world.jobs) == 3


def test_the_state_of_old_is_taken_too():
    address, _ = vendor.world()
    bookmark = {"replication_key": "_sdc_window_end", "replication_key_value": (START + DAY).isoformat()}
    old = {"bookmarks": {"rows": bookmark}}
    config = settings(address)
    catalog = Catalog.of(configured(config))
    assert catalog.state(old) == catalog.state([{"type": "LEGACY", "data": old}]) == old
    assert catalog.state({}) == catalog.state([]) == {"bookmarks": {}}
    with pytest.raises(SettingsError, match="state: is neither"):
        catalog.state([{"type": "GLOBAL", "global": {}}])


def test_a_column_that_the_catalog_lacks_stays_in_the_record(caplog):
    address, _ = vendor.world(contents={"2026-01-01": b"at,more\n1,2\n"})
    config = settings(address, 1)
    config["fake"]["exports"][0]["columns"] = {"at": "integer"}
    messages, _ = read(config)
    assert [(row["at"], row["more"]) for row in records(messages)] == [(1, "2")]
    assert "new columns" in caplog.text


def test_a_stream_that_is_not_chosen_is_not_run():
    address, world = vendor.world()
    config = settings(address, 3, {"name": "others"})
    catalog = configured(config)
    catalog["streams"] = [each for each in catalog["streams"] if each["stream"]["name"] == "others"]
    messages, _ = read(config, catalog)
    assert {m["record"]["stream"] for m in messages if m["type"] == "RECORD"} == {"others"}
    assert {request.export.name for request in world.jobs.values()} == {"others"}


# What fails


def test_a_failed_export_is_incomplete_with_an_error_of_its_own():
    address, _ = vendor.world(script={"2026-01-02": ["failed"]})
    config = settings(address)
    config["fake"]["exports"] = [{"name": "rows"}, {"name": "snap", "snapshot": True}]
    messages, error = read(config)
    assert isinstance(error, ExportsFailed)
    assert statuses(messages)[-1] == "INCOMPLETE"
    assert statuses(messages, "snap")[-1] == statuses(messages, "export_runs")[-1] == "COMPLETE"
    (told_,) = errors(messages)
    assert told_["stream_descriptor"] == {"name": "rows"}
    assert told_["failure_type"] == "system_error"
    assert "it failed" in told_["message"]
    last = states(messages)[-1]["stream"]["stream_state"]
    assert last["replication_key_value"] == (START + DAY).isoformat()


def test_credentials_that_are_refused_are_a_matter_of_the_configuration():
    address, _ = vendor.world(script={"2026-01-01": ["refused"]})
    messages, error = read(settings(address, 1))
    assert isinstance(error, CredentialsRefused)
    (told_,) = errors(messages)
    assert (told_["failure_type"], told_["stream_descriptor"]) == ("config_error", {"name": "rows"})
    assert "the token is wrong" in told_["message"]
    assert statuses(messages) == ["STARTED", "INCOMPLETE"]


def test_a_stream_of_which_the_settings_know_nothing_fails_alone():
    address, _ = vendor.world()
    config = settings(address)
    catalog = configured(config)
    gone = {**catalog["streams"][0]["stream"], "name": "gone"}
    catalog["streams"].append({"stream": gone, "sync_mode": "incremental"})
    messages, error = read(config, catalog)
    assert isinstance(error, ExportsFailed)
    assert [each["stream_descriptor"] for each in errors(messages)] == [{"name": "gone"}]
    assert (statuses(messages)[-1], statuses(messages, "gone")) == ("COMPLETE", ["INCOMPLETE"])


@pytest.mark.parametrize("odd", [{}, [], {"streams": [{}]}, {"streams": 5}, {"streams": [{"stream": 5}]}])
def test_what_is_no_catalog_is_called_so(odd):
    with pytest.raises(SettingsError, match="catalog: is no configured catalog"):
        Catalog.of(odd)


# By the front door


def command(tmp_path, verb, **files):
    arguments = [SOURCE, verb]
    for name, content in files.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        arguments += [f"--{name}", path]
    return arguments


def source(tmp_path, verb, **files):
    """Run the source to its end: exit code, messages, and all that it said."""
    run = subprocess.run(
        command(tmp_path, verb, **files), capture_output=True, text=True, check=False, timeout=60
    )
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()], run.stdout + run.stderr


def test_the_command_writes_nothing_but_messages(sandbox, tmp_path):
    config = sandbox.config("giosg", ledger="")
    _, messages, _ = source(tmp_path, "discover", config=config)
    (found,) = [m["catalog"] for m in messages if m["type"] == "CATALOG"]
    catalog = {"streams": [{"stream": stream, "sync_mode": "incremental"} for stream in found["streams"]]}
    code, messages, said = source(tmp_path, "read", config=config, catalog=catalog)
    assert code == 0, said
    assert {m["type"] for m in messages} == {"LOG", "RECORD", "STATE", "TRACE"}
    assert all(statuses(messages, stream["name"])[-1] == "COMPLETE" for stream in found["streams"])


def test_what_the_settings_have_wrong_is_told_as_such(sandbox, tmp_path):
    config = sandbox.config("giosg", ledger="")
    config["giosg"]["api_token"] = "not-the-right-one"
    name = config["giosg"]["exports"][0]["name"]
    catalog = {"streams": [{"stream": {"name": name, "json_schema": {}}, "sync_mode": "incremental"}]}
    code, messages, said = source(tmp_path, "read", config=config, catalog=catalog)
    assert (code, {each["failure_type"] for each in errors(messages)}) == (1, {"config_error"})
    assert "not-the-right-one" not in said
    code, messages, said = source(tmp_path, "check", config=config)
    assert (code, messages[-1]["connectionStatus"]["status"]) == (0, "FAILED")
    assert "giosg: " in messages[-1]["connectionStatus"]["message"]
    assert "not-the-right-one" not in said
    code, messages, _ = source(tmp_path, "discover", config={"giosg": {"exports": 5}})
    assert (code, errors(messages)[0]["failure_type"]) == (1, "config_error")
    assert "giosg.exports" in errors(messages)[0]["message"]


def test_a_run_that_is_stopped_ends_with_whole_lines_and_the_code_that_says_so(sandbox, tmp_path):
    sandbox.post("settings", {"giosg_seconds": 30})
    config = sandbox.config("giosg", ledger="")
    export = config["giosg"]["exports"][0]["name"]
    catalog = {"streams": [{"stream": {"name": export, "json_schema": {}}, "sync_mode": "incremental"}]}
    started = command(tmp_path, "read", config=config, catalog=catalog)
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(60, process.kill)
        killer.start()
        try:
            first = process.stdout.readline()
            while '"STATE"' not in first:
                first = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
        finally:
            killer.cancel()
            with suppress(OSError):
                process.kill()
    assert process.returncode == 143
    assert rest == "" or rest.endswith("\n")
    assert all(json.loads(line) for line in rest.splitlines())


def test_image_and_metadata_are_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    metadata = yaml.safe_load((ROOT / "airbyte/metadata.yaml").read_text())["data"]
    label = f"io.airbyte.name={metadata['dockerRepository']} io.airbyte.version={version}\n"
    assert metadata["dockerImageTag"] == version
    assert (ROOT / "airbyte/Dockerfile").read_text().endswith(label)
