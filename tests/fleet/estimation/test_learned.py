"""What a plant makes of what its partitions teach it."""

from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.estimation.evidence import OCTAVES
from kapelle.fleet.estimation.learned import Learned, hear, merged
from kapelle.fleet.estimation.levels import level_then
from kapelle.fleet.estimation.scatter import Cell, Moves, Prior, strayed
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.model.summaries import Curve, Evidence, ResourceSummary, Summary

LOAD = int(DeviceKind.HEAT_PUMP)
FLAT = Curve([0.0], [0.0])
sums = st.floats(0.0, 1e3)


def told(tick: int, evidence: Evidence) -> Summary:
    part = ResourceSummary(
        resource=ALL,
        devices=1,
        power_w=0.0,
        variance_w2=0.0,
        shared_std_w={},
        measured_w=0.0,
        freshness=[0] * 5,
        oldest_age_s=0.0,
        nameplate_w=1.0,
        uncontrolled_w=0.0,
        headroom_up_w=0.0,
        headroom_down_w=0.0,
        commanded_w=0.0,
        continuous=FLAT,
        blocks=FLAT,
        phases=[],
        excluded={},
        by_kind_w={},
        vendors={},
        evidence=evidence,
    )
    return Summary(0, tick * NS_PER_S, 1, [part])


def test_partitions_of_two_versions_are_summed_in_one_tick() -> None:
    older = Evidence(steady={2: [1.0, 2.0, 3.0, 4.0, 5.0]})
    newer = Evidence(steady={2: [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]})
    for parts in ((older, newer), (newer, older)):
        assert merged(parts).steady == {2: [2.0, 3.0, 4.0, 5.0, 6.0, 1.0]}


@given(
    cells=st.dictionaries(
        st.integers(0, OCTAVES - 1),
        st.tuples(sums, st.floats(-1e3, 1e3), sums, st.floats(1.0, 100.0)),
    ),
    age_s=st.floats(0.0, 1e9),
)
def test_nobody_silent_strays_further_than_he_was(
    cells: dict[int, tuple[float, float, float, float]], age_s: float
) -> None:
    """Whatever few readings have taught and however long he is silent."""
    learned = Learned()
    for octave, (then2, both, now2, count) in cells.items():
        learned.cells[LOAD * OCTAVES + octave] = Cell(
            freedom=count,
            then2=then2,
            both=both,
            now2=now2,
            age=1.5 * count * 2**octave,
            count=count,
        )
    prior = Prior((0.3, 600.0), Moves(), spread2=0.0, gap_s=4.0, alike=1.0)
    found = strayed(learned.cells, LOAD, age_s, prior)
    assert 0.0 <= found.keep <= 1.0
    assert 0.0 <= found.variance < float("inf")


def test_whom_an_order_leaves_alone_share_no_weather() -> None:
    """Some of a kind run and are taken: that the rest stands still is nothing vendors share."""

    def tick(free: float, at: float) -> Evidence:
        # Ten reports of 1 W devices, the mean of what they do by themselves is -0.5.
        return Evidence(
            levels={LOAD: [10.0, 10.0, -5.0, 0.0, 10.0]},
            groups={
                f"{LOAD}/{vendor}": [free / 2, free / 2 * at, free / 2 * (at * at + 0.01)]
                for vendor in ("acme", "bolt")
            },
        )

    learned = Learned()
    for second in range(1, 120):
        hear(learned, told(second, tick(10.0, -0.5)))
    before = learned.groups[f"{LOAD}/"].shared(10.0)
    for second in range(120, 240):
        hear(learned, told(second, tick(8.0, 0.0)))
    assert learned.groups[f"{LOAD}/"].shared(10.0) == before


def test_the_level_is_compared_over_those_who_were_in_it() -> None:
    """A third falls silent that ran; the rest of the kind is another mean, and nobody moved."""
    learned = Learned()
    for second in range(1, 200):
        hear(learned, told(second, Evidence(levels={LOAD: [15.0, 15.0, -10.0, 0.0, 15.0]})))
    for second in range(200, 300):
        left = {LOAD: [10.0, 10.0, -5.0, 0.0, 10.0]}
        hear(learned, told(second, Evidence(levels=left)))
    level = learned.levels[LOAD]
    assert level.level > -0.62
    assert (
        abs(
            level.level
            - level_then(learned.history, level, LOAD, learned.now_ns / NS_PER_S - 120.0)
        )
        < 1e-9
    )
