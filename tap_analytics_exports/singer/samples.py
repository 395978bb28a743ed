"""What a sample has shown, as YAML to paste into the settings of an export."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tap_analytics_exports.sampling import Sample, SampledColumn
from tap_analytics_exports.settings import Column
from tap_analytics_exports.singer.plans import span

_KEYS = ("string", "integer", "date", "timestamp")
_SHOWN = 40  # characters of an example


def as_yaml(sample: Sample) -> str:
    """Write the `columns` of an export, with what was seen as comments."""
    return "\n".join(_lines(sample)) + "\n"


def _lines(sample: Sample) -> Iterator[str]:
    if sample.problem is not None:
        yield f"# {sample.stream} ({sample.provider}): {_plain(sample.problem)}"
        return
    yield f"# {sample.stream} ({sample.provider}): {sample.rows} rows of {span(sample.window)}"
    if not sample.columns:
        yield "# no column was seen: sample a window that has rows, by start_date and end_date"
        return
    yield "columns:"
    for column in sample.columns:
        yield f"  {_quoted(column.key)}: {_setting(column.column)}{_comment(column)}"
    keys = [_quoted(each.key) for each in sample.columns if each.unique and each.column.type in _KEYS]
    if keys:
        yield f"# primary_keys: [{', '.join(keys)}]  # each is unique and never null in these rows; choose"
    else:
        yield "# none of the columns is unique and never null in these rows, as primary_keys would have to be"


def _setting(column: Column) -> str:
    """Write a type, and how it is written where that is not the usual way."""
    given: dict[str, str | bool] = {"type": column.type}
    for name in ("format", "timezone", "thousands", "name", "decimal", "strip", "truncate"):
        if (value := getattr(column, name)) != getattr(Column("string"), name):
            given[name] = value
    if len(given) == 1:
        return column.type
    return (
        "{"
        + ", ".join(
            f"{name}: {_quoted(value) if isinstance(value, str) else 'true'}" for name, value in given.items()
        )
        + "}"
    )


def _comment(column: SampledColumn) -> str:
    said = [f"such as {_quoted(column.example[:_SHOWN])}"] if column.example is not None else []
    said += [_plain(column.note)] if column.note else []
    return f"  # {'; '.join(said)}" if said else ""


def _quoted(text: str) -> str:
    """Write a text in double quotes, as JSON and YAML have it; what can't be seen as its number."""
    return "".join(
        char if char.isprintable() else f"\\U{ord(char):08x}" if ord(char) > 0xFFFF else f"\\u{ord(char):04x}"
        for char in json.dumps(text, ensure_ascii=False)
    )


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
