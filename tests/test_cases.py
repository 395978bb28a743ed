"""Inputs of real trouble, with the right answer, from the vendor's file to the rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import vendor
from vendor import DAY, PROCESS, START, Fake

from tap_analytics_exports import extraction as core
from tap_analytics_exports.errors import ExportsFailed, SettingsError
from tap_analytics_exports.events import Checkpoint, Ended, Rows
from tap_analytics_exports.exports import Wanted
from tap_analytics_exports.extraction import Extraction
from tap_analytics_exports.settings import Column

CASES = Path(__file__).parent / "cases"


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "installed", lambda: {"fake": Fake})
    PROCESS.start()


@dataclass
class Loaded:
    """What came of some days' files."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    days: list[list[dict[str, Any]]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    log: str = ""

    @property
    def bookmark(self) -> str | None:
        return self.state["bookmarks"]["rows"].get("replication_key_value")


@pytest.fixture
def load(tmp_path, caplog):
    """Load files, one a day, each a case's name or its bytes."""

    def load(
        *files: str | bytes,
        catalog: Mapping[str, Column] | None = None,
        state: dict[str, Any] | None = None,
        first: int = 0,
        top: Mapping[str, Any] | None = None,
        **export: Any,
    ) -> Loaded:
        contents = [(CASES / each).read_bytes() if isinstance(each, str) else each for each in files]
        days = [START + (first + n) * DAY for n in range(len(files))]
        address, _ = vendor.world(
            contents={day.date().isoformat(): text for day, text in zip(days, contents, strict=True)}
        )
        settings = {
            "start_date": days[0].isoformat(),
            "end_date": (days[-1] + timedelta(days=1)).isoformat(),
            "poll_interval": "PT0.001S",
            "ledger": "",
            "spool_dir": str(tmp_path),
            "fake": {"base_url": address, "exports": [{"name": "rows", **export}]},
            **(top or {}),
        }
        loaded = Loaded()
        caplog.clear()
        with Extraction(settings, state) as extraction:
            if catalog is not None:
                extraction.choose({"rows": Wanted(dict(catalog))})
            held: list[dict[str, Any]] = []
            try:
                for event in extraction:
                    match event:
                        case Rows("rows", batch):
                            held += [_plain(row) for row in batch.to_pylist()]
                        case Rows("rejected_rows", batch):
                            loaded.rejected += batch.to_pylist()
                        case Ended(_, job):
                            loaded.ended.append(job)
                            loaded.rows += held
                            loaded.days.append(held)
                            held = []
                        case Checkpoint(found):
                            loaded.state = json.loads(json.dumps(found))
            except ExportsFailed as failed:
                loaded.error = str(failed)
        loaded.log = "\n".join(f"{each.levelname} {each.getMessage()}" for each in caplog.records)
        return loaded

    return load


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_sdc_")}


# Which column is it


@pytest.mark.parametrize("name", ["Talk Time", "talk_time", "talk  time", " TALK TIME"])
def test_a_header_with_a_space_behind_it_is_the_declared_column(load, name):
    loaded = load("trailing-space.csv", columns={name: "integer"})
    assert [row["talk_time"] for row in loaded.rows] == [3, 4]
    assert loaded.rejected == []


def test_and_it_is_the_declared_key(load, tmp_path):
    loaded = load("trailing-space.csv", primary_keys=["Talk Time"])
    assert len(loaded.rows) == 2
    assert all(row["talk_time"] for row in loaded.rows)


def test_headers_that_collide_keep_their_properties(load):
    loaded = load("collide-day1.csv", "collide-day2.csv")
    assert [day[0]["calls"] for day in loaded.days] == ["12", "13"]
    assert [day[0]["calls_2"] for day in loaded.days] == ["45.5", "45.5"]
    assert loaded.error == ""


def test_and_they_do_so_from_a_state(load):
    first = load("collide-day1.csv")
    second = load("collide-day2.csv", state=first.state, first=1)
    assert (second.rows[0]["calls"], second.rows[0]["calls_2"]) == ("13", "45.5")


@pytest.mark.parametrize(("header", "calls", "calls_2"), [("Calls", "7", None), ("Calls %", None, "7")])
def test_and_where_one_of_them_is_missing(load, header, calls, calls_2):
    for first in (load("collide-day1.csv"), None):
        file = f"id,{header}\n1,7\n".encode()
        loaded = load(file, state=first.state, first=1) if first else load("collide-day1.csv", file)
        row = loaded.rows[-1]
        assert (row.get("calls"), row.get("calls_2")) == (calls, calls_2)


def test_one_of_them_may_be_given_a_name(load):
    columns = {"Calls %": {"type": "number", "name": "calls_percent"}}
    loaded = load("collide-day1.csv", "collide-day2.csv", columns=columns)
    assert [row["calls"] for row in loaded.rows] == ["12", "13"]
    assert [row["calls_percent"] for row in loaded.rows] == [45.5, 45.5]


def test_the_catalogs_type_is_the_columns(load):
    catalog = {"id": Column("string"), "talk": Column("integer")}
    loaded = load("catalog-type.csv", catalog=catalog)
    assert [row["talk"] for row in loaded.rows] == [3, 4]
    wrong = load(b"id,talk\n1,three\n2,4\n", catalog=catalog)
    assert [row["talk"] for row in wrong.rows] == [4]
    assert [(row["row_number"], row["column"]) for row in wrong.rejected] == [(1, "talk")]


def test_excluded_columns_never_leave(load):
    secret = b"id,Phone Number,n\n1,555-0100,x\n2,555-0101,7\n3,555-0102,7,7\n"
    loaded = load(secret, columns={"n": "integer"}, exclude_columns=["phone number"])
    assert loaded.rows == [{"id": "2", "n": 7}]
    assert "555-010" not in str(loaded)


# What is no file of ours


@pytest.mark.parametrize("name", ["login.html", "one-line.txt"])
def test_a_message_in_place_of_the_file_fails_and_is_shown(load, name):
    loaded = load(name)
    beginning = (CASES / name).read_text().strip()[:15]
    assert beginning in loaded.error
    assert (loaded.rows, loaded.bookmark) == ([], None)


def test_title_rows_fail_or_are_skipped(load):
    loaded = load("title-rows.csv")
    assert (loaded.rows, loaded.bookmark) == ([], None)
    assert loaded.error
    skipped = load("title-rows.csv", skip_rows=2)
    assert len(skipped.rows) == 2
    assert skipped.rejected == []


def test_another_delimiter_is_named(load):
    loaded = load("semicolons.csv", columns={"talk": "integer"})
    assert "delimiter" in loaded.error
    assert ";" in loaded.error
    assert loaded.bookmark is None


# Read right


def test_a_delimiter_at_the_end_of_all_rows_is_no_field(load):
    loaded = load("delimiter-at-the-end.csv")
    assert (len(loaded.rows), loaded.rejected) == (2, [])


def test_a_line_that_says_the_delimiter(load):
    loaded = load("sep-line.csv")
    assert list(loaded.rows[0]) == ["id", "name", "talk"]
    assert len(loaded.rows) == 2


def test_one_bad_byte_is_one_bad_row(load):
    loaded = load("cut-letter.csv")
    assert len(loaded.rows) == 2
    ((number, reason),) = [(row["row_number"], row["reason"]) for row in loaded.rejected]
    assert number == 2
    assert any(character.isdigit() for character in reason)


def test_a_zip_of_one_member_is_unpacked(load):
    assert len(load("csv-in-zip.zip").rows) == 2


def test_bytes_behind_a_gzip_stream_are_told(load):
    loaded = load("behind-the-gzip.csv.gz")
    assert len(loaded.rows) == 1
    assert "WARNING" in loaded.log
    assert "behind" in loaded.log


def test_a_file_that_knows_no_quoting(load):
    loaded = load("unquoted.tsv", delimiter="\t", quote="", columns={"n": "integer"})
    assert len(loaded.rows) == 4
    assert any('"' in str(row) for row in loaded.rows)


def test_headers_between_pages_are_bad_rows(load):
    loaded = load("pages.csv")
    assert (len(loaded.rows), len(loaded.rejected)) == (3, 2)


def test_a_formula_that_nobody_calculated_is_told(load):
    loaded = load("formula.xlsx", format="xlsx", columns={"b": "integer"})
    assert "WARNING" in loaded.log or loaded.rejected
    assert not any(row["b"] == 0 for row in loaded.rows)


VALUES = [
    ({"type": "number", "thousands": " ", "decimal": ","}, {"1 234,56": 1234.56, "1\u00a0234,56": 1234.56}),
    ({"type": "number", "thousands": ","}, {"12,34,567": 1234567.0, "1,23,456.00": 123456.0, "1,2,3": None}),
    ({"type": "number", "strip": "%$"}, {"45.2%": 45.2, "$5.00": 5.0, "45.2 %": 45.2}),
    ("timestamp", {"2026-01-01T10:00:00.1234567Z": None}),
    ({"type": "timestamp", "truncate": True}, {"2026-01-01T10:00:00.1234567Z": "2026-01-01T10:00:00.123456+00:00"}),  # noqa: E501
    ({"type": "timestamp", "format": "epoch_seconds"}, {"1767225600": "2026-01-01T00:00:00+00:00"}),
    ({"type": "timestamp", "format": "epoch_milliseconds"}, {"1767225600000": "2026-01-01T00:00:00+00:00"}),
    ("integer", {"007": None, "12.5": None, "9223372036854775808": None, "-3": -3}),
    ("boolean", {"T": True, "no": False, "0": False, "2": None}),
]  # fmt: skip


@pytest.mark.parametrize(("column", "values"), VALUES, ids=lambda each: str(each)[:40])
def test_values_are_read_or_are_bad_rows(load, column, values):
    lines = "".join(f'{n},"{text}"\n' for n, text in enumerate([*values, ""]))
    loaded = load(f"id,value\n{lines}".encode(), columns={"value": column})
    expected = [value for value in values.values() if value is not None]
    found = [row["value"] for row in loaded.rows if row["value"] is not None]
    assert [each.isoformat() if hasattr(each, "isoformat") else each for each in found] == expected
    assert len(loaded.rejected) == len(values) - len(expected)


def test_texts_that_mean_null(load):
    file = b"id,value\n1,--\n2,N/A\n3,NULL\n4,5\n"
    loaded = load(file, columns={"value": "number"}, null_values=["--", "N/A", "NULL"])
    assert [row["value"] for row in loaded.rows] == [None, None, None, 5.0]


def test_a_json_string_stays_a_string(load):
    file = json.dumps([{"id": 1, "x": "7"}, {"id": 2, "x": 7}, {"id": 3, "x": {"a": [1]}}]).encode()
    loaded = load(file, format="json", columns={"x": "json"})
    assert [json.loads(row["x"]) for row in loaded.rows] == ["7", 7, {"a": [1]}]


def test_objects_without_the_key_are_bad_rows_even_if_they_come_first(load):
    file = json.dumps([{"x": n} for n in range(25_000)] + [{"id": 1, "x": 1}]).encode()
    loaded = load(file, format="json", primary_keys=["id"], top={"rejected_rows_limit": 100_000})
    assert [row["id"] for row in loaded.rows] == ["1"]
    assert len(loaded.rejected) == 25_000


def test_what_no_file_has_is_told_once(load):
    loaded = load(b"id\n1\n", b"id\n2\n", columns={"id": "integer", "nothing": "integer"})
    assert loaded.log.count("nothing") == 1


def test_a_gzip_of_several_members_is_one_file(load):
    file = gzip.compress(b"id,x\n1,a\n") + gzip.compress(b"2,b\n")
    assert [row["id"] for row in load(file).rows] == ["1", "2"]


def test_a_key_that_is_excluded_is_a_mistake(load):
    with pytest.raises(SettingsError, match="exclude"):
        load(b"id\n1\n", primary_keys=["id"], exclude_columns=["id"])
