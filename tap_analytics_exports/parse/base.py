"""What all parsers share: the frame of text that they yield, and the file as a stream of UTF-8."""

from __future__ import annotations

import codecs
import csv
import io
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import unpack
from tap_analytics_exports.redaction import clean_logger

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import polars as pl


ROW_NUMBER = "_sdc_row_number"

# A frame holds at most this many rows, so that what is made of it stays small however short its rows are.
FRAME_ROWS = 20_000

# A record that is longer than this is rather a quote that is never closed.
LONGEST_RECORD = 16 << 20

# As many as a sheet of a workbook has.
MOST_COLUMNS = 16_384

# The marks of UTF-32 come first, as one of them begins with one of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}

# How bytes are decoded that are not of the encoding: each becomes U+DC00 and its value, which no text holds.
MARK = "tap-analytics-exports.mark"
_MARKED = re.compile("[\ud800-\udfff]")

logger = clean_logger(__name__)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written.

    Attributes:
        format: The kind of file; compression with gzip is seen, not said, and so is a ZIP of one member.
        encoding: Of text without a byte order mark; none: UTF-8.
        delimiter: Between the fields of a CSV file, one ASCII character; none: what a `sep=` line before the
            header says, else a comma.
        sheet: Of a workbook; none: the first.
        skip_rows: Lines of CSV, or rows of a sheet, empty ones counted, before the header.
        quote: Around fields of a CSV file; empty: the file knows no quoting.
    """

    format: Literal["csv", "xlsx", "json"]
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    skip_rows: int = 0
    quote: str = '"'


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be emitted.

    Attributes:
        row_number: Its number among the file's data rows, from 1.
        raw: Its text.
        reason: What is wrong, in words.
        column: The property that doesn't fit, if it is one alone.
    """

    row_number: int
    raw: str
    reason: str
    column: str | None = None


@dataclass(frozen=True, slots=True)
class TextFrame:
    """Some of a file's rows, in the file's order, before anything is known of types.

    Attributes:
        header: The file's own words for its columns; they may repeat or be empty. Later frames may have more.
        rows: Columns of text named "0", "1", … by their position in the header, null where a field is
            empty, and `ROW_NUMBER` (Int64): the number among the file's data rows, from 1, bad ones counted.
        bad: Rows that are malformed as rows. They are not in `rows`.
        objects: Of a JSON file, the source of each row, by its number; see `json.sources`.
        dated: Dates may also come from cells that are dates, as ISO 8601, whatever a column's `format` says.
    """

    header: tuple[str, ...]
    rows: pl.DataFrame
    bad: list[BadRow]
    objects: Mapping[int, str] | None = None
    dated: bool = False


class NotWhole(ExportFailed):
    """A text that ends before its end."""


class Bytes:
    """A file's bytes, unpacked if its first bytes say so; reading raises ExportFailed.

    A gzip stream is read to the last of its members; where it is cut or damaged is an error. A ZIP archive of
    one member is that member, which may be a gzip stream itself.

    Attributes:
        start: The first bytes of the content.
        gzipped: Whether a gzip stream was unpacked.
    """

    START: ClassVar = 4096

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        try:
            source = unpack.Peeked(self._file, self.START)
            if source.start.startswith((unpack.ZIP, unpack.EMPTY_ZIP)):
                source = unpack.Peeked(unpack.Member(self._file, _only_member(path)), self.START)
            self._gzip = unpack.Gzip(source) if source.start.startswith(unpack.GZIP) else None
            if self._gzip:
                source = unpack.Peeked(self._gzip, self.START)
        except BaseException:
            self._file.close()
            raise
        self.start = source.start
        self.gzipped = self._gzip is not None
        self.read = source.read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def warn_of_rest(self) -> None:
        """Warn of bytes behind a gzip stream that has been read to its end."""
        if self._gzip and self._gzip.behind:
            logger.warning(
                "%s: %d bytes behind its whole gzip stream are left out", self._path.name, self._gzip.behind
            )


def _only_member(path: Path) -> zipfile.ZipInfo:
    """The only member of a ZIP archive; ExportFailed says what else there is."""
    members = unpack.members(path)
    if len(members) != 1:
        names = unpack.listed([member.filename for member in members])
        raise ExportFailed(
            f"the file is a ZIP archive of {len(members)} members ({names}), and only one of a single member "
            "can be read; if it is a workbook, the export's `format` must be xlsx"
        )
    return members[0]


def encoding_of(start: bytes, encoding: str | None) -> tuple[bytes, str]:
    """The byte order mark that a text begins with, if any, and Python's name of its encoding.

    Args:
        start: The text's first bytes.
        encoding: What it is without a mark; none: UTF-8.

    Raises:
        ExportFailed: There is no such encoding.
    """
    declared = _codec(encoding or "utf-8")
    for mark, name in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            return mark, name
    return b"", declared


class Utf8:
    """A file of text as UTF-8 without a byte order mark, whatever it was written in.

    What is UTF-8 already is handed on unchecked. Of another encoding, bytes that it doesn't have become
    marks, which are no UTF-8; so in either case what is not UTF-8 was not of the encoding.

    Attributes:
        encoding: Python's name of it.
        errors: How to decode what is read, bytes that are not of the encoding included, with those marked.
    """

    def __init__(self, source: unpack.Readable, encoding: str | None) -> None:
        self._source = source
        self._first = source.read(max(map(len, BYTE_ORDER_MARKS)))
        mark, self.encoding = encoding_of(self._first, encoding)
        self._first = self._first[len(mark) :]
        decoder = codecs.getincrementaldecoder(self.encoding)(MARK)
        self._decoder = None if self.encoding == "utf-8" else decoder
        self.errors = "surrogatepass" if self._decoder else MARK

    def read(self, size: int) -> bytes:
        """About so many bytes; none at the end of the file only."""
        while True:
            raw = self._first + self._source.read(size) if self._first else self._source.read(size)
            self._first = b""
            if self._decoder is None:
                return raw
            if not raw and self._decoder.getstate()[0]:
                raise NotWhole(f"the file is cut: it ends within a character of {self.encoding}")
            text = self._decoder.decode(raw, not raw).encode("utf-8", "surrogatepass")
            if text or not raw:
                return text


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(MARK, _mark)


def not_of(encoding: str, text: str) -> tuple[str, str] | None:
    """Text in which bytes may be marked: how to show it, and what is wrong with it; None: nothing."""
    found = _MARKED.search(text)
    if not found:
        return None
    index = len(text[: found.start()].encode(encoding)) - len("".encode(encoding))
    byte = ord(found[0]) & 0xFF
    shown = _MARKED.sub(lambda mark: f"\\x{ord(mark[0]) & 0xFF:02x}", text)
    reason = f"the byte 0x{byte:02X} at index {index} of the row is not {encoding}: is `encoding` another?"
    return shown, reason


def other_delimiter(header: str, delimiter: str) -> str | None:
    """The usual delimiter, other than a given one, that parts a header into most fields; None: none does."""
    bare = re.sub('"[^"]*"', "", header)
    most = max((other for other in ",;\t|" if other != delimiter), key=bare.count)
    return most if most in bare else None


def line(values: Iterable[object]) -> str:
    """A row's fields as a line of CSV, to show it to a human."""
    text = io.StringIO()
    csv.writer(text).writerow(values)  # which quotes line breaks only if its own line ends have them
    return text.getvalue().removesuffix("\r\n")


def without_nul(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[BadRow]]:
    """Put aside the rows that hold a NUL character, which no database takes as text."""
    import polars as pl

    bad = rows.select(
        pl.any_horizontal(pl.col(pl.String).str.contains("\0", literal=True)).fill_null(value=False)
    )
    mask = bad.to_series()
    reason = "a NUL character: is the file's `encoding` another?"
    return rows.filter(~mask), [
        BadRow(number, line(fields), reason) for *fields, number in rows.filter(mask).iter_rows()
    ]


def as_numbers(data: bytes | memoryview) -> pl.Series:
    """Bytes as numbers, in the same memory."""
    import polars as pl
    import pyarrow as pa

    return pl.Series(pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)]))


def as_bytes(numbers: pl.Series) -> bytes:
    """Numbers of one byte each as bytes."""
    array = numbers.to_arrow()
    return bytes(array.buffers()[1].slice(array.offset, len(array)))


def without_huge_pages() -> None:
    """Have Arrow take memory that isn't in huge pages, if it can.

    Where much is taken and given back at once, its usual memory may take ten times as long as what is done in
    it, and more of it is taken.
    """
    import pyarrow as pa

    if "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def is_utf8(data: bytes | memoryview) -> bool:
    """Whether it can be decoded, which is not done, as it would take memory."""
    import pyarrow as pa

    ends = pa.py_buffer(struct.pack("=qq", 0, len(data)))
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(data)])
    try:
        whole.cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def not_encoded(encoding: str) -> ExportFailed:
    """What to say of a file that holds bytes which its encoding doesn't have."""
    return ExportFailed(
        f"the file is not {encoding} throughout: name its encoding in the export's `encoding`"
    )


def _codec(name: str) -> str:
    """Python's own name of an encoding; its variant with a byte order mark is UTF-8 all the same."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name).close()  # refuses codecs that are not of text
        return codecs.lookup(name).name.removesuffix("-sig")
    except LookupError:
        raise ExportFailed(f"`encoding`: {name!r} is not a text encoding that Python knows") from None
