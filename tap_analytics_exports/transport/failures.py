"""What the failure of a request means, and when it may be sent again."""

from __future__ import annotations

import errno
import re
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

import requests
from urllib3 import exceptions

from tap_analytics_exports.errors import ExportFailed, Unreachable

_DAY = 86400.0

_ISSUER = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes for certificates that nobody known has signed."""

_REFUSED = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "there is no route to the host",
    errno.ENETUNREACH: "there is no route to the host",
}


class Passing(Unreachable):
    """A status that may be another when asked again."""

    def __init__(self, why: str, after: float | None, status: int) -> None:
        super().__init__(why, after)
        self.status = status


class Hopeless(Unreachable):
    """A failure that would be the same at once."""


class MalformedAnswer(Unreachable):
    """An answer that is none."""


class TooSlow(Unreachable):
    """A request was sent, and its answer did not begin in time."""


class TooLarge(ExportFailed):
    """An answer that has more bytes than one may have."""


def failure(where: str, error: Exception, setting: str | None = "base_url") -> Unreachable:
    """Tell what went wrong with a request, from what requests or urllib3 raised.

    Args:
        where: Of which provider and URL, for the message.
        error: The error.
        setting: The name of the setting that says where the host is; None: the vendor's own link said so.
    """
    advice = (
        f"check {setting}"
        if setting
        else "check that this machine may reach the host, to which a link of the vendor leads"
    )
    found: object = error.args[0] if error.args else None
    reason = getattr(found, "reason", None) or found
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        words = "the trusted certificates can't be read; check SSL_CERT_FILE and REQUESTS_CA_BUNDLE"
        return Hopeless(f"{where}: {words}", sent=False)
    if isinstance(reason, exceptions.ReadTimeoutError):
        return TooSlow(f"{where}: no answer in time")
    if refusal := _refusal(reason, advice):
        return Hopeless(f"{where}: {refusal}", sent=False)
    if trouble := _no_connection(reason):
        return Unreachable(f"{where}: {trouble}; {advice}", sent=False)
    if nonsense := _nonsense(reason):
        return MalformedAnswer(f"{where}: a malformed answer ({nonsense})")
    kind = type(reason if isinstance(reason, Exception) else error).__name__
    return Unreachable(f"{where}: the connection broke off ({kind})")


def _refusal(reason: object, advice: str) -> str | None:
    match reason:
        case exceptions.ProxyError():
            return proxy_refusal(str(reason.original_error))
        case exceptions.SSLError(
            args=(ssl.SSLCertVerificationError(verify_code=code, verify_message=why), *_)
        ):
            advice = "if you trust its authority, set ca_bundle" if code in _ISSUER else advice
            return f"the host's certificate is not trusted ({why}); {advice}"
        case exceptions.NewConnectionError(__cause__=OSError(errno=number)):
            refused = _REFUSED.get(number or 0)
            return refused and f"{refused}; {advice}, and whether the host is up"
    return None


def _no_connection(reason: object) -> str | None:
    match reason:  # the first two are of the third's kind
        case exceptions.NameResolutionError():
            return "the host's name is not known"
        case exceptions.NewConnectionError():
            return "no connection"
        case exceptions.ConnectTimeoutError():
            return "no connection in time"
    return None


def _nonsense(reason: object) -> str | None:
    match reason:
        case exceptions.InvalidHeader():
            return str(reason)
        case exceptions.ProtocolError(args=(_, RemoteDisconnected() | IncompleteRead())):
            return None
        case exceptions.ProtocolError(args=(_, HTTPException() as cause)):
            return str(cause) or type(cause).__name__
    return None


def proxy_refusal(why: str) -> str:
    """Words for a proxy that does not do what it is asked."""
    return f"the proxy refuses the request ({why}); check HTTPS_PROXY and HTTP_PROXY"


def retry_after(response: requests.Response) -> float | None:
    """The seconds that `Retry-After` asks for, as a number or a date; at most a day, None without it."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return min(float(text), _DAY)
    try:
        seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(0.0, seconds), _DAY)
