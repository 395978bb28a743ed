"""The five providers without the tap: in this process, against the sandbox, driven as the job runner does."""

import csv
import gzip
import io
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from conftest import Sandbox

from tap_analytics_exports.errors import Ambiguous, Busy, ExportFailed, JobGone, NoData, TapError, Unreachable
from tap_analytics_exports.providers import installed
from tap_analytics_exports.providers.base import Empty, Failed, Provider, Ready, Request, Unknown
from tap_analytics_exports.settings import decode
from tap_analytics_exports.transport.download import download
from tap_analytics_exports.windows import Window

NAMES = ("flex_insights", "intelepeer", "khoros_care", "gooee", "giosg")

ENERGY = "6092953b-94a6-476d-aad8-f4b42a0f0c08"
CALLS = "0d9a1f7e-3c52-4b8e-8f64-7a1b2c3d4e5f"

# The sandbox's workspace of Flex Insights is there.
HELSINKI = ZoneInfo("Europe/Helsinki")

# Looks without an answer after which a job is given up.
PATIENCE = 20

# An export of each, of which the sandbox has rows.
EXPORTS: dict[str, dict[str, Any]] = {
    "flex_insights": {
        "report_id": 643040,
        "date_identifier": "date.date.mmddyyyy",
        "timezone": HELSINKI.key,
    },
    "intelepeer": {"event": "CallEvent"},
    "khoros_care": {"export_id": "incoming_post"},
    "gooee": {"query_id": ENERGY},
    "giosg": {"workflow_id": CALLS, "step_index": 1},
}


def yesterday(zone: Any = UTC) -> Window:
    """The last whole day of a zone."""
    end = datetime.now(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return Window((end - timedelta(days=1)).astimezone(UTC), end.astimezone(UTC))


@contextmanager
def provider(
    sandbox: Sandbox, name: str, *, export: dict[str, Any] | None = None, **block: Any
) -> Iterator[tuple[Provider[Any, Any], Request[Any]]]:
    """A provider with one export, and a request for a day or a snapshot; settings of None are left out."""
    config = sandbox.config(name, start_date="2026-01-01")
    exports = [{"name": "x", **EXPORTS[name], **(export or {})}]
    merged = {**config[name], "exports": exports, **block}
    config[name] = {key: value for key, value in merged.items() if value is not None}
    kind = installed()[name]
    settings = decode(config, {name: kind.settings_type})
    made = kind(settings.providers[name])
    wanted = settings.providers[name].all_exports[0]
    window = yesterday(HELSINKI if name == "flex_insights" else UTC) if wanted.incremental else None
    fingerprint = uuid.uuid5(uuid.NAMESPACE_OID, repr(exports)).hex
    try:
        yield made, Request(wanted, window, made.wanted(wanted, None), fingerprint, str(uuid.uuid4()))
    finally:
        with suppress(TapError):
            made.close()


@dataclass
class Outcome:
    """How an export ended.

    Attributes:
        statuses: Of each job, as `export_runs` has it.
        error: Why those failed that did.
        files: What the last one made, as it is stored.
    """

    statuses: list[str] = field(default_factory=list)
    error: str = ""
    files: list[bytes] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of CSV files."""
        texts = (gzip.decompress(file) if file[:2] == b"\x1f\x8b" else file for file in self.files)
        return [row for text in texts for row in csv.DictReader(io.StringIO(text.decode(), newline=""))]


def outcome(
    sandbox: Sandbox,
    name: str,
    folder: Path,
    *faults: dict[str, Any],
    knobs: dict[str, Any] | None = None,
    **how: Any,
) -> Outcome:
    """How an export of a provider ends where some things go wrong; `how` is for `provider`."""
    sandbox.post("settings", knobs or {})
    sandbox.post("faults", [{"service": name, **fault} for fault in faults])
    with provider(sandbox, name, **how) as (made, request):
        return run(made, request, folder)


def run(made: Provider[Any, Any], request: Request[Any], folder: Path) -> Outcome:
    """Export, with new jobs where a failure is a passing one, and halves where a window is too large."""
    outcome = Outcome()
    requests = [request]
    tries = 3
    while requests:
        try:
            outcome.files += _job(made, requests[0], folder)
        except (JobGone, ExportFailed) as error:
            window = requests[0].window
            halves = window.halves() if getattr(error, "split", False) and window else None
            if halves is not None:
                requests[:1] = [replace(requests[0], window=half) for half in halves]
                continue
            outcome.statuses.append("failed")
            outcome.error += f"{error}\n"
            tries -= 1
            if tries == 0 or not (isinstance(error, JobGone) or error.retry):
                outcome.files = []
                return outcome
            requests[0] = replace(requests[0], export_id=str(uuid.uuid4()))
        else:
            requests.pop(0)
    outcome.statuses.append("loaded" if outcome.files else "empty")
    return outcome


def _job(made: Provider[Any, Any], request: Request[Any], folder: Path) -> list[bytes]:
    handle = _trigger(made, request)
    if not _ready(made, request, handle):
        return []
    contents = []
    for remote in made.files(request, handle):
        while True:
            path = folder / uuid.uuid4().hex
            try:
                download(remote, path)
            except Busy:
                time.sleep(0.02)
                continue
            except NoData:
                return []
            contents.append(path.read_bytes())
            break
    return contents


def _trigger(made: Provider[Any, Any], request: Request[Any]) -> dict[str, Any]:
    for left in reversed(range(8)):
        try:
            return made.submit(request)
        except Ambiguous:
            found = made.find(request, None)
            if found is None:
                raise
            return found[1]
        except (Busy, Unreachable) as error:
            if not left:
                raise ExportFailed(str(error)) from error
            time.sleep(0.02)
    raise AssertionError


def _ready(made: Provider[Any, Any], request: Request[Any], handle: dict[str, Any]) -> bool:
    unknown: Counter[str] = Counter()
    trouble = ""
    troubles = 0
    until = time.monotonic() + 10
    while time.monotonic() < until and troubles < PATIENCE:
        try:
            match made.poll(request, handle):
                case Ready():
                    return True
                case Empty():
                    return False
                case Failed(why, retry, split):
                    raise ExportFailed(why, retry=retry, split=split)
                case Unknown(word):
                    unknown[word] += 1
                    if unknown[word] == 5:
                        raise ExportFailed(f"unknown state {word!r}")
        except Unreachable as error:
            trouble = str(error)
            troubles += 1
        time.sleep(0.02)
    raise ExportFailed(f"not ready in time: {trouble}")
