"""Standard output: whole lines, whatever happens."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from tap_analytics_exports.errors import Interrupted

if TYPE_CHECKING:
    from typing_extensions import Buffer

SLICE = 60 << 10
"""Bytes between two checks of whether the run is to stop: a slow reader takes minutes for a frame's lines.

With the rest of a line, this still fits into a pipe; what doesn't is written in two goes.
"""

_LOOK = 1 << 12


class LineOutput:
    """Writes ready-made lines, and stops between two of them when it is asked to; any thread may write.

    Attributes:
        stopped: Whether it is.
    """

    stopped = False
    _lock = threading.Lock()  # there is one standard output

    def safe_point(self) -> None:
        """Stop here if it is asked for.

        Raises:
            Interrupted: It is.
        """
        if self.stopped:
            raise Interrupted

    def write_lines(self, lines: Buffer) -> None:
        """Write lines, each of which ends in a line break.

        Raises:
            Interrupted: The run was asked to stop; the lines so far are whole.
        """
        with memoryview(lines) as view:
            start = 0
            while start < len(view):
                self.safe_point()
                end = _end_of_lines(view, start + SLICE)
                self.put(view[start:end])
                start = end

    def put(self, lines: memoryview) -> None:
        """Write whole lines at once, also while the run stops."""
        binary = getattr(sys.stdout, "buffer", None)
        with self._lock:
            if binary is None:  # somebody has put a text stream in place of standard output
                sys.stdout.write(bytes(lines).decode())
            else:
                written = 0
                while written < len(lines):  # unbuffered, it may take less than it is given
                    written += binary.write(lines[written:]) or 0
            sys.stdout.flush()


def _end_of_lines(view: memoryview, index: int) -> int:
    """Find the first end of a line from an index on, behind its line break; hardly anything is copied."""
    while index < len(view):
        found = bytes(view[index : index + _LOOK]).find(b"\n")
        if found >= 0:
            return index + found + 1
        index += _LOOK
    return len(view)
