"""IntelePeer Insights: a query, then compressed CSV files on the customer's SFTP server or in a bucket."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import requests

from tap_analytics_exports.errors import (
    Ambiguous,
    CredentialsRefused,
    ExportFailed,
    JobGone,
    TapError,
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
from tap_analytics_exports.redaction import clean, safe_url
from tap_analytics_exports.settings import Column, ColumnKind, Export, Secret, about, is_http
from tap_analytics_exports.transport.auth import Auth, FixedAuth, LoginAuth
from tap_analytics_exports.transport.download import RemoteFile
from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.files import file_store
from tap_analytics_exports.transport.http import PASSING, Http
from tap_analytics_exports.transport.rate_limiter import RateLimiter
from tap_analytics_exports.windows import Window

NAME = "intelepeer"

logger = logging.getLogger(__name__)

COMMON: dict[str, ColumnKind | Column] = {
    "EventName": "string",
    "EventVersion": "integer",
    "TimeStamp": Column("timestamp", timezone="UTC"),
    "CustomerId": "string",
    "FlowId": "string",
    "FlowName": "string",
    "ActionId": "string",
    "ActionName": "string",
    "IsTriggerAction": "boolean",
    "SessionId": "string",
    "TransactionId": "string",
    "ApplicationRegion": "string",
}
"""The fields that every event has, and their types (IntelePeer, "API Data Dictionary").

EventSku, HostId, CustomerName and Originator are not here: they "return an empty string for all events", and
come only where `fields` names them. What is particular to an event is listed by the API without types.
"""

CORE = ("EventName", "TimeStamp", "SessionId", "TransactionId")
"""Asked for even if the catalog deselects them, unless `fields` leaves them out: a query whose fields are all
empty fails, with the advice to add core fields (IntelePeer, "No Data Returned")."""

STATES: dict[str, JobState] = {
    "pending": Running(),
    "processing": Running(),  # in the text, though not in the list
    "completed": Ready(),
    "canceled": Failed("the query was canceled, due to a time-out or another error", retry=True),
}
"""What its words for states mean, in lower case (IntelePeer, "Get Status Updates"); `failed` is below."""

HOUR = timedelta(hours=1)


class IntelePeerExport(Export, kw_only=True, forbid_unknown_fields=True):
    """One event type."""

    event: Annotated[str, about("Event", "Name of the event, such as CallEvent; upper and lower case count")]
    fields: Annotated[
        list[str], about("Fields", "Fields to ask for; empty: the common ones and all that the API lists")
    ] = []  # noqa: RUF012 - msgspec copies it
    filters: Annotated[
        dict[str, Any],
        about("Filters", 'Which records to export, such as {"FlowId": {"$eq": "5dcf48b453e0ab04386da7d1"}}'),
    ] = {}  # noqa: RUF012
    scope: Annotated[
        dict[str, Any],
        about(
            "Scope", "Which sessions to look at, as the API takes it: an object with `filters` and `scope`"
        ),
    ] = {}  # noqa: RUF012


class IntelePeerSettings(FileSettings, kw_only=True, forbid_unknown_fields=True):
    """IntelePeer Insights: queries whose results lie on an SFTP server or in an S3 bucket."""

    base_url: Annotated[str, about("Base URL", "Where the Insights API is")] = (
        "https://api.intelepeer.com/_rest/v4/dwh"
    )
    auth_url: Annotated[str, about("Login URL", "What gives a token for user name and password")] = (
        "https://customer.intelepeer.com/_rest/v4/authenticate"
    )
    api_token: Annotated[Secret | None, about("API token", "Instead of user name and password")] = None
    username: Annotated[str | None, about("User name", "Of an API Access user of the Customer Portal")] = None
    password: Annotated[Secret | None, about("Password", "Of that user")] = None
    exports: Annotated[list[IntelePeerExport], about("Exports", "The events to export")]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Credentials that are missing, a scope that is half, and what is wrong about the files' server."""
        if not self.api_token and not (self.username and self.password):
            yield "api_token", "is required, or else username and password"
        if not is_http(self.auth_url):
            yield "auth_url", "must be an http or https URL"
        for i, export in enumerate(self.exports):
            if export.scope and not {"filters", "scope"} <= set(export.scope):
                yield f"exports[{i}].scope", "needs both filters and scope"
        yield from super().problems()


class IntelePeer(Provider[IntelePeerSettings, IntelePeerExport]):
    """The Insights API (IntelePeer, "Insights APIs: Overview")."""

    name = NAME
    settings_type = IntelePeerSettings
    most_concurrent_exports = 2  # per customer (Using the Insights API, Request Limits)

    def __init__(self, settings: IntelePeerSettings) -> None:
        super().__init__(settings)
        rate_limiter = RateLimiter(settings.requests_per_minute)
        self._portal = Http(NAME, settings.auth_url, rate_limiter=rate_limiter)
        auth: Auth = (
            FixedAuth(f"Bearer {settings.api_token}")
            if settings.api_token
            else LoginAuth("Bearer", self._log_in)
        )
        # 500 is the answer to an unknown id, so it does not pass (IntelePeer, "ID Not Found").
        self._http = Http(
            NAME, settings.base_url, auth=auth, rate_limiter=rate_limiter, passing=PASSING - {500}
        )
        self._files = file_store(NAME, settings)
        self._events: dict[str, list[str]] | None = None  # the fields of each, once the API has listed them
        self._trouble: TapError | None = None  # why it could not be asked before the run
        self._ways: tuple[bool, ...] = (True, False)  # to leave a window's end out, see `_query`

    def check(self) -> None:
        """Ask for the list of fields, and let the files' server show its key and accept the login."""
        troubles = []
        for try_out in (self._list_events, self._files.check):
            try:
                try_out()
            except TapError as error:
                troubles.append(error)
        refused = any(isinstance(trouble, CredentialsRefused) for trouble in troubles)
        if troubles:
            raise (CredentialsRefused if refused else Unreachable)("; ".join(map(str, troubles)))

    def submit(self, request: Request) -> Handle:
        """Trigger the query; a window without a whole second has no records, and its handle is empty."""
        export, window = request.export, request.window
        assert window is not None  # noqa: S101 - every export is incremental
        if _second(window.start) == _second(window.end):
            return {}
        fields = request.columns or self._fields(export)
        for half_open in self._ways:
            query = _query(export, window, fields, half_open=half_open)
            response = self._http.trigger("POST", "Q", json=query)
            if response.status_code != 400:
                break
        if response.status_code >= 400:
            raise ExportFailed(f"{_message(response)}; check event, fields, filters and scope")
        self._ways = (half_open,)
        guid = _object(response).get("id")
        if not guid:
            raise Ambiguous(f"{_message(response)}, without an id; a query may have been triggered")
        return {"id": str(guid)}

    def poll(self, request: Request, handle: Handle) -> JobState:
        """Ask for the state, and where it is `Completed` for the files too: they may need a moment more."""
        if not handle:
            return Empty()
        response = self._ask(handle, "/status")
        body = _object(response)
        word = str(body.get("status", ""))
        if word.lower() == "failed":
            return _failure(request, _text(body.get("messages")))
        state = STATES.get(word.lower(), Unknown(word))
        if isinstance(state, Ready) and self._paths(handle) is None:
            return Running()
        return state

    def files(self, request: Request, handle: Handle) -> Sequence[RemoteFile]:
        """The parts of the result, each with its header."""
        paths = self._paths(handle)
        if paths is None:
            raise Unreachable(f"{NAME}: query {handle['id']} has no files yet, though it is completed")
        return self._files.files(paths)

    def identity(self, export: IntelePeerExport) -> Mapping[str, Any]:
        """What is asked for, and as whom."""
        return {
            "base_url": self.settings.base_url,
            "username": self.settings.username,
            "event": export.event,
            "fields": export.fields,
            "filters": export.filters,
            "scope": export.scope,
        }

    def close(self) -> None:
        """Leave the files' server."""
        self._files.close()

    def columns(self, export: IntelePeerExport) -> Sequence[str]:
        """The configured fields, or those that the API lists; the common ones where it can't be asked."""
        try:
            if self._trouble is not None:
                raise self._trouble
            return self._fields(export)
        except (CredentialsRefused, Unreachable) as error:
            if self._trouble is None:
                logger.warning("only the common fields are known before a query runs: %s", error)
            self._trouble = error  # and what did not answer is not asked again for each export
            return tuple(COMMON)

    def wanted(self, export: IntelePeerExport, headers: Sequence[str] | None) -> tuple[str, ...] | None:
        """The fields that are selected, and the core ones; all, where not even the API's list is known."""
        if headers is None or not (export.fields or self._events):
            return None
        fields = self._fields(export)
        if set(headers) >= set(fields):
            return None
        return tuple(name for name in fields if name in headers or name in CORE)

    def dictionary(self, export: IntelePeerExport) -> Mapping[str, ColumnKind | Column]:
        """The common fields."""
        return COMMON

    def _log_in(self) -> str:
        """A token for 24 hours (IntelePeer, "Authentication")."""
        login = {"username": self.settings.username, "password": self.settings.password}
        response = self._portal.ask(
            "POST", self.settings.auth_url, json=login, headers={"Accept": "application/json"}
        )
        token = _object(response).get("token")
        if response.status_code >= 400 or not token:
            raise CredentialsRefused(f"{_message(response)}; check auth_url, username and password")
        return str(token)

    def _list_events(self) -> dict[str, list[str]]:
        """The fields that are particular to each event (IntelePeer, "Get Available Fields")."""
        response = self._http.ask("GET", "Q")
        if response.status_code == 403:
            raise CredentialsRefused(f"{_message(response)}; check what the credentials allow")
        if response.status_code >= 400:
            raise Unreachable(f"{_message(response)}; check base_url")
        try:
            self._events = {
                event: msgspec.convert(listed["fields"], list[str])
                for event, listed in _object(response).items()
            }
        except (KeyError, TypeError, msgspec.ValidationError):
            self._events = {}
        if not self._events:
            raise Unreachable(f"{_message(response)}, which is no list of events and fields; check base_url")
        return self._events

    def _fields(self, export: IntelePeerExport) -> tuple[str, ...]:
        """The fields to ask for, each once.

        Raises:
            ExportFailed: The API does not know the event.
        """
        if export.fields:
            return tuple(dict.fromkeys(export.fields))
        events = self._events or self._list_events()
        if export.event not in events:
            raise ExportFailed(
                f"{NAME}: there is no event {export.event!r}; the API knows {', '.join(events)}, "
                "and upper and lower case count"
            )
        return tuple(dict.fromkeys([*COMMON, *events[export.event]]))

    def _ask(self, handle: Handle, suffix: str = "") -> requests.Response:
        response = self._http.ask("GET", f"Q/{quote(handle['id'], safe='')}{suffix}")
        gone = response.status_code == 500 and "does not exist" in _message(response)  # "ID Not Found"
        if gone or response.status_code == 404:
            raise JobGone(_message(response))
        if response.status_code >= 500:
            raise Unreachable(_message(response))
        if response.status_code >= 400:
            raise ExportFailed(_message(response))
        return response

    def _paths(self, handle: Handle) -> list[str] | None:
        """Where the files lie, from a list as Python 2 writes it; None while there are none.

        See IntelePeer, "Get Results Download Link"; its names are sorted, so that rows keep their numbers.
        """
        response = self._ask(handle)
        status = str(_object(response).get("status", ""))
        if "not finish" in status.lower():
            return None
        found = re.search(r"Download:\s*(\[.*\])", status, re.DOTALL)
        paths = None
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            paths = ast.literal_eval(found[1]) if found else None
        if not paths or not all(isinstance(path, str) for path in paths):
            raise ExportFailed(
                f"{NAME}: query {handle['id']} is completed, but names no files: {status[:300]!r}"
            )
        return sorted(set(paths))


def _query(
    export: IntelePeerExport, window: Window, fields: Sequence[str], *, half_open: bool
) -> dict[str, Any]:
    """A query for the records of `[start, end)` (IntelePeer, "Submit Query").

    `timestamp` is printed with `$gte` and `$lte`, which are inclusive, so that a record at the end would come
    with the next window too. Asking up to a second before would lose those in that second, should moments
    have a fraction. `$lt` is among the operators that the error message lists, and if it is refused here all
    the same, then a filter, where it is documented, leaves the end out.
    """
    start, end = _second(window.start), _second(window.end)
    filters = _by_event(export)
    if not half_open:
        event = dict(filters.get(export.event, {}))
        event["TimeStamp"] = {"$lt": end, **event.get("TimeStamp", {})}
        filters = {**filters, export.event: event}
    # `$lte` stays beside it, so that a server which passes over `$lt` does not give all that came later.
    span = {"$gte": start, "$lte": end} | ({"$lt": end} if half_open else {})
    query = {
        "timestamp": span,
        "data": {export.event: {"fields": list(fields)}},
        "filters": filters,
        "scope": export.scope,
    }
    return {name: part for name, part in query.items() if part}


def _by_event(export: IntelePeerExport) -> dict[str, Any]:
    """The filters, as the API takes them: by event, also where the user wrote the export's own without it."""
    conditions = export.filters.values()
    if all(isinstance(each, dict) and all(name.startswith("$") for name in each) for each in conditions):
        return {export.event: export.filters} if export.filters else {}
    return export.filters


def _second(moment: datetime) -> str:
    """A moment as the API reads it; a fraction of a second belongs to the window after (code 422-6)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _failure(request: Request, messages: str) -> JobState:
    """What `Failed` means, which the API says of a query without records too.

    Its sample (IntelePeer, "No Data Returned") gives both as reasons, that the range is too wide and that all
    values are empty. Then the halves are asked for: that costs some queries where the window is empty, but
    the other reading would lose records where it is not. Where even a half of an hour or less gives both
    reasons, its width is none.
    """
    words = messages.lower()
    empty, wide = "empty values" in words, "to wide" in words or "too wide" in words
    length = request.window.end - request.window.start if request.window else timedelta(0)
    narrow = length <= HOUR and length < request.export.window
    if wide and not (empty and narrow):
        return Failed(f"{NAME}: the query failed: {messages}; make the window shorter", split=True)
    if empty:
        return Empty()
    return Failed(f"{NAME}: the query failed: {messages or 'no reason was given'}")


def _object(response: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty where it has none."""
    with suppress(msgspec.DecodeError):
        body = msgspec.json.decode(response.content)
        if isinstance(body, dict):
            return body
    return {}


def _text(said: Any) -> str:  # noqa: ANN401 - any JSON
    """What the API says, which it wraps in objects and lists of all depths."""
    match said:
        case dict():
            return _text([part for name, part in said.items() if name != "code"])
        case list():
            return "; ".join(filter(None, map(_text, said)))
        case None:
            return ""
    return str(said)


def _message(response: requests.Response) -> str:
    """An answer for a message."""
    try:
        said = _text(msgspec.json.decode(response.content))
    except msgspec.DecodeError:
        said = " ".join(response.content[:2000].decode(errors="replace").split())
    address = f"{response.request.method} {safe_url(response.url)}"
    return clean(f"{NAME}: {address} answered {response.status_code}: {said[:300]}")
