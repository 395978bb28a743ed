"""What is remembered of a job, in the state and in the ledger: plain values, checked when they come back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from tap_analytics_exports.windows import Window

# Only what this project has made itself becomes a part of a path.
ExportId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
FileName = Annotated[str, Meta(pattern=r"^[0-9]{1,6}-[0-9]{1,6}\Z")]
Timestamp = Annotated[datetime, Meta(tz=True)]
Span = tuple[Timestamp, Timestamp]
Count = Annotated[int, Meta(ge=0)]


class FileEntry(Struct, frozen=True):
    """A download: its name in the spool, its name at the vendor, its size, and the rows that it must have."""

    file: FileName
    name: str
    size: Count
    rows: Count | None = None


class PartEntry(Struct, frozen=True):
    """One remote run of a job.

    Attributes:
        window: What it exports, in UTC; None: a snapshot.
        submitted_at: When its trigger was sent.
        handle: The vendor's answer to that; None: nobody knows it.
        sent: Whether its trigger was on its way, or arrived.
        files: What it made, once that is here.
    """

    window: Span | None
    submitted_at: Timestamp | None = None
    handle: dict[str, Any] | None = None
    sent: bool = False
    files: list[FileEntry] | None = None


class Entry(Struct, frozen=True):
    """A job.

    Attributes:
        export_id: Ours, a UUID.
        window: What it exports, in UTC; None: a snapshot.
        request: Fingerprint of what was asked for.
        parts: Its remote runs; several once its window was too large for the vendor.
        sha256: Of its files.
        written_at: When all its rows were out.
        error: Why it failed for good, as long as `export_runs` does not tell of it.
    """

    export_id: ExportId
    window: Span | None
    request: str
    parts: Annotated[list[PartEntry], Meta(min_length=1, max_length=10_000)]
    sha256: str | None = None
    written_at: Timestamp | None = None
    error: str | None = None

    @property
    def submitted_at(self) -> datetime | None:
        """When the first of its triggers was sent, in UTC."""
        return min((part.submitted_at for part in self.parts if part.submitted_at), default=None)

    @property
    def last_submitted_at(self) -> datetime:
        """When the last of its triggers was sent; long ago if none was."""
        sent = (part.submitted_at for part in self.parts if part.submitted_at)
        return max(sent, default=datetime.min.replace(tzinfo=UTC))

    @property
    def triggered(self) -> bool:
        """Whether the vendor knows of it."""
        return any(part.handle is not None for part in self.parts)

    @property
    def lost(self) -> bool:
        """Whether a trigger was under way of which nobody knows whether it arrived."""
        return any(part.sent and part.handle is None and part.files is None for part in self.parts)

    def to_state(self) -> dict[str, Any]:
        """Say in the state how to find it again, and what it was asked for."""
        submitted_at = self.submitted_at
        parts = [
            {
                "window": dump_window(part.window),
                "submitted_at": part.submitted_at.isoformat() if part.submitted_at else None,
                "handle": part.handle,
            }
            for part in self.parts
        ]
        return {
            "export_id": self.export_id,
            "window": dump_window(self.window),
            "submitted_at": submitted_at.isoformat() if submitted_at else None,
            "request": self.request,
            "handle": self.parts[0].handle if len(parts) == 1 else {"parts": parts},
        }


def entry_of_state(job: object) -> Entry | None:
    """Read a job that a state names; None if it is none that can be gone on with."""
    if not isinstance(job, dict):
        return None
    handle = job.get("handle")
    parts = handle.get("parts") if isinstance(handle, dict) else None
    if not isinstance(parts, list):
        parts = [{key: job.get(key) for key in ("window", "submitted_at", "handle")}]
    known = {key: job.get(key) for key in ("export_id", "window", "request")}
    try:
        entry = read_entry({**known, "parts": parts})
    except msgspec.ValidationError:
        return None
    sent = [msgspec.structs.replace(part, sent=part.handle is not None) for part in entry.parts]
    return msgspec.structs.replace(entry, parts=sent)


def read_entry(content: object) -> Entry:
    """Read an entry of plain JSON values.

    Raises:
        msgspec.ValidationError: It is none.
    """
    entry = msgspec.convert(content, Entry)
    for span in (entry.window, *(part.window for part in entry.parts)):
        if span is not None and not span[0] < span[1]:
            raise msgspec.ValidationError("a window ends before it begins")
    if any((part.window is None) != (entry.window is None) for part in entry.parts):
        raise msgspec.ValidationError("a part is a snapshot, and its job is not, or the other way round")
    return entry


def dump_window(window: Window | Span | None) -> list[str] | None:
    """Write a window as JSON: start and end in UTC, ISO 8601; None for a snapshot."""
    if window is None:
        return None
    start, end = (window.start, window.end) if isinstance(window, Window) else window
    return [start.astimezone(UTC).isoformat(), end.astimezone(UTC).isoformat()]
