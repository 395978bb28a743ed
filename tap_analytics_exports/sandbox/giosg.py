"""giosg Workflow reporting: the events of a workflow's step, in the answer to a POST."""

from __future__ import annotations

import asyncio
import csv
import io
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import xlsxwriter

from tap_analytics_exports.sandbox.data import (
    GIOSG_CALLS,
    GIOSG_ORGANIZATION,
    GIOSG_POPUPS,
    GIOSG_STEPS,
    SOURCES,
    Value,
    text,
)
from tap_analytics_exports.sandbox.server import Answer, Call, Job, Refusal, Route, Service, as_json, refuse

API_TOKEN = "d2f1c0b9a8e7d6c5b4a3928170f6e5d4"
#: Of an interaction workflow, step_data chooses actions; of others it is ignored.
TYPES = {GIOSG_CALLS: "user-generated", GIOSG_POPUPS: "interaction"}
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
WRONG_FORMAT = "Format must be 'xlsx' or 'csv'. Change the value or omit the field from payload."


class Giosg(Service):
    """Its API."""

    name: ClassVar[str] = "giosg"

    def reset(self) -> None:
        """Makes the token valid again."""
        self.api_token = API_TOKEN

    def revoke(self, what: str) -> None:
        """Ends the token (`api_token`), which dies with its user."""
        if what != "api_token":
            super().revoke(what)
        self.api_token = secrets.token_hex(16)

    def routes(self) -> list[Route]:
        """The download, and what finds and checks it."""
        workflow = "/api/reporting/workflow/v1/orgs/([^/]+)/workflows/([^/]+)"
        return [
            Route("GET", "/api/v5/users/me", self.me),
            Route("GET", "/api/objectives/v1/orgs/([^/]+)/workflows", self.workflows),
            Route("GET", f"{workflow}/info/", self.info),
            Route("POST", f"{workflow}/step/([^/]+)", self.step),
            Route("POST", f"{workflow}/step/([^/]+)/download/", self.download),
        ]

    async def answer(self, call: Call) -> Answer:
        """Wants `Token <API token>`, or `Bearer` (giosg, Quickstart)."""
        scheme, _, token = call.headers.get("Authorization", "").partition(" ")
        if scheme not in {"Token", "Bearer"} or token != self.api_token:
            answer = as_json({"detail": "Authentication credentials were not provided."}, 401)
            return answer.having(("WWW-Authenticate", "Token"))
        return await super().answer(call)

    async def me(self, call: Call) -> Answer:
        """Shows whose token it is."""
        del call
        return as_json({"id": "8d7c6b5a-4f3e-4d2c-9b1a-0f9e8d7c6b5a", "organization_id": GIOSG_ORGANIZATION})

    def _check_organization(self, organization: str) -> None:
        if organization != GIOSG_ORGANIZATION:
            refuse({"detail": "You do not have access to the organization."}, 403)

    async def workflows(self, call: Call, organization: str) -> Answer:
        """Lists the workflows."""
        del call
        self._check_organization(organization)
        return as_json([self._describe(workflow) for workflow in GIOSG_STEPS])

    def _describe(self, workflow: str) -> dict[str, Any]:
        return {
            "id": workflow,
            "org_id": GIOSG_ORGANIZATION,
            "type": TYPES[workflow],
            "name": "Calls" if workflow == GIOSG_CALLS else "Pop-ups",
            "is_published": True,
            "modified_at": "2022-11-01T08:00:00.000000+00:00",
            "start_date": "2022-11-03T00:00:00+00:00",
            "end_date": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    async def info(self, call: Call, organization: str, workflow: str) -> Answer:
        """Shows a workflow."""
        del call
        self._check_organization(organization)
        return as_json(self._describe(workflow)) if workflow in GIOSG_STEPS else self.not_found()

    async def step(self, call: Call, organization: str, workflow: str, step: str) -> Answer:
        """Answers with a step's events as JSON, a few for lack of any page that shows their shape."""
        self._check_organization(organization)
        form = call.json()
        if not isinstance(form, dict):
            refuse({"detail": "JSON parse error"}, 400)
        if errors := _errors(form):
            refuse(errors, 400)
        if f"{workflow}/{step}" not in SOURCES[self.name]:
            refuse({"detail": "Data was not found."}, 404)
        return as_json([{"event_version": 1, "source": "giosg"}][: form.get("limit")])

    async def download(self, call: Call, organization: str, workflow: str, step: str) -> Answer:
        """Answers with the file itself."""
        self._check_organization(organization)
        form = call.json()
        if not isinstance(form, dict):
            refuse({"detail": "JSON parse error"}, 400)
        if errors := _errors(form):
            refuse(errors, 400)
        if any(one.get("property") != "action" for one in form["filters"]):
            refuse({"detail": "Filtering by this property is not yet implemented."}, 406)
        key = f"{workflow}/{step}"
        if key not in SOURCES[self.name]:
            raise Refusal(self.not_found())
        start, end = (datetime.fromisoformat(form["interval"][edge]) for edge in ("start", "end"))
        if self.hub.knobs.giosg_end_inclusive:
            # The samples end at midnight and at 23:59:59 alike: an event on the edge is in two intervals.
            end += timedelta(microseconds=1)
        job = self.hub.start(
            secrets.token_hex(8),
            self.name,
            key,
            form,
            window=(start, end),
            build=self._file,
        )
        job.ready = job.created.timestamp() + self.hub.knobs.giosg_seconds
        await asyncio.sleep(self.hub.knobs.giosg_seconds)
        if job.outcome not in {"done", "empty"}:
            refuse({"detail": "An unexpected error occurred with the query."}, 500)
        body, rows = await job.result()
        if rows == 0 or job.outcome == "empty":
            refuse({"detail": "Data was not found."}, 404)
        kind = form.get("format", "csv")
        name = f"workflow_{workflow}_step_{step}.{kind}"
        self.hub.serve(self.name, job, name, rows, body)
        # The page's own sample takes whatever follows `filename=`, so it is not quoted.
        disposition = ("Content-Disposition", f"attachment; filename={name}")
        return Answer(200, body, (("Content-Type", XLSX if kind == "xlsx" else "text/csv"), disposition))

    def _file(self, job: Job) -> tuple[bytes, int]:
        form = job.request
        columns = SOURCES[self.name][job.export].columns
        workflow, _, step = job.export.partition("/")
        allowed = [set(one.get("values", [])) for one in form["filters"]]
        steps = form.get("step_data", [])
        if TYPES[workflow] == "interaction" and int(step) < len(steps) and "actions" in steps[int(step)]:
            allowed.append(set(steps[int(step)]["actions"]))
        action, category = columns.index("action"), columns.index("category")
        goals = form.get("target", "default") == "triggered_goal"
        rows = [
            row
            for row in self.hub.rows(job)
            if all(row[action] in values for values in allowed) and (not goals or row[category] == "goal")
        ][: form.get("limit")]
        if form.get("format", "csv") == "xlsx":
            return _xlsx(columns, rows), len(rows)
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows([text(self.name, value) for value in row] for row in rows)
        return buffer.getvalue().encode(), len(rows)


def _xlsx(columns: tuple[str, ...], rows: list[list[Value]]) -> bytes:
    """Writes a workbook whose numbers and dates are typed cells; dates are UTC, as cells have no zone."""
    buffer = io.BytesIO()
    options = {"in_memory": True, "remove_timezone": True, "default_date_format": "yyyy-mm-dd hh:mm:ss.000"}
    with xlsxwriter.Workbook(buffer, options) as book:
        # So that the same rows are the same bytes.
        book.set_properties({"created": datetime(2022, 11, 3, tzinfo=UTC)})
        sheet = book.add_worksheet("Report")
        sheet.write_row(0, 0, columns)
        for number, row in enumerate(rows, start=1):
            sheet.write_row(number, 0, row)
    return buffer.getvalue()


def _errors(form: dict[str, Any]) -> dict[str, list[str]]:
    """Checks a payload against the page's table of attributes."""
    errors: dict[str, list[str]] = {}
    filters, steps, limit = form.get("filters"), form.get("step_data", []), form.get("limit", 1)
    if not isinstance(filters, list) or not all(isinstance(one, dict) for one in filters):
        errors["filters"] = ["This field is required."]
    if not isinstance(steps, list) or not all(isinstance(one, dict) for one in steps):
        errors["step_data"] = ["Expected a list of objects."]
    if not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0:
        errors["limit"] = ["Ensure this value is greater than 0."]
    if form.get("format", "csv") not in {"csv", "xlsx"}:
        errors["format"] = [WRONG_FORMAT]
    if form.get("target", "default") not in {"default", "triggered_goal"}:
        errors["target"] = ["Target must be 'default' or 'triggered_goal'."]
    if (wrong := _interval_error(form.get("interval"))) is not None:
        errors["interval"] = [wrong]
    return errors


def _interval_error(interval: object) -> str | None:
    if not isinstance(interval, dict) or not {"start", "end"} <= set(interval):
        return "This field is required."
    edges = []
    for edge in ("start", "end"):
        try:
            edges.append(datetime.fromisoformat(str(interval[edge])))
        except ValueError:
            return "Datetime has wrong format. Use ISO8601."
        if edges[-1].tzinfo is None:
            return "Datetime needs an offset from UTC."
    return None if edges[0] <= edges[1] else "Start must not be after end."
