"""A remote file becomes a local one that is known to be whole, before anyone reads its first row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tap_analytics_exports.ahead import ahead
from tap_analytics_exports.errors import Busy, ExportFailed, Unreachable
from tap_analytics_exports.parse import prove

TRIES = 3

# Of larger writes, Linux keeps larger pieces of memory; where a virtual machine has to ask its host for them,
# these took up to twenty times as long.
_WRITE = 32 << 10


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
        sha256: Of its bytes, if they have just arrived.
    """

    path: Path
    name: str
    size: int
    rows: int | None = None
    sha256: str | None = None

    def to_entry(self) -> dict[str, Any]:
        """What the ledger says of it."""
        return {"file": self.path.name, "name": self.name, "size": self.size, "rows": self.rows}

    @classmethod
    def from_entry(cls, folder: Path, entry: Mapping[str, Any]) -> LocalFile:
        """The file, in its folder, that a ledger speaks of."""
        return cls(folder / entry["file"], entry["name"], entry["size"], entry["rows"])


def download(remote: RemoteFile, path: Path, *, allow_unverified: bool = False) -> LocalFile:
    """Bring a file here, prove that it is whole, and only then give it its name.

    Args:
        remote: The file.
        path: Its name here, in a private folder.
        allow_unverified: Accept a file whose end nothing proves.

    Raises:
        Busy: The provider says when to come back.
        ExportFailed: The file is not whole, or nothing proves that it is; the message says which.
        NoData: As the provider's opening says.
    """
    for left in reversed(range(1 if remote.once else TRIES)):
        try:
            return _attempt(remote, path, allow_unverified=allow_unverified)
        except Unreachable as error:
            if error.after is not None:
                raise Busy(str(error), error.after) from None
            if not left:
                raise ExportFailed(f"{error}; its file did not arrive whole", retry=remote.once) from None
    raise AssertionError


def _attempt(remote: RemoteFile, path: Path, *, allow_unverified: bool) -> LocalFile:
    part = path.with_suffix(".part")
    size = 0
    digest = hashlib.sha256()
    try:
        with remote.open() as body, part.open("wb") as file, _arriving(body, digest.update) as chunks:
            for chunk in chunks:
                for start in range(0, len(chunk), _WRITE):
                    size += file.write(memoryview(chunk)[start : start + _WRITE])
        if remote.size is not None and size != remote.size:
            raise Unreachable(f"{remote.name}: {size} bytes arrived where {remote.size} were announced")
        announced = body.proof or remote.size is not None
        try:
            # A file may have been cut before it was sent; one that can show its end is made to.
            own = prove(part)
        except ExportFailed as error:
            if announced:
                raise ExportFailed(f"{remote.name}: {error}") from None
            raise Unreachable(f"{remote.name}: {error}") from None  # cut off on its way, more likely
        if not (announced or own or remote.rows is not None or allow_unverified):
            raise ExportFailed(
                f"{remote.name}: nothing proves that the file is whole (no length, chunk end, trailer or row "
                "count); set allow_unverified_downloads to accept such files"
            )
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return LocalFile(path, remote.name, size, remote.rows, digest.hexdigest())


def _arriving(body: Body, see: Callable[[bytes], None]) -> closing[Generator[bytes]]:
    """The bytes; while some are written, the next ones are shown to `see`, and those behind them arrive."""

    def seen() -> Generator[bytes]:
        with closing(ahead((chunk for chunk in body.chunks), "downloads")) as chunks:
            for chunk in chunks:
                see(chunk)
                yield chunk

    return closing(ahead(seen(), "digests"))
