"""How a text may be read: as it stands, with escapes decoded, without white space, as Base64.

Each character of a reading knows which part of the text it comes from.
"""

from __future__ import annotations

import binascii
import html
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

_PASSES = 6
"""How often an escape may be escaped itself."""

_HEX = "[0-9a-fA-F]"
_ESCAPE = re.compile(
    rf"%[0-7]{_HEX}|(?:%[89a-fA-F]{_HEX})+"
    rf"|\\x[0-7]{_HEX}|(?:\\x[89a-fA-F]{_HEX})+"
    rf"|\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}|\\u{_HEX}{{4}}|\\U{_HEX}{{8}}|\\u\{{{_HEX}{{1,6}}\}}"
    r"|(?:\\[0-3][0-7]{2})+|\\."
    rf"|&(?:\#[0-9]{{1,7}}|\#[xX]{_HEX}{{1,6}}|[a-zA-Z][a-zA-Z0-9]{{1,31}});",
    re.DOTALL,
)
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_FOLDED = re.compile(r"[\s+\\]")  # in forms, a space is a plus; a backslash may escape what follows a secret
_BASE64 = re.compile(r"[\w+/-]{11,}(?:\s{1,3}[\w+/-]{11,})*(?:\s{1,3}[\w+/-]{1,10})?", re.ASCII)
_MARKS = str.maketrans("", "", r"%\xuU{}")
_GAP = "\0"
_URL_SAFE = str.maketrans("-_", "+/")


Span = tuple[int, int]


class Reading(NamedTuple):
    """A text as somebody may read it; `origin` tells where in the original a span of it comes from."""

    text: str
    origin: Callable[[int, int], Span]


def as_is(text: str) -> Reading:
    """Read a text as it stands."""
    return Reading(text, lambda start, end: (start, end))


def readings(reading: Reading) -> Iterator[Reading]:
    """A text as it is, and after each round of decoding its escapes, for they may be escaped themselves."""
    yield reading
    for _ in range(_PASSES):
        decoded = _decoded(reading)
        if decoded is reading:
            return
        reading = decoded
        yield reading


def _decoded(reading: Reading) -> Reading:
    """Decode all escapes once; the same reading where there are none."""
    # What is literal and what is an escape take turns.
    pieces: list[str] = []
    ends: list[int] = []  # of the pieces, here and in the reading
    old_ends: list[int] = []
    length = old_length = 0
    for escape in _ESCAPE.finditer(reading.text):
        literal, meant = reading.text[old_length : escape.start()], _unescaped(escape[0])
        pieces += [literal, meant]
        ends += [length + len(literal), length := length + len(literal) + len(meant)]
        old_ends += [escape.start(), old_length := escape.end()]
    if not pieces:
        return reading
    text = "".join([*pieces, reading.text[old_length:]])
    if text == reading.text:
        return reading

    def where(at: int, to: int) -> int:
        """Where a character begins (`to` is 0) or ends (1); those of an escape are one."""
        piece = bisect_right(ends, at)
        if piece % 2:
            return old_ends[piece - 1 + to]
        return (old_ends[piece - 1] - ends[piece - 1] if piece else 0) + at + to

    return Reading(text, lambda start, end: reading.origin(where(start, 0), where(end - 1, 1)))


def _unescaped(escape: str) -> str:
    """What one escape means."""
    character, kind = escape[0], escape[1]
    if character == "&":
        return html.unescape(escape)
    if character == "\\" and len(escape) == len(r"\n"):
        return _CONTROL.get(kind, kind)
    if character == "%" or kind == "x":
        return _decode(bytes.fromhex(escape.translate(_MARKS)))
    if kind == "U" or escape.startswith("\\u{"):
        return chr(min(int(escape.translate(_MARKS), 16), sys.maxunicode))
    if kind == "u":
        return bytes.fromhex(escape.translate(_MARKS)).decode("utf-16-be", "surrogatepass")
    return _decode(bytes(int(octal, 8) for octal in escape.split("\\")[1:]))


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def without_folds(reading: Reading) -> Reading:
    """Without white space, and what stands for it."""
    text = _FOLDED.sub("", reading.text)
    if text == reading.text:
        return reading

    @cache
    def kept() -> list[int]:
        folds = set(_FOLDED.findall(reading.text))
        return [i for i, character in enumerate(reading.text) if character not in folds]

    return Reading(text, lambda start, end: reading.origin(kept()[start], kept()[end - 1] + 1))


def from_base64(reading: Reading) -> Iterator[Reading]:
    """What Base64 says, from each of the four characters at which it may begin; a byte is a character."""
    runs = list(_BASE64.finditer(reading.text))
    if runs:
        yield from (_from_base64(reading, runs, skipped) for skipped in range(4))


def _from_base64(reading: Reading, runs: Sequence[re.Match[str]], skipped: int) -> Reading:
    pieces: list[str] = []
    starts: list[int] = []
    length = 0
    for run in runs:
        letters = "".join(run[0].split())[skipped:].translate(_URL_SAFE)
        letters = letters[: len(letters) - (len(letters) % 4 == 1)]
        data = binascii.a2b_base64(letters + "=" * (-len(letters) % 4))
        pieces.append(data.decode("latin-1"))
        starts.append(length)
        length += len(data) + len(_GAP)

    @cache
    def positions(number: int) -> list[int]:
        run = runs[number]
        return [i for i in range(*run.span()) if not reading.text[i].isspace()][skipped:]

    def where(at: int, bits: int) -> int:
        """Where the letter is that holds a bit of a byte."""
        number = bisect_right(starts, at) - 1
        return positions(number)[min((8 * (at - starts[number]) + bits) // 6, len(positions(number)) - 1)]

    return Reading(
        _GAP.join(pieces), lambda start, end: reading.origin(where(start, 0), where(end - 1, 7) + 1)
    )
