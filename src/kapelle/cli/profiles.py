"""Reads a profile from the command line: `15m:500,15m:-200`, or a CSV file with a line for each."""

from pathlib import Path
from typing import TYPE_CHECKING

from kapelle.cli.output import print_table
from kapelle.cli.quantities import duration_s
from kapelle.errors import Invalid, Problem
from kapelle.words import power

if TYPE_CHECKING:
    from kapelle.api.shapes import IntervalTold

_HEADER = "for,kw"


def profile_of(text: str | None) -> list[dict[str, float]] | None:
    """Return intervals as the API takes them; None where none were given.

    Raises:
        Invalid: A length or a power cannot be read; the interval is named.
    """
    if text is None:
        return None
    if ":" in text and not Path(text).is_file():
        return [_interval(each, ":", number) for number, each in enumerate(text.split(","), 1)]
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(
            "--profile",
            f"{text!r} is no file that can be read ({error}), and no profile",
            "write one as 15m:500,15m:-200 (kW)",
        )
        raise Invalid("profile", [problem]) from error
    rows = [line for line in lines if line.strip() and line.replace(" ", "").lower() != _HEADER]
    return [_interval(row, ",", number) for number, row in enumerate(rows, 1)]


def _interval(text: str, mark: str, number: int) -> dict[str, float]:
    length, _, kilowatts = text.partition(mark)
    where = f"--profile, interval {number}"
    try:
        length_s = duration_s(length.strip(), where)
        return {"duration_s": length_s, "target_w": float(kilowatts) * 1e3}
    except ValueError:
        problem = Problem(
            where,
            f"is {text.strip()!r}",
            f"give a length and kW, such as 15m{mark}500",
        )
        raise Invalid("profile", [problem]) from None


def tell_intervals(profile: "list[IntervalTold]") -> None:
    """Print the intervals of an order and what is promised of each."""
    rows = [
        {
            "interval": number,
            "from": f"{each.starts_at:%H:%M:%S}Z",
            "to": f"{each.ends_at:%H:%M:%S}Z",
            "target": power(each.target_w),
            "promised": power(each.committed_w),
        }
        for number, each in enumerate(profile, 1)
    ]
    if rows:
        print_table(rows, ("interval", "from", "to", "target", "promised"), "")
