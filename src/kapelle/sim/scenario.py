"""The scenario file: what fleet, what goes wrong, what is ordered. One TOML file, read strictly."""

import datetime
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kapelle.errors import Invalid, Problem
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import ALL, NS_PER_S
from kapelle.sim.clock import NOON_NS
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import ClockStep, FaultPlan, GroupLoss, Restart, Rival
from kapelle.sim.resources import ResourcePlan
from kapelle.sim.strict import (
    Rule,
    checked,
    count,
    is_real,
    nearest,
    one_of,
    real,
    shares,
    some,
    tables,
)


@dataclass(frozen=True, slots=True)
class ProfilePart:
    """One interval of an order whose target changes."""

    duration_s: float
    part: float
    """Of the order's target; negative: in the other direction."""


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """An order somebody will give."""

    at_s: float
    duration_s: float
    fraction: float | None = None
    """Of the capability the plant publishes at that moment; this or `target_w`."""
    target_w: float | None = None
    direction: Literal["up", "down"] = "up"
    resource: str = ALL
    """A named resource of the fleet; else all of it."""
    profile: Sequence[ProfilePart] = ()
    """Its intervals, which last `duration_s` together; none: one target."""
    staged: bool = False
    """Begins with a few devices, and grows as their meters prove them."""
    randomise_s: float = 0.0
    """Each device begins and ends at its own moment within this. [s]"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole run, but for the seed."""

    duration_s: float
    fleet: FleetPlan = field(default_factory=FleetPlan)
    faults: FaultPlan = field(default_factory=FaultPlan)
    orders: Sequence[OrderPlan] = field(default_factory=tuple)
    resources: Mapping[str, ResourcePlan] = field(default_factory=dict)
    """Named resources by name; they may share devices."""
    start_ns: int = NOON_NS
    """UTC at which the run begins; the sun stands where it stood then."""


def read_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        Invalid: It cannot be read or used; every problem is named with its place and a remedy.
    """
    try:
        return parse_scenario(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path}: {error}") from error


def parse_scenario(text: str, where: str = "scenario") -> Scenario:
    """Read the text of a scenario file. See `read_scenario`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{where}: not TOML: {error}") from error
    problems: list[Problem] = []
    made = _scenario(table, problems)
    if problems or made is None:
        raise Invalid(f"{where} cannot be used", problems)
    return made


def _scenario(table: dict[str, Any], problems: list[Problem]) -> Scenario | None:
    top = checked(table, "", _TOP, problems, required=("duration_s",))
    fleet = checked(table.get("fleet", {}), "fleet", _FLEET, problems)
    faults = checked(table.get("faults", {}), "faults", _FAULTS, problems)
    losses = [
        checked(each, f"faults.group_loss[{i}]", _LOSS, problems, ("by", "name", "at_s"))
        for i, each in enumerate(tables(faults.pop("group_loss", ())))
    ]
    restarts = [
        checked(each, f"faults.restart[{i}]", _RESTART, problems, ("role", "at_s"))
        for i, each in enumerate(tables(faults.pop("restart", ())))
    ]
    rivals = [
        checked(each, f"faults.rival[{i}]", _RIVAL, problems, ("role", "at_s", "for_s"))
        for i, each in enumerate(tables(faults.pop("rival", ())))
    ]
    steps = [
        checked(each, f"faults.clock_step[{i}]", _STEP, problems, ("at_s", "by_s"))
        for i, each in enumerate(tables(faults.pop("clock_step", ())))
    ]
    orders = [
        checked(each, f"orders[{i}]", _ORDER, problems, ("at_s", "duration_s"))
        for i, each in enumerate(tables(table.get("orders", ())))
    ]
    resources = {
        name: checked(each, f"resources.{name}", _RESOURCE, problems)
        for name, each in _named(table.get("resources", {}), problems).items()
    }
    for i, order in enumerate(orders):
        intervals = [
            checked(each, f"orders[{i}].profile[{n}]", _INTERVAL, problems, tuple(_INTERVAL))
            for n, each in enumerate(tables(order.get("profile", ())))
        ]
        order["profile"] = intervals
    if problems:
        return None
    start: datetime.datetime | None = top.get("start")
    scenario = Scenario(
        duration_s=float(top["duration_s"]),
        fleet=FleetPlan(**fleet),
        faults=FaultPlan(
            **faults,
            group_loss=tuple(GroupLoss(**each) for each in losses),
            restart=tuple(Restart(**each) for each in restarts),
            rival=tuple(Rival(**each) for each in rivals),
            clock_step=tuple(ClockStep(**each) for each in steps),
        ),
        orders=tuple(_order(order) for order in orders),
        resources={name: ResourcePlan(**each) for name, each in resources.items()},
        start_ns=NOON_NS if start is None else round(start.timestamp()) * NS_PER_S,
    )
    problems += list(_across(scenario))
    return scenario


def _order(table: dict[str, Any]) -> OrderPlan:
    profile = tuple(ProfilePart(**each) for each in table.pop("profile"))
    return OrderPlan(**table, profile=profile)


def _across(scenario: Scenario) -> Iterable[Problem]:
    """Yield what is wrong between values that are each right by themselves."""
    known = {
        "vendor": list(scenario.fleet.vendors),
        "provider": list(scenario.fleet.providers),
        "feeder": _numbered("feeder-", 3, scenario.fleet.devices_per_feeder, scenario),
        "gateway": _numbered("gateway-", 2, scenario.fleet.devices_per_gateway, scenario),
    }
    for i, loss in enumerate(scenario.faults.group_loss):
        where = f"faults.group_loss[{i}]"
        if loss.name not in known[loss.by]:
            hint = nearest(loss.name, known[loss.by])
            yield Problem(
                f"{where}.name",
                f"no {loss.by} is called {loss.name!r}",
                f"{hint}name one of this fleet, such as {known[loss.by][0]!r}",
            )
        if loss.return_s is not None and loss.return_s <= loss.at_s:
            yield Problem(
                f"{where}.return_s", "not after at_s", "let it return later, or leave it out"
            )
    for name, resource in scenario.resources.items():
        for vendor in sorted(set(resource.vendor) - set(known["vendor"])):
            hint = nearest(vendor, known["vendor"])
            remedy = f"{hint}name one of this fleet, such as {known['vendor'][0]!r}"
            yield Problem(f"resources.{name}.vendor", f"no vendor is called {vendor!r}", remedy)
    for i, order in enumerate(scenario.orders):
        where = f"orders[{i}]"
        if order.resource not in (ALL, *scenario.resources):
            hint = nearest(order.resource, list(scenario.resources))
            remedy = f"{hint}name it as [resources.{order.resource}], or leave it out for all"
            yield Problem(f"{where}.resource", f"there is no {order.resource!r}", remedy)
        if (order.fraction is None) == (order.target_w is None):
            yield Problem(where, "needs one of fraction and target_w", "give exactly one of them")
        lasts_s = sum(interval.duration_s for interval in order.profile)
        if order.profile and abs(lasts_s - order.duration_s) > 1e-6:
            yield Problem(
                f"{where}.profile",
                f"lasts {lasts_s:g} s, the order {order.duration_s:g} s",
                "let its intervals fill the order",
            )
        if order.profile and (order.staged or order.randomise_s):
            yield Problem(
                f"{where}.profile",
                "begins with all devices at once",
                "leave out staged and randomise_s, or the profile",
            )
        if order.at_s >= scenario.duration_s:
            yield Problem(
                f"{where}.at_s", "begins after the run is over", "lower it, or raise duration_s"
            )
    if (scenario.faults.mtbf_s > 0) != (scenario.faults.mttr_s > 0):
        yield Problem("faults", "mtbf_s and mttr_s go together", "give both, or neither")


def _numbered(prefix: str, digits: int, size: int, scenario: Scenario) -> list[str]:
    count = (scenario.fleet.devices - 1) // size + 1
    return [f"{prefix}{number:0{digits}d}" for number in range(count)]


def _named(table: object, problems: list[Problem]) -> dict[str, object]:
    """Return the tables of resources by their names."""
    if not isinstance(table, dict) or ALL in table:
        problem = f"{ALL!r} is the whole fleet" if isinstance(table, dict) else "is not a table"
        problems.append(Problem("resources", problem, "write each as [resources.NAME]"))
        return {}
    return table


_ANY = Rule("tables", lambda value: isinstance(value, dict | list))
_TEXT = Rule("a name", lambda value: isinstance(value, str) and bool(value))
_MOMENT = Rule(
    "a moment with its offset, such as 2026-06-21T12:00:00Z",
    lambda value: isinstance(value, datetime.datetime) and value.tzinfo is not None,
)
_SHARE = real(0, 1)
_YES_OR_NO = Rule("true or false", lambda value: isinstance(value, bool))
_SECONDS = real(0, 31_536_000, " s")
_SOME_SECONDS = real(0.001, 31_536_000, " s")
_HOURS = Rule(
    "a list of hours, such as [2.0, 2.7]",
    lambda v: isinstance(v, list) and bool(v) and all(is_real(h) and h > 0 for h in v),
    tuple,
)
_TOP = {
    "duration_s": real(1, 31_536_000, " s"),
    "start": _MOMENT,
    "fleet": _ANY,
    "faults": _ANY,
    "orders": _ANY,
    "resources": _ANY,
}
_FLEET = {
    "devices": count(1, 1_000_000),
    "partitions": count(1, 256),
    "telemetry_period_s": real(0.5, 86_400, " s"),
    "mix": shares([kind.name.lower() for kind in DeviceKind]),
    "vendors": shares(),
    "providers": shares(),
    "devices_per_feeder": count(1, 1_000_000),
    "devices_per_gateway": count(1, 1_000_000),
    "revert_s": real(5, 86_400, " s"),
    "no_revert_fraction": _SHARE,
    "battery_h": _HOURS,
    "ev_min_w": real(0, 3000, " W"),
}
_FAULTS = {
    **dict.fromkeys(
        (
            "dead_fraction",
            "command_loss",
            "ack_loss",
            "telemetry_loss",
            "duplicate",
            "late_fraction",
            "frozen_fraction",
            "opt_out",
            "sign_turned_fraction",
            "kw_fraction",
            "one_way_fraction",
            "contested_fraction",
            "flapping_fraction",
            "poison",
            "reset_fraction",
            "local_fraction",
            "register_reset_fraction",
        ),
        _SHARE,
    ),
    **dict.fromkeys(
        (
            "command_latency_s",
            "telemetry_delay_s",
            "late_s",
            "skew_s",
            "mtbf_s",
            "mttr_s",
            "reset_s",
            "local_s",
        ),
        _SECONDS,
    ),
    "flap_s": real(1, 86_400, " s"),
    "register_jitter_wh": real(0, 1000, " Wh"),
    "register_rollover_wh": real(0, 1e12, " Wh"),
    "group_loss": _ANY,
    "restart": _ANY,
    "rival": _ANY,
    "clock_step": _ANY,
}
_STEP = {"at_s": _SECONDS, "by_s": real(-86_400, 86_400, " s")}
_LOSS = {
    "by": one_of("vendor", "provider", "feeder", "gateway"),
    "name": _TEXT,
    "at_s": _SECONDS,
    "return_s": _SOME_SECONDS,
    "stops": _YES_OR_NO,
}
_RESTART = {
    "role": one_of("all", "gateway", "fleet", "dispatch"),
    "at_s": _SECONDS,
    "down_s": _SECONDS,
}
_RIVAL = {
    "role": one_of("fleet", "dispatch"),
    "at_s": _SECONDS,
    "for_s": _SOME_SECONDS,
    "how": one_of("paused", "cut-off"),
}
_ORDER = {
    "at_s": _SECONDS,
    "duration_s": _SOME_SECONDS,
    "fraction": real(0.001, 10),
    "target_w": real(1, 1e12, " W"),
    "direction": one_of("up", "down"),
    "resource": _TEXT,
    "profile": _ANY,
    "staged": _YES_OR_NO,
    "randomise_s": real(0, 600, " s"),
}
_RESOURCE = {
    "kind": some([kind.name.lower() for kind in DeviceKind]),
    "vendor": some(),
}
_INTERVAL = {"duration_s": _SOME_SECONDS, "part": real(-1, 1)}
