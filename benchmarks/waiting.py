"""How long the tap waits, beside how long anyone would have to.

    python benchmarks/waiting.py

Some streams of each of four providers of the sandbox have some windows each. A job of one takes some seconds,
and a provider runs as many at once as its cap says, so nobody can be done before jobs * seconds / cap. The
tap's wall time stands beside that, start-up aside, and beside a program that triggers one job, waits for it
and downloads it, and only then goes on to the next. Besides: the processor time that the tap takes while it
does nothing but wait, looking at its jobs as often as it does by default.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import requests

from tap_analytics_exports.errors import NoData
from tap_analytics_exports.providers import installed
from tap_analytics_exports.providers.base import Request, Running
from tap_analytics_exports.settings import DAY, decode
from tap_analytics_exports.transport.download import download
from tap_analytics_exports.windows import Grid, to_do

BIN = Path(sys.executable).parent
TAP, SANDBOX = BIN / "tap-analytics-exports", BIN / "tap-analytics-exports-sandbox"

PROVIDERS = ("flex_insights", "intelepeer", "khoros_care", "giosg")
"""Those whose exports have windows. A job of giosg's is an answer that takes its time."""

DAYS = 4
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=DAYS)
UTC_ZONE = ZoneInfo("UTC")

Config = dict[str, Any]


class Sandbox:
    """The vendors, whose jobs take so many seconds."""

    def __init__(self, folder: Path, seconds: float) -> None:
        command = [
            str(SANDBOX),
            "--port",
            "0",
            "--dir",
            str(folder),
            "--rows",
            "100",
            "--job-seconds",
            str(seconds),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.config: Config = json.loads("".join(iter(self.process.stdout.readline, "}\n")) + "}")
        self.control = json.loads((folder / "control.json").read_text())["control"]
        self.post("settings", {"giosg_seconds": seconds})

    def get(self, what: str) -> Any:
        """Ask the control API."""
        return requests.get(f"{self.control}/{what}", timeout=10).json()

    def post(self, what: str, body: object) -> None:
        """Tell the control API."""
        requests.post(f"{self.control}/{what}", json=body, timeout=10).raise_for_status()


@contextmanager
def running(seconds: float) -> Iterator[Sandbox]:
    """A sandbox, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder), seconds)
        try:
            yield sandbox
        finally:
            sandbox.process.send_signal(signal.SIGTERM)
            sandbox.process.wait(10)


def configuration(sandbox: Sandbox, streams: int, cap: int) -> Config:
    """So many streams of each provider, of so many windows each."""
    config = {
        "start_date": START.isoformat(),
        "end_date": TODAY.isoformat(),
        "poll_interval": sandbox.config["poll_interval"],
        "poll_interval_max": sandbox.config["poll_interval_max"],
    }
    for name in PROVIDERS:
        block = copy.deepcopy(sandbox.config[name])
        first = block["exports"][0]
        for setting in ("start_date", "timezone"):
            first.pop(setting, None)
        block["exports"] = [{**first, "name": f"{name}_{i}"} for i in range(streams)]
        block["max_concurrent_exports"] = cap
        block["requests_per_minute"] = 6000
        config[name] = block
    return config


def run(config: Config, *options: str) -> float:
    """The wall seconds of a run of the tap, with nothing remembered from any before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps({**config, "ledger": str(Path(folder, "ledger")), "spool_dir": folder}))
        began = time.monotonic()
        subprocess.run([TAP, "--config", path, *options], check=True, capture_output=True)
        return time.monotonic() - began


def sequential(config: Config, folder: Path) -> float:
    """The wall seconds of a program that does one thing after the other, and never two at once."""
    settings = decode(config, {name: installed()[name].settings_type for name in PROVIDERS})
    pause = settings.poll_interval.total_seconds()
    began = time.monotonic()
    for name, block in settings.providers.items():
        provider = installed()[name](block)
        for export in block.all_exports:
            for day in to_do(Grid(DAY, UTC_ZONE, START), bookmark=None, lookback=DAY * 0, end=TODAY):
                request = Request(export, day, None, "", uuid.uuid4().hex)
                handle = provider.submit(request)
                while isinstance(provider.poll(request, handle), Running):
                    time.sleep(pause)
                for remote in provider.files(request, handle):
                    with suppress(NoData):
                        download(remote, folder / "file")
        provider.close()
    return time.monotonic() - began


def processor_share(config: Config, sandbox: Sandbox, seconds: float) -> float:
    """The share of one core that the tap takes while each of its jobs is under way and none is ready."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps({**config, "ledger": str(Path(folder, "ledger")), "spool_dir": folder}))
        sandbox.post("reset", None)
        sandbox.post("settings", {"giosg_seconds": 2 * seconds, "job_seconds": 2 * seconds})
        wanted = len(PROVIDERS) * config[PROVIDERS[0]]["max_concurrent_exports"]
        with subprocess.Popen(
            [TAP, "--config", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as tap:
            while len(sandbox.get("jobs")) < wanted:
                time.sleep(0.2)
            time.sleep(1)
            before = processor_seconds(tap.pid)
            time.sleep(seconds)
            used = processor_seconds(tap.pid) - before
            tap.kill()
    return used / seconds


def processor_seconds(process: int) -> float:
    """What a process has used of the processor so far."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=2, help="of each provider (%(default)s)")
    parser.add_argument("--cap", type=int, default=2, help="jobs that a provider runs at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="that a job takes (%(default)s)")
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs, of which the median counts (%(default)s)"
    )
    parser.add_argument(
        "--wait", type=float, default=60.0, help="seconds of waiting to measure (%(default)s)"
    )
    asked = parser.parse_args()
    jobs = asked.streams * DAYS
    ideal = math.ceil(jobs / asked.cap) * asked.seconds
    with running(asked.seconds) as sandbox, tempfile.TemporaryDirectory() as folder:
        config = configuration(sandbox, asked.streams, asked.cap)
        started = statistics.median(
            run({**config, "end_date": config["start_date"]}) for _ in range(asked.repeat)
        )
        took = statistics.median(run(config) for _ in range(asked.repeat))
        plain = sequential(config, Path(folder))
        patient = {name: value for name, value in config.items() if not name.startswith("poll_interval")}
        share = processor_share(patient, sandbox, asked.wait)
    print(
        f"{len(PROVIDERS)} providers of {asked.streams} streams of {DAYS} windows, so {jobs} jobs a provider"
    )
    print(f"of {asked.seconds:g} s, {asked.cap} at once, {config['poll_interval']} between the first looks")
    print(f"  ideal             {ideal:7.1f} s   {jobs} x {asked.seconds:g} s / {asked.cap}")
    print(f"  start-up          {started:7.1f} s   a run with nothing to do")
    print(f"  the tap           {took:7.1f} s   {(took - started) / ideal:.2f} of the ideal, start-up aside")
    print(f"  one by one        {plain:7.1f} s   {plain / ideal:.2f} of the ideal")
    print(f"  processor         {share:7.2%}     of a core while waiting, looking as often as by default")


if __name__ == "__main__":
    main()
