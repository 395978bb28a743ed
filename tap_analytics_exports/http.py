"""HTTP as the providers need it: credentials, repeats, pace, redirects, and bodies known to be whole."""

from __future__ import annotations

import math
import os
import random
import socket
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import backoff
import msgspec
import requests
import urllib3

from tap_analytics_exports.download import Body
from tap_analytics_exports.errors import Ambiguous, Busy, CredentialsRefused, ExportFailed, Unreachable
from tap_analytics_exports.redaction import clean, safe_url

CONNECT_SECONDS = 10
SILENCE_SECONDS = 60
"""A connection on which nothing arrives for so long is broken."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PASSING = frozenset({429, 500, 502, 503, 504})
"""Answers that may be others when asked again, unless a provider says that it means something else by one."""

_CHUNK = 1 << 18
_MAYBE = "whether a job was triggered is not known"
_PATIENCE = 30.0
"""The longest wait in seconds between two tries; who is asked to wait longer comes back later."""


class Auth(Protocol):
    """How a provider's requests show who sends them. Called from several threads."""

    def headers(self) -> Mapping[str, str]:
        """The headers that carry the credentials, fetched from the provider if need be."""

    def renew(self, refused: requests.Response) -> bool:
        """Get new credentials after a 401; False where there is nothing to renew."""


class Pace:
    """At most `per_minute` calls in every span of 60 seconds, over all threads."""

    _SPAN = 60.25  # a little more, as what leaves here 60 seconds apart may arrive less far apart

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._sent: deque[float] = deque(maxlen=per_minute)

    def wait(self) -> None:
        """Return when the next request may leave."""
        if self._per_minute is None:
            return
        with self._lock:
            turn = time.monotonic()
            if len(self._sent) == self._per_minute:
                turn = max(turn, self._sent[0] + self._SPAN)
            self._sent.append(turn)
        time.sleep(max(0.0, turn - time.monotonic()))


class Http:
    """Requests to one provider.

    Credentials go to the origin of `base_url` alone. Redirects are followed by hand, and other hosts, such
    as those of signed URLs, are asked without credentials.

    Args:
        provider: Its name, for messages.
        base_url: What relative URLs are relative to.
        auth: The credentials; None while they are being fetched.
        pace: The provider's.
        passing: The status codes after which a request that changes nothing is tried again.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        auth: Auth | None = None,
        pace: Pace | None = None,
        passing: frozenset[int] = PASSING,
    ) -> None:
        self.provider = provider
        self.base_url = base_url.rstrip("/") + "/"
        self._auth = auth
        self._pace = pace or Pace(None)
        self._passing = passing
        self._session = requests.Session()
        # A no-op, as requests else takes credentials from ~/.netrc; the environment's proxies stay.
        self._session.auth = lambda request: request
        # Cookies are credentials too: none is kept, each is sent by whoever needs it.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "tap-analytics-exports"

    def url(self, path: str) -> str:
        """An absolute URL: `path` may be one already, be rooted in the host, or be relative to the base."""
        return urljoin(self.base_url, path)

    def ask(self, method: str, path: str, **how: Any) -> requests.Response:  # noqa: ANN401 - requests' own words
        """Send a request that changes nothing at the provider, so it is tried again while failures pass.

        Returns:
            The answer, of any status that does not pass by itself.

        Raises:
            CredentialsRefused: 401, also with new credentials.
            Unreachable: No usable answer after some tries.
        """
        return self._again(partial(self._send, method, self.url(path), **how))

    def trigger(self, method: str, path: str, **how: Any) -> requests.Response:  # noqa: ANN401
        """Send a request that costs something, so it is repeated only when no byte of it was sent.

        Raises:
            Ambiguous: The provider may or may not have acted on it.
            Busy: The provider said that it did not act on it, 429 or 503.
            CredentialsRefused: 401, also with new credentials.
            Unreachable: No connection after some tries.
        """

        def once() -> requests.Response:
            try:
                response = self._send(method, self.url(path), **how)
            except Unreachable as error:
                if isinstance(error, _NotSent):
                    raise
                raise Ambiguous(f"{error}; {_MAYBE}") from None
            if response.status_code in (429, 503):
                raise Busy(self.words(response), retry_after(response))
            if response.status_code >= 500:
                raise Ambiguous(f"{self.words(response)}; {_MAYBE}")
            return response

        return self._again(once, passing=frozenset())

    @contextmanager
    def body(
        self,
        method: str,
        path: str,
        *,
        answer_seconds: float = SILENCE_SECONDS,
        check: Callable[[requests.Response], None],
        **how: Any,  # noqa: ANN401
    ) -> Iterator[Body]:
        """Send a request and hand out its answer's body as it arrives.

        Args:
            method: Its method; what is not GET is sent once.
            path: Its URL, see `url`.
            answer_seconds: How long the provider may take to begin its answer.
            check: Raises what an answer that is no file means.
            how: What else `requests` takes.
        """
        ask = self.ask if method == "GET" else self.trigger
        response = ask(method, path, stream=True, timeout=(CONNECT_SECONDS, answer_seconds), **how)
        with response:
            check(response)
            yield Body(self._stream(response), _proof(response))

    def words(self, response: requests.Response) -> str:
        """What an answer says, for a message: status, address and the beginning of its body."""
        try:
            text = " ".join(response.text[:2000].split())[:300] if response.status_code >= 300 else ""
        except requests.RequestException:
            text = ""
        address = f"{response.request.method} {safe_url(response.url)}"
        return clean(f"{self.provider}: {address} answered {response.status_code} {text}").rstrip()

    def json(self, response: requests.Response) -> Any:  # noqa: ANN401
        """The JSON of an answer.

        Raises:
            ExportFailed: It is not JSON, which some providers answer when something is wrong before them.
        """
        try:
            return msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            address = f"{response.request.method} {safe_url(response.url)}"
            raise ExportFailed(
                f"{self.provider}: {address} answered {response.status_code}, but no JSON"
            ) from None

    def _again(
        self, send: Callable[[], requests.Response], *, passing: frozenset[int] | None = None
    ) -> requests.Response:
        passing = self._passing if passing is None else passing

        def once() -> requests.Response:
            response = send()
            if response.status_code in passing:
                raise _NotSent(self.words(response), retry_after(response))
            return response

        def hopeless(error: Exception) -> bool:
            wait = error.after if isinstance(error, Unreachable) else None
            return wait is not None and wait > _PATIENCE

        again = backoff.on_exception(
            _distances, Unreachable, max_tries=5, giveup=hopeless, jitter=None, logger=None
        )
        answer: requests.Response = again(once)()
        return answer

    def _send(self, method: str, url: str, **how: Any) -> requests.Response:  # noqa: ANN401
        how.setdefault("timeout", (CONNECT_SECONDS, SILENCE_SECONDS))
        response = self._hop(method, url, **how)
        if response.status_code == 401 and self._auth and self._own(url):
            if not self._auth.renew(response):
                raise CredentialsRefused(f"{self.words(response)}; check the credentials")
            response = self._hop(method, url, **how)
            if response.status_code == 401:
                raise CredentialsRefused(f"{self.words(response)}; check the credentials")
        for _ in range(5):
            if method != "GET" or response.status_code not in REDIRECTS:
                break
            url = urljoin(url, response.headers.get("Location", ""))
            response.close()
            how.pop("params", None)
            response = self._hop(method, url, **how)
        return response

    def _own(self, url: str) -> bool:
        return _origin(url) == _origin(self.base_url)

    def _hop(
        self,
        method: str,
        url: str,
        *,
        timeout: tuple[float, float],
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
        **how: Any,  # noqa: ANN401
    ) -> requests.Response:
        own = self._own(url)
        sent = {
            "Accept-Encoding": "gzip",
            **(headers or {}),
            **(self._auth.headers() if self._auth and own else {}),
        }
        request = self._session.prepare_request(requests.Request(method, url, headers=sent, **how))
        if "params" not in how:
            request.url = url  # byte for byte as the provider gave it, where requests would quote anew
        settings = self._session.merge_environment_settings(url, {}, stream, None, None)
        if own:
            self._pace.wait()
        try:
            return self._session.send(request, timeout=timeout, allow_redirects=False, **settings)
        except requests.RequestException as error:
            raise self._unreachable(error, method, url) from None

    def _unreachable(self, error: requests.RequestException, method: str, url: str) -> Unreachable:
        reason = error.args[0] if error.args else error
        reason = getattr(reason, "reason", None) or reason
        kind = _NotSent if isinstance(reason, _UNSENT) else Unreachable
        words = {
            "ReadTimeoutError": "no answer in time",
            "ConnectTimeoutError": "no connection in time",
            "NameResolutionError": "the host's name is not known",
        }.get(type(reason).__name__, type(reason).__name__)
        return kind(f"{self.provider}: {method} {safe_url(url)}: {words}")

    def _stream(self, response: requests.Response) -> Iterator[bytes]:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        raw: urllib3.HTTPResponse = response.raw
        try:
            with _silence(raw) as heard:
                arriving = _listen(raw.stream(_CHUNK, decode_content=False), heard)
                if encoding in ("gzip", "x-gzip"):
                    yield from _gunzip(arriving)
                elif encoding == "identity":
                    yield from arriving
                else:
                    raise ExportFailed(
                        f"{self.provider}: the file has the unknown Content-Encoding {encoding}"
                    )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            words = type(error).__name__
            raise Unreachable(
                f"{self.provider}: the download broke off ({words}): {safe_url(response.url)}"
            ) from None


class _NotSent(Unreachable):
    """A failure after which even a request that costs something may be sent again."""


_UNSENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.NameResolutionError,
)


def retry_after(response: requests.Response) -> float | None:
    """The seconds that `Retry-After` asks for, given as a number or as a date; None without it."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _distances() -> Generator[float, Any, None]:
    """Growing and jittered waits in seconds, never shorter than an error asks for."""
    error = yield 0.0
    for step in (0.5, 1.0, 2.0, 4.0, *[8.0] * 99):
        error = yield max(step * random.uniform(0.5, 1.0), getattr(error, "after", None) or 0.0)  # noqa: S311


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _proof(response: requests.Response) -> str | None:
    """What will have shown the body's end when its stream ends without an error."""
    if response.raw.chunked:
        return "chunk end"
    if "Content-Length" in response.headers:
        return "length"
    return (
        "gzip trailer" if response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip") else None
    )


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decode a gzip transfer, of one or several members, to its very end."""
    decoder = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        left = chunk
        while left:
            if decoder.eof:
                decoder = zlib.decompressobj(wbits=31)
            try:
                yield decoder.decompress(left)
            except zlib.error:
                raise urllib3.exceptions.DecodeError from None
            left = decoder.unused_data
    if not decoder.eof:
        raise urllib3.exceptions.DecodeError


def _listen(chunks: Iterator[bytes], heard: Callable[[], None]) -> Iterator[bytes]:
    for chunk in chunks:
        heard()
        yield chunk


@contextmanager
def _silence(raw: urllib3.HTTPResponse) -> Iterator[Callable[[], None]]:
    """Shut a connection down on which nothing arrives for `SILENCE_SECONDS`.

    The timeout of requests can't do it: it is one for the answer's beginning, which a provider that computes
    while one waits may delay for hours, and for its body.
    """
    last = time.monotonic()
    done = threading.Event()

    def heard() -> None:
        nonlocal last
        last = time.monotonic()

    def watch(connection: socket.socket) -> None:
        with connection:
            while not done.wait(1.0):
                if time.monotonic() - last > SILENCE_SECONDS:
                    connection.shutdown(socket.SHUT_RDWR)
                    return

    with suppress(OSError):  # no file number: the body is empty and the connection done with
        connection = socket.socket(fileno=os.dup(raw.fileno()))
        threading.Thread(target=watch, args=[connection], name="silence", daemon=True).start()
    try:
        yield heard
    finally:
        done.set()


def millis(moment: datetime) -> int:
    """Milliseconds since 1970, which some providers count in."""
    return math.floor(moment.timestamp() * 1000)
