"""Spark as a local session of several cores, and as a process that can be killed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pyspark
import pytest
from pyspark.sql import SparkSession
from services import Sandbox

from tap_analytics_exports.spark import register

# Executors run the Python that the tests run, and nothing looks for the name of this machine.
os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "TZ": "UTC"}
time.tzset()

DRIVER = Path(__file__).with_name("driver.py")

# A stream of each provider, and what the sandbox calls it.
STREAMS = {
    "flex_insights": ("flex_conversations", "643040"),
    "intelepeer": ("calls", "CallEvent"),
    "khoros_care": ("khoros_posts", "incoming_post"),
    "gooee": ("gooee_energy", "6092953b-94a6-476d-aad8-f4b42a0f0c08"),
    "giosg": ("giosg_calls", "0d9a1f7e-3c52-4b8e-8f64-7a1b2c3d4e5f/1"),
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    builder = SparkSession.builder.master("local[4]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
    builder = builder.config("spark.sql.shuffle.partitions", "2").config("spark.sql.session.timeZone", "UTC")
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    register(session)
    yield session
    session.stop()


class Exported:
    """One stream of the sandbox, all of its columns declared as strings, so that rows can be compared."""

    def __init__(self, sandbox: Sandbox, provider: str, folder: Path, *, days: int = 3, **top: Any) -> None:
        self.sandbox, self.provider = sandbox, provider
        self.stream, self.export = STREAMS[provider]
        zone = ZoneInfo("Europe/Helsinki" if provider == "flex_insights" else "UTC")
        self.end = datetime.now(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        self.start = self.end - timedelta(days=days)
        config = sandbox.config(provider, ledger=str(folder / "ledger"), timezone=zone.key, **top)
        config |= {"start_date": self.start.isoformat(), "end_date": self.end.isoformat()}
        (export,) = [each for each in config[provider]["exports"] if each["name"] == self.stream]
        export = {key: value for key, value in export.items() if key not in ("timezone", "start_date")}
        self.headers = list(self.expected()[0])
        if provider == "intelepeer":
            self.headers = export["fields"] = ["SessionId", "TransactionId", "AnswerTime", "Duration", "Cost"]
        export["columns"] = dict.fromkeys(self.headers, "string")
        config[provider]["exports"] = [export]
        config["column_names"] = "original"
        self.config = config

    @property
    def options(self) -> dict[str, str]:
        return {"settings": json.dumps(self.config), "stream": self.stream}

    def expected(self) -> list[dict[str, str]]:
        """The rows that the vendor has."""
        span = {"start": self.start.isoformat(), "end": self.end.isoformat()}
        return self.sandbox.get("expected", provider=self.provider, export=self.export, **span)

    def differences(self, rows: list[dict[str, Any]]) -> Counter[tuple[str, ...]]:
        """What is there that should not be, or too often, or not at all."""
        found = Counter(tuple(row[name] or "" for name in self.headers) for row in rows)
        found.subtract(Counter(tuple(row[name] for name in self.headers) for row in self.expected()))
        return Counter({row: count for row, count in found.items() if count})

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that the vendor was asked for."""
        return self.sandbox.get("jobs", service=self.provider)


@pytest.fixture
def exported(sandbox: Sandbox, tmp_path: Path) -> Callable[..., Exported]:
    return lambda provider, **how: Exported(sandbox, provider, tmp_path, **how)


class Driver:
    """A driver in a process group of its own, with its JVM; its executors live elsewhere, or in the JVM."""

    def __init__(self, exported: Exported, mode: str, folder: Path, master: str = "local[2]") -> None:
        arguments = {"master": master, "mode": mode, "folder": str(folder), **exported.options}
        self.log = (folder / f"{time.monotonic()}.log").open("w+")
        command = [sys.executable, str(DRIVER), json.dumps(arguments)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        assert self.process.wait(timeout=200) == 0, Path(self.log.name).read_text()[-5000:]

    def until(self, happened: Callable[[], Any]) -> None:
        """Wait until something is seen while it runs."""
        for _ in range(3000):
            if happened():
                return
            assert self.process.poll() is None, Path(self.log.name).read_text()[-5000:]
            time.sleep(0.05)
        raise AssertionError(Path(self.log.name).read_text()[-5000:])


@pytest.fixture
def start_driver(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    drivers = []

    def start(exported: Exported, mode: str, **how: str) -> Driver:
        drivers.append(Driver(exported, mode, tmp_path, **how))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()
        driver.log.close()


def sunk(folder: Path) -> list[dict[str, Any]]:
    """The rows that a sink of Parquet files has: those that its log names, where it keeps one."""
    log = folder / "_spark_metadata"
    if not log.exists():
        return pq.read_table(folder).to_pylist()
    names = re.findall(r'"path":"file://([^"]+)"', "".join(path.read_text() for path in log.glob("[0-9]*")))
    return [row for name in names for row in pq.read_table(name).to_pylist()]


class Cluster:
    """A standalone cluster on loopback: a master, and workers of one core each."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        master = self._start("master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        self.address = self._said(master, r"Starting Spark master at (spark://\S+)")
        for i in range(workers):
            work = [
                "--cores",
                "1",
                "--memory",
                "600M",
                "--webui-port",
                "0",
                "--work-dir",
                str(folder / f"{i}"),
            ]
            self._said(self._start("worker.Worker", *work, self.address), r"(Successfully registered)")

    def _start(self, name: str, *arguments: str) -> Path:
        log = self.folder / f"{len(self.processes)}.log"
        command = [Path(pyspark.__file__).parent / "bin/spark-class", f"org.apache.spark.deploy.{name}"]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, *arguments], stdout=file, stderr=file, start_new_session=True
            )
        self.processes.append(process)
        return log

    @staticmethod
    def _said(log: Path, pattern: str) -> str:
        for _ in range(600):
            if found := re.search(pattern, log.read_text()):
                return found[1]
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    def kill_executors(self, worker: int) -> int:
        """Kill the executors of a worker, and tell how many they were."""
        pid = self.processes[1 + worker].pid
        executors = Path(f"/proc/{pid}/task").glob("*/children")
        pids = [int(child) for children in executors for child in children.read_text().split()]
        for child in pids:
            os.kill(child, signal.SIGKILL)
        return len(pids)

    def stop(self) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder, 2)
    yield cluster
    cluster.stop()
