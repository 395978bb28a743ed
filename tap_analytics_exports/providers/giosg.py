"""giosg: the events of a workflow's step, as a file that is the answer to the request itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import requests
from msgspec import Meta, Struct

from tap_analytics_exports.errors import ExportFailed, NoData
from tap_analytics_exports.providers import answers
from tap_analytics_exports.providers.base import Handle, JobState, Provider, Ready, Request
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.settings import (
    Column,
    ColumnKind,
    Export,
    HttpUrl,
    ProviderSettings,
    Secret,
    about,
)
from tap_analytics_exports.transport.answers import no_object
from tap_analytics_exports.transport.auth import FixedAuth
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.http import Http
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter

NAME = "giosg"

logger = clean_logger(__name__)

# The causes that the download page gives for its status codes.
_ADVICE = {
    400: "check filters, step_data and what else the export sets",
    403: "check that the organization has a subscription to reporting, organization_id, and that the token's "
    "user may see reports",
    406: "giosg does not implement this filter: change `filters`",
}

# Windows no longer than this are not split, as their size is not why giosg can't answer.
_SHORT = timedelta(hours=1)


class _Info(Struct):
    """What counts of the answer to the Workflow info API; the dates are those of the first and last event."""

    id: answers.Id
    start_date: str | None = None
    end_date: str | None = None


class GiosgExport(Export, kw_only=True, forbid_unknown_fields=True):
    """The events of one step of a workflow."""

    workflow_id: Annotated[str, about("Workflow", "The workflow's id (UUID)")]
    step_index: Annotated[int, about("Step", "Index of the step; 0 is the source"), Meta(ge=0)]
    filters: Annotated[
        list[dict[str, Any]], about("Filters", "Objects with `property` and `values`; empty: all events")
    ] = []
    step_data: Annotated[
        list[dict[str, Any]] | None, about("Step data", "For each step an object with its `actions`")
    ] = None
    target: Annotated[
        Literal["default", "triggered_goal"],
        about("Target", "Events of the step, or of the goal that it triggered"),
    ] = "default"
    format: Annotated[Literal["csv", "xlsx"], about("Format", "In which giosg writes the file")] = "csv"
    limit: Annotated[
        Annotated[int, Meta(ge=1)] | None, about("Limit", "At most this many rows of a window; none: all")
    ] = None


class GiosgSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """giosg: downloads of the events of workflow steps."""

    base_url: Annotated[HttpUrl, about("Base URL", "Where the giosg API is")] = "https://api.giosg.com"
    api_token: Annotated[Secret, about("API token", "Of a user who may see reports")]
    auth_scheme: Annotated[
        Literal["Token", "Bearer"], about("Scheme", "`Token` for an API token, `Bearer` for OAuth2")
    ] = "Token"
    organization_id: Annotated[str, about("Organization", "The organization's id (UUID)")]
    # One: a process that dies loses what is being computed, for the answer is the only way to it.
    max_concurrent_exports: Annotated[
        int, about("Concurrent exports", "Downloads that giosg may compute at once"), Meta(ge=1)
    ] = 1
    exports: Annotated[list[GiosgExport], about("Exports", "The steps to export")]

    sign_in: ClassVar[Sequence[tuple[str, ...]]] = (("api_token",),)


class Giosg(Provider[GiosgSettings, GiosgExport]):
    """The workflow source data download (giosg API reference), which is synchronous.

    So a job needs no handle and is ready at once; what costs is the transfer of its file.
    """

    name = NAME
    settings_type = GiosgSettings

    def __init__(self, settings: GiosgSettings, network: Network | None = None) -> None:
        super().__init__(settings, network)
        self._lock = threading.Lock()
        self._workflows: dict[str, bool] = {}  # whether giosg has them, where that had to be asked
        self._http = Http(
            NAME,
            settings.base_url,
            auth=FixedAuth(f"{settings.auth_scheme} {settings.api_token}"),
            credentials="api_token and auth_scheme; tokens are made at "
            "https://service.giosg.com/settings/live/company/tokens, and end with their user",
            rate_limiter=RateLimiter(settings.requests_per_minute),
            network=self.network,
        )

    def check(self) -> None:
        """Ask for a workflow that is to be exported (Workflow info API), else for the list of workflows."""
        if self.settings.exports:
            answers.probe(self._http, self._info(self.settings.exports[0]))
        else:
            organization = answers.segment(self.settings.organization_id)
            answers.probe(self._http, f"api/objectives/v1/orgs/{organization}/workflows")

    def check_export(self, export: GiosgExport) -> None:
        """Look at the workflow (Workflow info API), and for an event of the step in all its time.

        The step source data API answers 404 for a step without events and for one that is not there, and so
        it may without any event at all; so a step is wrong only where step 1, which each workflow has
        (giosg, "Workflow reporting events flow"), has one.
        """
        response = self._http.ask("GET", self._info(export))
        if response.status_code in (404, 410):
            raise ExportFailed(
                f"{self._http.message(response)}: there is no workflow {export.workflow_id} in the "
                f"organization {self.settings.organization_id}; check workflow_id, which is in the "
                "workflow's URL in giosg, and organization_id"
            )
        if response.status_code >= 300:
            raise ExportFailed(
                f"{self._http.message(response)}; {_ADVICE.get(response.status_code, 'check base_url')}"
            )
        info = answers.read(self._http, response, _Info)
        if info.start_date is None or info.end_date is None:
            return  # it has no event yet
        span = {"start": info.start_date, "end": info.end_date}
        found = self._look(export, export.step_index, span)
        if found.status_code in (400, 406):
            raise ExportFailed(f"{self._http.message(found)}; {_ADVICE[found.status_code]}")
        if found.status_code == 404 and export.step_index != 1:
            first = self._look(msgspec.structs.replace(export, filters=[], step_data=None), 1, span)
            if first.status_code == 200:
                raise ExportFailed(
                    f"{self._http.message(found)}: step {export.step_index} of the workflow has had no event "
                    "with these filters, and step 1 has; check step_index, which giosg shows in the "
                    "workflow's report (0 is the source, and numbers may be left out), and filters"
                )

    def _look(self, export: GiosgExport, step: int, span: Mapping[str, str]) -> requests.Response:
        """Ask for one event of a step, as JSON (Workflow step source data API)."""
        choice = {name: value for name, value in _choice(export).items() if name != "format"}
        return self._http.ask(
            "POST",
            f"{self._workflow(export)}/step/{step}",
            json={**choice, "interval": span, "limit": 1, "basic": True},
        )

    def submit(self, request: Request[GiosgExport]) -> Handle:
        """Nothing yet."""
        return {}

    def poll(self, request: Request[GiosgExport], handle: Handle) -> JobState:
        """Nothing to wait for."""
        return Ready()

    def files(self, request: Request[GiosgExport], handle: Handle) -> Sequence[RemoteFile]:
        """The answer to the download request."""
        export = request.export
        name = f"{export.workflow_id}_{export.step_index}.{export.format}"
        return [RemoteFile(name, partial(self._open, request), once=True)]

    def identity(self, export: GiosgExport) -> Mapping[str, Any]:
        """The step, and what is sent along."""
        return {**self.constants(export), **_choice(export)}

    def dictionary(self, export: GiosgExport) -> Mapping[str, ColumnKind | Column]:
        """The fields of events that are no strings (giosg, "Creating new generic events" and its queries).

        Their `properties` are an array, of which nothing says how a file has it: it stays a string.
        """
        return {"event_version": "integer", "timestamp": "timestamp"}

    def constants(self, export: GiosgExport) -> Mapping[str, str | int]:
        """What the file's address says, and the file does not."""
        return {
            "_sdc_organization_id": self.settings.organization_id,
            "_sdc_workflow_id": export.workflow_id,
            "_sdc_step_index": export.step_index,
        }

    def file_format(self, export: GiosgExport) -> Literal["csv", "xlsx"]:
        """CSV, or a workbook."""
        return export.format

    def _workflow(self, export: GiosgExport) -> str:
        organization, workflow = map(answers.segment, (self.settings.organization_id, export.workflow_id))
        return f"api/reporting/workflow/v1/orgs/{organization}/workflows/{workflow}"

    def _info(self, export: GiosgExport) -> str:
        return f"{self._workflow(export)}/info/"

    def _exists(self, export: GiosgExport) -> bool:
        """Whether giosg has a workflow, for it answers 404 to a download without data and to a wrong id.

        It is asked once a run, and believed to have it where the token may not see that.
        """
        with self._lock:
            if export.workflow_id not in self._workflows:
                response = self._http.ask("GET", self._info(export))
                if response.status_code == 200:
                    answers.read(self._http, response, _Info)
                elif response.status_code not in (404, 410):
                    logger.warning(
                        "%s; whether the workflow exists can't be seen, so the step is taken to have no data",
                        self._http.message(response),
                    )
                self._workflows[export.workflow_id] = response.status_code not in (404, 410)
            return self._workflows[export.workflow_id]

    @contextmanager
    def _open(self, request: Request[GiosgExport], wanted: Wanted) -> Iterator[Body]:
        export = request.export
        window, timeout = request.window, export.export_timeout
        assert window is not None
        assert timeout is not None
        # Nothing says whether the end belongs to the interval; its samples are midnight and 23:59:59. A
        # microsecond before midnight no event comes twice if it does, and none is missed if it doesn't.
        end = window.end - timedelta(microseconds=1)
        interval = {"start": window.start.isoformat(), "end": end.isoformat()}

        def check(response: requests.Response) -> None:
            status = response.status_code
            if status == 200:
                return
            message = self._http.message(response)
            if status in (204, 404):  # "if data was not found"
                if status == 404 and not self._exists(export):
                    raise ExportFailed(
                        f"{message}, and giosg has no workflow {export.workflow_id} in the organization "
                        f"{self.settings.organization_id}; check workflow_id and organization_id"
                    )
                raise NoData(message)
            if status in _ADVICE:
                raise ExportFailed(f"{message}; {_ADVICE[status]}")
            # 500 is "an unexpected error with the query", 504 is a host that no longer waits for it.
            large = status in (500, 504) and window.end - window.start > _SHORT and export.limit is None
            advice = "if that goes on, make the window shorter or the filters narrower"
            raise ExportFailed(f"{message}; {advice}", retry=status in (500, 502), split=large)

        with self._http.body(
            "POST",
            f"{self._workflow(export)}/step/{export.step_index}/download/",
            json={**_choice(export), "interval": interval},
            wanted=wanted,
            answer_seconds=timeout.total_seconds(),
            check=check,
        ) as body:
            yield no_object(body)


def _choice(export: GiosgExport) -> dict[str, Any]:
    """The request's attributes that choose events, without the interval."""
    optional = {"step_data": export.step_data, "limit": export.limit}
    return {
        "filters": export.filters,
        "target": export.target,
        "format": export.format,
        **{name: value for name, value in optional.items() if value is not None},
    }
