"""A run as a process of its own: the files that it is given, what stops it, and how its end is told."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

from tap_analytics_exports.errors import (
    CredentialsRefused,
    ExportsFailed,
    Interrupted,
    SettingsError,
    TapError,
)
from tap_analytics_exports.extraction import Extraction
from tap_analytics_exports.jobs.job import now
from tap_analytics_exports.progress import Progress
from tap_analytics_exports.redaction import clean_logger
from tap_analytics_exports.report import Report
from tap_analytics_exports.signals import Signals
from tap_analytics_exports.writers.output import LineOutput

EXIT_SETTINGS, EXIT_FAILED = 1, 3
_EXIT_UNREAD = 128 + signal.SIGPIPE

logger = clean_logger(__name__)


def load_json(file: IO[str], what: str, give: str = "name a file of JSON") -> Any:
    """Read the JSON of a file.

    Args:
        file: The file.
        what: What it is for.
        give: What to give in its place, if it holds none.

    Raises:
        SettingsError: It holds none.
    """
    try:
        return json.load(file)
    except (ValueError, RecursionError) as error:
        where = (
            f" at line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise SettingsError([f"{what}: {file.name}: is no JSON{where}; {give}"]) from None


def exit_code(
    write_all: Callable[[], object],
    extraction: Extraction,
    output: LineOutput,
    report: Path | None = None,
) -> int:
    """Run an extraction to its end, or until a signal stops it at the next safe point, and close it.

    Args:
        write_all: Iterates it, and writes what comes.
        extraction: The run.
        output: Where it goes.
        report: Where the page about it goes, however it ends.

    Returns:
        The exit code that tells how it went.
    """
    began = now()

    def stop() -> None:
        output.stopped = True
        extraction.stop()

    def tell(code: int) -> None:
        if report is not None:
            _write_report(report, Report(extraction.jobs, began, now(), _outcome(code)))

    def give_up() -> None:
        """End where no safe point came, as when nobody reads the output."""
        code = signals.exit_code or os.EX_SOFTWARE
        extraction.close(0)
        tell(code)
        os._exit(code)

    signals = Signals(stop, give_up)
    # Rows have threads of their own, which those of polars would only get in the way of.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    try:
        with Progress(extraction):
            code = _code(write_all)
    finally:
        extraction.close()
    left_behind_the_last_line = code == 0 and signals.received == signal.SIGPIPE
    if code != os.EX_IOERR and not left_behind_the_last_line:
        code = signals.exit_code or code
    if code == _EXIT_UNREAD:
        logger.error("nobody reads the output any more")
    tell(code)
    return code


def _code(write_all: Callable[[], object]) -> int:
    try:
        write_all()
    except Interrupted:
        return 128 + signal.SIGTERM
    except CredentialsRefused:
        return EXIT_SETTINGS
    except ExportsFailed:
        return EXIT_FAILED
    except TapError as error:
        logger.error("%s", error)
        return EXIT_SETTINGS
    except BrokenPipeError:
        return _EXIT_UNREAD
    except OSError as error:
        logger.error("%s: %s", error.filename or "standard output", error.strerror or error)
        return os.EX_IOERR
    return 0


def _outcome(code: int) -> str:
    """Say in a few words how a run has ended."""
    match code:
        case 0:
            return "Everything was written"
        case 1:
            return "Nothing was exported, as settings or credentials are not right"
        case 3:
            return "Some exports failed, the others were written in full"
        case os.EX_IOERR:
            return "Ended, as the output could not be written"
        case _ if code == _EXIT_UNREAD:
            return "Ended, as nobody read the output any more"
    return (
        f"Stopped by {signal.Signals(code - 128).name}" if code > 128 else "Ended by a mistake of the program"
    )


def _write_report(path: Path, report: Report) -> None:
    try:
        path.write_text(report.page(), "utf-8")
    except OSError as error:
        logger.error("--report: %s: %s", path, error.strerror)


def end(code: int) -> NoReturn:
    """End the process; threads that still wait for a vendor do not hold it up."""
    if code in (_EXIT_UNREAD, os.EX_IOERR):  # nor shall the interpreter try to write what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stdout.flush()
    logging.shutdown()
    os._exit(code)
