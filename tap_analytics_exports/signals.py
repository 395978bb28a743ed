"""Signals ask a run to stop, and so does a reader of its output that goes away.

What a handler wrote would be in the middle of a line.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

GRACE_SECONDS = 4
"""After a signal: how long the next safe point may be away before the process ends without it."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Waits for the first of the signals that ask the process to end.

    A reader that goes away counts as SIGPIPE, also while there is nothing to write: who has seen a first
    record, or has died, does not want jobs to be triggered and awaited for hours.

    Its handlers do nothing, as anything that they did might be in the middle of the same thing. Python writes
    each signal into a pipe, whichever library has put a handler of its own in front, and a thread reads it.

    Args:
        stop: Called once, by that thread.
        give_up: Called when the process has not ended a few seconds later.
    """

    def __init__(self, stop: Callable[[], None], give_up: Callable[[], None]) -> None:
        self.received: int | None = None
        self._stop = stop
        self._give_up = give_up
        self._pipe, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's choice is to be kept
                signal.signal(number, lambda *_: None)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    @property
    def exit_code(self) -> int | None:
        """What tells the parent process of the signal; None: there was none."""
        return None if self.received is None else 128 + self.received

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        with suppress(OSError, ValueError):  # where there is no file behind it
            poll.register(
                sys.stdout.fileno(), 0
            )  # errors, of which a pipe without reader is one, come anyway
        while self.received is None:
            for file, event in poll.poll():
                if file != self._pipe:
                    poll.unregister(file)
                    if event & select.POLLERR:
                        self.received = self.received or signal.SIGPIPE
                    continue
                numbers = [number for number in os.read(self._pipe, 16) if number in SIGNALS]
                if numbers:
                    self.received = numbers[0]
        watchdog = threading.Timer(GRACE_SECONDS, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        self._stop()
