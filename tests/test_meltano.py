"""A real `meltano run` into DuckDB, twice, in a project of its own."""

import os
import re
import runpy
import subprocess
from collections import Counter
from datetime import UTC, datetime

import duckdb
import pytest
import yaml
from conftest import TAP, Sandbox
from programs import MELTANO, ROOT, TARGET_DUCKDB, program

variables = runpy.run_path(str(ROOT / "demo/demo.py"))["variables"]

#: Of each stream: what it is called at its vendor.
EXPORTS = {
    "flex_conversations": ("flex_insights", "643040"),
    "flex_workload": ("flex_insights", "643041"),
    "flex_missed": ("flex_insights", "643042"),
    "calls": ("intelepeer", "CallEvent"),
    "messages": ("intelepeer", "MsgEvent"),
    "dtmf": ("intelepeer", "DtmfEvent"),
    "khoros_conversations": ("khoros_care", "conversation"),
    "khoros_posts": ("khoros_care", "incoming_post"),
    "khoros_campaigns": ("khoros_care", "marketing/raw_brand_post"),
    "gooee_energy": ("gooee", "6092953b-94a6-476d-aad8-f4b42a0f0c08"),
    "gooee_occupancy": ("gooee", "7ca7297f-1de1-4799-8eeb-a7b4d557850c"),
    "giosg_calls": ("giosg", "0d9a1f7e-3c52-4b8e-8f64-7a1b2c3d4e5f/1"),
    "giosg_popups": ("giosg", "c1f7e0d2-98b4-4a36-b5c3-2e4f6a8b0c1d/1"),
}
SNAPSHOTS = {"flex_workload", "gooee_energy", "gooee_occupancy"}


@pytest.fixture
def project(tmp_path):
    """The project of the repository, with the tap that is tested and the loader that is there."""
    project = yaml.safe_load((ROOT / "meltano.yml").read_text())
    for plugin, executable in (("extractors", TAP), ("loaders", program(TARGET_DUCKDB))):
        chosen = project["plugins"][plugin][0]
        del chosen["pip_url"]
        chosen["executable"] = str(executable)
    (tmp_path / "meltano.yml").write_text(yaml.safe_dump(project))
    (tmp_path / ".demo/sandbox").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def services(project):
    sandbox = Sandbox(project / ".demo/sandbox", "--rows", "40")
    yield sandbox
    sandbox.stop()


def meltano_run(project, services):
    command = [program(MELTANO), "--environment=sandbox", "run", "--no-install", TAP.name, "target-duckdb"]
    environment = os.environ | variables(services.folder) | {"TZ": "Europe/Helsinki"}
    run = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, check=False, encoding="utf-8", timeout=200
    )
    assert run.returncode == 0, run.stderr[-5000:]


def query(project, sql):
    with duckdb.connect(project / ".demo/analytics.duckdb", read_only=True) as database:
        return database.sql(sql).fetchall()


def plain(value):
    """A value as a number, a UTC time or a text, whoever wrote it."""
    if value is None or isinstance(value, datetime | float):
        return value
    text = {"Yes": "true", "No": "false"}.get(value, str(value))
    if re.fullmatch(r"\d\d/\d\d/\d{4}", text):
        return datetime.strptime(text, "%m/%d/%Y")  # noqa: DTZ007 - a date
    if re.fullmatch(r"-?[\d,]+(\.\d+)?", text):
        return float(text.replace(",", ""))
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return text.lower() if text in ("True", "False") else text or None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def property_name(title):
    """A header in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", title).lower()


def wanted_rows(stream, windows, services):
    """What the sandbox says is in these windows, or was in the last snapshot."""
    provider, export = EXPORTS[stream]
    if stream in SNAPSHOTS:
        (*_, job) = [
            job for job in services.get("served") if (job["service"], job["export"]) == EXPORTS[stream]
        ]
        windows = [(*(job["window"] or ()), job["as_of"])]
    rows = []
    for *edges, as_of in windows:
        span = dict(zip(("start", "end"), edges, strict=False))
        rows += services.get("expected", provider=provider, export=export, as_of=as_of, **span)
    # The one export with a filter.
    return [row for row in rows if stream != "giosg_popups" or row["action"] != "Call ended"]


def assert_tables_hold_what_was_served(project, services):
    """Compare each table with what the sandbox says is in the windows that were loaded."""
    columns = "stream, window_start, window_end, submitted_at"
    runs = query(project, f"SELECT {columns} FROM export_runs WHERE status <> 'failed' ORDER BY submitted_at")
    for stream in EXPORTS:
        # The last run of each window counts.
        windows = {
            start: (f"{start}Z", f"{end}Z", f"{then}Z") for name, start, end, then in runs if name == stream
        }
        wanted = wanted_rows(stream, windows.values(), services)
        titles = {property_name(title): title for title in wanted[0]}
        with duckdb.connect(project / ".demo/analytics.duckdb", read_only=True) as database:
            table = database.table(stream)
            names = [name for name in table.columns if name in titles]
            assert len(names) > 2
            loaded = table.project(*map(duckdb.ColumnExpression, names)).fetchall()
        rows = Counter(tuple(plain(row[titles[name]]) for name in names) for row in wanted)
        assert Counter(tuple(map(plain, row)) for row in loaded) == rows, stream


@pytest.mark.timeout(500)
def test_every_row_arrives_and_a_second_run_loads_none_twice(project, services):
    meltano_run(project, services)
    assert_tables_hold_what_was_served(project, services)
    first = len(query(project, "FROM export_runs"))
    served = len(services.get("jobs"))
    meltano_run(project, services)
    assert_tables_hold_what_was_served(project, services)
    # Snapshots are taken anew; of the rest, the window that the clock had cut goes on.
    again = len(query(project, "FROM export_runs")) - first
    assert again == len(EXPORTS)
    assert len(services.get("jobs")) - served == len(EXPORTS)
    for stream in EXPORTS:
        key = "_sdc_row_number" if stream in SNAPSHOTS else "_sdc_window_start, _sdc_row_number"
        assert query(project, f"SELECT {key} FROM {stream} GROUP BY ALL HAVING count(*) > 1") == []
