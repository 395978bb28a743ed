"""HTTP as the providers need it: credentials, rates, repeats, redirects, and bodies known to be whole."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import backoff
import requests
import urllib3

from tap_analytics_exports.errors import (
    Ambiguous,
    Busy,
    ExportFailed,
    Refused,
    Unreachable,
)
from tap_analytics_exports.redaction import clean, safe_url
from tap_analytics_exports.transport.answers import content, rest, validator, where, whole
from tap_analytics_exports.transport.auth import Auth
from tap_analytics_exports.transport.download import Body, Wanted
from tap_analytics_exports.transport.failures import (
    Hopeless,
    MalformedAnswer,
    Passing,
    TooLarge,
    TooSlow,
    failure,
    proxy_refusal,
    retry_after,
)
from tap_analytics_exports.transport.framing import TERMS, Terms
from tap_analytics_exports.transport.network import Guard, Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter

CONNECT_SECONDS = 10
SILENCE_SECONDS = 60
"""A connection on which nothing arrives for so long is broken."""

ANSWER_SECONDS = 300
"""The longest that an answer of an API may take to arrive; files take until the deadline of their job."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PASSING = frozenset({429, 500, 502, 503, 504})
"""Answers that may be others when asked again, unless a provider says that it means something else by one."""

_REFUSING = frozenset({429, 503})
_MAYBE = "whether a job was triggered is not known"
_TRIES = 5
_FIRST_STEP = 0.5
_PATIENCE = 30.0
"""The longest wait in seconds between two tries; who is asked to wait longer comes back later."""

_PAUSE = 5.0
"""Seconds after which a host that has no room for a transfer is asked again, where it does not say."""

_FOR_ANYBODY = frozenset({"accept", "range", "if-range", "if-match"})
"""Headers of a caller that may go to another origin; in others there may be credentials."""

_WHOLE = Wanted()


class Http:
    """Requests to one provider.

    Credentials go to the origin of `base_url` alone. Redirects are followed by hand, and other hosts, such
    as those of signed URLs, are asked without credentials, and only where `Guard` lets them be asked.

    Args:
        provider: Its name, for messages.
        base_url: What relative URLs are relative to.
        setting: The name of the setting that has it, for messages.
        auth: The credentials; None while they are being fetched.
        credentials: The settings that hold them, and where they come from, for messages.
        rate_limiter: The provider's.
        passing: The status codes after which a request that changes nothing is tried again.
        network: What holds for all connections.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        setting: str = "base_url",
        auth: Auth | None = None,
        credentials: str = "",
        rate_limiter: RateLimiter | None = None,
        passing: frozenset[int] = PASSING,
        network: Network | None = None,
    ) -> None:
        self.provider = provider
        self.base_url = base_url.rstrip("/") + "/"
        self._setting = setting
        self._auth = auth
        self._refusal = f"check the credentials{credentials and f': {credentials}'}"
        self._rate_limiter = rate_limiter or RateLimiter(None)
        self._passing = passing
        self._network = network or Network()
        self._guard = Guard(base_url)
        self._session = self._network.session()
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
            The answer, of any status that does not pass by itself. Its body is read, unless that was asked
            for with `stream=True` and is a file's.

        Raises:
            Refused: 401, also with new credentials.
            ExportFailed: The answer is larger than it may be, or malformed; or it leads where nobody goes.
            Unreachable: No usable answer after some tries.
        """

        def send() -> requests.Response:
            response = self._send(method, self.url(path), **how)
            if response.status_code in self._passing:
                raise Passing(self._no_room(response), retry_after(response), response.status_code)
            return response

        try:
            return self._again(send, lambda _: True)
        except MalformedAnswer as error:
            raise ExportFailed(str(error)) from None

    def trigger(self, method: str, path: str, **how: Any) -> requests.Response:
        """Send a request that costs something, so it is repeated only when no byte of it was sent.

        Raises:
            Ambiguous: The provider may or may not have acted on it.
            Busy: The provider said that it did not act on it, 429 or 503.
            Refused: 401, also with new credentials.
            Unreachable: No connection after some tries.
        """
        try:
            response = self._once(method, path, **how)
        except (Unreachable, TooLarge) as error:
            if isinstance(error, Unreachable) and not error.sent:
                raise
            raise Ambiguous(f"{error}; {_MAYBE}") from None
        if response.status_code >= 500:
            raise Ambiguous(f"{self.message(response)}; {_MAYBE}")
        return response

    @contextmanager
    def body(
        self,
        method: str,
        path: str,
        *,
        wanted: Wanted = _WHOLE,
        answer_seconds: float = SILENCE_SECONDS,
        check: Callable[[requests.Response], None],
        **how: Any,
    ) -> Iterator[Body]:
        """Send a request and hand out its answer's body as it arrives.

        Args:
            method: Its method; what is not GET costs something, and is repeated only when no byte was sent.
            path: Its URL, see `url`.
            wanted: What is not here yet; if the provider can't send that alone, all is sent. For GET only.
            answer_seconds: How long the provider may take to begin its answer.
            check: Raises what an answer that is no file means.
            how: What else `requests` takes.

        Raises:
            Busy: Not for GET: the provider said that it did not act on it, 429 or 503.
            Refused: 401, also with new credentials.
            ExportFailed: Not for GET: the answer did not begin in time. It is nothing that can be read.
            Unreachable: No usable answer after some tries; with `after` where there is no room for it now.
        """
        send = self.ask if method == "GET" else self._once
        how |= {"stream": True, "answer_seconds": answer_seconds, "deadline": wanted.deadline}
        body: Body | None = None
        try:
            if wanted.offset and wanted.version and method == "GET":
                part = {"Range": f"bytes={wanted.offset}-", "If-Range": validator(wanted.version)}
                response = send(method, path, **{**how, "headers": {**how.get("headers", {}), **part}})
                body = rest(response, wanted)
                if body is None and response.status_code in (206, 416):
                    response.close()
                    response = send(method, path, **how)
            else:
                response = send(method, path, **how)
        except TooSlow as error:
            if method == "GET":
                raise
            words = f"{error}, which was {answer_seconds:.0f} seconds"
            raise ExportFailed(f"{words}; raise export_timeout, or make the window shorter") from None
        except Passing as error:
            if error.status not in _REFUSING:
                raise
            raise Unreachable(str(error), _PAUSE if error.after is None else error.after) from None
        with response:
            if body is None:
                if response.status_code != 206:
                    check(response)
                if response.headers.get("Content-Type", "").lower().startswith("text/html"):
                    raise Unreachable(
                        f"{self.message(response)} with a web page in place of the file; check base_url"
                    )
                body = whole(response)
            yield body

    def message(self, response: requests.Response) -> str:
        """What an answer says, for a message: status, address and the beginning of its body.

        The bodies of other hosts are left out, for those of signed URLs show parts of the signature.
        """
        body = b""
        if response.status_code >= 300 and self.own(response.url):
            body = response.content[:2000]
        text = " ".join(body.decode(errors="replace").split())[:300]
        return clean(f"{self._where(response)} answered {response.status_code} {text}").rstrip()

    def read(self, response: requests.Response) -> None:
        """Read the body of an answer that is no file, as far as it may go.

        Raises:
            ExportFailed: It is larger than an answer may be, or packed in a way that can't be read.
            Unreachable: It did not arrive whole. Neither matters to an answer that says what went wrong.
        """
        # There is no public way to give an answer its body.
        response._content = content(response)  # noqa: SLF001
        response._content_consumed = True  # type: ignore[attr-defined] # noqa: SLF001

    def _once(self, method: str, path: str, **how: Any) -> requests.Response:
        """Repeat a request only when no byte of it was sent; 429 and 503 mean that it was not taken on."""
        response = self._again(
            lambda: self._send(method, self.url(path), **how), lambda error: not error.sent
        )
        if response.status_code in _REFUSING:
            raise Busy(self._no_room(response), retry_after(response))
        return response

    def _again(
        self, send: Callable[[], requests.Response], may: Callable[[Unreachable], bool]
    ) -> requests.Response:
        """Send a request, and again with growing and jittered waits, never shorter than is asked for."""
        steps = backoff.expo(factor=_FIRST_STEP)
        next(steps)  # begins with none, which `backoff` itself passes over
        for tries in range(_TRIES):
            try:
                return send()
            except Unreachable as error:
                after = error.after or 0.0
                last = tries == _TRIES - 1 or isinstance(error, Hopeless) or after > _PATIENCE
                if last or not may(error):
                    raise
                step = next(steps) * random.uniform(0.5, 1.0)
            self._network.wait(max(step, after))
        raise AssertionError

    def _send(self, method: str, url: str, *, stream: bool = False, **how: Any) -> requests.Response:
        response = self._hop(method, url, stream=stream, **how)
        if response.status_code == 401 and self._auth and self.own(url):
            self.read(response)
            if not self._renew(self._auth, response):
                raise Refused(f"{self.message(response)}; {self._refusal}")
            response = self._hop(method, url, stream=stream, **how)
            if response.status_code == 401:
                self.read(response)
                raise Refused(f"{self.message(response)}; {self._refusal}")
        for _ in range(5):
            if method != "GET" or response.status_code not in REDIRECTS or "Location" not in response.headers:
                break
            response.close()
            target = _join(url, _ascii(response.headers["Location"].encode("latin-1", "replace")))
            if _secure(url):
                self._stays_secure(target)
            url = target
            how.pop("params", None)
            response = self._hop(method, url, stream=stream, **how)
        if not (stream and response.status_code in (200, 206)):
            self.read(response)
        return response

    def _hop(
        self,
        method: str,
        url: str,
        *,
        stream: bool,
        answer_seconds: float = SILENCE_SECONDS,
        deadline: datetime | None = None,
        headers: Mapping[str, str] | None = None,
        **how: Any,
    ) -> requests.Response:
        own = self.own(url)
        if not own:
            self._guard.admit_url(url)
            if _secure(self.base_url):
                self._stays_secure(url)
        # A file is wanted as it is, for only then can it be continued.
        sent = {"Accept-Encoding": "identity" if stream else "gzip"}
        sent |= {name: text for name, text in (headers or {}).items() if own or name.lower() in _FOR_ANYBODY}
        if self._auth and own:
            with _before_sending():
                sent |= self._auth.headers()
        call = f"{self.provider}: {method} {safe_url(url)}"
        try:
            request = self._session.prepare_request(requests.Request(method, url, headers=sent, **how))
        except requests.exceptions.InvalidHeader:
            raise self._unfit() from None
        except (requests.RequestException, ValueError) as error:  # as where a Location is no URL
            raise Unreachable(f"{call}: {type(error).__name__}", sent=False) from None
        if "params" not in how:
            # Byte for byte as the provider gave it, where requests would quote anew.
            request.url = _ascii(url.encode())
        with self._rate_limiter.turn(self._network.stop) if own else nullcontext():
            terms = TERMS.set(self._terms(stream=stream, answer_seconds=answer_seconds, deadline=deadline))
            try:
                environment = self._session.merge_environment_settings(url, {}, True, None, None)  # noqa: FBT003
                environment["verify"] = self._network.verify(configured=environment["verify"])
                timeout = (CONNECT_SECONDS, answer_seconds)
                answer = self._session.send(request, timeout=timeout, allow_redirects=False, **environment)
            except UnicodeEncodeError:
                raise self._unfit() from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise failure(call, error, self._setting if own else None) from None
            finally:
                TERMS.reset(terms)
        if answer.status_code == 407:
            answer.close()
            raise Hopeless(f"{call}: {proxy_refusal('407')}", sent=False)
        return answer

    def _terms(self, *, stream: bool, answer_seconds: float, deadline: datetime | None) -> Terms:
        now = time.monotonic()
        end = math.inf if stream else now + ANSWER_SECONDS
        if deadline is not None:
            end = now + (deadline - datetime.now(UTC)).total_seconds()
        return Terms(
            self._guard.admit, min(end, now + answer_seconds), end, SILENCE_SECONDS, self._network.stop
        )

    def _renew(self, auth: Auth, refused: requests.Response) -> bool:
        with _before_sending():
            return auth.renew(refused)

    def _no_room(self, response: requests.Response) -> str:
        """What an answer says that may be another later."""
        advice = (
            "; lower requests_per_minute or max_concurrent_exports" if response.status_code == 429 else ""
        )
        return self.message(response) + advice

    def _unfit(self) -> Refused:
        return Refused(
            f"{self.provider}: the credentials hold a character, as of a line break, that no header can "
            f"carry; {self._refusal}"
        )

    def _stays_secure(self, url: str) -> None:
        if not _secure(url):
            raise ExportFailed(
                f"{self.provider}: a link or redirect leads from https to {safe_url(url)}, which is not "
                "encrypted, so it is not followed"
            )

    def _where(self, response: requests.Response) -> str:
        return f"{self.provider}: {where(response)}"


@contextmanager
def _before_sending() -> Iterator[None]:
    """Credentials are fetched here: whatever goes wrong with that, the request they are for was not sent."""
    try:
        yield
    except Unreachable as error:
        raise Unreachable(str(error), error.after, sent=False) from None


def _ascii(url: bytes) -> str:
    """A URL of which all that is no visible ASCII character is quoted, byte for byte."""
    return quote(url, safe="".join(map(chr, range(0x21, 0x7F))))


def _join(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:  # no URL at all, and refused as such when it is asked for
        return url


def _secure(url: str) -> bool:
    return _origin(url)[0] == "https"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


def millis(timestamp: datetime) -> int:
    """Milliseconds since 1970, which some providers count in."""
    return math.floor(timestamp.timestamp() * 1000)
