"""Files as vendors send them, and as anybody may: read right, or refused by name, in bounded memory."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_analytics_exports.columns.names import Columns
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import (
    Dialect,
    base,
    ends_with_line_break,
    frames,
    proof,
    prove,
    unpack,
)
from tap_analytics_exports.parse import csv as csv_parser
from tap_analytics_exports.parse import json as json_parser
from tap_analytics_exports.settings import Export

CASES = Path(__file__).parent / "cases"
CSV = Dialect("csv")
JSON = Dialect("json")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Writes a file, again and again at the same place."""
    path = tmp_path_factory.mktemp("refusals") / "file"

    def write(content):
        path.write_bytes(content)
        return path

    return write


def read(path, dialect=CSV):
    """The last header, all rows as (number, fields…), and the bad ones as number to (raw, reason)."""
    header, rows, bad = None, [], {}
    for frame in frames(path, dialect):
        header = frame.header
        rows += [(number, *fields) for *fields, number in frame.rows.iter_rows()]
        bad |= {row.row_number: (row.raw, row.reason) for row in frame.bad}
    return header, rows, bad


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


# The cases


@pytest.mark.parametrize(
    ("name", "settings", "header", "rows"),
    [
        ("delimiter-at-the-end.csv", {}, ("id", "name"), [("1", "Ann"), ("2", "Bo")]),
        ("sep-line.csv", {}, ("id", "name", "talk"), [("1", "Ann", "3"), ("2", "Bo", "4")]),
        ("title-rows.csv", {"skip_rows": 2}, ("id", "name", "talk"), [("1", "Ann", "3"), ("2", "Bo", "4")]),
        ("csv-in-zip.zip", {}, ("id", "name"), [("1", "a"), ("2", "b")]),
        ("behind-the-gzip.csv.gz", {}, ("TransactionId", "Path"), [("1", "a")]),
        (
            "unquoted.tsv",
            {"delimiter": "\t", "quote": ""},
            ("id", "title", "n"),
            [("1", '"Deluxe mug', "5"), ("2", "pen", "6"), ("3", 'mug 5"', "7"), ("4", "cup", "8")],
        ),
    ],
)
def test_a_case_is_read_right(name, settings, header, rows):
    found = read(CASES / name, Dialect("csv", **settings))
    assert found == (header, [(number, *row) for number, row in enumerate(rows, 1)], {})


def test_a_bad_byte_is_one_bad_row_that_names_row_and_byte():
    _, rows, bad = read(CASES / "cut-letter.csv")
    assert rows == [(1, "1", "ok"), (3, "3", "fine")]
    assert list(bad) == [2]
    raw, reason = bad[2]
    assert raw == r"2,caf\xc3"
    assert "0xC3 at index 5 of the row" in reason


def test_a_row_that_is_the_header_again_is_a_bad_one():
    _, rows, bad = read(CASES / "pages.csv")
    assert rows == [(1, "1", "a"), (3, "2", "b"), (5, "3", "c")]
    assert {number: reason for number, (_, reason) in bad.items()} == dict.fromkeys(
        [2, 4], "the header again"
    )


def test_bytes_behind_a_gzip_stream_are_warned_of(caplog):
    read(CASES / "behind-the-gzip.csv.gz")
    assert "2 bytes behind" in caplog.text
    assert prove(CASES / "behind-the-gzip.csv.gz") == "gzip trailer"


# Before the header


@pytest.mark.parametrize("quote", ['"', ""])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_to_skip_are_those_of_the_file_whatever_is_in_them(file, monkeypatch, quote, end):
    monkeypatch.setattr(csv_parser, "BLOCK", 3)
    text = end.join(['\ufeffReport "daily', "", "x" * 50, "", "a,b", "1,2", ""])
    assert read(file(text.encode()), Dialect("csv", skip_rows=3, quote=quote)) == (
        ("a", "b"),
        [(1, "1", "2")],
        {},
    )


def test_a_file_with_fewer_lines_than_are_skipped_is_no_empty_one(file):
    with pytest.raises(ExportFailed, match="`skip_rows`"):
        read(file(b"no data\n"), Dialect("csv", skip_rows=2))
    assert read(file(b""), Dialect("csv", skip_rows=2)) == (None, [], {})


@pytest.mark.parametrize(
    ("content", "settings", "header"),
    [
        ("sep=;\na;b,c\n", {}, ("a", "b,c")),
        ("sep=;\na;b,c\n", {"delimiter": ","}, ("a;b", "c")),
        ('"sep=\t"\r\na\tb\n', {}, ("a", "b")),
        ("SEP=|\ra|b\r", {"quote": ""}, ("a", "b")),
        ("Report\nsep=;\na;b\n", {"skip_rows": 1}, ("a", "b")),
        ("sep=;\nReport\na;b\n", {"skip_rows": 2}, ("a", "b")),
        ("sep=x,b\n", {}, ("sep=x", "b")),
    ],
)
def test_a_line_that_says_the_delimiter_is_taken_off(file, content, settings, header):
    assert read(file(content.encode()), Dialect("csv", **settings))[0] == header


def test_a_delimiter_that_cannot_be_one_is_refused(file):
    with pytest.raises(ExportFailed, match="`delimiter`"):
        read(file("sep=§\na§b\n".encode()))


# Delimiters at the end


@pytest.mark.parametrize(
    ("text", "header", "rows", "bad"),
    [
        ("a,b\n1,2,\n3,4,\n", ("a", "b"), [(1, "1", "2"), (2, "3", "4")], []),
        ("a,b,\n1,2\n3,4\n", ("a", "b"), [(1, "1", "2"), (2, "3", "4")], []),
        ("a,b,\n1,2,\n3,4,\n", ("a", "b"), [(1, "1", "2"), (2, "3", "4")], []),
        ("a,b\n1,2,\n3,4\n", ("a", "b"), [(2, "3", "4")], [1]),
        ("a,b\n1,2\n3,4,\n", ("a", "b"), [(1, "1", "2")], [2]),
        ("a,b\n1,2,\n3,4,x\n5,6,\n", ("a", "b"), [], [1, 2, 3]),
        ("a,b,\n1,2\n3,4,x\n", ("a", "b", ""), [(2, "3", "4", "x")], [1]),
        ("a,b\n1,2,\na,b\n3,4,\n5\n", ("a", "b"), [(1, "1", "2"), (3, "3", "4")], [2, 4]),
        ("a\n1,\n2,\n", ("a",), [(1, "1"), (2, "2")], []),
    ],
)
def test_a_delimiter_at_the_end_of_all_rows_or_of_the_header_alone_is_no_field(file, text, header, rows, bad):
    for size in (4, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_parser, "BLOCK", size)
            found = read(file(text.encode()))
        assert (found[0], found[1], list(found[2])) == (header, rows, bad)


# Encodings


@pytest.mark.parametrize(
    "encoding", ["utf-8", "ascii", "cp1252", "utf-16", "utf-16-be", "utf-32", "shift_jis"]
)
@pytest.mark.parametrize("size", [5, 1 << 20])
def test_bytes_that_are_not_of_the_encoding_are_bad_rows(file, monkeypatch, encoding, size):
    monkeypatch.setattr(csv_parser, "BLOCK", size)
    wrong = {
        "utf-8": b"\xe9",
        "ascii": "é".encode(),  # which is UTF-8, but that isn't what was said
        "cp1252": b"\x81",
        "utf-16": b"\x00\xdc",
        "utf-16-be": b"\xdc\x00",
        "utf-32": b"\x00\x00\x11\x00",
        "shift_jis": b"\xff",
    }[encoding]
    start = "".encode(encoding)
    before, after, end = (
        text.encode(encoding)[len(start) :]
        for text in ("a,b\n1,x\n2,", "y\n3,\ufeff'\n" if "utf" in encoding else "y\n3,z\n", "4,z")
    )
    _, rows, bad = read(file(start + before + wrong + after + end), Dialect("csv", encoding))
    assert [row[0] for row in rows] == [1, 3, 4]
    assert rows[-1] == (4, "4", "z")
    assert rows[1][2] == ("\ufeff'" if "utf" in encoding else "z")
    assert list(bad) == [2]
    raw, reason = bad[2]
    assert raw == "2," + "".join(f"\\x{byte:02x}" for byte in wrong) + "y"
    index = len("2,".encode(encoding)) - len(start)
    assert f"0x{wrong[0]:02X} at index {index} " in reason


def test_text_of_two_bytes_a_character_that_ends_in_the_middle_of_one_is_cut(file):
    for text in ("a,b\n1,2\n", "a,b\n1,😀"):
        content = codecs.BOM_UTF16_LE + text.encode("utf-16-le")
        with pytest.raises(ExportFailed, match="cut"):
            read(file(content[:-1]))
    with pytest.raises(ExportFailed, match="cut"):
        read(file(content[:-2]))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_wins_over_the_encoding(file, encoding):
    content = "ä,b\n1,€\n".encode(encoding)
    assert read(file(content), Dialect("csv", "latin-1")) == (("ä", "b"), [(1, "1", "€")], {})


@pytest.mark.parametrize("size", [1, 3, 8, 1 << 20])
def test_a_mark_of_byte_order_within_a_file_is_data(file, monkeypatch, size):
    monkeypatch.setattr(csv_parser, "BLOCK", size)
    monkeypatch.setattr(csv_parser, "LEAST_BLOCK", 1)
    text = "a,b\n\ufeff1,2\n\ufeff,\ufeff\n3,4\n"
    _, rows, bad = read(file(text.encode("utf-8-sig")))
    assert (rows, bad) == ([(1, "\ufeff1", "2"), (2, "\ufeff", "\ufeff"), (3, "3", "4")], {})


# What is no such file

PARQUET = io.BytesIO()
pl.DataFrame({"a": [1]}).write_parquet(PARQUET)
ARROW = io.BytesIO()
pl.DataFrame({"a": [1]}).write_ipc(ARROW)
AVRO = io.BytesIO()
pl.DataFrame({"a": [1]}).write_avro(AVRO)

OTHERS = [
    (b"%PDF-1.7\n", "PDF"),
    (PARQUET.getvalue(), "Parquet"),
    (ARROW.getvalue(), "Arrow"),
    (AVRO.getvalue(), "Avro"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff\xe0", "image"),
    (b"GIF89a", "image"),
    (b"7z\xbc\xaf\x27\x1c\0\4", "7z"),
    (bz2.compress(b"a,b\n"), "bzip2"),
    (lzma.compress(b"a,b\n"), "xz"),
    (b"\x28\xb5\x2f\xfd\x04\x00", "Zstandard"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel"),
    (b"SQLite format 3\0", "SQLite"),
    (b"ORC\x08", "ORC"),
    (b"<!DOCTYPE html>\n<html>", "web page.*DOCTYPE"),
    (b"\xef\xbb\xbf \r\n<?xml", "XML"),
    ("<html>".encode("utf-16"), "web page"),
    ("a,b\n1,2\n".encode("utf-16-le"), "utf-16-le.*`encoding`"),
    ("a,b\n1,2\n".encode("utf-16-be"), "utf-16-be.*`encoding`"),
    ("a,b\n1,2\n".encode("utf-32-le"), "utf-32-le.*`encoding`"),
    (gzip.compress(gzip.compress(b"a,b\n", mtime=0), mtime=0), "gzip"),
    (zipped(a="x", b="y"), "2 members.*'a', 'b'"),
    (zipped(), "0 members"),
    (zipped(a=zipped(b="a,b\n")), "ZIP"),
    (gzip.compress(b"<html>", mtime=0), "web page"),
]


@pytest.mark.parametrize(("content", "words"), OTHERS)
@pytest.mark.parametrize("dialect", [CSV, JSON], ids=["csv", "json"])
def test_another_kind_of_file_is_named(file, content, words, dialect):
    with pytest.raises(ExportFailed, match=f"(?s){words}"):
        read(file(content), dialect)


@pytest.mark.parametrize("content", [content for content, _ in OTHERS[:17]] + [b"a,b\n1,2\n", b"", b"[]"])
def test_what_is_no_workbook_is_named(file, content):
    with pytest.raises(ExportFailed, match="no XLSX file but"):
        read(file(content), Dialect("xlsx"))


def test_an_archive_that_is_no_workbook_says_what_is_in_it(file):
    with pytest.raises(ExportFailed, match=r"'a\.csv'"):
        read(file(zipped(**{"a.csv": "a,b\n"})), Dialect("xlsx"))


@pytest.mark.parametrize("content", [b'{"error": "no"}', b' [{"a": 1}]', b"[]"])
def test_json_in_place_of_csv_is_shown(file, content):
    with pytest.raises(ExportFailed, match="JSON"):
        read(file(content))


@pytest.mark.parametrize(
    ("content", "words"), [(b'{"a":1}\n{"a":2}\n', "lines"), (b"id,a\n1,2\n", "id,a"), (b"null", "null")]
)
def test_other_text_in_place_of_a_json_array_is_shown(file, content, words):
    with pytest.raises(ExportFailed, match=words):
        read(file(content), JSON)


@pytest.mark.parametrize("header", ["PK,b", "PAR1,b", "ORC,b", "BZh1,b", "[id],b", "Obj,b", "MM,II"])
def test_a_header_that_begins_like_another_kind_of_file_is_a_header(file, header):
    assert read(file(f"{header}\n1,2\n".encode()))[0] == tuple(header.split(","))


def test_the_delimiter_that_would_part_a_header():
    assert base.other_delimiter("id;name;talk", ",") == ";"
    assert base.other_delimiter('id;"a,b,c";talk', "|") == ";"
    assert base.other_delimiter("id\tname\tage, years", ";") == "\t"
    assert base.other_delimiter("id", ",") is None


# Packed files


def test_a_zip_of_one_member_is_unpacked(file):
    objects = b'[{"a":1}]'
    assert read(file(zipped(**{"folder/": "", "folder/x.json": objects})), JSON)[1] == [(1, "1")]
    assert read(file(zipped(x=gzip.compress(b"a\n1\n"))))[1] == [(1, "1")]


def test_a_member_that_cannot_be_read_says_why(file):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x", "a\n1\n")
    with pytest.raises(ExportFailed, match="method 14"):
        read(file(content.getvalue()))
    secret = bytearray(zipped(x="a\n1\n"))
    secret[secret.index(b"PK\1\2") + 8] |= 1
    for use in (read, prove):
        with pytest.raises(ExportFailed, match="encrypted"):
            use(file(bytes(secret)))


def test_a_member_of_a_zip_need_not_have_a_name(file):
    content = zipped(x="a\n1\n").replace(b"xPK\5\6", b"PK\5\6")
    directory = content.index(b"PK\1\2")
    nameless = content[: directory + 28] + b"\0\0" + content[directory + 30 :]
    nameless = nameless[:-10] + (46).to_bytes(4, "little") + nameless[-6:]
    assert prove(file(nameless)) == "ZIP directory"


@pytest.mark.parametrize("padding", [b"", bytes(1000), bytes(100_000)])
def test_members_of_gzip_follow_one_another(file, padding):
    parts = [b"a\n1\n", b"2\n", b"", b"3\n"]
    path = file(b"".join(gzip.compress(part) + padding for part in parts))
    assert [row[1] for row in read(path)[1]] == ["1", "2", "3"]
    assert prove(path) == "gzip trailer"


def test_a_bit_that_has_changed_is_found(file):
    table = b"id,name\n" + b"".join(b"%d,name %d\n" % (i, i * i) for i in range(20))
    for whole, first in ((gzip.compress(table, mtime=0), 10), (zipped(x=table), 31)):
        for place in range(first, whole.find(b"PK\1\2") if first == 31 else len(whole)):
            changed = bytearray(whole)
            changed[place] ^= 4
            path = file(bytes(changed))
            with pytest.raises(ExportFailed, match=r"cut|damaged"):
                prove(path)
            with pytest.raises(ExportFailed, match=r"cut|damaged"):
                read(path)


def test_a_directory_of_zip_that_is_huge_is_refused(file, monkeypatch):
    path = file(zipped(**{f"member {i}": "" for i in range(3000)}))
    monkeypatch.setattr(unpack, "LARGEST_DIRECTORY", 100_000)
    for use in (read, prove):
        with pytest.raises(ExportFailed, match="directory"):
            use(path)


def test_an_archive_that_would_be_huge_unpacked_is_refused(file, monkeypatch):
    monkeypatch.setattr(proof, "LARGEST_CONTENT", 1 << 20)
    with pytest.raises(ExportFailed, match="unpacked"):
        prove(file(zipped(a=bytes(1 << 20), b="x")))


# Cuts

WHOLE = {
    "csv.gz": gzip.compress(b"a,b\n" + bytes(range(97, 120)) * 9, mtime=0),
    "JSON": '[{"a": "ä\\u00e4", "b": [1, {"c": null}]}, {"a": 2.5}]'.encode(),
    "JSON in UTF-16": '[{"a": "ä"}, {"a": 2.5}]'.encode("utf-16"),
    "JSON in latin-1": '[{"a": "ä"}]'.encode("latin-1"),
    "ZIP": zipped(x=b"a,b\n1,2\n"),
    "ZIP of two": zipped(x=b"a,b\n1,2\n", y=bytes(500)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_no_cut_is_proved_whole(file, kind):
    whole = WHOLE[kind]
    encoding = "latin-1" if "latin" in kind else None
    assert prove(file(whole), encoding)
    for end in range(len(whole)):
        try:
            assert prove(file(whole[:end]), encoding) is None
            assert end < (5 if "ZIP" in kind else 4)  # too little to tell what it is
        except ExportFailed:
            pass


def test_of_several_gzip_members_a_cut_between_two_alone_shows_no_trace(file):
    members = [gzip.compress(part, mtime=0) for part in (b"a,b\n1,2\n", b"3,4\n", b"5,6\n")]
    whole = b"".join(members)
    between = {len(members[0]), len(members[0] + members[1])}
    for end in range(2, len(whole)):
        if end in between:
            continue
        path = file(whole[:end])
        for use in (prove, read):
            with pytest.raises(ExportFailed, match="cut"):
                use(path)


def test_whether_a_file_ends_with_a_line_break(file):
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32"):
        for end in ("\n", "\r\n", "\r"):
            assert ends_with_line_break(file(("a,b\n1,2" + end).encode(encoding)))
        assert not ends_with_line_break(file("a,b\n1,2".encode(encoding)))
    assert not ends_with_line_break(file(b""))


# JSON


def cast(path, **types):
    columns = Columns(Export(name="x", columns=types), style="original", dictionary={})
    (frame,) = frames(path, JSON)
    typed, bad = columns.cast(frame, columns.bind(frame.header))
    return [json.loads(text) if text else None for text in typed["j"]], [row.row_number for row in bad]


def test_a_json_string_stays_a_string(file):
    values = ["12", 12, "true", True, "text", '{"a": 1}', {"a": "1", "b": [1.5]}, "", None, [], '"q"\n', "ä"]
    path = file(json.dumps([{"i": 1, "j": value} for value in values]).encode())
    found = cast(path, j="json")
    assert found == ([value or None if value == "" else value for value in values], [])
    assert [type(value) for value in found[0]] == [
        type(value or None) if value == "" else type(value) for value in values
    ]


@pytest.mark.parametrize("key", ['{"a":1,"a":2}', '{"a":{"b":1,"\\u0062":1}}', '{"a":[{"":1,"":1}]}'])
def test_a_key_that_is_there_twice_makes_a_bad_row(file, monkeypatch, key):
    for size in (1, 1 << 20):
        monkeypatch.setattr(json_parser, "BLOCK", size)
        _, rows, bad = read(file(f'[{{"a":0}},{key},{{"a":3}}]'.encode()), JSON)
        assert rows == [(1, "0"), (3, "3")]
        assert "twice" in bad[2][1]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(("encoding", "wrong"), [("utf-8", b"\xe9"), ("utf-16-le", b"\x00\xdc")])
def test_a_bad_byte_in_json_is_one_bad_row(file, monkeypatch, size, encoding, wrong):
    monkeypatch.setattr(json_parser, "BLOCK", size)
    parts = [text.encode(encoding) for text in ('[{"a":"ä"},{"a":"', '"},{"a":"€"}]')]
    _, rows, bad = read(file(wrong.join(parts)), Dialect("json", encoding))
    quote = '{"a":"'
    assert rows == [(1, "ä"), (3, "€")]
    assert f"0x{wrong[0]:02X} at index {len(quote.encode(encoding))} " in bad[2][1]


def test_depth_is_bounded(file):
    deep = b"[" * 5000 + b"]" * 5000
    with pytest.raises(ExportFailed, match="too deeply"):
        read(file(b'[{"a":%b}]' % deep), JSON)
    for depth in (500, 900):
        _, rows, bad = read(file(b'[{"a":"\\u0041","b":%b}]' % (b"[" * depth + b"]" * depth)), JSON)
        assert len(rows) + len(bad) == 1


# Any table in any dialect

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from(',;|"\r\n\t \ufeff'), max_size=8
)
PLAIN = st.text("abäß 'x.", max_size=8)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gb18030", "latin-1"]


@settings(deadline=None, max_examples=200)
@given(
    data=st.data(),
    width=st.integers(1, 4),
    delimiter=st.sampled_from(",;\t|"),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE]),
    encoding=st.sampled_from(ENCODINGS),
    skipped=st.integers(0, 3),
    announced=st.booleans(),
    members=st.integers(0, 3),
    size=st.integers(1, 200),
)
def test_what_goes_into_a_file_comes_out_cell_by_cell_or_is_a_bad_row(file, data, width, **how):
    quoted = how["quoting"] != csv.QUOTE_NONE
    if how["quoting"] == csv.QUOTE_MINIMAL:
        how["ending"] = "\r\n"  # the writer leaves line breaks of another kind bare
    cells = PLAIN if how["encoding"] == "latin-1" or not quoted else TEXT
    rows = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=10))
    rows = [row for row in rows if any(row) or width > 1 or how["quoting"] == csv.QUOTE_ALL]
    spoilt = data.draw(st.sets(st.sampled_from(range(len(rows))))) if rows else set()
    long = {place for place in spoilt if how["encoding"] != "utf-8" or data.draw(st.booleans())}
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=how["delimiter"],
        lineterminator=how["ending"],
        quoting=how["quoting"],
        quotechar='"' if quoted else None,
    )
    for _ in range(how["skipped"]):
        text.write(data.draw(st.text('ab"; ', max_size=5)) + how["ending"])
    if how["announced"]:
        text.write(f"sep={how['delimiter']}{how['ending']}")
    writer.writerow([f"column {position}" for position in range(width)])
    for place, row in enumerate(rows):
        if place in long:
            writer.writerow([*row, "more"])
        elif place in spoilt:
            writer.writerow([row[0] + "\udcff", *row[1:]])
        else:
            writer.writerow(row)
    content = text.getvalue().encode(how["encoding"], "surrogateescape")
    step = len(content) // (how["members"] or 1) + 1
    if how["members"]:
        content = b"".join(gzip.compress(content[i : i + step]) for i in range(0, len(content), step))
    dialect = Dialect(
        "csv",
        how["encoding"],
        None if how["announced"] else how["delimiter"],
        skip_rows=how["skipped"],
        quote='"' if quoted else "",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_parser, "BLOCK", how["size"])
        patch.setattr(csv_parser, "MOST_BAD", how["size"] % 4 + 1)
        header, found, bad = read(file(content), dialect)
    assert header == tuple(f"column {position}" for position in range(width))
    assert found == [
        (number, *(cell or None for cell in row))
        for number, row in enumerate(rows, 1)
        if number - 1 not in spoilt
    ]
    assert sorted(bad) == [place + 1 for place in sorted(spoilt)]


# Bounds

MEASURED = """
import sys
from pathlib import Path
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import Dialect, frames
try:
    rows = bad = 0
    for frame in frames(Path(sys.argv[1]), Dialect(sys.argv[2])):
        rows += frame.rows.height
        bad += len(frame.bad)
    print(rows, "rows", bad, "bad")
except ExportFailed as error:
    print(str(error)[:1000])
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024)
"""


def packed(*parts):
    """Parts, each repeated so many times, as gzip."""
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=1) as stream:
        for part, times in parts:
            for _ in range(times):
                stream.write(part)
    return content.getvalue()


MIB = 1 << 20
WIDE = b"a" + b",a" * 9999 + b"\n"
KEYS = b",".join(b'{"k%d":1}' % i for i in range(20_000))
LONG_KEYS = b",".join(b'{"%d%b":1}' % (i, b"k" * 50_000) for i in range(200))
LARGE = {
    "a quote that is never closed": ("csv", [(b'a,b\n1,"', 1), (b"x\n" * MIB, 200)], "longer than 16 MiB"),
    "a field without end": ("csv", [(b"a,b\n1,", 1), (b"x" * MIB, 400)], "longer than 16 MiB"),
    "a header without end": ("csv", [(b"x" * MIB, 400)], "longer than 16 MiB"),
    "a header of millions": ("csv", [(b"a," * MIB, 3), (b"a\n", 1)], "more than 16384 fields"),
    "a row of millions": ("csv", [(b"a\n", 1), (b"," * MIB, 15), (b"\n1\n", 1)], "1 rows 1 bad"),
    "a row of quotes": ("csv", [(b"a\n", 1), (b'"",' * MIB, 5), (b'""\n1\n', 1)], "1 rows 1 bad"),
    "many empty fields": ("csv", [(WIDE, 1), (b"," * 9999 + b"\n", 1000)], "1000 rows 0 bad"),
    "many bad rows": ("csv", [(b"a,b\n" + b"\xff\n" * 100_000 + b"x\n" * 500_000, 1)], "0 rows 600000 bad"),
    "many empty lines": ("csv", [(b"\n" * MIB, 300), (b"a\n1\n", 1)], "1 rows 0 bad"),
    "a text without end": ("json", [(b'[{"a":"', 1), (b"x" * MIB, 100)], "longer than 8 million"),
    "a wide text": ("json", [('[{"a":"😀'.encode(), 1), (b"x" * MIB, 100)], "longer than 8 million"),
    "many values": ("json", [(b'[{"a":[1', 1), (b",[]" * MIB, 2)], "more than 500000 values"),
    "many numbers": ("json", [(b'[{"a":[1', 1), (b",10" * MIB, 2)], "more than 500000 values"),
    "depth": ("json", [(b'[{"a":', 1), (b"[" * MIB, 100)], "too deeply"),
    "many elements": ("json", [(b"[1" + b",1" * 200_000 + b"]", 1)], "0 rows 200001 bad"),
    "many columns": ("json", [(b"[" + KEYS + b"]", 1)], "more than 16384 keys"),
    "long keys": ("json", [(b"[" + LONG_KEYS + b"]", 1)], "keys"),
}


@pytest.mark.parametrize("name", LARGE)
def test_whatever_a_file_holds_memory_is_bounded(tmp_path, name):
    kind, parts, words = LARGE[name]
    path = tmp_path / "file"
    path.write_bytes(packed(*parts))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, path, kind], capture_output=True, text=True, check=True, timeout=120
    )
    said, peak = done.stdout.splitlines()
    assert words in said
    assert int(peak) < 400  # MiB
