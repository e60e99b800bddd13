"""`kapelle query` and `kapelle export`: the long record, straight from its files.

Both work whether the plant runs or not; a running plant's newest seconds are not flushed yet.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kapelle.cli.configuration import File, config_of
from kapelle.cli.output import Json, cell, print_table, say
from kapelle.cli.output import out as console
from kapelle.errors import Invalid, Problem
from kapelle.words import counted

if TYPE_CHECKING:
    # DuckDB and Arrow are costly to import: only the commands that need them do.
    import pyarrow as pa

    from kapelle.history.reader import Reader

export = typer.Typer(no_args_is_help=True, help="Write the past as CSV, Parquet, Arrow or JSON.")

Form = Literal["table", "csv", "json", "parquet", "arrow"]
Step = Literal["raw", "1m", "15m"]
Series = Literal["published", "corrected"]

_FORMS: dict[str, Form] = {
    ".csv": "csv",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
}
_SHOWN = 40
_BINARY = ("parquet", "arrow")

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="A file; its ending names the form: .parquet, .csv, …"),
]
As = Annotated[Form | None, typer.Option("--format", "-f", help="The form, whatever the file.")]
Day = Annotated[str | None, typer.Option(help="A local day: 2026-11-22.")]
Month = Annotated[str | None, typer.Option(help="A local month: 2026-11.")]
Since = Annotated[str | None, typer.Option("--from", help="RFC 3339, with --to.")]
Until = Annotated[str | None, typer.Option("--to", help="RFC 3339, exclusive.")]
Zone = Annotated[str, typer.Option("--tz", help="Zone of --day and --month: Europe/Berlin.")]


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT; - reads it from stdin.")],
    out: Out = None,
    form: As = None,
    config: File = None,
    json: Json = False,
) -> None:
    """Ask the long record in SQL, for example `SELECT * FROM minutes LIMIT 10`."""
    asked = sys.stdin.read() if sql == "-" else sql
    with_reader(config, lambda reader: reader.sql(asked), out, "json" if json else form)


@export.command("device")
def export_device(
    device_id: Annotated[str, typer.Argument(metavar="ID")],
    day: Day = None,
    month: Month = None,
    since: Since = None,
    until: Until = None,
    tz: Zone = "UTC",
    step: Annotated[Step, typer.Option(help="raw, 1m or 15m.")] = "1m",
    out: Out = None,
    form: As = None,
    config: File = None,
) -> None:
    """Write what one device reported."""
    from kapelle.api.period import period

    starts, ends = period(day=day, month=month, since=since, until=until, tz=tz)

    def question(reader: "Reader") -> "pa.Table":
        return reader.device(reader.device_no(device_id), starts, ends, step)

    with_reader(config, question, out, form)


@export.command("resource")
def export_resource(
    name: Annotated[str, typer.Argument(metavar="NAME")] = "all",
    day: Day = None,
    month: Month = None,
    since: Since = None,
    until: Until = None,
    tz: Zone = "UTC",
    step: Annotated[Step, typer.Option(help="raw, 1m or 15m.")] = "15m",
    series: Annotated[
        Series, typer.Option(help="As the plant said at the time, or as known by now.")
    ] = "corrected",
    out: Out = None,
    form: As = None,
    config: File = None,
) -> None:
    """Write what a resource did."""
    from kapelle.api.period import period

    starts, ends = period(day=day, month=month, since=since, until=until, tz=tz)
    with_reader(config, lambda reader: reader.resource(name, starts, ends, step, series), out, form)


def with_reader(
    config: Path | None,
    question: Callable[["Reader"], "pa.Table"],
    out: Path | None,
    form: Form | None,
) -> None:
    """Ask the record a configuration describes, and write the answer."""
    from kapelle.history.reader import Reader

    chosen = form or (form_of(out) if out else "table")
    if chosen in _BINARY and out is None and sys.stdout.isatty():
        problem = Problem("--format", f"{chosen} is not for a terminal", "add --out FILE")
        raise Invalid("output", [problem])
    write(question(Reader(config_of(config).history_directory)), out, chosen)


def write(table: "pa.Table", out: Path | None, form: Form) -> None:
    """Write a table to a file or to stdout, in a form."""
    from kapelle.api import tables

    if form == "table":
        shown = tables.rows(table.slice(0, _SHOWN))
        columns = _fitting(shown, table.column_names, console().width)
        print_table(shown, columns, "no rows")
        left = [name for name in table.column_names if name not in columns]
        if left and shown:
            say(f"not shown, or empty: {', '.join(left)}; SELECT fewer, or --out FILE.csv")
        if table.num_rows > _SHOWN:
            say(f"{table.num_rows - _SHOWN:,} more rows; --out FILE.csv writes all of them")
        return
    body = tables.encode(table, form)
    if out is None:
        sys.stdout.buffer.write(body + (b"\n" if form == "json" else b""))
        return
    draft = out.with_name(f"{out.name}.part")
    try:
        # A disk that fills up must not cost what was there before.
        draft.write_bytes(body)
        draft.replace(out)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Invalid("output", [Problem(str(out), str(error), "choose another file")]) from error
    say(f"● {counted(table.num_rows, 'row')} in {out}")


def _fitting(rows: Sequence[Mapping[str, object]], columns: Sequence[str], width: int) -> list[str]:
    """Return the columns that fit on a line: not the empty ones, and times in ns last of all."""
    if len(columns) == 1:
        return list(columns)
    known = [name for name in columns if any(row[name] not in (None, "") for row in rows)]
    if "time" in known:
        known.sort(key=lambda name: name.endswith("_ns"))
    chosen, taken = list[str](), -2
    for name in known:
        words = name.replace("_", " ")
        taken += 2 + max(len(words), *(len(cell(row[name])) for row in rows))
        if taken > width and chosen:
            break
        chosen.append(name)
    return [name for name in columns if name in chosen]


def form_of(out: Path) -> Form:
    """Return the form a file's ending names. Raises Invalid where it names none."""
    form = _FORMS.get(out.suffix.lower())
    if form is None:
        endings = ", ".join(_FORMS)
        problem = Problem(str(out), f"its name ends in none of {endings}", "rename it, or --format")
        raise Invalid("output", [problem])
    return form
