"""Runs programs and measures them from outside: wall time, peak memory, and whether they did their work.

It imports nothing large, because a process starts with the peak memory of the one that starts it.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
Commands = list[list[str]]


class Failed(Exception):
    """A program that did not do what it was run for, so that its time means nothing."""


HALF = {
    "id": "integer",
    "quantity": "integer",
    "ratio": "number",
    "amount": "decimal",
    "active": "boolean",
    "day": "date",
    "created_at": "timestamp",
    "local_time": "timestamp",
    "label": "string",
    "comment": "string",
}
"""The column types of half of the columns; the other half has the same, with other values."""


@dataclass
class Run:
    """What one run took.

    Attributes:
        seconds: From before it was started until it, and all that it pipes into, had ended.
        peak: Bytes of memory at the peak of its processes, added up.
        processor: Seconds of the processor that its processes took, added up.
    """

    seconds: float
    peak: int
    processor: float


@dataclass
class Side:
    """One of those that are compared.

    Attributes:
        name: What the tables call it.
        rows: How many it has to write.
        commands: For a fresh folder, the programs of a pipe, each with its arguments.
        record: A pattern for the lines that are rows.
        many: The lines besides are as many in each run, so that it is enough to count all lines.
        before: Called before each run.
        after: Called after each run; says how many rows have arrived, if the lines don't.
        runs: What was measured.
        lines: How many it writes, once that is known.
        failure: Why nothing could be measured.
    """

    name: str
    rows: int
    commands: Callable[[Path], Commands]
    record: bytes = rb'\{"type": ?"RECORD", ?"stream": ?"rows"'
    many: bool = True
    before: Callable[[], object] = lambda: None
    after: Callable[[Path], int | None] = lambda _: None
    runs: list[Run] = field(default_factory=list)
    lines: int | None = None
    failure: str = ""

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def peak(self) -> int:
        """The highest."""
        return max(run.peak for run in self.runs)

    @property
    def processor(self) -> float:
        """The median."""
        return statistics.median(run.processor for run in self.runs)

    def rates(self) -> list[float]:
        """Rows a second of each run."""
        return [self.rows / run.seconds for run in self.runs]

    def like(self, other: Side) -> Self:
        """Take over how many lines there are besides the rows, so that it need not be tried."""
        assert other.lines is not None
        self.lines = self.rows + other.lines - other.rows
        return self

    def try_once(self) -> None:
        """Run it unmeasured: files get into the cache, and each line is looked at."""
        lines = _Lines(self.record)
        _, arrived = self._run(lines.take)
        found = lines.found if arrived is None else arrived
        if found != self.rows:
            raise Failed(f"{self.name}: {self.rows} rows were expected, {found} came")
        self.lines = lines.total

    def measure(self) -> None:
        """Run it, measured, and see whether it writes the same again."""
        lines = _Lines(None if self.many else self.record)
        run, arrived = self._run(lines.take)
        if arrived is not None:
            whole = arrived == self.rows
        elif self.many:
            whole = lines.total == self.lines
        else:
            whole = lines.found == self.rows
        if not whole:
            raise Failed(f"{self.name}: a run has not written what the first one wrote")
        self.runs.append(run)

    def _run(self, read: Callable[[bytearray, int], None]) -> tuple[Run, int | None]:
        self.before()
        with tempfile.TemporaryDirectory() as folder:
            commands = self.commands(Path(folder))
            run = pipe(commands, read, Path(folder))
            return run, self.after(Path(folder))


def pipe(commands: Commands, read: Callable[[bytearray, int], None], folder: Path) -> Run:
    """Run a pipe of programs, and read what the last one writes to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {"XDG_STATE_HOME": str(folder), "TZ": "UTC"}
    logs = [folder / f"{i}.log" for i in range(len(commands))]
    processes: list[subprocess.Popen[bytes]] = []
    buffer = bytearray(MIB)
    began = time.monotonic()
    for command, log in zip(commands, logs, strict=True):
        source = processes[-1].stdout if processes else subprocess.DEVNULL
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdin=source, stdout=subprocess.PIPE, stderr=errors, cwd=folder, env=environment
            )
        if processes and processes[-1].stdout:
            processes[-1].stdout.close()
        processes.append(process)
    last = processes[-1].stdout
    assert last is not None
    with last:
        while size := os.readv(last.fileno(), [buffer]):
            read(buffer, size)
    peak, processor = 0, 0.0
    for process, command, log in zip(processes, commands, logs, strict=True):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak += usage.ru_maxrss * 1024
        processor += usage.ru_utime + usage.ru_stime
        if process.returncode:
            words = log.read_text(errors="replace")[-3000:]
            raise Failed(f"{Path(command[0]).name} ended with {process.returncode}\n{words}")
    seconds = time.monotonic() - began
    return Run(seconds, peak, processor)


class _Lines:
    """Counts the lines of a stream, and those that a pattern fits; keeps none, so as to stay small."""

    def __init__(self, pattern: bytes | None) -> None:
        self.total = self.found = 0
        self._pattern = None if pattern is None else re.compile(pattern)
        self._rest = b""

    def take(self, buffer: bytearray, size: int) -> None:
        """What comes next: so many bytes of a buffer."""
        if self._pattern is None:
            self.total += buffer.count(b"\n", 0, size)
            return
        *lines, self._rest = (self._rest + buffer[:size]).split(b"\n")
        self.total += len(lines)
        self.found += sum(1 for line in lines if self._pattern.match(line))


def rounds(sides: Sequence[Side], times: int) -> None:
    """Each side once unmeasured, where it has not been tried, then all of them in turn, so many times.

    Sides that fail the first time, other than the first one, are left out.
    """
    for side in sides:
        try:
            if side.lines is None:
                side.try_once()
        except Failed as error:
            if side is sides[0]:
                raise
            say(str(error))
            side.failure = str(error).partition("\n")[0]
    for number in range(times):
        for side in sides:
            if side.failure:
                continue
            side.measure()
            say(f"  {number + 1}/{times}  {side.name}: {side.runs[-1].seconds:.2f} s")


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """How a compares with b, round by round."""
    return [one / other for one, other in zip(a, b, strict=True)]


def say(words: str) -> None:
    """To whom is waiting."""
    print(words, file=sys.stderr, flush=True)


def save(folder: Path, config: object, name: str = "config.json") -> str:
    """Write a configuration; its path."""
    path = folder / name
    path.write_text(json.dumps(config))
    return str(path)
