"""How a job is, as people want to know it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tap_analytics_exports.jobs.job import Job, Phase
from tap_analytics_exports.redaction import clean
from tap_analytics_exports.windows import Window

Stage = Literal["queued", "running", "downloading", "fetched", "writing", "ended"]
"""`queued`: not triggered yet; `running`: at the vendor; `fetched`: here, and waiting for its turn."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job of a run at one time; its timestamps are in UTC, and None until they have come.

    Attributes:
        stream: The stream's name.
        provider: The provider's.
        window: What it exports; None: a snapshot.
        export_id: Ours, as in `export_runs`.
        attempt: The how-manieth job of its window in this run, from 1.
        retried: Whether another one came after it.
        resumed: Whether an earlier run had triggered it.
        stage: How far it is.
        word: What the vendor called its state when it was last polled; empty: nothing.
        planned_at: When this run laid it out.
        submitted_at: When it was triggered, perhaps by an earlier run.
        ready_at: When the vendor was seen to have its files.
        downloaded_at: When they were here.
        writing_at: When its first rows were asked for.
        finished_at: When it had ended.
        files: How many files it has brought.
        bytes: How much of them is here.
        rows: How many were written.
        rejected: How many were not, as they don't fit.
        first_rejected: Where the first of these is, and why; empty: there is none.
        result: `loaded`, `empty` or `failed`, once it has ended.
        error: Why it failed.
    """

    stream: str
    provider: str
    window: Window | None
    export_id: str
    attempt: int
    retried: bool
    resumed: bool
    stage: Stage
    word: str
    planned_at: datetime
    submitted_at: datetime | None
    ready_at: datetime | None
    downloaded_at: datetime | None
    writing_at: datetime | None
    finished_at: datetime | None
    files: int
    bytes: int
    rows: int
    rejected: int
    first_rejected: str
    result: str | None
    error: str | None

    def __str__(self) -> str:
        """Say how it ended, in a line."""
        parts = [self.result or self.stage]
        if self.ready_at and self.submitted_at:
            parts.append(f"ready after {duration(self.ready_at - self.submitted_at)}")
        if self.files:
            parts.append(f"{amount(self.files, 'file')} of {size(self.bytes)}")
        parts += [amount(self.rows, "row"), f"{self.rejected:,} rejected"]
        if self.first_rejected:
            parts.append(f"the first because: {self.first_rejected}")
        return ", ".join(parts)


def status_of(job: Job) -> JobStatus:
    """Take down how a job is; from any thread."""
    with job.planned.lock:
        files, count = job.files, job.count
        stage = _stage(job)
        arrived = sum(file.size for file in files)
        if stage == "downloading":
            arrived = job.planned.ledger.arrived(job.export_id)
        return JobStatus(
            stream=job.planned.stream,
            provider=job.planned.provider,
            window=job.window,
            export_id=job.export_id,
            attempt=job.number,
            retried=job is not job.planned.job,
            resumed=job.resumed,
            stage=stage,
            word=clean(next((part.word for part in job.parts if part.phase is Phase.SENT), "")),
            planned_at=job.planned_at,
            submitted_at=job.submitted_at,
            ready_at=job.ready_at,
            downloaded_at=job.downloaded_at,
            writing_at=job.writing_at,
            finished_at=job.finished_at,
            files=len(files),
            bytes=arrived,
            rows=count.rows,
            rejected=count.rejected,
            first_rejected=clean(count.first),
            result=job.status if stage == "ended" else None,
            error=job.error,
        )


def duration(span: timedelta) -> str:
    """Write a span of time for people: `26 s`, `3 min 5 s`, `2 h 4 min`."""
    seconds = max(round(span.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def size(number: float) -> str:
    """Write a number of bytes for people, with three digits: `812 B`, `1.23 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5 or unit == "GB":
            break
        number /= 1000
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"


def amount(number: int, what: str) -> str:
    """Write how many there are of something: `1 file`, `1,200 files`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _stage(job: Job) -> Stage:
    phases = {part.phase for part in job.parts}
    if job.finished_at or job.error is not None:
        return "ended"
    if job.writing_at:
        return "writing"
    if phases == {Phase.FETCHED}:
        return "fetched"
    if Phase.READY in phases:
        return "downloading"
    return "running" if Phase.SENT in phases else "queued"
