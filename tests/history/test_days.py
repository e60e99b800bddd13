"""Local days have 92, 96 or 100 quarter-hours, and nothing between them is lost (R-28)."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.history import days

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kathmandu",
    "Australia/Lord_Howe", "Africa/Cairo", "Asia/Tehran", "Pacific/Apia",
)  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "day", "quarters"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 92),
        ("Europe/Berlin", date(2026, 10, 25), 100),
        ("Europe/Berlin", date(2026, 11, 22), 96),
        ("America/New_York", date(2026, 3, 8), 92),
        ("America/New_York", date(2026, 11, 1), 100),
        # Half an hour of summer time.
        ("Australia/Lord_Howe", date(2026, 10, 4), 94),
        ("Australia/Lord_Howe", date(2026, 4, 5), 98),
        # Offset of 5:45, no summer time.
        ("Asia/Kathmandu", date(2026, 6, 1), 96),
        # Summer time began at midnight: 00:00 did not exist.
        ("America/Sao_Paulo", date(2018, 11, 4), 92),
        # The whole of 30 December 2011 was left out.
        ("Pacific/Apia", date(2011, 12, 29), 96),
    ],
)
def test_quarter_hours_of_a_local_day(zone: str, day: date, quarters: int) -> None:
    assert len(days.quarters(*days.day(day, zone))) - 1 == quarters


@given(st.sampled_from(ZONES), st.dates(date(2020, 1, 1), date(2035, 12, 31)))
def test_days_follow_one_another_without_gap(zone: str, day: date) -> None:
    starts, ends = days.day(day, zone)
    assert starts < ends
    assert days.day(day + timedelta(days=1), zone)[0] == ends
    edges = days.quarters(starts, ends)
    assert (edges[0], edges[-1]) == (starts, ends)
    assert (edges[1:] - edges[:-1]).max() <= days.QUARTER_NS


@given(st.sampled_from(ZONES), st.integers(2020, 2035), st.integers(1, 12))
def test_a_month_is_its_days(zone: str, year: int, month: int) -> None:
    starts, ends = days.month(year, month, zone)
    day, total = date(year, month, 1), 0
    while day.month == month:
        first, last = days.day(day, zone)
        total += last - first
        day += timedelta(days=1)
    assert total == ends - starts


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(ValueError, match="IANA"):
        days.day(date(2026, 1, 1), "Mars/Olympus")
