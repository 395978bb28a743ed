"""What is counted, and told, of the rows of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tap_analytics_exports import redaction
from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.parse import BadRow
from tap_analytics_exports.settings import Settings


@dataclass(slots=True)
class RowCount:
    """Rows of a job: how many were written, how many rejected, and why the first of these was."""

    rows: int = 0
    rejected: int = 0
    first: str = ""

    def reject(self, file: str, row: BadRow, settings: Settings) -> None:
        """RowCount a bad row.

        Raises:
            ExportFailed: There may be none, or none more.
        """
        where = f"row {row.row_number} of {file}" + (f", column {row.column}" if row.column else "")
        if settings.on_bad_row == "fail":
            raise ExportFailed(f"{where}: {row.reason}; on_bad_row is fail")
        if self.rejected == settings.rejected_rows_limit:
            raise ExportFailed(
                f"more than {settings.rejected_rows_limit} rows were rejected, the last, {where}, because: "
                f"{row.reason}; see the stream rejected_rows, check the export's columns, or raise "
                "rejected_rows_limit"
            )
        self.rejected += 1
        self.first = self.first or f"{where}: {row.reason}"


def cleaned(record: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a record without secrets in what vendors said, or in a row's text, which else stays as it is."""
    copy = dict(record)
    for name, clean in (
        ("error", redaction.clean),
        ("reason", redaction.clean),
        ("raw", redaction.clean_data),
    ):
        if copy.get(name):
            copy[name] = clean(copy[name])
    return copy
