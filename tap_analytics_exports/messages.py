"""A typed frame becomes Singer RECORD messages, or the same records as Python objects."""

from __future__ import annotations

import io
import json
from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from tap_analytics_exports.settings import Column


def lines(
    frame: pl.DataFrame,
    columns: Mapping[str, Column],
    *,
    stream: str,
    time_extracted: datetime,
    version: int | None = None,
) -> bytes:
    """RECORD messages, one a line, for all rows of a frame; no Python object is made for a row.

    As JSON values they equal what the SDK writes of `records`.

    Args:
        frame: Typed rows, as `Columns.cast` gives them; columns by property name.
        columns: The type of each of its columns.
        stream: The stream's name.
        time_extracted: When the rows were received, in any zone.
        version: Of the stream, if it has one.
    """
    documents = [name for name in frame.columns if columns[name].type == "json"]
    plain = [name for name in frame.columns if name not in documents]
    end = "}" if version is None else f'}},"version":{version}'
    end += f',"time_extracted":"{time_extracted.astimezone(UTC).isoformat()}"}}'
    pieces: list[pl.Expr] = [pl.lit(f'{{"type":"RECORD","stream":{json.dumps(stream)},"record":{{')]
    if plain:
        # A struct is written twice as fast by itself as within another.
        braced = pl.struct(plain).struct.json_encode()
        pieces.append(braced.str.strip_prefix("{").str.strip_suffix("}"))
    for place, name in enumerate(documents):
        comma = "," if plain or place else ""
        pieces += [pl.lit(f"{comma}{json.dumps(name)}:"), pl.col(name).cast(pl.String).fill_null("null")]
    written = frame.with_columns(_moments(frame)).select(pl.concat_str(*pieces, pl.lit(end)))
    text = io.BytesIO()
    written.write_csv(text, include_header=False, quote_style="never")
    return text.getvalue()


def records(frame: pl.DataFrame, columns: Mapping[str, Column]) -> Iterator[dict[str, Any]]:
    """The same records as Python objects.

    Dates, timestamps (`YYYY-MM-DDTHH:MM:SS[.ffffff]+00:00`) and decimals are strings; a number within `json`
    is a Decimal where a double wouldn't hold it.

    Args:
        frame: Typed rows, as `Columns.cast` gives them; columns by property name.
        columns: The type of each of its columns.
    """
    documents = [name for name in frame.columns if columns[name].type == "json"]
    written = frame.with_columns(*_moments(frame), pl.col(pl.Date).dt.to_string("%Y-%m-%d"))
    for record in written.iter_rows(named=True):
        for name in documents:
            if record[name] is not None:
                record[name] = json.loads(record[name], parse_float=_exact)
        yield record


def _moments(frame: pl.DataFrame) -> list[pl.Expr]:
    """Timestamps as text: a fraction has six digits, and is left out where it is zero."""
    return [
        pl.col(name).dt.to_string("%Y-%m-%dT%H:%M:%S%.6f+00:00").str.replace(".000000+", "+", literal=True)
        for name, dtype in frame.schema.items()
        if dtype == pl.Datetime
    ]


def _exact(number: str) -> float | Decimal:
    double, exact = float(number), Decimal(number)
    return double if Decimal(repr(double)) == exact else exact
