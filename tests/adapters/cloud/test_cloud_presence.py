"""Who can be reached: one outage for all, noticed in time, and nobody present without evidence."""

from hypothesis import given
from hypothesis import strategies as st

from kapelle.adapters.cloud.presence import Presence
from kapelle.model.enums import SessionEvent

S = 1_000_000_000
EVERY_S, NOTICED_S = 60, 15
EVERYONE = frozenset(range(5))


def presence(silence_s: int = EVERY_S) -> Presence:
    return Presence(noticed_ns=NOTICED_S * S, silence_ns=silence_s * S, now_ns=0)


def name_all(one: Presence, now_s: int) -> None:
    one.answered(now_s * S)
    for number in EVERYONE:
        one.named(number, None, now_s * S, (EVERY_S + NOTICED_S) * S)


def test_a_cloud_that_stops_answering_is_one_outage_within_20_s_of_its_cadence() -> None:
    one = presence()
    name_all(one, 0)
    assert {c.event for c in one.step(EVERYONE, 0)} == {SessionEvent.UP}
    one.failed(60 * S, "503")
    for now_s in range(1, 75):
        assert one.step(EVERYONE, now_s * S) == []
    changes = one.step(EVERYONE, 75 * S)
    assert {c.device_no for c in changes} == EVERYONE
    assert {(c.event, c.reason) for c in changes} == {(SessionEvent.DOWN, "outage")}
    assert one.step(EVERYONE, 76 * S) == []
    # That it answers is not yet a word about anybody.
    assert one.answered(90 * S)
    assert one.step(EVERYONE, 90 * S) == []
    name_all(one, 91)
    assert len(one.step(EVERYONE, 91 * S)) == len(EVERYONE)


def test_polls_that_are_spread_fail_together_before_their_cadence_is_over() -> None:
    one = presence()
    name_all(one, 0)
    one.step(EVERYONE, 0)
    one.failed(3 * S, "503")
    assert len(one.step(EVERYONE, 18 * S)) == len(EVERYONE)


def test_one_that_is_named_no_longer_goes_alone() -> None:
    one = presence()
    name_all(one, 0)
    one.step(EVERYONE, 0)
    for now_s in (60, 120):
        one.answered(now_s * S)
        for number in EVERYONE - {3}:
            one.named(number, None, now_s * S, (EVERY_S + NOTICED_S) * S)
    (gone,) = one.step(EVERYONE, 121 * S)
    assert (gone.device_no, gone.event, gone.reason) == (3, SessionEvent.DOWN, "not named")


def test_one_the_vendor_cannot_reach_goes_alone_and_at_once() -> None:
    one = presence()
    name_all(one, 0)
    one.step(EVERYONE, 0)
    one.named(2, False, 1 * S, 75 * S)
    (gone,) = one.step(EVERYONE, 1 * S)
    assert (gone.device_no, gone.reason) == (2, "unreachable")
    one.named(2, True, 2 * S, 75 * S)
    (back,) = one.step(EVERYONE, 2 * S)
    assert back.event == SessionEvent.UP


def test_whom_an_earlier_process_left_as_present_is_told_down_once() -> None:
    one = presence()
    assert one.step(EVERYONE, 74 * S) == []
    assert {c.event for c in one.step(EVERYONE, 75 * S)} == {SessionEvent.DOWN}
    assert one.step(EVERYONE, 200 * S) == []


def test_without_polls_and_heartbeats_nobody_goes_for_silence() -> None:
    one = presence(silence_s=0)
    one.named(1, None, 0, 0)
    assert [c.device_no for c in one.step({1}, 0)] == [1]
    assert one.step({1}, 10**6 * S) == []


def test_an_older_word_changes_nothing_however_late_it_comes() -> None:
    one = presence()
    name_all(one, 100)
    one.step(EVERYONE, 100 * S)
    one.named(1, False, 99 * S, 75 * S)
    assert one.step(EVERYONE, 100 * S) == []
    one.named(1, False, 101 * S, 75 * S)
    assert [c.device_no for c in one.step(EVERYONE, 101 * S)] == [1]
    one.named(1, True, 100 * S, 75 * S)
    assert one.step(EVERYONE, 102 * S) == []


def test_a_word_of_an_earlier_cadence_makes_nobody_present() -> None:
    one = presence()
    one.answered(1_000 * S)
    one.named(1, True, 900 * S, (EVERY_S + NOTICED_S) * S)
    assert [c.event for c in one.step({1}, 1_000 * S)] == [SessionEvent.DOWN]


steps = st.one_of(
    st.tuples(st.just("answered"), st.just(0)),
    st.tuples(st.just("failed"), st.just(0)),
    st.tuples(st.sampled_from(["named", "cut off"]), st.integers(0, 4)),
    st.tuples(st.just("pass"), st.integers(1, 100)),
    st.tuples(st.just("remove"), st.integers(0, 4)),
)


@given(st.lists(steps, max_size=60))
def test_events_alternate_and_nobody_is_present_in_an_outage(acts: list[tuple[str, int]]) -> None:
    one, now_s, enrolled = presence(), 0, set(EVERYONE)
    last: dict[int, SessionEvent] = {}
    named_at: dict[int, int] = {}
    for act, number in acts:
        match act:
            case "answered":
                one.answered(now_s * S)
            case "failed":
                one.failed(now_s * S, "503")
            case "named":
                one.named(number, None, now_s * S, (EVERY_S + NOTICED_S) * S)
                named_at[number] = now_s
            case "cut off":
                one.named(number, False, now_s * S, (EVERY_S + NOTICED_S) * S)
                named_at.pop(number, None)
            case "pass":
                now_s += number
            case "remove":
                enrolled.discard(number)
        for change in one.step(enrolled, now_s * S):
            assert last.get(change.device_no) != change.event
            last[change.device_no] = change.event
        assert one.up <= enrolled
        assert not (one.is_out and one.up)
        assert one.up <= {n for n, at in named_at.items() if now_s - at <= EVERY_S + NOTICED_S}
        assert {n for n, event in last.items() if event == SessionEvent.UP} == one.up
