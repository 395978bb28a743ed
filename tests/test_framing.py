"""Where an answer's body ends, what it is packed in, and that a part of it is never taken for the whole."""

import gzip
import io
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from peers import CHUNKED, GZIP, Peer, always, chunks, keeping, response, serving

from tap_analytics_exports.errors import ExportFailed, Refused, TapError, Unreachable
from tap_analytics_exports.transport import answers, http
from tap_analytics_exports.transport import download as files
from tap_analytics_exports.transport.auth import FixedAuth
from tap_analytics_exports.transport.download import LocalFile, RemoteFile, Wanted, download
from tap_analytics_exports.transport.http import Http
from tap_analytics_exports.transport.network import Network

CSV = b"a,b\n1,2\n"
HEAD = b"HTTP/1.1 200 X\r\nConnection: close\r\n"


@pytest.fixture
def serve() -> Iterator[Callable[..., Peer]]:
    with serving() as start:
        yield start


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """What is tried again is tried at once."""
    monkeypatch.setattr(Network, "wait", lambda self, seconds: None)
    monkeypatch.setattr(files, "TRIES", 1)


def fine(answer: requests.Response) -> None:
    assert answer.status_code == 200


def read(peer: Peer) -> bytes:
    with Http("vendor", peer.origin).body("GET", "file", check=fine) as body:
        return b"".join(body.chunks)


def fetch(peer: Peer, path: Path, **how: object) -> LocalFile:
    client = Http("vendor", peer.origin)

    def opened(wanted: Wanted):
        return client.body("GET", "file", wanted=wanted, check=fine)

    return download(RemoteFile("f", opened, **how), path)


# Lengths


@pytest.mark.parametrize(
    "length", ["+8", "-8", "0x8", "8_0", "8.0", "8,9", "", "eight", "٨", "8 8", "9" * 30]
)
def test_a_length_that_is_none_is_malformed(serve, length):
    peer = serve(always(HEAD + f"Content-Length: {length}\r\n\r\n".encode() + CSV))
    with pytest.raises(ExportFailed, match="a malformed answer"):
        read(peer)


def test_two_lengths_are_malformed_and_no_fault_of_the_credentials(serve):
    peer = serve(always(HEAD + b"Content-Length: 8\r\nContent-Length: 4\r\n\r\n" + CSV))
    client = Http("vendor", peer.origin, auth=FixedAuth("Token t"))
    with pytest.raises(ExportFailed, match=r"a malformed answer .*8, 4") as failure:
        client.ask("GET", "x")
    assert not isinstance(failure.value, Refused)


@pytest.mark.parametrize(
    "lines", [b"Content-Length: 8\r\nContent-Length: 8\r\n", b"Content-Length: 8, 8\r\n"]
)
def test_a_length_may_be_said_twice(serve, lines):
    assert read(serve(always(HEAD + lines + b"\r\n" + CSV))) == CSV


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_some_answers_have_no_body_whatever_they_say(serve, method):
    status = 200 if method == "HEAD" else 204
    peer = serve(always(response(status, CSV)[: -len(CSV)]))
    assert Http("vendor", peer.origin).ask(method, "x").content == b""


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_body_that_can_not_come_is_not_waited_for(method, status):
    with keeping(f"HTTP/1.1 {status} X\r\nContent-Length: 8\r\n\r\n".encode()) as (origin, connections):
        client = Http("vendor", origin)
        for _ in range(2):
            assert client.ask(method, "x", answer_seconds=3).content == b""
    assert len(connections) == 1


# Chunks


def chunked(body: bytes, *headers: str) -> bytes:
    return response(200, body, CHUNKED, *headers, length=False)


@pytest.mark.parametrize("size", ["8", "08", "8 ", "8;name=value", '8 ;q="a b"'])
def test_chunk_sizes(serve, size):
    assert read(serve(always(chunked(f"{size}\r\n".encode() + CSV + b"\r\n0\r\n\r\n")))) == CSV


def test_trailers_are_passed_over(serve):
    assert read(serve(always(chunked(chunks(CSV)[:-2] + b"Digest: x\r\nMore: y\r\n\r\n")))) == CSV


@pytest.mark.parametrize(
    "body",
    [
        b"-1\r\n" + CSV,
        b"0x8\r\n" + CSV + b"\r\n0\r\n\r\n",
        b"+8\r\n" + CSV + b"\r\n0\r\n\r\n",
        b"0_8\r\n" + CSV + b"\r\n0\r\n\r\n",
        b" 8\r\n" + CSV + b"\r\n0\r\n\r\n",
        b"8\n" + CSV + b"\n0\n\n",
        b"\r\n" + CSV,
        b"7\r\n" + CSV + b"\r\n0\r\n\r\n",
        b"8\r\n" + CSV + b"0\r\n\r\n",
        b"9\r\n" + CSV + b"\r\n0\r\n\r\n",
        b"8\r\n" + CSV + b"\r\n0\r\n" + b"a: b\r\n" * 200,
        b"8" * 5000,
    ],
)
def test_chunks_that_are_none_are_malformed(serve, body):
    with pytest.raises(Unreachable, match=r"broke off \(malformed: "):
        read(serve(always(chunked(body))))


def test_an_answer_with_a_length_and_chunks_is_malformed(serve):
    with pytest.raises(ExportFailed, match="both Content-Length and Transfer-Encoding"):
        read(serve(always(response(200, chunks(CSV), CHUNKED))))


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "identity, chunked", "chunked, identity", ""])
def test_other_transfer_encodings_are_malformed(serve, coding):
    with pytest.raises(ExportFailed, match=r"a malformed answer \(Transfer-Encoding"):
        read(serve(always(response(200, chunks(CSV), f"Transfer-Encoding: {coding}", length=False))))


def test_a_connection_is_used_again_behind_chunks():
    keep = chunked(chunks(CSV)).replace(b"Connection: close\r\n", b"")
    with keeping(keep) as (origin, connections):
        client = Http("vendor", origin)
        assert [client.ask("GET", "x").content for _ in range(3)] == [CSV] * 3
        assert len(connections) == 1


# Parts


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-7/100\r\n", b"HTTP/1.1 206 X\r\n"]
)
def test_a_part_that_nobody_asked_for_is_no_file(serve, tmp_path, head):
    peer = serve(always(head + b"Connection: close\r\nContent-Length: 8\r\n\r\n" + CSV))
    with pytest.raises(ExportFailed, match="a part of the file, which was not asked for"):
        fetch(peer, tmp_path / "f")


def test_a_whole_answer_with_a_range_is_no_file(serve, tmp_path):
    peer = serve(always(response(200, CSV, "Content-Range: bytes 0-7/100")))
    with pytest.raises(ExportFailed, match="a part of the file"):
        fetch(peer, tmp_path / "f")


# Cut everywhere


def gzipped(*parts: bytes) -> bytes:
    return b"".join(gzip.compress(part, mtime=0) for part in parts)


def workbook() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    return file.getvalue()


TWO = "csv.gz of two members"
FILES = {
    "csv": CSV,
    "csv.gz": gzipped(CSV),
    TWO: gzipped(b"a,b\n", b"1,2\n"),
    "xlsx": workbook(),
    "json": b'[{"a": 1}]',
}
FRAMES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "length": lambda head, body: response(200, body, *head.decode().split("|")),
    "chunks": lambda head, body: response(
        200, chunks(body[:5], body[5:]), CHUNKED, *head.decode().split("|"), length=False
    ),
    "close": lambda head, body: response(200, body, *head.decode().split("|"), length=False),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_at_any_byte_is_not_accepted(serve, tmp_path, kind, frame, packed):
    """Of the answer as it is on the wire; a CSV file without any framing needs the user's consent anyway."""
    body = gzipped(FILES[kind]) if packed else FILES[kind]
    wire = FRAMES[frame](b"Content-Encoding: gzip" if packed else b"X-A: b", body)
    whole = wire.index(b"\r\n\r\n") + 4
    sent = [wire]
    peer = serve(lambda seen: [sent[-1]])
    # Without any framing, a gzip file that ends with a member looks like a whole one.
    boundary = whole + len(gzipped(b"a,b\n")) if (kind, frame, packed) == (TWO, "close", False) else None
    for cut in sorted({*range(whole, len(wire))} - {boundary}):
        sent.append(wire[:cut])
        with pytest.raises(TapError):
            fetch(peer, tmp_path / "f")
        assert not (tmp_path / "f").exists()
    sent.append(wire)
    if (kind, frame, packed) == ("csv", "close", False):
        with pytest.raises(ExportFailed, match="nothing proves"):
            fetch(peer, tmp_path / "f")
    else:
        assert fetch(peer, tmp_path / "f").path.read_bytes() == FILES[kind]


@pytest.mark.parametrize(("body", "accepted"), [(CSV, True), (CSV[:-1], False), (b"a\r\n1\r\n", True)])
def test_a_count_of_rows_proves_a_file_that_ends_with_a_line_break(serve, tmp_path, body, accepted):
    peer = serve(always(response(200, body, length=False)))
    if accepted:
        assert fetch(peer, tmp_path / "f", rows=1).path.read_bytes() == body
    else:
        with pytest.raises(ExportFailed, match="nothing proves"):
            fetch(peer, tmp_path / "f", rows=1)


# Content-Encoding


@pytest.mark.parametrize(
    "label", ["UTF-8", "none", "binary", "", "aws-chunked", "identity", "gzip", "x-gzip", "gzip, identity"]
)
def test_a_label_over_plain_bytes_is_none(serve, tmp_path, label):
    peer = serve(always(response(200, CSV, f"Content-Encoding: {label}")))
    assert fetch(peer, tmp_path / "f").path.read_bytes() == CSV
    (asked,) = peer.seen
    assert asked.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("label", ["gzip", "X-GZIP", "gzip, identity", "aws-chunked,gzip"])
def test_what_is_packed_is_unpacked(serve, tmp_path, label):
    peer = serve(always(response(200, gzipped(CSV), f"Content-Encoding: {label}")))
    assert fetch(peer, tmp_path / "f").path.read_bytes() == CSV


def test_what_is_packed_twice_is_unpacked_twice(serve):
    assert read(serve(always(response(200, gzipped(gzipped(CSV)), "Content-Encoding: gzip, gzip")))) == CSV


@pytest.mark.parametrize("behind", [b"\0\0\0", b"\x1f\0\0"])
def test_bytes_behind_a_packed_body_are_left_out_and_told(serve, caplog, behind):
    assert read(serve(always(response(200, gzipped(CSV) + behind, GZIP)))) == CSV
    assert "behind the end" in caplog.text


@pytest.mark.parametrize(
    ("label", "body"),
    [
        ("br", CSV),
        ("deflate", zlib.compress(CSV)),
        ("zstd", CSV),
        ("gzip, br", CSV),
        ("gzip", b"\x1f\x8b" + b"\xff" * 50),
    ],
)
def test_what_cant_be_unpacked_fails_at_once(serve, tmp_path, label, body):
    peer = serve(always(response(200, body, f"Content-Encoding: {label}")))
    with pytest.raises(ExportFailed, match=r"Content-Encoding|can't be unpacked") as failure:
        fetch(peer, tmp_path / "f")
    assert not failure.value.retry
    assert len(peer.seen) == 1


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (response(200, gzipped(CSV), GZIP), len(CSV)),
        (response(200, gzipped(CSV), GZIP), len(gzipped(CSV))),
        (response(200, gzipped(CSV)), len(CSV)),
        (response(200, gzipped(CSV)), len(gzipped(CSV))),
    ],
)
def test_an_announced_size_may_be_of_either_count(serve, tmp_path, body, size):
    assert fetch(serve(always(body)), tmp_path / "f", size=size, either_size=True)


def test_an_announced_size_of_neither_count_is_no_proof(serve, tmp_path):
    with pytest.raises(ExportFailed, match="were announced"):
        fetch(serve(always(response(200, gzipped(CSV), GZIP))), tmp_path / "f", size=9, either_size=True)


# Bounds


@pytest.mark.parametrize("status", [200, 201])
def test_an_answer_that_is_too_large_is_not_read(serve, status):
    bomb = gzip.compress(bytes(20_000_000))
    peer = serve(always(response(status, bomb, GZIP)))
    with pytest.raises(ExportFailed, match="more than 16 MiB"):
        Http("vendor", peer.origin).ask("GET", "x")
    assert len(peer.seen) == 1


def test_of_an_error_that_is_too_large_the_beginning_is_read(serve):
    peer = serve(always(response(400, gzip.compress(b"too much" + bytes(20_000_000)), GZIP)))
    client = Http("vendor", peer.origin)
    answer = client.ask("GET", "x")
    assert len(answer.content) == answers.LARGEST_ANSWER
    assert "answered 400 too much" in client.message(answer)


def test_a_body_comes_in_chunks_of_a_bounded_size(serve):
    peer = serve(always(response(200, bytes(32 << 20))))
    with Http("vendor", peer.origin).body("GET", "file", check=fine) as body:
        sizes = [len(chunk) for chunk in body.chunks]
    assert sum(sizes) == 32 << 20
    assert max(sizes) < 2 << 20


def test_an_answer_that_drips_for_ever_ends(serve, monkeypatch):
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.6)
    monkeypatch.setattr(http, "_TRIES", 1)

    def drip(seen: object) -> Iterator[bytes]:
        yield HEAD + b"\r\n"
        while True:
            time.sleep(0.1)
            yield b"x"

    with pytest.raises(Unreachable, match="broke off"):
        Http("vendor", serve(drip).origin).ask("GET", "x")


def test_headers_that_drip_for_ever_end(serve, monkeypatch):
    monkeypatch.setattr(http, "_TRIES", 1)

    def drip(seen: object) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 X\r\nA: "
        while True:
            time.sleep(0.1)
            yield b"x"

    with pytest.raises(Unreachable, match="no answer in time"):
        Http("vendor", serve(drip).origin).ask("GET", "x", answer_seconds=0.6)


def test_a_file_that_is_larger_than_it_may_be_is_not_kept(serve, tmp_path):
    client = Http("vendor", serve(always(response(200, CSV * 100))).origin)
    remote = RemoteFile("f", lambda wanted: client.body("GET", "file", wanted=wanted, check=fine))
    with pytest.raises(ExportFailed, match="more than 500 bytes"):
        download(remote, tmp_path / "f", limit=500)
    assert not list(tmp_path.iterdir())
