"""Runs programs and measures them from outside: time, memory, and whether they wrote all rows."""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import polars as pl

MIB = 1 << 20
SAMPLE_SECONDS = 0.02
TAP = (str(Path(sys.executable).with_name("tap-analytics-exports")),)
RECORD = b'"RECORD","stream":"rows"'
NO_ROW = b"\0"

Config = dict[str, Any]


class Failed(Exception):
    """A program that did not do what it was run for, so that its time means nothing."""


@dataclass
class Run:
    """What all processes of a run took, from before the start until they have ended.

    The peak is the most resident memory that they were seen to have together, in bytes.
    """

    seconds: float
    processor: float
    peak: int


def _parquet_rows(folder: Path) -> int:
    return int(pl.scan_parquet(folder / "batches/**/*.parquet").select(pl.len()).collect().item())


@dataclass
class Side:
    """One of the programs that are compared: what it is, what it has to write, and what was measured.

    Its command line ends with `--config` and the file of its configuration, if it takes one. Batches are
    of Parquet, in the folder `batches`. A loader is a program with its configuration that the output goes to.
    The rows are counted by a marker that each has once in the output; those of batches, and those that a
    loader takes, by `arrived` after each run.
    """

    name: str
    rows: int
    program: Sequence[str] = TAP
    config: Config | None = None
    marker: bytes = RECORD
    batches: bool = False
    loader: tuple[Sequence[str], Config] | None = None
    before: Callable[[], object] = lambda: None
    arrived: Callable[[Path], int] = _parquet_rows
    runs: list[Run] = field(default_factory=list)

    @property
    def times(self) -> list[float]:
        return [run.seconds for run in self.runs]

    @property
    def seconds(self) -> float:
        return statistics.median(self.times)

    @property
    def peak(self) -> float:
        """The highest of all runs, in MiB."""
        return max(run.peak for run in self.runs) / MIB

    def run(self) -> Run:
        """Run it once, in a fresh folder; Failed if it ends badly or has not written all rows."""
        self.before()
        with tempfile.TemporaryDirectory() as name:
            folder, command = Path(name), shlex.join(self.program)
            if self.config is not None:
                storage = {"root": (folder / "batches").as_uri()}
                batches = {"batch_config": {"encoding": {"format": "parquet"}, "storage": storage}}
                (folder / "config.json").write_text(
                    json.dumps(self.config | (batches if self.batches else {}))
                )
                command += " --config config.json"
            if self.loader:
                (folder / "loader.json").write_text(json.dumps(self.loader[1]))
                command += f" | {shlex.join(self.loader[0])} --config loader.json"
            run, found = _measured(command, folder, self.marker)
            if self.batches or self.loader:
                found = self.arrived(folder)
        if found != self.rows:
            raise Failed(f"{self.name}: {self.rows} rows were expected, {found} came")
        return run


def _measured(command: str, folder: Path, marker: bytes) -> tuple[Run, int]:
    """Run a command of the shell, and count a marker in what it writes."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {"XDG_STATE_HOME": str(folder), "TMPDIR": str(folder), "TZ": "UTC"}
    ended, errors = threading.Event(), folder / "errors.log"
    began = time.monotonic()
    with errors.open("wb") as log:
        shell = ["bash", "-o", "pipefail", "-c", command]
        process = subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=log, cwd=folder, env=environment)
    assert process.stdout is not None
    with ThreadPoolExecutor(1) as pool, process.stdout as output:
        peak = pool.submit(_peak, process.pid, ended)
        found = _count(output, marker)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        ended.set()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        log_end = errors.read_text(errors="replace")[-3000:]
        raise Failed(f"{shlex.split(command)[0]} ended with {process.returncode}\n{log_end}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak.result()), found


def _count(output: IO[bytes], marker: bytes) -> int:
    """Read to the end; how often a marker is in it."""
    found, rest = 0, b""
    while chunk := os.read(output.fileno(), MIB):
        rest += chunk
        found += rest.count(marker)
        rest = rest[len(rest) - len(marker) + 1 :]
    return found


def _peak(process: int, ended: threading.Event) -> int:
    """The most memory that a process and those that it starts are seen to have until it ends."""
    peak = 0
    while not ended.wait(SAMPLE_SECONDS):
        peak = max(peak, _resident(process))
    return peak


def _resident(process: int) -> int:
    """The bytes of resident memory of a process and of all that it has started; 0 once it has gone."""
    place = Path("/proc", str(process))
    try:
        pages = int((place / "statm").read_text().split()[1])
        children = "".join(path.read_text() for path in place.glob("task/*/children")).split()
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident(int(child)) for child in children)


def rounds(sides: Sequence[Side], times: int) -> None:
    """Run all sides in turn, so many times, after a first round that fills the caches and is not counted.

    A side that fails in that first round, other than the first one, is left out.
    """
    able = []
    for side in sides:
        try:
            side.run()
            able.append(side)
        except Failed as error:
            if side is sides[0]:
                raise
            say(str(error))
    for number in range(times):
        for side in able:
            side.runs.append(side.run())
            say(f"  {number + 1}/{times}  {side.name}: {side.times[-1]:.2f} s")


def say(line: str) -> None:
    """Tell whoever is waiting."""
    print(line, file=sys.stderr, flush=True)
