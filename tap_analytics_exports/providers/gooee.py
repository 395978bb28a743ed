"""Gooee: an Analytics Export turns the results of a stored Analytics Query into a CSV file."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import requests

from tap_analytics_exports.errors import (
    Ambiguous,
    CredentialsRefused,
    ExportFailed,
    JobGone,
    Unreachable,
)
from tap_analytics_exports.providers.base import (
    Empty,
    Failed,
    Handle,
    JobState,
    Provider,
    Ready,
    Request,
    Running,
    Unknown,
)
from tap_analytics_exports.redaction import hide
from tap_analytics_exports.settings import Export, ProviderSettings, Secret, about
from tap_analytics_exports.transport.auth import Auth, FixedAuth, LoginAuth
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.http import Http
from tap_analytics_exports.transport.rate_limiter import RateLimiter

NAME = "gooee"

logger = logging.getLogger("tap-analytics-exports.gooee")

# "Status Workflow" of the Analytics Export page.
_STATES: Mapping[str, JobState] = {"queued": Running(), "running": Running(), "complete": Ready()}

# The page prints the first for lists, and for creation the second, which no other path is like.
_EXPORTS = "analytics/exports/"
_PATHS = (_EXPORTS, "analytics/export")

# Answers to a POST by which nothing was created: such a path there is not. A redirect would make it a GET.
_ELSEWHERE = frozenset({301, 302, 307, 308, 404, 405})

# Seconds before each search for an export that was just sent for; it may take a moment to be listed.
_SEARCHES = (0.0, 1.0, 3.0)

_FINDABLE = timedelta(hours=1)


class GooeeExport(Export, kw_only=True, forbid_unknown_fields=True):
    """The results of a stored query; each run takes a snapshot."""

    query_id: Annotated[str | int, about("Query", "Id of the stored Analytics Query")]
    delete_after: Annotated[
        bool, about("Delete after", "Delete the export and its file at Gooee once its rows are written")
    ] = False

    @property
    def incremental(self) -> bool:
        """Never: an export takes its span of time from its query alone."""
        return False


class GooeeSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """Gooee: exports of stored Analytics Queries."""

    base_url: Annotated[str, about("Base URL", "Where the Gooee API is")] = "https://api.gooee.io"
    api_token: Annotated[Secret | None, about("API token", "In place of user name and password")] = None
    auth_scheme: Annotated[
        Literal["raw", "JWT", "Bearer"], about("Scheme", "What stands before the API token; `raw`: nothing")
    ] = "raw"
    username: Annotated[str | None, about("User name", "To log in, in place of an API token")] = None
    password: Annotated[Secret | None, about("Password", "To log in, in place of an API token")] = None
    exports: Annotated[list[GooeeExport], about("Exports", "The queries to export")]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Neither of the two ways to sign in."""
        if not self.api_token and not (self.username and self.password):
            yield "api_token", "is required, or `username` and `password`"


class Gooee(Provider[GooeeSettings, GooeeExport]):
    """The Analytics Export API (Gooee API documentation, "Analytics Export")."""

    name = NAME
    settings_type = GooeeSettings

    def __init__(self, settings: GooeeSettings) -> None:
        super().__init__(settings)
        rate_limiter = RateLimiter(settings.requests_per_minute)
        self._http = Http(NAME, settings.base_url, auth=self._auth(), rate_limiter=rate_limiter)
        # Without credentials: for the login, and for signed URLs, whose host refuses a second way to sign in.
        self._plain = Http(NAME, settings.base_url, rate_limiter=rate_limiter)
        self._known: set[str] = set()  # our ids of the exports that this process has to do with

    def check(self) -> None:
        """Ask who we are; gooee-sdk checks tokens so (client.py)."""
        self._http.probe("me")

    def submit(self, request: Request) -> Handle:
        """Create an export, by whose name it can be found again."""
        self._known.add(request.export_id)
        return {"id": self._create({"name": _name(request), "query": request.export.query_id})}

    def find(self, request: Request, last: str | None) -> tuple[str, Handle] | None:
        """Look through the list of exports, for their names tell what they were asked for, and our ids."""
        for seconds in _SEARCHES if request.export_id in self._known else _SEARCHES[:1]:
            time.sleep(seconds)
            found = self._choose(request, last)
            if found is not None:
                self._known.add(found[0])
                return found
        return None

    def poll(self, request: Request, handle: Handle) -> JobState:
        """See what the export's `status` is."""
        self._known.add(request.export_id)
        export = self._retrieve(handle)
        word = _state(export)
        if word == "failed":
            return Failed(f"{NAME}: the export failed: {export.get('errors') or 'Gooee does not say why'}")
        if word == "complete" and _count(export.get("number_of_rows")) == 0 and not export.get("url"):
            return Empty()
        return _STATES.get(word) or Unknown(word)

    def files(self, request: Request, handle: Handle) -> Sequence[RemoteFile]:
        """The one CSV file, with the numbers of bytes and rows that Gooee says of it."""
        export = self._retrieve(handle)
        name = urlsplit(str(export.get("url") or "")).path.rpartition("/")[2]
        return [
            RemoteFile(
                name or f"{handle['id']}.csv",
                partial(self._open, handle),
                size=_count(export.get("total_bytes")),
                rows=_count(export.get("number_of_rows")),
                either_size=True,  # its documentation does not say what `total_bytes` counts
            )
        ]

    def done(self, request: Request, handle: Handle) -> None:
        """Delete the export, where that is wanted; links to its file stop working."""
        if request.export.delete_after and "id" in handle:
            response = self._http.ask("DELETE", _path(handle))
            if response.status_code not in (200, 202, 204, 404, 410):
                raise ExportFailed(self._http.message(response))

    def identity(self, export: GooeeExport) -> Mapping[str, Any]:
        """The query, whose id is unique over all accounts; the stream, so that two of a query stay apart."""
        return {"name": export.name, "query_id": str(export.query_id)}

    def _auth(self) -> Auth:
        """An API token as it is, or the JWT of a login (gooee-sdk, client.py), or OAuth2's Bearer."""
        settings = self.settings
        if settings.api_token:
            scheme = "" if settings.auth_scheme == "raw" else f"{settings.auth_scheme} "
            return FixedAuth(scheme + settings.api_token)
        return LoginAuth("JWT", self._log_in)

    def _log_in(self) -> str:
        credentials = {"username": self.settings.username, "password": self.settings.password}
        response = self._plain.ask("POST", "auth/login", json=credentials)
        if response.status_code >= 300:
            raise CredentialsRefused(f"{self._plain.message(response)}; check username and password")
        token = _object(self._plain.json(response, Unreachable)).get("token")
        if not isinstance(token, str) or not token:
            raise CredentialsRefused(f"{NAME}: the login was accepted, but gave no token; check base_url")
        return token

    def _create(self, export: Mapping[str, Any]) -> str | int:
        """Create an export, at whichever path it is.

        Raises:
            Ambiguous: It may have been created.
        """
        for path in _PATHS:
            response = self._http.trigger("POST", path, json=export)
            if response.status_code not in _ELSEWHERE:
                break
        if response.status_code >= 300:
            raise ExportFailed(self._http.message(response))
        number = _id(self._http.json(response, Ambiguous))
        if number is None:
            raise Ambiguous(f"{self._http.message(response)}, but with no id of an export")
        return number

    def _choose(self, request: Request, last: str | None) -> tuple[str, Handle] | None:
        """The request's own export, else the newest one for the same that nobody has had the rows of."""
        what = _name(request).rpartition(" ")[0]
        same: dict[str, dict[str, Any]] = {}
        for export in self._list():
            before, _, export_id = str(export.get("name")).rpartition(" ")
            if before == what and _id(export) is not None:
                same[export_id] = export
        export_id = request.export_id
        if export_id not in same:
            since = max(datetime.now(UTC) - _FINDABLE, _created(same.get(last or "", {})))
            export_id = max(same, key=lambda one: _created(same[one]), default="")
            export = same.get(export_id, {})
            if export_id in self._known or _created(export) <= since or _state(export) == "failed":
                return None
        return export_id, {"id": _id(same[export_id])}

    def _list(self) -> Iterator[dict[str, Any]]:
        """All exports, as far as we may; the next page is in the Link header (gooee-sdk, models.py)."""
        url: str | None = f"{_EXPORTS}?limit=100"
        seen = set()
        while url and url not in seen:
            seen.add(url)
            response = self._http.ask("GET", url)
            if response.status_code != 200:
                logger.warning("exports can't be found by name: %s", self._http.message(response))
                return
            page = self._http.json(response, Unreachable)
            exports = page if isinstance(page, list) else _object(page).get("results")
            yield from map(_object, exports or ())
            following = response.links.get("next", {}).get("url") or _object(page).get("next")
            url = following and urljoin(response.url, following)

    def _retrieve(self, handle: Handle) -> dict[str, Any]:
        response = self._http.ask("GET", _path(handle))
        if response.status_code in (404, 410):
            raise JobGone(f"{self._http.message(response)}; Gooee does not know the export any more")
        if response.status_code != 200:
            raise ExportFailed(self._http.message(response))
        return _object(self._http.json(response, Unreachable))

    @contextmanager
    def _open(self, handle: Handle, wanted: Wanted) -> Iterator[Body]:
        # Each view of the export signs its URL anew, for an hour.
        url = self._retrieve(handle).get("url")
        if not isinstance(url, str) or not url:
            raise Unreachable(f"{NAME}: the export is complete, but has no url yet")
        hide(*parse_qs(urlsplit(url).query).get("Signature", ()))

        def check(response: requests.Response) -> None:
            if response.status_code == 200:
                return
            words = self._plain.message(response)
            if response.status_code == 403:  # expired on its way
                raise Unreachable(words)
            if response.status_code in (404, 410):
                raise JobGone(f"{words}; Gooee does not keep the file any more")
            raise ExportFailed(words)

        with self._plain.body("GET", url, wanted=wanted, check=check) as body:
            yield body


def _name(request: Request) -> str:
    """An export's name, of at most 100 signs; no two jobs have the same."""
    return f"tap-analytics-exports {request.fingerprint} {request.export_id}"


def _state(export: Mapping[str, Any]) -> str:
    return str(export.get("status") or "").strip().lower()


def _created(export: Mapping[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(str(export.get("created"))).astimezone(UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _path(handle: Handle) -> str:
    return f"{_EXPORTS}{quote(str(handle['id']), safe='')}/"


def _id(export: Any) -> str | int | None:  # noqa: ANN401 - what JSON holds
    number = _object(export).get("id")
    return number if isinstance(number, str | int) and number else None


def _count(value: Any) -> int | None:  # noqa: ANN401
    return int(value) if str(value).isdecimal() else None


def _object(value: Any) -> dict[str, Any]:  # noqa: ANN401
    return value if isinstance(value, dict) else {}
