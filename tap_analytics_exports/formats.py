"""How columns may be written: `strptime` patterns, time zones, numbers; checked with the settings.

A pattern is translated into one regular expression with named groups, so that what is accepted is Python's
`strptime` and nothing more lenient, but for a fraction with more than six digits, of which those beyond the
sixth are zeros, or cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

OFFSET = "Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_DIRECTIVES = {
    "Y": "(?P<Y>[0-9]{4})",
    "y": "(?P<y>[0-9]{2})",
    "m": "(?P<m>1[0-2]|0[1-9]|[1-9])",
    "d": "(?P<d>3[01]|[12][0-9]|0[1-9]|[1-9]| [1-9])",
    "H": "(?P<H>2[0-3]|[01][0-9]|[0-9])",
    "I": "(?P<I>1[0-2]|0[1-9]|[1-9])",
    "M": "(?P<M>[0-5][0-9]|[0-9])",
    "S": "(?P<S>[0-5][0-9]|[0-9])",
    "f": "(?P<f>[0-9]+)",
    "p": "(?P<p>AM|PM)",
    "b": f"(?P<b>{'|'.join(month[:3] for month in MONTHS)})",
    "B": f"(?P<B>{'|'.join(MONTHS)})",
    "a": f"(?:{'|'.join(day[:3] for day in _DAYS)})",
    "A": f"(?:{'|'.join(_DAYS)})",
    "z": f"(?P<z>{OFFSET})",
    "Z": "(?P<Z>UTC|GMT)",
    "%": "%",
}
EPOCHS = {"epoch_seconds": 6, "epoch_milliseconds": 3}
"""Formats of timestamps that are numbers, with the digits after their point down to microseconds."""

SPACES = " \u00a0\u202f\u2009"
"""What stands between thousands where a setting has a space."""

_SHORTHANDS = {"%F": "%Y-%m-%d", "%T": "%H:%M:%S", "%R": "%H:%M", "%D": "%m/%d/%y"}


def column_problems(
    kind: str,
    *,
    format: str | None,  # noqa: A002 - the setting's name
    timezone: str | None,
    thousands: str | None,
    name: str | None,
    decimal: str,
    strip: str,
    truncate: bool,
) -> Iterator[tuple[str, str]]:
    """What of a column's settings can't be used to read text, as (key, words).

    Args:
        kind: The column's `type`.
        format: See `settings.Column`, as for all others.
        timezone: Of timestamps.
        thousands: Of numbers.
        name: The property to become.
        decimal: Of numbers; `.` also where it is not given.
        strip: Of numbers.
        truncate: Of timestamps.
    """
    numeric = ("integer", "number", "decimal")
    fits = {
        "format": (format is not None, ("date", "timestamp")),
        "timezone": (timezone is not None, ("timestamp",)),
        "thousands": (bool(thousands), numeric),
        "decimal": (decimal != ".", numeric),
        "strip": (bool(strip), numeric),
        "truncate": (truncate, ("timestamp",)),
    }
    for key, (given, kinds) in fits.items():
        if given and kind not in kinds:
            yield key, f"is for the type {' or '.join(kinds)}, and the column's is {kind}"
    if timezone and (words := zone_problem(timezone)):
        yield "timezone", words
    if format is not None and (words := format_problem(format, kind)):
        yield "format", words
    if thousands and (len(thousands) > 1 or thousands.isalnum() or thousands in "+-"):
        yield "thousands", "must be one character, and no digit, letter, plus or minus"
    if len(decimal) != 1 or decimal.isalnum() or decimal.isspace() or decimal in "+-":
        yield "decimal", "must be one character, and no digit, letter, space, plus or minus"
    elif decimal == thousands and decimal != ".":
        yield "decimal", "must be another character than `thousands`"
    if wrong := [
        each for each in strip if each.isnumeric() or each in ("+", "-", "(", ")", decimal, thousands)
    ]:
        yield (
            "strip",
            (
                f"has {wrong[0]!r}, which may be part of a number: no digit, plus, minus, `decimal`, "
                "`thousands`, or parenthesis, in which some write what is below zero"
            ),
        )
    if name is not None and (name.startswith("_sdc_") or not name.isprintable() or not name.strip()):
        yield "name", "must be of printable characters, not only spaces, and not begin with _sdc_"


def name_problems(names: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """Which columns have a `name` that is another's, as (column, words), by the columns' `name`s."""
    first: dict[str, str] = {}
    for column, name in names.items():
        if name is None:
            continue
        if first.setdefault(name, column) != column:
            yield column, f"{name!r} is already the name of {first[name]!r}"
        elif name != column and name in names:
            yield column, f"{name!r} is another column of `columns`"


def format_problem(form: str, kind: str = "timestamp") -> str | None:
    """What is wrong with a format for a `date` or a `timestamp`, in words; none: nothing."""
    if form in EPOCHS:
        return None if kind == "timestamp" else f"{form} is for the type timestamp"
    try:
        fields = re.compile(pattern_of(form)).groupindex.keys()
    except re.error:
        return "names a part twice"
    except KeyError as error:
        return f"has %{error.args[0]}, which is not supported; known are %{' %'.join(_DIRECTIVES)}"
    for parts, words in (("Yy", "year, %Y or %y"), ("mbB", "month, %m, %b or %B"), ("d", "day, %d")):
        if sum(part in fields for part in parts) != 1:
            return f"needs one {words}"
    if ("I" in fields) != ("p" in fields) or ("I" in fields and "H" in fields):
        return "needs %H, or %I with %p"
    return None


def zone_problem(zone: str) -> str | None:
    """Why a time zone can't be used, in words; none: it can."""
    try:
        ZoneInfo(zone)
        known = zone in (resources.files("tzdata") / "zones").read_text().split() and zone != "Factory"
    except (ValueError, OSError, KeyError):
        known = False
    if not known:
        return f"{zone!r} is not the name of a time zone that has rules, such as Europe/Helsinki"
    return None


@lru_cache
def pattern_of(form: str) -> str:
    """The regular expression of a `strptime` pattern; KeyError for a directive that is not supported."""
    for shorthand, meaning in _SHORTHANDS.items():
        form = form.replace(shorthand, meaning)
    form = form.replace("%.f", "%@")  # as some write a fraction with its dot
    pieces = []
    for directive, spaces, literal in re.findall(r"%-?(.|$)|(\s+)|([^%\s]+)", form):
        if directive == "@":
            pieces.append(f"(?:[.]{_DIRECTIVES['f']})?")
        elif spaces:
            pieces.append(r"\s+")
        else:
            pieces.append(re.escape(literal) if literal else _DIRECTIVES[directive])
    return f"(?i)^(?:{''.join(pieces)})$"
