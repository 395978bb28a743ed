"""Guesses of types: none that a value which was seen contradicts, and none where there are two readings."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_columns import columns, frame

from tap_analytics_exports.columns.guessing import Seen
from tap_analytics_exports.settings import Column


def guess(texts, header="x", timezone="UTC"):
    return Seen(header, pl.Series(texts, dtype=pl.String), timezone).guess()


@pytest.mark.parametrize(
    ("texts", "column"),
    [
        (["1", "-20", None], Column("integer")),
        (["007", "12"], Column("string")),
        (["1", "2.5"], Column("number")),
        (["0.512", "1.234"], Column("number")),
        (["12345678901234567890.5"], Column("decimal")),
        (["99999999999999999999"], Column("decimal")),
        (["1,234,567", "12"], Column("integer", thousands=",")),
        (["1,234.50", "12"], Column("number", thousands=",")),
        (["1.234,5", "12"], Column("number", thousands=".", decimal=",")),
        (["12,5", "0,25"], Column("number", decimal=",")),
        (["1 234", "5"], Column("integer", thousands=" ")),
        (["12.5 %", "3 %"], Column("number", strip="%")),
        (["$1,234.50", "$3.00"], Column("number", thousands=",", strip="$")),
        (["12 %", "3"], Column("string")),
        (["true", "False"], Column("boolean")),
        (["yes", "no"], Column("boolean")),
        (["y"], Column("string")),
        (["0", "1"], Column("integer")),
        (["2026-01-31"], Column("date")),
        (["2026-01-31T10:00:00Z", "2026-01-31"], Column("timestamp")),
        (["2026-01-31T10:00:00.1234567Z"], Column("timestamp", truncate=True)),
        (["31/01/2026", "01/02/2026"], Column("date", format="%d/%m/%Y")),
        (["01/31/26 9:05 PM"], Column("timestamp", format="%m/%d/%y %I:%M %p")),
        (["31-Jan-2026"], Column("date", format="%d-%b-%Y")),
        (['{"a": 1}', "[]"], Column("json")),
        (["00:03:12"], Column("string")),
        (["2026-02-30"], Column("string")),
    ],
)
def test_the_narrowest_type_of_all_values(texts, column):
    assert guess(texts).column == column


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        (["01/02/2026", "03/04/2026"], "order can't be known: format %d/%m/%Y or %m/%d/%Y"),
        (["01.02.26 10:00"], "order can't be known"),
        (["1,234", "5,678"], "might be 1234"),
        (["1.234"], "might be 1234"),
        (["€1.234"], "might be 1234"),
        ([], "no value"),
        ([None], "no value"),
    ],
)
def test_what_has_two_readings_is_a_string_and_said(texts, note):
    found = guess(texts)
    assert found.column == Column("string")
    assert note in found.note


def test_names_of_columns_count_where_values_do_not_tell():
    assert guess(["1767225600"], "createdTime").column == Column("timestamp", format="epoch_seconds")
    assert guess(["1767225600123"], "updated_at").column == Column("timestamp", format="epoch_milliseconds")
    assert guess(["1767225600"], "amount").column == Column("integer")
    assert "epoch_seconds" in guess(["1767225600"], "amount").note
    for header in ("Agent ID", "agentId", "phone", "ZIP"):
        assert guess(["40123"], header).column == Column("string")
    assert guess(["40123"], "paid").column == Column("integer")


def test_a_timestamp_without_a_zone_is_said_to_be_read_in_the_exports():
    assert "read in Europe/Helsinki" in guess(["2026-01-31 10:00"], timezone="Europe/Helsinki").note
    assert guess(["2026-03-29 03:30"], timezone="Europe/Helsinki").column == Column("string")  # no such time


digits = st.text("0123456789", max_size=20)
KINDS = [
    st.text(max_size=10),
    st.integers().map(str),
    st.floats().map(str),
    st.decimals().map(str),
    st.booleans().map(str),
    st.dates().map(str),
    st.datetimes(timezones=st.none() | st.timezones()).map(str),
    st.datetimes().map(lambda when: when.strftime("%d/%m/%y %I:%M %p")),
    st.datetimes().map(lambda when: when.strftime("%m.%d.%Y")),
    st.integers(0, 10**14).map(str),
    st.integers().map("{:,}".format),
    st.floats().map("{:,.2f} %".format),
    st.builds("{}{}{}{}".format, st.sampled_from(["", "-", "$"]), digits, st.sampled_from(",. '"), digits),
    st.sampled_from(["yes", "No", "t", "{}", "[1]", "{", "0", "007", "1e5", "1e999", "5e-400", "+1", "1_0"]),
]
columns_of_text = st.sampled_from([*KINDS, st.one_of(KINDS)]).flatmap(
    lambda kind: st.lists(st.none() | kind, max_size=6)
)


@given(st.lists(columns_of_text, min_size=1, max_size=3), st.sampled_from(["UTC", "Europe/Helsinki"]))
def test_what_was_seen_is_cast_as_guessed_without_any_bad_row(seen, timezone):
    height = max(map(len, seen))
    seen = [[text or None for text in texts] + [None] * (height - len(texts)) for texts in seen]
    header = [f"column {i} time" for i in range(len(seen))]
    types = {name: guess(texts, name, timezone).column for name, texts in zip(header, seen, strict=True)}
    knows = columns(types, timezone=timezone)
    given_ = frame(header, list(zip(*seen, strict=True)))
    typed, bad = knows.cast(given_, knows.bind(header))
    assert (typed.height, bad) == (height, [])
