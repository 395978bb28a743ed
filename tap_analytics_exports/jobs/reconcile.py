"""What earlier runs have left, held against what this run has to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tap_analytics_exports.jobs.entries import Entry

REUSE = timedelta(hours=1)
"""How long after its trigger a job whose rows were all written is used once more, where no state has them."""

SNAPSHOT_AGE = timedelta(days=1)
"""How long after its trigger a snapshot is still one of now."""

LOST = (
    "the process that was about to trigger this job ended before the vendor's answer, so whether it runs "
    "there is not known"
)


@dataclass(slots=True)
class Reconciled:
    """What becomes of each job that is remembered.

    Attributes:
        resumed: The jobs to go on with, by the fingerprint of what they were asked for.
        reused: Those of them whose rows were all written before.
        failed: The jobs that are over and of which nobody was told yet, each with the reason.
        forgotten: The ids of those that have served.
        waiting: Those that no window of this run needs, and a later one may.
    """

    resumed: dict[str, Entry] = field(default_factory=dict)
    reused: list[Entry] = field(default_factory=list)
    failed: list[tuple[Entry, str]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    waiting: list[Entry] = field(default_factory=list)


def reconcile(
    *,
    state: Iterable[Entry],
    ledger: Iterable[Entry],
    bookmark: datetime | None,
    last_export_id: str,
    wanted: Collection[str],
    now: datetime,
    again: bool = False,
) -> Reconciled:
    """Decide what becomes of the jobs of a stream that earlier runs have triggered.

    Args:
        state: Those that the state names.
        ledger: Those that the ledger has; of a job in both, it knows more.
        bookmark: The end of the windows whose rows are safe, in UTC; None: no window's are.
        last_export_id: Of the snapshot whose rows are safe.
        wanted: The fingerprints of the windows that this run has to do.
        now: The time, in UTC.
        again: Whether windows are exported again whatever the bookmark says; all other jobs are left alone.
    """
    known = {entry.export_id: entry for entry in (*state, *ledger)}
    result = Reconciled()
    bookmark = None if again else bookmark
    for entry in sorted(known.values(), key=lambda entry: entry.last_submitted_at):
        if again and entry.request not in wanted:
            result.waiting.append(entry)
        elif entry.error is not None:
            result.failed.append((entry, entry.error))
        elif _has_served(entry, bookmark, last_export_id, now, wanted=entry.request in wanted):
            result.forgotten.append(entry.export_id)
        elif entry.request not in wanted:
            result.waiting.append(entry)
        else:
            older = result.resumed.get(entry.request)
            if older is not None and older.lost:
                result.failed.append((older, LOST))
            elif older is not None:
                result.forgotten.append(older.export_id)
            result.resumed[entry.request] = entry
    result.reused = [entry for entry in result.resumed.values() if entry.written_at is not None]
    return result


def _has_served(
    entry: Entry, bookmark: datetime | None, last_export_id: str, now: datetime, *, wanted: bool
) -> bool:
    """Tell whether a job's rows are safe, or too old, or nobody will ask for them."""
    age = now - entry.last_submitted_at
    if entry.window is None:
        if entry.export_id == last_export_id:
            return True
        return age > (SNAPSHOT_AGE if entry.written_at is None else REUSE)
    if bookmark is not None and entry.window[1] <= bookmark:
        return entry.written_at is not None or not wanted
    return entry.written_at is not None and bookmark is None and age > REUSE
