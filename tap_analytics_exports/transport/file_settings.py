"""Where a provider leaves its files on another server, and who may fetch them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from tap_analytics_exports.errors import ExportFailed
from tap_analytics_exports.settings import ProviderSettings, Secret, about
from tap_analytics_exports.transport.ssh_keys import HostKey, private_key


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

    def below(self, path: str) -> str:
        """A path below the base, as the provider gave it.

        Raises:
            ExportFailed: It leads elsewhere.
        """
        if path.startswith("/") or "\\" in path or ".." in path.split("/") or not path.isprintable():
            raise ExportFailed(
                f"the path {path!r} leads out of the folder of files_url, so it is not fetched"
            )
        return path

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
                private_key(text)
        except (OSError, ValueError):
            name = "sftp_private_key" if self.sftp_private_key else "sftp_private_key_file"
            yield name, "is no private key that can be read; it must have no passphrase"
        if self.sftp_known_hosts and not Path(self.sftp_known_hosts).expanduser().is_file():
            yield "sftp_known_hosts", "is not a file; name one, such as ~/.ssh/known_hosts"
        if self.sftp_host_key and not HostKey.parse(self.sftp_host_key):
            yield "sftp_host_key", "must be type and key, such as: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI..."
