"""Twilio Flex Insights: the raw export of a saved report, on the platform of GoodData."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, ClassVar

import requests
from msgspec import Meta, Struct

from tap_analytics_exports.errors import (
    Ambiguous,
    ExportFailed,
    JobGone,
    NoData,
    Unreachable,
)
from tap_analytics_exports.providers import answers, gooddata
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
from tap_analytics_exports.settings import Export, HttpUrl, ProviderSettings, Secret, about
from tap_analytics_exports.transport.answers import whole
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.http import Http
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter
from tap_analytics_exports.windows import Window

NAME = "flex_insights"

# Under which all resources of the API lie, and which is the path of its cookies.
_ROOT = "/gdc/"

# What to look at for each refusal of a report's export.
_TRIGGER_ADVICE = {
    400: "check report_id, which must be of a report that is saved as a table, and date_identifier",
    403: "check that the user may see this report and this workspace",
    404: "check report_id, the number at the end of the report's URL in Flex Insights, and workspace_id",
}
_MAYBE = "an export may have been triggered"
_SHOWN = 10  # reports that a message names
_RESULT_ADVICE = {
    400: "open the report in Flex Insights to see what it lacks",
    403: "check that the user may see all that the report shows",
}

# A raw export has at most 1 GB (Twilio, "Export data"); of more, it is "not computable due to the size of the
# result set" (gooddata/gooddata-ruby, issue 894).
_TOO_LARGE = "due to the size"
_SMALLER = "make the window shorter, or the report smaller"


class _Handle(Struct):
    """Where the result of an export will be."""

    uri: Annotated[str, Meta(min_length=1, max_length=10_000)]


class _Attribute(Struct):
    """An object of the workspace, with the identifier that is the same in all workspaces."""

    uri: str
    identifier: str | None = None


class _Attributes(Struct):
    """Those that the workspace has, of the ones that were asked for."""

    identifiers: list[_Attribute]


class _Content(Struct):
    """Of a report: its versions, the last of which counts. Of a version: what it is shown as."""

    definitions: list[str] = []
    format: str = ""


class _Object(Struct):
    """What counts of an object of the workspace."""

    content: _Content


class _Entry(Struct):
    """A report in the list of them."""

    link: str
    title: str = ""


class _Entries(Struct):
    """The list of reports."""

    entries: list[_Entry]


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

    base_url: Annotated[HttpUrl, about("Base URL", "Where the Flex Insights API is")] = (
        "https://analytics.ytica.com"
    )
    username: Annotated[str, about("User name", "E-mail address of the Flex Insights user")]
    password: Annotated[
        Secret, about("Password", "Its password for direct logins, which Flex Insights Support sets")
    ]
    workspace_id: Annotated[str, about("Workspace", "Id of the workspace that holds the reports")]
    exports: Annotated[list[FlexExport], about("Exports", "The reports to export")]

    sign_in: ClassVar[Sequence[tuple[str, ...]]] = (("username", "password"),)


class FlexInsights(Provider[FlexSettings, FlexExport]):
    """The raw report export (Twilio, "Export data via the Flex Insights API")."""

    name = NAME
    settings_type = FlexSettings
    # Twilio, "Best practices and performance limits" and "Export data via the Flex Insights API".
    documented_limits = "50 requests at once and 1,000 in 10 seconds a user, 1 GB a report"

    def __init__(self, settings: FlexSettings, network: Network | None = None) -> None:
        super().__init__(settings, network)
        rate_limiter = RateLimiter(settings.requests_per_minute)
        self._session = gooddata.Session(
            NAME,
            settings.base_url,
            settings.username,
            settings.password,
            rate_limiter=rate_limiter,
            network=self.network,
        )
        self._http = Http(
            NAME,
            settings.base_url,
            auth=self._session,
            credentials="username and password",
            rate_limiter=rate_limiter,
            network=self.network,
        )
        self._workspace = answers.segment(settings.workspace_id)
        self._lock = threading.Lock()
        self._naming = threading.Lock()
        self._uris: dict[str, str] = {}  # of date attributes, by identifier
        self._open: dict[str, requests.Response] = {}  # answers whose body is the file, by the result's uri

    def check(self) -> None:
        """Log in and get a token."""
        self._session.headers()

    def check_export(self, export: FlexExport) -> None:
        """Look at the report: whether it is there, and is shown as a table, for no other can be exported.

        A report's object names its versions (keboola/gooddata-extractor takes the last one); of a version
        that is a table, `format` is `grid` (gooddata-java, GridReportDefinitionContent).
        """
        where = f"/gdc/md/{self._workspace}/obj/{answers.segment(export.report_id)}"
        response = self._http.ask("GET", where, headers={"Accept": "application/json"})
        if response.status_code >= 300:
            raise ExportFailed(f"{gooddata.message(self._http, response)}; {self._no_report(export)}")
        found = answers.read(self._http, response, dict[str, _Object])
        kind, report = next(iter(found.items()), ("nothing", None))
        if kind != "report" or report is None:
            raise ExportFailed(
                f"{NAME}: object {export.report_id} of the workspace is no report but: {kind}; open the "
                "report in Flex Insights: report_id is the number at the end of its URL"
            )
        shown = ""
        if report.content.definitions and answers.is_below(self._http, report.content.definitions[-1], _ROOT):
            response = self._http.ask("GET", report.content.definitions[-1])
            if response.status_code == 200:
                for version in answers.read(self._http, response, dict[str, _Object]).values():
                    shown = version.content.format
        if shown not in ("", "grid"):
            raise ExportFailed(
                f"{NAME}: report {export.report_id} is shown as {shown!r}; open it in Flex Insights and save "
                "it as a table, for only tables can be exported"
            )
        if export.date_identifier is not None:
            self._uri(export.date_identifier)

    def _no_report(self, export: FlexExport) -> str:
        """Say what to do about a report that can't be seen: which the workspace has, if it is there."""
        response = self._http.ask("GET", f"/gdc/md/{self._workspace}/query/reports")
        if response.status_code >= 300:
            return (
                f"nor can the reports of workspace {self.settings.workspace_id} be listed; check "
                "workspace_id, which is in the URL of Flex Insights, and that the user belongs to it"
            )
        listed = answers.read(self._http, response, dict[str, _Entries])
        reports = [entry for each in listed.values() for entry in each.entries]
        some = ", ".join(f"{each.link.rpartition('/')[2]} ({each.title})" for each in reports[:_SHOWN])
        more = f" and {len(reports) - _SHOWN} more" if len(reports) > _SHOWN else ""
        return (
            f"report_id {export.report_id} is none of the workspace's reports, "
            f"{some or 'of which it shows none'}{more}; it is the number at the end of the "
            "report's URL in Flex Insights"
        )

    def submit(self, request: Request[FlexExport]) -> Handle:
        """Trigger the raw export; the handle is where its result will be.

        The result's uri has a query, which names the result, and is asked for byte for byte as it came. It
        opens nothing to anybody who has no token, and has none in it.
        """
        export = request.export
        report: dict[str, Any] = {"report": f"/gdc/md/{self._workspace}/obj/{export.report_id}"}
        if export.date_identifier is not None and request.window is not None:
            report["context"] = {"filters": [self._filter(export, export.date_identifier, request.window)]}
        response = self._http.trigger(
            "POST",
            f"/gdc/app/projects/{self._workspace}/execute/raw",
            json={"report_req": report},
            headers={"Accept": "application/json"},
        )
        if response.status_code >= 300:
            advice = _TRIGGER_ADVICE.get(response.status_code, "check base_url, report_id and workspace_id")
            raise ExportFailed(f"{gooddata.message(self._http, response)}; {advice}")
        # 201 with the uri in the body, and as Location (recorded by gooddata-ruby).
        uri = (
            _fresh_uri(self._http, response)
            or response.headers.get("Location")
            or answers.read(
                self._http, response, _Handle, Ambiguous, f"without the uri of a result {_MAYBE}"
            ).uri
        )
        if not answers.is_below(self._http, uri, _ROOT):
            raise Ambiguous(
                f"{answers.call(self._http, response)} with a malformed answer: the uri of the result "
                f"leads out of the API; {_MAYBE}"
            )
        return {"uri": uri}

    def poll(self, request: Request[FlexExport], handle: Handle) -> JobState:
        """Ask for the result: 202 while it is computed, then 200 with the file, which is kept open.

        A report may have a gigabyte, and a poll that dropped the file would make the vendor send it twice.
        """
        uri = self._uri_of(handle)
        response = self._http.ask("GET", uri, stream=True)
        if response.status_code == 200 and _is_file(response):
            self._keep_open(uri, response)
            return Ready()
        with response:
            match response.status_code:
                case 202:
                    # The body may name another uri to go on with (GoodData's own widgets follow it).
                    fresh = _fresh_uri(self._http, response)
                    if fresh and answers.is_below(self._http, fresh, _ROOT):
                        handle["uri"] = fresh
                    return Running("202 Accepted")
                case 204:  # the report has no data (gooddata-java, ExportService)
                    return Empty()
                case 404 | 410:  # 410 also for a task that failed (keboola/gooddata-php-client)
                    raise JobGone(
                        f"{gooddata.message(self._http, response)}; Flex Insights has no such result any "
                        "more; if that goes on, see whether the report opens in Flex Insights"
                    )
                case status if status >= 500:
                    raise Unreachable(gooddata.message(self._http, response))
                case status if status >= 400:
                    message = gooddata.message(self._http, response)
                    advice = _RESULT_ADVICE.get(status, _RESULT_ADVICE[400])
                    return Failed(f"{message}; {_SMALLER if _TOO_LARGE in message else advice}")
            kind = response.headers.get("Content-Type") or "no content type"
            return Unknown(f"{answers.call(self._http, response)} with {kind[:80]} in place of the report")

    def files(self, request: Request[FlexExport], handle: Handle) -> Sequence[RemoteFile]:
        """The one CSV file, from the answer that the poll found if it is still open."""
        uri = self._uri_of(handle)
        return [RemoteFile(f"report {request.export.report_id}", partial(self._transfer, uri))]

    def identity(self, export: FlexExport) -> Mapping[str, Any]:
        """Which report, as whom; the zone too, as it makes a window's timestamps into days."""
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
            unread, self._open = self._open, {}
        for response in unread.values():
            response.close()
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
                if response.status_code >= 300:
                    raise ExportFailed(
                        f"{gooddata.message(self._http, response)}; check workspace_id, and that the user "
                        "belongs to it"
                    )
                # What is unknown is missing from the list, with status 200 (recorded by gooddata-ruby).
                found = answers.read(self._http, response, _Attributes).identifiers
                uris = [each.uri for each in found if each.identifier in (None, identifier)]
                if not uris:
                    raise ExportFailed(
                        f"{NAME}: the workspace {self.settings.workspace_id} has no attribute "
                        f"{identifier!r}; check date_identifier, which is not the attribute's title"
                    )
                self._uris[identifier] = uris[0]
            return self._uris[identifier]

    def _uri_of(self, handle: Handle) -> str:
        """Where a job's result is.

        Raises:
            JobGone: The handle is none of ours, or leads to somewhere else.
        """
        uri = answers.handle(NAME, _Handle, handle).uri
        if not answers.is_below(self._http, uri, _ROOT):
            raise JobGone(
                f"{NAME}: the handle by which the state or the ledger remembers this job leads out of the "
                "API of base_url, so it is not followed"
            )
        return uri

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
            if response.status_code != 200 or not _is_file(response):  # it was there before, so it is gone
                raise JobGone(f"{gooddata.message(self._http, response)}; the result is not kept any more")

        with self._lock:
            response = self._open.pop(uri, None)
        if response is not None:
            with response:
                if not wanted.offset:
                    yield whole(response)
                    return
        with self._http.body("GET", uri, wanted=wanted, check=check) as body:
            yield body


def _is_file(response: requests.Response) -> bool:
    """Whether an answer is the report, and not a page that somebody put in its place."""
    kind = response.headers.get("Content-Type", "").lower()
    return not kind.startswith(("text/html", "application/json"))


def _fresh_uri(http: Http, response: requests.Response) -> str:
    """Read the uri of a result from an answer that may have none, whatever else it holds."""
    try:
        return answers.read(http, response, _Handle).uri
    except Unreachable:
        return ""
