"""Acme Reports: a report of some days is ordered, made, and fetched as a CSV file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, ClassVar

import requests
from msgspec import Struct

from tap_analytics_exports.providers.base import (
    Ambiguous,
    Body,
    Empty,
    Export,
    ExportFailed,
    Failed,
    FixedAuth,
    Handle,
    Http,
    HttpUrl,
    JobGone,
    JobState,
    Network,
    Provider,
    ProviderSettings,
    RateLimiter,
    Ready,
    RemoteFile,
    Request,
    Running,
    Secret,
    Unknown,
    Wanted,
    about,
    answers,
)

NAME = "acme"

# All words that Acme documents; `done` is made `Empty` where there are no rows.
_STATES: Mapping[str, JobState] = {"queued": Running(), "running": Running(), "done": Ready()}


class AcmeExport(Export, kw_only=True, forbid_unknown_fields=True):
    """A report."""

    report: Annotated[str, about("Report", "Its id, the last part of its address in Acme's console")]


class AcmeSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """Acme Reports: reports of orders and returns."""

    base_url: Annotated[HttpUrl, about("Base URL", "Where Acme's API is")] = "https://api.acme.example"
    api_token: Annotated[Secret, about("API token", "Of a user who may order reports")]
    exports: Annotated[list[AcmeExport], about("Exports", "The reports to export")]

    sign_in: ClassVar[Sequence[tuple[str, ...]]] = (("api_token",),)


class _Handle(Struct):
    """What is kept of a job."""

    id: answers.Id


class _Job(Struct):
    """What Acme says of a job."""

    id: answers.Id
    status: str
    rows: int | None = None
    why: str = ""


class Acme(Provider[AcmeSettings, AcmeExport]):
    """Acme's API."""

    name = NAME
    settings_type = AcmeSettings

    def __init__(self, settings: AcmeSettings, network: Network | None = None) -> None:
        super().__init__(settings, network)
        self._http = Http(
            NAME,
            settings.base_url,
            auth=FixedAuth(f"Bearer {settings.api_token}"),
            rate_limiter=RateLimiter(settings.requests_per_minute),
            network=self.network,
        )

    def check(self) -> None:
        """Ask who we are."""
        answers.probe(self._http, "me")

    def submit(self, request: Request[AcmeExport]) -> Handle:
        """Order a report, with our id, by which it can be found again."""
        window = request.window
        assert window is not None  # an export is incremental, unless it says otherwise
        order = {
            "report": request.export.report,
            "from": window.start.isoformat(),
            "to": window.end.isoformat(),
            "reference": request.export_id,
        }
        response = self._http.trigger("POST", "jobs", json=order)
        if response.status_code != 201:
            raise ExportFailed(f"{self._http.message(response)}; check the export's `report`")
        return {"id": answers.read(self._http, response, _Job, Ambiguous).id}

    def find(self, request: Request[AcmeExport], last: str | None) -> tuple[str, Handle] | None:
        """Look for a job with our reference, as after an answer that was lost."""
        response = self._http.ask("GET", "jobs", params={"reference": request.export_id})
        if response.status_code != 200:
            return None
        jobs = answers.read(self._http, response, list[_Job])
        return (request.export_id, {"id": jobs[0].id}) if jobs else None

    def poll(self, request: Request[AcmeExport], handle: Handle) -> JobState:
        """See what the job's `status` is."""
        job = self._job(handle)
        if job.status == "failed":
            return Failed(f"{NAME}: the report failed: {job.why or 'Acme does not say why'}")
        if job.status == "done" and job.rows == 0:
            return Empty()
        return _STATES.get(job.status) or Unknown(job.status)

    def files(self, request: Request[AcmeExport], handle: Handle) -> Sequence[RemoteFile]:
        """The one file, with the number of rows that Acme says of it."""
        name = f"{request.export.report}.csv"
        return [RemoteFile(name, partial(self._open, handle), rows=self._job(handle).rows)]

    def cancel(self, request: Request[AcmeExport], handle: Handle) -> None:
        """Take the order back."""
        self._http.ask("DELETE", self._path(handle))

    def identity(self, export: AcmeExport) -> Mapping[str, Any]:
        """The report; whose it is does not matter, as an id is given only once."""
        return {"report": export.report}

    def _path(self, handle: Handle) -> str:
        return f"jobs/{answers.segment(answers.handle(NAME, _Handle, handle).id)}"

    def _job(self, handle: Handle) -> _Job:
        response = self._http.ask("GET", self._path(handle))
        if response.status_code == 404:
            raise JobGone(f"{self._http.message(response)}; Acme does not know the job any more")
        if response.status_code != 200:
            raise ExportFailed(self._http.message(response))
        return answers.read(self._http, response, _Job)

    @contextmanager
    def _open(self, handle: Handle, wanted: Wanted) -> Iterator[Body]:
        def check(response: requests.Response) -> None:
            if response.status_code == 404:
                raise JobGone(f"{self._http.message(response)}; Acme does not keep the file any more")
            if response.status_code != 200:
                raise ExportFailed(self._http.message(response))

        with self._http.body("GET", f"{self._path(handle)}/file", wanted=wanted, check=check) as body:
            yield body
