"""The settings described: one JSON Schema, from which `--about` and all tables and definitions are made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from tap_analytics_exports.settings.structs import ProviderSettings, TopLevel

_UNITS = ((86400, "P{}D"), (3600, "PT{}H"), (60, "PT{}M"))


def json_schema(blocks: Mapping[str, type[ProviderSettings]]) -> dict[str, Any]:
    """The JSON Schema of all settings, without references; it describes, `decode` is what validates.

    Args:
        blocks: The type of each known provider's block, by its name.
    """
    types = [TopLevel, *blocks.values()]
    (top, *rest), definitions = msgspec.json.schema_components(types, ref_template="{name}")
    schema: dict[str, Any] = _inline(top, definitions)
    schema.pop("title", None)
    schema.pop("description", None)
    for (name, block), reference in zip(blocks.items(), rest, strict=True):
        words = (block.__doc__ or name).partition("\n")[0]
        title = words.partition(":")[0]
        schema["properties"][name] = {**_inline(reference, definitions), "title": title, "description": words}
    return schema


def _inline(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema without references and nulls, which are how msgspec says "optional"."""
    if isinstance(schema, list):
        return [_inline(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        named = {key: value for key, value in schema.items() if key != "$ref"}
        return _inline({**definitions[schema["$ref"]], **named}, definitions)
    inlined = {
        key: _inline(part, definitions)
        for key, part in schema.items()
        if not (key == "default" and part is None)
    }
    options = [part for part in inlined.get("anyOf", []) if part != {"type": "null"}]
    if len(options) == 1:
        del inlined["anyOf"]
        inlined = {**options[0], **inlined}
    if inlined.get("format") == "duration" and "default" in inlined:
        inlined["default"] = _duration(inlined["default"])
    if "enum" in inlined:
        inlined.setdefault("type", "string")
    return inlined


def _duration(text: str) -> str:
    """A duration as people write it: msgspec knows no hours and no minutes."""
    seconds = int(msgspec.convert(text, timedelta).total_seconds())
    for unit, form in _UNITS:
        if seconds and seconds % unit == 0:
            return form.format(seconds // unit)
    return f"PT{seconds}S"
