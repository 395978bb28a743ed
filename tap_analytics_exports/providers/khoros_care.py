"""Khoros Care: the Analytics Reports API, whose exports are workflows: started, watched, downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import requests

from tap_analytics_exports.errors import Ambiguous, ExportFailed, JobGone, NoData, Unreachable
from tap_analytics_exports.providers.base import (
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
from tap_analytics_exports.transport.answers import no_object
from tap_analytics_exports.transport.auth import FixedAuth
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.http import Http, millis
from tap_analytics_exports.transport.rate_limiter import RateLimiter

NAME = "khoros_care"

# The reference documents GET for the last two; the Quick Start uses it for conversations. The rest is POST.
_GET = frozenset({"conversation", "conversation_actions", "user"})

# What the tap itself sends, and which setting says it.
_OWN_PARAMETERS = {
    "companyKey": "set `company_key`",
    "startTime": "it is the window's",
    "endTime": "it is the window's",
    "reportFormat": "set `format`",
    "reportMetrics": "set `metrics`",
}

# The reports API refuses an interval that has too many buckets, in a text in place of the result.
_TOO_LARGE = "Too many buckets"

# Details of a closed workflow. The Quick Start has COMPLETED and FAILED; ids are as in Amazon SWF, whose
# reference has the others (WorkflowExecutionInfo, closeStatus). One of them may be otherwise next time.
_COMPLETED, _GOES_ON, _PASSING = "COMPLETED", "CONTINUED_AS_NEW", "TIMED_OUT"

Parameter = str | int | float | bool


class KhorosCareExport(Export, kw_only=True, forbid_unknown_fields=True):
    """An export of the Analytics Reports API."""

    export_id: Annotated[str, about("Export", "The export's id, such as conversation or incoming_post")]
    section: Annotated[
        Literal["report", "marketing"], about("Section", "`marketing` for the exports of Publishing")
    ] = "report"
    format: Annotated[Literal["csv", "json"], about("Format", "In which Khoros writes the file")] = "csv"
    metrics: Annotated[
        list[str], about("Metrics", "The columns to ask for, such as CONVERSATION_ID; empty: all")
    ] = []  # noqa: RUF012
    parameters: Annotated[
        dict[str, Parameter | list[Parameter]],
        about("Parameters", "Any other parameter of the export, such as teamIds; a list repeats it"),
    ] = {}  # noqa: RUF012


class KhorosCareSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """Khoros Care: exports of the Analytics Reports API."""

    base_url: Annotated[
        str, about("Base URL", "The Analytics API URL of the app's Analytics API Settings, with /reports")
    ] = "https://analytics-api.app.lithium.com/api/public/reports"
    requests_per_minute: Annotated[
        int | None, about("Requests per minute", "At most this many in any 60 seconds, over all streams")
    ] = 20
    username: Annotated[str, about("User name", "Of an account that has the Analytics Reports API")]
    password: Annotated[Secret, about("Password", "Its password")]
    company_key: Annotated[Secret, about("Company key", "From the app's Analytics API Settings")]
    exports: Annotated[list[KhorosCareExport], about("Exports", "The exports to run")]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Parameters that the tap sends itself."""
        for i, export in enumerate(self.exports):
            for name in export.parameters:
                if name in _OWN_PARAMETERS:
                    yield f"exports[{i}].parameters.{name}", f"is sent by the tap: {_OWN_PARAMETERS[name]}"


class KhorosCare(Provider[KhorosCareSettings, KhorosCareExport]):
    """The Analytics Reports API (Khoros Care developer documentation)."""

    name = NAME
    settings_type = KhorosCareSettings

    def __init__(self, settings: KhorosCareSettings) -> None:
        super().__init__(settings)
        self._http = Http(
            NAME,
            settings.base_url,
            auth=FixedAuth.basic(settings.username, settings.password),
            # 20 requests a minute (Rate limits), whichever they are.
            rate_limiter=RateLimiter(settings.requests_per_minute),
        )
        # URLs that answers had, by run id. Some have an access token, so they stay in this process.
        self._status_urls: dict[str, str] = {}
        self._download_urls: dict[str, str] = {}

    def check(self) -> None:
        """Ask for the list of time zones (config/timezones)."""
        self._http.probe(f"../config/timezones?{self._key}")

    def submit(self, request: Request) -> Handle:
        """Start the workflow of an export."""
        response = self._start(request.export, self._parameters(request))
        if response.status_code >= 300:
            words = self._http.message(response)
            raise ExportFailed(words, split=_TOO_LARGE in words)
        result = _result(self._http.json(response, Ambiguous))
        if isinstance(result, str):
            raise ExportFailed(
                f"{NAME}: {request.export.export_id} was not started: {result}", split=_TOO_LARGE in result
            )
        job = _object(result.get("jobInfo")) or result
        handle = {"workflowId": job.get("workflowId"), "runId": job.get("runId")}
        if not all(isinstance(part, str) and part for part in handle.values()):
            raise Ambiguous(f"{NAME}: {request.export.export_id} may be started, but the answer has no ids")
        status_url = job.get("statusUrl")
        # Some answers have no statusUrl, and some samples one on another host, which gets no credentials.
        if isinstance(status_url, str) and self._http.own(status_url):
            self._status_urls[str(handle["runId"])] = status_url
        return handle

    def poll(self, request: Request, handle: Handle) -> JobState:
        """Ask for the workflow's status."""
        run = handle["runId"]
        response = self._http.ask("GET", self._status_urls.get(run) or self._url(handle, "status"))
        if response.status_code in (404, 410):
            raise JobGone(f"{self._http.message(response)}; Khoros does not know the workflow any more")
        if response.status_code != 200:
            raise ExportFailed(self._http.message(response))
        result = _result(self._http.json(response, Unreachable), run)
        if isinstance(result, str):
            return Failed(f"{NAME}: {result}", split=True) if _TOO_LARGE in result else Unknown(result)
        url = _object(result.get("jobInfo")).get("downloadUrl")
        if isinstance(url, str) and url:
            hide(*parse_qs(urlsplit(url).query).get("analyticsAccessToken", ()))
            self._download_urls[run] = url
        return _state(_object(result.get("result")))

    def files(self, request: Request, handle: Handle) -> Sequence[RemoteFile]:
        """The one file, in the export's format."""
        name = f"{request.export.export_id}.{request.export.format}"
        return [RemoteFile(name, partial(self._open, handle))]

    def columns(self, export: KhorosCareExport) -> Sequence[str]:
        """The metrics that are asked for."""
        return export.metrics

    def wanted(self, export: KhorosCareExport, headers: Sequence[str] | None) -> tuple[str, ...] | None:
        """The selected ones of the metrics; one stays, for Khoros sends all when none is asked for."""
        if not export.metrics:
            return None
        chosen = [name for name in export.metrics if headers is None or name in headers]
        return tuple(chosen or export.metrics[:1])

    def identity(self, export: KhorosCareExport) -> Mapping[str, Any]:
        """The account, and what is sent along."""
        return {
            "username": self.settings.username,
            "section": export.section,
            "export_id": export.export_id,
            "format": export.format,
            "parameters": export.parameters,
        }

    def file_format(self, export: KhorosCareExport) -> Literal["csv", "json"]:
        """CSV, or an array of objects."""
        return export.format

    @property
    def _key(self) -> str:
        return urlencode({"companyKey": self.settings.company_key})

    def _url(self, handle: Handle, what: str) -> str:
        """A workflow's URL, as the Quick Start has it; the ids have signs that must be encoded."""
        ids = "/".join(quote(handle[part], safe="") for part in ("workflowId", "runId"))
        return self._http.url(f"report/{ids}/{what}?{self._key}")

    def _start(self, export: KhorosCareExport, parameters: list[tuple[str, str]]) -> requests.Response:
        """Trigger by the documented call; 404 and 405, which start nothing, lead to the other spellings.

        The Quick Start prints the path of Care exports as report/report/…, its samples have report/…, and
        for conversations its method is not the reference's.
        """
        name = quote(export.export_id, safe="")
        get = export.section == "marketing" or export.export_id in _GET
        methods = ("GET", "POST") if get else ("POST", "GET")
        paths = [f"report/marketing/{name}"]
        if export.section == "report":
            paths = [f"report/{name}", f"report/report/{name}"]
        for path in paths:
            for method in methods:
                # Parameters are documented as a query, a form or JSON; all exports take the query.
                response = self._http.trigger(method, path, params=parameters)
                if response.status_code != 405:
                    break
            if response.status_code not in (404, 405):
                break
        return response

    def _parameters(self, request: Request) -> list[tuple[str, str]]:
        export: KhorosCareExport = request.export
        window = request.window
        assert window is not None  # noqa: S101 - each export of Khoros has windows
        parameters: dict[str, Any] = {
            "companyKey": self.settings.company_key,
            "reportFormat": export.format,
            "locale": "en",  # else headers and values would follow the account's language
            "startTime": millis(window.start),
            # Both ends belong to the interval: the reference's samples end in …199999, just before midnight.
            "endTime": millis(window.end) - 1,
            "reportMetrics": list(request.columns or ()),
            **export.parameters,
        }
        return [
            (name, str(value).lower() if isinstance(value, bool) else str(value))
            for name, values in parameters.items()
            for value in (values if isinstance(values, list) else [values])
        ]

    @contextmanager
    def _open(self, handle: Handle, wanted: Wanted) -> Iterator[Body]:
        # Taken at its word once, whatever its host; after that, its token may have expired.
        given = self._download_urls.pop(handle["runId"], None)

        def check(response: requests.Response) -> None:
            if response.status_code == 200:
                return
            words = self._http.message(response)
            if response.status_code == 204:
                raise NoData(words)
            if given:
                raise Unreachable(words)
            if response.status_code in (404, 410):
                raise JobGone(f"{words}; Khoros does not keep the file any more")
            raise ExportFailed(words)

        url = given or self._url(handle, "download")
        with self._http.body("GET", url, wanted=wanted, check=check) as body:
            yield no_object(body)


def _result(answer: Any, run: str | None = None) -> dict[str, Any] | str:  # noqa: ANN401 - what JSON holds
    """The result of an answer: samples have an object, a list of one, and a text that says what is wrong."""
    answer = _object(answer)
    result = answer.get("result")
    if isinstance(result, list):
        ours = [one for one in result if _object(_object(one).get("jobInfo")).get("runId") == run]
        result = (ours or result or [None])[0]
    passed = str(answer.get("status", "PASS")).upper() == "PASS"
    if passed and isinstance(result, dict):
        return result
    return str(result or answer.get("message") or f"status {answer.get('status')} without a result")


def _state(result: Mapping[str, Any]) -> JobState:
    state, detail = (
        str(word or "").strip().upper().replace(" ", "_")
        for word in (result.get("runnerState"), result.get("detail") or result.get("details"))
    )
    if state == "RUNNING":
        return Running()
    if state != "CLOSED" or not detail:  # the Quick Start has a detail wherever a workflow is closed
        return Unknown(f"{state}/{detail}")
    if detail == _COMPLETED:
        return Ready()
    if detail == _GOES_ON:
        return Running()
    reason = result.get("reason")
    return Failed(
        f"{NAME}: the workflow was closed with {detail}" + (f": {reason}" if reason else ""),
        retry=detail == _PASSING,
    )


def _object(value: Any) -> dict[str, Any]:  # noqa: ANN401
    return value if isinstance(value, dict) else {}
