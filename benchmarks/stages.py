"""Where the time of a run goes: processor time of each thread, and of what takes most of it there.

    python benchmarks/stages.py 2000000 stages.txt --config config.json > messages.jsonl

The tap runs in this process, with the arguments that come after the number of rows and the file for the
result. Each call, of functions in C, too, is seen by `sys.setprofile`, and its own time taken, without that
of what it calls, by the clock of its thread. So there is no time in it that a thread waits, and the figures
don't depend on how many cores there are. To look costs some, and most where Python calls much, so they are to
be compared with each other. Functions in Cython, as those of pyarrow, are not seen, and count as who calls
them: of `csv._table` nearly all is pyarrow's parser. What the tap imports is imported before.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

MODULES = ("tap", "writing", "casting", "batches", "parse.csv", "parse.xlsx", "parse.json")
SHOWN = 0.02
"""The least share of all that a thread is shown with; half of it is a function's."""


class Watch:
    """Sees the calls of all threads.

    Attributes:
        spent: Seconds of the processor, by thread, and in it by function.
    """

    def __init__(self) -> None:
        self.spent: dict[str, Counter[str]] = defaultdict(Counter)
        self._here = threading.local()

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        """Note what has passed in the thread since the last call or return."""
        now = time.thread_time()
        here = self._here.__dict__
        calls = here.setdefault("calls", ["others"])
        own = here.get("own")
        if own is None:
            own = here["own"] = self.spent[threading.current_thread().name]
        own[calls[-1]] += now - here.get("last", now)
        if event == "call":
            calls.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")
        elif event == "c_call":
            module = getattr(function, "__module__", None) or type(function.__self__).__name__
            calls.append(f"{module}.{function.__name__}")
        elif len(calls) > 1:  # a return from what was called before it was looked at
            calls.pop()
        here["last"] = time.thread_time()

    def lines(self, rows: int) -> list[str]:
        """Microseconds a row, by thread, the threads that take most first."""
        whole = sum(own.total() for own in self.spent.values())
        lines = []
        for name, own in sorted(self.spent.items(), key=lambda item: -item[1].total()):
            if own.total() < SHOWN * whole:
                continue
            lines.append(f"{own.total() / rows * 1e6:6.2f}  {name}")
            large = [(what, spent) for what, spent in own.most_common() if spent >= SHOWN / 2 * whole]
            lines += [f"{spent / rows * 1e6:14.2f}  {what}" for what, spent in large]
            lines.append(f"{(own.total() - sum(spent for _, spent in large)) / rows * 1e6:14.2f}  the rest")
        lines.append(f"{whole / rows * 1e6:6.2f}  all threads")
        return lines


def main() -> None:
    """Run the tap, and write what was seen when it ends."""
    rows, output = int(sys.argv.pop(1)), Path(sys.argv.pop(1))
    for name in MODULES:
        importlib.import_module(f"tap_analytics_exports.{name}")
    from tap_analytics_exports.singer.tap import TapAnalyticsExports

    watch, leave = Watch(), os._exit

    def end(code: int) -> None:
        sys.setprofile(None)
        threading.setprofile(None)
        output.write_text("\n".join(watch.lines(rows)) + "\n")
        leave(code)

    os._exit = end  # type: ignore[assignment] - with which the tap ends
    threading.setprofile(watch)
    sys.setprofile(watch)
    TapAnalyticsExports.cli()


if __name__ == "__main__":
    main()
