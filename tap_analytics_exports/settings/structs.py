"""The settings as the user writes them. All words about one stand here, once, for whoever shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from tap_analytics_exports.settings import checks
from tap_analytics_exports.settings.checks import DAY, Check

META_STREAMS = ("export_runs", "rejected_rows")

ColumnKind = Literal["string", "integer", "number", "decimal", "boolean", "date", "timestamp", "json"]

_SECRET = Meta(extra_json_schema={"secret": True, "writeOnly": True})
Secret = Annotated[str, _SECRET]
"""A text that no message may show."""

_DURATION = Meta(examples=["P1D", "PT6H"])
Length = Annotated[timedelta, _DURATION, Check(checks.length_problem)]
WindowLength = Annotated[timedelta, _DURATION, Check(checks.window_problem)]
Lookback = Annotated[timedelta, _DURATION, Check(checks.lookback_problem)]
Time = Annotated[
    datetime,
    Meta(extra_json_schema={"format": "date-time"}, examples=["2026-01-31", "2026-01-31T06:00:00Z"]),
    Check(checks.time_problem),
]
ZoneName = Annotated[str, Meta(examples=["Europe/Helsinki"]), Check(checks.timezone_problem)]
HttpUrl = Annotated[str, Meta(examples=["https://api.example.com"]), Check(checks.url_problem)]


def about(title: str, description: str) -> Meta:
    """Title and description of a setting, for `--about`, the README, Meltano and its Hub."""
    return Meta(title=title, description=description)


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """How the text of a column is read."""

    type: Annotated[ColumnKind, about("Type", "What the values become")]
    format: Annotated[
        str | None,
        about(
            "Format",
            "Of dates and timestamps: a `strptime` pattern such as `%m/%d/%Y %H:%M`, `epoch_seconds` or "
            "`epoch_milliseconds`; none: ISO 8601",
        ),
    ] = None
    timezone: Annotated[
        str | None,
        about("Time zone", "Of timestamps that don't say theirs, an IANA name; none: the export's"),
    ] = None
    thousands: Annotated[
        str | None,
        about(
            "Thousands",
            "Of numbers: the character between groups of digits; a space means no-break spaces too",
        ),
    ] = None
    name: Annotated[
        str | None, about("Name", "The property to become; none: the one that is derived from the header")
    ] = None
    decimal: Annotated[str, about("Decimal", "Of numbers: the character before the fraction")] = "."
    strip: Annotated[
        str,
        about(
            "Strip",
            "Of numbers: characters that are no part of them, such as `%$`; spaces beside them go too",
        ),
    ] = ""
    truncate: Annotated[
        bool,
        about("Truncate", "Of timestamps: digits beyond microseconds are cut; else they must be zeros"),
    ] = False


class Export(Struct, kw_only=True, forbid_unknown_fields=True):
    """One configured extract, which becomes one stream; a provider's exports add their own settings.

    `window`, `lookback`, `start_date`, `timezone` and `export_timeout` are filled in from the top level
    when the settings are decoded, so that nobody has to look in two places.
    """

    name: Annotated[
        str,
        about("Name", "The stream's name, verbatim"),
        Meta(pattern="^[a-z][a-z0-9_]*$", examples=["conversations"]),
        Check(checks.name_problem),
    ]
    columns: Annotated[
        dict[str, ColumnKind | Column],
        about("Columns", "Column (its header or its property name) to type, or to an object with `type`"),
    ] = {}
    exclude_columns: Annotated[
        list[str],
        about("Excluded columns", "Headers or property names that never leave, not even in `rejected_rows`"),
        Check(checks.names_problem),
    ] = []
    null_values: Annotated[
        list[str],
        about("Null values", "Further texts that mean null, such as -- or N/A"),
        Check(checks.texts_problem),
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
        Check(checks.names_problem),
    ] = None
    window: Annotated[WindowLength | None, about("Window", "Overrides the top level's `window`")] = None
    lookback: Annotated[Lookback | None, about("Lookback", "Overrides the top level's `lookback`")] = None
    start_date: Annotated[Time | None, about("Start date", "Overrides the top level's `start_date`")] = None
    timezone: Annotated[ZoneName | None, about("Time zone", "Overrides the top level's `timezone`")] = None
    export_timeout: Annotated[
        Length | None, about("Export timeout", "Overrides the top level's `export_timeout`")
    ] = None
    encoding: Annotated[
        str | None,
        about("Encoding", "Of CSV files; a byte order mark wins; none: UTF-8"),
        Check(checks.encoding_problem),
    ] = None
    delimiter: Annotated[
        str | None,
        about("Delimiter", "Between the fields of CSV files; none: what a `sep=` line says, else a comma"),
        Check(checks.delimiter_problem),
    ] = None
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

    root: Annotated[
        str,
        about("Root", "A folder as file:///path, or s3://bucket/path"),
        Check(checks.batch_root_problem),
    ]
    prefix: Annotated[str | None, about("Prefix", "Of the names of batch files")] = None

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one of this machine."""
        if "://" in self.root and not self.root.startswith("file://"):
            return None
        return Path(self.root.removeprefix("file://")).expanduser().absolute()

    def url(self, name: str) -> str:
        """The address of a file, as the SDK's targets read it: no character is escaped."""
        return f"{self.root.rstrip('/')}/{name}" if self.folder is None else f"file://{self.folder / name}"


class Batch(Struct, kw_only=True, forbid_unknown_fields=True):
    """BATCH messages in place of RECORD messages, as the SDK defines them."""

    encoding: BatchEncoding
    storage: BatchStorage
    batch_size: Annotated[int, about("Batch size", "Rows of a file, at most"), Meta(ge=1)] = 10_000


class ProviderSettings(Struct, kw_only=True, forbid_unknown_fields=True):
    """What every provider's block has; each adds its credentials and the type of its `exports`.

    The first line of its docstring is `<name for people>: <what it exports>.`

    Attributes:
        sign_in: The ways to sign in, each as the settings that it needs together.
    """

    base_url: Annotated[HttpUrl, about("Base URL", "Where the provider's API is")]
    max_concurrent_exports: Annotated[
        int,
        about("Concurrent exports", "Jobs that may run at the provider at once, over all streams"),
        Meta(ge=1),
    ] = 2
    requests_per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        about("Requests per minute", "At most this many in any 60 seconds; none: no limit"),
    ] = None

    sign_in: ClassVar[Sequence[tuple[str, ...]]] = ()

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


class TopLevel(Struct, kw_only=True):
    """What may be set beside the blocks of the providers."""

    start_date: Annotated[
        Time | None,
        about("Start date", "Where a first run of an incremental export begins; without an offset it is UTC"),
    ] = None
    end_date: Annotated[Time | None, about("End date", "Exclusive end of this run; none: now")] = None
    window: Annotated[
        WindowLength, about("Window", "Length of a window, aligned to the day in `timezone`")
    ] = DAY
    lookback: Annotated[
        Lookback, about("Lookback", "How far behind the bookmark each run reaches again for late rows")
    ] = timedelta(0)
    timezone: Annotated[
        ZoneName, about("Time zone", "IANA name of the zone whose midnight windows align to")
    ] = "UTC"
    poll_interval: Annotated[Length, about("Poll interval", "First wait between two polls of a job")] = (
        timedelta(seconds=5)
    )
    poll_interval_max: Annotated[
        Length, about("Longest poll interval", "Longest wait between two polls of a job")
    ] = timedelta(minutes=1)
    export_timeout: Annotated[
        Length,
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
        Check(checks.path_problem),
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
        Check(checks.path_problem),
    ] = None
    archive_url: Annotated[
        str | None,
        about(
            "Archive",
            "A folder, file:///path or s3://bucket/path, where every file is also kept as its vendor made "
            "it, for `--replay`; none: nowhere",
        ),
        Check(checks.archive_problem),
    ] = None
    ca_bundle: Annotated[
        str | None,
        about(
            "CA bundle",
            "A PEM file of further certificate authorities for HTTPS; none: `SSL_CERT_FILE` and "
            "`REQUESTS_CA_BUNDLE` count as usual",
        ),
        Check(checks.ca_bundle_problem),
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


class Settings(TopLevel, kw_only=True):
    """All settings, decoded and checked.

    Attributes:
        providers: The block of each provider that is used, by name.
        warnings: What the user should hear of, though the settings can be used; lines of `path: words`.
    """

    providers: dict[str, ProviderSettings] = {}
    warnings: list[str] = []


_SECRET_NAME = re.compile(
    "token|secret|passw|credential|authorization|signature|(private|company|api)_?key$", re.IGNORECASE
)
"""Of what has no type of its own, such as the parameters of an export."""


def is_secret(kind: Any) -> bool:
    """Whether a type is `Secret`, or made of it, such as `Secret | None` and `list[Secret]`."""
    return _SECRET in getattr(kind, "__metadata__", ()) or any(map(is_secret, get_args(kind)))


def secrets(value: object, *, hidden: bool = False) -> Iterator[str]:
    """Every secret in a part of the settings, also before they are decoded: what is marked or named as one.

    Args:
        value: A struct, or what JSON holds.
        hidden: Whether all of its texts are secrets.
    """
    if isinstance(value, Struct):
        for field in msgspec.structs.fields(value):
            if field.name != "columns":  # whose names are the vendor's
                yield from secrets(getattr(value, field.name), hidden=hidden or is_secret(field.type))
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if name != "columns":
                yield from secrets(part, hidden=hidden or bool(_SECRET_NAME.search(str(name))))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from secrets(part, hidden=hidden)
    elif hidden and isinstance(value, str) and value:
        yield value
