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
        """See whether the server is the right one, and lets us in."""

    def files(self, paths: Sequence[str]) -> list[RemoteFile]:
        """The files of these paths, which are relative to the base, in their order.

        Raises:
            Refused: The server is not the right one, or does not let us in.
            ExportFailed: A path leads out of the base, or the base is wrong.
            JobGone: A file is not there any more.
            Unreachable: The server does not answer; with `after` where it has no room for us now.
        """

    def close(self) -> None:
        """Leave the server."""


def file_store(provider: str, settings: FileSettings, network: Network | None = None) -> FileStore:
    """The server that `files_url` names."""
    store = S3Store if settings.files_url.startswith("s3:") else SftpStore
    return store(provider, settings, network or Network())
