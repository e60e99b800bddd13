"""An entry is forgotten only when two snapshots stand without it and it has grown old."""

from fleet_worlds import s
from hypothesis import given
from hypothesis import strategies as st

from kapelle.fleet.retention import Generations


@given(st.lists(st.integers(1, 100), min_size=1, max_size=20), st.integers(0, 200))
def test_forgets_only_what_the_older_snapshot_does_not_need(
    pauses: list[int], retain_s: int
) -> None:
    generations, now_s, taken = Generations(retain_s), 0, []
    for number, pause_s in enumerate(pauses, 1):
        now_s += pause_s
        generations.note(s(now_s), number * 10)
        taken.append((now_s, number * 10))
        old = [position for at_s, position in taken[:-1] if at_s <= now_s - retain_s]
        assert generations.through(s(now_s)) == max(old, default=0)
        assert generations.newest == number * 10


def test_nothing_is_forgotten_before_there_are_two() -> None:
    generations = Generations(0.0)
    assert (generations.newest, generations.through(s(0))) == (0, 0)
    generations.note(s(1), 5)
    assert generations.through(s(1000)) == 0
