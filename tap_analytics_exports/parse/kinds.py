"""What a file is that is not of the kind which was expected, told by its beginning."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import unpack
from tap_analytics_exports.parse.base import Bytes, encoding_of
from tap_analytics_exports.redaction import shown

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = 100
"""How many characters of a file are shown."""

# Magic numbers that are letters are taken with what follows them, as a header of CSV could have the letters.
_MAGIC = {
    rb"PK(?:\x03\x04|\x05\x06|\x07\x08)": "a ZIP archive",
    rb"\x1f\x8b": "a gzip stream",
    rb"%PDF-": "a PDF document",
    rb"PAR1\x15|PARE\x15": "a Parquet file",
    rb"ARROW1\0\0": "an Arrow file",
    rb"ORC[\0-\x08\x0e-\x1f\x80-\xff]": "an ORC file",
    rb"Obj\x01": "an Avro file",
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|RIFF.{4}WEBP": "an image",
    rb"7z\xbc\xaf\x27\x1c": "a 7z archive",
    rb"Rar!\x1a\x07": "a RAR archive",
    rb".{257}ustar[\0 ]": "a tar archive",
    rb"\x28\xb5\x2f\xfd": "a Zstandard stream",
    rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)": "a bzip2 stream",
    rb"\xfd7zXZ\0": "an xz stream",
    rb"\x04\x22\x4d\x18": "an LZ4 stream",
    rb"\xff\x06\0\0sNaPpY": "a Snappy stream",
    rb"\x1f[\x9d\xa0]": "a compress stream",
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel file (XLS), or a workbook with a password",
    rb"SQLite format 3\0": "a SQLite database",
    rb"\x7fELF": "a program",
}  # fmt: skip
_PATTERNS = [(re.compile(pattern, re.DOTALL), name) for pattern, name in _MAGIC.items()]

_NO_CSV = "the file is no CSV file"
_NO_JSON = "the file is no JSON array of objects"
_NO_WORKBOOK = "the workbook can't be read: it is no XLSX file"
_PAGE = "a web page or XML, perhaps a message in place of the file"
_JSON = "JSON, perhaps a message in place of the file"


def magic(start: bytes) -> str | None:
    """The kind of a file that has a magic number; None if it has none that is known."""
    return next((name for pattern, name in _PATTERNS if pattern.match(start)), None)


def refused(opening: str, found: str, beginning: bytes | str) -> ExportFailed:
    """What to say of a file that is of another kind."""
    text = beginning if isinstance(beginning, str) else beginning.decode("ascii", "backslashreplace")
    return ExportFailed(
        f"{opening} but {found}; it begins with {shown(text, SHOWN)!r}. See what the vendor "
        "exports, and whether the export's settings are for it"
    )


def check_text(start: bytes, encoding: str | None, *, opening: str) -> str:
    """The beginning of a file of text, white space before it left out.

    Args:
        start: The file's first bytes.
        encoding: Of a file without a byte order mark; none: UTF-8.
        opening: Of what to say if it is refused.

    Raises:
        ExportFailed: The file is another kind of file, or in another encoding.
    """
    if found := magic(start):
        raise refused(opening, found, start)
    mark, name = encoding_of(start, encoding)
    if not mark and encoding is None and (likely := _unmarked(start)):
        raise ExportFailed(
            f"the file is not utf-8 but rather {likely}, without a byte order mark: set the export's "
            f"`encoding` to {likely}"
        )
    text = start[len(mark) :].decode(name, "replace").lstrip()
    if text.startswith("<"):
        raise refused(opening, _PAGE, text)
    return text


def check_csv(start: bytes, encoding: str | None) -> None:
    """Refuse what begins like no CSV file; see `check_text`."""
    text = check_text(start, encoding, opening=_NO_CSV)
    if re.match(r"\{|\[\s*[{\]]", text):
        raise refused(_NO_CSV, _JSON, text)


def check_json(start: bytes, encoding: str | None) -> None:
    """Refuse what begins like no JSON array; see `check_text`."""
    text = check_text(start, encoding, opening=_NO_JSON)
    if text.startswith("{"):
        raise refused(_NO_JSON, "a JSON object, or lines of them", text)
    if text and not text.startswith("["):
        raise refused(_NO_JSON, "other text, perhaps CSV", text)


def check_workbook(path: Path) -> None:
    """Refuse what is no ZIP archive with the parts of an Office document.

    Raises:
        ExportFailed: It is another kind of file; the text says which.
    """
    with path.open("rb") as file:
        start = file.read(Bytes.START)
    if start.startswith((unpack.ZIP, unpack.EMPTY_ZIP)):
        names = [member.filename for member in unpack.members(path)]
        if not any(name.replace("\\", "/").lower().startswith("xl/") for name in names):
            raise refused(_NO_WORKBOOK, f"a ZIP archive of {unpack.listed(names)}", start)
    elif start:
        text = check_text(start, None, opening=_NO_WORKBOOK)
        raise refused(
            _NO_WORKBOOK, "JSON" if text.startswith(("{", "[")) else "other text, perhaps CSV", text
        )
    else:
        raise ExportFailed(f"{_NO_WORKBOOK} but empty")


def _unmarked(start: bytes) -> str | None:
    """The variant of UTF-16 or UTF-32 that a text is in, by its NUL characters; None: it seems in none."""
    sample = start[: len(start) // 4 * 4]
    if not sample.count(0) > len(sample) // 4:
        return None
    zeros = [sample[i::4].count(0) * 2 > len(sample) // 4 for i in range(4)]
    shapes = {
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
    }
    return shapes.get((zeros[0], zeros[1], zeros[2], zeros[3]))
