"""The lines with which exports fail, by a vendor that answers with what a test says, over real sockets."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from peers import Peer, Seen, response, serving

from tap_analytics_exports import Extraction
from tap_analytics_exports.errors import ExportsFailed
from tap_analytics_exports.providers import gooee
from tap_analytics_exports.transport import download, http

Answers = Mapping[str, bytes | Sequence[bytes]]
"""Answers by the method and the beginning of the path that they are for; of several, the last stays."""

Row = tuple[Answers, str] | tuple[Answers, str, dict[str, Any]]
"""What the vendor answers, the line without its beginning, settings: of the export, of `block`, of `top`."""

DAY = "window 2026-01-01T00:00:00+00:00/2026-01-02T00:00:00+00:00"
SOON = {"export_timeout": "PT0.05S"}


def says(status: int, body: object = "", *headers: str) -> bytes:
    """An answer; what is no text is JSON."""
    if isinstance(body, str):
        return response(status, body.encode(), *headers)
    return response(status, json.dumps(body).encode(), "Content-Type: application/json", *headers)


class Vendor:
    """A provider's settings, and a server that answers well unless a test says otherwise.

    Args:
        provider: Its name.
        block: Its block, without base_url.
        export: An export, without a name.
        well: What it answers where all is well.
        window: What the lines call the window.
        auth: The path of a login that has a setting of its own.
    """

    def __init__(
        self,
        provider: str,
        block: Mapping[str, Any],
        export: Mapping[str, Any],
        well: Answers,
        *,
        window: str = DAY,
        auth: str | None = None,
    ) -> None:
        self.peer: Peer
        self.begin = f"{provider}, stream calls, {window}: "
        self._provider, self._block, self._export, self._well = provider, block, export, well
        self._auth = auth
        self._answers: list[tuple[str, list[bytes]]] = []

    @contextmanager
    def serving(self) -> Iterator["Vendor"]:
        """The server runs, and nothing waits before it asks again."""
        with serving() as serve, pytest.MonkeyPatch.context() as patch:
            patch.setattr(http, "_FIRST_STEP", 0.0)
            patch.setattr(download._Arrival, "wait", lambda *_: None)
            patch.setattr(gooee, "_SEARCHES", (0.0,))
            self.peer = serve(self._answer)
            yield self

    def line(
        self,
        answers: Answers,
        *,
        block: Mapping[str, Any] | None = None,
        top: Mapping[str, Any] | None = None,
        **export: Any,
    ) -> str:
        """Run one export, and say the line with which it fails; `X` stands for the server's origin."""
        self._answers = [
            (begin, [given] if isinstance(given, bytes) else list(given))
            for each in (answers, self._well)
            for begin, given in each.items()
        ]
        urls = {"base_url": self.peer.origin}
        if self._auth is not None:
            urls["auth_url"] = self.peer.origin + self._auth
        exports = [{"name": "calls", **self._export, **export}]
        settings = {
            "start_date": "2026-01-01",
            "end_date": "2026-01-02",
            "ledger": "",
            "poll_interval": "PT0.001S",
            "poll_interval_max": "PT0.001S",
            self._provider: {**self._block, **urls, **(block or {}), "exports": exports},
            **(top or {}),
        }
        with Extraction(settings) as extraction, pytest.raises(ExportsFailed) as failed:
            list(extraction)
        (line,) = failed.value.reasons
        return line.replace(self.peer.origin, "X")

    def _answer(self, seen: Seen) -> list[bytes]:
        for begin, left in self._answers:
            if f"{seen.method} {seen.target}".startswith(begin):
                return [left.pop(0) if len(left) > 1 else left[0]]
        return [says(404, f"no test says what {seen.method} {seen.target} is answered with")]
