"""What was measured, as Markdown."""

import math
import os
import platform
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from measure import MIB, Side

LIBRARIES = ("polars", "pyarrow", "python-calamine", "isal", "msgspec", "singer-sdk", "requests")
SIDES = """\
| | rows | median | rows/s | fastest to slowest | processor | peak |
|---|---:|---:|---:|---:|---:|---:|"""
GOALS = """\
| goal | wanted | measured | |
|---|---:|---:|---|"""


@dataclass
class Section:
    """A comparison: its sides, how it went with its goals, and what else there is to tell."""

    title: str
    intro: str
    sides: Sequence[Side] = ()
    text: str = ""
    goals: list[str] = field(default_factory=list)

    def goal(
        self, what: str, found: Sequence[float], unit: str = "x", more: str = "", **bound: float
    ) -> None:
        """Hold the median of what was found, if anything was, against a bound: `least` or `most`."""
        middle = statistics.median(found) if found else math.nan
        met = bound.get("least", -math.inf) <= middle <= bound.get("most", math.inf)
        wanted = "".join(f"at {name} {value:g}{unit}" for name, value in bound.items())
        measured = f"{middle:.4g}{unit}{more}" if found else "not measured"
        self.goals.append(f"| {what} | {wanted} | {measured} | {'met' if met else '**not met**'} |")

    def lines(self) -> Iterator[str]:
        yield from (f"## {self.title}", "", " ".join(self.intro.split()), "")
        if self.sides:
            yield from (SIDES, *map(_row, self.sides), "")
        if self.text:
            yield from ("```", self.text.rstrip(), "```", "")


def _row(side: Side) -> str:
    if not side.runs:
        return f"| {side.name} | {side.rows:,} | not measured | | | | |"
    processor = statistics.median(run.processor for run in side.runs)
    return (
        f"| {side.name} | {side.rows:,} | {side.seconds:.2f} s | {side.rows / side.seconds:,.0f} "
        f"| {min(side.times):.2f} to {max(side.times):.2f} s | {processor:.2f} s | {side.peak:.0f} MiB |"
    )


def _environment() -> Iterator[str]:
    """What it ran on, and with: nothing that names the machine or its folders."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    yield f"- {cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores, {total:,} MiB"
    own = ", ".join(f"{name} {version(name)}" for name in ("tap-analytics-exports", *LIBRARIES))
    yield f"- {platform.system()} {platform.release()}, Python {platform.python_version()}, {own}"
    scripts = "".join(path.read_text() for path in Path(__file__).parent.glob("peers/*.py"))
    pins = {" ".join(pin) for pin in re.findall(r'"([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)"', scripts)}
    yield "- The others: " + ", ".join(sorted(pins))


def report(sections: Sequence[Section], failures: Sequence[str], repeat: int) -> str:
    """All of it."""
    intro = f"""{repeat} rounds (3 at most where files grow, and into PostgreSQL), in each of which all sides
of a comparison ran once, one after the other, as whole processes whose output was read through a pipe. Ratios
are the median of the rounds' own. A peak is the most resident memory that a side's processes had together."""
    lines = ["# How fast the tap is", "", f"{datetime.now(UTC):%Y-%m-%d}, by `make bench`.", ""]
    lines += [*_environment(), "", intro, "", "## Goals", "", GOALS]
    lines += [goal for section in sections for goal in section.goals]
    for section in sections:
        lines += ["", *section.lines()][:-1]
    if failures:
        lines += ["", "## What could not be measured", "", *(f"- {failure}" for failure in failures)]
    return "\n".join(lines) + "\n"
