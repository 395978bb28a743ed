from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_analytics_exports.windows import DAY, Grid, Window, to_do

ZONES = sorted(zone for zone in available_timezones() if "/" in zone)
lengths = st.one_of(
    st.integers(1, 24).map(lambda hours: timedelta(hours=hours)),
    st.integers(1, 40).map(lambda days: timedelta(days=days)),
)
moments = st.datetimes(datetime(2005, 1, 1), datetime(2030, 1, 1)).map(lambda m: m.replace(tzinfo=UTC))
spans = st.timedeltas(timedelta(0), timedelta(days=20))
grids = st.builds(Grid, lengths, st.sampled_from(ZONES).map(ZoneInfo), moments)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def shown(windows) -> list[str]:
    return [f"{w.start:%d %H:%M} - {w.end:%d %H:%M}" for w in windows]


@given(grids, spans)
def test_a_first_run_covers_everything_once(grid, span):
    end = grid.origin + span
    windows = list(to_do(grid, bookmark=None, lookback=timedelta(0), end=end))
    assert all(w.start < w.end for w in windows)
    assert all(one.end == next_.start for one, next_ in pairwise(windows))
    if span:
        assert (windows[0].start, windows[-1].end) == (grid.origin, end)
    else:
        assert windows == []


@given(grids, spans, spans)
def test_a_run_that_was_cut_goes_on_where_the_uncut_one_would_be(grid, span, more):
    """Whatever the moment at which a run ends, the next one's windows are those of one long run."""
    cut, end = grid.origin + span, grid.origin + span + more
    at_once = list(to_do(grid, bookmark=None, lookback=timedelta(0), end=end))
    first = list(to_do(grid, bookmark=None, lookback=timedelta(0), end=cut))
    bookmark = first[-1].end if first else None
    then = list(to_do(grid, bookmark=bookmark, lookback=timedelta(0), end=end))
    whole = [w for w in first if w in at_once]
    assert whole + then == at_once or (not more and then == [])


@given(grids, spans, spans)
def test_a_lookback_begins_at_a_boundary_and_never_before_the_start(grid, span, lookback):
    end = grid.origin + span
    every = list(grid.windows(grid.origin, end))
    again = list(to_do(grid, bookmark=end, lookback=lookback, end=end))
    assert again == every[len(every) - len(again) :]
    if lookback and span:
        assert again[0].start <= max(grid.origin, end - lookback) < again[0].end


@given(grids, spans)
def test_days_begin_at_local_midnight(grid, span):
    if grid.length < DAY:
        return
    for window in list(grid.windows(grid.origin, grid.origin + span))[1:]:
        local = window.start.astimezone(grid.zone)
        before = (window.start - timedelta(microseconds=1)).astimezone(grid.zone)
        assert before.date() < local.date()  # the day's first moment, which need not read 00:00


def test_days_of_23_and_25_hours():
    grid = Grid(DAY, ZoneInfo("Europe/Helsinki"), at("2026-03-28T00:00+02:00"))
    assert [
        (w.end - w.start) // timedelta(hours=1)
        for w in grid.windows(grid.origin, at("2026-03-31T00:00+03:00"))
    ] == [24, 23, 24]
    grid = Grid(DAY, ZoneInfo("Europe/Helsinki"), at("2026-10-24T00:00+03:00"))
    assert [
        (w.end - w.start) // timedelta(hours=1)
        for w in grid.windows(grid.origin, at("2026-10-27T00:00+02:00"))
    ] == [24, 25, 24]


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-28", [6, 6, 6, 6]), ("2026-03-29", [6, 6, 6, 5]), ("2026-10-25", [6, 6, 6, 7])],
)
def test_the_last_window_of_a_day_takes_what_the_clocks_take(day, hours):
    zone = ZoneInfo("Europe/Helsinki")
    start = datetime.combine(datetime.fromisoformat(day), time.min, zone)
    grid = Grid(timedelta(hours=6), zone, start.astimezone(UTC))
    found = grid.windows(grid.origin, (start + DAY).astimezone(UTC))
    assert [(w.end - w.start) // timedelta(hours=1) for w in found] == hours


def test_the_last_window_of_a_day_is_shorter_where_the_length_does_not_divide_it():
    grid = Grid(timedelta(hours=9), ZoneInfo("UTC"), at("2026-01-01T00:00+00:00"))
    assert shown(grid.windows(grid.origin, at("2026-01-02T00:00+00:00"))) == [
        "01 00:00 - 01 09:00",
        "01 09:00 - 01 18:00",
        "01 18:00 - 02 00:00",
    ]


def test_weeks_are_counted_from_the_start_date():
    grid = Grid(timedelta(days=7), ZoneInfo("UTC"), at("2026-01-02T05:00+00:00"))
    assert shown(grid.windows(grid.origin, at("2026-01-20T00:00+00:00"))) == [
        "02 05:00 - 09 00:00",
        "09 00:00 - 16 00:00",
        "16 00:00 - 20 00:00",
    ]


def test_a_bookmark_on_a_boundary_repeats_nothing_and_one_within_a_window_repeats_it_whole():
    grid = Grid(DAY, ZoneInfo("UTC"), at("2026-01-01T00:00+00:00"))
    none = timedelta(0)
    now = at("2026-01-05T13:00+00:00")
    assert list(to_do(grid, bookmark=now, lookback=none, end=now)) == []
    assert shown(to_do(grid, bookmark=now, lookback=none, end=at("2026-01-05T14:00+00:00"))) == [
        "05 00:00 - 05 14:00"
    ]
    assert shown(to_do(grid, bookmark=at("2026-01-05T00:00+00:00"), lookback=none, end=now)) == [
        "05 00:00 - 05 13:00"
    ]


def test_a_later_start_date_skips_ahead_and_an_earlier_bookmark_does_not_hold_it_back():
    grid = Grid(DAY, ZoneInfo("UTC"), at("2026-02-01T00:00+00:00"))
    found = to_do(grid, bookmark=at("2026-01-05T00:00+00:00"), lookback=DAY, end=at("2026-02-02T00:00+00:00"))
    assert shown(found) == ["01 00:00 - 02 00:00"]


@given(moments, st.timedeltas(timedelta(seconds=1), timedelta(days=3)))
def test_halves_are_the_whole(start, length):
    window = Window(start, start + length)
    halves = window.halves()
    if halves is None:
        assert length < timedelta(seconds=2)
    else:
        assert (halves[0].start, halves[0].end, halves[1].end) == (window.start, halves[1].start, window.end)
