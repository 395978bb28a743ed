"""Servers of tests that answer with the very bytes that a test says."""

import contextlib
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import BytesHeaderParser
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CHUNKED = "Transfer-Encoding: chunked"
GZIP = "Content-Encoding: gzip"


class Seen:
    """A request as it arrived."""

    def __init__(self, line: str, headers: Message, body: bytes) -> None:
        self.at = time.monotonic()
        self.method, self.target, _ = line.split(" ")
        self.headers = headers
        self.body = body


Answer = Callable[[Seen], Iterable[bytes]]


class Peer:
    """A server that answers each connection's one request with raw bytes."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        peer = self

        class Handler(socketserver.StreamRequestHandler):
            def setup(self) -> None:
                if context is not None:
                    self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def handle(self) -> None:
                line, *block = self._head()
                if not line:
                    return
                headers = BytesHeaderParser().parsebytes(b"".join(block))
                seen = Seen(
                    line.decode().strip(), headers, self.rfile.read(int(headers.get("Content-Length", 0)))
                )
                peer.seen.append(seen)
                for part in answer(seen):
                    self.wfile.write(part)

            def _head(self) -> list[bytes]:
                """Read up to the empty line, or to the end of a connection on which no request came."""
                lines = [self.rfile.readline()]
                while lines[-1] not in (b"\r\n", b""):
                    lines.append(self.rfile.readline())
                return lines

            def finish(self) -> None:
                super().finish()
                self.request.close()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 50

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that goes away early is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.origin = f"http{'s' if context else ''}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving() -> Iterator[Callable[..., Peer]]:
    """Starts servers that end with the block."""
    with contextlib.ExitStack() as stack:

        def start(answer: Answer, context: ssl.SSLContext | None = None) -> Peer:
            peer = Peer(answer, context)
            stack.callback(peer.close)
            return peer

        yield start


@contextlib.contextmanager
def keeping(answer: bytes) -> Iterator[tuple[str, list[object]]]:
    """A server that answers all requests of a connection, and the connections that it has had."""
    connections: list[object] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            connections.append(self)
            while line := self.rfile.readline():  # empty once the connection has ended
                if line == b"\r\n":
                    self.wfile.write(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", connections
        server.shutdown()


def response(status: int = 200, body: bytes = b"", *headers: str, length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Connection: close", *headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def always(*parts: bytes) -> Answer:
    return lambda seen: parts


def in_turn(*answers: bytes) -> Answer:
    left = iter(answers)
    return lambda seen: [next(left)]


def chunks(*parts: bytes, end: bool = True) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + (b"0\r\n\r\n" if end else b"")


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = folder / "pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
