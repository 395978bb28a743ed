"""A remote file becomes a local one that is known to be whole, before anyone reads its first row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tap_analytics_exports.errors import ExportFailed, Unreachable
from tap_analytics_exports.parse import prove

TRIES = 3


@dataclass(frozen=True, slots=True)
class Body:
    """A file on its way: its bytes as they are stored at the provider, any Content-Encoding removed.

    Attributes:
        chunks: The bytes; a stream that breaks off raises `Unreachable`.
        proof: What has shown that the file is whole, when the chunks end without an error; None: nothing.
    """

    chunks: Iterator[bytes]
    proof: str | None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a provider.

    Attributes:
        name: Its name for messages and records, without anything secret.
        open: Begins the transfer; may be called again, unless `once`.
        size: Bytes, where the provider says them.
        rows: Records, where the provider says them.
        once: The transfer is the job itself, so that another needs a new job.
    """

    name: str
    open: Callable[[], AbstractContextManager[Body]]
    size: int | None = None
    rows: int | None = None
    once: bool = False


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that has arrived whole.

    Attributes:
        path: Where it lies until its rows are written.
        name: As of its `RemoteFile`.
        size: Bytes, as stored at the provider.
        rows: As of its `RemoteFile`: what the parser has to find.
    """

    path: Path
    name: str
    size: int
    rows: int | None = None


def download(remote: RemoteFile, path: Path, *, allow_unverified: bool = False) -> LocalFile:
    """Bring a file here, prove that it is whole, and only then give it its name.

    Args:
        remote: The file.
        path: Its name here, in a private folder.
        allow_unverified: Accept a file whose end nothing proves.

    Raises:
        ExportFailed: The file is not whole, or nothing proves that it is; the message says which.
        NoData: As the provider's opening says.
    """
    for left in reversed(range(1 if remote.once else TRIES)):
        try:
            return _attempt(remote, path, allow_unverified=allow_unverified)
        except Unreachable as error:
            if not left:
                raise ExportFailed(f"{error}; its file did not arrive whole", retry=remote.once) from None
    raise AssertionError


def _attempt(remote: RemoteFile, path: Path, *, allow_unverified: bool) -> LocalFile:
    part = path.with_suffix(".part")
    size = 0
    try:
        with remote.open() as body, part.open("wb") as file:
            for chunk in body.chunks:
                size += file.write(chunk)
        if remote.size is not None and size != remote.size:
            raise Unreachable(f"{remote.name}: {size} bytes arrived where {remote.size} were announced")
        if not (
            body.proof
            or remote.size is not None
            or _proved(part)
            or remote.rows is not None
            or allow_unverified
        ):
            raise ExportFailed(
                f"{remote.name}: nothing proves that the file is whole (no length, chunk end, trailer or row "
                "count); set allow_unverified_downloads to accept such files"
            )
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return LocalFile(path, remote.name, size, remote.rows)


def _proved(part: Path) -> bool:
    try:
        return prove(part) is not None
    except ExportFailed as error:  # cut off on its way, for nothing else told where it ends
        raise Unreachable(str(error)) from None
