"""Files on an SFTP server, whose host key is pinned."""

from __future__ import annotations

import logging
import socket
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tap_analytics_exports.errors import ExportFailed, FilesRefused, JobGone, Unreachable
from tap_analytics_exports.transport.download import Body, RemoteFile, Wanted
from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.http import CONNECT_SECONDS, SILENCE_SECONDS
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.ssh_keys import HostKey, private_key

if TYPE_CHECKING:
    import paramiko

_SPAN = 1 << 15
"""What one SFTP request reads; servers give no more at once."""

_AHEAD = 1 << 21
"""How much is asked for at once, so that a long way does not make a slow transfer."""

_PAUSE = 5.0
"""Seconds after which a server that has no room for us, or a file that still grows, is looked at again."""

_FRESH = 3.0
"""A file written to less than so many seconds ago may still be written to."""

_WATCH = 1.0
"""For how many seconds such a file is watched."""

_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""The names under which a type of key is agreed on, where they differ."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file as it was when it was first seen, `at` some time of `time.monotonic`."""

    path: str
    size: int | None
    modified: int | None
    at: float

    def settled(self, size: int, modified: int | None) -> bool:
        """Whether nobody writes to it any more; who does it slowly has done so just now."""
        same = (size, modified) == (self.size, self.modified) and time.monotonic() - self.at >= _WATCH
        return same or modified is None or abs(time.time() - modified) >= _FRESH


class SftpStore:
    """One SSH connection that all threads share, each transfer in a channel of its own."""

    def __init__(self, provider: str, settings: FileSettings, network: Network) -> None:
        parts = urlsplit(settings.files_url)
        self._provider = provider
        self._settings = settings
        self._network = network
        self._host = parts.hostname or ""
        self._port = parts.port or 22
        self._user = unquote(parts.username or "")
        self._base = unquote(parts.path).rstrip("/") + "/" if parts.path else ""
        self._lock = threading.Lock()
        self._transport: paramiko.Transport | None = None

    def __str__(self) -> str:
        """For messages."""
        return f"{self._provider}: sftp://{self._host}:{self._port}"

    def check(self) -> None:
        """Log in, and see that the base is there."""
        with self._channel() as sftp, self._troubles():
            self._check_base(sftp)

    def files(self, paths: Sequence[str]) -> list[RemoteFile]:
        """The files, each at its path on the server."""
        found = []
        with self._channel() as sftp:
            for path in paths:
                with self._troubles(path):
                    found.append(self._file(sftp, self._settings.below(path)))
        return found

    def close(self) -> None:
        """End the connection; whoever needs one makes another."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()

    def _file(self, sftp: paramiko.SFTPClient, path: str) -> RemoteFile:
        try:
            found, attributes = self._resolve(sftp, path)
        except FileNotFoundError:
            self._check_base(sftp)
            raise
        listed = _Listed(found, attributes.st_size, attributes.st_mtime, time.monotonic())
        return RemoteFile(path.rpartition("/")[2], partial(self._open, listed))

    def _resolve(self, sftp: paramiko.SFTPClient, path: str) -> tuple[str, paramiko.SFTPAttributes]:
        """Where a file is once all links are followed, of which none may lead out of the base."""
        base = (sftp.normalize(self._base or ".")).rstrip("/")
        found = sftp.normalize(self._base + path)
        if not found.startswith(f"{base}/"):
            raise ExportFailed(
                f"{self}: {path} is a link out of the folder of files_url, so it is not fetched"
            )
        at = base
        for name in found.removeprefix(f"{base}/").split("/"):
            at = f"{at}/{name}"
            attributes = sftp.lstat(at)
            if stat.S_ISLNK(attributes.st_mode or 0):
                raise ExportFailed(f"{self}: {path} is a link that the server does not follow")
        if not stat.S_ISREG(attributes.st_mode or stat.S_IFREG):
            raise ExportFailed(f"{self}: {path} is no file")
        return found, attributes

    def _check_base(self, sftp: paramiko.SFTPClient) -> None:
        try:
            sftp.stat(self._base or ".")
        except FileNotFoundError:
            raise FilesRefused(f"{self}: there is no folder {self._base}; check files_url") from None

    @contextmanager
    def _open(self, listed: _Listed, wanted: Wanted) -> Iterator[Body]:
        with self._channel() as sftp:
            with self._troubles(listed.path):
                file = sftp.open(listed.path, "rb")
            with file:
                with self._troubles():
                    size, modified = self._look(file)
                    if not listed.settled(size, modified):
                        self._network.wait(_WATCH)
                        self._still(file, size, modified)
                version = None if modified is None else f"{size} {modified}"
                offset = wanted.offset if version is not None and version == wanted.version else 0
                chunks = self._read(file, offset, size, modified)
                yield Body(chunks, proof=None, version=version, offset=offset, total=size)

    def _read(self, file: paramiko.SFTPFile, offset: int, size: int, modified: int | None) -> Iterator[bytes]:
        with self._troubles():
            for start in range(offset, size, _AHEAD):
                end = min(start + _AHEAD, size)
                yield from file.readv([(at, min(_SPAN, end - at)) for at in range(start, end, _SPAN)])
            self._still(file, size, modified)

    def _look(self, file: paramiko.SFTPFile) -> tuple[int, int | None]:
        """The size of an open file, and when it was last written to."""
        found = file.stat()
        if found.st_size is None:
            raise ExportFailed(f"{self}: the server does not say how large a file is")
        return found.st_size, found.st_mtime

    def _still(self, file: paramiko.SFTPFile, size: int, modified: int | None) -> None:
        """See that a file is as it was."""
        if self._look(file) != (size, modified):
            raise Unreachable(f"{self}: a file is still being written, and is waited for", _PAUSE)

    @contextmanager
    def _channel(self) -> Iterator[paramiko.SFTPClient]:
        """A channel of its own on the connection, which is broken when nothing arrives for too long."""
        import paramiko

        with self._troubles():
            with self._lock:
                if self._transport is None or not self._transport.is_active():
                    with self._no_room():
                        self._transport = self._connect()
                transport = self._transport
            sftp = paramiko.SFTPClient.from_transport(transport)
            if sftp is None:
                raise paramiko.SSHException("the server opens no channel")
        try:
            channel = sftp.get_channel()
            if channel is not None:
                channel.settimeout(SILENCE_SECONDS)
            yield sftp
        finally:
            with suppress(OSError, EOFError, paramiko.SSHException):
                sftp.close()

    @contextmanager
    def _troubles(self, path: str = "a file") -> Iterator[None]:
        """Say in the tap's words what goes wrong, with which file."""
        import paramiko

        try:
            yield
        except paramiko.AuthenticationException as error:
            raise FilesRefused(
                f"{self}: {self._user} is not let in ({error}); check the user in files_url, and "
                "sftp_password or sftp_private_key"
            ) from None
        except FileNotFoundError:
            raise JobGone(f"{self}: {path} is not there any more") from None
        except PermissionError:
            raise ExportFailed(f"{self}: {path} may not be read; check what {self._user} may read") from None
        except (paramiko.SSHException, EOFError, TimeoutError) as error:
            self.close()  # as nobody knows what state it is in
            raise Unreachable(f"{self}: {error or type(error).__name__}") from None
        except socket.gaierror:
            raise Unreachable(f"{self}: the host's name is not known; check files_url", sent=False) from None
        except ConnectionRefusedError:
            raise Unreachable(f"{self}: connection refused; check files_url", sent=False) from None
        except OSError as error:
            raise Unreachable(f"{self}: {error}") from None

    @contextmanager
    def _no_room(self) -> Iterator[None]:
        """Tell a server that hangs up before it says who it is: sshd does with too many (MaxStartups)."""
        import paramiko

        try:
            yield
        except (EOFError, ConnectionResetError, paramiko.SSHException) as error:
            said = isinstance(error, paramiko.SSHException) and "banner" not in str(error)
            if said:
                raise
            raise Unreachable(f"{self}: the server hangs up at once", _PAUSE, sent=False) from None

    def _connect(self) -> paramiko.Transport:
        """A connection to the right server, on which we are logged in."""
        import paramiko

        # Its threads log, with tracebacks, what is raised here anyway.
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
        transport = paramiko.Transport(socket.create_connection((self._host, self._port), CONNECT_SECONDS))
        try:
            transport.banner_timeout = transport.handshake_timeout = SILENCE_SECONDS
            transport.auth_timeout = transport.channel_timeout = SILENCE_SECONDS
            pins = self._pins()
            options = transport.get_security_options()
            # A server may have keys of several types: those that we know first.
            types = {name for pin in pins for name in _ALGORITHMS.get(pin.kind, (pin.kind,))}
            options.key_types = sorted(options.key_types, key=lambda name: name not in types)
            transport.start_client(timeout=SILENCE_SECONDS)
            self._check_host_key(transport.get_remote_server_key(), pins)
            self._log_in(transport)
        except BaseException:
            transport.close()
            raise
        return transport

    def _pins(self) -> list[HostKey]:
        """The keys that the server may have."""
        import paramiko

        settings = self._settings
        pins = [pin] if (pin := HostKey.parse(settings.sftp_host_key or "")) else []
        if settings.sftp_known_hosts:
            known = paramiko.HostKeys()
            try:
                known.load(str(Path(settings.sftp_known_hosts).expanduser()))
            except (OSError, ValueError, paramiko.hostkeys.InvalidHostKey) as error:
                raise FilesRefused(f"{self}: sftp_known_hosts can't be read: {error}") from None
            for name in (self._host, f"[{self._host}]:{self._port}"):
                pins += [
                    HostKey(key.get_name(), key.asbytes()) for key in (known.lookup(name) or {}).values()
                ]
        return pins

    def _check_host_key(self, key: paramiko.PKey, pins: Sequence[HostKey]) -> None:
        shown = HostKey(key.get_name(), key.asbytes())
        if not pins:
            raise FilesRefused(
                f"{self}: the host key is not configured, so the server is not trusted. It has the key "
                f"{shown.fingerprint}; if that is the right one, set sftp_host_key to: {shown}"
            )
        if shown not in pins:
            raise FilesRefused(
                f"{self}: the server has the key {shown.fingerprint} and not the configured one, "
                f"{' or '.join(pin.fingerprint for pin in pins)}; either it has a new one, or somebody "
                "stands between. Ask whoever runs it before changing sftp_host_key or sftp_known_hosts"
            )

    def _log_in(self, transport: paramiko.Transport) -> None:
        key, password = self._settings.private_key, self._settings.sftp_password
        further = transport.auth_publickey(self._user, private_key(key)) if key else ["password"]
        if further and password:  # alone, or as a second step
            transport.auth_password(self._user, password)
        if not transport.is_authenticated():
            raise FilesRefused(f"{self}: besides what is configured, the server asks for {further}")
