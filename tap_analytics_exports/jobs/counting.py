"""How many rows a job has."""

from __future__ import annotations

from dataclasses import dataclass

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
        """Count a bad row.

        Raises:
            ExportFailed: There may be none, or none more.
        """
        where = f"row {row.row_number} of {file}" + (f", column {row.column}" if row.column else "")
        if settings.on_bad_row == "fail":
            raise ExportFailed(
                f"{where}: {row.reason}; on_bad_row is fail, and divert writes such rows to rejected_rows"
            )
        if self.rejected == settings.rejected_rows_limit:
            raise ExportFailed(
                f"more than {settings.rejected_rows_limit} rows were rejected, the last, {where}, because: "
                f"{row.reason}; see the stream rejected_rows, check the export's columns, or raise "
                "rejected_rows_limit"
            )
        self.rejected += 1
        self.first = self.first or f"{where}: {row.reason}"

    def check(self) -> None:
        """See, behind a job's last row, whether any of them was right.

        Raises:
            ExportFailed: All were rejected.
        """
        if self.rejected and not self.rows:
            raise ExportFailed(
                f"none of its {self.rejected} rows fits; the first, {self.first}; see the stream "
                "rejected_rows, and check the export's columns"
            )
