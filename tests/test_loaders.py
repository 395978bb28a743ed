"""What the loaders of meltano.yml make of the messages that the tap sends."""

import json
import subprocess
from datetime import datetime

import duckdb
import pytest
from programs import TARGET_DUCKDB, TARGET_JSONL, program

TEXT = {"type": ["null", "string"]}
MOMENT = {"type": ["null", "string"], "format": "date-time"}


def schema(key="_sdc_row_number", stream="rows", **properties):
    properties |= {"_sdc_export_id": {"type": "string"}, "_sdc_row_number": {"type": "integer"}}
    body = {"type": "object", "properties": properties}
    return {"type": "SCHEMA", "stream": stream, "schema": body, "key_properties": [key]}


def records(export, *rows, version=None, stream="rows"):
    return [
        {
            "type": "RECORD",
            "stream": stream,
            "record": {**row, "_sdc_export_id": export, "_sdc_row_number": i},
        }
        | ({"version": version} if version else {})
        for i, row in enumerate(rows, 1)
    ]


def snapshot(export, version, *rows):
    return [
        schema(a=TEXT),
        *records(export, *rows, version=version),
        {"type": "ACTIVATE_VERSION", "stream": "rows", "version": version},
        {"type": "STATE", "value": {"bookmarks": {"rows": {"last_export_id": export, "jobs": []}}}},
    ]


def pipe(command, messages):
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    run = subprocess.run(command, input=lines, capture_output=True, check=False, encoding="utf-8", timeout=60)
    assert run.returncode == 0, run.stderr


@pytest.fixture
def load(tmp_path):
    """Load messages into a DuckDB file, and give the rows of the table by their number."""
    config = tmp_path / "target.json"
    config.write_text(json.dumps({"path": str(tmp_path / "t.duckdb"), "default_target_schema": "main"}))

    def run(messages):
        pipe([program(TARGET_DUCKDB), "--config", config], messages)
        with duckdb.connect(tmp_path / "t.duckdb", read_only=True) as database:
            rows = database.table("rows")
            return [
                dict(zip(rows.columns, row, strict=True)) for row in rows.order("_sdc_row_number").fetchall()
            ]

    return run


@pytest.mark.parametrize(
    "values",
    [
        # Each first row looks like a header to DuckDB's sniffer.
        ["agent", "Zoë", "José"],
        ["2026-01-03T00:00:00+00:00", "2026-07-03T00:00:00.5+00:00"],
        ["a;b", "c"],
        ["'", "|"],
        ["first\nsecond", 'say "hi"\r\n', "\\N", " x "],
    ],
)
def test_duckdb_gets_every_row(load, values):
    rows = load([schema(a=TEXT), *records("one", *({"a": value} for value in values))])
    assert [row["a"] for row in rows] == values


def test_duckdb_gets_the_first_row_of_typed_columns(load):
    moments = ["2026-01-03T00:00:00+00:00", "2026-07-03T00:00:00.5+00:00"]
    rows = load([schema(at=MOMENT), *records("one", *({"at": moment} for moment in moments))])
    assert [row["at"] for row in rows] == [datetime(2026, 1, 3), datetime(2026, 7, 3, microsecond=500000)]


def test_duckdb_gets_a_column_that_comes_later(load):
    later = records("one", {"a": "x"}, {"a": "y", "b": "z"})
    rows = load([schema(a=TEXT), later[0], schema(a=TEXT, b=TEXT), later[1]])
    assert [(row["a"], row["b"]) for row in rows] == [("x", None), ("y", "z")]


def test_duckdb_replaces_a_snapshot_once_it_is_complete(load):
    load(snapshot("one", 1, {"a": "1"}, {"a": "2"}, {"a": "3"}))
    incomplete = snapshot("two", 2, {"a": "4"})[:2]
    assert [row["a"] for row in load(incomplete)] == ["4", "2", "3"]
    assert [row["a"] for row in load(snapshot("three", 3, {"a": "5"}))] == ["5"]
    assert load(snapshot("four", 4)) == []


def test_duckdb_has_loaded_what_a_state_is_true_of(tmp_path):
    config = tmp_path / "target.json"
    options = {"path": str(tmp_path / "t.duckdb"), "default_target_schema": "main", "batch_size_rows": 2}
    config.write_text(json.dumps(options))
    state = {"bookmarks": {"rows": {"replication_key_value": "2026-01-03"}}}
    messages = [
        *(schema(a=TEXT), *records("one", {"a": "x"}), {"type": "STATE", "value": state}),
        *(schema(stream="others", a=TEXT), *records("two", {"a": "y"}, {"a": "z"}, stream="others")),
    ]
    command = [program(TARGET_DUCKDB), "--config", config]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as target:
        target.stdin.write("".join(json.dumps(message) + "\n" for message in messages))
        target.stdin.flush()
        assert json.loads(target.stdout.readline()) == state
        target.kill()
    with duckdb.connect(tmp_path / "t.duckdb", read_only=True) as database:
        assert database.sql("SELECT a FROM rows").fetchall() == [("x",)]


def test_jsonl_appends(tmp_path):
    config = tmp_path / "target.json"
    config.write_text(json.dumps({"destination_path": str(tmp_path), "do_timestamp_file": False}))
    for export in ("one", "two"):
        pipe([program(TARGET_JSONL), "--config", config], snapshot(export, 1, {"a": "ä"}))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(line["a"], line["_sdc_export_id"]) for line in lines] == [("ä", "one"), ("ä", "two")]
