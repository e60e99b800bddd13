"""`kapelle capacity`: what can be promised over a window, and what it would be without a vendor."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kapelle.cli.configuration import File
from kapelle.cli.orders import Url, plant
from kapelle.cli.output import Json, out, print_json, print_table, say
from kapelle.cli.quantities import duration_s
from kapelle.words import power

if TYPE_CHECKING:
    # The API's shapes are costly to import: only the commands that need them do.
    from kapelle.api.capacity_shapes import CapacityTold, DirectionTold

_SIGNS = {"up": 1, "down": -1}
_WORDS = {"up": "towards the grid", "down": "from the grid"}
_COLUMNS = ("kept", "promise", "without_worst", "if_alone")


def capacity(
    resource: Annotated[str, typer.Argument(help="Named set of devices.")] = "all",
    window: Annotated[str, typer.Option(help="How long it must be held: 15m, 1h, 4h.")] = "1h",
    up: Annotated[bool, typer.Option("--up", help="Only towards the grid.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only from the grid.")] = False,
    notice: Annotated[str | None, typer.Option(help="It must stand within: 5s, 1m.")] = None,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Say what can be promised from now on: the least power over a window, and how surely.

    An order's "95 % sure" is the same for its own time, as of when it was promised: to hold the two
    against each other give its length as --window (docs/capacity.md).
    """
    direction: Literal["up", "down", "both"] = "both" if up == down else "up" if up else "down"
    with plant(config, url) as client:
        told = client.capacity(
            resource,
            window_s=duration_s(window, "--window"),
            notice_s=duration_s(notice, "--notice") if notice else 0.0,
            direction=direction,
        )
    if json:
        print_json(told.model_dump(mode="json"))
    else:
        show(told, window)


def show(told: "CapacityTold", window: str) -> None:
    """Print the answer for people: a small table for each direction."""
    for way, found in (("up", told.up), ("down", told.down)):
        if found is not None:
            _show_direction(way, found, f"{told.resource}, for {window}")
    say("if alone: what it would be if nothing ever failed together")
    if not told.complete:
        say("some partitions have not spoken yet: there may be more")


def _show_direction(way: str, found: "DirectionTold", about: str) -> None:
    def signed(power_w: float) -> str:
        return power(_SIGNS[way] * power_w, sign=True)

    head = f"{signed(found.headroom_w)} headroom, {signed(found.expected_w)} expected"
    if found.reserve_w > 0.0:
        head += f", {power(found.reserve_w)} kept in reserve"
    out().print(f"{way} ({_WORDS[way]}) · {about} · {head}", markup=False, style="bold")
    rows: list[dict[str, object]] = [
        {
            "kept": f"P{each.level * 100:.0f}",
            "promise": signed(each.promise_w),
            "without_worst": None if each.without_worst_w is None else signed(each.without_worst_w),
            "if_alone": signed(each.alone_w),
        }
        for each in found.levels
    ]
    print_table(rows, _COLUMNS, "")
    if found.worst_vendor is not None:
        odds = f"{(found.worst_vendor_odds or 0.0) * 100:.2g} %"
        say(f"worst to lose: {found.worst_vendor}, {odds} likely within the window")
