"""All jobs of a run: carried out for all streams at once, handed out in their order.

Each provider has a lane: as many threads as jobs may run there, each with one job from its trigger to its
files on disk. Whoever reads the rows takes ended jobs in the order of its streams and windows, and is told
of every trigger, so that it can say so in the state.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from tap_analytics_exports.archive import Archive
from tap_analytics_exports.errors import Interrupted
from tap_analytics_exports.jobs.job import Job, Outcome, PlannedWindow
from tap_analytics_exports.jobs.lanes import Lane
from tap_analytics_exports.jobs.runner import Runner
from tap_analytics_exports.providers.base import Provider
from tap_analytics_exports.settings import Settings


class Jobs:
    """All jobs of a run.

    Args:
        providers: Those in use, by name.
        settings: For the clocks, the downloads and the limits.
        stop: Set when the run is to stop.
        archive: Where files are kept; None: nowhere.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider[Any, Any]],
        settings: Settings,
        stop: threading.Event,
        archive: Archive | None = None,
    ) -> None:
        self._archive = archive
        self._providers = providers
        self._settings = settings
        self._stop = stop
        self._news: SimpleQueue[Job | BaseException | None] = SimpleQueue()
        self._windows: list[PlannedWindow] = []
        self._over: list[Job] = []
        self._open: dict[str, dict[PlannedWindow, dict[str, Any]]] = {}
        self._lanes = {name: Lane(settings.spool_limit) for name in providers}
        self._threads: list[threading.Thread] = []
        self._written: deque[Job] = deque()
        self.tell = self._news.put

    def check_archive(self) -> None:
        """See that what jobs make can be kept, where it is to be.

        Raises:
            SettingsError: It can't.
        """
        if self._archive is not None:
            self._archive.check()

    def plan(self, windows: Sequence[PlannedWindow], over: Sequence[Job] = ()) -> None:
        """Add a stream's windows, in their order; streams come in the order of their rows.

        Args:
            windows: The windows.
            over: Jobs of earlier runs that are over, of which nobody was told.
        """
        self._over += over
        for window in windows:
            self._windows.append(window)
            self._lanes[window.provider].add(window)
            self._notice(window.job)

    def start(self, *, downloads: bool = True) -> None:
        """Let the lanes run; without downloads, jobs end when their vendors have their files."""
        for name, lane in self._lanes.items():
            provider = self._providers[name]
            runner = Runner(
                provider, lane, self._settings, self._stop, archive=self._archive, downloads=downloads
            )
            for i in range(min(provider.concurrent_exports, lane.size())):
                thread = threading.Thread(
                    target=self._work, args=[lane, runner], name=f"{name}-{i}", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def all(self) -> list[Job]:
        """List all jobs of the run, in the order of their rows; from any thread."""
        return [*self._over, *(job for window in list(self._windows) for job in list(window.attempts))]

    def open_jobs(self, stream: str) -> list[dict[str, Any]]:
        """List a stream's triggered jobs that are not all written, as a state has them."""
        return list(self._open.get(stream, {}).values())

    def untold(self) -> list[Job]:
        """List jobs that failed behind a window that failed, too, so that nobody has asked for them."""
        jobs = [job for window in self._windows for job in window.attempts]
        return [job for job in jobs if job.outcome is Outcome.FAILED and not job.told]

    def drain(self, *, wait: bool = False) -> bool:
        """Take note of what happened since, or wait until something does.

        Returns:
            Whether a job was triggered, or is called by something else from now on.

        Raises:
            Interrupted: The run is to stop.
        """
        triggered = False
        while not self._stop.is_set():
            try:
                news = self._news.get(block=wait)
            except Empty:
                return triggered
            if isinstance(news, BaseException):
                raise news
            triggered = (news is not None and self._notice(news)) or triggered
            wait = False
        raise Interrupted

    def leave(self, window: PlannedWindow) -> None:
        """Be done with a window: its rows are written, or nobody wants them any more."""
        self._lanes[window.provider].leave(window)

    def told(self, job: Job) -> None:
        """Keep what a later run may need of a job that was told of, within the spool's limit."""
        job.told = True
        ledger = job.planned.ledger
        if job.outcome is Outcome.FAILED or not ledger.remembers:
            ledger.forget(job.export_id)
            return
        self._written.append(job)
        while sum(file.size for kept in self._written for file in kept.files) > self._settings.spool_limit:
            oldest = self._written.popleft()
            oldest.planned.ledger.drop_files(oldest.export_id)

    def stop(self) -> None:
        """Have all threads end, and whoever waits for news, too; no job is cancelled."""
        self._stop.set()
        for lane in self._lanes.values():
            lane.close()
        self._news.put(None)

    def close(self, seconds: float) -> bool:
        """Stop, wait so long for the threads, and tell whether all have ended."""
        self.stop()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if self._archive is not None:
            self._archive.close()
        return not any(thread.is_alive() for thread in self._threads)

    def drop_written(self, *, forget: bool = False) -> None:
        """Drop the downloads of written jobs, at the end of a run, as their vendors still have them.

        Args:
            forget: Drop the jobs too, so that no run goes on with them.
        """
        for job in self._written:
            if job.outcome is Outcome.WRITTEN:
                drop = job.planned.ledger.forget if forget else job.planned.ledger.drop_files
                drop(job.export_id)

    def _notice(self, job: Job) -> bool:
        """Take note of how a job is, and tell whether the state has to say so at once."""
        window = job.planned
        jobs = self._open.setdefault(window.stream, {})
        if not window.job.open:
            jobs.pop(window, None)
            return False
        said = window.job.entry().to_state()
        changed = jobs.get(window) != said
        jobs[window] = said
        return changed

    def _work(self, lane: Lane, runner: Runner) -> None:
        try:
            while (window := lane.take()) is not None:
                runner.run(window)
        except Interrupted:
            return
        except BaseException as error:  # noqa: BLE001 - raised where the rows are read
            self._news.put(error)
