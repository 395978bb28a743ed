"""Names and types: a frame of text becomes a typed one, and rows that don't fit; types as JSON Schema."""

from __future__ import annotations

import re
import unicodedata
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import polars as pl

from tap_analytics_exports import moments
from tap_analytics_exports.parse import ROW_NUMBER, BadRow, TextFrame
from tap_analytics_exports.parse.base import line
from tap_analytics_exports.settings import Column, ColumnKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_OWN_PREFIX = "_sdc_"

_DIGITS = "(?:0|[1-9][0-9]*)"
_INTEGER = f"^-?{_DIGITS}$"
_NUMBER = rf"^-?{_DIGITS}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"
# With a positive exponent, the digits that a decimal promises may have been rounded away.
_DECIMAL = rf"^-?{_DIGITS}(?:\.[0-9]+)?(?:[eE]-[0-9]+)?$"
_NOT_ZERO = r"^[-0.]*[1-9]"
_ROUNDED = re.compile(r"-?[0-9.]+[eE]\+?[0-9]+")

_TRUE = ["true", "t", "yes", "y", "1"]
_FALSE = ["false", "f", "no", "n", "0"]

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

_TYPES: dict[ColumnKind, dict[str, Any]] = {
    "string": {"type": ["string", "null"]},
    "integer": {"type": ["integer", "null"]},
    "number": {"type": ["number", "null"]},
    "decimal": {"type": ["string", "null"], "format": "singer.decimal"},
    "boolean": {"type": ["boolean", "null"]},
    "date": {"type": ["string", "null"], "format": "date"},
    "timestamp": {"type": ["string", "null"], "format": "date-time"},
    "json": {"type": ["object", "array", "string", "number", "boolean", "null"]},
}


class Bound(msgspec.Struct, frozen=True):
    """A column of a file, bound to what it becomes.

    Attributes:
        position: In the header, from 0.
        name: Of the property.
        column: Its type.
        required: Whether a row without it is a bad one.
    """

    position: int
    name: str
    column: Column
    required: bool = False


def property_schema(column: Column) -> dict[str, Any]:
    """The JSON Schema of a column's values, which may be null."""
    return dict(_TYPES[column.type])


def kind_of(schema: Mapping[str, Any]) -> ColumnKind:
    """The kind of column that a property is for, the opposite of `property_schema`."""
    given = schema.get("type", [])
    types = {given} if isinstance(given, str) else {*given} - {"null"}
    for kind, each in _TYPES.items():
        if types == {*each["type"]} - {"null"} and schema.get("format") == each.get("format"):
            return kind
    return "string" if types == {"string"} else "json"


def property_names(header: Sequence[str], style: Literal["snake_case", "original"]) -> list[str]:
    """Property names for a header's words: unique, and never one of the tap's own `_sdc_*`.

    The names of a header's first columns don't depend on what comes after them.
    """
    names: list[str] = []
    taken: set[str] = set()
    last: dict[str, int] = {}
    for position, word in enumerate(header, 1):
        stem = _snake_case(word) if style == "snake_case" else word
        if not any(map(_speaks, word)):
            stem = f"column_{position}"
        name = stem
        while name in taken or (name.startswith(_OWN_PREFIX) and name == stem):
            last[stem] = last.get(stem, 1) + 1
            name = f"{stem}_{last[stem]}"
        taken.add(name)
        names.append(name)
    return names


def problems(types: Mapping[str, ColumnKind | Column]) -> Iterator[tuple[str, str]]:
    """What of an export's `columns` can't be used to read text, as (path, words)."""
    for name, given in types.items():
        column = _column(given)
        if column.timezone and (words := moments.zone_problem(column.timezone)):
            yield f"columns.{name}.timezone", words
        if column.format and (words := moments.format_problem(column.format)):
            yield f"columns.{name}.format", words
        if column.thousands and (
            len(column.thousands) > 1 or column.thousands.isalnum() or column.thousands == "-"
        ):
            yield f"columns.{name}.thousands", "must be one sign, and no digit, letter or minus"


class Columns:
    """Knows the names and types of an export's columns.

    Args:
        types: The user's `columns`, by property name or header; the former wins.
        dictionary: The provider's documented columns, by header or property name; all others are text.
        style: How headers become property names.
        timezone: Of timestamps that don't say theirs, an IANA name.
        required: The declared primary keys, by property name or header: a null in one is a bad row.
    """

    def __init__(
        self,
        *,
        types: Mapping[str, ColumnKind | Column],
        dictionary: Mapping[str, ColumnKind | Column],
        style: Literal["snake_case", "original"],
        timezone: str,
        required: Collection[str] = (),
    ) -> None:
        self._types = {name: _column(given) for name, given in types.items()}
        self._dictionary = {name: _column(given) for name, given in dictionary.items()}
        self._style = style
        self._timezone = timezone
        self._required = [name for name in required if not name.startswith(_OWN_PREFIX)]

    def bind(self, header: Sequence[str]) -> list[Bound]:
        """Give each column of a header its property name and its type."""
        names = property_names(header, self._style)
        required = {
            key if key in names else names[header.index(key)]
            for key in self._required
            if key in names or key in header
        }
        return [
            Bound(position, name, self._known(name, word), name in required)
            for position, (name, word) in enumerate(zip(names, header, strict=True))
        ]

    def cast(self, frame: TextFrame, bound: Sequence[Bound]) -> tuple[pl.DataFrame, list[BadRow]]:
        """Read the text of the bound columns as their types say.

        Types are String (string, decimal, and json, whose text is JSON on one line), Int64, Float64, Boolean,
        Date and Datetime("us", "UTC").

        Returns:
            The rows that fit, columns by property name and `ROW_NUMBER`; and those that don't.
        """
        rows = frame.rows
        texts = [rows[str(each.position)] for each in bound]
        # Named by position until the end, for to polars some names are patterns.
        values = [self._read(text, each.column) for text, each in zip(texts, bound, strict=True)]
        lost = {}
        for each, text, value in zip(bound, texts, values, strict=True):
            if each.required:
                if value.null_count():
                    lost[each] = value.is_null()
            elif value.null_count() > text.null_count():
                lost[each] = value.is_null() & text.is_not_null()
        for key in self._missing(frame.header):
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

    def _known(self, name: str, word: str) -> Column:
        for source in (self._types, self._dictionary):
            for key in (name, word):
                if key in source:
                    return source[key]
        return Column("string")

    def _missing(self, header: Sequence[str]) -> list[str]:
        """The required columns that a file doesn't have."""
        if not self._required:
            return []
        known = {*header, *property_names(header, self._style)}
        return [key for key in self._required if key not in known]

    def _read(self, text: pl.Series, column: Column) -> pl.Series:  # noqa: PLR0911 - one for each type
        """Values of a column's type; null where the text is null, or isn't one."""
        match column.type:
            case "string":
                return text
            case "integer":
                return _fit(text, column, _INTEGER).cast(pl.Int64, strict=False)
            case "number":
                return _numbers(_fit(text, column, _NUMBER))
            case "decimal":
                return _fit(text, column, _DECIMAL)
            case "boolean":
                lower = text.str.to_lowercase()
                return _where(lower.is_in(_TRUE + _FALSE), lower.is_in(_TRUE))
            case "date":
                return moments.dates(text, column.format)
            case "timestamp":
                return moments.timestamps(text, column.format, column.timezone or self._timezone)
            case "json":
                return pl.Series([_json(each) for each in text], dtype=pl.String)


def _column(given: ColumnKind | Column) -> Column:
    return given if isinstance(given, Column) else Column(given)


def _reason(column: Column, seen: str | None) -> str:
    if seen is None:
        return "null in a primary key"
    if column.type in ("integer", "decimal") and _ROUNDED.fullmatch(seen):
        return f"{_REASONS[column.type]}: written with an exponent, its digits may be rounded"
    return _REASONS[column.type]


def _fit(text: pl.Series, column: Column, pattern: str) -> pl.Series:
    """The text that is a number by a pattern, without the signs between thousands."""
    sign = column.thousands
    if sign:
        # Who groups with dots has a comma before the fraction.
        point = "," if sign == "." else "."
        grouped = rf"^-?[1-9][0-9]{{0,2}}(?:{re.escape(sign)}[0-9]{{3}})+(?:{re.escape(point)}[0-9]+)?$"
        bare = text.str.replace_all(sign, "", literal=True)
        text = bare.zip_with(text.str.contains(grouped), _where(~text.str.contains(sign, literal=True), text))
        text = text.str.replace(point, ".", literal=True)
    return _where(text.str.contains(pattern), text)


def _numbers(text: pl.Series) -> pl.Series:
    """Doubles; what overflows or underflows is none."""
    values = text.cast(pl.Float64, strict=False)
    return _where(values.is_finite() & ((values != 0) | ~text.str.contains(_NOT_ZERO)), values)


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


def _where(condition: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(condition).then(values)).to_series()


def _speaks(sign: str) -> bool:
    """Letters, digits, and the marks that some scripts write vowels with."""
    return unicodedata.category(sign)[0] in "LNM"


def _snake_case(word: str) -> str:
    text = "".join(sign if _speaks(sign) else " " for sign in word)
    pieces: list[str] = []
    for place, sign in enumerate(text):
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        if sign.isupper() and (
            before.islower() or before.isnumeric() or (before.isupper() and after.islower())
        ):
            pieces.append(" ")
        pieces.append(sign)
    return "_".join("".join(pieces).lower().split())
