"""Records go through stream maps and flattening, one by one, as the SDK has it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from singer_sdk.mapper import StreamMap
from singer_sdk.singerlib.json import serialize_json

_encode = msgspec.json.Encoder(decimal_format="number").encode
_SCALARS = frozenset({str, int, float, bool, type(None), Decimal})
_TEXT = frozenset({str})


def envelope(stream: str, time_extracted: datetime, version: int | None = None) -> tuple[str, str]:
    """Make what stands before and after the record in a RECORD message.

    Args:
        stream: The stream's name.
        time_extracted: When the records were received, in any zone.
        version: Of the stream, if it has one.
    """
    start = f'{{"type":"RECORD","stream":{json.dumps(stream)},"record":'
    end = "" if version is None else f',"version":{version}'
    return start, f'{end},"time_extracted":"{time_extracted.astimezone(UTC).isoformat()}"}}'


def mapped(
    records: Iterable[dict[str, Any]],
    maps: Sequence[StreamMap],
    *,
    time_extracted: datetime,
    version: int | None = None,
) -> Iterator[bytes]:
    """Make the messages, one a line, that stream maps make of records.

    As JSON values they equal what the SDK writes; but it takes longer, for it writes with simplejson, and
    checks of each value of each record whether it is deselected, which no column of a frame is.

    Args:
        records: Selected properties only.
        maps: The stream's.
        time_extracted: When the records were received, in any zone.
        version: Of the stream, if it has one.
    """
    frames = [envelope(each.stream_alias, time_extracted, version) for each in maps]
    ways = [
        (each.transform, start.encode(), f"{end}\n".encode())
        for each, (start, end) in zip(maps, frames, strict=True)
    ]
    for record in records:
        for transform, start, end in ways:
            made = transform(record)
            if made is not None:
                yield start + _document(made) + end


def _document(record: dict[str, Any]) -> bytes:
    """Write a record as the SDK does, by msgspec where that does the same."""
    try:
        if _is_common(record.values()):
            return _encode(record)
    except (UnicodeEncodeError, RecursionError):
        pass  # half a surrogate pair, a deep document
    return serialize_json(record).encode()


def _is_common(values: Collection[Any]) -> bool:
    """Tell whether all is of types that msgspec writes like the SDK; a timestamp, for one, is not."""
    if _SCALARS.issuperset(map(type, values)):
        return True
    for value in values:
        kind = type(value)
        if kind is dict:
            if not (_TEXT.issuperset(map(type, value)) and _is_common(value.values())):
                return False
        elif kind is list:
            if not _is_common(value):
                return False
        elif kind not in _SCALARS:
            return False
    return True
