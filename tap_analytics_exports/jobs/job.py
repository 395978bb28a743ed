"""The life of a job, as one picture.

A window has attempts, its jobs; a job has parts, its remote runs. A part is

    planned -> sending -> sent -> ready -> fetched

and a job ends as `written`, as `failed` (for good), or as `suspended` (a later run goes on with it). Each
transition is one method here, which takes the lock, saves to the ledger, and tells who waits for news, in
that order, and refuses what can't follow.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from tap_analytics_exports.jobs.counting import RowCount
from tap_analytics_exports.jobs.entries import Entry, FileEntry, PartEntry, Span
from tap_analytics_exports.jobs.ledger import Ledger
from tap_analytics_exports.providers.base import Handle, Request
from tap_analytics_exports.redaction import clean
from tap_analytics_exports.transport.download import LocalFile
from tap_analytics_exports.windows import Window

ATTEMPTS = 3
"""Jobs for one window in one run, where the vendor's failures are passing ones."""


class Phase(Enum):
    """Where a remote run is."""

    PLANNED = "planned"
    SENDING = "sending"
    SENT = "sent"
    READY = "ready"
    FETCHED = "fetched"


class Outcome(Enum):
    """How a job ended."""

    WRITTEN = "written"
    FAILED = "failed"
    SUSPENDED = "suspended"


class IllegalTransition(RuntimeError):
    """A transition that can't follow what a job has been through: a mistake in this program."""


def now() -> datetime:
    """Tell the time, in UTC."""
    return datetime.now(UTC)


@dataclass(slots=True, eq=False)
class Part:
    """One remote run: a job has one, or several once its window was too large for the vendor.

    Attributes:
        phase: Where it is.
        submitted_at: When its trigger was sent, in UTC; None where it never was.
        handle: The vendor's answer to that.
        files: What it made, once that is here; empty when it had no rows.
        word: What the vendor called its state when it was last polled.
    """

    request: Request[Any]
    phase: Phase = Phase.PLANNED
    submitted_at: datetime | None = None
    handle: Handle | None = None
    files: list[LocalFile] | None = None
    word: str = ""

    def entry(self) -> PartEntry:
        """Say of it what the ledger keeps."""
        files = None
        if self.files is not None:
            files = [FileEntry(file.path.name, file.name, file.size, file.rows) for file in self.files]
        sent = self.phase is not Phase.PLANNED
        return PartEntry(_span(self.request.window), self.submitted_at, self.handle, sent, files)


class Job:
    """One try to export a window, from its trigger until its rows are written.

    Attributes:
        planned: The window that it exports, and all tries of it.
        request: What is asked for.
        parts: Its remote runs, in the order of their rows.
        number: Of the try, from 1.
        resumed: Whether an earlier run triggered it.
        outcome: How it ended; None while it has not.
        error: Why it failed, or was suspended.
        refused: Whether the credentials, or a host's key, were not accepted.
        ended: Whether it is over for its thread: there is something to write, or to tell.
        told: Whether `export_runs` tells of it.
        sha256: Of all its files as they were stored at the vendor, joined.
        count: Its rows, so far.
        planned_at: When this run laid it out; the timestamps after it are those of its steps, in UTC.
    """

    def __init__(
        self, planned: PlannedWindow, request: Request[Any], parts: Sequence[Part], number: int = 1
    ) -> None:
        self.planned = planned
        self.request = request
        self.parts = list(parts)
        self.number = number
        self.resumed = False
        self.count = RowCount()
        self.planned_at = now()
        self.ready_at: datetime | None = None
        self.downloaded_at: datetime | None = None
        self.writing_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.outcome: Outcome | None = None
        self.error: str | None = None
        self.refused = False
        self.ended = self.told = False
        self.written_at: datetime | None = None
        self.sha256: str | None = None

    def __str__(self) -> str:
        """Where it is, for messages."""
        window = f"window {self.window}" if self.window else "snapshot"
        return f"{self.planned.provider}, stream {self.planned.stream}, {window}"

    def says(self, trouble: object) -> str:
        """Say where something went wrong, and what; who it was is said once."""
        return f"{self}: {str(trouble).replace(f'{self.planned.provider}: ', '')}"

    @property
    def export_id(self) -> str:
        """Ours, unique per job."""
        return self.request.export_id

    @property
    def window(self) -> Window | None:
        """The window that it exports; None for a snapshot."""
        return self.request.window

    @property
    def files(self) -> list[LocalFile]:
        """All files that have arrived, in their order."""
        return [file for part in self.parts for file in part.files or ()]

    @property
    def submitted_at(self) -> datetime | None:
        """When the first of its parts was sent, in UTC."""
        return min((part.submitted_at for part in self.parts if part.submitted_at), default=None)

    @property
    def triggered(self) -> bool:
        """Whether the vendor knows of it."""
        return any(part.handle is not None for part in self.parts)

    @property
    def sent(self) -> bool:
        """Whether the vendor may know of it."""
        return any(part.phase is not Phase.PLANNED for part in self.parts)

    @property
    def open(self) -> bool:
        """Whether it is triggered, and a later run would go on with it."""
        return self.triggered and self.outcome in (None, Outcome.SUSPENDED)

    @property
    def status(self) -> str:
        """How it went, as `export_runs` has it."""
        if self.error is not None:
            return "failed"
        return "loaded" if self.count.rows or self.count.rejected else "empty"

    def entry(self) -> Entry:
        """Say of it what the ledger keeps."""
        with self.planned.lock:
            parts = [part.entry() for part in self.parts]
            error = self.error if self.outcome is Outcome.FAILED else None
            window = _span(self.window)
            return Entry(
                self.export_id, window, self.request.fingerprint, parts, self.sha256, self.written_at, error
            )

    # Transitions of a part

    def send(self, part: Part) -> None:
        """Remember that a trigger is about to be sent; its clock begins."""
        with self._transition(part, Phase.PLANNED):
            part.phase, part.submitted_at = Phase.SENDING, now()

    def withdraw(self, part: Part, *, seen: bool) -> None:
        """Take a trigger back on which the vendor did not act.

        Args:
            part: The part.
            seen: Whether the vendor saw it at all.
        """
        with self._transition(part, Phase.SENDING):
            part.phase = Phase.PLANNED
            if not seen:
                part.submitted_at = None

    def sent_as(self, part: Part, handle: Handle, export_id: str | None = None) -> None:
        """Keep a part's handle, for the vendor has it; where it was found there, perhaps under another id."""
        with self._transition(part, Phase.PLANNED, Phase.SENDING):
            if export_id is not None:
                self.resumed = export_id != self.export_id or part.phase is Phase.SENDING
                if export_id != self.export_id:
                    self.planned.ledger.forget(self.export_id)
                    self.request = replace(self.request, export_id=export_id)
            part.phase, part.handle = Phase.SENT, handle
            part.submitted_at = part.submitted_at or now()

    def unsend(self, part: Part) -> None:
        """Take back a part whose transfer is the job itself, and was not even asked for."""
        with self._transition(part, Phase.SENT, Phase.READY):
            part.phase, part.handle, part.submitted_at = Phase.PLANNED, None, None

    def learn(self, part: Part, handle: Handle) -> None:
        """Keep another handle of a part, by which the vendor calls it from now on."""
        with self._transition(part, Phase.SENT):
            part.handle = handle

    def ready(self, part: Part) -> None:
        """Note that the vendor has the part's files."""
        with self._transition(part, Phase.SENT):
            part.phase = Phase.READY
            self.ready_at = now()

    def fetch(self, part: Part, files: Sequence[LocalFile]) -> None:
        """Keep a part's files, which are here and proved; none: it has no rows."""
        with self._transition(part, Phase.SENT, Phase.READY):
            part.phase, part.files = Phase.FETCHED, list(files)
            self.downloaded_at = now() if files else self.downloaded_at

    def split(self, part: Part, halves: Sequence[Window]) -> None:
        """Replace a part that was too large by parts of smaller windows."""
        with self._transition(part, Phase.PLANNED, Phase.SENT, Phase.READY):
            index = self.parts.index(part)
            self.parts[index : index + 1] = [Part(replace(part.request, window=half)) for half in halves]

    # Ends of a job

    def write(self) -> None:
        """End the job: all its rows are out."""
        if any(part.phase is not Phase.FETCHED for part in self.parts):
            raise IllegalTransition(f"{self}: written before it was fetched")
        with self._end(Outcome.WRITTEN):
            self.written_at = now()

    def fail(self, why: str, *, refused: bool = False) -> None:
        """End the job, with which no later run goes on."""
        with self._end(Outcome.FAILED):
            self.error, self.refused = clean(why), refused

    def suspend(self, why: str, *, refused: bool = False) -> None:
        """End the job for this run; a later one goes on with it."""
        with self._end(Outcome.SUSPENDED):
            self.error, self.refused = clean(why), refused

    def retry(self, why: str, part: Part) -> Job:
        """Fail, and hand all that the other parts have brought over to another job of the same window."""
        ledger = self.planned.ledger
        request = replace(self.request, export_id=new_export_id())
        with self.planned.lock:
            folder = ledger.hand_over(self.export_id, request.export_id)
            parts = [
                Part(replace(part.request, export_id=request.export_id))
                if each is part
                else replace(each, files=_moved(each.files, folder))
                for each in self.parts
            ]
            successor = Job(self.planned, request, parts, self.number + 1)
            self.planned.attempts.append(successor)
            ledger.save(successor.entry())
            self.fail(why)
        return successor

    def finish(self) -> None:
        """Hand the job over to who reads its rows: there is something to write, or to tell."""
        digest = self.sha256
        if self.outcome is None and digest is None:
            digest = _joined_sha256(self.files)  # not with the lock, for it may take a while
        with self.planned.lock:
            self.sha256 = digest
            self.planned.ledger.save(self.entry())
            self.ended = True  # from now on, who sees that may forget the job
        self.planned.tell(self)

    @contextmanager
    def _transition(self, part: Part, *allowed: Phase) -> Iterator[None]:
        with self.planned.lock:
            if self.outcome is not None or part.phase not in allowed:
                raise IllegalTransition(f"{self}: a part that is {part.phase.value}, of a job {self.outcome}")
            yield
            self.planned.ledger.save(self.entry())
        self.planned.tell(self)

    @contextmanager
    def _end(self, outcome: Outcome) -> Iterator[None]:
        with self.planned.lock:
            if self.outcome is not None:
                raise IllegalTransition(f"{self}: {outcome.value}, and is {self.outcome.value} already")
            self.outcome = outcome
            yield
            self.planned.ledger.save(self.entry())
        self.planned.tell(self)


class PlannedWindow:
    """A window to export in this run, or a snapshot, and the jobs that try it.

    Args:
        stream: The stream's name.
        provider: The provider's.
        request: What the first job asks for.
        ledger: Remembers its jobs.
        tell: Called after each transition, from any thread.
        last: The `export_id` of the stream's last snapshot, so that it is not taken for this one.

    Attributes:
        attempts: Its jobs, each made when the one before had failed.
        lock: Held while any of its jobs changes.
        over: Whether it is of an earlier run, and only its end has to be told.
    """

    def __init__(
        self,
        stream: str,
        provider: str,
        request: Request[Any],
        ledger: Ledger,
        tell: Callable[[Job], None],
        *,
        last: str = "",
    ) -> None:
        self.stream = stream
        self.provider = provider
        self.ledger = ledger
        self.tell = tell
        self.last = last
        self.lock = threading.RLock()
        self.over = False
        self.attempts = [Job(self, request, [Part(request)])]

    @property
    def job(self) -> Job:
        """The job that counts now."""
        return self.attempts[-1]

    def adopt(self, entry: Entry) -> None:
        """Go on with a job that an earlier run triggered, and with what it has brought here."""
        request = replace(self.job.request, export_id=entry.export_id)
        folder = self.ledger.files(entry.export_id)
        parts = [_adopted(request, part, folder) for part in entry.parts]
        job = Job(self, request, parts)
        job.resumed = job.triggered
        if entry.sha256 not in (None, _joined_sha256(job.files)):
            for part in parts:
                part.phase, part.files = (Phase.SENT if part.handle is not None else Phase.PLANNED), None
        elif all(part.phase is Phase.FETCHED for part in parts):
            job.sha256 = entry.sha256
        self.attempts = [job]


def new_export_id() -> str:
    """Make an id for a job, a UUID."""
    return str(uuid.uuid4())


def _adopted(request: Request[Any], entry: PartEntry, folder: Path) -> Part:
    part = Part(replace(request, window=entry.window and Window(*entry.window)))
    part.submitted_at, part.handle = entry.submitted_at, entry.handle
    part.files = _still_there(folder, entry.files)
    if part.files is not None:
        part.phase = Phase.FETCHED
    elif part.handle is not None:
        part.phase = Phase.SENT
    elif entry.sent:
        part.phase = Phase.SENDING
    return part


def _still_there(folder: Path, entries: Sequence[FileEntry] | None) -> list[LocalFile] | None:
    """Find the downloads that an entry speaks of; None unless all of them are where they were."""
    if entries is None:
        return None
    files = [LocalFile(folder / entry.file, entry.name, entry.size, entry.rows) for entry in entries]
    whole = all(file.path.is_file() and file.path.stat().st_size == file.size for file in files)
    return files if whole else None


def _moved(files: Sequence[LocalFile] | None, folder: Path) -> list[LocalFile] | None:
    return None if files is None else [replace(file, path=folder / file.path.name) for file in files]


def _joined_sha256(files: Sequence[LocalFile]) -> str | None:
    if not files:
        return None
    if len(files) == 1 and files[0].sha256:
        return files[0].sha256
    joined = hashlib.sha256()
    for local in files:
        with local.path.open("rb") as file:
            hashlib.file_digest(file, lambda: joined)
    return joined.hexdigest()


def _span(window: Window | None) -> Span | None:
    return None if window is None else (window.start, window.end)
