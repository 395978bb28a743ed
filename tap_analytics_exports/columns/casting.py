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
from tap_analytics_exports.columns.names import Bound
from tap_analytics_exports.parse import ROW_NUMBER, BadRow, TextFrame
from tap_analytics_exports.parse.base import line
from tap_analytics_exports.settings import Column, ColumnKind

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def cast(
    frame: TextFrame, bound: Sequence[Bound], *, missing: Sequence[str], timezone: str
) -> tuple[pl.DataFrame, list[BadRow]]:
    """See `Columns.cast`.

    Args:
        frame: Rows of text.
        bound: The columns to read.
        missing: Required columns that the file doesn't have, so that each row is a bad one.
        timezone: Of timestamps that don't say theirs.
    """
    rows = frame.rows.with_columns(
        frame.as_json(each.position) for each in bound if each.column.type == "json"
    )
    texts = [rows[str(each.position)] for each in bound]
    values = _values(rows, [(each.position, each.column) for each in bound], timezone)
    lost = {}
    for each, text, value in zip(bound, texts, values, strict=True):
        if each.required:
            if value.null_count():
                lost[each] = value.is_null()
        elif value.null_count() > text.null_count():
            lost[each] = value.is_null() & text.is_not_null()
    for key in missing:
        column = Column("string")
        lost[Bound(-1, key, column, required=True)] = pl.repeat(value=True, n=rows.height, eager=True)
    typed = pl.DataFrame(
        [*(value.alias(each.name) for value, each in zip(values, bound, strict=True)), rows[ROW_NUMBER]]
    )
    if not lost:
        return typed, []
    unfit = reduce(or_, lost.values())
    bad = []
    for index in unfit.arg_true():
        *fields, number = rows.row(index)
        culprit = next(each for each, mask in lost.items() if mask[index])
        seen = fields[culprit.position] if culprit.position >= 0 else None
        bad.append(BadRow(number, line(fields), _reason(culprit.column, seen), culprit.name))
    return typed.filter(~unfit), bad


def _values(rows: pl.DataFrame, columns: Sequence[tuple[int, Column]], timezone: str) -> list[pl.Series]:
    """Values of the columns' types; null where the text is null, or isn't one."""
    # Named by position, for to polars some names are patterns; and read at once, for each time has its price.
    usual = {}
    for position, column in columns:
        shape = timestamps.usual_shape(rows[str(position)]) if column.type == "timestamp" else None
        found = _usual(position, column, column.timezone or timezone, shape)
        if found is not None:
            usual[str(position)] = found
    read = rows.select_seq(**usual)  # here, not in a thread of polars', for which this one would only wait
    return [
        _read(rows[name], read[name] if name in usual else None, column, timezone)
        for name, column in ((str(position), column) for position, column in columns)
    ]


@cache
def _usual(position: int, column: Column, zone: str, shape: timestamps.Shape | None) -> pl.Expr | None:  # noqa: PLR0911 - one for each type
    """What a column's text means, as far as it is written in the usual way; None if there is none."""
    text = pl.col(str(position))
    match column.type:
        case "string":
            return text
        case "integer":
            return _fit(text, column, _INTEGER).cast(pl.Int64, strict=False)
        case "number":
            return _fit(text, column, _NUMBER).cast(pl.Float64, strict=False)
        case "decimal":
            return _fit(text, column, _DECIMAL)
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
        case "date" if column.format is not None:
            return timestamps.dates(text, column.format)
        case "timestamp":
            return timestamps.timestamps(text, column.format, column.timezone or timezone)
        case "json":
            return pl.Series([_json(each) for each in text], dtype=pl.String)
    assert usual is not None  # noqa: S101 - there is one for all other types
    return usual


def _reason(column: Column, seen: str | None) -> str:
    if seen is None:
        return "null in a primary key"
    if column.type in ("integer", "decimal") and _ROUNDED.fullmatch(seen):
        return f"{_REASONS[column.type]}: written with an exponent, its digits may be rounded"
    return _REASONS[column.type]


def _fit(text: pl.Expr, column: Column, pattern: str) -> pl.Expr:
    """The text that is a number by a pattern, without the signs between thousands."""
    sign = column.thousands
    if sign:
        # Who groups with dots has a comma before the fraction.
        point = "," if sign == "." else "."
        grouped = rf"^-?[1-9][0-9]{{0,2}}(?:{re.escape(sign)}[0-9]{{3}})+(?:{re.escape(point)}[0-9]+)?$"
        bare = text.str.replace_all(sign, "", literal=True)
        single = pl.when(~text.str.contains(sign, literal=True)).then(text)
        text = pl.when(text.str.contains(grouped)).then(bare).otherwise(single)
        text = text.str.replace(point, ".", literal=True)
    return pl.when(text.str.contains(pattern)).then(text)


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
