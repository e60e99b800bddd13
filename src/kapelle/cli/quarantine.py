"""`kapelle dlq …`: what could not be used, why, and letting it out again."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from kapelle.cli.configuration import File
from kapelle.cli.deciding import Author, DryRun, Yes, is_wanted
from kapelle.cli.orders import Url, plant
from kapelle.cli.output import Exit, Json, out, print_table, print_told, say
from kapelle.cli.quantities import duration_s
from kapelle.cli.quarantine_view import print_muted, print_rows, show_row, sum_of, tell_action
from kapelle.errors import Invalid, NotFound, Problem
from kapelle.words import counted

dlq = typer.Typer(
    no_args_is_help=True,
    help="Quarantine: what was sent and could not be used, why, and letting it out again.",
)

State = Literal["open", "replayed", "dropped", "any"]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Of rows, see ls.")]
Code = Annotated[str, typer.Option(help="Only this reason's code, for example power-unit.")]
Source = Annotated[str, typer.Option(help="Only this source: mqtt, or mqtt/dev-7.")]
Device = Annotated[str, typer.Option(help="Only this device's.")]
Since = Annotated[str, typer.Option(help="Only since: 2h (ago), or RFC 3339.")]
Until = Annotated[str, typer.Option(help="Only before: 10m (ago), or RFC 3339.")]
Reason = Annotated[str, typer.Option(help="Kept in the journal.")]


@dlq.command("ls")
def list_rows(
    code: Code = "",
    source: Source = "",
    device: Device = "",
    state: Annotated[State, typer.Option(help="What became of it.")] = "open",
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 25,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """List rows, newest first."""
    chosen = _filter(code, source, device, since, until)
    with plant(config, url) as client:
        told = client.quarantine(chosen, state=state, limit=limit)
    if json:
        print_told(told)
        return
    if not told.rows:
        say("nothing is in quarantine" if state == "open" and not chosen else "no row matches")
        return
    print_rows(told.rows)
    more = "; more: --limit, or kapelle dlq export" if told.cursor else ""
    say(f"kapelle dlq show ID · replay ID · drop ID{more}")


@dlq.command()
def counts(config: File = None, url: Url = None, json: Json = False) -> None:
    """Count rows by reason and by source, and name muted devices."""
    with plant(config, url) as client:
        told = client.quarantine_counts()
    if json:
        print_told(told)
        return
    rows = [row.model_dump() for row in told.reasons]
    counted_as = ("open", "replayed", "dropped", "pushed_out")
    print_table(rows, ("code", *counted_as), "nothing came yet", counts=counted_as)
    if told.sources:
        out().print()
        sources = [row.model_dump() for row in told.sources[:10]]
        print_table(sources, ("source", "open"), "", counts=("open",))
    if told.muted:
        out().print()
        print_muted([one.model_dump() for one in told.muted])
    if rows:
        say(f"{counted(told.open, 'occurrence')} open; {told.bytes / 1e6:,.1f} MB held")


@dlq.command()
def show(
    row: Annotated[str, typer.Argument(metavar="ID")],
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show one row with all that was sent."""
    with plant(config, url) as client:
        told = client.quarantined(row)
    if json:
        print_told(told)
        return
    show_row(told)


@dlq.command()
def replay(
    ids: Ids = None,
    code: Code = "",
    source: Source = "",
    device: Device = "",
    since: Since = "",
    until: Until = "",
    scale: Annotated[
        list[str] | None, typer.Option(help="First multiply a field: power_w=0.001. Repeatable.")
    ] = None,
    negate_power: Annotated[
        bool, typer.Option("--negate-power", help="First turn the sign of power_w round.")
    ] = False,
    set_device: Annotated[str, typer.Option(help="First say whose it is.")] = "",
    drop_field: Annotated[
        list[str] | None, typer.Option(help="First leave a field out. Repeatable.")
    ] = None,
    payload: Annotated[str, typer.Option(help="First replace the whole row.")] = "",
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Decode rows again, mended first if asked, and take what is usable now. Looks first."""
    fix: dict[str, object] = {
        "scale": _scales(scale or []), "negate_power": negate_power, "device": set_device,
        "drop": drop_field or [], "payload": payload,
    }  # fmt: skip
    fix = {name: value for name, value in fix.items() if value}
    body = _body(ids, _filter(code, source, device, since, until), reason, author)
    if fix:
        body["fix"] = fix
    _act("replay", body, dry_run=dry_run, yes=yes, config=config, url=url, json=json)


@dlq.command()
def drop(
    ids: Ids = None,
    code: Code = "",
    source: Source = "",
    device: Device = "",
    since: Since = "",
    until: Until = "",
    reason: Reason = "",
    author: Author = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Say of rows that they are of no use; they stay listed as dropped. Looks first."""
    body = _body(ids, _filter(code, source, device, since, until), reason, author)
    _act("drop", body, dry_run=dry_run, yes=yes, config=config, url=url, json=json)


@dlq.command()
def export(
    file: Annotated[Path, typer.Argument(help="Ends in .ndjson or .csv; - is stdout.")],
    code: Code = "",
    source: Source = "",
    device: Device = "",
    state: Annotated[State, typer.Option(help="What became of it.")] = "any",
    since: Since = "",
    until: Until = "",
    config: File = None,
    url: Url = None,
) -> None:
    """Write rows into a file."""
    form = "csv" if file.suffix == ".csv" else "ndjson"
    if file.suffix not in (".csv", ".ndjson", ".jsonl") and str(file) != "-":
        problem = Problem(str(file), "its name ends in neither .ndjson nor .csv", "rename it")
        raise Invalid("unknown kind of file", [problem])
    if str(file) == "-" and sys.stdout.isatty():
        # What strangers sent may hold what moves a cursor or hides a line.
        problem = Problem("-", "raw rows are not for a terminal", "pipe them, or name a FILE")
        raise Invalid("output", [problem])
    chosen = _filter(code, source, device, since, until)
    with plant(config, url) as client:
        pieces = client.quarantine_export(chosen, state=state, form=form)
        if str(file) == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            return
        try:
            with file.open("xb") as into:
                size = sum(into.write(piece) for piece in pieces)
        except OSError as error:
            problem = Problem(str(file), str(error), "name a new file in a folder that exists")
            raise Invalid("cannot write", [problem]) from error
    say(f"● {file}: {size:,} bytes")


@dlq.command()
def muted(config: File = None, url: Url = None, json: Json = False) -> None:
    """List devices that send so much rubbish that it is only counted."""
    with plant(config, url) as client:
        told = client.muted()
    if json:
        print_told(told)
    elif told.muted:
        print_muted([one.model_dump() for one in told.muted])
    else:
        say("no device is muted")


@dlq.command()
def unmute(
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...")],
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Keep again at once what devices send that cannot be read."""
    with plant(config, url) as client:
        told = client.unmute(devices)
    if json:
        print_told(told)
    elif told.unmuted:
        say(f"● listening again to {', '.join(told.unmuted)}")
    else:
        raise NotFound(f"not muted: {', '.join(devices)}")


def _act(
    action: Literal["replay", "drop"],
    body: dict[str, object],
    *,
    dry_run: bool,
    yes: bool,
    config: Path | None,
    url: str | None,
    json: bool,
) -> None:
    with plant(config, url) as client:
        looked = client.quarantine_action(action, {**body, "dry_run": True})
        if not looked.taken and "ids" in body:
            raise NotFound("none of these rows is in quarantine and open: kapelle dlq ls")
        done = looked
        if not dry_run:
            if not json:
                tell_action(looked)
            if looked.taken and is_wanted(f"{action} {counted(looked.taken, 'row')}", yes=yes):
                done = client.quarantine_action(action, body)
            elif looked.taken:
                say("nothing was changed")
                raise typer.Exit(Exit.FAILED)
    if json:
        print_told(done)
    elif dry_run:
        tell_action(looked)
        say("nothing was changed (--dry-run)")
    elif not done.dry_run:
        out().print(sum_of(done), markup=False)
        left = done.matched - done.taken
        if left > 0:
            say(f"{counted(left, 'more row')} match: run it again")
    if action == "replay" and done.taken and not done.stored:
        raise typer.Exit(Exit.FAILED)


def _body(
    ids: list[str] | None, chosen: dict[str, str], reason: str, author: str
) -> dict[str, object]:
    if bool(ids) == bool(chosen):
        remedy = "give IDs, or a filter such as --code power-unit"
        raise Invalid("which rows?", [Problem("dlq", "say which rows, one way", remedy)])
    body: dict[str, object] = {"ids": ids} if ids else {"filter": chosen}
    body |= {"reason": reason} if reason else {}
    return body | ({"author": author} if author else {})


def _filter(code: str, source: str, device: str, since: str, until: str) -> dict[str, str]:
    asked = {
        "code": code, "source": source, "device": device,
        "since": _moment(since, "--since"), "until": _moment(until, "--until"),
    }  # fmt: skip
    return {name: value for name, value in asked.items() if value}


def _moment(text: str, option: str) -> str:
    """Return a moment as RFC 3339; a duration is so long ago."""
    if not text:
        return ""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = datetime.now(UTC) - timedelta(seconds=duration_s(text, option))
    if at.tzinfo is None:
        problem = Problem(option, f"{text!r} has no zone", "write 2026-05-01T14:30:00Z")
        raise Invalid("moment", [problem])
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _scales(texts: list[str]) -> dict[str, float]:
    scales: dict[str, float] = {}
    for text in texts:
        name, _, factor = text.partition("=")
        try:
            scales[name] = float(factor)
        except ValueError as error:
            problem = Problem("--scale", f"{text!r} is no FIELD=FACTOR", "power_w=0.001")
            raise Invalid("scale", [problem]) from error
    return scales
