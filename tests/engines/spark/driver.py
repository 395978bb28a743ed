"""A Spark driver as a process, that can be killed: loads one stream into a folder of Parquet files."""

import json
import sys

from pyspark.sql import SparkSession

from tap_analytics_exports.spark import register


def main(master: str, settings: str, stream: str, mode: str, folder: str) -> None:
    # Of executors, for the local session has its own.
    builder = SparkSession.builder.master(master).config("spark.executor.memory", "512m")
    builder = builder.config("spark.ui.enabled", "false").config("spark.driver.bindAddress", "127.0.0.1")
    spark = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    register(spark)
    options = {"settings": settings, "stream": stream}
    if mode == "batch":
        rows = spark.read.format("analytics_exports").options(**options).load()
        rows.write.mode("overwrite").parquet(f"{folder}/rows")
        return
    rows = spark.readStream.format("analytics_exports").options(**options).load()
    sink = rows.writeStream.format("parquet").option("path", f"{folder}/rows")
    query = sink.option("checkpointLocation", f"{folder}/checkpoint").trigger(availableNow=True).start()
    query.awaitTermination()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
