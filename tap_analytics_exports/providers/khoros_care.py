"""Khoros Care: the Analytics Reports API, whose exports are workflows: started, watched, downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qs, urlencode

import requests
from msgspec import Meta, Struct

from tap_analytics_exports.errors import Ambiguous, ExportFailed, JobGone, NoData, Unreachable
from tap_analytics_exports.providers import answers
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
from tap_analytics_exports.redaction import clean_logger, hide
from tap_analytics_exports.settings import Export, HttpUrl, ProviderSettings, Secret, about, did_you_mean
from tap_analytics_exports.transport.answers import no_object
from tap_analytics_exports.transport.auth import FixedAuth
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.http import Http, millis
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter

NAME = "khoros_care"

logger = clean_logger(__name__)

# The exports that the reference of the Analytics Reports API has, with their names in Care.
_EXPORTS = {
    "raw_agent_states": "Agent State",
    "combined": "Combined Raw",
    "conversation_actions": "Conversation Actions",
    "conversation_history_action": "Conversation History Action",
    "author": "Raw Author",
    "conversation": "Raw Conversation",
    "raw_expert_help": "Raw Help Request",
    "incoming_post": "Raw Incoming Post",
    "response": "Raw Response",
    "response_approval": "Raw Response Approval",
    "team_performance": "Raw Team Performance",
    "team_performance_interval": "Team Performance Interval",
    "user": "User",
}

# The reference documents GET for the last two; the Quick Start uses it for conversations. The rest is POST.
_GET = frozenset({"conversation", "conversation_actions", "user"})

# What the tap itself sends, and which setting says it.
_OWN_PARAMETERS = {
    "companyKey": "set `company_key`",
    "startTime": "leave it out, as it is the window's",
    "endTime": "leave it out, as it is the window's",
    "reportFormat": "set `format`",
    "reportMetrics": "set `metrics`",
}

# The reports API refuses an interval that has too many buckets, in a text in place of the result.
_TOO_LARGE = "Too many buckets"
_FEWER = "set a larger parameters.timeInterval, or a shorter window"

# Where both are found.
_CONSOLE = "Account Admin > General Settings > Analytics API Settings"

# Details of a closed workflow. The Quick Start has COMPLETED and FAILED; ids are as in Amazon SWF, whose
# reference has the others (WorkflowExecutionInfo, closeStatus). What timed out may not do so next time.
_CLOSED: Mapping[str, JobState] = {"COMPLETED": Ready(), "CONTINUED_AS_NEW": Running("CONTINUED_AS_NEW")}
_PASSING = "TIMED_OUT"

# What to look at for each refusal, whose body is `{}` in the reference.
_TRIGGER_ADVICE = {
    400: "check parameters and metrics, which must be what this export takes, and company_key, which is in "
    f"{_CONSOLE}",
    403: "check that the user is of type Analytics and may use the Reports API (Khoros Support gives both)",
    404: "check export_id and section (report or marketing), and that base_url is the Analytics API URL of "
    f"{_CONSOLE}",
    405: "check export_id and section (report or marketing): the export takes neither GET nor POST",
}
_RESULT_ADVICE = {
    400: f"check base_url and company_key, which must be those of {_CONSOLE}",
    403: "check that the user still has the Analytics Reports API",
}


class _Handle(Struct, rename="camel"):
    """The two ids of a workflow."""

    workflow_id: str
    run_id: str


class _Job(Struct, rename="camel"):
    """A workflow; some answers have no URLs, and some empty ones."""

    workflow_id: str | None = None
    run_id: str | None = None
    status_url: str | None = None
    download_url: str | None = None


class _Progress(Struct, rename="camel"):
    """Where a workflow is; `details` is the older name."""

    runner_state: str | None = None
    detail: str | None = None
    details: str | None = None
    reason: object = None


class _Result(_Job, rename="camel"):
    """Of a trigger: the workflow. Of a status: the workflow as `jobInfo`, and where it is."""

    job_info: _Job | None = None
    result: _Progress | None = None


class _Answer(Struct):
    """Every answer; samples of `result` have an object, a list of one, and a text that says what is wrong."""

    status: str | None = "PASS"
    message: str | None = None
    result: _Result | list[_Result] | str | None = None


class _Zone(Struct):
    """A time zone that reports can be in."""

    id: str


class _Zones(Struct):
    """The list of them (Config API)."""

    result: list[_Zone]


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
    ] = []
    parameters: Annotated[
        dict[str, Parameter | list[Parameter]],
        about("Parameters", "Any other parameter of the export, such as teamIds; a list repeats it"),
    ] = {}


class KhorosCareSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """Khoros Care: exports of the Analytics Reports API."""

    base_url: Annotated[
        HttpUrl, about("Base URL", "The Analytics API URL of the app's Analytics API Settings, with /reports")
    ] = "https://analytics-api.app.lithium.com/api/public/reports"
    requests_per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        about("Requests per minute", "At most this many in any 60 seconds, over all streams"),
    ] = 20
    username: Annotated[str, about("User name", "Of an account that has the Analytics Reports API")]
    password: Annotated[Secret, about("Password", "Its password")]
    company_key: Annotated[Secret, about("Company key", "From the app's Analytics API Settings")]
    exports: Annotated[list[KhorosCareExport], about("Exports", "The exports to run")]

    sign_in: ClassVar[Sequence[tuple[str, ...]]] = (("username", "password", "company_key"),)

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
    documented_limits = "20 requests a minute"  # Khoros, "Rate limits"

    def __init__(self, settings: KhorosCareSettings, network: Network | None = None) -> None:
        super().__init__(settings, network)
        self._http = Http(
            NAME,
            settings.base_url,
            auth=FixedAuth.basic(settings.username, settings.password),
            credentials="username and password, which must be of a user of type Analytics",
            # 20 requests a minute (Rate limits), whichever they are.
            rate_limiter=RateLimiter(settings.requests_per_minute),
            network=self.network,
        )
        # URLs that answers had, by run id. Some have an access token, so they stay in this process.
        self._status_urls: dict[str, str] = {}
        self._download_urls: dict[str, str] = {}

    def check(self) -> None:
        """Ask for the list of time zones (config/timezones)."""
        answers.probe(self._http, self._timezones)

    def check_export(self, export: KhorosCareExport) -> None:
        """Hold an export against the reference, for no call shows it but the one that starts it."""
        name, known = export.export_id, [*_EXPORTS, *_EXPORTS.values()]
        if export.section == "report" and name not in _EXPORTS:
            near = did_you_mean(name, known)
            for export_id, shown in _EXPORTS.items():
                near = near.replace(f"mean {shown}?", f"mean {export_id}, which is called {shown} in Care?")
            words = f"{NAME}: the reference of the Analytics Reports API has no export {name!r}"
            if near:
                raise ExportFailed(f"{words}{near} Check export_id and section")
            logger.warning("%s, so whether Khoros has it shows when it is exported first", words)
        if name == "team_performance_interval" and "timeInterval" not in export.parameters:
            raise ExportFailed(
                f"{NAME}: team_performance_interval needs parameters.timeInterval, a width in milliseconds, "
                "such as 86400000 for a day"
            )
        if (zone := export.parameters.get("timezone")) is not None:
            response = self._http.ask("GET", self._timezones)
            ids = {each.id for each in answers.read(self._http, response, _Zones).result}
            if zone not in ids:
                raise ExportFailed(
                    f"{NAME}: parameters.timezone: Khoros has no zone {zone!r}{did_you_mean(str(zone), ids)}"
                )

    def submit(self, request: Request[KhorosCareExport]) -> Handle:
        """Start the workflow of an export."""
        name = request.export.export_id
        response = self._start(request.export, self._parameters(request))
        if response.status_code >= 300:
            message = self._http.message(response)
            if _TOO_LARGE in message:
                raise ExportFailed(f"{message}; {_FEWER}", split=True)
            advice = _TRIGGER_ADVICE.get(response.status_code, "check export_id, section and parameters")
            raise ExportFailed(f"{message}; {advice}")
        maybe = f"{name} may be started"
        result = _result(answers.read(self._http, response, _Answer, Ambiguous, maybe))
        if isinstance(result, str):
            large = _TOO_LARGE in result
            advice = _FEWER if large else "check export_id, metrics and parameters"
            raise ExportFailed(f"{NAME}: {name} was not started: {result}; {advice}", split=large)
        job = result.job_info or result
        if not job.workflow_id or not job.run_id:
            raise Ambiguous(
                f"{answers.call(self._http, response)} with a malformed answer: it has no ids; {maybe}"
            )
        # Some answers have no statusUrl, and some samples one on another host, which gets no credentials.
        if job.status_url and self._http.own(self._http.url(job.status_url)):
            self._status_urls[job.run_id] = job.status_url
        return {"workflowId": job.workflow_id, "runId": job.run_id}

    def poll(self, request: Request[KhorosCareExport], handle: Handle) -> JobState:
        """Ask for the workflow's status."""
        ids = answers.handle(NAME, _Handle, handle)
        response = self._http.ask("GET", self._status_urls.get(ids.run_id) or self._url(ids, "status"))
        if response.status_code in (404, 410):
            raise JobGone(f"{self._http.message(response)}; Khoros does not know the workflow any more")
        if response.status_code != 200:
            raise ExportFailed(_refusal(self._http, response))
        try:
            result = _result(answers.read(self._http, response, _Answer), ids.run_id)
        except answers.Malformed as error:
            return Unknown(str(error))
        if isinstance(result, str):
            if _TOO_LARGE in result:
                return Failed(f"{NAME}: {result}; {_FEWER}", split=True)
            return Unknown(result)
        url = result.job_info and result.job_info.download_url
        if url:
            hide(*parse_qs(url.partition("?")[2]).get("analyticsAccessToken", ()))
            self._download_urls[ids.run_id] = url
        if not result.result or not result.result.runner_state:
            return Unknown(f"{answers.call(self._http, response)} with a malformed answer: no runnerState")
        return _state(result.result)

    def files(self, request: Request[KhorosCareExport], handle: Handle) -> Sequence[RemoteFile]:
        """The one file, in the export's format."""
        name = f"{request.export.export_id}.{request.export.format}"
        return [RemoteFile(name, partial(self._open, answers.handle(NAME, _Handle, handle)))]

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
    def _timezones(self) -> str:
        return f"../config/timezones?{self._key}"

    @property
    def _key(self) -> str:
        return urlencode({"companyKey": self.settings.company_key})

    def _url(self, ids: _Handle, what: str) -> str:
        """A workflow's URL, as the Quick Start has it; the ids have characters that must be encoded."""
        path = "/".join(map(answers.segment, (ids.workflow_id, ids.run_id, what)))
        return self._http.url(f"report/{path}?{self._key}")

    def _start(self, export: KhorosCareExport, parameters: list[tuple[str, str]]) -> requests.Response:
        """Trigger by the documented call; 404 and 405, which start nothing, lead to the other spellings.

        The Quick Start prints the path of Care exports as report/report/…, its samples have report/…, and
        for conversations its method is not the reference's.
        """
        name = answers.segment(export.export_id)
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

    def _parameters(self, request: Request[KhorosCareExport]) -> list[tuple[str, str]]:
        export = request.export
        window = request.window
        assert window is not None
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
    def _open(self, ids: _Handle, wanted: Wanted) -> Iterator[Body]:
        # Taken at its word once, whatever its host; after that, its token may have expired.
        given = self._download_urls.pop(ids.run_id, None)

        def check(response: requests.Response) -> None:
            if response.status_code == 200:
                return
            if response.status_code == 204:
                raise NoData(self._http.message(response))
            if given:
                raise Unreachable(self._http.message(response))
            if response.status_code in (404, 410):
                raise JobGone(f"{self._http.message(response)}; Khoros does not keep the file any more")
            raise ExportFailed(_refusal(self._http, response))

        url = given or self._url(ids, "download")
        with self._http.body("GET", url, wanted=wanted, check=check) as body:
            yield no_object(body)


def _result(answer: _Answer, run: str | None = None) -> _Result | str:
    """The result of an answer, of the run that is asked for where it has several; a text: what is wrong."""
    result = answer.result
    if isinstance(result, list):
        ours = [one for one in result if one.job_info and one.job_info.run_id == run]
        result = next(iter(ours or result), None)
    if (answer.status or "PASS").upper() != "PASS" or isinstance(result, str):
        said = result if isinstance(result, str) else answer.message
        return answers.said(said) or f"status {answers.said(answer.status)} without a reason"
    return result or _Result()


def _state(progress: _Progress) -> JobState:
    state, detail = (
        (word or "").strip().upper().replace(" ", "_")
        for word in (progress.runner_state, progress.detail or progress.details)
    )
    if state == "RUNNING":
        return Running(state)
    if state != "CLOSED" or not detail:  # the Quick Start has a detail wherever a workflow is closed
        return Unknown(f"{state} {detail}".strip())
    reason = f": {text}" if (text := answers.said(progress.reason)) else ""
    failed = Failed(
        f"{NAME}: the workflow was closed with {detail}{reason}; if that goes on, make the window shorter or "
        "ask Khoros Support",
        retry=detail == _PASSING,
    )
    return _CLOSED.get(detail, failed)


def _refusal(http: Http, response: requests.Response) -> str:
    """Say why a workflow, once started, can't be seen or fetched."""
    return f"{http.message(response)}; {_RESULT_ADVICE.get(response.status_code, 'check base_url')}"
