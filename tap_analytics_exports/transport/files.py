"""Files that a provider leaves on another server: by SFTP, with a pinned host key, or in an S3 bucket."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from tap_analytics_exports.errors import CredentialsRefused, ExportFailed, JobGone, Unreachable
from tap_analytics_exports.settings import ProviderSettings, Secret, about
from tap_analytics_exports.transport.download import Body, RemoteFile
from tap_analytics_exports.transport.http import CONNECT_SECONDS, SILENCE_SECONDS

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 18
_SPAN = 1 << 15
"""What one SFTP request reads; servers give no more at once."""

_AHEAD = 1 << 21
"""How much is asked for at once, so that a long way does not make a slow transfer."""

_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""The names under which a type of key is agreed on, where they differ."""


class FileSettings(ProviderSettings, kw_only=True, forbid_unknown_fields=True):
    """Where a provider's files are, and who may fetch them."""

    files_url: Annotated[
        str, about("Files", "Where results lie: sftp://user@host:port/base or s3://bucket/base")
    ]
    sftp_password: Annotated[Secret | None, about("SFTP password", "Instead of a private key")] = None
    sftp_private_key: Annotated[
        Secret | None, about("SFTP private key", "Text of a PEM or OpenSSH file, without a passphrase")
    ] = None
    sftp_private_key_file: Annotated[
        str | None, about("SFTP private key file", "Path of such a file, instead of its text")
    ] = None
    sftp_host_key: Annotated[
        str | None,
        about("SFTP host key", "The server's: type and key, as in a line of known_hosts; others are refused"),
    ] = None
    sftp_known_hosts: Annotated[
        str | None,
        about("SFTP known hosts", "A known_hosts file that has the server's key, instead of the key"),
    ] = None

    @property
    def private_key(self) -> str | None:
        """The text of the configured private key.

        Raises:
            OSError: Its file can't be read.
        """
        if self.sftp_private_key or not self.sftp_private_key_file:
            return self.sftp_private_key
        return Path(self.sftp_private_key_file).expanduser().read_text()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What can't work, seen before a provider is asked for anything."""
        try:
            parts = urlsplit(self.files_url)
            named = parts.port != 0 and bool(parts.hostname)
        except ValueError:
            named = False
        if not named or parts.scheme not in ("sftp", "s3"):
            yield "files_url", "must be sftp://user@host:port/base or s3://bucket/base"
        elif parts.scheme == "s3":
            if importlib.util.find_spec("boto3") is None:
                yield "files_url", "an s3:// address needs pip install 'tap-analytics-exports[s3]'"
        else:
            if not parts.username or parts.password is not None:
                yield "files_url", "must name the user and no password: sftp://user@host:port/base"
            yield from self._sftp_problems()

    def _sftp_problems(self) -> Iterator[tuple[str, str]]:
        if not (self.sftp_password or self.sftp_private_key or self.sftp_private_key_file):
            yield "sftp_password", "is required, or else sftp_private_key or sftp_private_key_file"
        try:
            if text := self.private_key:
                _private_key(text)
        except (OSError, ValueError):
            name = "sftp_private_key" if self.sftp_private_key else "sftp_private_key_file"
            yield name, "is no private key that can be read; it must have no passphrase"
        if self.sftp_known_hosts and not Path(self.sftp_known_hosts).expanduser().is_file():
            yield "sftp_known_hosts", "is not a file"
        if self.sftp_host_key and not _HostKey.parse(self.sftp_host_key):
            yield "sftp_host_key", "must be type and key, such as: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI..."


class FileStore(Protocol):
    """A server that has files."""

    def check(self) -> None:
        """See whether the server is the right one, and lets us in."""

    def files(self, paths: Sequence[str]) -> list[RemoteFile]:
        """The files of these paths, which are relative to the base, in their order.

        Raises:
            CredentialsRefused: The server is not the right one, or does not let us in.
            ExportFailed: A path leads out of the base, or the base is wrong.
            JobGone: A file is not there any more.
            Unreachable: The server does not answer.
        """

    def close(self) -> None:
        """Leave the server."""


def file_store(provider: str, settings: FileSettings) -> FileStore:
    """The server that `files_url` names."""
    if settings.files_url.startswith("s3:"):
        return _S3Store(provider, settings)
    return _SftpStore(provider, settings)


class _SftpStore:
    """One SSH connection that all threads share, each transfer in a channel of its own."""

    def __init__(self, provider: str, settings: FileSettings) -> None:
        parts = urlsplit(settings.files_url)
        self._provider = provider
        self._settings = settings
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
        """The files, with their sizes."""
        with self._channel() as sftp, self._troubles():
            return [self._file(sftp, _inside(self, path)) for path in paths]

    def close(self) -> None:
        """End the connection; whoever needs one makes another."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()

    def _file(self, sftp: paramiko.SFTPClient, path: str) -> RemoteFile:
        try:
            size = sftp.stat(self._base + path).st_size
        except FileNotFoundError:
            self._check_base(sftp)
            raise
        if size is None:
            raise ExportFailed(f"{self}: the server does not say how large {path} is")
        return RemoteFile(
            path.rpartition("/")[2], open=lambda: self._open(self._base + path, size), size=size
        )

    def _check_base(self, sftp: paramiko.SFTPClient) -> None:
        try:
            sftp.stat(self._base or ".")
        except FileNotFoundError:
            raise ExportFailed(f"{self}: there is no folder {self._base}; check files_url") from None

    @contextmanager
    def _open(self, path: str, size: int) -> Iterator[Body]:
        with self._channel() as sftp:
            with self._troubles():
                file = sftp.open(path, "rb")
            with file:
                yield Body(self._read(file, size), proof=None)

    def _read(self, file: paramiko.SFTPFile, size: int) -> Iterator[bytes]:
        with self._troubles():
            for start in range(0, size, _AHEAD):
                end = min(start + _AHEAD, size)
                yield from file.readv([(at, min(_SPAN, end - at)) for at in range(start, end, _SPAN)])

    @contextmanager
    def _channel(self) -> Iterator[paramiko.SFTPClient]:
        """A channel of its own on the connection, which is broken when nothing arrives for too long."""
        import paramiko

        with self._troubles():
            with self._lock:
                if self._transport is None or not self._transport.is_active():
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
    def _troubles(self) -> Iterator[None]:
        """Say in the tap's words what goes wrong."""
        import paramiko

        try:
            yield
        except paramiko.AuthenticationException as error:
            raise CredentialsRefused(
                f"{self}: {self._user} is not let in ({error}); check files_url, sftp_password and the key"
            ) from None
        except FileNotFoundError as error:
            raise JobGone(f"{self}: a file is not there any more: {error}") from None
        except PermissionError as error:
            raise ExportFailed(f"{self}: {error}; check what {self._user} may read") from None
        except (paramiko.SSHException, EOFError, TimeoutError) as error:
            self.close()  # as nobody knows what state it is in
            raise Unreachable(f"{self}: {error or type(error).__name__}") from None
        except OSError as error:
            raise Unreachable(f"{self}: {error}") from None

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

    def _pins(self) -> list[_HostKey]:
        """The keys that the server may have."""
        import paramiko

        settings = self._settings
        pins = [pin] if (pin := _HostKey.parse(settings.sftp_host_key or "")) else []
        if settings.sftp_known_hosts:
            known = paramiko.HostKeys()
            try:
                known.load(str(Path(settings.sftp_known_hosts).expanduser()))
            except (OSError, ValueError, paramiko.hostkeys.InvalidHostKey) as error:
                raise CredentialsRefused(f"{self}: sftp_known_hosts can't be read: {error}") from None
            for name in (self._host, f"[{self._host}]:{self._port}"):
                pins += [
                    _HostKey(key.get_name(), key.asbytes()) for key in (known.lookup(name) or {}).values()
                ]
        return pins

    def _check_host_key(self, key: paramiko.PKey, pins: Sequence[_HostKey]) -> None:
        shown = _HostKey(key.get_name(), key.asbytes())
        if not pins:
            raise CredentialsRefused(
                f"{self}: the host key is not configured, so the server is not trusted. It has the key "
                f"{shown.fingerprint}; if that is the right one, set sftp_host_key to: {shown}"
            )
        if shown not in pins:
            raise CredentialsRefused(
                f"{self}: the server has the key {shown.fingerprint} and not the configured one, "
                f"{' or '.join(pin.fingerprint for pin in pins)}; either it has a new one, or somebody "
                "stands between. Ask whoever runs it before changing sftp_host_key or sftp_known_hosts"
            )

    def _log_in(self, transport: paramiko.Transport) -> None:
        key, password = self._settings.private_key, self._settings.sftp_password
        further = transport.auth_publickey(self._user, _private_key(key)) if key else ["password"]
        if further and password:  # alone, or as a second step
            transport.auth_password(self._user, password)
        if not transport.is_authenticated():
            raise CredentialsRefused(f"{self}: besides what is configured, the server asks for {further}")


class _S3Store:
    """A bucket, reached with the usual AWS environment."""

    def __init__(self, provider: str, settings: FileSettings) -> None:
        parts = urlsplit(settings.files_url)
        self._provider = provider
        self._bucket = parts.netloc
        base = parts.path.strip("/")
        self._base = f"{base}/" if base else ""
        self._lock = threading.Lock()
        self._client: Any = None

    def __str__(self) -> str:
        """For messages."""
        return f"{self._provider}: s3://{self._bucket}"

    def check(self) -> None:
        """List a file, as that tells most of what may be wrong; not being allowed to is no mistake."""
        with self._troubles(allowed=("AccessDenied",)):
            self._s3().list_objects_v2(Bucket=self._bucket, MaxKeys=1)

    def files(self, paths: Sequence[str]) -> list[RemoteFile]:
        """The files, with their sizes."""
        return [self._file(self._base + _inside(self, path)) for path in paths]

    def close(self) -> None:
        """There is no session to end."""

    def _file(self, key: str) -> RemoteFile:
        try:
            with self._troubles():
                size = self._s3().head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        except JobGone:
            self._check_base()
            raise
        return RemoteFile(key.rpartition("/")[2], open=lambda: self._open(key), size=size)

    def _check_base(self) -> None:
        with self._troubles(allowed=("AccessDenied",)):
            listed = self._s3().list_objects_v2(Bucket=self._bucket, Prefix=self._base, MaxKeys=1)
            if not listed["KeyCount"]:
                raise ExportFailed(f"{self}: there is nothing below {self._base}; check files_url")

    @contextmanager
    def _open(self, key: str) -> Iterator[Body]:
        import smart_open

        with self._troubles():
            file = smart_open.open(
                f"s3://{self._bucket}/{key}",
                "rb",
                compression="disable",
                transport_params={"client": self._s3()},
            )
        with file:
            yield Body(self._read(file), proof=None)

    def _read(self, file: BinaryIO) -> Iterator[bytes]:
        with self._troubles():
            while chunk := file.read(_CHUNK):
                yield chunk

    def _s3(self) -> Any:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        with self._lock:
            if self._client is None:
                config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=SILENCE_SECONDS)
                self._client = boto3.client("s3", config=config)
            return self._client

    @contextmanager
    def _troubles(self, allowed: Sequence[str] = ()) -> Iterator[None]:
        """Say in the tap's words what goes wrong."""
        from botocore import exceptions  # type: ignore[import-untyped]

        try:
            yield
        except exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in allowed:
                return
            if code in ("404", "NoSuchKey"):
                raise JobGone(f"{self}: a file is not there any more: {error}") from None
            if code == "NoSuchBucket":
                raise ExportFailed(f"{self}: {error}; check files_url") from None
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 401, 403):
                raise CredentialsRefused(
                    f"{self}: {error}; check the AWS credentials and what they allow"
                ) from None
            raise Unreachable(f"{self}: {error}") from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise CredentialsRefused(f"{self}: {error}; set the usual AWS environment variables") from None
        except (exceptions.BotoCoreError, OSError) as error:
            raise Unreachable(f"{self}: {error}") from None


@dataclass(frozen=True)
class _HostKey:
    """The public key of an SSH server."""

    kind: str
    blob: bytes

    def __str__(self) -> str:
        """As in a line of known_hosts."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @classmethod
    def parse(cls, text: str) -> _HostKey | None:
        """The key in a line of known_hosts, with or without names before and words after it."""
        for kind, key in pairwise(text.split()):
            with suppress(ValueError):  # no base64, or no ASCII
                blob = base64.b64decode(key)
                if blob[4:].startswith(kind.encode()):  # it begins with its type, after the length of that
                    return cls(kind, blob)
        return None

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen shows it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"{self.kind} SHA256:{digest}"


def _private_key(text: str) -> paramiko.PKey:
    """A private key without a passphrase, of any format and type that is in use.

    Raises:
        ValueError: It is something else.
    """
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as keys

    # In an environment variable, line breaks are often written so.
    data = text.replace("\\n", "\n").strip().encode() + b"\n"
    try:
        load = keys.load_ssh_private_key if b"OPENSSH PRIVATE" in data else keys.load_pem_private_key
        key = load(data, None)
        form = keys.PrivateFormat.OpenSSH
        openssh = key.private_bytes(keys.Encoding.PEM, form, keys.NoEncryption()).decode()
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with suppress(paramiko.SSHException):
            return kind.from_private_key(io.StringIO(openssh))
    raise ValueError("its type is not in use any more")


def _inside(store: FileStore, path: str) -> str:
    """A path below the base, as the provider gave it.

    Raises:
        ExportFailed: It leads elsewhere.
    """
    if path.startswith("/") or "\\" in path or ".." in path.split("/") or not path.isprintable():
        raise ExportFailed(
            f"{store}: the path {path!r} leads out of the folder of files_url, so it is not fetched"
        )
    return path
