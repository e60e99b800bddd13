"""`kapelle status`: the plant on one screen, what is wrong first and what to do about it."""

from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kapelle.cli.configuration import File
from kapelle.cli.orders import Url, order_columns, order_row, plant
from kapelle.cli.output import Json, out, print_table, print_told
from kapelle.words import counted, percent, power

if TYPE_CHECKING:
    # The API's shapes are costly to import: only the commands that need them do.
    from kapelle.api.shapes import ReasonTold, ResourceTold, StatusTold

_MARKS = {"ok": ("●", "green"), "degraded": ("▲", "yellow"), "failing": ("✕", "bold red")}
_FRESH = {
    "live": ("●", "green"), "late": ("◐", "yellow"), "stale": ("○", "yellow"),
    "lost": ("✕", "red"), "never": ("·", "dim"),
}  # fmt: skip
_FINE = ("none", "in_sync", "pending")
_NBSP = "\N{NO-BREAK SPACE}"
_NOTICES_SHOWN = 5
_DAMAGE_SHOWN = 5


def status(config: File = None, url: Url = None, json: Json = False) -> None:
    """Say how the plant is: what is wrong first, why, since when and what to do."""
    with plant(config, url) as client:
        told = client.status()
    if json:
        print_told(told)
    else:
        show(told)


def show(told: "StatusTold") -> None:
    """Print a status for people, within the width there is."""
    console = out()
    console.print(_headline(told))
    for reason in told.reasons:
        _show_reason(console, reason, told.now)
    if told.journal_damage:
        console.print(
            Text(f"   the journal is damaged, found so far: {told.journal_damage:,}", "bold")
        )
    for remark in told.damage[:_DAMAGE_SHOWN]:
        console.print(Text(f"     {remark}"))
    console.print()
    console.print(_facts(told))
    if told.orders:
        console.print()
        print_table([order_row(order) for order in told.orders], order_columns(), "")
    if told.notices:
        console.print()
        console.print(_notices(told))


def _headline(told: "StatusTold") -> Text:
    mark, style = _MARKS.get(told.state, ("▲", "yellow"))
    text = Text.assemble((f"{mark} {told.state}", style))
    text.append(f"  {told.now:%Y-%m-%d %H:%M:%S}Z", "dim")
    text.append(f" · {told.partitions_heard} of {counted(told.partitions, 'partition')}", "dim")
    text.append(f" · kapelle {told.version}", "dim")
    return text


def _show_reason(console: Console, reason: "ReasonTold", now: datetime) -> None:
    mark, style = _MARKS.get(reason.state, ("▲", "yellow"))
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(overflow="fold")
    line = Text(reason.text)
    age = _age((now - reason.since).total_seconds())
    line.append(f"  {reason.code}, {age}", "dim")
    grid.add_row(Text(f" {mark}", style), line)
    grid.add_row("", Text(f"→ {reason.remedy}", "cyan"))
    console.print(grid)


def _facts(told: "StatusTold") -> Table:
    whole = told.plant
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("power", _power(whole))
    up, down = power(whole.headroom_up_w, sign=True), power(-whole.headroom_down_w, sign=True)
    grid.add_row("headroom", Text(f"{up} towards the grid · {down} from it"))
    grid.add_row("devices", _devices(whole))
    standings = {
        name: count for name, count in whole.standings.items() if count and name not in _FINE
    }
    if standings:
        grid.add_row("not in sync", _counts(standings))
    if any(whole.conditions.values()):
        grid.add_row("wrong", _counts(whole.conditions))
    if whole.excluded:
        grid.add_row("excluded", _counts(whole.excluded))
    taken = told.ingest
    grid.add_row(
        "readings",
        Text(
            f"{taken.get('accepted', 0):,} taken · {taken.get('quarantined', 0):,} quarantined"
            f" · {taken.get('muted', 0):,} muted, since the start"
        ),
    )
    waiting = dict(told.quarantine)
    if total := waiting.pop("open", 0):
        text = Text(f"{total:,} open: ")
        grid.add_row("quarantine", text + _counts(waiting) + Text(" → kapelle dlq ls", "dim"))
    if not told.orders:
        grid.add_row("orders", Text("none in force", "dim"))
    return grid


def _power(whole: "ResourceTold") -> Text:
    text = Text.assemble((power(whole.power_w), "bold"))
    text.append(f"  {power(whole.low_w)} to {power(whole.high_w)} in 95 %")
    if whole.measured_share is not None:
        text.append(f" · {percent(whole.measured_share)} measured")
    if whole.oldest_age_s is not None:
        text.append(f", oldest {_age(whole.oldest_age_s)}", "dim")
    return text


def _devices(whole: "ResourceTold") -> Text:
    text = Text(f"{whole.devices:,}")
    for name, (mark, style) in _FRESH.items():
        if count := whole.freshness.get(name, 0):
            text.append("  ")
            text.append(f"{mark} ", style)
            text.append(f"{count:,} {name}")
    return text


def _counts(counts: dict[str, int]) -> Text:
    most = sorted(counts.items(), key=lambda told: (-told[1], told[0]))
    return Text(" · ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in most if count))


def _notices(told: "StatusTold") -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for notice in told.notices[:_NOTICES_SHOWN]:
        today = notice.at.date() == told.now.date()
        at = f"{notice.at:%H:%M:%S}" if today else f"{notice.at:%m-%d %H:%M}"
        text = Text.assemble((f"{notice.code}: ", "bold"), notice.text)
        grid.add_row(at, text)
    return grid


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{_NBSP}{unit}"
    return f"{max(seconds, 0):.0f}{_NBSP}s"
