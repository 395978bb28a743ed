"""What the tests of all engines have: the five services, as a process of the tap's own environment."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from services import Sandbox

BIN = Path(__file__).resolve().parents[2] / ".venv/bin"


@pytest.fixture(scope="session")
def session_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    program = [BIN / "tap-analytics-exports-sandbox"]
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"), "--rows", "40", program=program)
    yield sandbox
    sandbox.stop()


@pytest.fixture
def sandbox(session_sandbox: Sandbox) -> Sandbox:
    """The services as they are when they start: no faults, no jobs, nothing recorded."""
    session_sandbox.post("reset")
    return session_sandbox
