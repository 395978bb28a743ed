"""What the type of a setting can't say of its values: rules that stand beside the type, in `Annotated`.

A rule takes a value of the right type and returns what is wrong with it, in words for the user, or None.
The words never hold the value, which may be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
import importlib.util
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from tap_analytics_exports.formats import zone_problem

DAY = timedelta(days=1)
LONGEST = 36_500 * DAY
EARLIEST_YEAR = 1900


@dataclass(frozen=True, slots=True)
class Check:
    """A rule, to be put beside the type of a setting: `Annotated[str, Check(url_problem)]`."""

    problem: Callable[[Any], str | None]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to a wrong one, as the end of a sentence; empty: none is near."""
    by_fold = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.casefold(), by_fold, n=1)
    return f"; did you mean {by_fold[near[0]]}?" if near else ""


def is_http(url: str) -> bool:
    """Whether a URL is one of http or https, with a host, and a port that can be."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def url_problem(url: str) -> str | None:
    """Of the address of an API."""
    return None if is_http(url) else "must be an http or https URL, such as https://api.example.com"


def name_problem(name: str) -> str | None:
    """Of a stream's name, beyond its pattern, whose `$` lets a last line break pass."""
    return "must not end with a line break" if name.endswith("\n") else None


def timezone_problem(name: str) -> str | None:
    """Of the name of a time zone."""
    if zone_problem(name) is None:
        return None
    near = did_you_mean(name, available_timezones())
    return f"is not the name of a time zone that has rules, such as Europe/Helsinki{near}"


def time_problem(time: datetime) -> str | None:
    """Of a point in time, with which windows have to be counted."""
    try:
        time.astimezone(UTC)
    except OverflowError:
        return "is out of range"
    return None if time.year >= EARLIEST_YEAR else f"must not be before the year {EARLIEST_YEAR}"


def length_problem(length: timedelta) -> str | None:
    """Of a time to wait."""
    if length <= timedelta(0):
        return "must be longer than nothing, such as PT1M"
    return "must not be longer than a hundred years" if length > LONGEST else None


def window_problem(window: timedelta) -> str | None:
    """Of the length of windows, which lie on a grid of days."""
    if window > DAY and window % DAY:
        return "longer than a day must be whole days, such as P2D"
    return length_problem(window)


def lookback_problem(lookback: timedelta) -> str | None:
    """Of how far to reach back."""
    if lookback < timedelta(0):
        return "must not be negative; such as P2D, or PT0S for none"
    return length_problem(lookback) if lookback else None


def delimiter_problem(delimiter: str) -> str | None:
    """Of what stands between fields."""
    if len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n\0':
        return None
    return "must be one ASCII character, such as ; and no quote or line break"


def encoding_problem(encoding: str) -> str | None:
    """Of the name of an encoding."""
    try:
        "".encode(encoding)  # refuses codecs that are not of text, too
    except (LookupError, ValueError):
        return "is not an encoding of text that Python knows, such as cp1252 or utf-16"
    return None


def names_problem(names: list[str]) -> str | None:
    """Of a list of columns."""
    if "" in names:
        return "has an empty name"
    return "names a column twice" if len(set(names)) < len(names) else None


def texts_problem(texts: list[str]) -> str | None:
    """Of a list of texts that all mean the same."""
    return "has a text twice" if len(set(texts)) < len(texts) else None


def ca_bundle_problem(path: str) -> str | None:
    """Of a file of certificates; nothing is wrong with an empty path, which is none."""
    if not path:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(Path(path).expanduser())
    except ssl.SSLError:
        return "has no certificate in it; expected a PEM file, with -----BEGIN CERTIFICATE-----"
    except (OSError, RuntimeError, ValueError) as error:
        return f"can't be read ({getattr(error, 'strerror', None) or 'no such path'}); expected a PEM file"
    return None if context.cert_store_stats()["x509"] else "has no certificate in it; expected a PEM file"


def path_problem(path: str) -> str | None:
    """Of the path of a file or a folder, whether it is there or not."""
    if "\0" in path:
        return "must not have a null character in it"
    try:
        Path(path).expanduser()
    except RuntimeError:
        return "begins with a home folder that is not known; expected a path, such as ~/exports"
    return None


def archive_problem(url: str) -> str | None:
    """Of where files are kept; nothing is wrong with an empty text, which is nowhere."""
    if "@" in url.partition("://")[2].partition("/")[0]:
        return "must not name a user or a password; S3 is reached with the usual AWS environment"
    return batch_root_problem(url) if url else None


def batch_root_problem(root: str) -> str | None:
    """Of where batch files go."""
    if "://" not in root or root.startswith("file://"):
        return path_problem(root.removeprefix("file://"))
    if not root.startswith("s3://"):
        return "must be a folder, file:///path, or s3://bucket/path"
    if importlib.util.find_spec("boto3") is None:
        return "s3:// needs pip install 'tap-analytics-exports[s3]'"
    return None
