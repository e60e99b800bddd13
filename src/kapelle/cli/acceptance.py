"""`kapelle sim accept`: the whole grid of faults, many seeds a line, and whether it holds."""

import fnmatch
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kapelle.cli.output import Exit, Json, out, print_json, print_table, say
from kapelle.errors import Invalid

if TYPE_CHECKING:
    from kapelle.sim.acceptance.lines import Line
    from kapelle.sim.acceptance.score import Score
    from kapelle.sim.acceptance.seen import Seen

_SAY_EVERY_S = 20.0


def accept(
    seeds: Annotated[int, typer.Option(min=1, help="How many for each line.")] = 50,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="A line, or several as in silent-10-*; repeatable.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    keep: Annotated[
        Path | None,
        typer.Option(help="Add each result to this file as it comes, and play none it has."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer devices and shorter orders: for a look.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json: Json = False,
) -> None:
    """Play every line of faults with many seeds in virtual time; exit 0 only if all aims are met.

    A stopped run goes on where it was with the same --keep, as long as the code is the same.
    """
    # Costly to import, and only needed here.
    from kapelle.sim.acceptance.score import score

    wanted = _wanted(only, quick=quick)
    found = _play(wanted, range(first, first + seeds), jobs, keep)
    scores = [score(line, found[line.name]) for line in wanted]
    if json:
        print_json({"seeds": seeds, "from": first, "lines": scores})
    elif markdown:
        _print_markdown(scores)
    else:
        _tell(scores)
    raise typer.Exit(Exit.FAILED if any(each.missed for each in scores) else Exit.OK)


def _wanted(only: Sequence[str] | None, *, quick: bool) -> list["Line"]:
    from kapelle.sim.acceptance.lines import lines

    every = lines(quick=quick)
    if not only:
        return every
    for pattern in only:
        if not fnmatch.filter([line.name for line in every], pattern):
            known = ", ".join(line.name for line in every)
            raise Invalid(f"--only {pattern}: no such line; there are {known}")
    return [
        line for line in every if any(fnmatch.fnmatchcase(line.name, pattern) for pattern in only)
    ]


def _play(
    wanted: Sequence["Line"], seeds: Sequence[int], jobs: int, path: Path | None
) -> dict[str, list["Seen"]]:
    """Play what is not kept yet, seed by seed over all lines, and return all by line."""
    from kapelle.sim.acceptance import playing

    kept = playing.read_kept(path, wanted) if path is not None else []
    results = {(seen.line, seen.seed): seen for seen in kept}
    # All lines of one seed first: whoever stops has every line, with fewer seeds.
    pairs = [(line, seed) for seed in seeds for line in wanted]
    missing = [(line, seed) for line, seed in pairs if (line.name, seed) not in results]
    if len(missing) < len(pairs):
        say(f"{len(pairs) - len(missing)} of {len(pairs)} runs are in {path} already")
    started = said = time.monotonic()
    for number, seen in enumerate(playing.play_all(missing, jobs), 1):
        results[seen.line, seen.seed] = seen
        if path is not None:
            playing.keep(path, seen)
        now = time.monotonic()
        if now - said >= _SAY_EVERY_S:
            said = now
            left_s = (now - started) / number * (len(missing) - number)
            say(f"{number} of {len(missing)} runs, about {left_s / 60:.0f} min left")
    return {line.name: [results[line.name, seed] for seed in seeds] for line in wanted}


def _print_markdown(scores: Sequence["Score"]) -> None:
    from kapelle.sim.acceptance.table import markdown

    sys.stdout.write(markdown(scores) + "\n")


def _tell(scores: Sequence["Score"]) -> None:
    from kapelle.sim.acceptance.table import COLUMNS, row

    print_table([row(score, score.line) for score in scores], COLUMNS, "no lines")
    console = out()
    for score in scores:
        for missed in [*score.missed, *score.problems]:
            console.print(f"✕ {score.line}: {missed}", style="red", markup=False)
