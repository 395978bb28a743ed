"""IntelePeer Insights: a query, then compressed CSV files on the customer's SFTP server or in a bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import requests
from msgspec import Meta, Struct

from tap_analytics_exports.errors import (
    Ambiguous,
    Busy,
    ExportFailed,
    JobGone,
    Refused,
    TapError,
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
from tap_analytics_exports.providers.insights_query import by_event, paths_in, query, second
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.settings import (
    Column,
    ColumnKind,
    Export,
    HttpUrl,
    Secret,
    about,
    did_you_mean,
)
from tap_analytics_exports.transport.auth import Auth, FixedAuth, LoginAuth
from tap_analytics_exports.transport.download import RemoteFile
from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.files import file_store
from tap_analytics_exports.transport.http import PASSING, Http
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter

NAME = "intelepeer"

logger = clean_logger(__name__)

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

What is particular to an event is listed by the API without types.
"""

UNFILLED = ("EventSku", "HostId", "CustomerName", "Originator")
"""Common, too, but they "return an empty string for all events", and come only where `fields` names them."""

CORE = ("EventName", "TimeStamp", "SessionId", "TransactionId")
"""Asked for even if the catalog deselects them, unless `fields` leaves them out: a query whose fields are all
empty fails, with the advice to add core fields (IntelePeer, "No Data Returned")."""

STATES: dict[str, JobState] = {
    "pending": Running("pending"),
    "processing": Running("processing"),  # in the text, though not in the list
    "completed": Ready(),
    "canceled": Failed(
        f"{NAME}: the query was canceled, due to a time-out or another error; if that happens again, make "
        "the window shorter",
        retry=True,
    ),
}
"""What its words for states mean, in lower case (IntelePeer, "Get Status Updates"); `failed` is below."""

HOUR = timedelta(hours=1)

_TRIGGER_ADVICE = {
    403: "check that the user is an API Access user of the Customer Portal and may use the Insights API",
    404: "check base_url",
}


class _Handle(Struct):
    """The query's id."""

    id: answers.Id


class _Token(Struct):
    """The answer to a login."""

    token: answers.Token


class _Listed(Struct):
    """What is particular to an event."""

    fields: list[str]


class _Status(Struct):
    """Where a query is, or its files: the two have their answers alike."""

    status: Annotated[str, Meta(min_length=1)]
    messages: object = None


class IntelePeerExport(Export, kw_only=True, forbid_unknown_fields=True):
    """One event type."""

    event: Annotated[str, about("Event", "Name of the event, such as CallEvent; upper and lower case count")]
    fields: Annotated[
        list[str], about("Fields", "Fields to ask for; empty: the common ones and all that the API lists")
    ] = []
    filters: Annotated[
        dict[str, Any],
        about("Filters", 'Which records to export, such as {"FlowId": {"$eq": "5dcf48b453e0ab04386da7d1"}}'),
    ] = {}
    scope: Annotated[
        dict[str, Any],
        about(
            "Scope", "Which sessions to look at, as the API takes it: an object with `filters` and `scope`"
        ),
    ] = {}


class IntelePeerSettings(FileSettings, kw_only=True, forbid_unknown_fields=True):
    """IntelePeer Insights: queries whose results lie on an SFTP server or in an S3 bucket."""

    base_url: Annotated[HttpUrl, about("Base URL", "Where the Insights API is")] = (
        "https://api.intelepeer.com/_rest/v4/dwh"
    )
    auth_url: Annotated[HttpUrl, about("Login URL", "What gives a token for user name and password")] = (
        "https://customer.intelepeer.com/_rest/v4/authenticate"
    )
    api_token: Annotated[Secret | None, about("API token", "Instead of user name and password")] = None
    username: Annotated[str | None, about("User name", "Of an API Access user of the Customer Portal")] = None
    password: Annotated[Secret | None, about("Password", "Of that user")] = None
    exports: Annotated[list[IntelePeerExport], about("Exports", "The events to export")]

    sign_in: ClassVar[Sequence[tuple[str, ...]]] = (("api_token",), ("username", "password"))

    def problems(self) -> Iterator[tuple[str, str]]:
        """A scope that is half, and what is wrong about the files' server."""
        for i, export in enumerate(self.exports):
            if export.scope and not {"filters", "scope"} <= set(export.scope):
                yield f"exports[{i}].scope", "needs both filters and scope"
        yield from super().problems()


class IntelePeer(Provider[IntelePeerSettings, IntelePeerExport]):
    """The Insights API (IntelePeer, "Insights APIs: Overview")."""

    name = NAME
    settings_type = IntelePeerSettings
    most_concurrent_exports = 2  # per customer (Using the Insights API, Request Limits)
    documented_limits = "2 running queries a customer, about 1 TB a query"

    def __init__(self, settings: IntelePeerSettings, network: Network | None = None) -> None:
        super().__init__(settings, network)
        rate_limiter = RateLimiter(settings.requests_per_minute)
        self._portal = Http(
            NAME,
            settings.auth_url,
            setting="auth_url",
            rate_limiter=rate_limiter,
            network=self.network,
        )
        auth: Auth = (
            FixedAuth(f"Bearer {settings.api_token}")
            if settings.api_token
            else LoginAuth("Bearer", self._log_in)
        )
        # 500 is the answer to an unknown id, so it does not pass (IntelePeer, "ID Not Found").
        self._http = Http(
            NAME,
            settings.base_url,
            auth=auth,
            credentials="api_token" if settings.api_token else "username and password",
            rate_limiter=rate_limiter,
            network=self.network,
            passing=PASSING - {500},
        )
        self._files = file_store(NAME, settings, self.network)
        self._events: dict[str, list[str]] | None = None  # the fields of each, once the API has listed them
        self._trouble: TapError | None = None  # why it could not be asked before the run
        self._reached = False  # whether the server of files was, and let us in
        self._ways: tuple[bool, ...] = (True, False)  # to leave a window's end out, see `query`

    def check(self) -> None:
        """Ask for the list of fields, and let the files' server show its key and accept the login."""
        troubles = []
        for try_out in (self._list_events, self._files.check):
            try:
                try_out()
            except TapError as error:
                troubles.append(error)
        refused = any(isinstance(trouble, Refused) for trouble in troubles)
        if troubles:
            raise (Refused if refused else Unreachable)("; ".join(map(str, troubles)))

    def check_export(self, export: IntelePeerExport) -> None:
        """Hold event and fields, also those of filters, against what the API lists."""
        own = self._event_fields(export)
        known = [*COMMON, *UNFILLED, *own]
        for setting, names in (
            ("fields", export.fields),
            ("filters", by_event(export.event, export.filters).get(export.event, {})),
        ):
            for name in names:
                if name not in known:
                    raise ExportFailed(
                        f"{NAME}: {setting}: {export.event} has no field {name!r}"
                        f"{did_you_mean(name, known)}; it has the common ones of "
                        f"the API Data Dictionary and {', '.join(own)}, and upper and lower case count"
                    )

    def submit(self, request: Request[IntelePeerExport]) -> Handle:
        """Trigger the query; a window without a whole second has no records, and its handle is empty."""
        export, window = request.export, request.window
        assert window is not None
        if second(window.start) == second(window.end):
            return {}
        fields = request.columns or self._fields(export)
        self._reach_files()
        for half_open in self._ways:
            body = query(
                export.event,
                export.filters,
                export.scope,
                window=window,
                fields=fields,
                half_open=half_open,
            )
            response = self._http.trigger("POST", "Q", json=body)
            if response.status_code != 400:
                break
        if response.status_code >= 300:
            advice = _TRIGGER_ADVICE.get(response.status_code, "check event, fields, filters and scope")
            raise ExportFailed(f"{_message(self._http, response)}; {advice}")
        self._ways = (half_open,)
        then = "without an id, a query may have been triggered"
        return {"id": answers.read(self._http, response, _Handle, Ambiguous, then).id}

    def poll(self, request: Request[IntelePeerExport], handle: Handle) -> JobState:
        """Ask for the state, and where it is `Completed` for the files too: they may need a moment more."""
        window = request.window
        if window is not None and second(window.start) == second(window.end):
            return Empty()
        try:
            body = self._ask(handle, "/status")
        except answers.Malformed as error:
            return Unknown(str(error))
        word = body.status.strip().lower()
        if word == "failed":
            return _failure(request, answers.said(body.messages))
        state = STATES.get(word, Unknown(body.status))
        if isinstance(state, Ready) and self._paths(handle) is None:
            return Running(word)
        return state

    def files(self, request: Request[IntelePeerExport], handle: Handle) -> Sequence[RemoteFile]:
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
        except (Refused, Unreachable) as error:
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

    def _reach_files(self) -> None:
        """See once a run that results can be fetched, for a query is paid for whether they can or not."""
        if not self._reached:
            try:
                self._files.check()
            except Unreachable as error:
                if error.after is None:
                    raise
                raise Busy(str(error), error.after) from None
            self._reached = True

    def _log_in(self) -> str:
        """A token for 24 hours (IntelePeer, "Authentication")."""
        login = {"username": self.settings.username, "password": self.settings.password}
        response = self._portal.ask(
            "POST", self.settings.auth_url, json=login, headers={"Accept": "application/json"}
        )
        if response.status_code in (400, 401, 403):
            raise Refused(
                f"{_message(self._portal, response)}; check auth_url, username and password, "
                "which must be those of an API Access user (Customer Portal > User Management)"
            )
        if response.status_code >= 300:
            raise Unreachable(
                f"{_message(self._portal, response)}, which is no answer to a login; check auth_url"
            )
        then = "this is no refusal, but without a token nothing can be asked for; check auth_url"
        return answers.read(self._portal, response, _Token, Unreachable, then).token

    def _list_events(self) -> dict[str, list[str]]:
        """The fields that are particular to each event (IntelePeer, "Get Available Fields")."""
        response = self._http.ask("GET", "Q")
        if response.status_code == 403:
            raise Refused(f"{_message(self._http, response)}; {_TRIGGER_ADVICE[403]}")
        if response.status_code >= 300:
            raise Unreachable(f"{_message(self._http, response)}; check base_url")
        then = "it is no list of events and fields; check base_url"
        found = answers.read(self._http, response, dict[str, _Listed], Unreachable, then)
        if not found:
            raise Unreachable(f"{answers.call(self._http, response)} without any event; check base_url")
        self._events = {event: listed.fields for event, listed in found.items()}
        return self._events

    def _fields(self, export: IntelePeerExport) -> tuple[str, ...]:
        """The fields to ask for, each once.

        Raises:
            ExportFailed: The API does not know the event.
        """
        if export.fields:
            return tuple(dict.fromkeys(export.fields))
        return tuple(dict.fromkeys([*COMMON, *self._event_fields(export)]))

    def _event_fields(self, export: IntelePeerExport) -> list[str]:
        """The fields that are particular to the export's event.

        Raises:
            ExportFailed: The API does not know the event.
        """
        events = self._events or self._list_events()
        if export.event not in events:
            raise ExportFailed(
                f"{NAME}: there is no event {export.event!r}; the API knows {', '.join(events)}, "
                f"and upper and lower case count{did_you_mean(export.event, events)}"
            )
        return events[export.event]

    def _ask(self, handle: Handle, suffix: str = "") -> _Status:
        number = answers.handle(NAME, _Handle, handle).id
        response = self._http.ask("GET", f"Q/{answers.segment(number)}{suffix}")
        if response.status_code < 300:
            return answers.read(self._http, response, _Status)
        message = _message(self._http, response)
        gone = response.status_code == 500 and "does not exist" in message  # "ID Not Found"
        if gone or response.status_code == 404:
            raise JobGone(f"{message}; IntelePeer does not know the query any more")
        if response.status_code >= 500:
            raise Unreachable(message)
        raise ExportFailed(f"{message}; check base_url; {_TRIGGER_ADVICE[403]}")

    def _paths(self, handle: Handle) -> list[str] | None:
        """Where the files lie; None while there are none."""
        status = self._ask(handle).status
        if "not finish" in status.lower():
            return None
        paths = paths_in(status)
        if not paths:
            raise ExportFailed(
                f"{NAME}: query {handle['id']} is completed, but names no files: "
                f"{answers.said(status)!r}; ask IntelePeer's support"
            )
        return paths


def _failure(request: Request[IntelePeerExport], messages: str) -> JobState:
    """Tell what `Failed` means, which the API says of a query without records too.

    Its sample (IntelePeer, "No Data Returned") gives both as reasons, that the range is too wide and that all
    values are empty. Then the halves are asked for: that costs some queries where the window is empty, but
    the other reading would lose records where it is not. Where even a half of an hour or less gives both
    reasons, its width is none.
    """
    text = messages.lower()
    empty, wide = "empty values" in text, "to wide" in text or "too wide" in text
    length = request.window.end - request.window.start if request.window else timedelta(0)
    narrow = length <= HOUR and length < (request.export.window or length)
    if wide and not (empty and narrow):
        return Failed(f"{NAME}: the query failed: {messages}; make the window shorter", split=True)
    if empty:
        return Empty()
    return Failed(
        f"{NAME}: the query failed: {messages or 'no reason was given'}; check fields, filters and scope"
    )


def _message(http: Http, response: requests.Response) -> str:
    """Say an answer, whose messages are wrapped in objects and lists of all depths."""
    try:
        said = answers.said(answers.read(http, response, object))
    except TapError:
        return http.message(response)
    return f"{answers.call(http, response)}: {said}"
