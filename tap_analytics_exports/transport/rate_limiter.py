"""How often a provider may be asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from tap_analytics_exports.errors import Interrupted

_SLICE = 1.0
"""Seconds after which who waits looks whether the run was asked to stop."""


class RateLimiter:
    """At most `per_minute` requests in every span of 60 seconds, over all threads.

    A request counts from its leaving until 60 seconds after its answer began, for that is the latest time
    at which it can have arrived: so the rate holds where the provider counts, however long the way there is.
    """

    _SPAN = 60.1

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._changed = threading.Condition()
        self._under_way = 0
        self._answered: deque[float] = deque()

    @contextmanager
    def turn(self, stop: threading.Event | None = None) -> Iterator[None]:
        """Wait until a request may leave; its answer has begun, or failed, when the block ends.

        Raises:
            Interrupted: `stop` was set meanwhile.
        """
        if self._per_minute is None:
            yield
            return
        with self._changed:
            while self._under_way + self._recent() >= self._per_minute:
                if stop is not None and stop.is_set():
                    raise Interrupted
                left = self._answered[0] + self._SPAN - time.monotonic() if self._answered else _SLICE
                self._changed.wait(min(left, _SLICE))
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._answered.append(time.monotonic())
                self._changed.notify_all()

    def _recent(self) -> int:
        while self._answered and self._answered[0] <= time.monotonic() - self._SPAN:
            self._answered.popleft()
        return len(self._answered)
