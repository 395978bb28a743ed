"""The five services as a process."""

import copy
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

SANDBOX = Path(sys.executable).with_name("tap-analytics-exports-sandbox")


class Sandbox:
    """The five services."""

    def __init__(self, folder: Path, *args: str, program: Sequence[str | Path] = (SANDBOX,)) -> None:
        command = [*program, "--port", "0", "--dir", folder, "--job-seconds", "0.3", *args]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                break
        self._config: dict[str, Any] = json.loads(text)
        about = json.loads((folder / "control.json").read_text())
        self.control: str = about["control"]
        self.ports: dict[str, int] = about["ports"]
        self.folder = folder

    def config(self, *providers: str, **top: Any) -> dict[str, Any]:
        """A configuration for some providers, or for all; `top` overrides the top level."""
        blocks = {"flex_insights", "intelepeer", "khoros_care", "gooee", "giosg"}
        config = {k: v for k, v in self._config.items() if k not in blocks or not providers or k in providers}
        return {**copy.deepcopy(config), **top}

    def get(self, what: str, **query: Any) -> Any:
        """Ask the control API."""
        answer = requests.get(f"{self.control}/{what}", params=query, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def post(self, what: str, body: Any = None) -> Any:
        """Tell the control API."""
        answer = requests.post(f"{self.control}/{what}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=10)
