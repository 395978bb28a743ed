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
from xml.sax.saxutils import escape

import polars as pl
from isal import igzip
from isal.igzip_lib import IsalError

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.base import LONGEST_RECORD, Utf8

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 4 << 20
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
                items = block.find("<si")
                if items >= 0:
                    tables.append(_items(block[items:]))
        return pl.concat(tables).rechunk()

    def blocks(self, part: str, element: str) -> Iterator[str]:
        """A part's XML in blocks; all but the first and the last begin and end with such an element.

        The elements of the part's own namespace have no prefix. What comes before the first such element, and
        after the last, is there too.
        """
        end = f"</{element}>".encode()
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
                        end = f"</{prefix}{element}>".encode()
                    rest += data
                    cut = rest.rfind(end, max(0, len(rest) - len(data) - len(end))) + len(end)
                    if cut >= len(end):
                        yield _decoded(rest[:cut], prefix)
                        rest = rest[cut:]
                        size = min(2 * size, BLOCK)
                    elif len(rest) > LONGEST_RECORD:
                        raise unreadable(f"a row or a text is longer than {LONGEST_RECORD >> 20} MiB")
            yield _decoded(rest, prefix or "")
        except UnicodeDecodeError as error:
            raise unreadable(f"{part} is not UTF-8") from error
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


def tags(xml: str) -> pl.DataFrame:
    """The start tags of some whole elements in their order, and the `text` that follows each.

    Of a `tag` only its name is sure to be there; of a cell (`c`) all of it, with a space after the name. Of
    each stands there whether it is a `cell`, a `value` (`v`) or a `row`.

    XML is CSV whose lines end with `<` and whose fields are parted by `>`, and so is read by what is made for
    that; end tags are its comments.

    Raises:
        ExportFailed: Starts and ends do not match, of tags or of elements, or there is text between elements.
    """
    found = _cut(xml)
    usual = found is not None and (found["cell"] | found["value"] | found["row"]).all()
    if found is None or (not usual and "<!" in xml) or pl.Series([xml]).str.contains(_OTHER_END).any():
        xml = _CDATA.sub(lambda text: escape(text[1]), _COMMENT.sub("", xml))
        xml = _ELEMENT.sub(_with_one_end, xml)
        found, usual = _cut(xml), False
        if found is None or not _is_nested(xml):
            raise unreadable("it is not well-formed")
    if usual:
        return found
    names = pl.col("tag").str.replace(r"(?s)^c\b\s*(.*)$", "c $1")
    names = names.str.replace(r"(?s)^([\w.:-]{2,}|[^c])\b.*$", "$1")
    return found.with_columns(names).with_columns(*_TOLD_APART)


# An end that is none of those that nearly every sheet and table has, or that has something else behind it.
_OTHER_END = (
    r"</(?:v>(?:[^<]|<[^/]|</[^c])|t>(?:[^<]|<[^/]|</[^si])|c>\s*(?:[^<\s]|<[^c/]|</[^r])"
    r"|is>\s*(?:[^<\s]|<[^/]|</[^c])|si>\s*(?:[^<\s]|<[^s])|row>\s*(?:[^<\s]|<[^r])"
    r"|[^vtcsir]|[vtc][^>]|s(?:[^i]|i[^>])|i(?:[^s]|s[^>])|r(?:[^o]|o[^w]|ow[^>]))"
)
_COMMENT = re.compile("<!--.*?-->", re.DOTALL)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_ELEMENT = re.compile("""<((?:[^<>"']|"[^"<]*"|'[^'<]*')*)>([^<]*)""")


_TAGS = {"tag": pl.String, "text": pl.String}
_TOLD_APART = (
    pl.col("tag").str.starts_with("c ").alias("cell"),
    (pl.col("tag") == "v").alias("value"),
    pl.col("tag").str.starts_with("row").alias("row"),
)


def _cut(xml: str) -> pl.DataFrame | None:
    """The tags as they are written; None if starts and ends are not as many, or text is where none can be."""
    starts = xml.count("<")
    if not starts and not xml.strip():
        return pl.DataFrame(schema=_TAGS).with_columns(*_TOLD_APART)
    try:
        found = pl.read_csv(
            xml.encode(),
            has_header=False,
            schema=_TAGS,
            eol_char="<",
            separator=">",
            quote_char=None,
            comment_prefix="/",
            missing_columns="insert",
            empty_string_is_null=False,
        )
    except pl.exceptions.PolarsError:
        return None
    if (found["tag"][0] or "").strip():
        return None
    found = found[1:].with_columns(*_TOLD_APART)
    without_end = int(found["tag"].str.ends_with("/").sum())
    if found["text"].null_count() or 2 * found.height != starts + without_end:
        return None
    if found["text"].filter(found["row"]).str.contains(r"\S").any():
        return None
    return found


def _is_nested(xml: str) -> bool:
    """Whether each element ends where it has to, with no text behind it; it has as many ends as starts."""
    tags = pl.Series([xml]).str.extract_all("<[^<>]*>[^<]*").explode(empty_as_null=False)
    parts = tags.str.extract_groups(r"(?s)^<(?<end>/?)(?<name>[^<>\s/]+)[^<>]*?(?<alone>/?)>\s*(?<text>\S?)")
    found = parts.struct.unnest().with_columns(pl.col("end") == "/")
    if found.filter((pl.col("end") | (pl.col("alone") == "/")) & (pl.col("text") != "")).height:
        return False
    found = found.filter(pl.col("alone") == "")
    depth = pl.when("end").then(-1).otherwise(1).cum_sum() + pl.col("end").cast(pl.Int32)
    found = found.sort(depth, maintain_order=True)
    start, end = found.gather_every(2), found.gather_every(2, offset=1)
    return start["name"].equals(end["name"]) and end["end"].all() and not start["end"].any()


def _with_one_end(element: re.Match[str]) -> str:
    tag, text = (part.replace(">", "&gt;") for part in element.groups())
    return f"<{tag}>{text}"


def texts_within(found: pl.DataFrame, place: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The places that have a text within, and their texts, whose parts may have formats of their own."""
    tag = found["tag"]
    part = (tag == "t") & (tag.shift() != "rPh")  # that is how words are pronounced
    parts = pl.DataFrame({"place": place.filter(part), "text": found["text"].filter(part)})
    if parts["place"].is_duplicated().any():
        parts = parts.group_by("place", maintain_order=True).agg(pl.col("text").str.join(""))
    return parts["place"], parts["text"]


def _items(xml: str) -> pl.Series:
    """The texts of a table's items."""
    found = tags(xml)
    item = found["tag"] == "si"
    places, texts = texts_within(found, item.cum_sum())
    rows = pl.repeat(None, int(item.sum()), dtype=pl.UInt32, eager=True)
    rows = rows.scatter(places - 1, pl.int_range(len(places), dtype=pl.UInt32, eager=True))
    return unescaped(texts).gather(rows)


def _decoded(data: bytes, prefix: str) -> str:
    """XML whose names have no prefix; line ends are those that a reader of XML sees."""
    xml = data.decode()
    if "\r" in xml:
        xml = xml.replace("\r\n", "\n").replace("\r", "\n")
    return xml.replace(f"<{prefix}", "<").replace(f"</{prefix}", "</") if prefix else xml


def _prefix(start: bytes) -> str:
    """Of the names in the namespace of a part's root, with its colon."""
    root = re.search(rb"<(?:([\w.-]+):)?[\w.-]+[\s/>]", start)
    return f"{root[1].decode()}:" if root and root[1] else ""


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


def unreadable(why: str) -> ExportFailed:
    """What to say of a workbook that can't be used."""
    return ExportFailed(f"the workbook can't be read: {why}")
