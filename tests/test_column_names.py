"""Each column has one property for the life of its stream, and what is announced is what is sent."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_columns import columns, frame, names_of

from tap_analytics_exports.columns.naming import fields_of, loose
from tap_analytics_exports.columns.schema import column_of, property_schema
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.formats import name_problems
from tap_analytics_exports.parse import ROW_NUMBER, BadRow, Dialect, TextFrame, frames
from tap_analytics_exports.settings import Column

DAY_1, DAY_2 = ["id", "Calls", "Calls %"], ["id", "Calls %", "Calls"]


def again(knows, **options):
    """The same stream in a later run, which has what the state remembers."""
    return columns(names=knows.names, **options)


def read(knows, file):
    """The records of a file of `cases`, without their numbers."""
    records = []
    for text in frames(Path(__file__).parent / "cases" / file, Dialect("csv")):
        bound = knows.bind(text.header)
        typed, bad = knows.cast(text, bound)
        assert bad == []
        records += typed.drop(ROW_NUMBER).to_dicts()
        if not typed.height:
            knows.check_empty(text.header)
    return records


# Files of real trouble


def test_a_header_with_a_space_behind_it():
    knows = columns({"Talk Time": "integer"}, primary_keys=["Talk Time"])
    assert read(knows, "trailing-space.csv") == [{"id": "1", "talk_time": 3}, {"id": "2", "talk_time": 4}]
    assert knows.primary_keys == ["talk_time"]


@pytest.mark.parametrize("from_state", [False, True])
def test_headers_that_derive_one_name_and_change_places(from_state):
    knows = columns()
    assert read(knows, "collide-day1.csv") == [{"id": "1", "calls": "12", "calls_2": "45.5"}]
    assert knows.names == {"Calls %": "calls_2"}
    later = again(knows) if from_state else knows
    assert read(later, "collide-day2.csv") == [{"id": "2", "calls": "13", "calls_2": "45.5"}]
    percent = columns({"Calls %": Column("number", name="calls_percent")})
    for day, calls in ((1, "12"), (2, "13")):
        (record,) = read(percent, f"collide-day{day}.csv")
        assert record == {"id": str(day), "calls": calls, "calls_percent": 45.5}


def test_a_type_of_the_catalog_counts():
    knows = columns(catalog={"talk": Column("integer")})
    assert read(knows, "catalog-type.csv") == [{"id": "1", "talk": 3}, {"id": "2", "talk": 4}]


def test_another_delimiter_is_named():
    with pytest.raises(ExportFailed, match="`delimiter` to ';'"):
        read(columns({"talk": "integer"}), "semicolons.csv")


def test_a_message_is_no_empty_window():
    with pytest.raises(ExportFailed, match="Service temporarily unavailable, try again later"):
        read(columns(), "one-line.txt")


# Headers that derive the same name


@pytest.mark.parametrize("second", [DAY_2, ["id", "Calls"], ["id", "Calls %"], ["Calls %", "Calls", "id"]])
@pytest.mark.parametrize("from_state", [False, True])
def test_columns_that_change_places_keep_their_properties(second, from_state):
    knows = columns()
    assert names_of(knows, DAY_1) == ["id", "calls", "calls_2"]
    knows = again(knows) if from_state else knows
    properties = {"id": "id", "Calls": "calls", "Calls %": "calls_2"}
    assert names_of(knows, second) == [properties[header] for header in second]


def test_the_state_remembers_what_is_not_plainly_derived_and_nothing_else():
    knows = columns()
    knows.bind(["id", "Talk Time", "talk_time", "TimeStamp", "Calls", "Calls %", "%", "Cost ($)", "Calls"])
    assert knows.names == {
        "Talk Time": "talk_time_2", "Calls %": "calls_2", "%": "column_7", "Cost ($)": "cost",
        "Calls\x1f2": "calls_3",
    }  # fmt: skip


@pytest.mark.parametrize("from_state", [False, True])
def test_who_came_first_stays_though_a_plainer_one_comes_later(from_state):
    knows = columns()
    assert names_of(knows, ["Calls %"]) == ["calls"]
    knows = again(knows) if from_state else knows
    assert names_of(knows, DAY_1) == ["id", "calls_2", "calls"]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (["Calls %", "Calls", "calls"], ["calls_2", "calls_3", "calls"]),
        (["Cost €", "Cost $"], ["cost", "cost_2"]),
        (["Talk-Time", "Talk Time"], ["talk_time_2", "talk_time"]),
        (["CALLS", "Calls"], ["calls_2", "calls"]),
        (["Calls (%)", "Calls %"], ["calls_2", "calls"]),
        (["Calls %", "Calls", "calls_2"], ["calls_3", "calls", "calls_2"]),
        (["a", "a", "a"], ["a", "a_2", "a_3"]),
        (["", "x", ""], ["column_1", "x", "column_3"]),
        (["", "column_1"], ["column_1_2", "column_1"]),
    ],
)
def test_the_plainest_has_the_name_then_the_first(header, names):
    assert names_of(columns(), header) == names


def test_headers_that_repeat_are_told_apart_by_their_occurrence():
    knows = columns()
    assert names_of(knows, ["Date", "x", "Date"]) == ["date", "x", "date_2"]
    assert names_of(again(knows), ["Date", "Date", "x"]) == ["date", "date_2", "x"]
    assert names_of(again(knows), ["Date"]) == ["date"]
    odd = ["Date\x1f2", "Date", "Date"]
    assert len({field.key for field in fields_of(odd)}) == 3


def test_a_state_cannot_give_names_away_that_a_header_does_not_derive():
    bad = {"id": "_sdc_export_id", "a": "b", "%": "id", "x": 1, "Calls %": "calls_2", "Calls #": "calls_2"}
    knows = columns(names=bad)
    assert names_of(knows, ["id", "a", "%", "x", "Calls %", "Calls #"]) == [
        "id", "a", "column_3", "x", "calls_2", "calls",
    ]  # fmt: skip
    assert knows.names["Calls %"] == "calls_2"


HEADERS = st.lists(
    st.sampled_from(
        [
            "a",
            "A",
            "A %",
            "a-b",
            "a b",
            "A B",
            "a_b",
            "aB",
            "a_2",
            "a 2",
            "a\x1f2",
            "%",
            "",
            "column_2",
            "_sdc_a",
        ]
    )
    | st.text(max_size=4),
    max_size=7,
)
STYLES = st.sampled_from(["snake_case", "original"])


@settings(deadline=None)
@given(st.lists(HEADERS, max_size=5), st.lists(HEADERS, max_size=5), STYLES)
def test_a_column_has_one_property_for_life_and_shares_it_with_none(first, second, style):
    def live(knows, files):
        for header in files:
            bound = knows.bind(header)
            assert [each.position for each in bound] == list(range(len(header)))
            for field, each in zip(fields_of(header), bound, strict=True):
                assert properties.setdefault(field.key, each.name) == each.name
                assert knows.known[each.name] == each.column
        assert len({*properties.values()}) == len(properties)
        assert all(name and not re.fullmatch("_sdc_[a-z]*", name) for name in properties.values())

    properties = {}
    knows = columns(style=style)
    live(knows, first)
    later = columns(style=style, names=knows.names)
    # What is plainly derived is not remembered, and so has its name only until another derives it without
    # standing beside it; what is new now derives no such name.
    told = {name for key, name in properties.items() if key not in knows.names}
    for header in second:
        new = {field.text for field in fields_of(header) if field.key not in properties}
        taken = {text for text in new if told & {*names_of(columns(style=style), [text] * 7)}}
        live(later, [[text for text in header if text not in taken]])


# What the settings name


@pytest.mark.parametrize("header", ["Talk Time", "Talk Time ", "talk  time", " TALK TIME", "Talk\u00a0Time"])
@pytest.mark.parametrize("style", ["snake_case", "original"])
@pytest.mark.parametrize("key", ["Talk Time", "talk time", " Talk Time"])
def test_a_declared_column_is_announced_under_the_property_that_it_has_in_files(key, header, style):
    knows = columns({key: "integer"}, style=style, primary_keys=[key])
    announced = dict(knows.known)
    assert knows.primary_keys == [*announced]
    assert knows.unmatched() == [key]
    (_, bound) = knows.bind(["id", header])
    assert announced == {bound.name: Column("integer")}
    assert bound.column == Column("integer")
    assert bound.required
    assert knows.unmatched() == []
    typed, bad = knows.cast(frame(["id", header], [["1", "3"], ["2", None]]), knows.bind(["id", header]))
    assert (typed[bound.name].to_list(), [row.row_number for row in bad]) == ([3], [12])


@pytest.mark.parametrize("key", ["talk_time", "Talk Time "])
def test_a_key_is_a_property_name_or_a_header(key):
    knows = columns({"talk_time": "integer"}, primary_keys=[key])
    assert (knows.known, knows.primary_keys) == ({"talk_time": Column("integer")}, ["talk_time"])
    assert names_of(knows, ["Talk Time "]) == ["talk_time"]


def test_keys_mean_their_own_header_before_one_that_is_alike():
    knows = columns({"Calls": "integer", "calls": "number"} | {"calls": Column("number", name="less")})
    assert {each.name: each.column.type for each in knows.bind(["calls", "Calls"])} == {
        "less": "number", "calls": "integer",
    }  # fmt: skip
    knows = columns({"Talk Time": "integer"})
    assert names_of(knows, ["talk time", "Talk Time"]) == ["talk_time_2", "talk_time"]
    assert names_of(knows, ["talk time"]) == ["talk_time_2"]


def test_a_number_behind_a_name_is_part_of_the_property_that_a_key_means():
    knows = columns({"calls_2": "number", "calls": "integer"}, primary_keys=["calls_2"])
    assert [(each.name, each.column.type, each.required) for each in knows.bind(["Calls %", "Calls"])] == [
        ("calls_2", "number", True), ("calls", "integer", False),
    ]  # fmt: skip


def test_what_loses_a_character_is_not_what_lacks_it():
    knows = columns({"Calls %": "number"})
    assert (knows.known, names_of(knows, ["id", "Calls %"])) == (
        {"calls": Column("number"), "id": Column("string")},
        ["id", "calls"],
    )
    both = columns({"Calls %": "number", "calls": "integer"})
    assert {each.name: each.column.type for each in both.bind(DAY_1)} == {
        "id": "string", "calls": "integer", "calls_2": "number",
    }  # fmt: skip
    told = columns({"Calls %": "number"}, names={"Calls %": "calls_2"})
    assert ([*told.known], names_of(told, DAY_1)) == (["calls_2"], ["id", "calls", "calls_2"])


@pytest.mark.parametrize("style", ["snake_case", "original"])
@pytest.mark.parametrize("key", ["Calls %", "calls  %"])
@pytest.mark.parametrize("names", [{}, {"Calls %": "calls_2"}])
def test_a_name_of_the_settings_takes_the_place_of_the_derived_one(style, key, names):
    knows = columns(
        {key: Column("number", name="calls_percent")},
        style=style,
        names=names,
        primary_keys=["calls_percent"],
    )
    assert [*knows.known] == knows.primary_keys == ["calls_percent"]
    typed, bad = knows.cast(frame(DAY_1, [["1", "12", "45.5"]]), knows.bind(DAY_1))
    calls = "calls" if style == "snake_case" else "Calls"
    assert (typed.drop(ROW_NUMBER).to_dicts(), bad) == ([{"id": "1", calls: "12", "calls_percent": 45.5}], [])
    assert knows.names == (names if style == "snake_case" else {})


def test_a_name_of_the_settings_is_no_other_columns():
    knows = columns({"Calls %": Column("number", name="calls")})
    assert names_of(knows, DAY_1) == ["id", "calls_2", "calls"]
    assert dict(name_problems({"a": "x", "b": "x", "c": "d", "d": None, "e": "e"})) == {
        "b": "'x' is already the name of 'a'", "c": "'d' is another column of `columns`",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings_", "header", "words"),
    [
        ({"types": {"Talk Time": "integer"}}, ["talk time", "TALK TIME"], ["'talk time'", "'TALK TIME'"]),
        ({"primary_keys": ["Date"]}, ["Date", "Date"], ["(column 1)", "(column 2)"]),
        ({"primary_keys": ["Talk Time"]}, ["talk time", "TALK TIME"], ["'talk time'", "'TALK TIME'"]),
        ({"exclude_columns": ["Talk Time"]}, ["talk time", "TALK TIME"], ["'Talk Time'"]),
        (
            {"types": {"Talk Time": "integer", "talk_time": "number"}},
            ["Talk Time"],
            ["'Talk Time'", "'talk_time'"],
        ),
    ],
)
def test_a_key_that_may_mean_two_columns_is_refused(settings_, header, words):
    with pytest.raises(ExportFailed) as refusal:
        columns(**settings_).bind(header)
    assert all(word in str(refusal.value) for word in words)


def test_a_column_that_was_taken_for_the_declared_one_is_not_left_for_another():
    knows = columns({"Talk Time": "integer"})
    assert names_of(knows, ["talk time"]) == ["talk_time"]
    assert names_of(knows, ["Talk Time"]) == ["talk_time"]  # as it is written from now on
    with pytest.raises(ExportFailed, match="may be"):
        knows.bind(["talk time", "Talk Time"])


SPELLINGS = st.sampled_from(
    ["Talk Time", "talk time", "talk_time", "Talk Time ", "TalkTime", "talk-time", "Talk", "talk", "talk_2"]
)
SOME = st.lists(SPELLINGS, unique=True, max_size=3)


@settings(deadline=None, max_examples=200)
@given(st.tuples(SOME, SOME, SOME, SOME), st.lists(st.lists(SPELLINGS, max_size=5), max_size=3), STYLES)
def test_what_is_announced_is_what_is_sent(texts, files, style):
    declared, keys, excluded, listed = texts
    knows = columns(
        dict.fromkeys(declared, "integer"),
        primary_keys=keys,
        exclude_columns=excluded,
        headers=listed,
        style=style,
    )
    announced = dict(knows.known)
    assert len({*knows.primary_keys}) == len(knows.primary_keys)
    seen = {}
    for header in files:
        try:
            bound = knows.bind(header)
        except ExportFailed:
            continue
        assert len({each.name for each in bound}) == len(bound)
        for each in bound:
            text = header[each.position]
            assert text not in excluded
            assert announced.get(each.name, each.column) == each.column == knows.known[each.name]
            assert each.required == (each.name in knows.primary_keys)
            if text in declared and header.count(text) == 1:
                assert each.column == Column("integer")
            if header.count(text) == 1:
                assert seen.setdefault(text, each.name) == each.name
        assert [*knows.known][: len(announced)] == [*announced]


# Types


def test_types_are_the_settings_then_the_catalogs_then_the_providers():
    knows = columns(
        {"a": "integer"},
        catalog={
            "b": Column("integer"),
            "a": Column("string"),
            "gone": Column("date"),
            "_sdc_row_number": Column("integer"),
        },
        dictionary={"B": "number", "C": "number"},
    )
    assert knows.known == {"b": Column("integer"), "a": Column("integer"), "gone": Column("date")}
    assert [each.column.type for each in knows.bind(["A", "B", "C", "D"])] == [
        "integer",
        "integer",
        "number",
        "string",
    ]
    assert [*knows.known] == ["b", "a", "gone", "c", "d"]


def test_a_type_of_the_catalog_makes_bad_rows():
    knows = columns(catalog={"talk": Column("integer")})
    typed, bad = knows.cast(frame(["id", "talk"], [["1", "3"], ["1", "three"]]), knows.bind(["id", "talk"]))
    assert typed["talk"].to_list() == [3]
    assert [(row.row_number, row.column) for row in bad] == [(12, "talk")]


def test_what_the_provider_lists_is_known_before_it_is_seen():
    knows = columns({"conversation_id": "integer"}, headers=["Conversation ID", "Calls", "Calls %", "SSN"],
                    dictionary={"Calls": "number", "Other": "date"}, exclude_columns=["ssn"])  # fmt: skip
    assert knows.known == {
        "conversation_id": Column("integer"), "calls": Column("number"), "calls_2": Column("string"),
    }  # fmt: skip
    assert knows.listed == {"Conversation ID": "conversation_id", "Calls": "calls", "Calls %": "calls_2"}
    assert names_of(knows, ["Calls %", "ConversationID"]) == ["calls_2", "conversation_id"]
    assert knows.unmatched() == ["ssn"]


def test_a_file_may_have_a_listed_column_by_its_property():
    knows = columns(headers=["Talk Time", "Calls"], dictionary={"Talk Time": "integer"})
    assert [(each.name, each.column.type) for each in knows.bind(["talk_time", "CALLS"])] == [
        ("talk_time", "integer"),
        ("calls", "string"),
    ]


def test_of_listed_headers_that_repeat_each_has_its_own_type():
    knows = columns({"date": "date", "date_2": "timestamp"}, headers=["Date", "Date"])
    assert {name: column.type for name, column in knows.known.items()} == {
        "date": "date",
        "date_2": "timestamp",
    }
    assert [each.column.type for each in knows.bind(["Date", "Date"])] == ["date", "timestamp"]


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": ["null", "number"]}, "number"),
        ({"type": ["integer", "number"]}, "number"),
        ({"type": ["string", "null"], "format": "uuid"}, "string"),
        ({"type": ["string"], "format": "singer.decimal"}, "decimal"),
        ({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}, "timestamp"),
        ({"anyOf": [{"type": "string", "format": "date-time"}, {"type": ["string", "null"]}]}, "string"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, None),
        ({"type": ["object", "null"]}, "json"),
        ({"type": "array", "items": {}}, "json"),
        ({}, "json"),
        ({"type": ["integer", "string"]}, None),
        ({"type": "null"}, None),
        ({"type": "date"}, None),
        ({"$ref": "#/definitions/x"}, None),
    ],
)
def test_a_property_is_for_a_column(schema, kind):
    assert column_of(schema) == (kind and Column(kind))


@pytest.mark.parametrize(
    "kind", ["string", "integer", "number", "decimal", "boolean", "date", "timestamp", "json"]
)
def test_a_type_comes_back_from_its_schema(kind):
    assert column_of(property_schema(Column(kind))) == Column(kind)


# What is no file of ours


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (["id;name;talk"], r"`delimiter` to ';'"),
        (["id\tname\ttalk"], r"`delimiter` to '\\t'"),
        (['"id"|"Talk "'], r"`delimiter` to '\|'"),
        (["Agent report"], "skip_rows"),
        (["x", "y"], "where columns such as talk"),
    ],
)
def test_a_header_of_which_nothing_is_known_is_refused(header, words):
    for options in (
        {"types": {"talk": "integer"}},
        {"catalog": {"talk": Column("string")}},
        {"headers": ["Talk"]},
    ):
        with pytest.raises(ExportFailed, match=words) as refusal:
            columns(**options).bind(header)
        assert header[0].replace('"', "")[:2] in str(refusal.value)
    columns().bind(header)


def test_a_header_of_which_something_is_known_is_not_refused():
    for options in (
        {"types": {"talk": "integer"}},
        {"catalog": {"talk": Column("string")}},
        {"headers": ["Talk"]},
    ):
        assert names_of(columns(**options), ["x", "TALK"]) == ["x", "talk"]
        assert names_of(columns(**options, dictionary={"x": "string"}), ["x"]) == ["x"]
        assert names_of(columns(**options, names={"x %": "x"}), ["x %"]) == ["x"]
        assert names_of(columns(**options), []) == []


@pytest.mark.parametrize(
    ("header", "refused"),
    [
        (["Service temporarily unavailable", " try again later"], True),
        (["Unavailable"], True),
        (["Not authorized", "ask Ann."], True),
        (["id", "name"], False),
        (["id", " talk"], False),
        (["Talk"], False),
        (["noted"], False),
        ([], False),
    ],
)
def test_a_file_of_a_single_line_that_is_a_message_is_refused(header, refused):
    knows = columns({"talk": "integer"}, dictionary={"Noted": "string"})
    if not refused:
        knows.check_empty(header)
        return
    with pytest.raises(ExportFailed) as refusal:
        knows.check_empty(header)
    assert header[0] in str(refusal.value)


# What never leaves


@pytest.mark.parametrize("key", ["SSN", "ssn", "ssn ", "SSN "])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"catalog": {"ssn": Column("string"), "id": Column("string")}},
        {"headers": ["id", "SSN "]},
        {"types": {"ssn": "integer"}},
    ],
)
def test_excluded_columns_never_leave(key, options):
    knows = columns(**options, exclude_columns=[key], primary_keys=["id"])
    text = frame(["id", "SSN ", "n"], [["1", "secret", "x"], [None, "secret", "y"]])
    text = TextFrame(text.header, text.rows, [BadRow(1, "2,secret", "too few fields")])
    bound = knows.bind(text.header)
    typed, bad = knows.cast(text, bound)
    assert typed.columns == ["id", "n", ROW_NUMBER]
    assert {*knows.known} == {"id", "n"}
    assert [row.row_number for row in bad] == [1, 12]
    assert "secret" not in repr(bad)
    assert bad[1].raw == ",y"
    assert "exclude_columns" in bad[0].raw
    assert not any("ssn" in loose(header) for header in knows.names)


def test_a_column_that_was_excluded_stays_so():
    knows = columns(exclude_columns=["SSN #"])
    assert names_of(knows, ["id", "ssn #"]) == ["id"]
    assert names_of(knows, ["id", "SSN #", "ssn #"]) == ["id"]
    assert knows.names == {}


def test_no_message_shows_a_header_that_may_hold_what_is_excluded():
    knows = columns({"id": "integer"}, exclude_columns=["ssn"])
    for refuse in (lambda: knows.bind(["1", "secret"]), lambda: knows.check_empty(["secret"])):
        with pytest.raises(ExportFailed) as refusal:
            refuse()
        assert "secret" not in str(refusal.value)


def test_an_excluded_name_does_not_exclude_what_only_derives_like_it():
    knows = columns(exclude_columns=["Calls %"])
    assert names_of(knows, DAY_1) == ["id", "calls"]
    by_property = columns(exclude_columns=["calls_2"])
    assert names_of(by_property, DAY_1) == ["id", "calls"]
