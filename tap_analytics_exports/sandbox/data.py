"""The invented rows behind the five services.

A row belongs to one moment, and row *k* of a day always has the same moment and the same values, whoever asks
and however the question is cut. So a test can say what a window must hold: :func:`expected`.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

Value = str | int | float | bool | datetime | date | None
Maker = Callable[[Random, int, Sequence[datetime]], list[Value]]

DAY = timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)
#: Whose days a Flex Insights date filter means.
WORKSPACE_ZONE = ZoneInfo("Europe/Helsinki")

GIOSG_ORGANIZATION = "5b0e2a9c-6f5d-4f57-9a3e-1d2c3b4a5f60"
GIOSG_CALLS = "0d9a1f7e-3c52-4b8e-8f64-7a1b2c3d4e5f"
GIOSG_POPUPS = "c1f7e0d2-98b4-4a36-b5c3-2e4f6a8b0c1d"
GOOEE_ENERGY = "6092953b-94a6-476d-aad8-f4b42a0f0c08"
GOOEE_OCCUPANCY = "7ca7297f-1de1-4799-8eeb-a7b4d557850c"
GOOEE_EMPTY = "00c0ffee-0000-4000-8000-000000000000"
GOOEE_LARGE = "1a49e000-5e70-4f11-9c1b-3d5e7f90a1b2"

AGENTS = (
    "Zoë Nyström",
    "Łukasz Wójcik",
    "Märta Öhman",
    "José Ibáñez",
    "陳怡君",
    "O'Neill, Sean",
    'Ann "Annie" Lee',
    "Priya Raman",
)
TEAMS = ("Helsinki", "São Paulo", "Night shift")
QUEUES = ("Support", "Billing", "Sales", "VIP, gold")
CHANNELS = ("Call", "Chat", "SMS", "Email")
POSTS = (
    "Where is my parcel?",
    "Thanks, that works",
    'They said "tomorrow"',
    "First line\nsecond line, after a break",
    "Äiti sanoi: kiitos",
)


@dataclass(frozen=True)
class World:
    """What the rows depend on, besides their moment.

    Attributes:
        seed: Another seed, other values.
        per_day: Rows of one day of one export.
        late_seconds: How long after its moment one row in ten shows first.
    """

    seed: int = 1
    per_day: int = 100
    late_seconds: float = 0


@dataclass(frozen=True)
class Source:
    """One export of one vendor.

    Attributes:
        columns: The header; a title may stand in it twice.
        make: Makes row k of a day.
        share: Rows a day, relative to the world's.
        sparse: No rows at all on every third day.
    """

    columns: tuple[str, ...]
    make: Maker
    share: int = 1
    sparse: bool = False


@functools.lru_cache(maxsize=64)
def moments(day: date, count: int) -> tuple[datetime, ...]:
    """Gives the moments of a day's rows, in order.

    One row lies exactly on the first instant of each hour and one in the day's last second, after its whole
    second: where an end is inclusive, or rounded to seconds, it shows. One in ten has a fraction of a second.

    Args:
        day: A day in UTC.
        count: How many rows the day has.

    Returns:
        As many moments, never falling, of whole milliseconds.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found = []
    hour_before = -1
    for k in range(count):
        hour = k * 24 // count
        if hour != hour_before:
            seconds = hour * 3600.0
        else:
            seconds = 86400 * (k + 0.9 * (k * 0.618034 % 1)) / count
            seconds = min(seconds if k % 10 == 3 else float(int(seconds)), hour * 3600 + 3599.0)
            seconds = max(seconds, hour * 3600.0)
        hour_before = hour
        found.append(midnight + timedelta(milliseconds=int(seconds * 1000)))
    if count > 24:
        found[-1] = midnight + DAY - timedelta(milliseconds=300)
    return tuple(found)


def stream(
    world: World, provider: str, export: str, start: datetime, end: datetime, *, as_of: datetime
) -> Iterator[tuple[datetime, list[Value]]]:
    """Yields the rows of an export whose moments lie in [start, end), but none from after `as_of`.

    Args:
        world: Seed and size.
        provider: The vendor, by the name of its settings block.
        export: The key of the export in `SOURCES[provider]`.
        start: Inclusive.
        end: Exclusive.
        as_of: The moment at which the vendor looks.

    Yields:
        Each row's moment and its values, in the order of time.
    """
    source = SOURCES[provider][export]
    day = start.astimezone(UTC).date()
    late = timedelta(seconds=world.late_seconds)
    last = min(end, as_of + MILLISECOND).astimezone(UTC)
    while datetime(day.year, day.month, day.day, tzinfo=UTC) < last:
        if not (source.sparse and day.toordinal() % 3 == 0):
            rng = Random(f"{world.seed}/{provider}/{export}/{day}")
            times = moments(day, world.per_day * source.share)
            for k, moment in enumerate(times):
                row = source.make(rng, k, times)
                shown = moment + late if k % 10 == 7 else moment
                if start <= moment < end and shown <= as_of:
                    yield moment, row
        day += DAY


def snapshot(world: World, query: str, as_of: datetime) -> Iterator[tuple[datetime, list[Value]]]:
    """Yields the rows of a stored Gooee query: the last 24 whole hours, so the same within an hour.

    Args:
        world: Seed and size.
        query: The query's id.
        as_of: The moment at which the vendor looks.

    Yields:
        Each row's moment and its values.
    """
    if query == GOOEE_EMPTY:
        return
    hour = as_of.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    yield from stream(world, "gooee", query, hour - DAY, hour, as_of=as_of)


def text(provider: str, value: Value) -> str:
    """Writes a value as the vendor's CSV does.

    Args:
        provider: The vendor.
        value: What to write.

    Returns:
        The field, not yet quoted.
    """
    if value is None:
        return ""
    return TEXT[provider](value)


def expected(
    world: World,
    provider: str,
    export: str,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    as_of: datetime | None = None,
) -> list[dict[str, str]]:
    """Says which rows an export holds, as raw text, in the order of time.

    Args:
        world: Seed and size, as the sandbox was started with.
        provider: The vendor.
        export: Flex: the report's id; IntelePeer: the event; Khoros: the export id or `marketing/<id>`;
            Gooee: the query's id; giosg: `<workflow id>/<step index>`.
        start: Inclusive; not for Gooee, whose queries know their own span.
        end: Exclusive.
        as_of: When the job was triggered; now, if not given.

    Returns:
        A dict a row; a title that repeats gets `_2`.
    """
    moment = as_of or datetime.now(UTC)
    if provider == "gooee":
        rows = snapshot(world, export, moment)
    else:
        rows = stream(world, provider, export, start or moment - DAY, end or moment, as_of=moment)
    titles: list[str] = []
    for title in SOURCES[provider][export].columns:
        titles.append(f"{title}_2" if title in titles else title)
    return [dict(zip(titles, (text(provider, value) for value in row), strict=True)) for _, row in rows]


def _hex(rng: Random, digits: int) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


# Flex Insights: the titles of attributes and metrics of a raw report.


def _flex_segment(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    local = times[k].astimezone(WORKSPACE_ZONE)
    abandoned = rng.random() < 0.1
    return [
        f"CH{_hex(rng, 32)}",
        _uuid(rng),
        "Conversation",
        local.date(),
        f"{local:%H:%M:%S}",
        None if abandoned else rng.choice(AGENTS),
        None if abandoned else rng.choice(TEAMS),
        rng.choice(QUEUES),
        rng.choice(CHANNELS),
        rng.choice(("Inbound", "Outbound")),
        "Yes" if abandoned else "No",
        None if abandoned else rng.randint(5, 4000),
        None if abandoned else rng.randint(100, 150000) / 100,
    ]


def _flex_workload(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    local = times[k].astimezone(WORKSPACE_ZONE)
    return [
        _uuid(rng),
        local.date(),
        rng.choice(AGENTS),
        rng.choice(("Agent Status", "Agent Status in Progress")),
        rng.choice(("Available", "Break", "Offline")),
        (local + timedelta(minutes=rng.randint(0, 90))).date(),
        rng.randint(60, 28800),
    ]


def _flex_missed(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    local = times[k].astimezone(WORKSPACE_ZONE)
    kind = rng.choice(("Missed Conversation", "Rejected Conversation"))
    return [f"CH{_hex(rng, 32)}", _uuid(rng), kind, local.date(), rng.choice(QUEUES)]


def _flex_text(value: Value) -> str:
    if isinstance(value, date):
        return f"{value:%m/%d/%Y}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# IntelePeer: the common fields are selectable in every event.

INTELEPEER_COMMON = (
    "EventName",
    "EventVersion",
    "EventSku",
    "TimeStamp",
    "HostId",
    "CustomerId",
    "CustomerName",
    "Originator",
    "OriginatorId",
    "FlowId",
    "FlowName",
    "ActionId",
    "ActionName",
    "IsTriggerAction",
    "SessionId",
    "TransactionId",
    "ApplicationRegion",
    "PassthroughVersion",
    "Passthrough",
)
INTELEPEER_FIELDS = {
    "ApplicationExitEvent": ("StartTime", "EndTime", "Path", "ExitReason"),
    "DtmfEvent": ("DtmfInput", "DtmfSource", "ErrorReason"),
    "CallEvent": ("Direction", "FromNumber", "ToNumber", "AnswerTime", "Duration", "Cost"),
    "MsgEvent": ("Direction", "FromNumber", "ToNumber", "MessageType", "Body", "Segments"),
}
_FLOWS = (("5dcf48b453e0ab04386da7d1", "Front door"), ("5e8367f36426c01425fbd1f5", "My Cool Smartflow"))
_ACTIONS = (("END_CALL", "EndCall"), ("TRANSFER_2", "Transfer"), ("SMS_1", "SMS"), ("DIAL_3", "Dial"))


def _intelepeer_common(event: str, rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    # Three actions share a session, whose id begins with its Unix time (IntelePeer, Call Recording).
    opened = int(times[k - k % 3].timestamp())
    flow_id, flow_name = _FLOWS[k // 3 % 2]
    action_id, action_name = rng.choice(_ACTIONS)
    return [
        event,
        1,
        None,  # EventSku, HostId, CustomerName, Originator: always empty (IntelePeer, API Data Dictionary)
        times[k],
        None,
        "10001234",
        None,
        None,
        "0012345",
        flow_id,
        flow_name,
        action_id,
        action_name,
        k % 3 == 0,
        f"{opened}-1022008-SR-000-0000000000000-{k // 3:08X}",
        f"CP1-{int(times[k].timestamp())}-{event[:4].upper()}-{k:08X}",
        rng.choice(("UNK", "US:US", "US:US-CA", "ES:EU")),
        "1.0",
        json.dumps({"ticket": rng.randint(1000, 9999), "note": rng.choice(POSTS)}, ensure_ascii=False),
    ]


def _phone(rng: Random) -> str:
    return f"+1555{rng.randint(0, 9_999_999):07d}"


def _application_exit(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    row = _intelepeer_common("ApplicationExitEvent", rng, k, times)
    ended = times[k] + timedelta(seconds=rng.randint(1, 900))
    return [*row, times[k], ended, rng.choice(("A>B", "A>C>D")), rng.choice(("HANGUP", "COMPLETE", None))]


def _dtmf(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    row = _intelepeer_common("DtmfEvent", rng, k, times)
    return [*row, f"{rng.randint(0, 999):03d}", rng.choice(("CALLER", "CALLEE")), None]


def _call(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    row = _intelepeer_common("CallEvent", rng, k, times)
    answered = times[k] + timedelta(seconds=rng.randint(1, 30)) if rng.random() < 0.8 else None
    length = rng.randint(1, 3600) if answered else 0
    return [
        *row,
        rng.choice(("IN", "OUT")),
        _phone(rng),
        _phone(rng),
        answered,
        length,
        round(length * 0.0125, 4),
    ]


def _message(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    row = _intelepeer_common("MsgEvent", rng, k, times)
    sort, body = rng.choice(("SMS", "MMS")), rng.choice(POSTS)
    return [*row, rng.choice(("IN", "OUT")), _phone(rng), _phone(rng), sort, body, rng.randint(1, 3)]


def _bigquery_text(value: Value) -> str:
    # As BigQuery exports: true/false, and a fraction of a second only where there is one.
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        fraction = f".{value.microsecond:06d}".rstrip("0") if value.microsecond else ""
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}{fraction} UTC"
    return str(value)


# Khoros Care: ids in capitals, as in CONVERSATION_ID, STATUS, ASSIGNED_AGENT_DISPLAY_ID.


def _khoros_conversation(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    return [
        rng.randint(10_000_000, 99_999_999),
        ("OPEN", "PENDING", "CLOSED")[k % 3],
        rng.choice(("LOW", "MEDIUM", "HIGH", None)),
        rng.choice(AGENTS),
        rng.randint(1, 3),
        times[k],
        times[k] + timedelta(seconds=rng.randint(60, 90_000)) if k % 3 == 2 else None,
        rng.randint(1, 40),
        rng.choice(("twitter", "facebook", "whatsapp")),
        rng.choice(("refund, late", "praise", None)),
    ]


def _khoros_post(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    post = rng.randint(10**11, 10**12)
    author = f"@{rng.choice(('maija', 'pekka', 'inés'))}{rng.randint(1, 99)}"
    conversation = rng.randint(10_000_000, 99_999_999)
    return [post, conversation, author, times[k], rng.choice(POSTS), rng.choice((-1, 0, 1, None))]


def _khoros_agent(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    state, team = rng.choice(("AVAILABLE", "BUSY", "AWAY")), rng.randint(1, 3)
    return [rng.randint(100, 120), rng.choice(AGENTS), team, state, times[k], rng.randint(1, 3600)]


def _khoros_action(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    action = rng.choice(("ASSIGN", "TAG", "CLOSE", "RESPOND"))
    return [rng.randint(10_000_000, 99_999_999), times[k], action, rng.choice(AGENTS), rng.choice(POSTS)]


def _khoros_team(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    team = rng.randint(1, 3)
    return [team, TEAMS[team - 1], times[k], rng.randint(0, 2000), rng.randint(0, 100) / 10]


def _khoros_campaign(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    return [rng.randint(10**11, 10**12), rng.randint(1, 9), times[k], rng.choice(POSTS), rng.randint(0, 9999)]


def _khoros_text(value: Value) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    return str(value)


# Gooee: metrics of devices, as in GooeeIOT/meta-definitions.


def _gooee_energy(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    return [
        times[k],
        str(uuid.UUID(int=k % 17 + 1)),
        str(uuid.UUID(int=k % 5 + 101)),
        rng.randint(0, 60_000) / 1000,
        rng.randint(0, 100),
        rng.random() < 0.4 if k % 7 else None,
    ]


def _gooee_occupancy(rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    return [times[k], str(uuid.UUID(int=k % 5 + 101)), rng.randint(0, 30), rng.randint(0, 1000) / 10]


def _gooee_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    return str(value)


# giosg: the fields of a reported event; dim1 is the flow, dim4 and dim5 are the step's name and number.

GIOSG_ACTIONS = ("User dialed", "Visitor dialed", "Call ended")
#: Steps of each workflow. 0 is the source; numbers may be skipped (giosg, Workflow reporting events flow).
GIOSG_STEPS = {GIOSG_CALLS: (0, 1, 2, 4), GIOSG_POPUPS: (0, 1)}


def _giosg_event(workflow: str, step: int, rng: Random, k: int, times: Sequence[datetime]) -> list[Value]:
    return [
        _uuid(rng),
        times[k],
        1,
        "giosg",
        rng.choice(("call", "popup")),
        "goal" if k % 10 == 0 else "step",
        GIOSG_ACTIONS[k % 3],
        rng.choice(("Etusivu", "Tuotteet, kaikki", None)),
        GIOSG_ORGANIZATION,
        _hex(rng, 24),
        _hex(rng, 24),
        None if k % 4 else _uuid(rng),
        workflow,
        f"Step {step}",
        step,
        rng.randint(0, 100_000) / 100,
        rng.choice(("Helsinki", "Jyväskylä", "Malmö", None)),
        rng.choice(("FI", "SE")),
        rng.choice(("Firefox", "Chrome", "Safari")),
        rng.choice((768, 1080, 1440)),
        json.dumps({"button": k % 5, "text": rng.choice(POSTS)}, ensure_ascii=False),
    ]


def _giosg_text(value: Value) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    return str(value)


TEXT: dict[str, Callable[[Value], str]] = {
    "flex_insights": _flex_text,
    "intelepeer": _bigquery_text,
    "khoros_care": _khoros_text,
    "gooee": _gooee_text,
    "giosg": _giosg_text,
}

_SEGMENT = (
    "Conversation ID",
    "Segment",
    "Kind",
    "Date",
    "Time",
    "Agent",
    "Team",
    "Queue",
    "Channel",
    "Direction",
    "Abandoned",
    "Talk Time",
    "Wrap Up Time",
)
_CONVERSATION = Source(
    (
        "CONVERSATION_ID",
        "STATUS",
        "PRIORITY",
        "ASSIGNED_AGENT_DISPLAY_ID",
        "TEAM_ID",
        "CREATED_TIME",
        "CLOSED_TIME",
        "POST_COUNT",
        "NETWORK",
        "TAGS",
    ),
    _khoros_conversation,
)
_POST = Source(
    ("POST_ID", "CONVERSATION_ID", "AUTHOR_HANDLE", "POST_TIME", "CONTENT", "SENTIMENT"), _khoros_post
)
_AGENT = Source(
    ("AGENT_ID", "AGENT_NAME", "TEAM_ID", "AGENT_STATE", "START_TIME", "TOTAL_TIME"), _khoros_agent
)
_ACTION = Source(("CONVERSATION_ID", "ACTION_TIME", "ACTION_TYPE", "AGENT_NAME", "DETAILS"), _khoros_action)
_TEAM = Source(("TEAM_ID", "TEAM_NAME", "INTERVAL_START", "RESPONSES", "SATISFACTION"), _khoros_team)
_GIOSG_COLUMNS = (
    "event_id",
    "timestamp",
    "event_version",
    "vendor",
    "source",
    "category",
    "action",
    "label",
    "organization_id",
    "visitor_id",
    "session_id",
    "user_id",
    "dim1",
    "dim4",
    "dim5",
    "value",
    "geo_city",
    "geo_country",
    "browser_name",
    "device_screen_height",
    "properties",
)

SOURCES: dict[str, dict[str, Source]] = {
    "flex_insights": {
        "643040": Source(_SEGMENT, _flex_segment),
        # Two attributes of one title: the segment's date and the workload's.
        "643041": Source(
            ("Segment", "Date", "Agent", "Kind", "Activity", "Date", "Activity Time"), _flex_workload
        ),
        "643042": Source(("Conversation ID", "Segment", "Kind", "Date", "Queue"), _flex_missed, sparse=True),
    },
    "intelepeer": {
        "ApplicationExitEvent": Source(
            INTELEPEER_COMMON + INTELEPEER_FIELDS["ApplicationExitEvent"], _application_exit
        ),
        "DtmfEvent": Source(INTELEPEER_COMMON + INTELEPEER_FIELDS["DtmfEvent"], _dtmf, sparse=True),
        "CallEvent": Source(INTELEPEER_COMMON + INTELEPEER_FIELDS["CallEvent"], _call),
        "MsgEvent": Source(INTELEPEER_COMMON + INTELEPEER_FIELDS["MsgEvent"], _message),
    },
    "khoros_care": {
        "raw_agent_states": _AGENT,
        "combined": _POST,
        "conversation_actions": _ACTION,
        "conversation_history_action": _ACTION,
        "author": _POST,
        "conversation": _CONVERSATION,
        "raw_expert_help": _POST,
        "incoming_post": _POST,
        "response": _POST,
        "response_approval": _POST,
        "team_performance": _TEAM,
        "team_performance_interval": _TEAM,
        "user": _AGENT,
        "marketing/raw_brand_post": Source(
            ("BRAND_POST_ID", "CAMPAIGN_ID", "POST_TIME", "CONTENT", "IMPRESSIONS"), _khoros_campaign
        ),
    },
    "gooee": {
        query: Source(
            ("timestamp", "device_id", "space_id", "active_power", "dim", "occupancy_detected"),
            _gooee_energy,
            share=share,
        )
        for query, share in ((GOOEE_ENERGY, 1), (GOOEE_EMPTY, 1), (GOOEE_LARGE, 100))
    }
    | {
        GOOEE_OCCUPANCY: Source(
            ("timestamp", "space_id", "area_head_count", "area_utilization"), _gooee_occupancy
        )
    },
    "giosg": {
        f"{workflow}/{step}": Source(_GIOSG_COLUMNS, functools.partial(_giosg_event, workflow, step))
        for workflow, steps in GIOSG_STEPS.items()
        for step in steps
    },
}
