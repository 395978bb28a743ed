"""What costs time to import is not imported before it is used."""

import subprocess
import sys

HEAVY = {"boto3", "paramiko", "polars", "pyarrow", "smart_open", "xlsxwriter"}


def test_the_tap_is_imported_without_what_only_rows_and_files_need():
    program = "import sys, tap_analytics_exports.tap; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, encoding="utf-8")
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in run.stdout.split())
