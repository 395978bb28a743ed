"""The way from Spark's planning workers to the planner: a socket of the driver's Python, on its machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from tap_analytics_exports.errors import Interrupted, TapError
from tap_analytics_exports.redaction import clean, clean_logger
from tap_analytics_exports.spark import planner
from tap_analytics_exports.spark.chosen import choose

_VERBS: dict[str, Callable[..., Any]] = {
    verb.__name__: verb for verb in (planner.batch, planner.micro_batch, planner.committed)
}

logger = clean_logger(__name__)


class Door:
    """Where the planner of this process is asked; it is open until the process ends."""

    def __init__(self) -> None:
        self.key = os.urandom(32)
        # In a folder of multiprocessing's, which only this user can open, and which is removed at exit.
        self._listener = Listener(family="AF_UNIX", backlog=128, authkey=self.key)
        self.address = str(self._listener.address)
        threading.Thread(target=self._serve, name="planner", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError, AuthenticationError) as error:
                logger.info("the planner was not asked after all: %s", error)
                continue
            threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: Connection[Any, Any]) -> None:
        """Do what is asked for, and stop when nobody waits for it any more."""
        asker = planner.Asker()

        def watch() -> None:
            with suppress(OSError):
                connection.poll(None)  # nothing more is sent: this is the end of the connection
            asker.hang_up()

        with connection:
            verb, settings, stream, *arguments = connection.recv()
            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            answer: tuple[Any, str | None]
            try:
                answer = _VERBS[verb](asker, choose(settings, stream), *arguments), None
            except Interrupted:
                return
            except TapError as error:
                answer = None, str(error)
            except Exception as error:
                logger.exception("unexpected")
                answer = None, clean(f"{type(error).__name__}: {error}")
            with suppress(OSError):
                connection.send(answer)
                watcher.join()


def ask(address: str, key: bytes, verb: Callable[..., Any], *arguments: object) -> Any:
    """Ask the planner, and wait for its answer, which takes as long as the vendor's jobs do.

    Args:
        address: Where it is asked.
        key: With which.
        verb: A function of `planner`.
        arguments: Settings as JSON text, the stream's name, and its further arguments.

    Raises:
        TapError: It can't do what is asked for, or is not there.
    """
    try:
        with Client(address, "AF_UNIX", authkey=key) as connection:
            connection.send((verb.__name__, *arguments))
            answer, trouble = connection.recv()
    except (OSError, EOFError):
        raise TapError(
            "the planner does not answer: the Python process that called register(spark) has ended, or is on "
            "another machine, as it is with Spark Connect"
        ) from None
    if trouble is not None:
        raise TapError(trouble)
    return answer
