"""A local file becomes frames of text, and rows that are malformed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_analytics_exports.parse.base import ROW_NUMBER, BadRow, Dialect, TextFrame
from tap_analytics_exports.parse.proof import ends_with_line_break, prove

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["ROW_NUMBER", "BadRow", "Dialect", "TextFrame", "ends_with_line_break", "frames", "prove"]


def frames(path: Path, dialect: Dialect) -> Generator[TextFrame]:
    """A file's rows as frames of a few megabytes each.

    A file that has a header, or is an empty JSON array, yields at least one frame; an empty file yields none.
    Whatever a file holds, it takes less than 300 MiB to read it.

    Args:
        path: The file; its name plays no role.
        dialect: How it is written.

    Raises:
        ExportFailed: The file can't be used; the text says why, and what to do.
    """
    # Each parser stands on a library that costs time to import, and a run seldom needs all of them.
    match dialect.format:
        case "csv":
            from tap_analytics_exports.parse import csv

            yield from csv.frames(path, dialect)
        case "xlsx":
            from tap_analytics_exports.parse import kinds, xlsx

            kinds.check_workbook(path)
            yield from xlsx.frames(path, dialect)
        case "json":
            from tap_analytics_exports.parse import json

            yield from json.frames(path, dialect)
