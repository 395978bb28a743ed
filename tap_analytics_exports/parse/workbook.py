"""The parts of an XLSX workbook (ECMA-376): its sheets, its number formats, and its table of texts."""

from __future__ import annotations

import io
import re
import struct
import sys
import zipfile
import zlib
from contextlib import contextmanager
from posixpath import dirname, join, normpath
from typing import IO, TYPE_CHECKING, Literal, Self, cast
from xml.etree import ElementTree as ET

import polars as pl
from isal import igzip
from isal.igzip_lib import IsalError

from tap_analytics_exports.parse.base import LONGEST_RECORD, Utf8, is_utf8
from tap_analytics_exports.parse.markup import PADDING, Element, Tags, tags, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 6 << 20
FIRST_BLOCK = 64 << 10
LARGEST_PART = 64 << 20  # of those that are read whole
LARGEST_TABLE = 1 << 30
ENCRYPTED = 1

NumberKind = Literal["number", "moment", "span"]

_OLE = b"\xd0\xcf\x11\xe0"  # a compound file
_BUILT_IN: dict[str, NumberKind] = {
    **dict.fromkeys(map(str, [*range(14, 23), *range(27, 37), 45, 47, *range(50, 59)]), "moment"),
    "46": "span",
}
_NOT_CODE = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!(?:h+|m+|s+)\])[^\]]*\]')
_ELAPSED = re.compile(r"\[(?:h+|m+|s+)\]")
_OF_TIME = re.compile(r"[dmyhs]|a/p|am/pm")


class Workbook:
    """An open workbook.

    Raises:
        ExportFailed: It is none, is damaged, or is too large; this goes for all methods.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(len(_OLE)) == _OLE:
                raise unreadable("it is protected with a password, or an old XLS file")
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise unreadable(f"it is damaged, or no XLSX file ({error})") from error
        self._main = next(iter(self._related("", "officeDocument").values()), "xl/workbook.xml")
        main = self._xml(self._main)
        properties = next(_all(main, "workbookPr"), None)
        self.since_1904 = properties is not None and properties.get("date1904") in ("1", "true")
        """Whether days are counted from 1904, and not from 1900."""
        parts = self._related(self._main, "worksheet")
        self.sheets = {
            sheet.get("name", ""): parts[id_]
            for sheet in _all(main, "sheet")
            if (id_ := next((value for key, value in sheet.items() if _local(key) == "id"), "")) in parts
        }
        """The part of each worksheet, by its name."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def number_kinds(self) -> list[NumberKind]:
        """What the numbers of cells mean, by the cells' style."""
        for part in self._related(self._main, "styles").values():
            root = self._xml(part)
            codes = {each.get("numFmtId"): each.get("formatCode", "") for each in _all(root, "numFmt")}
            styles = next(_all(root, "cellXfs"), ())
            return [
                _kind(codes[id_]) if id_ in codes else _BUILT_IN.get(id_, "number")
                for id_ in (style.get("numFmtId", "0") for style in styles)
            ]
        return []

    def texts(self) -> pl.Series:
        """The table of texts, to which cells refer by place."""
        tables = [pl.Series([], dtype=pl.String)]
        size = 0
        for part in self._related(self._main, "sharedStrings").values():
            for block in self.blocks(part, "si"):
                size += len(block)
                if size > LARGEST_TABLE:
                    raise unreadable(f"its table of texts is larger than {LARGEST_TABLE >> 20} MiB")
                items = block.find(b"<si")
                if items >= 0:
                    tables.append(_items(block[items:]))
        return pl.concat(tables).rechunk()

    def blocks(self, part: str, element: Element) -> Iterator[bytes]:
        """A part's XML in blocks; all but the first and the last begin and end with such an element.

        The elements of the part's own namespace have no prefix. What comes before the first such element, and
        after the last, is there too; and behind each block, `PADDING`.
        """
        end = b""
        prefix = None
        rest = b""
        size = FIRST_BLOCK
        try:
            with self._open(part) as file:
                source = Utf8(file, None)
                while data := source.read(size):
                    if b"\0" in data:
                        raise unreadable(f"{part} is no XML, for it has a NUL character")
                    if prefix is None:
                        prefix = _prefix(data)
                        end = b"</" + prefix + element.encode() + b">"
                    cut = data.rfind(end)
                    if cut < 0:  # or it began before
                        data, rest, searched = rest + data, b"", len(rest) - len(end)
                        cut = data.rfind(end, max(0, searched))
                    if cut >= 0:
                        cut += len(end)
                        yield _named_plainly(b"".join((rest, memoryview(data)[:cut], PADDING)), prefix, part)
                        rest = data[cut:]
                        size = min(4 * size, BLOCK)
                    elif len(data) > LONGEST_RECORD:
                        raise unreadable(f"a row or a text is longer than {LONGEST_RECORD >> 20} MiB")
                    else:
                        rest = data
            yield _named_plainly(rest + PADDING, prefix or b"", part)
        except (KeyError, *_ZIP_ERRORS) as error:
            raise unreadable(f"{part} is damaged ({error})") from error

    @contextmanager
    def _open(self, part: str) -> Iterator[IO[bytes]]:
        """A part to read, which is checked at its end; by ISA-L, as that takes a third of zlib's time."""
        info = self._zip.getinfo(part)
        if info.compress_type != zipfile.ZIP_DEFLATED or info.flag_bits & ENCRYPTED:
            with self._zip.open(info) as file:
                yield file
            return
        with self._path.open("rb") as file:
            file.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", file.read(4))
            file.seek(name + extra, io.SEEK_CUR)
            yield cast("IO[bytes]", igzip.IGzipFile(fileobj=_AsGzip(file, info)))

    def _xml(self, part: str) -> ET.Element:
        """A small part, whole."""
        try:
            with self._zip.open(part) as file:
                return ET.fromstring(_limited(file, part))  # noqa: S314 - expat bounds what entities become
        except (LookupError, ValueError, ET.ParseError, *_ZIP_ERRORS) as error:
            raise unreadable(f"it is damaged, or no XLSX file ({part}: {error})") from error

    def _related(self, part: str, kind: str) -> dict[str, str]:
        """The parts of a kind that a part refers to, by their ids."""
        path = join(dirname(part), "_rels", f"{part.rpartition('/')[2]}.rels")
        if path not in self._zip.NameToInfo:
            return {}
        return {
            each.get("Id", ""): normpath(join("/", dirname(part), each.get("Target", ""))).lstrip("/")
            for each in _all(self._xml(path), "Relationship")
            if each.get("Type", "").rpartition("/")[2] == kind and each.get("TargetMode") != "External"
        }


class _AsGzip(io.RawIOBase):
    """What is deflated in a ZIP file as if it were in a gzip file, which differs in what is around it."""

    def __init__(self, file: IO[bytes], info: zipfile.ZipInfo) -> None:
        self._file = file
        self._left = info.compress_size
        self._start = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
        self._end = struct.pack("<II", info.CRC, info.file_size % 2**32)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._start:
            data, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        elif data := self._file.read(min(self._left, len(buffer))):
            self._left -= len(data)
        elif not self._left:  # else the file was cut
            data, self._end = self._end[: len(buffer)], self._end[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, IsalError, struct.error),
    *(EOFError, OSError, RuntimeError, NotImplementedError),
)


def unescaped(texts: pl.Series) -> pl.Series:
    """Text as it is meant: without XML's references, and without `_x000D_` and the like (ST_Xstring)."""
    if not texts.str.contains("&|_x").any():
        return texts
    coded = texts.str.contains(_CODED)
    simple = texts.str.replace_many(list(_ENTITIES), list(_ENTITIES.values()))
    if not coded.any():
        return simple
    whole = pl.Series([_unescape(text) for text in texts.filter(coded)], dtype=pl.String)
    return simple.scatter(coded.arg_true(), whole)


_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}
_CODED = "&#|_x[0-9A-Fa-f]{4}_"
_REFERENCE = re.compile("&(?:#([0-9]+)|#x([0-9A-Fa-f]+)|[a-z]+);")
_SIGN = re.compile("_x([0-9A-Fa-f]{4})_")


def _unescape(text: str) -> str:
    def meant(reference: re.Match[str]) -> str:
        decimal, hexadecimal = reference.groups()
        if decimal is None and hexadecimal is None:
            return _ENTITIES.get(reference[0], reference[0])
        code = int(decimal) if decimal else int(hexadecimal, 16)
        return chr(code) if code <= sys.maxunicode else reference[0]

    text = _SIGN.sub(lambda sign: chr(int(sign[1], 16)), _REFERENCE.sub(meant, text))
    # A sign beyond U+FFFF is written as two, and half of one is none.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def texts_within(found: Tags, place: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The places that have a text within, and their texts, whose parts may have formats of their own."""
    pronounced = found.named("rPh").shift(fill_value=False)
    part = found.named("t") & ~pronounced
    parts = pl.DataFrame({"place": place.filter(part), "text": found.filter(part).texts()})
    if parts["place"].is_duplicated().any():
        parts = parts.group_by("place", maintain_order=True).agg(pl.col("text").str.join(""))
    return parts["place"], parts["text"]


def _items(xml: bytes) -> pl.Series:
    """The texts of a table's items."""
    found = tags(xml, "si")
    item = found.named("si")
    places, texts = texts_within(found, item.cum_sum())
    rows = pl.repeat(None, int(item.sum()), dtype=pl.UInt32, eager=True)
    rows = rows.scatter(places - 1, pl.int_range(len(places), dtype=pl.UInt32, eager=True))
    items = unescaped(texts).gather(rows)
    # In memory of their own: else they would keep all of the XML.
    return pl.Series(items.to_arrow(compat_level=pl.CompatLevel.oldest()))


def _named_plainly(data: bytes, prefix: bytes, part: str) -> bytes:
    """XML whose names have no prefix; line ends are those that a reader of XML sees."""
    if not is_utf8(data):
        raise unreadable(f"{part} is not UTF-8")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.replace(b"<" + prefix, b"<").replace(b"</" + prefix, b"</") if prefix else data


def _prefix(start: bytes) -> bytes:
    """Of the names in the namespace of a part's root, with its colon."""
    root = re.search(rb"<(?:([\w.-]+):)?[\w.-]+[\s/>]", start)
    return root[1] + b":" if root and root[1] else b""


def _limited(file: IO[bytes], part: str) -> bytes:
    data = file.read(LARGEST_PART + 1)
    if len(data) > LARGEST_PART:
        raise unreadable(f"{part} is larger than {LARGEST_PART >> 20} MiB")
    return data


def _kind(code: str) -> NumberKind:
    """What a number format (ECMA-376, part 1, 18.8.31) shows."""
    bare = _NOT_CODE.sub("", code.lower())
    if _ELAPSED.search(bare):
        return "span"
    return "moment" if _OF_TIME.search(bare) else "number"


def _all(root: ET.Element, name: str) -> Iterator[ET.Element]:
    """All elements of a name, in any namespace, as there are two for the same."""
    return (element for element in root.iter() if _local(element.tag) == name)


def _local(name: str) -> str:
    return name.rpartition("}")[2]
