"""Twilio Flex Insights: the raw export of a saved report, on the platform of GoodData."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

import msgspec
import requests

from tap_analytics_exports.errors import (
    Ambiguous,
    CredentialsRefused,
    ExportFailed,
    JobGone,
    NoData,
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
from tap_analytics_exports.redaction import clean, hide, safe_url
from tap_analytics_exports.settings import Export, ProviderSettings, Secret, about
from tap_analytics_exports.transport.answers import whole
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.failures import retry_after
from tap_analytics_exports.transport.http import PASSING, Http
from tap_analytics_exports.transport.rate_limiter import RateLimiter
from tap_analytics_exports.windows import Window

NAME = "flex_insights"


class FlexExport(Export, kw_only=True, forbid_unknown_fields=True):
    """A saved report."""

    report_id: Annotated[
        str | int, about("Report", "Object id of the saved report: the number at the end of its URL")
    ]
    date_identifier: Annotated[
        str | None,
        about(
            "Date identifier",
            "Identifier of the date attribute that windows filter, such as date.date.mmddyyyy; "
            "none: each run takes a snapshot",
        ),
    ] = None

    # The filter selects rows by the day of the workspace's time zone.
    whole_days: ClassVar[bool] = True

    @property
    def incremental(self) -> bool:
        """Only with a date attribute to filter by."""
        return self.date_identifier is not None


class FlexSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """Twilio Flex Insights: raw exports of saved reports."""

    base_url: Annotated[str, about("Base URL", "Where the Flex Insights API is")] = (
        "https://analytics.ytica.com"
    )
    username: Annotated[str, about("User name", "E-mail address of the Flex Insights user")]
    password: Annotated[
        Secret, about("Password", "Its password for direct logins, which Flex Insights Support sets")
    ]
    workspace_id: Annotated[str, about("Workspace", "Id of the workspace that holds the reports")]
    exports: Annotated[list[FlexExport], about("Exports", "The reports to export")]


class FlexInsights(Provider[FlexSettings, FlexExport]):
    """The raw report export (Twilio, "Export data via the Flex Insights API")."""

    name = NAME
    settings_type = FlexSettings

    def __init__(self, settings: FlexSettings) -> None:
        super().__init__(settings)
        rate_limiter = RateLimiter(settings.requests_per_minute)
        self._session = _Session(settings, rate_limiter)
        self._http = Http(NAME, settings.base_url, auth=self._session, rate_limiter=rate_limiter)
        self._workspace = quote(settings.workspace_id, safe="")
        self._lock = threading.Lock()
        self._naming = threading.Lock()
        self._uris: dict[str, str] = {}  # of date attributes, by identifier
        self._open: dict[str, requests.Response] = {}  # answers whose body is the file, by the result's uri

    def check(self) -> None:
        """Log in and get a token."""
        self._session.headers()

    def submit(self, request: Request) -> Handle:
        """Trigger the raw export; the handle is where its result will be.

        The result's uri has a query, which names the result, and is asked for byte for byte as it came. It
        opens nothing to anybody who has no token, and has none in it.
        """
        export: FlexExport = request.export
        report: dict[str, Any] = {"report": f"/gdc/md/{self._workspace}/obj/{export.report_id}"}
        if export.date_identifier is not None and request.window is not None:
            report["context"] = {"filters": [self._filter(export, export.date_identifier, request.window)]}
        response = self._http.trigger(
            "POST",
            f"/gdc/app/projects/{self._workspace}/execute/raw",
            json={"report_req": report},
            headers={"Accept": "application/json"},
        )
        if response.status_code >= 400:
            raise ExportFailed(
                f"{_message(response)}; check report_id, workspace_id and what the user may see"
            )
        # 201 with the uri in the body, and as Location (recorded by gooddata-ruby).
        uri = _json(response).get("uri") or response.headers.get("Location")
        if not uri or not isinstance(uri, str):
            raise Ambiguous(
                f"{_message(response)}, without the uri of a result; an export may have been triggered"
            )
        return {"uri": uri}

    def poll(self, request: Request, handle: Handle) -> JobState:
        """Ask for the result: 202 while it is computed, then 200 with the file, which is kept open.

        A report may have a gigabyte, and a look that dropped the file would make the vendor send it twice.
        """
        uri = handle["uri"]
        response = self._http.ask("GET", uri, stream=True)
        if response.status_code == 200 and _is_file(response):
            self._keep_open(uri, response)
            return Ready()
        with response:
            match response.status_code:
                case 202:
                    # The body may name another uri to go on with (GoodData's own widgets follow it).
                    fresh = _json(response).get("uri")
                    handle["uri"] = fresh if isinstance(fresh, str) else uri
                    return Running()
                case 204:  # the report has no data (gooddata-java, ExportService)
                    return Empty()
                case 404 | 410:  # 410 also for a task that failed (keboola/gooddata-php-client)
                    raise JobGone(_message(response))
                case status if status >= 500:
                    raise Unreachable(_message(response))
                case status if status >= 400:
                    return Failed(
                        f"{_message(response)}; open the report in Flex Insights to see what it lacks"
                    )
            return Unknown(f"{response.status_code} {response.headers.get('Content-Type', '')}".strip())

    def files(self, request: Request, handle: Handle) -> Sequence[RemoteFile]:
        """The one CSV file, from the answer that the look found if it is still open."""
        uri = handle["uri"]
        return [RemoteFile(f"report {request.export.report_id}", partial(self._transfer, uri))]

    def identity(self, export: FlexExport) -> Mapping[str, Any]:
        """Which report, as whom; the zone too, as it makes a window's moments into days."""
        return {
            "base_url": self.settings.base_url,
            "workspace_id": self.settings.workspace_id,
            "username": self.settings.username,
            "report_id": str(export.report_id),
            "date_identifier": export.date_identifier,
            "timezone": export.zone.key if export.incremental else None,
        }

    def close(self) -> None:
        """Log out."""
        with self._lock:
            answers, self._open = self._open, {}
        for answer in answers.values():
            answer.close()
        self._session.log_out()

    def _filter(self, export: FlexExport, identifier: str, window: Window) -> dict[str, Any]:
        """The days to export, both ends inclusive, as Twilio's own wrapper asks for them.

        See "Flex Insights API wrapper with Twilio Functions" on Twilio's blog, and its code.
        """
        first, last = window.days(export.zone)
        return {
            "uri": self._uri(identifier),
            "constraint": {"type": "interval", "from": first.isoformat(), "to": last.isoformat()},
        }

    def _uri(self, identifier: str) -> str:
        """The address of a date attribute in this workspace (Twilio, "Mapping identifiers")."""
        with self._naming:
            if identifier not in self._uris:
                response = self._http.ask(
                    "POST",
                    f"/gdc/md/{self._workspace}/identifiers",
                    json={"identifierToUri": [identifier]},
                    headers={"Accept": "application/json"},
                )
                if response.status_code >= 400:
                    raise ExportFailed(f"{_message(response)}; check workspace_id")
                # What is unknown is missing from the list, with status 200 (recorded by gooddata-ruby).
                found = _json(response).get("identifiers") or []
                uris = [each["uri"] for each in found if each.get("identifier", identifier) == identifier]
                if not uris:
                    raise ExportFailed(
                        f"{NAME}: the workspace {self.settings.workspace_id} has no attribute "
                        f"{identifier!r}; check date_identifier"
                    )
                self._uris[identifier] = uris[0]
            return self._uris[identifier]

    def _keep_open(self, uri: str, response: requests.Response) -> None:
        with self._lock:
            before, self._open[uri] = self._open.pop(uri, None), response
        if before is not None:
            before.close()

    @contextmanager
    def _transfer(self, uri: str, wanted: Wanted) -> Iterator[Body]:
        def check(response: requests.Response) -> None:
            if response.status_code == 204:
                raise NoData(f"{NAME}: the report has no data")
            if response.status_code != 200:  # it was there before, so it is gone
                raise JobGone(_message(response))
            if not _is_file(response):
                self._http.read(response)
                raise JobGone(_message(response))

        with self._lock:
            response = self._open.pop(uri, None)
        if response is not None:
            with response:
                if not wanted.offset:
                    yield whole(response)
                    return
        with self._http.body("GET", uri, wanted=wanted, check=check) as body:
            yield body


class _Session:
    """The two tokens: a login gives the SST, which gets the TT, which opens all else.

    A TT lives for 10 minutes and an SST for two weeks (Twilio, "General usage"). Which of them a 401 is
    about stands in its WWW-Authenticate (recorded by gooddata-ruby), for its body may be empty.
    """

    def __init__(self, settings: FlexSettings, rate_limiter: RateLimiter) -> None:
        self._settings = settings
        # 429 says that there were too many bad logins, and trying again is no cure.
        self._http = Http(NAME, settings.base_url, rate_limiter=rate_limiter, passing=PASSING - {429})
        self._lock = threading.Lock()
        self._sst = ""
        self._tt = ""
        self._profile = ""
        self._refused: CredentialsRefused | None = None

    def headers(self) -> Mapping[str, str]:
        """The TT, as the cookie that the vendor documents, whose path, /gdc, all lies under that we ask for.

        And as the header that Twilio's own wrapper and gooddata-ruby send in its place.
        """
        with self._lock:
            if not self._tt:
                self._get_tt()
            return {"Cookie": self._cookie, "X-GDC-AuthTT": self._tt}

    def renew(self, refused: requests.Response) -> bool:
        """Get a new TT, and a new SST before if that has ended, unless another thread has done so."""
        with self._lock:
            if refused.request.headers.get("Cookie") == self._cookie:
                if "GDCAuthSST" in refused.headers.get("WWW-Authenticate", ""):
                    self._sst = ""
                self._get_tt()
        return True

    def log_out(self) -> None:
        """End the session, if there is one.

        The path is that of the login. The profile's, one word away, would delete the user.
        """
        with self._lock:
            if self._sst and self._profile and self._end_session().status_code == 401:
                self._tt = _token(self._ask_for_tt(), "userToken", "X-GDC-AuthTT")
                self._end_session()
            self._sst = ""

    @property
    def _cookie(self) -> str:
        return f"GDCAuthTT={self._tt}"

    def _get_tt(self) -> None:
        response = self._ask_for_tt() if self._sst else None
        if response is None or response.status_code == 401:
            self._log_in()
            response = self._ask_for_tt()
        if response.status_code == 429:
            raise Unreachable(_message(response), retry_after(response))
        self._tt = _token(response, "userToken", "X-GDC-AuthTT")
        if response.status_code != 200 or not self._tt:
            raise CredentialsRefused(
                f"{_message(response)}; the login was accepted, but no token came after it"
            )

    def _ask_for_tt(self) -> requests.Response:
        headers = {"X-GDC-AuthSST": self._sst, "Accept": "application/json"}
        return self._http.ask("GET", "/gdc/account/token", headers=headers)

    def _end_session(self) -> requests.Response:
        headers = {"X-GDC-AuthSST": self._sst, "Cookie": self._cookie, "Accept": "application/json"}
        return self._http.ask(
            "DELETE", f"/gdc/account/login/{quote(self._profile, safe='')}", headers=headers
        )

    def _log_in(self) -> None:
        """Get an SST. A login that was refused is not tried again: too many of them lock the user out."""
        if self._refused is not None:
            raise self._refused
        login = {
            "login": self._settings.username,
            "password": self._settings.password,
            "remember": 0,
            "verify_level": 2,  # tokens in the answer, not in cookies
        }
        response = self._http.ask(
            "POST",
            "/gdc/account/login",
            json={"postUserLogin": login},
            headers={"Accept": "application/json"},
        )
        self._sst = _token(response, "userLogin", "X-GDC-AuthSST")
        if response.status_code != 200 or not self._sst:
            self._refused = CredentialsRefused(f"{_message(response)}; {_advice(response)}")
            raise self._refused
        self._profile = str(_part(response, "userLogin").get("profile", "")).rpartition("/")[2]


def _advice(response: requests.Response) -> str:
    """What to do about a refused login."""
    if response.status_code == 429:
        wait = retry_after(response)
        words = "" if wait is None else f" {wait:.0f} seconds"
        return f"there were too many bad logins: check username and password, and wait{words}"
    if "security code" in _said(response):  # a captcha (keboola/gooddata-php-client, Exception)
        return "log in to Flex Insights once in a browser and answer the security question there"
    return "check username and password; Flex Insights Support sets the password for direct logins"


def _is_file(response: requests.Response) -> bool:
    """Whether an answer is the report, and not a page that somebody put in its place."""
    kind = response.headers.get("Content-Type", "").lower()
    return not kind.startswith(("text/html", "application/json"))


def _json(response: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty where it has none, as some errors are HTML whatever one accepts."""
    with suppress(msgspec.DecodeError):
        body = msgspec.json.decode(response.content)
        if isinstance(body, dict):
            return body
    return {}


def _part(response: requests.Response, name: str) -> dict[str, Any]:
    part = _json(response).get(name)
    return part if isinstance(part, dict) else {}


def _token(response: requests.Response, name: str, header: str) -> str:
    """A token, which stands in the body and in a header; empty where there is none."""
    token = str(_part(response, name).get("token") or response.headers.get(header, ""))
    hide(token)
    return token


def _said(response: requests.Response) -> str:
    """What an answer's body says: JSON with a printf style message and its parameters, or some text."""
    error = _json(response)
    error = error.get("error", error)
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(message, str):
        text = response.content[:2000].decode(errors="replace") if response.status_code >= 400 else ""
        return " ".join(text.split())[:300]
    parameters = iter(error.get("parameters") or ())
    return re.sub("%[sd]", lambda place: str(next(parameters, place[0])), message)[:300]


def _message(response: requests.Response) -> str:
    """An answer for a message, with the id by which the vendor's support finds the request."""
    address = f"{response.request.method} {safe_url(response.url)}"
    number = response.headers.get("X-GDC-Request")
    reference = f" (X-GDC-Request {number})" if number else ""
    said = f": {words}" if (words := _said(response)) else ""
    return clean(f"{NAME}: {address} answered {response.status_code}{said}{reference}")
