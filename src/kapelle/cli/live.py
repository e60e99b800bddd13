"""`kapelle devices now` and `show`: devices as a running plant sees them."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kapelle.cli.configuration import File
from kapelle.cli.orders import Url, plant
from kapelle.cli.output import Json, out, print_table, print_told, say
from kapelle.words import counted, percent, power

if TYPE_CHECKING:
    # The API's shapes are costly to import: only the commands that need them do.
    from kapelle.api.device_shapes import DeviceBrief, DeviceTold, WhyTold

_FRESH = {"live": "●", "late": "◐", "stale": "○", "lost": "✕", "never": "·"}
_FINE = ("none", "in_sync")
_COLUMNS = ("", "id", "kind", "power", "desired", "soc", "age", "standing", "wrong")

Condition = Annotated[str, typer.Option(help="flapping, frozen, deaf, … or any.")]
Standing = Annotated[str, typer.Option(help="in_sync, pending, diverged_size, …")]


def now(
    resource: Annotated[str, typer.Option(help="Named set of devices.")] = "all",
    kind: Annotated[str, typer.Option(help="battery, pv, ev, …")] = "",
    vendor: str = "",
    freshness: Annotated[str, typer.Option(help="live, late, stale, lost or never.")] = "",
    standing: Standing = "",
    condition: Condition = "",
    excluded: Annotated[str, typer.Option(help="silent, unknown, diverged, … or any.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 40,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """List devices as they stand now, filtered."""
    filters = {
        "resource": resource,
        "kind": kind,
        "vendor": vendor,
        "freshness": freshness,
        "standing": standing,
        "condition": condition,
        "excluded": excluded,
    }
    with plant(config, url) as client:
        told = client.devices({k: v for k, v in filters.items() if v}, limit=limit)
    if json:
        print_told(told)
        return
    at = datetime.now(UTC)
    print_table([_line(each, at) for each in told.devices], _COLUMNS, "no device is like that")
    more = told.matched - len(told.devices)
    if told.devices:
        shown = f"{counted(told.matched, 'device')}" + (f", {more:,} not shown" if more else "")
        say(f"{shown} · ● live ◐ late ○ stale ✕ lost · never")


def show(
    device_id: Annotated[str, typer.Argument(metavar="ID")],
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show one device: what is desired, what it reports, what is observed."""
    with plant(config, url) as client:
        told = client.device(device_id)
    if json:
        print_told(told)
    else:
        for name, text in _facts(told, datetime.now(UTC)):
            out().print(f"[dim]{name:<10}[/] {text}" if name else text)


def why(
    device_id: Annotated[str, typer.Argument(metavar="ID")],
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Say why a device does what it does: what asks, how much, and what bounds it."""
    with plant(config, url) as client:
        told = client.why(device_id)
    if json:
        print_told(told)
        return
    for name, text in _account(told):
        out().print(f"[dim]{name:<10}[/] {escape(text)}", highlight=False)


def _account(told: "WhyTold") -> list[tuple[str, str]]:
    asks = "no order asks for it"
    if told.level is not None:
        asks = f"order {told.order_no} on {told.resource}, level {told.level:.4g}, tier {told.tier}"
    asked = "to be left alone" if told.asked_w is None else power(told.asked_w)
    last = "nothing" if told.setpoint_w is None else power(told.setpoint_w)
    room = f"{power(told.headroom_up_w, sign=True)}  {power(-told.headroom_down_w, sign=True)}"
    return [
        ("device", told.device_id),
        ("order", asks),
        ("own", power(told.own_w)),
        ("room", f"{room}, {percent(told.used)} of it asked"),
        ("asked", f"{asked}; last told {last}"),
        *(("because" if place == 0 else "", each) for place, each in enumerate(_reasons(told))),
    ]


def _reasons(told: "WhyTold") -> list[str]:
    def until(at: datetime | None) -> str:
        return f", until {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""

    return [reason.text + until(reason.until) for reason in told.reasons]


def _line(told: "DeviceBrief", at: datetime) -> dict[str, object]:
    excluded = "" if told.excluded == "none" else told.excluded
    conditions = [_words(each) for each in told.conditions]
    return {
        "": _FRESH[told.freshness],
        "id": told.device_id,
        "kind": told.kind,
        "power": power(told.power_w),
        "desired": power(told.desired_w),
        "soc": percent(told.soc),
        "age": _age(told.measured_at, at),
        "standing": "–" if told.standing == "none" else _words(told.standing),
        # A condition that excludes is told by its name.
        "wrong": ", ".join(conditions) or _words(excluded),
    }


def _facts(told: "DeviceTold", at: datetime) -> list[tuple[str, str]]:
    desired, reported, observed = told.desired, told.reported, told.observed
    place, vendor = (told.site, told.zone, told.feeder), escape(told.vendor or "no vendor")
    mark = "[green]●[/]" if _is_fine(told) else "[yellow]▲[/]"
    up = power(told.nameplate_up_w, sign=True)
    down = power(-told.nameplate_down_w, sign=True)
    facts = [
        ("", f"{mark} [bold]{escape(told.device_id)}[/]  {told.kind} of {vendor}"),
        ("place", escape(" · ".join(part for part in place if part) or "–")),
        ("nameplate", f"{up}  {down}"),
        ("standing", f"{_words(told.standing)}{_since(told.standing_since, at)}"),
    ]
    if told.conditions:
        named = ", ".join(_words(each) for each in told.conditions)
        facts.append(("conditions", f"{named}{_since(told.conditions_since, at)}"))
    if told.excluded != "none":
        facts.append(("excluded", f"{_words(told.excluded)}{_until(told.excluded_until, at)}"))
    asked = "nothing: it follows its own schedule"
    if desired.setpoint_w is not None:
        asked = f"{power(desired.setpoint_w)} for order {desired.order_no}, {desired.phase}"
    version = f"[dim]revision {desired.revision} of epoch {desired.epoch}[/]"
    facts.append(("desired", f"{asked}  {version}" if desired.revision else asked))
    says = [f"mode {reported.mode}"] if reported.mode else []
    if reported.setpoint_w is not None:
        says.append(f"setpoint {power(reported.setpoint_w)}")
    says.append("connected" if reported.connected else "no session")
    facts.append(("reported", ", ".join(says)))
    meter = "nothing yet"
    if observed.measured_at is not None:
        meter = f"{power(observed.power_w)}, soc {percent(observed.soc)}, {observed.freshness}"
        meter += f", measured {_age(observed.measured_at, at)} ago"
    facts.append(("observed", meter))
    doubt = power(1.96 * observed.estimate_std_w)
    facts.append(("estimate", f"{power(observed.estimate_w)} ± {doubt} (95 %)"))
    ends = (
        f", reverts in {_span((told.reverts_at - at).total_seconds())}" if told.reverts_at else ""
    )
    facts.append(("failsafe", f"{told.failsafe}{ends}"))
    return facts


def _is_fine(told: "DeviceTold") -> bool:
    return told.standing in _FINE and not told.conditions and told.excluded == "none"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _age(then: datetime | None, at: datetime) -> str:
    return "–" if then is None else _span((at - then).total_seconds())


def _since(then: datetime | None, at: datetime) -> str:
    return f" for {_age(then, at)}" if then else ""


def _until(then: datetime | None, at: datetime) -> str:
    return f", tried again in {_span((then - at).total_seconds())}" if then and then > at else ""


def _span(seconds: float) -> str:
    """Return a length of time as people read it: 12 s, 5 min, 3 h, 4 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
