"""What can't be seen through the tap: which bytes go where and when, against servers of this file's own."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests
from peers import CHUNKED, GZIP, Peer, Seen, always, chunks, in_turn, response, self_signed, serving

from tap_analytics_exports.errors import (
    Ambiguous,
    Busy,
    ExportFailed,
    Refused,
    TapError,
    Unreachable,
)
from tap_analytics_exports.transport import http
from tap_analytics_exports.transport.answers import no_object
from tap_analytics_exports.transport.auth import FixedAuth, LoginAuth
from tap_analytics_exports.transport.download import Body, RemoteFile, download
from tap_analytics_exports.transport.failures import retry_after
from tap_analytics_exports.transport.http import Http
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.rate_limiter import RateLimiter

CSV = b"a,b\n1,2\n"


@pytest.fixture
def serve() -> Iterator[Callable[..., Peer]]:
    """Starts servers that end with the test."""
    with serving() as start:
        yield start


def fine(answer: requests.Response) -> None:
    assert answer.status_code == 200


def read(peer: Peer, **how: float) -> tuple[bytes, str | None]:
    with Http("vendor", peer.origin).body("GET", "file", check=fine, **how) as body:
        return b"".join(body.chunks), body.proof


# Who gets credentials


def test_a_redirect_to_another_origin_carries_no_credentials(serve):
    other = serve(always(response(200, CSV, "Set-Cookie: mine=1")))
    own = serve(
        always(response(302, b"", f"Location: {other.origin}/f?X-Sig=a%2Bb%0a", "Set-Cookie: session=secret"))
    )
    client = Http("vendor", own.origin, auth=FixedAuth.basic("me", "pass"))
    answer = client.ask(
        "GET", "file", headers={"X-Vendor-Token": "secret", "Range": "bytes=0-", "Cookie": "session=secret"}
    )
    assert answer.content == CSV
    assert own.seen[0].headers["Authorization"] == "Basic bWU6cGFzcw=="
    assert own.seen[0].headers["X-Vendor-Token"] == "secret"
    (there,) = other.seen
    assert set(there.headers.keys()) == {
        "Host",
        "User-Agent",
        "Accept-Encoding",
        "Accept",
        "Connection",
        "Range",
    }
    assert "secret" not in str(there.headers)


def test_a_redirect_back_home_carries_them_again(serve):
    home: list[str] = []
    other = serve(lambda seen: [response(307, b"", f"Location: {home[0]}/end")])

    def answer(seen: Seen) -> list[bytes]:
        if seen.target == "/end":
            return [response(200, CSV)]
        return [response(302, b"", f"Location: {other.origin}/")]

    own = serve(answer)
    home.append(own.origin)
    assert Http("vendor", own.origin, auth=FixedAuth("Token t")).ask("GET", "start").content == CSV
    assert [seen.headers["Authorization"] for seen in own.seen] == ["Token t"] * 2
    assert other.seen[0].headers["Authorization"] is None


def test_credentials_of_the_netrc_file_are_not_used(serve, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    peer = serve(always(response()))
    Http("vendor", peer.origin).ask("GET", "x")
    assert peer.seen[0].headers["Authorization"] is None


def test_redirects_that_go_round_end(serve):
    peer = serve(lambda seen: [response(302, b"", "Location: /again")])
    assert Http("vendor", peer.origin).ask("GET", "x").status_code == 302
    assert len(peer.seen) == 6


def test_a_redirect_of_a_post_is_not_followed(serve):
    peer = serve(always(response(301, b"", "Location: /elsewhere")))
    assert Http("vendor", peer.origin).trigger("POST", "x", json={}).status_code == 301
    assert len(peer.seen) == 1


def test_a_url_of_the_provider_goes_out_byte_for_byte(serve):
    peer = serve(always(response()))
    target = "/gdc/raw/1f?q=a%0Ab%2Bc%2F%3D&c=00'(x)~"
    Http("vendor", f"{peer.origin}/base").ask("GET", target)
    assert peer.seen[0].target == target


def test_a_login_is_shared_and_renewed_once_by_all_threads(serve):
    logins: list[str] = []

    def log_in() -> str:
        time.sleep(0.1)
        logins.append(f"t{len(logins)}")
        return logins[-1]

    def answer(seen: Seen) -> list[bytes]:
        return [response(401 if seen.headers["Authorization"] == "JWT t0" else 200)]

    peer = serve(answer)
    client = Http("vendor", peer.origin, auth=LoginAuth("JWT", log_in))
    together(8, lambda: client.ask("GET", "x"))
    assert logins == ["t0", "t1"]
    # How many came in time to be refused is up to the threads.
    assert [seen.headers["Authorization"] for seen in peer.seen].count("JWT t1") == 8


def test_a_login_that_is_refused_is_not_tried_again():
    tries = []

    def log_in() -> str:
        tries.append(1)
        raise Refused("no")

    client = Http("vendor", "http://127.0.0.1:1", auth=LoginAuth("JWT", log_in))
    for _ in range(2):
        with pytest.raises(Refused):
            client.ask("GET", "x")
    assert len(tries) == 1


def test_401_with_new_credentials_too_is_a_refusal(serve):
    peer = serve(always(response(401, b'{"detail": "no such token"}')))
    with pytest.raises(Refused, match=r"401.*no such token.*check the credentials"):
        Http("vendor", peer.origin, auth=LoginAuth("JWT", lambda: "token-of-a-login")).ask("GET", "x")
    assert len(peer.seen) == 2


@pytest.mark.parametrize("token", ["a-token\n", "a-token…"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token):
    with pytest.raises(Refused, match="no header can carry") as refusal:
        Http("vendor", "http://127.0.0.1:1", auth=FixedAuth(f"Token {token}")).ask("GET", "x")
    assert "a-token" not in str(refusal.value)


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:x/", "ftp://127.0.0.1/"])
def test_what_is_no_url_is_not_reachable(serve, url, monkeypatch):
    monkeypatch.setattr(Network, "wait", lambda self, seconds: None)
    peer = serve(always(response(302, b"", f"Location: {url}")))
    with pytest.raises(Unreachable, match="vendor: GET"):
        Http("vendor", peer.origin, auth=FixedAuth("Token t")).ask("GET", "x")


# What may be sent again


def test_asking_is_repeated_while_failures_pass(serve):
    peer = serve(in_turn(b"", response(503), response(200, CSV)))
    assert Http("vendor", peer.origin).ask("GET", "x").content == CSV
    assert len(peer.seen) == 3


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", response(500), response(504)])
def test_a_trigger_whose_answer_says_nothing_is_sent_once(serve, answer):
    peer = serve(always(answer))
    with pytest.raises(Ambiguous, match="whether a job was triggered is not known"):
        Http("vendor", peer.origin).trigger("POST", "x", json={})
    assert len(peer.seen) == 1


def test_a_trigger_that_was_not_sent_is_sent_again(serve):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = Http("vendor", f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable, match="connection refused") as failure:
        client.trigger("POST", "x", json={})
    assert not isinstance(failure.value, ExportFailed)


def test_a_trigger_is_not_in_doubt_when_the_login_before_it_fails(serve):
    peer = serve(always(response()))

    def log_in() -> str:
        raise Unreachable("the login host is away", after=99)

    with pytest.raises(Unreachable, match="login host"):
        Http("vendor", peer.origin, auth=LoginAuth("JWT", log_in)).trigger("POST", "x")
    assert not peer.seen


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_provider_says_when_to_come_back(serve, status):
    peer = serve(always(response(status, b"", "Retry-After: 7")))
    with pytest.raises(Busy) as busy:
        Http("vendor", peer.origin).trigger("POST", "x")
    assert busy.value.after == 7
    assert len(peer.seen) == 1


def test_an_untrusted_certificate_is_named_and_nothing_is_sent(serve, tmp_path):
    peer = serve(always(response()), self_signed(tmp_path))
    with pytest.raises(Unreachable, match="certificate is not trusted") as failure:
        Http("vendor", peer.origin).trigger("POST", "x")
    assert not isinstance(failure.value, ExportFailed)
    assert not peer.seen


# When


def test_retry_after_in_seconds_is_waited_for(serve):
    peer = serve(in_turn(response(429, b"", "Retry-After: 2"), response()))
    Http("vendor", peer.origin).ask("GET", "x")
    first, second = peer.seen
    assert 2 <= second.at - first.at < 4


def test_retry_after_may_have_a_fraction(serve):
    peer = serve(in_turn(response(429, b"", "Retry-After: 1.5"), response()))
    Http("vendor", peer.origin).ask("GET", "x")
    first, second = peer.seen
    assert 1.5 <= second.at - first.at < 2.5


def test_retry_after_as_a_date_is_waited_for(serve):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)  # cut to whole seconds
    peer = serve(in_turn(response(503, b"", f"Retry-After: {date}"), response()))
    Http("vendor", peer.origin).ask("GET", "x")
    first, second = peer.seen
    assert 1.9 <= second.at - first.at < 4


def test_a_long_retry_after_is_handed_on_at_once(serve):
    peer = serve(always(response(503, b"", "Retry-After: 3600")))
    with pytest.raises(Unreachable) as failure:
        Http("vendor", peer.origin).ask("GET", "x")
    assert failure.value.after == 3600
    assert len(peer.seen) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5),
        (" 0 ", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("3.5", 3.5),
        ("1e3", None),
        ("9" * 400, 86400),
        ("Wed, 21 Oct 9015 07:28:00 GMT", 86400),
    ],
)
def test_retry_after_is_read(text, seconds):
    answer = requests.Response()
    answer.headers["Retry-After"] = text
    assert retry_after(answer) == seconds


def test_the_pace_holds_in_every_span_over_all_threads(serve, monkeypatch):
    monkeypatch.setattr(RateLimiter, "_SPAN", 1.0)
    answered = iter([0.4, 0.0, 0.2] + [0.0] * 30)  # the way to the provider is not always as long

    arrivals: list[float] = []
    lock = threading.Lock()

    def answer(seen: Seen) -> list[bytes]:
        with lock:
            delay = next(answered)
        time.sleep(delay)
        arrivals.append(time.monotonic())
        return [response()]

    peer = serve(answer)
    rate_limiter = RateLimiter(4)
    clients = [
        Http("vendor", peer.origin, rate_limiter=rate_limiter),
        Http("vendor", peer.origin, rate_limiter=rate_limiter),
    ]
    together(14, lambda: clients[threading.get_ident() % 2].ask("GET", "x"))
    arrivals.sort()
    assert len(arrivals) == 14
    assert all(later - first >= 1.0 for first, later in zip(arrivals, arrivals[4:], strict=False))
    assert arrivals[-1] - arrivals[0] < 5


def test_the_pace_counts_only_the_provider_itself(serve, monkeypatch):
    monkeypatch.setattr(RateLimiter, "_SPAN", 30.0)
    other = serve(always(response(200, CSV)))
    own = serve(always(response(302, b"", f"Location: {other.origin}/f")))
    client = Http("vendor", own.origin, rate_limiter=RateLimiter(2))
    assert client.ask("GET", "x").content == client.ask("GET", "x").content == CSV


# Bodies that end too early

PACKED = gzip.compress(CSV * 1000)
TWO_MEMBERS = gzip.compress(CSV * 500) + gzip.compress(CSV * 500)


@pytest.mark.parametrize(
    ("answer", "content", "proof"),
    [
        (response(200, CSV), CSV, "length"),
        (response(200, b""), b"", "length"),
        (response(200, chunks(CSV, CSV), CHUNKED, length=False), CSV + CSV, "chunk end"),
        (response(200, PACKED, GZIP), CSV * 1000, "length"),
        (response(200, PACKED, GZIP, length=False), CSV * 1000, "gzip trailer"),
        (response(200, TWO_MEMBERS, GZIP, length=False), CSV * 1000, "gzip trailer"),
        (
            response(200, chunks(PACKED[:40], PACKED[40:]), CHUNKED, GZIP, length=False),
            CSV * 1000,
            "chunk end",
        ),
        (response(200, CSV, length=False), CSV, None),
    ],
)
def test_a_whole_body_arrives_with_its_proof(serve, answer, content, proof):
    assert read(serve(always(answer))) == (content, proof)


@pytest.mark.parametrize(
    "answer",
    [
        response(200, CSV)[:-1],
        response(200, chunks(CSV, end=False), CHUNKED, length=False),
        response(200, chunks(CSV, CSV), CHUNKED, length=False)[:-12],
        response(200, PACKED, GZIP)[:-1],
        response(200, PACKED[:-1], GZIP),
        response(200, PACKED[:-1], GZIP, length=False),
        response(200, chunks(PACKED[:-1]), CHUNKED, GZIP, length=False),
    ],
    ids=[
        "length",
        "no last chunk",
        "inside a chunk",
        "gzip, shorter than its length",
        "gzip, cut before it was sent",
        "gzip until the connection's end",
        "gzip, cut, in whole chunks",
    ],
)
def test_a_body_that_ends_early_is_no_file(serve, tmp_path, answer):
    peer = serve(always(answer))
    with pytest.raises(Unreachable, match="broke off"):
        read(peer)
    client = Http("vendor", peer.origin)
    remote = RemoteFile("f.csv", lambda wanted: client.body("GET", "file", wanted=wanted, check=fine))
    with pytest.raises(ExportFailed, match="did not arrive whole"):
        download(remote, tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_a_body_without_an_end_needs_the_users_consent(serve, tmp_path):
    client = Http("vendor", serve(always(response(200, CSV, length=False))).origin)
    remote = RemoteFile("f.csv", lambda wanted: client.body("GET", "file", wanted=wanted, check=fine))
    with pytest.raises(ExportFailed, match="allow_unverified_downloads"):
        download(remote, tmp_path / "f")
    assert download(remote, tmp_path / "f", allow_unverified=True).path.read_bytes() == CSV


def test_a_transfer_that_broke_off_is_begun_again(serve, tmp_path):
    whole = response(200, CSV)
    client = Http("vendor", serve(in_turn(whole[:-3], whole)).origin)
    remote = RemoteFile("f.csv", lambda wanted: client.body("GET", "file", wanted=wanted, check=fine))
    assert download(remote, tmp_path / "f").path.read_bytes() == CSV


def test_a_download_that_is_to_come_later_says_when(serve, tmp_path):
    client = Http("vendor", serve(always(response(503, b"", "Retry-After: 3600"))).origin)
    with pytest.raises(Busy) as busy:
        download(
            RemoteFile("f.csv", lambda wanted: client.body("GET", "f", wanted=wanted, check=fine)),
            tmp_path / "f",
        )
    assert busy.value.after == 3600


def test_a_little_gzip_does_not_become_a_large_piece(serve):
    bomb = gzip.compress(bytes(50_000_000))
    with Http("vendor", serve(always(response(200, bomb, GZIP))).origin).body("GET", "f", check=fine) as body:
        sizes = [len(piece) for piece in body.chunks]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 1 << 20


def test_a_silent_connection_is_broken_however_long_the_answer_may_take(serve, monkeypatch):
    monkeypatch.setattr(http, "SILENCE_SECONDS", 0.5)

    def answer(seen: Seen) -> Iterator[bytes]:
        time.sleep(1)  # computing
        yield response(200, CSV)[:-3]
        time.sleep(5)

    peer = serve(answer)
    started = time.monotonic()
    with (
        Http("vendor", peer.origin).body("POST", "f", answer_seconds=60, check=fine) as body,
        pytest.raises(Unreachable, match="broke off"),
    ):
        list(body.chunks)
    assert time.monotonic() - started < 3


def test_a_slow_connection_is_not_broken(serve, monkeypatch):
    monkeypatch.setattr(http, "SILENCE_SECONDS", 0.6)

    def answer(seen: Seen) -> Iterator[bytes]:
        whole = response(200, CSV)
        yield whole[: -len(CSV)]
        for byte in CSV:
            time.sleep(0.2)
            yield bytes([byte])

    assert read(serve(answer))[0] == CSV


def test_an_answer_that_does_not_begin_in_time_fails_the_export(serve):
    def answer(seen: Seen) -> Iterator[bytes]:
        time.sleep(5)
        yield response()

    peer = serve(answer)
    with (
        pytest.raises(ExportFailed, match="no answer in time, which was 1 seconds") as failure,
        Http("vendor", peer.origin).body("POST", "f", answer_seconds=1, check=fine),
    ):
        pass
    assert not failure.value.retry
    assert len(peer.seen) == 1


# Answers that are no file


def test_a_web_page_is_no_file(serve):
    with pytest.raises(Unreachable, match="web page"):
        read(serve(always(response(200, b"<html>", "Content-Type: text/html; charset=utf-8"))))


def test_a_json_object_in_place_of_the_file_is_what_went_wrong():
    body = Body(iter([b"", b" \n", b'{"status": "FAIL"}']), "length")
    with pytest.raises(ExportFailed, match="FAIL"):
        list(no_object(body).chunks)
    assert list(no_object(Body(iter([b"a\n", b"{}\n"]), "length")).chunks) == [b"a\n", b"{}\n"]


def test_an_unknown_encoding_is_no_file(serve):
    with pytest.raises(ExportFailed, match="Content-Encoding br"):
        read(serve(always(response(200, CSV, "Content-Encoding: br"))))


def test_a_message_has_the_words_of_the_provider_and_of_no_other_host(serve):
    other = serve(always(response(403, b"<Error><SignatureProvided>s3cr3t</SignatureProvided></Error>")))
    client = Http("vendor", serve(always(response(400, "limit: zu groß".encode()))).origin)
    assert "answered 400 limit: zu groß" in client.message(client.ask("GET", "x?key=s3cr3t"))
    words = client.message(client.ask("GET", f"{other.origin}/f?Signature=s3cr3t"))
    assert words.endswith("/f answered 403")


def together(count: int, what: Callable[[], object]) -> None:
    """Do something in several threads at once."""
    failures: list[TapError] = []

    def run() -> None:
        try:
            what()
        except TapError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
