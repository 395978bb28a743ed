"""Reads a sheet of a workbook, as a program that `xlsx` starts; it writes rows of text as lines of JSON."""

import gc
import os
import re
import resource
import sys
import threading
import zipfile
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import reduce
from itertools import chain
from posixpath import join, normpath
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
from python_calamine import CalamineSheet, CalamineWorkbook

LARGEST, INFLATION = 1 << 30, 500  # a bomb is not unpacked; a sheet seldom shrinks to less than a hundredth
# Memory grows with what there is to read, up to a bound; 300,000 rows of 12 columns take 300 MiB.
MEMORY, MEMORY_PER_BYTE, MOST_MEMORY = 160 << 20, 3, 352 << 20
FRAME_CHARACTERS = 4 << 20
EXACT = 2.0**53  # beyond it, not every whole number is a double, which a workbook's numbers are

CLOCKS = {*map(str, [*range(18, 23), *range(32, 36), 45, 47, 55, 56])}  # ECMA-376, part 1, 18.8.30
NO_CODE = re.compile(r'"[^"]*"|\\.|\[[^]]*\]')
FORMULA = rb"<f(?:\s[^>]*)?(?:/>|>[^<]*</f>)\s*"
UNCALCULATED = re.compile(FORMULA + rb"(<v\s*/>|<v>\s*</v>)?\s*</c\s*>")
WHOLE_DAYS = rb' s="(?:%b)"[^>]*>\s*(?:' + FORMULA + rb")?<v>[0-9]+</v>"
NOT_SEEN = re.compile(rb"<v>[^<]*<!")
REFERENCE = re.compile(rb'\sr="([A-Z]{1,3})([0-9]{1,7})"')


def main(path: str, sheet: str, skip_rows: str, frame_rows: str) -> None:
    """Write what is in a sheet, or what is wrong; of a death without a word, the parent makes an error."""
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()  # the parent is gone
    gc.disable()  # which would look at all cells again and again
    try:
        for message in messages(path, msgspec.json.decode(sheet), int(skip_rows), int(frame_rows)):
            sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - of three libraries
        sys.stdout.buffer.write(msgspec.json.encode({"error": str(error)[:1000]}) + b"\n")


def messages(path: str, sheet: str | None, skip_rows: int, frame_rows: int) -> Iterator[dict[str, Any]]:
    """Read a sheet, the first if it has no name."""
    with zipfile.ZipFile(path) as archive, ThreadPoolExecutor(1) as pool:
        bound(archive)
        with CalamineWorkbook.from_path(path) as book:
            known = [each.name for each in book.sheets_metadata if str(each.typ).endswith(".WorkSheet")]
            name = known[0] if sheet is None and known else sheet
            if name not in known:
                raise ValueError(
                    f"it has no sheet {sheet!r}; set `sheet` to one of {', '.join(map(repr, known))}"
                )
            looked = pool.submit(look, archive, name)
            cells = book.get_sheet_by_name(name)
    midnights, uncalculated = looked.result()
    if uncalculated:
        yield {
            "warning": f"{uncalculated} formulas have no value, as nobody calculated them, and count as null"
        }
    yield from rows(cells, midnights, skip_rows, frame_rows)


def bound(archive: zipfile.ZipFile) -> None:
    """Refuse parts that are too large, and bound the memory of this process."""
    size = 0
    for part in archive.infolist():
        size += part.file_size
        if size > LARGEST or part.file_size > max(16 << 20, INFLATION * part.compress_size):
            sizes = f"{part.file_size:,} bytes, packed into {part.compress_size:,}"
            raise ValueError(f"its part {part.filename!r} has {sizes}, which is too much")
    memory = min(MOST_MEMORY, MEMORY + MEMORY_PER_BYTE * size)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def look(archive: zipfile.ZipFile, sheet: str) -> tuple["array[int]", int]:
    """Check the checksums of all parts, and see in a sheet what the library doesn't tell.

    Returns:
        The cells of whole days whose format shows a clock, as `row << 14 | column` from 0, and the number of
        formulas without a value.
    """
    parts = {part.filename.replace("\\", "/").lower(): part for part in archive.infolist()}
    book, relations, styles = (
        ET.fromstring(archive.read(parts[part]) if part in parts else "<none/>")  # noqa: S314 - expat has bounds
        for part in ("xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/styles.xml")
    )
    sheets = {each.get("name"): {*each.attrib.values()} for each in book.iterfind("{*}sheets/{*}sheet")}
    target = next(
        (each.get("Target", "") for each in relations if each.get("Id") in sheets.get(sheet, ())), ""
    )
    codes = {
        each.get("numFmtId"): each.get("formatCode", "") for each in styles.iterfind("{*}numFmts/{*}numFmt")
    }
    shown = {id_ for id_, code in codes.items() if re.search("(?i)[hs]", NO_CODE.sub("", code))}
    used = enumerate(each.get("numFmtId") for each in styles.iterfind("{*}cellXfs/{*}xf"))
    clocks = b"|".join(b"%d" % style for style, id_ in used if id_ in shown | CLOCKS - {*codes})
    whole_days = re.compile(WHOLE_DAYS % (clocks or b"none"))
    midnights, uncalculated = array("Q"), 0
    for part in archive.infolist():
        rest = b""
        with archive.open(part) as file:
            while data := file.read(1 << 20):  # to the end, where the checksum is
                if part is not parts.get(normpath(join("/xl", target)).lstrip("/").lower()):
                    continue
                block, _, rest = (rest + data).rpartition(b"row>")
                block = block.replace(b"<x:", b"<").replace(b"</x:", b"</")
                if NOT_SEEN.search(block):
                    raise ValueError("a cell has its value in CDATA or beside a comment, which can't be read")
                for match in whole_days.finditer(block):
                    if cell := REFERENCE.search(block, block.rfind(b"<c", 0, match.start()), match.end()):
                        column = reduce(lambda number, letter: 26 * number + letter - 64, cell[1], 0)
                        midnights.append(int(cell[2]) - 1 << 14 | column - 1)
                for match in UNCALCULATED.finditer(block):
                    tag = block[block.rfind(b"<c", 0, match.start()) : match.start()]
                    uncalculated += not (match[1] and b't="str"' in tag)  # as that is an empty text
    return midnights, uncalculated


def rows(
    sheet: CalamineSheet, midnights: "array[int]", skip_rows: int, frame_rows: int
) -> Iterator[dict[str, Any]]:
    """Take the rows that are not empty, of which the first is the header, as far as it has text."""
    left = sheet.start[1] if sheet.start else 0  # empty rows above come from the library, columns don't
    due = chain(midnights, [sys.maxsize])
    midnight = next(due)
    header, good, numbers, longer = list[Any](), list[list[Any]](), list[int](), list[Any]()
    number = size = 0

    def frame() -> dict[str, Any]:
        columns = [texts(column) for column in zip(*good, strict=True)]
        return {"header": header, "columns": columns, "numbers": numbers, "longer": longer}

    for row, cells in enumerate(sheet.iter_rows()):
        while midnight >> 14 <= row:
            column = midnight % (1 << 14) - left
            if midnight >> 14 == row and 0 <= column < len(cells) and type(cells[column]) is date:
                cells[column] = f"{cells[column]}T00:00:00"
            midnight = next(due)
        if row < skip_rows or cells.count("") == len(cells):
            continue
        if not header:
            header = trimmed(cells)
            continue
        number += 1
        size += sum([len(cell) for cell in cells if type(cell) is str])
        if cells[len(header) :].count("") < len(cells) - len(header):
            longer.append((number, trimmed(cells)))
        else:
            good.append(cells[: len(header)])
            numbers.append(number)
        if len(good) + len(longer) == frame_rows or size > FRAME_CHARACTERS:
            yield frame()
            good, numbers, longer, size = [], [], [], 0
    if header:
        yield frame()


def trimmed(cells: list[Any]) -> list[Any]:
    """Make text of cells up to the last one that is not empty."""
    return texts(cells[: max(index for index, cell in enumerate(cells, 1) if cell != "")])


def texts(cells: Iterable[Any]) -> list[Any]:
    """Make text of cells, but for dates and times, which become ISO 8601 as they are written."""
    return [TEXT[type(cell)](cell) if type(cell) in TEXT else cell for cell in cells]


def number_text(value: float) -> str:
    """Write a number plain, or with an exponent where it may have been rounded."""
    if -EXACT < value < EXACT:
        return str(int(value)) if value.is_integer() else repr(value)
    return repr(value) if abs(value) >= 1e16 else f"{value:.15e}"  # as repr does from there on


def duration_text(value: timedelta) -> str:
    """Write hours, minutes and seconds."""
    seconds, rest = divmod(abs(value), timedelta(seconds=1))
    sign = "-" if value < timedelta(0) else ""
    text = f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{rest.microseconds:06}" if rest else text


TEXT: dict[type, Any] = {
    float: number_text,
    bool: {True: "true", False: "false"}.get,
    timedelta: duration_text,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
