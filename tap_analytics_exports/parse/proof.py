"""Whether a file proves by itself that it is whole."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse.base import Bytes

if TYPE_CHECKING:
    from pathlib import Path

ZIP = b"PK\x03\x04"
BLOCK = 1 << 20


def prove(path: Path) -> str | None:
    """What in a file proves that it is whole; it is read once, in bounded memory.

    Returns:
        "gzip trailer", "ZIP directory" or "closing bracket" (of a JSON array, in UTF-8 or with a byte
        order mark); none: nothing in the file tells.

    Raises:
        ExportFailed: The file is one of these, and cut or damaged.
    """
    with Bytes(path) as source:
        if source.gzipped:
            while source.read(BLOCK):
                pass
            return "gzip trailer"
    with path.open("rb") as file:
        start = file.read(len(ZIP))
    if start == ZIP:
        return _prove_zip(path)
    return _prove_json(path)


def _prove_zip(path: Path) -> str:
    """A directory that can be read, and whose members all lie in the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                archive.open(member).close()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ExportFailed(
            f"the file is cut or damaged: its ZIP directory can't be read ({error})"
        ) from error
    return "ZIP directory"


def _prove_json(path: Path) -> str | None:
    """The bracket that closes an array, with JSON before and nothing behind."""
    from tap_analytics_exports.parse import json

    with Bytes(path) as source:
        try:
            for _ in json.elements(source, None):
                pass
        except json.NotWhole:
            raise
        except ExportFailed:
            return None
    return "closing bracket"
