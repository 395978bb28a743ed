"""What goes into a file comes out of the core, cell by cell, or is rejected by name.

ORACLE_FILES says how many files are tried.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import vendor
import xlsxwriter
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from invented import BAD, CHARACTERS, NULL, NULLS, Cell, Column, cells, columns
from vendor import DAY, PROCESS, START, Fake

from tap_analytics_exports import extraction as core
from tap_analytics_exports.errors import ExportsFailed
from tap_analytics_exports.events import Ended, Rows
from tap_analytics_exports.extraction import Extraction
from tap_analytics_exports.parse import csv as csv_parser
from tap_analytics_exports.parse import json as json_parser

FILES = int(os.environ.get("ORACLE_FILES", "300"))

ARROW = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.string(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "json": pa.string(),
}


@pytest.fixture(autouse=True, scope="module")
def _fake() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "installed", lambda: {"fake": Fake})
        patch.setattr(csv_parser, "LEAST_BLOCK", 16)
        PROCESS.start()
        yield


@dataclass
class Row:
    """A row of a file, and what has to become of it.

    Attributes:
        values: By property.
        wrong: The columns that make it a bad one; one of them has to be named.
        malformed: It is no row at all, and no column is to be named.
        raw: What has to be shown of it, by fields that are not empty; None: anything.
    """

    values: dict[str, Any]
    wrong: set[str] = field(default_factory=set)
    malformed: bool = False
    raw: list[str] | None = None


@dataclass
class File:
    """A file, the settings that it needs, and what has to come out."""

    columns: list[Column]
    export: dict[str, Any]
    content: bytes
    rows: list[Row]


def expected(known: list[Column], row: list[Cell], *, shown: bool) -> Row:
    """What has to become of a row of cells; `shown`: as a bad one, it is shown by the cells' texts."""
    values = {each.name: cell.value for each, cell in zip(known, row, strict=True) if not each.excluded}
    keys = {each.name for each in known if each.key}
    wrong = {name for name, value in values.items() if value is BAD or (value is None and name in keys)}
    raw = [cell.text for each, cell in zip(known, row, strict=True) if not each.excluded and cell.text]
    return Row(values, wrong, raw=raw if shown else None)


def export_of(known: list[Column], **more: Any) -> dict[str, Any]:
    return {
        "columns": {each.header: each.setting for each in known if each.declared},
        "primary_keys": [each.header for each in known if each.key] or None,
        "exclude_columns": [each.header for each in known if each.excluded],
        "null_values": NULLS,
        **more,
    }


# Files of text

ENCODINGS = [
    (None, "utf-8", b""),
    (None, "utf-8", b""),
    ("latin-1", "utf-8", b"\xef\xbb\xbf"),  # the mark counts
    ("utf-16-le", "utf-16-le", b""),
    (None, "utf-16-le", b"\xff\xfe"),
    (None, "utf-16-be", b"\xfe\xff"),
    (None, "utf-32-le", b"\xff\xfe\0\0"),
    ("latin-1", "latin-1", b""),
    ("cp1252", "cp1252", b""),
]
BAD_BYTES = {"utf-8": b"\xff", "cp1252": b"\x81"}


def characters_of(encoding: str) -> str:
    return CHARACTERS.encode(encoding, "ignore").decode(encoding)


def packed(content: bytes, how: str) -> bytes:
    """A file, compressed in one of the ways that are seen."""
    match how:
        case "gzip":
            return gzip.compress(content)
        case "members":
            third = len(content) // 3
            return gzip.compress(content[:third]) + gzip.compress(content[third:])
        case "zip":
            with zipfile.ZipFile(found := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("rows.csv", content)
            return found.getvalue()
    return content


PACKINGS = st.sampled_from(["", "", "gzip", "members", "zip"])


@dataclass
class Csv:
    """How a CSV file is written."""

    delimiter: str
    quote: str
    quoting: str
    codec: str

    def field(self, text: str) -> str:
        if not self.quote:
            return text
        needed = any(sign in text for sign in (self.delimiter, "\r", "\n")) or text.startswith('"')
        if needed or self.quoting == "all" or (self.quoting == "doubled" and '"' in text):
            return '"' + text.replace('"', '""') + '"'
        return text

    def line(self, texts: list[str]) -> bytes:
        fields = [self.field(text) for text in texts]
        return (self.delimiter.join(fields) if fields != [""] else '""').encode(self.codec)

    def fits(self, cell: Cell) -> bool:
        return bool(self.quote) or not any(sign in cell.text for sign in (self.delimiter, "\r", "\n"))


@st.composite
def csv_files(draw: Any) -> File:
    known = draw(columns(collide=True))
    encoding, codec, mark = draw(st.sampled_from(ENCODINGS))
    quote = draw(st.sampled_from(['"', '"', ""])) if len(known) > 1 else '"'
    how = Csv(draw(st.sampled_from(",;\t|")), quote, draw(st.sampled_from(["", "all", "doubled"])), codec)
    end = draw(st.sampled_from(["\n", "\r\n", "\r"])).encode(codec)
    width, header = len(known), [each.header for each in known]
    tail = draw(st.sampled_from(["", "", "", "both", "rows", "header"])) if width > 1 else ""
    kinds = ["bytes", "nul", "again"] if tail else ["bytes", "nul", "again", "short", "long", "after"]
    after = {
        side: how.delimiter.encode(codec) if tail in ("both", side) else b"" for side in ("rows", "header")
    }

    lines = [f"Report, of {n}; May".encode(codec) for n in range(draw(st.integers(0, 2)))]
    export = export_of(known, encoding=encoding, quote=quote, skip_rows=len(lines))
    if how.delimiter != "," and draw(st.booleans()):
        lines.append(f"sep={how.delimiter}".encode(codec))
    else:
        export["delimiter"] = how.delimiter
    lines.append(how.line(header) + after["header"])

    rows: list[Row] = []
    makers = [cells(each, characters_of(codec)) for each in known]
    for _ in range(draw(st.integers(0, 7))):
        row = [cell if how.fits(cell) else NULL for cell in map(draw, makers)]
        texts = [cell.text for cell in row]
        kind = draw(st.sampled_from(kinds)) if draw(st.integers(0, 11)) == 0 else "row"
        text = how.line(texts)
        malformed = True
        if kind == "bytes" and codec in BAD_BYTES:
            text = how.line(["x", *texts[1:]]).replace(b"x", BAD_BYTES[codec], 1)
        elif kind == "nul":
            text = how.line([*texts[:-1], "\0"])
        elif kind == "again" or texts == header:
            text = how.line(header)
        elif kind == "short" and width > 1:
            text = how.line(["x", *texts[2:]])
        elif kind == "long":
            text = how.line([*texts, "x"])
        elif kind == "after" and quote:
            text = (
                how.line(texts[:-1])
                + (how.delimiter if width > 1 else "").encode(codec)
                + '"a"b'.encode(codec)
            )
        else:
            malformed = False
        rows.append(Row({}, malformed=True) if malformed else expected(known, row, shown=True))
        lines.append(text + after["rows"])
        if draw(st.integers(0, 9)) == 0:
            lines.append(b"")
    content = mark + end.join(lines) + (end if draw(st.booleans()) else b"")
    return File(known, export, packed(content, draw(PACKINGS)), rows)


@st.composite
def json_files(draw: Any) -> File:
    known = draw(columns(collide=False))
    encoding, codec, mark = draw(st.sampled_from(ENCODINGS))
    makers = [cells(each, characters_of("utf-8")) for each in known]
    ascii_only = draw(st.booleans()) or codec in ("latin-1", "cp1252")
    elements: list[str] = []
    rows: list[Row] = []
    anchor = next(each for each in known if each.declared)
    for _ in range(draw(st.integers(0, 7))):
        row = list(map(draw, makers))
        if draw(st.integers(0, 11)) == 0:
            bad = ["1", '"text"', "[]", "null", '{"a": 1, "a": 2}', r'{"a": "\u0000"}', r'{"a": "\ud800"}']
            elements.append(draw(st.sampled_from(bad)))
            rows.append(Row({}, malformed=True))
            continue
        row = [
            cell._replace(value=cell.text) if each.kind == "json" and cell.value is BAD else cell
            for each, cell in zip(known, row, strict=True)
        ]
        pairs = {}
        for each, cell in zip(known, row, strict=True):
            if cell.text or each is anchor or draw(st.booleans()):
                pairs[each.header] = draw(st.sampled_from(tokens(each, cell, ascii_only=ascii_only)))
        space = draw(st.sampled_from(["", " ", "\n\t"]))
        elements.append("{" + f",{space}".join(f"{json.dumps(k)}:{space}{v}" for k, v in pairs.items()) + "}")
        rows.append(expected(known, row, shown=all(each.kind != "json" for each in known)))
    text = (
        "[" + draw(st.sampled_from([",", " ,\r\n"])).join(elements) + "]" + draw(st.sampled_from(["", "\n"]))
    )
    return File(
        known,
        export_of(known, format="json", encoding=encoding),
        packed(mark + text.encode(codec), draw(PACKINGS)),
        rows,
    )


def tokens(column: Column, cell: Cell, *, ascii_only: bool) -> list[str]:
    """The ways to write a cell in JSON."""
    if column.kind == "json" and cell.native is not None:
        return [json.dumps(cell.native, ensure_ascii=ascii_only)]
    if not cell.text:
        return ["null", '""']
    text = json.dumps(cell.text, ensure_ascii=ascii_only)
    bare = re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false", cell.text, re.ASCII)
    return [text, cell.text] if bare and column.kind != "json" else [text]


@st.composite
def workbooks(draw: Any) -> File:
    known = draw(columns(collide=True))
    makers = [cells(each, "abc XYZ09,;\"'\n=<&é€中𝄞") for each in known]
    skip = draw(st.integers(0, 2))
    rows: list[Row] = []
    with xlsxwriter.Workbook(found := io.BytesIO(), {"in_memory": True}) as book:
        formats = {
            date: book.add_format({"num_format": "yyyy-mm-dd"}),
            datetime: book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
        }
        sheet = book.add_worksheet()
        for line in range(skip):
            sheet.write_string(line, 0, "Report")
        for column, each in enumerate(known):
            sheet.write_string(skip, column, each.header)
        for line in range(skip + 1, skip + 1 + draw(st.integers(0, 7))):
            row = list(map(draw, makers))
            for column, (each, cell) in enumerate(zip(known, row, strict=True)):
                native = cell.native if each.kind != "json" and cell.value is not BAD else None
                if native is None or draw(st.booleans()):
                    sheet.write_string(line, column, cell.text)
                elif isinstance(native, date):
                    sheet.write_datetime(line, column, native, formats[type(native)])
                else:
                    row[column] = cell._replace(value=native) if each.kind == "number" else cell
                    sheet.write(line, column, native)
            if any(cell.text for cell in row):  # a row without anything is no row
                rows.append(expected(known, row, shown=False))
    return File(known, export_of(known, format="xlsx", skip_rows=skip), found.getvalue(), rows)


# What comes out


@dataclass
class Result:
    """What came of a file, and all that was said meanwhile."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    schema: pa.Schema | None = None
    rejected: list[dict[str, Any]] = field(default_factory=list)
    ended: dict[str, Any] = field(default_factory=dict)
    failed: str = ""
    said: list[str] = field(default_factory=list)


class Listener(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


def extract(file: File) -> Result:
    """Extract a file, the only one of a vendor."""
    address, _ = vendor.world(contents={START.date().isoformat(): file.content})
    given_settings = {
        "start_date": START.isoformat(),
        "end_date": (START + DAY).isoformat(),
        "poll_interval": "PT0.0001S",
        "ledger": "",
        "fake": {"base_url": address, "exports": [{"name": "rows", **file.export}]},
    }
    result = Result()
    listener = Listener(result.said)
    logging.getLogger().addHandler(listener)
    try:
        with Extraction(given_settings) as extraction:
            for event in extraction:
                match event:
                    case Rows("rows", batch):
                        result.rows += batch.to_pylist()
                        result.schema = batch.schema
                    case Rows("rejected_rows", batch):
                        result.rejected += batch.to_pylist()
                    case Ended(_, job):
                        result.ended = job
    except ExportsFailed as failed:
        result.failed = str(failed)
    finally:
        logging.getLogger().removeHandler(listener)
        del vendor.WORLDS[address]
    return result


def plain(kind: str, value: Any) -> str:
    """A value, so that what is not quite the same differs, such as 1, 1.0 and true."""
    if value is None:
        return "null"
    return json.dumps(value, sort_keys=True) if kind == "json" else repr(value)


def read(kind: str, value: Any) -> Any:
    """What Arrow's value stands for."""
    if value is None:
        return None
    match kind:
        case "json":
            return json.loads(value)
        case "decimal":
            return Decimal(value)
        case "timestamp":
            return value.astimezone(UTC)
    return value


def check(file: File) -> None:
    """Extract a file, and compare what comes out with what has to."""
    result = extract(file)
    good = [(number, row) for number, row in enumerate(file.rows, 1) if not (row.wrong or row.malformed)]
    bad = [(number, row) for number, row in enumerate(file.rows, 1) if row.wrong or row.malformed]

    assert [row["_sdc_row_number"] for row in result.rows] == [number for number, _ in good], result.failed
    visible = [each for each in file.columns if not each.excluded]
    for found, (_, row) in zip(result.rows, good, strict=True):
        for each in visible:
            came = plain(each.kind, read(each.kind, found.get(each.name)))
            assert came == plain(each.kind, row.values[each.name]), (each, row)
    if result.schema is not None:
        types = {f.name: f.type for f in result.schema if not f.name.startswith("_sdc_")}
        assert types.items() <= {each.name: ARROW[each.kind] for each in visible}.items()
        missing = {each.name for each in visible} - types.keys()
        assert not [row for _, row in good for name in missing if row.values[name] is not None]

    assert [row["row_number"] for row in result.rejected] == [number for number, _ in bad]
    for found, (_, row) in zip(result.rejected, bad, strict=True):
        assert found["reason"]
        assert found["column"] in (row.wrong or [None])
        if row.raw is not None:
            fields = next(csv.reader(io.StringIO(found["raw"], newline="")))
            assert sorted(filter(None, fields)) == sorted(row.raw)

    assert (result.ended["rows"], result.ended["rejected_rows"]) == (len(good), len(bad))
    assert bool(result.failed) == bool(bad and not good)  # with no row that fits, the window has failed
    assert "hidden" not in repr(result)


def tried(share: float) -> Any:
    """So much of all files."""
    return settings(
        deadline=None, max_examples=max(1, int(FILES * share)), suppress_health_check=list(HealthCheck)
    )


@given(file=csv_files(), block=st.sampled_from([7, 64, 1 << 20]), rows=st.sampled_from([2, 20_000]))
@tried(0.6)
def test_csv(file, block, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_parser, "BLOCK", block)
        patch.setattr(csv_parser, "FRAME_ROWS", rows)
        patch.setattr(csv_parser, "MOST_BAD", 2 * rows)
        check(file)


def _grouped_by_dots(file):
    """Whether 1.001 may be two numbers, where a file has numbers of its own: such a row is a bad one."""
    return any(column.options.get("thousands") == "." for column in file.columns)


@given(file=json_files(), block=st.sampled_from([7, 64, 1 << 20]), rows=st.sampled_from([2, 20_000]))
@tried(0.33)
def test_json(file, block, rows):
    assume(not _grouped_by_dots(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_parser, "BLOCK", block)
        patch.setattr(json_parser, "FRAME_ROWS", rows)
        check(file)


@given(file=workbooks())
@tried(0.07)
def test_workbooks(file):
    assume(not _grouped_by_dots(file))
    check(file)
