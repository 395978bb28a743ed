"""The providers: each is an entry point of the group `tap_analytics_exports.providers`, of any package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tap_analytics_exports.providers.base import Provider

GROUP = "tap_analytics_exports.providers"


@cache
def installed() -> dict[str, type[Provider[Any, Any]]]:
    """Every provider that is installed and can be imported, by name."""
    loaded = {point.name: _loaded(point) for point in _points()}
    return {name: kind for name, kind in loaded.items() if not isinstance(kind, str)}


@cache
def broken() -> dict[str, str]:
    """Every provider that is installed and can't be imported, by name, and why: it hurts only its users."""
    loaded = {point.name: _loaded(point) for point in _points()}
    return {name: why for name, why in loaded.items() if isinstance(why, str)}


def _points() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda point: point.name)


@cache
def _loaded(point: EntryPoint) -> type[Provider[Any, Any]] | str:
    package = point.dist.name if point.dist else "its package"
    try:
        kind = point.load()
    except Exception as error:  # noqa: BLE001 - of whatever a package of others does when it is imported
        why = f"{type(error).__name__}: {error}"
        return f"{package}, which has this provider, can't be imported ({why}); mend or remove it"
    if isinstance(kind, type) and issubclass(kind, Provider) and kind.name == point.name:
        return kind
    return f"{package}: {point.value} is no Provider whose name is {point.name}; mend or remove it"
