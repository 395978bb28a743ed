"""A vendor that does nothing but send files, so that what is measured is who reads them.

    python benchmarks/vendor.py folder

Answers as giosg does: information about a workflow, and its step's download, whose body is the file. The
workflow's id names the file: `rows.csv` is that file of the folder, and `rows.block*20` is a header and then
twenty times the same rows, which nobody has to keep twenty times. For others there are jobs: a POST creates
one, a GET finds it ready and names the address of its file. Bytes go from the file to the socket within the
kernel. The first line that it prints is its port; `/first` says when the first request since has come.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote


class Vendor(BaseHTTPRequestHandler):
    """Its API."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    first: ClassVar[float | None] = None

    def do_GET(self) -> None:
        """Describe a workflow, find a job ready, or send its file."""
        if self.path != "/first":
            self._note()
        match unquote(self.path).strip("/").split("/"):
            case ["first"]:
                self._json({"first": Vendor.first})
                Vendor.first = None
            case ["jobs", name]:
                self._json({"status": "ready", "url": f"http://{self.headers['Host']}/files/{name}"})
            case ["files", name]:
                self._send(name)
            case [*_, "workflows", name, "info"]:
                self._json({"id": name})
            case _:
                self.send_error(404)

    def do_POST(self) -> None:
        """Send the file of a step, or take an order for one."""
        self._note()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match unquote(self.path).strip("/").split("/"):
            case [*_, "workflows", name, "step", _, "download"]:
                self._send(name)
            case ["jobs", name]:
                self._json({"id": name})
            case _:
                self.send_error(404)

    def _note(self) -> None:
        if Vendor.first is None:
            Vendor.first = time.monotonic()

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self._head("application/json", len(body))
        self.wfile.write(body)

    def _head(self, kind: str, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, name: str) -> None:
        name, _, times = name.partition("*")
        path = self.folder / name
        pieces = [path] * int(times or 1)
        if path.suffix == ".block":
            pieces.insert(0, path.with_suffix(".header"))
        self._head("application/octet-stream", sum(piece.stat().st_size for piece in pieces))
        for piece in pieces:
            with piece.open("rb") as file:
                start, end = 0, os.fstat(file.fileno()).st_size
                while start < end:
                    start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the files are")
    Vendor.folder = parser.parse_args().folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
