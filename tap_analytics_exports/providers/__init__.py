"""The providers: each is an entry point of the group `tap_analytics_exports.providers`, of any package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from tap_analytics_exports.providers.base import Provider


@cache
def installed() -> dict[str, type[Provider[Any, Any]]]:
    """Every provider that is installed, by name."""
    points = entry_points(group="tap_analytics_exports.providers")
    return {point.name: point.load() for point in sorted(points, key=lambda point: point.name)}
