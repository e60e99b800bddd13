"""Local days and months as periods of UTC: days of 23, 24 and 25 hours, and odd ones."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from kapelle.model.ids import NS_PER_S, Longs

QUARTER_NS = 900 * NS_PER_S
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def day(local: date, zone: str) -> tuple[int, int]:
    """Return start and end of a local day. [UTC ns]

    Raises:
        ValueError: There is no such zone.
    """
    tz = _zone(zone)
    return _midnight_ns(local, tz), _midnight_ns(local + timedelta(days=1), tz)


def month(year: int, number: int, zone: str) -> tuple[int, int]:
    """Return start and end of a local month, 1 to 12. [UTC ns]

    Raises:
        ValueError: There is no such month, or no such zone.
    """
    tz = _zone(zone)
    first = date(year, number, 1)
    after = date(year + number // 12, number % 12 + 1, 1)
    return _midnight_ns(first, tz), _midnight_ns(after, tz)


def quarters(starts_at_ns: int, ends_at_ns: int) -> Longs:
    """Return the edges of the quarter-hours of a period: 93, 97 or 101 for most local days.

    Where a zone's offset is no multiple of 15 minutes the first and last are cut.
    """
    first = -(-starts_at_ns // QUARTER_NS) * QUARTER_NS
    inner = np.arange(first, ends_at_ns, QUARTER_NS, dtype=np.int64)
    return np.unique(np.concatenate(([starts_at_ns], inner, [ends_at_ns])).astype(np.int64))


def _midnight_ns(local: date, zone: ZoneInfo) -> int:
    # Where clocks jump over midnight, the day begins at the jump: the offset before it says so.
    since = datetime(local.year, local.month, local.day, tzinfo=zone).astimezone(UTC) - _EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone {name!r}; write an IANA name: Europe/Berlin") from error
