"""What the command line is given: configuration, state and catalog, as JSON, or refused in a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from singer_sdk.configuration._dict_config import parse_environment_config

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.process import load_json

_TRUTHS = ("true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n", "")


@dataclass(frozen=True)
class Configuration:
    """The configuration of all `--config` together, as the SDK wants it."""

    config: dict[str, Any] = field(default_factory=dict)
    parse_env: bool = False  # it is in `config` already


def configuration(places: Iterable[str], schema: Mapping[str, Any], prefix: str) -> Configuration:
    """Read each `--config`, later ones over earlier ones.

    Args:
        places: Names of files, or `ENV` for the environment and a `.env` file.
        schema: JSON Schema of the settings.
        prefix: Of the environment's variables.

    Raises:
        SettingsError: One can't be read; what it holds is not shown, as it has secrets.
    """
    config: dict[str, Any] = {}
    for place in places:
        if place == "ENV":
            config |= _environment(schema, prefix)
            continue
        try:
            with Path(place).open(encoding="utf-8-sig") as file:
                config |= json_object(file, "config")
        except (OSError, ValueError) as error:
            shown = "what is given" if place.lstrip().startswith("{") else place
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
    content = load_json(file, what)
    if not isinstance(content, dict):
        raise SettingsError([f"{what}: {file.name}: holds no JSON object"])
    return content


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
        raise SettingsError(
            [f'state: {file.name}: is no state, such as {{"bookmarks": {{}}}}, nor a STATE message']
        )
    return content
