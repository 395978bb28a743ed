"""A plan, to be read by people and by programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import msgspec

from tap_analytics_exports.planning import PlannedJob
from tap_analytics_exports.providers.base import Provider

_HEAD = ("stream", "provider", "window", "jobs", "action", "why")


def as_json(jobs: Sequence[PlannedJob], providers: Mapping[str, Provider[Any, Any]]) -> str:
    """Write a plan as a JSON object of `jobs`, each of them, and `providers`, by name."""
    limits = {
        name: {
            "trigger": trigger,
            "resume": resume,
            "max_concurrent_exports": provider.concurrent_exports,
            "requests_per_minute": provider.settings.requests_per_minute,
            "documented_limits": provider.documented_limits or None,
        }
        for name, provider, trigger, resume in _used(jobs, providers)
    }
    return msgspec.json.format(msgspec.json.encode({"jobs": jobs, "providers": limits})).decode()


def as_text(jobs: Sequence[PlannedJob], providers: Mapping[str, Provider[Any, Any]]) -> str:
    """Write a plan as a table, in which windows of a stream that are alike are one row, and its sums."""
    rows = [_HEAD, *(_row(list(alike)) for _, alike in groupby(jobs, _likeness))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines = lines if jobs else ["nothing to do: all windows are written"]
    lines.append("")
    for name, provider, trigger, resume in _used(jobs, providers):
        rate = provider.settings.requests_per_minute
        lines.append(
            f"{name}: {trigger} to trigger, {resume} to resume; at most {provider.concurrent_exports} at once"
            f"{f', {rate} requests a minute' if rate else ''}; the vendor's own limits: "
            f"{provider.documented_limits or 'none are documented'}"
        )
    return "\n".join(lines)


def _used(
    jobs: Iterable[PlannedJob], providers: Mapping[str, Provider[Any, Any]]
) -> Iterable[tuple[str, Provider[Any, Any], int, int]]:
    """Count the jobs of each provider: its name, itself, how many to trigger, how many to resume."""
    counts = {name: {"trigger": 0, "resume": 0} for name in providers}
    for job in jobs:
        counts[job.provider][job.action] += 1
    return [(name, providers[name], each["trigger"], each["resume"]) for name, each in counts.items()]


def _likeness(job: PlannedJob) -> tuple[object, ...]:
    return job.stream, job.action, job.source, job.why


def _row(alike: Sequence[PlannedJob]) -> Sequence[str]:
    first, last = alike[0], alike[-1]
    window = span(None if first.window is None or last.window is None else (first.window[0], last.window[1]))
    action = first.action if first.source is None else f"{first.action}, from {first.source}"
    since = f", at {_time(first.submitted_at)}" if first.submitted_at else ""
    since += " and later" if since and len(alike) > 1 else ""
    return first.stream, first.provider, window, str(len(alike)), action, first.why + since


def span(window: tuple[datetime, datetime] | None) -> str:
    """Write a span of time, or that there is none."""
    return "a snapshot" if window is None else f"{_time(window[0])}/{_time(window[1])}"


def _time(when: datetime) -> str:
    """Write a time as short as it can be without being another one."""
    text = when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="auto")
    return f"{text.removesuffix(':00')}Z" if text.endswith(":00:00") else f"{text}Z"
