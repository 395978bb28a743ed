"""Exports as a Spark data source, `analytics_exports`, for `spark.read` and `spark.readStream`.

register(spark)
spark.read.format("analytics_exports").options(settings=text_or_path, stream="conversations").load()

Three processes have a part in it:

* the driver's Python, in which `register` was called, has the one `planner`: all DataFrames and queries of
  the driver ask it, so that together they keep the providers' caps;
* Spark's planning workers, on the driver's machine, make the schema and the partitions (`source`);
* the executors' Python workers read a partition: they fetch, prove, parse and type (`reading`).
"""

from __future__ import annotations

from typing import Any

__all__ = ["register"]


def register(spark: Any) -> None:
    """Register the data source with a SparkSession, and start the planner of this process if need be."""
    from tap_analytics_exports.spark.source import data_source

    spark.dataSource.register(data_source())
