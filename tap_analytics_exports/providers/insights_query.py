"""The query that IntelePeer's Insights API takes, and the list of files that it gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from tap_analytics_exports.windows import Window


def query(
    event: str,
    filters: Mapping[str, Any],
    scope: Mapping[str, Any],
    *,
    window: Window,
    fields: Sequence[str],
    half_open: bool,
) -> dict[str, Any]:
    """A query for the records of `[start, end)` (IntelePeer, "Submit Query").

    `timestamp` is printed with `$gte` and `$lte`, which are inclusive, so that a record at the end would come
    with the next window too. Asking up to a second before would lose those in that second, should timestamps
    have a fraction. `$lt` is among the operators that the error message lists, and if it is refused here all
    the same, then a filter, where it is documented, leaves the end out.
    """
    start, end = second(window.start), second(window.end)
    conditions = by_event(event, filters)
    if not half_open:
        own = dict(conditions.get(event, {}))
        own["TimeStamp"] = {"$lt": end, **own.get("TimeStamp", {})}
        conditions = {**conditions, event: own}
    # `$lte` stays beside it, so that a server which passes over `$lt` does not give all that came later.
    span = {"$gte": start, "$lte": end} | ({"$lt": end} if half_open else {})
    parts = {
        "timestamp": span,
        "data": {event: {"fields": list(fields)}},
        "filters": conditions,
        "scope": scope,
    }
    return {name: part for name, part in parts.items() if part}


def by_event(event: str, filters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The filters, as the API takes them: by event, also where the user wrote the export's own without it."""
    conditions = filters.values()
    if all(isinstance(each, dict) and all(name.startswith("$") for name in each) for each in conditions):
        return {event: filters} if filters else {}
    return filters


def second(timestamp: datetime) -> str:
    """A timestamp as the API reads it; a fraction of a second belongs to the window after (code 422-6)."""
    return timestamp.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def paths_in(status: str) -> list[str]:
    """The files that an answer names, in a list as Python 2 writes it; empty: none, or nothing to be read.

    See IntelePeer, "Get Results Download Link"; they are sorted, so that rows keep their numbers.
    """
    found = re.search(r"Download:\s*(\[.*\])", status, re.DOTALL)
    paths = None
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        paths = ast.literal_eval(found[1]) if found else None
    if not paths or not all(isinstance(path, str) for path in paths):
        return []
    return sorted(set(paths))
