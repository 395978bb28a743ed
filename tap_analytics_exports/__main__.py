"""The command line."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the tap."""
    # What is imported stays: to look for garbage in it takes a tenth of the start-up, and finds none.
    gc.disable()
    from tap_analytics_exports import redaction
    from tap_analytics_exports.singer.tap import TapAnalyticsExports

    gc.freeze()
    gc.enable()
    command = TapAnalyticsExports.cli  # which sets the log handlers up
    redaction.install()
    command()


if __name__ == "__main__":
    main()
