"""Gooee: an Analytics Export turns the results of a stored Analytics Query into a CSV file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qs, urljoin, urlsplit

import msgspec
import requests
from msgspec import Meta, Struct

from tap_analytics_exports.errors import (
    Ambiguous,
    ExportFailed,
    JobGone,
    Refused,
    Unreachable,
)
from tap_analytics_exports.providers import answers
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
from tap_analytics_exports.redaction import clean_logger, hide
from tap_analytics_exports.settings import Export, HttpUrl, ProviderSettings, Secret, about
from tap_analytics_exports.transport.auth import Auth, FixedAuth, LoginAuth
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.http import Http
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter

NAME = "gooee"

logger = clean_logger(__name__)

# "Status Workflow" of the Analytics Export page.
_STATES: Mapping[str, JobState] = {
    "queued": Running("queued"),
    "running": Running("running"),
    "complete": Ready(),
}

# The page prints the first for lists, and for creation the second, which no other path is like.
_EXPORTS = "analytics/exports/"
_PATHS = (_EXPORTS, "analytics/export")

# Answers to a POST by which nothing was created: such a path there is not. A redirect would make it a GET.
_ELSEWHERE = frozenset({301, 302, 307, 308, 404, 405})

# Seconds before each search for an export that was just sent for; it may take a moment to be listed.
_SEARCHES = (0.0, 1.0, 3.0)

_FINDABLE = timedelta(hours=1)

# Pages of the list of exports, 100 on each: one that has more than these has no end.
_PAGES = 1000

# Exports among which a query is looked for: five pages.
_NEWEST = 500

# What to look at for each refusal of an export.
_ADVICE = {
    400: "check query_id, the id of a stored Analytics Query",
    403: "check that the credentials may create exports and see this query",
    404: "check base_url",
    405: "check base_url",
}


class _Handle(Struct):
    """The export's id."""

    id: answers.Id


class _Created(Struct):
    """What counts of the answer to a creation."""

    id: answers.Id


class _Listed(Struct):
    """An export in the list; those of others may have been made in any way."""

    id: answers.Id
    name: str | None = None
    query: object = None
    status: str | None = None
    created: str | None = None

    @property
    def created_at(self) -> datetime:
        """When it was made; where nobody can tell, long ago."""
        try:
            return datetime.fromisoformat(self.created or "").astimezone(UTC)
        except (ValueError, OverflowError):
            return datetime.min.replace(tzinfo=UTC)


class _Page(Struct):
    """A page of the list where it is no bare list, as Django REST framework writes it."""

    results: list[_Listed]
    next: str | None = None


_Answer: Any = list[_Listed] | _Page


class _Export(Struct):
    """An export ("Data Model"); the counts and the url are there once it is complete."""

    status: Annotated[str, Meta(min_length=1)]
    errors: object = None
    number_of_rows: object = None
    total_bytes: object = None
    url: str | None = None

    @property
    def word(self) -> str:
        """Its status, in lower case."""
        return self.status.strip().lower()

    @property
    def rows(self) -> int | None:
        """The rows of a complete one."""
        return answers.count(NAME, "number_of_rows", self.number_of_rows)

    @property
    def why(self) -> str:
        """Why it failed; `errors` is a text that holds JSON."""
        try:
            errors = msgspec.json.decode(self.errors) if isinstance(self.errors, str) else self.errors
        except (ValueError, RecursionError):
            errors = self.errors
        return answers.said(errors) or "Gooee does not say why"


class _Login(Struct):
    """The answer to a login."""

    token: answers.Token


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

    base_url: Annotated[HttpUrl, about("Base URL", "Where the Gooee API is")] = "https://api.gooee.io"
    api_token: Annotated[Secret | None, about("API token", "In place of user name and password")] = None
    auth_scheme: Annotated[
        Literal["raw", "JWT", "Bearer"], about("Scheme", "What stands before the API token; `raw`: nothing")
    ] = "raw"
    username: Annotated[str | None, about("User name", "To log in, in place of an API token")] = None
    password: Annotated[Secret | None, about("Password", "To log in, in place of an API token")] = None
    exports: Annotated[list[GooeeExport], about("Exports", "The queries to export")]

    sign_in: ClassVar[Sequence[tuple[str, ...]]] = (("api_token",), ("username", "password"))


class Gooee(Provider[GooeeSettings, GooeeExport]):
    """The Analytics Export API (Gooee API documentation, "Analytics Export")."""

    name = NAME
    settings_type = GooeeSettings

    def __init__(self, settings: GooeeSettings, network: Network | None = None) -> None:
        super().__init__(settings, network)
        rate_limiter = RateLimiter(settings.requests_per_minute)
        self._http = Http(
            NAME,
            settings.base_url,
            auth=self._auth(),
            credentials="api_token and auth_scheme" if settings.api_token else "username and password",
            rate_limiter=rate_limiter,
            network=self.network,
        )
        # Without credentials: for the login, and for signed URLs, whose host refuses a second way to sign in.
        self._plain = Http(NAME, settings.base_url, rate_limiter=rate_limiter, network=self.network)
        self._known: set[str] = set()  # our ids of the exports that this process has to do with

    def check(self) -> None:
        """Ask who we are; gooee-sdk checks tokens so (client.py)."""
        answers.probe(self._http, "me")

    def check_export(self, export: GooeeExport) -> None:
        """Look for an export of the same query among the newest, for no documented call shows the query.

        Where there is none, the query may exist all the same; so that nobody knows is a warning.
        """
        newest = islice(self._list(), _NEWEST)
        if not any(str(listed.query) == str(export.query_id) for listed in newest):
            logger.warning(
                "%s: whether the query %s of %s exists shows when it is exported first, for none of the last "
                "%d exports at Gooee is of it",
                NAME, export.query_id, export.name, _NEWEST,
            )  # fmt: skip

    def submit(self, request: Request[GooeeExport]) -> Handle:
        """Create an export, by whose name it can be found again."""
        self._known.add(request.export_id)
        return {"id": self._create({"name": _name(request), "query": request.export.query_id})}

    def find(self, request: Request[GooeeExport], last: str | None) -> tuple[str, Handle] | None:
        """Look through the list of exports, for their names tell what they were asked for, and our ids."""
        for seconds in _SEARCHES if request.export_id in self._known else _SEARCHES[:1]:
            time.sleep(seconds)
            found = self._choose(request, last)
            if found is not None:
                self._known.add(found[0])
                return found
        return None

    def poll(self, request: Request[GooeeExport], handle: Handle) -> JobState:
        """See what the export's `status` is."""
        self._known.add(request.export_id)
        try:
            export = self._retrieve(handle)
        except answers.Malformed as error:
            return Unknown(str(error))
        if export.word == "failed":
            return Failed(
                f"{NAME}: the export failed: {export.why}; see whether the query {request.export.query_id} "
                "(query_id) runs in Gooee"
            )
        if export.word == "complete" and export.rows == 0 and not export.url:
            return Empty()
        return _STATES.get(export.word) or Unknown(export.word)

    def files(self, request: Request[GooeeExport], handle: Handle) -> Sequence[RemoteFile]:
        """The one CSV file, with the numbers of bytes and rows that Gooee says of it."""
        export = self._retrieve(handle)
        name = _path_of(export.url or "").rpartition("/")[2]
        return [
            RemoteFile(
                name or f"{handle['id']}.csv",
                partial(self._open, handle),
                size=answers.count(NAME, "total_bytes", export.total_bytes),
                rows=export.rows,
                either_size=True,  # its documentation does not say what `total_bytes` counts
            )
        ]

    def done(self, request: Request[GooeeExport], handle: Handle) -> None:
        """Delete the export, where that is wanted; links to its file stop working."""
        if request.export.delete_after:
            response = self._http.ask("DELETE", _path(handle))
            if response.status_code not in (200, 202, 204, 404, 410):
                raise ExportFailed(
                    f"{self._http.message(response)}; check that the credentials may delete exports, or turn "
                    "delete_after off"
                )

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
        if response.status_code in (400, 401, 403):  # Django REST framework says 400 of a wrong password
            raise Refused(f"{self._plain.message(response)}; check username and password")
        if response.status_code >= 300:
            raise Unreachable(
                f"{self._plain.message(response)}, which is no answer to a login; check base_url"
            )
        then = "this is no refusal, but without a token nothing can be asked for; check base_url"
        return answers.read(self._plain, response, _Login, Unreachable, then).token

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
            advice = _ADVICE.get(response.status_code, "check base_url and query_id")
            raise ExportFailed(f"{self._http.message(response)}; {advice}")
        return answers.read(self._http, response, _Created, Ambiguous, "an export may have been created").id

    def _choose(self, request: Request[GooeeExport], last: str | None) -> tuple[str, Handle] | None:
        """The request's own export, else the newest one for the same that nobody has had the rows of."""
        what = _name(request).rpartition(" ")[0]
        same: dict[str, _Listed] = {}
        for export in self._list():
            before, _, export_id = (export.name or "").rpartition(" ")
            if before == what:
                same[export_id] = export
        if (own := same.get(request.export_id)) is not None:
            return request.export_id, {"id": own.id}
        since = datetime.now(UTC) - _FINDABLE
        if last in same:
            since = max(since, same[last].created_at)
        export_id, newest = max(same.items(), key=lambda one: one[1].created_at, default=("", None))
        if newest is None or export_id in self._known or newest.created_at <= since:
            return None
        failed = (newest.status or "").strip().lower() == "failed"
        return None if failed else (export_id, {"id": newest.id})

    def _list(self) -> Iterator[_Listed]:
        """All exports, as far as we may; the next page is in the Link header (gooee-sdk, models.py).

        Raises:
            Unreachable: They can't be seen, which is not to say that there are none.
        """
        unseen = "which exports there are can't be seen"
        url = f"{_EXPORTS}?limit=100"
        for _ in range(_PAGES):
            response = self._http.ask("GET", url)
            if response.status_code != 200:
                raise Unreachable(
                    f"{self._http.message(response)}; {unseen}; check that the credentials may list them"
                )
            page: list[_Listed] | _Page = answers.read(self._http, response, _Answer, Unreachable, unseen)
            yield from page if isinstance(page, list) else page.results
            following = response.links.get("next", {}).get("url")
            if following is None and isinstance(page, _Page):
                following = page.next
            if not following:
                return
            url = urljoin(response.url, following)
            if not self._http.own(url):
                raise Unreachable(f"{NAME}: the next page of exports is on another host, so {unseen}")
        raise Unreachable(f"{NAME}: the list of exports has no end, so {unseen}")

    def _retrieve(self, handle: Handle) -> _Export:
        response = self._http.ask("GET", _path(handle))
        if response.status_code in (404, 410):
            raise JobGone(f"{self._http.message(response)}; Gooee does not know the export any more")
        if response.status_code != 200:
            raise ExportFailed(
                f"{self._http.message(response)}; check base_url, and that the credentials may see exports"
            )
        return answers.read(self._http, response, _Export)

    @contextmanager
    def _open(self, handle: Handle, wanted: Wanted) -> Iterator[Body]:
        # Each view of the export signs its URL anew, for an hour.
        url = self._retrieve(handle).url
        if not url:
            raise Unreachable(f"{NAME}: the export is complete, but has no url yet")
        hide(*parse_qs(url.partition("?")[2]).get("Signature", ()))

        def check(response: requests.Response) -> None:
            if response.status_code == 200:
                return
            message = self._plain.message(response)
            if response.status_code == 403:  # expired on its way
                raise Unreachable(message)
            if response.status_code in (404, 410):
                raise JobGone(f"{message}; Gooee does not keep the file any more")
            raise ExportFailed(message)

        with self._plain.body("GET", url, wanted=wanted, check=check) as body:
            yield body


def _name(request: Request[GooeeExport]) -> str:
    """An export's name, of at most 100 characters; no two jobs have the same."""
    return f"tap-analytics-exports {request.fingerprint} {request.export_id}"


def _path(handle: Handle) -> str:
    return f"{_EXPORTS}{answers.segment(answers.handle(NAME, _Handle, handle).id)}/"


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:  # no URL at all, and refused as such when it is asked for
        return ""
