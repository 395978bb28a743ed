"""The SDK's metrics of a run, as lines of its logger, which Meltano and others read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby

from singer_sdk.metrics import Metric, Point, Status, Tag, get_metrics_logger, log

from tap_analytics_exports.jobs.status import JobStatus


def log_metrics(jobs: Iterable[JobStatus]) -> None:
    """Log how many records each stream had, how long it took, and how long each of its jobs did.

    A job's duration is that from its trigger, perhaps by an earlier run, until the vendor had its files.
    """
    logger = get_metrics_logger()
    for name, group in groupby(jobs, key=lambda job: job.stream):
        for point in _points(name, list(group)):
            log(logger, point)


def _points(stream: str, jobs: list[JobStatus]) -> Iterator[Point[float]]:
    ended = [job for job in jobs if job.finished_at]
    failed = any(job.result not in ("empty", "loaded") for job in jobs if not job.retried)
    yield Point("counter", Metric.RECORD_COUNT, sum(job.rows for job in jobs), _tags(stream))
    for job in ended:
        if job.submitted_at:
            seconds = _seconds(job.submitted_at, job.ready_at or job.finished_at)
            tags = _tags(stream, failed=job.result == "failed") | {Tag.JOB_TYPE: job.provider}
            yield Point("timer", Metric.JOB_DURATION, seconds, tags)
    if ended:
        began = min(job.planned_at for job in ended)
        seconds = _seconds(began, max(job.finished_at for job in ended if job.finished_at))
        yield Point("timer", Metric.SYNC_DURATION, seconds, _tags(stream, failed=failed))


def _tags(stream: str, *, failed: bool | None = None) -> dict[str, object]:
    tags: dict[str, object] = {Tag.STREAM: stream, Tag.PID: os.getpid()}
    if failed is not None:
        tags[Tag.STATUS] = Status.FAILED if failed else Status.SUCCEEDED
    return tags


def _seconds(start: datetime, end: datetime | None) -> float:
    return (end - start).total_seconds() if end else 0.0
