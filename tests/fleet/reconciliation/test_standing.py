"""Every device under an order is in sync, still within its time, or a named exception."""

from math import isnan

import numpy as np
import pytest
from condition_worlds import World
from fleet_worlds import (
    Report,
    acks,
    block,
    commands,
    entry,
    fleet_of,
    histories,
    phases,
    power,
    s,
    say,
    sessions,
    tick,
)
from hypothesis import given, settings

from kapelle.dispatch.delivery import decide
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.reconciliation.device_state import describe
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.summary import summarise
from kapelle.ingest.partition import split
from kapelle.model.entries import Body
from kapelle.model.enums import (
    AckStatus,
    DeviceKind,
    DeviceMode,
    Exclusion,
    Freshness,
    Metric,
    Phase,
    SessionEvent,
    Standing,
)
from kapelle.model.plant import Members, Tick
from kapelle.model.signals import Signal

ASKED_W = 3000.0
NAMED = set(Standing) - {Standing.NONE, Standing.IN_SYNC, Standing.PENDING}


def asked(status: AckStatus | None = AckStatus.APPLIED) -> Fleet:
    """Return a fleet whose device 0 was asked for 3 kW at 10 s, and has answered or not."""
    fleet = fleet_of(1)
    say(fleet, sessions((0, SessionEvent.UP, 1)), block([power(0, 8.0, 0.0), power(0, 9.0, 0.0)]))
    tick(fleet, 9.5)
    say(fleet, commands([0], ASKED_W, at_s=10.0), phases([0], Phase.SENT, at_s=10.0))
    if status is not None:
        say(fleet, acks([0], status, at_s=11.0))
    tick(fleet, 11.5)
    return fleet


def read(fleet: Fleet, at_s: float, power_w: float, **said: float) -> Standing:
    values = {Metric[name.upper()]: value for name, value in said.items()}
    told = power(0, at_s, power_w)
    say(fleet, block([Report(*told[:4], values | dict(told.values))]))
    tick(fleet, at_s + 0.5)
    return Standing(int(fleet.standing[0]))


def standing(fleet: Fleet) -> Standing:
    return Standing(int(fleet.standing[0]))


@pytest.mark.parametrize(
    ("status", "first", "readings_w", "last"),
    [
        (AckStatus.APPLIED, Standing.PENDING, [3000.0], Standing.IN_SYNC),
        (AckStatus.APPLIED, Standing.PENDING, [0.0, 0.0], Standing.PENDING),
        (AckStatus.APPLIED, Standing.PENDING, [0.0, 0.0, 0.0], Standing.DIVERGED_SIZE),
        (AckStatus.APPLIED, Standing.PENDING, [-3000.0] * 3, Standing.DIVERGED_SIGN),
        (AckStatus.APPLIED, Standing.PENDING, [3000.0, 0.0], Standing.PENDING),
        (AckStatus.APPLIED, Standing.PENDING, [0.0, 3000.0], Standing.IN_SYNC),
        (AckStatus.REJECTED, Standing.REJECTED, [0.0], Standing.REJECTED),
        (AckStatus.OPTED_OUT, Standing.OPTED_OUT, [0.0], Standing.OPTED_OUT),
        (AckStatus.COMPLETED, Standing.LEFT, [0.0], Standing.LEFT),
        (None, Standing.PENDING, [0.0], Standing.PENDING),
    ],
)
def test_evidence_decides(
    status: AckStatus | None, first: Standing, readings_w: list[float], last: Standing
) -> None:
    fleet = asked(status)
    assert standing(fleet) == first
    for number, power_w in enumerate(readings_w):
        found = read(fleet, 17.0 + number, power_w)
    assert found == last


def test_who_followed_and_leaves_has_left() -> None:
    fleet = asked()
    assert read(fleet, 17.0, 3000.0) == Standing.IN_SYNC
    say(fleet, phases([0], Phase.VERIFIED, at_s=18.0))
    assert read(fleet, 19.0, 0.0) == Standing.IN_SYNC  # a blip
    assert read(fleet, 20.0, 0.0) == Standing.IN_SYNC
    assert read(fleet, 21.0, 0.0) == Standing.LEFT
    say(fleet, phases([0], Phase.DIVERGED, at_s=21.6))
    assert read(fleet, 22.0, -3000.0) == Standing.LEFT
    since_s = fleet.standing_at_s[0]
    assert since_s == s(21.5) // 10**9
    # Let go, it keeps its name as long as it is not counted on.
    say(fleet, commands([0], np.nan, 2, order_no=0, at_s=23.0))
    assert read(fleet, 23.1, 0.0) == Standing.LEFT
    fleet.excluded[0] = Exclusion.NONE
    assert read(fleet, 24.1, 0.0) == Standing.PENDING  # the release is under way
    say(fleet, acks([0], AckStatus.COMPLETED, 2, 25.0))
    assert read(fleet, 25.1, 0.0) == Standing.NONE


def test_a_late_reading_decides_where_reports_are_rare() -> None:
    fleet = asked()
    assert read(fleet, 42.0, 0.0) == Standing.DIVERGED_SIZE


def test_somebody_on_site_is_no_failure() -> None:
    local = float(DeviceMode.LOCAL)
    assert read(asked(), 17.0, 0.0, mode=local) == Standing.OVERRIDDEN
    # In sync by its meter: whoever wants the same does not matter.
    assert read(asked(), 17.0, 3000.0, mode=local) == Standing.IN_SYNC
    assert read(asked(), 17.0, 0.0, mode=float(DeviceMode.COMMAND)) == Standing.PENDING
    fleet = asked()
    for at_s in (17.0, 18.0):
        read(fleet, at_s, -1000.0, setpoint_w=-1000.0)
    assert read(fleet, 19.0, -1000.0, setpoint_w=-1000.0) == Standing.OVERRIDDEN
    # Left out, it is no setpoint any more.
    assert read(fleet, 20.0, -1000.0) == Standing.DIVERGED_SIGN
    fleet = asked()
    for at_s in (17.0, 18.0):
        read(fleet, at_s, -1000.0, setpoint_w=ASKED_W)
    assert read(fleet, 19.0, -1000.0, setpoint_w=ASKED_W) == Standing.DIVERGED_SIGN


def test_out_of_reach_is_named_and_over_when_it_is_back() -> None:
    fleet = asked()
    assert read(fleet, 17.0, 3000.0) == Standing.IN_SYNC
    say(fleet, sessions((0, SessionEvent.WILL, 1)))
    assert read(fleet, 18.0, 3000.0) == Standing.UNREACHABLE
    say(fleet, sessions((0, SessionEvent.UP, 2)))
    assert read(fleet, 19.0, 3000.0) == Standing.IN_SYNC
    tick(fleet, 300.0)
    assert fleet.freshness[0] >= Freshness.STALE
    assert standing(fleet) == Standing.UNREACHABLE


def test_no_answer_to_any_try_is_unreachable_even_while_it_is_tried_again() -> None:
    fleet = asked(None)
    say(fleet, phases([0], Phase.UNKNOWN, at_s=16.0))
    assert read(fleet, 16.1, 0.0) == Standing.UNREACHABLE
    say(fleet, commands([0], ASKED_W, 2, at_s=17.0))
    assert read(fleet, 17.1, 0.0) == Standing.UNREACHABLE
    say(fleet, acks([0], AckStatus.ACCEPTED, 2, 18.0))
    assert read(fleet, 18.1, 0.0) == Standing.PENDING


def test_a_refresh_does_not_shake_what_is_in_sync() -> None:
    fleet = asked()
    read(fleet, 17.0, 3000.0)
    say(fleet, commands([0], ASKED_W, 2, at_s=18.0))
    assert read(fleet, 18.2, 3000.0) == Standing.IN_SYNC
    say(fleet, commands([0], -ASKED_W, 3, at_s=19.0))
    assert read(fleet, 19.2, 3000.0) == Standing.PENDING


@settings(max_examples=60)
@given(histories())
def test_whatever_happens_a_device_under_an_order_has_a_standing(bodies: list[Body]) -> None:
    fleet = Fleet.empty()
    for position, body in enumerate(bodies, 1):
        apply_entry(fleet, entry(position, body), FleetSettings())
        if type(body).__name__ != "Tick":
            continue
        for row in range(fleet.size):
            state = describe(fleet, row)
            if state.desired.order_no:
                assert state.standing != Standing.NONE
            elif state.standing in (Standing.IN_SYNC, Standing.NONE):
                assert state.standing == Standing.NONE
            if state.standing == Standing.PENDING:
                assert state.observed.freshness in (Freshness.LIVE, Freshness.LATE)
                assert state.reported.connected
        part = summarise(fleet, FleetSettings()).resources[0]
        assert sum(part.standings) == np.count_nonzero(fleet.standing[: fleet.size])


def test_describe_tells_everything_once_with_its_version() -> None:
    fleet = asked()
    read(fleet, 17.0, 3000.0, setpoint_w=ASKED_W, mode=1.0, soc=0.4)
    state = describe(fleet, 0)
    assert (state.desired.setpoint_w, state.desired.revision, state.desired.epoch) == (3000.0, 1, 1)
    assert (state.reported.mode, state.reported.setpoint_w) == (DeviceMode.COMMAND, ASKED_W)
    assert state.reported.order == s(17.0)
    assert (state.observed.power_w, state.observed.soc) == (3000.0, 0.4)
    assert state.observed.skew_s == pytest.approx(0.1)
    assert (state.standing, state.exclusion) == (Standing.IN_SYNC, Exclusion.NONE)
    assert state.conditions == ()
    assert state.enrolments == 1
    assert state.reverts_at_ns == s(11.0 + 120.0)
    read(fleet, 18.0, 3000.0)
    assert isnan(describe(fleet, 0).reported.setpoint_w)
    with pytest.raises(IndexError):
        describe(fleet, 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_sixty_seconds_after_connectivity_returns_everybody_stands_somewhere(seed: int) -> None:
    """R-19, on simulated devices: commands are the dispatcher's own, at most one outstanding."""
    world = World(devices=80, seed=seed, period_s=4.0, step_s=1.0, mix={"battery": 1.0})
    rows = np.arange(80)
    draw = np.random.default_rng(seed)
    signal = Signal("all", 1, 0.5, 0.0, 1, world.now_ns + 10**12)
    dispatch = DispatchSettings()
    obedient = draw.random(80) < 0.9
    listening = np.ones(80, np.bool_)
    outstanding: dict[tuple[int, int], int] = {}

    def carry(seconds: int) -> None:
        for _ in range(seconds):
            world.run(1.0)
            for body in decide(world.fleet, dispatch, 1):
                world.say(body)
                if hasattr(body, "setpoint_w"):
                    _deliver(world, body, listening, obedient, outstanding)

    world.run(20.0)
    world.say(signal)
    carry(40)
    cut = draw.choice(rows, 30, replace=False)
    listening[cut], world.silent[cut] = False, True
    number = world.made.enrolled.device_no
    world.session(number[cut], SessionEvent.WILL, 1)
    world.physics.setpoint_w[cut[::2]] = np.nan  # their timers run out meanwhile
    carry(90)
    assert all(world.standing(place) not in (Standing.IN_SYNC, Standing.PENDING) for place in cut)
    listening[cut], world.silent[cut] = True, False
    world.session(number[cut], SessionEvent.UP, 2)
    carry(60)
    for place in rows:
        state = describe(world.fleet, int(number[place]))
        if state.desired.order_no:
            told = state.standing in NAMED or state.standing == Standing.IN_SYNC
            in_time = world.now_ns - state.desired.since_ns <= 20 * 10**9
            assert told or in_time, (place, state)
        if obedient[place]:
            assert state.standing not in NAMED
    # In sixty seconds nobody was told more often than tries, refreshes and moves explain.
    assert max(outstanding.values()) <= dispatch.attempts_max


def _deliver(
    world: World,
    body: Body,
    listening: np.ndarray,
    obedient: np.ndarray,
    outstanding: dict[tuple[int, int], int],
) -> None:
    place_of = np.argsort(world.made.enrolled.device_no)
    for index, device_no in enumerate(body.device_no.tolist()):
        place, revision = int(place_of[device_no]), int(body.revision[index])
        outstanding[device_no, revision] = outstanding.get((device_no, revision), 0) + 1
        if not listening[place]:
            continue
        if obedient[place]:
            world.physics.setpoint_w[place] = body.setpoint_w[index]
        status = AckStatus.COMPLETED if isnan(body.setpoint_w[index]) else AckStatus.APPLIED
        at_s = (world.now_ns - s(0)) / 1e9
        world.say(acks([device_no], status, revision, at_s))


def test_kinds_that_switch_stand_too() -> None:
    world = World(devices=40, period_s=4.0, step_s=2.0, mix={"heat_pump": 1.0})
    world.run(30)
    rows = world.of(DeviceKind.HEAT_PUMP)
    world.order(rows, -world.made.enrolled.nameplate_down_w[rows])
    world.run(30)
    assert all(world.standing(int(place)) == Standing.IN_SYNC for place in rows)


@settings(max_examples=60)
@given(histories())
def test_neighbours_in_a_partition_change_nothing(bodies: list[Body]) -> None:
    """Per device, the same bytes whether its partition holds all devices or some."""
    whole = Fleet.empty()
    parts = [Fleet.empty(number, 2) for number in range(2)]
    for position, body in enumerate(bodies, 1):
        apply_entry(whole, entry(position, body), FleetSettings())
        pieces: dict[int, Body] = {0: body, 1: body}
        if isinstance(body, Members):
            nos = body.device_nos
            pieces = {k: Members(body.resource, [n for n in nos if n % 2 == k]) for k in (0, 1)}
        elif not isinstance(body, Tick | Signal):
            pieces = dict(split(body, 2))
        for number, piece in pieces.items():
            apply_entry(parts[number], entry(position, piece), FleetSettings())
    names = (
        "standing", "standing_at_s", "condition", "condition_at_s", "announced", "unanswered",
        "lost_at_s", "taken_at_s", "same", "same_since_s", "window_wh", "proofs", "enrolments",
    )  # fmt: skip
    for part in parts:
        for name in names:
            theirs = getattr(whole, name)[..., part.partition : whole.size : 2]
            mine = getattr(part, name)[..., : part.size]
            np.testing.assert_array_equal(mine, theirs[..., : part.size], name)
