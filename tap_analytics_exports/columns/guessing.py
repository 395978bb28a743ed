"""Which type a column may have, by the values that were seen: no guess that one of them contradicts.

A guess is held against the casting itself, and what may be read in two ways is a string, with a note.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

import polars as pl

from tap_analytics_exports.columns.casting import cast
from tap_analytics_exports.columns.naming import Bound
from tap_analytics_exports.formats import SPACES, pattern_of
from tap_analytics_exports.parse import ROW_NUMBER, TextFrame
from tap_analytics_exports.settings import Column, ColumnKind

TEXT = Column("string")

_FIRST = 50  # values against which a guess is held first, as most guesses fail with them
_DOUBLE_DIGITS = 15  # significant digits that a double keeps, whatever they are

_TRUTHS = ({"true", "false"}, {"true"}, {"false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
_IDENTIFIER = re.compile(r"(?:^|[^a-z])(?:id|uuid|guid|key|code|phone|zip|postcode|sku)$")
_TIME = re.compile(r"time|date|epoch|created|modified|updated|_at$| at$", re.IGNORECASE)
_EPOCHS = {"epoch_seconds": r"1[0-9]{9}", "epoch_milliseconds": r"1[0-9]{12}"}  # of 2001 to 2033
# Thousands and decimal.
_WAYS: list[tuple[str | None, str]] = [
    (None, "."), (",", "."), (".", ","), (None, ","), (" ", "."), (" ", ","), ("'", "."),
]  # fmt: skip

_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S")
# The same text may be of both of a pair.
_PAIRS = [
    (f"%d{between}%m{between}%{year}", f"%m{between}%d{between}%{year}")
    for between, year in product("/.-", "Yy")
]
_PLAIN = ["%Y/%m/%d", "%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"]


@dataclass(frozen=True, slots=True)
class Guess:
    """What a column may be.

    Attributes:
        column: Its type, as which the tap reads every value that was seen.
        note: What the values leave open, in words; empty: nothing.
    """

    column: Column
    note: str = ""


class Seen:
    """The values of a column that were seen.

    Args:
        header: The file's word for the column.
        texts: Its values, null where a field is empty.
        timezone: In which timestamps are read that don't say theirs.
        dated: As in `TextFrame`.
    """

    def __init__(self, header: str, texts: pl.Series, timezone: str, *, dated: bool = False) -> None:
        self.texts = texts.drop_nulls()
        self._header = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", header).lower()
        self._timezone = timezone
        self._dated = dated

    def fits(self, column: Column) -> bool:
        """Whether the tap reads each value as of this type."""
        return self._fits(column, self.texts.head(_FIRST)) and self._fits(column, self.texts)

    def _fits(self, column: Column, texts: pl.Series) -> bool:
        rows = pl.DataFrame({"0": texts, ROW_NUMBER: pl.int_range(len(texts), eager=True)})
        _, bad = cast(
            TextFrame(("x",), rows, [], dated=self._dated),
            [Bound(0, "x", column)],
            primary_keys=(),
            timezone=self._timezone,
            null_values=(),
            excluded=None,
        )
        return not bad

    def every(self, pattern: str) -> bool:
        """Whether each value is written in a way."""
        return bool(self.texts.str.contains(f"^(?:{pattern})$").all())

    def some(self, pattern: str) -> bool:
        """Whether some value has a part that is written in a way."""
        return bool(self.texts.str.contains(pattern).any())

    def guess(self) -> Guess:
        """Find the narrowest type that all values have, as long as they can't be meant otherwise."""
        if not len(self.texts):
            return Guess(TEXT, "no value was seen")
        for found in (self._truth, self._number, self._date, self._document):
            if (guess := found()) is not None:
                return guess
        return Guess(TEXT)

    def _truth(self) -> Guess | None:
        words = set(self.texts.str.to_lowercase().unique())
        return Guess(Column("boolean")) if words in _TRUTHS and self.fits(Column("boolean")) else None

    # Numbers

    def _number(self) -> Guess | None:
        """Numbers, perhaps with a sign of a currency or of percents, or with groups of digits."""
        strip = "".join(sign for sign in "%$€£" if self.some(re.escape(sign)))
        if not self.some("[0-9]") or (strip and not self.every(f"[^{strip}]*[{strip}][^{strip}]*")):
            return None  # where some have no sign, or two, it is no unit
        ways = [
            way
            for way in _WAYS
            if (way == _WAYS[0] or self.some(f"[{_signs(way[0] or way[1])}]"))
            and self.fits(_written("number", way, strip))
        ]
        if not ways:
            return None
        for sign in ",.":
            if self.some(f"[{sign}]") and len({way.index(sign) for way in ways if sign in way}) > 1:
                return Guess(TEXT, f"1{sign}234 might be 1234, or 1 and a fraction: set thousands or decimal")
        digits = self.texts.str.replace("[eE].*$", "").str.replace_all("[^0-9]", "").str.len_chars().max()
        exact = isinstance(digits, int) and digits <= _DOUBLE_DIGITS
        kinds: list[ColumnKind] = ["integer", "number" if exact else "decimal", "number"]
        column = next(each for kind in kinds if self.fits(each := _written(kind, ways[0], strip)))
        return self._no_identifier(column)

    def _no_identifier(self, column: Column) -> Guess:
        if _IDENTIFIER.search(self._header):
            return Guess(TEXT, "only numbers were seen, but its name is that of an identifier")
        for form, pattern in _EPOCHS.items():
            timestamp = Column("timestamp", format=form)
            if column.type == "integer" and self.every(pattern) and self.fits(timestamp):
                named = _TIME.search(self._header) is not None
                return Guess(timestamp) if named else Guess(column, f"might be a timestamp, {form}")
        return Guess(column)

    # Dates and timestamps

    def _date(self) -> Guess | None:
        """Dates and timestamps."""
        if not self.some("[0-9]"):
            return None
        if self.fits(Column("date")):
            return Guess(Column("date"))
        for column in (Column("timestamp"), Column("timestamp", truncate=True)):
            if self.fits(column):
                return self._zoned(column, zone=self.every(r".*(?:[Zz]|UTC|utc|[+-][0-9]{2}(?::?[0-9]{2})?)"))
        return self._formatted_date()

    def _formatted_date(self) -> Guess | None:
        """Dates and timestamps that are not written as in ISO 8601."""
        for time in _TIMES:
            kind: ColumnKind = "timestamp" if time else "date"
            for pair in _PAIRS:
                fitting = [form + time for form in pair if self._fits_form(kind, form + time)]
                if len(fitting) == 2:
                    return Guess(TEXT, f"{kind} whose order can't be known: format {' or '.join(fitting)}")
                if fitting:
                    return self._zoned(Column(kind, format=fitting[0]))
            plain = next((form for form in _PLAIN if self._fits_form(kind, form + time)), None)
            if plain is not None:
                return self._zoned(Column(kind, format=plain + time))
        return None

    def _fits_form(self, kind: ColumnKind, form: str) -> bool:
        written = re.match(pattern_of(form), self.texts[0]) is not None
        return written and self.fits(Column(kind, format=form))

    def _zoned(self, column: Column, *, zone: bool = False) -> Guess:
        if column.type == "date" or zone:
            return Guess(column)
        return Guess(column, f"says no time zone: read in {self._timezone}")

    def _document(self) -> Guess | None:
        return Guess(Column("json")) if self.every(r"(?s)\s*[\[{].*") and self.fits(Column("json")) else None


def _written(kind: ColumnKind, way: tuple[str | None, str], strip: str) -> Column:
    return Column(kind, thousands=way[0], decimal=way[1], strip=strip)


def _signs(sign: str) -> str:
    return re.escape(SPACES if sign == " " else sign)
