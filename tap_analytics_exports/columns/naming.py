"""Headers become property names that are unique, and stay for the life of a stream."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from tap_analytics_exports.settings import Column

Style = Literal["snake_case", "original"]

OWN_PREFIX = "_sdc_"

_REPEATED = "\x1f"  # between a header and its number, in a text that JSON and databases can hold


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a header.

    Attributes:
        position: In the header, from 0.
        text: The file's own.
        key: What tells it from all other columns of all headers, and what a state remembers it by: the text;
            where a header repeats, from the second time on, the text, the character U+001F and the number.
    """

    position: int
    text: str
    key: str


def fields_of(header: Iterable[str]) -> list[Field]:
    """The columns of a header, in its order."""
    times: Counter[str] = Counter()
    fields = []
    for position, text in enumerate(header):
        times[text] += 1
        plain = times[text] == 1 and _REPEATED not in text
        fields.append(Field(position, text, text if plain else f"{text}{_REPEATED}{times[text]}"))
    return fields


def loose(text: str) -> str:
    """What is the same for texts that differ in case, or in surrounding or repeated white space, alone."""
    return " ".join(text.split()).casefold()


def stem_of(field: Field, style: Style) -> str:
    """The name that a column would have if it stood alone."""
    if not any(map(_speaks, field.text)):
        return f"column_{field.position + 1}"
    return _snake_case(field.text) if style == "snake_case" else field.text


def is_plain(text: str, style: Style) -> bool:
    """Whether nothing of a header but case and white space is lost in its property."""
    kept = style == "original" or all(_speaks(each) or each.isspace() or each == "_" for each in text)
    return kept and any(map(_speaks, text))


class Bound(msgspec.Struct, frozen=True):
    """A column of a file, bound to what it becomes.

    Attributes:
        position: In the header, from 0.
        name: Of the property.
        column: Its type.
        required: Whether a row without it is a bad one.
    """

    position: int
    name: str
    column: Column
    required: bool = False


class Names:
    """The property of each column that a stream has had.

    A name that was given to one is never given to another. Where several would derive the same, the plainest
    has it, of which the least was changed, then the first; the others get `_2`, `_3`.

    Attributes:
        given: Key of a column to its property.
        taken: All properties that are given or reserved.

    Args:
        style: How headers become property names.
        remembered: What an earlier life's `to_remember` was; what can't have been derived in this style is
            left aside, so that a state can't give the tap's own names away.
    """

    def __init__(self, style: Style, remembered: Mapping[str, str]) -> None:
        self.style = style
        self.given: dict[str, str] = {}
        self.taken: set[str] = set()
        for key, name in remembered.items():
            text, _, times = key.rpartition(_REPEATED)
            field = Field(0, text if text or times != key else key, key)
            if isinstance(name, str) and name not in self.taken and self._derives(field, name):
                self.give(key, name)

    def plain_stem(self, text: str) -> str | None:
        """What is derived from a header, if it loses nothing by it."""
        return stem_of(Field(0, text, text), self.style) if is_plain(text, self.style) else None

    def give(self, key: str, name: str) -> None:
        """Let a column have a property, and nobody else."""
        self.given[key] = name
        self.taken.add(name)

    def to_remember(self, field: Field, name: str) -> bool:
        """Whether nothing but memory tells which property a column has.

        A header of which only case or white space is changed would have the same name in any company but
        that of its like.
        """
        plain = field.key == field.text and is_plain(field.text, self.style)
        return self._derives(field, name) and not (plain and name == stem_of(field, self.style))

    def plainest(self, fields: Iterable[Field]) -> dict[str, Field]:
        """Of columns that derive the same name, the one to have it, by that name."""
        best: dict[str, tuple[tuple[bool, bool, bool, int], Field]] = {}
        for field in fields:
            stem = stem_of(field, self.style)
            changed = sum(not (c == "_" or (_speaks(c) and c == c.lower())) for c in field.text)
            rank = (
                field.key != field.text,
                field.text != stem,
                not is_plain(field.text, self.style),
                changed,
            )
            if stem not in best or rank < best[stem][0]:
                best[stem] = (rank, field)
        return {stem: field for stem, (_, field) in best.items()}

    def derive(self, fields: Sequence[Field], free: Collection[str] = ()) -> dict[str, str]:
        """Properties for columns that have none yet, by key; they are not given by this.

        Args:
            fields: Columns of one header.
            free: Names that are reserved, and these columns may have all the same.
        """
        taken = self.taken.difference(free)
        names = {}
        for stem, field in self.plainest(fields).items():
            if stem not in taken and not stem.startswith(OWN_PREFIX):
                names[field.key] = stem
        taken.update(names.values())
        last: dict[str, int] = {}
        for field in fields:
            if field.key in names:
                continue
            stem = stem_of(field, self.style)
            number = last.get(stem, 1) + 1
            while f"{stem}_{number}" in taken:
                number += 1
            last[stem] = number
            names[field.key] = f"{stem}_{number}"
            taken.add(names[field.key])
        return {field.key: names[field.key] for field in fields}

    def _derives(self, field: Field, name: str) -> bool:
        """Whether a name is the column's, with or without a number behind it."""
        stem = re.escape(stem_of(field, self.style))
        if not any(map(_speaks, field.text)):
            stem = "column_[1-9][0-9]*"
        number = "(?:_[1-9][0-9]*)" + ("" if stem.startswith(OWN_PREFIX) else "?")
        return re.fullmatch(stem + number, name) is not None


def _speaks(character: str) -> bool:
    """Letters, digits, and the marks that some scripts write vowels with."""
    return unicodedata.category(character)[0] in "LNM"


def _snake_case(word: str) -> str:
    text = "".join(each if _speaks(each) else " " for each in word)
    pieces: list[str] = []
    for index, each in enumerate(text):
        before, after = text[index - 1 : index], text[index + 1 : index + 2]
        if each.isupper() and (
            before.islower() or before.isnumeric() or (before.isupper() and after.islower())
        ):
            pieces.append(" ")
        pieces.append(each)
    return "_".join("".join(pieces).lower().split())
