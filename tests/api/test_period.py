"""A person names a period or a revision, and is told where none is meant."""

from datetime import UTC, datetime

import pytest

from kapelle.api.energy_shapes import revision_of
from kapelle.api.period import period
from kapelle.api.times import to_ns
from kapelle.errors import Invalid

HOUR_NS = 3_600 * 10**9


def test_a_local_day_has_the_hours_its_zone_gives_it() -> None:
    starts, ends = period(day="2026-10-25", tz="Europe/Berlin")
    assert starts == to_ns(datetime(2026, 10, 24, 22, tzinfo=UTC))
    assert ends - starts == 25 * HOUR_NS


def test_a_month_and_two_moments() -> None:
    starts, ends = period(month="2026-03", tz="Europe/Berlin")
    assert ends - starts == (31 * 24 - 1) * HOUR_NS
    assert period(since="2026-03-01T00:00:00+01:00", until="2026-03-31T22:00:00Z") == (starts, ends)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "none is given"),
        ({"day": "2026-01-01", "month": "2026-01"}, "day and month"),
        ({"day": "22.11.2026"}, "2026-11-22"),
        ({"month": "2026-13"}, "month"),
        ({"since": "2026-01-01T00:00:00Z"}, "missing"),
        ({"since": "2026-01-01T00:00:00", "until": "2026-01-02T00:00:00"}, "time zone"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "before it begins"),
        ({"day": "2026-01-01", "tz": "Mars/Olympus"}, "IANA"),
        ({"day": "0001-01-01"}, "1970 to 2200"),
        ({"month": "9999-12"}, "month"),
        ({"since": "0001-01-01T00:00:00+14:00", "until": "2026-01-01T00:00:00Z"}, "1970"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: dict[str, str], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        period(**asked)


def test_a_revision_is_a_word_or_a_number() -> None:
    assert [revision_of(text) for text in ("latest", "all", "0", "12")] == ["latest", "all", 0, 12]


@pytest.mark.parametrize("text", ["", "-1", "newest", "1.5", "²"])
def test_a_revision_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="latest, all"):
        revision_of(text)
