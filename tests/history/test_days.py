"""Local days: 92, 96 or 100 quarter-hours, none left out and none twice."""

import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.errors import Invalid
from kapelle.history.days import day_of, local_day, local_days, local_month, zone
from kapelle.history.tables import QUARTER_NS
from kapelle.model.ids import NS_PER_S

ZONES = (
    "UTC",
    "Europe/Vienna",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Africa/Cairo",
    "America/Havana",
    "Atlantic/Azores",
)


@pytest.mark.parametrize(
    ("name", "date", "quarters"),
    [
        ("Europe/Vienna", "2026-03-29", 92),
        ("Europe/Vienna", "2026-10-25", 100),
        ("Europe/Vienna", "2026-06-01", 96),
        ("America/New_York", "2026-03-08", 92),
        ("America/New_York", "2026-11-01", 100),
        ("Australia/Lord_Howe", "2026-10-04", 94),
        ("Australia/Lord_Howe", "2026-04-05", 98),
        ("Australia/Adelaide", "2026-10-04", 92),
        ("Australia/Adelaide", "2026-04-05", 100),
        ("America/St_Johns", "2026-03-08", 92),
        ("Asia/Kolkata", "2026-03-29", 96),
        ("Asia/Kathmandu", "2026-10-25", 96),
        ("Pacific/Chatham", "2026-09-27", 92),
        # The clock goes from 23:59:59 to 01:00:00: the day has no midnight.
        ("America/Santiago", "2026-09-06", 92),
        ("Asia/Beirut", "2026-03-29", 92),
        # And back from 24:00 to 23:00: the old day has 25 hours.
        ("America/Santiago", "2026-04-04", 100),
        # And from 01:00 to 00:00: midnight comes twice, on one day.
        ("America/Havana", "2026-11-01", 100),
        ("Atlantic/Azores", "2026-10-25", 100),
    ],
)
def test_quarter_hours_of_a_day(name: str, date: str, quarters: int) -> None:
    day = local_day(datetime.date.fromisoformat(date), ZoneInfo(name))
    assert day.quarters == quarters
    assert len(day.edges_ns) == quarters + 1
    assert (int(day.edges_ns[0]), int(day.edges_ns[-1])) == (day.starts_at_ns, day.ends_at_ns)


@given(st.sampled_from(ZONES), st.dates(datetime.date(2015, 1, 2), datetime.date(2037, 1, 1)))
def test_days_follow_each_other_and_hold_what_the_wall_clock_says(
    name: str, date: datetime.date
) -> None:
    there = ZoneInfo(name)
    days = local_days(date, date + datetime.timedelta(days=3), there)
    for day, following in pairwise(days):
        assert day.ends_at_ns == following.starts_at_ns
    for day in days:
        assert (day.ends_at_ns - day.starts_at_ns) % QUARTER_NS == 0
        for at_ns in (day.starts_at_ns, day.ends_at_ns - NS_PER_S):
            assert day_of(at_ns, there) == day
            shown = datetime.datetime.fromtimestamp(at_ns // NS_PER_S, there)
            assert shown.date() == day.date
        before = datetime.datetime.fromtimestamp(day.starts_at_ns // NS_PER_S - 1, there)
        assert before.date() < day.date


@pytest.mark.parametrize("name", ZONES)
def test_months_of_a_year_are_the_year(name: str) -> None:
    there = ZoneInfo(name)
    days = [day for month in range(1, 13) for day in local_month(2026, month, there)]
    assert len(days) == 365
    assert sum(day.quarters for day in days) == 365 * 96
    for day, following in pairwise(days):
        assert day.ends_at_ns == following.starts_at_ns


def test_a_day_that_was_left_out_is_said() -> None:
    apia = ZoneInfo("Pacific/Apia")
    with pytest.raises(Invalid, match="left out 2011-12-30"):
        local_day(datetime.date(2011, 12, 30), apia)
    assert len(local_month(2011, 12, apia)) == 30


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "", "Europe"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="no time zone"):
        zone(name)
