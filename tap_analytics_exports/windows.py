"""Windows: a bookmark, a lookback and a clock become the spans of time to export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Self
from zoneinfo import ZoneInfo

from tap_analytics_exports.errors import SettingsError

DAY = timedelta(days=1)

_YEARS = (1900, 9998)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The half-open span `[start, end)`, in UTC."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        """For messages, as `start/end`."""
        return f"{self.start.isoformat()}/{self.end.isoformat()}"

    @classmethod
    def between(cls, start: datetime, end: datetime, zone: tzinfo = UTC) -> Self:
        """A window of any two points in time, which without an offset are those of a zone.

        Raises:
            SettingsError: There is nothing between them, or no calendar reaches there.
        """
        start, end = (each if each.tzinfo else each.replace(tzinfo=zone) for each in (start, end))
        shown = f"{start.isoformat()}/{end.isoformat()}"
        if not all(_YEARS[0] <= each.year <= _YEARS[1] for each in (start, end)):
            raise SettingsError([f"{shown}: must be within the years {_YEARS[0]} to {_YEARS[1]}"])
        if start >= end:
            raise SettingsError([f"{shown}: its end must be after its start"])
        return cls(start.astimezone(UTC), end.astimezone(UTC))

    def days(self, zone: ZoneInfo) -> tuple[date, date]:
        """The first and the last calendar day in `zone` that the window touches."""
        last = self.end - timedelta(microseconds=1)
        return self.start.astimezone(zone).date(), last.astimezone(zone).date()

    def halves(self) -> tuple[Window, Window] | None:
        """The window in two, parted at a whole second; None when it is too short for that."""
        middle = self.start + timedelta(seconds=(self.end - self.start) // timedelta(seconds=2))
        if not self.start < middle < self.end:
            return None
        return Window(self.start, middle), Window(middle, self.end)


@dataclass(frozen=True, slots=True)
class Grid:
    """The boundaries that windows lie between.

    Windows of a day or less are counted in elapsed hours from local midnight, and the last of a day ends
    with the day, so days of 23 and 25 hours have as many windows as any other. Longer windows are whole
    local days, counted from the day of `origin`.

    Attributes:
        length: A window's length; more than a day only in whole days.
        zone: Whose midnights count.
        origin: The export's start, in UTC.
    """

    length: timedelta
    zone: ZoneInfo
    origin: datetime

    def windows(self, start: datetime, end: datetime) -> Iterator[Window]:
        """The windows from the boundary at or before `start` on; the last may be cut by `end`.

        None of them begins before the origin, where the first may be cut too.
        """
        for left, right in self._whole(start, end):
            cut = Window(max(left, self.origin), min(right, end))
            if cut.start < cut.end:
                yield cut

    def touching(self, span: Window, end: datetime) -> Iterator[Window]:
        """The windows that touch a span, whole but for the cut by `end`; some may be before the origin.

        Where the origin parts a window, its two parts are windows, for with the later one a first run began.
        """
        for left, right in self._whole(span.start, min(span.end, end)):
            for start, stop in ((left, min(right, self.origin)), (max(left, self.origin), right)):
                window = Window(start, min(stop, end))
                if window.start < window.end and window.start < span.end and span.start < window.end:
                    yield window

    def _whole(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The grid's pairs of boundaries from the one at or before `start` to the one at or behind `end`."""
        if start >= end:
            return
        day = self._first_day(start.astimezone(self.zone).date())
        while self._midnight(day) < end:
            for left, right in pairwise(self._boundaries(day)):
                if left < end and right > start:
                    yield left, right
            day += max(self.length, DAY)

    def _first_day(self, day: date) -> date:
        if self.length <= DAY:
            return day
        origin = self.origin.astimezone(self.zone).date()
        return origin + (day - origin) // self.length * self.length

    def _boundaries(self, day: date) -> Iterator[datetime]:
        """Those within one day, or the two of a row of days; skipped midnights leave windows of no length."""
        midnight = self._midnight(day)
        following = self._midnight(day + max(self.length, DAY))
        yield midnight
        count = -(DAY // -self.length) if self.length < DAY else 1
        for i in range(1, count):
            yield min(midnight + i * self.length, following)
        yield following

    def _midnight(self, day: date) -> datetime:
        """The beginning of a local day, in UTC, also where clocks skip midnight or pass it twice."""
        return datetime.combine(day, time.min, self.zone).astimezone(UTC)


def to_do(grid: Grid, *, bookmark: datetime | None, lookback: timedelta, end: datetime) -> Iterator[Window]:
    """The windows of one run.

    Args:
        grid: The export's grid; its origin is the export's `start_date`.
        bookmark: Where the rows that were written end, in UTC; None on a first run.
        lookback: How far behind the bookmark to reach again for late rows.
        end: The exclusive end of the run, in UTC.
    """
    if bookmark is None:
        yield from grid.windows(grid.origin, end)
    elif lookback or end > bookmark:
        # As a difference, for a bookmark of anybody's may lie where no calendar reaches behind it.
        start = bookmark - lookback if bookmark - grid.origin > lookback else grid.origin
        yield from grid.windows(start, end)
