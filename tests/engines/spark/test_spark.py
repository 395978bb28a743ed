"""The data source in Spark itself: every row, typed, and no more jobs at a vendor than there may be."""

import json
from pathlib import Path

import pytest
from conftest import STREAMS, sunk
from pyspark.errors import PySparkException

FORMAT = "analytics_exports"


def read(spark, exported):
    return spark.read.format(FORMAT).options(**exported.options).load()


def stream_into(spark, exported, folder: Path):
    """Run a query until it has all that there is."""
    rows = spark.readStream.format(FORMAT).options(**exported.options).load()
    sink = rows.writeStream.format("parquet").option("path", f"{folder}/rows")
    query = sink.option("checkpointLocation", f"{folder}/checkpoint").trigger(availableNow=True).start()
    assert query.awaitTermination(120)
    return query


@pytest.mark.parametrize("provider", STREAMS)
def test_a_dataframe_has_every_row_and_one_set_of_jobs(spark, exported, provider):
    exported = exported(provider)
    frame = read(spark, exported)
    rows = [row.asDict() for row in frame.collect()]
    assert not exported.differences(rows)
    assert all(row["_sdc_rejected"] is None for row in rows)
    triggered = len(exported.jobs())
    assert triggered == (1 if provider == "gooee" else 3)
    assert frame.filter("_sdc_row_number > 0").count() == len(rows)
    assert not exported.differences([row.asDict() for row in read(spark, exported).collect()])
    # Each reading of giosg is a job; of the others, the ones that were triggered are read again.
    assert len(exported.jobs()) == (3 * triggered if provider == "giosg" else triggered)


@pytest.mark.parametrize("provider", STREAMS)
def test_a_query_has_every_row_once_and_then_only_what_is_new(spark, exported, provider, tmp_path):
    whole = exported(provider)
    if provider != "gooee":
        whole.config["end_date"] = whole.end.replace(hour=12).isoformat()
        part = exported(provider)
        part.config["end_date"] = (whole.end.replace(hour=12) - (whole.end - whole.start) / 3).isoformat()
        stream_into(spark, part, tmp_path)
        assert 0 < len(sunk(tmp_path / "rows")) < len(whole.expected())
    stream_into(spark, whole, tmp_path)
    triggered = len(whole.jobs())
    stream_into(spark, whole, tmp_path)
    assert not whole.differences(sunk(tmp_path / "rows"))
    assert len(whole.jobs()) == triggered == (1 if provider == "gooee" else 3)


def test_caps_hold_with_more_queries_and_partitions_than_a_vendor_takes(spark, exported, sandbox):
    sandbox.post("settings", {"giosg_seconds": 0.5})
    intelepeer, giosg = exported("intelepeer", days=12), exported("giosg", days=12)
    giosg.config["giosg"]["max_concurrent_exports"] = 2
    frames = [read(spark, each) for each in (intelepeer, giosg)]
    queries = [
        spark.readStream.format(FORMAT)
        .options(**intelepeer.options)
        .load()
        .writeStream.format("memory")
        .queryName(name)
        .trigger(availableNow=True)
        .start()
        for name in ("one", "two")
    ]
    counts = [frame.count() for frame in frames]
    for query in queries:
        assert query.awaitTermination(120)
    assert counts == [len(each.expected()) for each in (intelepeer, giosg)]
    most = sandbox.get("statistics")["max_running"]
    assert most["intelepeer"] == 2
    assert most["giosg"] == 2
    assert 429 not in {each["status"] for each in sandbox.get("requests", service="intelepeer")}
    assert len(intelepeer.jobs()) == 12
    assert [frame.rdd.getNumPartitions() for frame in frames] == [12, 2]


def test_columns_have_spark_s_types_and_a_row_that_does_not_fit_its_reason(spark, exported):
    exported = exported("giosg", days=1)
    (export,) = exported.config["giosg"]["exports"]
    export["columns"] = {
        "value": "decimal", "timestamp": "timestamp", "event_version": "integer", "label": "integer"
    }  # fmt: skip
    exported.config["rejected_rows_limit"] = 1_000_000
    assert dict(read(spark, exported).dtypes) == {
        "value": "string", "timestamp": "timestamp", "event_version": "bigint", "label": "bigint",
        "_sdc_organization_id": "string", "_sdc_workflow_id": "string", "_sdc_step_index": "bigint",
        "_sdc_export_id": "string", "_sdc_window_start": "timestamp", "_sdc_window_end": "timestamp",
        "_sdc_row_number": "bigint", "_sdc_rejected": "string",
    }  # fmt: skip
    rows = read(spark, exported).collect()
    rejected = [row for row in rows if row["_sdc_rejected"] is not None]
    expected = enumerate(exported.expected(), 1)
    assert {row["_sdc_row_number"] for row in rejected} == {i for i, row in expected if row["label"]}
    assert 0 < len(rejected) < len(rows) == len(exported.expected())
    assert {row["_sdc_rejected"] for row in rejected} == {"label: not an integer of 64 bits"}
    assert all(row["value"] is None and row["_sdc_export_id"] for row in rejected)


def test_what_can_t_be_is_refused_before_anything_is_asked(spark, exported, sandbox, tmp_path):
    wrong = exported("khoros_care")
    wrong.stream = "khoros_post"
    with pytest.raises(PySparkException, match="'khoros_post' is none of the exports khoros_posts"):
        read(spark, wrong)
    back = exported("khoros_care", lookback="P1D")
    with pytest.raises(PySparkException, match="lookback: a query takes each window once"):
        stream_into(spark, back, tmp_path)
    own = exported("khoros_care")
    with pytest.raises(PySparkException, match="name columns in the export's `columns`"):
        spark.read.format(FORMAT).schema("a string").options(**own.options).load().count()
    assert sandbox.get("requests") == []


def test_settings_are_read_from_a_file_where_the_driver_is(spark, exported, tmp_path):
    exported = exported("khoros_care", days=1)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(exported.config))
    frame = spark.read.format(FORMAT).options(settings=str(path), stream=exported.stream).load()
    path.unlink()
    assert frame.count() == len(exported.expected())


def test_a_failure_is_told_and_the_ready_jobs_are_gone_on_with(spark, exported, sandbox):
    exported = exported("khoros_care")
    frame = read(spark, exported)
    failing = {"service": "khoros_care", "match": "", "times": 1, "outcome": "FAILED"}
    sandbox.post("settings", {"fail_jobs": [failing]})
    with pytest.raises(PySparkException, match=r"khoros_care, stream khoros_posts, window .*FAILED"):
        frame.count()
    assert not exported.differences([row.asDict() for row in frame.collect()])


def test_a_query_that_is_stopped_while_it_waits_goes_on_with_its_jobs(spark, exported, sandbox, tmp_path):
    sandbox.post("settings", {"job_seconds": 3})
    exported = exported("khoros_care")
    rows = spark.readStream.format(FORMAT).options(**exported.options).load()
    sink = rows.writeStream.format("parquet").option("path", f"{tmp_path}/rows")
    query = sink.option("checkpointLocation", f"{tmp_path}/checkpoint").start()
    while len(exported.jobs()) < 1:
        assert query.isActive, query.exception()
        query.awaitTermination(0.1)
    query.stop()
    stream_into(spark, exported, tmp_path)
    assert not exported.differences(sunk(tmp_path / "rows"))
    assert len(exported.jobs()) == 3
