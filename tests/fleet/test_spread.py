"""Ages, skews and states add up to the devices there are, bucket by bucket."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.columns import Fleet
from kapelle.fleet.spread import AGE_BOUNDS_S, SKEW_BOUNDS_S, spread
from kapelle.model.enums import DeviceKind, Freshness
from kapelle.model.ids import NS_PER_S

NOW = 1_790_000_000 * NS_PER_S
_UNKNOWN = np.iinfo(np.int64).max

ns = st.integers(0, 10**14) | st.integers(0, 20).map(lambda n: 2**n * NS_PER_S) | st.just(0)
devices = st.lists(
    st.tuples(
        st.booleans(), st.sampled_from(list(DeviceKind)), st.sampled_from(list(Freshness)),
        st.none() | ns, st.none() | st.integers(-10**13, 10**13) | ns,
    ),
    max_size=30,
)  # fmt: skip


def slowly(values: list[float], bounds: tuple[float, ...]) -> list[int]:
    """The obvious way: at most each bound, and beyond."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[next((n for n, bound in enumerate(bounds) if value <= bound), len(bounds))] += 1
    return counts


@given(devices)
def test_as_counted_one_by_one(rows: list[tuple[bool, int, int, int | None, int | None]]) -> None:
    fleet = Fleet.empty(capacity=len(rows))
    fleet.size, fleet.now_ns = len(rows), NOW
    for row, (active, kind, state, age_ns, skew_ns) in enumerate(rows):
        fleet.active[row], fleet.kind[row], fleet.freshness[row] = active, kind, state
        fleet.received_at_ns[row] = 0 if age_ns is None else NOW - age_ns
        fleet.skew_ns[row] = _UNKNOWN if skew_ns is None else skew_ns
    told = spread(fleet)
    assert told is not None
    ages = [row[3] / NS_PER_S for row in rows if row[0] and row[3] is not None]
    skews = [row[4] / NS_PER_S for row in rows if row[0] and row[4] is not None]
    assert told.ages == slowly(ages, AGE_BOUNDS_S)
    assert told.behind == slowly([s for s in skews if s >= 0], SKEW_BOUNDS_S)
    assert told.ahead == slowly([-s for s in skews if s < 0], SKEW_BOUNDS_S)
    assert np.isclose(told.age_s, sum(ages))
    assert np.isclose(told.behind_s - told.ahead_s, sum(skews))
    for kind in DeviceKind:
        states = [sum(r[0] and r[1] == kind and r[2] == f for r in rows) for f in Freshness]
        assert told.states.get(kind.name.lower(), [0] * len(Freshness)) == states


def test_told_now_and_then() -> None:
    fleet = Fleet.empty()
    fleet.now_ns = NOW + NS_PER_S
    assert spread(fleet) is None
