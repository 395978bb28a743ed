"""What comes next is made while what came before is used."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T], name: str) -> Generator[T]:
    """The same items, made in a thread of their own: one is in use, the next one in the making or waiting.

    An error leaves where the item that failed would have been. The thread ends with the generator: who might
    not take all items has to close it, and then waits for the one in the making.

    Args:
        items: A generator that nobody else uses; it is run, and closed, in the thread.
        name: Of the thread.
    """
    made: SimpleQueue[list[T] | BaseException] = SimpleQueue()  # one item, or none at the end
    wanted: SimpleQueue[str] = SimpleQueue()  # a word for each item that is taken, "" when no other will be

    def make() -> None:
        try:
            with closing(items):
                for item in items:
                    made.put([item])
                    del item  # so that it goes once it was used
                    if not wanted.get():
                        return
        except BaseException as error:  # noqa: BLE001 - raised where the items are used
            made.put(error)
        else:
            made.put([])

    thread = threading.Thread(target=make, name=name, daemon=True)
    thread.start()
    try:
        while next_ := made.get():
            if isinstance(next_, BaseException):
                raise next_
            wanted.put("next")
            yield next_.pop()
    finally:
        wanted.put("")
        thread.join()
