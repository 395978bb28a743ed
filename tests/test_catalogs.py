"""Golden catalogs: what `--discover` says of each provider's exports, and the SDK's own suite of tests.

After a wanted change, `UPDATE_GOLDEN=1` writes the catalogs anew.
"""

import json
import os
from pathlib import Path

import pytest
from conftest import Sandbox, run_tap
from singer_sdk.testing import SuiteConfig, get_tap_test_class

from tap_analytics_exports.sandbox.data import GIOSG_CALLS, GIOSG_ORGANIZATION, GOOEE_ENERGY
from tap_analytics_exports.singer.tap import TapAnalyticsExports

GOLDEN = Path(__file__).parent / "golden"
PROVIDERS = ["flex_insights", "giosg", "gooee", "intelepeer", "khoros_care"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_catalog_is_as_it_was(sandbox, provider):
    result = run_tap(sandbox.config(provider), "--discover")
    assert result.exit_code == 0, result.stderr
    path = GOLDEN / f"{provider}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(json.loads(result.stdout), indent=1, sort_keys=True) + "\n")
    assert json.loads(result.stdout) == json.loads(path.read_text())


# The SDK makes its tests when this module is imported, so the services' addresses come later.
CONFIG = {
    "start_date": "2026-01-01",
    "on_new_column": "ignore",  # the suite knows no columns but those of the catalog
    "ledger": "",
    "poll_interval": "PT0.1S",
    "gooee": {
        "base_url": "http://127.0.0.1",
        "api_token": "not-known-yet",
        "exports": [{"name": "energy", "query_id": GOOEE_ENERGY, "columns": {"active_power": "number"}}],
    },
    "giosg": {
        "base_url": "http://127.0.0.1",
        "api_token": "not-known-yet",
        "organization_id": GIOSG_ORGANIZATION,
        "exports": [
            {
                "name": "calls",
                "workflow_id": GIOSG_CALLS,
                "step_index": 1,
                "columns": {"timestamp": "timestamp", "action": "string"},
                "primary_keys": ["event_id"],
            }
        ],
    },
}


@pytest.fixture(scope="module", autouse=True)
def _addresses(session_sandbox: Sandbox) -> None:
    config = session_sandbox.config()
    CONFIG["start_date"] = config["start_date"]
    for provider in ("gooee", "giosg"):
        CONFIG[provider] |= {name: config[provider][name] for name in ("base_url", "api_token")}


TestStandard = get_tap_test_class(
    TapAnalyticsExports,
    config=CONFIG,
    suite_config=SuiteConfig(ignore_no_records_for_streams=["rejected_rows", "export_runs"]),
)
