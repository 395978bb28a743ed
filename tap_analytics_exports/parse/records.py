"""What lines and records of CSV are, and blocks of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import polars as pl
    import pyarrow.csv as pc

LINE = re.compile(rb"(?P<text>[^\r\n]*+)(?P<end>\r\n|\r|\n|\Z)")
DELIMITER_LINE = re.compile(rb'"?sep=(.|[\x80-\xff]{2,4})"?', re.IGNORECASE | re.DOTALL)


class Malformed(NamedTuple):
    """A record that is not well formed: its position among those of its block, from 0; see `BadRow`."""

    position: int
    raw: str
    reason: str


class Block(NamedTuple):
    """Records of a file that follow one another.

    Attributes:
        data: Those that are well formed, until the next block is read.
        rows: Of those, the ones of the right width.
        invalid: And the others.
        malformed: Those that are not well formed.
    """

    data: memoryview
    rows: pl.DataFrame
    invalid: list[pc.InvalidRow]
    malformed: list[Malformed]


def record_pattern(delimiter: str, quote: str) -> re.Pattern[bytes]:
    """What a record is; `after` and `later` are text after a closing quote, in its first and other fields."""
    end = rb"(?P<end>\r\n|\r|\n|\Z)"
    if not quote:
        return re.compile(rb"[^\r\n]*+(?P<after>)(?P<later>)" + end)
    separator = re.escape(delimiter.encode())
    field = rb'(?:"(?:[^"]++|"")*+"(?P<after>[^%b\r\n]++)?+|(?!")[^%b\r\n]*+)' % (separator, separator)
    rest = rb"(?:%b%b)*+" % (separator, field.replace(b"?P<after>", b"?P<later>"))
    return re.compile(field + rest + end)
