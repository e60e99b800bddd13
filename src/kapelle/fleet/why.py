"""Why one device does what it does: what is asked of it, by which level, and what bounds it now."""

from dataclasses import dataclass
from math import inf, isnan, nan

import numpy as np

from kapelle.fleet.claims import active_rows, by_rank
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, dwell
from kapelle.fleet.curve.corners import TIER
from kapelle.fleet.curve.groups import paid, price_tables
from kapelle.fleet.curve.limits import CONSUMES_ONLY, MOMENT_S, bounds
from kapelle.fleet.curve.rations import EFFICIENCY
from kapelle.fleet.curve.steps import turn
from kapelle.fleet.desired import in_force
from kapelle.fleet.reconciliation.device_state import describe
from kapelle.model.enums import Condition, DeviceKind, Exclusion, Metric, Trait
from kapelle.model.ids import NS_PER_S, Ints
from kapelle.model.signals import Signal
from kapelle.words import percent, power

_GROUPS = ("site", "vendor", "zone", "feeder", "provider")
_CLOSE_W = 1e-6
_MINUTES_FROM_S = 90.0
"""From here on windows are told in minutes. [s]"""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that counts for a device, with its number."""

    code: str
    """`nameplate`, `reported`, `energy`, `dwell`, `excluded`, …: see docs/allocation.md."""
    text: str
    """The same as a sentence."""
    value: float = nan
    """NaN where it has no number."""
    unit: str = ""
    until_ns: int = 0
    """When it ends, as far as that is known; 0: not known, or never."""


@dataclass(frozen=True, slots=True)
class Why:
    """Where a device stands in the allocation."""

    resource: str
    """Of the order it follows, or would; empty without one."""
    order_no: int
    """0: no order asks for it."""
    level: float
    """λ: how far up the merit order that resource is driven; NaN without an order."""
    tier: int
    depth: float
    """How far into its own tier that is; NaN without an order."""
    own_w: float
    """Its own schedule, as far as that can be held. [W]"""
    asked_w: float
    """What the level asks of it; NaN: to be left alone. [W]"""
    setpoint_w: float
    """What it was last told; NaN: nothing. [W]"""
    up_w: float
    """How far it can move towards export. [W]"""
    down_w: float
    used: float
    """Part of that room, in the direction of the level, which is asked of it. 0-1"""
    reasons: tuple[Reason, ...]
    """What bounds it: upwards, downwards, then whatever else counts."""


def why(fleet: Fleet, row: int) -> Why:
    """Say what bounds one device now and where it stands, as of `fleet.now_ns`.

    Raises:
        IndexError: No such row.
    """
    if not 0 <= row < fleet.size:
        raise IndexError(row)
    rows = np.array([row], np.int32)
    claims = [
        signal for signal in by_rank(in_force(fleet)) if row in active_rows(fleet, signal.resource)
    ]
    signal = claims[0] if claims else None
    resource = signal.resource if signal else ""
    rationing = division.rationing_of(fleet, resource)
    horizon = division.horizon_s(fleet, resource, rationing)
    part = division.shares(fleet, rows, horizon, rationing)
    lower_w, upper_w = bounds(fleet, rows, horizon, rationing)
    asked_w = level = reached = into = nan
    if signal is not None:
        asked_w = _asked_w(fleet, rows, signal)
        level = signal.block_level if part.switched[0] else signal.level
        reached = abs(level) - float(paid(fleet, rows, price_tables(fleet, signal.prices))[0])
        into = min(max(reached - float(fleet.tier[row]) * TIER, 0.0), TIER)
    own_w, up_w, down_w = float(part.own_w[0]), float(part.up_w[0]), float(part.down_w[0])
    reasons = [
        _upward(fleet, row, horizon, float(upper_w[0])),
        _downward(fleet, row, horizon, float(lower_w[0])),
        *_envelope(part, division.free_shares(fleet, rows, horizon, rationing)),
        *_session(fleet, row),
        *_particular(fleet, rows, part, signal, reached),
        *_groups(fleet, row, signal),
        *_trust(fleet, row),
        *_claims(claims),
    ]
    return Why(
        resource=resource,
        order_no=signal.order_no if signal else 0,
        level=level,
        tier=int(fleet.tier[row]),
        depth=into,
        own_w=own_w,
        asked_w=asked_w,
        setpoint_w=float(fleet.desired_w[row]),
        up_w=up_w,
        down_w=down_w,
        used=_used(asked_w, own_w, up_w, down_w),
        reasons=tuple(reasons),
    )


def _asked_w(fleet: Fleet, rows: Ints, signal: Signal) -> float:
    rationing = division.rationing_of(fleet, signal.resource)
    horizon = division.horizon_s(fleet, signal.resource, rationing)
    levels = signal.level, signal.block_level
    setpoint_w = division.setpoints(fleet, rows, *levels, horizon, rationing, signal.prices)
    return nan if fleet.waits[rows[0]] else float(setpoint_w[0])


def _used(asked_w: float, own_w: float, up_w: float, down_w: float) -> float:
    if isnan(asked_w):
        return 0.0
    head_w = up_w if asked_w >= own_w else down_w
    return abs(asked_w - own_w) / head_w if head_w > _CLOSE_W else 0.0


def _upward(fleet: Fleet, row: int, horizon: float, upper_w: float) -> Reason:
    """Return what keeps the device from more export."""
    kind, rated_w = int(fleet.kind[row]), float(fleet.nameplate_up_w[row])
    reported_w = float(fleet.value[Metric.MAX_W, row])
    limits = [("nameplate", rated_w, "its nameplate")]
    if not isnan(reported_w):
        limits.append(("reported", reported_w, "what it says it can give now"))
    if CONSUMES_ONLY[kind]:
        limits.append(("consumes_only", 0.0, f"a {_kind(fleet, row)} gives nothing back"))
    if kind == DeviceKind.PV:
        sun_w = max(float(fleet.own_w[row]), 0.0)
        limits.append(("own_schedule", sun_w, "what the sun gives it"))
    limits += _stored(fleet, row, horizon, up=True)
    return _tightest(limits, upper_w, "upward", -1.0)


def _downward(fleet: Fleet, row: int, horizon: float, lower_w: float) -> Reason:
    """Return what keeps the device from more consumption."""
    kind, reported_w = int(fleet.kind[row]), float(fleet.value[Metric.MIN_W, row])
    limits = [("nameplate", -float(fleet.nameplate_down_w[row]), "its nameplate")]
    if not isnan(reported_w):
        limits.append(("reported", reported_w, "what it says it can take now"))
    elif kind in (DeviceKind.EV, DeviceKind.LOAD):
        own_w = min(float(fleet.own_w[row]), 0.0)
        limits.append(("own_schedule", own_w, "its own schedule: it does not say it can take more"))
    limits += _stored(fleet, row, horizon, up=False)
    return _tightest(limits, lower_w, "downward", 1.0)


Limit = tuple[str, float, str]


def _stored(fleet: Fleet, row: int, horizon: float, *, up: bool) -> list[Limit]:
    energy_wh, soc = float(fleet.energy_wh[row]), float(fleet.value[Metric.SOC, row])
    if isnan(energy_wh):
        return []
    if isnan(soc):
        return [("charge_unknown", 0.0, "it has not said how full it is")]
    seconds = max(horizon, MOMENT_S)
    hours = seconds / 3600.0
    window = f"{seconds / 60.0:.0f} min" if seconds >= _MINUTES_FROM_S else f"{seconds:.0f} s"
    if not up:
        power_w = min((soc - 1.0) * energy_wh / EFFICIENCY / hours, 0.0)
        return [("room_left", power_w, f"the room in its store, over {window}")]
    reserve = float(fleet.reserve_soc[row])
    if soc <= reserve:
        return [("reserve", 0.0, f"its owner's reserve of {percent(reserve)}")]
    power_w = (soc - reserve) * energy_wh * EFFICIENCY / hours
    return [("energy", power_w, f"what it has stored above its reserve, over {window}")]


def _tightest(limits: list[Limit], found_w: float, way: str, sign: float) -> Reason:
    """Return the limit that binds; what none of them explains is a plan's ration."""
    code, limit_w, text = max(limits, key=lambda limit: sign * limit[1])
    if sign * (found_w - limit_w) > max(_CLOSE_W, 1e-9 * abs(limit_w)):
        code, text = "ration", "what the order's plan leaves it in this interval"
    return Reason(code, f"{way} it ends at {power(found_w)}: {text}", found_w, "W")


def _session(fleet: Fleet, row: int) -> list[Reason]:
    """Return why a charger cannot be moved, as far as the powers it says it can have tell it."""
    if fleet.kind[row] != DeviceKind.EV:
        return []
    lowest_w = float(fleet.value[Metric.MIN_W, row])
    highest_w = float(fleet.value[Metric.MAX_W, row])
    if lowest_w == 0.0:
        return [Reason("no_session", "it says it can take nothing: no car is there, or it is full")]
    if lowest_w == highest_w < 0.0:
        text = "it says that its car has to charge now, to be ready when its driver leaves"
        return [Reason("departure", text, lowest_w, "W")]
    return []


def _envelope(part: division.Shares, free: division.Shares) -> list[Reason]:
    """Return what the envelope of its site takes of its room."""
    found = []
    for way, left_w, had_w in (
        ("export", float(part.up_w[0]), float(free.up_w[0])),
        ("import", float(part.down_w[0]), float(free.down_w[0])),
    ):
        if left_w < had_w - _CLOSE_W:
            text = f"the {way} limit of its site leaves it {power(left_w)} of {power(had_w)}"
            found.append(Reason("envelope", text, left_w, "W"))
    return found


def _particular(
    fleet: Fleet, rows: Ints, part: division.Shares, signal: Signal | None, reached: float
) -> list[Reason]:
    """Return what is particular about the device (`model.enums.Trait`), as far as it counts now."""
    row = int(rows[0])
    found: list[Reason] = []
    if fleet.must_run[row]:
        text = "must run: " + (
            "it is not turned down"
            if fleet.nameplate_up_w[row] <= 0.0
            else "it is not taken below its own schedule"
        )
        found.append(Reason("must_run", text))
    if fleet.traits[row] & Trait.DWELLS:
        found += _dwell(fleet, rows)
    reach = division.reach_of(fleet, rows, part)
    if reach is not None:
        low_w, high_w = float(reach.lowest_w[0]), float(reach.highest_w[0])
        ramp_w_per_s = float(fleet.ramp_w_per_s[row])
        text = f"slow: soon it is between {power(low_w)} and {power(high_w)}"
        found.append(Reason("ramp", f"{text}, at {ramp_w_per_s:g} W/s", ramp_w_per_s, "W/s"))
    if signal is not None:
        found += _turn(fleet, rows, part, signal, reached)
    return found


def _dwell(fleet: Fleet, rows: Ints) -> list[Reason]:
    until_s = float(dwell.stays_until_s(fleet, rows)[0])
    if not until_s:
        return []
    if until_s == inf:
        return [Reason("dwell", "it is being switched, and could not go back at once")]
    state = "on" if fleet.is_on[rows[0]] else "off"
    left_s = until_s - fleet.now_ns / NS_PER_S
    text = f"it stays {state} for {left_s:.0f} s more, its least time"
    return [Reason("dwell", text, left_s, "s", int(until_s) * NS_PER_S)]


def _turn(
    fleet: Fleet, rows: Ints, part: division.Shares, signal: Signal, reached: float
) -> list[Reason]:
    """Return whether its turn has come, in its tier and among those that are on or off.

    `reached` is the level that its groups' prices leave it.
    """
    row = int(rows[0])
    tier, level = int(fleet.tier[row]), abs(signal.level)
    if part.switched[0]:
        level = abs(signal.block_level)
    if fleet.waits[row]:
        return [Reason("waits", "its order begins step by step, and it is not its turn to start")]
    if max(reached, 0.0) < tier * TIER:
        met = "lower tiers meet the target" if level < tier * TIER else "caps keep its level back"
        text = f"tier {tier} is not reached: {met} (level {max(reached, 0.0):.4g})"
        return [Reason("tier_not_reached", text, float(tier))]
    if not part.switched[0]:
        return []
    what, at = "its turn", float(turn(fleet, rows, np.zeros(1, np.intp))[0] / part.readiness[0])
    if fleet.steps[row] > 1:
        stairs = division.stairs_of(fleet, rows, part, 1 if signal.block_level >= 0 else -1)
        if stairs is None or not len(stairs.at):
            text = f"none of its {fleet.steps[row]} steps lies within its room"
            return [Reason("no_step", text, float(fleet.steps[row]))]
        what, at = "its next step", float(stairs.at.min())
    into = reached - tier * TIER
    if into < at:
        text = f"{what} comes at {at:.3g} of its tier, which is driven to {max(into, 0.0):.3g}"
        return [Reason("turn_not_reached", text, at)]
    return []


def _groups(fleet: Fleet, row: int, signal: Signal | None) -> list[Reason]:
    """Return the caps of its groups that cost it part of its level."""
    if signal is None:
        return []
    names = {group: fleet.names[group][getattr(fleet, group)[row]] for group in _GROUPS}
    of_it = {f"{group}/{name}" for group, name in names.items()}
    return [
        Reason("price", f"the cap of {group} keeps {price:.4g} of its level back", price, "level")
        for group, price in sorted(signal.prices.items())
        if group in of_it and price > 0.0
    ]


def _trust(fleet: Fleet, row: int) -> list[Reason]:
    """Return why it is not counted on, if it is not."""
    state = describe(fleet, row)
    until_ns = state.excluded_until_ns if state.excluded_until_ns > fleet.now_ns else 0
    match state.exclusion:
        case Exclusion.NONE:
            return []
        case Exclusion.OPTED_OUT:
            return [Reason("opted_out", "its owner has opted out", until_ns=until_ns)]
        case Exclusion.CONDITION:
            named = ", ".join(_words(each) for each in state.conditions)
            return [Reason("condition", f"not counted on: {named}")]
        case Exclusion.SILENT:
            age_s = (fleet.now_ns - int(fleet.received_at_ns[row])) / NS_PER_S
            if not fleet.received_at_ns[row]:
                return [Reason("silent", "it was never heard")]
            return [Reason("silent", f"not heard for {age_s:.0f} s", age_s, "s")]
        case Exclusion.UNREACHABLE:
            return [Reason("unreachable", "it has no session a command could go out on")]
        case _:
            text = f"not counted on: {_words(state.exclusion)}"
            return [Reason("excluded", text, until_ns=until_ns)]


def _claims(claims: list[Signal]) -> list[Reason]:
    """Return the orders that would have it too, if an earlier one had not."""
    if len(claims) < 2:
        return []
    first, others = claims[0], ", ".join(str(each.order_no) for each in claims[1:])
    text = f"order {first.order_no} claimed it first; it does nothing for {others}"
    return [Reason("claimed", text, float(first.order_no), "order")]


def _kind(fleet: Fleet, row: int) -> str:
    return _words(DeviceKind(int(fleet.kind[row])))


def _words(name: DeviceKind | Condition | Exclusion) -> str:
    return name.name.lower().replace("_", " ")
