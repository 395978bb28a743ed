"""XLSX workbooks as frames of text.

They are read in a child process (`sheet.py`), because a workbook of a few kilobytes can make the reader take
all memory, or abort its process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import IO, TYPE_CHECKING

import msgspec
import polars as pl

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.base import (
    ROW_NUMBER,
    BadRow,
    Dialect,
    TextFrame,
    line,
    without_nul,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILD = Path(__file__).with_name("sheet.py")
# Bytes of address space that the child may take: a million rows of twenty columns need 1.5 GiB.
MEMORY = 2 << 30
# Seconds that the child may be silent; opening a workbook of a million rows takes it less than a minute.
PATIENCE = 600.0
LONGEST_MESSAGE = 512 << 20

Cells = list[list[str | None]]


def frames(path: Path, dialect: Dialect) -> Iterator[TextFrame]:
    """The rows of a sheet; see `tap_analytics_exports.parse.frames`.

    The first row that is not empty is the header, as far as it has words. Numbers are plain up to 2^53;
    those beyond have been rounded by the reader, and are written with an exponent, which no integer and no
    decimal column takes. Dates and times are ISO 8601.
    """
    header: tuple[str, ...] | None = None
    before = 0
    for columns in _chunks(path, dialect.sheet):
        if header is None:
            words = [column.pop(0) or "" for column in columns]
            header = tuple(words[: max(i for i, word in enumerate(words, 1) if word)])
        height = len(columns[0])
        numbers = pl.Series(ROW_NUMBER, range(before + 1, before + height + 1), pl.Int64)
        sheet = pl.DataFrame(
            [*(pl.Series(str(i), cells, pl.String) for i, cells in enumerate(columns)), numbers]
        )
        before += height
        yield _frame(header, sheet)


def _frame(header: tuple[str, ...], sheet: pl.DataFrame) -> TextFrame:
    """Rows of a sheet, those aside that have cells where the header has no word."""
    width = len(header)
    sheet, bad = without_nul(sheet)
    beyond = [name for name in sheet.columns[width:] if name != ROW_NUMBER]
    if beyond:
        too_long = sheet.select(pl.any_horizontal(pl.col(beyond).is_not_null())).to_series()
        bad += [
            BadRow(number, line(cells), f"cells beyond the {width} columns of the header")
            for *cells, number in sheet.filter(too_long).iter_rows()
        ]
        sheet = sheet.filter(~too_long).drop(beyond)
    return TextFrame(header, sheet, bad)


def _chunks(path: Path, sheet: str | None) -> Iterator[Cells]:
    """The columns of some rows after the others, as the child sends them."""
    decoder = msgspec.msgpack.Decoder(Cells | str)
    arguments = [str(MEMORY), str(path), *([] if sheet is None else [sheet])]
    # In a session of its own, so that what interrupts the tap at a terminal does not look like a bad file.
    with subprocess.Popen(  # noqa: S603 - the tap's own program
        [sys.executable, "-P", str(CHILD), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        try:
            while message := decoder.decode(_message(child)):
                if isinstance(message, str):
                    raise ExportFailed(f"the workbook can't be read: {message}")
                yield message
        finally:
            child.kill()


def _message(child: subprocess.Popen[bytes]) -> bytes:
    """What the child says next."""
    assert child.stdout is not None  # noqa: S101 - for the type checker
    impatient = Timer(PATIENCE, child.kill)
    impatient.daemon = True
    impatient.start()
    try:
        length = int.from_bytes(_exactly(child.stdout, 4), "big")
        if length > LONGEST_MESSAGE:
            raise ExportFailed("the workbook can't be read: its cells are too large")
        return _exactly(child.stdout, length)
    except EOFError:
        raise ExportFailed(
            f"the workbook can't be read: its reader ended (code {child.wait()}); the file is damaged, or "
            f"takes more than {MEMORY >> 20} MiB or {PATIENCE:.0f} seconds to open"
        ) from None
    finally:
        impatient.cancel()


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
