"""`kapelle drill`: play a bad moment against a simulator, and say whether the plant stood it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kapelle.cli.configuration import File, config_of
from kapelle.cli.output import Exit, Json, out, print_json, print_table, say
from kapelle.cli.running import run_until_signal
from kapelle.errors import Invalid

if TYPE_CHECKING:
    # The simulator is costly to import: only the commands that need it do.
    from kapelle.sim.devices import FleetPlan
    from kapelle.sim.drills.verdict import Report

drill = typer.Typer(no_args_is_help=True, help="Drill the plant against a simulator.")

_INTERRUPTED = 130
_COLUMNS = ("", "criterion", "measured", "limit")

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="A plant's data directory: a fleet of its shape is drilled, not it."
    ),
]
Devices = Annotated[int, typer.Option(min=40, max=20_000, help="How many to simulate.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same drill.")]
Seeds = Annotated[int, typer.Option(min=1, help="So many plays; the worst counts.")]


@drill.command("vendor-loss")
def vendor_loss(
    vendor: Annotated[str | None, typer.Option(help="Who is lost.", show_default="largest")] = None,
    data_dir: DataDir = None,
    devices: Devices = 1000,
    seed: Seed = 1,
    seeds: Seeds = 1,
    config: File = None,
    json: Json = False,
) -> None:
    """Lose a vendor's cloud in virtual time, with headroom and without; exit 1 on a failure."""
    from kapelle.sim.drills.losses import run_loss, vendor_of

    fleet = _fleet(data_dir, config, devices)
    group = vendor_of(fleet, vendor)
    _end(run_loss("vendor-loss", fleet, group, range(seed, seed + seeds)), json=json)


@drill.command("gateway-loss")
def gateway_loss(
    gateway: Annotated[
        str | None, typer.Option(help="One of the example fleet.", show_default="the first")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="An internet provider instead.", show_default="largest")
    ] = None,
    data_dir: DataDir = None,
    devices: Devices = 1000,
    seed: Seed = 1,
    seeds: Seeds = 1,
    config: File = None,
    json: Json = False,
) -> None:
    """Cut off a gateway, briefly and for long (ERIGrid 2.0, TC17); exit 1 on a failure.

    Of a real fleet its internet providers are drilled: through which gateway a device comes, its
    registry does not say.
    """
    from kapelle.sim.drills.losses import gateway_of, run_loss

    if gateway is not None and (provider is not None or data_dir is not None):
        raise Invalid("--gateway is one of the example fleet: it goes without the other options")
    fleet = _fleet(data_dir, config, devices)
    by_provider = provider is not None or data_dir is not None
    group = gateway_of(fleet, provider or gateway, by="provider" if by_provider else "gateway")
    _end(run_loss("gateway-loss", fleet, group, range(seed, seed + seeds)), json=json)


@drill.command()
def hold(
    devices: Annotated[int, typer.Option(min=20, max=2000, help="How many.")] = 120,
    seed: Seed = 1,
    json: Json = False,
) -> None:
    """Hold a plant of its own by API, command line, file and signal; exit 1 on a failure.

    `kapelle up` runs in a temporary directory, with simulated devices over MQTT. Takes two minutes.
    """
    from kapelle.sim.drills.hold import run_hold

    report = run_until_signal(lambda: run_hold(devices, seed, say))
    if report is None:
        say("stopped; nothing is left running")
        raise typer.Exit(_INTERRUPTED)
    _end(report, json=json)


def _fleet(data_dir: Path | None, config: Path | None, devices: int) -> "FleetPlan":
    from kapelle.registry.store import Registry
    from kapelle.sim.drills.fleet import example, like

    if data_dir is None:
        return example(devices)
    settings = config_of(config)
    if not settings.registry.url and not (data_dir / "registry.db").is_file():
        raise Invalid(f"--data-dir {data_dir}: there is no registry; give a plant's data directory")
    with Registry(settings.registry.database_url(data_dir)) as registry:
        return like(registry.shape(), devices)


def _end(report: "Report", *, json: bool) -> None:
    """Print a report, and leave with what it says."""
    from kapelle.sim.drills.verdict import as_document, as_rows

    if json:
        print_json(as_document(report))
    else:
        out().print(f"{report.drill}: {report.title}", style="bold", markup=False)
        seeds = ", ".join(str(seed) for seed in report.seeds)
        say(f"{report.fleet}; seed {seeds}")
        print_table(as_rows(report), _COLUMNS, "nothing was judged")
        for note in report.notes:
            say(note)
        passed = sum(each.passed for each in report.criteria)
        mark = "● passed" if report.passed else "✕ failed"
        out().print(f"{mark}: {passed} of {len(report.criteria)}", markup=False)
    raise typer.Exit(Exit.OK if report.passed else Exit.FAILED)
