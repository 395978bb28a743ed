"""How fast the tap is, and how much memory it takes, beside others and beside its goals.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --only csv --rows 100000 --repeat 3

All sides of a comparison run in turn, in the same minutes, on the same machine: A B C, A B C, ... What
counts is the wall time of whole processes, start-up included, whose output goes through a pipe that is read
to its end; the median of the ratios of the rounds is what is held against a goal. Each side has to write as
many rows as the file has, or there is no result. The tap and Airbyte's CDK download their file from a
server on this machine; the others read it where it lies.

With none of --only, --rows, --repeat and --output it writes benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from database import Database
from measure import HALF, HERE, MIB, Commands, Failed, Side, pipe, ratios, rounds, save, say

ROOT = HERE.parent
TAP = str(Path(sys.executable).with_name("tap-analytics-exports"))
RESULTS = HERE / "RESULTS.md"
TARGET_POSTGRES = ROOT / ".meltano/loaders/target-postgres/venv/bin/target-postgres"
REPOSITORY = "https://github.com/ets/tap-spreadsheets-anywhere"
REVISION = "e3b0ccd9d7576cba6613829ae37016bb287f51c1"

TYPES = {name + end: kind for end in ("", "_2") for name, kind in HALF.items()}

ROWS, REPEAT = 2_000_000, 5

Config = dict[str, Any]


@dataclass
class Goal:
    """A goal, and how it went."""

    words: str
    wanted: str
    measured: str
    met: bool


@dataclass
class Section:
    """A comparison: what is written of it."""

    title: str
    words: str = ""
    sides: list[Side] = field(default_factory=list)
    text: str = ""
    goals: list[Goal] = field(default_factory=list)

    def at_least(self, words: str, wanted: float, found: Sequence[float]) -> None:
        """A ratio that is not to be below something."""
        middle = statistics.median(found) if found else 0.0
        measured = f"{middle:.2f}x" if found else "not measured"
        self.goals.append(Goal(words, f"at least {wanted:g}x", measured, middle >= wanted))

    def at_most(self, words: str, wanted: float, found: Sequence[float], unit: str = "x") -> None:
        """A ratio, or a difference, that is not to be above something."""
        middle = statistics.median(found) if found else math.inf
        measured = f"{middle:.2f}{unit}" if found else "not measured"
        self.goals.append(Goal(words, f"at most {wanted:g}{unit}", measured, middle <= wanted))

    def below(self, words: str, wanted: float, side: Side) -> None:
        """A peak of memory, in MiB."""
        peak = math.inf if side.failure else side.peak / MIB
        measured = "not measured" if side.failure else f"{peak:.0f} MiB"
        self.goals.append(Goal(words, f"below {wanted:g} MiB", measured, peak < wanted))

    def lines(self) -> Iterator[str]:
        """As Markdown."""
        yield from (f"## {self.title}", "")
        if self.words:
            yield from (" ".join(self.words.split()), "")
        if self.sides:
            yield "| | rows | median | rows/s | fastest to slowest | processor | peak |"
            yield "|---|---:|---:|---:|---:|---:|---:|"
            for side in self.sides:
                if side.failure:
                    yield f"| {side.name} | {side.rows:,} | not measured: {side.failure} | | | | |"
                    continue
                seconds = [run.seconds for run in side.runs]
                yield (
                    f"| {side.name} | {side.rows:,} | {side.seconds:.2f} s | {side.rows / side.seconds:,.0f} "
                    f"| {min(seconds):.2f} to {max(seconds):.2f} s | {side.processor:.2f} s "
                    f"| {side.peak / MIB:.0f} MiB |"
                )
            yield ""
        if self.text:
            yield from ("```", self.text.rstrip(), "```", "")


@dataclass
class Bench:
    """What all comparisons share.

    Attributes:
        folder: Where the files are.
        rows: Of the largest comparison by rate; all other sizes follow from it.
        repeat: Rounds.
        huge: Whether a file of 10 GB is sent.
        checkout: Where tap-spreadsheets-anywhere is, if anywhere.
        port: Where the vendor listens.
    """

    folder: Path
    rows: int
    repeat: int
    huge: bool
    checkout: str | None
    port: int

    @property
    def few(self) -> int:
        """Rows for those that would take an hour."""
        return max(self.rows // 40, min(self.rows, 10_000))

    @property
    def url(self) -> str:
        """The vendor's."""
        return f"http://127.0.0.1:{self.port}"

    def file(self, name: str, rows: int) -> Path:
        """A file of so many rows, written once."""
        path = self.folder / f"{rows}-{name}"
        if not path.exists():
            say(f"writing {name} of {rows:,} rows")
            program = [sys.executable, str(HERE / "data.py"), str(self.folder), f"{path.name}={rows}"]
            subprocess.run(program, check=True)
        return path

    def tap(self, file: str, rows: int, name: str = "the tap", **how: Any) -> Side:
        """The tap, which downloads a file."""
        top = how.pop("top", {})
        batches = how.pop("batches", False)
        tail = how.pop("tail", lambda _: [])
        kind = "xlsx" if file.endswith(".xlsx") else "csv"

        def commands(folder: Path) -> Commands:
            config = self.tap_config(folder, file, kind) | top
            if batches:
                config["batch_config"] = _parquet(folder)
            return [[TAP, "--config", save(folder, config)], *tail(folder)]

        if batches and "after" not in how:
            how |= {"after": _parquet_rows}
        return Side(name, rows, commands, **how)

    def tap_config(self, folder: Path, file: str, kind: str = "csv") -> Config:
        """One export of giosg's of one window, with nothing remembered."""
        export = {"name": "rows", "workflow_id": file, "step_index": 0, "format": kind, "columns": TYPES}
        return {
            "start_date": "2026-01-01",
            "end_date": "2026-01-02",
            "ledger": str(folder / "ledger"),
            "spool_dir": str(folder),
            "giosg": {
                "base_url": self.url,
                "api_token": "-",
                "organization_id": "benchmark",
                "exports": [export],
            },
        }

    def peer(self, program: str, name: str, rows: int, config: Config, **how: Any) -> Side:
        """One of the others, in its own environment."""
        batches = how.pop("batches", False)
        if batches:
            how |= {"after": _parquet_rows}

        def commands(folder: Path) -> Commands:
            extra = {"batch_config": _parquet(folder)} if batches else {}
            return [self.command(program, save(folder, config | extra))]

        return Side(name, rows, commands, **how)

    def command(self, program: str, config: str) -> list[str]:
        """The command line of one of the others."""
        return [python_of(program), str(HERE / "peers" / f"{program}.py"), "--config", config]

    def plain(self, name: str, path: Path, rows: int, **config: Any) -> Side:
        """A plain tap of the SDK's; `batches` for its batches."""
        batches = config.pop("batches", False)
        return self.peer(
            "plain_sdk", name, rows, {"path": str(path), "types": TYPES, **config}, batches=batches
        )


_PYTHONS: dict[str, str] = {}


def python_of(program: str) -> str:
    """The Python of a peer's environment, which is made before anything is measured."""
    if program not in _PYTHONS:
        own = ROOT / ".tools/bin/uv"
        uv = str(own) if own.exists() else shutil.which("uv")
        if uv is None:
            raise Failed("uv is not there; make has it in .tools")
        script = str(HERE / "peers" / f"{program}.py")
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        environment["UV_COMPILE_BYTECODE"] = "1"  # as the tap's own has it, and as pip does
        command = [uv, "sync", "--quiet", "--script", script, "--python", sys.executable]
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if made.returncode:
            raise Failed(f"the environment of {program} can't be made\n{made.stderr[-2000:]}")
        command = [uv, "python", "find", "--script", script]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        _PYTHONS[program] = found.stdout.strip()
    return _PYTHONS[program]


def _parquet(folder: Path) -> Config:
    (folder / "batches").mkdir(exist_ok=True)
    return {"encoding": {"format": "parquet"}, "storage": {"root": (folder / "batches").as_uri()}}


def _parquet_rows(folder: Path) -> int:
    program = [sys.executable, str(HERE / "data.py"), "--count", str(folder / "batches")]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


def _per_row(a: Side, b: Side) -> list[float]:
    """How many times the rows a second of b a has, round by round."""
    return [] if b.failure else ratios(a.rates(), b.rates())


def _time(a: Side, b: Side) -> list[float]:
    """How many times the time of b a takes, round by round."""
    return [] if b.failure else ratios([run.seconds for run in a.runs], [run.seconds for run in b.runs])


FEWER = """Those that would take an hour read a file of the same kind with fewer rows, and are compared by
rows a second of whole processes. """

START = """As start-up is a larger share of fewer rows, the goals also say, in brackets, what the ratio is
when the time for a file of one row is taken off theirs, and nothing off the tap's. Of Airbyte's, five seconds
are its first wait between two looks at a job."""


def _without_start(tap: Side, slow: Side, start: Side) -> str:
    """What becomes of a ratio if only the slow side's start-up is taken off."""
    if slow.failure or start.failure or start.seconds >= slow.seconds:
        return ""
    rates = [slow.rows / (run.seconds - start.seconds) for run in slow.runs]
    return f" ({statistics.median(ratios(tap.rates(), rates)):.1f}x without its start-up)"


def _csv(bench: Bench, kind: str) -> Section:
    """Rows as RECORD messages from a CSV file, which may be gzip."""
    rows, few = bench.rows, bench.few
    whole, part, one = (bench.file(f"rows.{kind}", count) for count in (rows, few, 1))
    tap = bench.tap(whole.name, rows)
    polars = bench.peer(
        "polars_alone", "polars alone", rows, {"path": str(whole), "types": TYPES}, record=rb"\{"
    )
    plain = bench.plain("plain SDK tap", part, few)
    others = [plain]
    if kind == "csv":
        others += [
            bench.plain("plain SDK tap, msgspec", part, few, writer="msgspec"),
            bench.plain("the same without type conformance", part, few, writer="msgspec", conformance=False),
        ]

    def airbyte(path: Path, count: int) -> Side:
        config = {"base_url": bench.url, "file": path.name, "types": TYPES}
        record = rb'\{"type":"RECORD","record":\{"stream":"rows"'
        return bench.peer(
            "airbyte_cdk_async", "Airbyte CDK, typed, asynchronous", count, config, record=record, many=False
        )

    slow = airbyte(part, few)
    starts = [bench.plain("plain", one, 1), airbyte(one, 1)]
    section = Section(
        f"{'CSV' if kind == 'csv' else 'CSV in gzip'}, RECORD messages",
        FEWER + START,
        [tap, polars, *others, slow],
    )
    rounds(section.sides, bench.repeat)
    rounds(starts, min(bench.repeat, 3))
    name = "CSV" if kind == "csv" else "csv.gz"
    section.at_least(f"{name}: rows/s of a plain SDK tap", 40, _per_row(tap, plain))
    section.goals[-1].measured += _without_start(tap, plain, starts[0])
    section.at_least(f"{name}: rows/s of Airbyte's CDK", 100, _per_row(tap, slow))
    section.goals[-1].measured += _without_start(tap, slow, starts[1])
    section.at_most(f"{name}: time of polars alone", 1.8, _time(tap, polars))
    return section


def csv(bench: Bench) -> Section:
    """CSV."""
    return _csv(bench, "csv")


def gzip(bench: Bench) -> Section:
    """CSV in gzip."""
    return _csv(bench, "csv.gz")


def xlsx(bench: Bench) -> Section:
    """A workbook, for speed; and one with as many cells as 300,000 rows of 12 columns, for memory."""
    rows, few, many = bench.rows // 20, max(bench.rows // 100, 1), bench.rows * 9 // 100
    whole, part = (bench.file("rows.xlsx", count) for count in (rows, few))
    tap = bench.tap(whole.name, rows)
    bare = bench.peer(
        "fastexcel_alone", "fastexcel alone, cells as text", rows, {"path": str(whole)}, record=b""
    )
    title = "tap-spreadsheets-anywhere" if bench.checkout else "openpyxl alone, read-only"
    slow = bench.peer("spreadsheets_anywhere", title, few, {"path": str(part), "checkout": bench.checkout})
    large = {
        f"{many:,} rows": bench.file("rows.xlsx", many),
        f"{many:,} rows, moments with a zone as texts": bench.file("texts.xlsx", many),
    }
    words = FEWER
    if not bench.checkout:
        words += """ tap-spreadsheets-anywhere could not be fetched; in its place stands its engine alone,
            which is faster than it."""
    section = Section("XLSX, RECORD messages", words, [tap, bare, slow])
    rounds(section.sides, bench.repeat)
    section.at_least(f"XLSX: rows/s of {title}", 10, _per_row(tap, slow))
    for what, file in large.items():
        side = bench.tap(file.name, many, name=f"the tap, {what}").like(tap)
        section.sides.append(side)
        try:
            rounds([side], 1)
        except Failed as error:
            say(str(error))
            side.failure = str(error).partition("\n")[0]
        section.below(f"XLSX of {what}: peak memory of its larger process", 350, side)
    return section


def batch(bench: Bench) -> Section:
    """Rows as Parquet files."""
    rows, few = bench.rows, bench.few
    whole, part = bench.file("rows.csv", rows), bench.file("rows.csv", few)
    tap = bench.tap(whole.name, rows, "the tap, BATCH of Parquet", batches=True)
    plain = bench.plain("plain SDK tap, RECORD", part, few)
    own = bench.plain("plain SDK tap, BATCH of Parquet", whole, rows, batches=True)
    words = "Files of 10,000 rows, which is the default of both. " + FEWER
    section = Section("BATCH of Parquet from CSV", words, [tap, plain, own])
    rounds(section.sides, bench.repeat)
    section.at_least("BATCH: rows/s of a plain SDK tap's RECORD", 40, _per_row(tap, plain))
    section.at_least("BATCH: rows/s of the SDK's own BATCH", 6, _per_row(tap, own))
    return section


def postgres(bench: Bench) -> Section:
    """From the vendor into a table."""
    rows = bench.few
    file = bench.file("rows.csv", rows).name
    if not TARGET_POSTGRES.exists():
        raise Failed("target-postgres is not there; `make bench` installs it")
    with Database() as database:

        def side(name: str, tail: Callable[[Path], Commands], schema: str, *, batches: bool = False) -> Side:
            return bench.tap(
                file,
                rows,
                name,
                batches=batches,
                tail=tail,
                before=database.empty,
                after=lambda _: database.rows(f"{schema}.rows"),
            )

        def target(*, use_copy: bool) -> Callable[[Path], Commands]:
            config = database.settings | {"default_target_schema": "exports", "use_copy": use_copy}
            return lambda folder: [[str(TARGET_POSTGRES), "--config", save(folder, config, "target.json")]]

        def loader(folder: Path) -> Commands:
            return [bench.command("copy_loader", save(folder, {"url": database.url}, "target.json"))]

        sides = [
            side("RECORD, target-postgres", target(use_copy=False), "exports"),
            side("RECORD, target-postgres with use_copy", target(use_copy=True), "exports"),
            side("BATCH, target-postgres with use_copy", target(use_copy=True), "exports", batches=True),
            side("BATCH, COPY of each file", loader, "public", batches=True),
        ]
        section = Section(
            "End to end into PostgreSQL",
            """The tap, piped into a loader, until the rows are in the table. target-postgres takes a batch
            file apart into records again, whichever way it inserts them; the last side is a loader of
            some fifty lines (`peers/copy_loader.py`) that hands each file to COPY and appends. The peak
            is that of tap and loader, added up; the server's own is not in it.""",
            sides,
        )
        rounds(sides, min(bench.repeat, 3))
    record = sides[0]
    section.at_least("PostgreSQL: rows/s of RECORD, by BATCH and COPY", 5, _per_row(sides[3], record))
    section.at_least("PostgreSQL: the same, all by target-postgres", 5, _per_row(sides[2], record))
    return section


def growth(bench: Bench) -> Section:
    """Twice the rows."""
    size = max(bench.rows // 20, 1)
    block = bench.file("rows.block", size)
    one = bench.tap(bench.file("rows.csv", 1).name, 1, "1 row")
    steps = [1, 2, 4, 8, 16, 32, 64, 100]
    sides = [bench.tap(f"{block.name}*{n}", size * n, f"{size * n:,} rows") for n in steps]
    section = Section(
        "Twice the rows, twice the time",
        """CSV. The time for one row is start-up, and is taken off before sizes are compared; the largest,
        which is less than twice the one before, is compared by time a row as all are. What is short varies
        more, and so was run three times as often.""",
        [one, *sides],
    )
    one.try_once()
    for side in sides:
        side.like(one)
    times = min(bench.repeat, 3)
    rounds(section.sides[:6], 2 * times)
    rounds(section.sides, times)
    lines = [f"{'rows':>12}   time a row, and processor time a row, of those with the size before"]
    changes = []
    for small, large in pairwise(sides):
        scale = small.rows / large.rows
        change = scale * (large.seconds - one.seconds) / (small.seconds - one.seconds)
        work = scale * (large.processor - one.processor) / (small.processor - one.processor)
        changes.append(change)
        lines.append(f"{large.rows:>12,} {change:>12.3f} {work:>12.3f}")
    section.text = "\n".join(lines)
    worst = max(changes, key=lambda change: abs(change - 1))
    section.goals.append(
        Goal(
            f"{size:,} to {100 * size:,} rows: time a row of twice the rows",
            "within 5 %",
            f"{worst - 1:+.1%} at worst",
            abs(worst - 1) <= 0.05,
        )
    )
    return section


def memory(bench: Bench) -> Section:
    """A small file and a large one."""
    block = bench.file("rows.block", 50_000)
    bytes_ = block.stat().st_size
    sides = []
    for wanted in (10**7, 10**10 if bench.huge else 10**9):
        times = max(round(wanted / bytes_), 1)
        name = f"the tap, {times * bytes_ / 1e9:.2f} GB" if times > 1 else f"the tap, {bytes_ / 1e6:.0f} MB"
        sides.append(bench.tap(f"{block.name}*{times}", 50_000 * times, name))
    section = Section(
        "Memory does not grow with the file",
        "CSV; the large file is the small one's rows, sent again and again. "
        + ("" if bench.huge else "With `--huge` it has 10 GB."),
        sides,
    )
    rounds(sides[:1], bench.repeat)
    rounds([sides[1].like(sides[0])], 1)
    small, large = (statistics.median(run.peak for run in side.runs) / MIB for side in sides)
    section.goals.append(
        Goal(
            f"peak memory of {sides[1].name.partition(', ')[2]} against {sides[0].name.partition(', ')[2]}",
            "within 10 %",
            f"{large / small - 1:+.1%}",
            abs(large / small - 1) <= 0.1,
        )
    )
    section.below("peak memory of a CSV file", 300, sides[1])
    return section


def startup(bench: Bench) -> Section:
    """Until the tap has said or asked something."""
    file = bench.file("rows.csv", 1).name
    path = bench.file("rows.csv", 1)

    def tap(name: str, *options: str) -> Side:
        def commands(folder: Path) -> Commands:
            return [[TAP, *options, "--config", save(folder, bench.tap_config(folder, file))]]

        return Side(name, 0, commands, record=rb"$.")

    sdk = Side("import singer_sdk", 0, lambda _: [[sys.executable, "-c", "import singer_sdk"]], record=rb"$.")
    shown, discovered = tap("--help", "--help"), tap("--discover", "--discover")
    asked = bench.tap(path.name, 1, "until the first request")
    section = Section(
        "Start-up",
        """The last line is the time until the vendor gets the first request, as the vendor's clock has it,
        which is the same machine's.""",
    )
    sides = [sdk, shown, discovered]
    for side in (*sides, asked):
        side.try_once()
    firsts: list[float] = []
    for _ in range(max(bench.repeat, 1)):
        for side in sides:
            side.measure()
        _first(bench)
        began = time.monotonic()
        asked.measure()
        firsts.append(_first(bench) - began)
    columns = [(side.name, [run.seconds for run in side.runs], side.peak) for side in sides]
    columns.append((asked.name, firsts, asked.peak))
    section.text = "\n".join(
        f"{name:<26} {statistics.median(times):6.3f} s   {min(times):.3f} to {max(times):.3f} s   "
        f"{peak / MIB:4.0f} MiB"
        for name, times, peak in columns
    )
    base = columns[0][1]
    for name, times, _ in columns[1:]:
        more = [one - other for one, other in zip(times, base, strict=True)]
        section.at_most(f"start-up, {name}: more than `import singer_sdk`", 0.3, more, " s")
    return section


def _first(bench: Bench) -> float:
    """When the vendor had its first request since it was last asked."""
    with urllib.request.urlopen(f"{bench.url}/first") as answer:
        return float(json.load(answer)["first"] or 0)


def maps(bench: Bench) -> Section:
    """Records that a stream map changes, which the SDK makes one by one."""
    rows = bench.few
    path = bench.file("rows.csv", rows)
    extra = {"stream_maps": {"rows": {"extra": "1"}}}
    tap = bench.tap(path.name, rows, "the tap", top=extra)
    plain = bench.plain("plain SDK tap, msgspec", path, rows, writer="msgspec", **extra)
    bare = bench.plain(
        "the same without type conformance", path, rows, writer="msgspec", conformance=False, **extra
    )
    section = Section(
        "Stream maps",
        'CSV, with `stream_maps` of `{"rows": {"extra": "1"}}`; the same rows on all sides.',
        [tap, plain, bare],
    )
    rounds(section.sides, bench.repeat)
    section.at_most("stream maps: time of a plain SDK tap with msgspec", 1, _time(tap, plain))
    return section


def stages(bench: Bench) -> Section:
    """Where the time goes."""
    path = bench.file("rows.csv", bench.rows)
    parts = []
    for name, batches in (("RECORD messages", False), ("BATCH of Parquet", True)):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            config = bench.tap_config(folder, path.name)
            if batches:
                config["batch_config"] = _parquet(folder)
            found = folder / "stages.txt"
            program = [sys.executable, str(HERE / "stages.py"), str(bench.rows), str(found)]
            pipe([[*program, "--config", save(folder, config)]], lambda *_: None, folder)
            parts.append(f"{name}\n{found.read_text()}")
    return Section(
        "Where the time goes",
        f"""CSV of {bench.rows:,} rows. Microseconds of the processor a row: of each thread, and of the
        functions in it that take most by themselves. What `stages.py` prints; it says what that means.""",
        text="\n".join(parts),
    )


def waiting(bench: Bench) -> Section:
    """The other benchmark."""
    command = [sys.executable, str(HERE / "waiting.py"), "--repeat", str(min(bench.repeat, 3))]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return Section("Waiting", "What `waiting.py` prints; it says what that means.", text=run.stdout)


SECTIONS: dict[str, Callable[[Bench], Section]] = {
    each.__name__: each
    for each in (waiting, startup, csv, gzip, xlsx, batch, stages, maps, growth, memory, postgres)
}


def environment() -> Iterator[str]:
    """What it ran on, and with: nothing that names the machine or its folders."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    total = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB)
    yield f"- Processor: {cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    yield f"- Memory: {total:,} MiB; {platform.system()} {platform.release()}"
    names = ("polars", "pyarrow", "isal", "msgspec", "singer-sdk", "requests")
    yield (
        f"- Python {platform.python_version()}; the tap {version('tap-analytics-exports')} with "
        + ", ".join(f"{name} {version(name)}" for name in names)
    )
    pins = {
        " ".join(pin)
        for script in (HERE / "peers").glob("*.py")
        for line in script.read_text().splitlines()
        if line.startswith("# ")
        for pin in re.findall(r'"([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)"', line)
    }
    yield "- The others: " + ", ".join(sorted(pins))


def report(sections: Sequence[Section], failures: Sequence[str], asked: argparse.Namespace) -> str:
    """The results, as Markdown."""
    lines = ["# How fast the tap is", "", f"{datetime.now(UTC):%Y-%m-%d}, by `make bench`.", ""]
    lines += [*environment(), ""]
    lines += [
        f"{asked.repeat} rounds (3 at most where files grow, and into PostgreSQL), in each of which all",
        "sides of a comparison ran once, one after the other, as whole processes whose output was read",
        "through a pipe. Ratios are the median of the rounds' own.",
        "",
    ]
    goals = [goal for section in sections for goal in section.goals]
    if goals:
        lines += ["## Goals", "", "| goal | wanted | measured | |", "|---|---:|---:|---|"]
        for goal in goals:
            lines.append(
                f"| {goal.words} | {goal.wanted} | {goal.measured} | {'met' if goal.met else '**not met**'} |"
            )
        lines.append("")
    for section in sections:
        lines += section.lines()
    if failures:
        lines += ["## What could not be measured", "", *(f"- {words}" for words in failures), ""]
    return "\n".join(lines)


@contextmanager
def vendor(folder: Path) -> Iterator[int]:
    """The server of the files; its port."""
    command = [sys.executable, str(HERE / "vendor.py"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def checkout(folder: Path) -> str | None:
    """tap-spreadsheets-anywhere, if it can be fetched."""
    place = str(folder / "tap-spreadsheets-anywhere")
    for command in (
        ["git", "clone", "--quiet", REPOSITORY, place],
        ["git", "-C", place, "checkout", "--quiet", REVISION],
    ):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
    return place


def main() -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"some of {','.join(SECTIONS)}")
    parser.add_argument(
        "--rows", type=int, default=ROWS, help="of the CSV; all sizes follow from it (%(default)s)"
    )
    parser.add_argument("--repeat", type=int, default=REPEAT, help="rounds (%(default)s)")
    parser.add_argument("--huge", action="store_true", help="compare memory with a CSV of 10 GB, not 1 GB")
    parser.add_argument(
        "--spreadsheets-anywhere", metavar="FOLDER", help=f"a checkout of {REPOSITORY}; none: it is fetched"
    )
    parser.add_argument("--output", type=Path, help="where the results go; none: see above")
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"--only: there is no {', '.join(unknown)}")
    short = asked.only or (asked.rows, asked.repeat) != (ROWS, REPEAT)
    output = asked.output or (None if short else RESULTS)
    sections: list[Section] = []
    failures: list[str] = []
    text = ""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = asked.spreadsheets_anywhere
        if place is None and "xlsx" in names:
            place = checkout(folder)
        port = stack.enter_context(vendor(folder))
        bench = Bench(folder, asked.rows, asked.repeat, asked.huge, place, port)
        for name in names:
            say(name)
            try:
                sections.append(SECTIONS[name](bench))
            except (Failed, subprocess.CalledProcessError, OSError) as error:
                say(str(error))
                words = str(error).partition("\n")[0] if isinstance(error, Failed) else type(error).__name__
                failures.append(f"{name}: {words}")
            text = report(sections, failures, asked)
            if output:  # after each comparison, as all of them take long
                output.write_text(text)
    print(text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
