"""What a job has been through, and what the ledger remembers of it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tap_analytics_exports.jobs.entries import Entry, FileEntry, PartEntry
from tap_analytics_exports.jobs.job import IllegalTransition, Phase, PlannedWindow, new_export_id
from tap_analytics_exports.jobs.ledger import Ledger
from tap_analytics_exports.providers.base import Request
from tap_analytics_exports.transport.download import LocalFile
from tap_analytics_exports.windows import Window

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger", tmp_path / "spool")


def test_a_job_refuses_what_can_not_follow(ledger):
    request = Request(None, None, None, "a", new_export_id())
    job = PlannedWindow("s", "p", request, ledger, lambda _: None).job
    (part,) = job.parts
    for step in (
        lambda: job.ready(part),
        lambda: job.fetch(part, []),
        lambda: job.withdraw(part, seen=True),
        job.write,
    ):
        with pytest.raises(IllegalTransition):
            step()
    job.send(part)
    job.sent_as(part, {})
    with pytest.raises(IllegalTransition):
        job.send(part)
    job.fail("no")
    for step in (lambda: job.fail("twice"), lambda: job.ready(part), lambda: job.suspend("no")):
        with pytest.raises(IllegalTransition):
            step()


def test_the_ledger_follows_a_job_step_by_step(ledger):
    job = PlannedWindow("s", "p", Request(None, None, None, "a", new_export_id()), ledger, lambda _: None).job
    (part,) = job.parts

    def remembered() -> tuple[Any, ...]:
        (entry,) = ledger.entries()
        (one,) = entry.parts
        return one.sent, one.submitted_at is not None, one.handle, entry.error

    job.send(part)
    assert remembered() == (True, True, None, None)
    job.withdraw(part, seen=True)
    assert remembered() == (False, True, None, None)
    job.send(part)
    job.withdraw(part, seen=False)
    assert remembered() == (False, False, None, None)
    job.sent_as(part, {"id": 1})
    assert remembered() == (True, True, {"id": 1}, None)
    job.learn(part, {"id": 2})
    assert remembered() == (True, True, {"id": 2}, None)
    job.fail("no")
    assert remembered() == (True, True, {"id": 2}, "no")


def test_a_job_that_is_found_at_the_vendor_goes_by_the_id_that_it_was_triggered_with(ledger):
    job = PlannedWindow("s", "p", Request(None, None, None, "a", new_export_id()), ledger, lambda _: None).job
    earlier = new_export_id()
    job.sent_as(job.parts[0], {"id": 1}, earlier)
    assert (job.export_id, job.resumed) == (earlier, True)
    assert [entry.export_id for entry in ledger.entries()] == [earlier]


@pytest.mark.parametrize("here", [b"row", b"rows", b"worn", None])
def test_only_a_download_that_is_as_it_was_is_not_fetched_again(ledger, here):
    planned = PlannedWindow("s", "p", Request(None, None, None, "a", ""), ledger, lambda _: None)
    part = PartEntry(None, datetime.now(UTC), {"id": 1}, True, [FileEntry("0-0", "f", 4, 1)])
    entry = Entry(new_export_id(), None, "a", [part], hashlib.sha256(b"rows").hexdigest())
    if here is not None:
        (ledger.files(entry.export_id) / "0-0").write_bytes(here)
    planned.adopt(entry)
    (adopted,) = planned.job.parts
    assert adopted.handle == {"id": 1}
    if here == b"rows":
        assert (adopted.phase, planned.job.sha256) == (Phase.FETCHED, entry.sha256)
        assert [(file.name, file.rows) for file in planned.job.files] == [("f", 1)]
    else:
        assert (adopted.phase, planned.job.sha256, planned.job.files) == (Phase.SENT, None, [])


def test_what_the_parts_of_a_job_have_brought_is_handed_to_the_next_try(ledger):
    request = Request(None, Window(START, START + 2 * DAY), None, "a", new_export_id())
    planned = PlannedWindow("s", "p", request, ledger, lambda _: None)
    job = planned.job
    job.split(job.parts[0], [Window(START, START + DAY), Window(START + DAY, START + 2 * DAY)])
    first, second = job.parts
    for part in job.parts:
        job.sent_as(part, {"id": 1})
    path = ledger.files(job.export_id) / "0-0"
    path.write_bytes(b"rows")
    job.fetch(first, [LocalFile(path, "f", 4, 1)])
    successor = job.retry("it passes", second)
    assert planned.job is successor
    assert [file.path.read_bytes() for file in successor.files] == [b"rows"]
    entries = {entry.export_id: entry for entry in ledger.entries()}
    assert entries[job.export_id].error == "it passes"
    kept, again = entries[successor.export_id].parts
    assert kept.files == [FileEntry("0-0", "f", 4, 1)]
    assert (again.sent, again.handle, again.files) == (False, None, None)


@pytest.mark.parametrize(
    ("handle", "sent", "phase"),
    [({"id": 1}, True, Phase.SENT), (None, True, Phase.SENDING), (None, False, Phase.PLANNED)],
)
def test_a_job_of_an_earlier_run_is_where_that_left_it(ledger, handle, sent, phase):
    planned = PlannedWindow("s", "p", Request(None, None, None, "a", ""), ledger, lambda _: None)
    entry = Entry(new_export_id(), None, "a", [PartEntry(None, datetime.now(UTC), handle, sent)])
    planned.adopt(entry)
    job = planned.job
    assert (job.parts[0].phase, job.resumed, job.triggered) == (phase, bool(handle), bool(handle))
    assert job.entry() == entry
