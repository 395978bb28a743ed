"""What is typed: configuration, state and catalog, in whatever form; wrong ones are named, and not shown."""

import json

import pytest
from conftest import run_tap

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.singer import given

SCHEMA = {
    "properties": {
        "spool_limit": {"type": "integer"},
        "allow_unverified_downloads": {"type": "boolean"},
        "gooee": {"type": "object"},
    }
}
BOOKMARKS = {"bookmarks": {"calls": {"replication_key_value": "2026-01-03T00:00:00+00:00"}}}


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("SPOOL_LIMIT", "many", "SPOOL_LIMIT is not a whole number"),
        ("ALLOW_UNVERIFIED_DOWNLOADS", "maybe", "ALLOW_UNVERIFIED_DOWNLOADS is not true or false"),
        ("GOOEE", '{"api_token": "do-not-show"', "GOOEE is not JSON"),
    ],
)
def test_a_variable_that_is_none_is_named_and_not_shown(monkeypatch, variable, text, words):
    monkeypatch.setenv(f"TAP_{variable}", text)
    with pytest.raises(SettingsError, match=words) as raised:
        given.configuration(["ENV"], SCHEMA, "TAP_")
    assert "do-not-show" not in str(raised.value)


def test_later_configurations_win_over_earlier_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("TAP_GOOEE", '{"exports": []}')
    monkeypatch.setenv("TAP_ALLOW_UNVERIFIED_DOWNLOADS", "off")
    (tmp_path / "a.json").write_text('\ufeff{"spool_limit": 1, "x": 2}')
    (tmp_path / "b.json").write_text('{"spool_limit": 3}')
    found = given.configuration([str(tmp_path / "a.json"), "ENV", str(tmp_path / "b.json")], SCHEMA, "TAP_")
    assert found.config == {
        "x": 2, "spool_limit": 3, "gooee": {"exports": []}, "allow_unverified_downloads": False,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", "7", "", "\0", '"x"', "[" * 100_000])
def test_a_file_that_holds_no_object_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"config: .*config\.json: "):
        given.configuration([str(path)], SCHEMA, "TAP_")


@pytest.mark.parametrize(
    "content",
    [
        BOOKMARKS,
        {"type": "STATE", "value": BOOKMARKS},
        {"singer_state": BOOKMARKS},
        {"completed": {}, "singer_state": BOOKMARKS},
    ],
)
def test_a_state_is_taken_out_of_what_it_is_wrapped_in(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(content))
    with path.open() as file:
        assert given.state(file) == BOOKMARKS


@pytest.mark.parametrize(
    "content", [{"calls": "2026"}, {"bookmarks": []}, {"type": "STATE"}, {"type": "RECORD"}]
)
def test_what_is_no_state_is_named(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(content))
    with path.open() as file, pytest.raises(SettingsError, match=r"state\.json: is no state"):
        given.state(file)


STREAM = {"tap_stream_id": "calls", "schema": {}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([STREAM], "holds no JSON object; name a file that --discover has made"),
        ({}, "is no catalog: Object missing required field `streams`; make one with --discover"),
        (
            {"streams": {"calls": STREAM}},
            "is no catalog: Expected `array`, got `object` - at `$.streams`; make one with --discover",
        ),
        (
            {"streams": [{"tap_stream_id": "calls"}]},
            (
                "is no catalog: Object missing required field `schema` - at `$.streams[0]`; make one with "
                "--discover"
            ),
        ),
        (
            {"streams": [{**STREAM, "metadata": {"selected": True}}]},
            (
                "is no catalog: Expected `array`, got `object` - at `$.streams[0].metadata`; make one with "
                "--discover"
            ),
        ),
        (
            {"streams": [{**STREAM, "metadata": [{"breadcrumb": [], "metadata": {"selected": "yes"}}]}]},
            (
                "is no catalog: Expected `bool | null`, got `str` - at "
                "`$.streams[0].metadata[0].metadata.selected`; make one with --discover"
            ),
        ),
    ],
)
def test_what_is_json_and_no_catalog_is_named_with_where(tmp_path, content, words):
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps(content))
    with path.open() as file, pytest.raises(SettingsError) as raised:
        given.catalog(file)
    assert str(raised.value) == f"catalog: {path}: {words}"


@pytest.mark.parametrize("option", ["config", "state", "catalog"])
def test_what_is_refused_is_one_line(tmp_path, option):
    path = tmp_path / "given.json"
    path.write_text("[]")
    result = run_tap({}, f"--{option}", str(path))
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if "| INFO " not in line]
    assert len(errors) == 1, result.stderr
    assert f"| {option}: {path}: holds no JSON object; name a file that " in errors[0]


def test_configuration_in_place_of_its_file_is_not_shown(sandbox):
    result = run_tap({}, "--config", '{"password": "do-not-show"}')
    assert result.exit_code == 1
    assert "do-not-show" not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
