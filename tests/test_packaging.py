"""What the package says of itself is the same everywhere."""

import json
import os
import runpy
import subprocess
import sys

import pytest
import yaml
from conftest import TAP
from programs import MELTANO, ROOT, program

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.providers import installed
from tap_analytics_exports.settings import decode

variables = runpy.run_path(str(ROOT / "demo/demo.py"))["variables"]

PROVIDERS = ["flex_insights", "intelepeer", "khoros_care", "gooee", "giosg"]


@pytest.fixture(scope="module")
def about():
    shown = subprocess.run(
        [TAP, "--about", "--format=json"], capture_output=True, check=True, encoding="utf-8"
    )
    return json.loads(shown.stdout)


@pytest.fixture(scope="module")
def plugin():
    return yaml.safe_load((ROOT / "plugin.yaml").read_text())


@pytest.fixture(scope="module")
def meltano():
    return yaml.safe_load((ROOT / "meltano.yml").read_text())


def test_plugin_yaml_has_the_settings_of_the_tap(about, plugin):
    top = about["settings"]["properties"]
    nested = {f"{name}.{key}": value for name in PROVIDERS for key, value in top[name]["properties"].items()}
    settings = {name: value for name, value in top.items() if name not in PROVIDERS} | nested
    listed = {setting["name"]: setting for setting in plugin["settings"]}
    assert set(listed) == set(settings)
    secrets = {name for name, value in settings.items() if value.get("secret")}
    assert {name for name, setting in listed.items() if setting.get("sensitive")} == secrets
    choices = {name: value["enum"] for name, value in settings.items() if "enum" in value}
    options = {
        name: [option["value"] for option in setting["options"]]
        for name, setting in listed.items()
        if "options" in setting
    }
    assert {name: set(values) for name, values in options.items()} == {n: set(v) for n, v in choices.items()}
    assert all(setting["label"] and setting["description"] for setting in plugin["settings"])
    assert not any("value" in setting for setting in plugin["settings"])


def test_plugin_yaml_has_the_capabilities_of_the_tap(about, plugin):
    assert set(plugin["capabilities"]) == set(about["capabilities"])


def test_what_is_generated_is_as_the_settings_are():
    subprocess.run([sys.executable, ROOT / "scripts/generate.py", "--check"], check=True)


def test_the_settings_that_the_hub_asks_for_together_are_enough():
    (path,) = (ROOT / "hub").rglob("*.yml")
    definition = yaml.safe_load(path.read_text())
    assert path.stem == definition["variant"]
    assert path.parent.name == definition["name"]
    blocks = {name: provider.settings_type for name, provider in installed().items()}
    used = set()
    for group in definition["settings_group_validation"]:
        values = {"exports": [], "files_url": "s3://bucket/base"}
        keys = [setting.split(".") for setting in group]
        config = {name: {key: values.get(key, "x") for _, key in keys} for name, _ in keys}
        used |= decode(config, blocks).providers.keys()
        with pytest.raises(SettingsError):
            decode(
                {name: {key: block[key] for key in list(block)[1:]} for name, block in config.items()}, blocks
            )
    assert used == set(PROVIDERS)


def test_meltano_yml_defines_the_same_plugin(plugin, meltano):
    (extractor,) = meltano["plugins"]["extractors"]
    assert {**extractor, "pip_url": plugin["pip_url"], "plugin_type": "extractors"} == plugin


def test_the_environment_sandbox_is_the_configuration_that_the_sandbox_prints(session_sandbox, tmp_path):
    (tmp_path / "meltano.yml").write_text((ROOT / "meltano.yml").read_text())
    known_hosts = tmp_path / ".demo/sandbox/known_hosts"
    dumped = subprocess.run(
        [program(MELTANO), "--environment=sandbox", "invoke", "--no-install", "--dump=config", TAP.name],
        cwd=tmp_path,
        env=os.environ | variables(session_sandbox.folder),
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    config = json.loads(dumped.stdout)
    assert config["intelepeer"].pop("sftp_known_hosts") == str(known_hosts)
    assert config.pop("ledger") == str(tmp_path / ".demo/ledger")
    printed = session_sandbox.config()
    del printed["intelepeer"]["sftp_host_key"]
    assert config == printed
