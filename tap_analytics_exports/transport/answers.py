"""The body of an answer: a file, the rest of one, or what an API says."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import cast

import requests
import urllib3

from tap_analytics_exports.errors import ExportFailed, Unreachable
from tap_analytics_exports.redaction import clean, safe_url
from tap_analytics_exports.transport.decoding import BrokenGzip, begins_packed, codings, unpacked
from tap_analytics_exports.transport.download import Body, Wanted
from tap_analytics_exports.transport.failures import TooLarge
from tap_analytics_exports.transport.framing import Answer, Malformed

LARGEST_ANSWER = 16 << 20
"""Bytes, decoded, of an answer of an API."""

_CHUNK = 1 << 20
_PIECE = 1 << 18
_HOLD = 0.1
"""Seconds that bytes may wait for others before they are handed on."""

_STRONG_ETAG = re.compile(r'"[!#-~\x80-\xff]*"')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


def where(response: requests.Response) -> str:
    """What was asked, for messages."""
    return f"{response.request.method} {safe_url(response.url)}"


def whole(response: requests.Response) -> Body:
    """The body, as it arrives, of an answer that was asked for with `stream=True`.

    Raises:
        ExportFailed: It is packed in a way that can't be read.
        Unreachable: It is a part of a file, though nobody asked for one.
    """
    if response.status_code == 206 or "Content-Range" in response.headers:
        words = f"answered {response.status_code} with a part of the file, which was not asked for"
        raise Unreachable(f"{where(response)} {words}")
    labels = _labels(response)
    framing = cast("Answer", response.raw._original_response).proof  # noqa: SLF001 - there is no other way
    packed, pieces = begins_packed(_pieces(response)) if labels else (False, _pieces(response))
    total = int(response.headers["Content-Length"]) if framing == "length" and not packed else None
    pieces, arrived = _counted(pieces)
    return Body(
        _decoded(pieces, labels, response),
        framing or ("gzip trailer" if packed else None),
        version=None if packed else _version(response, total),
        total=total,
        encoded=arrived if packed else None,
    )


def rest(response: requests.Response, wanted: Wanted) -> Body | None:
    """The body of an answer that goes on where the file breaks off here; None where it does not."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status_code != 206 or found is None or _labels(response):
        return None
    first, last, total = map(int, found.groups())
    validator, _, size = (wanted.version or "").rpartition("/")
    if first != wanted.offset or not first <= last < total or size not in ("*", str(total)):
        return None
    # An answer to If-Range has the tag, and may lack the date (RFC 9110, 15.3.7).
    tagged = validator.startswith('"')
    if response.headers.get("ETag" if tagged else "Last-Modified", "" if tagged else validator) != validator:
        return None
    return Body(_decoded(_pieces(response), 0, response), "length", wanted.version, wanted.offset, total)


def validator(version: str) -> str:
    """What If-Range takes for a version."""
    return version.rpartition("/")[0]


def content(response: requests.Response) -> bytes:
    """The body of an answer that is no file, read as far as it may go.

    Raises:
        ExportFailed: It is larger than an answer may be, or packed in a way that can't be read.
        Unreachable: It did not arrive whole. Neither matters to an answer that says what went wrong.
    """
    body = bytearray()
    try:
        for piece in _decoded(_pieces(response), _labels(response), response):
            body += piece
            if len(body) > LARGEST_ANSWER:
                size = f"more than {LARGEST_ANSWER >> 20} MiB"
                raise TooLarge(f"{where(response)} answered with {size}, which is no answer of an API")
    except (ExportFailed, Unreachable):
        if response.status_code < 400:
            raise
    finally:
        response.close()
    return bytes(body[:LARGEST_ANSWER])


def no_object(body: Body) -> Body:
    """A body that must not be a JSON object, by which some providers say with status 200 what went wrong."""

    def chunks() -> Iterator[bytes]:
        begun = body.offset > 0
        for chunk in body.chunks:
            begun, first = begun or bool(chunk.strip()), not begun
            if first and chunk.lstrip().startswith(b"{"):
                text = chunk[:300].decode(errors="replace")
                raise ExportFailed(
                    clean(f"in place of the file, the vendor sent {text}; check what the export asks for")
                )
            yield chunk

    return replace(body, chunks=chunks())


def _labels(response: requests.Response) -> int:
    try:
        return codings(response.headers.get("Content-Encoding"))
    except ExportFailed as error:
        raise ExportFailed(f"{where(response)}: {error}") from None


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """The body's bytes; all that have arrived come before the error with which it breaks off."""
    raw: urllib3.HTTPResponse = response.raw
    held = bytearray()
    since = time.monotonic()
    failure: Exception | None = None
    while failure is None:
        try:
            piece = raw.read1(_PIECE, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            piece, failure = b"", error
        held += piece
        if held and (not piece or len(held) >= _CHUNK or time.monotonic() - since > _HOLD):
            yield bytes(held)
            held.clear()
            since = time.monotonic()
        if not piece and failure is None:
            return
    cause = failure.args[-1] if failure.args else None
    words = f"malformed: {cause}" if isinstance(cause, Malformed) else type(failure).__name__
    raise Unreachable(f"{where(response)}: the answer broke off ({words})")


def _decoded(pieces: Iterator[bytes], labels: int, response: requests.Response) -> Iterator[bytes]:
    for _ in range(labels):
        pieces = unpacked(pieces)
    try:
        yield from pieces
    except BrokenGzip:
        raise Unreachable(f"{where(response)}: the answer broke off (within its gzip)") from None
    except ExportFailed as error:
        raise ExportFailed(f"{where(response)}: {error}") from None


def _counted(pieces: Iterator[bytes]) -> tuple[Iterator[bytes], Callable[[], int]]:
    """The same pieces, and how many bytes have passed."""
    count = 0

    def passing() -> Iterator[bytes]:
        nonlocal count
        for piece in pieces:
            count += len(piece)
            yield piece

    return passing(), lambda: count


def _version(response: requests.Response, total: int | None) -> str | None:
    """What tells this version of a file from others: what If-Range takes, "/", and the size or "*"."""
    tag = response.headers.get("ETag", "")
    if _STRONG_ETAG.fullmatch(tag):
        return f"{tag}/{'*' if total is None else total}"
    modified, date = response.headers.get("Last-Modified", ""), response.headers.get("Date")
    with suppress(ValueError, TypeError):
        written = parsedate_to_datetime(modified)
        # It may have been written twice within the second that its date names (RFC 9110, 8.8.2.2).
        settled = date is None or parsedate_to_datetime(date) - written >= timedelta(seconds=1)
        if total is not None and settled:
            return f"{modified}/{total}"
    return None
