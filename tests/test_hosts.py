"""Where requests may lead, whom they trust, and what it is called when nobody answers."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests
from peers import CHUNKED, Peer, always, chunks, in_turn, response, self_signed, serving

from tap_analytics_exports.errors import Busy, ExportFailed, Interrupted, Refused, Unreachable
from tap_analytics_exports.transport import network
from tap_analytics_exports.transport.auth import FixedAuth, LoginAuth
from tap_analytics_exports.transport.http import Http
from tap_analytics_exports.transport.network import Guard, Network, bundle_problem
from tap_analytics_exports.transport.rate_limiter import RateLimiter

CSV = b"a,b\n1,2\n"
PUBLIC = "https://vendor.example"


@pytest.fixture
def serve() -> Iterator[Callable[..., Peer]]:
    with serving() as start:
        yield start


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """But for those of a test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def names(monkeypatch) -> dict[str, str]:
    """The addresses of names, as some name server has them today."""
    known: dict[str, str] = {}
    resolve = socket.getaddrinfo

    def resolved(host, *how, **more):
        return resolve(known.get(host, host), *how, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return known


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:100.64.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ],
)
def test_an_inner_address_is_refused_to_who_is_outside(names, address):
    names["vendor.example"] = "203.0.114.1"
    with pytest.raises(ExportFailed, match="that is refused"):
        Guard(PUBLIC).admit("elsewhere.example", address)


@pytest.mark.parametrize("address", ["203.0.114.9", "2606:4700::1111", "::ffff:203.0.114.9"])
def test_a_public_address_is_not(names, address):
    names["vendor.example"] = "203.0.114.1"
    Guard(PUBLIC).admit("elsewhere.example", address)


@pytest.mark.parametrize(
    ("base", "address", "admitted"),
    [
        ("http://10.0.0.1", "10.9.9.9", True),
        ("http://127.0.0.1:8080", "127.0.0.1", True),
        ("http://localhost", "127.0.0.1", True),
        ("http://10.0.0.1", "169.254.169.254", False),
        ("http://10.0.0.1", "::ffff:169.254.169.254", False),
        ("http://127.0.0.1", "169.254.169.254", False),
        ("http://169.254.1.1", "169.254.169.254", True),
        ("http://nobody.invalid", "127.0.0.1", False),
    ],
)
def test_a_neighbour_may_speak_of_neighbours(base, address, admitted):
    if admitted:
        Guard(base).admit("elsewhere.example", address)
    else:
        with pytest.raises(ExportFailed, match=address):
            Guard(base).admit("elsewhere.example", address)


def test_the_address_counts_that_is_connected_to_and_not_the_name(serve, names):
    names["files.example"] = "127.0.0.1"
    names["vendor.example"] = "203.0.114.1"
    peer = serve(always(response(200, CSV)))
    url = f"{peer.origin.replace('127.0.0.1', 'files.example')}/f"
    with pytest.raises(ExportFailed, match=r"files\.example, which is at the private address 127\.0\.0\.1"):
        Http("vendor", "http://vendor.example").ask("GET", url)
    assert not peer.seen


def test_a_redirect_leads_nowhere_inside_either(serve, names, monkeypatch):
    inner = serve(always(response(200, CSV)))
    own = serve(always(response(302, b"", f"Location: {inner.origin.replace('127.0.0.1', 'x.example')}/f")))
    names |= {"x.example": "127.0.0.1", "vendor.example": "127.0.0.1"}
    # The provider itself is not resolved to an inner address, but where the redirect leads is.
    monkeypatch.setattr(Guard, "_own", frozenset())
    with pytest.raises(ExportFailed, match="that is refused"):
        Http("vendor", own.origin).ask("GET", "f")
    assert (len(own.seen), len(inner.seen)) == (1, 0)


def test_behind_a_proxy_an_inner_address_is_refused_all_the_same(serve, names, monkeypatch):
    names["vendor.example"] = "203.0.114.1"
    proxy = serve(always(response(200, CSV)))
    monkeypatch.setenv("HTTP_PROXY", proxy.origin)
    client = Http("vendor", "http://vendor.example")
    assert client.ask("GET", "f").content == CSV  # the proxy's own address is the user's choice
    with pytest.raises(ExportFailed, match="that is refused"):
        client.ask("GET", "http://169.254.169.254/latest/meta-data")
    assert len(proxy.seen) == 1


# https stays https


def test_a_redirect_from_https_to_http_is_not_followed(serve, tmp_path):
    plain = serve(always(response(200, CSV)))
    own = serve(always(response(302, b"", f"Location: {plain.origin}/f?Signature=s")), self_signed(tmp_path))
    client = Http("vendor", own.origin, network=Network(str(tmp_path / "pem")))
    with pytest.raises(ExportFailed, match="from https to http") as failure:
        client.ask("GET", "f")
    assert "Signature" not in str(failure.value)
    with pytest.raises(ExportFailed, match="from https to http"):
        client.ask("GET", f"{plain.origin}/f")
    assert not plain.seen


def test_a_redirect_in_raw_utf_8_is_quoted_byte_for_byte(serve):
    location = "Location: /f/zu groß?x=€%20".encode()
    first = response(302).replace(b"Connection", location + b"\r\nConnection", 1)
    peer = serve(in_turn(first, response(200, CSV)))
    assert Http("vendor", peer.origin).ask("GET", "x").content == CSV
    assert peer.seen[1].target == "/f/zu%20gro%C3%9F?x=%E2%82%AC%20"


# Trust


@pytest.fixture
def secure(serve, tmp_path) -> Peer:
    return serve(always(response(200, CSV)), self_signed(tmp_path))


def test_a_further_authority_is_trusted(secure, tmp_path):
    client = Http("vendor", secure.origin, network=Network(str(tmp_path / "pem")))
    assert client.ask("GET", "x").content == CSV


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_the_usual_variables_count_where_nothing_is_set(secure, tmp_path, monkeypatch, variable):
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "pem"))
    assert Http("vendor", secure.origin).ask("GET", "x").content == CSV
    # Of which the setting takes the place.
    key = tmp_path / "other"
    key.mkdir()
    self_signed(key)
    with pytest.raises(Unreachable, match="not trusted"):
        Http("vendor", secure.origin, network=Network(str(key / "pem"))).ask("GET", "x")


def test_a_variable_that_names_no_file_is_named(secure, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/pem")
    with pytest.raises(Unreachable, match="check SSL_CERT_FILE and REQUESTS_CA_BUNDLE") as failure:
        Http("vendor", secure.origin).ask("GET", "x")
    assert not failure.value.sent


def test_the_usual_authorities_stay_trusted_beside_it(tmp_path):
    self_signed(tmp_path)
    context = network._context(str(tmp_path / "pem"))
    adapter = Http("vendor", PUBLIC, network=Network(str(tmp_path / "pem")))._session.get_adapter(PUBLIC)
    pool = adapter.poolmanager.connection_from_url(PUBLIC)
    adapter.cert_verify(pool, PUBLIC, True, None)
    assert pool.ca_certs == requests.certs.where()
    assert len(context.get_ca_certs()) <= 1


def test_what_is_no_bundle_is_named(tmp_path):
    self_signed(tmp_path)
    assert bundle_problem(str(tmp_path / "pem")) is None
    (tmp_path / "empty").write_text("")
    for name in ("empty", "absent"):
        assert "is no PEM file" in (bundle_problem(str(tmp_path / name)) or "")


@pytest.mark.parametrize("usual", [None, requests.certs.where()])
def test_a_certificate_that_is_not_trusted_is_named_with_the_setting_at_once(secure, monkeypatch, usual):
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    if usual is not None:
        monkeypatch.setenv("SSL_CERT_FILE", usual)
    with pytest.raises(Unreachable, match=r"not trusted .*set ca_bundle") as failure:
        Http("vendor", secure.origin).ask("GET", "x")
    assert not failure.value.sent
    assert not secure.seen


# When nobody answers


def test_a_refused_connection_is_called_so(serve):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match="connection refused; check base_url") as failure:
        Http("vendor", f"http://127.0.0.1:{port}").ask("GET", "x")
    assert not failure.value.sent


def test_an_unknown_host_is_called_so(monkeypatch):
    monkeypatch.setattr(Network, "wait", lambda self, seconds: None)
    with pytest.raises(Unreachable, match="name is not known") as failure:
        Http("vendor", "http://nobody.invalid").ask("GET", "x")
    assert not failure.value.sent


@pytest.mark.parametrize("url", ["http://vendor.example", "https://vendor.example"])
def test_a_proxy_that_refuses_is_called_so(serve, monkeypatch, url):
    proxy = serve(always(response(407, b"no")))
    monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
    monkeypatch.setenv("HTTP_PROXY", proxy.origin)
    with pytest.raises(Unreachable, match=r"proxy refuses .*407.*HTTPS_PROXY") as failure:
        Http("vendor", url).ask("GET", "x")
    assert not failure.value.sent
    assert len(proxy.seen) == 1


def test_a_proxy_may_take_its_time_to_reach_the_host(secure, tmp_path, monkeypatch):
    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def tunnel(proxy: socket.socket) -> None:
        with proxy.accept()[0] as client:
            assert client.recv(65536).startswith(b"CONNECT ")
            client.sendall(b"HTTP/1.1 200 Fine\r\n\r\n")
            time.sleep(1.5)
            with socket.create_connection(("127.0.0.1", int(secure.origin.rpartition(":")[2]))) as host:
                threading.Thread(target=carry, args=[client, host], daemon=True).start()
                carry(host, client)

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        thread = threading.Thread(target=tunnel, args=[proxy])
        thread.start()
        client = Http("vendor", secure.origin, network=Network(str(tmp_path / "pem")))
        assert client.ask("GET", "x").content == CSV
        thread.join()


def test_a_proxy_that_is_not_there_is_called_so(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"proxy refuses .*HTTP_PROXY"):
        Http("vendor", "http://vendor.example").ask("GET", "x")


def test_framing_is_held_to_behind_a_proxy_too(serve, monkeypatch):
    proxy = serve(always(response(200, chunks(CSV), CHUNKED)))
    monkeypatch.setenv("HTTP_PROXY", proxy.origin)
    monkeypatch.setattr(Network, "wait", lambda self, seconds: None)
    with pytest.raises(ExportFailed, match="malformed"):
        Http("vendor", "http://vendor.example").ask("GET", "x")


# Tokens that end


class Renewing(LoginAuth):
    """Gets new credentials where the old ones are refused, and not when they are next asked for."""

    def renew(self, refused: requests.Response) -> bool:
        super().renew(refused)
        self.headers()
        return True


@pytest.mark.parametrize("kind", [LoginAuth, Renewing])
def test_a_trigger_that_was_refused_is_not_in_doubt_when_the_login_fails(serve, kind):
    logins = iter(["first"])

    def log_in() -> str:
        for token in logins:
            return token
        raise Unreachable("the login host is away", after=99)

    peer = serve(always(response(401)))
    with pytest.raises(Unreachable, match="login host") as failure:
        Http("vendor", peer.origin, auth=kind("JWT", log_in)).trigger("POST", "x")
    assert not isinstance(failure.value, ExportFailed)
    assert not failure.value.sent
    assert len(peer.seen) == 1


def test_a_trigger_that_was_refused_and_then_is_busy_was_not_taken_on(serve):
    peer = serve(in_turn(response(401), response(503)))
    with pytest.raises(Busy):
        Http("vendor", peer.origin, auth=LoginAuth("JWT", lambda: "token-of-a-login")).trigger("POST", "x")


@pytest.mark.parametrize("status", [401, 503])
def test_streamed_answers_that_are_no_file_are_closed(serve, status):
    peer = serve(always(response(status, b"x" * 100_000)))
    auth = FixedAuth("Token t")
    client = Http("vendor", peer.origin, auth=auth, passing=frozenset())
    if status == 401:
        with pytest.raises(Refused):
            client.ask("GET", "x", stream=True)
    else:
        assert client.ask("GET", "x", stream=True).raw.closed


# Stops


def test_waiting_ends_when_the_run_is_to_stop(serve):
    stop = threading.Event()
    peer = serve(always(response(503, b"", "Retry-After: 20")))
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted):
        Http("vendor", peer.origin, network=Network(stop=stop)).ask("GET", "x")


def test_waiting_for_a_turn_ends_too(serve):
    stop = threading.Event()
    limiter = RateLimiter(1)
    client = Http(
        "vendor", serve(always(response())).origin, rate_limiter=limiter, network=Network(stop=stop)
    )
    client.ask("GET", "x")
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted):
        client.ask("GET", "x")


def test_waiting_for_an_answer_ends_too(serve):
    stop = threading.Event()
    peer = serve(lambda seen: iter(lambda: (stop.wait(5), b"")[1], None))
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted):
        Http("vendor", peer.origin, network=Network(stop=stop)).ask("GET", "x")
