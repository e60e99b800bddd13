"""`kapelle order watch`: an order while it runs, and how it ended."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kapelle.cli.configuration import File
from kapelle.cli.orders import Number, Url, plant
from kapelle.cli.output import Exit, Json, out, print_json, say
from kapelle.cli.report_words import MARKS, delivered_text
from kapelle.errors import NotFound, Unreachable
from kapelle.words import power

if TYPE_CHECKING:
    # The API's shapes are costly to import: only the commands that need them do.
    from kapelle.api.client import Client
    from kapelle.api.report_shapes import ReportTold
    from kapelle.api.shapes import OrderTold, ResourceTold

_WAY = ("planned", "sent", "received", "accepted", "applied", "verified")
_EXITS = ("rejected", "opted_out", "expired", "unknown", "diverged", "lost")
_OVER = ("completed", "cancelled", "declined")
_CODES = {"delivered": Exit.OK, "declined": Exit.REJECTED}
_MISSES_MAX = 10
_RECORD_S = 90.0
"""The record is written every half minute; a setting may make that longer."""
_BAR = 28

Show = Callable[["OrderTold", "ResourceTold"], None]


def watch(order: Number, config: File = None, url: Url = None, json: Json = False) -> None:
    """Follow an order until it is over; exit code 0 if it delivered within its tolerance.

    On a terminal a picture that moves; elsewhere a line whenever something has changed.
    """
    with plant(config, url) as client:
        with _shown(json) as show:
            last = _follow(client, order, show)
        if last.status == "declined":
            say(f"declined: {last.reason}")
            raise typer.Exit(Exit.REJECTED)
        told = _report(client, order)
    if told is None:
        say("the long record does not tell how it ended, so nobody can say that it delivered")
        raise typer.Exit(Exit.FAILED)
    _tell_end(told, json=json)
    raise typer.Exit(_CODES.get(told.judged.verdict, Exit.FAILED))


def _follow(client: "Client", order_no: int, show: Show) -> "OrderTold":
    """Show an order every second until it is over; return it as it was then."""
    misses = 0
    while True:
        try:
            now = client.order(order_no)
            show(now, client.resource(now.resource))
            misses = 0
        except Unreachable as error:
            # A plant that restarts is back in seconds; its orders go on meanwhile.
            misses += 1
            if misses > _MISSES_MAX:
                raise
            say(str(error))
        else:
            if now.status in _OVER:
                return now
        time.sleep(1)


def _report(client: "Client", order_no: int) -> "ReportTold | None":
    """Wait until the record has all of an order; None where there is none, or not in time."""
    deadline = time.monotonic() + _RECORD_S
    say("over; waiting for the long record to have all of it")
    while True:
        try:
            told = client.report(order_no)
            if told.is_complete:
                return told
        except NotFound:
            pass
        except Unreachable as error:
            if "history" in str(error):
                return None
        if time.monotonic() > deadline:
            return None
        time.sleep(1)


@contextmanager
def _shown(json: bool) -> Iterator[Show]:
    """Yield what shows an order now."""
    console = out()
    if console.is_terminal and not json:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda order, now: live.update(picture(order, now), refresh=True)
        return
    seen: list[object] = []

    def line(order: "OrderTold", now: "ResourceTold") -> None:
        state = (order.status, _committed_w(order), order.target_w, order.ends_at, now.phases)
        if seen and seen[-1] == state:
            return
        seen[:] = [state]
        if json:
            told = {"order": order.model_dump(mode="json"), "resource": now.model_dump(mode="json")}
            print_json(told)
        else:
            console.print(line_of(order, now), markup=False, soft_wrap=True)
        sys.stdout.flush()

    yield line


def line_of(order: "OrderTold", now: "ResourceTold") -> str:
    """Return an order now as one line."""
    doubt = power((now.high_w - now.low_w) / 2)
    parts = [
        f"{datetime.now(UTC):%H:%M:%S}Z",
        f"{order.status:<9}",
        f"actual {power(_net_w(now))} ±{doubt}",
        f"target {power(_goal_w(order))}",
        f"live {now.freshness.get('live', 0):,} of {now.devices:,}",
        *(f"{phase} {now.phases[phase]:,}" for phase in _WAY if now.phases.get(phase)),
        *(f"✕ {phase} {now.phases[phase]:,}" for phase in _EXITS if now.phases.get(phase)),
    ]
    return "  ".join(parts)


def picture(order: "OrderTold", now: "ResourceTold") -> Table:
    """Return an order now as a picture: where it stands, and how far its commands have come."""
    left_s = max(0.0, (order.ends_at - datetime.now(UTC)).total_seconds())
    head = f"order {order.order_no} · {order.status} · {power(order.target_w)} of {order.resource}"
    grid = Table.grid(padding=(0, 2))
    grid.title = Text(f"{head} · {left_s:,.0f} s left", "bold")
    grid.title_justify = "left"
    doubt = power((now.high_w - now.low_w) / 2)
    off_w = None if (goal_w := _goal_w(order)) is None else _net_w(now) - goal_w
    grid.add_row("actual", Text(f"{power(_net_w(now))} ±{doubt}"), "")
    grid.add_row("target", Text(power(goal_w)), Text(f"{power(off_w)} off", "dim"))
    if order.declined_w:
        declined = f"▲ {power(order.declined_w)}: {order.reason}"
        grid.add_row("declined", Text(declined, "yellow"), "")
    grid.add_row("live", f"{now.freshness.get('live', 0):,} of {now.devices:,}", "")
    reached = _reached(now.phases)
    most = max(reached.values()) or 1
    for phase, count in reached.items():
        bar = Text("█" * round(_BAR * count / most), "green" if phase == "verified" else "cyan")
        grid.add_row(phase, f"{count:,}", bar)
    for phase in _EXITS:
        if count := now.phases.get(phase, 0):
            grid.add_row(Text(f"✕ {phase}", "yellow"), f"{count:,}", "")
    return grid


def _reached(phases: dict[str, int]) -> dict[str, int]:
    """Return how many devices' commands have come at least so far."""
    return {
        phase: sum(phases.get(later, 0) for later in (*_WAY[place:], "completed"))
        for place, phase in enumerate(_WAY)
    }


def _net_w(now: "ResourceTold") -> float:
    """Return power but for what devices do for orders on other resources: what is judged."""
    return now.power_w - now.others_w


def _goal_w(order: "OrderTold") -> float | None:
    if not order.planned:
        return None
    return (order.baseline_w or 0.0) + (_committed_w(order) or 0.0)


def _committed_w(order: "OrderTold") -> float | None:
    """Return what is promised now: of a profile, for the interval that runs."""
    now = datetime.now(UTC)
    begun = [each for each in order.profile if each.starts_at <= now] or order.profile[:1]
    return begun[-1].committed_w if begun else order.committed_w


def _tell_end(told: "ReportTold", *, json: bool) -> None:
    judged = told.judged
    if json:
        print_json({"judged": judged.model_dump(mode="json")})
        return
    mark, colour = MARKS[judged.verdict]
    name = judged.verdict.replace("-", " ")
    out().print(f"[{colour}]{mark}[/] order {told.order_no} · {name}: {judged.text}")
    if judged.delivered_w is not None:
        out().print(f"delivered {delivered_text(judged)}", markup=False)
    say(f"all of it: kapelle order report {told.order_no}")
