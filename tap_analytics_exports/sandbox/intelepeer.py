"""IntelePeer Insights: a query, then compressed shards on an SFTP server."""

from __future__ import annotations

import csv
import gzip
import io
import operator
import re
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from tap_analytics_exports.sandbox.data import (
    INTELEPEER_COMMON,
    INTELEPEER_FIELDS,
    MILLISECOND,
    SOURCES,
    Value,
    text,
)
from tap_analytics_exports.sandbox.server import Answer, Call, Hub, Job, Route, Service, as_json, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

USERNAME = "api-access"
PASSWORD = "insights-pass"
#: A token of long standing, for clients that have one.
API_TOKEN = "0sjey2n81hamxis=/"
CUSTOMER = "3f1d0c9b8a7e6d5c4b3a29180706f5e4"
PAGE = "/_rest/v4/dwh/Q"
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$gte": operator.ge,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$lt": operator.lt,
    "$ne": operator.ne,
    "$eq": operator.eq,
}
#: `YYYY-MM-DDTHH:MM:SSZ`, as the error message says, and nothing else.
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
UNKNOWN = "could not get QueryRequest object: QueryRequest matching query does not exist."
Condition = dict[str, Any]


class IntelePeerAuth(Service):
    """The customer portal, which gives tokens (IntelePeer, Authentication)."""

    name: ClassVar[str] = "intelepeer_auth"

    def reset(self) -> None:
        """Forgets all tokens."""
        self.tokens: dict[str, float] = {}

    def routes(self) -> list[Route]:
        """The one call."""
        return [Route("POST", "/_rest/v4/authenticate", self.authenticate)]

    async def authenticate(self, call: Call) -> Answer:
        """Gives a token for 24 hours."""
        form = call.json()
        if not isinstance(form, dict) or (form.get("username"), form.get("password")) != (USERNAME, PASSWORD):
            return as_json({"code": 401, "error": "Unauthorized"}, 401)
        token = secrets.token_urlsafe(24)
        self.tokens[token] = time.time() + self.hub.knobs.intelepeer_token_seconds
        return as_json({"token": token})


class IntelePeer(Service):
    """The Insights API."""

    name: ClassVar[str] = "intelepeer"

    def __init__(self, hub: Hub, auth: IntelePeerAuth, results: Path, shards: int) -> None:
        """Joins the hub.

        Args:
            hub: The state of all services.
            auth: Who gave the tokens.
            results: The folder under which the shards are written.
            shards: How many of them a result has.
        """
        self.auth, self.results, self.shards = auth, results, shards
        super().__init__(hub)

    def reset(self) -> None:
        """Forgets all queries."""
        self.api_token = API_TOKEN
        self.queries: dict[str, Job] = {}

    def revoke(self, what: str) -> None:
        """Ends the tokens that were given out (`token`) or the long-standing one (`api_token`)."""
        if what == "token":
            self.auth.tokens.clear()
        elif what == "api_token":
            self.api_token = secrets.token_urlsafe(24)
        else:
            super().revoke(what)

    def routes(self) -> list[Route]:
        """Using the Insights API, the five calls."""
        one = f"{PAGE}/([^/]+)"
        return [
            Route("GET", PAGE, self.fields),
            Route("POST", PAGE, self.submit),
            Route("GET", f"{one}/status", self.status),
            Route("GET", one, self.location),
            Route("HEAD", one, self.location),
        ]

    async def answer(self, call: Call) -> Answer:
        """Every call wants a Bearer token; what a refusal says is documented for the login only."""
        scheme, _, token = call.headers.get("Authorization", "").partition(" ")
        known = token == self.api_token or self.auth.tokens.get(token, 0) > time.time()
        if scheme != "Bearer" or not known:
            return as_json({"code": 401, "error": "Unauthorized"}, 401)
        return await super().answer(call)

    async def fields(self, call: Call) -> Answer:
        """Lists each event's own fields; the common ones can be added to any (Get Available Fields)."""
        del call
        return as_json({event: {"fields": list(names)} for event, names in INTELEPEER_FIELDS.items()})

    # Submit

    async def submit(self, call: Call) -> Answer:
        """Validates a query and starts it."""
        query = call.json()
        if not isinstance(query, dict):
            refuse({"code": 400, "message": "Request body is not valid JSON."}, 400)
        start, end = self._range(query)
        fields = self._fields(query)
        conditions = {event: self._conditions(event, query) for event in fields}
        session = self._scope(query)
        if self.hub.running(self.name) >= self.hub.knobs.max_running:
            self.hub.counts["intelepeer_429"] += 1
            # The same answer serves for the limit of 1 TB (Max Concurrent Queries Reached).
            refuse({"code": 429, "message": "max concurrent queries per user (2) reached"}, 429)
        guid = secrets.token_hex(16)
        job = self.hub.start(
            guid,
            self.name,
            "+".join(fields),
            query,
            window=(start, end),
            build=lambda job: self._build(job, fields, conditions, session),
        )
        wide = self.hub.knobs.wide_after_seconds
        if wide and (end - start).total_seconds() > wide + 1:
            job.outcome = "wide"
        self.queries[guid] = job
        return as_json({"id": guid}, 201)

    def _operators(self, condition: Condition, allowed: Iterable[str]) -> None:
        if wrong := [name for name in condition if name not in set(allowed)]:
            names = ", ".join(wrong)
            message = (
                f"Invalid operators [{names}], try to use any of these ($gte, $lte, $gt, $lt, $ne, $eq)."
            )
            refuse({"code": 400, "message": {"Operators": message}}, 400)

    def _range(self, query: dict[str, Any]) -> tuple[datetime, datetime]:
        """Reads the required timestamp; $gte and $lte are "on or after" and "on or before" (Request 1)."""
        bounds = query.get("timestamp")
        if not isinstance(bounds, dict) or not bounds:
            refuse({"code": 400, "message": "timestamp is required."}, 400)
        allowed = OPERATORS if self.hub.knobs.timestamp_lt else ("$gte", "$lte")
        self._operators(bounds, allowed)
        start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)
        for name, raw in bounds.items():
            try:
                moment = datetime.fromisoformat(raw) if ISO.fullmatch(str(raw)) else None
            except ValueError:
                moment = None
            if moment is None:
                message = (
                    f"Invalid date filters [{raw}]. They must be in ISO8601 format. "
                    "Example: 'YYYY-MM-DDTHH:MM:SSZ'"
                )
                refuse({"code": 400, "message": {"Date_Filters": {"message": message, "code": "422-6"}}}, 400)
            if name in {"$gte", "$gt", "$eq"}:
                start = moment + (MILLISECOND if name == "$gt" else 0 * MILLISECOND)
            if name in {"$lte", "$lt", "$eq"}:
                end = moment + (0 * MILLISECOND if name == "$lt" else MILLISECOND)
        return start, end

    def _fields(self, query: dict[str, Any]) -> dict[str, list[str]]:
        """Reads the required data: events and their fields, case sensitive."""
        data = query.get("data")
        if not isinstance(data, dict) or not data:
            refuse({"code": 400, "message": "data is required."}, 400)
        for event, wanted in data.items():
            self._event(event)
            names = wanted.get("fields") if isinstance(wanted, dict) else None
            if not isinstance(names, list) or not names:
                refuse({"code": 400, "message": "fields is required."}, 400)
            for name in names:
                self._field(event, name)
        return {event: wanted["fields"] for event, wanted in data.items()}

    def _event(self, event: str) -> None:
        if event not in INTELEPEER_FIELDS:
            refuse({"code": 400, "message": f"{event} is not a valid schema name."}, 400)

    def _field(self, event: str, name: object) -> None:
        if name not in INTELEPEER_COMMON + INTELEPEER_FIELDS[event]:
            refuse({"code": 400, "message": f"{name} is not a valid field."}, 400)

    def _conditions(self, event: str, query: dict[str, Any]) -> dict[str, Condition]:
        """Reads the filters of one event."""
        filters = query.get("filters", {})
        for named, conditions in filters.items():
            self._event(named)
            for name, condition in conditions.items():
                self._field(named, name)
                self._operators(condition, OPERATORS)
        found: dict[str, Condition] = filters.get(event, {})
        return found

    def _scope(self, query: dict[str, Any]) -> Condition:
        """Reads the scope: both children are required, and only SessionId may be filtered."""
        scope = query.get("scope")
        if scope is None:
            return {}
        if not isinstance(scope, dict) or not {"filters", "scope"} <= set(scope):
            refuse({"code": 400, "message": "scope requires both filters and scope."}, 400)
        found: Condition = {}
        for event, conditions in scope["filters"].items():
            # Printed for events; a SessionId without one is taken as well.
            inner = {event: conditions} if event == "SessionId" else conditions
            for name, condition in inner.items():
                if name != "SessionId":
                    refuse({"code": 400, "message": f"{name} is not a valid field."}, 400)
                self._operators(condition, OPERATORS)
                found |= condition
        return found

    # Results

    def _build(
        self,
        job: Job,
        fields: dict[str, list[str]],
        conditions: dict[str, dict[str, Condition]],
        session: Condition,
    ) -> list[str]:
        """Writes the shards and gives their paths; none, if every value is empty."""
        stamp = int(job.created.timestamp() * 1000)
        parts: list[tuple[list[str], list[list[str]]]] = []
        for event, names in fields.items():
            columns = SOURCES[self.name][event].columns
            wanted = conditions[event] | ({"SessionId": session} if session else {})
            rows = [
                [text(self.name, row[columns.index(name)]) for name in names]
                for row in self.hub.rows(job, event)
                if _matches(dict(zip(columns, row, strict=True)), wanted)
            ]
            # Rows lie in any order over the shards, and the last of several has a header only.
            filled = max(1, self.shards - 1)
            parts += [(names, rows[part::filled] if part < filled else []) for part in range(self.shards)]
        if not any(any(row) for _, rows in parts for row in rows):
            return []
        paths = []
        for number, (names, rows) in enumerate(parts):
            path = f"reports/{CUSTOMER}/{job.id}_QueryExport_{stamp}__{number:012d}.csv.gz"
            self._store(job, path, names, rows)
            paths.append(path)
        return paths

    def _store(self, job: Job, path: str, names: list[str], rows: list[list[str]]) -> None:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
        stored = gzip.compress(buffer.getvalue().encode(), mtime=0)
        if self.hub.knobs.damage_shards > 0:
            self.hub.knobs.damage_shards -= 1
            stored = stored[:-10]
        target = self.results / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(stored)
        self.hub.serve(self.name, job, path, len(rows), stored)

    def _query(self, guid: str) -> Job:
        job = self.queries.get(guid)
        if job is None:
            # 500, and an array, unlike any other answer (ID Not Found).
            refuse([{"message": UNKNOWN, "code": 500}], 500)
        return job

    async def status(self, call: Call, guid: str) -> Answer:
        """Says where the query is."""
        del call
        job = self._query(guid)
        knobs = self.hub.knobs
        if job.running:
            return as_json({"status": job.word(knobs.intelepeer_words, knobs.job_seconds), "guid": guid})
        if job.outcome == "wide":
            return as_json({"status": "Failed", "guid": guid, "messages": knobs.wide_messages})
        if job.outcome == "empty" or (job.outcome == "done" and not await job.result()):
            return as_json({"status": "Failed", "guid": guid, "messages": knobs.empty_messages})
        if job.outcome == "done":
            return as_json({"status": "Completed", "guid": guid})
        if job.outcome == "failed":
            return as_json({"status": "Failed", "guid": guid, "messages": ["Internal error"]})
        return as_json({"status": job.outcome, "guid": guid})

    async def location(self, call: Call, guid: str) -> Answer:
        """Gives the files' paths, as Python 2 writes a list."""
        del call
        job = self._query(guid)
        if job.running or job.outcome != "done" or not (paths := await job.result()):
            status = "Process has not finish yet, please verify the status of your request"
            return as_json({"status": status, "guid": guid})
        listed = ", ".join(f"u'{path}'" for path in paths)
        return as_json({"status": f"Process finished. Download: [{listed}]", "guid": guid})


def _matches(row: dict[str, Value], conditions: dict[str, Condition]) -> bool:
    """Applies filters; an empty value is unequal to everything and in no order with it."""
    return all(
        word == "$ne" if row[name] is None else OPERATORS[word](row[name], _like(row[name], wanted))
        for name, condition in conditions.items()
        for word, wanted in condition.items()
    )


def _like(value: Value, wanted: Any) -> Any:
    """Reads what a filter asks for as what the column holds."""
    if isinstance(value, datetime):
        return datetime.fromisoformat(wanted)
    if isinstance(value, bool):
        return str(wanted).lower() == "true"
    return type(value)(wanted) if isinstance(value, str | int | float) else wanted
