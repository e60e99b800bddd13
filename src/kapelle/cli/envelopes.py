"""`kapelle envelope …`: what sites, feeders and zones may export and import together."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kapelle.cli.configuration import File
from kapelle.cli.orders import Url, plant
from kapelle.cli.output import Json, print_table, print_told, say
from kapelle.cli.quantities import duration_s, moment
from kapelle.errors import Invalid, Problem
from kapelle.words import power

if TYPE_CHECKING:
    # The API's shapes are costly to import: only the commands that need them do.
    from kapelle.api.envelope_shapes import EnvelopesTold

envelopes = typer.Typer(no_args_is_help=True, help="Limits of sites, feeders and zones.")

_COLUMNS = ("level", "name", "export", "import", "from", "until", "now", "by")

Level = Annotated[str, typer.Argument(help="site, feeder or zone.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="One or many of them.")]


@envelopes.command("set")
def set_envelopes(
    level: Level,
    names: Names,
    export_kw: Annotated[float | None, typer.Option("--export-kw", help="At most.")] = None,
    import_kw: Annotated[float | None, typer.Option("--import-kw", help="At most.")] = None,
    at: Annotated[str | None, typer.Option(help="Start: +5m, 14:30 (UTC), RFC 3339.")] = None,
    length: Annotated[str | None, typer.Option("--for", help="How long: 90s, 20m, 1d.")] = None,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Limit the sum of power of each, from now or a moment on; without --for until changed."""
    if export_kw is None and import_kw is None:
        remedy = "give --export-kw or --import-kw, or take limits away with kapelle envelope clear"
        raise Invalid("envelope", [Problem("envelope set", "no limit", remedy)])
    for option, limit_kw in (("--export-kw", export_kw), ("--import-kw", import_kw)):
        if limit_kw is not None and limit_kw < 0:
            raise Invalid("envelope", [Problem(option, "is negative", "give 0 or more")])
    with plant(config, url) as client:
        told = client.set_envelopes(
            _level(level),
            names,
            export_limit_w=None if export_kw is None else export_kw * 1e3,
            import_limit_w=None if import_kw is None else import_kw * 1e3,
            starts_at=moment(at, datetime.now(UTC)) if at else None,
            duration_s=duration_s(length) if length else None,
        )
    _show(told, json=json)


@envelopes.command("ls")
def list_envelopes(
    level: Annotated[str | None, typer.Argument(help="Only site, feeder or zone.")] = None,
    config: File = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """List envelopes that are not over, and the configured caps."""
    with plant(config, url) as client:
        told = client.envelopes(_level(level) if level else None)
    _show(told, json=json)


@envelopes.command()
def clear(
    level: Level, names: Names, config: File = None, url: Url = None, json: Json = False
) -> None:
    """Take the envelopes of groups away, those that are yet to begin too."""
    with plant(config, url) as client:
        told = client.set_envelopes(_level(level), names)
    if json:
        print_told(told)
    else:
        say(f"no envelope is left of {', '.join(names)}; configured caps stay")


def _level(level: str) -> str:
    if level not in ("site", "feeder", "zone"):
        remedy = "one of site, feeder, zone"
        raise Invalid("envelope", [Problem("level", f"{level!r} is none", remedy)])
    return level


def _show(told: "EnvelopesTold", *, json: bool) -> None:
    if json:
        print_told(told)
        return
    rows: list[dict[str, object]] = [
        {
            "level": each.level,
            "name": each.name,
            "export": _limit(each.export_limit_w),
            "import": _limit(each.import_limit_w),
            "from": f"{each.starts_at:%Y-%m-%d %H:%M:%S}Z",
            "until": f"{each.ends_at:%Y-%m-%d %H:%M:%S}Z" if each.ends_at else "changed",
            "now": "counts" if each.in_force else "",
            "by": each.issued_by,
        }
        for each in told.envelopes
    ]
    rows += [
        {
            "level": cap.level,
            "name": cap.name,
            "export": _limit(cap.export_limit_w),
            "import": _limit(cap.import_limit_w),
            "now": "counts",
            "by": "the configuration",
        }
        for cap in told.standing
    ]
    print_table(rows, _COLUMNS, "no envelopes: kapelle envelope set feeder f-12 --export-kw 400")
    if told.unknown:
        say(f"no device here is of {', '.join(told.unknown)}")


def _limit(power_w: float | None) -> str:
    return "none" if power_w is None else power(power_w)
