"""The core as a library: what comes out, in which order, and that it survives any death."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import vendor
from vendor import DAY, PROCESS, START, Died, Fake, World

from tap_analytics_exports import extraction as core
from tap_analytics_exports.errors import CredentialsRefused, ExportsFailed, SettingsError
from tap_analytics_exports.events import Checkpoint, Ended, Event, Rows
from tap_analytics_exports.extraction import Extraction
from tap_analytics_exports.jobs.ledger import AlreadyRunning, Ledger
from tap_analytics_exports.windows import Window


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "installed", lambda: {"fake": Fake})
    write = Ledger._write

    def written(self: Ledger, path: Path, content: bytes) -> None:
        PROCESS.check()
        write(self, path, content)

    monkeypatch.setattr(Ledger, "_write", written)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # it is the process that dies here, not the machine
    PROCESS.start()


def settings(address: str, ledger: Path | None, *, days: float = 3, **top: Any) -> dict[str, Any]:
    export = top.pop("export", {})
    return {
        "start_date": START.isoformat(),
        "end_date": (START + timedelta(days=days)).isoformat(),
        "poll_interval": "PT0.001S",
        "poll_interval_max": "PT0.001S",
        "ledger": "" if ledger is None else str(ledger),
        "fake": {"base_url": address, "api_token": "x" * 20, "exports": [{"name": "rows", **export}]},
        **top,
    }


class Table:
    """What a consumer has of one stream: rows replaced by the window, as they are told to be."""

    def __init__(self) -> None:
        self.windows: dict[Any, list[str]] = {}  # by their start, for a cut one is replaced by the whole
        self.state: dict[str, Any] | None = None
        self.states: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        self._held: list[str] = []

    def take(self, events: Iterator[Event]) -> None:
        """Consume a run, as far as it goes."""
        self._held = []
        for event in events:
            match event:
                case Rows("rows", batch):
                    self._held += batch.column("at").to_pylist()
                case Ended("rows", job):
                    self.ended.append(job)
                    if job["status"] != "failed":
                        self.windows[job["window_start"]] = self._held
                    self._held = []
                case Checkpoint(state):
                    json.dumps(state)
                    self.states.append(state)
                    self.state = state

    @property
    def rows(self) -> list[str]:
        return sorted(row for some in self.windows.values() for row in some)


def run(given: dict[str, Any], table: Table, state: dict[str, Any] | None = None) -> None:
    with Extraction(given, state) as extraction:
        table.take(iter(extraction))


def expected(days: float = 3) -> list[str]:
    return vendor.rows(Window(START, START + timedelta(days=days)))


# What comes out


def test_rows_then_export_runs_then_the_end_then_a_checkpoint(tmp_path):
    address, _ = vendor.world()
    kinds = []
    bookmark = None
    with Extraction(settings(address, tmp_path)) as extraction:
        assert list(extraction.streams) == ["rows", "export_runs", "rejected_rows"]
        for event in extraction:
            match event:
                case Rows(stream, batch):
                    assert batch.num_rows
                    kinds.append(stream)
                case Ended(stream, _):
                    kinds.append(f"{stream} ended")
                case Checkpoint(state):
                    now = state["bookmarks"]["rows"].get("replication_key_value")
                    if now != bookmark:
                        kinds.append("checkpoint")
                    bookmark = now
    assert kinds == ["rows", "export_runs", "rows ended", "checkpoint"] * 3


def test_the_schema_is_that_of_the_batches(tmp_path):
    address, _ = vendor.world()
    columns = {"at": "timestamp"}
    with Extraction(settings(address, tmp_path, days=1, export={"columns": columns})) as extraction:
        schema = extraction.streams["rows"].schema
        (batch,) = (event.batch for event in extraction if isinstance(event, Rows) and event.stream == "rows")
    assert str(schema.field("at").type) == "timestamp[us, tz=UTC]"
    assert dict(zip(batch.schema.names, batch.schema.types, strict=True)) == dict(
        zip(schema.names, schema.types, strict=True)
    )
    assert batch.num_rows == 4


def test_a_second_run_takes_what_is_new(tmp_path):
    address, world = vendor.world()
    table = Table()
    run(settings(address, tmp_path), table)
    run(settings(address, tmp_path, days=5), table, table.state)
    assert table.rows == expected(5)
    assert len(world.jobs) == 5


def test_without_a_ledger_the_state_alone_carries_on_and_no_file_is_left(tmp_path):
    address, world = vendor.world(script={"2026-01-02": ["retry", "ok"]})
    table = Table()
    run(settings(address, None, spool_dir=str(tmp_path)), table)
    run(settings(address, None, spool_dir=str(tmp_path), days=5), table, table.state)
    assert table.rows == expected(5)
    assert len(world.jobs) == 6
    assert not list(tmp_path.iterdir())


def test_rows_that_are_written_once_more_are_told_of_and_can_be_had_anew(tmp_path, caplog):
    address, world = vendor.world()
    given = settings(address, tmp_path, days=1)
    table = Table()
    run(given, table)
    run(given, table)
    assert len(world.jobs) == 1
    job = table.ended[0]
    use, advice = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    submitted = datetime.fromisoformat(job["submitted_at"])
    assert use == (
        f"fake, stream rows, {Window(START, START + DAY)}: the rows of job {job['export_id']}, triggered at "
        f"{submitted}, are written once more; no export is triggered"
    )
    (folder,) = tmp_path.iterdir()
    assert advice == (
        "fake, stream rows: an earlier run has written them, and this one was given no state, as with "
        "--full-refresh, within an hour of their trigger. To have the vendor export them anew, remove the "
        f"folder {folder}, or run once with `ledger` set to an empty text"
    )
    run({**given, "ledger": ""}, table)
    assert len(world.jobs) == 2
    shutil.rmtree(folder)
    run(given, table)
    assert len(world.jobs) == 3


def test_a_run_beside_another_names_the_export_and_what_is_held(tmp_path):
    address, _ = vendor.world()
    given = settings(address, tmp_path, days=1)
    with Extraction(given) as first:
        next(iter(first))
        with Extraction(given) as second, pytest.raises(AlreadyRunning) as raised:
            next(iter(second))
    (folder,) = tmp_path.iterdir()
    assert str(raised.value) == (
        f"fake, stream rows: another run has this export in hand and holds {folder}/lock; wait for its end"
    )


def test_failed_exports_raise_at_the_end_and_leave_the_bookmark(tmp_path):
    address, _ = vendor.world(script={"2026-01-02": ["failed"]})
    table = Table()
    with pytest.raises(ExportsFailed, match="it failed"):
        run(settings(address, tmp_path), table)
    assert table.state is not None
    assert table.state["bookmarks"]["rows"]["replication_key_value"] == (START + DAY).isoformat()
    assert (
        table.state["bookmarks"]["rows"]["jobs"] == [] or len(table.state["bookmarks"]["rows"]["jobs"]) == 1
    )


def test_refused_credentials_are_told_as_such_and_make_no_record(tmp_path):
    address, _ = vendor.world(script={f"2026-01-0{n}": ["refused"] for n in (1, 2, 3)})
    table = Table()
    with pytest.raises(CredentialsRefused, match="the token is wrong"):
        run(settings(address, tmp_path), table)
    assert table.ended == []


def test_leaving_early_ends_the_threads_and_keeps_the_jobs(tmp_path):
    address, world = vendor.world(script={"2026-01-01": ["never"]})
    with Extraction(settings(address, tmp_path)) as extraction:
        for event in extraction:
            if isinstance(event, Checkpoint) and event.state["bookmarks"]["rows"]["jobs"]:
                break
        threads = extraction._jobs._threads
    assert not any(thread.is_alive() for thread in threads)
    assert len(list(tmp_path.glob("*/*.json"))) >= 1
    assert len(world.jobs) >= 1


def test_a_stream_that_is_not_there_is_a_mistake(tmp_path):
    address, _ = vendor.world()
    with pytest.raises(SettingsError, match="'other' is none of the exports rows"):
        Extraction(settings(address, tmp_path), streams=["other"])


# What earlier faults have taught


def test_a_later_window_that_is_tried_again_is_in_the_state_at_once(tmp_path):
    address, _ = vendor.world(script={"2026-01-01": ["slow slow slow ok"], "2026-01-02": ["retry", "never"]})
    given = settings(address, tmp_path, export={"export_timeout": "PT30S"})
    with Extraction(given) as extraction:
        for event in extraction:
            if isinstance(event, Checkpoint):
                jobs = event.state["bookmarks"]["rows"]["jobs"]
                tries = [job for job in jobs if job["window"][0].startswith("2026-01-02")]
                if any(job["handle"] == {"id": "job-3"} or job["handle"] == {"id": "job-4"} for job in tries):
                    return
    raise AssertionError("no state has the second try")


def test_the_wait_for_a_place_does_not_count_as_the_jobs_time(tmp_path):
    script = {"2026-01-01": ["busy"] * 30 + ["slow slow ok"]}
    address, _ = vendor.world(script=script)
    table = Table()
    given = settings(address, tmp_path, days=1, export={"export_timeout": "PT1.5S"})
    given |= {"poll_interval": "PT0.04S", "poll_interval_max": "PT0.04S"}
    run(given, table)
    assert table.rows == expected(1)


def test_a_failure_behind_a_failure_is_told_and_not_gone_on_with(tmp_path):
    script = {"2026-01-01": ["slow slow failed", "ok"], "2026-01-02": ["failed", "ok"]}
    address, _ = vendor.world(script=script)
    table = Table()
    with pytest.raises(ExportsFailed):
        run(settings(address, tmp_path), table)
    assert [job["status"] for job in table.ended] == ["failed", "failed"]
    run(settings(address, tmp_path), table, table.state)
    assert table.rows == expected()
    assert [job["window_start"][:10] for job in table.ended[2:]] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_a_checkpoint_is_the_last_of_a_run_that_failed(tmp_path):
    script = {"2026-01-01": ["slow slow failed", "ok"], "2026-01-02": ["failed", "ok"]}
    address, _ = vendor.world(script=script)
    events: list[Event] = []
    with Extraction(settings(address, tmp_path)) as extraction, pytest.raises(ExportsFailed):
        for event in extraction:
            events.append(event)  # noqa: PERF402 - those before the error are kept
    assert [isinstance(event, Ended) for event in events].count(True) == 2
    assert isinstance(events[-1], Checkpoint)


def test_a_snapshot_of_days_ago_is_not_loaded_as_one_of_today(tmp_path):
    address, world = vendor.world(script={"snapshot": ["never", "ok"]})
    given = settings(address, tmp_path, export={"snapshot": True})
    with Extraction(given) as extraction:
        states = (event.state for event in extraction if isinstance(event, Checkpoint))
        state = next(each for each in states if each["bookmarks"]["rows"]["jobs"])
    old = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    for path in tmp_path.glob("*/*.json"):
        path.write_text(re.sub(r'"submitted_at":"[^"]*"', f'"submitted_at":"{old}"', path.read_text()))
    state["bookmarks"]["rows"]["jobs"][0]["submitted_at"] = old
    table = Table()
    run(given, table, state)
    assert len(world.jobs) == 2
    assert not table.ended[0]["resumed"]


def test_two_snapshots_in_one_second_have_two_versions(tmp_path):
    address, _ = vendor.world()
    given = settings(address, tmp_path, export={"snapshot": True})
    versions = []
    state = None
    for _ in range(3):
        with Extraction(given, state) as extraction:
            for event in extraction:
                if isinstance(event, Ended):
                    versions.append(event.version)
                elif isinstance(event, Checkpoint):
                    state = event.state
    assert versions == sorted(set(versions))
    assert len(versions) == 3
    assert state is not None
    assert state["bookmarks"]["rows"]["version"] == versions[-1]


def test_what_was_never_sent_has_no_record(tmp_path):
    address, world = vendor.world(script={"2026-01-01": ["unreachable"]})
    table = Table()
    with pytest.raises(ExportsFailed, match="nobody there"):
        run(settings(address, tmp_path, days=1), table)
    assert (table.ended, len(world.jobs)) == ([], 0)


def test_a_request_that_the_vendor_refuses_is_told_with_its_time(tmp_path):
    address, _ = vendor.world(script={"2026-01-01": ["invalid"]})
    table = Table()
    with pytest.raises(ExportsFailed, match="does not like it"):
        run(settings(address, tmp_path, days=1), table)
    assert table.ended[0]["submitted_at"] is not None


def test_a_download_that_has_gone_fails_its_export_alone(tmp_path):
    address, _ = vendor.world(script={"2026-01-01": ["slow slow slow ok"]})
    given = settings(address, tmp_path, spool_dir=str(tmp_path / "spool"))
    given["fake"]["exports"].append({"name": "others"})
    table = Table()
    with pytest.raises(ExportsFailed, match="has gone from the spool"), Extraction(given) as extraction:
        for event in extraction:
            if (
                isinstance(event, Ended)
                and event.stream == "rows"
                and event.job["window_start"] < "2026-01-02"
            ):
                for path in (tmp_path / "spool").glob("*/rows-*/*/0-0"):
                    path.unlink()
            table.take(iter([event]))
    assert table.states[-1]["bookmarks"]["others"]["replication_key_value"] == "2026-01-04T00:00:00+00:00"


def test_a_window_of_bad_rows_alone_fails_and_its_rows_are_told(tmp_path):
    address, _ = vendor.world()
    given = settings(address, tmp_path, days=1, export={"columns": {"at": "integer"}})
    rejected = []
    with (
        pytest.raises(ExportsFailed, match="none of its 4 rows fits; the first, row 1"),
        Extraction(given) as run_,
    ):
        for event in run_:
            if isinstance(event, Rows) and event.stream == "rejected_rows":
                rejected += event.batch.to_pylist()
    assert [row["row_number"] for row in rejected] == [1, 2, 3, 4]


# Any death


@dataclass
class Case:
    """A run that dies.

    Attributes:
        script: What becomes of the vendor's jobs.
        triggered: How many of them there are at the most.
        findable: Whether the vendor can tell whether one was made.
        before: Days that a run before it has finished; None: there was none.
        days: Where it ends.
        export: Of the export's settings.
        rows: What there is in the end.
    """

    script: dict[str, list[str]] = field(default_factory=dict)
    triggered: int = 3
    findable: bool = False
    before: float | None = None
    days: float = 3
    export: dict[str, Any] = field(default_factory=dict)
    rows: list[str] = field(default_factory=expected)


CASES = {
    "plain": Case(),
    "retried": Case({"2026-01-02": ["retry", "ok"]}, 4),
    "split": Case({"2026-01-02": ["split", "ok"]}, 5),
    "empty": Case({"2026-01-01": ["empty"]}, rows=expected()[4:]),
    "findable": Case({"2026-01-03": ["slow ok"]}, findable=True),
    "look-back": Case(before=2, export={"lookback": "P1D"}, triggered=2 + 2),
    "cut": Case(before=1.5, days=2.25, triggered=2 + 2, rows=expected(2.25)),
    "snapshot": Case(export={"snapshot": True}, triggered=1, rows=vendor.rows(None)),
}


def dying_at_each_call(kinds: dict[str, Any], go: Callable[[str, World, int], bool]) -> int:
    """Let the process die at its n-th call, for every n, until it lives through all of them."""
    for n in range(400):
        address, world = vendor.world(**json.loads(json.dumps(kinds)))
        if go(address, world, n):
            return n
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("saved", ["every state", "no state", "the first state"])
@pytest.mark.parametrize("name", CASES)
def test_whenever_the_process_dies_the_next_run_makes_it_whole(tmp_path, name, saved):
    case = CASES[name]

    def go(address: str, world: World, n: int) -> bool:
        ledger = tmp_path / address.rpartition("/")[2]
        table = Table()
        if case.before is not None:
            run(settings(address, ledger, days=case.before, export=case.export), table)
            table.states = [table.state]
        given = settings(address, ledger, days=case.days, export=case.export)
        written = len(table.ended)
        PROCESS.start(n)
        died = False
        try:
            run(given, table, table.state)
        except Died:
            died = True
        PROCESS.start()
        first = table.states[0] if table.states else None
        state = {"every state": table.state, "no state": None, "the first state": first}
        again = Table()
        again.windows = table.windows
        run(given, again, state[saved])
        assert again.rows == case.rows
        assert again.state is not None
        assert again.state["bookmarks"]["rows"]["jobs"] == []
        # One for which nobody heard the vendor's answer is made anew, unless it can be found; and is told.
        lost = [job for job in again.ended if job["error"] and "is not known" in job["error"]]
        assert len(lost) <= 1
        needed = case.triggered + (0 if case.findable else len(lost))
        if case.before is not None or case.export:  # what is exported again where it was written before
            needed += len(table.ended) - written
        if saved == "no state" and case.before is not None:  # by which the ledger has let go of jobs
            needed += 2
        assert len(world.jobs) <= needed
        return not died

    kinds = {"script": case.script, "findable": case.findable}
    assert dying_at_each_call(kinds, go) > 5


@pytest.mark.parametrize("before", [True, False])
def test_whenever_the_ledger_dies_the_next_run_makes_it_whole(tmp_path, monkeypatch, before):
    write = Ledger._write

    def dying(self: Ledger, path: Path, content: bytes) -> None:
        if before:
            PROCESS.step()
        write(self, path, content)
        if not before:
            PROCESS.step()

    monkeypatch.setattr(Ledger, "_write", dying)
    monkeypatch.setattr(Fake, "step", lambda _: PROCESS.check())

    def go(address: str, world: World, n: int) -> bool:
        table, ledger = Table(), tmp_path / address.rpartition("/")[2]
        PROCESS.start(n)
        died = False
        try:
            run(settings(address, ledger), table)
        except Died:
            died = True
        PROCESS.start()
        again = Table()
        again.windows = table.windows
        run(settings(address, ledger), again, table.state)
        assert again.rows == expected()
        lost = [job for job in again.ended if job["error"] and "is not known" in job["error"]]
        assert len(world.jobs) <= 4 + len(lost)
        return not died

    assert dying_at_each_call({"script": {"2026-01-02": ["retry", "ok"]}}, go) > 10
