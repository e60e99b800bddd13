"""The scenario file: what fleet, what goes wrong, what is ordered. One TOML file, read strictly."""

import datetime
import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, cast

from kapelle.errors import Invalid, Problem
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S
from kapelle.sim.clock import NOON_NS
from kapelle.sim.devices import FleetPlan
from kapelle.sim.faults import ClockStep, FaultPlan, GroupLoss, Restart, Rival


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
    profile: Sequence[ProfilePart] = ()
    """Its intervals, which last `duration_s` together; none: one target."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole run, but for the seed."""

    duration_s: float
    fleet: FleetPlan = field(default_factory=FleetPlan)
    faults: FaultPlan = field(default_factory=FaultPlan)
    orders: Sequence[OrderPlan] = field(default_factory=tuple)
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
    top = _checked(table, "", _TOP, problems, required=("duration_s",))
    fleet = _checked(table.get("fleet", {}), "fleet", _FLEET, problems)
    faults = _checked(table.get("faults", {}), "faults", _FAULTS, problems)
    losses = [
        _checked(each, f"faults.group_loss[{i}]", _LOSS, problems, ("by", "name", "at_s"))
        for i, each in enumerate(_tables(faults.pop("group_loss", ())))
    ]
    restarts = [
        _checked(each, f"faults.restart[{i}]", _RESTART, problems, ("role", "at_s"))
        for i, each in enumerate(_tables(faults.pop("restart", ())))
    ]
    rivals = [
        _checked(each, f"faults.rival[{i}]", _RIVAL, problems, ("role", "at_s", "for_s"))
        for i, each in enumerate(_tables(faults.pop("rival", ())))
    ]
    steps = [
        _checked(each, f"faults.clock_step[{i}]", _STEP, problems, ("at_s", "by_s"))
        for i, each in enumerate(_tables(faults.pop("clock_step", ())))
    ]
    orders = [
        _checked(each, f"orders[{i}]", _ORDER, problems, ("at_s", "duration_s"))
        for i, each in enumerate(_tables(table.get("orders", ())))
    ]
    for i, order in enumerate(orders):
        intervals = [
            _checked(each, f"orders[{i}].profile[{n}]", _INTERVAL, problems, tuple(_INTERVAL))
            for n, each in enumerate(_tables(order.get("profile", ())))
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
            near = _near(loss.name, known[loss.by])
            yield Problem(
                f"{where}.name",
                f"no {loss.by} is called {loss.name!r}",
                f"{near}name one of this fleet, such as {known[loss.by][0]!r}",
            )
        if loss.return_s is not None and loss.return_s <= loss.at_s:
            yield Problem(
                f"{where}.return_s", "not after at_s", "let it return later, or leave it out"
            )
    for i, order in enumerate(scenario.orders):
        where = f"orders[{i}]"
        if (order.fraction is None) == (order.target_w is None):
            yield Problem(where, "needs one of fraction and target_w", "give exactly one of them")
        lasts_s = sum(interval.duration_s for interval in order.profile)
        if order.profile and abs(lasts_s - order.duration_s) > 1e-6:
            yield Problem(
                f"{where}.profile",
                f"lasts {lasts_s:g} s, the order {order.duration_s:g} s",
                "let its intervals fill the order",
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


def _checked(
    table: object,
    where: str,
    rules: Mapping[str, "_Rule"],
    problems: list[Problem],
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the table's values, having listed all that is wrong with them."""
    if not isinstance(table, dict):
        problems.append(Problem(where, "is not a table", f"write it as [{where}]"))
        return {}
    dot = f"{where}." if where else ""
    good: dict[str, Any] = {}
    for key, value in table.items():
        rule = rules.get(key)
        if rule is None:
            remedy = f"{_near(key, list(rules))}known here: {', '.join(sorted(rules))}"
            problems.append(Problem(f"{dot}{key}", "no such key", remedy))
        elif not rule.accepts(value):
            problems.append(Problem(f"{dot}{key}", f"is {value!r}", f"give {rule.wanted}"))
        else:
            good[key] = rule.take(value)
    problems += [
        Problem(f"{dot}{key}", "is missing", f"give {rules[key].wanted}")
        for key in required
        if key not in table
    ]
    return good


def _near(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]!r}? " if close else ""


def _tables(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one key may hold."""

    wanted: str
    accepts: Callable[[object], bool]
    take: Callable[[Any], object] = lambda value: value


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _real(low: float, high: float, unit: str = "") -> _Rule:
    wanted = f"a number from {low:g} to {high:g}{unit}"
    return _Rule(wanted, lambda v: _is_real(v) and low <= cast("float", v) <= high, float)


def _count(low: int, high: int) -> _Rule:
    def accepts(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return _Rule(f"a whole number from {low} to {high}", accepts)


def _one_of(*words: str) -> _Rule:
    return _Rule(f"one of {', '.join(words)}", lambda value: value in words)


def _shares(known: Sequence[str] = ()) -> _Rule:
    """Accept names with shares that sum to one; only known names where there are any."""

    def accepts(value: object) -> bool:
        return (
            isinstance(value, dict)
            and bool(value)
            and all(not known or name in known for name in value)
            and all(_is_real(share) and share >= 0 for share in value.values())
            and abs(sum(value.values()) - 1.0) < 1e-6
        )

    names = f" of {', '.join(known)}" if known else ""
    return _Rule(f"a table{names} with shares that sum to 1", accepts)


_ANY = _Rule("tables", lambda value: isinstance(value, dict | list))
_TEXT = _Rule("a name", lambda value: isinstance(value, str) and bool(value))
_MOMENT = _Rule(
    "a moment with its offset, such as 2026-06-21T12:00:00Z",
    lambda value: isinstance(value, datetime.datetime) and value.tzinfo is not None,
)
_SHARE = _real(0, 1)
_YES_OR_NO = _Rule("true or false", lambda value: isinstance(value, bool))
_SECONDS = _real(0, 31_536_000, " s")
_SOME_SECONDS = _real(0.001, 31_536_000, " s")
_HOURS = _Rule(
    "a list of hours, such as [2.0, 2.7]",
    lambda v: isinstance(v, list) and bool(v) and all(_is_real(h) and h > 0 for h in v),
    tuple,
)
_TOP = {
    "duration_s": _real(1, 31_536_000, " s"),
    "start": _MOMENT,
    "fleet": _ANY,
    "faults": _ANY,
    "orders": _ANY,
}
_FLEET = {
    "devices": _count(1, 1_000_000),
    "partitions": _count(1, 256),
    "telemetry_period_s": _real(0.5, 86_400, " s"),
    "mix": _shares([kind.name.lower() for kind in DeviceKind]),
    "vendors": _shares(),
    "providers": _shares(),
    "devices_per_feeder": _count(1, 1_000_000),
    "devices_per_gateway": _count(1, 1_000_000),
    "revert_s": _real(5, 86_400, " s"),
    "no_revert_fraction": _SHARE,
    "battery_h": _HOURS,
    "ev_min_w": _real(0, 3000, " W"),
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
    "flap_s": _real(1, 86_400, " s"),
    "register_jitter_wh": _real(0, 1000, " Wh"),
    "register_rollover_wh": _real(0, 1e12, " Wh"),
    "group_loss": _ANY,
    "restart": _ANY,
    "rival": _ANY,
    "clock_step": _ANY,
}
_STEP = {"at_s": _SECONDS, "by_s": _real(-86_400, 86_400, " s")}
_LOSS = {
    "by": _one_of("vendor", "provider", "feeder", "gateway"),
    "name": _TEXT,
    "at_s": _SECONDS,
    "return_s": _SOME_SECONDS,
    "stops": _YES_OR_NO,
}
_RESTART = {
    "role": _one_of("all", "gateway", "fleet", "dispatch"),
    "at_s": _SECONDS,
    "down_s": _SECONDS,
}
_RIVAL = {
    "role": _one_of("fleet", "dispatch"),
    "at_s": _SECONDS,
    "for_s": _SOME_SECONDS,
    "how": _one_of("paused", "cut-off"),
}
_ORDER = {
    "at_s": _SECONDS,
    "duration_s": _SOME_SECONDS,
    "fraction": _real(0.001, 10),
    "target_w": _real(1, 1e12, " W"),
    "direction": _one_of("up", "down"),
    "profile": _ANY,
}
_INTERVAL = {"duration_s": _SOME_SECONDS, "part": _real(-1, 1)}
