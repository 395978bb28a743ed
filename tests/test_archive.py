"""Files are kept as they came, before their rows go out, and loaded again without their vendor."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import vendor
from conftest import run_tap
from test_backfill import bookmark, span, windows
from test_extraction import Table, _fake, dying_at_each_call, expected, run, settings  # noqa: F401
from vendor import DAY, PROCESS, START, Died, Fake, World

from tap_analytics_exports.errors import ExportsFailed, SettingsError
from tap_analytics_exports.events import Checkpoint
from tap_analytics_exports.extraction import Extraction
from tap_analytics_exports.jobs.job import now
from tap_analytics_exports.settings import secrets

TODAY = (now() - DAY, now() + DAY)


def replay(
    given: dict[str, Any],
    table: Table,
    which: tuple[datetime, datetime],
    state: dict[str, Any] | None = None,
) -> None:
    """Load from the archive; the vendor is one of which nothing is known."""
    address = given["fake"]["base_url"]
    before = dict(vendor.WORLDS)
    vendor.WORLDS.clear()
    try:
        with Extraction(given, state, span=which, replay=True) as extraction:
            table.take(iter(extraction))
    finally:
        vendor.WORLDS.update(before)
    assert address in vendor.WORLDS


def archived(tmp_path: Path, *, days: float = 3, **top: Any) -> dict[str, Any]:
    """Settings whose windows are in the archive."""
    address, _ = vendor.world(**top.pop("world", {}))
    folder = (tmp_path / "archive").as_uri()
    return settings(address, tmp_path / "ledger", days=days, archive_url=folder, **top)


def manifests(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "archive").glob("rows/*/*/manifest.json"))


def test_each_file_is_there_as_it_came_with_what_is_known_of_it(tmp_path):
    given = archived(tmp_path, days=2.5, world={"script": {"2026-01-02": ["empty"]}})
    table = Table()
    run(given, table)
    found = [json.loads(path.read_text()) for path in manifests(tmp_path)]
    assert [path.parent.parent.name for path in manifests(tmp_path)] == [
        "2026-01-01T00-00-00Z_2026-01-02T00-00-00Z",
        "2026-01-02T00-00-00Z_2026-01-03T00-00-00Z",
        "2026-01-03T00-00-00Z_2026-01-03T12-00-00Z",
    ]
    for path, manifest, job in zip(manifests(tmp_path), found, table.ended, strict=True):
        files = [path.with_name(file["file"]).read_bytes() for file in manifest["files"]]
        assert path.parent.name == manifest["export_id"] == job["export_id"]
        assert (len(files), sum(map(len, files))) == (job["files"], job["bytes"])
        assert [hashlib.sha256(file).hexdigest() for file in files] == [
            file["sha256"] for file in manifest["files"]
        ]
        assert manifest["window"] == [
            job[key].replace("+00:00", "Z") for key in ("window_start", "window_end")
        ]
    assert (found[0]["provider"], found[0]["stream"], found[0]["format"]) == ("fake", "rows", "csv")
    assert found[0]["files"][0]["name"] == "rows.csv"
    assert "x" * 20 not in json.dumps(found)


def test_a_replay_loads_what_was_exported_and_leaves_the_state_alone(tmp_path):
    given = archived(tmp_path, world={"script": {"2026-01-02": ["empty"]}})
    table = Table()
    run(given, table)
    ledger = sorted((tmp_path / "ledger").rglob("*"))
    again = Table()
    replay(given, again, span(0, 3), table.state)
    assert again.rows == expected(1) + expected(3)[8:]
    assert [job["status"] for job in again.ended] == ["loaded", "empty", "loaded"]
    assert [job["sha256"] for job in again.ended] == [job["sha256"] for job in table.ended]
    assert {job["export_id"] for job in again.ended}.isdisjoint(job["export_id"] for job in table.ended)
    assert again.states == [table.state] * len(again.states)
    assert sorted((tmp_path / "ledger").rglob("*")) == ledger
    assert len(manifests(tmp_path)) == 3  # it is not archived once more


def test_a_replay_takes_no_job_for_its_own(tmp_path):
    given = archived(tmp_path, days=1, export={"export_timeout": "PT30S"})
    run(given, Table())
    vendor.WORLDS[given["fake"]["base_url"]].script["2026-01-01"] = ["never"]
    with Extraction(given, span=span(0, 1)) as extraction:  # which is killed
        states = (event.state for event in extraction if isinstance(event, Checkpoint))
        state = next(each for each in states if each["bookmarks"]["rows"]["jobs"])
    table = Table()
    replay(given, table, span(0, 1), state)
    assert table.rows == expected(1)
    assert table.state == state


def test_rows_are_replayed_as_the_settings_have_them_by_now(tmp_path):
    given = archived(tmp_path, days=1, export={"columns": {"at": "integer"}})
    with pytest.raises(ExportsFailed, match="none of its 4 rows fits"):
        run(given, Table())
    given["fake"]["exports"][0]["columns"] = {"at": "timestamp"}
    table = Table()
    replay(given, table, span(0, 1))
    assert [row.isoformat() for row in table.rows] == expected(1)


def test_the_latest_export_of_a_window_counts(tmp_path):
    given = archived(tmp_path, days=1)
    run(given, Table())
    world = vendor.WORLDS[given["fake"]["base_url"]]
    world.contents["2026-01-01"] = b"at\nlater\n"
    with Extraction(given, span=span(0, 1)) as extraction:
        Table().take(iter(extraction))
    table = Table()
    replay(given, table, span(0, 1))
    assert table.rows == ["later"]
    (latest,) = (
        path for path in manifests(tmp_path) if json.loads(path.read_text())["files"][0]["size"] == 9
    )
    shutil.rmtree(latest.parent)
    replay(given, table, span(0, 1))
    assert table.rows == expected(1)


def test_a_window_that_was_cut_is_replayed_as_it_was_until_there_is_a_whole_one(tmp_path):
    given = archived(tmp_path, days=1.5)
    table = Table()
    run(given, table)
    given["end_date"] = (START + 2 * DAY).isoformat()
    replay(given, table, span(0, 2))
    assert table.ended[-1]["window_end"] == (START + 1.5 * DAY).isoformat()
    run(given, table, table.states[-1])
    replay(given, table, span(0, 2))
    assert table.ended[-1]["window_end"] == (START + 2 * DAY).isoformat()
    assert table.rows == expected(2)


def test_what_the_archive_lacks_is_told_and_the_rest_is_loaded(tmp_path):
    given = archived(tmp_path, days=5)
    run(given, Table())
    for path in manifests(tmp_path)[1:3]:
        path.unlink()  # what is left has no manifest, as where a process died
    table = Table()
    lack = "the archive has no export of 2026-01-02T00:00:00.*/2026-01-04T00:00:00"
    with pytest.raises(ExportsFailed, match=lack) as error:
        replay(given, table, span(0, 5))
    assert len(error.value.reasons) == 1
    assert windows(table) == ["2026-01-01T00", "2026-01-04T00", "2026-01-05T00"]


@pytest.mark.parametrize("window", ["PT6H", "P2D"])
def test_windows_of_another_length_are_not_taken_for_cut_ones(tmp_path, window):
    given = archived(tmp_path, days=4, window=window)
    run(given, Table())
    table = Table()
    with pytest.raises(ExportsFailed, match="it has other windows there: set `window`") as error:
        replay(given | {"window": "P1D"}, table, span(0, 4))
    assert (len(error.value.reasons), table.ended) == (1, [])


@pytest.mark.parametrize("how", ["changed", "gone", "manifest", "led away"])
def test_what_was_changed_since_is_not_loaded(tmp_path, how):
    given = archived(tmp_path, days=2)
    run(given, Table())
    path = manifests(tmp_path)[0]
    (file,) = path.parent.glob("0000-*")
    match how:
        case "changed":
            file.write_bytes(file.read_bytes().replace(b"06:00", b"07:00"))
        case "gone":
            file.unlink()
        case "manifest":
            path.write_text("{}")
        case "led away":
            path.write_text(path.read_text().replace(file.name, f"../{file.name}"))
    table = Table()
    with pytest.raises(ExportsFailed, match=r"2026-01-01.*archive_url: .*rows/2026-01-01T"):
        replay(given, table, span(0, 2))
    assert [job["status"] for job in table.ended] == ["failed", "loaded"]


def test_a_snapshot_is_the_latest_that_was_triggered_within_the_span(tmp_path):
    given = archived(tmp_path, export={"snapshot": True})
    table = Table()
    run(given, table)
    world = vendor.WORLDS[given["fake"]["base_url"]]
    world.contents["snapshot"] = b"at\nsecond\n"
    run(given, table, table.state)
    assert table.state is not None
    kept = table.state["bookmarks"]["rows"]
    again = Table()
    replay(given, again, TODAY, table.state)
    assert again.rows == ["second"]
    assert again.state is not None
    assert again.state["bookmarks"]["rows"]["last_export_id"] == kept["last_export_id"]
    assert again.state["bookmarks"]["rows"]["version"] > kept["version"]
    with pytest.raises(
        ExportsFailed, match="the archive has no snapshot that was triggered within 2026-01-01"
    ):
        replay(given, again, span(0, 9))


def test_files_of_another_format_are_not_taken_for_ones_of_this(tmp_path):
    given = archived(tmp_path, days=1)
    run(given, Table())
    given["fake"]["exports"][0]["format"] = "json"
    with pytest.raises(ExportsFailed, match=r"in the format csv, and the settings say fake and json"):
        replay(given, Table(), span(0, 1))


def test_a_replay_needs_an_archive(tmp_path):
    address, _ = vendor.world()
    with pytest.raises(SettingsError, match="archive_url: is required"):
        Extraction(settings(address, tmp_path), span=span(0, 1), replay=True)


def test_an_archive_that_cannot_be_written_ends_the_run_before_anything_is_triggered(tmp_path):
    given = archived(tmp_path)
    (tmp_path / "archive").write_text("is no folder")
    with pytest.raises(SettingsError, match="archive_url: can't be written"):
        run(given, Table())
    assert not vendor.WORLDS[given["fake"]["base_url"]].jobs


def test_a_window_is_not_written_while_its_file_is_not_archived_and_is_not_fetched_again(
    tmp_path, monkeypatch
):
    given = archived(tmp_path, days=1)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/rows").write_text("is in the way")
    table = Table()
    with pytest.raises(ExportsFailed, match=r"2026-01-01.*archive_url: this export is not archived"):
        run(given, table)
    assert (table.rows, bookmark(table)) == ([], None)
    (tmp_path / "archive/rows").unlink()
    monkeypatch.setattr(Fake, "files", None)
    run(given, table, table.state)
    assert table.rows == expected(1)
    assert len(manifests(tmp_path)) == 1
    assert len(vendor.WORLDS[given["fake"]["base_url"]].jobs) == 1


def test_whenever_the_process_dies_what_was_written_is_archived(tmp_path, monkeypatch):
    replace = Path.replace

    def dying(path: Path, target: Path) -> Path:
        PROCESS.step()
        made = replace(path, target)
        PROCESS.step()
        return made

    monkeypatch.setattr(Path, "replace", dying)
    monkeypatch.setattr(Fake, "step", lambda _: PROCESS.check())
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def go(address: str, world: World, n: int) -> bool:
        folder = tmp_path / address.rpartition("/")[2]
        given = settings(address, folder / "ledger", days=2, archive_url=str(folder / "archive"))
        table = Table()
        PROCESS.start(n)
        died = False
        try:
            run(given, table)
        except (Died, SettingsError):
            died = True
        PROCESS.start()
        for job in table.ended:
            assert len(list((folder / "archive/rows").glob(f"*/{job['export_id']}/manifest.json"))) == 1
        run(given, table, table.state)
        assert table.rows == expected(2)
        again = Table()
        replay(given, again, span(0, 2))
        assert again.rows == expected(2)
        return not died

    assert dying_at_each_call({}, go) > 10


# Through the front door


def test_a_replay_sends_no_request_and_needs_no_right_credentials(sandbox, tmp_path):
    config = sandbox.config("flex_insights", "gooee", "intelepeer", archive_url=str(tmp_path / "archive"))
    config["intelepeer"]["exports"] = [{"name": "all_fields", "event": "CallEvent"}]
    first = run_tap(config)
    assert first.exit_code == 0, first.stderr
    kept = "".join(path.read_text() for path in (tmp_path / "archive").glob("*/*/*/manifest.json"))
    for secret in secrets(config):
        assert secret not in kept
    for name, secret in (("flex_insights", "password"), ("gooee", "api_token")):
        config[name] |= {secret: "not-the-right-one", "base_url": "http://127.0.0.1:9"}
    config["intelepeer"] |= {"base_url": "http://127.0.0.1:9", "files_url": "sftp://x@127.0.0.1:9/base"}
    which = f"{config['start_date']}/{now().isoformat()}"
    result = run_tap(config, "--replay", which, state=first.state)
    assert result.exit_code == 0, result.stderr
    assert len(result.runs) == len(first.runs)
    assert {job["sha256"] for job in result.runs} == {job["sha256"] for job in first.runs}
    for stream in {job["stream"] for job in first.runs}:
        assert _rows(result, stream) == _rows(first, stream)
        kept = first.bookmark(stream)
        assert {**result.bookmark(stream), "version": 0} == {**kept, "version": 0}


def _rows(result: Any, stream: str) -> list[dict[str, Any]]:
    return [{**row, "_sdc_export_id": None} for row in result.records(stream)]
