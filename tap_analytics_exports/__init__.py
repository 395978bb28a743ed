"""Exports of analytics vendors: trigger one, wait for it, download a file, and have its rows, typed.

with Extraction(settings, state) as extraction:
    for event in extraction:
        match event:
            case Rows(stream, batch): ...
            case Ended(stream, job): ...
            case Checkpoint(state): ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_analytics_exports.checking import Checked
    from tap_analytics_exports.errors import CredentialsRefused, ExportsFailed, SettingsError
    from tap_analytics_exports.events import Checkpoint, Ended, Rows, Stream
    from tap_analytics_exports.extraction import Extraction
    from tap_analytics_exports.planning import PlannedJob

__all__ = [
    "Checked",
    "Checkpoint",
    "CredentialsRefused",
    "Ended",
    "ExportsFailed",
    "Extraction",
    "PlannedJob",
    "Rows",
    "SettingsError",
    "Stream",
]

_HOMES = {
    **dict.fromkeys(("Checkpoint", "Ended", "Rows", "Stream"), "events"),
    **dict.fromkeys(("CredentialsRefused", "ExportsFailed", "SettingsError"), "errors"),
    "Checked": "checking",
    "Extraction": "extraction",
    "PlannedJob": "planning",
}


def __getattr__(name: str) -> object:
    """Import what is asked for, so that a part of the package does not bring all of it along."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
