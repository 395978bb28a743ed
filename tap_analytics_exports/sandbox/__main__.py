"""Runs the five services on this machine and prints a configuration of the tap for them."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from tap_analytics_exports.sandbox import data, flex_insights, gooee, intelepeer, khoros_care, sftp
from tap_analytics_exports.sandbox.control import Control
from tap_analytics_exports.sandbox.files import GooeeFiles, KhorosFiles
from tap_analytics_exports.sandbox.giosg import API_TOKEN as GIOSG_TOKEN
from tap_analytics_exports.sandbox.giosg import Giosg
from tap_analytics_exports.sandbox.server import Hub, Knobs, Service

HOST = "127.0.0.1"
#: The origins, in the order of their ports; SFTP comes after them.
ORIGINS = (
    "flex_insights",
    "intelepeer",
    "khoros_care",
    "gooee",
    "giosg",
    "intelepeer_auth",
    "khoros_files",
    "gooee_files",
    "control",
)


#: How the vendors write dates and large numbers in reports.
_DATE = {"type": "date", "format": "%m/%d/%Y"}
_NUMBER = {"type": "number", "thousands": ","}
#: What is no text, by export.
COLUMNS: dict[str, dict[str, Any]] = {
    "flex_conversations": {
        "Date": _DATE,
        "Abandoned": "boolean",
        "Talk Time": _NUMBER,
        "Wrap Up Time": _NUMBER,
    },
    "flex_workload": {"date": _DATE, "date_2": _DATE, "Activity Time": {"type": "integer", "thousands": ","}},
    "flex_missed": {"Date": _DATE},
    "calls": {"AnswerTime": "timestamp", "Duration": "integer", "Cost": "decimal"},
    "messages": {"Segments": "integer"},
    "khoros_conversations": {
        "CREATED_TIME": "timestamp",
        "CLOSED_TIME": "timestamp",
        "POST_COUNT": "integer",
    },
    "khoros_posts": {"POST_TIME": "timestamp", "SENTIMENT": "integer"},
    "khoros_campaigns": {"POST_TIME": "timestamp", "IMPRESSIONS": "integer"},
    "gooee_energy": {
        "timestamp": "timestamp",
        "active_power": "number",
        "dim": "integer",
        "occupancy_detected": "boolean",
    },
    "gooee_occupancy": {"timestamp": "timestamp", "area_head_count": "integer", "area_utilization": "number"},
    "giosg_calls": {"value": "number", "device_screen_height": "integer"},
    "giosg_popups": {"value": "number", "device_screen_height": "integer"},
}


def parser() -> argparse.ArgumentParser:
    """Describes the command line."""
    asked = argparse.ArgumentParser(
        prog="tap-analytics-exports-sandbox",
        description="Five vendors' export APIs on this machine. Prints a configuration of the tap as JSON.",
    )
    asked.add_argument(
        "--port",
        type=int,
        default=8700,
        help="first of ten consecutive ports; 0: any free ones (%(default)s)",
    )
    asked.add_argument(
        "--dir", type=Path, help="also write config.json, control.json, known_hosts, env, keys here"
    )
    asked.add_argument("--seed", type=int, default=1, help="another seed, other rows (%(default)s)")
    asked.add_argument("--job-seconds", type=float, default=2.0, help="how long a job runs (%(default)s)")
    asked.add_argument("--rows", type=int, default=100, help="rows of an export's day (%(default)s)")
    asked.add_argument("--shards", type=int, default=3, help="files of an IntelePeer result (%(default)s)")
    asked.add_argument(
        "--results-dir", type=Path, help="put IntelePeer results here, for another server, instead of SFTP"
    )
    return asked


def configuration(ports: dict[str, int], host_key: str) -> dict[str, Any]:
    """Makes the tap's configuration.

    Args:
        ports: Where the services listen; without `sftp`, the way to IntelePeer's files is left out.
        host_key: The SFTP server's.

    Returns:
        The settings, ready to use.
    """
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
    local = datetime(start.year, start.month, start.day, tzinfo=data.WORKSPACE_ZONE)
    url = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    days = {
        "date_identifier": "date.date.mmddyyyy",
        "timezone": data.WORKSPACE_ZONE.key,
        "start_date": local.isoformat(),
    }
    files = {}
    if "sftp" in ports:
        files = {
            "files_url": f"sftp://{sftp.USERNAME}@{HOST}:{ports['sftp']}/{sftp.BASE}",
            "sftp_password": sftp.PASSWORD,
            "sftp_host_key": host_key,
        }
    return {
        "start_date": start.isoformat(),
        "poll_interval": "PT0.2S",
        "poll_interval_max": "PT1S",
        "flex_insights": {
            "base_url": url["flex_insights"],
            "username": flex_insights.USERNAME,
            "password": flex_insights.PASSWORD,
            "workspace_id": flex_insights.WORKSPACE,
            "exports": [
                {
                    "name": "flex_conversations",
                    "columns": COLUMNS["flex_conversations"],
                    "report_id": "643040",
                    **days,
                },
                {"name": "flex_workload", "columns": COLUMNS["flex_workload"], "report_id": "643041"},
                {"name": "flex_missed", "columns": COLUMNS["flex_missed"], "report_id": "643042", **days},
            ],
        },
        "intelepeer": {
            "base_url": f"{url['intelepeer']}/_rest/v4/dwh",
            "auth_url": f"{url['intelepeer_auth']}/_rest/v4/authenticate",
            "username": intelepeer.USERNAME,
            "password": intelepeer.PASSWORD,
            **files,
            "exports": [
                {"name": "calls", "columns": COLUMNS["calls"], "event": "CallEvent"},
                {"name": "messages", "columns": COLUMNS["messages"], "event": "MsgEvent"},
                {"name": "dtmf", "event": "DtmfEvent", "fields": ["SessionId", "TransactionId", "DtmfInput"]},
            ],
        },
        "khoros_care": {
            "base_url": f"{url['khoros_care']}/api/public/reports",
            "username": khoros_care.USERNAME,
            "password": khoros_care.PASSWORD,
            "company_key": khoros_care.COMPANY_KEY,
            # The vendor's 20 would make a demo wait; the sandbox counts, and refuses only if told to.
            "requests_per_minute": 600,
            "exports": [
                {
                    "name": "khoros_conversations",
                    "columns": COLUMNS["khoros_conversations"],
                    "export_id": "conversation",
                    "parameters": {"conversationReportType": "CREATED"},
                    "primary_keys": ["CONVERSATION_ID"],
                },
                {
                    "name": "khoros_posts",
                    "columns": COLUMNS["khoros_posts"],
                    "export_id": "incoming_post",
                    "format": "json",
                },
                {
                    "name": "khoros_campaigns",
                    "columns": COLUMNS["khoros_campaigns"],
                    "export_id": "raw_brand_post",
                    "section": "marketing",
                },
            ],
        },
        "gooee": {
            "base_url": url["gooee"],
            "api_token": gooee.API_TOKEN,
            "exports": [
                {"name": "gooee_energy", "columns": COLUMNS["gooee_energy"], "query_id": data.GOOEE_ENERGY},
                {
                    "name": "gooee_occupancy",
                    "columns": COLUMNS["gooee_occupancy"],
                    "query_id": data.GOOEE_OCCUPANCY,
                    "delete_after": True,
                },
            ],
        },
        "giosg": {
            "base_url": url["giosg"],
            "api_token": GIOSG_TOKEN,
            "organization_id": data.GIOSG_ORGANIZATION,
            "exports": [
                {
                    "name": "giosg_calls",
                    "columns": COLUMNS["giosg_calls"],
                    "workflow_id": data.GIOSG_CALLS,
                    "step_index": 1,
                },
                {
                    "name": "giosg_popups",
                    "columns": COLUMNS["giosg_popups"],
                    "workflow_id": data.GIOSG_POPUPS,
                    "step_index": 1,
                    "format": "xlsx",
                    "filters": [{"property": "action", "values": ["User dialed", "Visitor dialed"]}],
                },
            ],
        },
    }


def build(hub: Hub, results: Path, shards: int) -> None:
    """Makes all services and lets them join the hub."""
    khoros_files, gooee_files = KhorosFiles(hub), GooeeFiles(hub)
    auth = intelepeer.IntelePeerAuth(hub)
    intelepeer.IntelePeer(hub, auth, results, shards)
    khoros_care.KhorosCare(hub, khoros_files)
    gooee.Gooee(hub, gooee_files)
    flex_insights.FlexInsights(hub)
    Giosg(hub)
    Control(hub)


async def listen(hub: Hub, service: Service, port: int, stack: AsyncExitStack) -> int:
    """Starts one origin and gives its port."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await hub.handle(service, request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    # A client that goes away ends the handling, so that a hanging answer doesn't outlive it.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, port).start()
    bound: int = runner.addresses[0][1]
    service.origin = f"http://{HOST}:{bound}"
    return bound


def write(folder: Path, config: dict[str, Any], ports: dict[str, int], host_key: str) -> None:
    """Writes what a shell, a test or an SSH client wants to read."""
    control = {"control": f"http://{HOST}:{ports['control']}", "ports": ports}
    control["sftp_private_key_file"] = str((folder / "client_key").absolute())
    variables = {f"SANDBOX_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    variables["SANDBOX_CONTROL"] = str(control["control"])
    if "sftp" in ports:
        variables["SANDBOX_SFTP_HOST_KEY"] = host_key
        (folder / "known_hosts").write_text(f"[{HOST}]:{ports['sftp']} {host_key}\n")
    (folder / "env").write_text(
        "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    )
    (folder / "control.json").write_text(json.dumps(control, indent=2) + "\n")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def make_folders(*folders: Path) -> None:
    """Makes folders that are not there yet."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


async def run(asked: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    async with AsyncExitStack() as stack:
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-")))
        folder: Path = asked.dir or private
        root = private / "sftp"
        results: Path = asked.results_dir or root / sftp.BASE
        make_folders(folder, results)
        hub = Hub(data.World(asked.seed, asked.rows), Knobs(job_seconds=asked.job_seconds))
        build(hub, results, asked.shards)
        stack.callback(hub.close)
        ports = {}
        for number, name in enumerate(ORIGINS):
            ports[name] = await listen(hub, hub.services[name], asked.port and asked.port + number, stack)
        host_key = ""
        if asked.results_dir is None:
            host, client = sftp.keys(folder)
            host_key = " ".join(host.export_public_key().decode().split()[:2])
            server = await sftp.serve(hub, root, asked.port and asked.port + len(ORIGINS), host, client)
            stack.callback(server.close)
            ports["sftp"] = server.get_port()
        config = configuration(ports, host_key)
        if asked.dir:
            write(folder, config, ports, host_key)
        print(json.dumps(config, indent=2), flush=True)
        print(
            f"control: http://{HOST}:{ports['control']}  ports: {json.dumps(ports)}",
            file=sys.stderr,
            flush=True,
        )
        await stop.wait()


def main() -> None:
    """Runs the command line."""
    try:
        asyncio.run(run(parser().parse_args()))
    except OSError as problem:
        # A port that is taken, or a folder that can't be written.
        sys.exit(f"tap-analytics-exports-sandbox: {problem}")


if __name__ == "__main__":
    main()
