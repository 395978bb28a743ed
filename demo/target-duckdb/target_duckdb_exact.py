"""target-duckdb 0.8.0 that loads every row, and lets a new snapshot replace the old one.

The release hands its rows to DuckDB as a CSV file without a header, and DuckDB 1.1 and later guess that the
first of them is one: a row of every batch can be lost. Half of the cure is on target-duckdb's main branch
(jwills/target-duckdb#58); the other half is to let DuckDB guess nothing else either. Once a stream's batch is
full, it loads that stream alone, and the state that it gives out then can be ahead of the others' rows: they
are lost if it dies. And it ignores ACTIVATE_VERSION, so that rows stay which a snapshot has no longer.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb
import target_duckdb


class Connection:
    """A DuckDB connection whose COPY is told what target-duckdb writes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Wrap an open connection."""
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        """All but `execute` is DuckDB's own."""
        return getattr(self._connection, name)

    def execute(self, query: str, *parameters: Any) -> Any:
        """Run a statement, without guesses if it is the COPY of a batch."""
        if query.startswith("COPY "):
            query = query.replace(" WITH (", " WITH (auto_detect false, header false, ")
        return self._connection.execute(query, *parameters)


def persist_lines(connection: Connection, config: dict[str, Any], lines: Iterable[str]) -> None:
    """Load what the tap says, then remove what its complete snapshots have no longer."""
    complete: set[str] = set()
    current: dict[str, str] = {}

    def watched() -> Iterator[str]:
        for line in lines:
            # A quick look first: most lines are records.
            if '"ACTIVATE_VERSION"' in line or (complete and '"STATE"' in line):
                message = json.loads(line)
                if message["type"] == "ACTIVATE_VERSION":
                    complete.add(message["stream"])
                elif message["type"] == "STATE":
                    # The tap says here which export it was.
                    bookmarks = message["value"]["bookmarks"]
                    current.update({stream: bookmarks[stream]["last_export_id"] for stream in complete})
                    complete.clear()
            yield line

    # A state is true only where nothing waits that came before it.
    _persist_lines(connection, {**config, "flush_all_streams": True}, watched())
    for stream, export in current.items():
        table = f'"{config["default_target_schema"]}"."{stream}"'
        connection.execute(f"DELETE FROM {table} WHERE _sdc_export_id <> ?", [export])  # noqa: S608


_connect, target_duckdb.duckdb_connect = (
    target_duckdb.duckdb_connect,
    lambda config: Connection(_connect(config)),
)
_persist_lines, target_duckdb.persist_lines = target_duckdb.persist_lines, persist_lines

main = target_duckdb.main
