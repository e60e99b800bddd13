"""Runs benchmarks by name, prints a table and appends every line to `results.jsonl`.

For example `python -m benchmarks.run journal fleet --quick`.
"""

import argparse
import datetime
import importlib
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
NAMES = (
    "journal",
    "fleet",
    "energy",
    "allocation",
    "planning",
    "mqtt",
    "http_bulk",
    "ocpp",
    "sparkplug",
    "topics",
    "openadr",
    "cloud",
    "sunspec",
    "ieee2030",
    "estimation",
    "history",
    "firm",
    "safety",
)


def main() -> int:
    """Run what was asked for; exit 2 on an unknown name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help=f"all, or any of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer runs")
    parser.add_argument("--json", action="store_true", help="one JSON object per line, no table")
    parser.add_argument("--dry", action="store_true", help="do not append to results.jsonl")
    asked = parser.parse_args()
    names = NAMES if "all" in asked.names else asked.names
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}\n")
        return 2
    for name in names:
        rows = importlib.import_module(f"benchmarks.{name}").run(quick=asked.quick)
        stamped = [_stamp(name, row, quick=asked.quick) for row in rows]
        if not asked.dry:
            with (HERE / "results.jsonl").open("a") as results:
                results.writelines(json.dumps(row) + "\n" for row in stamped)
        if asked.json:
            sys.stdout.writelines(json.dumps(row) + "\n" for row in stamped)
        else:
            Console().print(_table(name, stamped))
    return 0


def _stamp(benchmark: str, row: dict[str, object], *, quick: bool) -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": f"{platform.machine()} {_processor()} x{_cores()}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "benchmark": benchmark,
        "quick": quick,
        **row,
    }


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")


def _table(name: str, rows: list[dict[str, object]]) -> Table:
    table = Table(title=name, title_justify="left")
    for column in ("what", "value", "unit", "ratio", "held against", "note"):
        table.add_column(column, justify="right" if column in ("value", "ratio") else "left")
    for row in rows:
        ratio = row.get("ratio")
        table.add_row(
            str(row["name"]),
            _figure(row["value"]),
            str(row.get("unit", "")),
            f"{ratio:.2f}" if isinstance(ratio, float | int) else "",
            str(row.get("peer") or ""),
            str(row.get("note") or ""),
        )
    return table


def _figure(value: object) -> str:
    if isinstance(value, float | int):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
