"""Text becomes typed values, column by column, and rows that don't fit are put aside."""

from __future__ import annotations

import re
from functools import cache, reduce
from math import inf
from operator import or_
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from tap_analytics_exports.columns import timestamps
from tap_analytics_exports.columns.naming import Bound
from tap_analytics_exports.formats import SPACES
from tap_analytics_exports.parse import ROW_NUMBER, BadRow, TextFrame
from tap_analytics_exports.parse.base import line
from tap_analytics_exports.parse.json import sources
from tap_analytics_exports.settings import Column, ColumnKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DIGITS = "(?:0|[1-9][0-9]*)"
_INTEGER = f"^-?{_DIGITS}$"
_NUMBER = rf"^-?{_DIGITS}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"
# With a positive exponent, the digits that a decimal promises may have been rounded away.
_DECIMAL = rf"^-?{_DIGITS}(?:\.[0-9]+)?(?:[eE]-[0-9]+)?$"
_NOT_ZERO = r"^[-0.]*[1-9]"
_ROUNDED = re.compile(r"-?[0-9.]+[eE]\+?[0-9]+")

_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}

_REASONS: dict[ColumnKind, str] = {
    "integer": "not an integer of 64 bits",
    "number": "not a finite number",
    "decimal": "not a decimal number",
    "boolean": "not a boolean (true/false, t/f, yes/no, y/n, 1/0)",
    "date": "not a date (YYYY-MM-DD, or as the column's `format` says)",
    "timestamp": "not a timestamp (ISO 8601, or as the column's `format` says) between the years 1 and 9999, "
    "to the microsecond, at a time that the clocks of its zone show",
    "json": "not JSON",
}


_WITHHELD = "(withheld, as exclude_columns is set, and where its fields begin and end is not known)"


def cast(
    frame: TextFrame,
    bound: Sequence[Bound],
    *,
    primary_keys: Sequence[str],
    timezone: str,
    null_values: Sequence[str],
    excluded: frozenset[int] | None,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """See `Columns.cast`.

    Args:
        frame: Rows of text.
        bound: The columns to read.
        primary_keys: The properties without which each row is a bad one.
        timezone: Of timestamps that don't say theirs.
        null_values: Further texts that are null.
        excluded: The positions of columns that no bad row may show; None: the settings exclude none.
    """
    rows = _without(frame.rows, bound, null_values) if null_values else frame.rows
    if frame.objects is not None:
        rows = _documents(rows, frame, bound)
    texts = [rows[str(each.position)] for each in bound]
    values = _values(_plain(rows, bound), bound, timezone)
    if frame.dated:
        found = zip(texts, values, bound, strict=True)
        values = [_dated(text, value, each.column, timezone) for text, value, each in found]
    if frame.dated or frame.objects is not None:  # whose numbers are written as computers write them
        as_it_is = (
            _values(rows, bound, timezone) if any(_is_grouped(each.column) for each in bound) else values
        )
        values = [
            _either(value, other) if _is_grouped(each.column) else value
            for value, other, each in zip(values, as_it_is, bound, strict=True)
        ]
    there = {each.name for each in bound}
    missing = [key for key in primary_keys if key not in there]
    lost = _lost(bound, texts, values, rows[ROW_NUMBER], missing)
    typed = pl.DataFrame(
        [*(value.alias(each.name) for value, each in zip(values, bound, strict=True)), rows[ROW_NUMBER]]
    )
    bad = frame.bad
    if excluded is not None:
        bad = [BadRow(row.row_number, _WITHHELD, row.reason, row.column) for row in bad]
    if not lost:
        return typed, bad
    unfit = reduce(or_, lost.values())
    bad = list(bad)
    for index in unfit.arg_true():
        *fields, number = frame.rows.row(index)
        culprit = next(each for each, mask in lost.items() if mask[index])
        seen = rows[index, str(culprit.position)] if culprit.position >= 0 else None
        shown = [text for position, text in enumerate(fields) if position not in (excluded or ())]
        bad.append(BadRow(number, line(shown), _reason(culprit, seen), culprit.name))
    bad.sort(key=lambda row: row.row_number)
    return typed.filter(~unfit), bad


def _lost(
    bound: Sequence[Bound],
    texts: Sequence[pl.Series],
    values: Sequence[pl.Series],
    numbers: pl.Series,
    missing: Iterable[str],
) -> dict[Bound, pl.Series]:
    """Which rows each column makes bad ones: its value can't be read, or is missing and must not be."""
    lost: dict[Bound, pl.Series] = {}
    for each, text, value in zip(bound, texts, values, strict=True):
        if each.required:
            if value.null_count():
                lost[each] = value.is_null()
        elif value.null_count() > text.null_count():
            lost[each] = value.is_null() & text.is_not_null()
    every = pl.repeat(value=True, n=len(numbers), dtype=pl.Boolean, eager=True)
    return lost | {Bound(-1, key, Column("string"), required=True): every for key in missing}


def _without(rows: pl.DataFrame, bound: Sequence[Bound], null_values: Sequence[str]) -> pl.DataFrame:
    """The rows with null where one of some texts stands."""
    texts = [pl.col(str(each.position)) for each in bound]
    return rows.with_columns(pl.when(~text.is_in(null_values)).then(text) for text in texts)


def _documents(rows: pl.DataFrame, frame: TextFrame, bound: Sequence[Bound]) -> pl.DataFrame:
    """The rows of a JSON file with columns of documents as they stand there, a string in quotes."""
    documents = [
        pl.when(pl.col(str(each.position)).is_not_null())
        .then(pl.lit(sources(frame, each.position)))
        .alias(str(each.position))
        for each in bound
        if each.column.type == "json"
    ]
    return rows.with_columns(documents) if documents else rows


def _plain(rows: pl.DataFrame, bound: Sequence[Bound]) -> pl.DataFrame:
    """The rows with numbers as computers write them, where the columns' settings say how they are written."""
    numbers = [
        _number(pl.col(str(each.position)), each.column)
        for each in bound
        if each.column.type in ("integer", "number", "decimal")
        and (each.column.thousands or each.column.strip or each.column.decimal != ".")
    ]
    return rows.with_columns(numbers) if numbers else rows


def _values(rows: pl.DataFrame, bound: Sequence[Bound], timezone: str) -> list[pl.Series]:
    """Values of the columns' types; null where the text is null, or isn't one."""
    # Named by position, for to polars some names are patterns; and read at once, for each time has its price.
    usual = {}
    for each in bound:
        name, column = str(each.position), each.column
        shape = timestamps.usual_shape(rows[name]) if column.type == "timestamp" else None
        found = _usual(name, column, column.timezone or timezone, shape)
        if found is not None:
            usual[name] = found
    read = rows.select_seq(**usual)  # here, not in a thread of polars', for which this one would only wait
    return [
        _read(rows[name], read[name] if name in usual else None, column, timezone)
        for name, column in ((str(each.position), each.column) for each in bound)
    ]


@cache
def _usual(name: str, column: Column, zone: str, shape: timestamps.Shape | None) -> pl.Expr | None:
    """What a column's text means, as far as it is written in the usual way; None if there is none."""
    text = pl.col(name)
    match column.type:
        case "string":
            return text
        case "integer":
            return _fit(text, _INTEGER).cast(pl.Int64, strict=False)
        case "number":
            return _fit(text, _NUMBER).cast(pl.Float64, strict=False)
        case "decimal":
            return _fit(text, _DECIMAL)
        case "boolean":
            return pl.when((text == "true") | (text == "false")).then(text == "true")
        case "date" if column.format is None:
            return timestamps.iso_dates(text)
        case "timestamp" if column.format is None and shape is not None:
            return timestamps.usual_timestamps(text, shape, zone)
    return None


def _read(text: pl.Series, usual: pl.Series | None, column: Column, timezone: str) -> pl.Series:
    """Values of a column, of which those that are written in the usual way are known."""
    if usual is not None and column.type == "number":
        usual = _exact(usual, text)
    if usual is not None and usual.null_count() == text.null_count():
        return usual
    match column.type:
        case "boolean":
            return text.str.to_lowercase().replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
        case "date" | "timestamp":
            return _times(text, column, timezone)
        case "json":
            return pl.Series([_json(each) for each in text], dtype=pl.String)
    assert usual is not None
    return usual


def _times(text: pl.Series, column: Column, timezone: str) -> pl.Series:
    """Dates or timestamps, as the column's `format` says."""
    if column.type == "timestamp":
        zone = column.timezone or timezone
        return timestamps.timestamps(text, column.format, zone, truncate=column.truncate)
    if column.format is None:
        return pl.select(timestamps.iso_dates(pl.lit(text))).to_series()
    return timestamps.dates(text, column.format)


def _dated(text: pl.Series, values: pl.Series, column: Column, timezone: str) -> pl.Series:
    """Values of a workbook's column: texts as its `format` says, and ISO 8601, as cells that are dates.

    Where both can be read and differ, it is neither.
    """
    whole = column.format is None and values.null_count() == text.null_count()
    if whole or column.type not in ("date", "timestamp"):
        return values
    if column.type == "date":  # at midnight a time is no more than a format of the cell
        iso = pl.select(timestamps.iso_dates(pl.lit(text.str.strip_suffix("T00:00:00")))).to_series()
    else:
        iso = timestamps.timestamps(text, None, column.timezone or timezone, truncate=column.truncate)
    return values.fill_null(iso).zip_with((values == iso).fill_null(value=True), values.clear(len(values)))


def _is_grouped(column: Column) -> bool:
    """Whether numbers are written otherwise than computers write them."""
    return column.type in ("integer", "number", "decimal") and (
        bool(column.thousands) or column.decimal != "."
    )


def _either(values: pl.Series, others: pl.Series) -> pl.Series:
    """Values that were read in two ways; null where both have one and it is not the same."""
    same = (values == others).fill_null(value=True)
    return values.fill_null(others).zip_with(same, values.clear(len(values)))


def _reason(culprit: Bound, seen: str | None) -> str:
    column = culprit.column
    if culprit.position < 0:
        return "the file has no such column, and it is a primary key"
    if seen is None:
        return "null in a primary key"
    if column.type in ("integer", "decimal") and _ROUNDED.fullmatch(seen):
        return f"{_REASONS[column.type]}: written with an exponent, its digits may be rounded"
    return _REASONS[column.type]


def _fit(text: pl.Expr, pattern: str) -> pl.Expr:
    """The text where it is written by a pattern."""
    return pl.when(text.str.contains(pattern)).then(text)


def _number(text: pl.Expr, column: Column) -> pl.Expr:
    """Numbers without what the column's settings put into them; null where they are written otherwise."""
    if column.strip:
        around = "".join(map(re.escape, column.strip))
        some = rf"(?:[{around}\s]*[{around}][{around}\s]*)?"
        # A minus may stand on either side of a currency.
        text = text.str.replace(rf"^(-?){some}(-?)(.*?){some}$", "${1}${2}${3}")
    # Who groups with dots has a comma before the fraction, said or not.
    point = "," if column.thousands == "." == column.decimal else column.decimal
    fraction = f"(?:{re.escape(point)}[0-9]+)?"
    written = rf"{_DIGITS}{fraction}(?:[eE][+-]?[0-9]+)?"
    if column.thousands:
        between = "[" + re.escape(SPACES if column.thousands in SPACES else column.thousands) + "]"
        # By threes; or by twos and the last by three, as in 1,23,45,678.
        threes = f"[1-9][0-9]{{0,2}}(?:{between}[0-9]{{3}})+"
        twos = f"[1-9][0-9]?(?:{between}[0-9]{{2}})+{between}[0-9]{{3}}"
        written = f"(?:{threes}|{twos}){fraction}|{written}"
        bare = text.str.replace_all(between, "")
    else:
        bare = text
    return pl.when(text.str.contains(f"^-?(?:{written})$")).then(bare.str.replace(point, ".", literal=True))


def _exact(values: pl.Series, text: pl.Series) -> pl.Series:
    """Doubles without those that have overflowed or underflowed."""
    if values.max() == inf or values.min() == -inf:
        values = values.zip_with(values.is_finite(), pl.Series([None], dtype=pl.Float64))
    zero = values == 0
    if zero.any():
        values = values.zip_with(~(zero & text.str.contains(_NOT_ZERO)), pl.Series([None], dtype=pl.Float64))
    return values


def _json(text: str | None) -> str | None:
    """JSON on one line, none if it isn't JSON."""
    if text is None:
        return None
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    # Line breaks in JSON are between its tokens, where any space will do.
    return text.replace("\r", " ").replace("\n", " ")
