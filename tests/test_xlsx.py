"""Workbooks become frames of text, read by a child process that can do no harm to the tap."""

import datetime as dt
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import xlsxwriter
from conftest import run_tap
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_analytics_exports.columns.names import Columns
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import ROW_NUMBER, Dialect, frames, prove, xlsx
from tap_analytics_exports.parse.base import FRAME_ROWS
from tap_analytics_exports.settings import Column, Export

CASES = Path(__file__).parent / "cases"
XLSX = Dialect("xlsx")
NEXT = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = NEXT - dt.timedelta(days=1)
FORMATS = {
    dt.datetime: "yyyy-mm-dd hh:mm:ss.000",
    dt.date: "yyyy-mm-dd",
    dt.time: "hh:mm:ss",
    dt.timedelta: "[h]:mm:ss",
}


def workbook(path, rows, sheets=("First",), **options):
    """A workbook whose sheets have a row each, but for the last one, which has all."""
    with xlsxwriter.Workbook(path, {"strings_to_urls": False, **options}) as book:
        formats = {kind: book.add_format({"num_format": code}) for kind, code in FORMATS.items()}
        for name in sheets[:-1]:
            book.add_worksheet(name).write(0, 0, f"only in {name}")
        page = book.add_worksheet(sheets[-1])
        for number, row in enumerate(rows):
            for position, cell in enumerate(row):
                match cell:
                    case None:
                        continue
                    case str():
                        page.write_string(number, position, cell)
                    case (value, code):
                        page.write(number, position, value, book.add_format({"num_format": code}))
                    case dt.date() | dt.time() | dt.timedelta():
                        page.write_datetime(number, position, cell, formats[type(cell)])
                    case _:
                        page.write(number, position, cell)
    return path


def rewritten(path, *changes, part="sheet1.xml", name=lambda name: name):
    """A workbook of which a part is changed by pairs of a pattern and what is in its place."""
    new = path.with_name("rewritten")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as book:
        for each in old.namelist():
            text = old.read(each).decode()
            for pattern, replacement in changes if each.endswith(part) else ():
                text, count = re.subn(pattern, replacement, text)
                assert count
            book.writestr(name(each), text)
    return new


def read(path, dialect=XLSX):
    """The header, all rows as (number, fields…), and the bad ones as (number, raw)."""
    header, rows, bad = None, [], []
    for frame in frames(path, dialect):
        header = frame.header
        texts = {str(i): pl.String for i in range(len(header))}
        assert frame.rows.schema == {**texts, ROW_NUMBER: pl.Int64}
        rows += [(number, *fields) for *fields, number in frame.rows.iter_rows()]
        bad += [(row.row_number, row.raw) for row in frame.bad]
    return header, rows, bad


def column(path, dialect=XLSX):
    """The texts of the first column."""
    _, rows, bad = read(path, dialect)
    assert bad == []
    return [row[1] for row in rows]


# What cells mean

MEANINGS = [
    (12, "12"),
    (-7.0, "-7"),
    (1.5, "1.5"),
    (0.1 + 0.2, "0.3"),  # as the file has it
    (2.0**53 - 1, "9007199254740991"),
    (2.0**53, "9.007199254740992e+15"),
    (-(2.0**60), "-1.152921504606847e+18"),
    (True, "true"),
    (False, "false"),
    ("007", "007"),
    (" ", " "),
    ("ä\n, <&> \r\n😀", "ä\n, <&> \r\n😀"),
    ("_x000D_", "_x000D_"),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 678000), "2026-01-02T03:04:05.678000"),
    (dt.datetime(2026, 1, 2), "2026-01-02T00:00:00"),
    ((46024, "d.m.yyyy"), "2026-01-02"),
    ((46024, 'd "hours"'), "2026-01-02"),
    ((46024, "m/d/yy h:mm AM/PM"), "2026-01-02T00:00:00"),
    ((46024, "m/d/yy h:mm"), "2026-01-02T00:00:00"),  # a built-in one
    ((46024, "[$-409]yyyy\\-mm\\-dd\\ hh:mm"), "2026-01-02T00:00:00"),
    ((46024.5, "yyyy-mm-dd"), "2026-01-02T12:00:00"),
    (dt.time(3, 4, 5), "03:04:05"),
    (dt.time(0), "00:00:00"),
    (dt.timedelta(hours=30, minutes=1), "30:01:00"),
    (dt.timedelta(days=2), "48:00:00"),
    ((-0.5, "[h]:mm"), "-12:00:00"),
    (dt.timedelta(seconds=1, milliseconds=250), "0:00:01.250000"),
    ((5, '"d"0.00'), "5"),
    ((5, "[Red]0.0"), "5"),
]


@pytest.mark.parametrize("since_1904", [False, True])
@pytest.mark.parametrize("below", [0, 3])
def test_cells_become_text(tmp_path, since_1904, below):
    cells = [cell for cell, _ in MEANINGS if not (since_1904 and isinstance(cell, tuple))]
    expected = [text for cell, text in MEANINGS if not (since_1904 and isinstance(cell, tuple))]
    table = [[]] * below + [[None] * below + ["x"], *([None] * below + [cell] for cell in cells)]
    path = workbook(tmp_path / "book", table, date_1904=since_1904)
    assert column(path) == expected


def test_results_of_formulas_are_values_and_errors_are_null(tmp_path):
    path = tmp_path / "book"
    with xlsxwriter.Workbook(path) as book:
        page = book.add_worksheet()
        clock = book.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        page.write_row(0, 0, ["text", "number", "boolean", "error", "midnight", "empty"])
        for position, result in enumerate(["a", 1.5, True, "#N/A", 46024, ""]):
            page.write_formula(1, position, "=A9", clock if result == 46024 else None, result)
    assert read(path)[1] == [(1, "a", "1.5", "true", None, "2026-01-02T00:00:00", None)]


@pytest.mark.parametrize(
    ("formula", "told"),
    [
        ("<f>A1*2</f><v/>", True),
        ("<f>A1*2</f><v></v>", True),
        ('<f t="shared" si="0"/>', True),
        ("<f>A1&lt;2</f>", True),
        ("<f>A1*2</f><v>0</v>", False),
    ],
)
def test_formulas_whose_value_nobody_calculated_are_null_and_told(tmp_path, caplog, formula, told):
    path = rewritten(workbook(tmp_path / "book", [["a", "b"], [1, 2]]), ("<v>2</v>", formula))
    assert read(path)[1] == [(1, "1", None if told else "0")]
    assert ("nobody calculated" in caplog.text) == told


def test_a_formula_that_a_library_wrote_without_its_value(caplog):
    (frame,) = frames(CASES / "formula.xlsx", XLSX)
    caster = Columns(Export(name="x", columns={"b": "integer"}), style="snake_case", dictionary={})
    typed, bad = caster.cast(frame, caster.bind(["a", "b"]))
    assert (typed.rows(), bad) == ([("1", None, 1)], [])
    assert [
        (record.levelname, "1 formulas have no value" in record.message) for record in caplog.records
    ] == [("WARNING", True)]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r￾￿"), max_size=20)
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(-1e308, 1e308),
    st.datetimes(dt.datetime(1900, 3, 1), dt.datetime(9999, 12, 31)),
    st.dates(dt.date(1900, 3, 1)),
    st.times(),
    st.timedeltas(dt.timedelta(0), dt.timedelta(9999)),
    TEXTS,
)


def near(text, cell):
    """Whether a text is a cell; a number is the double of 16 digits that the file has, times are near."""
    found = expected = dt.timedelta(0)
    match cell:
        case None | str():
            return text == (cell or None)
        case bool():
            return text == str(cell).lower()
        case int() | float():
            return float(text) == float(f"{cell:.16G}") and ("e+" in text) == (abs(float(text)) >= 2**53)
        case dt.datetime():
            found, expected = dt.datetime.fromisoformat(text), cell
        case dt.date():
            found, expected = dt.date.fromisoformat(text), cell
        case dt.time():
            found, expected = (dt.datetime.combine(DAY, each) for each in (dt.time.fromisoformat(text), cell))
        case dt.timedelta():
            hours, minutes, seconds = text.split(":")
            found, expected = dt.timedelta(0, float(seconds), 0, 0, int(minutes), int(hours)), cell
    return abs(found - expected) <= dt.timedelta(milliseconds=1)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(CELLS, min_size=8, max_size=8), max_size=30), st.booleans())
def test_any_cells_come_as_they_are(tmp_path_factory, table, inline):
    path = tmp_path_factory.mktemp("books") / "book"
    _, rows, bad = read(workbook(path, [list("abcdefgh"), *table], constant_memory=inline))
    filled = [row for row in table if any(cell not in (None, "") for cell in row)]
    assert bad == []
    assert [number for number, *_ in rows] == list(range(1, len(filled) + 1))
    for (_, *texts), cells in zip(rows, filled, strict=True):
        assert [text for text, cell in zip(texts, cells, strict=True) if not near(text, cell)] == []


# Dates in columns that have a format


@pytest.mark.parametrize("format_", ["%m/%d/%Y", "%m/%d/%Y %H:%M", None])
@pytest.mark.parametrize("kind", ["date", "timestamp"])
def test_a_cell_that_is_a_date_is_one_whatever_the_format_of_texts(tmp_path, kind, format_):
    text = {"%m/%d/%Y": "01/03/2026", "%m/%d/%Y %H:%M": "01/03/2026 00:00", None: "2026-01-03"}[format_]
    cells = [dt.date(2026, 1, 1), dt.datetime(2026, 1, 2), text, dt.time(1)]
    (frame,) = frames(workbook(tmp_path / "book", [["x"], *([cell] for cell in cells)]), XLSX)
    typed, bad = cast(frame, Column(kind, format=format_, timezone="Europe/Helsinki"))
    days = [dt.date(2026, 1, day) for day in (1, 2, 3)]
    evenings = [dt.datetime(2025, 12, 31, 22, tzinfo=dt.UTC) + dt.timedelta(day) for day in range(3)]
    assert typed == (days if kind == "date" else evenings)
    assert bad == [(4, "01:00:00")]


def test_a_date_that_is_another_by_its_columns_format_is_a_bad_row(tmp_path):
    table = [["x"], ["2026-02-01"], [dt.date(2026, 2, 1)], ["2026-31-01"], [dt.date(2026, 2, 20)]]
    (frame,) = frames(workbook(tmp_path / "book", table), XLSX)
    typed, bad = cast(frame, Column("date", format="%Y-%d-%m"))
    assert typed == [dt.date(2026, 1, 31), dt.date(2026, 2, 20)]
    assert [number for number, _ in bad] == [1, 2]


def test_a_cell_that_is_a_number_is_that_one_however_texts_write_theirs(tmp_path):
    table = [["x"], ["1.234,5"], [0.5], [1.001], ["2.000"], [7]]
    (frame,) = frames(workbook(tmp_path / "book", table), XLSX)
    typed, bad = cast(frame, Column("number", thousands=".", decimal=","))
    assert typed == [1234.5, 0.5, 7.0]
    assert [number for number, _ in bad] == [3, 4]  # each may be two numbers


def cast(frame, kind):
    """The values of a frame of one column, and its bad rows."""
    caster = Columns(Export(name="x", columns={"x": kind}), style="snake_case", dictionary={})
    typed, bad = caster.cast(frame, caster.bind(["x"]))
    return typed["x"].to_list(), [(row.row_number, row.raw) for row in bad]


# Rows and sheets


def test_rows_without_cells_are_left_out_and_those_that_are_too_long_are_bad(tmp_path):
    table = [[], ["a", None, "c", None], [], ["1", "2"], [None, ""], ["3", "4", "5", "6"], [None, None, 7]]
    header, rows, bad = read(workbook(tmp_path / "book", table))
    assert header == ("a", "", "c")
    assert rows == [(1, "1", "2", None), (3, None, None, "7")]
    assert bad == [(2, "3,4,5,6")]


def test_a_row_with_a_nul_character_is_bad(tmp_path):
    path = workbook(tmp_path / "book", [["a", "b"], [1, "x"], [2, "y"]], constant_memory=True)
    assert read(rewritten(path, (">x<", ">x_x0000_<"))) == (("a", "b"), [(2, "2", "y")], [(1, "1,x\0")])


def test_rows_before_the_header_are_skipped_empty_ones_too(tmp_path):
    table = [["Report"], [], ["by", "me", "and", "you"], [], ["a", "b"], ["1", "2"]]
    path = workbook(tmp_path / "book", table)
    for skip in (3, 4):
        assert read(path, Dialect("xlsx", skip_rows=skip)) == (("a", "b"), [(1, "1", "2")], [])
    assert list(frames(path, Dialect("xlsx", skip_rows=6))) == []


def test_a_header_without_rows_and_a_sheet_without_anything(tmp_path):
    (frame,) = frames(workbook(tmp_path / "book", [["a", "b"]]), XLSX)
    assert (frame.header, frame.rows.height) == (("a", "b"), 0)
    assert list(frames(workbook(tmp_path / "book", []), XLSX)) == []


def test_many_rows_come_in_several_frames_in_their_order(tmp_path):
    count = FRAME_ROWS + 5
    path = workbook(tmp_path / "book", [["n", "t"], *([i, f"t{i}"] for i in range(count))])
    several = list(frames(path, XLSX))
    assert [frame.rows.height for frame in several] == [FRAME_ROWS, 5]
    rows = pl.concat(frame.rows for frame in several)
    assert rows[ROW_NUMBER].to_list() == list(range(1, count + 1))
    assert rows["1"].to_list() == [f"t{i}" for i in range(count)]


def test_long_texts_come_in_frames_that_are_not_too_large(tmp_path):
    path = workbook(tmp_path / "book", [["t"], *([f"{i:032000}"] for i in range(400))])
    heights = [frame.rows.height for frame in frames(path, XLSX)]
    assert sum(heights) == 400
    assert max(heights) < 200


def test_the_first_sheet_is_the_default_and_an_unknown_one_is_refused_with_those_there_are(tmp_path):
    path = workbook(tmp_path / "book", [["a"]], ["First", "Zweites Blatt & mehr", "Last"])
    assert read(path)[0] == ("only in First",)
    assert read(path, Dialect("xlsx", sheet="Last"))[0] == ("a",)
    with pytest.raises(ExportFailed, match=r"'Nope\\x00'.*`sheet`.*'First', 'Zweites Blatt & mehr', 'Last'"):
        read(path, Dialect("xlsx", sheet="Nope\0"))


# Ways to write the same

STYLES = {
    "as it is": [],
    "prefix": [(r"<(/?)(?=[a-z])", r"<\1x:"), ("xmlns=", "xmlns:x=")],
    "single quotes": [(r'(\w)="([^"]*)"', r"\1='\2'")],
    "pretty": [("><", ">\r\n  <")],
    "spaces": [(r"<c ", "<c  \n"), ("</c>", "</c >")],
    "no references": [(r' r="[A-Z]+\d+"', ""), (r' r="\d+"', "")],
    "types first": [(r'<c r="(\w+)"([^>/]*)', r'<c\2 r="\1"')],
    "comments": [("<row", "<!-- <row r='2'> --><row")],
    "formulas": [("<v>", '<f t="shared" si="0">A1&lt;B1</f><v>')],
    "empty cells": [("</row>", '<c r="E1" s="0"/></row>')],
    "no dimension": [("<dimension[^>]*>", "")],
    "a wrong dimension": [('ref="A1', 'ref="F9')],
    "the other namespace": [("schemas.openxmlformats.org", "purl.oclc.org/ooxml")],
}
# Where it isn't seen whether the format of a midnight shows a clock.
WITHOUT_CLOCK = {"single quotes", "no references"}


@pytest.mark.parametrize("style", STYLES)
def test_all_ways_to_write_a_sheet_mean_the_same(tmp_path, style):
    table = [["a", "b", "c"], [1, "x < y & z", True], [0.5, "ä", dt.datetime(2026, 1, 1)], [7, "é", 8]]
    path = workbook(tmp_path / "book", table, constant_memory=True)
    clock = "" if style in WITHOUT_CLOCK else "T00:00:00"
    rows = [(1, "1", "x < y & z", "true"), (2, "0.5", "ä", f"2026-01-01{clock}"), (3, "7", "é", "8")]
    assert read(rewritten(path, *STYLES[style])) == (("a", "b", "c"), rows, [])


def test_comment_signs_in_cdata_are_text(tmp_path):
    path = workbook(tmp_path / "book", [["a"], ["x"], ["y"], ["z"]], constant_memory=True)
    changes = [("<t>x</t>", "<t><![CDATA[<!-- x]]></t>"), ("<t>y</t>", "<t><![CDATA[y -->]]></t>")]
    assert column(rewritten(path, *changes)) == ["<!-- x", "y -->", "z"]


@pytest.mark.parametrize("name", [lambda name: name.replace("/", "\\"), str.lower, str.upper])
def test_names_of_parts_with_backslashes_or_in_another_case(tmp_path, name):
    path = rewritten(workbook(tmp_path / "book", [["a"], ["x"], [dt.datetime(2026, 1, 1)]]), name=name)
    assert column(path) == ["x", "2026-01-01T00:00:00"]


# What can't be used


def test_what_is_no_workbook_is_refused(tmp_path):
    path = tmp_path / "file"
    old = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("content.xml", "<a/>")
    for content in (b"", b"a,b\n1,2\n", old, random.Random(1).randbytes(1000), other.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ExportFailed, match="workbook can't be read"):
            read(path)


def small(path):
    """A workbook of the parts alone that are needed."""
    parts = ("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", "xl/_rels/workbook.xml.rels")
    whole = workbook(path, [["a", "b"], [1, "x"], [2.5, "y"]], constant_memory=True)
    with (
        zipfile.ZipFile(whole) as old,
        zipfile.ZipFile(path.with_name("small"), "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for part in (*parts, "xl/worksheets/sheet1.xml"):
            new.writestr(part, old.read(part))
    return path.with_name("small")


def proved(path):
    """What is read of a file that is what it says; as long as it says nothing, the reader has to see that."""
    prove(path)
    return read(path)


def test_a_workbook_cut_anywhere_is_refused(tmp_path):
    path = small(tmp_path / "book")
    whole = path.read_bytes()
    assert proved(path) == (("a", "b"), [(1, "1", "x"), (2, "2.5", "y")], [])
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ExportFailed):
            proved(path)


def test_a_workbook_with_a_bit_that_is_another_is_refused_or_the_same(tmp_path):
    path = small(tmp_path / "book")
    whole, right = path.read_bytes(), proved(path)
    rng = random.Random(2)
    refused = 0
    for place in rng.sample(range(len(whole)), 30):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        try:
            assert proved(path) == right
        except ExportFailed:
            refused += 1
    assert refused > 15


DAMAGED = {
    "cut": ("</sheetData>.*", ""),
    "a cell is cut": ("</v></c></row></sheetData>", "</row></sheetData>"),
    "an end of another name": ("</v></c></row></sheetData>", "</v></x></row></sheetData>"),
    "ends in another order": ("</v></c></row></sheetData>", "</c></v></row></sheetData>"),
    "an unknown text": (r't="s"><v>\d', 't="s"><v>99'),
    "a number in CDATA": ("<v>1</v>", "<v><![CDATA[1]]></v>"),
    "a comment in a number": ("<v>1</v>", "<v>1<!-- -->2</v>"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_sheet_that_is_damaged_within_is_refused(tmp_path, damage):
    path = workbook(tmp_path / "book", [["a"], [1], ["b"]])
    with pytest.raises(ExportFailed, match="workbook can't be read"):
        read(rewritten(path, DAMAGED[damage]))


# Harm

TEXT = '<row r="{0}"><c r="A{0}" t="s"><v>1</v></c></row>'
GREEDY = {
    "a cell in the last corner": '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>',
    "cells far apart": '<row r="20000"><c r="ACA20000"><v>1</v></c></row>',
    "a text in many cells": "".join(map(TEXT.format, range(3, 20_000))),
}


# Runs a program, and writes how much memory it took, which of a child would count this process's too.
MEASURED = """
import resource, subprocess, sys
process = subprocess.run(sys.argv[2:], stdin=sys.stdin)
with open(sys.argv[1], "w") as peak:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=peak)
sys.exit(process.returncode)
"""


@pytest.mark.parametrize("greed", GREEDY)
def test_a_workbook_that_takes_much_memory_fails_its_export(tmp_path, monkeypatch, greed):
    path = workbook(tmp_path / "book", [["a"], ["x" * 32_000]])
    path = rewritten(path, ("</sheetData>", GREEDY[greed] + "</sheetData>"))
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(xlsx, "READER", (sys.executable, "-c", MEASURED, tmp_path / "peak", *xlsx.READER))
    with pytest.raises(ExportFailed, match=r"too many cells for the memory; ask for CSV.*`window`"):
        read(path)
    assert int((tmp_path / "peak").read_text()) < 240 << 10  # KiB


def test_a_bomb_is_not_unpacked(tmp_path):
    path = workbook(tmp_path / "book", [["a"]])
    path = rewritten(path, ("</sheetData>", " " * (64 << 20) + "</sheetData>"))
    with pytest.raises(ExportFailed, match=r"xl/worksheets/sheet1.xml' has 67,\d{3},\d{3} bytes"):
        read(path)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.abort()", r"died \(-6\)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"died \(-11\)"),
        ('import os; os.write(1, b\'{"warning": "half a\'); os._exit(0)', "died"),
        ("raise MemoryError", r"died \(1\)"),
        ("import time; time.sleep(60)", "no row came within 1 seconds"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "no row came within 1 seconds"),
    ],
)
def test_a_reader_that_dies_or_is_silent_fails_its_export(tmp_path, monkeypatch, capfd, program, words):
    monkeypatch.setattr(xlsx, "SILENCE", 1.0 if "no row" in words else 60.0)
    monkeypatch.setattr(xlsx, "READER", (sys.executable, "-c", program))
    path = workbook(tmp_path / "book", [["a"], [1]])
    with pytest.raises(ExportFailed, match=words):
        read(path)
    assert capfd.readouterr() == ("", "")


def test_a_reader_ends_with_its_frames(tmp_path, monkeypatch):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Process)
    path = workbook(
        tmp_path / "book", [["a"], *([random.Random(i).randbytes(300).hex()] for i in range(20_000))]
    )
    reading = frames(path, XLSX)
    next(reading)
    (process,) = started
    assert process.poll() is None
    reading.close()
    assert process.returncode == -signal.SIGKILL


def test_several_are_read_at_once_in_threads(tmp_path):
    paths = [workbook(tmp_path / f"book{i}", [["a"], *([f"{i}"] for _ in range(500))]) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(column, paths)) == [[f"{i}"] * 500 for i in range(4)]


PARENT = """
import sys
from pathlib import Path
from tap_analytics_exports.parse import Dialect, frames
for frame in frames(Path(sys.argv[1]), Dialect("xlsx")):
    print(frame.rows.height, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def parent(tmp_path):
    """A process that is in the middle of a workbook, and the number of its reader's process."""
    path = workbook(
        tmp_path / "book", [["a"], *([random.Random(i).randbytes(300).hex()] for i in range(20_000))]
    )
    pipes = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", PARENT, path], start_new_session=True, **pipes) as process:
        try:
            process.stdout.readline()
            (reader,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield process, int(reader)
        finally:
            process.kill()


def test_a_reader_dies_with_its_parent(parent):
    process, reader = parent
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{reader}").exists() and "zombie" not in Path(f"/proc/{reader}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_signals_that_a_terminal_sends_to_all_are_not_for_the_reader(parent):
    process, reader = parent
    assert os.getpgid(reader) != os.getpgid(process.pid)


# The whole tap

STEP = {
    "name": "calls",
    "workflow_id": "0d9a1f7e-3c52-4b8e-8f64-7a1b2c3d4e5f",
    "step_index": 1,
    "format": "xlsx",
}


def run(sandbox, **export):
    """A run of one day of giosg's calls, as workbooks."""
    config = sandbox.config("giosg", start_date=DAY.isoformat(), end_date=NEXT.isoformat())
    config["giosg"]["exports"] = [STEP | export]
    return run_tap(config)


def test_the_tap_reads_dates_of_cells_in_columns_that_have_a_format(sandbox):
    result = run(sandbox, columns={"timestamp": {"type": "timestamp", "format": "%m/%d/%Y %H:%M"}})
    span = {"start": DAY.isoformat(), "end": NEXT.isoformat()}
    expected = sandbox.get("expected", provider="giosg", export=f"{STEP['workflow_id']}/1", **span)
    found = [dt.datetime.fromisoformat(row["timestamp"]) for row in result.records("calls")]
    assert found == [dt.datetime.fromisoformat(row["timestamp"]) for row in expected]
    assert (result.exit_code, result.rejected) == (0, [])


def test_a_workbook_whose_checksums_are_wrong_fails_its_export_and_nothing_else(sandbox):
    fault = {"service": "giosg", "method": "POST", "times": None}
    sandbox.post("faults", [fault | {"action": {"substitute": ["PK\x01\x02(.{14}).", "PK\x01\x02\\1\x07"]}}])
    result = run(sandbox)
    assert (result.exit_code, [row["status"] for row in result.runs], result.records("calls")) == (
        3,
        ["failed"],
        [],
    )
    assert "its checksum is not that of the directory" in result.runs[0]["error"]
    assert "Traceback" not in result.stderr
