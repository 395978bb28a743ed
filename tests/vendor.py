"""A vendor in this process, which keeps what it is told, and may die with the process at any call."""

from __future__ import annotations

import io
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

from tap_analytics_exports.errors import Ambiguous, Busy, ExportFailed, Refused, Unreachable
from tap_analytics_exports.providers.base import Empty, Failed, JobState, Provider, Ready, Request, Running
from tap_analytics_exports.settings import Export, ProviderSettings, about
from tap_analytics_exports.transport.download import Body, RemoteFile

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Died(BaseException):
    """The process is dead."""


class Process:
    """The process that all of it is in: dead, it does nothing more, whatever thread asks for it.

    Attributes:
        steps_left: Until it dies; None: it does not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.steps_left: int | None = None
        self.dead = False

    def start(self, steps: int | None = None) -> None:
        """Begin to live, for so many steps."""
        self.steps_left, self.dead = steps, False

    def step(self) -> None:
        """Do one more thing; it may be the last."""
        with self._lock:
            if self.steps_left is not None:
                self.steps_left -= 1
                self.dead = self.dead or self.steps_left < 0
        self.check()

    def check(self) -> None:
        if self.dead:
            raise Died


PROCESS = Process()


@dataclass
class World:
    """What outlives a process: the vendor's jobs, and what is to happen.

    Attributes:
        jobs: Handle id to what it was asked for, in the order of the triggers.
        script: What becomes of the jobs of a window, by its first day: `ok`, `empty`, `retry`, `failed`,
            `split`, `unreachable`, `gone`, `busy`, `refused`, `ambiguous`; the last one goes on for ever.
        findable: Whether jobs can be looked up by what they were asked for.
        contents: The file of a window, by its first day; else it has the window's rows.
    """

    script: dict[str, list[str]] = field(default_factory=dict)
    findable: bool = False
    contents: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, Request] = field(default_factory=dict)
    fates: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fate(self, request: Request) -> str:
        """What becomes of the next try of a window."""
        key = day(request)
        plan = self.script.get(key, ["ok"])
        with self.lock:
            fate = plan[min(self.tries[key], len(plan) - 1)]
            self.tries[key] += 1
        return fate


WORLDS: dict[str, World] = {}


class FakeExport(Export, kw_only=True, forbid_unknown_fields=True):
    """An export of the fake vendor."""

    snapshot: Annotated[bool, about("Snapshot", "Whether it has no windows")] = False
    format: Annotated[Literal["csv", "json", "xlsx"], about("Format", "Of its files")] = "csv"

    @property
    def incremental(self) -> bool:
        return not self.snapshot


class FakeSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """A vendor in this process."""

    base_url: str = "http://fake"
    api_token: str = ""
    exports: list[FakeExport]


def day(request: Request) -> str:
    return request.window.start.date().isoformat() if request.window else "snapshot"


def rows(request_or_window: Any) -> list[str]:
    """The rows of a window: two an hour, told by when they were."""
    window = getattr(request_or_window, "window", request_or_window)
    if window is None:
        return ["snapshot-1", "snapshot-2", "snapshot-3"]
    hours = int((window.end - window.start) / timedelta(hours=6))
    return [(window.start + i * timedelta(hours=6)).isoformat() for i in range(hours)]


class Fake(Provider[FakeSettings, FakeExport]):
    """The fake vendor."""

    name: ClassVar[str] = "fake"
    settings_type = FakeSettings

    def step(self) -> None:
        PROCESS.step()

    @property
    def world(self) -> World:
        return WORLDS[self.settings.base_url]

    def check(self) -> None:
        self.step()

    def submit(self, request: Request) -> dict[str, Any]:
        world = self.world
        self.step()  # before anything was sent
        fate = world.fate(request)
        if fate == "unreachable":
            raise Unreachable("nobody there")
        if fate == "busy":
            raise Busy("no room")
        if fate == "refused":
            raise Refused("fake: the token is wrong")
        if fate == "invalid":
            raise ExportFailed("the vendor does not like it")
        number = f"job-{len(world.jobs) + 1}"
        world.jobs[number] = request
        world.fates[number] = fate
        self.step()  # the vendor has it, and nobody here will know
        if fate == "ambiguous":
            raise Ambiguous("no answer")
        return {"id": number}

    def find(self, request: Request, last: str | None) -> tuple[str, dict[str, Any]] | None:
        self.step()
        if self.world.findable:
            for number, known in self.world.jobs.items():
                if known.export_id == request.export_id and known.window == request.window:
                    return request.export_id, {"id": number}
        return None

    def poll(self, request: Request, handle: Mapping[str, Any]) -> JobState:
        world = self.world
        self.step()
        fate = world.fates[handle["id"]]
        if fate.startswith("slow "):
            world.fates[handle["id"]] = fate.removeprefix("slow ")
            return Running()
        if fate == "split" and request.window and request.window.end - request.window.start < DAY:
            fate = "ok"
        return {
            "retry": Failed("it failed in passing", retry=True),
            "failed": Failed("it failed"),
            "split": Failed("too large", split=True),
            "empty": Empty(),
            "never": Running(),
        }.get(fate, Ready())

    def files(self, request: Request, handle: Mapping[str, Any]) -> Sequence[RemoteFile]:
        self.step()
        lines = ["at", *rows(self.world.jobs[handle["id"]])]
        text = self.world.contents.get(day(request), "".join(f"{line}\n" for line in lines).encode())

        @contextmanager
        def body(*_: object) -> Iterator[Body]:
            self.step()
            yield Body(iter([io.BytesIO(text).read()]), "length")

        return [RemoteFile("rows.csv", body, size=len(text))]

    def done(self, request: Request, handle: Mapping[str, Any]) -> None:
        self.step()

    def file_format(self, export: FakeExport) -> Literal["csv", "json", "xlsx"]:
        return export.format

    def identity(self, export: FakeExport) -> Mapping[str, Any]:
        return {"name": export.name}


_numbers = itertools.count()


def world(**what: Any) -> tuple[str, World]:
    """A new world, and its address."""
    made = World(**what)
    address = f"http://fake-{next(_numbers)}"
    WORLDS[address] = made
    return address, made
