"""The settings as typed structs: decoded once, every mistake reported with its path, JSON Schema derived."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.formats import column_problems, name_problems, zone_problem

ColumnKind = Literal["string", "integer", "number", "decimal", "boolean", "date", "timestamp", "json"]
Secret = Annotated[str, Meta(extra_json_schema={"secret": True, "writeOnly": True})]

DAY = timedelta(days=1)
META_STREAMS = ("export_runs", "rejected_rows")


Moment = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]


def about(title: str, description: str) -> Meta:
    """Title and description of a setting, for `--about` and the README."""
    return Meta(title=title, description=description)


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """How the text of a column is read.

    Attributes:
        type: What its values become.
        format: For dates and timestamps, a `strptime` pattern, `epoch_seconds` or `epoch_milliseconds`; none:
            ISO 8601.
        timezone: For timestamps without a zone, the IANA zone they are in; none: the export's.
        thousands: For numbers, the character between groups of digits; a space means no-break spaces too.
        name: The property to become; none: the one that is derived from the header.
        decimal: For numbers, the character before the fraction.
        strip: For numbers, characters that are no part of them, such as "%$"; spaces beside them go too.
        truncate: For timestamps, whether digits beyond microseconds are cut; else they must be zeros.
    """

    type: ColumnKind
    format: str | None = None
    timezone: str | None = None
    thousands: str | None = None
    name: str | None = None
    decimal: str = "."
    strip: str = ""
    truncate: bool = False


class Export(Struct, kw_only=True, forbid_unknown_fields=True):
    """One configured extract, which becomes one stream; a provider's exports add their own settings.

    `window`, `lookback`, `start_date`, `timezone` and `export_timeout` are filled in from the top level
    when the settings are decoded, so that nobody has to look in two places.
    """

    name: Annotated[str, about("Name", "The stream's name, verbatim"), Meta(pattern="^[a-z][a-z0-9_]*$")]
    columns: Annotated[
        dict[str, ColumnKind | Column],
        about("Columns", "Column (its header or its property name) to type, or to an object with `type`"),
    ] = {}
    exclude_columns: Annotated[
        list[str],
        about("Excluded columns", "Headers or property names that never leave, not even in `rejected_rows`"),
    ] = []
    null_values: Annotated[
        list[str], about("Null values", "Further texts that mean null, such as -- or N/A")
    ] = []
    skip_rows: Annotated[
        int,
        about("Rows to skip", "Lines of CSV, or rows of a sheet, empty ones counted, before the header"),
        Meta(ge=0),
    ] = 0
    quote: Annotated[Literal['"', ""], about("Quote", "Of CSV files; empty: the file knows no quoting")] = '"'
    primary_keys: Annotated[
        list[str] | None,
        about("Primary keys", "Headers or property names; none: window start and row number"),
    ] = None
    window: Annotated[timedelta | None, about("Window", "Overrides the top level's `window`")] = None
    lookback: Annotated[timedelta | None, about("Lookback", "Overrides the top level's `lookback`")] = None
    start_date: Annotated[datetime | None, about("Start date", "Overrides the top level's `start_date`")] = (
        None
    )
    timezone: Annotated[str | None, about("Time zone", "Overrides the top level's `timezone`")] = None
    export_timeout: Annotated[
        timedelta | None, about("Export timeout", "Overrides the top level's `export_timeout`")
    ] = None
    encoding: Annotated[
        str | None, about("Encoding", "Of CSV files; a byte order mark wins; none: UTF-8")
    ] = None
    delimiter: Annotated[str, about("Delimiter", "Between the fields of CSV files")] = ","
    sheet: Annotated[str | None, about("Sheet", "Of XLSX files; none: the first")] = None

    whole_days: ClassVar[bool] = False

    @property
    def incremental(self) -> bool:
        """Whether the provider can be asked for a window; otherwise each run takes a snapshot."""
        return True

    @property
    def zone(self) -> ZoneInfo:
        """The time zone whose midnights the windows align to."""
        return ZoneInfo(self.timezone or "UTC")


class BatchEncoding(Struct, kw_only=True, forbid_unknown_fields=True):
    """How batch files are written."""

    format: Annotated[Literal["jsonl", "parquet"], about("Format", "Of batch files")]
    compression: Annotated[
        Literal["gzip", "none"] | None, about("Compression", "None given: Snappy for Parquet, else none")
    ] = None


class BatchStorage(Struct, kw_only=True, forbid_unknown_fields=True):
    """Where batch files go."""

    root: Annotated[str, about("Root", "A folder as file:///path, or s3://bucket/path")]
    prefix: Annotated[str | None, about("Prefix", "Of the names of batch files")] = None

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one of this machine."""
        if "://" in self.root and not self.root.startswith("file://"):
            return None
        return Path(self.root.removeprefix("file://")).expanduser().absolute()

    def url(self, name: str) -> str:
        """The address of a file, as the SDK's targets read it: without an escape for any sign."""
        return f"{self.root.rstrip('/')}/{name}" if self.folder is None else f"file://{self.folder / name}"


class Batch(Struct, kw_only=True, forbid_unknown_fields=True):
    """BATCH messages in place of RECORD messages, as the SDK defines them."""

    encoding: BatchEncoding
    storage: BatchStorage
    batch_size: Annotated[int, about("Batch size", "Rows of a file, at most"), Meta(ge=1)] = 10_000


class ProviderSettings(Struct, kw_only=True, forbid_unknown_fields=True):
    """What every provider's block has; each adds its credentials and the type of its `exports`."""

    base_url: Annotated[str, about("Base URL", "Where the provider's API is")]
    max_concurrent_exports: Annotated[
        int,
        about("Concurrent exports", "Jobs that may run at the provider at once, over all streams"),
        Meta(ge=1),
    ] = 2
    requests_per_minute: Annotated[
        int | None, about("Requests per minute", "At most this many in any 60 seconds; none: no limit")
    ] = None

    def __repr__(self) -> str:
        """Without values, for some are secrets."""
        return type(self).__name__

    @property
    def all_exports(self) -> list[Export]:
        """The block's `exports`, whatever their type."""
        return list(getattr(self, "exports", []))

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong beyond types, as (path within the block, words)."""
        yield from ()


class Settings(Struct, kw_only=True):
    """The top level; `providers` holds the decoded block of each provider that is used."""

    start_date: Annotated[
        Moment | None,
        about("Start date", "Where a first run of an incremental export begins; without an offset it is UTC"),
    ] = None
    end_date: Annotated[Moment | None, about("End date", "Exclusive end of this run; none: now")] = None
    window: Annotated[timedelta, about("Window", "Length of a window, aligned to the day in `timezone`")] = (
        DAY
    )
    lookback: Annotated[
        timedelta, about("Lookback", "How far behind the bookmark each run reaches again for late rows")
    ] = timedelta(0)
    timezone: Annotated[str, about("Time zone", "IANA name of the zone whose midnight windows align to")] = (
        "UTC"
    )
    poll_interval: Annotated[timedelta, about("Poll interval", "First wait between two looks at a job")] = (
        timedelta(seconds=5)
    )
    poll_interval_max: Annotated[
        timedelta, about("Longest poll interval", "Longest wait between two looks at a job")
    ] = timedelta(minutes=1)
    export_timeout: Annotated[
        timedelta,
        about("Export timeout", "A job that is not ready by then is cancelled and counts as failed"),
    ] = timedelta(hours=2)
    on_bad_row: Annotated[
        Literal["divert", "fail"],
        about(
            "On a bad row",
            "A row that does not fit its columns goes to the stream `rejected_rows`, or fails the export",
        ),
    ] = "divert"
    rejected_rows_limit: Annotated[
        int,
        about("Limit of rejected rows", "More diverted rows than this in one window fail the export"),
        Meta(ge=0),
    ] = 1000
    on_new_column: Annotated[
        Literal["add", "ignore", "fail"],
        about("On a new column", "What a column of the file does that the catalog does not know"),
    ] = "add"
    column_names: Annotated[
        Literal["snake_case", "original"],
        about("Column names", "How a header becomes a property name; duplicates get `_2`, `_3`"),
    ] = "snake_case"
    spool_dir: Annotated[
        str | None,
        about(
            "Spool folder",
            "Where downloads wait, private, until a run ends or, if it died, the next; none: the system's",
        ),
    ] = None
    spool_limit: Annotated[
        int,
        about(
            "Spool limit",
            "Bytes of downloads that may wait for their turn, a provider; then no job is triggered",
        ),
        Meta(ge=1),
    ] = 10 * 1024**3
    ledger: Annotated[
        str | None,
        about(
            "Ledger",
            "Folder that remembers triggered jobs beyond the state; none: the user's; empty: off",
        ),
    ] = None
    ca_bundle: Annotated[
        str | None,
        about("CA bundle", "A PEM file of further certificate authorities for HTTPS"),
    ] = None
    allow_unverified_downloads: Annotated[
        bool, about("Allow unverified downloads", "Accept a file whose end nothing proves")
    ] = False
    batch_config: Annotated[
        Batch | None,
        about(
            "Batch files",
            "Rows go as files: `encoding` (`format` = `jsonl`, `parquet`; `compression` = `gzip`, `none`), "
            "`storage` (`root`, `prefix`), `batch_size` (rows of a file, 10000); none: as RECORD messages",
        ),
    ] = None

    providers: dict[str, ProviderSettings] = {}


def decode(config: Mapping[str, Any], blocks: Mapping[str, type[ProviderSettings]]) -> Settings:
    """Decode a configuration.

    Args:
        config: The configuration as the user wrote it, nested.
        blocks: The type of each known provider's block, by its name.

    Returns:
        The settings, with each export's overrides filled in.

    Raises:
        SettingsError: With a line for every mistake that was found.
    """
    problems: list[str] = []
    top = {key: value for key, value in config.items() if key in Settings.__struct_fields__}
    top.pop("providers", None)
    top = {key: value for key, value in top.items() if key != "batch_config" or value}  # {} is none
    settings: Settings | None = _struct(Settings, top, "", problems)
    decoded = {
        name: _struct(block, config[name], name, problems)
        for name, block in blocks.items()
        if config.get(name) is not None
    }
    if not decoded:
        problems.append(f"no provider is configured: add a block, one of {', '.join(blocks)}")
    if settings is not None:
        settings.providers = {name: block for name, block in decoded.items() if block is not None}
        problems.extend(f"{path}: {words}" for path, words in _checks(settings))
    if problems or settings is None:
        raise SettingsError(problems)
    return settings


def json_schema(blocks: Mapping[str, type[ProviderSettings]]) -> dict[str, Any]:
    """The JSON Schema of all settings, without references; it describes, `decode` is what validates."""
    types = [Settings, *blocks.values()]
    (top, *rest), definitions = msgspec.json.schema_components(types, ref_template="{name}")
    schema: dict[str, Any] = _inline(top, definitions)
    del schema["properties"]["providers"]
    schema.pop("title", None)
    schema.pop("description", None)
    for (name, block), reference in zip(blocks.items(), rest, strict=True):
        title = name.replace("_", " ").capitalize()
        words = (block.__doc__ or title).partition("\n")[0]
        schema["properties"][name] = {**_inline(reference, definitions), "title": title, "description": words}
    return schema


def is_http(url: str) -> bool:
    """Whether a URL is one of http or https, with a host, and a port that can be."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def secrets(value: Any) -> Iterator[str]:  # noqa: ANN401 - any part of the settings
    """Every secret that a part of the settings holds."""
    if isinstance(value, Struct):
        for field in msgspec.structs.fields(value):
            inner = getattr(value, field.name)
            if inner and "'secret': True" in repr(field.type):
                yield inner
            else:
                yield from secrets(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from secrets(inner)


def _struct(kind: type[Any], value: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    """Decode a struct field by field, so that one run shows every mistake."""
    if not isinstance(value, Mapping):
        problems.append(f"{path}: expected an object")
        return None
    before = len(problems)
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    problems.extend(
        f"{_join(path, key)}: is not a setting; known here are {', '.join(known)}"
        for key in value
        if key not in known
    )
    decoded = {}
    for name, field in known.items():
        given = value.get(name)
        if field.required and given in (None, ""):  # a variable of the environment may be empty
            problems.append(f"{_join(path, name)}: is required")
        elif given is not None:
            decoded[name] = _value(field.type, given, _join(path, name), problems)
    return kind(**decoded) if len(problems) == before else None


def _value(kind: Any, value: Any, path: str, problems: list[str]) -> Any:  # noqa: ANN401
    if get_origin(kind) is Annotated:
        inner = get_args(kind)[0]
        if get_origin(inner) in (list, dict):
            return _value(inner, value, path, problems)
    elif isinstance(kind, type) and issubclass(kind, Struct):
        return _struct(kind, value, path, problems)
    elif get_origin(kind) is list and isinstance(value, list):
        (item,) = get_args(kind)
        return [_value(item, part, f"{path}[{i}]", problems) for i, part in enumerate(value)]
    elif get_origin(kind) is dict and isinstance(value, Mapping):
        _, item = get_args(kind)
        return {str(key): _value(item, part, _join(path, str(key)), problems) for key, part in value.items()}
    try:
        return msgspec.convert(_lenient(kind, value), kind)
    except msgspec.ValidationError as error:
        words, _, inner_path = str(error).partition(" - at `$")
        problems.append(f"{path}{inner_path.rstrip('`')}: {words[:1].lower()}{words[1:]}")
        return None


def _lenient(kind: Any, value: Any) -> Any:  # noqa: ANN401
    """Weeks in durations, and dates without a time, which msgspec does not read."""
    if isinstance(value, str):
        if "timedelta" in repr(kind) and (weeks := re.fullmatch(r"P(\d+)W", value)):
            return f"P{7 * int(weeks[1])}D"
        if "datetime.datetime" in repr(kind) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            return f"{value}T00:00:00Z"
    return value


def _checks(settings: Settings) -> Iterator[tuple[str, str]]:
    """Fill in what is inherited, and check what types can't say."""
    settings.start_date = _utc(settings.start_date)
    settings.end_date = _utc(settings.end_date)
    for name, check in _CHECKS.items():
        yield from check(name, getattr(settings, name))
    for name in ("poll_interval", "poll_interval_max"):
        yield from _length_check(name, getattr(settings, name))
    yield from _batch_checks(settings.batch_config)
    seen: dict[str, str] = dict.fromkeys(META_STREAMS, "a stream of the tap's own")
    for name, block in settings.providers.items():
        if not is_http(block.base_url):
            yield f"{name}.base_url", "must be an http or https URL"
        if block.requests_per_minute is not None and block.requests_per_minute < 1:
            yield f"{name}.requests_per_minute", "must be at least 1"
        for words_path, words in block.problems():
            yield f"{name}.{words_path}", words
        for i, export in enumerate(block.all_exports):
            path = f"{name}.exports[{i}]"
            if export.name in seen:
                yield f"{path}.name", f"{export.name!r} is already {seen[export.name]}"
            seen[export.name] = path
            yield from _export_checks(path, export, settings)


def _batch_checks(batch: Batch | None) -> Iterator[tuple[str, str]]:
    if batch is None or batch.storage.folder is not None:
        return
    if not batch.storage.root.startswith("s3://"):
        yield "batch_config.storage.root", "must be a folder, file:///path, or s3://bucket/path"
    elif importlib.util.find_spec("boto3") is None:
        yield "batch_config.storage.root", "s3:// needs pip install 'tap-analytics-exports[s3]'"


def _export_checks(path: str, export: Export, settings: Settings) -> Iterator[tuple[str, str]]:
    for name in ("window", "lookback", "start_date", "timezone", "export_timeout"):
        if getattr(export, name) is None:  # if it is wrong at the top level, that has been said
            setattr(export, name, getattr(settings, name))
        elif name in _CHECKS:
            yield from _CHECKS[name](f"{path}.{name}", getattr(export, name))
    export.start_date = _utc(export.start_date)
    if export.incremental and export.start_date is None:
        yield f"{path}.start_date", "is required, here or at the top level, for an incremental export"
    if export.incremental and export.whole_days and (export.window or DAY) < DAY:
        yield f"{path}.window", "must be whole days: this provider selects rows by the day"
    yield from _file_checks(path, export)


def _file_checks(path: str, export: Export) -> Iterator[tuple[str, str]]:
    if len(export.delimiter) != 1 or export.delimiter in '"\r\n' or not export.delimiter.isascii():
        yield f"{path}.delimiter", "must be one ASCII character, and no quote or line break"
    if export.encoding is not None:
        try:
            "".encode(export.encoding)  # refuses codecs that are not of text, too
        except (LookupError, ValueError):
            yield f"{path}.encoding", "is not an encoding of text that Python knows"
    given = {name: each for name, each in export.columns.items() if isinstance(each, Column)}
    for name, column in given.items():
        options = msgspec.structs.asdict(column)
        for key, words in column_problems(options.pop("type"), **options):
            yield f"{path}.columns.{name}.{key}", words
    for name, words in name_problems(
        {name: getattr(each, "name", None) for name, each in export.columns.items()}
    ):
        yield f"{path}.columns.{name}.name", words


def _zone_check(path: str, name: str) -> Iterator[tuple[str, str]]:
    if words := zone_problem(name):
        yield path, words


def _window_check(path: str, window: timedelta) -> Iterator[tuple[str, str]]:
    if window <= timedelta(0):
        yield path, "must be longer than nothing"
    elif window > DAY and window % DAY:
        yield path, "longer than a day must be whole days"


def _lookback_check(path: str, lookback: timedelta) -> Iterator[tuple[str, str]]:
    if lookback < timedelta(0):
        yield path, "must not be negative"


def _length_check(path: str, length: timedelta) -> Iterator[tuple[str, str]]:
    if length <= timedelta(0):
        yield path, "must be longer than nothing"


_CHECKS: Mapping[str, Callable[[str, Any], Iterator[tuple[str, str]]]] = {
    "window": _window_check,
    "lookback": _lookback_check,
    "timezone": _zone_check,
    "export_timeout": _length_check,
}
"""Of settings that an export may override, what types can't say."""


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _inline(schema: Any, definitions: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A schema without references and nulls, which are how msgspec says "optional"."""
    if isinstance(schema, list):
        return [_inline(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(
            {**definitions[schema["$ref"]], **{k: v for k, v in schema.items() if k != "$ref"}}, definitions
        )
    inlined = {
        key: _inline(part, definitions)
        for key, part in schema.items()
        if not (key == "default" and part is None) and key != "additionalProperties"
    }
    if inlined.get("format") == "duration" and "default" in inlined:
        inlined["default"] = _duration(inlined["default"])
    options = [part for part in inlined.get("anyOf", []) if part != {"type": "null"}]
    if len(options) == 1:
        del inlined["anyOf"]
        inlined = {**options[0], **inlined}
    return inlined


def _duration(text: str) -> str:
    """A duration as people write it: msgspec knows no hours and no minutes."""
    seconds = int(msgspec.convert(text, timedelta).total_seconds())
    for unit, sign in ((86400, "P{}D"), (3600, "PT{}H"), (60, "PT{}M")):
        if seconds and seconds % unit == 0:
            return sign.format(seconds // unit)
    return f"PT{seconds}S"
