"""The rows of one window, from its files to typed frames.

A thread parses and another types, each a frame ahead of the next; so a consumer that does not take what is
ready stops them all.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from tap_analytics_exports.ahead import ahead
from tap_analytics_exports.columns.naming import Bound
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.exports import COUNT, ExportStream
from tap_analytics_exports.parse import ROW_NUMBER, BadRow, TextFrame, frames
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.settings import Column
from tap_analytics_exports.transport.download import LocalFile

logger = clean_logger(__name__)


@dataclass(frozen=True, slots=True)
class TypedFrame:
    """Some rows of a file.

    Attributes:
        file: Its name.
        rows: Those that fit, a column for each property that is known and wanted, but the constant ones.
        columns: The type of each of their columns.
        bad: Those that don't, numbered within the window.
    """

    file: str
    rows: pl.DataFrame
    columns: dict[str, Column]
    bad: list[BadRow]


@lru_cache(maxsize=1000)
def _name(export: str, new: str) -> None:
    """Name columns that a consumer can't take, once a process, for every window may have them."""
    logger.warning(
        "%s: columns that are left out, as they were not known before the file: %s; to have them, name "
        "them in `columns`", export, new,
    )  # fmt: skip


class WindowReader:
    """Reads the files of one job.

    Args:
        export: Whose job it is.
        files: Its files, in their order.
        on_new_column: What a column does that is not known: `add`, `ignore`, `fail`, or `name`, for consumers
            that can take no further column: then it is ignored, and a warning names it.
    """

    def __init__(self, export: ExportStream, files: Sequence[LocalFile], on_new_column: str) -> None:
        self._export = export
        self._files = files
        self._on_new_column = on_new_column
        self._bound: dict[tuple[str, ...], list[Bound]] = {}

    def frames(self) -> Generator[TypedFrame]:
        """Read all rows of all files, in their order.

        Raises:
            ExportFailed: A file can't be read, or its columns are not what they have to be.
        """
        return ahead(self._typed(), "types")

    def _typed(self) -> Generator[TypedFrame]:
        header: tuple[str, ...]
        dialect = self._export.provider.dialect(self._export.export)
        before = 0
        for file in self._files:
            last, header, growing = before, (), False
            texts = ahead(frames(file.path, dialect), "parser")
            with closing(texts):
                try:
                    for text in texts:
                        last += text.rows.height + len(text.bad)
                        typed = self._type(text, file.name, before)
                        header, growing = text.header, text.objects is not None
                        del text
                        yield typed
                        del typed
                except FileNotFoundError:
                    raise ExportFailed(
                        f"the download of {file.name} has gone from the spool; the next run fetches it again"
                    ) from None
                if growing:
                    self._export.columns.bind(header)
                if last == before and header:
                    self._export.columns.check_empty(header)
            before = last

    def _type(self, text: TextFrame, file: str, before: int) -> TypedFrame:
        """Type a frame of a file that has so many rows before it."""
        export = self._export
        bound = self._bind(text.header, growing=text.objects is not None)
        columns = export.columns
        wanted = [each for each in bound if each.name in columns.known and export.selects(each.name)]
        typed, bad = columns.cast(text, wanted)
        bad = [BadRow(row.row_number + before, row.raw, row.reason, row.column) for row in bad]
        typed = typed.with_columns(pl.col(ROW_NUMBER) + before)
        types = {each.name: each.column for each in wanted} | {ROW_NUMBER: COUNT}
        names = [name for name in (*columns.known, ROW_NUMBER) if export.selects(name)]
        # By typed[name], as pl.col takes a name that begins with ^ and ends with $ for a pattern.
        rows = pl.DataFrame(
            [
                typed[name] if name in types else pl.Series(name, [None]).new_from_index(0, typed.height)
                for name in names
            ]
        )
        known = {name: types[name] if name in types else columns.known[name] for name in names}
        return TypedFrame(file, rows, known, bad)

    def _bind(self, header: tuple[str, ...], *, growing: bool) -> list[Bound]:
        if header in self._bound:
            return self._bound[header]
        known = self._export.columns.known
        before = set(known)
        bound = self._export.columns.bind(header, growing=growing)
        new = [each.name for each in bound if each.name not in before]
        if new and self._on_new_column == "fail":
            raise ExportFailed(
                f"the catalog does not know the columns {', '.join(new)}, and on_new_column is fail; name "
                "them in the export's `columns`, or set on_new_column to add or ignore"
            )
        if new and self._on_new_column in ("ignore", "name"):
            for name in new:
                known.pop(name, None)
            if self._on_new_column == "name":
                _name(str(self._export), ", ".join(new))
        elif new and self._export.has_catalog:
            logger.warning(
                "%s: new columns, which become part of its schema: %s; to have them typed, name them in "
                "`columns`", self._export, ", ".join(new),
            )  # fmt: skip
        self._bound[header] = bound
        return bound
