"""What a user reads of settings that are wrong: whole lines with the path, the choices or an example."""

import copy
from typing import Any

import pytest

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.extraction import settings_types
from tap_analytics_exports.settings import decode

RIGHT: dict[str, Any] = {
    "start_date": "2026-01-01",
    "khoros_care": {
        "username": "ann",
        "password": "invented",
        "company_key": "k3y-of-acme",
        "exports": [{"name": "authors", "export_id": "author"}],
    },
    "intelepeer": {
        "api_token": "t0ken-of-acme",
        "files_url": "sftp://acme@files.example.com/base",
        "sftp_password": "invented",
        "exports": [{"name": "calls", "event": "CallEvent"}],
    },
}

# where, what is there in place of it (None: nothing), the line
LINES: dict[str, tuple[str, Any, str]] = {
    "an unknown setting": ("windw", "P1D", "windw: is not a setting; did you mean window?"),
    "an unknown setting of a block": (
        "khoros_care.usrname",
        "ann",
        (
            "khoros_care.usrname: is not a setting; known here are base_url, max_concurrent_exports, "
            "requests_per_minute, username, password, company_key, exports; did you mean username?"
        ),
    ),
    "an unknown setting of an export": (
        "khoros_care.exports.0.metric",
        [],
        "khoros_care.exports[0].metric: is not a setting; did you mean metrics?",
    ),
    "a choice": (
        "khoros_care.exports.0.section",
        "marketting",
        "khoros_care.exports[0].section: expected one of marketing, report; did you mean marketing?",
    ),
    "a choice that is near to none": ("on_bad_row", "whatever", "on_bad_row: expected one of divert, fail"),
    "a date": (
        "start_date",
        "yesterday",
        "start_date: expected a date or a date with a time, such as 2026-01-31 or 2026-01-31T06:00:00Z",
    ),
    "a duration": ("window", "1 day", "window: expected a duration, such as P1D or PT6H"),
    "months": (
        "window",
        "P1M",
        "window: expected a duration, such as P1D or PT6H; years and months have no length of their own",
    ),
    "a window that is no grid": (
        "window",
        "PT36H",
        "window: longer than a day must be whole days, such as P2D",
    ),
    "no window": ("window", "PT0S", "window: must be longer than nothing, such as PT1M"),
    "a negative lookback": (
        "lookback",
        "-P1D",
        "lookback: must not be negative; such as P2D, or PT0S for none",
    ),
    "a time zone": (
        "timezone",
        "Europe/Helsinky",
        (
            "timezone: is not the name of a time zone that has rules, such as Europe/Helsinki; did you mean "
            "Europe/Helsinki?"
        ),
    ),
    "a name": (
        "khoros_care.exports.0.name",
        "Authors",
        "khoros_care.exports[0].name: expected a text that matches ^[a-z][a-z0-9_]*$, such as conversations",
    ),
    "a name that is there twice": (
        "khoros_care.exports.0.name",
        "calls",
        "khoros_care.exports[0].name: 'calls' is already intelepeer.exports[0]; choose another",
    ),
    "a name of the tap's own": (
        "khoros_care.exports.0.name",
        "export_runs",
        "khoros_care.exports[0].name: 'export_runs' is already a stream of the tap's own; choose another",
    ),
    "a number": ("rejected_rows_limit", "many", "rejected_rows_limit: expected a whole number of at least 0"),
    "a truth": (
        "allow_unverified_downloads",
        "perhaps",
        "allow_unverified_downloads: expected true or false",
    ),
    "a list": ("khoros_care.exports.0.metrics", "STATUS", "khoros_care.exports[0].metrics: expected a list"),
    "an object": (
        "khoros_care.exports.0.parameters",
        ["teamIds"],
        "khoros_care.exports[0].parameters: expected an object",
    ),
    "a block that is none": ("khoros_care", "ann", "khoros_care: expected an object"),
    "what is required": (
        "khoros_care.exports.0.export_id",
        None,
        "khoros_care.exports[0].export_id: is required; expected a text",
    ),
    "credentials": ("khoros_care.password", None, "khoros_care.password: is required; expected a text"),
    "either of two ways to sign in": (
        "intelepeer.api_token",
        None,
        "intelepeer.api_token: is required, or `username` and `password`",
    ),
    "a URL": (
        "khoros_care.base_url",
        "api.example.com",
        "khoros_care.base_url: must be an http or https URL, such as https://api.example.com",
    ),
    "a type of a column": (
        "khoros_care.exports.0.columns",
        {"a": "int"},
        (
            "khoros_care.exports[0].columns.a: expected one of boolean, date, decimal, integer, json, "
            "number, string, timestamp or an object; did you mean integer?"
        ),
    ),
    "a format of a column": (
        "khoros_care.exports.0.columns",
        {"a": {"type": "timestamp", "format": "MM/DD/YYYY"}},
        "khoros_care.exports[0].columns.a.format: needs one year, %Y or %y",
    ),
    "an encoding": (
        "khoros_care.exports.0.encoding",
        "latin-99",
        (
            "khoros_care.exports[0].encoding: is not an encoding of text that Python knows, such as cp1252 "
            "or utf-16"
        ),
    ),
    "a delimiter": (
        "khoros_care.exports.0.delimiter",
        ";;",
        "khoros_care.exports[0].delimiter: must be one ASCII character, such as ; and no quote or line break",
    ),
    "a key that is excluded": (
        "khoros_care.exports.0",
        {"name": "a", "export_id": "author", "primary_keys": ["x"], "exclude_columns": ["x"]},
        "khoros_care.exports[0].primary_keys[0]: is excluded by exclude_columns, but a key has to be there",
    ),
    "a parameter of the tap's own": (
        "khoros_care.exports.0.parameters",
        {"startTime": 1},
        (
            "khoros_care.exports[0].parameters.startTime: is sent by the tap: leave it out, as it is the "
            "window's"
        ),
    ),
    "half a scope": (
        "intelepeer.exports.0.scope",
        {"filters": {}},
        "intelepeer.exports[0].scope: needs both filters and scope",
    ),
    "an address of files": (
        "intelepeer.files_url",
        "ftp://files.example.com",
        "intelepeer.files_url: must be sftp://user@host:port/base or s3://bucket/base",
    ),
    "an address without a user": (
        "intelepeer.files_url",
        "sftp://files.example.com/base",
        "intelepeer.files_url: must name the user and no password: sftp://user@host:port/base",
    ),
    "no way to log in to the files": (
        "intelepeer.sftp_password",
        None,
        "intelepeer.sftp_password: is required, or else sftp_private_key or sftp_private_key_file",
    ),
    "a private key": (
        "intelepeer.sftp_private_key",
        "no key",
        "intelepeer.sftp_private_key: is no private key that can be read; it must have no passphrase",
    ),
    "a host key": (
        "intelepeer.sftp_host_key",
        "SHA256:abc",
        "intelepeer.sftp_host_key: must be type and key, such as: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI...",
    ),
    "a file of known hosts": (
        "intelepeer.sftp_known_hosts",
        "/nowhere/known_hosts",
        "intelepeer.sftp_known_hosts: is not a file; name one, such as ~/.ssh/known_hosts",
    ),
    "a bundle": (
        "ca_bundle",
        "/nowhere/ca.pem",
        "ca_bundle: can't be read (No such file or directory); expected a PEM file",
    ),
    "a folder for batches": (
        "batch_config",
        {"encoding": {"format": "jsonl"}, "storage": {"root": "gs://x"}},
        "batch_config.storage.root: must be a folder, file:///path, or s3://bucket/path",
    ),
}


def lines(path: str, value: Any) -> list[str]:
    """The lines for the right settings with another value in one place."""
    settings = copy.deepcopy(RIGHT)
    *steps, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    at: Any = settings
    for step in steps:
        at = at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    with pytest.raises(SettingsError) as wrong:
        decode(settings, settings_types())
    return wrong.value.problems


@pytest.mark.parametrize("name", LINES)
def test_the_line_of(name):
    path, value, line = LINES[name]
    assert lines(path, value) == [line]


def test_a_line_for_each_mistake():
    assert lines("start_date", None) == [
        f"{export}.start_date: is required, here or at the top level, for an incremental export; such as "
        "2026-01-31"
        for export in ("intelepeer.exports[0]", "khoros_care.exports[0]")
    ]
