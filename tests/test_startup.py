"""What costs time to import is not imported before it is used."""

import subprocess
import sys

from conftest import run_tap

HEAVY = {"boto3", "paramiko", "polars", "pyarrow", "smart_open", "xlsxwriter"}


def imported(module):
    program = f"import sys, tap_analytics_exports.{module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, encoding="utf-8")
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_the_tap_is_imported_without_what_only_rows_and_files_need():
    assert HEAVY.isdisjoint(imported("singer.command"))


def test_the_airbyte_source_needs_neither_that_nor_singer():
    assert (HEAVY | {"singer_sdk", "airbyte_cdk"}).isdisjoint(imported("airbyte"))


def test_a_run_that_has_nothing_to_do_is_over_without_it(sandbox):
    config = sandbox.config("giosg", start_date="2026-01-01", end_date="2026-01-01", ledger="")
    result = run_tap(config, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert (result.exit_code, result.of("RECORD")) == (0, [])
    modules = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "tap_analytics_exports.singer.command" in modules
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in modules)
