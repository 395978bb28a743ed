"""A typed frame becomes JSON: messages around it, all at once, or Python objects one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_analytics_exports.settings import Column

Constants = Mapping[str, str | int | datetime | None]
_NONE: Constants = {}

# So many at once become text, which takes several times the memory of a frame.
_CELLS = 64_000


def slices(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut a frame into parts whose text has a size that may be in memory several times."""
    return frame.iter_slices(max(_CELLS // max(frame.width, 1), 1))


def lines(
    frame: pl.DataFrame,
    columns: Mapping[str, Column],
    constants: Constants = _NONE,
    *,
    envelope: tuple[str, str] = ("", ""),
) -> memoryview:
    """Write all rows of a frame as JSON, one a line; no Python object is made for a row.

    As JSON values they equal what the SDK writes of `records`.

    Args:
        frame: Typed rows, as `Columns.cast` gives them; columns by property name.
        columns: The type of each of its columns.
        constants: Further properties, which are the same in all rows.
        envelope: What stands before and after each record on its line.
    """
    start, end = envelope
    documents = [name for name in frame.columns if columns[name].type == "json"]
    # Columns are taken out as they are: for polars, some names would be patterns or mean several columns.
    plain = [_plain(frame[name]) for name in frame.columns if name not in documents]
    # A struct is written much faster by itself than within another, so the message is put around its text;
    # and so is what all rows share.
    shared = json.dumps({name: _json(value) for name, value in constants.items()}, separators=(",", ":"))
    pieces = [pl.lit(start + shared[:-1])]
    comma = "," if constants else ""
    for name in documents:
        pieces += [
            pl.lit(f"{comma}{json.dumps(name)}:"),
            pl.lit(frame[name].alias("").cast(pl.String).fill_null("null")),
        ]
        comma = ","
    if plain:
        record = pl.lit(pl.DataFrame(plain).to_struct()).struct.json_encode()
        pieces += [pl.lit(comma), record.str.slice(1), pl.lit(f"{end}\n")]
    else:
        pieces.append(pl.lit(f"}}{end}\n"))
    written = pl.select(pl.concat_str(pieces)).to_series()
    # In Arrow's memory all texts of a column lie side by side.
    _, _, text = written.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
    return memoryview(text) if frame.height else memoryview(b"")


def records(
    frame: pl.DataFrame, columns: Mapping[str, Column], constants: Constants = _NONE
) -> Iterator[dict[str, Any]]:
    """The same records as Python objects.

    Dates, timestamps (`YYYY-MM-DDTHH:MM:SS[.ffffff]+00:00`) and decimals are strings; a number within `json`
    is a Decimal where a double wouldn't hold it.

    Args:
        frame: Typed rows, as `Columns.cast` gives them; columns by property name.
        columns: The type of each of its columns.
        constants: Further properties, which are the same in all rows.
    """
    documents = [name for name in frame.columns if columns[name].type == "json"]
    written = frame.with_columns(_moments(pl.col(pl.Datetime)), pl.col(pl.Date).dt.to_string("%Y-%m-%d"))
    common = {name: _json(value) for name, value in constants.items()}
    for record in written.iter_rows(named=True):
        for name in documents:
            if record[name] is not None:
                record[name] = _loaded(record[name])
        record.update(common)
        yield record


def _json(value: str | int | datetime | None) -> str | int | None:
    return value.isoformat() if isinstance(value, datetime) else value


def _plain(values: pl.Series) -> pl.Series:
    """Values that polars writes as JSON in the way that this tap does."""
    nameless = values.alias("")
    if values.dtype == pl.Datetime and (nameless.dt.microsecond() != 0).any():
        return pl.select(_moments(pl.lit(nameless))).to_series().alias(values.name)
    return values


def _moments(values: pl.Expr) -> pl.Expr:
    """Timestamps as text; a fraction has six digits, or is left out if it is zero."""
    return values.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f+00:00").str.replace(".000000+", "+", literal=True)


def _exact(number: str) -> float | Decimal:
    double = float(number)
    if repr(double) == number:  # as most are written
        return double
    exact = Decimal(number)
    return double if Decimal(repr(double)) == exact else exact


_decode = msgspec.json.Decoder(float_hook=_exact).decode


def _loaded(document: str) -> Any:
    try:
        return _decode(document)
    except msgspec.DecodeError:  # for msgspec, half a surrogate pair is none
        return json.loads(document, parse_float=_exact)
