"""The command line: `kapelle …`. One file per group of commands; errors become one sentence."""

import sys
from importlib.metadata import version as installed

import typer

from kapelle.cli import (
    acceptance,
    capacity,
    configuration,
    devices,
    drill,
    edge,
    energy,
    envelopes,
    examination,
    following,
    history,
    live,
    orders,
    persons,
    quarantine,
    report,
    running,
    safekeeping,
    simulation,
    status,
    two_persons,
    why,
)
from kapelle.cli.output import Exit, Json, complain, exit_code, out, print_json
from kapelle.errors import KapelleError

app = typer.Typer(
    name="kapelle",
    help="Many small devices, one dependable power plant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(running.up)
app.command()(edge.edge)
app.command()(simulation.demo)
app.command()(examination.doctor)
app.command()(safekeeping.verify)
app.command()(safekeeping.backup)
app.command()(safekeeping.restore)
app.command()(status.status)
app.command()(capacity.capacity)
orders.orders.command("watch")(following.watch)
orders.orders.command("report")(report.report)
orders.orders.command("why")(why.why)
orders.orders.command("select")(two_persons.select)
orders.orders.command("selected")(two_persons.selected)
orders.orders.command("operate")(two_persons.operate)
app.add_typer(orders.orders, name="order")
app.command()(orders.hold)
app.command()(orders.release)
devices.devices.command("now")(live.now)
devices.devices.command("show")(live.show)
devices.devices.command("why")(live.why)
app.add_typer(envelopes.envelopes, name="envelope")
app.add_typer(devices.devices, name="devices")
app.add_typer(devices.resources, name="resources")
app.add_typer(persons.persons, name="person")
app.add_typer(quarantine.dlq, name="dlq")
app.add_typer(configuration.commands, name="config")
simulation.sim.command()(acceptance.accept)
app.add_typer(simulation.sim, name="sim")
app.add_typer(drill.drill, name="drill")
app.command()(history.query)
app.add_typer(history.export, name="export")
app.add_typer(energy.commands, name="energy")
app.command()(simulation.bench)


@app.command()
def version(json: Json = False) -> None:
    """Print the version."""
    if json:
        print_json({"version": installed("kapelle")})
    else:
        out().print(f"kapelle {installed('kapelle')}")


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run())


def run() -> int:
    """Run the command line and return its exit code."""
    try:
        app()
    except KapelleError as error:
        complain(str(error))
        return exit_code(error)
    except BaseExceptionGroup as errors:
        # Services run in task groups: the first error of ours is the reason of all the others.
        ours, _ = errors.split(KapelleError)
        if ours is None:
            raise
        reason = _first(ours)
        complain(str(reason))
        return exit_code(reason)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`kapelle … | head`).
        sys.stderr.close()
        return Exit.OK
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else Exit.FAILED
    except KeyboardInterrupt:
        return 130
    return Exit.OK


def _first(errors: BaseExceptionGroup[KapelleError]) -> KapelleError:
    inner = errors.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
