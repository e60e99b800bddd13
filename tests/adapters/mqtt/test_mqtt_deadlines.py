"""Time-outs without timers, and rates."""

from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.mqtt.deadlines import Queue, Wheel
from kapelle.adapters.mqtt.throttle import TokenBucket

S = 1_000_000_000
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 4), st.integers(-2, 9)),
        st.tuples(st.just("discard"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("turn"), st.just(0), st.integers(0, 5)),
    ),
    max_size=30,
)


@given(_steps)
def test_the_wheel_gives_each_thing_once_and_on_time(steps: list[tuple[str, int, int]]) -> None:
    wheel: Wheel[int] = Wheel()
    expected: dict[int, int] = {}
    now_s = 0
    for what, thing, seconds in steps:
        if what == "add":
            wheel.add(thing, now_s + seconds)
            expected[thing] = max(now_s + seconds, now_s + 1)
        elif what == "discard":
            wheel.discard(thing)
            expected.pop(thing, None)
        else:
            now_s += seconds
            due = {thing for thing, due_s in expected.items() if due_s <= now_s}
            assert set(wheel.due(now_s)) == due
            for thing in due:
                del expected[thing]
        assert len(wheel) == len(expected)
    # Nothing is kept of what has gone: a flood of connections must not stay in memory.
    assert sum(map(len, wheel._slots.values())) == len(expected)


@given(_steps)
def test_the_queue_finds_the_oldest(steps: list[tuple[str, int, int]]) -> None:
    queue: Queue[int] = Queue()
    expected: dict[int, int] = {}
    now_ns = 0
    for what, thing, seconds in steps:
        if what == "add":
            queue.add(thing, now_ns)
            expected.pop(thing, None)
            expected[thing] = now_ns
        elif what == "discard":
            assert queue.discard(thing) == (expected.pop(thing, None) is not None)
        else:
            now_ns += seconds
        assert queue.older_than(now_ns - 3) == [t for t, at in expected.items() if at < now_ns - 3]
        assert queue.all() == list(expected)


@given(
    st.floats(0.5, 1000),
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5 * S)), max_size=30),
)
def test_whoever_waits_as_told_stays_within_rate_and_burst(
    rate: float, burst: int, takes: list[tuple[int, int]]
) -> None:
    bucket, now_ns, taken, most = TokenBucket(rate, burst, 0), 0, 0, 0
    for count, pause_ns in takes:
        now_ns += pause_ns
        wait_s = bucket.take(count, now_ns)
        taken += count
        most = max(most, count)
        # What was taken beyond the allowance is one take at most, and is waited for.
        assert taken <= burst + rate * now_ns / S + most + 1e-6 * taken
        now_ns += int(wait_s * S) + 1
