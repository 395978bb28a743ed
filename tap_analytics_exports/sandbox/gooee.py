"""Gooee Analytics Export: a stored query becomes a CSV file behind a presigned URL."""

from __future__ import annotations

import csv
import io
import json
import secrets
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from tap_analytics_exports.sandbox.data import SOURCES, text
from tap_analytics_exports.sandbox.files import GooeeFiles, Stored
from tap_analytics_exports.sandbox.server import Answer, Call, Hub, Job, Route, Service, as_json

USERNAME = "lights@example.com"
PASSWORD = "gooee-pass"
#: Sent raw, or as OAuth2's Bearer.
API_TOKEN = "5c1b0a9f8e7d6c5b4a39281706f5e4d3"
USER = "2a3130af-c738-4353-8050-a80fbafaf526"
#: The two spellings in the document: the heading's for POST, and everyone else's.
ALONE, COLLECTION = "/analytics/export", "/analytics/exports/"


class Gooee(Service):
    """Its API."""

    name: ClassVar[str] = "gooee"

    def __init__(self, hub: Hub, files: GooeeFiles) -> None:
        """Joins the hub.

        Args:
            hub: The state of all services.
            files: Where the results lie.
        """
        self.files = files
        super().__init__(hub)

    def reset(self) -> None:
        """Forgets logins and exports."""
        self.api_token = API_TOKEN
        self.logins: set[str] = set()
        self.exports: dict[str, tuple[Job, dict[str, Any]]] = {}

    def revoke(self, what: str) -> None:
        """Ends the logins (`token`) or the API token (`api_token`)."""
        if what == "token":
            self.logins.clear()
        elif what == "api_token":
            self.api_token = secrets.token_hex(16)
        else:
            super().revoke(what)

    def routes(self) -> list[Route]:
        """The document's four calls, and the two of gooee-sdk."""
        one = f"{COLLECTION}([^/]+)/"
        create = self.hub.knobs.gooee_create_path
        return [
            Route("POST", "/auth/login", self.login),
            Route("GET", "/me", self.me),
            Route("POST", create, self.create),
            Route("GET", COLLECTION, self.page),
            Route("GET", COLLECTION.rstrip("/"), self.add_slash),
            Route("POST", COLLECTION.rstrip("/"), self.add_slash),
            Route("GET", one, self.retrieve),
            Route("DELETE", one, self.delete),
        ]

    async def answer(self, call: Call) -> Answer:
        """All but the login wants `JWT <login>`, the API token raw, or `Bearer <token>`."""
        auth = call.headers.get("Authorization", "")
        known = {self.api_token, f"Bearer {self.api_token}"} | {f"JWT {token}" for token in self.logins}
        if call.path != "/auth/login" and auth not in known:
            return as_json({"detail": "Authentication credentials were not provided."}, 401)
        return await super().answer(call)

    async def login(self, call: Call) -> Answer:
        """Gives a token (gooee-sdk, client.py)."""
        form = call.json()
        if not isinstance(form, dict) or (form.get("username"), form.get("password")) != (USERNAME, PASSWORD):
            return as_json({"detail": "Unable to log in with provided credentials."}, 401)
        token = secrets.token_urlsafe(32)
        self.logins.add(token)
        return as_json({"token": token})

    async def me(self, call: Call) -> Answer:
        """Shows whose token it is; gooee-sdk checks tokens so."""
        del call
        return as_json({"id": USER, "username": USERNAME})

    async def add_slash(self, call: Call) -> Answer:
        """Redirects as Django does, which turns a POST into a GET."""
        query = call.target.partition("?")[2]
        return Answer(301, b"", (("Location", COLLECTION + (f"?{query}" if query else "")),))

    async def create(self, call: Call) -> Answer:
        """Schedules an export."""
        form = call.json()
        if not isinstance(form, dict):
            return as_json({"detail": "JSON parse error"}, 400)
        errors: dict[str, list[str]] = {}
        name, query = form.get("name"), form.get("query")
        if not name:
            errors["name"] = ["This field is required."]
        elif len(str(name)) > 100:
            errors["name"] = ["Ensure this field has no more than 100 characters."]
        if not query:
            errors["query"] = ["This field is required."]
        elif query not in SOURCES[self.name]:
            errors["query"] = [f'Invalid pk "{query}" - object does not exist.']
        if errors:
            return as_json(errors, 400)
        number = str(uuid.uuid4())
        job = self.hub.start(number, self.name, str(query), form, build=self._file)
        resource = {
            "id": number,
            "created": _stamp(job.created),
            "modified": _stamp(job.created),
            "created_by": USER,
            "name": name,
            "notes": form.get("notes", ""),
            "query": query,
            "tags": form.get("tags", []),
        }
        self.exports[number] = (job, resource)
        return as_json(await self._shown(job, resource), 201)

    def _file(self, job: Job) -> tuple[bytes, int]:
        rows = list(self.hub.rows(job))
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(SOURCES[self.name][job.export].columns)
        writer.writerows([text(self.name, value) for value in row] for row in rows)
        return buffer.getvalue().encode(), len(rows)

    async def _shown(self, job: Job, resource: dict[str, Any]) -> dict[str, Any]:
        """The resource; its two counts are there only when it is complete."""
        document = resource | {
            "status": "failed",
            "errors": None,
            "number_of_rows": None,
            "total_bytes": None,
        }
        if job.running:
            document["status"] = job.word(self.hub.knobs.gooee_words, self.hub.knobs.job_seconds)
        elif job.outcome in {"done", "empty"}:
            body, rows = await job.result()
            document |= {
                "status": "complete",
                "number_of_rows": rows + self.hub.knobs.row_count_lie,
                "total_bytes": len(body),
            }
        else:
            # A string that holds JSON (Data Model).
            document["errors"] = json.dumps({"detail": "Query execution was cancelled by the warehouse."})
        return document

    async def page(self, call: Call) -> Answer:
        """Lists exports, newest first: a bare list, the next page in Link (gooee-sdk, models.py)."""
        query = dict(call.query)
        try:
            limit = min(int(query.get("limit", 100)), self.hub.knobs.gooee_page_size)
            offset = int(query.get("offset", 0))
        except ValueError:
            return as_json({"detail": "Invalid page."}, 400)
        found = [one for one in reversed(self.exports.values()) if not one[0].deleted]
        shown = [await self._shown(*one) for one in found[offset : offset + limit]]
        answer = as_json(shown)
        if offset + limit < len(found):
            following = f"{call.origin}{COLLECTION}?limit={limit}&offset={offset + limit}"
            answer = answer.having(("Link", f'<{following}>; rel="next"'))
        return answer

    async def retrieve(self, call: Call, number: str) -> Answer:
        """Shows an export; each view of a complete one signs a fresh url."""
        del call
        found = self.exports.get(number)
        if found is None or found[0].deleted:
            return self.not_found()
        job, resource = found
        document = await self._shown(job, resource)
        if document["status"] == "complete":
            body, rows = await job.result()
            key = f"/anx_export_{number}/user_{USER}.csv"

            async def read() -> bytes:
                return bytes(body)

            def sent(whole: bytes) -> None:
                self.hub.serve(self.name, job, key, rows, whole)

            self.files.objects[key] = Stored("text/csv", read, sent)
            document["url"] = self.files.sign(key)
        return as_json(document)

    async def delete(self, call: Call, number: str) -> Answer:
        """Deletes an export and its file, whose links stop working."""
        del call
        found = self.exports.get(number)
        if found is None or found[0].deleted:
            return self.not_found()
        found[0].deleted = True
        self.files.objects.pop(f"/anx_export_{number}/user_{USER}.csv", None)
        return Answer(204)


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
