"""A job's files go into the archive."""

from __future__ import annotations

from typing import Any

from tap_analytics_exports.archive import Archive, Manifest, identity_hash
from tap_analytics_exports.jobs.job import Job, now
from tap_analytics_exports.providers.base import Provider


def keep(archive: Archive, provider: Provider[Any, Any], job: Job) -> None:
    """Keep a job's files; where that fails, the next run goes on from here.

    Raises:
        Unreachable: The archive can't be written now.
        Interrupted: The run was asked to stop.
    """
    request, window = job.request, job.window
    manifest = Manifest(
        provider=job.planned.provider,
        stream=job.planned.stream,
        window=None if window is None else (window.start, window.end),
        export_id=job.export_id,
        request=request.fingerprint,
        identity=identity_hash(provider, request.export),
        columns=request.columns,
        format=provider.dialect(request.export).format,
        submitted_at=job.submitted_at,
        ready_at=job.ready_at,
        downloaded_at=job.downloaded_at,
        archived_at=now(),
    )
    archive.keep(manifest, job.files)
