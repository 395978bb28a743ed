"""HTTP answers that end where the standard says, and that never take longer than they may.

The standard library reads on where a length is malformed, and it and urllib3 both take chunk sizes that are
none; either makes a part of a file look like the whole of it. So an answer is held to RFC 9112 here, below
everything that reads it.
"""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, BinaryIO

from tap_analytics_exports.errors import Interrupted

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SLICE = 1.0
"""Seconds after which who waits for bytes looks whether the run was asked to stop."""

_LINE = 4096
"""The longest line between two chunks."""

_TRAILERS = 100
"""The most lines behind the last chunk."""

_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class Malformed(HTTPException):
    """An answer that is none by RFC 9112; its text says why."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one request.

    Attributes:
        admit: Raises ExportFailed where a host, at an IP address, is none that may be asked.
        begin: When the answer's headers have to be here, in seconds of `time.monotonic`.
        end: When its body has to be.
        silence: How many seconds the body may pause.
        stop: Set when the run is asked to stop; then waiting ends with Interrupted.
    """

    admit: Callable[[str, str], None]
    begin: float
    end: float
    silence: float
    stop: threading.Event | None


TERMS: ContextVar[Terms] = ContextVar("terms")
"""Those of the request that this thread sends, for requests has no way to hand them on to a connection."""


class Answer(HTTPResponse):
    """An answer whose body ends with an error unless it is whole by its framing.

    Attributes:
        proof: What will have shown the body's end: "length" or "chunk end"; None: nothing will.
    """

    proof: str | None = None

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._has_body = method != "HEAD"
        self.fp.close()
        self._arriving = _Arriving(sock, TERMS.get())
        self.fp = io.BufferedReader(self._arriving, 1 << 16)

    def begin(self) -> None:
        """Read the headers, and see how the body will end."""
        super().begin()
        self._arriving.begun()
        lengths = _words(self.headers.get_all("Content-Length"))
        codings = [word.lower() for word in _words(self.headers.get_all("Transfer-Encoding"))]
        # The body is read without any more framing, so nobody above is to look for it.
        del self.headers["Transfer-Encoding"]
        self.chunked = False
        if self.status in (204, 304) or not self._has_body:
            return
        if codings not in ([], ["identity"]):
            if codings != ["chunked"]:
                raise Malformed(f"Transfer-Encoding is {', '.join(codings)}")
            if lengths:
                raise Malformed("it has both Content-Length and Transfer-Encoding")
            self.fp = io.BufferedReader(_Chunks(self.fp), 1 << 16)
            self.length, self.proof = None, "chunk end"
        elif lengths:
            if len(set(lengths)) != 1 or not _LENGTH.fullmatch(lengths[0]):
                raise Malformed(f"Content-Length is {', '.join(lengths)}"[:100])
            del self.headers["Content-Length"]
            self.headers["Content-Length"] = lengths[0]
            self.length, self.proof = int(lengths[0]), "length"


class _Arriving(io.RawIOBase):
    """What arrives on a socket, as long as its terms allow."""

    def __init__(self, sock: socket.socket, terms: Terms) -> None:
        self._sock = sock
        # Keeps the socket open as long as this is, whatever becomes of the connection.
        self._file = sock.makefile("rb", buffering=0)
        self._terms = terms
        self._silence, self._end = float("inf"), terms.begin

    def begun(self) -> None:
        """The headers are here."""
        self._silence, self._end = self._terms.silence, self._terms.end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what is there, or wait for it.

        Raises:
            Interrupted: The run was asked to stop.
            TimeoutError: Nothing came for too long, or the time is over.
        """
        last = min(time.monotonic() + self._silence, self._end)
        usual = self._sock.gettimeout()
        try:
            while True:
                if self._terms.stop is not None and self._terms.stop.is_set():
                    raise Interrupted
                left = last - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._sock.settimeout(min(left, _SLICE))
                with suppress(TimeoutError):
                    return self._sock.recv_into(buffer)
        finally:
            self._sock.settimeout(usual)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Chunks(io.RawIOBase):
    """The content of a chunked body (RFC 9112, 7.1)."""

    def __init__(self, framed: BinaryIO) -> None:
        self._framed = framed
        self._left: int | None = None  # of the chunk; None before the first, and 0 behind the last
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what is there of a chunk.

        Raises:
            IncompleteRead: The connection ended before the body.
            Malformed: The framing is none.
        """
        if not self._left and not self._ended:
            self._next()
        if self._ended or not self._left:
            return 0
        room = memoryview(buffer)[: self._left]
        count = self._framed.readinto1(room)  # type: ignore[attr-defined]
        if not count:
            raise IncompleteRead(b"")
        self._left -= count
        return int(count)

    def _next(self) -> None:
        if self._left is not None and self._line() != b"\r\n":
            raise Malformed("a chunk is not as long as it says")
        line = self._line()
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise Malformed(f"a chunk's size is {line[:40]!r}")
        self._left = int(size[1], 16)
        if self._left == 0:
            for _ in range(_TRAILERS):
                if self._line() == b"\r\n":
                    self._ended = True
                    return
            raise Malformed("there is no end to the lines behind its last chunk")

    def _line(self) -> bytes:
        line = self._framed.readline(_LINE)
        if not line.endswith(b"\n") and len(line) < _LINE:
            raise IncompleteRead(b"")
        if not line.endswith(b"\r\n"):
            raise Malformed(f"a line between chunks is {line[:40]!r}")
        return line

    def close(self) -> None:
        self._framed.close()
        super().close()


def _words(values: list[str] | None) -> list[str]:
    return [word.strip() for value in values or () for word in value.split(",")]
