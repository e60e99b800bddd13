"""Rows of the quarantine as a person reads them, within 80 columns."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from kapelle.cli.output import out, print_table, say
from kapelle.words import counted

if TYPE_CHECKING:
    from kapelle.api.quarantine_shapes import ActionTold, QuarantinedTold

_SAMPLES_SHOWN = 3
_NAME_WIDTH_MAX = 16
_MARKS = {"stored": "●", "dropped": "○", "refused": "✕"}


def show_row(told: "QuarantinedTold") -> None:
    """Print one row with all that was sent."""
    seen = f"{when(told.first_seen)} to {when(told.last_seen)}"
    facts = {
        "row": f"{told.id} · {told.state}",
        "device": told.device or "not enrolled",
        "source": told.source,
        "reason": told.reason,
        "seen": f"{told.count:,} times, {seen}" if told.count > 1 else when(told.first_seen),
    }
    if told.decided_at:
        why = f": {told.decision_reason}" if told.decision_reason else ""
        facts["decided"] = f"{told.verdict} by {told.decided_by}, {when(told.decided_at)}{why}"
    if told.fix:
        facts["fix"] = str(told.fix)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, fact in facts.items():
        grid.add_row(name, Text(fact))
    grid.add_row("sent", Text(told.raw))
    out().print(grid)


def tell_action(told: "ActionTold") -> None:
    """Print what would happen, with the first rows before and after."""
    if not told.taken:
        say("no open row matches")
        return
    console = out()
    console.print(sum_of(told), markup=False)
    for row in told.rows[:_SAMPLES_SHOWN]:
        name = row.device or "not enrolled"
        console.print(f"  {_MARKS[row.outcome]} {row.id} {name}", markup=False)
        console.print(f"    {row.before}", markup=False, no_wrap=True, overflow="ellipsis")
        if row.after is not None:
            console.print(f"  → {row.after}", markup=False, no_wrap=True, overflow="ellipsis")
        if row.reason:
            console.print(f"    {row.reason}", style="yellow", markup=False)
    if told.taken > _SAMPLES_SHOWN:
        console.print(f"  … and {counted(told.taken - _SAMPLES_SHOWN, 'more row')}", style="dim")


def sum_of(told: "ActionTold") -> str:
    """Return what would happen, or happened, in one line."""
    would = "would be " if told.dry_run else ""
    parts = []
    if told.action == "drop":
        parts.append(f"○ {counted(told.dropped, 'row')} {would}dropped")
    else:
        parts.append(f"● {counted(told.stored, 'row')} {would}stored")
    refused = ", ".join(f"{count:,} {code}" for code, count in told.refused.items())
    if refused:
        parts.append(f"✕ {sum(told.refused.values()):,} refused and left open ({refused})")
    if told.skipped:
        parts.append(f"{told.skipped:,} not open any more")
    return " · ".join(parts)


def print_rows(rows: "list[QuarantinedTold]") -> None:
    """Print a line a row. Ids are typed again, so they are whole; what is wrong takes the rest."""
    told = [
        (
            row.id,
            _briefly(row.last_seen),
            f"{row.count:,}",
            _cut(row.device or "–", _NAME_WIDTH_MAX),
            _cut(row.code, _NAME_WIDTH_MAX),
            row.reason.partition(": ")[2] or row.reason,
        )
        for row in rows
    ]
    lines = [("id", "last seen", "×", "device", "code", "what is wrong"), *told]
    widths = [max(len(line[place]) for line in lines) for place in range(5)]
    console = out()
    for number, (row_id, seen, count, device, code, what) in enumerate(lines):
        start = (
            f"{row_id:<{widths[0]}}  {seen:<{widths[1]}}  {count:>{widths[2]}}  "
            f"{device:<{widths[3]}}  {code:<{widths[4]}}  "
        )
        text = _cut(start + what.replace("\n", " "), console.width)
        console.print(text, style="bold" if number == 0 else "", markup=False, soft_wrap=True)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def print_muted(muted_rows: list[dict[str, object]]) -> None:
    """Print who is muted."""
    rows = [
        {
            "muted": row["device"] or "not enrolled",
            "by": row["protocol"],
            "since": _briefly(row["since"]),
            "until": _briefly(row["until"]),
            "not_kept": row["not_kept"],
        }
        for row in muted_rows
    ]
    print_table(rows, ("muted", "by", "since", "until", "not_kept"), "")


def _briefly(at: object) -> str:
    """Return the time of day where it is today's, else the day."""
    if not isinstance(at, datetime):
        return str(at)
    is_today = at.date() == datetime.now(UTC).date()
    return f"{at:%H:%M:%S}" if is_today else f"{at:%b %d}"


def when(at: object) -> str:
    """Return a moment to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}Z" if isinstance(at, datetime) else str(at)
