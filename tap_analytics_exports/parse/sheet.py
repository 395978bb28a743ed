"""The child process that reads a workbook: a program of its own, which imports nothing of the tap.

    python -P sheet.py MEMORY PATH [SHEET]

Standard output gets messages, each with its length before it (four bytes, big-endian): a MessagePack array of
columns, which are arrays of text and null, all of one length. The last message is an empty array, or text
that says what is wrong. Rows without any value are left out.
"""

from __future__ import annotations

import datetime as dt
import resource
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Bytes that a message should have, at least and at most.
SMALL, LARGE = 1 << 20, 8 << 20
FIRST_ROWS, MOST_ROWS = 500, 50_000
# Beyond it, the reader has rounded whole numbers.
EXACT = 2.0**53
# From here on, Python writes an exponent by itself.
SCIENTIFIC = 1e16


def _number(value: float) -> str:
    if abs(value) < EXACT:
        return str(int(value)) if value.is_integer() else repr(value)
    return repr(value) if abs(value) >= SCIENTIFIC else f"{value:.15e}"


def _span(value: dt.timedelta) -> str:
    seconds, micro = divmod(round(value / dt.timedelta(microseconds=1)), 1_000_000)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}" + (f".{micro:06}" if micro else "")


TEXT: dict[type, Callable[[Any], str | None]] = {
    str: lambda value: value or None,
    float: _number,
    int: lambda value: _number(float(value)) if abs(value) >= EXACT else str(value),
    bool: lambda value: "true" if value else "false",
    dt.date: dt.date.isoformat,
    dt.datetime: dt.datetime.isoformat,
    dt.time: dt.time.isoformat,
    dt.timedelta: _span,
}


def _messages(path: str, sheet: str | None) -> Iterator[bytes]:
    """All messages, without their lengths."""
    import msgspec  # noqa: PLC0415 - under the limit on memory, as all that can fail
    import python_calamine as calamine  # noqa: PLC0415

    encode = msgspec.msgpack.encode
    try:
        workbook = calamine.CalamineWorkbook.from_path(path)
        names = [
            each.name for each in workbook.sheets_metadata if each.typ == calamine.SheetTypeEnum.WorkSheet
        ]
        if sheet is None and not names:
            yield encode("it has no sheet")
            return
        if sheet is not None and sheet not in names:
            yield encode(f"it has no sheet {sheet!r}; set `sheet` to one of {', '.join(map(repr, names))}")
            return
        rows = workbook.get_sheet_by_name(names[0] if sheet is None else sheet).iter_rows()
    except calamine.PasswordError:
        yield encode("it is protected with a password")
        return
    except (calamine.CalamineError, OSError) as error:
        yield encode(f"it is damaged, or no XLSX file ({error})")
        return
    filled: Iterable[list[Any]] = (row for row in rows if any(cell != "" for cell in row))
    count = FIRST_ROWS
    while chunk := list(islice(filled, count)):
        message = encode([[TEXT[type(cell)](cell) for cell in column] for column in zip(*chunk, strict=True)])
        yield message
        if len(message) < SMALL:
            count = min(2 * count, MOST_ROWS)
        elif len(message) > LARGE:
            count = max(count // 2, 1)
    yield encode([])


def main() -> None:
    """Read the workbook that the arguments name."""
    memory, path, sheet = int(sys.argv[1]), sys.argv[2], (sys.argv[3] if len(sys.argv) > 3 else None)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for message in _messages(path, sheet):
        sys.stdout.buffer.write(len(message).to_bytes(4, "big"))
        sys.stdout.buffer.write(message)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
