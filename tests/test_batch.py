"""BATCH messages: files that hold what RECORD messages would have said."""

import gzip
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TAP, run_tap

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=2)
COLUMNS = {
    "timestamp": "timestamp",
    "value": "decimal",
    "device_screen_height": "integer",
    "properties": "json",
    "never": "timestamp",
    "nothing": "json",
    "at": "date",
    "some": "number",
    "whether": "boolean",
    "exact": "decimal",
}
TYPES = {
    "timestamp": pa.timestamp("us", "UTC"),
    "value": pa.string(),
    "device_screen_height": pa.int64(),
    "properties": pa.string(),
    "never": pa.timestamp("us", "UTC"),
    "nothing": pa.string(),
    "at": pa.date32(),
    "some": pa.float64(),
    "whether": pa.bool_(),
    "exact": pa.string(),
    "event_id": pa.string(),
    "_sdc_row_number": pa.int64(),
    "_sdc_step_index": pa.int64(),
    "_sdc_export_id": pa.string(),
    "_sdc_window_start": pa.timestamp("us", "UTC"),
    "_sdc_window_end": pa.timestamp("us", "UTC"),
}
ENCODINGS = [
    {"format": "jsonl"},
    {"format": "jsonl", "compression": "none"},
    {"format": "jsonl", "compression": "gzip"},
    {"format": "parquet"},
    {"format": "parquet", "compression": "none"},
    {"format": "parquet", "compression": "gzip"},
]


def calls(sandbox, **top):
    config = sandbox.config("giosg", start_date=START.isoformat(), end_date=TODAY.isoformat(), ledger="")
    config["giosg"]["exports"] = [{**config["giosg"]["exports"][0], "name": "calls", "columns": COLUMNS}]
    return {**config, **top}


def batch(root, size=10_000, **encoding):
    return {"encoding": encoding, "storage": {"root": str(root), "prefix": "night-"}, "batch_size": size}


def rows_of(path, encoding):
    if encoding["format"] == "parquet":
        return pq.read_table(path).to_pylist()
    content = Path(path).read_bytes()
    if encoding.get("compression") == "gzip":
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.splitlines()]


def plain(record):
    """A record as JSON has it, whichever way it came; documents as their values."""
    record = {k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in record.items()}
    for name in ("properties", "nothing"):
        if isinstance(record.get(name), str):
            record[name] = json.loads(record[name])
    return {k: v for k, v in record.items() if k not in ("_sdc_export_id", "_sdc_table_version")}


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: "-".join(each.values()))
def test_files_hold_what_records_would_say(sandbox, tmp_path, encoding):
    records = run_tap(calls(sandbox)).records("calls")
    config = calls(sandbox, batch_config=batch(tmp_path.as_uri(), 30, **encoding))
    result = run_tap(config)
    assert result.exit_code == 0, result.stderr
    assert result.records("calls") == []
    messages = result.of("BATCH", "calls")
    assert all(message["encoding"] == encoding for message in messages)
    paths = [Path(url.removeprefix("file://")) for message in messages for url in message["manifest"]]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert all(path.name.startswith("night-calls-") for path in paths)
    files = [rows_of(path, encoding) for path in paths]
    found = [row for rows in files for row in rows]
    assert list(map(plain, found)) == list(map(plain, records))
    # Full files, but for the last one of each window.
    assert {len(rows) for rows in files[:-1] if rows[-1]["_sdc_row_number"] % 30 == 0} == {30}
    assert len({rows[0]["_sdc_window_start"] for rows in files}) == 2
    assert all(len({row["_sdc_window_start"] for row in rows}) == 1 for rows in files)
    assert sum(run["rows"] for run in result.runs) == len(found)


def test_types_of_parquet_are_those_of_the_schema_in_every_file(sandbox, tmp_path):
    result = run_tap(calls(sandbox, batch_config=batch(tmp_path.as_uri(), 25, format="parquet")))
    assert result.exit_code == 0, result.stderr
    schemas = [pq.read_schema(path).remove_metadata() for path in tmp_path.iterdir()]
    assert len(schemas) > 4
    assert all(schema == schemas[0] for schema in schemas)
    found = dict(zip(schemas[0].names, schemas[0].types, strict=True))
    assert {name: found[name] for name in TYPES} == TYPES
    assert set(found) == set(result.schema("calls"))
    assert result.schema("calls")["properties"]["type"] == ["string", "null"]


def test_a_state_comes_after_the_batches_of_its_windows(sandbox, tmp_path):
    result = run_tap(calls(sandbox, batch_config=batch(tmp_path.as_uri(), 30, format="jsonl")))
    written: set[str] = set()
    for message in result.messages:
        if message["type"] == "BATCH":
            (url,) = message["manifest"]
            written |= {row["_sdc_window_end"] for row in rows_of(url[len("file://") :], {"format": "jsonl"})}
        elif message["type"] == "STATE":
            bookmark = message["value"]["bookmarks"]["calls"].get("replication_key_value")
            assert bookmark == max(written, default=None)
    assert bookmark == TODAY.isoformat()


def test_deselected_columns_stay_out(sandbox, tmp_path):
    config = calls(sandbox, batch_config=batch(tmp_path.as_uri(), format="parquet"))
    catalog = json.loads(run_tap(config, "--discover").stdout)
    for stream in catalog["streams"]:
        for entry in stream["metadata"]:
            if entry["breadcrumb"] in (["properties", "timestamp"], ["properties", "_sdc_step_index"]):
                entry["metadata"]["selected"] = False
    result = run_tap(config, catalog=catalog)
    assert result.exit_code == 0, result.stderr
    (path, *_) = tmp_path.iterdir()
    names = set(pq.read_schema(path).names)
    assert not names & {"timestamp", "_sdc_step_index"}
    assert names == set(result.schema("calls"))


def test_what_the_settings_do_not_type_has_the_catalogs_type(sandbox, tmp_path):
    catalog = json.loads(run_tap(calls(sandbox), "--discover").stdout)
    config = calls(sandbox, batch_config=batch(tmp_path.as_uri(), format="parquet"))
    export = config["giosg"]["exports"][0]
    # A column without values can be of any type, and a decimal is text.
    export["columns"] = {k: v for k, v in COLUMNS.items() if k not in ("never", "some", "value")}
    result = run_tap(config, catalog=catalog)
    assert result.exit_code == 0, result.stderr
    schemas = [pq.read_schema(path) for path in tmp_path.iterdir()]
    assert schemas
    for schema in schemas:
        found = dict(zip(schema.names, schema.types, strict=True))
        assert {name: found[name] for name in TYPES} == TYPES
    for path in tmp_path.iterdir():
        path.unlink()
    del export["columns"]["device_screen_height"]
    result = run_tap({**config, "ledger": ""}, catalog=catalog)
    assert result.exit_code == 0, result.stderr
    (kind, *others) = {pq.read_schema(path).field("device_screen_height").type for path in tmp_path.iterdir()}
    assert (str(kind), others) == ("int64", [])


def test_a_snapshot_brings_its_version_along(sandbox, tmp_path):
    config = sandbox.config("gooee", batch_config=batch(tmp_path, format="jsonl"))
    config["gooee"]["exports"] = config["gooee"]["exports"][:1]
    result = run_tap(config)
    assert result.exit_code == 0, result.stderr
    (message,) = result.of("BATCH")
    (activated,) = result.of("ACTIVATE_VERSION")
    rows = rows_of(message["manifest"][0][len("file://") :], {"format": "jsonl"})
    assert {row["_sdc_table_version"] for row in rows} == {activated["version"]} == {message["version"]}
    assert "_sdc_table_version" in result.schema(message["stream"])
    assert result.messages.index(message) < result.messages.index(activated)


def test_a_stream_that_stream_maps_remove_has_no_batches(sandbox, tmp_path):
    settings = batch(tmp_path.as_uri(), format="jsonl")
    result = run_tap(calls(sandbox, batch_config=settings, stream_maps={"calls": None}))
    assert result.exit_code == 0, result.stderr
    assert result.of("BATCH") == list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "maps",
    [
        {"stream_maps": {"calls": {"twice": "event_id + event_id"}}},
        {"stream_maps": {"calls": {"__alias__": "renamed"}}},
        {"flattening_enabled": True, "flattening_max_depth": 1},
    ],
)
def test_stream_maps_that_change_records_are_refused_before_any_request(sandbox, tmp_path, maps):
    result = run_tap(calls(sandbox, batch_config=batch(tmp_path.as_uri(), format="jsonl"), **maps))
    assert result.exit_code == 1
    assert "batch_config: " in result.stderr
    assert "Traceback" not in result.stderr
    assert result.messages == sandbox.get("requests") == []


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"encoding": {"format": "csv"}, "storage": {"root": "/tmp"}}, "batch_config.encoding.format: "),
        ({"encoding": {"format": "jsonl"}, "storage": {}}, "batch_config.storage.root: "),
        ({"encoding": {"format": "jsonl"}, "storage": {"root": "ftp://x/y"}}, "batch_config.storage.root: "),
        (
            {"encoding": {"format": "jsonl"}, "storage": {"root": "/dev/null/x"}},
            "batch_config.storage.root: ",
        ),
        (
            {"encoding": {"format": "jsonl"}, "storage": {"root": "/tmp"}, "batch_size": 0},
            "batch_config.batch_size: ",
        ),
    ],
)
def test_wrong_settings_are_named(sandbox, settings, path):
    result = run_tap(calls(sandbox, batch_config=settings))
    assert result.exit_code == 1
    assert path in result.stderr
    assert sandbox.get("requests") == []


def test_a_window_that_fails_leaves_no_part_of_a_file(sandbox, tmp_path):
    config = calls(sandbox, batch_config=batch(tmp_path.as_uri(), format="parquet"), on_bad_row="fail")
    config["giosg"]["exports"][0]["columns"] = {"geo_city": "integer"}
    result = run_tap(config)
    assert result.exit_code == 3
    assert result.of("BATCH") == list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_no_part_of_a_file(sandbox, tmp_path):
    folder = tmp_path / "batches"
    config = calls(sandbox, batch_config=batch(folder.as_uri(), format="jsonl"), spool_dir=str(tmp_path))
    result = run_tap(config)
    written, downloaded = max(each.stat().st_size for each in folder.iterdir()), result.runs[0]["bytes"]
    assert written > downloaded + 1024
    for path in folder.iterdir():
        path.unlink()
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    limit = f'ulimit -f {-(-downloaded // 512)}; exec "$@"'  # no larger file, as if the disk were full
    command = ["/bin/sh", "-c", limit, "sh", str(TAP), "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == os.EX_IOERR
    assert f"{folder}/night-calls-" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []
    assert '"BATCH"' not in done.stdout
