"""How dates and timestamps may be written: `strptime` patterns and time zones, checked with the settings.

A pattern is translated into one regular expression with named groups, so that what is accepted is Python's
`strptime` and nothing more lenient, but for a fraction with up to nine digits, of which those beyond the
sixth are zeros.
"""

from __future__ import annotations

import re
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
    "f": "(?P<f>[0-9]{1,9})",
    "p": "(?P<p>AM|PM)",
    "b": f"(?P<b>{'|'.join(month[:3] for month in MONTHS)})",
    "B": f"(?P<B>{'|'.join(MONTHS)})",
    "a": f"(?:{'|'.join(day[:3] for day in _DAYS)})",
    "A": f"(?:{'|'.join(_DAYS)})",
    "z": f"(?P<z>{OFFSET})",
    "Z": "(?P<Z>UTC|GMT)",
    "%": "%",
}
_SHORTHANDS = {"%F": "%Y-%m-%d", "%T": "%H:%M:%S", "%R": "%H:%M", "%D": "%m/%d/%y"}


def format_problem(form: str) -> str | None:
    """What is wrong with a `strptime` pattern, in words; none: nothing."""
    try:
        fields = re.compile(pattern_of(form)).groupindex.keys()
    except re.error:
        return "names a part twice"
    except KeyError as error:
        return f"has %{error.args[0]}, which is not supported; known are %{' %'.join(_DIRECTIVES)}"
    for parts, words in (("Yy", "year"), ("mbB", "month"), ("d", "day")):
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
