"""Acme's API on this machine: `python service.py` prints its address, and serves until it is ended."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "acme-invented-token"
POLLS = 2
"""Polls after which a job is done."""


class Service(ThreadingHTTPServer):
    """The service.

    Attributes:
        jobs: What was ordered, in that order.
        losing: Whether the answer to the next order gets lost.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: list[dict[str, Any]] = []
        self.losing = False
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def order(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            job = {**asked, "id": f"job-{len(self.jobs) + 1}", "polls": 0}
            self.jobs.append(job)
        return job


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Service
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        match parts.path.strip("/").split("/")[1:]:
            case _ if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self.answer(401, {"error": "who are you?"})
            case ["me"]:
                self.answer(200, {"name": "invented"})
            case ["jobs"]:
                (reference,) = parse_qs(parts.query)["reference"]
                self.answer(200, [shown(job) for job in self.server.jobs if job["reference"] == reference])
            case ["jobs", number, *rest] if job := self.job(number):
                if rest:
                    self.send(200, "text/csv", file(job))
                else:
                    job["polls"] += 1
                    self.answer(200, shown(job))
            case _:
                self.answer(404, {"error": "no such thing"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"error": "who are you?"})
            return
        job = self.server.order(asked)
        if self.server.losing:
            self.server.losing = False
            self.close_connection = True
            return
        self.answer(201, shown(job))

    def do_DELETE(self) -> None:
        self.answer(200, {})

    def job(self, number: str) -> dict[str, Any] | None:
        return next((job for job in self.server.jobs if job["id"] == number), None)

    def answer(self, status: int, body: Any) -> None:
        self.send(status, "application/json", json.dumps(body).encode())

    def send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def shown(job: dict[str, Any]) -> dict[str, Any]:
    """What Acme says of a job."""
    if job["polls"] < POLLS:
        return {"id": job["id"], "status": "running"}
    return {"id": job["id"], "status": "done", "rows": len(rows(job))}


def rows(job: dict[str, Any]) -> list[str]:
    """Four orders a day."""
    start, end = (datetime.fromisoformat(job[key]) for key in ("from", "to"))
    count = (end - start) // timedelta(hours=6)
    return [f"{job['report']}-{n},{start + n * timedelta(hours=6)}" for n in range(count)]


def file(job: dict[str, Any]) -> bytes:
    """The file of a job."""
    return "".join(f"{line}\r\n" for line in ["Order,Ordered At", *rows(job)]).encode()


if __name__ == "__main__":
    service = Service()
    print(service.url, flush=True)
    service.serve_forever()
