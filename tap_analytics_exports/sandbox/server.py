"""What the five services share: recording, faults, the clock of jobs, and the writing of answers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import re
import time
import traceback
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import parse_qsl

from aiohttp import web

from tap_analytics_exports.sandbox.data import World, snapshot, stream
from tap_analytics_exports.sandbox.echo import FORMS, echo

if TYPE_CHECKING:
    from tap_analytics_exports.sandbox.data import Value

#: Headers that /requests shows; of credentials, only that and how they were sent.
SHOWN_HEADERS = ("Accept", "Content-Type", "If-Match", "If-Range", "Range", "User-Agent")


@dataclass(frozen=True)
class Call:
    """A request, with its target as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    cookies: dict[str, str]
    body: bytes
    origin: str

    @property
    def path(self) -> str:
        """The target without its query, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's parameters, decoded, in order."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    def json(self) -> Any:
        """The body as JSON, or None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Answer:
    """A response. `headers` may repeat a name, as Set-Cookie does."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False

    def having(self, *headers: tuple[str, str]) -> Answer:
        """The same with more headers."""
        return replace(self, headers=self.headers + headers)


def as_json(document: object, status: int = 200, content_type: str = "application/json") -> Answer:
    """Answers with a JSON document."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status, body, (("Content-Type", content_type),))


class Refusal(Exception):
    """Ends the handling of a call with this answer."""

    def __init__(self, answer: Answer) -> None:
        """Keeps the answer."""
        super().__init__(answer.status)
        self.answer = answer


def refuse(document: object, status: int) -> NoReturn:
    """Ends the handling of a call with a JSON document."""
    raise Refusal(as_json(document, status))


Handler = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """One endpoint: its method, a pattern for the raw path, and what answers."""

    method: str
    pattern: str
    handler: Handler


@dataclass
class Knobs:
    """What tests may turn by POST /settings."""

    #: How long a job runs.
    job_seconds: float = 2.0
    #: How long giosg computes before it answers.
    giosg_seconds: float = 0.1
    #: One row in ten shows only so long after its moment.
    late_seconds: float = 0.0
    #: Lifetimes of credentials.
    tt_seconds: float = 600.0
    sst_seconds: float = 14 * 86400.0
    intelepeer_token_seconds: float = 86400.0
    #: Lifetime of a presigned URL, from each view.
    url_seconds: float = 3600.0
    #: Flex: bad logins that are answered before 429, and its Retry-After.
    login_attempts: int = 5
    login_retry_after: int = 2
    #: Flex: every call answers 503.
    maintenance: bool = False
    #: Flex: what a report is shown as; `grid` is a table.
    flex_report_format: str = "grid"
    #: IntelePeer: windows wider than this fail; 0 means never.
    wide_after_seconds: float = 0.0
    #: IntelePeer: running queries, documented as two.
    max_running: int = 2
    #: IntelePeer: the messages of a query that found nothing, and of one that asked for too much.
    empty_messages: list[str] = field(
        default_factory=lambda: ["All data fields have empty values, advise adding core fields"]
    )
    wide_messages: list[str] = field(
        default_factory=lambda: [
            "Query range to wide",
            "All data fields have empty values, advise adding core fields",
        ]
    )
    #: IntelePeer: whether a timestamp may be bounded by $gt and $lt.
    timestamp_lt: bool = True
    #: IntelePeer: the next so many shards are stored without their last bytes.
    damage_shards: int = 0
    #: The words for a job that runs, in the order of its life.
    intelepeer_words: list[str] = field(default_factory=lambda: ["Pending", "Processing"])
    gooee_words: list[str] = field(default_factory=lambda: ["queued", "running"])
    #: Khoros: runnerState, or runnerState/detail, such as CLOSED/CONTINUED_AS_NEW.
    khoros_words: list[str] = field(default_factory=lambda: ["RUNNING"])
    #: Khoros: requests a minute before 429; 0 means none is refused.
    khoros_rate: int = 0
    #: Khoros: GET for each export id, not only where the reference has it.
    khoros_get_everywhere: bool = False
    #: Gooee: where POST creates an export; the other spelling answers 405 or 404.
    gooee_create_path: str = "/analytics/exports/"
    gooee_page_size: int = 100
    #: Gooee: added to number_of_rows.
    row_count_lie: int = 0
    #: giosg: whether an event at the interval's end belongs to it.
    giosg_end_inclusive: bool = True
    #: Jobs to fail: `{"service", "match": regex over the request's JSON, "times": n or null, "outcome"}`.
    fail_jobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Job:
    """An export that was triggered.

    Attributes:
        outcome: `done`; `stuck`, which never ends; or the vendor's word for how it fails.
    """

    id: str
    service: str
    export: str
    request: Any
    window: tuple[datetime, datetime] | None
    created: datetime
    ready: float
    outcome: str
    build: Callable[[], Any]
    built: asyncio.Task[Any] | None = None
    deleted: bool = False

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.outcome == "stuck" or time.time() < self.ready

    def word(self, words: Sequence[str], seconds: float) -> str:
        """The vendor's word for where a running job is in its life."""
        left = max(0.0, self.ready - time.time()) / seconds if seconds else 0.0
        return words[min(len(words) - 1, int((1 - left) * len(words)))]

    async def result(self) -> Any:
        """What the job made, made once and off the loop."""
        if self.built is None:
            self.built = asyncio.create_task(asyncio.to_thread(self.build))
        return await asyncio.shield(self.built)


ACTIONS = frozenset(
    {
        "status",
        "body",
        "echo",
        "headers",
        "run",
        "delay",
        "drip",
        "hang",
        "close",
        "truncate_after_bytes",
        "chunked_truncate",
        "no_length",
        "gzip_encode",
        "replace_body",
        "replace_bytes",
        "substitute",
    }
)


@dataclass
class Fault:
    """A rule of POST /faults."""

    service: str
    action: dict[str, Any]
    path: str = ""
    method: str | None = None
    times: int | None = 1
    after: int = 0

    def __post_init__(self) -> None:
        """Refuses what would be ignored.

        Raises:
            ValueError: An action has an unknown name.
        """
        if unknown := set(self.action) - ACTIONS:
            raise ValueError(f"unknown actions: {sorted(unknown)}")
        if self.action.get("echo", "plain") not in FORMS:
            raise ValueError(f"unknown echo: {self.action['echo']}")

    def hits(self, service: str, method: str, target: str) -> bool:
        """Says whether the rule is meant now, and counts."""
        if service != self.service or (self.method or method) != method:
            return False
        if self.times == 0 or not re.search(self.path, target):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Hub:
    """The state behind all services, and what the control API shows of it."""

    def __init__(self, world: World, knobs: Knobs) -> None:
        """Starts with nothing recorded.

        Args:
            world: Seed and size of the data.
            knobs: Where the knobs stand, also after a reset.
        """
        self.first_world, self.first_knobs = world, knobs
        self.services: dict[str, Service] = {}
        #: At the process's end, so that no result is made any longer.
        self.closed = False
        self.reset()

    def close(self) -> None:
        """Ends the making of results, which goes on in threads."""
        self.closed = True

    def reset(self) -> None:
        """Forgets everything but the data and how the process was started."""
        self.world = self.first_world
        self.knobs = replace(self.first_knobs)
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []
        self.jobs: list[Job] = []
        self.served: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.max_running: Counter[str] = Counter()
        self.max_parallel: Counter[str] = Counter()
        self._parallel: Counter[str] = Counter()
        for service in self.services.values():
            service.reset()

    def turn(self, knobs: dict[str, Any]) -> None:
        """Sets knobs.

        Args:
            knobs: Names and values of `Knobs`.

        Raises:
            ValueError: There is no such knob.
        """
        if unknown := set(knobs) - {known.name for known in fields(Knobs)}:
            raise ValueError(f"unknown settings: {sorted(unknown)}")
        self.knobs = replace(self.knobs, **knobs)
        self.world = replace(self.world, late_seconds=self.knobs.late_seconds)

    def fault(self, service: str, method: str, target: str) -> Fault | None:
        """The first rule that is meant by this request, counted."""
        return next((rule for rule in self.faults if rule.hits(service, method, target)), None)

    def running(self, service: str) -> int:
        """How many jobs of a service go on."""
        return sum(job.service == service and job.running for job in self.jobs)

    def start(
        self,
        job_id: str,
        service: str,
        export: str,
        request: object,
        *,
        build: Callable[[Job], Any],
        window: tuple[datetime, datetime] | None = None,
    ) -> Job:
        """Starts a job.

        Args:
            job_id: The vendor's id.
            service: The vendor.
            export: The export's key in the data.
            request: What was asked, as JSON can show it.
            build: Makes the result; called once, in a thread, when the job has ended well.
            window: What span was asked, half-open.

        Returns:
            The job.
        """
        now = time.time()
        job = Job(
            id=job_id,
            service=service,
            export=export,
            request=request,
            window=window,
            created=datetime.fromtimestamp(now, UTC),
            ready=now + self.knobs.job_seconds,
            outcome=self._outcome(service, json.dumps(request, ensure_ascii=False)),
            build=lambda: build(job),
        )
        self.jobs.append(job)
        self.max_running[service] = max(self.max_running[service], self.running(service))
        return job

    def rows(self, job: Job, export: str | None = None) -> Iterator[list[Value]]:
        """The rows of a job's window, or of its snapshot, as they were when it was triggered.

        Args:
            job: The job.
            export: The export, where a job has several.

        Yields:
            Each row's values.
        """
        if job.window is None:
            found = snapshot(self.world, job.export, job.created)
        else:
            found = stream(self.world, job.service, export or job.export, *job.window, as_of=job.created)
        for _, row in found:
            if self.closed:
                return
            yield row

    def _outcome(self, service: str, request: str) -> str:
        for rule in self.knobs.fail_jobs:
            times = rule.get("times")
            if rule["service"] == service and times != 0 and re.search(rule.get("match", ""), request):
                if times is not None:
                    rule["times"] = times - 1
                return str(rule.get("outcome", "failed"))
        return "done"

    def serve(self, service: str, job: Job, file: str, rows: int, stored: bytes) -> None:
        """Records a file that was handed out, or put where the client takes it."""
        self.served.append(
            {
                "service": service,
                "export": job.export,
                "job": job.id,
                "window": [edge.isoformat() for edge in job.window or ()] or None,
                "as_of": job.created.isoformat(),
                "file": file,
                "rows": rows,
                "bytes": len(stored),
                "sha256": hashlib.sha256(stored).hexdigest(),
            }
        )

    def record(self, service: str, method: str, path: str, **more: object) -> dict[str, Any]:
        """Records a request, and gives its record to be completed."""
        entry = {"service": service, "method": method, "path": path, "time": time.time(), "status": None}
        entry |= more
        if service != "control":
            self.requests.append(entry)
        return entry

    def statistics(self) -> dict[str, Any]:
        """What was counted: leaks, violations, peaks."""
        return {
            "counts": dict(self.counts),
            "max_running": dict(self.max_running),
            "max_parallel": dict(self.max_parallel),
            "requests": dict(Counter(entry["service"] for entry in self.requests)),
        }

    async def handle(self, service: Service, request: web.Request) -> web.StreamResponse:
        """Answers one request of one service, with whatever fault a rule asks for."""
        call = Call(
            method=request.method,
            target=request.raw_path,
            headers={name.title(): value for name, value in request.headers.items()},
            cookies=dict(request.cookies),
            body=await request.read(),
            origin=f"http://{request.host}",
        )
        auth = call.headers.get("Authorization", "")
        entry = self.record(
            service.name,
            call.method,
            call.target,
            # The scheme alone; a token that is sent raw has none.
            authorization=(auth.partition(" ")[0] if " " in auth else "raw") if auth else None,
            token_headers=[name for name in call.headers if name.startswith("X-Gdc-Auth")],
            cookies=sorted(call.cookies),
            headers={name: call.headers[name] for name in SHOWN_HEADERS if name in call.headers},
            body=None if b"password" in call.body else call.body.decode(errors="replace"),
        )
        self._parallel[service.name] += 1
        self.max_parallel[service.name] = max(self.max_parallel[service.name], self._parallel[service.name])
        try:
            fault = self.fault(service.name, call.method, call.target)
            action = fault.action if fault else {}
            entry["fault"] = action or None
            answer = await self._answer(service, call, action)
            entry["status"] = answer.status
            return await send(request, answer, action)
        finally:
            self._parallel[service.name] -= 1
            entry["seconds"] = round(time.time() - entry["time"], 4)

    async def _answer(self, service: Service, call: Call, action: dict[str, Any]) -> Answer:
        """Lets the vendor answer, unless the fault stands before it."""
        stands_before = "status" in action or action.get("close") == "before_headers"
        answer = Answer()
        if action.get("run", not stands_before):
            try:
                answer = await service.answer(call)
            except Refusal as refusal:
                answer = refusal.answer
            except Exception:
                traceback.print_exc()
                raise
        if "replace_bytes" in action:
            answer = replace(answer, body=base64.b64decode(action["replace_bytes"]))
        if "status" in action or "replace_body" in action:
            body = action.get("replace_body", action.get("body", ""))
            if "echo" in action:
                body = echo(action["echo"], call.target, call.headers, call.body)
            shape = () if "status" in action else answer.headers
            answer = Answer(
                action.get("status", answer.status),
                body.encode() if isinstance(body, str) else json.dumps(body).encode(),
                shape or (("Content-Type", "text/plain" if isinstance(body, str) else "application/json"),),
                answer.chunked,
            )
        if "substitute" in action:
            pattern, by = action["substitute"]
            answer = replace(answer, body=re.sub(pattern.encode(), by.encode(), answer.body))
        if action.get("gzip_encode"):
            answer = replace(answer, body=gzip.compress(answer.body, mtime=0)).having(
                ("Content-Encoding", "gzip")
            )
        changed = {name.title() for name in action.get("headers", {})}
        kept = tuple(pair for pair in answer.headers if pair[0].title() not in changed)
        return replace(answer, headers=kept + tuple(action.get("headers", {}).items()))


async def send(request: web.Request, answer: Answer, action: dict[str, Any]) -> web.StreamResponse:
    """Writes an answer, in one of the ways in which answers go wrong if the action says so."""
    await asyncio.sleep(action.get("delay", 0))
    if action.get("hang") == "before_headers":
        await asyncio.Event().wait()
    if action.get("close") == "before_headers":
        return _hang_up(request)
    if any(
        name in action for name in ("close", "truncate_after_bytes", "chunked_truncate", "no_length", "hang")
    ):
        return await _send_broken(request, answer, action)
    if answer.chunked or "drip" in action:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if answer.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(answer.body)
        await response.prepare(request)
        # A dripping answer comes in twenty pieces.
        piece = len(answer.body) // 20 + 1 if "drip" in action else 1 << 16
        for start in range(0, len(answer.body), piece):
            await response.write(answer.body[start : start + piece])
            await asyncio.sleep(action.get("drip", 0))
        await response.write_eof()
        return response
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


async def _send_broken(request: web.Request, answer: Answer, action: dict[str, Any]) -> web.StreamResponse:
    """Writes an answer byte by byte past the framework, which would not lie."""
    transport = request.transport
    if transport is None:
        return web.Response()
    body = answer.body
    breaks = any(name in action for name in ("close", "chunked_truncate", "hang"))
    part = body[: action.get("truncate_after_bytes", len(body) // 2 if breaks else len(body))]
    chunked = answer.chunked or action.get("chunked_truncate", False)
    head = [f"HTTP/1.1 {answer.status} Sandbox", "Connection: close"]
    head += [f"{name}: {value}" for name, value in answer.headers]
    if action.get("no_length"):
        payload = part
    elif chunked:
        head.append("Transfer-Encoding: chunked")
        payload = f"{len(part):x}\r\n".encode() + part + b"\r\n" if part else b""
        payload += b"0\r\n\r\n" if action.get("chunked_truncate") else b""
    else:
        head.append(f"Content-Length: {len(body)}")
        payload = part
    transport.write("\r\n".join([*head, "", ""]).encode() + payload)
    if action.get("hang"):
        await asyncio.Event().wait()
    return _hang_up(request)


def _hang_up(request: web.Request) -> web.StreamResponse:
    """Ends the connection after what was written; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


class Service:
    """One origin: a vendor's API, or a file host."""

    name: ClassVar[str]

    def __init__(self, hub: Hub) -> None:
        """Joins the hub."""
        self.hub = hub
        self.origin = ""
        hub.services[self.name] = self
        self.reset()

    def routes(self) -> list[Route]:
        """The endpoints."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forgets sessions and files."""

    def revoke(self, what: str) -> None:
        """Makes credentials invalid that were given out."""
        raise ValueError(f"{self.name} can't revoke {what}")

    def not_found(self) -> Answer:
        """What an unknown path answers."""
        return as_json({"detail": "Not found."}, 404)

    def not_allowed(self, call: Call) -> Answer:
        """What a known path answers to a method it has not."""
        return as_json({"detail": f'Method "{call.method}" not allowed.'}, 405)

    async def answer(self, call: Call) -> Answer:
        """Finds the endpoint and lets it answer."""
        others = False
        for route in self.routes():
            if found := re.fullmatch(route.pattern, call.path):
                if route.method == call.method:
                    return await route.handler(call, *found.groups())
                others = True
        return self.not_allowed(call) if others else self.not_found()


class Minute:
    """Counts what exceeds a rate in any span of sixty seconds."""

    def __init__(self) -> None:
        """Starts empty."""
        self.times: deque[float] = deque()

    def over(self, rate: int) -> bool:
        """Counts one more request and says whether it is one too many."""
        now = time.monotonic()
        while self.times and now - self.times[0] >= 60:
            self.times.popleft()
        self.times.append(now)
        return len(self.times) > rate


def describe(job: Job) -> dict[str, Any]:
    """A job as /jobs shows it."""
    state = "deleted" if job.deleted else "running" if job.running else job.outcome
    return {
        "id": job.id,
        "service": job.service,
        "export": job.export,
        "request": job.request,
        "window": [edge.isoformat() for edge in job.window or ()] or None,
        "created": job.created.isoformat(),
        "state": state,
    }


def shown(knobs: Knobs) -> dict[str, Any]:
    """The knobs as /settings shows them."""
    return asdict(knobs)
