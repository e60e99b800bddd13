"""Drills of a loss: everybody of a vendor, or behind a gateway, is gone at once, and comes back.

Played twice in virtual time: with headroom, where the others must make up for it, and with an order
for nearly all there is, where the plant must say what is missing. The fleet is simulated, with the
shape of a real one; the rooms of the plant are its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kapelle.errors import Invalid
from kapelle.sim.acceptance.lines import Line
from kapelle.sim.acceptance.seen import measure
from kapelle.sim.devices import FleetPlan
from kapelle.sim.drills.verdict import Criterion, Report, worst
from kapelle.sim.faults import By, FaultPlan, GroupLoss
from kapelle.sim.hush import hushed
from kapelle.sim.run import Performance, perform
from kapelle.sim.scenario import OrderPlan, Scenario
from kapelle.words import percent

Drill = Literal["vendor-loss", "gateway-loss"]

_STARTS_S = 30.0
"""By then every device has reported, where it reports more often. [s]"""
_SETTLES_S = 60.5
"""From the start to the loss, which falls between two of the plant's ticks. [s]"""
_SHORT_S = 30.0
"""A gateway is first away for so short that no timer ends, as in ERIGrid 2.0's TC17. [s]"""
_PAUSE_S = 60.0
_TAIL_S = 20.0
_AWAY_S_MIN, _AWAY_S_MAX = 90.0, 360.0
_FAULTS = FaultPlan(command_loss=0.02)
_AMPLE = 0.7
"""Part of what is left without the group that is ordered where there shall be headroom."""
_NOTICE_S: Mapping[By, float] = {"vendor": 10, "provider": 10, "gateway": 15, "feeder": 15}
"""Vendors and providers are known as a whole; of the others each device is missed by itself."""
_OVERDUE = 2.5
"""A device that reports seldom is missed after so many of its periods."""
_SHARE_MIN = 0.05
"""A smaller group is hardly missed, whatever is ordered."""


@dataclass(frozen=True, slots=True)
class Group:
    """Who is lost."""

    by: By
    name: str
    share: float
    """Of the devices. 0-1"""


def vendor_of(fleet: FleetPlan, name: str | None) -> Group:
    """Return the vendor to lose: the largest where none is named.

    Raises:
        Invalid: The fleet has none of that name.
    """
    return _named("vendor", fleet.vendors, name)


def gateway_of(fleet: FleetPlan, name: str | None, *, by: By) -> Group:
    """Return the gateway, or the internet provider, to lose; as `vendor_of`."""
    if by == "provider":
        return _named("provider", fleet.providers, name)
    count = -(-fleet.devices // fleet.devices_per_gateway)
    shares = {
        f"gateway-{number:02d}": min(
            fleet.devices_per_gateway, fleet.devices - number * fleet.devices_per_gateway
        )
        / fleet.devices
        for number in range(count)
    }
    return _named("gateway", shares, name)


def _named(by: By, shares: Mapping[str, float], name: str | None) -> Group:
    if name is None:
        name = max(sorted(shares), key=lambda each: shares[each])
    if name not in shares:
        raise Invalid(f"no {by} is called {name!r}; there are {', '.join(sorted(shares))}")
    return Group(by, name, shares[name] / sum(shares.values()))


def run_loss(drill: Drill, fleet: FleetPlan, group: Group, seeds: Sequence[int]) -> Report:
    """Play a drill with each seed and judge it by the worst."""
    notes: list[str] = []
    criteria = worst([with_headroom(drill, fleet, group, seed) for seed in seeds])
    if group.share >= _SHARE_MIN:
        criteria += worst([without_headroom(drill, fleet, group, seed) for seed in seeds])
    else:
        notes.append(f"{group.name} is too small to be missed: no shortfall is drilled")
    return Report(
        drill=drill,
        title=f"{group.by} {group.name} with {percent(group.share)} of the devices is lost",
        seeds=seeds,
        fleet=described(fleet),
        criteria=criteria,
        notes=notes,
    )


def described(fleet: FleetPlan) -> str:
    """Return a fleet in a few words."""
    whole = sum(fleet.mix.values())
    kinds = ", ".join(f"{percent(share / whole)} {kind}" for kind, share in fleet.mix.items())
    return f"{fleet.devices:,} simulated devices, {len(fleet.vendors)} vendors: {kinds}"


def _losses(drill: Drill, fleet: FleetPlan, group: Group) -> Sequence[GroupLoss]:
    starts_s = _starts_s(fleet) + _SETTLES_S
    away_s = min(max(_AWAY_S_MIN, fleet.revert_s + _SHORT_S), _AWAY_S_MAX)
    long = GroupLoss(group.by, group.name, starts_s, starts_s + away_s)
    if drill == "vendor-loss":
        return (long,)
    short = GroupLoss(group.by, group.name, starts_s, starts_s + _SHORT_S)
    later_s = _SHORT_S + _PAUSE_S
    return short, replace(long, at_s=long.at_s + later_s, return_s=starts_s + away_s + later_s)


def _starts_s(fleet: FleetPlan) -> float:
    return max(_STARTS_S, fleet.telemetry_period_s + 15.0)


def with_headroom(
    drill: Drill, fleet: FleetPlan, group: Group, seed: int, part: float = _AMPLE
) -> list[Criterion]:
    """Judge what the others make up for, and the return.

    Args:
        drill: Which.
        fleet: What is simulated.
        group: Who is lost.
        seed: Of everything random.
        part: How much is ordered, of what is left without the group.
    """
    losses = _losses(drill, fleet, group)
    back_s = max(loss.return_s or 0.0 for loss in losses)
    line = _line(drill, fleet, losses, part * (1.0 - group.share), back_s + _PAUSE_S)
    seen = measure(line, _perform(line, seed), None, "")
    criteria = []
    for number, what in enumerate(_events(losses)):
        criteria += [
            Criterion(
                name=f"{what}: out of ±5 %", measured=seen.out_5pct_s[number], limit=15, unit="s"
            ),
            Criterion(
                name=f"{what}: out of ±2 %", measured=seen.out_2pct_s[number], limit=30, unit="s"
            ),
        ]
    return [
        *criteria,
        Criterion(
            name="more than ordered, at most", measured=seen.overshoot_pct, limit=5, unit="%"
        ),
        Criterion(name="commands that took effect twice", measured=seen.double_effects, limit=0),
        Criterion(name="devices left with a setpoint", measured=seen.stranded, limit=0),
        Criterion(name="other promises broken", measured=len(seen.problems), limit=0),
    ]


def _events(losses: Sequence[GroupLoss]) -> list[str]:
    if len(losses) == 1:
        return ["after the loss", "after the return"]
    return [f"after {what} {n}" for n in range(1, len(losses) + 1) for what in ("loss", "return")]


def without_headroom(drill: Drill, fleet: FleetPlan, group: Group, seed: int) -> list[Criterion]:
    """Judge what is said where the others cannot make up for it."""
    at_s = _starts_s(fleet) + _SETTLES_S
    loss = GroupLoss(group.by, group.name, at_s)
    line = _line(
        drill,
        fleet,
        (loss,),
        1.0 - group.share / 4.0,
        at_s + min(fleet.revert_s, _AWAY_S_MAX) + 2 * _PAUSE_S,
    )
    done = _perform(line, seed)
    said = measure(line, done, None, "").admitted
    # Silence shows once reports are overdue.
    notice_s = max(_NOTICE_S[group.by], _OVERDUE * fleet.telemetry_period_s)
    criteria = [
        Criterion(
            name="without headroom: shortfall said after",
            measured=said.after_s if said else None,
            limit=notice_s,
            unit="s",
        ),
        Criterion(
            name="without headroom: its size is off by",
            measured=said.error * 100 if said else None,
            limit=5,
            unit="% of the order",
        ),
    ]
    if group.by in ("vendor", "provider"):
        # Of gateways and feeders the plant knows no outage by name.
        criteria.append(
            Criterion(
                name=f"without headroom: the {group.by} named after",
                measured=_named_s(done, loss),
                limit=notice_s,
                unit="s",
            )
        )
    return criteria


def _line(
    drill: Drill, fleet: FleetPlan, losses: Sequence[GroupLoss], fraction: float, ends_s: float
) -> Line:
    starts_s = _starts_s(fleet)
    order = OrderPlan(at_s=starts_s, duration_s=ends_s - starts_s, fraction=fraction)
    faults = replace(_FAULTS, group_loss=losses)
    return Line(drill, drill, Scenario(ends_s + _TAIL_S, fleet, faults, (order,)))


def _perform(line: Line, seed: int) -> Performance:
    with hushed():
        done = perform(line.scenario, seed)
    if not any(order.committed_w for order in done.result.orders):
        raise Invalid(f"seed {seed}: this fleet has nothing to offer at noon, so nothing to lose")
    return done


def _named_s(done: Performance, loss: GroupLoss) -> float | None:
    """Return how long after its loss a group was named to the operator; None: never."""
    named = [
        done.play.elapsed_s(notice.at_ns) - loss.at_s
        for notice in done.play.notices
        if notice.code in ("shortfall", "group-lost") and loss.name in notice.text
    ]
    return min((at_s for at_s in named if at_s >= 0.0), default=None)
