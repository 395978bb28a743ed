"""What all parsers share: the frame of text that they yield, and the file as a stream of UTF-8."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO, Literal, Self, cast

from isal import igzip
from isal.igzip_lib import IsalError

from tap_analytics_exports.errors import ExportFailed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import polars as pl


ROW_NUMBER = "_sdc_row_number"

# A frame holds at most this many rows, so that what is made of it stays small however short its rows are.
FRAME_ROWS = 20_000

# A record that is longer than this is rather a quote or a bracket that is never closed.
LONGEST_RECORD = 256 << 20

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written.

    Attributes:
        format: The kind of file; compression with gzip is seen, not said.
        encoding: Of text without a byte order mark; none: UTF-8.
        delimiter: Between the fields of a CSV file, one ASCII character.
        sheet: Of a workbook; none: the first.
        skip_rows: Lines of CSV, or rows of a sheet, empty ones counted, before the header.
        quote: Around fields of a CSV file; empty: the file knows no quoting.
    """

    format: Literal["csv", "xlsx", "json"]
    encoding: str | None = None
    delimiter: str = ","
    sheet: str | None = None
    skip_rows: int = 0
    quote: str = '"'


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be emitted.

    Attributes:
        row_number: Its place among the file's data rows, from 1.
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
        header: The file's own words for its columns; they may repeat or be empty.
        rows: Columns of text named "0", "1", … by their position in the header, null where a field is
            empty, and `ROW_NUMBER` (Int64): the place among the file's data rows, from 1, bad ones counted.
        bad: Rows that are malformed as rows. They are not in `rows`.
        dated: Dates may also come from cells that are dates, as ISO 8601, whatever a column's `format` says.
    """

    header: tuple[str, ...]
    rows: pl.DataFrame
    bad: list[BadRow]
    dated: bool = False


class Bytes:
    """A file's bytes, taken out of gzip if its first bytes say so; reading raises ExportFailed.

    A gzip stream is read to the last of its members; where it is cut or damaged is an error.
    """

    def __init__(self, path: Path) -> None:
        file = path.open("rb")
        self.gzipped = file.read(2) == GZIP
        file.seek(0)
        self._file = file
        self._stream = cast("BinaryIO", igzip.IGzipFile(fileobj=file)) if self.gzipped else file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._file.close()

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end of the file only."""
        try:
            return self._stream.read(size)
        except EOFError:
            raise ExportFailed("the file is cut: its gzip stream ends before its trailer") from None
        except (gzip.BadGzipFile, IsalError) as error:
            raise ExportFailed(f"the file is damaged: its gzip stream can't be read ({error})") from error


class Utf8:
    """A file of text as UTF-8 without a byte order mark, whatever it was written in.

    What is UTF-8 already is handed on unchecked.
    """

    def __init__(self, source: Bytes | IO[bytes], encoding: str | None) -> None:
        self._source = source
        self._first = source.read(len(codecs.BOM_UTF8))
        self.encoding = _codec(encoding or "utf-8")
        for mark, name in BYTE_ORDER_MARKS.items():
            if self._first.startswith(mark):
                self._first = self._first[len(mark) :]
                self.encoding = name
                break
        self._decode = (
            None if self.encoding == "utf-8" else codecs.getincrementaldecoder(self.encoding)().decode
        )

    def read(self, size: int) -> bytes:
        """About so many bytes; none at the end of the file only."""
        while True:
            raw = self._first + self._source.read(size) if self._first else self._source.read(size)
            self._first = b""
            if self._decode is None:
                return raw
            try:
                text = self._decode(raw, not raw).encode()
            except UnicodeError as error:
                raise not_encoded(self.encoding) from error
            if text or not raw:
                return text


def line(values: Iterable[object]) -> str:
    """A row's fields as a line of CSV, to show it to a human."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def without_nul(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[BadRow]]:
    """Put aside the rows that hold a NUL character, which no database takes as text."""
    import polars as pl  # noqa: PLC0415 - costs time to import, and only who parses needs it

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
    import polars as pl  # noqa: PLC0415 - as above
    import pyarrow as pa  # noqa: PLC0415

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
    import pyarrow as pa  # noqa: PLC0415 - as above

    if "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def is_utf8(data: bytes | memoryview) -> bool:
    """Whether it can be decoded, which is not done, as it would take memory."""
    import pyarrow as pa  # noqa: PLC0415 - as above

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
