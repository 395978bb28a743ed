"""Windows that are exported again, whatever the bookmark says, which stays as it is."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import vendor
from conftest import run_tap
from test_extraction import Table, _fake, dying_at_each_call, expected, run, settings  # noqa: F401
from vendor import DAY, PROCESS, START, Died, World

from tap_analytics_exports.errors import ExportsFailed, SettingsError
from tap_analytics_exports.extraction import Extraction
from tap_analytics_exports.singer.command import CommandLine
from tap_analytics_exports.singer.given import Configuration
from tap_analytics_exports.windows import Window

Span = tuple[datetime, datetime]


def span(first: float, last: float) -> Span:
    """From a day to another, counted from the first."""
    return START + first * DAY, START + last * DAY


def backfill(given: dict[str, Any], table: Table, which: Span, state: dict[str, Any] | None = None) -> None:
    with Extraction(given, state, span=which) as extraction:
        table.take(iter(extraction))


def bookmark(table: Table) -> str | None:
    assert table.state is not None
    return table.state["bookmarks"]["rows"].get("replication_key_value")


def windows(table: Table) -> list[str]:
    return [job["window_start"][:13] for job in table.ended]


def test_its_windows_are_whole_and_the_bookmark_stays(tmp_path):
    address, world = vendor.world()
    table = Table()
    run(settings(address, tmp_path), table)
    before = bookmark(table)
    again = Table()
    backfill(settings(address, tmp_path), again, span(0.5, 1.25), table.state)
    assert again.rows == expected(2)
    assert bookmark(again) == before == (START + 3 * DAY).isoformat()
    assert len(world.jobs) == 5
    assert [job["resumed"] for job in again.ended] == [False, False]


def test_windows_that_the_bookmark_has_not_reached_are_exported_and_later_again(tmp_path):
    address, world = vendor.world()
    table = Table()
    run(settings(address, tmp_path, days=1), table)
    given = settings(address, tmp_path, days=5)
    backfill(given, table, span(2, 4), table.state)
    assert bookmark(table) == (START + DAY).isoformat()
    assert sorted(table.windows) == [(START + n * DAY).isoformat() for n in (0, 2, 3)]
    run(given, table, table.state)
    assert table.rows == expected(5)
    assert len(world.jobs) == 1 + 2 + 4


def test_before_the_start_date_there_are_windows_too_and_none_of_them_reaches_into_its_first(tmp_path):
    address, _ = vendor.world()
    given = settings(address, tmp_path) | {"start_date": (START + DAY / 4).isoformat()}
    table = Table()
    run(given, table)
    backfill(given, table, span(-1, 0.5), table.state)
    assert windows(table)[3:] == ["2025-12-31T00", "2026-01-01T00", "2026-01-01T06"]
    assert len(table.rows) == len(set(table.rows)) == 4 + 12


def test_nothing_is_exported_beyond_the_end_of_the_run(tmp_path, caplog):
    address, world = vendor.world()
    backfill(settings(address, tmp_path, days=1.5), Table(), span(1, 9))
    assert [job.window for job in world.jobs.values()] == [Window(*span(1, 1.5))]
    backfill(settings(address, tmp_path), Table(), span(7, 9))
    assert len(world.jobs) == 1
    assert "no window of 2026-01-08" in caplog.text


def test_dates_without_an_offset_are_those_of_the_exports_time_zone(tmp_path):
    address, _ = vendor.world()
    given = settings(address, tmp_path, export={"timezone": "Europe/Helsinki"})
    table = Table()
    backfill(given, table, (datetime(2026, 1, 2), datetime(2026, 1, 3)))
    assert windows(table) == ["2026-01-01T22"]


def test_a_plan_has_its_windows(tmp_path):
    address, world = vendor.world()
    with Extraction(settings(address, tmp_path), span=span(0.5, 1.5)) as extraction:
        planned = [(job.action, job.why) for job in extraction.plan()]
    assert planned == [("trigger", "is exported again")] * 2
    assert not world.jobs


def test_a_snapshot_is_no_part_of_it(tmp_path, caplog):
    address, world = vendor.world()
    backfill(settings(address, tmp_path, export={"snapshot": True}), Table(), span(0, 3))
    assert not world.jobs
    assert "fake, stream rows: is a snapshot" in caplog.text


def test_a_window_that_fails_holds_up_no_other_and_is_all_that_the_same_command_makes_anew(tmp_path):
    address, world = vendor.world(script={"2026-01-02": ["failed", "ok"]})
    table = Table()
    with pytest.raises(ExportsFailed, match=r"2026-01-02T00.*it failed"):
        backfill(settings(address, tmp_path), table, span(0, 3))
    assert table.rows == expected(1) + expected(3)[8:]
    backfill(settings(address, tmp_path), table, span(0, 3), table.state)
    assert table.rows == expected()
    assert len(world.jobs) == 4


def test_one_that_has_come_to_its_end_is_made_anew_by_the_same_command(tmp_path):
    address, world = vendor.world()
    for _ in range(2):
        backfill(settings(address, tmp_path), Table(), span(0, 3))
    assert len(world.jobs) == 6
    assert not list(tmp_path.glob("*/*.json"))


def test_jobs_of_the_regular_run_wait_for_it(tmp_path):
    address, world = vendor.world(script={"2026-01-03": ["never"]})
    given = settings(address, tmp_path, export={"export_timeout": "PT30S"})
    table = Table()
    with Extraction(given) as extraction:
        for event in extraction:
            table.take(iter([event]))
            if len(table.ended) == 2 and len(table.states[-1]["bookmarks"]["rows"]["jobs"]) == 1:
                break
    (job,) = table.states[-1]["bookmarks"]["rows"]["jobs"]
    again = Table()
    backfill(given, again, span(0, 1), table.state)
    assert all(job in state["bookmarks"]["rows"]["jobs"] for state in again.states)
    world.fates[job["handle"]["id"]] = "ok"
    run(given, table, again.state)
    assert windows(table) == ["2026-01-01T00", "2026-01-02T00", "2026-01-03T00"]
    assert table.ended[-1]["resumed"]
    assert len(world.jobs) == 4


@pytest.mark.parametrize("saved", ["every state", "no state"])
@pytest.mark.parametrize("regular", ["before", "after"])
def test_whenever_it_dies_the_same_command_makes_it_whole_and_the_regular_run_is_as_ever(
    tmp_path, saved, regular
):
    """Between the two, or after both, there is a regular run, which is to know nothing of them."""

    def go(address: str, world: World, n: int) -> bool:
        ledger = tmp_path / address.rpartition("/")[2]
        table = Table()
        run(settings(address, ledger, days=1), table)
        given = settings(address, ledger, days=3)
        first = table.state
        table.states = []
        PROCESS.start(n)
        died = False
        try:
            backfill(given, table, span(0, 2), table.state)
        except Died:
            died = True
        PROCESS.start()
        state = {"every state": table.state, "no state": None}[saved]
        if regular == "before":
            before = len(world.jobs)
            last = Table()
            run(given, last, state or first)
            assert last.rows == expected(3)[4:]
            assert len(world.jobs) == before + 2
            state = last.state
        again = Table()
        backfill(given, again, span(0, 2), state)
        assert again.rows == expected(2)
        assert again.state is not None
        assert again.state["bookmarks"]["rows"]["jobs"] == []
        lost = [job for job in again.ended if job["error"] and "is not known" in job["error"]]
        if regular == "after":
            assert len(world.jobs) <= 1 + 2 + 1 + (0 if died else 2) - (0 if lost else 1)
            before = len(world.jobs)
            last = Table()
            run(given, last, first)
            assert last.rows == expected(3)[4:]
            assert len(world.jobs) == before + 2
            assert bookmark(last) == (START + 3 * DAY).isoformat()
        return not died

    assert dying_at_each_call({}, go) > 5


def test_an_end_that_is_not_behind_its_start_is_a_mistake(tmp_path):
    address, _ = vendor.world()
    at = datetime(2026, 1, 2, tzinfo=UTC)
    for end in (at, at - timedelta(hours=1)):
        with pytest.raises(SettingsError, match="its end must be after its start"):
            Extraction(settings(address, tmp_path), span=(at, end))


# Through the front door


def test_the_command_line_exports_a_span_of_some_streams_again(sandbox):
    config = sandbox.config("khoros_care")
    names = sorted(export["name"] for export in config["khoros_care"]["exports"])
    end = datetime.fromisoformat(config["start_date"]) + 2 * DAY
    which = f"{config['start_date'][:10]}/{end.date()}"
    state = {"bookmarks": {names[0]: {"replication_key_value": "2026-11-01T00:00:00+00:00"}}}
    result = run_tap(config, "--streams", f"{names[0]}, {names[1]}", "--backfill", which, state=state)
    assert result.exit_code == 0, result.stderr
    assert {run["stream"] for run in result.runs} <= set(names[:2])
    assert {run["stream"] for run in result.runs} >= {names[0]}
    assert result.bookmark(names[0])["replication_key_value"] == "2026-11-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--streams", "giosg_cals"],
            "none of the exports giosg_calls, giosg_popups; did you mean giosg_calls?",
        ),
        (["--backfill", "yesterday"], "--backfill: 'yesterday' is not START/END, two dates"),
        (["--replay", "2026-01-01/2026-02-01"], "archive_url: is required for a replay"),
    ],
)
def test_a_wrong_option_is_a_line_that_says_what_is_right(sandbox, options, words):
    result = run_tap(sandbox.config("giosg"), *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert sandbox.get("jobs") == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"streams": " ,"}, "--streams: names no stream"),
        ({"replay": "2026-01-01"}, "such as 2026-01-01/2026-02-01"),
        ({"backfill": "2026-02-01/2026-01-01"}, "--backfill: .* its end must be after its start"),
        ({"backfill": "0001-01-01/2026-01-01"}, "must be within the years 1900 to 9998"),
        ({"backfill": "2026-01-01/2026-02-01", "replay": "2026-01-01/2026-02-01"}, "use one"),
        ({"backfill": "2026-01-01/2026-02-01", "sample": True}, "--sample: is of the last window"),
    ],
)
def test_options_that_cannot_be_meant_end_the_run(options, words, caplog):
    with pytest.raises(SystemExit) as ended:
        CommandLine.invoke(config=Configuration(), **options)
    assert ended.value.code == 1
    assert re.search(words, caplog.text)


def test_of_a_catalog_only_what_is_named_too_is_run(sandbox):
    config = sandbox.config("giosg")
    names = sorted(export["name"] for export in config["giosg"]["exports"])
    catalog = json.loads(run_tap(config, "--discover").stdout)
    catalog["streams"] = [each for each in catalog["streams"] if each["tap_stream_id"] != names[0]]
    result = run_tap(config, "--streams", names[0], catalog=catalog)
    assert (result.exit_code, result.runs) == (0, []), result.stderr
    assert "the catalog selects none of the streams that --streams names" in result.stderr
    assert "discover anew" not in result.stderr
