"""The source into a real PostgreSQL."""

from datetime import UTC, datetime
from decimal import Decimal

import dlt
import pytest
import vendor
from conftest import column, csv, table
from postgres import server

from tap_analytics_exports.dlt import analytics_exports


@pytest.fixture(scope="module")
def destination():
    with server() as port:
        yield dlt.destinations.postgres(f"postgresql://tap:-@127.0.0.1:{port}/postgres")


@pytest.mark.parametrize("files", ["parquet", "csv", "insert_values"])
def test_windows_and_snapshots_are_replaced(make, settings, destination, files):
    header, kinds = "n,d,t,j", ("integer", "decimal", "timestamp", "json")
    first = csv(header, '1,0.10,2026-01-02T03:04:05+02:00,"{""a"": 1.10}"', "2,,,", "3,0.1234567890123,,")
    address, world = vendor.world(contents={"2026-01-01": first})
    columns = dict(zip(header.split(","), kinds, strict=True))
    pipeline = make(destination=destination)
    pipeline.dataset_name = f"exports_{files}"

    def load(**export):
        more = {"name": "more", "snapshot": True}
        source = analytics_exports(settings(address, days=1, columns=columns, others=(more,), **export))
        if files != "parquet":  # of which ADBC converts no text
            decimal = {"data_type": "decimal", "precision": 38, "scale": 18}
            source.rows.apply_hints(columns={"d": decimal, "j": {"data_type": "json"}})
        pipeline.run(source, loader_file_format=files)
        return sorted(table(pipeline, "rows"), key=lambda row: row["n"])

    row, *others = load()
    typed = [1, "0.10", '{"a": 1.10}'] if files == "parquet" else [1, Decimal("0.10"), {"a": 1.1}]
    assert [row[name] for name in ("n", "d", "j")] == typed
    assert row["t"].astimezone(UTC) == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert [other["d"] and Decimal(other["d"]) for other in others] == [None, Decimal("0.1234567890123")]
    assert len(column(pipeline, stream="more")) == 3
    world.contents |= {"2026-01-01": csv(header, "2,,,"), "snapshot": csv("at", "new")}
    assert [row["n"] for row in load(lookback="P1D")] == [2]
    assert column(pipeline, stream="more") == ["new"]
    world.script["2026-01-01"] = ["empty"]
    assert load(lookback="P1D") == []
