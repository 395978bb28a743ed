"""Names and types of columns; types as JSON Schema."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tap_analytics_exports import formats
from tap_analytics_exports.settings import Column, ColumnKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_OWN_PREFIX = "_sdc_"

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
        if column.timezone and (words := formats.zone_problem(column.timezone)):
            yield f"columns.{name}.timezone", words
        if column.format and (words := formats.format_problem(column.format)):
            yield f"columns.{name}.format", words
        if column.thousands and (
            len(column.thousands) > 1 or column.thousands.isalnum() or column.thousands == "-"
        ):
            yield f"columns.{name}.thousands", "must be one sign, and no digit, letter or minus"


class Columns:
    def __init__(self, export, *, style, dictionary, catalog={}, headers=(), names={}):
        self._types = {name: _column(given) for name, given in export.columns.items()}
        self._dictionary = {name: _column(given) for name, given in dictionary.items()}
        self._catalog = dict(catalog)
        self._style = style
        self._timezone = export.timezone or "UTC"
        self._required = [name for name in export.primary_keys or () if not name.startswith(_OWN_PREFIX)]
        self.known = {}
        self.names = {}
        for b in self.bind(headers):
            pass
        for name in (*export.columns, *(export.primary_keys or ())):
            if name not in self.known and name not in headers:
                b = self.bind([name])[0]
        self.known |= {n: c for n, c in self._catalog.items() if n not in self.known}
        self.primary_keys = []
        for key in export.primary_keys or ():
            if key in self.known:
                self.primary_keys.append(key)
            elif key in headers:
                self.primary_keys.append(property_names(headers, style)[list(headers).index(key)])
            else:
                self.primary_keys.append(property_names([key], style)[0])

    def unmatched(self):
        return []

    def check_empty(self, header):
        pass

    def bind(self, header):
        names = property_names(header, self._style)
        required = {
            key if key in names else names[header.index(key)]
            for key in self._required
            if key in names or key in header
        }
        bound = [
            Bound(position, name, self._known(name, word), name in required)
            for position, (name, word) in enumerate(zip(names, header, strict=True))
        ]
        for b in bound:
            self.known.setdefault(b.name, b.column)
        return bound

    def cast(self, frame, bound):
        from tap_analytics_exports.columns.casting import cast

        rows, bad = cast(frame, bound, missing=self._missing(frame.header), timezone=self._timezone)
        return rows, sorted([*frame.bad, *bad], key=lambda r: r.row_number)

    def _known(self, name: str, word: str) -> Column:
        for source in (self._types, self._catalog, self._dictionary):
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


def _column(given: ColumnKind | Column) -> Column:
    return given if isinstance(given, Column) else Column(given)


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


def column_of(schema):
    return Column(kind_of(schema))
