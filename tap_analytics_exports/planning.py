"""What a run would do: the jobs that it would trigger, and those of earlier runs that it would go on with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tap_analytics_exports.exports import ExportStream
from tap_analytics_exports.jobs.entries import Entry
from tap_analytics_exports.jobs.folders import Folders
from tap_analytics_exports.jobs.ledger import peek
from tap_analytics_exports.jobs.reconcile import Reconciled
from tap_analytics_exports.providers.base import Request
from tap_analytics_exports.redaction import clean


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job of a run.

    Attributes:
        stream: The stream's name.
        provider: The provider's.
        window: The span `[start, end)` that it exports, in UTC; None: a snapshot.
        action: `trigger`: the vendor is asked for a job; `resume`: it has one already.
        source: What remembers that job: `state` or `ledger`; None: nothing does.
        why: The reason, in words, without times.
        export_id: Of the job that is resumed.
        submitted_at: When that was triggered, in UTC.
    """

    stream: str
    provider: str
    window: tuple[datetime, datetime] | None
    action: Literal["trigger", "resume"]
    source: Literal["state", "ledger"] | None
    why: str
    export_id: str | None = None
    submitted_at: datetime | None = None


def planned(exports: Iterable[ExportStream], folders: Folders, end: datetime) -> list[PlannedJob]:
    """Say which jobs a run would have, in their order; changes nothing.

    Args:
        exports: The exports of the run.
        folders: Where their ledgers are.
        end: The exclusive end of the run, in UTC.
    """
    return [job for export in exports for job in _planned(export, end, peek(folders.folder(export.key)))]


def _planned(export: ExportStream, end: datetime, remembered: Iterable[Entry]) -> Iterator[PlannedJob]:
    requests, left = export.lay_out(end, remembered)
    of_state = {entry.export_id for entry in export.state.jobs}
    for request in requests:
        window = (request.window.start, request.window.end) if request.window else None
        entry = left.resumed.get(request.fingerprint)
        known = entry is not None and entry.triggered
        yield PlannedJob(
            stream=export.name,
            provider=export.provider.name,
            window=window,
            action="resume" if known else "trigger",
            source=None if entry is None else "state" if entry.export_id in of_state else "ledger",
            why=_why_new(export, request, left) if entry is None else _why_resumed(entry),
            export_id=entry.export_id if entry is not None and known else None,
            submitted_at=entry.submitted_at if entry is not None and known else None,
        )


def _why_new(export: ExportStream, request: Request[Any], left: Reconciled) -> str:
    window, bookmark = request.window, export.state.bookmark
    if export.span is not None:
        why = "is exported again"
    elif window is None:
        why = "a snapshot of now"
    elif bookmark is None:
        why = "first run"
    elif window.start >= bookmark:
        why = "behind the bookmark"
    elif window.end > bookmark:
        why = "was cut by the end of an earlier run"
    else:
        why = "lookback"
    for entry, error in left.failed:
        if entry.request == request.fingerprint:
            why += f"; an earlier job of it failed: {clean(error)}"
    return why


def _why_resumed(entry: Entry) -> str:
    if entry.written_at is not None:
        return "its rows were written within the last hour, and no state says so: they are written once more"
    if entry.lost:
        return "a process ended while it triggered this: looked for at the vendor, else triggered anew"
    if not entry.triggered:
        return "an earlier run could not trigger it"
    if all(part.files is not None for part in entry.parts):
        return "an earlier run downloaded it"
    return "an earlier run triggered it"
