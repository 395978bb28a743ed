"""The settings as typed structs: decoded once, every mistake told with its path; JSON Schema is derived."""

from __future__ import annotations

from tap_analytics_exports.settings.checks import DAY, Check, did_you_mean, is_http
from tap_analytics_exports.settings.decoding import decode
from tap_analytics_exports.settings.describing import json_schema
from tap_analytics_exports.settings.structs import (
    META_STREAMS,
    Batch,
    BatchEncoding,
    BatchStorage,
    Column,
    ColumnKind,
    Export,
    HttpUrl,
    ProviderSettings,
    Secret,
    Settings,
    about,
    secrets,
)

__all__ = [
    "DAY",
    "META_STREAMS",
    "Batch",
    "BatchEncoding",
    "BatchStorage",
    "Check",
    "Column",
    "ColumnKind",
    "Export",
    "HttpUrl",
    "ProviderSettings",
    "Secret",
    "Settings",
    "about",
    "decode",
    "did_you_mean",
    "is_http",
    "json_schema",
    "secrets",
]
