"""Standard output: whole lines, whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Callable

from singer_sdk.io_base import SingerWriter
from singer_sdk.singerlib import Message

SLICE = 1 << 16
"""Bytes between two looks at whether the run is to stop: a slow reader takes minutes for a frame's lines."""


class Output(SingerWriter):
    """Writes messages and ready-made lines, and stops between two lines when it is asked to.

    Attributes:
        safe_point: Called between lines; raises to stop there.
    """

    safe_point: Callable[[], None] = staticmethod(lambda: None)

    def write_message(self, message: Message) -> None:
        """Write one message."""
        self.write_lines(f"{self.format_message(message)}\n".encode())

    def write_lines(self, lines: bytes) -> None:
        """Write lines, each of which ends in a line break."""
        binary = getattr(sys.stdout, "buffer", None)
        view, start = memoryview(lines), 0
        while start < len(lines):
            self.safe_point()
            end = lines.rfind(b"\n", start, start + SLICE) + 1 or lines.index(b"\n", start) + 1
            if binary is None:  # somebody has put a text stream in place of standard output
                sys.stdout.write(lines[start:end].decode())
            else:
                binary.write(view[start:end])
            start = end
        sys.stdout.flush()
