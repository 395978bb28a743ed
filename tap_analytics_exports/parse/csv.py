"""CSV of any dialect that RFC 4180 allows, and without quoting, as frames of text.

The file is cut into blocks of whole records here, and pyarrow parses each block by itself: so the number of
every row is known, a record may be longer than a block, and a quote that is never closed is noticed. In a
block of UTF-8 whose quotes are where RFC 4180 has them, the position of a record's end follows from counting
quotes; any other block is walked through record by record.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import kinds
from tap_analytics_exports.parse.base import (
    FRAME_ROWS,
    LONGEST_RECORD,
    MOST_COLUMNS,
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
    not_of,
    without_nul,
)
from tap_analytics_exports.parse.records import DELIMITER_LINE, LINE, Block, Malformed, record_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# What is made of a block takes many times its size, and three of them are on their way at once.
BLOCK = 5 << 19
LEAST_BLOCK = 1 << 16
# A bad row takes much more than its text; where there are more, records are taken off one by one.
MOST_BAD = 2 * FRAME_ROWS

MARK_CHARACTER = BOM_UTF8.decode()  # a byte order mark, if it is a file's first character


def frames(path: Path, dialect: Dialect) -> Iterator[TextFrame]:
    """The rows of a CSV file; see `tap_analytics_exports.parse.frames`."""
    if dialect.delimiter and not dialect.delimiter.isascii():
        raise ExportFailed(f"`delimiter`: {dialect.delimiter!r} is not an ASCII character")
    with Bytes(path) as source:
        kinds.check_csv(source.start, dialect.encoding)
        yield from _Reader(path, dialect, source).frames()
        source.warn_of_rest()


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path, dialect: Dialect, content: Bytes) -> None:
        self._path = path
        self._dialect = dialect
        self._source = Utf8(content, dialect.encoding)
        self._delimiter = dialect.delimiter or ","
        self._record = record_pattern(self._delimiter, dialect.quote)
        self._skip = dialect.skip_rows
        # Without the field that a delimiter at its end would add; as text, it is without its line break.
        self._header: tuple[str, ...] | None = None
        self._header_text = ""
        # How many fields a row has, and whether a row has shown that it has so many.
        self._width = 0
        self._settled = False
        self._rows = 0
        self._size = BLOCK
        # A line break, what is at hand, and another line break; in the same memory for all blocks, as new
        # memory of this size takes longer to get than to fill.
        self._buffer = bytearray(b"\n")
        self._start = self._end = 1
        self._by_record = False
        self._empty = True
        self._nul = False
        self._final = False

    def frames(self) -> Iterator[TextFrame]:
        empty = True
        for block in self._blocks():
            for frame in self._frames_of(block):
                yield frame
                empty = False
            del block  # or there would be two of them while the next one is made
        if empty and self._header is not None:
            names = map(str, range(len(self._header)))
            rows = pl.DataFrame(schema={**dict.fromkeys(names, pl.String), ROW_NUMBER: pl.Int64})
            yield TextFrame(self._header, rows, [])

    def _blocks(self, width: int | None = None) -> Iterator[Block]:
        """The file's records, in blocks; rows have so many fields, by default as many as the header."""
        while not self._final:
            self._read()
            if self._header is None and not self._take_header():
                continue
            self._by_record = False
            while True:
                data, malformed = self._take_records()
                rows, invalid = self._table(data, width or self._width)
                if len(invalid) > MOST_BAD:  # not all of them are there: fewer are taken at once
                    self._start -= len(data)
                    self._by_record = True
                    continue
                block = Block(data, rows, invalid, malformed)
                # What is not needed any more is not to stay beside what is made next.
                del data, rows, invalid, malformed
                yield block
                del block
                if not self._by_record:
                    break
        if self._start < self._end:
            where = f"after data row {self._rows}" if self._header else "in the header"
            raise ExportFailed(
                f"a quote opened {where} is never closed: the file is cut, or quotes within its fields are "
                "not doubled (if they are data, set the export's `quote` to an empty text)"
            )
        if self._header is None and self._dialect.skip_rows and not self._empty:
            raise ExportFailed(
                f"the file ends before its header: it has no line behind the {self._dialect.skip_rows} that "
                "`skip_rows` says"
            )

    @property
    def _data(self) -> memoryview:
        """What is at hand."""
        return memoryview(self._buffer)[self._start : self._end]

    def _read(self) -> None:
        """Add to what is at hand: a block, or as much again where one record fills it."""
        rest = bytes(self._data)
        if len(rest) > LONGEST_RECORD:
            where = "the header" if self._header is None else f"the record after data row {self._rows}"
            raise ExportFailed(
                f"{where} is longer than {LONGEST_RECORD >> 20} MiB: is one of its quotes never closed, or "
                "`delimiter`, `quote` or `encoding` another?"
            )
        block = self._source.read(min(max(self._size, len(rest)), BLOCK))
        self._final = not block
        self._empty = self._empty and self._final
        self._nul = b"\0" in rest or b"\0" in block
        between = 1 + len(rest)
        self._start, self._end = 1, between + len(block)
        if len(self._buffer) <= self._end:
            self._buffer = bytearray(self._end + 1)
        buffer = self._buffer
        buffer[0] = buffer[self._end] = ord("\n")
        buffer[1:between] = rest
        buffer[between : self._end] = block

    def _take_line(self) -> bytes | None:
        """Take a line off, without its end; None if it isn't there in full."""
        found = LINE.match(self._buffer, self._start, self._end)
        assert found  # matches always
        if not self._final and not found["end"].endswith(b"\n") and found.end() == self._end:
            return None  # a carriage return may be half of a line break
        self._start = found.end()
        return found["text"]

    def _take_header(self) -> bool:
        """Take the first record off, if it is there in full and not blank, and all that is before it."""
        while self._skip and self._start < self._end:
            skipped = self._take_line()
            if skipped is None:
                return False
            self._skip -= 1
            self._take_delimiter(skipped)
        data = bytes(self._data).lstrip(b"\r\n")
        self._start = self._end - len(data)
        found = self._record.match(data)
        if not data or not found or not (found["end"] or self._final):
            return False
        record = found[0][: len(found[0]) - len(found["end"])]
        self._start += found.end()
        if self._take_delimiter(record):
            return self._take_header()
        try:
            text = record.decode()
        except UnicodeDecodeError as error:
            raise not_encoded(self._source.encoding) from error
        if "\0" in text:
            raise not_encoded(self._source.encoding)
        if found["after"] or found["later"]:
            raise ExportFailed(f"the header has text after a closing quote: {text[:200]}")
        fields = self._fields(text)
        if len(fields) > MOST_COLUMNS:
            raise ExportFailed(
                f"the header has more than {MOST_COLUMNS} fields: is `delimiter` another, or the file of "
                f"another kind? It begins with {text[:100]!r}"
            )
        trailing = len(fields) > 1 and not fields[-1]
        self._header = fields[: len(fields) - trailing]
        self._header_text = text
        self._width = len(fields)
        return True

    def _take_delimiter(self, record: bytes) -> bool:
        """Whether this is a line that says the delimiter, which counts unless the settings have one."""
        found = DELIMITER_LINE.fullmatch(record)
        if not found:
            return False
        if not self._dialect.delimiter:
            delimiter = found[1].decode("utf-8", "replace")
            if len(delimiter) > 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
                raise ExportFailed(
                    f"the file says before its header that {delimiter!r} is its delimiter, which has to be "
                    "one ASCII character: set the export's `delimiter`"
                )
            self._delimiter = delimiter
            self._record = record_pattern(delimiter, self._dialect.quote)
        return True

    def _fields(self, text: str) -> tuple[str, ...]:
        """The fields of a header, to one more than there may be."""
        character = re.escape(self._delimiter)
        # The csv module refuses long fields, so it is not asked.
        pattern = (
            rf'(?:^|{character})("(?:[^"]|"")*"|[^{character}]*)'
            if self._dialect.quote
            else rf"(?:^|{character})([^{character}]*)"
        )
        found = (each[1] for each in islice(re.finditer(pattern, text), MOST_COLUMNS + 1))
        if not self._dialect.quote:
            return tuple(found)
        return tuple(field[1:-1].replace('""', '"') if field.startswith('"') else field for field in found)

    def _take_records(self) -> tuple[memoryview, list[Malformed]]:
        """Take all records off that are there in full.

        Returns:
            Those that are well formed, until the next block is read; and the others.
        """
        data = self._data
        quotes = self._quotes() if self._dialect.quote else 0
        if quotes is None or self._by_record:
            return self._walk(data)
        whole = data[: self._last_end(quotes) - self._start]
        if not is_utf8(whole):
            return self._walk(data)
        self._start += len(whole)
        return whole, []

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
        for character, last in ((b"\n", self._end), (b"\r", self._end - 1)):
            end = last
            before = quotes - self._buffer.count(b'"', end, self._end)
            while (index := self._buffer.rfind(character, self._start, end)) >= 0:
                before -= self._buffer.count(b'"', index, end)
                if before % 2 == 0 or not self._dialect.quote:
                    return index + 1
                end = self._buffer.rfind(b'"', self._start, index)  # all that is behind it is in its field
                before -= 1
        return self._start

    def _walk(self, data: memoryview) -> tuple[memoryview, list[Malformed]]:
        """Take records off one by one; `_by_record` is whether there may be more."""
        good: list[bytes] = []
        malformed: list[Malformed] = []
        at = 0
        self._by_record = False
        while at < len(data) and (found := self._record.match(data, at)):
            if len(good) + len(malformed) >= MOST_BAD:
                self._by_record = True
                break
            if not (found["end"] or self._final):
                break
            at = found.end()
            if found[0] == found["end"]:
                continue
            text = found[0].decode("utf-8", self._source.errors)
            wrong = not_of(self._source.encoding, text)
            if not wrong and (found["after"] or found["later"]):
                wrong = text, "text after a closing quote (if quotes are data, set the export's `quote`)"
            if wrong:
                shown, reason = wrong
                malformed.append(Malformed(len(good) + len(malformed), shown.rstrip("\r\n"), reason))
            else:
                good.append(found[0])
        self._start += at
        return memoryview(b"".join(good)), malformed

    def _frames_of(self, block: Block) -> Iterator[TextFrame]:
        """The frames of a block."""
        data, rows, invalid, malformed = block
        again = self._headers(rows)
        if not self._settled and self._has_another_width(rows.height - len(again), invalid):
            self._width = self._other_width
            rows, invalid = self._table(data, self._width)
            again = self._headers(rows)
        total = rows.height + len(invalid) + len(malformed)
        first = self._rows + 1
        numbers = pl.int_range(first, first + total, dtype=pl.Int64, eager=True).alias(ROW_NUMBER)
        bad = [BadRow(numbers[each.position], each.raw, each.reason) for each in malformed]
        numbers = _without(numbers, [each.position for each in malformed])
        width = self._width
        bad += [
            BadRow(
                numbers[row.number - 1], row.text, f"{row.actual_columns} fields, and the header has {width}"
            )
            for row in invalid
        ]
        rows = rows.hstack([_without(numbers, [row.number - 1 for row in invalid])])
        bad += [BadRow(rows[ROW_NUMBER][index], self._header_text, "the header again") for index in again]
        if again:
            rows = rows.filter(~pl.int_range(rows.height, eager=True).is_in(again))
        self._rows += total
        if total:  # the next block shall be a frame's, and a little less as rows are not all alike
            taken = len(data) + sum(len(each.raw) for each in malformed)
            self._size = min(max(taken * FRAME_ROWS // total * 9 // 10, LEAST_BLOCK), BLOCK)
        if self._nul:
            rows, more = without_nul(rows)
            bad += more
        bad.sort(key=lambda row: row.row_number)
        del data  # it may be large, and the frames take their time
        header, rows = self._named(rows)
        for offset in range(0, max(rows.height, bool(bad)), FRAME_ROWS):
            yield TextFrame(header, rows.slice(offset, FRAME_ROWS), [] if offset else bad)

    def _named(self, rows: pl.DataFrame) -> tuple[tuple[str, ...], pl.DataFrame]:
        """The header, and rows of its width: what delimiters add at the end of all rows is no column."""
        assert self._header is not None
        last = str(len(self._header))
        if last in rows.columns:
            if rows[last].null_count() == rows.height:
                return self._header, rows.drop(last)
            self._header = (*self._header, "")  # there is something in it, so it is one
        return self._header, rows

    @property
    def _other_width(self) -> int:
        """How many fields a row has if delimiters at the end add one to all rows, or to the header alone."""
        assert self._header is not None
        return 2 * len(self._header) + 1 - self._width

    def _has_another_width(self, good: int, invalid: Sequence[pc.InvalidRow]) -> bool:
        """Whether all rows of the file have the other width, as the first that can tell has it.

        Only if it has, the file is read a second time, ahead.
        """
        if not good and not any(self._is(row, self._other_width) for row in invalid):
            return False
        self._settled = True
        return not good and self._all_have(self._other_width)

    def _all_have(self, width: int) -> bool:
        """Whether no row has as many fields as the header, and one that delimiters add is always empty."""
        with Bytes(self._path) as content, suppress(ExportFailed):  # what is wrong is said when it is come to
            ahead = _Reader(self._path, self._dialect, content)
            for _, rows, invalid, _ in ahead._blocks(width):
                if any(self._is(row, self._width) for row in invalid):
                    return False
                if width > self._width and rows.to_series(self._width).null_count() < rows.height:
                    return False
        return True

    def _is(self, row: pc.InvalidRow, width: int) -> bool:
        """Whether it is a row of so many fields, and not the header again."""
        assert self._header is not None
        if row.actual_columns != width:
            return False
        return self._fields(row.text.removeprefix(MARK_CHARACTER)) not in (self._header, (*self._header, ""))

    def _headers(self, rows: pl.DataFrame) -> list[int]:
        """The indices of rows that are equal to the header, as where pages or files were put together."""
        assert self._header is not None
        words = [*self._header, ""][: self._width]
        column = rows.to_series(0)
        again = column == words[0] if words[0] else column.is_null()
        if not (again.any() or (column == MARK_CHARACTER + words[0]).any()):
            return []
        again |= column == MARK_CHARACTER + words[0]
        for column, word in zip(rows.get_columns()[1:], words[1:], strict=True):
            again &= column == word if word else column.is_null()
        return again.arg_true().to_list()

    def _table(self, data: memoryview, width: int) -> tuple[pl.DataFrame, list[pc.InvalidRow]]:
        """Parse records, well formed and in UTF-8; those of another width are put aside."""
        names = [str(position) for position in range(width)]
        invalid: list[pc.InvalidRow] = []
        if not data:
            return pl.DataFrame(schema=dict.fromkeys(names, pl.String)), invalid
        if bytes(data[: len(BOM_UTF8)]) == BOM_UTF8:  # pyarrow would take it off
            data = memoryview(BOM_UTF8 + bytes(data))

        def put_aside(row: pc.InvalidRow) -> str:
            if len(invalid) <= MOST_BAD:
                invalid.append(row)
            return "skip"

        quote = self._dialect.quote
        table = pc.read_csv(
            pa.BufferReader(data),
            # One block and one thread: only so are rows numbered.
            read_options=pc.ReadOptions(use_threads=False, block_size=len(data), column_names=names),
            parse_options=pc.ParseOptions(
                delimiter=self._delimiter,
                quote_char=quote or False,
                newlines_in_values=bool(quote),
                invalid_row_handler=put_aside,
            ),
            convert_options=pc.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )
        # Texts as polars has them: to make them so in polars takes longer, and other threads wait for it.
        return pl.DataFrame(table.cast(pa.schema([(name, pa.string_view()) for name in names]))), invalid


def _without(numbers: pl.Series, indices: Sequence[int]) -> pl.Series:
    if not indices:
        return numbers
    return numbers.filter(~pl.int_range(len(numbers), eager=True).is_in(list(indices)))
