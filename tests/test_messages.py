"""The lines that are written columnar are those that the SDK would write of the same records."""

import datetime as dt
import decimal
import json
import logging
import sys

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from singer_sdk.mapper import PluginMapper, SameRecordTransform
from singer_sdk.singerlib import RecordMessage
from singer_sdk.singerlib.encoding.simple import SimpleSingerWriter

from tap_analytics_exports.columns.schema import property_schema
from tap_analytics_exports.settings import Column
from tap_analytics_exports.singer.mapped import envelope, mapped
from tap_analytics_exports.writers import records as messages

UTC = dt.UTC
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

DTYPES = {
    "string": pl.String,
    "integer": pl.Int64,
    "number": pl.Float64,
    "decimal": pl.String,
    "boolean": pl.Boolean,
    "date": pl.Date,
    "timestamp": pl.Datetime("us", "UTC"),
    "json": pl.String,
}
TEXT = st.text() | st.text(st.sampled_from('"\\/\x00\x1f\x7f\u2028😀{}\n'))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
MOMENTS = st.datetimes(timezones=st.just(UTC))
VALUES = {
    "string": TEXT,
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([5e-324, 1.7976931348623157e308, -0.0, 1e16, 2.0**53]),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False).map(str),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": MOMENTS | MOMENTS.map(lambda moment: moment.replace(microsecond=0)),
    "json": st.builds(json.dumps, DOCUMENTS, ensure_ascii=st.booleans())
    | st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
}


@st.composite
def tables(draw):
    """A typed frame and the types of its columns."""
    names = draw(st.lists(TEXT.filter(bool), min_size=1, max_size=6, unique=True))
    kinds = {name: draw(st.sampled_from(list(DTYPES))) for name in names}
    height = draw(st.integers(0, 4))
    values = {
        name: draw(st.lists(st.none() | VALUES[kind], min_size=height, max_size=height))
        for name, kind in kinds.items()
    }
    # Named at last, as polars takes some names for patterns.
    series = {name: pl.Series("", values[name], DTYPES[kind]) for name, kind in kinds.items()}
    frame = pl.DataFrame([values.alias(name) for name, values in series.items()])
    return frame, {name: Column(kind) for name, kind in kinds.items()}


def exactly(text):
    """A JSON value in which every digit counts."""
    return json.loads(text, parse_float=decimal.Decimal)


def same():
    """The map of a stream that has none."""
    return SameRecordTransform("s", {"properties": {}}, None, None)


CONSTANTS = st.dictionaries(
    TEXT.map("_sdc_".__add__), st.none() | st.integers(-(2**63), 2**63 - 1) | TEXT | MOMENTS, max_size=3
)


@settings(deadline=None, max_examples=300)
@given(
    table=tables(),
    constants=CONSTANTS,
    stream=TEXT,
    version=st.none() | st.integers(0, 2**62),
    moment=st.datetimes(
        timezones=st.timezones(), min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1)
    ),
)
@example(
    table=(pl.DataFrame({"a": [None, None]}), {"a": Column("json")}),
    constants={},
    stream="s",
    version=None,
    moment=NOW,
)
def test_a_line_is_the_message_that_the_sdk_writes_of_the_record(table, constants, stream, version, moment):
    frame, columns = table
    written = messages.lines(frame, columns, constants, envelope=envelope(stream, moment, version))
    lines = bytes(written).decode().split("\n")
    assert lines.pop() == ""
    writer = SimpleSingerWriter()
    expected = [
        writer.format_message(RecordMessage(stream, record, version=version, time_extracted=moment))
        for record in messages.records(frame, columns, constants)
    ]
    assert list(map(exactly, lines)) == list(map(exactly, expected))
    assert len(lines) == frame.height


EXPRESSIONS = [
    "self",
    "record",
    "[record, str(self)]",
    "{'of': self, 'more': {'at': datetime.datetime(2026, 1, 2, 3, 4, 5, 6)}}",
    "datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)",
    "[datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)]",
    "datetime.date(2026, 1, 2)",
    "datetime.time(1, 2, tzinfo=datetime.timezone.utc)",
    "datetime.timedelta(days=1, seconds=2)",
    "{None: [2.5], 1: {2.5: None}}",
    "(1, (2, 'x'))",
    "{'x'}",
    "'x'.encode()",
    "10 ** 30",
    "[-(10 ** 30)]",
    "float('nan')",
    "[float('inf')]",
    """json.loads('"\\\\ud800"')""",
    "json.loads('[' * 500 + ']' * 500)",
    "md5(__stream_name__)",
]


@st.composite
def mapped_tables(draw):
    """A typed frame, the types of its columns, and settings of stream maps and flattening."""
    frame, columns = draw(tables())
    names = [name for name in frame.columns if not name.startswith("__")]
    keys = st.sampled_from([*names, "new", "newer"])
    maps = st.dictionaries(keys, st.none() | st.sampled_from(EXPRESSIONS), max_size=4).map(
        lambda each: {k: "config" if v and "self" in v and k not in names else v for k, v in each.items()}
    )
    filters = st.fixed_dictionaries({}, optional={"__filter__": st.just("'1' in str(record)")})
    elses = st.fixed_dictionaries({}, optional={"__else__": st.none()})
    made = st.builds(lambda *parts: {k: v for part in parts for k, v in part.items()}, maps, filters, elses)
    own = made | made.map(lambda each: {**each, "__alias__": "renamed"})
    more = made.map(lambda each: {**each, "__source__": "s"})
    stream_maps = st.fixed_dictionaries({}, optional={"s": own, "twin": more, "triplet": more})
    config = {"stream_maps": draw(stream_maps), "stream_map_config": {"a": [1, None]}}
    if draw(st.booleans()):
        config |= {"flattening_enabled": True, "flattening_max_depth": draw(st.integers(0, 2))}
    return frame, columns, config


@settings(deadline=None, max_examples=300)
@given(table=mapped_tables(), constants=CONSTANTS, version=st.none() | st.integers(0, 2**62))
def test_a_mapped_line_is_the_message_that_the_sdk_writes(table, constants, version):
    frame, columns, config = table
    mapper = PluginMapper(config, logging.getLogger())
    properties = {name: property_schema(column) for name, column in columns.items()}
    properties |= {name: {"type": ["string", "integer", "null"]} for name in constants}
    mapper.register_raw_stream_schema("s", {"type": "object", "properties": properties}, [])
    maps = mapper.stream_maps["s"]
    lines = mapped(messages.records(frame, columns, constants), maps, time_extracted=NOW, version=version)
    writer = SimpleSingerWriter()
    expected = [
        writer.format_message(RecordMessage(each.stream_alias, made, version=version, time_extracted=NOW))
        for record in messages.records(frame, columns, constants)
        for each in maps
        if (made := each.transform(record)) is not None
    ]
    written = [line.decode() for line in lines]
    assert list(map(exactly, written)) == list(map(exactly, expected))
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in written)


@settings(deadline=None)
@given(tables())
def test_records_hold_the_values_of_the_frame(table):
    frame, columns = table
    read = {
        "date": dt.date.fromisoformat,
        "timestamp": dt.datetime.fromisoformat,
    }
    for record, row in zip(messages.records(frame, columns), frame.rows(), strict=True):
        assert list(record) == frame.columns
        for (name, value), original in zip(record.items(), row, strict=True):
            kind = columns[name].type
            if kind == "json":
                continue  # compared by the test above
            if value is None:
                assert original is None
            else:
                assert repr(read.get(kind, lambda same: same)(value)) == repr(
                    original.replace(tzinfo=UTC) if kind == "timestamp" else original
                )


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 500000, tzinfo=UTC), "2026-01-02T03:04:05.500000+00:00"),
        (dt.datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00+00:00"),
        (dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_how_a_timestamp_is_written(moment, text):
    frame = pl.DataFrame({"t": [moment]}, schema={"t": pl.Datetime("us", "UTC")})
    columns = {"t": Column("timestamp")}
    (line,) = bytes(messages.lines(frame, columns, envelope=envelope("s", NOW))).splitlines()
    assert json.loads(line) == {
        "type": "RECORD",
        "stream": "s",
        "record": {"t": text},
        "time_extracted": "2026-01-02T03:04:05.678901+00:00",
    }
    assert list(messages.records(frame, columns)) == [{"t": text}]


def test_digits_of_documents_are_kept():
    frame = pl.DataFrame(
        {"j": ['{"a": 0.10000000000000000555, "b": 1e400, "c": [1.10, 12345678901234567890]}']}
    )
    columns = {"j": Column("json")}
    line = bytes(messages.lines(frame, columns, envelope=envelope("s", NOW)))
    (record,) = messages.records(frame, columns)
    expected = {
        "a": decimal.Decimal("0.10000000000000000555"),
        "b": decimal.Decimal("1e400"),
        "c": [1.1, 12345678901234567890],
    }
    assert record["j"] == expected
    assert exactly(line)["record"]["j"] == {**expected, "c": [decimal.Decimal("1.10"), 12345678901234567890]}


def test_half_a_surrogate_pair_in_a_document_is_kept():
    frame, columns = pl.DataFrame({"j": ['["\\ud800", 0.10000000000000000555]']}), {"j": Column("json")}
    (record,) = messages.records(frame, columns)
    assert record == {"j": ["\ud800", decimal.Decimal("0.10000000000000000555")]}
    columnar = messages.lines(frame, columns, envelope=envelope("s", NOW))
    (line,) = mapped([record], [same()], time_extracted=NOW)
    assert exactly(bytes(columnar)) == exactly(line)
    assert exactly(line)["record"] == record


def test_a_deep_document_is_written():
    depth = sys.getrecursionlimit() - 100
    record = {"j": json.loads("[" * depth + "]" * depth)}
    (line,) = mapped([record], [same()], time_extracted=NOW)
    assert line.count(b"[") == line.count(b"]") == depth
