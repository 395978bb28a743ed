"""What a user reads when a host can't be reached, a file is not what it should be, or there is no room."""

import errno
import gzip
import os
from collections.abc import Iterator
from typing import Any

import pytest
import vendor as fake
from lines import Row, Vendor, says
from peers import always, response, self_signed, serving
from test_extraction import settings

from tap_analytics_exports import Extraction, extraction
from tap_analytics_exports.errors import ExportsFailed, SettingsError
from tap_analytics_exports.jobs import runner
from tap_analytics_exports.transport.network import Network

START, STATUS, FILE = "POST /report/author", "GET /report/w1/r1/status", "GET /report/w1/r1/download"
CSV = "Content-Type: text/csv"
CLOSED = {"result": {"result": {"runnerState": "CLOSED", "detail": "COMPLETED"}}, "status": "PASS"}

ROWS: dict[str, Row] = {
    "a refused connection": (
        {},
        (
            "POST http://127.0.0.1:1/report/author: connection refused; check base_url, and whether the host "
            "is up; nothing was triggered, and the next run tries again"
        ),
        {"block": {"base_url": "http://127.0.0.1:1"}},
    ),
    "a host that is not known": (
        {},
        (
            "POST http://nobody.invalid/report/author: the host's name is not known; check base_url; "
            "nothing was triggered, and the next run tries again"
        ),
        {"block": {"base_url": "http://nobody.invalid"}},
    ),
    "a trigger whose connection breaks": (
        {START: b""},
        (
            "POST X/report/author: the connection broke off (ProtocolError); whether a job was triggered is "
            "not known; the next run triggers another"
        ),
    ),
    "a download that breaks in the middle": (
        {FILE: response(200, b"a,b\n1", CSV, "Content-Length: 9", length=False)},
        (
            "GET X/report/w1/r1/download: the answer broke off (ProtocolError); its file did not arrive "
            "whole in 3 transfers; the next run begins anew"
        ),
    ),
    "a page in place of a file": (
        {FILE: says(200, "<html>sign in</html>", "Content-Type: text/html")},
        (
            "GET X/report/w1/r1/download answered 200 with a web page in place of the file; check base_url; "
            "its file did not arrive whole in 3 transfers; the next run begins anew"
        ),
    ),
    "a gzip file that is cut": (
        {FILE: response(200, gzip.compress(b"a,b\n1,2\n")[:-6], CSV)},
        (
            "author.csv: the file is cut: its gzip stream ends before its trailer; the next run asks for "
            "another, and if that goes on, ask the vendor"
        ),
    ),
    "a header with another delimiter": (
        {FILE: says(200, "a;b\n1;2\n", CSV)},
        (
            "nothing is known of the file's header, 'a;b', where columns such as a, b should be: set the "
            "export's `delimiter` to ';', which parts it"
        ),
        {"columns": {"a": "string", "b": "integer"}},
    ),
    "another encoding": (
        {FILE: response(200, b"a,b\n1,\xff\n", CSV)},
        (
            "row 1 of author.csv: the byte 0xFF at index 2 of the row is not utf-8: is `encoding` another?; "
            "on_bad_row is fail, and divert writes such rows to rejected_rows"
        ),
        {"top": {"on_bad_row": "fail"}},
    ),
    "a column that is new": (
        {},
        (
            "the catalog does not know the columns b, and on_new_column is fail; name them in the export's "
            "`columns`, or set on_new_column to add or ignore"
        ),
        {"columns": {"a": "string"}, "top": {"on_new_column": "fail"}},
    ),
    "a bad row": (
        {FILE: says(200, "a,b\n1,2,3\n1,2\n", CSV)},
        (
            "row 1 of author.csv: 3 fields, and the header has 2; on_bad_row is fail, and divert writes such "
            "rows to rejected_rows"
        ),
        {"top": {"on_bad_row": "fail"}},
    ),
    "too many bad rows": (
        {FILE: says(200, "a,b\n1,2,3\n1,2\n1,2,3\n", CSV)},
        (
            "more than 1 rows were rejected, the last, row 3 of author.csv, because: 3 fields, and the "
            "header has 2; see the stream rejected_rows, check the export's columns, or raise "
            "rejected_rows_limit"
        ),
        {"top": {"rejected_rows_limit": 1}},
    ),
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    block = {"username": "ann", "password": "invented", "company_key": "k3y-of-acme"}
    well = {
        START: says(200, {"status": "PASS", "result": {"workflowId": "w1", "runId": "r1"}}),
        STATUS: says(200, CLOSED),
        FILE: says(200, "a,b\n1,2\n", CSV),
    }
    with Vendor("khoros_care", block, {"export_id": "author"}, well).serving() as vendor:
        yield vendor


@pytest.mark.parametrize("name", ROWS)
def test_the_line_of(vendor, name, monkeypatch):
    monkeypatch.setattr(Network, "wait", lambda self, seconds: None)
    answers, line, *how = ROWS[name]
    assert vendor.line(answers, **(how[0] if how else {})) == vendor.begin + line


def test_the_line_of_a_certificate_that_is_not_trusted(vendor, tmp_path):
    with serving() as serve:
        origin = serve(always(response(200)), self_signed(tmp_path)).origin
        line = vendor.line({}, block={"base_url": origin})
    assert line.replace(origin, "X") == (
        f"{vendor.begin}POST X/report/author: the host's certificate is not trusted (self-signed "
        "certificate); if you trust its authority, set ca_bundle; nothing was triggered, and the next run "
        "tries again"
    )


def test_the_line_of_a_full_disk(vendor, monkeypatch, tmp_path):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner, "download", full)
    line = vendor.line({}, top={"spool_dir": str(tmp_path)})
    before, _, after = line.partition(str(tmp_path))
    assert before == vendor.begin
    assert after.partition(": ")[2] == (
        "No space left on device; make room, or set spool_dir; the job is kept, and the next run goes on "
        "with it"
    )


# Of runs, with a vendor in this process


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(extraction, "installed", lambda: {"fake": fake.Fake})
    return fake.world()[0]


def refusal(given: dict[str, Any], state: dict[str, Any] | None = None) -> str:
    with pytest.raises((SettingsError, ExportsFailed)) as raised, Extraction(given, state=state) as run:
        list(run)
    return str(raised.value)


def bookmark(text: str) -> dict[str, Any]:
    return {"bookmarks": {"rows": {"replication_key_value": text}}}


def test_a_bookmark_that_is_none_is_named_with_its_stream(address, tmp_path):
    assert refusal(settings(address, tmp_path), bookmark("yesterday")) == (
        "state: bookmarks.rows.replication_key_value: is no date-time, such as 2026-01-03T00:00:00+00:00; "
        "mend it, or run without a state"
    )


def test_an_archive_that_cannot_be_written_is_named(address, tmp_path):
    (tmp_path / "archive").write_text("is no folder")
    assert refusal(settings(address, None, archive_url=str(tmp_path / "archive"))) == (
        f"archive_url: can't be written: [Errno 17] File exists: '{tmp_path}/archive'"
    )


def test_a_trigger_of_which_nobody_knows_is_told_of(address, tmp_path):
    fake.WORLDS[address].script["2026-01-01"] = ["ambiguous"]
    assert refusal(settings(address, tmp_path, days=1)) == (
        "fake, stream rows, window 2026-01-01T00:00:00+00:00/2026-01-02T00:00:00+00:00: no answer; the next "
        "run triggers another"
    )


@pytest.mark.parametrize(
    ("days", "state", "line"),
    [
        (
            1,
            bookmark("2999-01-01T00:00:00+00:00"),
            (
                "its bookmark, 2999-01-01T00:00:00+00:00, is in the future; nothing before it is exported. "
                "If that is wrong, mend the state"
            ),
        ),
        (
            0,
            None,
            (
                "its start_date, 2026-01-01T00:00:00+00:00, is not before the end of the run, so there is "
                "nothing to export; see start_date and end_date"
            ),
        ),
    ],
)
def test_a_run_that_has_nothing_to_export_warns_once(address, caplog, days, state, line):
    with Extraction(settings(address, None, days=days), state=state) as run:
        list(run)
    assert [record.getMessage() for record in caplog.records] == [f"fake, stream rows: {line}"]
