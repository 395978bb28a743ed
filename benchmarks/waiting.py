"""How long the tap waits, beside how long anyone would have to.

Some streams of each of four providers of the sandbox have some windows each. A job of one takes some seconds,
and a provider runs as many at once as its cap says, so nobody can be done before jobs * seconds / cap. The
tap's wall time stands beside that, start-up aside, and beside that of one provider after the other and one
job at a time. Besides: the processor time that the tap takes for each second by which jobs take longer, when
it polls them as often as by default.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from measure import NO_ROW, Config, Run, Side

PROVIDERS = ("flex_insights", "intelepeer", "khoros_care", "giosg")
"""Those whose exports have windows. A job of giosg's is an answer that takes its time."""

STREAMS, DAYS, CAP, SECONDS, LONG_SECONDS = 2, 4, 2, 6, 60


@contextmanager
def _sandbox() -> Iterator[tuple[Config, str]]:
    """The vendors: a configuration of the tap for them, and their control API."""
    command = [str(Path(sys.executable).with_name("tap-analytics-exports-sandbox")), "--port=0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [*command, "--dir", folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process,
    ):
        assert process.stdout is not None
        try:
            config = json.loads(b"".join(iter(process.stdout.readline, b"}\n")) + b"}")
            yield config, json.loads(Path(folder, "control.json").read_text())["control"]
        finally:
            process.terminate()


def _configuration(given: Config, days: int) -> Config:
    """So many streams of each provider, of so many windows each."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    config: Config = {"start_date": (today - timedelta(days=days)).isoformat(), "end_date": today.isoformat()}
    for name in PROVIDERS:
        first = dict(given[name]["exports"][0])
        for setting in ("start_date", "timezone"):
            first.pop(setting, None)
        exports = [{**first, "name": f"{name}_{i}"} for i in range(STREAMS)]
        more = {"exports": exports, "max_concurrent_exports": CAP, "requests_per_minute": 6000}
        config[name] = {**given[name], **more}
    return config


def report(repeat: int) -> str:
    """Measure, and say what came out."""
    with _sandbox() as (given, control):

        def run(config: Config, seconds: float = SECONDS) -> Run:
            """A run, the jobs of which take so many seconds."""
            knobs = {"job_seconds": seconds, "giosg_seconds": seconds}
            requests.post(f"{control}/settings", json=knobs, timeout=10).raise_for_status()
            return Side("waiting", 0, config=config, marker=NO_ROW).run()

        polls = {setting: given[setting] for setting in ("poll_interval", "poll_interval_max")}
        all_days = _configuration(given, DAYS) | polls
        started = statistics.median(run(_configuration(given, 0)).seconds for _ in range(repeat))
        took = statistics.median(run(all_days).seconds for _ in range(repeat))
        single = 0.0
        for name in PROVIDERS:
            others = {other: None for other in PROVIDERS if other != name}
            alone = {name: {**all_days[name], "max_concurrent_exports": 1}}
            single += run({key: value for key, value in (all_days | others | alone).items() if value}).seconds
        # With one window of a stream all of a provider's jobs are under way at once.
        short, long = (run(_configuration(given, 1), seconds) for seconds in (SECONDS, LONG_SECONDS))
        share = (long.processor - short.processor) / (long.seconds - short.seconds)
    jobs, ideal = STREAMS * DAYS, STREAMS * DAYS / CAP * SECONDS
    return f"""\
{len(PROVIDERS)} providers of {STREAMS} streams of {DAYS} windows, so {jobs} jobs a provider
of {SECONDS} s, {CAP} at once, {polls["poll_interval"]} between the first polls
  ideal             {ideal:7.1f} s   {jobs} x {SECONDS} s / {CAP}
  start-up          {started:7.1f} s   a run with nothing to do
  the tap           {took:7.1f} s   {(took - started) / ideal:.2f} of the ideal, start-up aside
  one by one        {single:7.1f} s   {single / ideal:.2f} of the ideal
  processor         {share:7.2%}     of a core while waiting, polling as often as by default
"""
