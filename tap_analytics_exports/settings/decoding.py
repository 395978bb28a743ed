"""From JSON values to settings, field by field, so that one run shows every mistake."""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct, inspect, structs

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.formats import column_problems, name_problems
from tap_analytics_exports.settings.checks import DAY, Check, did_you_mean
from tap_analytics_exports.settings.structs import (
    META_STREAMS,
    Column,
    Export,
    ProviderSettings,
    Settings,
    TopLevel,
    is_secret,
)

_HAS_MONTHS = re.compile(r"[+-]?P[^T]*[YM]", re.IGNORECASE)
_FEW = 12
"""So many known names are listed beside the one that was probably meant."""

_WORDS: Mapping[type[inspect.Type], str] = {
    inspect.StrType: "a text",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "true or false",
    inspect.TimeDeltaType: "a duration",
    inspect.DateTimeType: "a date or a date with a time",
    inspect.ListType: "a list",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
}


def decode(
    config: Mapping[str, Any],
    blocks: Mapping[str, type[ProviderSettings]],
    also: Collection[str] = (),
    broken: Mapping[str, str] | None = None,
) -> Settings:
    """Decode a configuration.

    Args:
        config: The configuration as the user wrote it, nested: JSON values.
        blocks: The type of each known provider's block, by its name.
        also: Names at the top level that are somebody else's to read.
        broken: Names of blocks that can't be used here, and why not.

    Returns:
        The settings, with each export's overrides filled in.

    Raises:
        SettingsError: With a line for every mistake that was found.
    """
    reader = _Reader()
    top = _names(TopLevel)
    broken = broken or {}
    reader.refuse_unknown(config, [*top, *blocks], "", [*also, *broken])
    for name in filter(config.get, broken):
        reader.say(name, broken[name])
    given = {key: value for key, value in config.items() if key in top}
    if not given.get("batch_config"):
        given.pop("batch_config", None)  # {} is none, as for the SDK
    settings = Settings(**reader.fields(TopLevel, given, ""))
    settings.start_date, settings.end_date = _utc(settings.start_date), _utc(settings.end_date)
    if settings.ca_bundle:
        settings.ca_bundle = str(Path(settings.ca_bundle).expanduser())
    used = [
        reader.block(name, kind, config[name], settings)
        for name, kind in blocks.items()
        if config.get(name) not in (None, "")
    ]
    if not any(used):
        reader.say("", f"no provider is configured: add a block, one of {', '.join(blocks)}")
        reader.problems.extend(("", warning) for warning in settings.warnings)
    if reader.problems:
        raise SettingsError([f"{path}: {words}" if path else words for path, words in reader.problems])
    return settings


class _Reader:
    """Reads settings, and gathers what is wrong with them, as (path, words)."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []
        self._streams = dict.fromkeys(META_STREAMS, "a stream of the tap's own")

    def say(self, path: str, words: str) -> None:
        """Remember a mistake."""
        self.problems.append((path, words))

    def refuse_unknown(
        self, given: Mapping[str, Any], known: Sequence[str], path: str, also: Collection[str] = ()
    ) -> None:
        """Name the settings that are not known, each with the known name that is nearest."""
        for key in given:
            if key not in known and key not in also:
                near = did_you_mean(str(key), [*known, *also])
                listed = f"; known here are {', '.join(known)}" if not near or len(known) <= _FEW else ""
                self.say(_join(path, key), f"is not a setting{listed}{near}")

    def block(self, name: str, kind: type[ProviderSettings], value: object, settings: Settings) -> bool:
        """Read a provider's block into the settings, and tell whether it is used."""
        if not isinstance(value, Mapping):
            self.say(name, _expected(kind, value))
            return True
        used = _is_used(kind, value)
        self.refuse_unknown(value, _names(kind), name)
        before = len(self.problems)
        fields = self.fields(kind, value, name, complete=used)
        right = len(self.problems) == before
        if not used:
            said = [
                f for f in structs.fields(kind) if fields.get(f.name) not in (None, "", [], {}, _default(f))
            ]
            if said:
                settings.warnings.append(f"{name}: is not used, for it has neither credentials nor exports")
            return False
        exports = fields.get("exports", [])
        for i, export in enumerate(exports):
            if isinstance(export, Export):  # and not None, which is a wrong one
                self._export(f"{name}.exports[{i}]", export, settings)
        if right:
            settings.providers[name] = block = kind(**fields)
            for path, words in (*_sign_in_problems(block), *block.problems()):
                self.say(f"{name}.{path}", words)
            if not exports:
                settings.warnings.append(f"{name}.exports: is empty, so nothing is exported from there")
        return True

    def fields(
        self, kind: type[Struct], given: Mapping[str, Any], path: str, *, complete: bool = True
    ) -> dict[str, Any]:
        """The fields of a struct that are given and right, by name.

        Args:
            kind: The struct.
            given: What the user wrote.
            path: Where.
            complete: Whether fields without a default have to be there; if not, an empty text is none, too.
        """
        found = {}
        for field in structs.fields(kind):
            value, here = given.get(field.encode_name), _join(path, field.encode_name)
            if value == "" and (field.required or not complete):  # as of an empty variable
                value = None
            if value is not None:
                found[field.name] = self._value(field.type, value, here)
            elif field.required and complete:
                self.say(here, f"is required; {_expected(field.type, None)}")
        return {name: value for name, value in found.items() if value is not None}

    def _value(self, kind: Any, value: object, path: str) -> Any:
        """A value as its annotation says; None where it is wrong, in lists for each wrong item."""
        before = len(self.problems)
        result = self._shaped(kind, value, path)
        if len(self.problems) > before:
            return result
        for words in filter(None, (check.problem(result) for check in _checks(kind))):
            self.say(path, words)
            return None
        return result

    def _shaped(self, kind: Any, value: object, path: str) -> Any:
        for choice in _choices(kind):
            inner = get_args(choice)
            if isinstance(value, Mapping) and isinstance(choice, type) and issubclass(choice, Struct):
                return self._struct(choice, value, path)
            if isinstance(value, Mapping) and get_origin(choice) is dict:
                return {
                    str(key): self._value(inner[1], part, _join(path, key)) for key, part in value.items()
                }
            if isinstance(value, list) and get_origin(choice) is list:
                return [self._value(inner[0], part, f"{path}[{i}]") for i, part in enumerate(value)]
        try:
            return msgspec.convert(_lenient(kind, value), kind)
        except msgspec.ValidationError:
            self.say(path, _expected(kind, value))
            return None

    def _struct(self, kind: type[Struct], value: Mapping[str, Any], path: str) -> Struct | None:
        self.refuse_unknown(value, _names(kind), path)
        before = len(self.problems)
        fields = self.fields(kind, value, path)
        return kind(**fields) if len(self.problems) == before else None

    def _export(self, path: str, export: Export, settings: Settings) -> None:
        """Fill in what is inherited, and check what no field alone can say."""
        if export.name in self._streams:
            self.say(
                f"{path}.name", f"{export.name!r} is already {self._streams[export.name]}; choose another"
            )
        self._streams[export.name] = path
        for name in ("window", "lookback", "start_date", "timezone", "export_timeout"):
            if getattr(export, name) is None:
                setattr(export, name, getattr(settings, name))
        export.start_date = _utc(export.start_date)
        told = any(problem == "start_date" for problem, _ in self.problems)
        if export.incremental and export.start_date is None and not told:
            self.say(
                f"{path}.start_date",
                "is required, here or at the top level, for an incremental export; such as 2026-01-31",
            )
        if export.incremental and export.whole_days and (export.window or DAY) < DAY:
            self.say(
                f"{path}.window", "must be whole days, such as P1D: this provider selects rows by the day"
            )
        for i, key in enumerate(export.primary_keys or ()):
            if key in export.exclude_columns:
                self.say(
                    f"{path}.primary_keys[{i}]", "is excluded by exclude_columns, but a key has to be there"
                )
        self._columns(path, export)

    def _columns(self, path: str, export: Export) -> None:
        """Check how columns are read, and what they are called."""
        columns = {name: each for name, each in export.columns.items() if isinstance(each, Column)}
        for name, column in columns.items():
            options = structs.asdict(column)
            for key, words in column_problems(options.pop("type"), **options):
                self.say(f"{path}.columns.{name}.{key}", words)
        names = {name: columns[name].name if name in columns else None for name in export.columns}
        for name, words in name_problems(names):
            self.say(f"{path}.columns.{name}.name", words)


def _is_used(kind: type[ProviderSettings], value: Mapping[str, Any]) -> bool:
    """Whether a block has credentials or exports: tools that write defaults down make blocks without."""
    telling = {"exports", *(name for way in kind.sign_in for name in way)}
    telling |= {field.encode_name for field in structs.fields(kind) if is_secret(field.type)}
    return any(value.get(name) not in (None, "", [], {}) for name in telling)


def _sign_in_problems(block: ProviderSettings) -> Iterator[tuple[str, str]]:
    """That no way to sign in is there whole."""
    if block.sign_in and not any(all(getattr(block, name) for name in way) for way in block.sign_in):
        first, *others = [" and ".join(f"`{name}`" for name in way) for way in block.sign_in]
        yield first.split("`")[1], " or ".join(["is required,", *others])


def _expected(kind: Any, value: object) -> str:
    """What a setting may be, in words; of its value only what is near to a choice."""
    words: list[str] = []
    examples: list[str] = []
    near = ""
    for node in _nodes(inspect.type_info(kind), examples):
        word = _WORDS.get(type(node), "another value")
        if isinstance(node, inspect.LiteralType):
            choices = [str(choice) or "an empty text" for choice in node.values]
            word = f"one of {', '.join(choices)}"
            near = near or (did_you_mean(value, choices) if isinstance(value, str) else "")
        elif isinstance(node, inspect.IntType) and node.ge is not None:
            word += f" of at least {node.ge}"
        elif isinstance(node, inspect.StrType) and node.pattern is not None:
            word += f" that matches {node.pattern}"
        elif isinstance(node, inspect.TimeDeltaType) and isinstance(value, str) and _HAS_MONTHS.match(value):
            near = "; years and months have no length of their own"
        if word not in words:
            words.append(word)
    such = f", such as {' or '.join(examples)}" if examples else ""
    return f"expected {' or '.join(words)}{such}{near}"


def _nodes(node: inspect.Type, examples: list[str]) -> Iterator[inspect.Type]:
    """The types that a value may be of, without null; and examples of it, gathered on the way."""
    if isinstance(node, inspect.Metadata):
        examples.extend((node.extra_json_schema or {}).get("examples", ()))
        yield from _nodes(node.type, examples)
    elif isinstance(node, inspect.UnionType):
        for each in node.types:
            yield from _nodes(each, examples)
    elif not isinstance(node, inspect.NoneType):
        yield node


def _choices(kind: Any) -> Iterator[Any]:
    """The types that an annotation allows."""
    if get_origin(kind) is Annotated:
        yield from _choices(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for each in get_args(kind):
            yield from _choices(each)
    else:
        yield kind


def _checks(kind: Any) -> Iterator[Check]:
    """The rules that stand beside the types that an annotation allows, the outer ones first."""
    yield from (each for each in getattr(kind, "__metadata__", ()) if isinstance(each, Check))
    if get_origin(kind) in (Annotated, Union, types.UnionType):
        for each in get_args(kind):
            yield from _checks(each)


def _lenient(kind: Any, value: object) -> object:
    """Weeks in durations, and dates without a time, which msgspec does not read."""
    if not isinstance(value, str):
        return value
    allowed = list(_choices(kind))
    if timedelta in allowed and (weeks := re.fullmatch(r"P(\d{1,6})W", value, re.ASCII)):
        return f"P{7 * int(weeks[1])}D"
    if datetime in allowed and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        return f"{value}T00:00:00"
    return value


def _default(field: structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _names(kind: type[Struct]) -> list[str]:
    return [field.encode_name for field in structs.fields(kind)]


def _utc(time: datetime | None) -> datetime | None:
    """A point in time in UTC, which one without an offset is taken to be in."""
    if time is None:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)


def _join(path: str, name: object) -> str:
    """The path of a part, on one line whatever its name."""
    text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(name))
    return f"{path}.{text}" if path else text
