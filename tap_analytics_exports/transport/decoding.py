"""What a Content-Encoding says, and what it does not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.unpack import GZIP
from tap_analytics_exports.redaction import clean_logger

logger = clean_logger(__name__)

_GZIP = frozenset({"gzip", "x-gzip"})
# The registered ones that nobody asked for. All other words are none, though servers send some: `utf-8`,
# `none`, `binary`, and `aws-chunked`, which S3 keeps of an upload.
_UNKNOWN = frozenset(
    {"aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "pack200-gzip", "x-compress", "zstd"}
)
_CHUNK = 1 << 20


class BrokenGzip(Exception):
    """A gzip transfer that ends before its end, or is damaged."""


def codings(header: str | None) -> int:
    """How often a body with this Content-Encoding may have been packed with gzip.

    Raises:
        ExportFailed: It is packed in another way.
    """
    words = [word.strip().lower() for word in (header or "").split(",")]
    if unknown := [word for word in words if word in _UNKNOWN]:
        raise ExportFailed(f"it has the unknown Content-Encoding {unknown[0]}, which was not asked for")
    return sum(word in _GZIP for word in words)


def begins_packed(pieces: Iterator[bytes]) -> tuple[bool, Iterator[bytes]]:
    """Whether a body is gzip by its first bytes, whatever a header says; and the body from its beginning."""
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= len(GZIP):
            break
    return first.startswith(GZIP), chain([first], pieces)


def unpacked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A body that is said to be gzip, to the end of its last member; one that is none is left as it is.

    Raises:
        BrokenGzip: It is cut, or damaged.
        ExportFailed: It is gzip by its first bytes, and can't be unpacked at all.
    """
    packed, pieces = begins_packed(pieces)
    yield from _gunzip(pieces) if packed else pieces


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    begun = False
    for piece in pieces:
        left = piece
        while left:
            if decoder.eof:
                if not GZIP.startswith(left[:2]):
                    logger.warning("bytes behind the end of a gzip transfer are left out")
                    for _ in pieces:  # to see that the transfer is whole
                        pass
                    return
                decoder = zlib.decompressobj(wbits=31)
            try:
                some = decoder.decompress(left, _CHUNK)  # bounded, as a little gzip may hold very much
            except zlib.error as error:
                if not begun:
                    raise ExportFailed(f"it is said to be gzip, and can't be unpacked ({error})") from None
                raise BrokenGzip from None
            if some:
                begun = True
                yield some
            left = decoder.unconsumed_tail or decoder.unused_data
    if not decoder.eof:
        raise BrokenGzip
