"""What must hold after any run, whatever went wrong in it."""

import numpy as np

from kapelle.model.enums import Freshness, Phase, Standing
from kapelle.model.ids import NS_PER_S, partition_topic
from kapelle.sim.run import Performance

_HEARD = (Phase.RECEIVED, Phase.ACCEPTED, Phase.APPLIED, Phase.COMPLETED, Phase.OPTED_OUT)
"""Phases that only the device itself can have told."""
_UNDER_WAY = (Phase.PLANNED, Phase.SENT, Phase.RECEIVED, Phase.ACCEPTED, Phase.EXPIRED)
_FOLLOWS_S = 40.0
_PENDING_S = 60
"""Every device is where it should be, or has a name for why not, within this; R-19. [s]"""


def broken(done: Performance) -> list[str]:
    """Return which promises a run broke, in words; nothing when all is well."""
    return [*_broken_in_journal(done), *_broken_in_world(done)]


def _broken_in_journal(done: Performance) -> list[str]:
    audit, readings = done.audit, done.result.readings
    ledger = done.play.adapter.ledger
    counts = {
        "accepted readings were lost": audit.lost,
        "old readings changed the state": audit.applied_twice,
        "commands were stranded": audit.stranded,
        "commands overtook one that was still on its way": audit.overlapped,
        "commands fell back to an earlier phase": audit.backwards,
        "readings of well-behaved devices went to quarantine": ledger.blameless,
        "more readings were accepted than arrived": max(
            0, readings["accepted"] - readings["arrived"]
        ),
    }
    return [
        *done.play.problems,
        *audit.problems,
        *(f"{count} {what}" for what, count in counts.items() if count),
    ]


def _broken_in_world(done: Performance) -> list[str]:
    play = done.play
    agents, physics = play.world.agents, play.world.physics
    problems: list[str] = []
    if agents.double_effects:
        problems.append(f"{agents.double_effects} commands took effect twice")
    if agents.stale_effects:
        problems.append(f"{agents.stale_effects} commands of a deposed owner took effect")
    for fleet in done.audit.fleets:
        device_no = fleet.device_nos(np.arange(fleet.size, dtype=np.int32))
        place = play.adapter.places(device_no)
        told = np.isin(fleet.phase[: fleet.size], _HEARD) & (place >= 0)
        unheard = told & (agents.revision[place] < fleet.revision[: fleet.size])
        if unheard.any():
            topic = partition_topic(fleet.partition)
            problems.append(f"{topic}: {int(unheard.sum())} commands answered by nobody")
    # A timer that ran out and a setpoint still in force: the dead-man does not work.
    overdue = agents.commanded() & (agents.reverts_at_ns < play.ended_ns - NS_PER_S)
    if overdue.any():
        problems.append(f"{int(overdue.sum())} devices outlived their revert timer")
    booked_wh = float((physics.export_wh - physics.import_wh).sum()) - play.registers_wh
    passed_wh = float(np.dot(play.power_w, np.diff([0.0, *play.at_s]))) / 3600
    if abs(booked_wh - passed_wh) > 1.0 + 1e-6 * abs(passed_wh):
        problems.append(f"power and energy differ: {passed_wh:.1f} and {booked_wh:.1f} Wh")
    return problems


def unsettled(done: Performance, calm_s: float) -> list[str]:
    """Return who has not come together after a calm time: R-19, each device or its exception."""
    play, problems = done.play, list[str]()
    world = play.world
    for fleet in done.audit.fleets:
        size = fleet.size
        place = play.adapter.places(fleet.device_nos(np.arange(size, dtype=np.int32)))
        there = world.faults.reachable[place]
        topic = partition_topic(fleet.partition)
        # (Whose readings cannot be may be refused, all of them.)
        unheard = (
            there
            & ~world.faults.lying[place]
            & ~np.isin(fleet.freshness[:size], (Freshness.LIVE, Freshness.LATE))
        )
        if unheard.any():
            problems.append(f"{topic}: {int(unheard.sum())} devices report and are not heard")
        cut_off = there & ~fleet.connected[:size]
        if cut_off.any():
            problems.append(f"{topic}: {int(cut_off.sum())} devices are connected, unknown to us")
        desired_w, does_w = fleet.desired_w[:size], world.agents.setpoint_w[place]
        alike = (desired_w == does_w) | (np.isnan(desired_w) & np.isnan(does_w))
        # On its way, or named as an exception: known not to do what was asked.
        under_way = np.isin(fleet.phase[:size], _UNDER_WAY) | (fleet.excluded[:size] > 0)
        astray = there & ~alike & ~under_way
        if astray.any():
            problems.append(f"{topic}: {int(astray.sum())} devices do not do what we believe")
        standing = fleet.standing[:size]
        # Of what was sent this moment a meter may show enough already: a new setpoint near the old.
        in_flight = np.isin(fleet.phase[:size], (Phase.PLANNED, Phase.SENT))
        belied = there & ~alike & ~in_flight & (standing == Standing.IN_SYNC)
        if belied.any():
            problems.append(f"{topic}: {int(belied.sum())} devices are not in sync as they stand")
        since_s = fleet.now_ns // NS_PER_S - fleet.standing_at_s[:size].astype(np.int64)
        pending = there & (standing == Standing.PENDING) & (since_s > _PENDING_S)
        if pending.any():
            problems.append(f"{topic}: {int(pending.sum())} devices are pending and have no name")
        idle = there & (fleet.order_no[:size] == 0) & ~np.isnan(does_w)
        if idle.any() and not play.is_ordered(calm_s):
            problems.append(f"{topic}: {int(idle.sum())} devices follow an order that is over")
    return problems


def released_after_death(done: Performance, died_s: float) -> list[str]:
    """Return what is wrong where the whole plant died for good: R-20, back to own schedules."""
    play = done.play
    revert_s = play.devices.enrolled.revert_s
    # One without a timer has nothing to go back by; the plant counts it as such.
    longest_s = float(np.nan_to_num(revert_s).max())
    if play.at_s[-1] < died_s + longest_s + _FOLLOWS_S:
        return []
    commanded = int((play.world.agents.commanded() & ~np.isnan(revert_s)).sum())
    return [f"{commanded} devices still follow a plant that is dead"] if commanded else []
