"""Files become frames of text: every row once, with its number, or said to be bad."""

import csv
import datetime as dt
import gzip
import io
import json
import random
import re
import resource
import zipfile

import polars as pl
import pytest
import xlsxwriter
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import ROW_NUMBER, Dialect, base, frames, prove, xlsx
from tap_analytics_exports.parse import csv as csv_parser
from tap_analytics_exports.parse import json as json_parser
from tap_analytics_exports.parse import workbook as workbooks

CSV = Dialect("csv")
JSON = Dialect("json")
XLSX = Dialect("xlsx")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Writes a file, again and again at the same place."""
    path = tmp_path_factory.mktemp("parse") / "file"

    def write(content):
        path.write_bytes(content)
        return path

    return write


@pytest.fixture(scope="module")
def blocks():
    """Runs a function with files read in blocks of so many bytes."""

    def run(size, function):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_parser, "BLOCK", size)
            patch.setattr(json_parser, "BLOCK", size)
            return function()

    return run


def read(path, dialect=CSV):
    """The last header, all rows as (number, fields…), and the bad ones as (number, raw).

    A row of a frame that has fewer columns than the last is given the others, as nulls.
    """
    header, rows, bad = None, [], []
    for frame in frames(path, dialect):
        header = frame.header
        assert frame.rows.columns == [*map(str, range(len(header))), ROW_NUMBER]
        assert frame.rows.schema == {
            **{str(i): pl.String for i in range(len(header))},
            ROW_NUMBER: pl.Int64,
        }
        rows += [(number, *fields) for *fields, number in frame.rows.iter_rows()]
        bad += [(row.row_number, row.raw) for row in frame.bad]
    return header, [row + (None,) * (1 + len(header) - len(row)) for row in rows], bad


def understood(records):
    """What records of CSV mean: the header, the rows as `read` gives them, and the numbers of bad ones."""
    header, *rows = records
    rows = [(number, row) for number, row in enumerate(rows, 1)]
    named = header[:-1] if len(header) > 1 and not header[-1] else header
    again = (named, [*named, ""])
    candidates = [row for _, row in rows if row not in again and len(row) in (len(named), len(named) + 1)]
    if {len(row) for row in candidates} == {2 * len(named) + 1 - len(header)} and not any(
        row[len(named) :] not in ([], [""]) for row in candidates
    ):
        width = len(candidates[0])
    else:
        width = len(header)
    good = {number: row for number, row in rows if len(row) == width and row not in again}
    if not any(row[len(named) :] not in ([], [""]) for row in good.values()):
        header = named
    return (
        tuple(header),
        [(number, *(field or None for field in row[: len(header)])) for number, row in good.items()],
        [number for number, _ in rows if number not in good],
    )


# CSV

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from(',;"\r\n \t'), max_size=12
)
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1, max_size=12)
)


def quoted(field, *, always):
    return '"' + field.replace('"', '""') + '"' if always or set(field) & set(',;\t|"\r\n') else field


@settings(deadline=None)
@given(
    table=TABLES,
    delimiter=st.sampled_from(",;\t|"),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    always=st.booleans(),
    last=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
    packed=st.booleans(),
    size=st.integers(1, 200),
)
def test_csv_comes_back_as_it_was_written(
    file, blocks, *, table, delimiter, ending, always, last, encoding, packed, size
):
    written = "".join(
        delimiter.join(quoted(field, always=always or len(row) == 1) for field in row) + ending
        for row in table
    )
    if not last:
        written = written.removesuffix(ending)
    assume(written.lstrip()[:1] not in ("<", "{", "[", "\ufeff"))
    content = written.encode(encoding)
    path = file(gzip.compress(content) if packed else content)
    dialect = Dialect("csv", encoding if encoding.endswith("le") else None, delimiter)
    header, rows, bad = blocks(size, lambda: read(path, dialect))
    assert (header, rows, [number for number, _ in bad]) == understood(table)


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.sampled_from('ab,"\r\n'), max_size=40), size=st.integers(1, 16))
@example(text='a,b\n1,5" x\n2,"\n', size=1000)
@example(text='a,b\n1,"x"y\n', size=1000)
@example(text='a,b\n1,""\n"""",2\n', size=3)
def test_any_text_is_read_as_pythons_strict_reader_reads_it(file, blocks, text, size):
    path = file(text.encode())
    try:
        records = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        if "end of data" in str(error):
            with pytest.raises(ExportFailed, match=r"never closed|header"):
                read(path)
        else:  # the block's size makes no difference to what is bad
            outcomes = []
            for each in (size, 1 << 20):
                try:
                    outcomes.append(blocks(each, lambda: read(path)))
                except ExportFailed as failed:
                    outcomes.append(str(failed))
            assert outcomes[0] == outcomes[1]
            assert isinstance(outcomes[0], str) or outcomes[0][2]
        return
    header, rows, bad = blocks(size, lambda: read(path))
    if not records:
        assert header is None
        return
    assert (header, rows, [number for number, _ in bad]) == understood(records)


def test_rows_of_another_width_are_bad_and_keep_their_number(file):
    path = file(b'a,b\r\n1,2\r\n3\r\n\r\n"4\r\n",5\r\n6,7,8\r\n9,10')
    header, rows, bad = read(path)
    assert header == ("a", "b")
    assert rows == [(1, "1", "2"), (3, "4\r\n", "5"), (5, "9", "10")]
    assert bad == [(2, "3"), (4, "6,7,8")]


def test_text_after_a_closing_quote_makes_a_bad_row_and_a_quote_within_a_plain_field_none(file):
    _, rows, bad = read(file(b'a,b\n1,"x"y\n3,5" pipe\n"q,5" ,2\n6,"\n"\n'))
    assert rows == [(2, "3", '5" pipe'), (4, "6", "\n")]
    assert bad == [(1, '1,"x"y'), (3, '"q,5" ,2')]


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_file_has_no_frame(file, content):
    assert list(frames(file(content), CSV)) == []


@pytest.mark.parametrize("content", [b"a,b", b"a,b\n", b"\n\na,b\r\n\r\n"])
def test_a_header_alone_is_a_frame(file, content):
    (frame,) = frames(file(content), CSV)
    assert frame.header == ("a", "b")
    assert frame.rows.height == 0
    assert frame.rows.columns == ["0", "1", ROW_NUMBER]


def test_a_header_may_hold_line_breaks_duplicates_and_nothing(file):
    header, rows, _ = read(file(b'"a\nb",,c,c,"say ""x"", y"\n1,2,3,4,5\n'))
    assert header == ("a\nb", "", "c", "c", 'say "x", y')
    assert rows == [(1, "1", "2", "3", "4", "5")]


def test_a_field_of_megabytes_is_read(file):
    large = 'x"\n,' * 3_000_000
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b"], ["1", large], ["2", "y"]])
    _, rows, _ = read(file(text.getvalue().encode()))
    assert rows == [(1, "1", large), (2, "2", "y")]


def test_a_record_without_end_is_refused_before_it_fills_memory(file, monkeypatch):
    monkeypatch.setattr(csv_parser, "LONGEST_RECORD", 1 << 16)
    monkeypatch.setattr(csv_parser, "BLOCK", 1 << 12)
    with pytest.raises(ExportFailed, match="longer than"):
        read(file(b'a\n"' + b"x\n" * (1 << 20)))


def test_many_short_lines_come_in_frames_of_bounded_size(file):
    heights = [frame.rows.height for frame in frames(file(b"a\n" + b"1\n" * 2_000_001), CSV)]
    assert sum(heights) == 2_000_001
    assert max(heights) <= base.FRAME_ROWS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'a,b\n1,"2\n3,4\n', "after data row 0 is never closed"),
        (b'a,b\n1,2\n3,5" x\n3,"4', "after data row 2 is never closed"),
        ("\ufeffa,b\n1,2\n".encode("utf-16-le")[:-1], "cut"),
        ("ä,b\n1,2\n".encode("latin-1"), "`encoding`"),
        ("a,b\n1,2\n".encode("utf-16-le"), "`encoding`"),
        (gzip.compress(b"a\n1\n", mtime=0)[:-3], "cut"),
        (gzip.compress(b"a\n" + random.Random(1).randbytes(1000), mtime=0)[:-200], "cut"),
        (gzip.compress(b"a\n1\n", mtime=0) + b"\x1f\x8b is no member", "damaged"),
        (gzip.compress(b"a\n1\n", mtime=0)[:-8] + b"12345678", "damaged"),
    ],
)
def test_a_csv_file_that_cannot_be_used_says_why(file, content, words):
    with pytest.raises(ExportFailed, match=words):
        read(file(content))


def test_a_nul_character_makes_a_bad_row(file):
    _, rows, bad = read(file(b"a,b\n1,x\0\n2,y\n"))
    assert rows == [(2, "2", "y")]
    assert bad == [(1, "1,x\0")]


def test_other_encodings_and_members_of_gzip(file):
    text = "näme;größe\nÄ;€\n"
    parts = [gzip.compress(part.encode("cp1252")) for part in (text[:7], text[7:])]
    header, rows, _ = read(file(b"".join(parts)), Dialect("csv", "cp1252", ";"))
    assert header == ("näme", "größe")
    assert rows == [(1, "Ä", "€")]


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        (Dialect("csv", "rot13"), "rot13"),
        (Dialect("csv", "nope"), "nope"),
        (Dialect("csv", None, "§"), "ASCII"),
    ],
)
def test_a_dialect_that_cannot_be_names_its_setting(file, dialect, words):
    with pytest.raises(ExportFailed, match=words):
        read(file(b"a\n"), dialect)


# JSON

SCALARS = st.none() | st.booleans() | st.integers() | TEXT
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    objects=st.lists(st.dictionaries(st.sampled_from(["a", "b", "ä", ""]), VALUES, max_size=4) | SCALARS),
    ascii_=st.booleans(),
    indent=st.sampled_from([None, 2]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    size=st.integers(1, 100),
)
def test_json_comes_back_as_it_was_written(file, blocks, *, objects, ascii_, indent, encoding, size):
    path = file(json.dumps(objects, ensure_ascii=ascii_, indent=indent).encode(encoding))
    header, rows, bad = blocks(size, lambda: read(path, JSON))
    expected = [(number, each) for number, each in enumerate(objects, 1) if isinstance(each, dict)]
    keys = list(dict.fromkeys(key for _, each in expected for key in each))
    assert header == tuple(keys)
    assert [number for number, *_ in rows] == [number for number, _ in expected]
    assert [number for number, _ in bad] == [
        number for number, each in enumerate(objects, 1) if not isinstance(each, dict)
    ]
    for (_, *texts), (_, each) in zip(rows, expected, strict=True):
        for key, text in zip(keys, texts, strict=True):
            value = each.get(key)
            if isinstance(value, str):
                assert text == (value or None)
            elif isinstance(value, dict | list):
                assert json.loads(text) == value
            elif value is None:
                assert text is None
            else:
                assert text == json.dumps(value)
    assert prove(path) == "closing bracket"


def test_json_numbers_keep_their_digits(file):
    content = (
        b'[{"a": 1.10, "b": 12345678901234567890123, "c": 1e5, "d": {"x": [1.10, 12345678901234567890123]}}]'
    )
    _, rows, _ = read(file(content), JSON)
    assert rows == [(1, "1.10", "12345678901234567890123", "1e5", '{"x":[1.10,12345678901234567890123]}')]


def test_keys_that_come_later_widen_the_header(file, monkeypatch):
    monkeypatch.setattr(json_parser, "FRAME_CHARACTERS", 5)
    first, second, third = frames(file(b'[{"a":1},{"b":2},{"a":3}]'), JSON)
    assert (first.header, second.header, third.header) == (("a",), ("a", "b"), ("a", "b"))
    assert second.rows.row(0) == (None, "2", 2)


@pytest.mark.parametrize("content", [b"[]", b" [ \n] ", b"\xef\xbb\xbf[]"])
def test_an_empty_array_is_a_frame_without_columns(file, content):
    (frame,) = frames(file(content), JSON)
    assert frame.header == ()
    assert frame.rows.columns == [ROW_NUMBER]
    assert frame.rows.height == 0


def test_json_text_that_no_database_takes_makes_a_bad_row(file):
    values = [rb'"\ud83d"', rb'"\u0000"', rb'"\ud83d\ude00"', rb'["\udc00"]', b"[NaN]"]
    content = b"[" + b",".join(b'{"a":%b}' % value for value in values) + b"]"
    _, rows, bad = read(file(content), JSON)
    assert rows == [(3, "😀")]
    assert [number for number, _ in bad] == [1, 2, 4, 5]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"1", b"a,b\n", b'[{"a":1}', b'[{"a":1},', b'[{"a":1},]', b'[{"a":"x', b'[{"a":tr', b"[",
        b"[]]", b"[] []", b'[{"a":1} {"a":2}]', b'[{"a":01}]', b'[{"a":1\xff}]', b"[" * 100_000,
        b'[{"a":"\n"}]', b"[nope]", b'[{"a":1', b'[{"a":"\\u12',
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_json_file_that_cannot_be_used_says_so(file, blocks, content, size):
    with pytest.raises(ExportFailed, match="the file"):
        blocks(size, lambda: read(file(content), JSON))


@given(st.data())
@settings(deadline=None)
def test_a_json_document_cut_anywhere_is_refused(file, blocks, data):
    whole = b'[{"a":"\\u00e4\\n","b":[true,{"x":null}]}, {"b":-1.5e10} ]'
    path = file(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ExportFailed):
        blocks(data.draw(st.integers(1, 20)), lambda: read(path, JSON))


# XLSX


def workbook(path, rows, formats=None):
    with xlsxwriter.Workbook(path) as book:
        book.add_worksheet("First").write_row(0, 0, ["x"])
        page = book.add_worksheet("Rows")
        for number, row in enumerate(rows):
            for position, cell in enumerate(row):
                if formats and type(cell) in formats:
                    page.write_datetime(
                        number, position, cell, book.add_format({"num_format": formats[type(cell)]})
                    )
                elif cell is not None:
                    page.write(number, position, cell)
    return path


ROWS = Dialect("xlsx", sheet="Rows")


def test_cells_become_text(tmp_path):
    day = dt.date(2026, 1, 2)
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678000)
    span = dt.timedelta(hours=30, minutes=1)
    formats = {type(day): "yyyy-mm-dd", type(moment): "yyyy-mm-dd hh:mm:ss.000", type(span): "[h]:mm:ss"}
    cells = [12, 1.5, 0.1 + 0.2, -7, True, "007", "", "ä\n,", day, moment, span, 1e-7, 2**53 - 1]
    path = workbook(tmp_path / "book", [[f"c{i}" for i in range(len(cells))], cells], formats)
    _, rows, bad = read(path, ROWS)
    assert bad == []
    assert rows == [
        (1, "12", "1.5", "0.3", "-7", "true", "007", None, "ä\n,", "2026-01-02", "2026-01-02T03:04:05.678000",
         "30:01:00", "1e-7", "9007199254740991"),
    ]  # fmt: skip


def test_rows_without_cells_are_left_out_and_those_that_are_too_long_are_bad(tmp_path):
    table = [[], ["a", None, "c", None], [], ["1", "2"], [None], ["3", "4", "5", "6"], [None, None, "7"]]
    header, rows, bad = read(workbook(tmp_path / "book", table), ROWS)
    assert header == ("a", "", "c")
    assert rows == [(1, "1", "2", None), (3, None, None, "7")]
    assert bad == [(2, "3,4,5,6")]


def test_a_header_without_rows_and_a_sheet_without_anything(tmp_path):
    (frame,) = frames(workbook(tmp_path / "book", [["a", "b"]]), ROWS)
    assert (frame.header, frame.rows.height) == (("a", "b"), 0)
    assert list(frames(workbook(tmp_path / "book", []), ROWS)) == []


def test_many_rows_come_in_several_frames_in_their_order(tmp_path):
    path = workbook(tmp_path / "book", [["n", "t"], *([i, f"t{i}"] for i in range(20_000))])
    several = list(frames(path, ROWS))
    assert len(several) > 2
    assert several[0].rows.height < 1000
    rows = pl.concat(frame.rows for frame in several)
    assert rows[ROW_NUMBER].to_list() == list(range(1, 20_001))
    assert rows["1"].to_list() == [f"t{i}" for i in range(20_000)]


def test_the_first_sheet_is_the_default_and_an_unknown_one_is_refused_with_those_there_are(tmp_path):
    path = workbook(tmp_path / "book", [["a"]])
    assert read(path, XLSX)[0] == ("x",)
    with pytest.raises(ExportFailed, match=r"'Nope'.*'First', 'Rows'"):
        read(path, Dialect("xlsx", sheet="Nope"))


def test_a_workbook_that_is_none_or_damaged_is_refused(tmp_path, file):
    whole = workbook(tmp_path / "book", [["a"], [1]]).read_bytes()
    rng = random.Random(1)
    for content in (b"", b"a,b\n1,2\n", whole[:-100], whole[:500], rng.randbytes(1000)):
        with pytest.raises(ExportFailed, match="workbook can't be read"):
            read(file(content), XLSX)


def rewritten(path, changes, encoding="utf-8"):
    """A workbook whose sheets are changed by pairs of a pattern and what is in its place."""
    new = path.with_name("rewritten")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as book:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("sheet2.xml"):
                text = content.decode()
                for pattern, replacement in changes:
                    text, count = re.subn(pattern, replacement, text)
                    assert count
                content = text.encode(encoding, "surrogateescape")
            book.writestr(name, content)
    return new


STYLES = {
    "as it is": [],
    "a prefix": [(r"<(/?)(?=[a-z])", r"<\1x:"), ("xmlns=", "xmlns:x=")],
    "single quotes": [(r'(\w)="([^"]*)"', r"\1='\2'")],
    "pretty": [("><", ">\r\n  <")],
    "spaces": [(r"<c ", "<c  \n"), ("</c>", "</c >")],
    "no references": [(r' r="[A-Z]+\d+"', ""), (r' r="\d+"', "")],
    "some references": [(r'<c r="[BC]\d+"', "<c")],
    "types first": [(r'<c r="(\w+)"([^>/]*)', r'<c\2 r="\1"')],
    "comments": [("<v>", "<!-- <v>0</v></c></row> --><v>"), ("<row", "<!----><row")],
    "CDATA": [(r"<v>(\w+)</v>", r"<v><![CDATA[\1]]></v>")],
    "long references": [(r'r="([A-Z])(\d+)"', r'r="\g<1>0000000000000000000000000000000000000000\2"')],
    "formulas": [("<v>", '<f t="shared" si="0">A1&lt;B1</f><v>')],
    "empty formulas": [("<v>", "<f/><v>")],
    "empty cells": [("</row>", '<c r="E1" s="0"/></row>')],
    "no dimension": [("<dimension[^>]*>", "")],
    "a wrong dimension": [('ref="A1', 'ref="F9')],
    "the other namespace": [("schemas.openxmlformats.org", "purl.oclc.org/ooxml")],
}


@pytest.mark.parametrize("style", STYLES)
def test_all_ways_to_write_a_sheet_mean_the_same(tmp_path, style):
    table = [["a", "b", "c", "d"], [1, "x < y & z", True, 2.5], ["", "ä", 0.5], [None, "s", None, "é"], [7]]
    path = workbook(tmp_path / "book", [table[0], *(row for row in table[1:])])
    if "references" in style:  # without which cells follow one another
        table = [[cell or "-" for cell in row] for row in table]
        path = workbook(tmp_path / "book", table)
    header, rows, bad = read(rewritten(path, STYLES[style]), ROWS)
    plain = read(path, ROWS)
    assert (header, rows, bad) == plain
    assert rows[0] == (1, "1", "x < y & z", "true", "2.5")


def test_columns_are_those_of_the_references(tmp_path):
    width = 27 * 26 + 30  # beyond ZZ
    path = workbook(tmp_path / "book", [[f"c{i}" for i in range(width)], [i or None for i in range(width)]])
    _, rows, bad = read(path, ROWS)
    assert (rows, bad) == ([(1, None, *map(str, range(1, width)))], [])


def test_a_sheet_in_utf_16(tmp_path):
    path = workbook(tmp_path / "book", [["a"], ["ä"], [2]])
    changes = [('encoding="UTF-8"', 'encoding="UTF-16"')]
    assert read(rewritten(path, changes, "utf-16"), ROWS) == read(path, ROWS)


def test_texts_within_their_cells_and_with_formats_of_their_own(tmp_path):
    path = workbook(tmp_path / "book", [["a", "b", "c"], [1, 2, 3]])
    inline = (
        r'<c r="A2" t="inlineStr"><is><t xml:space="preserve"> a &gt; b > c</t></is></c>'
        r'<c r="B2" t="inlineStr"><is><r><rPr><color rgb="1"/></rPr><t>one </t></r><r><t>two</t></r>'
        r"<rPh><t>no</t></rPh></is></c>"
        r'<c r="C2" t="str"><f>A1</f><v>&#x41;_x0042__x005F_x0043_&amp;#65;</v></c>'
    )
    _, rows, _ = read(rewritten(path, [(r'<c r="A2">.*</c>(?=</row></sheetData>)', inline)]), ROWS)
    assert rows == [(1, " a > b > c", "one two", "AB_x0043_&#65;")]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
    st.datetimes(dt.datetime(1900, 3, 1), dt.datetime(9999, 12, 31)),
    TEXTS,
)


def meant(cell):
    """What a cell of a workbook is as text; a number as the double that it is there."""
    match cell:
        case bool():
            return str(cell).lower()
        case int() | float():
            return float(f"{cell:.16G}")
        case dt.datetime():
            day = dt.timedelta(days=1)
            days = float(f"{(cell - dt.datetime(1899, 12, 30)) / day:.16G}")
            moment = dt.datetime(1899, 12, 30) + dt.timedelta(milliseconds=round(days * 86_400_000))
            return moment.isoformat().removesuffix("T00:00:00") if days.is_integer() else moment.isoformat()
    return cell or None


@settings(deadline=None)
@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=12), st.booleans(), st.integers(20, 400))
def test_any_cells_come_as_they_are(tmp_path_factory, table, inline, block):
    path = tmp_path_factory.mktemp("books") / "book"
    options = {"constant_memory": inline, "default_date_format": "d.m.yyyy h:mm", "strings_to_urls": False}
    with xlsxwriter.Workbook(path, options) as book:
        page = book.add_worksheet()
        page.write_row(0, 0, ["a", "b", "c"])
        for number, row in enumerate(table, 1):
            for position, cell in enumerate(row):
                (page.write_string if isinstance(cell, str) else page.write)(number, position, cell)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbooks, "FIRST_BLOCK", block)
        patch.setattr(workbooks, "BLOCK", block)
        _, rows, bad = read(path, XLSX)
    expected = [[meant(cell) for cell in row] for row in table]
    expected = [row for row in expected if any(cell is not None for cell in row)]
    found = [
        [float(text) if isinstance(cell, float) else text for text, cell in zip(row[1:], cells, strict=True)]
        for row, cells in zip(rows, expected, strict=True)
    ]
    assert (found, bad) == (expected, [])
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))


@settings(deadline=None)
@given(st.floats(-1e308, 1e308), st.integers(1, 17))
def test_a_whole_number_that_may_be_rounded_shows_it(value, digits):
    (text,) = xlsx._numbers(pl.Series([f"{value:.{digits}G}"]))
    assert float(text) == float(f"{value:.{digits}G}")
    assert ("e" in text and "e-" not in text) == (abs(float(text)) >= 2**53)


def test_days_before_march_1900_and_since_1904(tmp_path):
    assert xlsx._moments(pl.Series(["0.25", "1", "59", "61", "-1", "2958466", "x"]), 0).to_list() == [
        "06:00:00", "1900-01-01", "1900-02-28", "1900-03-01", "-1", "2958466", "x",
    ]  # fmt: skip
    assert xlsx._moments(pl.Series(["0", "1.5"]), xlsx.FROM_1904).to_list() == [
        "1904-01-01",
        "1904-01-02T12:00:00",
    ]


def test_a_cell_in_the_last_corner_is_a_bad_row_and_takes_no_memory(tmp_path):
    path = workbook(tmp_path / "book", [["a"], *([i] for i in range(30))])
    far = '</row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
    _, rows, bad = read(rewritten(path, [("</row></sheetData>", far)]), ROWS)
    assert [row[1] for row in rows] == [str(i) for i in range(30)]
    assert [number for number, _ in bad] == [31]


DAMAGED = {
    "cut": ("</sheetData>", ""),
    "a cell is cut": ("</v></c></row></sheetData>", "</row></sheetData>"),
    "text between cells": ("</c></row></sheetData>", "</c>text</row></sheetData>"),
    "text before rows": ("<sheetData>", "<sheetData>text"),
    "text in a row": ("(<row[^>]*>)", r"\1text"),
    "text in a cell": ("(<c[^>]*>)", r"\1text"),
    "attributes that touch": ('r="A2"', 'r="A2"t="b"'),
    "an end of another name": ("</v></c></row></sheetData>", "</v></x></row></sheetData>"),
    "ends in another order": ("</v></c></row></sheetData>", "</c></v></row></sheetData>"),
    "a text in no cell": ("<sheetData>", "<sheetData><row><v>1</v></row>"),
    "a column that is none": ('r="A2"', 'r="a2"'),
    "a NUL": ("<v>", "<v>\0"),
    "no rows": ("<sheetData>.*</sheetData>", ""),
    "an unknown text": (r't="s"><v>\d', 't="s"><v>99'),
    "no text": (r't="s"><v>\d', 't="s"><v>x'),
    "a style that is none": (r'<c r="A2"', '<c r="A2" s="x"'),
    "not UTF-8": ("<v>", "<v>\udc80"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_sheet_that_is_damaged_within_is_refused(tmp_path, damage):
    path = workbook(tmp_path / "book", [["a"], [1], ["b"]])
    with pytest.raises(ExportFailed, match="workbook can't be read"):
        read(rewritten(path, [DAMAGED[damage]]), ROWS)


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("LARGEST_PART", 100, "larger than"),
        ("LARGEST_TABLE", 100, "table of texts"),
        ("LONGEST_RECORD", 99, "row"),
    ],
)
def test_a_workbook_may_be_too_large(tmp_path, monkeypatch, limit, value, words):
    path = workbook(tmp_path / "book", [["a"], *([f"text {i}"] for i in range(99))])
    for name in ("BLOCK", "FIRST_BLOCK"):
        monkeypatch.setattr(workbooks, name, 10)
    monkeypatch.setattr(workbooks, limit, value)
    with pytest.raises(ExportFailed, match=words):
        read(path, ROWS)


# Proofs


def test_what_proves_a_file_whole(tmp_path, file):
    book = workbook(tmp_path / "book", [["a"]])
    assert prove(book) == "ZIP directory"
    assert prove(file(gzip.compress(b"a") + gzip.compress(b"b"))) == "gzip trailer"
    assert prove(file(b' [ {"a": [1]} ] \n')) == "closing bracket"
    for content in (b"", b"a,b\n1,2\n", b"[id],name\n1,2\n", b"PK", b"\xff\xff"):
        assert prove(file(content)) is None


def test_a_cut_is_recognised_wherever_it_is(tmp_path, file):
    book = workbook(tmp_path / "book", [["a"], [1]]).read_bytes()
    for whole in (book, gzip.compress(random.Random(1).randbytes(500)), b'[{"a":1},{"a":"b"}]'):
        for end in {*range(4, len(whole) - 1, max(len(whole) // 50, 1)), len(whole) - 1}:
            path = file(whole[:end])
            with pytest.raises(ExportFailed, match=r"cut|damaged"):
                prove(path)


# Memory


def test_memory_does_not_grow_with_the_file(file):
    row = b"some text,12345,2026-01-01T00:00:00Z,1.5\n"
    path = file(gzip.compress(b"a,b,c,d\n" + row * 1_000_000, compresslevel=1))
    reading = frames(path, CSV)
    for _ in range(3):
        next(reading)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = sum(frame.rows.height for frame in reading)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert rows > 500_000
    assert after - before < 30 << 10  # KiB
