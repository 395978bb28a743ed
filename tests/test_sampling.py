"""A sample: what it shows, what it leaves behind, and what it never shows."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import vendor
import yaml
from hypothesis import given
from hypothesis import strategies as st
from vendor import DAY, PROCESS, START, Fake

from tap_analytics_exports import Extraction
from tap_analytics_exports import extraction as core
from tap_analytics_exports.sampling import Sample, SampledColumn
from tap_analytics_exports.settings import Column
from tap_analytics_exports.singer.samples import as_yaml

LAST = "2026-01-02"


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "installed", lambda: {"fake": Fake})
    PROCESS.start()


def settings(address: str, ledger: Path | str, **export: Any) -> dict[str, Any]:
    return {
        "start_date": START.isoformat(),
        "end_date": (START + 2 * DAY + timedelta(hours=7)).isoformat(),  # in the middle of the third window
        "poll_interval": "PT0.001S",
        "poll_interval_max": "PT0.001S",
        "ledger": str(ledger),
        "fake": {"base_url": address, "api_token": "x" * 20, "exports": [{"name": "rows", **export}]},
    }


def sampled(given: dict[str, Any]) -> Sample:
    with Extraction(given) as extraction:
        (found,) = extraction.sample()
    return found


def types(found: Sample) -> dict[str, str]:
    return {each.key: each.column.type for each in found.columns}


def discovered(given: dict[str, Any]) -> list[str]:
    with Extraction(given) as extraction:
        return [name for name in extraction.discover()["rows"].columns if not name.startswith("_sdc")]


def test_it_is_of_the_last_whole_window_and_the_next_run_goes_on_with_its_job(tmp_path):
    address, world = vendor.world()
    given = settings(address, tmp_path)
    found = sampled(given)
    assert found.window == (START + DAY, START + 2 * DAY)
    assert (found.rows, types(found)) == (4, {"at": "timestamp"})
    assert [request.window.start for request in world.jobs.values()] == [START + DAY]
    again = sampled(given)
    assert again == found
    with Extraction(given) as extraction:
        list(extraction)
    assert len(world.jobs) == 3  # one a window, the sampled one counted


def test_it_leaves_nothing_behind_of_a_job_that_failed(tmp_path):
    address, world = vendor.world(script={LAST: ["failed", "ok"]})
    given = settings(address, tmp_path)
    assert "it failed" in (sampled(given).problem or "")
    with Extraction(given) as extraction:
        assert all(job.why == "first run" and job.action == "trigger" for job in extraction.plan())
    assert len(world.jobs) == 1


def test_discovery_knows_what_a_sample_or_a_run_has_seen_but_not_what_is_excluded(tmp_path):
    content = b"id,Secret Name,Full Name\n7,x,y\n"
    address, _ = vendor.world(contents={LAST: content})
    given = settings(address, tmp_path, exclude_columns=["secret_name"])
    assert discovered(given) == []
    assert types(sampled(given)) == {"id": "string", "Full Name": "string"}
    assert discovered(given) == ["id", "full_name"]
    assert all(b"Secret" not in path.read_bytes() for path in tmp_path.rglob("headers"))
    assert discovered({**given, "ledger": ""}) == []


def test_a_file_of_other_columns_than_the_remembered_ones_is_taken_by_a_run(tmp_path):
    address, _ = vendor.world(contents={LAST: b"a,b\n1,2\n"})
    given = settings(address, tmp_path)
    sampled(given)
    with Extraction(given) as extraction:
        list(extraction)  # the other windows have one column, `at`
    assert discovered(given) == ["at"]


def test_only_some_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("tap_analytics_exports.sampling.SAMPLE_ROWS", 3)
    lines = b"n\n1\n2\n3\nnot a number\n"
    address, _ = vendor.world(contents={LAST: lines})
    found = sampled(settings(address, tmp_path))
    assert (found.rows, types(found)) == (3, {"n": "integer"})


def test_what_the_settings_say_of_a_column_stays_and_null_values_are_null(tmp_path):
    address, _ = vendor.world(contents={LAST: b"n,Code,x\n1,5,--\n--,6,7\n"})
    found = sampled(settings(address, tmp_path, columns={"code": "decimal"}, null_values=["--"]))
    assert types(found) == {"n": "integer", "Code": "decimal", "x": "integer"}
    assert [each.unique for each in found.columns] == [False, True, False]


def test_a_header_that_repeats_is_named_by_its_property(tmp_path):
    address, _ = vendor.world(contents={LAST: b"Date,Date,date_3\n1,2,3\n"})
    assert list(types(sampled(settings(address, tmp_path)))) == ["date", "date_2", "date_3"]


@given(
    st.lists(
        st.builds(
            SampledColumn,
            key=st.text(max_size=20),
            column=st.builds(
                Column, type=st.just("number"), strip=st.text("$€%\u2028 \U000e0001", max_size=3)
            ),
            example=st.none() | st.text(max_size=60),
            note=st.text(max_size=20),
            unique=st.booleans(),
        ),
        min_size=1,
        unique_by=lambda column: column.key,
    )
)
def test_whatever_was_seen_is_yaml(columns):
    text = as_yaml(Sample("rows", "fake", None, 1, columns))
    expected = {
        each.key: {"type": "number", "strip": each.column.strip} if each.column.strip else "number"
        for each in columns
    }
    assert yaml.safe_load(text) == {"columns": expected}
    assert json.dumps(expected)
