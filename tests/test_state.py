"""What anybody may hand over as a state or a ledger: read, left aside, or refused in a line; never a path."""

from __future__ import annotations

import json
import logging
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.jobs.entries import Entry, PartEntry, entry_of_state
from tap_analytics_exports.jobs.ledger import AlreadyRunning, Ledger
from tap_analytics_exports.jobs.reconcile import LOST, reconcile
from tap_analytics_exports.state import State
from tap_analytics_exports.windows import Grid, Window, to_do

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
JOB = {
    "export_id": "5f0c3f1e-6f0a-4f43-9a55-0d6f3c1b2a77",
    "window": ["2026-01-03T00:00:00+00:00", "2026-01-04T00:00:00+00:00"],
    "submitted_at": "2026-01-05T00:00:00+00:00",
    "request": "abc",
    "handle": {"id": "7"},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["export_id", "window", "submitted_at", "request", "handle", "parts", "sha256", "written_at", "error"]
)
jobs = st.dictionaries(keys, json_values | st.sampled_from(list(JOB.values())), max_size=9) | json_values
bookmarks = st.dictionaries(
    st.sampled_from(["replication_key_value", "jobs", "version", "names", "last_export_id", "other"]),
    json_values | st.lists(jobs, max_size=3),
    max_size=6,
)


def entry(n: int = 0, **what: Any) -> Entry:
    """A job of 2026-01-01 that was triggered at noon of the day after."""
    window = what.pop("window", (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)))
    part = {"submitted_at": datetime(2026, 1, 2, 12, n, tzinfo=UTC), "handle": {"id": n}, "sent": True}
    part |= {key: what.pop(key) for key in list(what) if key in ("submitted_at", "handle", "sent")}
    given = {"export_id": str(uuid.UUID(int=n)), "request": "a", **what}
    return Entry(window=window, parts=[PartEntry(window, **part)], **given)


def left(*entries: Entry, now: datetime = NOW, bookmark: datetime | None = None, **what: Any) -> Any:
    given = {"state": [], "last_export_id": "", "wanted": {"a"}, **what}
    return reconcile(ledger=entries, bookmark=bookmark, now=now, **given)


# The state


@given(
    json_values | st.fixed_dictionaries({"bookmarks": st.dictionaries(st.text(), bookmarks | json_values)})
)
@example({"bookmarks": {"s": {"jobs": [{**JOB, "export_id": "../../../home"}]}}})
@example({"bookmarks": {"s": {"jobs": [{**JOB, "window": ["9999-12-31T23:59:59-14:00", "0001-01-01"]}]}}})
@example({"bookmarks": {"s": {"replication_key_value": "0001-01-01T00:00:00+14:00"}}})
@example({"bookmarks": ["s"]})
@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
def test_any_state_is_read_or_refused_in_words(given_state):
    try:
        state = State(given_state)
        streams = [state.stream(name) for name in (given_state or {}).get("bookmarks") or {}]
    except SettingsError as error:
        assert all(problem.startswith("state: ") for problem in error.problems)
        return
    for stream in streams:
        assert all(uuid.UUID(job.export_id) for job in stream.jobs)
        assert stream.bookmark is None or stream.bookmark.tzinfo is UTC
    again = State(json.loads(json.dumps(state.dump(), allow_nan=True)))
    assert len(json.dumps(again.dump())) == len(json.dumps(state.dump()))


def test_a_job_of_a_state_comes_back_as_it_was():
    found = entry_of_state(JOB)
    assert found is not None
    assert found.to_state() == JOB
    halves = {"parts": [{**JOB, "handle": {"id": n}} for n in (1, 2)]}
    split = entry_of_state({**JOB, "handle": halves})
    assert split is not None
    assert [part.handle for part in split.parts] == [{"id": 1}, {"id": 2}]
    windows = [{key: part[key] for key in ("window", "submitted_at", "handle")} for part in halves["parts"]]
    assert split.to_state() == {**JOB, "handle": {"parts": windows}}


@pytest.mark.parametrize("export_id", ["", "..", "a/b", "/etc", JOB["export_id"] + "\n", 7, None])
def test_what_is_no_id_of_ours_is_left_aside_and_told(export_id, caplog):
    state = State({"bookmarks": {"s": {"jobs": [JOB, {**JOB, "export_id": export_id}]}}})
    stream = state.stream("s")
    assert [job.export_id for job in stream.jobs] == [JOB["export_id"]]
    assert "1 of the state's jobs" in caplog.text
    assert state.dump()["bookmarks"]["s"]["jobs"] == [JOB]


@pytest.mark.parametrize("text", ["2026-01-03T01:00:00+01:00", "2026-01-03T00:00:00Z", "2026-01-03"])
def test_a_bookmark_is_in_utc_unless_it_says_otherwise(text):
    stream = State({"bookmarks": {"s": {"replication_key_value": text}}}).stream("s")
    assert stream.bookmark == datetime(2026, 1, 3, tzinfo=UTC)


def test_a_bookmark_never_moves_back():
    state = State(None)
    stream = state.stream("s")
    for start in (NOW, NOW - 2 * DAY, NOW - DAY):
        stream.pass_window(Window(start, start + DAY))
    assert stream.bookmark == NOW + DAY
    assert state.dump()["bookmarks"]["s"]["replication_key_value"] == (NOW + DAY).isoformat()


def test_whatever_else_a_state_holds_stays():
    given_state = {"bookmarks": {"s": {"other": 1, "jobs": None}, "t": {"x": [1]}}, "more": True}
    state = State(given_state)
    state.stream("s")
    assert state.dump() == {"bookmarks": {"s": {"other": 1, "jobs": []}, "t": {"x": [1]}}, "more": True}


@given(st.datetimes(), st.timedeltas(timedelta(0), timedelta(days=10**8)))
def test_no_bookmark_and_no_lookback_lead_out_of_the_calendar(bookmark, lookback):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    grid = Grid(DAY, datetime.now().astimezone(UTC).tzinfo, start)  # type: ignore[arg-type]
    found = list(to_do(grid, bookmark=bookmark.replace(tzinfo=UTC), lookback=lookback, end=start + 3 * DAY))
    assert len(found) <= 3


# The ledger


@given(st.binary(max_size=200) | jobs.map(lambda job: json.dumps(job, default=str).encode()))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_in_the_ledger_is_left_aside(tmp_path, content):
    folder, spool, other = tmp_path / str(uuid.uuid4()), tmp_path / "spool", tmp_path / "other"
    other.mkdir(exist_ok=True)
    folder.mkdir()
    (folder / f"{JOB['export_id']}.json").write_bytes(content)
    ledger = Ledger(folder, spool)
    assert all(found.export_id == JOB["export_id"] for found in ledger.entries())
    ledger.close()
    assert other.is_dir()


def test_an_entry_of_another_name_is_not_believed(tmp_path, caplog):
    ledger = Ledger(tmp_path / "ledger", tmp_path / "spool")
    ledger.save(entry(1))
    path = tmp_path / "ledger" / f"{entry(1).export_id}.json"
    path.rename(path.with_name(f"{entry(2).export_id}.json"))
    assert ledger.entries() == []
    assert "can't be read and is left aside" in caplog.text


def test_what_is_saved_comes_back_and_nothing_of_a_dead_process_stays(tmp_path):
    ledger = Ledger(tmp_path / "ledger", tmp_path / "spool")
    saved = [entry(2), entry(1, error="no"), entry(3, window=None, handle=None)]
    for each in saved:
        ledger.save(each)
    (tmp_path / "ledger" / f"{entry(4).export_id}.new").write_text("half")
    ledger.files(entry(2).export_id).joinpath("0-0").write_text("rows")
    ledger.files(entry(5).export_id).joinpath("0-0").write_text("rows")
    assert ledger.entries() == sorted(saved, key=lambda each: each.export_id)
    assert sorted(path.suffix for path in (tmp_path / "ledger").iterdir()) == ["", ".json", ".json", ".json"]
    assert [path.name for path in (tmp_path / "spool").iterdir()] == [entry(2).export_id]


def test_an_entry_of_the_first_version_is_read_as_what_it_says(tmp_path):
    ledger = Ledger(tmp_path / "ledger", tmp_path / "spool")
    at = "2026-01-05T00:00:00.5+00:00"
    fetched = {"file": "0-0", "name": "calls.csv", "size": 7, "rows": None}
    part = {"window": JOB["window"], "submitted_at": at, "handle": JOB["handle"], "sent": True}
    content = {**JOB, "parts": [{**part, "files": [fetched]}], "sha256": "ab" * 32, "written_at": at}
    (tmp_path / "ledger" / f"{JOB['export_id']}.json").write_text(json.dumps(content))
    (entry,) = ledger.entries()
    assert (entry.request, entry.sha256, entry.triggered, entry.lost) == ("abc", "ab" * 32, True, False)
    assert entry.written_at == entry.submitted_at == datetime.fromisoformat(at)
    assert [file.name for file in entry.parts[0].files or ()] == ["calls.csv"]


def test_two_runs_at_once_are_told_apart(tmp_path):
    first = Ledger(tmp_path / "ledger", tmp_path / "spool")
    with pytest.raises(AlreadyRunning, match="another run"):
        Ledger(tmp_path / "ledger", tmp_path / "spool")
    first.close()
    Ledger(tmp_path / "ledger", tmp_path / "spool").close()


def test_folders_without_downloads_go_and_others_stay(tmp_path):
    for kept in ([], [entry(1)]):
        ledger = Ledger(tmp_path / "ledger", tmp_path / "all" / "spool")
        for each in (entry(1), entry(2)):
            ledger.files(each.export_id).joinpath("0-0").write_text("rows")
        for each in (entry(1), entry(2)):
            if each not in kept:
                ledger.drop_files(each.export_id)
        ledger.close()
        assert [path.name for path in tmp_path.glob("all/spool/*")] == [each.export_id for each in kept]
        assert (tmp_path / "all").exists() == bool(kept)


def test_a_ledger_that_can_not_be_written_is_told_and_the_run_goes_on(tmp_path, caplog):
    ledger = Ledger(tmp_path / "ledger", tmp_path / "spool")
    (tmp_path / "ledger" / f"{entry(1).export_id}.new").mkdir()
    ledger.save(entry(1))
    assert "the ledger can't be written" in caplog.text


def test_files_of_an_entry_are_names_of_ours():
    for name in ("../0-0", "/etc/passwd", "0-0/..", "0"):
        part = {"window": None, "files": [{"file": name, "name": "x", "size": 1}]}
        job = {"export_id": JOB["export_id"], "window": None, "request": "a", "parts": [part]}
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(job, Entry)


# Reconciled


def test_a_job_that_was_triggered_and_not_written_is_gone_on_with():
    assert left(entry()).resumed == {"a": entry()}
    assert left(entry(), bookmark=NOW).resumed == {"a": entry()}  # reached again by lookback


def test_a_job_whose_rows_are_safe_is_forgotten():
    written = entry(written_at=NOW)
    assert left(written, bookmark=written.window[1]).forgotten == [written.export_id]  # type: ignore[index]
    assert left(entry(), bookmark=NOW, wanted=set()).forgotten == [entry().export_id]


def test_rows_that_no_saved_state_has_passed_are_written_again_from_the_same_job():
    written = entry(written_at=NOW)
    assert left(written, bookmark=datetime(2026, 1, 1, tzinfo=UTC)).reused == [written]
    soon, late = (written.submitted_at + timedelta(minutes=n) for n in (59, 61))  # type: ignore[operator]
    assert left(written, now=soon).reused == [written]
    assert left(written, now=late).forgotten == [written.export_id]


def test_a_snapshot_is_one_of_today():
    snapshot = entry(window=None)
    triggered = snapshot.submitted_at
    assert triggered is not None
    assert left(snapshot, now=triggered + timedelta(hours=23)).resumed == {"a": snapshot}
    assert left(snapshot, now=triggered + timedelta(hours=25)).forgotten == [snapshot.export_id]
    assert left(snapshot, now=triggered, last_export_id=snapshot.export_id).forgotten == [snapshot.export_id]


def test_a_job_that_failed_untold_is_told_and_not_gone_on_with():
    failed = entry(error="it failed")
    found = left(failed)
    assert (found.failed, found.resumed) == ([(failed, "it failed")], {})


def test_of_two_jobs_for_the_same_the_newer_counts_and_a_lost_one_is_told():
    older, newer = entry(1), entry(2)
    assert left(newer, older).resumed == {"a": newer}
    assert left(newer, older).forgotten == [older.export_id]
    lost = entry(1, handle=None)
    assert left(newer, lost).failed == [(lost, LOST)]


def test_a_job_that_no_window_of_now_needs_waits():
    assert left(entry(), wanted={"b"}).waiting == [entry()]


def test_the_ledger_knows_more_than_the_state(caplog):
    caplog.set_level(logging.WARNING)
    written = entry(written_at=NOW)
    found = left(written, state=[entry()], bookmark=NOW)
    assert found.forgotten == [written.export_id]


def test_the_folders_are_of_our_own_making(tmp_path):
    ledger = Ledger(tmp_path / "ledger", tmp_path / "spool")
    files = ledger.files(entry(1).export_id)
    assert files.parent == Path(tmp_path / "spool")
    for path in (tmp_path / "ledger", tmp_path / "ledger" / "lock", files):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
