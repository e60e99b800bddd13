"""A device that sends rubbish is muted for a while; nobody else notices."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kapelle.ingest.breaker import Breaker
from kapelle.ingest.settings import IngestSettings
from kapelle.model.ids import NS_PER_S

SETTINGS = IngestSettings(bad_per_minute=3, unresolved_per_minute=5, mute_s=300)


def step(breaker: Breaker, device_no: list[int], at_s: float) -> tuple[list[bool], list[int]]:
    keep, muted = breaker.step(np.array(device_no, np.int32), int(at_s * NS_PER_S))
    return keep.tolist(), [mute.device_no for mute in muted]


def test_muted_beyond_the_bound_and_heard_again_later() -> None:
    breaker = Breaker(SETTINGS)
    assert step(breaker, [1, 1, 2, 1], 0) == ([True] * 4, [])
    assert step(breaker, [1, 2], 10) == ([False, True], [1])
    assert step(breaker, [1], 200) == ([False], [])
    assert step(breaker, [1], 311) == ([True], [])


def test_a_new_minute_counts_anew() -> None:
    breaker = Breaker(SETTINGS)
    for minute in range(5):
        assert step(breaker, [1, 1, 1], minute * 60.0) == ([True] * 3, [])


def test_the_rows_kept_are_the_first() -> None:
    assert step(Breaker(SETTINGS), [7] * 5, 0) == ([True, True, True, False, False], [7])


def test_unknown_senders_share_one_wider_bound() -> None:
    assert step(Breaker(SETTINGS), [-1] * 7, 0) == ([True] * 5 + [False] * 2, [-1])


@given(
    st.lists(st.tuples(st.lists(st.integers(-1, 3), max_size=6), st.integers(0, 30)), max_size=9)
)
def test_never_more_than_the_bound_a_minute_and_others_do_not_matter(
    steps: list[tuple[list[int], int]],
) -> None:
    together = Breaker(SETTINGS)
    alone = {n: Breaker(SETTINGS) for n in range(-1, 4)}
    now_s = 0
    for device_no, pause_s in steps:
        now_s += pause_s
        keep, _ = step(together, device_no, now_s)
        for n, breaker in alone.items():
            mine = [kept for kept, d in zip(keep, device_no, strict=True) if d == n]
            assert step(breaker, [n] * len(mine), now_s)[0] == mine
            assert sum(mine) <= (SETTINGS.bad_per_minute if n >= 0 else 5)
