"""What the streams that describe a run say: a record a job, and one a rejected row. None has a secret."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from tap_analytics_exports import redaction
from tap_analytics_exports.errors import CredentialsRefused, ExportsFailed, Failure
from tap_analytics_exports.jobs.job import Job, now
from tap_analytics_exports.parse import BadRow


def run_record(job: Job) -> dict[str, Any]:
    """Make the record that `export_runs` has of a job that ended; timestamps are datetimes in UTC."""
    window: Mapping[str, datetime | None] = {"window_start": None, "window_end": None}
    if job.window:
        window = {"window_start": job.window.start, "window_end": job.window.end}
    record = {
        "export_id": job.export_id,
        "stream": job.planned.stream,
        "provider": job.planned.provider,
        **window,
        "status": job.status,
        "resumed": job.resumed,
        "submitted_at": job.submitted_at,
        "ready_at": job.ready_at,
        "downloaded_at": job.downloaded_at,
        "finished_at": job.finished_at,
        "files": len(job.files),
        "bytes": sum(file.size for file in job.files),
        "rows": job.count.rows,
        "rejected_rows": job.count.rejected,
        "sha256": job.sha256,
        "error": job.error,
    }
    return _cleaned(record)


def as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a record with its timestamps as RFC 3339."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in record.items()
    }


def rejected_records(job: Job, bad: Sequence[tuple[str, BadRow]]) -> list[dict[str, Any]]:
    """Make the records that `rejected_rows` has of bad rows, each with the name of its file."""
    return [
        _cleaned(
            {
                "export_id": job.export_id,
                "row_number": row.row_number,
                "stream": job.planned.stream,
                "file": file,
                "reason": row.reason,
                "column": row.column,
                "raw": row.raw,
                "rejected_at": now(),
            }
        )
        for file, row in bad
    ]


def failure_of(
    used: Collection[str], failed: Sequence[Job], lacking: Sequence[Failure]
) -> ExportsFailed | None:
    """Make the error with which a run ends; None: nothing has failed.

    Args:
        used: The names of the providers that the run had to do with.
        failed: The jobs that failed.
        lacking: What else did.
    """
    if not failed and not lacking:
        return None
    # With an empty handle nothing was triggered: the vendor answers with the file itself.
    untouched = [job for job in failed if not any(part.handle for part in job.parts)]
    refused = {job.planned.provider for job in untouched if job.refused}
    kind = CredentialsRefused if refused == set(used) else ExportsFailed
    failures = [Failure(job.planned.stream, job.error or "", job.refused) for job in failed]
    return kind([*failures, *lacking])


def _cleaned(record: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a record without secrets in what vendors said, or in a row's text, which else stays as it is."""
    copy = dict(record)
    for name, clean in (
        ("error", redaction.clean),
        ("reason", redaction.clean),
        ("raw", redaction.clean_data),
    ):
        if copy.get(name):
            copy[name] = clean(copy[name])
    return copy
