"""Standard output: whole lines, whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from singer_sdk.io_base import SingerWriter
from singer_sdk.singerlib import Message

if TYPE_CHECKING:
    from typing_extensions import Buffer

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

    def write_lines(self, lines: Buffer) -> None:
        """Write lines, each of which ends in a line break."""
        binary = getattr(sys.stdout, "buffer", None)
        with memoryview(lines) as view:
            start = 0
            while start < len(view):
                self.safe_point()
                whole = _whole_lines(view, start)
                if binary is None:  # somebody has put a text stream in place of standard output
                    sys.stdout.write(whole.decode())
                else:
                    rest = memoryview(whole)
                    while rest:  # an unbuffered stream may take less than it is given
                        rest = rest[binary.write(rest) or 0 :]
                start += len(whole)
        sys.stdout.flush()


def _whole_lines(view: memoryview, start: int) -> bytes:
    """The lines that fit into a slice; at least one, however long it is."""
    size = SLICE
    while True:
        some = bytes(view[start : start + size])
        end = some.rfind(b"\n") + 1
        if end or start + size >= len(view):
            return some[:end] if end else some
        size *= 2
