"""Singer messages on standard output."""

from __future__ import annotations

from singer_sdk.io_base import SingerWriter
from singer_sdk.singerlib import Message

from tap_analytics_exports.writers.output import LineOutput


class Output(LineOutput, SingerWriter):
    """Writes messages and ready-made lines, and stops between two lines when it is asked to."""

    def write_message(self, message: Message) -> None:
        """Write one message."""
        self.write_lines(f"{self.format_message(message)}\n".encode())
