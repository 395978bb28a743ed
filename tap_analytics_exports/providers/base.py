"""What a provider must answer. A vendor's own file holds what is true of that vendor, and nothing else.

All that a provider of another package may rely on is in `__all__` here: the verbs and their values, the
structs for its settings, what it asks a vendor with, and the errors by which it says what went wrong.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from tap_analytics_exports.errors import (
    Ambiguous,
    Busy,
    ExportFailed,
    JobGone,
    NoData,
    Refused,
    Unreachable,
)
from tap_analytics_exports.parse import Dialect
from tap_analytics_exports.providers import answers
from tap_analytics_exports.redaction import clean, hide
from tap_analytics_exports.settings import (
    Check,
    Column,
    ColumnKind,
    Export,
    HttpUrl,
    ProviderSettings,
    Secret,
    about,
)
from tap_analytics_exports.transport.auth import Auth, FixedAuth, LoginAuth
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.http import Http
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter
from tap_analytics_exports.windows import Window

__all__ = [
    "Ambiguous",
    "Auth",
    "Body",
    "Busy",
    "Check",
    "Column",
    "ColumnKind",
    "Dialect",
    "Empty",
    "Export",
    "ExportFailed",
    "Failed",
    "FixedAuth",
    "Handle",
    "Http",
    "HttpUrl",
    "JobGone",
    "JobState",
    "LoginAuth",
    "Network",
    "NoData",
    "Provider",
    "ProviderSettings",
    "RateLimiter",
    "Ready",
    "Refused",
    "RemoteFile",
    "Request",
    "Running",
    "Secret",
    "Unknown",
    "Unreachable",
    "Wanted",
    "Window",
    "about",
    "answers",
    "clean",
    "hide",
]

Handle = dict[str, Any]
"""The little JSON that lets a later process find a job again; never a signed URL, never a token."""


S = TypeVar("S", bound=ProviderSettings)
E = TypeVar("E", bound=Export)


@dataclass(frozen=True, slots=True)
class Request(Generic[E]):
    """What a job is asked for.

    Attributes:
        export: The export, with its overrides filled in.
        window: The span to export; None for a snapshot.
        columns: The columns that are wanted, in the provider's words; None: all.
        fingerprint: Of provider, account, export, columns, filters and window, as 32 hexadecimal digits.
        export_id: Our id of the job, for vendors that let a job have a name.
    """

    export: E
    window: Window | None
    columns: tuple[str, ...] | None
    fingerprint: str
    export_id: str


@dataclass(frozen=True, slots=True)
class Running:
    """The job goes on; `word` is what the vendor calls that."""

    word: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """The job's files can be fetched."""


@dataclass(frozen=True, slots=True)
class Empty:
    """The job is done, and the window has no rows."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The job is done, without rows; see `errors.ExportFailed` for `retry` and `split`."""

    why: str
    retry: bool = False
    split: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider calls the job's state by a word that it does not document."""

    word: str


JobState = Running | Ready | Empty | Failed | Unknown


class Provider(ABC, Generic[S, E]):
    """A vendor, with the user's credentials for it. Its verbs are called from several threads.

    Each verb may raise `Refused`, and `Unreachable` where asking again later may help; what else
    it raises is said there.

    Attributes:
        name: As it is called in settings, messages and records.
        settings_type: Of its block.
        most_concurrent_exports: The vendor's own limit, beyond which no setting goes.
        documented_limits: What else the vendor limits, in words; empty: it documents nothing.
        begins: What the log says of a job that was begun.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[ProviderSettings]]
    most_concurrent_exports: ClassVar[float] = math.inf
    documented_limits: ClassVar[str] = ""
    begins: ClassVar[str] = "triggered"

    def __init__(self, settings: S, network: Network | None = None) -> None:
        self.settings = settings
        self.network = network or Network()

    @property
    def concurrent_exports(self) -> int:
        """How many jobs may run there at once."""
        return int(min(self.settings.max_concurrent_exports, self.most_concurrent_exports))

    @abstractmethod
    def check(self) -> None:
        """Try the credentials, by the cheapest call, triggering nothing."""

    def check_export(self, export: E) -> None:
        """See that what an export names is there, as far as cheap calls tell; they trigger nothing.

        Raises:
            TapError: What is wrong, and where in the vendor's console it is mended.
        """

    @abstractmethod
    def submit(self, request: Request[E]) -> Handle:
        """Trigger a job.

        Raises:
            Busy: No room for it now.
            Ambiguous: It may or may not have been triggered.
            ExportFailed: The vendor does not accept the request.
        """

    @abstractmethod
    def poll(self, request: Request[E], handle: Handle) -> JobState:
        """See how a job is.

        Raises:
            JobGone: The vendor does not know it any more.
        """

    @abstractmethod
    def files(self, request: Request[E], handle: Handle) -> Sequence[RemoteFile]:
        """What a ready job made, in its order.

        Raises:
            JobGone: The vendor does not know it any more.
        """

    @abstractmethod
    def identity(self, export: E) -> Mapping[str, Any]:
        """What makes a request this one and no other, apart from columns and window; no secrets."""

    def find(self, request: Request[E], last: str | None) -> tuple[str, Handle] | None:
        """A job for the same request that is at the vendor already though nothing of it is known here.

        Only one that was triggered within the last hour counts, and not the one of the last snapshot.

        Args:
            request: The request.
            last: The `export_id` of the last snapshot whose rows are safe.

        Returns:
            The `export_id` and the handle; None where there is no such job, or the vendor has no way to tell.
        """
        return None

    def cancel(self, request: Request[E], handle: Handle) -> None:
        """Stop a job that nobody waits for any more, where the vendor can."""

    def done(self, request: Request[E], handle: Handle) -> None:
        """Called once a job's rows are out and the state that says so is written."""

    def close(self) -> None:
        """End the session with the vendor."""

    def columns(self, export: E) -> Sequence[str]:
        """The headers that the export will have, as far as can be known before it runs."""
        return ()

    def wanted(self, export: E, headers: Sequence[str] | None) -> tuple[str, ...] | None:
        """The columns to ask for, given the known ones that the catalog selects; None: all, or no choice."""
        return None

    def dictionary(self, export: E) -> Mapping[str, ColumnKind | Column]:
        """The types of the columns that the vendor documents, by header."""
        return {}

    def constants(self, export: E) -> Mapping[str, str | int]:
        """Columns of every record that the files lack."""
        return {}

    def file_format(self, export: E) -> Literal["csv", "json", "xlsx"]:
        """The kind of the export's files."""
        return "csv"

    def dialect(self, export: E) -> Dialect:
        """How the export's files are written."""
        return Dialect(
            self.file_format(export),
            encoding=export.encoding,
            delimiter=export.delimiter,
            sheet=export.sheet,
            skip_rows=export.skip_rows,
            quote=export.quote,
        )
