"""Programs that some tests need and that may not be there."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MELTANO = ".tools/bin/meltano"
TARGET_DUCKDB = ".meltano/loaders/target-duckdb/venv/bin/target-duckdb-exact"
TARGET_JSONL = ".meltano/loaders/target-jsonl/venv/bin/target-jsonl"
TARGET_POSTGRES = ".meltano/loaders/target-postgres/venv/bin/target-postgres"


def program(pattern: str) -> str:
    """The newest program that fits; without one, the test is skipped, or fails where it must run."""
    found = sorted(Path("/").glob(str(ROOT / pattern)[1:]))
    if not found:
        absent = f"{pattern} is not there; `make test` and .ci/run install what tests need"
        pytest.fail(absent) if os.environ.get("REQUIRE_SERVERS") else pytest.skip(absent)
    return str(found[-1])
