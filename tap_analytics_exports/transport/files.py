"""Files that a provider leaves on another server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tap_analytics_exports.transport.download import RemoteFile
from tap_analytics_exports.transport.file_settings import FileSettings
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.s3 import S3Store
from tap_analytics_exports.transport.sftp import SftpStore


class FileStore(Protocol):
    """A server that has files."""

    def check(self) -> None:
        """See whether the server is the right one, lets us in, and has the base.

        Raises:
            FilesRefused: It is not, or does not.
            Unreachable: As for `files`.
        """

    def files(self, paths: Sequence[str]) -> list[RemoteFile]:
        """The files of these paths, which are relative to the base, in their order.

        Raises:
            FilesRefused: The server is not the right one, does not let us in, or has no such base.
            ExportFailed: A path leads out of the base.
            JobGone: A file is not there any more.
            Unreachable: The server does not answer; with `after` where it has no room for us now.
        """

    def close(self) -> None:
        """Leave the server."""


def file_store(provider: str, settings: FileSettings, network: Network | None = None) -> FileStore:
    """The server that `files_url` names."""
    store = S3Store if settings.files_url.startswith("s3:") else SftpStore
    return store(provider, settings, network or Network())
