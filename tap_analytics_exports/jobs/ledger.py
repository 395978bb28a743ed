"""The ledger: what was triggered and fetched, remembered beyond the Singer state.

A target saves a state only when it drains, and a process may die between sending a trigger and writing the
state. So each job has an entry here from before its trigger until an input state shows that its rows are
safe, and what a run that died had downloaded is not fetched again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tap_analytics_exports.errors import TapError
from tap_analytics_exports.redaction import clean_logger

logger = clean_logger("tap-analytics-exports.ledger")

Entry = dict[str, Any]


class AlreadyRunning(TapError):
    """Another process has the same export in hand."""


class Ledger:
    """The entries of one export, a small file each, and the folders of its jobs' downloads.

    An entry is what the state says of a job, with `handle` null from before its trigger until the vendor has
    answered, and besides: `files` of each of its parts that are here, their `sha256`, and `written_at`, once
    all rows are out.

    Args:
        folder: Where the entries are, made if need be; None: nothing is remembered.
        spool: Where the downloads are, private.

    Raises:
        AlreadyRunning: Another process has the export in hand.
        OSError: The folder can't be used.
    """

    def __init__(self, folder: Path | None, spool: Path) -> None:
        self.folder = folder
        self._spool = spool
        if folder is None:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)  # open until the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another run has this export in hand and holds {folder / 'lock'}") from None

    def entries(self) -> list[Entry]:
        """All entries, those with the newest trigger last; downloads without an entry are removed."""
        found: list[Entry] = []
        for path in self.folder.glob("*.json") if self.folder else ():
            try:
                found.append(msgspec.json.decode(path.read_bytes()))
            except (OSError, msgspec.DecodeError):
                logger.warning("an entry of the ledger can't be read and is dropped: %s", path)
                path.unlink(missing_ok=True)
        known = {entry["export_id"] for entry in found}
        for path in self._spool.glob("*"):
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)
        return sorted(found, key=_newest)

    def save(self, entry: Mapping[str, Any]) -> None:
        """Write an entry so that it survives whatever happens next; where that fails, say so and go on."""
        if self.folder is None:
            return
        try:
            self._write(self.folder / f"{entry['export_id']}.json", entry)
        except OSError as error:
            logger.warning("the ledger can't be written, so a crash may cost a job: %s", error)

    def _write(self, path: Path, entry: Mapping[str, Any]) -> None:
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(entry))
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

    def files(self, export_id: str) -> Path:
        """The folder of a job's downloads, made if need be."""
        folder = self._spool / export_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def hand_over(self, export_id: str, other: str) -> Path:
        """Give a job's downloads to another job, whose folder is returned."""
        return self.files(export_id).rename(self._spool / other)

    def drop_files(self, export_id: str) -> None:
        """Drop a job's downloads alone."""
        shutil.rmtree(self._spool / export_id, ignore_errors=True)

    def leave(self) -> None:
        """Remove the folders of the downloads that hold nothing any more."""
        for folder in (self._spool, self._spool.parent):
            with suppress(OSError):  # another export's downloads are in it
                folder.rmdir()


def is_lost(entry: Entry) -> bool:
    """Whether a trigger was under way of which nobody knows whether it arrived, or what came of it."""
    return any(part["sent"] and not part["handle"] and part["files"] is None for part in entry["parts"])


def _newest(entry: Entry) -> str:
    return max(str(part.get("submitted_at") or entry["submitted_at"]) for part in entry["parts"])
