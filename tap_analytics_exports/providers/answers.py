"""What answers of vendors hold: read as the vendor documents it, or refused in words that name the call.

An answer that can't be understood is malformed, and nothing else: it says nothing about the credentials.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import requests
from msgspec import Meta, Struct

from tap_analytics_exports.errors import ExportFailed, JobGone, Refused, TapError, Unreachable
from tap_analytics_exports.redaction import clean, clean_logger, safe_url
from tap_analytics_exports.transport.http import Http

LIMIT = 16 << 20
"""Bytes of an answer; none of an API that is not a file has more."""

Id = Annotated[str, Meta(min_length=1, max_length=500)] | int
"""What vendors call a job by."""

Token = Annotated[str, Meta(min_length=1, max_length=100_000, pattern=r"^[\x21-\x7e]+\Z")]
"""What a login gives: characters that a header can carry."""

_DEEP = 8  # levels of an error's JSON in which there may be something to say
_COUNT = re.compile(r"(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.0+)?")
_SHOWN = 300

logger = clean_logger(__name__)

T = TypeVar("T")
H = TypeVar("H", bound=Struct)


class Malformed(Unreachable):
    """An answer is JSON, but not what the vendor documents."""


def call(http: Http, response: requests.Response) -> str:
    """Name a call and the status of its answer, for messages."""
    address = f"{response.request.method} {safe_url(response.url)}"
    return f"{http.provider}: {address} answered {response.status_code}"


def body(http: Http, response: requests.Response, limit: int = LIMIT) -> bytes:
    """Bring an answer's body here, whether or not it was asked for with `stream=True`.

    Raises:
        Unreachable: It broke off, or has more than `limit` bytes.
    """
    arrived = bytearray()
    try:
        for chunk in response.iter_content(1 << 16):
            arrived += chunk
            if len(arrived) > limit:
                raise Unreachable(f"{call(http, response)} with more than {limit} bytes, which is no answer")
    except requests.RequestException as error:
        raise Unreachable(f"{call(http, response)}, which broke off ({type(error).__name__})") from None
    return bytes(arrived)


def read(
    http: Http,
    response: requests.Response,
    kind: type[T],
    error: type[TapError] | None = None,
    then: str = "",
) -> T:
    """Read an answer's JSON.

    Args:
        http: What it was asked through.
        response: The answer.
        kind: What the vendor documents; attributes that it does not name are passed over.
        error: What to raise where it is malformed; none: `Unreachable` where it is no JSON, as the pages of
            hosts are that stand before a vendor, else `Malformed`.
        then: What follows from that, for the message.
    """
    then = then and f"; {then}"
    content = body(http, response)
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as problem:
        words = f"{call(http, response)} with a malformed answer: {problem}{then}"
        raise (error or Malformed)(clean(words)) from None
    except (ValueError, RecursionError):
        kind_of = response.headers.get("Content-Type") or "no content type"
        words = f"{call(http, response)} with a malformed answer: no JSON ({kind_of[:80]}){then}"
        raise (error or Unreachable)(clean(words)) from None


def probe(http: Http, path: str) -> None:
    """Ask for something cheap, to see whether the credentials are accepted.

    Raises:
        Refused: They are not, or they do not allow to ask.
        Unreachable: No usable answer after some tries, or one that is not the vendor's.
    """
    response = http.ask("GET", path)
    if response.status_code == 403:
        raise Refused(f"{http.message(response)}; check what the credentials allow")
    if response.status_code >= 300:
        logger.warning(
            "%s; the credentials were not refused, but check base_url and the ids in the settings",
            http.message(response),
        )
    else:
        read(http, response, object, Unreachable, "check base_url")


def handle(provider: str, kind: type[H], given: object) -> H:
    """Read the handle of a job, as a state or a ledger has it.

    Raises:
        JobGone: It is none of the provider's.
    """
    try:
        return msgspec.convert(given, kind)
    except (ValueError, RecursionError) as error:
        raise JobGone(
            f"{provider}: the handle by which the state or the ledger remembers this job is none of ours "
            f"({clean(str(error))[:_SHOWN]}), so the job can't be found again"
        ) from None


def segment(part: str | int) -> str:
    """Quote an id for a URL's path, out of which it can't lead."""
    text = quote(str(part), safe="", errors="replace")
    return text.replace(".", "%2E") if text in (".", "..") else text


def count(provider: str, field: str, value: object) -> int | None:
    """Read how many bytes or rows a vendor announces: `32`, `32.0`, `"32"` and `"1,234"` are counts.

    Args:
        provider: Its name.
        field: As the vendor calls it.
        value: What JSON holds.

    Returns:
        The count; None where the vendor announces none.

    Raises:
        ExportFailed: Nobody can read it, so it would check nothing.
    """
    match value:
        case None:
            return None
        case bool():
            pass
        case int() if value >= 0:
            return value
        case float() if value >= 0 and math.isfinite(value) and value.is_integer():
            return int(value)
        case str() if len(value) <= 30 and _COUNT.fullmatch(value.strip()):
            return int(value.strip().partition(".")[0].replace(",", ""))
    # What is nested may be too deep to be shown.
    shown = clean(repr(value))[:80] if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    raise ExportFailed(
        f"{provider}: the answer's {field} is {shown}, which is no count, so the file "
        "can't be checked by it; ask the vendor what it means"
    )


def said(value: object) -> str:
    """Say what JSON says, which vendors wrap in objects and lists; numbers of errors are passed over."""
    return clean("; ".join(_texts(value, _DEEP)))[:_SHOWN]


def _texts(value: object, deep: int) -> Iterator[str]:
    match value:
        case dict() if deep:
            for name, part in value.items():
                if name != "code":
                    yield from _texts(part, deep - 1)
        case list() if deep:
            for part in value:
                yield from _texts(part, deep - 1)
        case str() | int() | float():
            if text := " ".join(str(value).split()):
                yield text


def is_below(http: Http, url: str, path: str) -> bool:
    """Whether a URL, perhaps relative, is of the provider's own origin and has no way out of a path."""
    try:
        absolute = http.url(url)
        found = urlsplit(absolute).path
    except ValueError:
        return False
    steps = re.sub("%2e", ".", found, flags=re.IGNORECASE).split("/")
    return http.own(absolute) and found.startswith(path) and not {".", ".."} & set(steps)
