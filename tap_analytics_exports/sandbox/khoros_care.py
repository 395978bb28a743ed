"""Khoros Care Analytics Reports: workflows that are started, watched, and downloaded over a redirect."""

from __future__ import annotations

import base64
import csv
import io
import json
import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, unquote
from zoneinfo import ZoneInfo

from tap_analytics_exports.sandbox.data import MILLISECOND, SOURCES, Value, text
from tap_analytics_exports.sandbox.files import KhorosFiles, Stored
from tap_analytics_exports.sandbox.server import (
    Answer,
    Call,
    Hub,
    Job,
    Minute,
    Refusal,
    Route,
    Service,
    as_json,
)

USERNAME = "analytics-user"
PASSWORD = "care:pass"
COMPANY_KEY = "acme-7e6f"
PAGE = "/api/public/reports/report"
#: Requests a minute, from the vendor's page on rate limits.
RATE = 20
#: Which exports the reference documents with GET; the quick start uses it for `conversation` as well.
WITH_GET = frozenset({"conversation", "conversation_actions", "user"})
#: Which exports take their parameters from a form too.
WITH_FORM = frozenset({"conversation_actions", "conversation_history_action", "user"})
#: The generic endpoint's sample has neither statusUrl nor downloadUrl in its answer.
WITHOUT_URLS = frozenset({"combined", "raw_expert_help"})
#: And here the statusUrl is there, but empty.
EMPTY_URL = frozenset({"author"})
#: And here the downloadUrl is filled before there is anything to download.
EARLY_URL = frozenset({"user"})
INTERVALS = frozenset(
    {
        300000,
        600000,
        900000,
        1800000,
        3600000,
        7200000,
        14400000,
        28800000,
        43200000,
        86400000,
        604800000,
    }
)
#: A month allows days, a week allows eight hours but not four: the bound lies between 32 and 43.
MAX_BUCKETS = 40
#: The ids of the time zones that an account may choose from.
ZONES = ("Etc/GMT+12", "America/New_York", "Etc/UTC", "Europe/Helsinki", "Asia/Kolkata", "Pacific/Apia")
#: Gives a row as it is shown, or None if it was not asked for.
Choice = Callable[[dict[str, Value]], dict[str, Value] | None]
HYDRATION = (
    "Unable to hydrate filter for export info: "
    "com.lithium.socialweb.analytics.webapp.models.filter.HydrationException: "
    "Too many buckets ({buckets}) requested. Select a larger interval?"
)


class KhorosCare(Service):
    """Its API."""

    name: ClassVar[str] = "khoros_care"

    def __init__(self, hub: Hub, files: KhorosFiles) -> None:
        """Joins the hub.

        Args:
            hub: The state of all services.
            files: Where downloads are redirected to.
        """
        self.files = files
        super().__init__(hub)

    def reset(self) -> None:
        """Forgets all workflows."""
        self.company_key = COMPANY_KEY
        self.workflows: dict[tuple[str, str], tuple[Job, str]] = {}
        self.minute = Minute()

    def revoke(self, what: str) -> None:
        """Changes the company's key (`company_key`)."""
        if what != "company_key":
            super().revoke(what)
        self.company_key = secrets.token_hex(8)

    def routes(self) -> list[Route]:
        """The trigger under each printed path, the status, the download."""
        routes = []
        for method in ("GET", "POST"):
            routes += [
                Route(method, f"{PAGE}/(marketing/[a-z_]+)", self.trigger),
                Route(method, f"{PAGE}/([a-z_]+)", self.trigger),
                # As the quick start's list of endpoints prints it, unlike its samples.
                Route(method, f"{PAGE}/report/([a-z_]+)", self.trigger),
            ]
        one = f"{PAGE}/([^/]+)/([^/]+)"
        return [
            Route("GET", "/api/public/config/timezones", self.timezones),
            Route("GET", f"{one}/status", self.status),
            Route("GET", f"{one}/download", self.download),
            *routes,
        ]

    async def answer(self, call: Call) -> Answer:
        """Counts the rate and checks Basic, which every call wants."""
        if self.minute.over(self.hub.knobs.khoros_rate or RATE):
            self.hub.counts["khoros_rate_violations"] += 1
            if self.hub.knobs.khoros_rate:
                # No Retry-After: none is documented.
                return as_json({}, 429)
        wanted = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        if call.headers.get("Authorization") != f"Basic {wanted}":
            return as_json({}, 401).having(("WWW-Authenticate", 'Basic realm="Analytics"'))
        return await super().answer(call)

    def _check_key(self, call: Call, token: str | None = None) -> None:
        """Checks the company's key; the URLs of a status answer carry an access token instead."""
        query = dict(call.query)
        if token is not None and query.get("analyticsAccessToken") == token:
            return
        if query.get("companyKey") != self.company_key:
            raise Refusal(as_json({}, 401))

    async def timezones(self, call: Call) -> Answer:
        """Lists the ids that `timezone` takes (Khoros, Config API)."""
        self._check_key(call)
        now = datetime.now(UTC)
        zones = []
        for name in ZONES:
            local = now.astimezone(ZoneInfo(name))
            offset = local.utcoffset() or timedelta()
            zones.append(
                {
                    "id": name,
                    "name": name,
                    "shortName": local.tzname(),
                    "offsetString": f"{local:%z}"[:-2] + ":" + f"{local:%z}"[-2:],
                    "offsetMillis": offset // MILLISECOND,
                }
            )
        return _passed(zones)

    async def trigger(self, call: Call, export: str) -> Answer:
        """Starts a workflow."""
        self._check_key(call)
        if export not in SOURCES[self.name]:
            return as_json({}, 404)
        get = export in WITH_GET or export.startswith("marketing/") or self.hub.knobs.khoros_get_everywhere
        post = not export.startswith("marketing/")
        if not (get if call.method == "GET" else post):
            return self.not_allowed(call)
        parameters = call.query
        if call.method == "POST" and export in WITH_FORM:
            parameters = parameters + parse_qsl(call.body.decode(errors="replace"))
        asked: dict[str, list[str]] = {}
        for name, value in parameters:
            asked.setdefault(name, []).append(value)
        del asked["companyKey"]
        return self._start(call, export, asked)

    def _start(self, call: Call, export: str, asked: dict[str, list[str]]) -> Answer:
        try:
            first, last = (int(asked[name][-1]) for name in ("startTime", "endTime"))
            start, end = (
                datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms) for ms in (first, last)
            )
            columns = self._columns(export, asked)
            form = asked.get("reportFormat", ["json"])[-1].lower()
            choose = _choice(export, asked)
            if first > last or form not in {"csv", "json"}:
                return as_json({}, 400)
            if export == "team_performance_interval":
                width = int(asked["timeInterval"][-1])
                buckets = (last - first) // width + 1 if width in INTERVALS else 0
                if buckets == 0:
                    return as_json({}, 400)
                if buckets > MAX_BUCKETS:
                    # HTTP 200, and a result that is only a string.
                    message = HYDRATION.format(buckets=buckets)
                    return as_json({"status": "FAIL", "request": None, "message": None, "result": message})
        except (KeyError, ValueError, OverflowError):
            # The reference's sample of a 400 is an empty object.
            return as_json({}, 400)
        # An id of Amazon SWF: with signs that a URL must encode.
        run = "23" + base64.b64encode(secrets.token_bytes(24)).decode()[:30] + "/+A="
        workflow = str(uuid.uuid4())
        # Both ends belong to the window; samples end in ...199999.
        job = self.hub.start(
            run,
            self.name,
            export,
            asked,
            window=(start, end + MILLISECOND),
            build=lambda job: self._file(job, columns, form, choose),
        )
        self.workflows[workflow, run] = (job, base64.b64encode(secrets.token_bytes(13)).decode())
        result = {"workflowId": workflow, "runId": run}
        if export not in WITHOUT_URLS:
            one, key = (
                f"{call.origin}{PAGE}/{workflow}/{quote(run, safe='')}",
                f"companyKey={quote(self.company_key, safe='')}",
            )
            result |= {
                "downloadUrl": f"{one}/download?{key}" if export in EARLY_URL else "",
                "statusUrl": "" if export in EMPTY_URL else f"{one}/status?{key}",
            }
        return _passed(result)

    def _columns(self, export: str, asked: dict[str, list[str]]) -> list[str]:
        """Reads reportMetrics, which selects columns; the documents print them in both cases."""
        columns = SOURCES[self.name][export].columns
        names = [name.upper() for name in asked.get("reportMetrics", columns)]
        if not set(names) <= set(columns):
            raise ValueError(names)
        return names

    def _file(self, job: Job, names: list[str], form: str, choose: Choice) -> tuple[bytes, int]:
        columns = SOURCES[self.name][job.export].columns
        every = (choose(dict(zip(columns, values, strict=True))) for values in self.hub.rows(job))
        rows = [[row[name] for name in names] for row in every if row is not None]
        if form == "json":
            lines = (
                [text(self.name, value) if isinstance(value, datetime) else value for value in row]
                for row in rows
            )
            document = [dict(zip(names, line, strict=True)) for line in lines]
            return json.dumps(document, ensure_ascii=False).encode(), len(rows)
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([text(self.name, value) for value in row] for row in rows)
        return buffer.getvalue().encode(), len(rows)

    def _workflow(self, call: Call, workflow: str, run: str) -> tuple[Job, str]:
        found = self.workflows.get((unquote(workflow), unquote(run)))
        self._check_key(call, found[1] if found else None)
        if found is None:
            raise Refusal(as_json({}, 404))
        return found

    async def status(self, call: Call, workflow: str, run: str) -> Answer:
        """Says where a workflow is: an object when it is ready, else an array of one, as in the samples."""
        job, token = self._workflow(call, workflow, run)
        one = f"{call.origin}{PAGE}/{workflow}/{run}"
        access = f"analyticsAccessToken={quote(token, safe='')}"
        ready = not job.running and job.outcome in {"done", "empty"}
        if job.running:
            word = job.word(self.hub.knobs.khoros_words, self.hub.knobs.job_seconds)
            state, _, detail = word.partition("/")
        else:
            state, detail = "CLOSED", "COMPLETED" if ready else job.outcome.upper()
        result = {
            "jobInfo": {
                "workflowId": unquote(workflow),
                "runId": unquote(run),
                "downloadUrl": f"{one}/download?{access}" if ready else "",
                "statusUrl": f"{one}/status?{access}",
            },
            "result": {
                "runnerState": state,
                "reason": None,
                "detail": detail,
                "currentCount": None,
                "totalCount": None,
                "lastAcknowledgeTime": None,
            },
        }
        return _passed(result if ready else [result])

    async def download(self, call: Call, workflow: str, run: str) -> Answer:
        """Redirects to where the file lies, on another host (the samples call `curl -L`)."""
        job, _ = self._workflow(call, workflow, run)
        if job.running or job.outcome not in {"done", "empty"}:
            return as_json({}, 404)
        body, rows = await job.result()
        csv_asked = job.request.get("reportFormat", ["json"])[-1].lower() == "csv"
        key = f"/exports/{unquote(workflow)}.{'csv' if csv_asked else 'json'}"

        async def read() -> bytes:
            return bytes(body)

        def sent(whole: bytes) -> None:
            self.hub.serve(self.name, job, key, rows, whole)

        self.files.objects[key] = Stored("text/csv" if csv_asked else "application/json", read, sent)
        return Answer(302, b"", (("Location", self.files.sign(key)),))


def _passed(result: Any) -> Answer:
    return as_json({"status": "PASS", "request": None, "message": None, "result": result})


def _choice(export: str, asked: dict[str, list[str]]) -> Choice:
    """Reads the parameters that choose rows, and those that say in which zone times are written.

    Raises:
        ValueError: A parameter has a value that it can't have.
    """
    mode = asked.get("conversationReportType", ["OPEN_AT_END"])[-1]
    if mode not in {"OPEN_AT_END", "CLOSED", "CREATED"}:
        raise ValueError(mode)
    chosen = {
        column: {part for value in asked[name] for part in value.split(",")}
        for name, column in (("teamIds", "TEAM_ID"), ("teamId", "TEAM_ID"), ("agentId", "AGENT_ID"))
        if name in asked
    }
    name = asked.get("timezone", ["Etc/UTC"])[-1]
    if name not in ZONES:
        raise ValueError(name)
    offset = timedelta(milliseconds=int(asked.get("timezoneOffset", ["0"])[-1]))
    zone = timezone(offset) if "timezoneOffset" in asked else ZoneInfo(name)

    def choose(row: dict[str, Value]) -> dict[str, Value] | None:
        if any(column in row and str(row[column]) not in values for column, values in chosen.items()):
            return None
        if (
            export == "conversation"
            and mode != "CREATED"
            and (row["STATUS"] == "CLOSED") != (mode == "CLOSED")
        ):
            return None
        return {
            # The time on the wall there, written as if it were UTC: only the format changes.
            column: value.astimezone(zone).replace(tzinfo=UTC) if isinstance(value, datetime) else value
            for column, value in row.items()
        }

    return choose
