"""What the command line is given: configuration, state and catalog, as JSON, or refused in a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct
from singer_sdk.configuration._dict_config import parse_environment_config

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.process import load_json
from tap_analytics_exports.windows import Window

_GIVE = {
    "config": "name a file that holds an object of settings",
    "state": "name a file that holds the last STATE of a run, or leave --state out",
    "catalog": "name a file that --discover has made",
}
_TRUTHS = ("true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n", "")


@dataclass(frozen=True)
class Configuration:
    """The configuration of all `--config` together, as the SDK wants it."""

    config: dict[str, Any] = field(default_factory=dict)
    parse_env: bool = False  # it is in `config` already


class _Schema(Struct, rename="camel"):
    """What of a JSON Schema is looked at; all else may be anything."""

    type: str | list[str] = []
    format: str = ""
    properties: dict[str, _Schema] = {}
    any_of: list[_Schema] = []
    one_of: list[_Schema] = []


class _Selection(Struct, rename="kebab"):
    """What of a metadata entry is looked at."""

    inclusion: str | None = None
    selected: bool | None = None
    selected_by_default: bool | None = None


class _Metadata(Struct):
    """What is said of a stream, or of one of its properties."""

    breadcrumb: list[str]
    metadata: _Selection


class _Entry(Struct):
    """A stream of a catalog."""

    tap_stream_id: str
    schema: _Schema
    metadata: list[_Metadata] = []
    key_properties: list[str] | None = None


class _Catalog(Struct):
    """What has to be right of a catalog, so that the SDK can read it."""

    streams: list[_Entry]


def configuration(sources: Iterable[str], schema: Mapping[str, Any], prefix: str) -> Configuration:
    """Read each `--config`, later ones over earlier ones.

    Args:
        sources: Names of files, or `ENV` for the environment and a `.env` file.
        schema: JSON Schema of the settings.
        prefix: Of the environment's variables.

    Raises:
        SettingsError: One can't be read; what it holds is not shown, as it has secrets.
    """
    config: dict[str, Any] = {}
    for source in sources:
        if source == "ENV":
            config |= _environment(schema, prefix)
            continue
        try:
            with Path(source).open(encoding="utf-8-sig") as file:
                config |= json_object(file, "config")
        except (OSError, ValueError) as error:
            shown = "what is given" if source.lstrip().startswith("{") else source
            why = getattr(error, "strerror", None) or "can't be read as UTF-8"
            raise SettingsError([f"config: {shown}: {why}; name a file that holds a JSON object"]) from None
    return Configuration(config)


def _environment(schema: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The settings that the environment has."""
    config: dict[str, Any] = {}
    for name, kind in schema["properties"].items():
        variable = f"{prefix}{name.upper()}"
        wrong = kind.get("type") == "boolean" and os.environ.get(variable, "").lower() not in _TRUTHS
        try:
            config |= parse_environment_config({"properties": {name: kind}}, prefix)
        except ValueError:
            wrong = True
        if wrong:
            wanted = {"integer": "a whole number", "boolean": "true or false"}.get(kind.get("type"), "JSON")
            raise SettingsError([f"{name}: the environment's {variable} is not {wanted}"])
    return config


def json_object(file: IO[str], what: str) -> dict[str, Any]:
    """Read the JSON object that a file holds.

    Args:
        file: The file.
        what: What it is for.

    Raises:
        SettingsError: It holds none.
    """
    content = load_json(file, what, _GIVE[what])
    if not isinstance(content, dict):
        raise SettingsError([f"{what}: {file.name}: holds no JSON object; {_GIVE[what]}"])
    return content


def catalog(file: IO[str]) -> dict[str, Any]:
    """Read a catalog.

    Raises:
        SettingsError: It is none.
    """
    content = json_object(file, "catalog")
    try:
        msgspec.convert(content, _Catalog)
    except (msgspec.ValidationError, RecursionError) as error:
        raise SettingsError(
            [f"catalog: {file.name}: is no catalog: {error}; make one with --discover"]
        ) from None
    return content


def names(text: str) -> list[str]:
    """Read names with commas between them.

    Raises:
        SettingsError: There is none.
    """
    found = [name for each in text.split(",") if (name := each.strip())]
    if not found:
        raise SettingsError(["--streams: names no stream; expected names, such as calls,messages"])
    return found


def span(text: str, option: str) -> tuple[datetime, datetime]:
    """Read START/END, each an ISO date or date-time.

    Raises:
        SettingsError: It is none, or there is nothing between them.
    """
    first, _, last = text.partition("/")
    try:
        start, end = datetime.fromisoformat(first.strip()), datetime.fromisoformat(last.strip())
        Window.between(start, end)
    except SettingsError as error:
        raise SettingsError([f"{option}: {error}"]) from None
    except ValueError:
        raise SettingsError(
            [
                (
                    f"{option}: {text!r} is not START/END, two dates or date-times of which the second is "
                    "exclusive, such as 2026-01-01/2026-02-01 or 2026-01-01T00:00:00Z/2026-01-01T06:00:00Z"
                )
            ]
        ) from None
    return start, end


def state(file: IO[str]) -> dict[str, Any]:
    """Read a state, taken out of a STATE message, or of what Meltano wraps it in.

    Raises:
        SettingsError: It is none.
    """
    content: Any = json_object(file, "state")
    if content.get("type") == "STATE":
        content = content.get("value")
    elif "singer_state" in content:
        content = content["singer_state"]
    if not isinstance(content, dict) or (content and not isinstance(content.get("bookmarks"), dict)):
        such = 'such as {"bookmarks": {}}, nor a STATE message'
        raise SettingsError([f"state: {file.name}: is no state, {such}; {_GIVE['state']}"])
    return content
