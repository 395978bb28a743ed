"""The command line."""

from __future__ import annotations

import gc
import signal


def main() -> None:
    """Run the tap."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # before there is anything to stop, it ends the process
    # What is imported stays: to look for garbage in it takes a tenth of the start-up, and finds none.
    gc.disable()
    from tap_analytics_exports import redaction
    from tap_analytics_exports.singer.command import CommandLine

    gc.freeze()
    gc.enable()
    command = CommandLine.cli  # which sets the log handlers up
    redaction.install()
    command()


if __name__ == "__main__":
    main()
