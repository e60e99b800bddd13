"""`kapelle order report`: what the long record holds of an order, for somebody who doubts it."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kapelle.cli.configuration import File, config_of
from kapelle.cli.orders import Number, Url, plant
from kapelle.cli.output import Json, out, print_table, print_told, say
from kapelle.cli.report_words import (
    ENERGY_COLUMNS,
    MARKS,
    clock,
    energy_rows,
    facts,
    replaced_text,
    said,
    seconds,
)
from kapelle.errors import Invalid, Problem
from kapelle.words import power

if TYPE_CHECKING:
    # The record is costly to import: only the commands that need it do.
    from kapelle.api.report_shapes import ReplacedTold, ReportTold

_GONE_SHOWN = 12

Directory = Annotated[
    Path | None, typer.Option("--directory", help="The record's own, as of a backup.")
]
Page = Annotated[
    Path | None, typer.Option("--html", help="Write one page that needs nothing else.")
]


def report(
    order: Number,
    html: Page = None,
    directory: Directory = None,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Tell who ordered what and why, what became of it, and what was delivered.

    Reads the record's files and needs no running plant; with --url it asks that plant.
    """
    told = report_of(order, directory, config, url)
    if html is not None:
        from kapelle.cli.report_page import page

        try:
            html.write_text(page(told), encoding="utf-8")
        except OSError as error:
            problem = Problem(str(html), str(error), "choose another file")
            raise Invalid("output", [problem]) from error
        say(f"● order {order} in {html}")
    if json:
        print_told(told)
    elif html is None:
        show(told)


def report_of(
    order_no: int, directory: Path | None, config: Path | None, url: str | None
) -> "ReportTold":
    """Return the report from a plant where one is named, else from the record's files."""
    if url and directory is None:
        with plant(config, url) as client:
            return client.report(order_no)
    from kapelle.api.report import make_report
    from kapelle.history.evidence import evidence
    from kapelle.history.reader import Reader

    with closing(Reader(directory or config_of(config).history_directory)) as reader:
        return make_report(evidence(reader, order_no))


def show(told: "ReportTold") -> None:
    """Print a report as a person reads it."""
    judged = told.judged
    mark, colour = MARKS[judged.verdict]
    console = out()
    console.print(
        f"[{colour}]{mark}[/] [bold]order {told.order_no} · {judged.verdict.replace('-', ' ')}[/]"
        f": {judged.text}"
    )
    if not told.is_complete:
        say("the record does not have all of it yet: what follows is up to its last total")
    for name, text in facts(told):
        console.print(f"[dim]{name:<11}[/] {escape(text)}")
    _heading("what was said")
    print_table(said(told), ("at", "what", "text"), "nothing")
    _heading("funnel")
    _show_funnel(told)
    _show_replaced(told.replaced)
    _heading("energy")
    print_table(energy_rows(told.energy), ENERGY_COLUMNS, "")


def _show_funnel(told: "ReportTold") -> None:
    rows = [
        {
            "phase": f"✕ {stage.stage}" if stage.is_exit else stage.stage,
            "devices": stage.devices,
            "commands": stage.commands,
            "first": clock(stage.first_at),
            "last": clock(stage.last_at),
            "half within": seconds(stage.p50_s),
            "95 % within": seconds(stage.p95_s),
        }
        for stage in told.funnel
    ]
    columns = ("phase", "devices", "commands", "first", "last", "half within", "95 % within")
    print_table(rows, columns, "", counts=("devices", "commands"))


def _show_replaced(replaced: "ReplacedTold") -> None:
    _heading("who dropped out")
    rows = [
        {
            "device": each.device_id,
            "vendor": each.vendor,
            "at": clock(each.at),
            "why": each.cause.replace("_", " "),
            "was asked": power(each.setpoint_w),
            "back": clock(each.back_at),
        }
        for each in replaced.devices[:_GONE_SHOWN]
    ]
    columns = ("device", "vendor", "at", "why", "was asked", "back")
    print_table(rows, columns, "nobody")
    if not replaced.gone:
        return
    if replaced.gone > len(rows):
        say(f"{replaced.gone - len(rows):,} more; --json names 200 of them")
    out().print(replaced_text(replaced), markup=False)


def _heading(text: str) -> None:
    out().print(f"\n[bold]{text}[/]")
