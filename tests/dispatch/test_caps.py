"""What is asked of a fleet keeps every cap, from the columns to the setpoints."""

from collections.abc import Sequence
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.dispatch.caps.cells import Near, beyond, told_by
from kapelle.dispatch.caps.keeping import in_doubt, past_caps
from kapelle.dispatch.promise import binding, levels_for, room_at_rest_w, room_of
from kapelle.dispatch.watch import Watch, step_caps
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import cells
from kapelle.fleet.curve.division import setpoints, shares
from kapelle.fleet.envelopes import StandingCap
from kapelle.fleet.plant import PlantView, total
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.summary import summarise
from kapelle.model.enums import DeviceKind, Exclusion, Freshness, Metric, Trait
from kapelle.model.ids import NS_PER_S, Floats, Ints
from kapelle.model.signals import Signal
from kapelle.model.summaries import ResourceSummary

SETTINGS = FleetSettings()
LEVELS = ("site", "feeder", "zone")
KINDS = (DeviceKind.BATTERY, DeviceKind.PV, DeviceKind.EV, DeviceKind.HEAT_PUMP)


class World:
    """A few partitions of devices at sites on feeders in zones, some of all of which are capped."""

    def __init__(self, seed: int, devices: int = 40, partitions: int = 2) -> None:
        self.draw = np.random.default_rng(seed)
        self.fleets = [self._fleet(part, partitions, devices) for part in range(partitions)]
        self.caps = self._caps()
        share = float(self.draw.choice([1.0, 1.0, 0.6]))
        for fleet in self.fleets:
            fleet.envelopes.standing = tuple(self.caps)
            fleet.envelopes.vendor_share_max = share
        self.vendor_share = share

    def _fleet(self, partition: int, partitions: int, count: int) -> Fleet:
        draw, fleet = self.draw, Fleet.empty(partition, partitions)
        fleet.reserve(count)
        fleet.active[:] = fleet.connected[:] = True
        fleet.freshness[:] = Freshness.LIVE
        fleet.kind[:] = draw.choice([int(kind) for kind in KINDS], count)
        gives = np.isin(fleet.kind, (DeviceKind.BATTERY, DeviceKind.PV))
        fleet.nameplate_up_w[:] = gives * draw.uniform(3e3, 9e3, count)
        fleet.nameplate_down_w[:] = (fleet.kind != DeviceKind.PV) * draw.uniform(3e3, 9e3, count)
        stores = fleet.kind == DeviceKind.BATTERY
        fleet.energy_wh[:] = np.where(stores, 10_000.0, np.nan)
        fleet.value[Metric.SOC] = draw.random(count)
        fleet.value[Metric.MIN_W] = np.where(fleet.kind == DeviceKind.EV, -7e3, np.nan)
        own_w = np.where(gives, draw.uniform(-1e3, 3e3, count), draw.uniform(-3e3, 0, count))
        fleet.own_w[:] = np.where(fleet.kind == DeviceKind.PV, np.abs(own_w), own_w)
        fleet.estimate_w[:] = fleet.own_w
        fleet.revert_s[:] = 120.0
        fleet.responses[:] = draw.uniform(3, 50, count)
        fleet.tier[:] = draw.choice([0, 0, 0, 1], count)
        fleet.traits[:] = (fleet.tier > 0) * np.uint8(Trait.TIER)
        fleet.excluded[:] = draw.choice([0, 0, 0, int(Exclusion.REJECTED)], count)
        fleet.excluded_until_ns[:] = draw.choice([0, 1 << 62], count)
        fleet.freshness[draw.random(count) < 0.1] = Freshness.LOST
        fleet.names["zone"] = ["", "z-0", "z-1"]
        fleet.names["feeder"] = ["", *(f"f-{n}" for n in range(5))]
        fleet.names["vendor"] = ["", "acme", "bolt", "core"]
        fleet.names["site"] = ["", *(f"s-{partition}-{n}" for n in range(12))]
        fleet.site[:] = draw.integers(1, 13, count)
        # A site is on one feeder; most feeders are in one zone, one of them in two.
        fleet.feeder[:] = draw.integers(0, 6, 13)[fleet.site]
        fleet.zone[:] = np.where(fleet.feeder == 1, fleet.site % 2 + 1, fleet.feeder % 3)
        fleet.vendor[:] = draw.integers(1, 4, count)
        fleet.now_ns = 1_000 * NS_PER_S
        return fleet

    def _caps(self) -> list[StandingCap]:
        """Cap groups somewhere between where they are and where they could be."""
        caps = []
        for level in LEVELS:
            for name in sorted({n for fleet in self.fleets for n in fleet.names[level][1:]}):
                if self.draw.random() < 0.6:
                    own_w, head_w = self.power_w(level, name, None), 9e3
                    head_w *= sum((column == code).sum() for column, code in self.of(level, name))
                    up_w, down_w = (own_w + self.draw.uniform(0, 0.8) * head_w for _ in "ud")
                    export_w, import_w = max(up_w, 0.0), max(down_w, 0.0)
                    of = {each: name if each == level else "" for each in LEVELS}
                    caps.append(
                        StandingCap(of["site"], of["feeder"], of["zone"], export_w, import_w)
                    )
        return caps

    def of(self, level: str, name: str) -> list[tuple[Ints, int]]:
        return [
            (getattr(fleet, level), fleet.names[level].index(name))
            for fleet in self.fleets
            if name in fleet.names[level]
        ]

    def power_w(self, level: str, name: str, asked: Sequence[Floats] | None) -> float:
        """Return what all devices of a group do, those without a setpoint as estimated. [W]"""
        total_w = 0.0
        for number, fleet in enumerate(self.fleets):
            if name in fleet.names[level]:
                mine = getattr(fleet, level) == fleet.names[level].index(name)
                power_w = fleet.estimate_w.copy()
                if asked is not None:
                    power_w = np.where(np.isnan(asked[number]), power_w, asked[number])
                total_w += float(power_w[mine].sum())
        return total_w

    def parts(self) -> list[ResourceSummary]:
        return [summarise(fleet, SETTINGS).resources[0] for fleet in self.fleets]

    def setpoints(self, level: float, block_level: float, prices: dict[str, float]) -> list[Floats]:
        asked = []
        for fleet in self.fleets:
            rows = np.arange(fleet.size, dtype=np.int32)
            setpoint_w = setpoints(fleet, rows, level, block_level, prices=prices)
            doubted = in_doubt(fleet, rows)
            setpoint_w[doubted] = setpoints(fleet, doubted, 0.0, 0.0)
            # Whom nobody can reach, or nobody tries again yet, is told nothing.
            told = (fleet.freshness == Freshness.LIVE) & (
                (fleet.excluded == 0) | (fleet.excluded_until_ns <= fleet.now_ns)
            )
            asked.append(np.where(told, setpoint_w, np.nan))
        return asked

    def check_caps(self, asked: Sequence[Floats], sign: int) -> None:
        for cap in self.caps:
            rest_w = sign * self.power_w(cap.level, cap.name, self.at_rest(sign))
            limit_w = cap.export_limit_w if sign > 0 else cap.import_limit_w
            # Who is beyond it without any order moves no further that way.
            most_w = max(limit_w, rest_w)
            power_w = sign * self.power_w(cap.level, cap.name, asked)
            assert power_w <= most_w + 1e-6 * abs(most_w) + 1e-3, (cap, power_w)

    def at_rest(self, sign: int) -> list[Floats]:
        """Return what each device does without any order, or what its store makes of that. [W]"""
        worse = np.maximum if sign > 0 else np.minimum
        return [
            worse(fleet.own_w, shares(fleet, np.arange(fleet.size, dtype=np.int32)).own_w)
            for fleet in self.fleets
        ]

    def carried_w(self, asked: Sequence[Floats], sign: int) -> dict[str, float]:
        """Return what devices of each vendor that are counted on carry. [W]"""
        carried: dict[str, float] = {}
        for fleet, setpoint_w in zip(self.fleets, asked, strict=True):
            counted = (fleet.freshness == Freshness.LIVE) & (fleet.excluded == 0)
            # Where a store is nearly full or empty, its own schedule is bounded by that.
            own_w = shares(fleet, np.arange(fleet.size, dtype=np.int32)).own_w
            moved_w = np.where(counted & ~np.isnan(setpoint_w), setpoint_w - own_w, 0.0)
            for code, name in enumerate(fleet.names["vendor"]):
                mine = fleet.vendor == code
                carried[name] = carried.get(name, 0.0) + sign * float(moved_w[mine].sum())
        return carried


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), part=st.floats(0.05, 1.2), up=st.booleans())
def test_no_setpoints_break_a_cap_and_the_target_is_met(seed: int, part: float, up: bool) -> None:
    world, sign = World(seed), 1 if up else -1
    # Blocks have a test of their own: what they give is not told exactly.
    for fleet in world.fleets:
        fleet.kind[fleet.kind == DeviceKind.HEAT_PUMP] = DeviceKind.BATTERY
    parts = world.parts()
    room = room_of(parts)
    most_w = room.up_w if up else room.down_w
    committed_w = min(part, 1.0) * most_w
    found = levels_for(parts, room.own_w + sign * part * most_w, 0.0, Near(), committed_w)
    asked = world.setpoints(found.level, found.block_level, found.prices)
    world.check_caps(asked, sign)
    carried = world.carried_w(asked, sign)
    if part <= 1.0 or world.vendor_share < 1.0:
        assert sum(carried.values()) == pytest.approx(committed_w, abs=1.0)
    if world.vendor_share < 1.0:
        assert max(carried.values()) <= world.vendor_share * committed_w + 1.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32), part=st.floats(0.05, 1.2), up=st.booleans())
def test_devices_that_are_on_or_off_break_no_cap_either(seed: int, part: float, up: bool) -> None:
    world, sign = World(seed), 1 if up else -1
    room = room_of(world.parts())
    change_w = sign * part * (room.up_w if up else room.down_w)
    near, block_level = Near(), 0.0
    for _ in range(3):
        found = levels_for(world.parts(), room.own_w + change_w, block_level, near, change_w)
        block_level = found.block_level
        world.check_caps(world.setpoints(found.level, block_level, found.prices), sign)
        for fleet in world.fleets:
            fleet.signals["all"] = Signal(
                "all", 0, found.level, block_level, 1, 0, prices=found.prices
            )


@pytest.mark.parametrize("seed", range(12))
def test_many_devices_are_summed_in_bins_and_soon_exactly(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "_EXACT_MAX", 10)
    world = World(seed, devices=400)
    for fleet in world.fleets:
        fleet.kind[fleet.kind == DeviceKind.HEAT_PUMP] = DeviceKind.BATTERY
        fleet.tier[:], fleet.traits[:] = 0, 0
    room = room_of(world.parts())
    change_w, near = 0.8 * room.up_w, Near()
    missed_w = inf
    for _ in range(12):
        found = levels_for(world.parts(), room.own_w + change_w, 0.0, near, change_w)
        asked = world.setpoints(found.level, found.block_level, found.prices)
        world.check_caps(asked, 1)
        missed_w = abs(sum(world.carried_w(asked, 1).values()) - change_w)
        for fleet in world.fleets:
            fleet.signals["all"] = Signal("all", 0, found.level, 0.0, 1, 0, prices=found.prices)
    assert missed_w <= 1.0


def test_without_caps_nothing_is_told_of_cells_and_levels_are_as_ever() -> None:
    world = World(3)
    for fleet in world.fleets:
        fleet.envelopes.standing, fleet.envelopes.vendor_share_max = (), 1.0
    parts = world.parts()
    assert all(part.cells is None for part in parts)
    for wide in (StandingCap(feeder="*", export_limit_w=1e9), StandingCap(zone="elsewhere")):
        for fleet in world.fleets:
            fleet.envelopes.standing = (wide,)
        own_w = room_at_rest_w(parts)
        free, capped = (levels_for(each, own_w + 20e3) for each in (parts, world.parts()))
        assert capped == free


def test_a_share_binds_nobody_where_no_device_has_a_vendor() -> None:
    world = World(3)
    for fleet in world.fleets:
        fleet.envelopes.standing, fleet.envelopes.vendor_share_max = (), 1.0
        fleet.vendor[:] = 0
    free = room_of(world.parts())
    for fleet in world.fleets:
        fleet.envelopes.vendor_share_max = 0.5
    room = room_of(world.parts())
    assert (room.up_w, room.down_w) == pytest.approx((free.up_w, free.down_w))


@pytest.mark.parametrize("seed", range(6))
def test_what_sites_keep_back_is_told_and_named_where_a_target_is_missed(seed: int) -> None:
    world = World(seed)
    for fleet in world.fleets:
        fleet.envelopes.standing, fleet.envelopes.vendor_share_max = (), 1.0
    free = room_of(world.parts())
    cap = StandingCap(site="*", export_limit_w=2e3, import_limit_w=2e3)
    for fleet in world.fleets:
        fleet.envelopes.standing = (cap,)
    parts = world.parts()
    room = room_of(parts)
    lost_up_w = sum(sum(part.sites_up_w.values()) for part in parts)
    lost_down_w = sum(sum(part.sites_down_w.values()) for part in parts)
    assert lost_up_w == pytest.approx(free.up_w - room.up_w)
    assert lost_down_w == pytest.approx(free.down_w - room.down_w)
    view = PlantView(len(world.fleets))
    view.summaries = {fleet.partition: summarise(fleet, SETTINGS) for fleet in world.fleets}
    said = binding(total(view), free.up_w, room.up_w, parts)
    assert said.startswith("headroom up: of ")
    assert said.count("the export limit of site s-") == 3
    assert "; those of other sites cost " in said
    assert "site" not in binding(total(view), free.up_w, free.up_w, parts)


def test_a_group_that_is_beyond_its_cap_gets_no_room_and_is_named() -> None:
    world = World(5)
    cap = StandingCap(zone="z-0", export_limit_w=0.0)
    for fleet in world.fleets:
        fleet.own_w[:] = fleet.estimate_w[:] = np.abs(fleet.own_w)
        fleet.envelopes.standing = (cap,)
    world.caps = [cap]
    parts = world.parts()
    ((cap_told, over_w),) = beyond(told_by(parts), 1)
    assert cap_told.group == "zone/z-0"
    assert over_w == pytest.approx(world.power_w("zone", "z-0", None), rel=0.2)
    view, watch = PlantView(len(world.fleets)), Watch()
    view.summaries = {f.partition: summarise(f, SETTINGS) for f in world.fleets}
    (notice,) = step_caps(watch, view, 1)
    assert notice.text.startswith("zone z-0 is ")
    assert step_caps(watch, view, 2) == []
    for fleet in world.fleets:
        fleet.envelopes.standing = ()
    view.summaries = {f.partition: summarise(f, SETTINGS) for f in world.fleets}
    (notice,) = step_caps(watch, view, 3)
    assert notice.text == "zone z-0 keeps its export limit again"
    found = levels_for(parts, room_of(parts).highest_w, 0.0)
    world.check_caps(world.setpoints(found.level, found.block_level, found.prices), 1)


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=40, deadline=None)
def test_dead_bands_carry_no_group_past_what_is_asked_of_it(seed: int) -> None:
    world = World(seed, partitions=1)
    (fleet,) = world.fleets
    rows = np.arange(fleet.size, dtype=np.int32)
    want_w = world.draw.uniform(-1e3, 1e3, fleet.size)
    left_w = want_w + world.draw.uniform(-100, 100, fleet.size)
    sign = int(world.draw.choice([1, -1]))
    told, capped = past_caps(fleet, rows, sign, want_w, left_w)
    after_w = np.where(told, want_w, left_w)
    for level in LEVELS:
        caps = fleet.envelopes.caps(level, fleet.names[level], fleet.now_ns)
        if caps is not None:
            group, limit_w = getattr(fleet, level), caps.export_w if sign > 0 else caps.import_w
            past_w = np.bincount(group, sign * (after_w - want_w), len(limit_w))
            assert (past_w[limit_w < inf] <= 1e-3).all()
            assert capped[(limit_w < inf)[group]].all()
    # Only who goes further than asked is told, and only where a group has a cap.
    assert not told[~capped | (sign * (left_w - want_w) <= 0.0)].any()
