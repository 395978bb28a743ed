"""What the README says holds."""

import json
import re
from pathlib import Path

import pytest
from conftest import run_tap

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONFIGURATIONS = [
    json.loads(block)
    for block in re.findall(r"```json\n(\{.*?\n\})\n```", README, re.DOTALL)
    if '"exports"' in block
]


def test_each_provider_has_a_configuration_to_paste():
    blocks = {name for config in CONFIGURATIONS for name in config if name != "start_date"}
    assert blocks == {"flex_insights", "intelepeer", "khoros_care", "gooee", "giosg"}


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: list(config)[-1])
def test_a_pasted_configuration_is_accepted(config):
    result = run_tap(config, "--discover", env={"https_proxy": "http://127.0.0.1:9"})
    assert result.exit_code == 0, result.stderr
    names = {stream["stream"] for stream in json.loads(result.stdout)["streams"]}
    assert len(names - {"export_runs", "rejected_rows"}) == 1


def test_each_make_target_that_is_named_is_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
