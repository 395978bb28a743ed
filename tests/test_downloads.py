"""Files that arrive in pieces: what goes on after a break, what begins anew, and when it is given up."""

import gzip
import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from conftest import run_tap, start_tap
from peers import GZIP, Peer, Seen, always, response, serving

from tap_analytics_exports.errors import Busy, ExportFailed, Interrupted, Unreachable
from tap_analytics_exports.transport.download import LocalFile, RemoteFile, Wanted, download
from tap_analytics_exports.transport.http import Http

FILE = b"".join(b"%d,row\n" % n for n in range(200))
MODIFIED = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"
TAG = 'ETag: "one"'


@pytest.fixture
def serve() -> Iterator[Callable[..., Peer]]:
    with serving() as start:
        yield start


class Host:
    """A host that breaks off, and goes on where it is asked to."""

    def __init__(self, body: bytes, *headers: str, cuts: tuple[int, ...] = ()) -> None:
        self.body, self.headers = body, headers
        self.cuts = list(cuts)
        self.sent = 0

    def __call__(self, seen: Seen) -> Iterator[bytes]:
        wanted = re.fullmatch(r"bytes=(\d+)-", seen.headers.get("Range", ""))
        first = int(wanted[1]) if wanted and self.fits(seen.headers["If-Range"]) else 0
        part = self.body[first:]
        headers = [*self.headers]
        if first:
            headers.append(f"Content-Range: bytes {first}-{len(self.body) - 1}/{len(self.body)}")
        whole = response(206 if first else 200, part, *headers)
        head = len(whole) - len(part)
        cut = self.cuts.pop(0) if self.cuts else len(part)
        self.sent += min(cut, len(part))
        yield whole[: head + cut]

    def fits(self, condition: str) -> bool:
        return any(header.partition(": ")[2] == condition for header in self.headers)


def fine(answer: requests.Response) -> None:
    if answer.status_code == 403:
        raise Unreachable("the link has expired")
    assert answer.status_code == 200


def remote(peer: Peer, **how: object) -> RemoteFile:
    client = Http("vendor", peer.origin)
    return RemoteFile("f", lambda wanted: client.body("GET", "f", wanted=wanted, check=fine), **how)


def fetch(peer: Peer, path: Path, **how: object) -> LocalFile:
    return download(remote(peer), path, **how)


def ranges(peer: Peer) -> list[str | None]:
    return [seen.headers["Range"] for seen in peer.seen]


@pytest.mark.parametrize("header", [TAG, MODIFIED])
def test_a_transfer_goes_on_where_it_broke_off(serve, tmp_path, header):
    host = Host(FILE, header, cuts=(100, 500))
    peer = serve(host)
    local = fetch(peer, tmp_path / "f")
    assert local.path.read_bytes() == FILE
    assert (local.size, local.sha256) == (len(FILE), hashlib.sha256(FILE).hexdigest())
    assert ranges(peer) == [None, "bytes=100-", "bytes=600-"]
    assert [seen.headers["If-Range"] for seen in peer.seen[1:]] == [header.partition(": ")[2]] * 2
    assert host.sent == len(FILE)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_twenty_breaks_and_three_expiries_cost_no_byte_twice(serve, tmp_path):
    """As of a link that is signed for a while, of which a new one is got each time."""
    chosen = random.Random(20)
    body = chosen.randbytes(64 << 20)
    host = Host(body, TAG, cuts=tuple(chosen.randint(1 << 20, 4 << 20) for _ in range(20)))
    expired = iter([1, 0, 0, 1] + [0] * 10 + [1] + [0] * 99)

    def answer(seen: Seen) -> Iterator[bytes]:
        return iter([response(403)]) if next(expired) else host(seen)

    local = fetch(serve(answer), tmp_path / "f")
    assert local.sha256 == hashlib.sha256(body).hexdigest()
    assert host.sent <= len(body) * 1.05


def test_a_later_run_goes_on(serve, tmp_path):
    host = Host(FILE, TAG, cuts=(700, 0, 0, 0))
    peer = serve(host)
    with pytest.raises(ExportFailed, match="did not arrive whole"):
        fetch(peer, tmp_path / "f")
    assert (tmp_path / "f.part").read_bytes() == FILE[:700]
    local = fetch(peer, tmp_path / "f")
    assert ranges(peer)[-1] == "bytes=700-"
    assert local.sha256 == hashlib.sha256(FILE).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b'"one"/*\r\nX: y', b'"one"', b"no version"])
def test_a_note_that_nobody_wrote_so_begins_anew(serve, tmp_path, note):
    (tmp_path / "f.part").write_bytes(b"x,y")
    (tmp_path / "f.version").write_bytes(note)
    assert fetch(serve(Host(FILE, TAG)), tmp_path / "f").path.read_bytes() == FILE


def test_a_file_that_is_another_now_begins_anew(serve, tmp_path):
    host = Host(FILE, TAG, cuts=(700,))
    peer = serve(host)
    started = remote(peer)
    other = FILE[::-1]

    @contextmanager
    def opened(wanted: Wanted):
        if wanted.offset:
            host.body, host.headers = other, ('ETag: "two"',)
        with started.open(wanted) as body:
            yield body

    local = download(RemoteFile("f", opened), tmp_path / "f")
    assert local.path.read_bytes() == other
    assert local.sha256 == hashlib.sha256(other).hexdigest()


@pytest.mark.parametrize(
    "second",
    [
        response(206, FILE[100:], TAG, f"Content-Range: bytes 99-{len(FILE) - 1}/{len(FILE)}"),
        response(206, FILE[100:], TAG, f"Content-Range: bytes 100-{len(FILE) - 1}/{len(FILE) + 1}"),
        response(206, FILE[100:], TAG, f"Content-Range: bytes 100-{len(FILE) - 1}/*"),
        response(206, FILE[100:], TAG, f"Content-Range: bytes 100-{len(FILE)}/{len(FILE)}"),
        response(206, FILE[100:], 'ETag: "two"', f"Content-Range: bytes 100-{len(FILE) - 1}/{len(FILE)}"),
        response(206, FILE[100:], f"Content-Range: bytes 100-{len(FILE) - 1}/{len(FILE)}"),
        response(206, FILE[100:], TAG, GZIP, f"Content-Range: bytes 100-{len(FILE) - 1}/{len(FILE)}"),
        response(206, FILE[100:], TAG),
        response(416, b"", f"Content-Range: bytes */{len(FILE)}"),
    ],
    ids=["start", "total", "no total", "end", "tag", "no tag", "packed", "no range", "416"],
)
def test_a_part_that_does_not_fit_begins_anew(serve, tmp_path, second):
    first = response(200, FILE, TAG)
    turns = iter([first[: len(first) - len(FILE) + 100], second, first])
    peer = serve(lambda seen: [next(turns)])
    assert fetch(peer, tmp_path / "f").path.read_bytes() == FILE
    assert ranges(peer) == [None, "bytes=100-", None]


def test_a_part_of_what_is_left_is_followed_by_the_rest(serve, tmp_path):
    first = response(200, FILE, TAG)
    turns = iter(
        [
            first[: len(first) - len(FILE) + 100],
            response(206, FILE[100:200], TAG, f"Content-Range: bytes 100-199/{len(FILE)}"),
            response(206, FILE[200:], TAG, f"Content-Range: bytes 200-{len(FILE) - 1}/{len(FILE)}"),
        ]
    )
    assert fetch(serve(lambda seen: [next(turns)]), tmp_path / "f").path.read_bytes() == FILE


@pytest.mark.parametrize(
    "headers", [(), ('ETag: W/"one"',), ("ETag: one",), (MODIFIED, MODIFIED.replace("Last-Modified", "Date"))]
)
def test_without_a_strong_validator_all_is_asked_for_again(serve, tmp_path, headers):
    peer = serve(Host(FILE, *headers, cuts=(700, 700)))
    assert fetch(peer, tmp_path / "f").path.read_bytes() == FILE
    assert ranges(peer) == [None] * 3


def test_what_is_packed_on_its_way_is_asked_for_again(serve, tmp_path):
    host = Host(gzip.compress(FILE), TAG, GZIP, cuts=(300,))
    peer = serve(host)
    assert fetch(peer, tmp_path / "f").path.read_bytes() == FILE
    assert ranges(peer) == [None, None]


def test_three_tries_without_a_new_byte_are_enough(serve, tmp_path):
    peer = serve(Host(FILE, TAG, cuts=(100, 0, 100, 0, 0, 0)))
    with pytest.raises(ExportFailed, match="did not arrive whole") as failure:
        fetch(peer, tmp_path / "f")
    assert not failure.value.retry
    assert len(peer.seen) == 6


def test_a_transfer_that_is_the_job_is_not_begun_again(serve, tmp_path):
    (tmp_path / "f.part").write_bytes(FILE[:5])
    (tmp_path / "f.version").write_text('"one"/*')
    peer = serve(Host(FILE, TAG, cuts=(100,)))
    with pytest.raises(ExportFailed) as failure:
        download(remote(peer, once=True), tmp_path / "f")
    assert failure.value.retry
    assert ranges(peer) == [None]


@pytest.mark.parametrize(
    ("answer", "after"), [(response(429), 5.0), (response(503, b"", "Retry-After: 0.5"), 0.5)]
)
def test_a_host_without_room_is_to_be_asked_later(serve, tmp_path, monkeypatch, answer, after):
    monkeypatch.setattr("tap_analytics_exports.transport.http._TRIES", 1)
    peer = serve(always(answer))
    with pytest.raises(Busy) as busy:
        fetch(peer, tmp_path / "f")
    assert busy.value.after == after


def test_a_transfer_ends_with_its_deadline(serve, tmp_path):
    def drip(seen: Seen) -> Iterator[bytes]:
        yield response(200, FILE, TAG)[: -len(FILE)]
        while True:
            time.sleep(0.05)
            yield b"x"

    begun = time.monotonic()
    with pytest.raises(ExportFailed, match="within export_timeout"):
        fetch(serve(drip), tmp_path / "f", deadline=datetime.now(UTC) + timedelta(seconds=0.5))
    assert time.monotonic() - begun < 3


def test_a_transfer_stops_when_the_run_is_to(serve, tmp_path):
    stop = threading.Event()

    def drip(seen: Seen) -> Iterator[bytes]:
        yield response(200, FILE, TAG)[: -len(FILE)]
        while True:
            time.sleep(0.05)
            yield b"x"

    threading.Timer(1, stop.set).start()
    with pytest.raises(Interrupted):
        fetch(serve(drip), tmp_path / "f", stop=stop)
    assert (tmp_path / "f.part").stat().st_size


def test_a_size_that_was_announced_wrongly_is_not_gone_on_with(serve, tmp_path):
    peer = serve(Host(FILE, TAG))
    with pytest.raises(ExportFailed, match="where 5 were announced"):
        download(remote(peer, size=5), tmp_path / "f")
    assert ranges(peer) == [None] * 3
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_announced_too_large_is_refused_before_it_arrives(serve, tmp_path):
    peer = serve(Host(FILE, TAG, cuts=(100, 0, 0, 0)))
    with pytest.raises(ExportFailed, match="more than 500 bytes"):
        fetch(peer, tmp_path / "f", limit=500)
    assert ranges(peer) == [None]
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_killed_in_the_middle_of_a_file_leaves_it_to_the_next(sandbox, tmp_path):
    config = sandbox.config("gooee")
    config["gooee"]["exports"] = config["gooee"]["exports"][:1]
    env = {"XDG_STATE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    drip = {"service": "gooee_files", "times": 1, "action": {"drip": 0.3}}  # of twenty pieces
    sandbox.post("faults", [drip])
    with start_tap(config, env=env) as process:
        for _ in range(200):
            parts = list(tmp_path.rglob("*.part"))
            if parts and parts[0].stat().st_size:
                break
            time.sleep(0.1)
        process.kill()
        process.communicate()
    here = parts[0].stat().st_size
    result = run_tap(config, env=env)
    assert (result.exit_code, [run["resumed"] for run in result.runs]) == (0, [True]), result.stderr
    *_, last = sandbox.get("requests", service="gooee_files")
    assert (last["status"], last["headers"]["Range"]) == (206, f"bytes={here}-")
    (served,) = {one["sha256"] for one in sandbox.get("served", service="gooee")}
    assert result.runs[0]["sha256"] == served
    assert not list(tmp_path.rglob("*.part"))
