"""Twilio Flex Insights: the raw export of a saved report, on the GoodData platform."""

from __future__ import annotations

import base64
import csv
import io
import re
import secrets
import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from tap_analytics_exports.sandbox.data import SOURCES, WORKSPACE_ZONE, text
from tap_analytics_exports.sandbox.server import Answer, Call, Job, Refusal, Route, Service, as_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

WORKSPACE = "qx8vgewnj2hyemje8f6bkrkbyqk8psrf"
USERNAME = "exports@example.com"
PASSWORD = "p4ss:with+signs/"
PROFILE = "f2b3c4d5e6f708192a3b4c5d6e7f8091"
TITLES = {"643040": "Conversations", "643041": "Agents workload", "643042": "Missed conversations"}
#: The date dimensions that a filter may name, and their objects in this workspace.
DATES = {"date.date.mmddyyyy": "1542", "dateworkload.date.mmddyyyy": "1721"}
#: What a report shows that is asked for without a filter.
SAVED_DAYS = 7

TT_GONE = 'GoodData realm="GoodData API" cookie=GDCAuthTT'
SST_GONE = 'GoodData realm="GoodData API" cookie=GDCAuthSST location=/gdc/account/login'
#: GoodData's JSON carries a charset on most answers (recorded by gooddata-ruby).
JSON = "application/json;charset=UTF-8"


def error(status: int, message: str, *parameters: str) -> Answer:
    """An error whose message is printf style (keboola/gooddata-php-client, Exception::parseMessage)."""
    document = {
        "error": {
            "message": message,
            "parameters": list(parameters),
            "component": "GDC::Exporter",
            "errorClass": "GDC::Exception::User",
            "requestId": secrets.token_hex(8),
        }
    }
    return as_json(document, status, JSON)


class FlexInsights(Service):
    """Its API."""

    name: ClassVar[str] = "flex_insights"

    def reset(self) -> None:
        """Ends all sessions."""
        self.sessions: dict[str, float] = {}
        self.tokens: dict[str, tuple[str, float]] = {}
        self.bad_logins = 0
        self.user_exists = True
        self.results: dict[str, Job] = {}
        self.polls: dict[str, int] = {}

    def revoke(self, what: str) -> None:
        """Ends the temporary tokens (`tt`) or everything (`sst`)."""
        if what not in {"tt", "sst"}:
            super().revoke(what)
        self.tokens.clear()
        if what == "sst":
            self.sessions.clear()

    def routes(self) -> list[Route]:
        """The documented calls, and those that GoodData's own clients make."""
        ws = re.escape(WORKSPACE)
        return [
            Route("GET", "/gdc/ping", self.ping),
            Route("POST", "/gdc/account/login", self.login),
            Route("GET", "/gdc/account/token", self.token),
            Route("DELETE", "/gdc/account/login/(.+)", self.logout),
            Route("DELETE", "/gdc/account/profile/(.+)", self.delete_user),
            Route("POST", f"/gdc/md/{ws}/identifiers", self.identifiers),
            Route("GET", f"/gdc/md/{ws}/query/reports", self.reports),
            Route("GET", f"/gdc/md/{ws}/obj/([0-9]+)", self.thing),
            Route("POST", f"/gdc/app/projects/{ws}/execute/raw", self.execute),
            # gooddata-java posts here; Twilio documents only the path above.
            Route("POST", f"/gdc/projects/{ws}/execute/raw", self.execute),
            Route("GET", f"/gdc/projects/{ws}/execute/raw/[0-9a-f]+", self.poll),
        ]

    def not_found(self) -> Answer:
        """GoodData's error shape."""
        return error(404, "The requested resource %s was not found", "URI")

    async def answer(self, call: Call) -> Answer:
        """Adds the correlation id that every answer carries; in maintenance, answers nothing else."""
        request_id = ("X-GDC-Request", call.headers.get("X-Gdc-Request", secrets.token_urlsafe(12)))
        if self.hub.knobs.maintenance:
            # docs.gooddata.apiary.io: every call, in plain text.
            body = b"Scheduled maintenance in progress. Please try again later."
            return Answer(503, body, (("Content-Type", "text/plain"), request_id))
        try:
            return (await super().answer(call)).having(request_id)
        except Refusal as refusal:
            raise Refusal(refusal.answer.having(request_id)) from None

    # Sessions

    def _session_gone(self) -> Refusal:
        # The body is empty in this variant (recorded by gooddata-ruby).
        expired = 'GDCAuthSST=""; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/gdc/account; Secure; HttpOnly'
        return Refusal(Answer(401, b"", (("WWW-Authenticate", SST_GONE), ("Set-Cookie", expired))))

    def _session(self, call: Call) -> str:
        """Checks the long-lived token."""
        sst = call.headers.get("X-Gdc-Authsst") or call.cookies.get("GDCAuthSST", "")
        if self.sessions.get(sst, 0) < time.time():
            raise self._session_gone()
        return sst

    def _check(self, call: Call) -> None:
        """Checks the temporary token, which comes as a cookie or a header."""
        tt = call.headers.get("X-Gdc-Authtt") or call.cookies.get("GDCAuthTT", "")
        sst, expires = self.tokens.get(tt, ("", 0.0))
        if expires < time.time() or self.sessions.get(sst, 0) < time.time():
            document = {"error": {"code": 401, "message": "Authorization Required", "parameters": []}}
            answer = as_json(document, 401, JSON)
            gone = "GDCAuthTT=; Max-Age=0; Path=/gdc; Secure; HttpOnly"
            raise Refusal(answer.having(("WWW-Authenticate", TT_GONE), ("Set-Cookie", gone)))

    def _new_token(self, sst: str) -> str:
        tt = secrets.token_urlsafe(24)
        self.tokens[tt] = (sst, time.time() + self.hub.knobs.tt_seconds)
        return tt

    async def ping(self, call: Call) -> Answer:
        """Says that there is no maintenance."""
        del call
        return Answer(204)

    async def login(self, call: Call) -> Answer:
        """Gives a session; after too many bad logins, 429 with Retry-After (Twilio, General usage)."""
        if self.bad_logins >= self.hub.knobs.login_attempts:
            self.hub.counts["logins_while_locked"] += 1
            wait = str(self.hub.knobs.login_retry_after)
            return error(429, "Too many invalid logins").having(("Retry-After", wait))
        body = call.json()
        form = body.get("postUserLogin") if isinstance(body, dict) else None
        if not isinstance(form, dict):
            return error(400, "Request has no %s", "postUserLogin")
        if (form.get("login"), form.get("password")) != (USERNAME, PASSWORD) or not self.user_exists:
            self.bad_logins += 1
            return error(401, "Bad Login or Password!").having(("WWW-Authenticate", SST_GONE))
        self.bad_logins = 0
        sst = secrets.token_urlsafe(24)
        self.sessions[sst] = time.time() + self.hub.knobs.sst_seconds
        tt = self._new_token(sst)
        user = {"profile": f"/gdc/account/profile/{PROFILE}", "state": f"/gdc/account/login/{PROFILE}"}
        if form.get("verify_level", 0) == 2:
            answer = as_json({"userLogin": {**user, "token": sst}}, 200, JSON)
            return answer.having(("X-GDC-AuthSST", sst), ("X-GDC-AuthTT", tt))
        # verify_level 0 means cookies (Twilio, Authentication).
        return as_json({"userLogin": user}, 200, JSON).having(
            ("Set-Cookie", f"GDCAuthSST={sst}; Path=/gdc/account; Secure; HttpOnly"),
            ("Set-Cookie", f"GDCAuthTT={tt}; Path=/gdc; Secure; HttpOnly"),
        )

    async def token(self, call: Call) -> Answer:
        """Gives a temporary token."""
        tt = self._new_token(self._session(call))
        return as_json({"userToken": {"token": tt}}).having(("X-GDC-AuthTT", tt))

    async def logout(self, call: Call, profile: str) -> Answer:
        """Ends the session; wants both tokens."""
        self._check(call)
        sst = self._session(call)
        if profile != PROFILE:
            return self.not_found()
        del self.sessions[sst]
        self.hub.counts["logouts"] += 1
        return Answer(204)

    async def delete_user(self, call: Call, profile: str) -> Answer:
        """Deletes the user, which is what this path does, one word away from the logout."""
        self._check(call)
        if profile != PROFILE:
            return self.not_found()
        self.hub.counts["disasters"] += 1
        self.user_exists = False
        self.revoke("sst")
        return Answer(204)

    # Metadata

    async def identifiers(self, call: Call) -> Answer:
        """Maps identifiers to objects; one that is unknown is only missing (recorded by gooddata-ruby)."""
        self._check(call)
        body = call.json()
        wanted = body.get("identifierToUri") if isinstance(body, dict) else None
        if not isinstance(wanted, list):
            return error(400, "Request has no %s", "identifierToUri")
        known = [
            {"identifier": name, "uri": f"/gdc/md/{WORKSPACE}/obj/{DATES[name]}"}
            for name in wanted
            if name in DATES
        ]
        return as_json({"identifiers": known}, 200, JSON)

    async def reports(self, call: Call) -> Answer:
        """Lists the reports."""
        self._check(call)
        entries = [
            {
                "link": f"/gdc/md/{WORKSPACE}/obj/{number}",
                "title": title,
                "category": "report",
                "updated": "2024-05-13 10:00:00",
            }
            for number, title in TITLES.items()
        ]
        return as_json({"query": {"entries": entries, "meta": {"category": "query"}}}, 200, JSON)

    async def thing(self, call: Call, number: str) -> Answer:
        """Shows a report, its one definition, or a date's attribute."""
        self._check(call)
        if number in DATES.values():
            return as_json({"attribute": {"meta": {"title": "Date"}, "content": {}}}, 200, JSON)
        if number.removesuffix("1") in TITLES and number not in TITLES:
            # A table is a grid (gooddata-java, GridReportDefinitionContent).
            content = {"format": self.hub.knobs.flex_report_format, "filters": []}
            return as_json({"reportDefinition": {"meta": {}, "content": content}}, 200, JSON)
        if number not in TITLES:
            return self.not_found()
        link = f"/gdc/md/{WORKSPACE}/obj/{number}"
        document = {
            "report": {
                "meta": {"title": TITLES[number], "uri": link, "category": "report"},
                "content": {"definitions": [f"{link}1"]},
            }
        }
        return as_json(document, 200, JSON)

    # Exports

    async def execute(self, call: Call) -> Answer:
        """Starts a raw export: 201 with a uri, which is the Location too."""
        self._check(call)
        body = call.json()
        asked = body.get("report_req") if isinstance(body, dict) else None
        if not isinstance(asked, dict):
            return error(400, "Request has no %s", "report_req")
        if "reportDefinition" in asked:
            # keboola sends the report's last definition instead.
            link = str(asked["reportDefinition"]).removesuffix("1")
        else:
            link = str(asked.get("report"))
        number = link.removeprefix(f"/gdc/md/{WORKSPACE}/obj/")
        if number not in TITLES:
            return error(404, "Object %s does not exist", link)
        today = datetime.now(WORKSPACE_ZONE).date()
        first, last = today - timedelta(days=SAVED_DAYS), today
        for limit in asked.get("context", {}).get("filters", []):
            first, last = self._days(limit, today)
        job = self.hub.start(
            secrets.token_hex(24),
            self.name,
            number,
            asked,
            window=(_midnight(first), _midnight(last + timedelta(days=1))),
            build=self._csv,
        )
        uri = self._new_uri(job)
        return as_json({"uri": uri}, 201, JSON).having(("Location", uri))

    def _days(self, limit: dict[str, Any], today: date) -> tuple[date, date]:
        """Reads a date filter; both ends are days, and inclusive."""
        if limit.get("uri") not in {f"/gdc/md/{WORKSPACE}/obj/{number}" for number in DATES.values()}:
            raise Refusal(error(400, "Filter on %s is not possible", str(limit.get("uri"))))
        constraint = limit.get("constraint", {})
        try:
            if constraint["type"] == "interval":
                first, last = (date.fromisoformat(constraint[end]) for end in ("from", "to"))
            elif constraint["type"] == "floating":
                # Offsets in days; 0 is today.
                first, last = (today + timedelta(days=constraint[end]) for end in ("from", "to"))
            else:
                raise Refusal(error(400, "Unknown constraint %s", str(constraint["type"])))
        except (KeyError, TypeError, ValueError):
            raise Refusal(error(400, "Malformed constraint %s", str(constraint))) from None
        if first > last:
            raise Refusal(error(400, "Malformed constraint %s", str(constraint)))
        return first, last

    def _new_uri(self, job: Job) -> str:
        """Makes a result's uri; its query is part of it, and percent-encoded already."""
        q = base64.b64encode(secrets.token_bytes(40)).decode() + "\n+/="
        uri = (
            f"/gdc/projects/{WORKSPACE}/execute/raw/{job.id}?q={quote(q, safe='')}&c={secrets.token_hex(16)}"
        )
        self.results[uri] = job
        return uri

    def _csv(self, job: Job) -> tuple[bytes, int]:
        rows = list(self.hub.rows(job))
        buffer = io.StringIO()
        # Every field quoted, lines ended by CRLF (recorded by gooddata-ruby).
        writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        writer.writerow(SOURCES[self.name][job.export].columns)
        writer.writerows([text(self.name, value) for value in row] for row in rows)
        return buffer.getvalue().encode(), len(rows)

    async def poll(self, call: Call) -> Answer:
        """Answers 202 while the report is computed, then 200 with it, or 204 when it has no data."""
        self._check(call)
        job = self.results.get(call.target)
        if job is None:
            self.hub.counts["mangled_uris"] += any(job.id in call.target for job in self.results.values())
            return self.not_found()
        if job.running:
            self.polls[job.id] = self.polls.get(job.id, 0) + 1
            # A widget of GoodData's follows `uri` in the body for as long as there is one.
            return as_json({"uri": self._new_uri(job)}, 202, JSON) if self.polls[job.id] == 1 else Answer(202)
        if job.outcome == "gone":
            return error(410, "Task %s failed", job.id)
        if job.outcome not in {"done", "empty"}:
            # gooddata-java's test of this call: 400 means that it failed.
            return error(400, "Report %s is not computable", TITLES[job.export])
        body, rows = await job.result()
        if rows == 0 or job.outcome == "empty":
            return Answer(204)
        title = TITLES[job.export]
        names: Sequence[str] = (title.replace(" ", "_"), quote(title))
        self.hub.serve(self.name, job, f"{names[0]}.csv", rows, body)
        disposition = f"attachment; filename=\"{names[0]}.csv\"; filename*=UTF-8''{names[1]}.csv"
        # text/csv without a charset, and chunked (recorded by gooddata-ruby).
        headers = (("Content-Type", "text/csv"), ("Content-Disposition", disposition))
        return Answer(200, body, headers, chunked=True)


def _midnight(day: date, zone: ZoneInfo = WORKSPACE_ZONE) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
