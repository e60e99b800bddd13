"""What a client is told: one control counts, each ends by itself, none holds after its expiry."""

from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kapelle.adapters.errands import Command, Said
from kapelle.adapters.ieee2030.controls import Controls, Status
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S

LFDI = "A" * 40
START_NS = 1_700_000_000 * NS_PER_S
REVERT_S = 20.0
TTL_S = 5
NAN = float("nan")


def command(revision: int, setpoint_w: float, now_ns: int, ttl_s: int = TTL_S) -> Command:
    return Command(0, 1, revision, 1, setpoint_w, now_ns + ttl_s * NS_PER_S, REVERT_S)


def told(controls: Controls, now_ns: int) -> list[tuple[int, Status]]:
    """Return what a client that fetches now sees: (revision, status)."""
    rows = controls.shown(now_ns)
    for control, _, _ in rows:
        control.is_served = True
    return [(control.revision, status) for control, status, _ in rows]


def mrid(controls: Controls, revision: int) -> str:
    return next(c.mrid for c in reversed(controls.known.values()) if c.revision == revision)


def later(now_ns: int, seconds: float) -> int:
    return now_ns + int(seconds * NS_PER_S)


def test_a_newer_control_supersedes_and_the_older_says_so() -> None:
    controls, at = Controls(LFDI), START_NS
    controls.place(command(1, 1.0, at), "target_w", 1, at)
    assert told(controls, at) == [(1, Status.ACTIVE)]
    controls.place(command(2, 2.0, at), "target_w", 2, at)
    assert told(controls, later(at, 1)) == [(2, Status.ACTIVE), (1, Status.SUPERSEDED)]
    first = controls.known[mrid(controls, 1)]
    second = controls.known[mrid(controls, 2)]
    assert second.created_s > first.created_s
    # That it gave the older one up is what was wanted, and no answer to the newer.
    assert controls.respond(0, first.mrid, 7, second.start_s) is None


def test_a_control_ends_by_itself() -> None:
    controls, at = Controls(LFDI), START_NS
    controls.place(command(1, 1.0, at), "target_w", 1, at)
    assert told(controls, at)
    assert controls.known[mrid(controls, 1)].duration_s == REVERT_S
    assert told(controls, later(at, REVERT_S)) == []
    # Who says so late is heard.
    answer = controls.respond(0, mrid(controls, 1), 3, at // NS_PER_S + 40)
    assert answer is not None
    assert not isinstance(answer, str)
    assert answer.status is AckStatus.COMPLETED


def test_without_a_revert_time_it_lasts_until_it_is_cancelled() -> None:
    for revert_s in (NAN, 0.0):
        controls, at = Controls(LFDI), START_NS
        given = command(1, 1.0, at)._replace(revert_s=revert_s)
        controls.place(given, "target_w", 1, at)
        assert told(controls, at) == [(1, Status.ACTIVE)]
        assert told(controls, later(at, 1e6)) == [(1, Status.ACTIVE)]


def test_what_nobody_fetched_in_time_is_taken_back_and_what_held_before_holds_again() -> None:
    controls, at = Controls(LFDI), START_NS
    controls.place(command(1, 1.0, at), "target_w", 1, at)
    told(controls, at)
    controls.place(command(2, 2.0, at), "target_w", 2, at)
    late = later(at, TTL_S + 1)
    assert told(controls, late) == [(1, Status.ACTIVE)]
    assert controls.late(late) == [(1, 2)]
    assert controls.late(late) == []


def test_a_setpoint_sent_again_goes_on_and_is_prolonged() -> None:
    controls, at = Controls(LFDI), START_NS
    controls.place(command(1, 1.0, at), "target_w", 1, at)
    told(controls, at)
    controls.respond(0, mrid(controls, 1), 2, at // NS_PER_S)
    # A repeat a moment later: nothing new, and what was answered then is answered again.
    again = later(at, 1)
    assert controls.place(command(1, 1.0, again), "target_w", 1, again) == Said(AckStatus.APPLIED)
    assert len(controls.known) == 1
    # A refresh at half time: another control, of the same revision.
    refresh = later(at, REVERT_S / 2)
    controls.place(command(1, 1.0, refresh), "target_w", 1, refresh)
    assert told(controls, refresh) == [(1, Status.SUPERSEDED), (1, Status.ACTIVE)]
    assert told(controls, later(at, REVERT_S + 5)) == [(1, Status.ACTIVE)]


def test_a_release_cancels_and_counts_once_the_client_says_so() -> None:
    controls, at = Controls(LFDI), START_NS
    controls.place(command(1, 1.0, at), "target_w", 1, at)
    told(controls, at)
    assert controls.release(command(2, NAN, at), at) is None
    assert told(controls, at) == [(1, Status.CANCELLED)]
    answer = controls.respond(0, mrid(controls, 1), 6, at // NS_PER_S)
    assert answer is not None
    assert not isinstance(answer, str)
    assert (answer.revision, answer.status) == (2, AckStatus.APPLIED)


def test_a_release_nobody_confirms_counts_once_nothing_can_hold_any_more() -> None:
    controls, at = Controls(LFDI), START_NS
    controls.place(command(1, 1.0, at), "target_w", 1, at)
    told(controls, at)
    assert controls.release(command(2, NAN, at), at) is None
    over = later(at, REVERT_S)
    said = controls.release(command(2, NAN, over), over)
    assert said is not None
    assert said.status is AckStatus.APPLIED


def test_a_release_of_what_nobody_heard_counts_at_once() -> None:
    controls, at = Controls(LFDI), START_NS
    controls.place(command(1, 1.0, at), "target_w", 1, at)
    said = controls.release(command(2, NAN, at), at)
    assert said is not None
    assert said.status is AckStatus.APPLIED
    assert told(controls, at) == []


def test_every_status_of_a_response_is_what_it_is_evidence_of() -> None:
    received, applied, completed = AckStatus.RECEIVED, AckStatus.APPLIED, AckStatus.COMPLETED
    out, rejected = AckStatus.OPTED_OUT, AckStatus.REJECTED
    meant = {
        1: received, 2: applied, 3: completed, 4: out, 5: None, 6: rejected, 7: rejected, 8: out,
        9: None, 10: out, 11: None, 12: rejected, 13: rejected, 14: rejected, 99: None,
        251: rejected, 252: rejected, 253: rejected, 254: rejected,
    }  # fmt: skip
    for status, phase in meant.items():
        controls, at = Controls(LFDI), START_NS
        controls.place(command(1, 1.0, at), "target_w", 1, at)
        told(controls, at)
        answer = controls.respond(0, mrid(controls, 1), status, at // NS_PER_S)
        assert not isinstance(answer, str)
        assert (answer.status if answer is not None else None) == phase, status
    assert isinstance(Controls(LFDI).respond(0, "0" * 32, 1, 0), str)


class Polling(RuleBasedStateMachine):
    """A client that polls now and then, against a plain list of what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.controls = Controls(LFDI)
        self.now_ns = START_NS
        self.revision = 0
        self.expiry: dict[int, int] = {}
        self.shown: set[str] = set()
        self.wanted: int | None = None

    @rule(seconds=st.integers(0, 30))
    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * NS_PER_S

    @rule(again=st.booleans())
    def order(self, again: bool) -> None:
        if not again or self.wanted is None:
            self.revision += 1
        given = command(self.revision, 1.0, self.now_ns)
        self.expiry[self.revision] = given.not_after_ns
        self.controls.place(given, "target_w", 1, self.now_ns)
        self.wanted = self.revision

    @rule()
    def release(self) -> None:
        self.revision += 1
        self.controls.release(command(self.revision, NAN, self.now_ns), self.now_ns)
        self.wanted = None

    @rule()
    def poll(self) -> None:
        for control, status, _ in self.controls.shown(self.now_ns):
            if control.mrid not in self.shown:
                assert self.now_ns <= self.expiry[control.revision], "told after its expiry"
                assert status is not Status.CANCELLED, "told what was cancelled before"
            self.shown.add(control.mrid)
            control.is_served = True

    @invariant()
    def one_counts_and_it_is_the_newest(self) -> None:
        rows = self.controls.shown(self.now_ns)
        active = [control for control, status, _ in rows if status is Status.ACTIVE]
        assert len(active) <= 1
        if self.wanted is None:
            assert active == []
        for control in active:
            assert control.end_s > self.now_ns // NS_PER_S
            newer = [c for c in self.controls.known.values() if c.created_s > control.created_s]
            assert all(c.cancelled_s or c.end_s <= self.now_ns // NS_PER_S for c in newer)

    @invariant()
    def nothing_grows(self) -> None:
        assert len(self.controls.known) <= 32
        assert len(self.controls.shown(self.now_ns)) <= 8


TestPolling = Polling.TestCase
TestPolling.settings = effort(max_examples=40, stateful_step_count=30, deadline=None)
