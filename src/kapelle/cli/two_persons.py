"""`kapelle order select`, `selected`, `operate`: one person selects, another lets it go ahead."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kapelle.cli.configuration import File
from kapelle.cli.orders import (
    Kilowatts,
    Megawatts,
    Randomise,
    Staged,
    Url,
    plant,
    tell_order,
    tell_promise,
    watts,
)
from kapelle.cli.output import Exit, Json, out, print_told, say
from kapelle.cli.quantities import duration_s, moment
from kapelle.words import power

if TYPE_CHECKING:
    from kapelle.api.shapes import SelectionTold

Selection = Annotated[int, typer.Argument(metavar="SELECTION")]


def select(
    mw: Megawatts = None,
    kw: Kilowatts = None,
    length: Annotated[str, typer.Option("--for", help="How long: 90s, 20m, 1h30m.")] = "15m",
    resource: Annotated[str, typer.Option(help="Named set of devices.")] = "all",
    at: Annotated[str | None, typer.Option(help="Start: +5m, 14:30 (UTC), RFC 3339.")] = None,
    staged: Staged = False,
    randomise: Randomise = None,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Select an order for a second person, who has half a minute; see what it would do."""
    target_w, seconds = watts(mw, kw), duration_s(length)
    with plant(config, url) as client:
        told = client.select_order(
            target_w=target_w,
            resource=resource,
            duration_s=seconds,
            starts_at=moment(at, datetime.now(UTC)) if at else None,
            staged=staged or None,
            randomise_s=duration_s(randomise) if randomise else None,
        )
    _tell(told, json=json)


def selected(
    selection: Selection, config: File = None, url: Url = None, json: Json = False
) -> None:
    """Show what another person has selected, and what it would do now."""
    with plant(config, url) as client:
        told = client.selection(selection)
    _tell(told, json=json)


def operate(selection: Selection, config: File = None, url: Url = None, json: Json = False) -> None:
    """Give the order another person has selected."""
    with plant(config, url) as client:
        made = client.operate_order(selection)
    tell_order(made, json=json)
    if made.status == "declined":
        raise typer.Exit(Exit.REJECTED)


def _tell(told: "SelectionTold", *, json: bool) -> None:
    if json:
        print_told(told)
        return
    impact, until = told.impact, f"{told.valid_until:%H:%M:%S}Z"
    out().print(
        f"selection {told.selection_no} · {power(impact.target_w)} of {impact.resource!r}"
        f" · by {told.selected_by} · until {until}",
        markup=False,
    )
    tell_promise(impact.committed_w, impact.declined_w, impact.reason)
    say(f"another person: kapelle order operate {told.selection_no}")
