"""XLSX workbooks as frames of text, read by a library in a process of its own.

A workbook can make the library take any memory or time, or end its process; there, that ends no more than the
export that has the workbook.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import base
from tap_analytics_exports.redaction import clean_logger

# Without its folder in the path of imports: modules there have names of the standard library's.
READER = (sys.executable, "-P", str(Path(__file__).with_name("sheet.py")))
SILENCE = 60.0

logger = clean_logger(__name__)


def frames(path: Path, dialect: base.Dialect) -> Iterator[base.TextFrame]:
    """The rows of a sheet; see `tap_analytics_exports.parse.frames`.

    The first row that is not empty is the header, as far as it has text. Numbers are plain up to 2^53; a
    whole one beyond may have been rounded by whoever wrote it, and is written with an exponent, which no
    integer and no decimal column takes. Dates and times are ISO 8601; errors (`#N/A`) are null.
    """
    arguments = [str(path), json.dumps(dialect.sheet), str(dialect.skip_rows), str(base.FRAME_ROWS)]
    with subprocess.Popen(  # noqa: S603 - it is our own program
        [*READER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # for signals of a terminal are for the tap alone
    ) as process:
        try:
            while text := _line(process):
                match msgspec.json.decode(text):
                    case {"error": why}:
                        raise _unreadable(why)
                    case {"warning": why}:
                        logger.warning("%s: %s", path.name, why)
                    case message:
                        yield _frame(**message)
        finally:
            process.kill()


def _line(process: subprocess.Popen[bytes]) -> bytes:
    """The next line, none at the end; who is silent for `SILENCE` seconds is killed."""
    assert process.stdout is not None
    since = time.monotonic()
    watch = threading.Timer(SILENCE, process.kill)
    watch.daemon = True
    watch.start()
    text = process.stdout.readline()
    whole = text.endswith(b"\n") or process.wait() == len(text) == 0
    watch.cancel()
    if whole:
        return text
    if time.monotonic() - since >= SILENCE:
        raise _unreadable(f"no row came within {SILENCE:.0f} seconds")
    raise _unreadable(
        f"its reader died ({process.returncode}), as it is damaged, or as its rows and columns, from the "
        "first to the last that is used, have too many cells for the memory"
    )


def _unreadable(why: str) -> ExportFailed:
    remedy = "ask for CSV, or for less at once (a shorter `window`)"
    return ExportFailed(f"the workbook can't be read: {why}; {remedy}")


def _frame(
    header: list[str], columns: list[list[str]], numbers: list[int], longer: list[tuple[int, list[str]]]
) -> base.TextFrame:
    schema = {**{str(index): pl.String for index in range(len(header))}, base.ROW_NUMBER: pl.Int64}
    rows = pl.DataFrame([*columns, numbers] if numbers else [], schema)
    rows, with_nul = base.without_nul(rows.with_columns(pl.col(pl.String).replace("", None)))
    reason = f"cells beyond the {len(header)} columns of the header"
    bad = [base.BadRow(number, base.line(fields), reason) for number, fields in longer]
    return base.TextFrame(tuple(header), rows, bad + with_nul, dated=True)
