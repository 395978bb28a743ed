"""CSV of any dialect that RFC 4180 allows, as frames of text.

The file is cut into blocks of whole records here, and pyarrow parses each block by itself: so the number of
every row is known, a record may be longer than a block, and a quote that is never closed is noticed. In a
block whose quotes are where RFC 4180 has them, the place of a record's end follows from counting quotes; any
other block is walked through record by record.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.base import (
    FRAME_ROWS,
    LONGEST_RECORD,
    ROW_NUMBER,
    BadRow,
    Bytes,
    Dialect,
    TextFrame,
    Utf8,
    as_bytes,
    as_numbers,
    is_utf8,
    not_encoded,
    without_nul,
)
from tap_analytics_exports.redaction import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# What is made of a block takes many times its size, and three of them are on their way at once.
BLOCK = 5 << 19
LEAST_BLOCK = 1 << 16


def frames(path: Path, dialect: Dialect) -> Iterator[TextFrame]:
    """The rows of a CSV file; see `tap_analytics_exports.parse.frames`."""
    if not dialect.delimiter.isascii():
        raise ExportFailed(f"`delimiter`: {dialect.delimiter!r} is not an ASCII character")
    with Bytes(path) as source:
        yield from _Reader(Utf8(source, dialect.encoding), dialect.delimiter).frames()


class _Reader:
    """Reads one file."""

    def __init__(self, source: Utf8, delimiter: str) -> None:
        self._source = source
        self._delimiter = delimiter
        sign = re.escape(delimiter.encode())
        field = rb'(?:"(?:[^"]++|"")*+"(?P<after>[^%b\r\n]++)?+|(?!")[^%b\r\n]*+)' % (sign, sign)
        rest = rb"(?:%b%b)*+" % (sign, field.replace(b"?P<after>", b"?P<later>"))
        self._record = re.compile(field + rest + rb"(?P<end>\r\n|\r|\n|\Z)")
        self._header: tuple[str, ...] | None = None
        self._rows = 0
        self._size = BLOCK
        # A line break, what is at hand, and another line break; in the same memory for all blocks, as new
        # memory of this size takes longer to get than to fill.
        self._buffer = bytearray(b"\n")
        self._start = self._end = 1
        self._nul = False
        self._final = False

    def frames(self) -> Iterator[TextFrame]:
        empty = True
        while not self._final:
            self._read()
            if self._header is None and not self._take_header():
                continue
            for frame in self._parse(*self._take_records()):
                yield frame
                empty = False
        if self._start < self._end:
            raise ExportFailed(
                f"a quote opened after data row {self._rows} is never closed: the file is cut, or quotes "
                "within its fields are not doubled"
            )
        if empty and self._header is not None:
            rows = self._table(memoryview(b""), []).hstack([pl.Series(ROW_NUMBER, [], pl.Int64)])
            yield TextFrame(self._header, rows, [])

    @property
    def _data(self) -> memoryview:
        """What is at hand."""
        return memoryview(self._buffer)[self._start : self._end]

    def _read(self) -> None:
        """Add to what is at hand: a block, or as much again where one record fills it."""
        rest = bytes(self._data)
        if len(rest) > LONGEST_RECORD:
            raise ExportFailed(
                f"the record after data row {self._rows} is longer than {LONGEST_RECORD >> 20} MiB: is one "
                "of its quotes never closed?"
            )
        block = self._source.read(max(self._size, len(rest)))
        self._final = not block
        self._nul = b"\0" in rest or b"\0" in block
        between = 1 + len(rest)
        self._start, self._end = 1, between + len(block)
        if len(self._buffer) <= self._end:
            self._buffer = bytearray(self._end + 1)
        buffer = self._buffer
        buffer[0] = buffer[self._end] = ord("\n")
        buffer[1:between] = rest
        buffer[between : self._end] = block

    def _take_header(self) -> bool:
        """Take the first record off, if it is there in full and not blank."""
        data = bytes(self._data).lstrip(b"\r\n")
        self._start = self._end - len(data)
        found = self._record.match(data)
        if not data or not found or not (found["end"] or self._final):
            return False
        record = found[0][: len(found[0]) - len(found["end"])]
        text = self._decode(record)
        if "\0" in text:
            raise not_encoded(self._source.encoding)
        if found["after"] or found["later"]:
            raise ExportFailed(f"the header has text after a closing quote: {shown(text, 200)}")
        # The csv module refuses long fields, so it is not asked.
        sign = re.escape(self._delimiter)
        fields = re.findall(rf'(?:^|{sign})("(?:[^"]|"")*"|[^{sign}]*)', text)
        self._header = tuple(
            field[1:-1].replace('""', '"') if field.startswith('"') else field for field in fields
        )
        self._start += found.end()
        return True

    def _take_records(self) -> tuple[memoryview, list[tuple[int, bytes]]]:
        """Take all records off that are there in full.

        Returns:
            Those that are well formed, until the next block is read; and of the others the place among all
            of them, from 0, and the text.
        """
        data = self._data
        quotes = self._quotes()
        if quotes is None:
            return self._walk(data)
        data = data[: self._last_end(quotes) - self._start]
        self._start += len(data)
        return data, []

    def _quotes(self) -> int | None:
        """How many quotes there are; None if one is not where RFC 4180 has it: around a field, or doubled."""
        around = as_numbers(memoryview(self._buffer)[self._start - 1 : self._end + 1])
        count = len(around) - 2
        quotes = around.slice(1, count) == ord('"')
        before, after = (as_bytes(around.slice(start, count).filter(quotes)) for start in (0, 2))
        # Two quotes side by side within a field look like the end of one and the start of another.
        neighbours = f'{self._delimiter}\r\n"'.encode()
        irregular = before[::2].translate(None, neighbours) or after[1::2].translate(None, neighbours)
        return None if irregular else len(before)

    def _last_end(self, quotes: int) -> int:
        """Where the last record that is there in full ends: at a line break with no field open."""
        if self._final and quotes % 2 == 0:
            return self._end
        # A carriage return counts where there is no line feed; one at the very end may belong to a pair.
        for sign, last in ((b"\n", self._end), (b"\r", self._end - 1)):
            end = last
            before = quotes - self._buffer.count(b'"', end, self._end)
            while (place := self._buffer.rfind(sign, self._start, end)) >= 0:
                before -= self._buffer.count(b'"', place, end)
                if before % 2 == 0:
                    return place + 1
                end = self._buffer.rfind(b'"', self._start, place)  # all that is behind it is in its field
                before -= 1
        return self._start

    def _walk(self, data: memoryview) -> tuple[memoryview, list[tuple[int, bytes]]]:
        """Take records off one by one."""
        good: list[bytes] = []
        malformed: list[tuple[int, bytes]] = []
        at = 0
        while at < len(data) and (found := self._record.match(data, at)):
            if not (found["end"] or self._final):
                break
            at = found.end()
            if found["after"] or found["later"]:
                malformed.append((len(good) + len(malformed), found[0].rstrip(b"\r\n")))
            elif found[0] != found["end"]:
                good.append(found[0])
        self._start += at
        return memoryview(b"".join(good)), malformed

    def _parse(self, data: memoryview, malformed: Sequence[tuple[int, bytes]]) -> Iterator[TextFrame]:
        """Frames of whole records."""
        assert self._header is not None
        invalid: list[pc.InvalidRow] = []
        if not is_utf8(data):
            raise not_encoded(self._source.encoding)
        rows = self._table(data, invalid)
        total = rows.height + len(invalid) + len(malformed)
        first = self._rows + 1
        numbers = pl.int_range(first, first + total, dtype=pl.Int64, eager=True).alias(ROW_NUMBER)
        bad = [
            BadRow(numbers[place], self._decode(raw), "text after a closing quote")
            for place, raw in malformed
        ]
        numbers = _without(numbers, [place for place, _ in malformed])
        width = len(self._header)
        bad += [
            BadRow(
                numbers[row.number - 1], row.text, f"{row.actual_columns} fields, and the header has {width}"
            )
            for row in invalid
        ]
        rows = rows.hstack([_without(numbers, [row.number - 1 for row in invalid])])
        self._rows += total
        if total:  # the next block shall be a frame's, and a little less as rows are not all alike
            taken = len(data) + sum(len(raw) for _, raw in malformed)
            self._size = min(max(taken * FRAME_ROWS // total * 9 // 10, LEAST_BLOCK), BLOCK)
        if self._nul:
            rows, more = without_nul(rows)
            bad += more
        bad.sort(key=lambda row: row.row_number)
        del data  # it may be large, and the frames take their time
        for offset in range(0, max(rows.height, bool(bad)), FRAME_ROWS):
            yield TextFrame(self._header, rows.slice(offset, FRAME_ROWS), [] if offset else bad)

    def _table(self, data: memoryview, invalid: list[pc.InvalidRow]) -> pl.DataFrame:
        """Parse records, well formed and in UTF-8; those of another width than the header's are put aside."""
        assert self._header is not None
        names = [str(position) for position in range(len(self._header))]
        if not data:
            return pl.DataFrame(schema=dict.fromkeys(names, pl.String))

        def put_aside(row: pc.InvalidRow) -> str:
            invalid.append(row)
            return "skip"

        table = pc.read_csv(
            pa.BufferReader(data),
            # One block and one thread: only so are rows numbered.
            read_options=pc.ReadOptions(use_threads=False, block_size=len(data), column_names=names),
            parse_options=pc.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=put_aside
            ),
            convert_options=pc.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )
        # Texts as polars has them: to make them so in polars takes longer, and other threads wait for it.
        return pl.DataFrame(table.cast(pa.schema([(name, pa.string_view()) for name in names])))

    def _decode(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise not_encoded(self._source.encoding) from error


def _without(numbers: pl.Series, places: Sequence[int]) -> pl.Series:
    if not places:
        return numbers
    return numbers.filter(~pl.int_range(len(numbers), eager=True).is_in(list(places)))
