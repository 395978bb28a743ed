"""Whether a file proves by itself that it is whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import unpack
from tap_analytics_exports.parse.base import Bytes, NotWhole

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 1 << 20
LARGEST_CONTENT = 16 << 30  # of all members of a ZIP archive, unpacked


def prove(path: Path, encoding: str | None = None) -> str | None:
    """What in a file proves that it is whole; it is read once, in bounded memory.

    Args:
        path: The file.
        encoding: Of a JSON document without a byte order mark; none: UTF-8.

    Returns:
        "gzip trailer", "ZIP directory" or "closing bracket" (of a JSON array); none: nothing in the file
        tells.

    Raises:
        ExportFailed: The file is one of these, and cut or damaged.
    """
    with path.open("rb") as file:
        start = file.read(len(unpack.ZIP))
    if start in (unpack.ZIP, unpack.EMPTY_ZIP):
        _prove_zip(path)
        return "ZIP directory"
    with Bytes(path) as source:
        if source.gzipped:
            while source.read(BLOCK):
                pass
            return "gzip trailer"
    return _prove_json(path, encoding)


def ends_with_line_break(path: Path) -> bool:
    """Whether a file of text, as it is stored, ends with a line break, in whatever encoding.

    Without one, all of its rows may be there, and the last of them be cut.
    """
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 4, 0))
        return file.read().replace(b"\0", b"").endswith((b"\n", b"\r"))


def _prove_zip(path: Path) -> None:
    """A directory that can be read, and whose members are in the file, with the checksums that it says."""
    members = unpack.members(path)
    if sum(member.file_size for member in members) > LARGEST_CONTENT:
        raise ExportFailed(f"the file is a ZIP archive of more than {LARGEST_CONTENT >> 30} GiB, unpacked")
    with path.open("rb") as file:
        for each in members:
            member = unpack.Member(file, each)
            while member.read(BLOCK):
                pass


def _prove_json(path: Path, encoding: str | None) -> str | None:
    """The bracket that closes an array, with JSON before and nothing behind."""
    from tap_analytics_exports.parse import json

    with Bytes(path) as source:
        try:
            for _ in json.elements(source, encoding):
                pass
        except NotWhole:
            raise
        except ExportFailed:
            return None
    return "closing bracket"
