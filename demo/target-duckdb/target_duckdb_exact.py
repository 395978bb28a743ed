"""target-duckdb 0.8.0 that loads every row.

It hands its rows to DuckDB as a CSV file without a header, and DuckDB 1.1 and later guess that the first of
them is one: a row of every batch can be lost. The first half of the cure is on target-duckdb's main branch
(jwills/target-duckdb#58) but not in a release; the second half is to let DuckDB guess nothing else either.
"""

from typing import Any

import duckdb
import target_duckdb


class Connection:
    """A DuckDB connection whose COPY is told what target-duckdb writes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Wrap an open connection."""
        self._connection = connection

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """All but `execute` is DuckDB's own."""
        return getattr(self._connection, name)

    def execute(self, query: str, *parameters: Any) -> Any:  # noqa: ANN401
        """Run a statement, without guesses if it is the COPY of a batch."""
        if query.startswith("COPY "):
            query = query.replace(" WITH (", " WITH (auto_detect false, header false, ")
        return self._connection.execute(query, *parameters)


def main() -> None:
    """Run target-duckdb."""
    connect = target_duckdb.duckdb_connect
    target_duckdb.duckdb_connect = lambda config: Connection(connect(config))
    target_duckdb.main()
