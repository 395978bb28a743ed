"""What dlt makes of the source, with a vendor in this process."""

import pytest
import vendor
from conftest import column, csv, table
from dlt.pipeline.exceptions import PipelineStepFailed
from vendor import START

from tap_analytics_exports.dlt import analytics_exports
from tap_analytics_exports.errors import CredentialsRefused, ExportsFailed, SettingsError
from tap_analytics_exports.windows import Window


def statuses(pipeline):
    found = sorted(table(pipeline, "export_runs"), key=lambda run: run["finished_at"])
    return [(run["stream"], run["status"]) for run in found]


def test_a_resource_an_export_and_one_run_of_all(make, settings):
    address, world = vendor.world()
    source = analytics_exports(settings(address, others=({"name": "more", "snapshot": True},)))
    assert list(source.resources) == ["more", "rows", "export_runs", "rejected_rows"]
    pipeline = make()
    pipeline.run(source)
    assert column(pipeline, stream="more") == ["snapshot-1", "snapshot-2", "snapshot-3"]
    assert len(column(pipeline)) == 12
    assert len(world.jobs) == 4
    pipeline.run(analytics_exports(settings(address, days=4, others=({"name": "more", "snapshot": True},))))
    assert len(column(pipeline)) == 16
    assert len(world.jobs) == 6


def test_a_window_that_is_exported_again_leaves_no_row_of_before(make, settings):
    address, world = vendor.world()
    pipeline = make()
    pipeline.run(analytics_exports(settings(address)))
    world.contents["2026-01-03"] = csv("at", "one")
    world.script["2026-01-02"] = ["empty"]
    pipeline.run(analytics_exports(settings(address, lookback="P2D")))
    assert column(pipeline) == [*vendor.rows(Window(START, START + vendor.DAY)), "one"]
    assert {row["_sdc_deleted"] for row in table(pipeline, "rows")} <= {None, False}


def test_a_cut_window_is_replaced_by_the_whole_one(make, settings):
    address, _ = vendor.world()
    pipeline = make()
    for days in (1.5, 2.25):
        pipeline.run(analytics_exports(settings(address, days=days)))
    assert len(column(pipeline)) == len(set(column(pipeline))) == 9


def test_rows_of_a_window_that_fails_in_its_middle_replace_nothing(make, settings, caplog):
    address, world = vendor.world(contents={"2026-01-03": csv("at,n", "a,1", "b,2")})
    pipeline = make()
    pipeline.run(analytics_exports(settings(address)))
    before = column(pipeline)
    assert len(before) == 4 + 4 + 2
    many = ["at,n", *(f"new {i},{i}" for i in range(200_000)), "bad,x"]
    world.contents["2026-01-03"] = csv(*many)
    strict = {"columns": {"n": "integer"}, "on_bad_row": "fail"}
    pipeline.run(analytics_exports(settings(address, lookback="P1D", **strict)))
    assert column(pipeline) == before
    assert statuses(pipeline)[3:] == [("rows", "failed")]
    assert "1 exports failed, the others are loaded" in caplog.text


def test_a_snapshot_replaces_its_table_and_a_failed_one_leaves_it(make, settings):
    address, world = vendor.world()
    source = analytics_exports(settings(address, snapshot=True))
    pipeline = make()
    pipeline.run(source)
    assert column(pipeline) == ["snapshot-1", "snapshot-2", "snapshot-3"]
    world.script["snapshot"] = ["failed"]
    pipeline.run(analytics_exports(settings(address, snapshot=True)))
    pipeline.run(source)
    assert column(pipeline) == ["snapshot-1", "snapshot-2", "snapshot-3"]
    world.script["snapshot"] = ["ok"]
    world.contents["snapshot"] = csv("at,more", "snapshot-4,x")
    pipeline.run(analytics_exports(settings(address, snapshot=True)))
    assert [(row["at"], row["more"]) for row in table(pipeline, "rows")] == [("snapshot-4", "x")]
    world.script["snapshot"] = ["empty"]
    pipeline.run(analytics_exports(settings(address, snapshot=True)))
    assert table(pipeline, "rows") == []


def test_an_export_that_fails_is_told_and_the_others_are_loaded(make, settings, caplog):
    address, world = vendor.world(script={"snapshot": ["failed"]})
    more = {"name": "more", "snapshot": True}
    pipeline = make()
    pipeline.run(analytics_exports(settings(address, others=(more,))))
    assert len(column(pipeline)) == 12
    assert statuses(pipeline)[0] == ("more", "failed")
    assert "it failed" in caplog.text
    world.script["snapshot"] = ["ok"]
    pipeline.run(analytics_exports(settings(address, others=(more,))))
    assert len(column(pipeline, stream="more")) == 3


def test_an_export_that_fails_may_fail_the_pipeline(make, settings):
    address, world = vendor.world(script={"snapshot": ["failed"]})
    config = settings(address, others=({"name": "more", "snapshot": True},))
    pipeline = make()
    with pytest.raises(PipelineStepFailed) as failed:
        pipeline.run(analytics_exports(config, on_failure="raise"))
    assert isinstance(failed.value.__cause__.__cause__, ExportsFailed)
    assert pipeline.list_extracted_load_packages() == []
    # What was exported is in the ledger, and is not triggered once more.
    pipeline.run(analytics_exports(config))
    assert len(column(pipeline)) == 12
    assert [world.jobs[job].window for job in world.jobs].count(None) == 2
    assert len(world.jobs) == 3 + 2


def test_no_provider_that_accepts_its_credentials_fails_the_pipeline(make, settings):
    address, _ = vendor.world(script={"2026-01-01": ["refused"], "2026-01-02": ["refused"]})
    with pytest.raises(PipelineStepFailed) as failed:
        make().run(analytics_exports(settings(address, days=2)))
    assert isinstance(failed.value.__cause__.__cause__, CredentialsRefused)


def test_wrong_settings_are_refused_at_once(settings):
    with pytest.raises(SettingsError, match=r"fake\.exports\[0\]\.snapshto"):
        analytics_exports(settings("http://fake", snapshto=True))
    with pytest.raises(ValueError, match="'warn' or 'raise'"):
        analytics_exports(settings("http://fake"), on_failure="ignore")


def test_the_state_is_restored_from_the_destination(make, settings):
    address, world = vendor.world()
    config = {**settings(address), "ledger": ""}
    make().run(analytics_exports(config))
    again = make("another machine")
    again.run(analytics_exports(config))
    assert len(world.jobs) == 3
    assert len(column(again)) == 12


def test_only_the_resources_that_are_chosen_run(make, settings):
    address, world = vendor.world()
    config = settings(address, others=({"name": "more", "snapshot": True},))
    pipeline = make()
    pipeline.run(analytics_exports(config).with_resources("rows", "export_runs"))
    assert len(world.jobs) == 3
    pipeline.run(analytics_exports(config).with_resources("more"))
    assert len(world.jobs) == 4
    pipeline.run(analytics_exports(config).with_resources("rows"))
    assert len(world.jobs) == 4
    assert statuses(pipeline) == [("rows", "loaded")] * 3
    assert len(column(pipeline)) == 12


def test_a_key_is_one_row_whatever_window_it_comes_in(make, settings):
    days = {f"2026-01-0{i}": csv("id,at", f"a,{i}", f"{i},x", f"{i}0,y") for i in (1, 2, 3)}
    address, world = vendor.world(contents=dict(days))
    pipeline = make()
    pipeline.run(analytics_exports(settings(address, primary_keys=["id"])))
    found = [(row["id"], row["at"]) for row in table(pipeline, "rows")]
    assert sorted(found) == [
        ("1", "x"),
        ("10", "y"),
        ("2", "x"),
        ("20", "y"),
        ("3", "x"),
        ("30", "y"),
        ("a", "3"),
    ]
    world.script |= {"2026-01-03": ["empty"]}
    world.contents["2026-01-02"] = csv("id,at", "1,again")
    pipeline.run(analytics_exports(settings(address, primary_keys=["id"], lookback="P2D")))
    assert sorted((row["id"], row["at"]) for row in table(pipeline, "rows")) == [("1", "again"), ("10", "y")]


def test_a_column_that_turns_up_later_widens_the_table(make, settings):
    address, world = vendor.world()
    world.contents |= {"2026-01-01": csv("at", "a"), "2026-01-02": csv("at,more", "b,x")}
    pipeline = make()
    pipeline.run(analytics_exports(settings(address, days=2)))
    assert sorted((row["at"], row["more"]) for row in table(pipeline, "rows")) == [("a", None), ("b", "x")]


def test_types(make, settings):
    header = "s,i,n,d,b,day,t,j"
    numbers = "9007199254740993,0.1,12345678901234567890.123456789012345678"
    line = f'x,{numbers},yes,2026-01-02,2026-01-02T03:04:05Z,"{{""a"": 1.10}}"'
    kinds = ("string", "integer", "number", "decimal", "boolean", "date", "timestamp", "json")
    address, _ = vendor.world(contents={"2026-01-01": csv(header, line)})
    source = analytics_exports(
        settings(address, days=1, columns=dict(zip(header.split(","), kinds, strict=True)))
    )
    source.rows.apply_hints(columns={"d": {"data_type": "decimal", "precision": 38, "scale": 18}})
    source.rows.apply_hints(columns={"j": {"data_type": "json"}})
    pipeline = make()
    pipeline.run(source)
    (row,) = table(pipeline, "rows")
    assert [str(row[name]) for name in header.split(",")] == [
        "x",
        "9007199254740993",
        "0.1",
        "12345678901234567890.123456789012345678",
        "True",
        "2026-01-02",
        "2026-01-02 03:04:05+00:00",
        '{"a": 1.10}',
    ]


def test_rows_that_dlt_is_told_to_give_up_are_loaded_by_the_next_run(make, settings):
    address, world = vendor.world()
    config = settings(address)
    source = analytics_exports(config)
    source.rows.apply_hints(columns={"at": {"data_type": "bigint"}})
    pipeline = make()
    with pytest.raises(PipelineStepFailed, match="Could not convert"):
        pipeline.run(source)
    pipeline.abort_packages()
    with pipeline.sql_client() as client:
        for dataset in ("exports", "exports_staging"):
            client.execute_sql(f'ALTER TABLE {dataset}.rows ALTER "at" TYPE VARCHAR')
    pipeline.run(analytics_exports(config))
    assert len(column(pipeline)) == 12
    assert len(world.jobs) == 3
