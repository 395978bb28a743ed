"""The tap, piped into target-postgres, in front of a real PostgreSQL."""

import json
import subprocess
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest
from conftest import Sandbox, run_tap
from postgres import server
from programs import TARGET_POSTGRES, program


@pytest.fixture(scope="module")
def postgres():
    """A server of its own; gives the settings of target-postgres."""
    with server() as port:
        settings = {"host": "127.0.0.1", "port": port, "user": "tap", "password": "-", "database": "postgres"}
        yield {**settings, "default_target_schema": "exports", "hard_delete": True}


def connect(settings):
    names = {"host": "host", "port": "port", "user": "user", "database": "dbname"}
    options = {key: settings[name] for name, key in names.items()}
    return psycopg.connect(**options, options="-c search_path=exports", autocommit=True)


@pytest.fixture
def query(postgres):
    with connect(postgres) as connection:
        connection.execute("DROP SCHEMA IF EXISTS exports CASCADE")
        yield lambda sql: connection.execute(sql).fetchall()


@pytest.fixture
def load(postgres, tmp_path):
    """Run the tap, let target-postgres load what it wrote, and give the state that comes back."""
    config = tmp_path / "target.json"
    config.write_text(json.dumps(postgres))

    def run(tap_config, state=None):
        extracted = run_tap(tap_config, state=state)
        assert extracted.exit_code == 0, extracted.stderr
        loaded = subprocess.run(
            [program(TARGET_POSTGRES), "--config", config],
            input=extracted.stdout,
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=100,
        )
        assert loaded.returncode == 0, loaded.stderr[-3000:]
        return json.loads(loaded.stdout.splitlines()[-1])

    return run


def calls(sandbox):
    """One export of typed columns."""
    config = sandbox.config("intelepeer")
    config["intelepeer"]["exports"] = [
        {
            "name": "calls",
            "event": "CallEvent",
            "fields": ["TimeStamp", "TransactionId", "IsTriggerAction", "Duration", "Cost", "Passthrough"],
            "columns": {"Duration": "integer", "Cost": "decimal", "Passthrough": "json"},
        }
    ]
    return config


def expected_calls(sandbox, config):
    rows = sandbox.get("expected", provider="intelepeer", export="CallEvent", start=config["start_date"])
    return sorted(
        (
            row["TransactionId"],
            datetime.fromisoformat(row["TimeStamp"].removesuffix(" UTC")),
            row["IsTriggerAction"] == "true",
            int(row["Duration"]),
            Decimal(row["Cost"]),
            json.loads(row["Passthrough"]) if row["Passthrough"] else None,
        )
        for row in rows
    )


def test_columns_have_types_and_values(sandbox, load, query):
    config = calls(sandbox)
    load({**config, "end_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:00:00Z")})
    types = dict(
        query("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'calls'")
    )
    assert types["time_stamp"] == types["_sdc_window_start"] == "timestamp without time zone"
    assert types["is_trigger_action"] == "boolean"
    assert types["duration"] == types["_sdc_row_number"] == "bigint"
    assert types["passthrough"] == "jsonb"
    # The loader knows no singer.decimal: every digit is there, but in a text.
    assert types["cost"] == "text"
    columns = "transaction_id, time_stamp, is_trigger_action, duration, cost::numeric, passthrough"
    until = query("SELECT max(_sdc_window_end) FROM calls")[0][0]
    wanted = [row for row in expected_calls(sandbox, config) if row[1] < until]
    assert sorted(query(f"SELECT {columns} FROM calls")) == wanted


def test_a_second_run_loads_nothing_twice(sandbox, load, query):
    config = calls(sandbox)
    state = load(config)
    load(config, state=state)
    assert query("SELECT count(*) - count(DISTINCT transaction_id) FROM calls") == [(0,)]
    assert query("SELECT count(*) FROM calls WHERE _sdc_deleted_at IS NOT NULL") == [(0,)]


def test_a_snapshot_replaces_the_one_before(sandbox, load, query, tmp_path):
    few = Sandbox(tmp_path, "--rows", "48")
    try:
        state = load(sandbox.config("gooee"))
        assert query("SELECT count(*) FROM gooee_energy") == [(100,)]
        load(few.config("gooee"), state=state)
        assert query("SELECT count(*), count(DISTINCT _sdc_export_id) FROM gooee_energy") == [(48, 1)]
    finally:
        few.stop()


ENCODINGS = [{"format": "jsonl"}, {"format": "jsonl", "compression": "gzip"}, {"format": "parquet"}]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: "-".join(each.values()))
def test_batches_load_what_records_load(sandbox, load, query, postgres, tmp_path, encoding):  # noqa: PLR0917
    def table():
        columns = "time_stamp, transaction_id, is_trigger_action, duration, cost, passthrough::text::jsonb"
        own = "_sdc_window_start, _sdc_window_end, _sdc_row_number"
        return query(f"SELECT {columns}, {own} FROM calls ORDER BY _sdc_window_start, _sdc_row_number")

    config = {**calls(sandbox), "ledger": "", "end_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:00:00Z")}
    load(config)
    expected = table()
    files = tmp_path / "files"
    batch = {"encoding": encoding, "storage": {"root": files.as_uri()}, "batch_size": 40}
    with connect(postgres) as connection:
        connection.execute("DROP TABLE calls")
    state = load({**config, "batch_config": batch})
    assert table() == expected
    assert len(list(files.iterdir())) > 2
    assert state["bookmarks"]["calls"]["jobs"] == []
    runs = query("SELECT sum(rows) FROM export_runs WHERE stream = 'calls'")
    assert runs == [(2 * len(expected),)]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: "-".join(each.values()))
def test_a_snapshot_in_batches_replaces_the_one_before(sandbox, load, query, tmp_path, encoding):
    batch = {"encoding": encoding, "storage": {"root": (tmp_path / "files").as_uri()}, "batch_size": 40}
    few = Sandbox(tmp_path, "--rows", "48")
    try:
        state = load(sandbox.config("gooee", batch_config=batch))
        assert query("SELECT count(*) FROM gooee_energy") == [(100,)]
        load(few.config("gooee", batch_config=batch), state=state)
        assert query("SELECT count(*), count(DISTINCT _sdc_export_id) FROM gooee_energy") == [(48, 1)]
    finally:
        few.stop()
