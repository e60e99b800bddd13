"""`kapelle demo`, `kapelle sim run`, `kapelle bench`: plants that are not real."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kapelle.cli.output import Exit, Json, out, print_json, say
from kapelle.cli.result_words import facts
from kapelle.cli.running import run_until_signal
from kapelle.errors import NotFound
from kapelle.runtime import logs

if TYPE_CHECKING:
    from kapelle.sim.result import Result

sim = typer.Typer(no_args_is_help=True, help="Simulate plants in virtual time.")

_INTERRUPTED = 130


def demo(
    devices: Annotated[int, typer.Option(min=20, max=50_000, help="How many.")] = 2000,
    seconds: Annotated[float, typer.Option(min=20, max=3600, help="How long.")] = 90.0,
    seed: Annotated[int, typer.Option(help="Same seed, same devices.")] = 1,
    data: Annotated[
        Path | None, typer.Option(help="Directory with measured homes and sessions to replay.")
    ] = None,
    mix: Annotated[
        str, typer.Option(help="Who speaks what: mqtt=0.8,ocpp=0.2. All speak MQTT by default.")
    ] = "",
    keep: Annotated[
        Path | None, typer.Option(help="Keep the plant's data in this (empty) directory.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write the picture, as it was late in the order, as SVG.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a picture.")] = False,
    json: Json = False,
) -> None:
    """Watch simulated devices become one plant, lose some, and deliver all the same.

    Each device is a real client of its protocol over TCP, in a process of their own.
    Exit 0 only if what they delivered, by their own physics, met the tolerance of
    the order, and devices of every protocol moved.
    """
    # Costly to import, and only needed here.
    from kapelle.sim import demo as play
    from kapelle.sim.demo_show import showing
    from kapelle.sim.demo_summary import as_json, tell
    from kapelle.sim.protocols import read_mix

    # Links that break are part of the play, and its timeline tells what came of it.
    logs.set_up(level=logging.ERROR)
    options = play.Options(devices, seconds, seed, keep, data, mix=read_mix(mix))
    live = sys.stderr.isatty() and not (plain or json)
    with showing(live=live, picture=picture, seconds=seconds) as show:
        outcome = run_until_signal(lambda: play.run_demo(options, show))
    if outcome is None:
        say("stopped; nothing is left running")
        raise typer.Exit(_INTERRUPTED)
    if json:
        print_json(as_json(outcome))
    else:
        tell(outcome)
    raise typer.Exit(Exit.OK if outcome.passed else Exit.FAILED)


@sim.command()
def run(
    scenario: Annotated[Path, typer.Argument(help="SCENARIO.toml")],
    seed: Annotated[int, typer.Option(help="Same seed, same result, byte for byte.")] = 1,
    data: Annotated[
        Path | None, typer.Option(help="Directory with measured homes and sessions to replay.")
    ] = None,
    json: Json = False,
) -> None:
    """Play a scenario in virtual time against the plant's own rooms; exit 1 on a broken promise."""
    # Costly to import, and only needed here.
    from kapelle.sim.measured import read_measured
    from kapelle.sim.run import run_scenario
    from kapelle.sim.scenario import read_scenario

    wanted = read_scenario(scenario)
    measured = read_measured(data) if data is not None else None
    result = run_scenario(wanted, seed, measured=measured)
    if json:
        sys.stdout.buffer.write(result.to_json() + b"\n")
    else:
        _tell(result)
    raise typer.Exit(Exit.FAILED if result.problems else Exit.OK)


def bench(
    name: Annotated[str, typer.Argument(help="One of benchmarks/, or all.")] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, fewer runs.")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Do not append to results.jsonl.")] = False,
    json: Json = False,
) -> None:
    """Print benchmarks and append them to benchmarks/results.jsonl. Needs a checkout."""
    root = _checkout()
    if root is None:
        raise NotFound("no benchmarks here: run this in a checkout of the repository")
    given = {"--quick": quick, "--json": json, "--dry": dry}
    flags = [flag for flag, wanted in given.items() if wanted]
    raise typer.Exit(_call([sys.executable, "-m", "benchmarks.run", name, *flags], root))


def _tell(result: "Result") -> None:
    console = out()
    speed = result.virtual_s / result.wall_s if result.wall_s else float("nan")
    console.print(
        f"seed {result.seed}: {result.virtual_s:,.0f} s in {result.wall_s:.1f} s (×{speed:,.0f})"
    )
    for name, text in facts(result):
        console.print(f"[dim]{name:<10}[/] {text}")
    for problem in result.problems:
        console.print(f"✕ {problem}", style="red", markup=False)


def _checkout() -> Path | None:
    here = Path.cwd()
    found = (place for place in (here, *here.parents) if (place / "benchmarks/run.py").is_file())
    return next(found, None)


def _call(command: list[str], directory: Path | None = None) -> int:
    """Run a program of ours in the foreground and return its exit code."""
    sys.stdout.flush()
    done = subprocess.run(command, cwd=directory, env=dict(os.environ), check=False)  # noqa: S603  # our own modules
    return done.returncode
