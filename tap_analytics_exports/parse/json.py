"""JSON arrays of objects as frames of text, streamed.

The standard library's decoder reads one element of the array after the other, out of a buffer that grows only
while an element is longer. ijson is not used: it ends the whole process on a number of 5,000 digits, takes
memory by the square of the depth, and puts a question mark where half of a surrogate pair stands.
"""

from __future__ import annotations

import codecs
import re
from decimal import Decimal, InvalidOperation
from json import JSONDecodeError, JSONDecoder
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import polars as pl

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
    not_encoded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 1 << 20
FRAME_CHARACTERS = 4 << 20

_SPACE = re.compile(r"[ \t\r\n]*")
# An error this near to the end of the buffer may be due to a word or an escape that goes on behind it.
_LONGEST_TOKEN = 16

CUT = "the file is cut: its JSON array has no closing bracket"


class NotWhole(ExportFailed):
    """The document ends before its closing bracket."""


def frames(path: Path, dialect: Dialect) -> Iterator[TextFrame]:
    """The objects of a JSON array; see `tap_analytics_exports.parse.frames`.

    Numbers are as the file writes them, nested values compact JSON. A frame's header has the keys of its
    objects and of all before them, in the order of their appearance.
    """
    header: dict[str, None] = {}
    batch = _Batch()
    first = True
    with Bytes(path) as source:
        for number, (value, text) in enumerate(elements(source, dialect.encoding), 1):
            batch.add(number, value, text)
            if batch.full:
                yield batch.frame(header)
                first = False
                batch = _Batch()
    if first or batch.size:
        yield batch.frame(header)


class _Batch:
    """Elements that will be a frame."""

    def __init__(self) -> None:
        self.size = 0
        self._objects: list[dict[str, str | None]] = []
        self._numbers: list[int] = []
        self._bad: list[BadRow] = []

    @property
    def full(self) -> bool:
        return self.size > FRAME_CHARACTERS or len(self._numbers) >= FRAME_ROWS

    def add(self, number: int, value: Any, text: str) -> None:  # noqa: ANN401 - any JSON value
        self.size += len(text)
        try:
            self._objects.append(_fields(value, text))
            self._numbers.append(number)
        except ValueError as error:
            self._bad.append(BadRow(number, text, str(error)))

    def frame(self, header: dict[str, None]) -> TextFrame:
        """The frame; keys that are new are added to the header."""
        for fields in self._objects:
            header.update(dict.fromkeys(fields))
        columns = [
            pl.Series(str(position), [fields.get(key) or None for fields in self._objects], pl.String)
            for position, key in enumerate(header)
        ]
        numbers = pl.Series(ROW_NUMBER, self._numbers, pl.Int64)
        return TextFrame(tuple(header), pl.DataFrame([*columns, numbers]), self._bad)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} in a nested value, which is not JSON")


# Numbers stay the text that they are; only within nested values do they have to be told from text.
_decode = JSONDecoder(parse_float=str, parse_int=str, parse_constant=str).raw_decode
_decode_nested = JSONDecoder(parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse).decode
_encode_nested = msgspec.json.Encoder(decimal_format="number").encode


def elements(source: Bytes, encoding: str | None) -> Iterator[tuple[Any, str]]:
    """The elements of a JSON array, numbers as text, each with its source.

    Raises:
        NotWhole: The document is cut.
        ExportFailed: It is no JSON array, or something follows it.
    """
    reader = _Reader(source, encoding)
    sign = reader.sign()
    if not sign:
        raise ExportFailed("the file is empty: not even an empty JSON array, `[]`")
    if sign != "[":
        raise ExportFailed("the file is not a JSON array of objects: it does not begin with a bracket")
    reader.at += 1
    if reader.sign() == "]":
        reader.at += 1
    else:
        while True:
            yield reader.element()
            sign = reader.sign()
            reader.at += 1
            if sign == "]":
                break
            if not sign:
                raise NotWhole(CUT)
            if sign != ",":
                raise reader.failed("a comma or the closing bracket is missing", reader.at - 1)
    if reader.sign():
        raise ExportFailed("the file has something behind the closing bracket of its JSON array")


class _Reader:
    """A document, of which a part is at hand.

    Attributes:
        text: That part.
        at: Where in it reading has come.
    """

    def __init__(self, source: Bytes, encoding: str | None) -> None:
        self._source = Utf8(source, encoding)
        self._characters = codecs.getincrementaldecoder("utf-8")()
        self._before = 0
        self._final = False
        self.text = ""
        self.at = 0

    def sign(self) -> str:
        """What comes after any space; nothing: the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr] # matches always
            if self.at < len(self.text) or self._final:
                return self.text[self.at : self.at + 1]
            self._more()

    def element(self) -> tuple[Any, str]:
        """The value that comes next, and its source."""
        self.sign()
        while True:
            try:
                value, end = _decode(self.text, self.at)
            except JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string")
                missing = len(self.text.rstrip()) - error.pos
                if self._final and (unfinished or missing <= 0):
                    raise NotWhole(CUT) from None
                if self._final or not (unfinished or missing <= _LONGEST_TOKEN):
                    raise self.failed(error.msg, error.pos) from None
            except RecursionError:
                raise self.failed("nested too deeply", self.at) from None
            else:
                if end < len(self.text) or self._final:
                    text = self.text[self.at : end]
                    self.at = end
                    return value, text
            self._more()

    def failed(self, why: str, at: int) -> ExportFailed:
        """What to say of a document that is not JSON."""
        return ExportFailed(f"the file is not JSON, at character {self._before + at + 1}: {why}")

    def _more(self) -> None:
        """Read on: a block, or as much again where one element fills it."""
        rest = self.text[self.at :]
        if len(rest) > LONGEST_RECORD:
            raise ExportFailed(f"an element of the JSON array is longer than {LONGEST_RECORD >> 20} MiB")
        block = self._source.read(max(BLOCK, len(rest)))
        self._final = not block
        try:
            more = self._characters.decode(block, self._final)
        except UnicodeDecodeError as error:
            raise not_encoded(self._source.encoding) from error
        self._before += self.at
        self.text = rest + more
        self.at = 0


def _fields(value: Any, text: str) -> dict[str, str | None]:  # noqa: ANN401 - any JSON value
    """An object's values as text; ValueError says why there are none."""
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a value of the file, not of the program
    if "\\u" in text:
        _check("".join(_strings(value)))
    if not all(isinstance(each, str | None) for each in value.values()):
        try:
            exact = _decode_nested(text)
            for key, each in value.items():
                if isinstance(each, dict | list):
                    value[key] = _encode_nested(exact[key]).decode()
                elif isinstance(each, bool):
                    value[key] = "true" if each else "false"
        except (RecursionError, InvalidOperation):
            raise ValueError("a value that is nested too deeply, or an exponent that is too large") from None
    return value


def _check(text: str) -> None:
    """Refuse what only an escape can put into text, and no database takes."""
    if "\0" in text:
        raise ValueError("a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value:
            yield from _strings(each)
        if isinstance(value, dict):
            yield from _strings(list(value.values()))
