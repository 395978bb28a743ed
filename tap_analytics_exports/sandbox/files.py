"""Hosts that hand out files by presigned URL, as S3 does, and want no other credentials."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from tap_analytics_exports.sandbox.server import Answer, Call, Refusal, Route, Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True)
class Stored:
    """An object in the bucket; `sent` is told when it was handed out whole."""

    content_type: str
    read: Callable[[], Awaitable[bytes]]
    sent: Callable[[bytes], None]


class PresignedHost(Service):
    """A bucket behind presigned URLs of signature version 2 (the Analytics Export page shows one)."""

    name: ClassVar[str] = "files"

    def reset(self) -> None:
        """Empties the bucket."""
        self.objects: dict[str, Stored] = {}

    def routes(self) -> list[Route]:
        """GET alone is signed."""
        return [Route("GET", "/.*", self.get)]

    def not_allowed(self, call: Call) -> Answer:
        """The signature covers the method."""
        del call
        return xml("SignatureDoesNotMatch", "The request signature we calculated does not match", 403)

    def sign(self, key: str) -> str:
        """Makes a URL that opens an object from now on for a while."""
        expires = int(time.time() + self.hub.knobs.url_seconds)
        signature = quote(self._signature(key, str(expires)), safe="")
        query = f"AWSAccessKeyId=AKIA5UHFLP6VCX2LOMER&Signature={signature}&Expires={expires}"
        return f"{self.origin}{key}?{query}"

    def _signature(self, key: str, expires: str) -> str:
        digest = hmac.new(b"invented", f"GET\n{expires}\n{key}".encode(), hashlib.sha256).digest()
        # So that each signature has the two signs that must stay percent-encoded.
        return base64.b64encode(digest[:19]).decode().rstrip("=") + "/+="

    async def get(self, call: Call) -> Answer:
        """Hands out an object, or the asked range of it."""
        if "Authorization" in call.headers or call.cookies:
            # S3 refuses two ways to authenticate at once.
            self.hub.counts["credentials_leaked"] += 1
            raise Refusal(xml("InvalidArgument", "Only one auth mechanism allowed", 400))
        query = dict(call.query)
        if query.get("Signature") != self._signature(call.path, query.get("Expires", "")):
            raise Refusal(
                xml("SignatureDoesNotMatch", "The request signature we calculated does not match", 403)
            )
        if time.time() > int(query["Expires"]):
            self.hub.counts["expired_urls"] += 1
            raise Refusal(xml("AccessDenied", "Request has expired", 403))
        stored = self.objects.get(call.path)
        if stored is None:
            raise Refusal(xml("NoSuchKey", "The specified key does not exist.", 404))
        body = await stored.read()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        answer = Answer(
            200, body, (("Content-Type", stored.content_type), ("ETag", etag), ("Accept-Ranges", "bytes"))
        )
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("Range", ""))
        if call.headers.get("If-Match", etag) != etag:
            raise Refusal(xml("PreconditionFailed", "At least one of the preconditions did not hold", 412))
        if wanted is None or call.headers.get("If-Range", etag) != etag:
            stored.sent(body)
            return answer
        first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
        if first > last:
            raise Refusal(xml("InvalidRange", "The requested range is not satisfiable", 416))
        part = Answer(206, body[first : last + 1], answer.headers)
        return part.having(("Content-Range", f"bytes {first}-{last}/{len(body)}"))


class KhorosFiles(PresignedHost):
    """Where a Khoros download redirects to."""

    name: ClassVar[str] = "khoros_files"


class GooeeFiles(PresignedHost):
    """Where a Gooee export's url points to."""

    name: ClassVar[str] = "gooee_files"


def xml(code: str, message: str, status: int) -> Answer:
    """An error as S3 writes it."""
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{error}'.encode()
    return Answer(status, body, (("Content-Type", "application/xml"),))
