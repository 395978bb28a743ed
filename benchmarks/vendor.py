"""A vendor that does nothing but send files, so that what is measured is who reads them.

    python benchmarks/vendor.py folder

A step's download has, as giosg's, the file as its body that the workflow's id names. `rows.csv` is that file
of the folder, and `rows.block*20` is a header and then twenty times the same rows. For others there are jobs:
a POST creates one, a GET finds it ready and names the address of its file. Bytes go from the file to the
socket within the kernel. It prints its port.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Vendor(BaseHTTPRequestHandler):
    """Its API."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match unquote(self.path).strip("/").split("/"):
            case ["files", name] | [*_, name, "step", _, "download"]:
                self._send_file(name)
            case [*_, "jobs", name] | [*_, name, "info"]:
                job = {
                    "id": name,
                    "status": "completed",
                    "url": f"http://{self.headers['Host']}/files/{name}",
                }
                self._send_head(len(json.dumps(job)))
                self.wfile.write(json.dumps(job).encode())
            case _:
                self.send_error(404)

    do_POST = do_GET  # noqa: N815 - its name

    def _send_head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_file(self, name: str) -> None:
        name, _, times = name.partition("*")
        path = Path(sys.argv[1], name)
        header = [path.with_suffix(".header")] if path.suffix == ".block" else []
        pieces = header + [path] * int(times or 1)
        self._send_head(sum(piece.stat().st_size for piece in pieces))
        for piece in pieces:
            with piece.open("rb") as file:
                self.connection.sendfile(file)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Log nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    print(server.server_address[1], flush=True)
    server.serve_forever()
