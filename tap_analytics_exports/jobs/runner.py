"""The life of export jobs: triggered, awaited and fetched for all streams at once, handed out in their order.

Each provider has a lane: as many threads as jobs may run there, each with one job from its trigger to its
files on disk. The main thread takes finished jobs in the order in which it writes their rows, and hears of
every trigger, so that it can write it into the state.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import random
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec

from tap_analytics_exports.errors import (
    Ambiguous,
    Busy,
    CredentialsRefused,
    ExportFailed,
    Interrupted,
    JobGone,
    NoData,
    TapError,
    Unreachable,
)
from tap_analytics_exports.jobs.ledger import Entry, Ledger
from tap_analytics_exports.parse import Dialect, frames
from tap_analytics_exports.providers.base import (
    Empty,
    Failed,
    Handle,
    JobState,
    Provider,
    Ready,
    Request,
    Running,
    Unknown,
)
from tap_analytics_exports.settings import Settings
from tap_analytics_exports.transport.download import LocalFile, RemoteFile, download
from tap_analytics_exports.windows import Window

ATTEMPTS = 3
"""Jobs for one window in one run, where the vendor's failures are passing ones."""

UNKNOWN_POLLS = 5
"""Looks at a job that may find a state which the vendor does not document."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

LOST = (
    "the process that was about to trigger this job ended before the vendor's answer, so whether it runs "
    "there is not known; the window is exported anew"
)

logger = logging.getLogger("tap-analytics-exports.jobs")


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def new_export_id() -> str:
    """An id for a job, unlike all others."""
    return str(uuid.uuid4())


def fingerprint(
    provider: str, identity: Mapping[str, Any], columns: Sequence[str] | None, window: Window | None
) -> str:
    """What tells whether two requests are the same, as 32 hexadecimal digits."""
    parts = [provider, identity, columns, window and [window.start.isoformat(), window.end.isoformat()]]
    return hashlib.blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=16).hexdigest()


@dataclass(slots=True)
class Part:
    """One remote run: a job has one, or several once its window was too large for the vendor.

    Attributes:
        sent: Whether its trigger is on its way to the vendor, or has arrived there.
        submitted_at: When it was sent.
        handle: The vendor's answer to that.
        files: What it made, once that is here; empty when it had no rows.
    """

    request: Request[Any]
    sent: bool = False
    submitted_at: datetime | None = None
    handle: Handle | None = None
    files: list[LocalFile] | None = None

    def to_state(self) -> dict[str, Any]:
        """What the state says of it, where a job has several."""
        return {
            "window": _dump(self.request.window),
            "submitted_at": _dump_moment(self.submitted_at),
            "handle": self.handle,
        }


@dataclass(slots=True, eq=False)
class Job:
    """An export of one window, from its trigger until its rows are written.

    Attributes:
        last: The `export_id` of the stream's last snapshot, so that it is not taken for this one.
        resumed: Whether an earlier run triggered it.
        attempt: How many jobs this run has made of its window, this one included.
        status: How it ended (`loaded`, `empty`, `failed`); None while it has not.
        error: Why it failed.
        kept: Whether it stays in the state all the same, because its result can still be fetched later.
        refused: Whether it failed because the credentials, or a host's key, are not accepted.
        written: Whether all its rows, and the state that says so, are on standard output.
        next: The job that takes its place, where its failure is a passing one.
        sha256: Of all its files as they were stored at the vendor, joined.
    """

    stream: str
    provider: str
    request: Request[Any]
    last: str | None = None
    parts: list[Part] = field(default_factory=list)
    resumed: bool = False
    attempt: int = 1
    ready_at: datetime | None = None
    downloaded_at: datetime | None = None
    status: str | None = None
    error: str | None = None
    refused: bool = False
    kept: bool = False
    written: bool = False
    next: Job | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        self.parts = self.parts or [Part(self.request)]

    def __str__(self) -> str:
        """Where it is, for messages."""
        return f"{self.provider}, stream {self.stream}, window {self.request.window or 'snapshot'}"

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
        """When the first of its parts was sent."""
        return min((part.submitted_at for part in self.parts if part.submitted_at), default=None)

    @property
    def triggered(self) -> bool:
        """Whether the vendor knows of it."""
        return any(part.handle is not None for part in self.parts)

    @property
    def sent(self) -> bool:
        """Whether the vendor may know of it."""
        return any(part.sent for part in self.parts)

    def to_state(self) -> dict[str, Any]:
        """What the state says of a triggered job."""
        parts = [part.to_state() for part in self.parts]
        return {
            "export_id": self.export_id,
            "window": _dump(self.window),
            "submitted_at": _dump_moment(self.submitted_at),
            "request": self.request.fingerprint,
            "handle": self.parts[0].handle if len(self.parts) == 1 else {"parts": parts},
        }

    def to_entry(self) -> Entry:
        """What the ledger says of it."""
        parts = [
            {
                **part.to_state(),
                "sent": part.sent,
                "files": None if part.files is None else [file.to_entry() for file in part.files],
            }
            for part in self.parts
        ]
        written_at = now().isoformat() if self.written else None
        return {**self.to_state(), "parts": parts, "sha256": self.sha256, "written_at": written_at}

    def adopt(self, known: Mapping[str, Any], folder: Path) -> None:
        """Become a job that an earlier run triggered.

        Args:
            known: What the state or the ledger says of it.
            folder: Where its downloads are, if any.
        """
        self.request = replace(self.request, export_id=known["export_id"], window=_load(known["window"]))
        parts = known.get("parts") or (known["handle"] or {}).get("parts") or [known]
        self.parts = [
            Part(
                replace(self.request, window=_load(part["window"])),
                sent=part.get("sent", part["handle"] is not None),
                submitted_at=_load_moment(part.get("submitted_at") or known["submitted_at"]),
                handle=part["handle"],
            )
            for part in parts
        ]
        self.resumed = self.triggered
        for part, entry in zip(self.parts, parts, strict=True):
            part.files = _still_there(folder, entry.get("files"))
        if known.get("sha256") not in (None, _joined_sha256(self.files)):
            for part in self.parts:
                part.files = None

    def successor(self, failed: Part) -> Job:
        """The job that takes this one's place; its other parts stay as they are."""
        request = replace(self.request, export_id=new_export_id())
        anew = Part(replace(failed.request, export_id=request.export_id), submitted_at=now())
        parts = [anew if part is failed else replace(part) for part in self.parts]
        return Job(self.stream, self.provider, request, self.last, parts, attempt=self.attempt + 1)


class Jobs:
    """All jobs of a run.

    Args:
        providers: Those in use, by name.
        settings: For the clocks, the downloads and the limits.
        stop: Set when the run is asked to stop; then `wake` has to be called.
        on_trigger: Called in the main thread, soon after a job was triggered.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider[Any, Any]],
        settings: Settings,
        stop: threading.Event,
        on_trigger: Callable[[Job], None],
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._on_trigger = on_trigger
        self._stop = stop
        self._news: SimpleQueue[Job | None] = SimpleQueue()  # triggered jobs; None: some job ended
        self._planned: dict[str, list[Job]] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._lanes = {name: _Lane(settings.spool_limit) for name in providers}
        self._written: deque[Job] = deque()

    def plan(self, stream: str, jobs: Sequence[Job], ledger: Ledger) -> None:
        """Add a stream's jobs, in the order of their windows; streams come in the order of their rows."""
        self._planned[stream] = list(jobs)
        self._ledgers[stream] = ledger
        for job in jobs:
            self._lanes[job.provider].add(job)

    def start(self) -> None:
        """Let the lanes run."""
        for name, lane in self._lanes.items():
            provider = self._providers[name]
            cap = min(provider.settings.max_concurrent_exports, provider.most_concurrent_exports)
            for i in range(min(cap, lane.size())):
                threading.Thread(target=self._work, args=[lane], name=f"{name}-{i}", daemon=True).start()

    def open_jobs(self, stream: str) -> list[Job]:
        """The stream's jobs that the vendor knows of and whose rows are not all written yet."""
        return [
            job
            for job in self._planned.get(stream, ())
            if job.triggered and not job.written and (job.status != "failed" or job.kept)
        ]

    def ended(self, stream: str) -> Iterator[Job]:
        """The stream's jobs in their order, each once it has ended.

        The next one is asked for when a job's rows are written. One that failed is followed by another try,
        or by nothing: windows after it would leave a gap.

        Raises:
            Interrupted: The run was asked to stop.
        """
        jobs = self._planned.get(stream, [])
        while jobs:
            job = jobs[0]
            while job.status is None:
                self.hear(wait=True)
            yield job
            self._lanes[job.provider].leave(job)
            self._remember(job)
            if job.next is not None:
                jobs[0] = job.next
            elif job.written:
                jobs.pop(0)
            else:
                for later in jobs[1:]:
                    self._lanes[later.provider].leave(later)
                return

    def _remember(self, job: Job) -> None:
        """Keep what a later run may need of a job that this one is done with, within the spool's limit."""
        ledger = self._ledgers[job.stream]
        if not (job.written or job.kept) or ledger.folder is None:
            ledger.forget(job.export_id)
            return
        ledger.save(job.to_entry())
        self._written.append(job)
        while sum(file.size for kept in self._written for file in kept.files) > self._settings.spool_limit:
            oldest = self._written.popleft()
            self._ledgers[oldest.stream].drop_files(oldest.export_id)

    def close(self) -> None:
        """At the end of a run: what was written need not stay here, as long as its vendor still has it."""
        for job in self._written:
            if job.written:
                self._ledgers[job.stream].drop_files(job.export_id)
        for ledger in self._ledgers.values():
            ledger.leave()

    def hear(self, *, wait: bool = False) -> None:
        """Tell the main thread of what was triggered since, or wait until something happens.

        Raises:
            Interrupted: The run was asked to stop.
        """
        while not self._stop.is_set() and (wait or not self._news.empty()):
            job = self._news.get()
            if job is not None:
                self._on_trigger(job)
            wait = False
        if self._stop.is_set():
            raise Interrupted

    def wake(self) -> None:
        """Let the main thread see that it is to stop; safe to call from a signal handler."""
        self._news.put(None)

    def _work(self, lane: _Lane) -> None:
        while (job := lane.take()) is not None:
            try:
                status = self._outcome(job, lane)
            except Interrupted:
                return
            lane.end(job)
            job.status = status
            self._news.put(None)

    def _outcome(self, job: Job, lane: _Lane) -> str:
        """Carry a job out; how it ended, and why, stands in it."""
        if lane.refusal is not None:
            job.refused, job.error = True, lane.refusal
            return "failed"
        try:
            self._carry_out(job, self._providers[job.provider])
            job.sha256 = _joined_sha256(job.files)
        except CredentialsRefused as error:
            lane.refusal = job.error = str(error)
            job.refused, job.kept = True, job.sent
        except Unreachable as error:
            job.error, job.kept = f"{job}: {error}", job.sent
        except TapError as error:
            job.error = f"{job}: {error}"
        except Exception as error:  # a thread that dies would leave its stream waiting for ever
            logger.exception("%s: unexpected", job)
            job.error = f"{job}: {type(error).__name__}: {error}"
        else:
            self._ledgers[job.stream].save(job.to_entry())
            return "loaded" if job.files else "empty"
        return "failed"

    def _carry_out(self, job: Job, provider: Provider[Any, Any]) -> None:
        """Bring every part of a job here.

        Raises:
            TapError: The job failed; where another one may fare better, it stands in `job.next`.
        """
        while (part := next((part for part in job.parts if part.files is None), None)) is not None:
            try:
                part.files = self._fetch(job, part, provider)
            except NoData:
                part.files = []
            except JobGone as error:
                self._try_again(job, part)
                raise ExportFailed(str(error)) from None
            except ExportFailed as error:
                halves = part.request.window.halves() if error.split and part.request.window else None
                if halves is None:
                    if error.retry:
                        self._try_again(job, part)
                    raise
                logger.info("%s: split in two, as it was too large: %s", job, error)
                i = job.parts.index(part)
                job.parts[i : i + 1] = [Part(replace(part.request, window=half)) for half in halves]

    def _try_again(self, job: Job, failed: Part) -> None:
        if job.attempt < ATTEMPTS:
            self._replace(job, failed)

    def _replace(self, job: Job, failed: Part) -> None:
        """Let another job take this one's place, with all that its other parts have brought here."""
        job.next = job.successor(failed)
        ledger = self._ledgers[job.stream]
        folder = ledger.hand_over(job.export_id, job.next.export_id)
        for part in job.next.parts:
            part.files = part.files and [replace(file, path=folder / file.path.name) for file in part.files]
        ledger.save(job.next.to_entry())

    def _fetch(self, job: Job, part: Part, provider: Provider[Any, Any]) -> list[LocalFile]:
        """One remote run, from its trigger to its files here."""
        timeout = part.request.export.export_timeout
        deadline = now() + timeout
        ledger = self._ledgers[job.stream]
        adopted = job.resumed and part.handle is not None
        if part.handle is None:
            self._trigger(job, part, provider, deadline)
            ledger.save(job.to_entry())
            self._news.put(job)
        elif part.submitted_at is not None:
            deadline = part.submitted_at + timeout
        handle = part.handle or {}
        if not self._await(job, part.request, handle, provider, deadline):
            return []
        job.ready_at = now()
        files: list[LocalFile] = []
        for remote in provider.files(part.request, handle):
            if remote.once and adopted:
                self._replace(job, part)
                raise ExportFailed(
                    "an earlier run asked for this job's file, which is not here, and the vendor makes one "
                    "for each request; the window is exported anew"
                )
            path = ledger.files(job.export_id) / f"{job.parts.index(part)}-{len(files)}"
            file = self._download(job, remote, path, deadline)
            _check_rows(file, provider.dialect(part.request.export))
            files.append(file)
        job.downloaded_at = now()
        return files

    def _download(self, job: Job, remote: RemoteFile, path: Path, deadline: datetime) -> LocalFile:
        """Bring a file here, and wait where the vendor has no room for that now."""
        waits = self._waits(job)
        while True:
            try:
                return download(remote, path, allow_unverified=self._settings.allow_unverified_downloads)
            except Busy as error:
                self._wait(max(next(waits), error.after or 0.0), deadline, error)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise Unreachable(f"{path.parent}: {error.strerror}; make room, or set spool_dir") from None

    def _trigger(self, job: Job, part: Part, provider: Provider[Any, Any], deadline: datetime) -> None:
        """Trigger a part, or find that it was triggered before and that only its handle was lost."""
        try:
            found = provider.find(part.request, job.last)
        except Unreachable as error:
            if part.sent:
                raise
            logger.warning("%s: whether it runs already can't be seen: %s", job, error)
            found = None
        if found is None and part.sent:
            self._replace(job, part)
            raise ExportFailed(LOST)
        if not part.sent:
            part.submitted_at = now()
        if found is not None:
            export_id, part.handle = found
            job.resumed = export_id != job.export_id or part.sent
            job.request = replace(job.request, export_id=export_id)
        else:
            try:
                self._submit(job, part, provider, deadline)
            except Ambiguous:
                found = provider.find(part.request, job.last)
                if found is None:
                    raise
                part.handle = found[1]
        part.sent = True
        logger.info("%s: %s as export %s", job, "resumed" if job.resumed else "triggered", job.export_id)

    def _submit(self, job: Job, part: Part, provider: Provider[Any, Any], deadline: datetime) -> None:
        """Trigger a part as soon as the vendor has room for it."""
        waits = self._waits(job)
        unreachable = 0
        while True:
            try:
                return self._send(job, part, provider)
            except Unreachable as error:
                unreachable += 1
                if unreachable == ATTEMPTS:
                    raise
                self._wait(max(next(waits), error.after or 0.0), deadline, error)
            except Busy as error:
                logger.info("%s: waits for its place: %s", job, error)
                self._wait(max(next(waits), error.after or 0.0), deadline, error)

    def _send(self, job: Job, part: Part, provider: Provider[Any, Any]) -> None:
        """Send one trigger, with the ledger knowing of it before and after.

        Those of a provider are sent one by one, so that a process that dies leaves at most one of which
        nobody knows whether it runs.
        """
        ledger = self._ledgers[job.stream]
        with self._lanes[job.provider].sending:
            part.sent = True
            ledger.save(job.to_entry())
            try:
                part.handle = provider.submit(part.request)
            except Ambiguous:
                raise
            except TapError:  # so the vendor did not act on it
                part.sent = False
                raise
            finally:
                ledger.save(job.to_entry())

    def _await(
        self,
        job: Job,
        request: Request[Any],
        handle: Handle,
        provider: Provider[Any, Any],
        deadline: datetime,
    ) -> bool:
        """JobState at a job until it has files; False when it has none.

        Three clocks are kept apart: the distance between looks is here, the tries of one look are in
        `http`, and the deadline is the job's.
        """
        waits = self._waits(job)
        unknown: Counter[str] = Counter()
        while True:
            before, asked, trouble = dict(handle), 0.0, None
            state: JobState = Running()
            try:
                state = provider.poll(request, handle)
            except Unreachable as error:
                logger.warning("%s: no look at the job is possible now: %s", job, error)
                asked, trouble = error.after or 0.0, error
            if handle != before:
                self._ledgers[job.stream].save(job.to_entry())
                self._news.put(job)
            match state:
                case Ready():
                    return True
                case Empty():
                    return False
                case Failed(why, retry, split):
                    raise ExportFailed(why, retry=retry, split=split)
                case Unknown(word):
                    unknown[word] += 1
                    if unknown[word] == UNKNOWN_POLLS:
                        raise ExportFailed(
                            f"the vendor calls the job's state {word!r}, a word it does not document"
                        )
            try:
                self._wait(max(next(waits), asked), deadline, trouble)
            except ExportFailed:
                self._cancel(job, request, handle, provider)
                raise

    def _cancel(self, job: Job, request: Request[Any], handle: Handle, provider: Provider[Any, Any]) -> None:
        try:
            provider.cancel(request, handle)
        except TapError as error:
            logger.warning("%s: not cancelled: %s", job, error)

    def _waits(self, job: Job) -> Iterator[float]:
        """Growing distances in seconds, with jitter.

        They grow with a tenth of the wait so far, for it is by them that a job is seen too late; at first
        with half of it, where else looks would take more than half of the requests that the provider allows.
        """
        block = self._providers[job.provider].settings
        few = 120 * block.max_concurrent_exports / (block.requests_per_minute or math.inf)
        first = self._settings.poll_interval.total_seconds()
        longest = max(first, self._settings.poll_interval_max.total_seconds())
        waited = 0.0
        while True:
            step = min(max(first, waited / 10, min(waited / 2, few)), longest)
            step *= random.uniform(0.8, 1.0)  # noqa: S311 - no secret hangs on it
            waited += step
            yield step

    def _wait(self, seconds: float, deadline: datetime, trouble: TapError | None) -> None:
        left = (deadline - now()).total_seconds()
        if left <= 0:
            cause = f" (last: {trouble})" if trouble else ""
            raise ExportFailed(
                f"not ready within export_timeout{cause}; raise it, or make the window shorter"
            )
        if self._stop.wait(min(seconds, left)):
            raise Interrupted


class _Lane:
    """A provider's jobs in the order of their rows, and which may go next.

    Jobs that were triggered before go first, for they run at the vendor already. While the files that wait
    to be written are larger than the limit, only the job whose turn it is may go.
    """

    def __init__(self, spool_limit: int) -> None:
        self.refusal: str | None = None
        self.sending = threading.Lock()
        self._limit = spool_limit
        self._changed = threading.Condition()
        self._jobs: list[Job] = []  # whose rows are not written
        self._pending: list[Job] = []  # of those, the ones that no thread has taken
        self._bytes: dict[Job, int] = {}

    def size(self) -> int:
        return len(self._pending)

    def add(self, job: Job) -> None:
        self._jobs.append(job)
        self._pending.append(job)

    def take(self) -> Job | None:
        """The next job to carry out; None when there is none left."""
        with self._changed:
            while self._pending:
                if sum(self._bytes.values()) < self._limit:
                    job = next((job for job in self._pending if job.triggered), self._pending[0])
                elif self._jobs[0] in self._pending:
                    job = self._jobs[0]
                else:
                    self._changed.wait()
                    continue
                self._pending.remove(job)
                return job
            return None

    def end(self, job: Job) -> None:
        """A job has ended; the one that takes its place, if any, takes its turn too."""
        with self._changed:
            if job in self._jobs:
                self._bytes[job] = sum(file.size for file in job.files)
                if job.next is not None:
                    self._jobs[self._jobs.index(job)] = job.next
                    self._pending.insert(0, job.next)

    def leave(self, job: Job) -> None:
        """A job's rows are written, or nobody wants them any more."""
        with self._changed:
            self._bytes.pop(job, None)
            for jobs in (self._jobs, self._pending):
                if job in jobs:
                    jobs.remove(job)
            self._changed.notify_all()


def _check_rows(file: LocalFile, dialect: Dialect) -> None:
    """Hold a file against the number of rows that the vendor says it has."""
    if file.rows is None:
        return
    found = sum(frame.rows.height + len(frame.bad) for frame in frames(file.path, dialect))
    if found != file.rows:
        raise ExportFailed(f"{file.name}: {found} rows where the vendor says {file.rows}", retry=True)


def _still_there(folder: Path, entries: Sequence[Entry] | None) -> list[LocalFile] | None:
    """The downloads that an entry speaks of, if all of them are where they were."""
    if entries is None:
        return None
    files = [LocalFile.from_entry(folder, entry) for entry in entries]
    whole = all(file.path.is_file() and file.path.stat().st_size == file.size for file in files)
    return files if whole else None


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


def _dump(window: Window | None) -> list[str] | None:
    return None if window is None else [window.start.isoformat(), window.end.isoformat()]


def _load_moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _dump_moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _load(window: list[str] | None) -> Window | None:
    return None if window is None else Window(*map(datetime.fromisoformat, window))
