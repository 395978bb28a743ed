"""The archive: every file as its vendor made it, kept in a folder or bucket of the user's own.

    <archive_url>/<stream>/<window's start>_<its end>/<export_id>/0000-<the vendor's name of the file>
                                                                  manifest.json

A snapshot's folder is named `snapshot_` and the time of its trigger. The manifest is written last, so a
folder without one is no archive of a whole job.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Struct

from tap_analytics_exports.errors import ExportFailed, Interrupted, SettingsError, Unreachable
from tap_analytics_exports.providers.base import Provider
from tap_analytics_exports.settings import Export
from tap_analytics_exports.transport.download import LocalFile
from tap_analytics_exports.transport.network import Network
from tap_analytics_exports.transport.s3 import S3Client
from tap_analytics_exports.windows import Window

MANIFEST = "manifest.json"

_CHUNK = 1 << 20
_NAME = 100
"""Characters of a vendor's name of a file that become part of a name here."""

_PART = 8 << 20
"""Bytes that are sent to S3 at once, of which there may be 10,000 in a file."""

_SNAPSHOT = "snapshot"
_ABOUT = """\
Files of analytics vendors, byte for byte as they made them, kept by tap-analytics-exports (`archive_url`).

<stream>/<window's start>_<its end>/<export_id>/   has the files of one export, and manifest.json, which says
what they are, with their sizes and SHA-256. A folder without manifest.json is no whole export.
Their rows are loaded again by `tap-analytics-exports --replay START/END`.
"""


class ArchivedFile(Struct, frozen=True):
    """A file: its name in the folder, its name at the vendor, and what it is known by."""

    file: Annotated[str, Meta(pattern=r"^[0-9]{4,}-[A-Za-z0-9._-]*\Z")]  # which leads nowhere else
    name: str
    size: int
    sha256: str
    rows: int | None = None


class Manifest(Struct, frozen=True, kw_only=True):
    """What an archived export is.

    Attributes:
        provider: Its provider's name.
        stream: Its stream.
        window: What it is of, in UTC; None: a snapshot.
        export_id: As in `export_runs`.
        request: Fingerprint of what was asked for.
        identity: Hash of account and export alone.
        columns: Those that were asked for, in the vendor's words; None: all.
        format: Of its files: `csv`, `json` or `xlsx`.
        submitted_at: When it was triggered; the other timestamps are as in `export_runs`.
        files: In the order of their rows; none: it had no rows.
    """

    provider: str
    stream: str
    window: tuple[datetime, datetime] | None
    export_id: str
    request: str
    identity: str
    columns: tuple[str, ...] | None
    format: str
    submitted_at: datetime | None
    ready_at: datetime | None
    downloaded_at: datetime | None
    archived_at: datetime
    files: list[ArchivedFile] = []


class _Store(Protocol):
    """Where an archive is; keys are relative paths with `/`."""

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        """Write a file, which is there whole or not at all."""

    def open(self, key: str) -> AbstractContextManager[IO[bytes]]:
        """Read a file."""

    def keys(self, folder: str) -> Iterator[str]:
        """List the files three levels below a folder of the archive."""

    def close(self) -> None:
        """Remove what was made for it."""


class Archive:
    """The archive.

    Args:
        url: `archive_url`: a folder, `file:///path` or `s3://bucket/path`.
        network: What holds for all connections.
    """

    def __init__(self, url: str, network: Network) -> None:
        self._store: _Store = _Bucket(url, network) if url.startswith("s3://") else _Folder(url)
        self._stop = network.stop or threading.Event()

    def check(self) -> None:
        """See whether it can be written, by writing what it is.

        Raises:
            SettingsError: It can't.
        """
        try:
            with _troubles("can't be written"):
                self._store.write("README.txt", [_ABOUT.encode()])
        except Unreachable as error:
            raise SettingsError([str(error)]) from None

    def keep(self, manifest: Manifest, files: Sequence[LocalFile]) -> None:
        """Keep the files of a job; what is kept already is not written again.

        Args:
            manifest: What they are, without `files`.
            files: The files.

        Raises:
            Unreachable: It can't be written now.
            Interrupted: The run was asked to stop.
        """
        folder = f"{manifest.stream}/{_folder(manifest)}/{manifest.export_id}"
        named = [
            ArchivedFile(f"{i:04}-{_safe(file.name)}", file.name, file.size, _sha256(file), file.rows)
            for i, file in enumerate(files)
        ]
        with _troubles("this export is not archived, and goes on with the next run"):
            if self._has(f"{folder}/{MANIFEST}", named):
                return
            for local, archived in zip(files, named, strict=True):
                self._store.write(f"{folder}/{archived.file}", self._chunks(local.path))
            whole = msgspec.structs.replace(manifest, files=named)
            text = msgspec.json.format(msgspec.json.encode(whole), indent=2)
            self._store.write(f"{folder}/{MANIFEST}", [text, b"\n"])

    def exports(self, stream: str) -> dict[str, list[str]]:
        """List a stream's whole exports, as the name of their window's folder to their ids.

        Raises:
            Unreachable: They can't be listed.
        """
        found: dict[str, list[str]] = {}
        with _troubles("can't be listed"):
            for key in self._store.keys(stream):
                _, window, export_id, name = key.split("/")
                if name == MANIFEST:
                    found.setdefault(window, []).append(export_id)
        return found

    def manifest(self, folder: str) -> Manifest:
        """Read the manifest of an export's folder.

        Raises:
            ExportFailed: It is none.
            Unreachable: It can't be read.
        """
        text = b"".join(self.read(f"{folder}/{MANIFEST}"))
        try:
            return msgspec.json.decode(text, type=Manifest)
        except msgspec.MsgspecError as error:
            raise ExportFailed(
                f"archive_url: {folder}/{MANIFEST} is none of ours: {error}; put the right file there, or "
                "remove its folder"
            ) from None

    def read(self, key: str) -> Iterator[bytes]:
        """Read a file.

        Raises:
            Unreachable: It can't be read.
        """
        with _troubles(f"{key} can't be read"), self._store.open(key) as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def close(self) -> None:
        """Remove what was made for the connections."""
        self._store.close()

    def _has(self, key: str, files: Sequence[ArchivedFile]) -> bool:
        """Whether a run that died, or that could not write the rows, has kept these files."""
        try:
            with self._store.open(key) as file:
                return msgspec.json.decode(file.read(), type=Manifest).files == files
        except (OSError, ValueError):
            return False

    def _chunks(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                if self._stop.is_set():
                    raise Interrupted
                yield chunk


class _Folder:
    """An archive on this machine; what is made there is its owner's alone."""

    def __init__(self, url: str) -> None:
        self._root = Path(url.removeprefix("file://")).expanduser().absolute()

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        path = self._root / key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
        new.touch(mode=0o600)
        try:
            with new.open("wb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise

    def open(self, key: str) -> IO[bytes]:
        return (self._root / key).open("rb")

    def keys(self, folder: str) -> Iterator[str]:
        if not self._root.is_dir():
            raise FileNotFoundError(f"{self._root} is no folder")
        for path in (self._root / folder).glob("*/*/*"):
            yield path.relative_to(self._root).as_posix()

    def close(self) -> None:
        pass


class _Bucket:
    """An archive in S3, which is reached with the usual AWS environment."""

    def __init__(self, url: str, network: Network) -> None:
        self._bucket, _, base = url.removeprefix("s3://").partition("/")
        self._base = f"{base.strip('/')}/".lstrip("/")
        self._network = network

    @cached_property
    def _client(self) -> S3Client:
        return S3Client(self._network)

    def write(self, key: str, chunks: Iterable[bytes]) -> None:
        with _as_os_error(), self._file(key, "wb") as file:  # of which nothing is left if it is not whole
            for chunk in chunks:
                file.write(chunk)

    @contextmanager
    def open(self, key: str) -> Iterator[IO[bytes]]:
        with _as_os_error(), self._file(key, "rb") as file:
            yield file

    def keys(self, folder: str) -> Iterator[str]:
        with _as_os_error():
            pages = self._client.s3.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._base}{folder}/"):
                for each in page.get("Contents", ()):
                    key = each["Key"].removeprefix(self._base)
                    if key.count("/") == 3:
                        yield key

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    def _file(self, key: str, mode: str) -> Any:
        import smart_open

        how = {"client": self._client.s3, "min_part_size": _PART}
        url = f"s3://{self._bucket}/{self._base}{key}"
        return smart_open.open(url, mode, compression="disable", transport_params=how)


@contextmanager
def _as_os_error() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise OSError(str(error)) from None


@contextmanager
def _troubles(what: str) -> Iterator[None]:
    """Say in the tap's words what goes wrong."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Unreachable(f"archive_url: {what}: {error}") from None


def identity_hash(provider: Provider[Any, Any], export: Export) -> str:
    """Tell exports of the same account and with the same settings from others, as 32 hexadecimal digits."""
    identity = {"base_url": provider.settings.base_url, **provider.identity(export)}
    return hashlib.blake2b(msgspec.json.encode(identity, order="sorted"), digest_size=16).hexdigest()


def window_folder(window: Window) -> str:
    """Name the folder of a window."""
    return f"{_timestamp(window.start)}_{_timestamp(window.end)}"


def window_of(folder: str) -> Window | None:
    """Read the name of a window's folder; None: it is of a snapshot, or none of ours."""
    start, _, end = folder.partition("_")
    try:
        return Window(_datetime(start), _datetime(end))
    except ValueError:
        return None


def snapshot_of(folder: str) -> datetime | None:
    """Read from the name of a snapshot's folder when it was triggered; None: it is of a window."""
    kind, _, at = folder.partition("_")
    try:
        return _datetime(at) if kind == _SNAPSHOT else None
    except ValueError:
        return None


def _folder(manifest: Manifest) -> str:
    if manifest.window is None:
        return f"{_SNAPSHOT}_{_timestamp(manifest.submitted_at or manifest.archived_at)}"
    return window_folder(Window(*manifest.window))


def _timestamp(at: datetime) -> str:
    """Write a timestamp, in UTC, with characters that every file system takes."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z".replace(":", "-")


def _datetime(text: str) -> datetime:
    day, _, time = text.removesuffix("Z").partition("T")
    return datetime.fromisoformat(f"{day}T{time.replace('-', ':')}+00:00")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-_NAME:]


def _sha256(local: LocalFile) -> str:
    if local.sha256 is not None:
        return local.sha256
    with local.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
