"""Whole plants with devices and hosts that misbehave: named, counted, and no promise broken."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kapelle.fleet.settings import FleetSettings
from kapelle.model.enums import Condition, DeviceMode, Metric, Phase, Standing
from kapelle.model.ids import NS_PER_S, Floats, Ints
from kapelle.sim.chaos import read_seeds
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import ClockStep, FaultPlan, GroupLoss, Restart
from kapelle.sim.invariants import broken, unsettled
from kapelle.sim.physics import Physics
from kapelle.sim.play import Play
from kapelle.sim.run import Performance, perform
from kapelle.sim.scenario import OrderPlan, Scenario
from kapelle.sim.stage import Stage
from kapelle.sim.telemetry import Reports

SEEDS = read_seeds(Path(__file__).with_name("fault_seeds.txt"))
FLEET = FleetPlan(devices=24, partitions=2, telemetry_period_s=2.0, mix={"battery": 1.0})
SMALL = replace(FLEET, devices=12)
ORDER = OrderPlan(at_s=15, duration_s=90, fraction=0.4)
ASKED = (Standing.IN_SYNC, Standing.PENDING)


def play(faults: FaultPlan, seed: int, **changes: object) -> Performance:
    scenario = replace(Scenario(110, FLEET, faults, (ORDER,)), **changes)
    done = perform(scenario, seed)
    assert broken(done) == [], f"seed {seed}"
    return done


def having(done: Performance, bit: Condition) -> set[int]:
    """Return the places of the devices that have a condition."""
    found: set[int] = set()
    for fleet in done.audit.fleets:
        rows = np.flatnonzero(fleet.condition[: fleet.size] & bit).astype(np.int32)
        found |= set(done.play.adapter.places(fleet.device_nos(rows)).tolist())
    return found


def chosen(flags: np.ndarray) -> set[int]:
    return set(np.flatnonzero(flags).tolist())


def standings(done: Performance) -> dict[int, Standing]:
    """Return how each device stands, by its place."""
    told: dict[int, Standing] = {}
    for fleet in done.audit.fleets:
        rows = np.arange(fleet.size, dtype=np.int32)
        places = done.play.adapter.places(fleet.device_nos(rows)).tolist()
        told |= {p: Standing(int(s)) for p, s in zip(places, fleet.standing, strict=False)}
    return told


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sender_of_rubbish_costs_nobody_anything(seed: int) -> None:
    """R-36: everything that came is stored or in quarantine, and nothing stalls."""
    done = play(FaultPlan(poison=0.01, duplicate=0.02), seed)
    ledger, (counters,) = done.play.adapter.ledger, done.play.doors.counters.values()
    assert ledger.poisoned > 0
    assert done.audit.quarantined + counters.muted == ledger.poisoned + ledger.quarantined
    assert done.audit.readings >= ledger.accepted
    # What is missing was on its way to the disk when the run ended.
    assert 0 <= ledger.arrived - ledger.accepted - ledger.quarantined <= len(done.play.devices)
    (order,) = done.result.orders
    assert order.delivered_mean == pytest.approx(1.0, abs=0.05)
    assert len(done.play.published) > 90


@pytest.mark.parametrize("seed", SEEDS)
def test_devices_back_from_the_factory_are_let_in_again(seed: int) -> None:
    done = play(FaultPlan(reset_fraction=0.25, reset_s=50, duplicate=0.1), seed)
    faults = done.play.world.faults
    assert having(done, Condition.COUNTER_RESTARTED) == chosen(faults.resets)
    live = sum(int((fleet.freshness[: fleet.size] == 1).sum()) for fleet in done.audit.fleets)
    assert live == len(done.play.devices)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_hears_nothing_is_named(seed: int) -> None:
    done = play(FaultPlan(one_way_fraction=0.2), seed)
    deaf = chosen(done.play.world.faults.deaf)
    assert having(done, Condition.DEAF) <= deaf
    told = standings(done)
    assert not {place for place in deaf if told[place] == Standing.IN_SYNC}


@pytest.mark.parametrize("seed", SEEDS)
def test_connections_that_come_and_go_are_named_once(seed: int) -> None:
    done = play(FaultPlan(flapping_fraction=0.2, flap_s=15), seed)
    assert having(done, Condition.FLAPPING) == chosen(done.play.world.faults.flapping)


@pytest.mark.parametrize("seed", SEEDS)
def test_twins_with_one_credential_are_named(seed: int) -> None:
    done = play(FaultPlan(contested_fraction=0.2, flap_s=15), seed)
    assert having(done, Condition.CONTESTED) == chosen(done.play.world.faults.contested)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_taken_over_on_site_is_an_exception_with_a_name(seed: int) -> None:
    done = play(FaultPlan(local_fraction=0.2, local_s=60), seed, duration_s=100)
    local = chosen(done.play.world.faults.local(done.play.ended_ns))
    told = standings(done)
    assert Standing.IN_SYNC not in {told[place] for place in local}
    assert any(told[place] == Standing.OVERRIDDEN for place in local)
    for fleet in done.audit.fleets:
        mode = fleet.value[Metric.MODE, : fleet.size]
        assert set(np.unique(mode).tolist()) <= {float(each) for each in DeviceMode}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_minute_after_connectivity_every_device_is_where_it_should_be(seed: int) -> None:
    """R-19: in its desired state, or a named exception."""
    loss = GroupLoss("vendor", "acme", at_s=40, return_s=60)
    faults = FaultPlan(group_loss=[loss], command_loss=0.2, ack_loss=0.2, opt_out=0.1)
    done = perform(
        Scenario(160, FLEET, faults, (replace(ORDER, duration_s=145),)), seed, act=_calm_at(100)
    )
    assert broken(done) == [], f"seed {seed}"
    assert unsettled(done, 60.0) == [], f"seed {seed}"
    assert done.audit.overlapped == 0
    told = Counter(standings(done).values())
    assert told[Standing.PENDING] <= 2, told
    for fleet in done.audit.fleets:
        does_w = done.play.world.agents.setpoint_w
        place = done.play.adapter.places(fleet.device_nos(np.arange(fleet.size, dtype=np.int32)))
        synced = fleet.standing[: fleet.size] == Standing.IN_SYNC
        # Of what was sent this moment a meter may show enough already.
        synced &= ~np.isin(fleet.phase[: fleet.size], (Phase.PLANNED, Phase.SENT))
        np.testing.assert_array_equal(
            fleet.desired_w[: fleet.size][synced], does_w[place[synced]], f"seed {seed}"
        )


def _calm_at(at_s: float):
    async def act(play: Play, _: Stage) -> None:
        await play.wait_until(at_s)
        play.world.faults.calm()

    return act


RESTARTED = FaultPlan(restart=[Restart("all", at_s=60, down_s=2)])


@cache
def restarted(seed: int) -> Performance:
    """Return the play whose host's clock nobody sets: every direction is held against it."""
    return play(RESTARTED, seed)


@pytest.mark.parametrize("by_s", [3600.0, -3600.0, 86_400.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_host_clock_that_is_set_expires_and_revives_nothing(seed: int, by_s: float) -> None:
    """R-27, with a restart of every role in between, and the clock set back again."""
    steps = [ClockStep(40, by_s), ClockStep(80, -by_s)]
    calm, done = restarted(seed), play(replace(RESTARTED, clock_step=steps), seed)
    (order,), (expected,) = done.result.orders, calm.result.orders
    assert order.committed_w == pytest.approx(expected.committed_w, rel=0.001)
    assert order.delivered_mean == pytest.approx(expected.delivered_mean, abs=0.02)
    assert done.result.commands["expired"] == calm.result.commands["expired"] == 0
    assert done.result.devices["expired"] == calm.result.devices["expired"]
    assert done.result.devices["reverted"] == calm.result.devices["reverted"]
    assert not done.play.world.agents.commanded().any()


@pytest.mark.parametrize("partitions", [1, 8])
def test_every_report_is_counted_once_in_any_number_of_partitions(partitions: int) -> None:
    faults = FaultPlan(duplicate=0.2, late_fraction=0.1, late_s=10, telemetry_loss=0.05)
    fleet = replace(FLEET, partitions=partitions)
    done = play(faults, 3, fleet=fleet, orders=(), duration_s=60)
    kept = np.unique(np.concatenate(done.play.adapter.ledger.kept))
    for name, expected in (("received", len(kept)), ("undecided", 0)):
        counts = sum(int(getattr(f, name)[: f.size].sum()) for f in done.audit.fleets)
        assert counts == expected, name
    repeats = sum(int(f.duplicates[: f.size].sum()) for f in done.audit.fleets)
    assert repeats == done.audit.readings - len(kept)


LYING = {
    "sign_turned": (FaultPlan(sign_turned_fraction=0.25), Condition.SIGN_TURNED),
    "in_kw": (FaultPlan(kw_fraction=0.25), Condition.UNIT_WRONG),
    "frozen": (FaultPlan(frozen_fraction=0.25), Condition.FROZEN),
}


@pytest.mark.parametrize("fault", LYING)
@pytest.mark.parametrize("seed", SEEDS)
def test_meters_that_lie_are_named_and_never_taken_for_in_sync(fault: str, seed: int) -> None:
    plan, condition = LYING[fault]
    done = play(plan, seed, fleet=SMALL, duration_s=60, orders=(replace(ORDER, fraction=0.9),))
    lying = chosen(getattr(done.play.world.faults, fault))
    named = having(done, condition)
    assert named
    assert named <= lying
    told = standings(done)
    assert not {place for place in lying if told[place] == Standing.IN_SYNC}


@pytest.mark.parametrize("seed", SEEDS)
def test_power_of_the_wrong_sign_is_refused_where_the_kind_shows_it(seed: int) -> None:
    solar = replace(SMALL, mix={"pv": 1.0})
    done = play(FaultPlan(sign_turned_fraction=0.25), seed, fleet=solar, orders=(), duration_s=30)
    ledger = done.play.adapter.ledger
    assert ledger.quarantined > 0
    assert ledger.blameless == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_clocks_that_err_are_named(seed: int) -> None:
    scenario = Scenario(50, SMALL, FaultPlan(skew_s=60.0), ())
    done = perform(scenario, seed, fleet=FleetSettings(skew_window_s=15))
    assert broken(done) == [], f"seed {seed}"
    off_s = np.abs(done.play.world.faults.skew_ns) / NS_PER_S
    found = having(done, Condition.CLOCK_WRONG)
    # A second for the way.
    assert chosen(off_s > 31) <= found <= chosen(off_s > 29)


REGISTERS = {
    # Two reports lie 3 Wh apart: one may have come before the first tick, a reset hides another.
    "reset": (FaultPlan(register_reset_fraction=0.5, reset_s=30), 6.0),
    "jitter": (FaultPlan(register_jitter_wh=1.9), 5.0),
    "rollover": (FaultPlan(register_rollover_wh=60.0), 3.0),
}


@pytest.mark.parametrize("fault", REGISTERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_energy_is_counted_whatever_registers_do(fault: str, seed: int) -> None:
    plan, off_wh = REGISTERS[fault]
    read: dict[tuple[int, int], Floats] = {}

    async def act(play: Play, _: Stage) -> None:
        telemetry, measure = play.world.telemetry, play.world.telemetry.read

        def watched(rows: Ints, physics: Physics) -> Reports:
            reports = measure(rows, physics)
            true_wh = np.floor(np.stack([physics.export_wh[rows], physics.import_wh[rows]], axis=1))
            numbers = zip(rows.tolist(), reports.seq.tolist(), strict=True)
            read.update(zip(numbers, true_wh, strict=True))
            return reports

        telemetry.read = watched

    scenario = Scenario(60, SMALL, plan, (replace(ORDER, duration_s=40),))
    done = perform(scenario, seed, act=act)
    assert broken(done) == [], f"seed {seed}"
    most_wh = 0.0
    for fleet in done.audit.fleets:
        places = done.play.adapter.places(fleet.device_nos(np.arange(fleet.size, dtype=np.int32)))
        for row, place in enumerate(places.tolist()):
            newest = int(fleet.order[Metric.EXPORT_WH, row]) & 0xFFFF_FFFF
            true_wh = read[place, newest] - read[place, 1]
            counted_wh = fleet.energy_mwh[:, row] / 1000
            np.testing.assert_allclose(counted_wh, true_wh, atol=off_wh, err_msg=f"{place}")
            most_wh = max(most_wh, *true_wh)
    assert most_wh > 20
