"""The files that the benchmarks read: twenty typed columns, the same values for the same number of rows."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import xlsxwriter

LABELS = ["north", "south", "east", "west", "new", "open", "closed", "waiting", "answered", "Zoë", "Jürgen"]


def _half(seed: int) -> dict[str, tuple[str, pl.Expr]]:
    """The types and the values of ten columns; with another seed other values."""

    def some(column: int, below: int) -> pl.Expr:
        return pl.col("n").hash(1000 * seed + column).mod(below).cast(pl.Int64)

    def label(column: int) -> pl.Expr:
        return some(column, len(LABELS)).replace_strict(list(range(len(LABELS))), LABELS)

    start = pl.datetime(2024, 1, 1, time_unit="us")
    created_at = start + pl.duration(seconds=some(7, 60_000_000))
    return {
        "id": ("integer", pl.col("n") + 1),
        "quantity": ("integer", some(1, 100_000) - 1000),
        "ratio": ("number", (some(2, 10_000_000) / 1000).cast(pl.Decimal(12, 3))),
        "amount": ("decimal", (some(3, 10_000_000) / 100).cast(pl.Decimal(12, 2))),
        "active": ("boolean", pl.when(some(4, 10) > 0).then(some(5, 2) == 1)),
        "day": ("date", start.dt.date() + pl.duration(days=some(6, 700))),
        # Text, for it has a zone, which a workbook's cells have not.
        "created_at": ("timestamp", created_at.dt.to_string("%Y-%m-%dT%H:%M:%SZ")),
        "local_time": ("timestamp", start + pl.duration(seconds=some(8, 60_000_000))),
        "label": ("string", label(9)),
        "comment": ("string", label(10) + ", " + some(11, 5000).cast(pl.String)),
    }


COLUMNS = _half(0) | {f"{name}_2": column for name, column in _half(1).items()}
TYPES = {name: kind for name, (kind, _) in COLUMNS.items()}


def schema() -> dict[str, Any]:
    """The JSON Schema of the columns."""
    texts = {"decimal": {}, "date": {"format": "date"}, "timestamp": {"format": "date-time"}}
    properties = {
        name: {"type": ["string" if kind in texts else kind, "null"], **texts.get(kind, {})}
        for name, kind in TYPES.items()
    }
    return {"type": "object", "properties": properties}


def write(path: Path, rows: int, columns: int = len(TYPES)) -> None:
    """Write a file of the format that its name says: `.csv`, `.csv.gz`, `.xlsx`, or `.block`.

    A block is CSV that a server sends many times; its header lies beside it. A workbook has one sheet, in
    which texts are shared and dates are numbers, as spreadsheet programs have it.
    """
    values = {name: value for name, (_, value) in list(COLUMNS.items())[:columns]}
    frame = pl.LazyFrame({"n": pl.int_range(rows, eager=True)}).select(**values)
    if path.suffix == ".xlsx":
        with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd hh:mm:ss"}) as book:
            sheet, day = book.add_worksheet("Report"), book.add_format({"num_format": "yyyy-mm-dd"})
            formats = [day if TYPES[name] == "date" else None for name in values]
            sheet.write_row(0, 0, list(values))
            for number, row in enumerate(frame.collect().iter_rows(), 1):
                for column, value in enumerate(row):
                    sheet.write(number, column, value, formats[column])
        return
    block, packed = path.suffix == ".block", path.suffix == ".gz"
    plain = path.with_suffix("") if packed else path
    frame.sink_csv(plain, include_header=not block, datetime_format="%Y-%m-%d %H:%M:%S")
    if block:
        frame.head(0).sink_csv(path.with_suffix(".header"))
    if packed:
        with plain.open("rb") as source, gzip.open(path, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target, 1 << 20)
