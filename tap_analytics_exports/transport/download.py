"""A remote file becomes a local one that is known to be whole, before anyone reads its first row."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tap_analytics_exports.ahead import ahead
from tap_analytics_exports.errors import Busy, ExportFailed, Interrupted, NoData, Unreachable
from tap_analytics_exports.parse import ends_with_line_break, prove
from tap_analytics_exports.parse.base import Bytes

TRIES = 3
"""Transfers in a row that bring nothing new."""

LARGEST_FILE = 64 << 30
"""Bytes; a file that is larger is rather one that never ends."""

# Of larger writes, Linux keeps larger pieces of memory; where a virtual machine has to ask its host for them,
# these took up to twenty times as long.
_WRITE = 32 << 10

_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a file is to be sent.

    Attributes:
        offset: How many of its bytes are here already.
        version: What these are of, as a `Body` said; None: nothing is here.
        deadline: When the transfer has to be over.
    """

    offset: int = 0
    version: str | None = None
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A file on its way: its bytes as they are stored at the provider, any Content-Encoding removed.

    Attributes:
        chunks: The bytes; a stream that breaks off raises `Unreachable`.
        proof: What has shown that the file is whole, when the chunks end without an error; None: nothing.
        version: What tells this version of the file from any other; None: a break means to begin anew.
        offset: Where the chunks begin: what was wanted if they are of the wanted version, else 0.
        total: Bytes of the whole file, where that is known.
        encoded: How many bytes have arrived, where they are not those of the chunks.
    """

    chunks: Iterator[bytes]
    proof: str | None
    version: str | None = None
    offset: int = 0
    total: int | None = None
    encoded: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a provider.

    Attributes:
        name: Its name for messages and records, without anything secret.
        open: Begins the transfer of what is wanted; may be called again, unless `once`.
        size: Bytes, where the provider says them.
        rows: Records, where the provider says them.
        once: The transfer is the job itself, so that another needs a new job.
        either_size: Nothing says whether `size` counts the bytes before or after compression with gzip.
    """

    name: str
    open: Callable[[Wanted], AbstractContextManager[Body]]
    size: int | None = None
    rows: int | None = None
    once: bool = False
    either_size: bool = False


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


def download(
    remote: RemoteFile,
    path: Path,
    *,
    allow_unverified: bool = False,
    encoding: str | None = None,
    deadline: datetime | None = None,
    limit: int = LARGEST_FILE,
    stop: threading.Event | None = None,
) -> LocalFile:
    """Bring a file here, prove that it is whole, and only then give it its name.

    What has arrived of it stays beside it until then, as `.part`, and the next transfer goes on behind that,
    in a later run too. So tries count only while they bring nothing new.

    Args:
        remote: The file.
        path: Its name here, in a private folder, whose owner removes what is left of a file nobody wants.
        allow_unverified: Accept a file whose end nothing proves.
        encoding: Of text without a byte order mark; None: UTF-8.
        deadline: When it has to be here.
        limit: The most bytes that it may have.
        stop: Set when the run is asked to stop.

    Raises:
        Busy: The provider has no room for the transfer now, or says when to come back.
        ExportFailed: The file is not whole, or nothing proves that it is; the message says which.
        Interrupted: The run was asked to stop.
        NoData: As the provider's opening says.
        Unreachable: The transfer would have been the job itself, and no byte of the request was sent.
    """
    part = _Part(path)
    if remote.once:
        part.drop()
    arrival = _Arrival(remote, part, deadline, limit, stop)
    idle = 0
    while True:
        version, size = part.version, part.size
        try:
            arrival.receive()
            with _dropped_if_wrong(part):
                _verify(remote, part, arrival, encoding, allow_unverified=allow_unverified)
        except Unreachable as error:
            if error.after is not None:
                raise Busy(str(error), error.after) from None
            if remote.once and not error.sent:
                raise
            new = part.version is not None and version in (None, part.version) and part.size > size
            idle = 0 if new else idle + 1
            if remote.once or idle == TRIES:
                then = "" if remote.once else f" in {TRIES} transfers; the next run begins anew"
                raise ExportFailed(
                    f"{error}; its file did not arrive whole{then}", retry=remote.once
                ) from None
        except (ExportFailed, NoData):
            part.drop()
            raise
        else:
            return LocalFile(part.rename(), remote.name, part.size, remote.rows, part.sha256())
        arrival.wait(0.1 * 4**idle * random.uniform(0.5, 1.0))


class _Part:
    """What has arrived of a file, and beside it of which version it is.

    Its size is known from the file alone: file systems write a file's size after its data, so that what a
    process that died, or a machine, has left is a beginning of the file.

    Attributes:
        version: As of the file's `Body`; None: it can't be continued.
        size: Bytes.
    """

    def __init__(self, path: Path) -> None:
        self._whole = path
        self.path = path.with_suffix(".part")
        self._note = path.with_suffix(".version")
        self.version: str | None = None
        self.size = 0
        self._digest = hashlib.sha256()
        self._digested = 0
        if self._note.is_file() and self.path.is_file():
            version = self._note.read_text(errors="replace")
            if version.isprintable():
                self.version, self.size = version, self.path.stat().st_size

    def begin(self, version: str | None) -> None:
        """Start from zero, with what may be another version."""
        self.drop()
        self.path.touch(mode=0o600)
        if version is not None:
            new = self._note.with_suffix(".new")
            new.write_text(version)
            new.replace(self._note)
        self.version = version

    def goes_on(self) -> None:
        """Let the digest be that of what is here."""
        if self._digested != self.size:
            self._digest, self._digested = hashlib.sha256(), 0
            with self.path.open("rb") as file:
                while chunk := file.read(_READ):
                    self.digest(chunk)

    def digest(self, chunk: bytes) -> None:
        """See what is about to be written."""
        self._digest.update(chunk)
        self._digested += len(chunk)

    def sha256(self) -> str:
        """Of all bytes."""
        return self._digest.hexdigest()

    def drop(self) -> None:
        """Remove it."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.version, self.size = None, 0
        self._digest, self._digested = hashlib.sha256(), 0

    def rename(self) -> Path:
        """Give the file its name."""
        self.path.rename(self._whole)
        self._note.unlink(missing_ok=True)
        return self._whole


@dataclass(slots=True)
class _Arrival:
    """The transfers of one file."""

    remote: RemoteFile
    part: _Part
    deadline: datetime | None
    limit: int
    stop: threading.Event | None
    proof: str | None = None
    sizes: frozenset[int] = frozenset()  # all that may be called the file's size

    def receive(self) -> None:
        """Bring what is not here yet.

        Raises:
            Unreachable: It did not all arrive.
        """
        self._check()
        part = self.part
        try:
            with self.remote.open(Wanted(part.size, part.version, self.deadline)) as body:
                if body.offset:
                    part.goes_on()
                else:
                    part.begin(body.version)
                self._check(body.total or 0)
                with part.path.open("ab") as file, _arriving(body, part.digest) as chunks:
                    for chunk in chunks:
                        self._check(part.size + len(chunk))
                        for start in range(0, len(chunk), _WRITE):
                            part.size += file.write(memoryview(chunk)[start : start + _WRITE])
                        file.flush()  # so that a process that is killed leaves it here
        except BaseException as error:
            # What fills the disk is no help there.
            if part.version is None or isinstance(error, OSError):
                part.drop()
            raise
        if body.total is not None and part.size != body.total:
            if part.size > body.total:
                part.drop()
            raise Unreachable(
                f"{self.remote.name}: {part.size} bytes arrived where {body.total} were announced"
            )
        self.proof = body.proof or (None if body.total is None else "length")
        self.sizes = frozenset({part.size, body.encoded() if body.encoded else part.size})

    def wait(self, seconds: float) -> None:
        """Let time pass before the next transfer."""
        if self.stop is None:
            time.sleep(seconds)
        else:
            self.stop.wait(seconds)

    def _check(self, size: int = 0) -> None:
        if self.stop is not None and self.stop.is_set():
            raise Interrupted
        if size > self.limit:
            raise ExportFailed(
                f"{self.remote.name}: the file has more than {self.limit} bytes, which is the most that is "
                "fetched; make the window shorter"
            )
        if self.deadline is not None and datetime.now(UTC) >= self.deadline:
            raise ExportFailed(
                f"{self.remote.name}: the file did not arrive within export_timeout; raise it, or make the "
                "window shorter"
            )


@contextmanager
def _dropped_if_wrong(part: _Part) -> Iterator[None]:
    """What is all here, and not right, is nothing to go on with."""
    try:
        yield
    except Unreachable:
        part.drop()
        raise


def _verify(
    remote: RemoteFile, part: _Part, arrival: _Arrival, encoding: str | None, *, allow_unverified: bool
) -> None:
    """Hold what has arrived against all that shows that it is whole.

    Raises:
        ExportFailed: It never will be, or nothing shows it.
        Unreachable: It was cut on its way.
    """
    announced = arrival.proof or remote.size is not None
    try:
        # A file may have been cut before it was sent; one that can show its end is made to.
        own = prove(part.path, encoding)
    except ExportFailed as error:
        if announced:
            raise ExportFailed(f"{remote.name}: {error}") from None
        raise Unreachable(f"{remote.name}: {error}") from None  # cut off on its way, more likely
    sizes = {part.size}
    if remote.either_size:
        sizes |= arrival.sizes | ({_unpacked(part.path)} if own == "gzip trailer" else set())
    if remote.size not in {None, *sizes}:
        raise Unreachable(f"{remote.name}: {part.size} bytes arrived where {remote.size} were announced")
    counted = remote.rows is not None and ends_with_line_break(part.path)
    if not (announced or own or counted or allow_unverified):
        raise ExportFailed(
            f"{remote.name}: nothing proves that the file is whole (no length, chunk end, trailer, or row "
            "count with a line break at its end); set allow_unverified_downloads to accept such files"
        )


def _unpacked(path: Path) -> int:
    """How many bytes a gzip file holds."""
    with Bytes(path) as source:
        return sum(map(len, iter(lambda: source.read(_READ), b"")))


def _arriving(body: Body, see: Callable[[bytes], None]) -> closing[Generator[bytes]]:
    """The bytes; while some are written, the next ones are shown to `see`, and those behind them arrive."""

    def seen() -> Generator[bytes]:
        with closing(ahead((chunk for chunk in body.chunks), "downloads")) as chunks:
            for chunk in chunks:
                see(chunk)
                yield chunk

    return closing(ahead(seen(), "digests"))
