"""What a host knows of edge nodes, whatever order they say it in."""

from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.sparkplug.codec import INT32, Metric, Payload, Place
from kapelle.adapters.sparkplug.nodes import Nodes, Told
from kapelle.adapters.sparkplug.settings import SparkplugMetric
from kapelle.model import enums

MAPPED = (
    SparkplugMetric("P", "power_w", "W", "export"),
    SparkplugMetric("S", "setpoint_w", "W", "export"),
)


def metric(name: str, value: float | str | None, **more: int) -> Metric:
    whole = {"alias": -1, "timestamp_ms": 5, "datatype": INT32, "is_historical": False} | more
    return Metric(name, value=value, **whole)  # type: ignore[arg-type]  # test data


def say(nodes: Nodes, kind: str, seq: int, *metrics: Metric) -> Told:
    device = "d" if kind.startswith("D") else ""
    return nodes.step(Place(kind, "g/e", device), Payload(seq, list(metrics)))


def born(bdseq: int = 0) -> Nodes:
    nodes = Nodes(MAPPED)
    say(nodes, "NBIRTH", 0, metric("bdSeq", bdseq))
    other = metric("other", 1, alias=6)
    say(nodes, "DBIRTH", 1, other, metric("P", 1, alias=4), metric("S", None))
    return nodes


def values(told: Told) -> list[float]:
    return [value for _, said in told.reports for value in said.values()]


def test_an_alias_stands_for_the_name_its_birth_gave_it() -> None:
    nodes = born()
    # Data need not repeat the type either: a negative Int32 travels as two's complement.
    told = say(nodes, "DDATA", 2, metric("", 2**32 - 700, alias=4, datatype=0))
    assert told.reports == [(5_000_000, {enums.Metric.POWER_W: -700.0})]
    # One of a metric nobody mapped says nothing, one no birth gave asks for another birth.
    assert not values(say(nodes, "DDATA", 3, metric("", 9, alias=6)))
    assert not nodes.unborn
    assert not values(say(nodes, "DDATA", 4, metric("", 9, alias=5)))
    assert list(nodes.unborn) == ["g/e"]


def test_sequence_numbers_go_round_and_a_gap_asks_for_a_birth() -> None:
    nodes = born()
    for count in range(2, 600):
        say(nodes, "DDATA", count % 256, metric("P", count))
    assert not nodes.unborn
    assert not nodes.gapped
    assert values(say(nodes, "DDATA", 601 % 256, metric("P", 7))) == [7.0]
    assert list(nodes.gapped) == ["g/e"]
    nodes.give_up("g/e")
    assert not nodes.gapped
    assert list(nodes.unborn) == ["g/e"]
    say(nodes, "NBIRTH", 0, metric("bdSeq", 0))
    assert not nodes.unborn


@given(st.permutations([2, 3, 4, 5, 6]), st.booleans())
def test_messages_that_come_in_another_order_are_no_gap_once_all_are_there(
    order: list[int], is_repeated: bool
) -> None:
    nodes = born()
    for place, seq in enumerate(order):
        assert bool(nodes.gapped) == (sorted(order[:place]) != [*range(2, 2 + place)])
        for _ in range(1 + is_repeated * (seq == max(order[: place + 1]))):
            assert values(say(nodes, "DDATA", seq, metric("P", seq))) == [seq]
    assert not nodes.gapped
    assert not nodes.unborn
    say(nodes, "DDATA", 7)
    assert not nodes.gapped


def test_a_gap_is_given_up_before_numbers_come_round_to_it() -> None:
    nodes = born()
    for count in range(3, 3 + 200):
        say(nodes, "DDATA", count, metric("P", count))
    assert list(nodes.unborn) == ["g/e"]
    assert not nodes.gapped


def test_a_number_that_cannot_be_asks_for_a_birth() -> None:
    for seq in (-1, 256, 2**64 - 1):
        nodes = born()
        assert values(say(nodes, "DDATA", seq, metric("P", 1))) == [1.0]
        assert list(nodes.unborn) == ["g/e"]


def test_of_devices_that_are_not_enrolled_nothing_is_kept() -> None:
    nodes = born()
    payload = Payload(2, [metric("P", 1)])
    assert nodes.step(Place("DBIRTH", "g/e", "x"), payload, is_known=False) == Told()
    assert say(nodes, "NDEATH", -1, metric("bdSeq", 0)).down == ["g/e", "g/e/d"]
    nodes = born()
    nodes.step(Place("DDATA", "g/e", "x"), payload, is_known=False)
    say(nodes, "DDATA", 3, metric("P", 1))
    assert not nodes.gapped


def test_the_death_of_an_earlier_connection_is_none_of_this_one() -> None:
    nodes = born(bdseq=8)
    assert not say(nodes, "NDEATH", -1, metric("bdSeq", 7)).down
    assert say(nodes, "NDEATH", -1, metric("bdSeq", 8)).down == ["g/e", "g/e/d"]
    assert not nodes.is_born("g/e")


def test_of_two_bdseq_the_last_one_counts() -> None:
    nodes = Nodes(MAPPED)
    say(nodes, "NBIRTH", 0, metric("bdSeq", 1), metric("bdSeq", 2))
    assert say(nodes, "NDEATH", -1, metric("bdSeq", 2)).down == ["g/e"]


def test_a_new_connection_ends_what_was_born_on_the_one_before() -> None:
    nodes = born(bdseq=1)
    assert say(nodes, "NBIRTH", 0, metric("bdSeq", 2)).down == ["g/e/d"]
    # Not so where it only repeats its birth.
    nodes = born(bdseq=1)
    assert not say(nodes, "NBIRTH", 0, metric("bdSeq", 1)).down


def test_history_is_no_echo_and_needs_its_time() -> None:
    nodes = born()
    told = say(nodes, "DDATA", 2, metric("S", 5, is_historical=True))
    assert told.setpoint is None
    told = say(nodes, "DDATA", 3, metric("P", 5, is_historical=True, timestamp_ms=0))
    assert told.faults
    assert not told.reports


def test_null_and_flags_are_no_numbers() -> None:
    nodes = born()
    told = say(nodes, "DDATA", 2, metric("P", None), metric("S", None))
    assert not told.reports
    assert told.released
    assert say(nodes, "DDATA", 3, metric("P", True)).faults


def test_what_is_no_number_is_named_and_no_release() -> None:
    nodes = born()
    told = say(nodes, "DDATA", 2, metric("S", "a template"), metric("P", "a data set"))
    assert not told.released
    assert told.faults == [
        "value-type: S: is a template, and no number; mend the mapping",
        "value-type: P: is a data set, and no number; mend the mapping",
    ]


KINDS = st.sampled_from(["NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA"])
METRICS = st.builds(
    metric,
    st.sampled_from(["", "P", "S", "bdSeq", "other"]),
    st.none()
    | st.just("a text")
    | st.integers(-5, 2**64)
    | st.floats(allow_nan=False, allow_infinity=False),
    alias=st.integers(-1, 3),
    datatype=st.integers(0, 40),
)


@given(st.lists(st.tuples(KINDS, st.integers(-1, 2**64), st.lists(METRICS, max_size=4))))
def test_who_came_goes_once_in_any_order_of_messages(
    story: list[tuple[str, int, list[Metric]]],
) -> None:
    nodes = Nodes(MAPPED)
    up: set[str] = set()
    for kind, seq, metrics in story:
        told = say(nodes, kind, seq, *metrics)
        assert up.issuperset(told.down)
        up.difference_update(told.down)
        up.update(told.up)
        if told.reports:
            assert up
    assert bool(up) <= nodes.is_born("g/e")
