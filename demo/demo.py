"""`make demo`: the five services on this machine, loaded into a DuckDB file by a real `meltano run`.

All of it lies in .demo: the database, Meltano's state, the sandbox's keys. A second run loads what is new.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
SANDBOX = DEMO / "sandbox"
DATABASE = DEMO / "analytics.duckdb"
META_TABLES = ("export_runs", "rejected_rows")
WIDTH = 110


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program, and end it, however this one ends."""
    with subprocess.Popen(command, cwd=ROOT, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def sandbox() -> Iterator[dict[str, str]]:
    """Run the five services, and give the variables that meltano.yml wants."""
    log = DEMO / "sandbox.log"
    command = [str(ROOT / ".venv/bin/tap-analytics-exports-sandbox"), "--dir", str(SANDBOX)]
    with log.open("w") as errors, running(command, stdout=subprocess.PIPE, stderr=errors) as process:
        # Its configuration, an indented object, is all that it prints; then it serves.
        for line in process.stdout or ():
            if line == "}\n":
                break
        else:
            sys.exit(f"The sandbox did not start:\n{log.read_text()}")
        yield variables(SANDBOX)


def variables(folder: Path) -> dict[str, str]:
    """The variables that the environment `sandbox` of meltano.yml wants."""
    lines = (folder / "env").read_text().splitlines()
    found = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    config = json.loads((folder / "config.json").read_text())
    found["SANDBOX_START_DATE"] = config["start_date"]
    found["SANDBOX_FLEX_INSIGHTS_START_DATE"] = config["flex_insights"]["exports"][0]["start_date"]
    return found


def load(environment: dict[str, str]) -> None:
    """Let Meltano run the tap and the loader."""
    meltano = [str(ROOT / ".tools/bin/meltano"), "--environment=sandbox", "run", "--no-install"]
    state = {"MELTANO_DATABASE_URI": f"sqlite:///{DEMO}/meltano.db"}
    with running(
        [*meltano, "tap-analytics-exports", "target-duckdb"], env=os.environ | environment | state
    ) as run:
        if code := run.wait():
            sys.exit(f"`meltano run` failed with exit code {code}; its messages are above.")


def report(since: datetime) -> None:
    """Show each table, and what this run did."""
    with duckdb.connect(DATABASE, read_only=True) as database:
        tables = database.sql("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        for (table,) in tables:
            if table in META_TABLES:
                continue
            rows = database.table(table)
            columns = [f"{name} {kind}" for name, kind in zip(rows.columns, rows.types, strict=True)]
            print(f"\n{table}: {len(rows)} rows")
            print(textwrap.fill(", ".join(columns), WIDTH))
            sample = rows.order("_sdc_window_start, _sdc_row_number").limit(3)
            sample.project("COLUMNS('^[^_]')").show(max_width=WIDTH)
        print("\nThis run, from the table export_runs:")
        database.sql(
            """
            SELECT provider, stream, count(*) AS exports, count(*) FILTER (status = 'failed') AS failed,
                   strftime(min(window_start), '%d %b %H:%M') AS "from",
                   strftime(max(window_end), '%d %b %H:%M') AS "to",
                   sum("rows")::BIGINT AS "rows", sum(rejected_rows)::BIGINT AS rejected
            FROM export_runs WHERE finished_at >= $since GROUP BY ALL ORDER BY ALL
            """,
            params={"since": since.replace(tzinfo=None)},
        ).show(max_width=WIDTH, max_rows=100)
        print(f"The tables lie in {DATABASE.relative_to(ROOT)}. `make demo` again loads what is new by then.")


def main() -> None:
    """Start the services, load, report, stop the services."""
    for ended in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, lambda number, _: sys.exit(128 + number))
    DEMO.mkdir(exist_ok=True)
    since = datetime.now(UTC)
    with sandbox() as environment:
        load(environment)
    report(since)


if __name__ == "__main__":
    main()
