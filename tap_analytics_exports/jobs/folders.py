"""Where ledgers and downloads lie on this machine."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from functools import cached_property
from pathlib import Path

import platformdirs

from tap_analytics_exports.errors import SettingsError
from tap_analytics_exports.jobs.ledger import AlreadyRunning, Ledger
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.settings import Settings

NAME = "tap-analytics-exports"

logger = clean_logger(__name__)


class Folders:
    """The folders of one run.

    Args:
        settings: With `ledger` and `spool_dir`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ledgers: list[Ledger] = []

    def ledger(self, key: str, whose: str) -> Ledger:
        """Open an export's ledger, with a folder for downloads, which outlive a crash if the ledger does.

        Args:
            key: A name for what belongs to the export.
            whose: The export, for messages.

        Raises:
            AlreadyRunning: Another process has the export in hand.
            SettingsError: Downloads can't lie where they are to.
        """
        try:
            ledger = self._kept(key)
        except AlreadyRunning as error:
            raise AlreadyRunning(f"{whose}: {error}") from None
        ledger = ledger or Ledger(None, self._spool / key)
        self._ledgers.append(ledger)
        return ledger

    def folder(self, key: str) -> Path | None:
        """Say where an export's ledger is, or would be; None: it is turned off."""
        if self._settings.ledger == "":
            return None
        return Path(self._settings.ledger or platformdirs.user_state_path(NAME)).expanduser() / key

    def close(self) -> None:
        """Let other runs have the exports, and remove what nothing remembers."""
        for ledger in self._ledgers:
            ledger.close()
        if "_spool" in self.__dict__:
            shutil.rmtree(self._spool, ignore_errors=True)

    def _kept(self, key: str) -> Ledger | None:
        folder = self.folder(key)
        if folder is None:
            return None
        try:
            # A spool for each ledger, for what a ledger does not know is removed from its spool.
            which = hashlib.sha256(str(folder.parent.absolute()).encode()).hexdigest()[:12]
            spool = _private(self._spool_parent / f"{NAME}-{which}")
            return Ledger(folder, spool / key)
        except OSError as error:
            logger.warning(
                "the ledger can't be used, so a crash may cost a job; set `ledger` to a folder that can be "
                "written, or to an empty text: %s",
                error,
            )
            return None

    @property
    def _spool_parent(self) -> Path:
        return Path(self._settings.spool_dir or tempfile.gettempdir()).expanduser()

    @cached_property
    def _spool(self) -> Path:
        """For downloads that nothing remembers."""
        try:
            self._spool_parent.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"{NAME}-", dir=self._spool_parent))
        except OSError as error:
            raise SettingsError([f"spool_dir: {self._spool_parent}: {error.strerror}"]) from None


def _private(folder: Path) -> Path:
    """Make a folder of ours that nobody else can open.

    Raises:
        OSError: It is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EACCES, f"{folder} is not a private folder of this user")
    return folder
