"""Which job goes next: the order of rows, the caps of the vendors, the room on disk."""

from __future__ import annotations

import threading

from tap_analytics_exports.errors import Refused
from tap_analytics_exports.jobs.job import PlannedWindow


class Lane:
    """A provider's windows in the order of their rows, and which may go next.

    Windows whose jobs were triggered before go first, for they run at the vendor already. While the files
    that wait to be written are larger than the limit, only the window whose turn it is may go.

    Args:
        spool_limit: Bytes of downloads that may wait.

    Attributes:
        refusal: With which the provider, or its server of files, refused what we are; None: neither has.
        sending: Held while a trigger is sent, so that a process that dies leaves at most one of which nobody
            knows whether it runs.
    """

    def __init__(self, spool_limit: int) -> None:
        self.refusal: Refused | None = None
        self.sending = threading.Lock()
        self._limit = spool_limit
        self._changed = threading.Condition()
        self._windows: list[PlannedWindow] = []  # whose rows are not written
        self._pending: list[PlannedWindow] = []  # of those, the ones that no thread has taken
        self._bytes: dict[PlannedWindow, int] = {}
        self._closed = False

    def check(self) -> None:
        """See whether the provider may be asked for anything.

        Raises:
            Refused: It has refused them before.
        """
        if self.refusal is not None:
            raise self.refusal

    def size(self) -> int:
        """Count the windows that no thread has taken."""
        return len(self._pending)

    def add(self, window: PlannedWindow) -> None:
        """Put a window at the end."""
        self._windows.append(window)
        self._pending.append(window)

    def take(self) -> PlannedWindow | None:
        """Wait for a window to carry out; None when there is none left."""
        with self._changed:
            while self._pending and not self._closed:
                if sum(self._bytes.values()) < self._limit:
                    window = next((each for each in self._pending if each.job.triggered), self._pending[0])
                elif self._windows[0] in self._pending:
                    window = self._windows[0]
                else:
                    self._changed.wait()
                    continue
                self._pending.remove(window)
                return window
            return None

    def give_back(self, window: PlannedWindow) -> None:
        """Take note that a thread is done with a window; another try of it goes next."""
        with self._changed:
            if window not in self._windows:
                return
            self._bytes[window] = sum(file.size for file in window.job.files)
            if not window.job.ended:
                self._pending.insert(0, window)

    def leave(self, window: PlannedWindow) -> None:
        """Take a window off: its rows are written, or nobody wants them any more."""
        with self._changed:
            self._bytes.pop(window, None)
            for windows in (self._windows, self._pending):
                if window in windows:
                    windows.remove(window)
            self._changed.notify_all()

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
