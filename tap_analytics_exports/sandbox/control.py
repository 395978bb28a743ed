"""The control API: faults, knobs, and what was seen. It belongs to the sandbox and to no vendor."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from tap_analytics_exports.sandbox.data import expected
from tap_analytics_exports.sandbox.server import Answer, Call, Fault, Route, Service, as_json, describe, shown
from tap_analytics_exports.sandbox.sftp import NAME as SFTP


class Control(Service):
    """Its API; it doesn't record itself."""

    name: ClassVar[str] = "control"

    def routes(self) -> list[Route]:
        """All its calls."""
        return [
            Route("GET", "/requests", self.requests),
            Route("GET", "/jobs", self.jobs),
            Route("GET", "/served", self.served),
            Route("GET", "/statistics", self.statistics),
            Route("GET", "/expected", self.expected),
            Route("GET", "/settings", self.settings),
            Route("POST", "/settings", self.settings),
            Route("GET", "/faults", self.faults),
            Route("POST", "/faults", self.faults),
            Route("POST", "/revoke", self.end_credentials),
            Route("POST", "/reset", self.forget),
        ]

    async def answer(self, call: Call) -> Answer:
        """Says what is wrong with a call, as its callers are programmers."""
        try:
            return await super().answer(call)
        except (KeyError, TypeError, ValueError) as wrong:
            return as_json({"error": repr(wrong)}, 400)

    async def requests(self, call: Call) -> Answer:
        """Every request; `?service=` chooses."""
        wanted = dict(call.query).get("service")
        return as_json([one for one in self.hub.requests if wanted in {None, one["service"]}])

    async def jobs(self, call: Call) -> Answer:
        """Every job; `?service=` chooses."""
        wanted = dict(call.query).get("service")
        return as_json([describe(job) for job in self.hub.jobs if wanted in {None, job.service}])

    async def served(self, call: Call) -> Answer:
        """Every file that was handed out, as stored; `?service=` chooses."""
        wanted = dict(call.query).get("service")
        return as_json([one for one in self.hub.served if wanted in {None, one["service"]}])

    async def statistics(self, call: Call) -> Answer:
        """Leaks, violations, peaks."""
        del call
        return as_json(self.hub.statistics())

    async def expected(self, call: Call) -> Answer:
        """The rows of `?provider=&export=&start=&end=&as_of=`, in ISO 8601."""
        query = dict(call.query)
        start, end, as_of = (
            datetime.fromisoformat(query[name]) if name in query else None
            for name in ("start", "end", "as_of")
        )
        return as_json(expected(self.hub.world, query["provider"], query["export"], start, end, as_of=as_of))

    async def settings(self, call: Call) -> Answer:
        """Turns knobs, and shows them all."""
        if call.method == "POST":
            self.hub.turn(call.json())
        return as_json(shown(self.hub.knobs))

    async def faults(self, call: Call) -> Answer:
        """Takes a list of rules in place of those before, and shows what is left of them."""
        if call.method == "POST":
            rules = [Fault(**rule) for rule in call.json()]
            if unknown := {rule.service for rule in rules} - {*self.hub.services, SFTP}:
                raise ValueError(f"unknown services: {sorted(unknown)}")
            self.hub.faults = rules
        return as_json([vars(rule) for rule in self.hub.faults])

    async def end_credentials(self, call: Call) -> Answer:
        """Ends credentials: `{"service": …, "what": …}`."""
        form = call.json()
        self.hub.services[form["service"]].revoke(form["what"])
        return as_json({})

    async def forget(self, call: Call) -> Answer:
        """Forgets everything."""
        del call
        self.hub.reset()
        return as_json({})
