"""Kills: the tap is killed at a step that is seen from outside, and a run to the end has to make it good.

    python tests/soak.py --kills 1000 --seed 1

SIGINT or SIGTERM ends it after the cases at hand, with the tables of what was done so far. That a job
survives any death, at each call of a vendor and each write to the ledger, is shown in
tests/test_extraction.py; here are real processes, pipes, files and connections.

Each case takes one provider of the sandbox, a few streams with some days each, and kills the tap by SIGKILL
at one of the steps below, or at a random moment. What the target has saved by then is one of three things:
everything that it read, everything up to an earlier STATE, or nothing. Then the tap runs to its end with
that state and the same ledger, and what the target holds is compared with a run that nobody disturbed.

A job that no window needs is one of two kinds. It is `inside` where the tap died between sending a trigger
and knowing its handle, which can't be helped where the vendor has no way to find a job again: there may be
one such job a kill, and `export_runs` has to tell of it. Any other is `outside`.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import click
import msgspec
from conftest import TAP, Sandbox

Message = dict[str, Any]
Key = tuple[Any, ...]
Rows = dict[str, dict[Key, dict[str, Any]]]

PATIENCE = 120.0
"""Seconds that a run may take."""

ROWS_A_DAY = 40
PIPE_BYTES = 4096  # so that the tap is never far ahead of what its reader has seen

EVERYTHING, BEFORE, NOTHING = "saved everything", "lost its last lines", "saved nothing"
NOTHING_AT_ALL = "saved nothing, and the ledger is lost"
"""What is left after a kill; the last one for vendors that have a list of their jobs."""

_RUN_STREAMS = ("export_runs", "rejected_rows")
_OURS = "_sdc_export_id"  # another job, another id: no alteration of a row


# The target


@dataclass
class Target:
    """What a target holds: rows by their keys, and the last state that it has saved."""

    rows: Rows = field(default_factory=dict)
    versions: dict[tuple[str, Key], int | None] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    state: dict[str, Any] | None = None

    def read(self, messages: Sequence[Message]) -> None:
        """Take in messages, in their order."""
        for message in messages:
            stream = message.get("stream", "")
            match message["type"]:
                case "SCHEMA":
                    self.keys[stream] = message["key_properties"]
                    self.rows.setdefault(stream, {})
                case "RECORD":
                    key = tuple(message["record"][name] for name in self.keys[stream])
                    self.rows[stream][key] = message["record"]
                    self.versions[stream, key] = message.get("version")
                case "ACTIVATE_VERSION":
                    old = [k for k in self.rows[stream] if self.versions[stream, k] != message["version"]]
                    for key in old:
                        del self.rows[stream][key]
                case "STATE":
                    self.state = message["value"]

    def snapshots(self) -> set[str]:
        """The ids of the snapshots that are known to be safe."""
        bookmarks = (self.state or {}).get("bookmarks", {}).values()
        return {each["last_export_id"] for each in bookmarks if "last_export_id" in each}

    def exported(self) -> Rows:
        """The rows of exports, without what is another's each time."""
        return {
            stream: {key: {k: v for k, v in row.items() if k != _OURS} for key, row in rows.items()}
            for stream, rows in self.rows.items()
            if stream not in _RUN_STREAMS
        }


def saved(kind: str, messages: list[Message], rng: Random) -> list[Message]:
    """What a target has saved of the messages that it read."""
    if kind == EVERYTHING:
        return messages
    states = [i for i, message in enumerate(messages) if message["type"] == "STATE"]
    if kind != BEFORE or len(states) < 2:
        return []
    return messages[: rng.choice(states[:-1]) + 1]


# Scenes, which say what is exported


@dataclass(frozen=True)
class Scene:
    """A configuration, and how the vendor's requests look."""

    name: str
    provider: str
    config: Callable[[Sandbox], dict[str, Any]]
    trigger: tuple[str, str]  # method, and a pattern of the path
    download: tuple[str, str]  # service, and a pattern of the path
    knobs: dict[str, Any] = field(default_factory=dict)
    findable: bool = False  # a job is found again though nothing is known of it here
    snapshot: bool = False
    lookback: bool = False  # the run that is killed has one before it, whose windows it reaches again


_HELSINKI = ZoneInfo("Europe/Helsinki")
_TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
_DAYS = 3
_CLOCKS = {"poll_interval": "PT0.05S", "poll_interval_max": "PT0.2S"}


def _config(provider: str, streams: Sequence[str], days: int = _DAYS) -> Callable[[Sandbox], dict[str, Any]]:
    def config(sandbox: Sandbox) -> dict[str, Any]:
        top = {"start_date": _TODAY - timedelta(days=days), "end_date": _TODAY}
        if provider == "flex_insights":  # whose days are those of its workspace
            top = {name: moment.replace(tzinfo=_HELSINKI) for name, moment in top.items()}
        found = sandbox.config(
            provider, **_CLOCKS, **{name: moment.isoformat() for name, moment in top.items()}
        )
        exports = found[provider]["exports"]
        found[provider]["exports"] = [
            {name: value for name, value in export.items() if name != "start_date"}
            for export in exports
            if export["name"] in streams
        ]
        return found

    return config


SCENES = (
    Scene(
        "flex_insights",
        "flex_insights",
        _config("flex_insights", ["flex_conversations", "flex_missed"]),
        ("POST", "/execute/raw$"),
        ("flex_insights", "/execute/raw/"),
    ),
    Scene(
        "intelepeer",
        "intelepeer",
        _config("intelepeer", ["calls", "messages", "dtmf"], 2),
        ("POST", "/dwh/Q$"),
        ("intelepeer_sftp", ""),
    ),
    Scene(
        "intelepeer, split",
        "intelepeer",
        _config("intelepeer", ["calls", "dtmf"], 2),
        ("POST", "/dwh/Q$"),
        ("intelepeer_sftp", ""),
        knobs={"wide_after_seconds": 43200},
    ),
    Scene(
        "khoros_care",
        "khoros_care",
        _config("khoros_care", ["khoros_conversations", "khoros_posts", "khoros_campaigns"]),
        ("", r"/report/(marketing/)?\w+\?"),
        ("khoros_files", ""),
    ),
    Scene(
        "khoros_care, look-back",
        "khoros_care",
        _config("khoros_care", ["khoros_conversations", "khoros_posts"]),
        ("", r"/report/(marketing/)?\w+\?"),
        ("khoros_files", ""),
        lookback=True,
    ),
    Scene(
        "gooee",
        "gooee",
        _config("gooee", ["gooee_energy", "gooee_occupancy"]),
        ("POST", "/exports/$"),
        ("gooee_files", ""),
        findable=True,
        snapshot=True,
    ),
    Scene(
        "giosg",
        "giosg",
        _config("giosg", ["giosg_calls", "giosg_popups"]),
        ("POST", "/download/$"),
        ("giosg", "/download/$"),
    ),
)


# Steps: when the tap is killed


@dataclass(frozen=True)
class Step:
    """A moment in the life of a run, as it is seen from outside; a random one, if nothing is said of it.

    Attributes:
        name: For the table.
        faults: Rules of the sandbox that hold a request, which is the moment.
        line: Whether this message is the moment; it is asked for each one that arrives.
        only: Whether a scene has such a moment.
    """

    name: str
    faults: Callable[[Scene, Random], list[dict[str, Any]]] | None = None
    line: Callable[[Message], bool] | None = None
    only: Callable[[Scene], bool] = lambda scene: True


def _hold_trigger(*, run: bool) -> Callable[[Scene, Random], list[dict[str, Any]]]:
    def faults(scene: Scene, rng: Random) -> list[dict[str, Any]]:
        method, path = scene.trigger
        action = {"hang": "before_headers", "run": run}
        rule = {"service": scene.provider, "path": path, "after": rng.randrange(4), "action": action}
        return [{**rule, "method": method} if method else rule]

    return faults


def _hold_download(scene: Scene, rng: Random) -> list[dict[str, Any]]:
    service, path = scene.download
    by_http = scene.provider != "intelepeer"
    action = {"hang": "body" if by_http else "before_headers"}
    return [{"service": service, "path": path, "after": rng.randrange(3 if by_http else 6), "action": action}]


def _is_row(message: Message) -> bool:
    return message["type"] == "RECORD" and message["stream"] not in _RUN_STREAMS


def _moves(message: Message) -> bool:
    """Whether a STATE tells of at least one window that is done."""
    return message["type"] == "STATE" and any(
        "replication_key_value" in bookmark or "last_export_id" in bookmark
        for bookmark in message["value"]["bookmarks"].values()
    )


def _has_job(message: Message) -> bool:
    bookmarks = message["value"]["bookmarks"].values() if message["type"] == "STATE" else ()
    return any(bookmark.get("jobs") for bookmark in bookmarks)


def _waits(scene: Scene) -> bool:
    """Whether the vendor lets one wait for a job."""
    return scene.provider != "giosg"


STEPS = (
    Step("a trigger that has not arrived", _hold_trigger(run=False)),
    Step("a trigger without its answer", _hold_trigger(run=True), only=_waits),
    Step("a STATE with a job", line=_has_job),
    Step("the middle of a download", _hold_download),
    Step("the middle of RECORDs", line=_is_row),
    Step("a window's STATE", line=_moves),
    Step(
        "an ACTIVATE_VERSION",
        line=lambda message: message["type"] == "ACTIVATE_VERSION",
        only=lambda scene: scene.snapshot,
    ),
    Step("a random moment"),
)


# Runs


@dataclass
class Run:
    """A run of the tap, to its end or to its death."""

    messages: list[Message]
    killed: bool
    exit_code: int
    stderr: str
    seconds: float


def run_tap(
    folder: Path,
    config: dict[str, Any],
    state: dict[str, Any] | None,
    *,
    line: Callable[[Message], bool] | None = None,
    seen: Callable[[], bool] | None = None,
) -> Run:
    """Run the tap, and kill it at once when a line is the one, or when something is seen."""
    (folder / "config.json").write_bytes(
        msgspec.json.encode({**config, "ledger": str(folder / "ledger"), "spool_dir": str(folder)})
    )
    command = [str(TAP), "--config", str(folder / "config.json")]
    if state is not None:
        (folder / "state.json").write_bytes(msgspec.json.encode(state))
        command += ["--state", str(folder / "state.json")]
    environment = {**os.environ, "TZ": "UTC", "XDG_STATE_HOME": str(folder), "TMPDIR": str(folder)}
    started = time.monotonic()
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment)
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    messages: list[Message] = []
    killed = False
    with process:
        for chunk in _lines(process.stdout.fileno()):
            if chunk:
                messages.append(msgspec.json.decode(chunk))
            if killed:
                continue  # what was on its way when it died is read all the same
            late = time.monotonic() - started > PATIENCE
            if late or (chunk and line and line(messages[-1])) or (not chunk and seen and seen()):
                process.send_signal(signal.SIGKILL)
                killed = True
    text = (folder / "stderr").read_text()
    return Run(messages, killed, process.returncode, text, time.monotonic() - started)


def _lines(descriptor: int) -> Iterator[bytes]:
    """The lines of a pipe as they come, whole ones only, and an empty one whenever there is none."""
    rest = b""
    while True:
        if not select.select([descriptor], [], [], 0.004)[0]:
            yield b""
            continue
        chunk = os.read(descriptor, PIPE_BYTES)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        yield b""


# Cases


@dataclass(frozen=True)
class Reference:
    """A run that nobody disturbed."""

    rows: Rows
    jobs: int
    seconds: float


@dataclass
class Outcome:
    """What came of a case: all but `kills` and `inside` ought to be 0, and that at most what is `allowed`."""

    scene: str
    step: str
    kind: str
    kills: int = 0
    lost: int = 0
    altered: int = 0
    duplicates: int = 0
    outside: int = 0
    inside: int = 0
    untold: int = 0
    failed: int = 0
    allowed: int = 0
    notes: list[str] = field(default_factory=list)

    COLUMNS = ("kills", "lost", "altered", "duplicates", "outside", "inside", "untold", "failed")

    @property
    def bad(self) -> bool:
        """Whether a promise is broken."""
        numbers = (self.lost, self.altered, self.duplicates, self.outside, self.untold, self.failed)
        # Gooee's jobs are found again by their names.
        return any(numbers) or self.inside > (0 if self.scene == "gooee" else self.allowed)

    def numbers(self) -> Counter[str]:
        """For the table."""
        return Counter({name: getattr(self, name) for name in self.COLUMNS})


@dataclass
class Lab:
    """A sandbox, and the references that were made with it."""

    sandbox: Sandbox
    references: dict[tuple[str, int], Reference] = field(default_factory=dict)

    def prepare(self, scene: Scene) -> None:
        """The vendor, as if nothing had been."""
        self.sandbox.post("reset")
        self.sandbox.post("settings", {"job_seconds": 0.3, **scene.knobs})

    def reference(self, scene: Scene) -> Reference:
        """The scene, undisturbed; snapshots are the same for an hour."""
        key = (scene.name, _hour() if scene.snapshot else 0)
        if key not in self.references:
            self.prepare(scene)
            with tempfile.TemporaryDirectory() as folder:
                target, _ = self._before(Path(folder), scene)
                run = run_tap(Path(folder), self._config(scene), target.state)
            if run.exit_code != 0 or run.killed:
                raise RuntimeError(f"{scene.name} fails undisturbed: {run.stderr}")
            target.read(run.messages)
            jobs = len(self.sandbox.get("jobs"))
            self.references[key] = Reference(target.exported(), jobs, run.seconds)
        return self.references[key]

    def _config(self, scene: Scene) -> dict[str, Any]:
        return {**scene.config(self.sandbox), **({"lookback": "P2D"} if scene.lookback else {})}

    def _before(self, folder: Path, scene: Scene) -> tuple[Target, list[Message]]:
        """What a target has before the run that is to be killed, and the messages that it is of."""
        target, messages = Target(), list[Message]()
        if scene.lookback:
            end = (_TODAY - timedelta(days=1)).isoformat()
            messages = run_tap(folder, {**scene.config(self.sandbox), "end_date": end}, None).messages
            target.read(messages)
        return target, messages

    def try_out(self, scene: Scene, step: Step, kind: str, rng: Random, *, twice: bool = False) -> Outcome:
        """Kill, once or twice, then run to the end, and compare."""
        while True:
            hour = _hour()
            reference = self.reference(scene)
            with tempfile.TemporaryDirectory() as folder:
                outcome = self._case(
                    Path(folder), scene, step, kind=kind, rng=rng, reference=reference, twice=twice
                )
            if not scene.snapshot or hour == _hour():
                return outcome

    def _case(
        self,
        folder: Path,
        scene: Scene,
        step: Step,
        *,
        kind: str,
        rng: Random,
        reference: Reference,
        twice: bool,
    ) -> Outcome:
        outcome = Outcome(scene.name, step.name, kind)
        config = self._config(scene)
        self.prepare(scene)
        target, before = self._before(folder, scene)
        if step.faults:
            self.sandbox.post("faults", step.faults(scene, rng))
        told = unknown = gone = 0
        snapshots: set[str] = set()  # that were safe when a run began, which so had to take another
        random_step = STEPS[-1]
        for each in (step, random_step) if twice else (step,):
            snapshots |= target.snapshots()
            run = self._kill(folder, target, scene, each, reference=reference, rng=rng)
            self.sandbox.post("faults", [])
            outcome.kills += run.killed
            outcome.allowed += run.killed
            told += _told(run)
            if not run.killed and run.exit_code != 0:
                outcome.failed += 1
                outcome.notes.append(run.stderr)
            unknown += _unknown(folder)
            gone = self._gone(folder, scene, run, kind=kind, before=gone)
            target.read(saved(kind if run.killed else EVERYTHING, run.messages, rng))
            if kind in (NOTHING, NOTHING_AT_ALL) and run.killed:
                target = Target()
                target.read(before)
            if kind == NOTHING_AT_ALL:
                shutil.rmtree(folder / "ledger", ignore_errors=True)
        snapshots |= target.snapshots()
        last = run_tap(folder, config, target.state)
        told += _told(last)
        target.read(last.messages)
        if last.exit_code != 0 or last.killed:
            outcome.failed += 1
            outcome.notes.append(last.stderr)
        self._compare(outcome, target.exported(), reference.rows)
        needless = len(self.sandbox.get("jobs")) - reference.jobs - len(snapshots)
        outcome.inside = 0 if scene.findable else max(0, min(needless, unknown))
        outcome.outside = max(0, needless - outcome.inside - gone)
        outcome.untold = max(0, outcome.inside - told)
        if needless < 0 and not scene.snapshot:  # of which a target that lost its state may take an older one
            outcome.notes.append(f"{-needless} jobs fewer than the windows need")
            outcome.failed += 1
        if outcome.bad:
            outcome.notes.append(f"ended with {last.exit_code}: {last.stderr}")
        return outcome

    def _kill(
        self,
        folder: Path,
        target: Target,
        scene: Scene,
        step: Step,
        *,
        reference: Reference,
        rng: Random,
    ) -> Run:
        left = count(rng.randint(1, 6 * ROWS_A_DAY if step.line is _is_row else 4), -1)
        started, moment = time.monotonic(), rng.uniform(0.2, 1.0) * reference.seconds

        def line(message: Message) -> bool:
            return step.line is not None and step.line(message) and next(left) == 1

        def seen() -> bool:
            if step.faults:
                requests = self.sandbox.get("requests")
                return any(request.get("fault") and request["status"] is not None for request in requests)
            return step.line is None and time.monotonic() - started > moment

        return run_tap(folder, self._config(scene), target.state, line=line, seen=seen)

    def _gone(self, folder: Path, scene: Scene, run: Run, *, kind: str, before: int) -> int:
        """Jobs that have to be done again, and how many there were before a run.

        Look-back reaches again what was written. Where a target lost what a run that had come to its end
        wrote, giosg has no jobs but its answers, and `delete_after` takes Gooee's away once rows are out.
        """
        if scene.lookback:
            return before + _ended(run)
        if not run.killed or not (kind == NOTHING_AT_ALL or _is_over(folder)):
            return before
        jobs = self.sandbox.get("jobs")
        return sum(scene.name == "giosg" or job["state"] == "deleted" for job in jobs)

    def _compare(self, outcome: Outcome, found: Rows, expected: Rows) -> None:
        for stream in found.keys() | expected.keys():
            ours, theirs = found.get(stream, {}), expected.get(stream, {})
            outcome.lost += len(theirs.keys() - ours.keys())
            outcome.duplicates += len(ours.keys() - theirs.keys())
            outcome.altered += sum(ours[key] != theirs[key] for key in ours.keys() & theirs.keys())


def _hour() -> int:
    return int(time.time() // 3600)


_UNKNOWN = re.compile("whether it runs there is not known|an earlier run asked for this job's file")


def _told(run: Run) -> int:
    """How many jobs a run says to be of an unknown fate."""
    return sum(
        message["type"] == "RECORD"
        and message["stream"] == "export_runs"
        and _UNKNOWN.search(message["record"]["error"] or "") is not None
        for message in run.messages
    )


def _ended(run: Run) -> int:
    """How many jobs a run says to be over."""
    return sum(message["type"] == "RECORD" and message["stream"] == "export_runs" for message in run.messages)


def _is_over(folder: Path) -> bool:
    """Whether a run has written everything, and has removed its downloads."""
    entries = [msgspec.json.decode(path.read_bytes()) for path in (folder / "ledger").glob("*/*.json")]
    files = [path for spool in folder.glob("tap-analytics-exports-*") for path in spool.rglob("*")]
    return all(entry["written_at"] for entry in entries) and not any(path.is_file() for path in files)


def _unknown(folder: Path) -> int:
    """How many triggers the ledger knows to be under way, whose answer it does not have.

    The download of giosg is its trigger: nothing is known of it before the file is here.
    """
    parts = [
        part
        for path in (folder / "ledger").glob("*/*.json")
        for part in msgspec.json.decode(path.read_bytes())["parts"]
    ]
    return sum(part["sent"] and not part["handle"] and part["files"] is None for part in parts)


# The soak


def cases(seed: int) -> Iterator[tuple[Scene, Step, str, Random, bool]]:
    """All steps of all scenes, again and again; the targets take turns, and one case in six kills twice."""
    for round_ in count():
        shuffler = Random(f"{seed}/{round_}")
        pairs = [(scene, step) for scene in SCENES for step in STEPS if step.only(scene)]
        shuffler.shuffle(pairs)
        for i, (scene, step) in enumerate(pairs):
            kinds = (EVERYTHING, BEFORE, NOTHING, *[NOTHING_AT_ALL][: scene.findable])
            kind = kinds[(i + round_) % len(kinds)]
            yield scene, step, kind, Random(f"{seed}/{round_}/{i}"), shuffler.random() < 1 / 6


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """A sandbox of one's own."""
    folder.mkdir(parents=True, exist_ok=True)
    sandbox = Sandbox(folder, "--rows", str(ROWS_A_DAY))
    try:
        yield Lab(sandbox)
    finally:
        sandbox.stop()


def table(title: str, rows: dict[str, Counter[str]]) -> str:
    """Numbers under their names."""
    width = max(len(name) for name in [title, *rows])
    head = f"{title:{width}}  " + "  ".join(f"{name:>10}" for name in Outcome.COLUMNS)
    lines = [
        f"{name:{width}}  " + "  ".join(f"{numbers[column]:>10}" for column in Outcome.COLUMNS)
        for name, numbers in rows.items()
    ]
    return "\n".join([head, "-" * len(head), *lines])


def main() -> int:
    """Run the soak and print its tables; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scene", help="this one alone")
    parser.add_argument("--step", help="steps whose names have this in them")
    arguments = parser.parse_args()
    wanted = (
        case
        for case in cases(arguments.seed)
        if arguments.scene in (None, case[0].name) and (arguments.step or "") in case[1].name
    )
    outcomes: list[Outcome] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.workers) as pool:
        labs: SimpleQueue[Lab] = SimpleQueue()
        managers = [lab(Path(folder, str(i))) for i in range(arguments.workers)]
        for manager in managers:
            labs.put(manager.__enter__())

        def work(_: int) -> Outcome:
            ours = labs.get()
            try:
                scene, step, kind, rng, twice = next(wanted)
                return ours.try_out(scene, step, kind, rng, twice=twice)
            finally:
                labs.put(ours)

        asked_to_stop: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: asked_to_stop.append(number))
        while (kills := sum(outcome.kills for outcome in outcomes)) < arguments.kills and not asked_to_stop:
            for outcome in pool.map(work, range(min(arguments.workers * 4, arguments.kills - kills))):
                outcomes.append(outcome)
                if outcome.bad:
                    numbers = {name: n for name, n in outcome.numbers().items() if n}
                    click.echo(f"BROKEN {outcome.scene}, {outcome.step}, target {outcome.kind}: {numbers}")
                    click.echo("\n".join(outcome.notes)[-4000:], err=True)
        for manager in managers:
            manager.__exit__(None, None, None)
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.scene, _STEP_NAMES.index(outcome.step))):
        sums[f"{outcome.scene}: {outcome.step}"] += outcome.numbers()
        by_kind[outcome.kind] += outcome.numbers()
        by_kind["all"] += outcome.numbers()
    click.echo(table("step", sums) + "\n")
    click.echo(table("target", dict(sorted(by_kind.items(), reverse=True))) + "\n")
    broken = sum(outcome.bad for outcome in outcomes)
    click.echo(
        f"seed {arguments.seed}, {len(outcomes)} cases, {time.monotonic() - started:.0f} s, {broken} broken"
    )
    return 1 if broken else 0


_STEP_NAMES = [step.name for step in STEPS]

if __name__ == "__main__":
    sys.exit(main())
