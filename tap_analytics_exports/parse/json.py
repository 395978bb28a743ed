"""JSON arrays of objects as frames of text, streamed.

The standard library's decoder reads one element of the array after the other, out of a buffer that grows only
while an element is longer. ijson is not used: it ends the whole process on a number of 5,000 digits, takes
memory by the square of the depth, and puts a question mark where half of a surrogate pair stands.
"""

from __future__ import annotations

import codecs
import re
from json import JSONDecodeError, JSONDecoder
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import kinds
from tap_analytics_exports.parse.base import (
    FRAME_ROWS,
    MOST_COLUMNS,
    ROW_NUMBER,
    BadRow,
    Bytes,
    Dialect,
    NotWhole,
    TextFrame,
    Utf8,
    not_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 1 << 20
FRAME_CHARACTERS = 4 << 20
FRAME_CELLS = 1 << 21
# What is made of an element takes many times its size: characters, if need be of four bytes, and values.
LONGEST_ELEMENT = 8 << 20
MOST_VALUES = 500_000
# All keys of a file together.
LONGEST_HEADER = 4 << 20

_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
# An error this near to the end of the buffer may be due to a word or an escape that goes on behind it.
_LONGEST_TOKEN = 16
# What a literal, or the rest of a number, may be cut down to.
_HALF = re.compile(r"(?:t|tr|tru|f|fa|fal|fals|n|nu|nul|-|\.|[eE][+-]?)\Z")
_LONGEST_ESCAPE = len(r"\u0000")

CUT = "the file is cut: its JSON array has no closing bracket"


def frames(path: Path, dialect: Dialect) -> Iterator[TextFrame]:
    """The objects of a JSON array; see `tap_analytics_exports.parse.frames`.

    Numbers are as the file writes them, nested values compact JSON. A frame's header has the keys of its
    objects and of all before them, in the order of their appearance.
    """
    batch = _Batch({})
    first = True
    with Bytes(path) as source:
        for number, (value, text) in enumerate(elements(source, dialect.encoding), 1):
            batch.add(number, value, text)
            if batch.full:
                yield batch.frame()
                first = False
                batch = _Batch(batch.header, batch.letters)
        source.warn_of_rest()
    if first or batch.size:
        yield batch.frame()


def sources(frame: TextFrame, position: int) -> pl.Series:
    """A column as the JSON that the file has there, where a string is in quotes.

    What is null in the frame's rows is null, and so is what can't be read, as NaN and what is beside it.
    """
    texts = frame.rows[str(position)]
    assert frame.objects is not None
    key = frame.header[position]
    found = [
        None if text is None else _raw(frame.objects[number], key)
        for text, number in zip(texts, frame.rows[ROW_NUMBER], strict=True)
    ]
    return pl.Series(texts.name, found, pl.String)


class Invalid(NamedTuple):
    """In place of a value: why it can't be used, and how to show it."""

    why: str
    shown: str


class _Batch:
    """Elements that will be a frame.

    Args:
        header: The keys so far; those that are new are added.
        letters: How many characters they have together.
    """

    def __init__(self, header: dict[str, None], letters: int = 0) -> None:
        self.header = header
        self.letters = letters
        self.size = 0
        self._values: list[dict[str, str | None]] = []
        self._objects: dict[int, str] = {}
        self._bad: list[BadRow] = []

    @property
    def full(self) -> bool:
        rows = len(self._values) + len(self._bad)
        return self.size > FRAME_CHARACTERS or rows >= FRAME_ROWS or rows * len(self.header) > FRAME_CELLS

    def add(self, number: int, value: Any, text: str) -> None:
        self.size += len(text)
        if isinstance(value, Invalid):
            self._bad.append(BadRow(number, value.shown, value.why))
            return
        try:
            fields = _fields(value, text)
        except ValueError as error:
            self._bad.append(BadRow(number, text, str(error)))
            return
        except RecursionError:
            self._bad.append(BadRow(number, text, "a value that is nested too deeply"))
            return
        if not fields.keys() <= self.header.keys():
            new = [key for key in fields if key not in self.header]
            self.header.update(dict.fromkeys(new))
            self.letters += sum(map(len, new))
            if len(self.header) > MOST_COLUMNS or self.letters > LONGEST_HEADER:
                raise ExportFailed(
                    f"the objects of the JSON array have more than {MOST_COLUMNS} keys, or more than "
                    f"{LONGEST_HEADER >> 20} MiB of them, row {number} included: are its keys data?"
                )
        self._values.append(fields)
        self._objects[number] = text

    def frame(self) -> TextFrame:
        height = len(self._values)
        none = pl.Series([None], dtype=pl.String).new_from_index(0, height)
        here = {key for fields in self._values for key in fields}
        columns = [
            pl.Series(str(position), [fields.get(key) or None for fields in self._values], pl.String)
            if key in here
            else none.alias(str(position))
            for position, key in enumerate(self.header)
        ]
        numbers = pl.Series(ROW_NUMBER, list(self._objects), pl.Int64)
        rows = pl.DataFrame([*columns, numbers])
        return TextFrame(tuple(self.header), rows, self._bad, self._objects)


def elements(source: Bytes, encoding: str | None) -> Iterator[tuple[Any, str]]:
    """The elements of a JSON array.

    Raises:
        NotWhole: The document is cut.
        ExportFailed: It is no JSON array, or something follows it.

    Yields:
        Elements, numbers in them as text, each with its source; or `Invalid` in the place of one.
    """
    kinds.check_json(source.start, encoding)
    reader = _Reader(source, encoding)
    character = reader.character()
    if not character:
        raise ExportFailed("the file is empty: not even an empty JSON array, `[]`")
    if character != "[":
        raise ExportFailed("the file is no JSON array of objects: it does not begin with a bracket")
    reader.at += 1
    if reader.character() == "]":
        reader.at += 1
    else:
        while True:
            yield reader.element()
            character = reader.character()
            reader.at += 1
            if character == "]":
                break
            if not character:
                raise NotWhole(CUT)
            if character != ",":
                raise reader.failed("a comma or the closing bracket is missing", reader.at - 1)
    if reader.character():
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
        # Numbers stay the text that they are, and so may words that are no JSON.
        self._decode = JSONDecoder(
            object_pairs_hook=self._object, parse_float=str, parse_int=str, parse_constant=str
        ).raw_decode
        self._twice: str | None = None
        self._marked = False
        self._before = 0
        self._final = False
        self.text = ""
        self.at = 0

    def character(self) -> str:
        """What comes after any space; nothing: the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr] # matches always
            if self.at < len(self.text) or self._final:
                return self.text[self.at : self.at + 1]
            self._more()

    def element(self) -> tuple[Any, str]:
        """The value that comes next, and its source."""
        self.character()
        while True:
            self._twice = None
            try:
                value, end = self._decode(self.text, self.at)
            except JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string")
                missing = len(self.text.rstrip()) - error.pos
                if "escape" in error.msg:
                    unfinished = unfinished or missing <= _LONGEST_ESCAPE
                elif self._final:
                    unfinished = unfinished or _HALF.match(self.text, error.pos) is not None
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
                    return self._valid(value, text), text
            self._more()

    def failed(self, why: str, at: int) -> ExportFailed:
        """What to say of a document that is not JSON."""
        return ExportFailed(f"the file is not JSON, at character {self._before + at + 1}: {why}")

    def _valid(self, value: Any, text: str) -> Any:
        """The value, if nothing is wrong with it."""
        if self._twice is not None:
            return Invalid(f"the key {self._twice!r} twice in one object", text)
        if self._marked and (wrong := not_of(self._source.encoding, text)):
            shown, why = wrong
            return Invalid(why, shown)
        return value

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            self._twice = next(key for key in keys if keys.count(key) > 1)
        return found

    def _more(self) -> None:
        """Read on: a block, or more where one element fills it."""
        rest = self.text[self.at :]
        if len(rest) > LONGEST_ELEMENT:
            raise ExportFailed(
                f"an element of the JSON array is longer than {LONGEST_ELEMENT >> 20} million characters"
            )
        if len(rest) > BLOCK and sum(map(_STRINGS.sub("", rest).count, ",[{")) > MOST_VALUES:
            raise ExportFailed(f"an element of the JSON array has more than {MOST_VALUES} values")
        block = self._source.read(max(BLOCK, len(rest) // 4))
        self._final = not block
        try:
            more = self._characters.decode(block, self._final)
        except UnicodeDecodeError:
            self._marked = True
            self._characters.errors = self._source.errors
            more = self._characters.decode(block, self._final)
        self._before += self.at
        self.text = rest + more
        self.at = 0


def _fields(value: Any, text: str) -> dict[str, str | None]:
    """An object's values as text; ValueError says why there are none, RecursionError does if it is depth."""
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a value of the file, not of the program
    if "\\u" in text:
        _check("".join(_strings(value)))
    if not all(isinstance(each, str | None) for each in value.values()):
        exact = None
        for key, each in value.items():
            if isinstance(each, dict | list):
                exact = exact or _decode_raw(text)
                value[key] = msgspec.json.format(bytes(exact[key]), indent=-1).decode()
            elif isinstance(each, bool):
                value[key] = "true" if each else "false"
    return value


_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _raw(text: str, key: str) -> str | None:
    """What an object has at a key, as it is written there; None if it can't be read as JSON."""
    try:
        return bytes(_decode_raw(text)[key]).decode()
    except (msgspec.DecodeError, RecursionError):
        return None


def _check(text: str) -> None:
    """Refuse what only an escape can put into text, and no database takes."""
    if "\0" in text:
        raise ValueError("a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value:
            yield from _strings(each)
        if isinstance(value, dict):
            yield from _strings(list(value.values()))
