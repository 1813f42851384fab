"""Times of the week in which something may leave."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from fedsparse.config import DAYS, EgressSettings, Window, zone_of

_DAY = 24 * 60
WEEK = 7 * _DAY
"""Minutes of a week."""


@lru_cache(maxsize=8)  # a policy asks for the same ones at every message
def minutes_of(windows: tuple[Window, ...] | None) -> frozenset[int]:
    """Return the minutes of the week, from Monday 00:00 on, that lie in any window; None is always."""
    if windows is None:
        return frozenset(range(WEEK))
    return frozenset(minute % WEEK for window in windows for minute in _minutes(window))


def _minutes(window: Window) -> list[int]:
    start, end = _minute(window.start), _minute(window.end)
    if end < start:
        end += _DAY  # it ends on the next day
    return [DAYS.index(day) * _DAY + minute for day in window.days for minute in range(start, end)]


def _minute(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def local_time(settings: EgressSettings, time_unix_ms: int) -> datetime:
    """Return a moment as the clocks of the policy's time zone have it.

    Raises:
        ValueError, OverflowError, OSError: there is no such moment.
    """
    return datetime.fromtimestamp(time_unix_ms / 1000, zone_of(settings.timezone))


def minute_of_week(moment: datetime) -> int:
    """Return the minutes since Monday 00:00."""
    return moment.weekday() * _DAY + moment.hour * 60 + moment.minute
