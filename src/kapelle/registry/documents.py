"""Takes files of devices apart into rows of named cells, whatever program wrote them."""

import csv
import difflib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kapelle.errors import Invalid, Problem
from kapelle.registry.device import LABELS, NUMBERS

COLUMNS = ("id", "kind", *LABELS, *NUMBERS, "must_run", "opted_out_until")
REQUIRED = ("id", "kind")
Cells = Mapping[str, object]

_MEANT = {
    "device": "id",
    "device_id": "id",
    "name": "id",
    "serial": "id",
    "type": "kind",
    "device_type": "kind",
    "manufacturer": "vendor",
    "make": "vendor",
    "brand": "vendor",
    "household": "site",
    "region": "zone",
    "substation": "feeder",
    "isp": "provider",
    "protocol": "adapter",
    "ip": "address",
    "host": "address",
    "power": "nameplate_up_w",
    "power_w": "nameplate_up_w",
    "power_kw": "nameplate_up_w",
    "nameplate": "nameplate_up_w",
    "nameplate_w": "nameplate_up_w",
    "nameplate_kw": "nameplate_up_w",
    "nameplate_up_kw": "nameplate_up_w",
    "nameplate_down_kw": "nameplate_down_w",
    "energy": "energy_wh",
    "energy_kwh": "energy_wh",
    "capacity": "energy_wh",
    "capacity_kwh": "energy_wh",
    "capacity_wh": "energy_wh",
    "soc_min": "reserve_soc",
    "reserve": "reserve_soc",
    "min_soc": "reserve_soc",
    "interval": "report_every_s",
    "rollover": "meter_rollover_wh",
    "rollover_kwh": "meter_rollover_wh",
    "resolution": "meter_resolution_wh",
    "resolution_kwh": "meter_resolution_wh",
    "merit_order": "tier",
    "rank": "tier",
    "weight": "priority",
    "stages": "steps",
    "min_on": "min_on_s",
    "min_off": "min_off_s",
    "min_run_s": "min_on_s",
    "opt_out": "opted_out_until",
    "opted_out": "opted_out_until",
}
_EMPTY = Problem("line 1", "the file is empty", f"begin with the columns {', '.join(COLUMNS)}")
_OTHER_ENCODINGS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "a spreadsheet (.xlsx)",
    b"\x1f\x8b": "gzip",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A file taken apart."""

    problems: list[Problem]
    """What is wrong with its head."""
    rows: Iterator[tuple[str, Cells | Problem]]
    """Place (`line 7`) and cells of each row, or what keeps the row from having any."""


def read_csv(content: bytes) -> Document:
    """Take CSV apart: UTF-8 with or without BOM, divided by comma, semicolon or tab."""
    text = _text(content, "CSV")
    lines = io.StringIO(text, newline="")
    head = next((line for line in lines if line.strip()), "")
    lines.seek(0)
    delimiter = max(",;\t", key=head.count)
    rows = _csv_rows(lines, delimiter)
    where, header = next(rows, ("line 1", _EMPTY))
    if isinstance(header, Problem):
        return Document([header], iter(()))
    names = [name.strip().lower() for name in header]
    problems = _check_names(names, where)
    if any(name not in names for name in REQUIRED):
        # Without them every row would fail for the same reason.
        return Document(problems, iter(()))
    return Document(problems, _named(rows, names, delimiter))


def read_json(content: bytes) -> Document:
    """Take JSON apart: an array of objects, or an object with that array under `devices`."""
    text = _text(content, "JSON")
    try:
        root = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        remedy = "write an array of objects: [{…}, {…}]"
        raise Invalid("JSON", [Problem(where, error.msg.lower(), remedy)]) from error
    except RecursionError as error:
        remedy = "write an array of flat objects"
        raise Invalid("JSON", [Problem("line 1", "nested too deeply", remedy)]) from error
    if isinstance(root, _Pairs):
        root = dict(root).get("devices", [root])
    if not isinstance(root, list) or isinstance(root, _Pairs):
        remedy = "write an array of objects: [{…}, {…}]"
        raise Invalid("JSON", [Problem("line 1", "there is no array of devices", remedy)])
    return Document([], _json_rows(root))


class _Pairs(list[tuple[str, object]]):
    """A JSON object as it was written, repeated names and all."""


def _text(content: bytes, what: str) -> str:
    for start, name in _OTHER_ENCODINGS.items():
        if content.startswith(start):
            remedy = f"save it as {what} in UTF-8"
            raise Invalid(what, [Problem("line 1", f"the file is {name}", remedy)])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = Problem(
            f"line {line}",
            f"byte 0x{content[error.start]:02x} is not UTF-8",
            f"save the file as {what} in UTF-8",
        )
        raise Invalid(what, [problem]) from error


def _csv_rows(lines: io.StringIO, delimiter: str) -> Iterator[tuple[str, list[str] | Problem]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            remedy = "check its quotation marks"
            yield f"line {line}", Problem(f"line {line}", f"is not CSV ({error})", remedy)
            return
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield f"line {line}", cells


def _named(
    rows: Iterator[tuple[str, list[str] | Problem]], names: Sequence[str], delimiter: str
) -> Iterator[tuple[str, Cells | Problem]]:
    for where, cells in rows:
        if isinstance(cells, Problem):
            yield where, cells
        elif len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
            remedy = "put cells that contain commas into double quotes"
            if delimiter == ",":
                remedy = f"write decimals with a point (1.5, not 1,5) and {remedy}"
            yield where, Problem(where, f"has {len(cells)} cells for {len(names)} columns", remedy)
        else:
            yield where, dict(zip(names, cells, strict=False))


def _json_rows(root: Sequence[object]) -> Iterator[tuple[str, Cells | Problem]]:
    for place, item in enumerate(root, 1):
        where = f"device {place}"
        if not isinstance(item, _Pairs):
            what = f"is {json.dumps(item)[:40]}, not an object"
            yield where, Problem(where, what, 'write {"id": …, "kind": …}')
            continue
        names = [name for name, _ in item]
        problems = _check_names(names, where)
        if problems:
            # One is enough to send the row back; the others of its kind follow with the next.
            yield where, problems[0]
        else:
            yield where, dict(item)


def _check_names(names: Sequence[str], where: str) -> list[Problem]:
    problems: list[Problem] = []
    for place, name in enumerate(names):
        if name in names[:place]:
            problems.append(Problem(where, f"column `{name}` stands twice", "remove one of them"))
        elif name not in COLUMNS:
            problems.append(Problem(where, f"there is no column `{name}`", _column_remedy(name)))
    missing = [name for name in REQUIRED if name not in names]
    return problems + [Problem(where, f"column `{name}` is missing", "add it") for name in missing]


def _column_remedy(name: str) -> str:
    plain = name.lower().replace(" ", "_").replace("-", "_")
    near = [_MEANT[plain]] if plain in _MEANT else difflib.get_close_matches(plain, COLUMNS, 1)
    if not near:
        return f"remove it; columns are {', '.join(COLUMNS)}"
    unit = {"w": " (in W)", "wh": " (in Wh)"}.get(near[0].rpartition("_")[2], "")
    return f"did you mean `{near[0]}`{unit}?"
