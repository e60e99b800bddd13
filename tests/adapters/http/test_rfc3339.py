"""Times as text: the usual form and the others agree with the standard library."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.http.rfc3339 import parse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-22T09:41:06Z", 1_795_340_466_000_000_000),
        ("2026-11-22T09:41:06.5Z", 1_795_340_466_500_000_000),
        ("2026-11-22T09:41:06.123456789Z", 1_795_340_466_123_456_789),
        ("2026-11-22t09:41:06z", 1_795_340_466_000_000_000),
        ("2026-11-22 10:41:06+01:00", 1_795_340_466_000_000_000),
        ("2026-11-22T04:11:06.000-05:30", 1_795_340_466_000_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
        ("2026-11-22T09:41:06", None),  # no zone: nobody can tell
        ("2023-02-29T00:00:00Z", None),
        ("2026-04-31T00:00:00Z", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-11-22T24:00:00Z", None),
        ("2026-11-22T09:60:00Z", None),
        ("2026-11-22T09:41:61Z", None),
        ("2026-11-22", None),
        ("1790000000", None),
        ("", None),
        ("٢٠٢٦-11-22T09:41:06Z", None),
        ("2026-11-22T09:41:06Z\n", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-01-01T00:00:00Z", None),
    ],
)
def test_examples(text: str, at_ns: int | None) -> None:
    parsed, is_bad = parse([text])
    assert (None if is_bad[0] else int(parsed[0])) == at_ns


moments = st.datetimes(datetime(1970, 1, 2), datetime(2261, 1, 1), timezones=st.just(UTC))


@given(
    st.lists(st.tuples(moments, st.sampled_from(["Z", "+00:00", "+05:30", "-11:00"])), max_size=6)
)
def test_as_the_standard_library_reads_them(told: list[tuple[datetime, str]]) -> None:
    texts = [at.replace(tzinfo=None).isoformat() + zone for at, zone in told]
    parsed, is_bad = parse(texts)
    assert not is_bad.any()
    for text, at_ns in zip(texts, parsed.tolist(), strict=True):
        since = datetime.fromisoformat(text) - EPOCH
        assert at_ns == since // timedelta(microseconds=1) * 1_000


@given(st.lists(st.text("0123456789-T:.Z+ ", max_size=32), max_size=5))
def test_never_fails_and_no_row_depends_on_its_neighbours(texts: list[str]) -> None:
    parsed, is_bad = parse(texts)
    for place, text in enumerate(texts):
        alone, alone_bad = parse([text])
        assert (parsed[place], is_bad[place]) == (alone[0], alone_bad[0])
    assert not np.any(parsed[is_bad])
