"""The kit for providers: our own pass it, one that errs does not, and one of another package runs."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import run_tap
from programs import ROOT
from vendors import ENERGY, EXPORTS

from tap_analytics_exports.errors import Ambiguous
from tap_analytics_exports.providers import installed
from tap_analytics_exports.testing import ProviderTests

ACME = ROOT / "examples/tap-analytics-exports-acme"

# Our own


class OfTheSandbox(ProviderTests):
    """A provider against the sandbox."""

    trigger = ""

    @pytest.fixture(autouse=True)
    def _sandbox(self, quick):
        self.sandbox = quick

    def block(self) -> dict[str, Any]:
        name = self.kind.name
        return self.sandbox.config(name)[name] | {"exports": [{"name": "x", **EXPORTS[name]}]}

    def jobs(self) -> int:
        return len(self.sandbox.get("jobs"))

    def lose_answer(self) -> None:
        if not self.trigger:
            pytest.skip("nothing is triggered before the file is fetched")
        action = {"run": True, "close": "before_headers"}
        fault = {"service": self.kind.name, "method": "POST", "path": self.trigger, "action": action}
        self.sandbox.post("faults", [fault])


class TestFlexInsights(OfTheSandbox):
    kind = installed()["flex_insights"]
    trigger = "/execute/raw"


class TestIntelePeer(OfTheSandbox):
    kind = installed()["intelepeer"]
    trigger = "/Q$"
    columns_need_network = True


class TestKhorosCare(OfTheSandbox):
    kind = installed()["khoros_care"]
    trigger = "/reports/"


class TestGooee(OfTheSandbox):
    kind = installed()["gooee"]
    trigger = "/exports/"


class TestGiosg(OfTheSandbox):
    kind = installed()["giosg"]


# One of another package


def install(folder: Path, entry_point: str | None = None) -> dict[str, str]:
    """Install the example as an installer would, without one; the environment that makes it count."""
    project = tomllib.loads((ACME / "pyproject.toml").read_text())["project"]
    group, points = next(iter(project["entry-points"].items()))
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (info / "entry_points.txt").write_text(f"[{group}]\nacme = {entry_point or points['acme']}\n")
    (folder / "tap_analytics_exports_acme").symlink_to(ACME / "tap_analytics_exports_acme")
    return os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def acme(environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Acme's service, and a configuration for three days of it."""
    command = [sys.executable, ACME / "tests/service.py"]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert service.stdout is not None
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    block = {
        "base_url": service.stdout.readline().strip(),
        "api_token": "acme-invented-token",
        "exports": [{"name": "orders", "report": "orders", "columns": {"ordered_at": "timestamp"}}],
    }
    span = {"start_date": (today - timedelta(days=3)).isoformat(), "end_date": today.isoformat()}
    try:
        yield {**span, "poll_interval": "PT0.05S", "acme": block}
    finally:
        service.kill()
        service.communicate()


def test_the_example_passes_the_kit(tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", ACME]
    run = subprocess.run(
        command, cwd=ACME, env=install(tmp_path), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout


def test_a_provider_of_another_package_is_one_like_all_others(tmp_path):
    environment = install(tmp_path)
    with acme(environment) as config:
        result = run_tap(config, env=environment)
        assert run_tap(config, "--test", env=environment).stdout == "acme: ok\nacme.orders: ok\n"
        config["acme"]["exports"][0] |= {"reprot": "x"}
        wrong = run_tap(config, env=environment)
    assert result.exit_code == 0, result.stderr
    assert len(result.records("orders")) == 12
    assert [run["rows"] for run in result.runs] == [4, 4, 4]
    assert result.schema("orders")["ordered_at"]["format"] == "date-time"
    assert wrong.exit_code == 1
    assert "acme.exports[0].reprot: is not a setting" in wrong.stderr


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (
            "tap_analytics_exports_acme.nothing:Acme",
            "tap-analytics-exports-acme, which has this provider, can't",
        ),
        ("tap_analytics_exports_acme:AcmeExport", "is no Provider whose name is acme"),
    ],
)
def test_a_provider_that_cannot_be_imported_hurts_only_who_uses_it(sandbox, tmp_path, point, words):
    environment = install(tmp_path, point)
    config = sandbox.config("giosg", start_date="2026-01-01", end_date="2026-01-01")
    without = run_tap(config, env=environment)
    assert without.exit_code == 0, without.stderr
    assert "acme" not in without.stderr
    result = run_tap(config | {"acme": {"api_token": "x"}}, env=environment)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "acme: " in result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


# One that errs


def bad(**verbs: Any) -> type:
    """Gooee's provider with some verbs in place of its own, as the kit's tests see it."""
    return type("TestBad", (TestGooee,), {"kind": type("Bad", (installed()["gooee"],), verbs)})


def _again(made: Any, request: Any) -> Any:
    made._http.trigger("POST", "analytics/exports/", json={"name": "one", "query": request.export.query_id})
    return installed()["gooee"].submit(made, request)


def _once_more(made: Any, request: Any) -> Any:
    try:
        return installed()["gooee"].submit(made, request)
    except Ambiguous:
        installed()["gooee"].submit(made, request)
        raise


def _with(**more: Any) -> Callable[[Any, Any], Any]:
    return lambda made, request: {
        **installed()["gooee"].submit(made, request),
        **{key: value(made) if callable(value) else value for key, value in more.items()},
    }


@pytest.mark.parametrize(
    ("test", "words", "verbs"),
    [
        (
            "a_check_triggers_nothing",
            "a check has triggered",
            {"check": lambda made: made._create({"name": "x", "query": ENERGY})},
        ),
        ("its_identity", "has a secret", {"identity": lambda made, export: {"as": made.settings.api_token}}),
        ("its_identity", "another identity", {"identity": lambda made, export: {"at": id(made)}}),
        ("a_job_is_found", "may be signed", {"submit": _with(url="https://x.example/y?Signature=z")}),
        ("a_job_is_found", "has a secret", {"submit": _with(token=lambda made: made.settings.api_token)}),
        ("a_job_is_found", "not what JSON makes", {"submit": _with(at=(1, 2))}),
        ("a_job_is_found", "is large", {"submit": _with(more="x" * 2000)}),
        ("a_job_is_found", "one job is one trigger", {"submit": _again}),
        ("a_trigger_without_an_answer", "was sent again", {"submit": _once_more}),
        ("it_is_installed", "no entry point", {}),
    ],
)
def test_the_kit_sees_what_errs(quick, tmp_path, test, words, verbs):
    suite = bad(**verbs)()
    suite.sandbox = quick
    (name,) = (name for name in dir(suite) if name.startswith(f"test_{test}"))
    with pytest.raises(AssertionError, match=words):
        getattr(suite, name)(*([tmp_path] if test == "a_job_is_found" else []))
