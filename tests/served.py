"""Whether tables hold what the sandbox has served, whoever has filled them."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from services import Sandbox

EXPORTS = {
    "flex_conversations": ("flex_insights", "643040"),
    "flex_workload": ("flex_insights", "643041"),
    "flex_missed": ("flex_insights", "643042"),
    "calls": ("intelepeer", "CallEvent"),
    "messages": ("intelepeer", "MsgEvent"),
    "dtmf": ("intelepeer", "DtmfEvent"),
    "khoros_conversations": ("khoros_care", "conversation"),
    "khoros_posts": ("khoros_care", "incoming_post"),
    "khoros_campaigns": ("khoros_care", "marketing/raw_brand_post"),
    "gooee_energy": ("gooee", "6092953b-94a6-476d-aad8-f4b42a0f0c08"),
    "gooee_occupancy": ("gooee", "7ca7297f-1de1-4799-8eeb-a7b4d557850c"),
    "giosg_calls": ("giosg", "0d9a1f7e-3c52-4b8e-8f64-7a1b2c3d4e5f/1"),
    "giosg_popups": ("giosg", "c1f7e0d2-98b4-4a36-b5c3-2e4f6a8b0c1d/1"),
}
"""What the export of each stream of the sandbox's configuration is called at its vendor."""

SNAPSHOTS = {"flex_workload", "gooee_energy", "gooee_occupancy"}


def plain(value: Any) -> Any:
    """A value as a number, a UTC time or a text, whoever wrote it."""
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    if value is None or isinstance(value, datetime | float):
        return value
    text = {"Yes": "true", "No": "false"}.get(value, str(value))
    if re.fullmatch(r"\d\d/\d\d/\d{4}", text):
        return datetime.strptime(text, "%m/%d/%Y")
    if re.fullmatch(r"-?[\d,]+(\.\d+)?", text):
        return float(text.replace(",", ""))
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return text.lower() if text in ("True", "False") else text or None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def property_name(title: str) -> str:
    """A header in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", title).lower()


def wanted_rows(
    stream: str, windows: Iterable[tuple[str, str, str]], services: Sandbox
) -> list[dict[str, str]]:
    """What the sandbox says is in these windows, or was in the last snapshot."""
    provider, export = EXPORTS[stream]
    if stream in SNAPSHOTS:
        (*_, job) = [
            job for job in services.get("served") if (job["service"], job["export"]) == EXPORTS[stream]
        ]
        windows = [(*(job["window"] or ()), job["as_of"])]
    rows = []
    for *edges, as_of in windows:
        span = dict(zip(("start", "end"), edges, strict=False))
        rows += services.get("expected", provider=provider, export=export, as_of=as_of, **span)
    # The one export with a filter.
    return [row for row in rows if stream != "giosg_popups" or row["action"] != "Call ended"]


def assert_served(
    services: Sandbox,
    stream: str,
    windows: Iterable[tuple[str, str, str]],
    rows: Collection[Mapping[str, Any]],
) -> None:
    """Compare the rows of a table with those that the sandbox has, as far as the columns are its own.

    Args:
        services: The sandbox.
        stream: The table's.
        windows: Start, end and time of the trigger of each that was loaded; snapshots need none.
        rows: What the table holds, by column.
    """
    wanted = wanted_rows(stream, windows, services)
    titles = {property_name(title): title for title in wanted[0]}
    names = [name for name in next(iter(rows)) if name in titles]
    assert len(names) > 2
    expected = Counter(tuple(plain(row[titles[name]]) for name in names) for row in wanted)
    found = Counter(tuple(plain(row[name]) for name in names) for row in rows)
    assert found == expected, (
        stream,
        names,
        next(iter(found - expected), 0),
        next(iter(expected - found), 0),
    )
