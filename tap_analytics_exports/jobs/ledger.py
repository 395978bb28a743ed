"""The ledger: what was triggered and fetched, remembered beyond the state.

A target saves a state only when it drains, and a process may die between sending a trigger and writing the
state. So each job has an entry here from before its trigger until an input state shows that its rows are
safe, and what a run that died had downloaded is not fetched again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tap_analytics_exports.errors import TapError
from tap_analytics_exports.jobs.entries import Entry, read_entry
from tap_analytics_exports.redaction import clean_logger

_HEADERS = "headers"

logger = clean_logger(__name__)


class AlreadyRunning(TapError):
    """Another process has the same export in hand."""


def peek(folder: Path | None) -> list[Entry]:
    """Read the entries in a ledger's folder, whoever has it in hand; changes nothing."""
    return [entry for _, entry in _read(folder) if isinstance(entry, Entry)]


def headers_in(folder: Path | None) -> list[str]:
    """Read the headers of the last file of an export, as far as its ledger's folder knows them."""
    try:
        return msgspec.json.decode((folder / _HEADERS).read_bytes(), type=list[str]) if folder else []
    except (OSError, ValueError):
        return []


def _read(folder: Path | None) -> Iterator[tuple[Path, Entry | Exception]]:
    """Read each entry in a folder, or find why it can't be read."""
    for path in sorted(folder.glob("*.json")) if folder else ():
        try:
            entry = read_entry(msgspec.json.decode(path.read_bytes()))
            if entry.export_id != path.stem:
                raise msgspec.ValidationError("its name is another")
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            yield path, error
        else:
            yield path, entry


class Ledger:
    """The entries of one export, a small file each, and the folders of its jobs' downloads.

    Args:
        folder: Where the entries are, made if need be; None: nothing is remembered.
        spool: Where the downloads are, private.

    Raises:
        AlreadyRunning: Another process has the export in hand.
        OSError: The folder can't be used.

    Attributes:
        folder: Where the entries are; None: nothing is remembered.
    """

    def __init__(self, folder: Path | None, spool: Path) -> None:
        self.folder = folder
        self._spool = spool
        self._lock: int | None = None
        if folder is None:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise AlreadyRunning(
                f"another run has this export in hand and holds {folder / 'lock'}; wait for its end"
            ) from None

    @property
    def remembers(self) -> bool:
        """Whether what is saved here is there for a later run."""
        return self.folder is not None

    def entries(self) -> list[Entry]:
        """Read all entries, those with the newest trigger last, and remove what belongs to none of them.

        One that can't be read is left aside, renamed to `.unread`.
        """
        found: list[Entry] = []
        for path, entry in _read(self.folder):
            if isinstance(entry, Entry):
                found.append(entry)
                continue
            logger.warning("an entry of the ledger can't be read and is left aside: %s (%s)", path, entry)
            with suppress(OSError):
                path.rename(path.with_suffix(".unread"))
        for path in self.folder.glob("*.new") if self.folder else ():
            path.unlink(missing_ok=True)  # of a process that died while it wrote
        known = {entry.export_id for entry in found}
        for path in self._spool.glob("*"):
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)
        return sorted(found, key=lambda entry: entry.last_submitted_at)

    def save(self, entry: Entry) -> None:
        """Write an entry so that it survives whatever happens next; where that fails, say so and go on."""
        if self.folder is None:
            return
        try:
            self._write(self.folder / f"{entry.export_id}.json", msgspec.json.encode(entry))
        except OSError as error:
            logger.warning("the ledger can't be written, so a crash may cost a job: %s", error)

    def _write(self, path: Path, content: bytes) -> None:
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def forget(self, export_id: str) -> None:
        """Drop a job's entry and its downloads."""
        if self.folder is not None:
            (self.folder / f"{export_id}.json").unlink(missing_ok=True)
        self.drop_files(export_id)

    def remember_headers(self, headers: Sequence[str]) -> None:
        """Keep the headers of a file, by which the columns are known before the next run."""
        if self.folder is not None and headers and list(headers) != headers_in(self.folder):
            with suppress(OSError):  # which costs no job
                self._write(self.folder / _HEADERS, msgspec.json.encode(list(headers)))

    def files(self, export_id: str) -> Path:
        """Find the folder of a job's downloads, made if need be, with mode 0700."""
        folder = self._spool / export_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def arrived(self, export_id: str) -> int:
        """Count the bytes of a job's downloads that are here, while they arrive."""
        found = 0
        with suppress(OSError):  # what is seen may be gone at once
            for path in (self._spool / export_id).iterdir():
                found += path.stat().st_size if path.suffix in ("", ".part") else 0
        return found

    def hand_over(self, export_id: str, other: str) -> Path:
        """Give a job's downloads to another job, whose folder is returned."""
        return self.files(export_id).rename(self._spool / other)

    def drop_files(self, export_id: str) -> None:
        """Drop a job's downloads alone."""
        shutil.rmtree(self._spool / export_id, ignore_errors=True)

    def close(self) -> None:
        """Let another run have the export; folders of downloads that hold nothing any more are removed."""
        for folder in (self._spool, self._spool.parent):
            with suppress(OSError):  # another export's downloads are in it
                folder.rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
