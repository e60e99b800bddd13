"""What changes the record for good is looked at first, then asked about, and has an author."""

import sys
from typing import Annotated

import typer

from kapelle.errors import Invalid, Problem

Author = Annotated[str, typer.Option(help="Yourself, as your token says; another is refused.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def is_wanted(what: str, *, yes: bool) -> bool:
    """Ask whether something is to be done, for example `drop 3 rows`.

    Raises:
        Invalid: Nobody is there to be asked, and `--yes` does not say it.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Invalid("nothing was changed", [Problem("--yes", what, "say --yes, or --dry-run")])
    return typer.confirm(f"{what}?", err=True)
