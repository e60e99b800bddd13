"""`kapelle energy …`: what the ledger says, and mending what registers told wrongly."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from kapelle.cli.configuration import File
from kapelle.cli.deciding import Author, DryRun, Yes, is_wanted
from kapelle.cli.history import As, Day, Form, Month, Out, Since, Until, Zone, form_of, write
from kapelle.cli.orders import Url, plant
from kapelle.cli.output import Exit, Json, out, print_told, say
from kapelle.cli.quantities import energy_wh
from kapelle.errors import Invalid, Problem
from kapelle.words import counted, energy, percent

if TYPE_CHECKING:
    import pyarrow as pa

    # The API's shapes are costly to import: only the commands that need them do.
    from kapelle.api.client import Client
    from kapelle.api.energy_shapes import CorrectionTold, RepairTold

commands = typer.Typer(
    no_args_is_help=True, help="Energy by quarter-hour, day and month; and mending it."
)

T = TypeVar("T")

Span = Literal["15m", "day", "month"]
Register = Literal["import", "export"]
Reason = Annotated[str, typer.Option(help="Stays in the ledger.", show_default=False)]

_SHOWN = 12
_MARKS = {"measured": "●", "estimated": "◐", "integrated": "○", "corrected": "✎"}


@commands.command()
def show(
    device_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    resource: Annotated[str | None, typer.Option(help="A resource instead: all, …")] = None,
    day: Day = None,
    month: Month = None,
    since: Since = None,
    until: Until = None,
    tz: Zone = "UTC",
    step: Annotated[Span | None, typer.Option(help="Default: 15m; day with --month.")] = None,
    revision: Annotated[
        str, typer.Option(help="latest; 0 as first told; a number; or all, with reasons.")
    ] = "latest",
    out: Out = None,
    form: As = None,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show the energy of a device or a resource."""
    from kapelle.api.energy_shapes import revision_of

    asked = revision_of(revision)
    chosen: Span = step or ("day" if month and revision != "all" else "15m")
    with plant(config, url) as client:
        told = client.energy(
            device_id,
            resource=resource,
            step=chosen,
            revision=asked,
            day=day,
            month=month,
            since=since,
            until=until,
            tz=tz,
        )
    wanted: Form = "json" if json else form or (form_of(out) if out else "table")
    if wanted != "table":
        write(told, out, wanted)
    elif revision == "all":
        _print_revisions(told)
    else:
        # Alone on the whole line: what the numbers below are of.
        when = day or month or f"{since} to {until}"
        which = "" if revision == "latest" else f" · as it stood at revision {revision}"
        _print_energy(told, chosen, f"{device_id or resource} · {when} {tz}{which}")


@commands.command()
def repair(
    device_id: Annotated[str, typer.Argument(metavar="ID")],
    register: Annotated[Register, typer.Option(help="import or export.", show_default=False)],
    reason: Reason,
    since: Since = None,
    until: Until = None,
    day: Day = None,
    tz: Zone = "UTC",
    total: Annotated[
        str | None, typer.Option("--set", help="It was this much in all: 12.3kWh.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="It was this many times as much: 0.001.", min=0)
    ] = None,
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Evenly between what came before and after.")
    ] = False,
    author: Author = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Correct energy over some quarter-hours, as a new revision. Shows it first, then asks."""
    from kapelle.api.period import period
    from kapelle.api.times import to_datetime

    given = [total is not None, scale is not None, interpolate]
    if sum(given) != 1:
        problem = Problem("energy repair", f"{sum(given)} ways are given", "give one of the three")
        raise Invalid("--set, --scale or --interpolate?", [problem])
    starts, ends = period(day=day, since=since, until=until, tz=tz)
    method: Literal["set", "scale", "interpolate"] = "interpolate"
    value = None
    if total is not None:
        method, value = "set", energy_wh(total)
    elif scale is not None:
        method, value = "scale", scale

    def act(client: "Client", dry: bool) -> "RepairTold":
        return client.correct_energy(
            device_id,
            register,
            since=to_datetime(starts).isoformat(),
            until=to_datetime(ends).isoformat(),
            method=method,
            value=value,
            reason=reason,
            author=author,
            dry_run=dry,
        )

    title = f"{device_id} · {register}"
    _act(act, title, dry_run=dry_run, yes=yes, config=config, url=url, json=json)


@commands.command()
def undo(
    number: Annotated[int, typer.Argument(metavar="NO", help="See kapelle energy corrections.")],
    reason: Reason,
    author: Author = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Take a correction back: what counted before counts again. Shows it first, then asks."""

    def act(client: "Client", dry: bool) -> "RepairTold":
        return client.undo_correction(number, reason, author=author, dry_run=dry)

    title = f"undo of correction {number}"
    _act(act, title, dry_run=dry_run, yes=yes, config=config, url=url, json=json)


@commands.command("corrections")
def list_corrections(
    device_id: Annotated[str, typer.Argument(metavar="[ID]", help="Only this device's.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 40,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """List corrections, newest first: what, why, who."""
    with plant(config, url) as client:
        told = client.corrections(device_id, limit=limit)
    if json:
        print_told(told)
        return
    if not told.corrections:
        say("nothing was ever corrected")
    for one in told.corrections:
        _print_correction(one)
    if told.next_before is not None:
        say("older ones are not shown: --limit")


def _act(
    act: "Callable[[Client, bool], RepairTold]",
    title: str,
    *,
    dry_run: bool,
    yes: bool,
    config: Path | None,
    url: str | None,
    json: bool,
) -> None:
    with plant(config, url) as client:
        looked = act(client, True)
        done = looked
        if not dry_run:
            if not json:
                _print_changes(looked, title)
            if not is_wanted(f"correct {counted(looked.intervals, 'quarter-hour')}", yes=yes):
                say("nothing was changed")
                raise typer.Exit(Exit.FAILED)
            done = act(client, False)
    if json:
        print_told(done)
    elif done.correction is None:
        _print_changes(looked, title)
        say("nothing was changed (--dry-run)")
    else:
        number = done.correction.correction_no
        if done.correction.applied:
            out().print(f"● correction {number} is in the ledger", markup=False)
        else:
            out().print(f"◐ correction {number} is written; the ledger follows", markup=False)
        if done.correction.undoes is None:
            say(f"taken back by: kapelle energy undo {number} --reason …")


def _print_changes(told: "RepairTold", title: str) -> None:
    console = out()
    console.print(f"[bold]{escape(title)}[/] · {counted(told.intervals, 'quarter-hour')}")
    table = _table(("from (UTC)", "left"), ("before", "right"), ("", "left"), ("after", "right"),
                   ("quality", "left"))  # fmt: skip
    for each in _ends(told.changes):
        if each is None:
            table.add_row("…", "", "", "", "")
            continue
        table.add_row(
            f"{each.starts_at:%Y-%m-%d %H:%M}",
            energy(each.before_mwh),
            "→",
            energy(each.after_mwh),
            _quality(each.after_quality),
        )
    if told.intervals > 1:
        table.add_row("all", energy(told.before_mwh), "→", energy(told.after_mwh), "", style="bold")
    console.print(table)


def _ends(changes: Sequence[T]) -> "list[T | None]":
    """Return what fits on a screen: the first and the last."""
    if len(changes) <= _SHOWN:
        return list(changes)
    half = _SHOWN // 2
    return [*changes[:half], None, *changes[-half:]]


def _print_energy(told: "pa.Table", step: Span, title: str) -> None:
    rows = _rows(told)
    told_at = [place for place, row in enumerate(rows) if row["devices"]]
    if not told_at:
        say("the ledger knows nothing there; a quarter-hour is told two minutes after its end")
        return
    registers = sorted({row["register"] for row in rows})
    table = _table(
        ({"15m": "from", "day": "day", "month": "month"}[step], "left"),
        *((name, "right") for name in registers),
        ("known", "right"),
        ("quality", "left"),
    )
    # What lies before the first and after the last that is known is only said to be missing.
    size = len(registers)
    first, last = told_at[0] // size * size, told_at[-1] // size * size + size
    for at in range(first, last, size):
        group = rows[at : at + size]
        known = min(row["coverage"] for row in group)
        bits = {name for row in group for name in row["quality"].split("+") if name}
        table.add_row(
            _start(group[0]["local"], step),
            *(energy(row["mwh"]) for row in group),
            percent(known),
            _quality("+".join(name for name in _MARKS if name in bits)),
        )
    sums = [sum(row["mwh"] or 0 for row in rows if row["register"] == name) for name in registers]
    table.add_row("sum", *map(energy, sums), "", "", style="bold")
    console = out()
    console.print(f"[bold]{escape(title)}[/]")
    console.print(table)
    if left := (len(rows) - (last - first)) // size:
        names = {"15m": "quarter-hour", "day": "day", "month": "month"}
        say(f"of {counted(left, names[step])} before or after nothing is known")


def _rows(told: "pa.Table") -> "list[dict[str, Any]]":
    # Times have nanoseconds, which Python's own do not.
    times = [name for name in ("time", "computed_at") if name in told.column_names]
    rows: list[dict[str, Any]] = told.drop_columns(times).to_pylist()
    return rows


def _start(local: str, step: Span) -> str:
    """Return a quarter-hour as `2026-11-22 14:15`; with its offset only where that is not UTC."""
    if step != "15m":
        return local
    text, offset = local[:16].replace("T", " "), local[16:]
    return text if offset == "+00:00" else f"{text} {offset}"


def _print_revisions(told: "pa.Table") -> None:
    rows = _rows(told)
    if not rows:
        say("the ledger knows nothing there")
        return
    console = out()
    console.print(f"{'from':<22}  {'register':<8}  rev  {'energy':>12}  quality", style="bold")
    for row in rows:
        console.print(
            f"{_start(row['local'], '15m'):<22}  {row['register']:<8}  {row['revision']:>3}  "
            f"{energy(row['mwh']):>12}  {_quality(row['quality'])}",
            markup=False,
        )
        if row["reason"]:
            who = f" ({row['author']})" if row["author"] else ""
            console.print(f"  {row['reason']}{who}", style="dim", markup=False)


def _print_correction(one: "CorrectionTold") -> None:
    match one.method:
        case "set":
            what = f"set to {energy(round((one.value or 0) * 1_000))}"
        case "scale":
            what = f"times {one.value:g}"
        case "undo":
            what = f"undo of {one.undoes}"
        case _:
            what = "interpolated"
    state = "●" if one.applied else "◐"
    if one.undone_by is not None:
        state, what = "○", f"{what}, undone by {one.undone_by}"
    whose = one.device_id or f"device number {one.device_no}, removed"
    span = f"{one.starts_at:%Y-%m-%d %H:%M} to {_end(one.starts_at, one.ends_at)} UTC"
    console = out()
    console.print(f"{state} [bold]{one.correction_no}[/] {whose} · {one.register_} · {what}")
    console.print(f"  {span}", markup=False)
    console.print(f"  {one.reason} ({one.author}, {one.at.astimezone(UTC):%Y-%m-%d %H:%M}Z)",
                  style="dim", markup=False)  # fmt: skip


def _end(starts: datetime, ends: datetime) -> str:
    return f"{ends:%H:%M}" if starts.date() == ends.date() else f"{ends:%Y-%m-%d %H:%M}"


def _quality(names: str) -> str:
    parts = [name for name in names.split("+") if name]
    return " ".join(f"{_MARKS[name]} {name}" for name in parts)


def _table(*columns: tuple[str, Literal["left", "right"]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    return table
