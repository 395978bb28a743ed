"""How fast the tap is, and how much memory it takes, beside others and beside its goals.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --only csv --rows 100000 --repeat 3

All sides of a comparison run in turn, in the same minutes, on the same machine: A B C, A B C, ... What
counts is the wall time of whole processes, start-up included, whose output goes through a pipe that is read
to its end; the median of the ratios of the rounds is what is held against a goal. Each side has to write as
many rows as the file has, or there is no result. The tap and Airbyte's CDK download their file from a
server on this machine; the others read it where it lies.

With none of --only, --rows and --repeat it writes benchmarks/RESULTS.md. Where the time of a run goes is for
a profiler to say: `py-spy record --threads --output profile.svg -- tap-analytics-exports --config ...`.
"""

import argparse
import json
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import waiting as waits
from data import TYPES, schema, write
from measure import NO_ROW, TAP, Config, Failed, Side, rounds, say
from results import Section, report

HERE = Path(__file__).resolve().parent
UV = (shutil.which("uv", path=f"{HERE.parent / '.tools/bin'}{os.pathsep}{os.environ['PATH']}") or "uv",)
TARGET_POSTGRES = (str(HERE.parent / ".meltano/loaders/target-postgres/venv/bin/target-postgres"),)
TARGET_DUCKDB = (str(HERE.parent / ".meltano/loaders/target-duckdb/venv/bin/target-duckdb-exact"),)
SPREADSHEETS = "https://github.com/ets/tap-spreadsheets-anywhere"
REVISION = "e3b0ccd9d7576cba6613829ae37016bb287f51c1"
SOURCE = str(Path(sys.executable).with_name("source-analytics-exports"))
AIRBYTE_RECORD = b'"type":"RECORD","record":{"stream":"rows"'
ROWS, REPEAT = 2_000_000, 5

FEWER = """Those that would take an hour read a file of the same kind with fewer rows, and are compared by
rows a second of whole processes. """
START = """As start-up is a larger share of fewer rows, the goals also say, in brackets, what the ratio is
when the time for a file of one row is taken off theirs, and nothing off the tap's. Of Airbyte's, five seconds
are its first wait between two polls of a job."""


@dataclass
class Bench:
    """What all comparisons share: the files' folder, the rows of the largest, rounds, the vendor's URL."""

    folder: Path
    rows: int
    repeat: int
    url: str

    @property
    def few(self) -> int:
        """Rows for those that would take an hour."""
        return max(self.rows // 40, min(self.rows, 10_000))

    def file(self, name: str, rows: int, columns: int = len(TYPES)) -> Path:
        """A file of so many rows, written once."""
        path = self.folder / f"{rows}x{columns}-{name}"
        if not path.exists():
            say(f"writing {name} of {rows:,} rows")
            write(path, rows, columns)
        return path

    def config(self, file: str, columns: int = len(TYPES)) -> Config:
        """One export of giosg's of one window."""
        kind = "xlsx" if file.endswith(".xlsx") else "csv"
        export = {"name": "rows", "workflow_id": file, "step_index": 0, "format": kind}
        export["columns"] = dict(list(TYPES.items())[:columns])
        giosg = {"base_url": self.url, "api_token": "-", "organization_id": "-", "exports": [export]}
        return {"start_date": "2026-01-01", "end_date": "2026-01-02", "giosg": giosg}

    def tap(self, file: str, rows: int, name: str = "the tap", **how: Any) -> Side:
        """The tap, which downloads a file."""
        return Side(name, rows, **{"config": self.config(file), **how})

    def airbyte(self, file: str, rows: int) -> Side:
        """The tap's core as a source of Airbyte's."""
        stream = {"name": "rows", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}
        catalog = self.folder / "catalog.json"
        catalog.write_text(json.dumps({"streams": [{"stream": stream, "sync_mode": "full_refresh"}]}))
        program = [SOURCE, "read", "--catalog", str(catalog)]
        return Side("the Airbyte source", rows, program, self.config(file), AIRBYTE_RECORD)

    def plain(self, name: str, path: Path, rows: int, *, batches: bool = False, **more: Any) -> Side:
        """A plain tap of the SDK's, with more of its configuration."""
        config = {"path": str(path), "types": TYPES, "schema": schema(), **more}
        return Side(name, rows, peer("plain_sdk"), config, batches=batches)


@cache
def peer(program: str) -> Sequence[str]:
    """The start of the command line of one of the others, for which an environment is made."""
    script = str(HERE / f"peers/{program}.py")
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    variables["UV_COMPILE_BYTECODE"] = "1"  # as the tap's own environment has it
    run = partial(subprocess.run, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    run([*UV, "sync", "--quiet", "--script", script, "--python", sys.executable])
    return [run([*UV, "python", "find", "--script", script]).stdout.strip(), script]


def per_row(a: Side, b: Side, without: float = 0.0) -> list[float]:
    """How many times the rows a second of b a has, round by round; so many seconds are taken off b's."""
    times = zip(a.times, b.times, strict=False)  # none of b's if it failed
    return [a.rows / one / (b.rows / (other - without)) for one, other in times]


def _faster(bench: Bench, path: Path, **more: Any) -> list[Side]:
    name, more = "the same without type conformance", {"writer": "msgspec", **more}
    bare = bench.plain(name, path, bench.few, conformance=False, **more)
    return [bench.plain("plain SDK tap, msgspec", path, bench.few, **more), bare]


def csv(bench: Bench, kind: str = "csv", name: str = "CSV") -> Section:
    rows, few = bench.rows, bench.few
    whole, part, single = (bench.file(f"rows.{kind}", count) for count in (rows, few, 1))

    def airbyte(path: Path, count: int) -> Side:
        config = {"base_url": bench.url, "file": path.name, "schema": schema()}
        program = peer("airbyte_cdk_async")
        return Side("Airbyte CDK, typed, asynchronous", count, program, config, AIRBYTE_RECORD)

    tap, source, slow = bench.tap(whole.name, rows), bench.airbyte(whole.name, rows), airbyte(part, few)
    plain = bench.plain("plain SDK tap", part, few)
    polars = Side("polars alone", rows, peer("alone"), {"path": str(whole), "types": TYPES}, b"\n")
    sides = [tap, source, polars, plain, *(_faster(bench, part) if kind == "csv" else []), slow]
    section = Section(f"{name}, RECORD messages", FEWER + START, sides)
    rounds(sides, bench.repeat)
    starts = [bench.plain("plain SDK tap, 1 row", single, 1), airbyte(single, 1)]
    rounds(starts, min(bench.repeat, 3))
    for side, start, wanted in ((plain, starts[0], 40), (slow, starts[1], 100)):
        ratios, more = per_row(tap, side), ""
        if ratios and start.runs:
            without = statistics.median(per_row(tap, side, start.seconds))
            more = f" ({without:.1f}x without its start-up)"
        section.goal(f"{name}: rows/s of {side.name}", ratios, more=more, least=wanted)
    section.goal(f"{name}: rows/s of {slow.name}, by {source.name}", per_row(source, slow), least=30)
    section.goal(f"{name}: time of polars alone", [1 / ratio for ratio in per_row(tap, polars)], most=1.8)
    return section


def gzip(bench: Bench) -> Section:
    return csv(bench, "csv.gz", "CSV in gzip")


def xlsx(bench: Bench) -> Section:
    """A workbook, for speed; and two that are as large as is read, for memory."""
    rows, few = max(bench.rows // 20, 1), max(bench.rows // 100, 1)
    whole, part = bench.file("rows.xlsx", rows), bench.file("rows.xlsx", few)
    checkout = bench.folder / "tap-spreadsheets-anywhere"
    subprocess.run(["git", "clone", "--quiet", SPREADSHEETS, checkout], check=False)
    subprocess.run(["git", "-C", checkout, "checkout", "--quiet", REVISION], check=False)
    table = {"name": "rows", "path": part.parent.as_uri(), "pattern": f"^{part.name}$", "format": "excel"}
    config = {"tables": [table | {"start_date": "2000-01-01T00:00:00Z", "key_properties": list[str]()}]}
    program = [*peer("spreadsheets_anywhere"), str(checkout)]
    tap = bench.tap(whole.name, rows)
    slow = Side("tap-spreadsheets-anywhere", few, program, config, b'"RECORD", "stream": "rows"')
    bare = Side("fastexcel alone, cells as text", rows, peer("alone"), {"path": str(whole)}, b"\n")
    large = []
    for count, columns in ((bench.rows * 3 // 20, 12), (bench.rows * 9 // 100, 20)):
        config = bench.config(bench.file("rows.xlsx", count, columns).name, columns)
        large.append(Side(f"the tap, {count:,} rows of {columns} columns", count, config=config))
    section = Section("XLSX, RECORD messages", FEWER, [tap, bare, slow, *large])
    rounds(section.sides, bench.repeat)
    section.goal(f"XLSX: rows/s of {slow.name}", per_row(tap, slow), least=10)
    for side in large:
        peak = [side.peak] if side.runs else []
        section.goal(f"XLSX: peak memory of {side.name}", peak, " MiB", most=500)
    return section


def batch(bench: Bench) -> Section:
    whole, part = bench.file("rows.csv", bench.rows), bench.file("rows.csv", bench.few)
    tap = bench.tap(whole.name, bench.rows, "the tap, BATCH of Parquet", batches=True)
    plain = bench.plain("plain SDK tap, RECORD", part, bench.few)
    own = bench.plain("plain SDK tap, BATCH of Parquet", whole, bench.rows, batches=True)
    intro = "Files of 10,000 rows, which is the default of both. " + FEWER
    section = Section("BATCH of Parquet from CSV", intro, [tap, plain, own])
    rounds(section.sides, bench.repeat)
    section.goal("BATCH: rows/s of a plain SDK tap's RECORD", per_row(tap, plain), least=40)
    section.goal("BATCH: rows/s of the SDK's own BATCH", per_row(tap, own), least=6)
    return section


def maps(bench: Bench) -> Section:
    """Records that a stream map changes, which the SDK makes one by one."""
    path, more = bench.file("rows.csv", bench.few), {"stream_maps": {"rows": {"extra": "1"}}}
    sides = [
        bench.tap(path.name, bench.few, config=bench.config(path.name) | more),
        *_faster(bench, path, **more),
    ]
    intro = 'CSV, with `stream_maps` of `{"rows": {"extra": "1"}}`; the same rows on all sides.'
    section = Section("Stream maps", intro, sides)
    rounds(sides, bench.repeat)
    section.goal("stream maps: rows/s of a plain SDK tap with msgspec", per_row(sides[0], sides[1]), least=1)
    return section


def startup(bench: Bench) -> Section:
    """Without any rows."""
    config = bench.config("rows.csv")
    sides = [Side("import singer_sdk", 0, [sys.executable, "-c", "import singer_sdk"], marker=NO_ROW)]
    sides += [
        Side(option, 0, [*TAP, option], config, NO_ROW) for option in ("--help", "--discover", "--test")
    ]
    section = Section("Start-up", "`--test` asks the vendor something, and ends with its answer.", sides)
    rounds(sides, bench.repeat)
    for side in sides[1:]:
        more = [one - other for one, other in zip(side.times, sides[0].times, strict=True)]
        section.goal(f"start-up, {side.name}: more than `import singer_sdk`", more, " s", most=0.3)
    return section


def growth(bench: Bench) -> Section:
    """Twice the rows."""
    size = max(bench.rows // 20, 1)
    block = bench.file("rows.block", size)
    one = bench.tap(bench.file("rows.csv", 1).name, 1, "1 row")
    steps = (1, 2, 4, 8, 16, 32, 64, 100)
    sides = [bench.tap(f"{block.name}*{n}", size * n, f"{size * n:,} rows") for n in steps]
    intro = f"""CSV; {size:,} rows have {block.stat().st_size / 1e6:,.0f} MB, sent again and again. The
        time for one row is start-up, and is taken off before sizes are compared; the largest, which is less
        than twice the one before, is compared by time a row as all are. What is short varies more."""
    section = Section("Twice the rows, twice the time, the same memory", intro, [one, *sides])
    rounds(section.sides, min(bench.repeat, 3))
    per_row = [(side.seconds - one.seconds) / side.rows for side in sides]
    changes = [100 * (large / small - 1) for small, large in pairwise(per_row)]
    section.text = "change of the time a row: " + ", ".join(f"{change:+.1f} %" for change in changes)
    worst = max(map(abs, changes))
    more = 100 * (sides[-1].peak / sides[0].peak - 1)
    sizes = f"{size:,} to {100 * size:,} rows"
    section.goal(f"{sizes}: change of the time a row with twice the rows", [worst], " %", most=5)
    section.goal(f"{sizes}: more peak memory", [more], " %", most=10)
    section.goal(f"peak memory of {sides[-1].name} of CSV", [sides[-1].peak], " MiB", most=300)
    return section


@contextmanager
def _database() -> Iterator[psycopg.Connection[Any]]:
    """A PostgreSQL of the benchmark's own, with what it has from the factory but for fsync."""
    places = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    pg_ctl = Path(shutil.which("pg_ctl", path=os.pathsep.join(places)) or "pg_ctl").resolve()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        run = partial(subprocess.run, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        if os.geteuid() == 0:  # as whom PostgreSQL refuses to run
            account = next(one for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody"))
            run = partial(run, user=account.pw_uid, group=account.pw_gid, extra_groups=[])
            os.chown(folder, account.pw_uid, account.pw_gid)
        control = [str(pg_ctl), "--silent", "--pgdata=data"]
        create = "--username=tap --auth=trust --encoding=UTF8 --locale=C --no-sync"
        serve = f"--port={port} --listen-addresses=127.0.0.1 --unix-socket-directories= --fsync=off"
        free.close()
        run([*control, "initdb", f"--options={create}"])
        run([*control, "start", "--wait", "--log=log", f"--options={serve} --timezone=UTC"])
        try:
            with psycopg.connect(
                f"postgresql://tap@127.0.0.1:{port}/postgres", autocommit=True
            ) as connection:
                yield connection
        finally:
            run([*control, "stop", "--mode=immediate"])


def postgres(bench: Bench) -> Section:
    """From the vendor into a table."""
    file = bench.file("rows.csv", bench.few).name
    with _database() as connection:

        def empty() -> None:
            connection.execute("DROP SCHEMA IF EXISTS exports CASCADE")
            connection.execute("CREATE SCHEMA exports")

        def arrived(_: Path) -> int:
            return int(connection.execute("SELECT count(*) FROM exports.rows").fetchall()[0][0])

        server = {"host": "127.0.0.1", "port": connection.info.port, "user": "tap", "password": "-"}
        server |= {"database": "postgres", "default_target_schema": "exports"}
        copying = server | {"use_copy": True}
        both = {"before": empty, "arrived": arrived}

        def side(name: str, program: Sequence[str], config: Config, *, batches: bool) -> Side:
            return bench.tap(file, bench.few, name, loader=(program, config), batches=batches, **both)

        sides = [
            side("RECORD, target-postgres", TARGET_POSTGRES, server, batches=False),
            side("RECORD, target-postgres with use_copy", TARGET_POSTGRES, copying, batches=False),
            side("BATCH, target-postgres with use_copy", TARGET_POSTGRES, copying, batches=True),
            side("BATCH, COPY of each file", peer("copy_loader"), server, batches=True),
        ]
        rounds(sides, min(bench.repeat, 3))
    intro = """The tap, piped into a loader, until the rows are in the table. target-postgres takes a batch
        file apart into records again, whichever way it inserts them; the last side is a loader of some fifty
        lines (`peers/copy_loader.py`) that hands each file to COPY and appends. The peak is that of tap and
        loader together; the server's own is not in it."""
    section = Section("End to end into PostgreSQL", intro, sides)
    section.goal("PostgreSQL: rows/s of RECORD, by BATCH and COPY", per_row(sides[3], sides[0]), least=5)
    section.goal("PostgreSQL: the same, all by target-postgres", per_row(sides[2], sides[0]), least=5)
    return section


def dlt(bench: Bench) -> Section:
    """From the vendor into a table, by dlt and by a loader of RECORD messages."""
    whole, part = (bench.config(bench.file("rows.csv", rows).name) for rows in (bench.rows, bench.few))

    def rows_of(folder: Path) -> int:
        with duckdb.connect(folder / "rows.duckdb", read_only=True) as database:
            return len(database.table("rows"))

    with _database() as connection:

        def empty() -> None:
            connection.execute("DROP SCHEMA IF EXISTS dlt, dlt_staging, exports CASCADE")
            connection.execute("CREATE SCHEMA exports")

        def arrived(_: Path) -> int:
            return int(connection.execute("SELECT count(*) FROM exports.rows").fetchall()[0][0])

        server = {"host": "127.0.0.1", "port": connection.info.port, "user": "tap", "password": "-"}
        url = f"postgresql://tap:-@127.0.0.1:{connection.info.port}/postgres"
        targets: dict[str, tuple[Sequence[str], Config]] = {
            "target-duckdb": (TARGET_DUCKDB, {"path": "rows.duckdb", "default_target_schema": "main"}),
            "target-postgres": (
                TARGET_POSTGRES,
                server | {"database": "postgres", "default_target_schema": "exports"},
            ),
        }
        into: dict[str, Config] = {"DuckDB": {}, "PostgreSQL": {"postgres": url}}
        sides = [
            Side(
                f"dlt, {name}",
                bench.rows,
                peer("dlt_source"),
                {"settings": whole, **more},
                b"\n",
                before=empty,
            )
            for name, more in into.items()
        ] + [
            bench.tap(
                "", bench.few, f"RECORD, {name}", config=part, loader=loader, before=empty, arrived=count
            )
            for (name, loader), count in zip(targets.items(), (rows_of, arrived), strict=True)
        ]
        rounds(sides, min(bench.repeat, 3))
    intro = "The dlt source, by Parquet files into DuckDB and by CSV into PostgreSQL. "
    section = Section("By dlt into DuckDB and PostgreSQL", intro + FEWER, sides)
    for name, ours, theirs in zip(into, sides[:2], sides[2:], strict=True):
        section.goal(f"dlt: rows/s of RECORD, {name}", per_row(ours, theirs), least=10)
    return section


def waiting(bench: Bench) -> Section:
    return Section("Waiting", "`waiting.py` says what that means.", text=waits.report(min(bench.repeat, 3)))


SECTIONS: dict[str, Callable[[Bench], Section]] = {
    each.__name__: each for each in (waiting, startup, csv, gzip, xlsx, batch, maps, growth, postgres, dlt)
}


def main() -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description="How fast the tap is, beside others.")
    parser.add_argument("--only", help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--rows", type=int, default=ROWS, help="of the CSV; all sizes follow (%(default)s)")
    parser.add_argument("--repeat", type=int, default=REPEAT, help="rounds (%(default)s)")
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"--only: there is no {', '.join(unknown)}")
    short = asked.only or (asked.rows, asked.repeat) != (ROWS, REPEAT)
    sections, failures, text = [], [], ""
    with tempfile.TemporaryDirectory() as folder:
        serve = [sys.executable, str(HERE / "vendor.py"), folder]
        vendor = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        assert vendor.stdout is not None
        url = f"http://127.0.0.1:{vendor.stdout.readline().strip()}"
        bench = Bench(Path(folder), asked.rows, asked.repeat, url)
        try:
            for name in names:
                say(name)
                try:
                    sections.append(SECTIONS[name](bench))
                except (Failed, subprocess.CalledProcessError, OSError) as error:
                    say(str(error))
                    failures.append(f"{name}: {str(error).partition(chr(10))[0]}")
                text = report(sections, failures, asked.repeat)
                if not short:  # after each comparison, as all of them take long
                    (HERE / "RESULTS.md").write_text(text)
        finally:
            vendor.kill()
    print(text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
