"""The tap as a process, and the five services as another, over real sockets."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from services import Sandbox

from tap_analytics_exports import redaction

# No test asserts a time, and a machine may be loaded.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

TAP = Path(sys.executable).with_name("tap-analytics-exports")


@dataclass
class Result:
    """What a run of the tap left behind."""

    exit_code: int
    messages: list[dict[str, Any]]
    stderr: str
    stdout: str = field(repr=False)

    def of(self, kind: str, stream: str | None = None) -> list[dict[str, Any]]:
        return [
            m for m in self.messages if m["type"] == kind and (stream is None or m.get("stream") == stream)
        ]

    def records(self, stream: str) -> list[dict[str, Any]]:
        return [message["record"] for message in self.of("RECORD", stream)]

    @property
    def runs(self) -> list[dict[str, Any]]:
        return self.records("export_runs")

    @property
    def rejected(self) -> list[dict[str, Any]]:
        return self.records("rejected_rows")

    def schema(self, stream: str) -> dict[str, Any]:
        """The properties of the stream's last SCHEMA message."""
        return self.of("SCHEMA", stream)[-1]["schema"]["properties"]

    @property
    def state(self) -> dict[str, Any]:
        states = self.of("STATE")
        return states[-1]["value"] if states else {}

    def bookmark(self, stream: str) -> dict[str, Any]:
        return self.state.get("bookmarks", {}).get(stream, {})


@contextlib.contextmanager
def start_tap(
    config: dict[str, Any] | None,
    *args: str,
    state: dict[str, Any] | None = None,
    catalog: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """The tap, running; it is killed at the end if it still is."""
    with tempfile.TemporaryDirectory() as folder:
        options = []
        for name, content in (("config", config), ("state", state), ("catalog", catalog)):
            if content is not None:
                path = Path(folder, f"{name}.json")
                path.write_text(json.dumps(content))
                options += [f"--{name}", str(path)]
        environment = {
            **os.environ,
            "TZ": "UTC",
            "XDG_STATE_HOME": folder,
            "TMPDIR": folder,
            "PYTHONWARNINGS": "error",
            **(env or {}),
        }
        process = subprocess.Popen(
            [TAP, *options, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def run_tap(config: dict[str, Any], *args: str, timeout: float = 60, **how: Any) -> Result:
    """Run the tap to its end."""
    with start_tap(config, *args, **how) as process:
        stdout, stderr = process.communicate(timeout=timeout)
        runs = not args or args[0] in ("--backfill", "--replay", "--streams")
        lines = stdout.splitlines() if runs else []
        return Result(process.returncode, [json.loads(line) for line in lines], stderr, stdout)


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no secret of one test be one of the next, where it may be a word of what is said."""
    monkeypatch.setattr(redaction, "_known", redaction._Known())


@pytest.fixture(scope="session")
def session_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"))
    yield sandbox
    sandbox.stop()


@pytest.fixture
def sandbox(session_sandbox: Sandbox) -> Sandbox:
    """The services as they are when they start: no faults, no jobs, nothing recorded."""
    session_sandbox.post("reset")
    return session_sandbox


@pytest.fixture
def quick(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The services with jobs that take no time, for providers in this process, whose waits are short too."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.005)))
    sandbox.post("settings", {"job_seconds": 0.05, "giosg_seconds": 0})
    return sandbox
