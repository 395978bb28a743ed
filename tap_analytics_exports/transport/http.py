"""HTTP as the providers need it: credentials, rates, repeats, redirects, and bodies known to be whole."""

from __future__ import annotations

import base64
import math
import random
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
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

from tap_analytics_exports.errors import (
    Ambiguous,
    Busy,
    CredentialsRefused,
    ExportFailed,
    TapError,
    Unreachable,
)
from tap_analytics_exports.redaction import clean, clean_logger, hide, safe_url, shown
from tap_analytics_exports.transport.download import Body

CONNECT_SECONDS = 10
SILENCE_SECONDS = 60
"""A connection on which nothing arrives for so long is broken."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PASSING = frozenset({429, 500, 502, 503, 504})
"""Answers that may be others when asked again, unless a provider says that it means something else by one."""

_CHUNK = 1 << 20
_TOLD = 1 << 14
"""Bytes of an answer that are read for a message; more than are shown, as half a secret is not known."""

_MAYBE = "whether a job was triggered is not known"
_PATIENCE = 30.0
"""The longest wait in seconds between two tries; who is asked to wait longer comes back later."""

_FOR_ANYBODY = frozenset({"accept", "range", "if-range", "if-match"})
"""Headers of a caller that may go to another origin; in others there may be credentials."""

logger = clean_logger("tap-analytics-exports.http")


class Auth(Protocol):
    """How a provider's requests show who sends them. Called from several threads."""

    def headers(self) -> Mapping[str, str]:
        """The headers that carry the credentials, fetched from the provider if need be."""

    def renew(self, refused: requests.Response) -> bool:
        """Get new credentials after a 401; False where there is nothing to renew."""


class FixedAuth:
    """Credentials that stay as they are, in the header `Authorization`."""

    def __init__(self, header: str) -> None:
        self._headers = {"Authorization": header}

    @classmethod
    def basic(cls, username: str, password: str) -> FixedAuth:
        """HTTP Basic, in UTF-8."""
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        hide(pair)
        return cls(f"Basic {pair}")

    def headers(self) -> Mapping[str, str]:
        """The one header."""
        return self._headers

    def renew(self, refused: requests.Response) -> bool:
        """There is nothing to renew."""
        return False


class LoginAuth:
    """A token that a login gives, in the header `Authorization`; all threads share it until a 401 ends it.

    Args:
        scheme: What stands before the token.
        login: Gets a token from the provider. When it is refused, it is not called again.
    """

    def __init__(self, scheme: str, login: Callable[[], str]) -> None:
        self._scheme = scheme
        self._login = login
        self._lock = threading.Lock()
        self._header: str | None = None
        self._refused: CredentialsRefused | None = None

    def headers(self) -> Mapping[str, str]:
        """The header, after a login if there is no token."""
        with self._lock:
            if self._refused is not None:
                raise self._refused
            if self._header is None:
                try:
                    token = self._login()
                except CredentialsRefused as error:
                    self._refused = error
                    raise
                hide(token)
                self._header = f"{self._scheme} {token}"
            return {"Authorization": self._header}

    def renew(self, refused: requests.Response) -> bool:
        """Forget the token that was refused, unless another thread has got a new one already."""
        with self._lock:
            if refused.request.headers.get("Authorization") == self._header:
                self._header = None
        return True


class RateLimiter:
    """At most `per_minute` requests in every span of 60 seconds, over all threads.

    A request counts from its leaving until 60 seconds after its answer began, for that is the latest moment
    at which it can have arrived: so the rate holds where the provider counts, however long the way there is.
    """

    _SPAN = 60.1

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._changed = threading.Condition()
        self._under_way = 0
        self._answered: deque[float] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until a request may leave; its answer has begun, or failed, when the block ends."""
        if self._per_minute is None:
            yield
            return
        with self._changed:
            while self._under_way + self._recent() >= self._per_minute:
                oldest = self._answered[0] if self._answered else None
                self._changed.wait(None if oldest is None else oldest + self._SPAN - time.monotonic())
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._answered.append(time.monotonic())
                self._changed.notify_all()

    def _recent(self) -> int:
        while self._answered and self._answered[0] <= time.monotonic() - self._SPAN:
            self._answered.popleft()
        return len(self._answered)


class Http:
    """Requests to one provider.

    Credentials go to the origin of `base_url` alone. Redirects are followed by hand, and other hosts, such
    as those of signed URLs, are asked without credentials.

    Args:
        provider: Its name, for messages.
        base_url: What relative URLs are relative to.
        auth: The credentials; None while they are being fetched.
        rate_limiter: The provider's.
        passing: The status codes after which a request that changes nothing is tried again.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        auth: Auth | None = None,
        rate_limiter: RateLimiter | None = None,
        passing: frozenset[int] = PASSING,
    ) -> None:
        self.provider = provider
        self.base_url = base_url.rstrip("/") + "/"
        self._auth = auth
        self._rate_limiter = rate_limiter or RateLimiter(None)
        self._passing = passing
        self._session = requests.Session()
        # A no-op, as requests else takes credentials from ~/.netrc; the environment's proxies stay.
        self._session.auth = lambda request: request
        # Cookies are credentials too: none is kept, each is sent by whoever needs it.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "tap-analytics-exports"

    def url(self, path: str) -> str:
        """An absolute URL: `path` may be one already, be rooted in the host, or be relative to the base."""
        return _join(self.base_url, path)

    def own(self, url: str) -> bool:
        """Whether a URL is of the provider's own origin, to which the credentials go."""
        return _origin(url) == _origin(self.base_url)

    def ask(self, method: str, path: str, **how: Any) -> requests.Response:
        """Send a request that changes nothing at the provider, so it is tried again while failures pass.

        Returns:
            The answer, of any status that does not pass by itself.

        Raises:
            CredentialsRefused: 401, also with new credentials.
            Unreachable: No usable answer after some tries.
        """

        def send() -> requests.Response:
            response = self._send(method, self.url(path), **how)
            if response.status_code in self._passing:
                raise Unreachable(self.message(response), retry_after(response))
            return response

        return self._again(send)

    def trigger(self, method: str, path: str, **how: Any) -> requests.Response:
        """Send a request that costs something, so it is repeated only when no byte of it was sent.

        Raises:
            Ambiguous: The provider may or may not have acted on it.
            Busy: The provider said that it did not act on it, 429 or 503.
            CredentialsRefused: 401, also with new credentials.
            Unreachable: No connection after some tries.
        """
        try:
            response = self._once(method, path, **how)
        except _NotSent:
            raise
        except Unreachable as error:
            raise Ambiguous(f"{error}; {_MAYBE}") from None
        if response.status_code >= 500:
            raise Ambiguous(f"{self.message(response)}; {_MAYBE}")
        return response

    def probe(self, path: str, **how: Any) -> None:
        """Ask for something cheap, to see whether the credentials are accepted.

        Raises:
            CredentialsRefused: They are not, or they do not allow to ask.
            Unreachable: No usable answer after some tries.
        """
        response = self.ask("GET", path, **how)
        if response.status_code == 403:
            raise CredentialsRefused(f"{self.message(response)}; check what the credentials allow")
        if response.status_code >= 400:
            logger.warning(
                "%s; the credentials were not refused, but check base_url and the ids in the settings",
                self.message(response),
            )

    @contextmanager
    def body(
        self,
        method: str,
        path: str,
        *,
        answer_seconds: float = SILENCE_SECONDS,
        check: Callable[[requests.Response], None],
        **how: Any,
    ) -> Iterator[Body]:
        """Send a request and hand out its answer's body as it arrives.

        Args:
            method: Its method; what is not GET costs something, and is repeated only when no byte was sent.
            path: Its URL, see `url`.
            answer_seconds: How long the provider may take to begin its answer.
            check: Raises what an answer that is no file means.
            how: What else `requests` takes.

        Raises:
            Busy: Not for GET: the provider said that it did not act on it, 429 or 503.
            CredentialsRefused: 401, also with new credentials.
            ExportFailed: Not for GET: the answer did not begin in time.
            Unreachable: No usable answer after some tries.
        """
        send = self.ask if method == "GET" else self._once
        try:
            response = send(method, path, stream=True, timeout=(CONNECT_SECONDS, answer_seconds), **how)
        except _TooSlow as error:
            if method == "GET":
                raise
            raise ExportFailed(f"{error}, which was {answer_seconds:.0f} seconds") from None
        with response:
            check(response)
            if response.headers.get("Content-Type", "").lower().startswith("text/html"):
                raise Unreachable(f"{self.message(response)} with a web page in place of the file")
            yield self.received(response)

    def received(self, response: requests.Response) -> Body:
        """The body, as it arrives, of an answer that was asked for with `stream=True`."""
        _set_timeout(response.raw, SILENCE_SECONDS)
        return Body(self._stream(response), _proof(response))

    def message(self, response: requests.Response) -> str:
        """What an answer says, for a message: status, address and the beginning of its body.

        The bodies of other hosts are left out, for those of signed URLs show parts of the signature.
        """
        body = b""
        if response.status_code >= 300 and self.own(response.url):
            with suppress(requests.RequestException):
                body = next(response.iter_content(_TOLD), b"")
        text = shown(" ".join(body.decode(errors="replace").split()), 300)
        address = f"{response.request.method} {safe_url(response.url)}"
        return clean(f"{self.provider}: {address} answered {response.status_code} {text}").rstrip()

    def json(self, response: requests.Response, error: type[TapError] = ExportFailed) -> Any:
        """The JSON of an answer.

        Args:
            response: The answer.
            error: What to raise when it is not JSON, which is what hosts answer that stand before a provider;
                `Unreachable` where asking again costs nothing.
        """
        try:
            return msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            address = f"{response.request.method} {safe_url(response.url)}"
            raise error(f"{self.provider}: {address} answered {response.status_code}, but no JSON") from None

    def _once(self, method: str, path: str, **how: Any) -> requests.Response:
        """Repeat a request only when no byte of it was sent; 429 and 503 mean that it was not taken on."""
        response = self._again(partial(self._send, method, self.url(path), **how), _NotSent)
        if response.status_code in (429, 503):
            raise Busy(self.message(response), retry_after(response))
        return response

    def _again(
        self, send: Callable[[], requests.Response], failures: type[Unreachable] = Unreachable
    ) -> requests.Response:
        def hopeless(error: Exception) -> bool:
            wait = error.after if isinstance(error, Unreachable) else None
            return wait is not None and wait > _PATIENCE

        again = backoff.on_exception(
            _distances, failures, max_tries=5, giveup=hopeless, jitter=None, logger=None
        )
        answer: requests.Response = again(send)()
        return answer

    def _send(self, method: str, url: str, **how: Any) -> requests.Response:
        how.setdefault("timeout", (CONNECT_SECONDS, SILENCE_SECONDS))
        response = self._hop(method, url, **how)
        if response.status_code == 401 and self._auth and self.own(url):
            if not self._auth.renew(response):
                raise CredentialsRefused(f"{self.message(response)}; check the credentials")
            response = self._hop(method, url, **how)
            if response.status_code == 401:
                raise CredentialsRefused(f"{self.message(response)}; check the credentials")
        for _ in range(5):
            if method != "GET" or response.status_code not in REDIRECTS or "Location" not in response.headers:
                break
            url = _join(url, response.headers["Location"])
            response.close()
            how.pop("params", None)
            response = self._hop(method, url, **how)
        return response

    def _hop(
        self,
        method: str,
        url: str,
        *,
        timeout: tuple[float, float],
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
        **how: Any,
    ) -> requests.Response:
        own = self.own(url)
        sent = {"Accept-Encoding": "gzip"}
        sent |= {name: text for name, text in (headers or {}).items() if own or name.lower() in _FOR_ANYBODY}
        if self._auth and own:
            try:
                sent |= self._auth.headers()
            except Unreachable as error:  # so the request itself was not sent
                raise _NotSent(str(error), error.after) from None
        try:
            request = self._session.prepare_request(requests.Request(method, url, headers=sent, **how))
            if "params" not in how:
                request.url = url  # byte for byte as the provider gave it, where requests would quote anew
            settings = self._session.merge_environment_settings(url, {}, stream, None, None)
            with self._rate_limiter.turn() if own else nullcontext():
                return self._session.send(request, timeout=timeout, allow_redirects=False, **settings)
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError):
            raise CredentialsRefused(
                f"{self.provider}: the credentials hold a sign, as of a line break, that no header can carry"
            ) from None
        except (requests.RequestException, ValueError) as error:  # the latter where a Location is no URL
            reason = error.args[0] if error.args else None
            kind, words = _kind(getattr(reason, "reason", None) or reason, error)
            raise kind(f"{self.provider}: {method} {safe_url(url)}: {words}") from None

    def _stream(self, response: requests.Response) -> Iterator[bytes]:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        raw: urllib3.HTTPResponse = response.raw
        try:
            arriving = raw.stream(_CHUNK, decode_content=False)
            if encoding in ("gzip", "x-gzip"):
                yield from _gunzip(arriving)
            elif encoding == "identity":
                yield from arriving
            else:
                raise ExportFailed(f"{self.provider}: the file has the unknown Content-Encoding {encoding}")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            words = type(error).__name__
            raise Unreachable(
                f"{self.provider}: the download broke off ({words}): {safe_url(response.url)}"
            ) from None


class _NotSent(Unreachable):
    """A failure after which even a request that costs something may be sent again."""


class _TooSlow(Unreachable):
    """A request was sent, and its answer did not begin in time."""


def _kind(reason: object, error: Exception) -> tuple[type[Unreachable], str]:
    """What a failure means, and its words; `reason` is urllib3's, where it has one for the error."""
    match reason:
        case urllib3.exceptions.NameResolutionError():
            return _NotSent, "the host's name is not known"
        case urllib3.exceptions.ConnectTimeoutError():
            return _NotSent, "no connection in time"
        case urllib3.exceptions.NewConnectionError():
            return _NotSent, "no connection"
        case urllib3.exceptions.SSLError(args=(ssl.SSLCertVerificationError(verify_message=why), *_)):
            return _NotSent, f"the host's certificate is not trusted ({why})"
        case urllib3.exceptions.ReadTimeoutError():
            return _TooSlow, "no answer in time"
    return Unreachable, type(reason if isinstance(reason, Exception) else error).__name__


def retry_after(response: requests.Response) -> float | None:
    """The seconds that `Retry-After` asks for, given as a number or as a date; None without it."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _distances() -> Generator[float, Any, None]:
    """Growing and jittered waits in seconds, never shorter than an error asks for."""
    error = yield 0.0
    for step in (0.5, 1.0, 2.0, 4.0, *[8.0] * 99):
        error = yield max(step * random.uniform(0.5, 1.0), getattr(error, "after", None) or 0.0)


def _join(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:  # no URL at all, and refused as such when it is asked for
        return url


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


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
                yield decoder.decompress(left, _CHUNK)  # bounded, as a little gzip may hold very much
            except zlib.error:
                raise urllib3.exceptions.DecodeError from None
            left = decoder.unconsumed_tail or decoder.unused_data
    if not decoder.eof:
        raise urllib3.exceptions.DecodeError


def _set_timeout(raw: Any, seconds: float) -> None:
    """Change how long an answer's connection may be silent.

    The timeout of requests can't do it: it is one for the answer's beginning, which a provider that computes
    while one waits may delay for hours, and for its body. There is no public way to the socket.
    """
    with suppress(AttributeError):  # the body is empty, and the connection done with
        raw._fp.fp.raw._sock.settimeout(seconds)  # noqa: SLF001


def no_object(body: Body) -> Body:
    """A body that must not be a JSON object, by which some providers say with status 200 what went wrong."""

    def chunks() -> Iterator[bytes]:
        begun = False
        for chunk in body.chunks:
            begun, first = begun or bool(chunk.strip()), not begun
            if first and chunk.lstrip().startswith(b"{"):
                text = shown(chunk[:_TOLD].decode(errors="replace"), 300)
                raise ExportFailed(f"in place of the file, the provider answered {text}")
            yield chunk

    return Body(chunks(), body.proof)


def millis(moment: datetime) -> int:
    """Milliseconds since 1970, which some providers count in."""
    return math.floor(moment.timestamp() * 1000)
