"""The period a person means: a local day, a local month, or from one moment to another."""

from datetime import UTC, date, datetime
from typing import NamedTuple

from kapelle.api.times import to_ns
from kapelle.errors import Invalid, Problem
from kapelle.history.days import local_day, local_month, zone


class Period(NamedTuple):
    """[starts_at_ns, ends_at_ns) in UTC."""

    starts_at_ns: int
    ends_at_ns: int


_FIRST_NS = 0
_LAST_NS = to_ns(datetime(2200, 1, 1, tzinfo=UTC))
"""Beyond that somebody mistyped, and 64 bit end in 2262."""


def period(
    *,
    day: str | None = None,
    month: str | None = None,
    since: str | None = None,
    until: str | None = None,
    tz: str = "UTC",
) -> Period:
    """Return the period that is meant.

    Args:
        day: `2026-11-22`, in the zone `tz`; or
        month: `2026-11`; or
        since: RFC 3339 with a zone, together with
        until: which is exclusive.
        tz: IANA name.

    Raises:
        Invalid: None is given, or several, or one cannot be read.
    """
    given = [name for name, value in (("day", day), ("month", month)) if value]
    given += ["from, to"] if since or until else []
    if len(given) != 1:
        found = " and ".join(given) or "none is given"
        raise _invalid("period", found, "give either day, or month, or from and to")
    try:
        meant = _meant(day, month, since, until, tz)
        if meant.starts_at_ns < _FIRST_NS or meant.ends_at_ns > _LAST_NS:
            raise ValueError("it lies outside of 1970 to 2200")
        return meant
    except (ValueError, OverflowError) as error:
        remedy = "write 2026-11-22, 2026-11 or 2026-11-22T10:00:00Z"
        raise _invalid(given[0], str(error), remedy) from error


def _meant(
    day: str | None, month: str | None, since: str | None, until: str | None, tz: str
) -> Period:
    if day:
        local = local_day(date.fromisoformat(day), zone(tz))
        return Period(local.starts_at_ns, local.ends_at_ns)
    if month:
        first = date.fromisoformat(f"{month}-01")
        days = local_month(first.year, first.month, zone(tz))
        return Period(days[0].starts_at_ns, days[-1].ends_at_ns)
    if not (since and until):
        raise ValueError("one of them is missing")
    starts, ends = datetime.fromisoformat(since), datetime.fromisoformat(until)
    if starts.tzinfo is None or ends.tzinfo is None:
        raise ValueError("a time zone is missing: end it with Z or +01:00")
    if starts >= ends:
        raise ValueError("it ends before it begins")
    return Period(to_ns(starts), to_ns(ends))


def _invalid(place: str, what: str, remedy: str) -> Invalid:
    return Invalid("which period is meant?", [Problem(place, what, remedy)])
