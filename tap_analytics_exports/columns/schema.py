"""Types of columns as JSON Schema, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tap_analytics_exports.settings import Column, ColumnKind

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
_FORMATS: dict[str, ColumnKind] = {"singer.decimal": "decimal", "date": "date", "date-time": "timestamp"}
_SCALARS: dict[str, ColumnKind] = {"integer": "integer", "number": "number", "boolean": "boolean"}
_ANY = {"object", "array", "string", "number", "integer", "boolean"}


def property_schema(column: Column) -> dict[str, Any]:
    """The JSON Schema of a column's values, which may be null."""
    return dict(_TYPES[column.type])


def column_of(schema: Mapping[str, Any]) -> Column | None:
    """The column whose values a property is for, nullable or not; the opposite of `property_schema`.

    Texts of several formats are a string; what may be an object, an array or anything is `json`. None for
    what no column's values are, such as "an integer or a text".
    """
    kinds = _kinds(schema)
    if kinds == {"integer", "number"}:
        return Column("number")
    if len(kinds) > 1 and kinds <= {"string", *_FORMATS.values()}:
        return Column("string")
    return Column(kinds.pop()) if len(kinds) == 1 else None


def _kinds(schema: Mapping[str, Any]) -> set[ColumnKind]:
    """All kinds that a schema allows; none, if it is nothing that we know."""
    for word in ("anyOf", "oneOf"):
        if word in schema:
            parts = [_kinds(part) for part in schema[word] if part.get("type") not in ("null", ["null"])]
            return set().union(*parts) if all(parts) else set()
    if "$ref" in schema or "allOf" in schema:
        return set()
    given = schema.get("type", [])
    types = ({given} if isinstance(given, str) else {*given}) - {"null"}
    if types & {"object", "array"} or types >= _ANY - {"object", "array", "integer"} or "type" not in schema:
        return {"json"} if types <= _ANY else set()
    if types == {"string"}:
        return {_FORMATS.get(schema.get("format", ""), "string")}
    return {_SCALARS[each] for each in types} if types <= {*_SCALARS} else set()
