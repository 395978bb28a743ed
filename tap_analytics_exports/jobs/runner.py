"""One try of a window: trigger, await, download."""

from __future__ import annotations

import errno
import math
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tap_analytics_exports.archive import Archive
from tap_analytics_exports.errors import (
    Ambiguous,
    Busy,
    ExportFailed,
    FilesRefused,
    Interrupted,
    JobGone,
    NoData,
    Refused,
    TapError,
    Unreachable,
)
from tap_analytics_exports.jobs.job import ATTEMPTS, Job, Part, Phase, PlannedWindow, now
from tap_analytics_exports.jobs.keeping import keep
from tap_analytics_exports.jobs.lanes import Lane
from tap_analytics_exports.jobs.reconcile import LOST
from tap_analytics_exports.parse import Dialect, frames
from tap_analytics_exports.providers.base import Empty, Failed, JobState, Provider, Ready, Running, Unknown
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.settings import Settings
from tap_analytics_exports.transport.download import LocalFile, RemoteFile, download

UNKNOWN_POLLS = 5
"""Polls that may find a state which the vendor does not document."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

logger = clean_logger(__name__)


class _Retry(ExportFailed):
    """A part failed in a way that another job may not."""

    def __init__(self, why: str, part: Part) -> None:
        super().__init__(why)
        self.part = part


class Runner:
    """Carries out the jobs of one provider; its methods are called from several threads.

    Args:
        provider: The provider.
        lane: Its windows.
        settings: For the clocks and the downloads.
        stop: Set when the run is to stop.
        archive: Where files are kept, before anybody reads their rows; None: nowhere.
        downloads: Whether jobs are brought here; else they end when their vendor has their files.
    """

    def __init__(
        self,
        provider: Provider[Any, Any],
        lane: Lane,
        settings: Settings,
        stop: threading.Event,
        *,
        archive: Archive | None = None,
        downloads: bool = True,
    ) -> None:
        self._archive = archive if downloads else None
        self._provider = provider
        self._lane = lane
        self._settings = settings
        self._stop = stop
        self._done = (Phase.FETCHED,) if downloads else (Phase.READY, Phase.FETCHED)

    def run(self, window: PlannedWindow) -> None:
        """Carry out a window's job; how it ended, and why, stands in it afterwards.

        Raises:
            Interrupted: The run is to stop.
        """
        job = window.job
        try:
            self._try(job)
        except Interrupted:
            raise
        except Exception as error:  # what nobody has thought of is not to end the other exports
            logger.exception("%s: unexpected", job)
            job.fail(f"{job}: {type(error).__name__}: {error}")
        job.finish()
        self._lane.give_back(window)

    def _try(self, job: Job) -> None:
        try:
            self._lane.check()
            self._carry_out(job)
            if self._archive is not None:
                keep(self._archive, self._provider, job)
        except Refused as error:
            self._lane.refusal = error
            self._give_up(job, error, refused=job.sent or not isinstance(error, FilesRefused))
        except Unreachable as error:
            self._give_up(job, error, then="nothing was triggered, and the next run tries again")
        except Ambiguous as error:
            job.fail(f"{job.says(error)}; the next run triggers another")
        except _Retry as error:
            if job.number < ATTEMPTS:
                job.retry(job.says(error), error.part)
            else:
                job.fail(
                    f"{job.says(error)}; this was the last of {ATTEMPTS} tries, and the next run begins anew"
                )
        except TapError as error:
            job.fail(job.says(error))

    def _give_up(
        self, job: Job, error: TapError, *, refused: bool = False, then: str = "nothing was triggered"
    ) -> None:
        """End a job for this run, with which a later one goes on if it was triggered."""
        end = job.suspend if job.sent else job.fail
        # With an empty handle nothing was triggered: the vendor answers with the file itself.
        if any(part.handle for part in job.parts):
            then = "the job is kept, and the next run goes on with it"
        end(f"{job.says(error)}; {then}", refused=refused)

    def _carry_out(self, job: Job) -> None:
        """Bring every part of a job here, or as far as it is to come.

        Raises:
            TapError: The job failed.
        """
        while (part := next((part for part in job.parts if part.phase not in self._done), None)) is not None:
            try:
                self._carry_out_part(job, part)
            except NoData:
                job.fetch(part, [])
            except JobGone as error:
                raise _Retry(str(error), part) from None
            except ExportFailed as error:
                halves = part.request.window.halves() if error.split and part.request.window else None
                if halves is not None:
                    logger.info("%s: split in two, as it was too large: %s", job, error)
                    job.split(part, halves)
                elif error.retry:
                    raise _Retry(str(error), part) from None
                else:
                    raise

    def _carry_out_part(self, job: Job, part: Part) -> None:
        """Carry out one remote run, from its trigger to its files here, or until they are to be had."""
        adopted = job.resumed and part.handle is not None
        if part.handle is None:
            self._trigger(job, part)
        if not self._await(job, part):
            job.fetch(part, [])
        elif part.phase not in self._done:
            job.fetch(part, self._fetch(job, part, adopted=adopted))

    def _fetch(self, job: Job, part: Part, *, adopted: bool) -> list[LocalFile]:
        """Bring the files of a remote run here."""
        timeout = part.request.export.export_timeout
        deadline = now() + timeout  # of the transfer, for which the vendor may keep us waiting, too
        folder = job.planned.ledger.files(job.export_id)
        files: list[LocalFile] = []
        for remote in self._remote_files(part, deadline):
            if remote.once and adopted:
                raise _Retry(
                    "an earlier run asked for this job's file, which is not here, and the vendor makes one "
                    "for each request",
                    part,
                )
            path = folder / f"{job.parts.index(part)}-{len(files)}"
            dialect = self._provider.dialect(part.request.export)
            try:
                file = self._download(remote, path, deadline, dialect)
            except Unreachable as error:
                if remote.once and not error.sent:
                    job.unsend(part)
                raise
            _check_rows(file, dialect)
            files.append(file)
        return files

    def _remote_files(self, part: Part, deadline: datetime) -> Sequence[RemoteFile]:
        """List what a part made, and ask again while its server refuses in passing."""
        waits = self._waits()
        while True:
            try:
                return self._provider.files(part.request, part.handle or {})
            except Unreachable as error:
                if error.after is None:
                    raise
                self._wait(max(next(waits), error.after), deadline, error, "its files could not be fetched")

    def _download(self, remote: RemoteFile, path: Path, deadline: datetime, dialect: Dialect) -> LocalFile:
        """Bring a file here, and wait where the vendor has no room for that now."""
        waits = self._waits()
        while True:
            try:
                return download(
                    remote,
                    path,
                    allow_unverified=self._settings.allow_unverified_downloads,
                    encoding=dialect.encoding,
                    deadline=deadline,
                    stop=self._stop,
                )
            except Busy as error:
                for seconds in (max(next(waits), error.after or 0.0), 0.0):  # and see whether it is too late
                    self._wait(seconds, deadline, error, "its file could not be fetched")
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise Unreachable(f"{path.parent}: {error.strerror}; make room, or set spool_dir") from None

    def _trigger(self, job: Job, part: Part) -> None:
        """Trigger a part, or find that it was triggered before and that only its handle was lost."""
        lost = part.phase is Phase.SENDING
        try:
            found = self._provider.find(part.request, job.planned.last or None)
        except Unreachable as error:
            if lost and now() < (part.submitted_at or now()) + part.request.export.export_timeout:
                raise
            logger.warning("%s: whether it runs already can't be seen: %s", job, error)
            found = None
        if found is not None:
            export_id, handle = found
            job.sent_as(part, handle, export_id)
        elif lost:
            raise _Retry(LOST, part)
        else:
            self._submit(job, part)
        begun = "resumed" if job.resumed else self._provider.begins
        logger.info("%s: %s as export %s", job, begun, job.export_id)

    def _submit(self, job: Job, part: Part) -> None:
        """Trigger a part as soon as the vendor has room for it."""
        deadline = now() + part.request.export.export_timeout  # of the wait; the job's clock has not begun
        waits = self._waits()
        unreachable = 0
        while True:
            try:
                return self._send(job, part)
            except Unreachable as error:
                unreachable += 1
                if unreachable == ATTEMPTS:
                    raise
                trouble: Unreachable | Busy = error
            except Busy as error:
                logger.info("%s: waits for its turn: %s", job, error)
                trouble = error
            self._wait(max(next(waits), trouble.after or 0.0), deadline, trouble, "it could not be triggered")

    def _send(self, job: Job, part: Part) -> None:
        """Send one trigger, with the ledger knowing of it before and after."""
        with self._lane.sending:
            job.send(part)
            try:
                handle = self._provider.submit(part.request)
            except Ambiguous:
                found = self._provider.find(part.request, job.planned.last or None)
                if found is None:
                    raise
                handle = found[1]
            except TapError as error:  # so the vendor did not act on it
                job.withdraw(part, seen=not isinstance(error, Unreachable | Busy | Refused))
                raise
            job.sent_as(part, handle)

    def _await(self, job: Job, part: Part) -> bool:
        """Poll a job until it has files; False when it has none.

        Three clocks are kept apart: the distance between polls is here, the tries of one poll are in the
        transport, and the deadline is the job's.
        """
        waits = self._waits()
        unknown: Counter[str] = Counter()
        deadline = (part.submitted_at or now()) + part.request.export.export_timeout
        while True:
            state, trouble = self._poll(job, part)
            match state:
                case Ready():
                    job.ready(part)
                    return True
                case Empty():
                    return False
                case Failed(why, retry, split):
                    raise ExportFailed(why, retry=retry, split=split)
                case Unknown(word):
                    unknown[word] += 1
                    if unknown[word] == UNKNOWN_POLLS:
                        raise ExportFailed(
                            f"{UNKNOWN_POLLS} polls were answered with what the vendor does not document, "
                            f"{word!r}; check base_url, or ask the vendor what that means"
                        )
            advice = "make the window shorter" if part.request.window else "let the export ask for less"
            try:
                asked = trouble and trouble.after
                self._wait(max(next(waits), asked or 0.0), deadline, trouble, "not ready", advice)
            except ExportFailed:
                self._cancel(job, part)
                raise

    def _poll(self, job: Job, part: Part) -> tuple[JobState, Unreachable | None]:
        """Poll a job once; a vendor that can't be asked now lets it go on."""
        handle = dict(part.handle or {})
        state: JobState = Running(part.word)
        trouble = None
        try:
            state = self._provider.poll(part.request, handle)
        except Unreachable as error:
            logger.warning("%s: it can't be polled now: %s", job, error)
            trouble = error
        if isinstance(state, Running | Unknown):
            part.word = state.word
        if handle != part.handle:
            job.learn(part, handle)
        return state, trouble

    def _cancel(self, job: Job, part: Part) -> None:
        try:
            self._provider.cancel(part.request, part.handle or {})
        except TapError as error:
            logger.warning("%s: not cancelled: %s", job, error)

    def _waits(self) -> Iterator[float]:
        """Yield growing waits in seconds, with jitter.

        They grow with a tenth of the wait so far, for it is by them that a job is seen too late; at first
        with half of it, where else polls would take more than half of the requests that the provider allows.
        """
        block = self._provider.settings
        few = 120 * block.max_concurrent_exports / (block.requests_per_minute or math.inf)
        first = self._settings.poll_interval.total_seconds()
        longest = max(first, self._settings.poll_interval_max.total_seconds())
        waited = 0.0
        while True:
            step = min(max(first, waited / 10, min(waited / 2, few)), longest)
            step *= random.uniform(0.8, 1.0)
            waited += step
            yield step

    def _wait(
        self,
        seconds: float,
        deadline: datetime,
        trouble: TapError | None,
        what: str,
        or_else: str = "run later",
    ) -> None:
        left = (deadline - now()).total_seconds()
        if left <= 0:
            cause = f" (last: {trouble})" if trouble else ""
            raise ExportFailed(f"{what} within export_timeout{cause}; raise it, or {or_else}")
        if self._stop.wait(min(seconds, left)):
            raise Interrupted


def _check_rows(file: LocalFile, dialect: Dialect) -> None:
    """Hold a file against the number of rows that the vendor says it has."""
    if file.rows is None:
        return
    found = sum(frame.rows.height + len(frame.bad) for frame in frames(file.path, dialect))
    if found != file.rows:
        raise ExportFailed(f"{file.name}: {found} rows where the vendor says {file.rows}", retry=True)
