"""Columns as Arrow has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa

from tap_analytics_exports.settings import Column, ColumnKind

_ARROW: dict[ColumnKind, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.string(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "json": pa.string(),
}

_POLARS: dict[ColumnKind, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "decimal": pl.String(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
    "json": pl.String(),
}


def arrow_schema(columns: Mapping[str, Column]) -> pa.Schema:
    """Give each column its field; those of `decimal` and `json`, which are strings, say so as `kind`."""
    return pa.schema([_field(name, column) for name, column in columns.items()])


def record_batch(
    frame: pl.DataFrame, columns: Mapping[str, Column], constants: Mapping[str, str | int | datetime | None]
) -> pa.RecordBatch:
    """Put typed rows, and what is the same in all of them, into one batch.

    Args:
        frame: Typed rows, columns by property name.
        columns: The type of each column, the constant ones included.
        constants: Further columns, which are the same in all rows.
    """
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    arrays = {
        name: values.combine_chunks().cast(_ARROW[columns[name].type])
        for name, values in zip(frame.columns, table.columns, strict=True)
    }
    for name, value in constants.items():
        arrays[name] = pa.repeat(pa.scalar(value, _ARROW[columns[name].type]), frame.height)
    return pa.record_batch(
        list(arrays.values()), schema=arrow_schema({name: columns[name] for name in arrays})
    )


def frame_of(records: Sequence[Mapping[str, Any]], columns: Mapping[str, Column]) -> pl.DataFrame:
    """Make a typed frame of some records."""
    return pl.DataFrame(
        [
            pl.Series(name, [record[name] for record in records], _POLARS[column.type])
            for name, column in columns.items()
        ]
    )


def _field(name: str, column: Column) -> pa.Field:
    metadata = {"kind": column.type} if column.type in ("decimal", "json") else None
    return pa.field(name, _ARROW[column.type], metadata=metadata)
