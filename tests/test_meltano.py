"""A real `meltano run` into DuckDB, in a project of its own: twice, and after one that was killed."""

import json
import os
import runpy
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import yaml
from conftest import TAP, Sandbox
from programs import MELTANO, ROOT, TARGET_DUCKDB, program
from served import EXPORTS, SNAPSHOTS, assert_served

variables = runpy.run_path(str(ROOT / "demo/demo.py"))["variables"]


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


@contextmanager
def meltano(project, services, *options):
    """A `meltano run` in a process group of its own, of which nothing is left at the end."""
    plugins = [TAP.name, "target-duckdb"]
    command = [program(MELTANO), "--environment=sandbox", "run", "--no-install", *options, *plugins]
    environment = os.environ | variables(services.folder) | {"TZ": "Europe/Helsinki", "TMPDIR": str(project)}
    with (project / "log").open("w") as log:
        run = subprocess.Popen(
            command, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def meltano_run(project, services, *options):
    with meltano(project, services, *options) as run:
        assert run.wait(200) == 0, (project / "log").read_text()[-5000:]


def query(project, sql):
    with duckdb.connect(project / ".demo/analytics.duckdb", read_only=True) as database:
        return database.sql(sql).fetchall()


def assert_tables_hold_what_was_served(project, services, streams=tuple(EXPORTS)):
    """Compare each table with what the sandbox says is in the windows that were loaded."""
    columns = "stream, window_start, window_end, submitted_at"
    runs = query(project, f"SELECT {columns} FROM export_runs WHERE status <> 'failed' ORDER BY submitted_at")
    for stream in streams:
        # The last run of each window counts.
        windows = {
            start: (f"{start}Z", f"{end}Z", f"{then}Z") for name, start, end, then in runs if name == stream
        }
        with duckdb.connect(project / ".demo/analytics.duckdb", read_only=True) as database:
            table = database.table(stream)
            rows = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
        assert_served(services, stream, windows.values(), rows)


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


# Kills

#: How many jobs each of a few exports needs: one a day, or one for the snapshot.
NEEDED = {"calls": 2, "khoros_posts": 2, "gooee_energy": 1}


@pytest.fixture
def small_project(project):
    """A few exports, of windows that don't move from run to run; the loader loads some rows at a time."""
    path = project / "meltano.yml"
    content = yaml.safe_load(path.read_text())
    plugins = content["environments"][0]["config"]["plugins"]
    config = plugins["extractors"][0]["config"]
    for provider in {provider for provider, _ in EXPORTS.values()}:
        exports = [export for export in config[provider]["exports"] if export["name"] in NEEDED]
        config[provider]["exports"] = exports
        if not exports:
            del config[provider]
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    config["start_date"], config["end_date"] = (end - timedelta(days=2)).isoformat(), end.isoformat()
    plugins["loaders"][0]["config"]["batch_size_rows"] = 20
    path.write_text(yaml.safe_dump(content))
    return project


def alive(group):
    """The processes of a group that have not ended, by the program that they run."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            words = (folder / "cmdline").read_text().split("\0")
            if int(its_group) == group and state != "Z":
                found[Path(words[min(1, len(words) - 1)]).name] = int(folder.name)
    return found


def wait_until(seen, what):
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def a_job_runs(project, services):
    return any(job["state"] == "running" for job in services.get("jobs"))


def a_download_is_held(project, services):
    return any(request.get("fault") and request["status"] for request in services.get("requests"))


def a_window_is_written(project, services):
    for path in (project / ".demo/ledger").glob("*/*.json"):
        with suppress(FileNotFoundError):
            if json.loads(path.read_text())["written_at"]:
                return True
    return False


def a_batch_is_loaded(project, services):
    return "Loading 20 rows" in (project / "log").read_text()


def the_state_is_past_a_window(project, services):
    """Two batches are the first window; the state that comes with the third one says that it is safe."""
    return (project / "log").read_text().count("Incremental state has been updated") >= 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("victim", "number", "seen"),
    [
        (TAP.name, signal.SIGKILL, a_window_is_written),
        (TAP.name, signal.SIGTERM, a_job_runs),
        (Path(TARGET_DUCKDB).name, signal.SIGKILL, a_batch_is_loaded),
        (Path(TARGET_DUCKDB).name, signal.SIGTERM, the_state_is_past_a_window),
        ("meltano", signal.SIGKILL, a_job_runs),
        ("meltano", signal.SIGTERM, a_download_is_held),
    ],
)
def test_a_plain_run_makes_good_what_a_killed_one_left(small_project, services, victim, number, seen):
    project = small_project
    if seen is a_job_runs:
        services.post("settings", {"job_seconds": 2})
    else:  # a file is held back, so that the run can't be over when it is to die
        services.post("faults", [{"service": "gooee_files", "action": {"hang": "body"}}])
    with meltano(project, services) as run:
        wait_until(lambda: seen(project, services), "the moment to kill")
        os.kill(run.pid if victim == "meltano" else alive(run.pid)[victim], number)
        assert run.wait(60) != 0
        # What a killed Meltano leaves behind ends by itself, as nobody reads or writes any more.
        wait_until(lambda: not alive(run.pid), "the end of all processes")
    services.post("faults", [])
    services.post("settings", {"job_seconds": 0.3})
    # Meltano holds a run of its own that was killed for a running one.
    forced = ["--force"] if (victim, number) == ("meltano", signal.SIGKILL) else []
    meltano_run(project, services, *forced)

    assert_tables_hold_what_was_served(project, services, NEEDED)
    loaded = "SELECT stream, window_start FROM export_runs WHERE status <> 'failed' GROUP BY ALL"
    assert Counter(stream for stream, _ in query(project, loaded)) == NEEDED
    # A job whose trigger got no answer is the only one that may be needed twice, and it is told of.
    twice = "SELECT stream FROM export_runs WHERE error LIKE '%whether it runs there is not known%'"
    told = Counter(stream for (stream,) in query(project, twice))
    jobs = Counter((job["service"], job["export"]) for job in services.get("jobs"))
    for stream, needed in NEEDED.items():
        assert needed <= jobs[EXPORTS[stream]] <= needed + told[stream], stream
