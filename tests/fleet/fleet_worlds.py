"""Tiny worlds for the tests of the fleet: a few devices, few moments, so that things collide."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from kapelle.fleet.columns import Fleet
from kapelle.fleet.enrol import apply_enrolled
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.settings import FleetSettings
from kapelle.model.blocks import Acks, Commands, Enrolled, Phases, Readings, Sessions
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.enums import AckStatus, DeviceKind, Metric, Phase, SessionEvent
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Members, Tick
from kapelle.model.signals import Signal

T0 = 1_700_000_100 * NS_PER_S
"""A multiple of every window of the fleet's settings."""
DEVICES = 4
SETTINGS = FleetSettings()


class Report(NamedTuple):
    device_no: int
    order: int
    measured_at_ns: int
    received_at_ns: int
    values: Mapping[Metric, float]


def s(seconds: float) -> int:
    """Return nanoseconds since the beginning of these worlds."""
    return T0 + round(seconds * NS_PER_S)


def block(reports: Sequence[Report]) -> Readings:
    metrics = sorted({metric for report in reports for metric in report.values})
    return Readings(
        device_no=np.array([r.device_no for r in reports], np.int32),
        order=np.array([r.order for r in reports], np.int64),
        measured_at_ns=np.array([r.measured_at_ns for r in reports], np.int64),
        received_at_ns=np.array([r.received_at_ns for r in reports], np.int64),
        quality=np.zeros(len(reports), np.uint8),
        values={
            metric: np.array([r.values.get(metric, np.nan) for r in reports], np.float64)
            for metric in metrics
        },
    )


def power(device_no: int, at_s: float, power_w: float, late_s: float = 0.1) -> Report:
    """Return a report measured at `at_s`, ordered by its time."""
    return Report(device_no, s(at_s), s(at_s), s(at_s + late_s), {Metric.POWER_W: power_w})


def enrolled(device_nos: Sequence[int], **changed: object) -> Enrolled:
    count = len(device_nos)
    empty = tuple(b"" for _ in device_nos)
    made = Enrolled(
        device_no=np.array(device_nos, np.int32),
        active=np.ones(count, np.uint8),
        kind=np.full(count, DeviceKind.BATTERY, np.uint8),
        device_id=tuple(b"dev-%d" % no for no in device_nos),
        site=tuple(b"site-%d" % no for no in device_nos),
        vendor=tuple(b"maker-%d" % (no % 3) for no in device_nos),
        model=empty,
        zone=empty,
        feeder=empty,
        provider=empty,
        adapter=empty,
        address=empty,
        nameplate_up_w=np.full(count, 5000.0),
        nameplate_down_w=np.full(count, 4000.0),
        energy_wh=np.full(count, 10_000.0),
        reserve_soc=np.full(count, 0.1),
        ramp_w_per_s=np.full(count, np.nan),
        revert_s=np.full(count, 120.0),
        report_every_s=np.full(count, np.nan),
    )
    arrays = {
        name: value if isinstance(value, tuple) else np.resize(value, count)
        for name, value in changed.items()
    }
    return replace(made, **arrays)


def fleet_of(devices: int = DEVICES, partition: int = 0, partitions: int = 1, **changed: object):
    fleet = Fleet.empty(partition, partitions)
    apply_enrolled(fleet, enrolled(range(partition, devices, partitions), **changed))
    return fleet


def tick(fleet: Fleet, at_s: float, settings: FleetSettings = SETTINGS) -> None:
    say(fleet, Tick(s(at_s)), settings=settings)


def say(fleet: Fleet, *bodies: Body, settings: FleetSettings = SETTINGS) -> None:
    """Apply bodies as the next entries."""
    for body in bodies:
        apply_entry(fleet, entry(fleet.position + 1, body), settings)


def entry(position: int, body: Body) -> Entry:
    return Entry("p/0", position, KIND_OF[type(body)], "test", 0, T0, body)


def sessions(*rows: tuple[int, SessionEvent, int], at_s: float = 0.0) -> Sessions:
    return Sessions(
        device_no=np.array([row[0] for row in rows], np.int32),
        event=np.array([row[1] for row in rows], np.uint8),
        session=np.array([row[2] for row in rows], np.int64),
        at_ns=np.full(len(rows), s(at_s), np.int64),
    )


def commands(
    device_nos: Sequence[int],
    setpoint_w: float,
    revision: int = 1,
    *,
    order_no: int = 1,
    at_s: float = 0.0,
) -> Commands:
    count = len(device_nos)
    return Commands(
        device_no=np.array(device_nos, np.int32),
        order_no=np.full(count, order_no, np.int32),
        revision=np.full(count, revision, np.int64),
        epoch=np.ones(count, np.int64),
        attempt=np.ones(count, np.int32),
        setpoint_w=np.full(count, setpoint_w),
        issued_at_ns=np.full(count, s(at_s), np.int64),
        not_after_ns=np.full(count, s(at_s + 30), np.int64),
        ttl_s=np.full(count, 30.0),
        revert_s=np.full(count, 120.0),
    )


def acks(
    device_nos: Sequence[int],
    status: AckStatus = AckStatus.APPLIED,
    revision: int = 1,
    at_s: float = 0.0,
) -> Acks:
    count = len(device_nos)
    return Acks(
        device_no=np.array(device_nos, np.int32),
        revision=np.full(count, revision, np.int64),
        epoch=np.ones(count, np.int64),
        status=np.full(count, status, np.uint8),
        at_ns=np.full(count, s(at_s), np.int64),
        reason=tuple(b"" for _ in device_nos),
    )


def phases(device_nos: Sequence[int], phase: Phase, revision: int = 1, at_s: float = 0.0) -> Phases:
    count = len(device_nos)
    return Phases(
        device_no=np.array(device_nos, np.int32),
        revision=np.full(count, revision, np.int64),
        phase=np.full(count, phase, np.uint8),
        at_ns=np.full(count, s(at_s), np.int64),
    )


@st.composite
def reports(draw: st.DrawFn, most: int = 12, devices: int = DEVICES) -> list[Report]:
    """Draw distinct reports in any order of arrival; the same device and order says the same."""
    keys = st.tuples(st.integers(0, devices - 1), st.integers(1, 5))
    made = []
    for device_no, order in draw(st.lists(keys, unique=True, max_size=most)):
        values = {
            metric: draw(st.integers(-3, 3)) * 100.0
            for metric in draw(st.sets(st.sampled_from([Metric.POWER_W, Metric.SOC, Metric.MAX_W])))
        }
        late_s = draw(st.integers(0, 3))
        made.append(Report(device_no, order, s(order), s(order + late_s), values))
    return made


@st.composite
def histories(draw: st.DrawFn, most: int = 30) -> list[Body]:
    """Draw a day in the life of a partition: everything that can be said, in any order."""
    bodies: list[Body] = [enrolled(range(DEVICES))]
    now_s, revision = 0.0, 0
    some = st.lists(st.integers(0, DEVICES - 1), min_size=1, max_size=DEVICES)
    for choice in draw(st.lists(st.integers(0, 7), max_size=most)):
        match choice:
            case 0 | 1:
                now_s += draw(st.sampled_from([1.0, 1.0, 5.0, 40.0, 400.0]))
                bodies.append(Tick(s(now_s)))
            case 2 | 3:
                ages = st.tuples(st.integers(0, DEVICES - 1), st.floats(0, 5), st.floats(-5e3, 5e3))
                drawn = draw(st.lists(ages, min_size=1, max_size=5))
                bodies.append(block([power(no, now_s - age, w, age) for no, age, w in drawn]))
            case 4:
                events = st.tuples(
                    st.integers(0, DEVICES - 1),
                    st.sampled_from(SessionEvent),
                    st.integers(1, 4),
                )
                bodies.append(sessions(*draw(st.lists(events, min_size=1, max_size=4)), at_s=now_s))
            case 5:
                revision += 1
                setpoint_w = draw(st.sampled_from([1000.0, -2000.0, np.nan]))
                bodies.append(commands(draw(some), setpoint_w, revision, at_s=now_s))
            case 6:
                told = draw(st.sampled_from(AckStatus))
                bodies.append(acks(draw(some), told, max(revision, 1), now_s))
            case _:
                bodies.append(
                    draw(
                        st.sampled_from(
                            [
                                Signal("all", 1, 2.0, 1.0, 1, s(now_s + 60)),
                                Members("some", [1, 3]),
                                Members("some", []),
                                enrolled([1, DEVICES + 1], vendor=(b"new", b"new")),
                                phases([0, 2], Phase.SENT, max(revision, 1), now_s),
                                phases([1, 2], Phase.UNKNOWN, max(revision, 1), now_s),
                            ]
                        )
                    )
                )
    return bodies
