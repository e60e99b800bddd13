"""`kapelle devices` and `kapelle resources`: what is enrolled, straight in the registry.

They work whether the plant runs or not; a running plant notices within a second.
"""

import csv
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from kapelle.cli.configuration import File, config_of
from kapelle.cli.output import Json, out, print_json, print_table, say
from kapelle.cli.quantities import moment
from kapelle.errors import Invalid, Problem
from kapelle.model.enums import DeviceKind
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.clock import SystemClock
from kapelle.words import counted

if TYPE_CHECKING:
    # SQL is costly to import: only the commands that need it do.
    from kapelle.registry.importing import Format
    from kapelle.registry.rows import Stored
    from kapelle.registry.store import Registry

devices = typer.Typer(no_args_is_help=True, help="Enrol, list and look after devices.")
resources = typer.Typer(no_args_is_help=True, help="Name selections of devices.")

_COLUMNS = (
    "id",
    "kind",
    "vendor",
    "adapter",
    "site",
    "zone",
    "feeder",
    "nameplate_up_w",
    "nameplate_down_w",
)
_PAGE = 1000
_PROBLEMS_SHOWN = 50

Query = Annotated[
    str, typer.Option("--query", "-q", help="Selection, for example `kind:battery zone:north`.")
]


@contextmanager
def registry(file: Path | None) -> Iterator["Registry"]:
    """Open the registry of a configuration."""
    from kapelle.registry.store import Registry

    config = config_of(file)
    directory = config.plant.data_dir
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = config.registry.database_url(directory)
    with Registry(url, config.plant.partitions) as opened:
        yield opened


@devices.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV or JSON; - reads stdin as CSV.")],
    secrets_to: Annotated[
        Path | None,
        typer.Option("--secrets", help="Write credentials of new devices here (CSV, mode 600)."),
    ] = None,
    config: File = None,
    json: Json = False,
) -> None:
    """Enrol every device of a file, or none. Credentials of new ones are shown once."""
    from kapelle.registry.importing import import_devices

    source, form = _source(file)
    try:
        with registry(config) as opened:
            done = import_devices(opened, source, form, SystemClock().now_ns())
    except Invalid as error:
        raise _shortened(error) if not json else error from error
    counts = {"devices": done.count, "created": done.created, "updated": done.updated}
    if secrets_to is not None:
        _write_secrets(secrets_to, done.credentials)
        say(f"credentials of {counted(len(done.credentials), 'device')} are in {secrets_to}")
    if json:
        print_json(counts | ({} if secrets_to else {"credentials": done.credentials}))
        return
    say(f"● {counted(done.count, 'device')}: {done.created:,} new, {done.updated:,} changed")
    if not secrets_to and done.credentials:
        say("credentials, shown once and stored as a hash; keep them:")
        sys.stdout.write(_secrets_csv(done.credentials))


@devices.command("ls")
def list_devices(query: Query = "all", config: File = None, json: Json = False) -> None:
    """List enrolled devices."""
    with registry(config) as opened:
        rows = [_row(stored) for stored in _every(opened, query)]
    if json:
        print_json(rows)
        return
    print_table(rows, _COLUMNS, "no device is enrolled here: kapelle devices import FILE")
    if rows:
        say(f"{counted(len(rows), 'device')}")


@devices.command()
def rotate(
    device_id: Annotated[str, typer.Argument(metavar="ID")],
    config: File = None,
    json: Json = False,
) -> None:
    """Give a device a new credential; the old one is dead at once."""
    with registry(config) as opened:
        secret = opened.rotate_credential(device_id, SystemClock().now_ns())
    if json:
        print_json({"id": device_id, "credential": secret})
    else:
        say(f"new credential of {device_id}, shown once:")
        out().print(secret, markup=False)


@devices.command("opt-out")
def opt_out(
    device_ids: Annotated[list[str], typer.Argument(metavar="ID…")],
    until: Annotated[str, typer.Option(help="+2h, 18:00 (UTC), 2026-05-01T14:30:00Z.")] = "",
    over: Annotated[bool, typer.Option("--over", help="They take part again.")] = False,
    config: File = None,
    json: Json = False,
) -> None:
    """Leave devices to their owners until a moment: released at once, and not counted on."""
    now_ns = SystemClock().now_ns()
    until_ns = 0 if over else _until_ns(until, now_ns)
    with registry(config) as opened:
        changed = opened.opt_out(device_ids, until_ns, now_ns)
    if json:
        print_json({"changed": changed, "until": None if over else _rfc3339(until_ns)})
    elif over:
        say(f"● {counted(changed, 'device')} back in the plant")
    else:
        say(f"● {counted(changed, 'device')} left alone until {_rfc3339(until_ns)}")


@resources.command()
def add(
    name: str,
    query: Annotated[str, typer.Argument(help="For example `kind:battery,ev zone:north`.")],
    config: File = None,
    json: Json = False,
) -> None:
    """Name the devices of a selection, now and as they come and go."""
    with registry(config) as opened:
        made = opened.put_resource(name, query, SystemClock().now_ns())
    if json:
        print_json({"name": made.name, "selection": made.selection, "devices": made.devices})
    else:
        say(f"● {made.name}: {counted(made.devices, 'device')}")


@resources.command("ls")
def list_resources(config: File = None, json: Json = False) -> None:
    """List named resources; `all` is always there."""
    with registry(config) as opened:
        everything = {"name": "all", "selection": "all", "devices": opened.count()}
        rows: list[dict[str, object]] = [
            everything,
            *(
                {"name": r.name, "selection": r.selection, "devices": r.devices}
                for r in opened.resources()
            ),
        ]
    if json:
        print_json(rows)
    else:
        print_table(rows, ("name", "selection", "devices"), "", counts=("devices",))


def _until_ns(until: str, now_ns: int) -> int:
    if not until:
        problem = Problem("--until", "is missing", "give a moment, for example +2h, or --over")
        raise Invalid("opting out", [problem])
    at = datetime.fromisoformat(moment(until, _at(now_ns), "--until"))
    until_ns = round(at.timestamp()) * NS_PER_S
    if until_ns <= now_ns:
        problem = Problem("--until", f"{until!r} is past", "give a later moment, or --over")
        raise Invalid("opting out", [problem])
    return until_ns


def _at(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns // NS_PER_S, UTC)


def _rfc3339(at_ns: int) -> str:
    return _at(at_ns).isoformat().replace("+00:00", "Z")


def _every(opened: "Registry", query: str) -> "Iterator[Stored]":
    after = ""
    while page := opened.devices(query, after, _PAGE):
        yield from page
        after = page[-1].device_id


def _row(stored: "Stored") -> dict[str, object]:
    hidden = ("credential", "credential_at_ns", "active", "device_id", "kind", "device_no")
    row = {k: v for k, v in stored._asdict().items() if k not in (*hidden, "opted_out_until_ns")}
    until_ns = stored.opted_out_until_ns
    row["opted_out_until"] = _rfc3339(until_ns) if until_ns else None
    kind = DeviceKind(stored.kind).name.lower()
    return {"id": stored.device_id, "device_no": stored.device_no, "kind": kind} | row


def _source(file: Path) -> "tuple[Path | bytes, Format]":
    if str(file) == "-":
        return sys.stdin.buffer.read(), "csv"
    forms: dict[str, Format] = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".json": "json"}
    form = forms.get(file.suffix.lower())
    if form is None:
        problem = Problem(str(file), "its name ends neither in .csv nor in .json", "rename it")
        raise Invalid("unknown kind of file", [problem])
    return file, form


def _shortened(error: Invalid) -> Invalid:
    """Return an error that fits a terminal."""
    hidden = len(error.problems) - _PROBLEMS_SHOWN
    if hidden <= 0:
        return error
    more = Problem("…", f"{hidden:,} more problems", "--json lists all of them")
    return Invalid(error.what, [*error.problems[:_PROBLEMS_SHOWN], more])


def _secrets_csv(credentials: dict[str, str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "secret"))
    writer.writerows(credentials.items())
    return text.getvalue()


def _write_secrets(path: Path, credentials: dict[str, str]) -> None:
    """Write credentials to a new file only its owner can read."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        # The devices are enrolled: losing their credentials here would lock them out.
        sys.stdout.write(_secrets_csv(credentials))
        remedy = "they are on stdout instead; keep them"
        raise Invalid("credentials", [Problem(str(path), str(error), remedy)]) from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        if path.suffix == ".json":
            file.write(msgspec.json.encode(credentials).decode())
        else:
            file.write(_secrets_csv(credentials))
