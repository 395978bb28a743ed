"""Settings: each mistake is told with its path and what would be right; what is right is filled in."""

import json
import ssl
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from conftest import start_tap
from hypothesis import given
from hypothesis import strategies as st

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.providers import installed
from tap_analytics_exports.settings import (
    Column,
    Export,
    ProviderSettings,
    Secret,
    about,
    decode,
    json_schema,
    secrets,
)

BLOCKS = {name: provider.settings_type for name, provider in installed().items()}
CANARY = "c4n4ry-Xq9Zt7"


def gooee(*exports, **block):
    """A block whose exports need no `start_date`."""
    entries = [{"name": f"e{i}", "query_id": "1"} | export for i, export in enumerate(exports or [{}])]
    return {"gooee": {"api_token": CANARY, "exports": entries} | block}


def giosg(*exports, **block):
    """A block whose exports have windows."""
    entries = [
        {"name": f"w{i}", "workflow_id": "x", "step_index": 1} | export
        for i, export in enumerate(exports or [{}])
    ]
    return {"giosg": {"api_token": CANARY, "organization_id": "o", "exports": entries} | block}


def mistakes(config, **how):
    """The lines that a configuration is refused with."""
    with pytest.raises(SettingsError) as caught:
        decode(config, BLOCKS, **how)
    assert CANARY not in str(caught.value)
    return caught.value.problems


# What is wrong, one line a mistake


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("on_bad_row", "Fail", "expected one of divert, fail; did you mean fail?"),
        ("on_new_column", "adds", "expected one of add, fail, ignore; did you mean add?"),
        ("column_names", 5, "expected one of original, snake_case"),
        ("start_date", "yesterday", "expected a date or a date with a time, such as 2026-01-31 or "),
        ("end_date", "2026-02-30", "expected a date or a date with a time, such as 2026-01-31 or "),
        ("end_date", 1767225600, "expected a date or a date with a time, such as 2026-01-31 or "),
        ("start_date", "0001-01-01T00:00:00+05:00", "is out of range"),
        ("start_date", "1066-10-14", "must not be before the year 1900"),
        ("window", "1 day", "expected a duration, such as P1D or PT6H"),
        ("window", "P1M", "expected a duration, such as P1D or PT6H; years and months have no length"),
        ("window", "P1Y", "expected a duration, such as P1D or PT6H; years and months have no length"),
        ("window", 86400, "expected a duration, such as P1D or PT6H"),
        ("window", "PT36H", "longer than a day must be whole days, such as P2D"),
        ("window", "PT0S", "must be longer than nothing"),
        ("window", "-P1D", "must be longer than nothing"),
        ("window", "P99999999D", "must not be longer than a hundred years"),
        ("lookback", "-P1D", "must not be negative"),
        ("lookback", "P999999999D", "must not be longer than a hundred years"),
        ("poll_interval", "PT0S", "must be longer than nothing"),
        ("export_timeout", "-PT1H", "must be longer than nothing"),
        ("timezone", "Europe/Helsinky", "is not the name of a time zone that has rules, such as Europe/"),
        ("timezone", "../../etc/passwd", "is not the name of a time zone that has rules, such as Europe/"),
        ("rejected_rows_limit", -1, "expected a whole number of at least 0"),
        ("rejected_rows_limit", "10", "expected a whole number of at least 0"),
        ("rejected_rows_limit", True, "expected a whole number of at least 0"),
        ("spool_limit", 0, "expected a whole number of at least 1"),
        ("spool_dir", 5, "expected a text"),
        ("spool_dir", "~nobody-of-this-name/x", "begins with a home folder that is not known"),
        ("ledger", "a\0b", "must not have a null character in it"),
        ("ca_bundle", "~nobody-of-this-name/x", "can't be read (no such path); expected a PEM file"),
        ("allow_unverified_downloads", "yes", "expected true or false"),
        ("ca_bundle", "/nowhere/ca.pem", "can't be read (No such file or directory); expected a PEM file"),
        ("ca_bundle", __file__, "has no certificate in it; expected a PEM file"),
    ],
)
def test_a_wrong_value_at_the_top(setting, value, words):
    (line,) = mistakes(gooee() | {setting: value})
    assert line.startswith(f"{setting}: {words}")


@pytest.mark.parametrize(
    ("export", "path", "words"),
    [
        ({"name": "Calls"}, "name", "expected a text that matches ^[a-z][a-z0-9_]*$, such as conversations"),
        ({"name": "calls\n"}, "name", "must not end with a line break"),
        ({"name": "export_runs"}, "name", "'export_runs' is already a stream of the tap's own"),
        ({"workflow_id": None}, "workflow_id", "is required; expected a text"),
        ({"workflow_id": ""}, "workflow_id", "is required; expected a text"),
        ({"step_index": -1}, "step_index", "expected a whole number of at least 0"),
        ({"limit": 0}, "limit", "expected a whole number of at least 1"),
        ({"filters": {}}, "filters", "expected a list"),
        ({"filters": ["a"]}, "filters[0]", "expected an object"),
        ({"format": "xls"}, "format", "expected one of csv, xlsx; did you mean xlsx?"),
        ({"window": "P2M"}, "window", "expected a duration"),
        ({"timezone": "Mars/Base"}, "timezone", "is not the name of a time zone"),
        ({"encoding": "base64"}, "encoding", "is not an encoding of text that Python knows, such as"),
        ({"delimiter": "||"}, "delimiter", "must be one ASCII character, such as ;"),
        ({"delimiter": '"'}, "delimiter", "must be one ASCII character, such as ;"),
        ({"quote": "'"}, "quote", 'expected one of an empty text, "'),
        ({"skip_rows": -1}, "skip_rows", "expected a whole number of at least 0"),
        ({"null_values": "--"}, "null_values", "expected a list"),
        ({"null_values": ["--", "--"]}, "null_values", "has a text twice"),
        ({"primary_keys": ["id", 5]}, "primary_keys[1]", "expected a text"),
        ({"primary_keys": ["id", "id"]}, "primary_keys", "names a column twice"),
        ({"exclude_columns": ["a", ""]}, "exclude_columns", "has an empty name"),
        (
            {"primary_keys": ["a", "b"], "exclude_columns": ["b"]},
            "primary_keys[1]",
            "is excluded by exclude_columns",
        ),
        ({"columns": {"Talk Time": "Number"}}, "columns.Talk Time", "expected one of boolean, date, "),
        ({"columns": {"a": {"format": "%Y"}}}, "columns.a.type", "is required; expected one of boolean, "),
        ({"columns": {"a": {"type": "date", "format": "%Q"}}}, "columns.a.format", "has %Q, which is not"),
        (
            {"columns": {"a": {"type": "number", "thousand": ","}}},
            "columns.a.thousand",
            "is not a setting; known here are type, format, ",
        ),
        (
            {"columns": {"a": {"type": "number", "stripp": ","}}},
            "columns.a.stripp",
            f"is not a setting; known here are {', '.join(Column.__struct_fields__)}; did you mean strip?",
        ),
        ({"colums": {}}, "colums", "is not a setting; did you mean columns?"),
        ({"qqqqq": {}}, "qqqqq", "is not a setting; known here are name, columns, "),
        ({"two\nlines": 1}, r"two\nlines", "is not a setting"),
    ],
)
def test_a_wrong_value_of_an_export(export, path, words):
    (line,) = mistakes({"start_date": "2026-01-01"} | giosg({}, export))
    assert line.startswith(f"giosg.exports[1].{path}: {words}")


@pytest.mark.parametrize(
    ("block", "path", "words"),
    [
        ({"base_url": "api.gooee.io"}, "base_url", "must be an http or https URL, such as https://"),
        ({"base_url": "http://"}, "base_url", "must be an http or https URL, such as https://"),
        (
            {"base_url": "http://localhost:99999"},
            "base_url",
            "must be an http or https URL, such as https://",
        ),
        ({"requests_per_minute": 0}, "requests_per_minute", "expected a whole number of at least 1"),
        ({"max_concurrent_exports": 0}, "max_concurrent_exports", "expected a whole number of at least 1"),
        ({"auth_scheme": "jwt"}, "auth_scheme", "expected one of Bearer, JWT, raw; did you mean JWT?"),
        ({"api_token": None}, "api_token", "is required, or `username` and `password`"),
        ({"api_token": "", "username": "me"}, "api_token", "is required, or `username` and `password`"),
        ({"api_token": 12345678}, "api_token", "expected a text"),
        ({"api_token": {"a": CANARY}}, "api_token", "expected a text"),
        ({"api_token": [CANARY]}, "api_token", "expected a text"),
        ({"api_tokn": CANARY}, "api_tokn", "is not a setting; known here are base_url, "),
        ({"exports": {"name": "a"}}, "exports", "expected a list"),
        ({"exports": None}, "exports", "is required; expected a list"),
        ({"exports": [CANARY]}, "exports[0]", "expected an object"),
    ],
)
def test_a_wrong_value_of_a_block(block, path, words):
    (line,) = mistakes(gooee(**block))
    assert line.startswith(f"gooee.{path}: {words}")


def test_a_name_at_the_top_that_is_nobodys():
    lines = mistakes(gooee() | {"windw": "P1D", "stream_map": {}, "khoros": {}}, also=["stream_maps"])
    assert lines == [
        "windw: is not a setting; did you mean window?",
        "stream_map: is not a setting; did you mean stream_maps?",
        "khoros: is not a setting; did you mean khoros_care?",
    ]
    decode(gooee() | {"stream_maps": {"anything": 1}}, BLOCKS, also=["stream_maps"])


def test_one_run_shows_every_mistake():
    config = {"window": "P1M", "timezone": "Nowhere", "batch_config": {"encoding": {"format": "csv"}}}
    config |= gooee({"skip_rows": -1}, {"name": "same", "delimiter": ""}, {"name": "same"}, base_url="x")
    config |= giosg({"name": "same"}, api_token=None)
    assert [line.partition(": ")[0] for line in mistakes(config)] == [
        "window",
        "timezone",
        "batch_config.encoding.format",
        "batch_config.storage",
        "giosg.api_token",
        "giosg.exports[0].start_date",
        "gooee.base_url",
        "gooee.exports[0].skip_rows",
        "gooee.exports[1].delimiter",
        "gooee.exports[2].name",
    ]


def test_a_wrong_start_date_is_told_once():
    (line,) = mistakes({"start_date": "2026-13-01"} | giosg({}, {}))
    assert line.startswith("start_date: ")


def test_flex_insights_selects_by_the_day():
    block = {
        "username": "x",
        "password": CANARY,
        "workspace_id": "x",
        "exports": [{"name": "a", "report_id": "1", "date_identifier": "date.date.mmddyyyy"}],
    }
    config = {"start_date": "2026-01-01", "window": "PT6H", "flex_insights": block}
    (line,) = mistakes(config)
    assert line.startswith("flex_insights.exports[0].window: must be whole days")
    decode(config | {"window": "P7D"}, BLOCKS)
    del block["exports"][0]["date_identifier"]  # a snapshot has no windows
    decode(config, BLOCKS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["P1D", "UTC"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["name", "type"]), inner),
    max_leaves=8,
)


def places(schema, path=()):
    """The path of every setting that a schema has."""
    yield path
    for name, inner in schema.get("properties", {}).items():
        yield from places(inner, (*path, name))
    if schema.get("type") == "array" and "items" in schema:
        yield from places(schema["items"], (*path, 0))


PLACES = [path for path in places(json_schema({"gooee": BLOCKS["gooee"], "giosg": BLOCKS["giosg"]})) if path]


def replaced(config, path, value):
    """A configuration with another value at a path."""
    if not path:
        return value
    first, *rest = path
    if first == 0:
        return [replaced(config[0] if config else {}, rest, value)]
    return {**(config or {}), first: replaced((config or {}).get(first), rest, value)}


@given(st.sampled_from(PLACES), JSON)
def test_whatever_stands_at_a_place_is_read_or_refused(path, value):
    config = replaced({"start_date": "2026-01-01"} | gooee() | giosg(), path, value)
    problems = []
    try:
        decode(config, BLOCKS)
    except SettingsError as error:
        problems = error.problems
    assert not any("\n" in line or CANARY in line or ": " not in line for line in problems)


# What is right


def test_exports_inherit_what_they_do_not_say():
    config = {
        "start_date": "2026-01-01",
        "window": "PT0.5S",
        "lookback": "P2W",
        "timezone": "Europe/Helsinki",
    }
    own = {"start_date": "2026-02-01T00:00:00+02:00", "window": "P1D", "export_timeout": "PT1M"}
    first, second = decode(config | giosg({}, own), BLOCKS).providers["giosg"].all_exports
    assert first.start_date == datetime(2026, 1, 1, tzinfo=UTC)
    assert (first.window, first.lookback) == (timedelta(seconds=0.5), timedelta(weeks=2))
    assert (first.zone.key, first.export_timeout) == ("Europe/Helsinki", timedelta(hours=2))
    assert second.start_date == datetime(2026, 1, 31, 22, tzinfo=UTC)
    assert (second.window, second.lookback) == (timedelta(days=1), timedelta(weeks=2))
    assert second.export_timeout == timedelta(minutes=1)


def test_columns_are_types_or_objects():
    columns = {"a": "integer", "b": {"type": "number", "thousands": " ", "decimal": ",", "strip": "%$"}}
    (export,) = decode(gooee({"columns": columns}), BLOCKS).providers["gooee"].all_exports
    assert export.columns == {
        "a": "integer",
        "b": Column("number", thousands=" ", decimal=",", strip="%$"),
    }


def test_an_end_beyond_all_days_is_none_at_all():
    settings = decode(gooee() | {"end_date": "9999-12-31"}, BLOCKS)
    assert settings.end_date == datetime(9999, 12, 31, tzinfo=UTC)


def test_a_bundle_of_certificates_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ssl.get_default_verify_paths()
    der = ssl.create_default_context(cafile=paths.cafile).get_ca_certs(binary_form=True)
    if not der:
        pytest.skip("this system has no certificates")
    (tmp_path / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(der[0]))
    assert decode(gooee() | {"ca_bundle": "~/ca.pem"}, BLOCKS).ca_bundle == str(tmp_path / "ca.pem")


# Blocks that are not used


@pytest.mark.parametrize(
    "block",
    [
        None,
        "",
        {},
        {"base_url": "https://api.gooee.io", "auth_scheme": "raw", "requests_per_minute": None},
        {"api_token": "", "username": None, "password": "", "auth_scheme": "", "exports": []},
    ],
)
def test_a_block_that_holds_no_more_than_defaults_is_not_used(block):
    settings = decode({"start_date": "2026-01-01", "gooee": block} | giosg(), BLOCKS)
    assert (settings.providers.keys(), settings.warnings) == ({"giosg"}, [])
    (line,) = mistakes({"gooee": block})
    assert line.startswith("no provider is configured: add a block, one of ")


def test_a_block_that_is_not_used_but_was_meant_to_be_is_told():
    half = {"gooee": {"base_url": "https://eu.gooee.io", "requests_per_minute": 5}}
    settings = decode({"start_date": "2026-01-01"} | half | giosg(), BLOCKS)
    assert settings.providers.keys() == {"giosg"}
    assert settings.warnings == ["gooee: is not used, for it has neither credentials nor exports"]
    assert mistakes(half)[1:] == settings.warnings
    (line,) = mistakes(giosg() | {"start_date": "2026-01-01", "gooee": {"api_tokn": CANARY}})
    assert line.startswith("gooee.api_tokn: is not a setting")


@pytest.mark.parametrize("block", [{"api_token": CANARY}, {"username": "me"}, {"exports": [{"name": "a"}]}])
def test_credentials_or_exports_alone_are_a_mistake(block):
    assert all(line.startswith("gooee.") for line in mistakes({"gooee": block}))


def test_no_exports_are_a_warning():
    settings = decode(gooee(exports=[]), BLOCKS)
    assert settings.providers["gooee"].all_exports == []
    assert settings.warnings == ["gooee.exports: is empty, so nothing is exported from there"]


# Of another package


class SharedExport(Export, kw_only=True, forbid_unknown_fields=True):
    """An export that has a secret of its own."""

    key: Annotated[Secret | None, about("Key", "Opens this one file")] = None
    keys: Annotated[list[Secret], about("Keys", "Open the others")] = []

    @property
    def incremental(self) -> bool:
        return False


class SharedSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """Shared: files that somebody shares."""

    base_url: str = "https://shared.example.com"
    exports: list[SharedExport]


def test_secrets_are_found_wherever_they_are():
    exports = [{"name": "a", "key": "k1", "keys": ["k2", "k3"]}, {"name": "b", "columns": {"c": "date"}}]
    settings = decode({"shared": {"exports": exports}}, {"shared": SharedSettings})
    assert list(secrets(settings)) == ["k1", "k2", "k3"]
    assert repr(settings.providers["shared"]) == "SharedSettings"


# Described


def test_the_schema_describes_each_setting():
    def described(schema, path=""):
        for name, setting in schema["properties"].items():
            assert setting.get("title"), f"{path}{name}"
            assert setting.get("description"), f"{path}{name}"
            inner = setting.get("items", setting)
            if "properties" in inner:
                described(inner, f"{path}{name}.")

    schema = json_schema(BLOCKS)
    described(schema)
    top = schema["properties"]
    assert top["khoros_care"]["title"] == "Khoros Care"
    password = top["khoros_care"]["properties"]["password"]
    assert (password["type"], password["secret"], password["writeOnly"]) == ("string", True, True)
    assert top["gooee"]["properties"]["api_token"]["secret"]
    assert (top["start_date"]["format"], top["export_timeout"]["default"]) == ("date-time", "PT2H")
    export = top["giosg"]["properties"]["exports"]["items"]["properties"]
    assert export["start_date"]["format"] == "date-time"
    kind, column = export["columns"]["additionalProperties"]["anyOf"]
    assert "timestamp" in kind["enum"]
    assert column["properties"].keys() >= {"type", "format", "timezone", "thousands", "decimal", "strip"}
    described(column)
    assert "$ref" not in json.dumps(schema)


def test_blocks_come_from_the_environment_as_json():
    env = {
        "TAP_ANALYTICS_EXPORTS_GOOEE": json.dumps(gooee()["gooee"]),
        "TAP_ANALYTICS_EXPORTS_REJECTED_ROWS_LIMIT": "5",
        "TAP_ANALYTICS_EXPORTS_ALLOW_UNVERIFIED_DOWNLOADS": "true",
        "TAP_ANALYTICS_EXPORTS_STREAM_MAPS": "{}",
        "TAP_ANALYTICS_EXPORTS_ON_BAD_ROW": "explode",
    }
    with start_tap(None, "--config=ENV", "--discover", env=env) as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    errors = [line.split(" | ")[-1] for line in stderr.splitlines() if "| ERROR" in line]
    assert errors == ["Config validation error: on_bad_row: expected one of divert, fail"]
