"""Items made in a thread: the same ones, one ahead at most, and no thread that is left behind."""

import threading
import time
from contextlib import closing

import pytest

from tap_analytics_exports.ahead import ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "maker"]


def counting(made, fail_at=None):
    try:
        for i in range(100):
            if i == fail_at:
                raise OSError(i)
            made.append(i)
            yield i
    finally:
        made.append(threading.current_thread().name)


def test_items_come_in_their_order():
    made = []
    assert list(ahead(counting(made), "maker")) == list(range(100))
    assert made == [*range(100), "maker"]
    assert threads() == []


def test_one_item_is_made_ahead_and_no_more():
    made = []
    with closing(ahead(counting(made), "maker")) as items:
        assert [next(items), next(items)] == [0, 1]
        time.sleep(0.1)
        assert made == [0, 1, 2]
    assert made == [0, 1, 2, "maker"]
    assert threads() == []


def test_who_never_asks_leaves_no_thread():
    made = []
    ahead(counting(made), "maker").close()
    assert made == []
    assert threads() == []


def test_an_error_comes_after_the_items_before_it():
    items = ahead(counting([], fail_at=3), "maker")
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="3"):
        next(items)
    assert threads() == []


def test_one_within_another():
    made = []
    with closing(ahead((2 * i for i in ahead(counting(made), "inner")), "maker")) as items:
        assert [next(items), next(items)] == [0, 2]
    assert threads() == []
    assert made[-1] == "inner"
