"""Columns, and cells of them, of which is known what has to come out: as Python reads them, not the tap."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

BAD = object()
"""The value of a cell that makes its row a bad one."""

NULLS = ["--", "N/A"]

# Property, and headers that derive it; the plainest first, which has it if it is not another's.
FAMILIES = [
    ("call_id", ["Call Id"]),
    ("calls", ["calls", "Calls", "CALLS", "calls!"]),
    ("agent_näme", ["Agent Näme"]),
    ("total", ["total", "Total (%)"]),
    ("when", ["When"]),
    ("größe", ["größe", "Größe"]),
    ("x_y", ["x y", "X-Y"]),
    ("n", ["n"]),
]
KINDS = ["string", "integer", "number", "decimal", "boolean", "date", "timestamp", "json"]
ZONES = ["Europe/Helsinki", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

CHARACTERS = "abcXYZ 019,;|\t\"'\r\n=<{\\/\x01\x0b\x0c\x1c\x85é\u00a0€中𝄞\u200b\ufeff\u2028"


class Cell(NamedTuple):
    """A value in a file.

    Attributes:
        text: As text; empty: null.
        value: What it has to become, None: null; or BAD.
        native: How a workbook or JSON may have it that is no text; None: it may not.
    """

    text: str
    value: Any
    native: Any = None


NULL = Cell("", None)


@dataclass
class Column:
    """A column of a file."""

    header: str
    family: str
    kind: str = "string"
    options: dict[str, Any] = field(default_factory=dict)
    declared: bool = False
    excluded: bool = False
    key: bool = False
    name: str = ""

    @property
    def setting(self) -> Any:
        return {"type": self.kind, **self.options} if self.options else self.kind


# Columns


@st.composite
def columns(draw: Any, *, collide: bool) -> list[Column]:
    """Some columns, in their order, with the properties that they have to become."""
    found: list[Column] = []
    for family, headers in draw(
        st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=5, unique_by=lambda f: f[0])
    ):
        texts = draw(st.lists(st.sampled_from(headers), min_size=1, max_size=3 if collide else 1))
        found += [Column(text, family) for text in texts]
    found = draw(st.permutations(found))
    for family in {each.family for each in found}:
        members = [each for each in found if each.family == family]
        chosen = draw(st.sampled_from(members))
        repeats = sum(each.header == chosen.header for each in members) > 1
        fate = draw(st.sampled_from(["declared", "declared", "key", "excluded", "plain"]))
        if fate in ("declared", "key") and not repeats:
            chosen.declared, chosen.key = True, fate == "key"
            chosen.kind = draw(st.sampled_from(KINDS))
            chosen.options = draw(options(chosen.kind))
        elif fate == "excluded" and len(members) == 1:
            chosen.excluded = True
        _name(members, family)
    if not any(each.declared for each in found):  # a header of which nothing is known may be a message
        found.append(Column("Id", "id", "integer", declared=True, name="id"))
    return found


def _name(members: list[Column], family: str) -> None:
    """Give columns that derive one property theirs: the declared one, else the plainest, has it."""
    plain = dict(FAMILIES)[family]
    first = [all(one.header != each.header for one in members[:i]) for i, each in enumerate(members)]
    winner = min(
        range(len(members)),
        key=lambda i: (not members[i].declared, not first[i], plain.index(members[i].header)),
    )
    numbers = iter(range(2, 9))
    for i, each in enumerate(members):
        each.name = family if i == winner else f"{family}_{next(numbers)}"


def options(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """How a column may be written."""
    if kind in ("integer", "number", "decimal"):
        thousands = st.sampled_from([None, ",", ".", " ", "'"])
        found = st.fixed_dictionaries(
            {}, optional={"thousands": thousands, "decimal": st.just(","), "strip": st.just("%$£")}
        )
        return found.filter(lambda each: each.get("thousands") != each.get("decimal", "x"))
    if kind == "date":
        return st.sampled_from([{}, {"format": "%d.%m.%Y"}, {"format": "%d %B %Y"}, {"format": "%Y%m%d"}])
    if kind == "timestamp":
        forms = [
            *[None] * 4,
            "%m/%d/%Y %H:%M",
            "%m/%d/%Y %I:%M:%S %p",
            "%d.%m.%Y %H:%M:%S.%f",
            "%Y-%m-%dT%H:%M:%S%z",
            "epoch_seconds",
            "epoch_milliseconds",
        ]
        return st.fixed_dictionaries(
            {"format": st.sampled_from(forms)},
            optional={"timezone": st.sampled_from(ZONES), "truncate": st.just(value=True)},
        )
    return st.just({})


# Cells


def cells(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    """Cells of a column; of one that is excluded, what nothing else would hold."""
    if column.excluded:
        return st.integers(10**6, 10**7).map(lambda n: Cell(f"hidden{n}", None))
    good = _GOOD[column.kind](column, characters)
    nulls = st.sampled_from([NULL, *(Cell(text, None) for text in NULLS)])
    bad = _BAD.get(column.kind, [])
    if column.kind == "timestamp" and not column.options.get("truncate"):
        bad = [*bad, "2026-01-01T00:00:00.0000001"]
    wrong = st.sampled_from([Cell(text, BAD) for text in bad] or [NULL])
    return st.integers(0, 15).flatmap(lambda n: wrong if n == 0 else nulls if n <= 2 else good)


def _texts(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    return st.text(st.sampled_from(characters), min_size=1, max_size=8).map(
        lambda text: Cell(text, None if text in NULLS else text)
    )


def _integers(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    whole = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-2000, 2_000_000))
    return st.tuples(whole, st.booleans()).map(
        lambda pair: Cell(
            _written(str(pair[0]), column, grouped=pair[1]),
            pair[0],
            pair[0] if abs(pair[0]) < 2**53 else None,
        )
    )


def _doubles(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    plain = st.decimals(-(10**12), 10**12, places=3).map(lambda d: f"{d:f}")
    if not column.options:
        plain |= st.floats(allow_nan=False, allow_infinity=False).map(lambda x: repr(x).replace("e+", "E"))
    return st.tuples(plain, st.booleans()).map(
        lambda pair: Cell(
            _written(pair[0], column, grouped=pair[1]), float(pair[0]), float(f"{float(pair[0]):.16G}")
        )
    )


def _decimals(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    numbers = st.integers(-(10**30), 10**30), st.integers(0, 12), st.booleans()
    return st.tuples(*numbers).map(
        lambda three: Cell(
            _written(f"{Decimal(three[0]).scaleb(-three[1]):f}", column, grouped=three[2]),
            Decimal(f"{Decimal(three[0]).scaleb(-three[1]):f}"),
        )
    )


def _written(number: str, column: Column, *, grouped: bool) -> str:
    """A number as the column's options have it."""
    thousands, point = column.options.get("thousands"), column.options.get("decimal", ".")
    if thousands == "." == point:
        point = ","
    sign = "-" if number.startswith("-") else ""
    whole, dot, fraction = number.removeprefix("-").partition(".")
    if thousands and grouped:
        whole = f"{int(whole):,}".replace(",", thousands)
    text = sign + whole + (point + fraction if dot else "")
    if column.options.get("strip"):
        text = f"{sign}$ {text.removeprefix(sign)}" if grouped else f"{text}%"
    return text


def _booleans(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    words = {
        "true": True,
        "t": True,
        "Yes": True,
        "Y": True,
        "1": True,
        "FALSE": False,
        "No": False,
        "0": False,
    }
    return st.sampled_from(
        [Cell(word, value, value if len(word) > 3 else None) for word, value in words.items()]
    )


def _dates(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    form = column.options.get("format", "%Y-%m-%d")
    return st.dates(date(1900, 3, 1)).map(lambda day: Cell(day.strftime(form), day, day))


def _documents(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    some = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(st.sampled_from('ab"\\ é\n'))
    documents = st.recursive(
        some, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner)
    )
    documents = documents.filter(lambda document: document not in (None, "", *NULLS))
    return st.tuples(documents, st.sampled_from([None, 1])).map(
        lambda pair: Cell(json.dumps(pair[0], indent=pair[1]), pair[0], pair[0])
    )


def _timestamps(column: Column, characters: str) -> st.SearchStrategy[Cell]:
    form = column.options.get("format")
    zone = ZoneInfo(column.options.get("timezone", "UTC"))
    truncate = column.options.get("truncate", False)
    tail = st.sampled_from(["", "000", "123"] if truncate else ["", "000"])
    if form in ("epoch_seconds", "epoch_milliseconds"):
        digits = 6 if form == "epoch_seconds" else 3
        return st.tuples(st.integers(-(10**15), 4 * 10**15), tail).map(lambda two: _epoch(*two, digits))
    times = st.datetimes(datetime(1900, 3, 1), datetime(2150, 1, 1)) | st.sampled_from(_SHIFTS)
    if form is not None:
        return st.tuples(times, st.integers(-14 * 60, 14 * 60)).map(lambda two: _formatted(*two, form, zone))
    if zone.key == "UTC":
        times |= st.datetimes()
    ends = st.sampled_from([*_ENDS])
    parts = st.fixed_dictionaries(
        {"local": times, "between": st.sampled_from("T "), "digits": st.sampled_from([0, 3, 6])}
        | {"tail": tail, "end": ends}
    )
    return parts.map(lambda parts: _iso(**parts, zone=zone))


_ENDS = {
    "": None,
    "Z": UTC,
    " UTC": UTC,
    "+02:00": timezone(timedelta(hours=2)),
    "-0530": timezone(timedelta(hours=-5.5)),
    "+13": timezone(timedelta(hours=13)),
}
# Around changes of the clocks.
_SHIFTS = [
    datetime(2026, 3, 29, 3, 30),  # not in Helsinki
    datetime(2026, 10, 25, 3, 30),  # twice there
    datetime(2026, 3, 8, 2, 0),
    datetime(2026, 11, 1, 1, 59, 59),
    datetime(2026, 4, 5, 1, 45),
    datetime(2011, 12, 30, 12, 0),  # no such day in Apia
    datetime(2120, 7, 1),
]


def _in_utc(local: datetime, zone: Any) -> Any:
    """What clocks of a zone show, as UTC; BAD if they never do, or if it is of no year that there is."""
    try:
        found = local.replace(tzinfo=zone, fold=0).astimezone(UTC)  # of two such times, the earlier
        return found if found.astimezone(zone).replace(tzinfo=None) == local else BAD
    except OverflowError:
        return BAD


def _epoch(micros: int, tail: str, digits: int) -> Cell:
    text = f"{abs(micros):0{digits + 1}}"
    text = ("-" if micros < 0 else "") + f"{text[:-digits]}.{text[-digits:]}{tail}"
    return Cell(text, EPOCH + timedelta(microseconds=micros))


def _formatted(local: datetime, minutes: int, form: str, zone: ZoneInfo) -> Cell:
    own = timezone(timedelta(minutes=minutes))
    text = local.replace(tzinfo=own).strftime(form)
    read = datetime.strptime(text, form)
    return Cell(text, _in_utc(read.replace(tzinfo=None), read.tzinfo or zone))


def _iso(*, local: datetime, between: str, digits: int, tail: str, end: str, zone: ZoneInfo) -> Cell:
    micros = local.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits)
    local = local.replace(microsecond=micros)
    fraction = f".{local.microsecond:06}"[: digits + 1] + (tail if digits == 6 else "") if digits else ""
    text = f"{local.replace(microsecond=0).isoformat(between)}{fraction}{end}"
    plain = not end and not micros and local.year > 1900
    return Cell(text, _in_utc(local, _ENDS[end] or zone), local if plain else None)


_GOOD = {
    "string": _texts,
    "integer": _integers,
    "number": _doubles,
    "decimal": _decimals,
    "boolean": _booleans,
    "date": _dates,
    "timestamp": _timestamps,
    "json": _documents,
}
_BAD = {
    "integer": ["007", "12.5", "1e3", str(2**63), str(-(2**63) - 1), "abc", "1 2", "0x1", "--1"],
    "number": ["007", "abc", "nan", "inf", "1e999", "-1e400", "1e-400", "1.", "1_000", "0x1p3"],
    "decimal": ["abc", "1e5", "nan", "1.", "00.5"],
    "boolean": ["maybe", "2", "truee", "on"],
    "date": [
        "2026-02-30",
        "0000-01-01",
        "26-01-01",
        "abc",
        "2026-13-01",
        "31.02.2026",
        "2026-01-01T00:00:01",
    ],
    "timestamp": ["2026-02-30T00:00:00", "2026-01-01T24:00:00", "2026-01-01T00:60:00", "abc", "0000-01-01"],
    "json": ["{", "[1,]", "nan", "{'a': 1}", "01", "tru"],
}
