"""Local days: markets settle by the clock on the wall, and twice a year its day is odd.

A day is the time between two midnights of one zone; its quarter-hours follow each other in real
time. So an ordinary day has 96, the day the clocks go forward 92 and the day they go back 100 (94
and 98 where they move by half an hour). The ledger's own quarter-hours lie on multiples of 900 s
UTC, and every zone in use today is a multiple of that away from UTC.
"""

import datetime
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from kapelle.errors import Invalid
from kapelle.history.tables import QUARTER_NS
from kapelle.model.ids import NS_PER_S, Longs

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UTC_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class LocalDay:
    """One day of a zone."""

    date: datetime.date
    starts_at_ns: int
    """[starts_at_ns, ends_at_ns) [UTC ns]"""
    ends_at_ns: int

    @property
    def edges_ns(self) -> Longs:
        """Return the edges of its quarter-hours, the first and the last those of the day itself."""
        return np.arange(self.starts_at_ns, self.ends_at_ns + 1, QUARTER_NS)

    @property
    def quarters(self) -> int:
        """Return how many quarter-hours it has: 96, and twice a year others."""
        return (self.ends_at_ns - self.starts_at_ns) // QUARTER_NS


def zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name. Raises Invalid where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(
            f"there is no time zone {name!r}; write its IANA name, for example Europe/Vienna"
        ) from error


def local_day(date: datetime.date, zone: ZoneInfo) -> LocalDay:
    """Return a day of a zone. Its end is the start of the next, so days leave nothing out.

    Raises:
        Invalid: The zone has no such day (it crossed the date line), or its clock was not a
            multiple of a quarter-hour away from UTC then.
    """
    starts_at_ns, ends_at_ns = _midnight_ns(date, zone), _midnight_ns(date + _UTC_DAY, zone)
    if ends_at_ns <= starts_at_ns:
        raise Invalid(f"{zone.key} left out {date}")
    if starts_at_ns % QUARTER_NS or ends_at_ns % QUARTER_NS:
        raise Invalid(f"on {date} the quarter-hours of {zone.key} were not those of UTC")
    return LocalDay(date, starts_at_ns, ends_at_ns)


def local_days(first: datetime.date, last: datetime.date, zone: ZoneInfo) -> list[LocalDay]:
    """Return every day of a zone from one to another, both included; those it left out are not."""
    days = []
    for ordinal in range(first.toordinal(), last.toordinal() + 1):
        date = datetime.date.fromordinal(ordinal)
        if _midnight_ns(date + _UTC_DAY, zone) > _midnight_ns(date, zone):
            days.append(local_day(date, zone))
    return days


def local_month(year: int, month: int, zone: ZoneInfo) -> list[LocalDay]:
    """Return the days of a month of a zone."""
    first = datetime.date(year, month, 1)
    after = datetime.date(year + month // 12, month % 12 + 1, 1)
    return local_days(first, after - _UTC_DAY, zone)


def day_of(at_ns: int, zone: ZoneInfo) -> LocalDay:
    """Return the day of a zone that a moment belongs to."""
    at = _EPOCH + datetime.timedelta(seconds=at_ns // NS_PER_S)
    return local_day(at.astimezone(zone).date(), zone)


def _midnight_ns(date: datetime.date, zone: ZoneInfo) -> int:
    """Return when a day begins: at the first moment of it that the zone's clock shows."""
    midnight = datetime.datetime.combine(date, datetime.time(), zone)
    # Where the clock goes forward at midnight, 00:00 is not shown; taken with the offset before,
    # it is the very moment of the change. Where it goes back to before midnight, 00:00 is shown
    # twice and the day, having begun, goes on: fold 0 is the first of the two.
    offset = midnight.replace(fold=0).utcoffset()
    assert offset is not None
    since = midnight.replace(tzinfo=datetime.UTC) - offset - _EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S
