"""XLSX workbooks as frames of text, a block of the sheet's XML after the other.

A block is cut at every cell, and what a cell says is taken out of all its cells at once. That is sure where a
cell is written as nearly all writers do it, which a pattern finds out; any other one is read by itself.
"""

from __future__ import annotations

import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from tap_analytics_exports.parse.base import (
    FRAME_ROWS,
    ROW_NUMBER,
    BadRow,
    Dialect,
    TextFrame,
    line,
    without_nul,
)
from tap_analytics_exports.parse.workbook import Workbook, plain, rich_text, unescaped, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from tap_analytics_exports.errors import ExportFailed

T = TypeVar("T")

# Blocks that are taken apart at once: it takes so much longer than all the rest that two cores have to do.
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

_BETWEEN = r"(?:\s*</?row(?:\s[^>]*)?>)*\s*"
_REGULAR = (
    r'^r="[A-Z]{1,3}[0-9]+"(?: [a-z]+="\w*")* ?'
    r'(?:/>|>(?:<v>[^<]*</v>|<is><t(?: xml:space="preserve")?>[^<]*</t></is>)?</c>)' + _BETWEEN + "$"
)
_START = re.compile(r"<sheetData\s*/?>")
_DIMENSION = re.compile(r'<dimension ref="([A-Z]{1,3})[0-9]')
_CELL = re.compile(r"""((?:\s*[\w:.]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(?:/>|>(.*?)</c\s*>)""", re.DOTALL)
_ATTRIBUTE = re.compile(r"""([\w:.]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_VALUE = re.compile(r"<v(?:\s[^>]*)?>([^<]*)</v\s*>")
_REFERENCE = re.compile(r"([A-Z]{1,3})[0-9]+")

_CELLS = {"column": pl.Int64, "kind": pl.String, "value": pl.String, "row": pl.Int64}
_PLAIN = r"^(?:0|-?[1-9][0-9]{0,14})$"


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
        self._texts = book.texts()
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
            for frame in _frames(header, cells, before):
                yield frame
                before += frame.rows.height + len(frame.bad)

    def _rows(self) -> Iterator[str]:
        """The XML of the rows; each piece has whole ones."""
        xml = next(self._blocks)
        start = _START.search(xml)
        if start is None:
            raise unreadable("its sheet has no rows")
        if used := _DIMENSION.search(xml[: start.start()]):
            self._left = _column(used[1])
        xml = xml[start.end() :]
        ended = start[0].endswith("/>")
        while True:
            if not ended:
                rows, end, _ = xml.partition("</sheetData>")
                yield rows
                ended = bool(end)
            try:  # on to the end, where the checksum is
                xml = next(self._blocks)
            except StopIteration:
                break
        if not ended:
            raise unreadable("its sheet is cut")

    def _blocks_of_cells(self) -> Iterator[pl.DataFrame]:
        """The cells of some rows after the other; two lots are in the making while a third is in use."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            made: deque[Future[pl.DataFrame]] = deque()
            for xml in self._rows():
                made.append(pool.submit(self._cells, xml))
                if len(made) > AT_ONCE:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()

    def _cells(self, xml: str) -> pl.DataFrame:
        """The cells that have a `text`, with `row` and `column`, from 0; rows without text don't count."""
        pieces, regular = _cut(xml)
        if not regular.all():  # it may have comments and the like
            pieces, regular = _cut(re.sub(r"<c(?=[\s/>])\s*", "<c ", plain(xml)))
        if not re.fullmatch(_BETWEEN, pieces[0]):
            raise _damaged(pieces[0])
        row = pieces.str.contains("<row", literal=True).cum_sum()[:-1].cast(pl.Int64).alias("row")
        pieces = pieces[1:]
        cells = self._regular(pieces.filter(regular)).with_columns(row.filter(regular))
        if not regular.all():
            cells = pl.concat([cells, self._others(pieces, row, ~regular)])
        found = [
            kind.with_columns(self._text(kind["kind"][0], kind["value"]).alias("text"))
            for kind in cells.partition_by("kind")
        ]
        cells = pl.concat([cells.clear().with_columns(text=pl.lit("")), *found])
        cells = cells.select("row", "column", "text").filter(pl.col("text") != "")
        return cells.with_columns(pl.col("row").rank("dense").cast(pl.Int64) - 1)

    def _regular(self, pieces: pl.Series) -> pl.DataFrame:
        """Column, kind and value of cells that are written as `_REGULAR` says."""
        _, reference, rest = pieces.str.splitn('"', 3).struct.unnest()
        attributes, content = rest.str.splitn(">", 2).struct.unnest()
        letters = reference.str.strip_chars_end("0123456789")
        kind = _mapped(attributes, self._kind, pl.String)
        value = content.str.strip_prefix("<v>").str.splitn("<", 2).struct[0]
        inline = content.str.starts_with("<is>") & (kind == "inlineStr")
        if inline.any():
            texts = content.filter(inline).str.splitn(">", 3).struct[2].str.splitn("<", 2).struct[0]
            value = value.scatter(inline.arg_true(), texts)
        return pl.DataFrame({"column": _mapped(letters, _column, pl.Int64), "kind": kind, "value": value})

    def _others(self, pieces: pl.Series, row: pl.Series, others: pl.Series) -> pl.DataFrame:
        """Column, kind, value and row of all other cells."""
        found = []
        column, last = -1, (-1, -1)
        for i in others.arg_true():
            cell = _CELL.match(pieces[i])
            if cell is None or not re.fullmatch(_BETWEEN, pieces[i][cell.end() :]):
                raise _damaged(pieces[i])
            attributes, content = cell.groups("")
            given = {name: one or other for name, one, other in _ATTRIBUTE.findall(attributes)}
            if reference := _REFERENCE.match(given.get("r", "")):
                column = _column(reference[1])
            elif last == (i - 1, row[i]):
                column += 1
            elif i and row[i - 1] == row[i]:
                column = _column(_REFERENCE.search(pieces[i - 1])[1]) + 1  # type: ignore[index]
            else:
                column = 0
            last = (i, row[i])
            value = _VALUE.search(content)
            text = value[1] if value else rich_text(content) if given.get("t") == "inlineStr" else None
            found.append((column, self._kind(attributes), text, row[i]))
        return pl.DataFrame(found, schema=_CELLS, orient="row")

    def _kind(self, attributes: str) -> str:
        """What a cell's value means, by its attributes."""
        given = {name: one or other for name, one, other in _ATTRIBUTE.findall(attributes)}
        kind: str = given.get("t", "n")
        if kind != "n":
            return kind
        style = given.get("s", "0")
        if not style.isdecimal():
            raise unreadable(f"a cell has {style!r} for the number of its style")
        return self._number_kinds[int(style)] if int(style) < len(self._number_kinds) else "number"

    def _text(self, kind: str, values: pl.Series) -> pl.Series:  # noqa: PLR0911 - one for each kind
        """Values of one kind (ECMA-376, part 1, 18.18.11, or a number's kind) as text."""
        match kind:
            case "s":
                places = values.cast(pl.UInt32, strict=False)
                if places.null_count() or places.max() >= len(self._texts):  # type: ignore[operator]
                    raise unreadable("a cell refers to a text that is not there")
                return self._texts.gather(places)
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
        return unescaped(values)


def _cut(xml: str) -> tuple[pl.Series, pl.Series]:
    """What is before the first cell, and each cell with what is before the next; which cells are regular."""
    pieces = pl.Series([xml]).str.split("<c ").explode()
    return pieces, pieces[1:].str.contains(_REGULAR)


def _header(cells: pl.DataFrame) -> tuple[str, ...]:
    """The words of the first row."""
    first = cells.filter(pl.col("row") == 0)
    words = dict(zip(first["column"], first["text"], strict=True))
    return tuple(words.get(column, "") for column in range(max(words) + 1))


def _frames(header: tuple[str, ...], cells: pl.DataFrame, before: int) -> Iterator[TextFrame]:
    """Rows, of which so many came before, in frames that are not too large."""
    if not cells.height:
        return
    height, width = (1 + int(cells[name].max()) for name in ("row", "column"))  # type: ignore[arg-type]
    step = max(1, min(FRAME_ROWS, FRAME_CELLS // max(width, len(header))))
    for start in range(0, height, step):
        some = cells.filter(pl.col("row").is_between(start, start + step - 1))
        some = some.with_columns(pl.col("row") - start)
        yield _frame(header, some, min(step, height - start), before + start)


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
    place = cells["row"] * width + cells["column"]
    cell = pl.repeat(None, height * width, dtype=pl.UInt32, eager=True)
    texts = cells["text"].gather(cell.scatter(place, pl.int_range(cells.height, dtype=pl.UInt32, eager=True)))
    numbers = pl.int_range(before + 1, before + height + 1, dtype=pl.Int64, eager=True).alias(ROW_NUMBER)
    columns = [texts.gather_every(width, column).alias(str(column)) for column in range(width)]
    rows = pl.DataFrame([*columns, numbers])
    if bad:
        rows = rows.filter(~(numbers - before - 1).is_in(outside.implode()))
    rows, with_nul = without_nul(rows)
    return TextFrame(header, rows, bad + with_nul)


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
    days = values.cast(pl.Float64, strict=False) + shift
    days = pl.select(pl.when((days >= 0) & (days < YEAR_10000)).then(days)).to_series()
    # The first spreadsheets took 1900 for a leap year.
    counted = days + ((days >= 1) & (days < MARCH_1900 - 1) & (shift == 0)).cast(pl.Float64)
    moments = ((counted - UNIX_EPOCH) * DAY).round().cast(pl.Int64, strict=False).cast(pl.Datetime("ms"))
    both = moments.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f").str.strip_suffix(".000000")
    texts = pl.select(
        pl.when(days < 1)
        .then(both.str.slice(len("YYYY-MM-DDT")))
        .when(days == days.floor())
        .then(both.str.head(len("YYYY-MM-DD")))
        .otherwise(both)
    ).to_series()
    others = days.is_null()
    return texts.scatter(others.arg_true(), _numbers(values.filter(others)))


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


def _column(letters: str) -> int:
    """The place of a column, from 0."""
    place = 0
    for letter in letters:
        place = 26 * place + ord(letter) - ord("@")
    return place - 1


def _mapped(texts: pl.Series, meaning: Callable[[str], T], dtype: type[pl.DataType]) -> pl.Series:
    """What texts mean, of which many are the same."""
    known = texts.unique()
    if not len(known):
        return pl.Series(dtype=dtype)
    return texts.replace_strict(known, pl.Series(map(meaning, known), dtype=dtype), return_dtype=dtype)


def _damaged(xml: str) -> ExportFailed:
    return unreadable(f"its sheet is damaged at {xml[:80]!r}")
