"""The files that the benchmarks read: twenty typed columns, the same bytes for the same arguments.

    python benchmarks/data.py folder rows.csv=2000000 rows.csv.gz=2000000 rows.xlsx=100000
    python benchmarks/data.py --count folder

A name that ends in `.block` is CSV without its header, for a server that sends it many times; the header
lies beside it. In one that ends in `texts.xlsx`, moments with a zone are texts. `--count` says how many rows
all Parquet files of a folder have. It is a program of its own, so that what measures stays small: a process
inherits the peak memory of the one that starts it.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import zipfile
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

HALVES = ("", "_2")
CHUNK = 100_000

LABELS = ("north", "south", "east", "west", "new", "open", "closed", "waiting", "answered", "Zoë", "Jürgen")
DAYS_FROM_1899 = 45292  # 2024-01-01, as workbooks count

# What a workbook consists of besides its cells; style 1 is a date, style 2 a date with its time.
_PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    '<Override PartName="/xl/workbook.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
    '<Override PartName="/xl/worksheets/sheet1.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
    '<Override PartName="/xl/styles.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/>'
    '<Override PartName="/xl/sharedStrings.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets>'
    '<sheet name="Report" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": "<Relationships xmlns="
    '"http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
    'Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/>'
    '<Relationship Id="rId3" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings" '
    'Target="sharedStrings.xml"/></Relationships>',
    "xl/styles.xml": '<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    '<numFmts count="2"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd"/>'
    '<numFmt numFmtId="165" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss"/></numFmts>'
    '<fonts count="1"><font><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
    '<cellXfs count="3"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>'
    '<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
    '<xf numFmtId="165" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/></cellXfs>'
    "</styleSheet>",
}
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def _half(first: int, rows: int, seed: int) -> list[pl.Series]:
    """Values of one half of the columns, for some rows from `first` on."""
    ids = pl.int_range(first, first + rows, dtype=pl.UInt64, eager=True)

    def some(which: int, below: int) -> pl.Expr:
        return pl.lit(ids).hash(1000 * seed + which).mod(below).cast(pl.Int64)

    start = pl.datetime(2024, 1, 1, time_unit="us")
    words = pl.lit(pl.Series(LABELS))
    frame = pl.select(
        id=pl.lit(ids).cast(pl.Int64) + 1,
        quantity=some(1, 100_000) - 1000,
        ratio=some(2, 10_000_000) / 1000,
        amount=some(3, 10_000_000) / 100,
        active=pl.when(some(4, 10) > 0).then(some(5, 2) == 1),
        day=start.dt.date() + pl.duration(days=some(6, 700)),
        created_at=start + pl.duration(seconds=some(7, 60_000_000)),
        local_time=start + pl.duration(seconds=some(8, 60_000_000)),
        label=words.gather(some(9, len(LABELS))),
        comment=words.gather(some(10, len(LABELS))) + ", " + some(11, 5000).cast(pl.String),
    )
    return frame.get_columns()


def frame(first: int, rows: int) -> pl.DataFrame:
    """All twenty columns of some rows, typed."""
    columns = []
    for seed, end in enumerate(HALVES):
        columns += [values.alias(values.name + end) for values in _half(first, rows, seed)]
    return pl.DataFrame(columns)


def texts(values: pl.DataFrame) -> pl.DataFrame:
    """The same as a CSV file has them."""
    written = []
    for end in HALVES:
        written += [
            _fixed(values["ratio" + end], 1000, 3),
            _fixed(values["amount" + end], 100, 2),
            values["created_at" + end].dt.to_string("%Y-%m-%dT%H:%M:%SZ"),
            values["local_time" + end].dt.to_string("%Y-%m-%d %H:%M:%S"),
        ]
    return values.with_columns(written)


def _fixed(values: pl.Series, scale: int, digits: int) -> pl.Series:
    """Numbers with so many digits after the point."""
    whole = (values * scale).round().cast(pl.Int64)
    fraction = (whole % scale).cast(pl.String).str.zfill(digits)
    return (whole // scale).cast(pl.String) + "." + fraction


def write_csv(path: Path, rows: int, *, header: bool) -> None:
    """Write a CSV file."""
    with path.open("wb") as file:
        for first in range(0, rows, CHUNK):
            part = texts(frame(first, min(CHUNK, rows - first)))
            part.write_csv(file, include_header=header and first == 0)
    if not header:
        texts(frame(0, 0)).write_csv(path.with_suffix(".header"))


def write_xlsx(path: Path, rows: int, *, zoned_as_text: bool) -> None:
    """Write a workbook of one sheet, as spreadsheet programs do: texts are shared, dates are numbers.

    A cell has no zone, so moments with one lose it, as most programs have it, or become texts, of which
    nearly each is another.
    """
    names = frame(0, 0).columns
    shared: dict[str, int] = {}

    def index(values: pl.Series) -> pl.Series:
        found = values.unique(maintain_order=True).to_list()
        numbers = {word: shared.setdefault(word, len(shared)) for word in found}
        return values.replace_strict(numbers, return_dtype=pl.Int64)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as book:
        for part, content in _PARTS.items():
            book.writestr(part, _XML + content)
        with book.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            sheet.write(f'{_XML}<worksheet xmlns="{_MAIN}"><sheetData><row r="1">'.encode())
            heads = index(pl.Series(names)).to_list()
            sheet.write(
                "".join(f'<c r="{chr(65 + i)}1" t="s"><v>{n}</v></c>' for i, n in enumerate(heads)).encode()
            )
            sheet.write(b"</row>")
            for first in range(0, rows, CHUNK):
                values = frame(first, min(CHUNK, rows - first))
                numbers = pl.int_range(first + 2, first + 2 + values.height, eager=True).cast(pl.String)
                pieces: list[pl.Expr] = [pl.format('<row r="{}">', pl.lit(numbers))]
                for i, name in enumerate(names):
                    if zoned_as_text and name.startswith("created_at"):
                        moments = index(values[name].dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
                        style, value = ' t="s"', moments.cast(pl.String)
                    else:
                        style, value = _cell(values[name], index)
                    text = pl.format(
                        f'<c r="{chr(65 + i)}{{}}"{style}><v>{{}}</v></c>', pl.lit(numbers), pl.lit(value)
                    )
                    pieces.append(text.fill_null(""))
                pieces.append(pl.lit("</row>"))
                lines = pl.select(pl.concat_str(pieces)).to_series()
                sheet.write("".join(lines.to_list()).encode())
            sheet.write(b"</sheetData></worksheet>")
        words = "".join(f"<si><t>{word}</t></si>" for word in shared)
        book.writestr("xl/sharedStrings.xml", f'{_XML}<sst xmlns="{_MAIN}">{words}</sst>')


def _cell(values: pl.Series, index: object) -> tuple[str, pl.Series]:
    """The attributes and the values of a column's cells."""
    assert callable(index)
    name = values.name.removesuffix(HALVES[1])
    if name == "active":
        return ' t="b"', values.cast(pl.Int8).cast(pl.String)
    if name == "day":
        days = values.cast(pl.Int32) - 19723 + DAYS_FROM_1899
        return ' s="1"', days.cast(pl.String)
    if name in ("created_at", "local_time"):
        micro = values.cast(pl.Int64) - 19723 * 86_400_000_000
        return ' s="2"', (micro / 86_400_000_000 + DAYS_FROM_1899).cast(pl.String)
    if name in ("label", "comment"):
        return ' t="s"', index(values).cast(pl.String)
    return "", values.cast(pl.String)


def write(path: Path, rows: int) -> None:
    """Write a file of the format that its name says."""
    if path.suffix == ".xlsx":
        write_xlsx(path, rows, zoned_as_text=path.stem.endswith("texts"))
    elif path.suffix == ".gz":
        plain = path.with_suffix("")
        if not plain.exists():
            write_csv(plain, rows, header=True)
        with plain.open("rb") as source, gzip.open(path, "wb", compresslevel=6) as packed:
            shutil.copyfileobj(source, packed, 1 << 20)
    else:
        write_csv(path, rows, header=path.suffix == ".csv")


def main() -> None:
    """Write files, or count rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", nargs="*", metavar="name=rows")
    parser.add_argument("--count", action="store_true", help="the rows of Parquet files")
    asked = parser.parse_args()
    if asked.count:
        print(sum(pq.read_metadata(path).num_rows for path in asked.folder.rglob("*.parquet")))
    for file in asked.files:
        name, _, rows = file.partition("=")
        write(asked.folder / name, int(rows))


if __name__ == "__main__":
    main()
