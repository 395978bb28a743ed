"""Whom the tap connects to over HTTP, and whom it trusts."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from tap_analytics_exports.errors import ExportFailed, Interrupted, Refused
from tap_analytics_exports.transport.framing import TERMS, Answer

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Network:
    """What all connections of a run have in common.

    Attributes:
        ca_bundle: A PEM file of authorities that are trusted besides the usual ones.
        stop: Set when the run is asked to stop; then whoever waits ends with Interrupted.
    """

    ca_bundle: str | None = None
    stop: threading.Event | None = None

    def wait(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            Interrupted: The run was asked to stop.
        """
        if self.stop is None:
            time.sleep(seconds)
        elif self.stop.wait(seconds):
            raise Interrupted

    def session(self) -> requests.Session:
        """A session whose connections are held to the terms of each request, see `framing`."""
        session = requests.Session()
        adapter = _Adapter(self.ca_bundle)
        for scheme in ("http://", "https://"):
            session.mount(scheme, adapter)
        return session

    def verify(self, *, configured: bool | str | None) -> bool | str | None:
        """What requests is to verify certificates by, where its own variables gave `configured`."""
        if self.ca_bundle is not None:
            return True
        return (os.environ.get("SSL_CERT_FILE") or True) if configured is True else configured


def bundle_problem(path: str) -> str | None:
    """What is wrong with a `ca_bundle`; None: nothing."""
    try:
        _context(path)
    except OSError as error:  # ssl's errors are some
        return f"is no PEM file of certificates that can be read ({error.strerror or error})"
    return None


class Offline(Network):
    """Connects to nobody."""

    def session(self) -> requests.Session:
        """A session by which nothing can be sent."""
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Silent())
        return session


class _Silent(HTTPAdapter):
    def send(self, *request: Any, **how: Any) -> requests.Response:
        raise Refused("no vendor is asked for anything here")


class Guard:
    """Keeps whoever hands out links from leading the tap into a network that is not theirs.

    Args:
        base_url: The provider's, whose host is the user's own choice, wherever it is.
    """

    def __init__(self, base_url: str) -> None:
        self._host = _hostname(base_url)

    def admit(self, host: str, address: str) -> None:
        """Look at where a host is, once that is known.

        Raises:
            ExportFailed: It is at an inner address, and the provider itself is not.
        """
        if host == self._host:
            return
        kind = _kind(address)
        if kind is not None and kind not in self._own:
            raise ExportFailed(
                f"a link or redirect leads to {host}, which is at the {kind} address {address}; that is "
                "refused, as base_url is at none"
            )

    def admit_url(self, url: str) -> None:
        """Look at a URL whose host is an address, for behind a proxy nobody else does."""
        host = _hostname(url)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return
        self.admit(host, host)

    @cached_property
    def _own(self) -> set[str | None]:
        try:
            found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        except OSError:
            return set()
        return {_kind(str(each[4][0])) for each in found}


def _kind(address: str) -> str | None:
    """What makes an IP address one that only a neighbour may speak of; None: it is public."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = embedded or ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return "link-local"
    return None if ip.is_global else "private"


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _context(ca_bundle: str) -> ssl.SSLContext:
    """Trust in a file's authorities; requests adds the usual ones."""
    context = create_urllib3_context()
    context.load_verify_locations(Path(ca_bundle).expanduser())
    return context


def _admitted(connection: HTTPConnection, sock: socket.socket) -> socket.socket:
    """A socket to a host that may be asked; where a proxy is, that is the user's own choice."""
    if connection.proxy is None:
        try:
            TERMS.get().admit(connection.host, str(sock.getpeername()[0]))
        except BaseException:
            sock.close()
            raise
    return sock


class _Connection(HTTPConnection):
    response_class = Answer

    def _new_conn(self) -> socket.socket:
        return _admitted(self, super()._new_conn())


class _TlsConnection(HTTPSConnection):
    response_class = Answer

    def _new_conn(self) -> socket.socket:
        return _admitted(self, super()._new_conn())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}


class _Adapter(HTTPAdapter):
    """Makes connections of the kinds above, through proxies too."""

    def __init__(self, ca_bundle: str | None) -> None:
        self._trust = {"ssl_context": _context(ca_bundle)} if ca_bundle else {}
        super().__init__()

    def init_poolmanager(self, *how: Any, **named: Any) -> None:
        super().init_poolmanager(*how, **{**named, **self._trust})
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        if not proxy.lower().startswith("http"):
            raise ValueError("HTTP_PROXY and HTTPS_PROXY must be http or https URLs")
        manager = super().proxy_manager_for(proxy, **{**named, **self._trust})
        manager.pool_classes_by_scheme = _POOLS
        return manager
