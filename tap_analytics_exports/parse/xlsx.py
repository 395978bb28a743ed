"""XLSX workbooks as frames of text, a block of the sheet's XML after the other.

A block is taken apart into its tags, and all cells of a kind are read at once. What is asked of XML is that
its elements end where they have to, and that cells are what they can be; that nothing of it is missing, the
checksums of the ZIP file tell.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from tap_analytics_exports.parse.base import (
    FRAME_ROWS,
    ROW_NUMBER,
    BadRow,
    Dialect,
    TextFrame,
    in_one_go,
    line,
    without_huge_pages,
    without_nul,
)
from tap_analytics_exports.parse.markup import PADDING, Tags, tags, unreadable
from tap_analytics_exports.parse.workbook import Workbook, texts_within, unescaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path


without_huge_pages()

T = TypeVar("T")

# Of cells (ECMA-376, part 1, 18.18.11); what is not known is a text. Numbers are of one of three kinds.
TYPES = ("s", "b", "e", "inlineStr", "str")
KINDS = ("number", "moment", "span", *TYPES)
BEFORE_REFERENCE = b'c r="'
LETTERS, MOST_LETTERS = 26, 3
DIGITS, MOST_DIGITS = 10, 7

# Blocks that are taken apart at once, besides the one that is read. Of more, smaller ones, more time would go
# into waiting for Python.
AT_ONCE = 2

# A frame has at most this many places for cells, however wide the sheet is.
FRAME_CELLS = 2_000_000
MOST_COLUMNS = 16_384

# Beyond it, not every whole number is a double, which a workbook's numbers are.
EXACT = 2.0**53
# From here on, Python writes an exponent by itself.
SCIENTIFIC = 1e16

# Days since 1899-12-30, as from March 1900 on, in milliseconds: no writer is more precise.
DAY = 86_400_000
UNIX_EPOCH = 25_569
MARCH_1900 = 61
YEAR_10000 = 2_958_466
FROM_1904 = 1_462

_START = re.compile(rb"<sheetData\s*/?>")
_DIMENSION = re.compile(rb'<dimension ref="([A-Z]{1,3})[0-9]')
_REFERENCE = re.compile(rb' r="[A-Z]+([0-9]+)"')
_ATTRIBUTE = re.compile(r"""([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_ATTRIBUTES = re.compile(rf"(?:\s+{_ATTRIBUTE.pattern})*\s*/?")

_CELLS = {"row": pl.UInt32, "column": pl.Int64, "text": pl.String}
# The shortest way to write a double, as all that are so short are.
_PLAIN = r"^(?:0|-?[1-9][0-9]{0,14}|-?(?:0|[1-9][0-9]{0,7})\.[0-9]{0,6}[1-9])$"


def frames(path: Path, dialect: Dialect) -> Iterator[TextFrame]:
    """The rows of a sheet; see `tap_analytics_exports.parse.frames`.

    The first row that is not empty is the header, as far as it has words. Numbers are plain up to 2^53; a
    whole one beyond may have been rounded by whoever wrote it, and is written with an exponent, which no
    integer and no decimal column takes. Dates and times are ISO 8601; errors (`#N/A`) are null.
    """
    with Workbook(path) as book:
        if dialect.sheet is None and not book.sheets:
            raise unreadable("it has no sheet")
        if dialect.sheet is not None and dialect.sheet not in book.sheets:
            known = ", ".join(map(repr, book.sheets))
            raise unreadable(f"it has no sheet {dialect.sheet!r}; set `sheet` to one of {known}")
        name = next(iter(book.sheets)) if dialect.sheet is None else dialect.sheet
        yield from _Sheet(book, book.sheets[name]).frames()


class _Sheet:
    """Reads one sheet.

    Args:
        book: Its workbook.
        part: Its XML.
    """

    def __init__(self, book: Workbook, part: str) -> None:
        self._blocks = book.blocks(part, "row")
        self._number_kinds = book.number_kinds()
        self._book = book
        self._texts: Future[pl.Series]
        self._with_nul = False
        self._since_1904 = book.since_1904
        self._left = MOST_COLUMNS  # the first column that is used

    def frames(self) -> Iterator[TextFrame]:
        header: tuple[str, ...] | None = None
        before = 0
        for block in self._blocks_of_cells():
            if not block.height:
                continue
            if header is None:
                self._left = min(self._left, block["column"].min())  # type: ignore[type-var, assignment]
            cells = block.with_columns(pl.col("column") - self._left)
            if header is None:
                header = _header(cells)
                yield _frame(header, cells.clear(), 0, 0)
                cells = cells.filter(pl.col("row") > 0).with_columns(pl.col("row") - 1)
            for frame in _frames(header, cells, before, with_nul=self._with_nul):
                yield frame
                before += frame.rows.height + len(frame.bad)

    def _rows(self) -> Iterator[bytes]:
        """The XML of the rows; each piece has whole ones."""
        xml = next(self._blocks)
        start = _START.search(xml)
        if start is None:
            raise unreadable("its sheet has no rows")
        if used := _DIMENSION.search(xml[: start.start()]):
            self._left = _column(used[1].decode()) or 0
        xml = xml[start.end() :]
        ended = start[0].endswith(b"/>")
        while True:
            if not ended:
                # Where a block ends with a row, there is nothing else to look for.
                end = -1 if xml.endswith(b"</row>" + PADDING) else xml.find(b"</sheetData>")
                ended = end >= 0
                yield xml[:end] + PADDING if ended else xml
            try:  # on to the end, where the checksum is
                xml = next(self._blocks)
            except StopIteration:
                break
        if not ended:
            raise unreadable("its sheet is cut")

    def _blocks_of_cells(self) -> Iterator[pl.DataFrame]:
        """The cells of some rows after the other; some lots are in the making while one is in use."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self._texts = pool.submit(self._read_texts)
            made: deque[Future[pl.DataFrame]] = deque()
            for xml in self._rows():
                made.append(pool.submit(self._cells, xml))
                if len(made) > AT_ONCE:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
            self._texts.result()  # of which nothing may have been used so far

    def _read_texts(self) -> pl.Series:
        texts = self._book.texts()
        self._with_nul |= _has_nul(texts)
        return texts

    def _cells(self, xml: bytes) -> pl.DataFrame:
        """The cells that have a `text`, with `row` and `column`, from 0; rows without text don't count."""
        found = tags(xml, "row")
        cell, value = found.named("c"), found.named("v")
        place, row = (_counted(which) - 1 for which in (cell, found.named("row")))
        cells = self._places(found.filter(cell), row.filter(cell))
        texts = [_at(place.filter(value), found.filter(value).texts(), cells)]
        inline = KINDS.index("inlineStr")
        if (cells["kind"] == inline).any():
            texts.append(_at(*texts_within(found, place), cells).filter(pl.col("kind") == inline))
        read = [pl.DataFrame(schema=_CELLS)]
        written = pl.concat(texts)
        for code, kind in enumerate(KINDS):
            some = written.filter(written["kind"] == code)
            if some.height:
                text = self._text(kind, some["value"])
                read.append(some.select("row", "column", text.alias("text")))
        cells = pl.concat(read).filter(pl.col("text") != "")
        return cells.with_columns(_without_gaps(cells["row"]))

    def _places(self, cells: Tags, row: pl.Series) -> pl.DataFrame:
        """Column and kind of cells, of which the row is known."""
        column, behind = _references(cells)
        more = behind < cells.end
        attributes = cells.strings(behind.filter(more), cells.end.filter(more))
        kind = pl.repeat(self._kind(""), len(row), dtype=pl.UInt8, eager=True)
        kind = kind.scatter(more.arg_true(), _mapped(attributes, self._kind, pl.UInt8))
        if behind.null_count():
            others = behind.is_null()
            given = [tag.removeprefix("c") for tag in cells.filter(others).tags()]
            references = [_column(_given(attributes).get("r", "")) for attributes in given]
            column = column.scatter(others.arg_true(), pl.Series(references, dtype=pl.Int64))
            kind = kind.scatter(others.arg_true(), list(map(self._kind, given)))
        if column.null_count():
            column = _continued(column, row)
        return pl.DataFrame({"row": row, "column": column, "kind": kind})

    def _kind(self, attributes: str) -> int:
        """What a cell's value means, by its attributes; as a place in `KINDS`."""
        given = _given(attributes)
        kind = given.get("t", "n")
        if kind != "n":
            return KINDS.index(kind if kind in TYPES else "str")
        style = given.get("s", "0")
        if not style.isdecimal():
            raise unreadable(f"a cell has {style!r} for the number of its style")
        known = int(style) < len(self._number_kinds)
        return KINDS.index(self._number_kinds[int(style)] if known else "number")

    def _text(self, kind: str, values: pl.Series) -> pl.Series:  # noqa: PLR0911 - one for each kind
        """Values of one kind as text."""
        match kind:
            case "s":
                texts = self._texts.result()
                places = values.cast(pl.UInt32, strict=False)
                if places.null_count() or places.max() >= len(texts):  # type: ignore[operator]
                    raise unreadable("a cell refers to a text that is not there")
                return texts.gather(places)
            case "b":
                return values.replace({"1": "true", "0": "false"})
            case "e":
                return values.clear(len(values))
            case "number":
                return _numbers(values)
            case "moment":
                return _moments(values, FROM_1904 if self._since_1904 else 0)
            case "span":
                return pl.Series([_span(value) for value in values], dtype=pl.String)
        texts = unescaped(values)
        self._with_nul |= _has_nul(texts)
        return texts


def _at(places: pl.Series, texts: pl.Series, cells: pl.DataFrame) -> pl.DataFrame:
    """The cells at some places, with a text for each as `value`."""
    if len(places) and (places[0] >= cells.height or (places[1:] == places[:-1]).any()):
        raise unreadable("its sheet has a text in no cell, or several in one")
    # Where each cell has one, they are all in their order.
    some = cells if len(places) == cells.height else cells[places]
    return some.hstack([texts.alias("value")])


def _references(cells: Tags) -> tuple[pl.Series, pl.Series]:
    """Of cells whose first attribute is their reference, their column, and the place behind it; else null."""
    before = len(BEFORE_REFERENCE)
    last = _REFERENCE.search(cells.data, cells.start[-1]) if len(cells.start) else None
    digits = min(len(last[1]), MOST_DIGITS) if last else MOST_DIGITS  # as they grow from row to row
    longest = MOST_LETTERS + digits + 1
    known = pl.all_horizontal(pl.col(str(i)) == letter for i, letter in enumerate(BEFORE_REFERENCE, 1))
    none = pl.lit(0, pl.UInt16).alias("column"), pl.lit(0, pl.UInt8).alias("length")
    found = cells.signs(before + longest)
    found = found.with_columns_seq(known.alias("known"), known.alias("within"), known.alias("letters"), *none)
    within, letters, column = pl.col("within"), pl.col("letters"), pl.col("column")
    for i in range(before + 1, before + longest + 1):
        sign = pl.col(str(i))
        fits = (sign - ord("0") < DIGITS) | ~within
        found = found.with_columns_seq(within & (sign != ord('"')))
        if i <= before + MOST_LETTERS:
            letter = sign - ord("A")
            found = found.with_columns_seq(letters & (letter < LETTERS))
            longer = column * LETTERS + letter + 1
            found = found.with_columns_seq(pl.when(letters).then(longer).otherwise(column))
            fits |= letters
        found = found.with_columns_seq(pl.col("known") & fits, pl.col("length") + within.cast(pl.UInt8))
    known = pl.col("known") & ~within & (column > 0)
    found = found.select_seq(
        pl.when(known).then(column - 1).cast(pl.Int64),
        pl.when(known).then(pl.lit(cells.start) + pl.col("length") + (before + 2)).alias("behind"),
    )
    references, places = in_one_go(found).get_columns()
    return references, places


def _given(attributes: str) -> dict[str, str]:
    """The attributes of a tag."""
    if not _ATTRIBUTES.fullmatch(attributes):
        raise unreadable(f"a cell has the attributes {attributes!r}")
    return {name: one or other for name, one, other in _ATTRIBUTE.findall(attributes)}


def _continued(columns: pl.Series, rows: pl.Series) -> pl.Series:
    """Columns of cells, of which those without a reference follow the one before, or are the first."""
    found: list[int] = []
    before = None
    for column, row in zip(columns, rows, strict=True):
        found.append(column if column is not None else found[-1] + 1 if row == before else 0)
        before = row
    return pl.Series(found, dtype=pl.Int64)


def _counted(which: pl.Series) -> pl.Series:
    """How often it was true so far; `cum_sum` takes four times as long."""
    return pl.select(pl.when(which).then(1).cum_count()).to_series()


def _without_gaps(rows: pl.Series) -> pl.Series:
    """Numbers of rows, counted anew from 0."""
    last: int = rows.max() or 0  # type: ignore[assignment]
    there = pl.zeros(last + 1, dtype=pl.Int64, eager=True).scatter(rows, 1)
    return (there.cum_sum() - 1).gather(rows).alias("row")


def _has_nul(texts: pl.Series) -> bool:
    """Whether a text has a NUL character, which stands in no XML, but may be meant by a code."""
    return bool(texts.str.contains("\0", literal=True).any())


def _header(cells: pl.DataFrame) -> tuple[str, ...]:
    """The words of the first row."""
    first = cells.filter(pl.col("row") == 0)
    words = dict(zip(first["column"], first["text"], strict=True))
    return tuple(words.get(column, "") for column in range(max(words) + 1))


def _frames(
    header: tuple[str, ...], cells: pl.DataFrame, before: int, *, with_nul: bool
) -> Iterator[TextFrame]:
    """Rows, of which so many came before, in frames that are not too large."""
    if not cells.height:
        return
    height, width = (1 + int(cells[name].max()) for name in ("row", "column"))  # type: ignore[arg-type]
    step = max(1, min(FRAME_ROWS, FRAME_CELLS // max(width, len(header))))
    for start in range(0, height, step):
        some = cells.filter(pl.col("row").is_between(start, start + step - 1))
        some = some.with_columns(pl.col("row") - start)
        frame = _frame(header, some, min(step, height - start), before + start)
        yield _checked(frame) if with_nul else frame


def _frame(header: tuple[str, ...], cells: pl.DataFrame, height: int, before: int) -> TextFrame:
    """So many rows, of which so many came before; those aside that have cells where the header has none."""
    width = len(header)
    outside = cells.filter(~pl.col("column").is_between(0, width - 1))["row"].unique()
    reason = f"cells beyond the {width} columns of the header"
    bad = []
    if len(outside):
        beyond = pl.col("row").is_in(outside.implode())
        for row in cells.filter(beyond).partition_by("row"):
            fields = dict(zip(row["column"], row["text"], strict=True))
            raw = line(fields.get(column) for column in range(min(0, *fields), max(fields) + 1))
            bad.append(BadRow(before + row["row"][0] + 1, raw, reason))
        cells = cells.filter(~beyond)
    at = pl.repeat(None, height * width, dtype=pl.UInt32, eager=True)
    at = at.scatter(
        cells["column"] * height + cells["row"], pl.int_range(cells.height, dtype=pl.UInt32, eager=True)
    )
    texts = pl.lit(cells["text"])
    numbers = pl.int_range(before + 1, before + height + 1, dtype=pl.Int64, eager=True).alias(ROW_NUMBER)
    query = (
        at.to_frame("at")
        .lazy()
        .select_seq(
            *(
                texts.gather(pl.col("at").slice(column * height, height)).alias(str(column))
                for column in range(width)
            ),
            pl.lit(numbers),
        )
    )
    rows = in_one_go(query)
    if bad:
        rows = rows.filter(~(numbers - before - 1).is_in(outside.implode()))
    return TextFrame(header, rows, bad)


def _checked(frame: TextFrame) -> TextFrame:
    rows, with_nul = without_nul(frame.rows)
    return replace(frame, rows=rows, bad=frame.bad + with_nul)


def _numbers(values: pl.Series) -> pl.Series:
    """Doubles, in the shortest way that is them; what is no number stays as it is."""
    plain = values.str.contains(_PLAIN)
    if plain.all():
        return values
    rest = values.filter(~plain)
    doubles = rest.cast(pl.Float64, strict=False)
    whole = (doubles == doubles.floor()) & (doubles.abs() < EXACT)
    texts = pl.select(
        pl.when(whole)
        .then(doubles.cast(pl.Int64, strict=False).cast(pl.String))
        .when(doubles.is_finite())
        .then(doubles.cast(pl.String))
        .otherwise(rest)
    ).to_series()
    large = (doubles.abs() >= EXACT) & doubles.is_finite()
    if large.any():
        exponents = [
            repr(each) if abs(each) >= SCIENTIFIC else f"{each:.15e}" for each in doubles.filter(large)
        ]
        texts = texts.scatter(large.arg_true(), exponents)
    return values.scatter((~plain).arg_true(), texts)


def _moments(values: pl.Series, shift: int) -> pl.Series:
    """Days, of which so many are missing since the usual day zero, as dates, times or both."""
    days = pl.col("days")
    # The first spreadsheets took 1900 for a leap year.
    counted = days + ((days >= 1) & (days < MARCH_1900 - 1) & (shift == 0)).cast(pl.Float64)
    query = (
        (values.cast(pl.Float64, strict=False) + shift)
        .to_frame("days")
        .lazy()
        .select_seq(pl.when((days >= 0) & (days < YEAR_10000)).then(days))
        .with_columns_seq(((counted - UNIX_EPOCH) * DAY).round().cast(pl.Int64).alias("time"))
        .with_columns_seq((pl.col("time") // DAY).alias("day"))
        .select_seq(
            "day",
            (pl.col("time") - pl.col("day") * DAY).alias("of_day"),
            (days != days.floor()).alias("with_time"),
            (days >= 1).alias("with_date"),
        )
    )
    day, of_day, with_time, with_date = in_one_go(query).get_columns()
    known = day.unique()
    date = day.replace_strict(known, known.cast(pl.Date).cast(pl.String), return_dtype=pl.String)
    time = _times().gather(of_day // 1000)
    milliseconds = of_day % 1000
    if (milliseconds != 0).any():
        exact = time + "." + milliseconds.cast(pl.String).str.zfill(3) + "000"
        time = time.zip_with(milliseconds == 0, exact)
    texts = (date + time).zip_with(with_time, date)
    texts = texts if with_date.all() else texts.zip_with(with_date, time.str.slice(1))
    others = day.is_null()
    return texts.scatter(others.arg_true(), _numbers(values.filter(others))) if others.any() else texts


@functools.cache
def _times() -> pl.Series:
    """Every second of a day as text."""
    second = pl.int_range(DAY // 1000)
    sixty = pl.lit(pl.Series([f":{i:02}" for i in range(60)]))
    minutes = pl.lit(pl.Series([f"T{i // 60:02}:{i % 60:02}" for i in range(24 * 60)]))
    return pl.select(minutes.gather(second // 60) + sixty.gather(second % 60)).to_series()


def _span(value: str | None) -> str | None:
    """Days as hours, minutes and seconds."""
    try:
        milliseconds = round(float(value or "") * DAY)
    except (ValueError, OverflowError):
        return value
    seconds, fraction = divmod(abs(milliseconds), 1000)
    sign = "-" if milliseconds < 0 else ""
    text = f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:03}000" if fraction else text


@functools.cache
def _column(reference: str) -> int | None:
    """The place of a column, from 0, by the start of a cell's reference; None where there is none."""
    if not reference or reference[0] == '"':
        return None
    letters = reference.rstrip('0123456789"')
    if not re.fullmatch("[A-Z]{1,3}", letters):
        raise unreadable(f"a cell refers to itself as {reference!r}")
    place = 0
    for letter in letters:
        place = 26 * place + ord(letter) - ord("@")
    return place - 1


def _mapped(texts: pl.Series, meaning: Callable[[str], T], dtype: type[pl.DataType]) -> pl.Series:
    """What texts mean, of which many are the same."""
    known = texts.unique()
    return pl.Series(map(meaning, known), dtype=dtype).gather(texts.cast(pl.Enum(known)).to_physical())
