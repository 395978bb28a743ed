"""What 10,000 windows of a provider cost: the real planner and rate limiter, and a clock of their own.

A vendor is played whose jobs take some time, at each provider's limits; nobody really waits. Each verb counts
as one request, as it is one to the vendors (a login apart), and a window's download as one more.

    python benchmarks/ten_thousand_windows.py [--windows 1000]
"""

from __future__ import annotations

import argparse
import heapq
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from tap_analytics_exports.jobs import job, lanes, runner, schedule
from tap_analytics_exports.providers import installed
from tap_analytics_exports.providers.base import JobState, Provider, Ready, Request, Running
from tap_analytics_exports.spark import chosen, planner
from tap_analytics_exports.transport import rate_limiter

START = datetime(2026, 1, 1, tzinfo=UTC)

LATENCY = 0.3
"""Seconds until a vendor answers."""


class Clock:
    """Time that passes when all threads that were started by it wait."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.now = 0.0
        self.busy = 0
        self.waiting: list[float] = []

    def sleep(self, seconds: float) -> None:
        with self.changed:
            until = self.now + max(seconds, 0.001)
            heapq.heappush(self.waiting, until)
            self.busy -= 1
            while self.now < until:
                if self.busy == 0:
                    self.now = heapq.heappop(self.waiting)
                    # Whoever wakes now is busy again before anybody else may look.
                    self.busy += 1
                    while self.waiting and self.waiting[0] <= self.now:
                        heapq.heappop(self.waiting)
                        self.busy += 1
                    self.changed.notify_all()
                else:
                    self.changed.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=10_000)
    count = parser.parse_args().windows
    print("| provider | at once | a minute | job takes | jobs | requests | most in a minute | hours |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, most, rate in LIMITS:
        for seconds in (10, 120):
            print(simulate(name, most, rate, seconds, count), flush=True)


# A provider's own limits, or what the settings default to; Gooee has no windows.
LIMITS = (
    ("khoros_care", 2, 20),
    ("giosg", 1, None),
    ("intelepeer", 2, None),
    ("flex_insights", 2, None),
    ("flex_insights", 50, 6000),
)


def simulate(name: str, most: int, rate: int | None, seconds: float, count: int) -> str:
    clock = Clock()
    counts: Counter[int] = Counter()
    play(clock)

    class Played(Provider[Any, Any]):
        name = "khoros_care"
        settings_type = installed()["khoros_care"].settings_type

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.limiter = rate_limiter.RateLimiter(rate)

        def ask(self) -> None:
            with self.limiter.turn():
                counts[int(clock.now // 60)] += 1
                clock.sleep(LATENCY)

        def check(self) -> None: ...

        def submit(self, request: Request[Any]) -> dict[str, Any]:
            if name != "giosg":
                self.ask()
            return {"ready": clock.now + seconds}

        def poll(self, request: Request[Any], handle: dict[str, Any]) -> JobState:
            if name == "giosg":  # it answers with the file, when that is ready
                self.ask()
                clock.sleep(seconds)
                return Ready()
            self.ask()
            return Ready() if clock.now >= handle["ready"] else Running()

        def files(self, request: Request[Any], handle: dict[str, Any]) -> Any: ...

        def identity(self, export: Any) -> dict[str, Any]:
            return {}

    block = {"username": "u", "password": "p", "company_key": "k", "max_concurrent_exports": most}
    export = {"name": "rows", "export_id": "incoming_post", "window": "PT1H"}
    settings = {
        "start_date": START.isoformat(),
        "ledger": "",
        "khoros_care": block | {"requests_per_minute": rate, "exports": [export]},
    }
    chosen.installed = lambda: {"khoros_care": Played}  # type: ignore[assignment]
    chosen._vendors.clear()  # noqa: SLF001 - each simulation has its own vendor
    one = chosen.choose(json.dumps(settings), "rows")
    end = START + timedelta(hours=count)
    with planner.ready(planner.Asker(), one, None, end) as (windows, _):
        assert all(window.job.error is None for window in windows)
        jobs = len(windows)
    downloads = 0 if name == "giosg" else jobs
    requests = sum(counts.values()) + downloads
    return (
        f"| {name} | {most} | {rate or 'no limit'} | {seconds} s | {jobs:,} | {requests:,} "
        f"| {max(counts.values()):,} | {clock.now / 3600:,.1f} |"
    )


def play(clock: Clock) -> None:  # noqa: C901 - a class for each of those that wait
    """Have the modules that wait do so by the clock."""

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.sleep(timeout or 0)
            return self.is_set()

    class Lock:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            while not self.lock.acquire(blocking=False):
                clock.sleep(0.01)

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    class Condition(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            self.release()
            clock.sleep(timeout or 1)
            self.acquire()
            return True

    class Thread(threading.Thread):
        def __init__(self, *, target: Callable[..., None], args: Any, **how: Any) -> None:
            def run() -> None:
                try:
                    target(*args)
                finally:
                    with clock.changed:
                        clock.busy -= 1
                        if clock.busy == 0 and clock.waiting:
                            clock.changed.notify_all()

            super().__init__(target=run, **how)

        def start(self) -> None:
            with clock.changed:
                clock.busy += 1
            super().start()

    played = SimpleNamespace(Event=Event, Lock=Lock, Condition=Condition, Thread=Thread)
    for module in (lanes, schedule, rate_limiter):
        module.threading = played  # type: ignore[attr-defined]
    chosen.threading = SimpleNamespace(Event=Event, Lock=threading.Lock)  # type: ignore[assignment]
    rate_limiter.time = SimpleNamespace(monotonic=lambda: clock.now)  # type: ignore[assignment]

    def now() -> datetime:
        return START + timedelta(seconds=clock.now)

    for module in (job, runner, planner):
        module.now = now  # type: ignore[attr-defined]


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"\nSimulated in {time.monotonic() - begun:.0f} s.")
