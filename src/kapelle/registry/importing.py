"""Reads fleets from CSV and JSON: every row is checked, and either all come in or none.

Columns: id and kind are required. site (default: the device's own), vendor, model, zone, feeder,
provider, adapter (default: mqtt), address; nameplate_up_w (default 0 for consumers),
nameplate_down_w (default 0 for pv and generator, as up for battery), energy_wh (required for
battery), reserve_soc (default 0), ramp_w_per_s, revert_s (default 300 for mqtt, whose commands
carry the timer; else none), report_every_s, meter_rollover_wh (where the energy registers begin
anew; none: they never do), meter_resolution_wh (their last digit); tier (0-15), priority
(default 1), steps (default: as its kind), min_on_s, min_off_s, must_run (true or false): see
docs/allocation.md; opted_out_until (a moment; left as it was where it is empty). An empty cell
means the default, `none` means that there is none. A row replaces what was known of its device
whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kapelle.errors import Invalid, Problem
from kapelle.registry.device import Device
from kapelle.registry.documents import read_csv, read_json
from kapelle.registry.fields import Reader
from kapelle.registry.store import Registry

Format = Literal["csv", "json"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    count: int
    """Devices in the file."""
    created: int
    updated: int
    credentials: dict[str, str]
    """Secret of each new device, by its id. Shown here and never again."""


def import_devices(
    registry: Registry, source: Path | bytes, format: Format, now_ns: int
) -> Imported:
    """Enrol every device of a file in one transaction. The same file again changes nothing.

    Args:
        registry: Where to.
        source: The file, or its content.
        format: `csv` (comma, semicolon or tab; UTF-8) or `json` (array of objects, or an object
            with the array under `devices`).
        now_ns: Recorded as the time of the change.

    Raises:
        Invalid: With a problem for everything wrong in every row. Nothing was imported.
    """
    wanted = read_devices(source, format)
    try:
        put = registry.put_devices(list(wanted.values()), now_ns)
    except Invalid as error:
        raise Invalid(error.what, _placed(error.problems, wanted)) from error
    return Imported(len(wanted), put.created, put.updated, put.credentials)


def read_devices(source: Path | bytes, format: Format) -> dict[str, Device]:
    """Return the devices of a file by their place in it (`line 7`). Raises Invalid."""
    name = source.name if isinstance(source, Path) else format.upper()
    document = (read_csv if format == "csv" else read_json)(_content(source))
    reader = Reader()
    problems = list(document.problems)
    found: dict[str, Device] = {}
    first: dict[str, str] = {}
    for where, cells in document.rows:
        if isinstance(cells, Problem):
            problems.append(cells)
            continue
        device, wrong = reader.device(where, cells)
        problems += wrong
        device_id = str(cells.get("id") or "").strip()
        if device_id in first:
            what = f"{device_id!r} stands in {first[device_id]} already"
            problems.append(Problem(f"{where}, id", what, "remove one of the two"))
        elif device_id:
            first[device_id] = where
        if device is not None:
            found[where] = device
    if not found and not problems:
        problems = [Problem("line 1", "there are no devices", "write one row for each device")]
    if problems:
        raise Invalid(f"{name} cannot be used, nothing was imported", problems)
    return found


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise Invalid(f"{source} cannot be read: {error.strerror}") from error


def _placed(problems: Sequence[Problem], wanted: Mapping[str, Device]) -> list[Problem]:
    """Return problems of the registry with the line instead of the device's name."""
    place_of = {f"device {device.id!r}": where for where, device in wanted.items()}
    placed: list[Problem] = []
    for problem in problems:
        device, comma, field = problem.where.partition(", ")
        where = f"{place_of.get(device, device)}{comma}{field}"
        placed.append(Problem(where, problem.what, problem.remedy))
    return placed
