"""How the command line speaks: results on stdout, everything else on stderr, one exit code each."""

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from kapelle.errors import (
    Conflict,
    DataDirectoryHeld,
    Invalid,
    JournalConflict,
    JournalDamaged,
    JournalFailed,
    KapelleError,
    LinkLost,
    NotFound,
    RegistryUnavailable,
    Rejected,
    Unreachable,
)
from kapelle.words import number

if TYPE_CHECKING:
    from pydantic import BaseModel


class Exit(IntEnum):
    """Exit codes; scripts may rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    REJECTED = 6
    """By a rule of safety, or declined."""
    DAMAGED = 65
    """What the journal holds cannot be read, or not by this version (EX_DATAERR)."""
    DISK = 74
    """The disk under the journal cannot be trusted (EX_IOERR)."""


_EXIT_OF: tuple[tuple[type[KapelleError], Exit], ...] = (
    (Invalid, Exit.USAGE),
    (NotFound, Exit.NOT_FOUND),
    (Conflict, Exit.CONFLICT),
    (JournalConflict, Exit.CONFLICT),
    (DataDirectoryHeld, Exit.CONFLICT),
    (Unreachable, Exit.UNREACHABLE),
    (LinkLost, Exit.UNREACHABLE),
    (RegistryUnavailable, Exit.UNREACHABLE),
    (Rejected, Exit.REJECTED),
    (JournalDamaged, Exit.DAMAGED),
    (JournalFailed, Exit.DISK),
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def exit_code(error: KapelleError) -> Exit:
    """Return the exit code that belongs to an error."""
    return next((code for kind, code in _EXIT_OF if isinstance(error, kind)), Exit.FAILED)


class Terminal(Console):
    """A console on which nothing a stranger sent moves the cursor, colours or hides anything."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render with a visible sign in the place of each control character of a text."""
        for text, style, control in super().render(renderable, options):
            shown = text if control else text.translate(_SHOWN_AS)
            yield Segment(shown, style, control)


_SHOWN_AS = {
    # C0 but tab and newline, delete, C1, and what turns the direction of reading round.
    **{code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)},
    **dict.fromkeys((*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD),
}


def out() -> Console:
    """Return the console of results; Rich honours NO_COLOR and a missing terminal."""
    # A pipe gets whole lines: wrapping at 80 columns would break them for grep.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Terminal(highlight=False, width=width)


def say(text: str) -> None:
    """Tell progress on stderr."""
    Terminal(stderr=True, highlight=False, soft_wrap=True).print(text, style="dim", markup=False)


def complain(text: str) -> None:
    """Tell an error on stderr: what is wrong and what to do, without a traceback."""
    if "--json" in sys.argv:
        sys.stderr.write(msgspec.json.encode({"error": text}).decode() + "\n")
        return
    console = Terminal(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]✕[/] ", end="")
    console.print(text, markup=False)


def print_json(document: object) -> None:
    """Print one JSON document on stdout."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_told(told: "BaseModel") -> None:
    """Print what the API told as one JSON document on stdout."""
    print_json(told.model_dump(mode="json", by_alias=True))


def print_table(
    rows: Sequence[Mapping[str, object]],
    columns: Iterable[str],
    empty: str,
    counts: Collection[str] = (),
) -> None:
    """Print rows as a table, or the sentence that says why there are none.

    Args:
        rows: By the names of the columns.
        columns: In their order.
        empty: Said instead of a table without rows.
        counts: Columns whose whole numbers count something, and name nothing: `1,283`.
    """
    if not rows:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(Text(column.replace("_", " ")), justify="right" if numeric else "left")
    for row in rows:
        # As text: names may hold square brackets.
        table.add_row(*(Text(_shown(row.get(column), column in counts)) for column in columns))
    out().print(table)


def cell(value: object) -> str:
    """Return a value as a person reads it; nothing known is a dash."""
    if value is None or value != value:
        return "–"
    if not isinstance(value, float):
        return str(value)
    # Six digits are enough, but not by way of 1.45375e+06.
    text = f"{value:z,.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:z,.6g}"
    return f"−{text[1:]}" if text.startswith("-") else text


def _shown(value: object, counts: bool) -> str:
    return number(value) if counts and isinstance(value, int) else cell(value)
