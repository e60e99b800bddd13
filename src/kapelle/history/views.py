"""The record as SQL: one view per table over exactly the files the catalog names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from kapelle.history.catalog import File
from kapelle.history.layout import Layout
from kapelle.history.tables import DELAY, MINUTE_NS, QUARTER_NS, TABLES, Table

_SHOWN = {
    # The name would need quotes, and in files it is null where it is the time.
    "order": 'coalesce("order", epoch_ns("time")) AS rank',
}
_TYPES: Mapping[pa.DataType, str] = {
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("ns"): "TIMESTAMP_NS",
}
_FOREVER = 1 << 62
"""Later than any time that is ever told. [ns]"""
_TIER_COLUMNS = (
    "time, device_no, epoch_ns(time) AS starts_at_ns, readings, power_w, power_w_min, "
    "power_w_max, powers, soc, export_wh, import_wh"
)


def unsettled(files: Iterable[File]) -> tuple[list[File], list[File]]:
    """Divide the files of `readings` into those merged for good and those that are not.

    Rows of the second may repeat each other, and no tier tells of them. A merged file whose hour
    or day has got late rows belongs to them.
    """
    settled: list[File] = []
    loose: list[File] = []
    ordered = sorted(files, key=lambda file: (file.partition, file.starts_ns))
    for _, grouped in groupby(ordered, key=lambda file: file.partition):
        group = list(grouped)
        open_spans = [(file.starts_ns, file.ends_ns) for file in group if file.level < 2]
        found: set[int] = set()
        while True:
            more = [
                file
                for file in group
                if file.file_no not in found and any(file.overlaps(*span) for span in open_spans)
            ]
            if not more:
                break
            # A day that is open opens its hours, and an hour its day.
            found |= {file.file_no for file in more}
            open_spans = [(file.starts_ns, file.ends_ns) for file in more]
        for file in group:
            (loose if file.file_no in found else settled).append(file)
    return settled, loose


def without(tiers: Iterable[File], loose: Sequence[File]) -> list[File]:
    """Return the tier files that no unsettled readings contradict."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for file in loose:
        spans.setdefault(file.partition, []).append((file.starts_ns, file.ends_ns))
    return [
        tier
        for tier in tiers
        if not any(tier.overlaps(*span) for span in spans.get(tier.partition, ()))
    ]


def scan(directory: Path, table: Table, files: Sequence[File]) -> str:
    """Return SQL for all rows of files, with the columns they have in the files."""
    schema = table.file_schema
    if not files:
        nothing = ", ".join(f'NULL::{_TYPES[field.type]} AS "{field.name}"' for field in schema)
        return f"SELECT {nothing} WHERE false"
    parts = []
    by_columns = sorted(files, key=lambda file: file.columns)
    for columns, group in groupby(by_columns, key=lambda file: file.columns):
        layout = Layout.parse(columns)
        # Opening a file only to learn its columns would cost more than most queries.
        chosen = ", ".join(
            f'"{field.name}"::{_TYPES[field.type]} AS "{field.name}"'
            if field.name in layout.columns
            else f'NULL::{_TYPES[field.type]} AS "{field.name}"'
            for field in schema
        )
        paths = ", ".join(literal(exact(str(directory / file.path))) for file in group)
        parts.append(f"SELECT {chosen} FROM read_parquet([{paths}], hive_partitioning = false)")
    return " UNION ALL ".join(parts)


def readings(directory: Path, files: Sequence[File], where: str = "true") -> str:
    """Return SQL for every reading once: of repetitions the first to arrive."""
    table = TABLES["readings"]
    settled, loose = unsettled(files)
    once = (
        f"SELECT * FROM ({scan(directory, table, loose)}) WHERE {where} QUALIFY row_number() OVER "
        f'(PARTITION BY device_no, "time", "order" ORDER BY {DELAY}) = 1'
    )
    merged = f"SELECT * FROM ({scan(directory, table, settled)}) WHERE {where}"
    if not loose:
        return merged
    return once if not settled else f"{merged} UNION ALL {once}"


def minutes(
    directory: Path, raw: Sequence[File], tiers: Sequence[File], where: str = "true"
) -> str:
    """Return SQL for the tier of minutes, also of hours that have not been merged yet."""
    return _tier(directory, "minutes", raw, tiers, where)


def quarters(
    directory: Path, raw: Sequence[File], tiers: Sequence[File], where: str = "true"
) -> str:
    """Return SQL for the tier of quarter-hours."""
    return _tier(directory, "quarters", raw, tiers, where)


def _tier(
    directory: Path, name: str, raw: Sequence[File], tiers: Sequence[File], where: str
) -> str:
    _, loose = unsettled(raw)
    kept = scan(directory, TABLES[name], without(tiers, loose))
    sql = f"SELECT {_TIER_COLUMNS} FROM ({kept}) WHERE {where}"
    if not loose:
        return sql
    fresh = thin(readings(directory, loose, where), MINUTE_NS)
    if name == "quarters":
        fresh = thin_again(fresh)
    return f"{sql} UNION ALL {fresh}"


def thin(source: str, step_ns: int) -> str:
    """Return SQL for readings as the mean of the values reported in each step."""
    return (
        f"SELECT {_start(step_ns)} AS time, device_no, "
        f"epoch_ns({_start(step_ns)}) AS starts_at_ns, "
        "count(*)::INTEGER AS readings, avg(power_w) AS power_w, min(power_w) AS power_w_min, "
        "max(power_w) AS power_w_max, count(power_w)::INTEGER AS powers, "
        + ", ".join(
            f'arg_max({name}, (time, "order")) AS {name}'
            for name in ("soc", "export_wh", "import_wh")
        )
        + f" FROM ({source}) GROUP BY 1, 2, 3"
    )


def thin_again(source: str) -> str:
    """Return SQL for minutes as quarter-hours: each minute that has a mean counts once."""
    start = _start(QUARTER_NS)
    return (
        f"SELECT {start} AS time, device_no, epoch_ns({start}) AS starts_at_ns, "
        "sum(readings)::INTEGER AS readings, avg(power_w) AS power_w, "
        "min(power_w_min) AS power_w_min, max(power_w_max) AS power_w_max, "
        "sum(powers)::INTEGER AS powers, "
        + ", ".join(
            f"arg_max({name}, time) AS {name}" for name in ("soc", "export_wh", "import_wh")
        )
        + f" FROM ({source}) GROUP BY 1, 2, 3"
    )


def shown(table: Table, source: str) -> str:
    """Return SQL with the columns queries see: `time`, then the rest by their own names."""
    others = [name for name in table.schema.names if name != table.time]
    columns = [f'epoch_ns("time") AS {table.time}']
    columns += [
        f'epoch_ns("time") + {DELAY} AS {name}'
        if name == table.came
        else _SHOWN.get(name, f'"{name}"')
        for name in others
    ]
    # In front what a reader looks for first.
    return f'SELECT "time", {", ".join(columns)} FROM ({source})'


def all_views(directory: Path, files: Sequence[File]) -> dict[str, str]:
    """Return the SQL of every view by name, in an order in which each knows those it needs."""
    of: dict[str, list[File]] = {name: [] for name in TABLES}
    for file in files:
        if file.table in of:
            of[file.table].append(file)
    views = {
        name: shown(table, scan(directory, table, of[name]))
        for name, table in TABLES.items()
        if name not in ("readings", "devices", "members", "minutes", "quarters")
    }
    views["readings"] = shown(TABLES["readings"], readings(directory, of["readings"]))
    views["minutes"] = minutes(directory, of["readings"], of["minutes"])
    views["quarters"] = quarters(directory, of["readings"], of["quarters"])
    views["enrolments"] = shown(
        TABLES["devices"], scan(directory, TABLES["devices"], of["devices"])
    )
    # Joined to anything else, it has no column that means something else there.
    views["devices"] = (
        "SELECT * EXCLUDE (time, at_ns, position), time AS enrolled_at FROM enrolments QUALIFY "
        "row_number() OVER (PARTITION BY device_no ORDER BY position DESC) = 1"
    )
    views["memberships"] = memberships(directory, of["members"], "enrolments")
    return views


def memberships(directory: Path, members: Sequence[File], enrolments: str) -> str:
    """Return SQL for which device belonged to which resource, [from_ns, until_ns).

    A `Members` entry replaces what was said before about one resource in one partition. The
    resource `all` holds every enrolled device for as long as it is active.
    """
    enrolled = (
        "SELECT 'all' AS resource, device_no, at_ns AS from_ns, lead(at_ns, 1, "
        f"{_FOREVER}) OVER (PARTITION BY device_no ORDER BY position) AS until_ns, active "
        f"FROM {enrolments}"
    )
    parts = [enrolled]
    table = TABLES["members"]
    ordered = sorted(members, key=lambda file: file.partition)
    for _, group in groupby(ordered, key=lambda file: file.partition):
        rows = shown(table, scan(directory, table, list(group)))
        parts.append(
            "SELECT resource, device_no, at_ns AS from_ns, coalesce(until_ns, "
            f"{_FOREVER}) AS until_ns, (device_no >= 0)::UTINYINT AS active FROM "
            f"({rows}) JOIN (SELECT resource, position, lead(min(at_ns)) OVER (PARTITION BY "
            f"resource ORDER BY position) AS until_ns FROM ({rows}) GROUP BY resource, position) "
            "USING (resource, position)"
        )
    told = " UNION ALL ".join(parts)
    return (
        "SELECT resource, device_no, from_ns, until_ns, make_timestamp_ns(from_ns) AS member_from, "
        f"CASE WHEN until_ns < {_FOREVER} THEN make_timestamp_ns(until_ns) END AS member_until "
        f"FROM ({told}) WHERE active = 1 AND until_ns > from_ns"
    )


def exact(path: str) -> str:
    """Return a path as DuckDB's pattern of that path alone."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def at(ns: int) -> str:
    """Return a moment as an expression of SQL, comparable with `time`."""
    return f"make_timestamp_ns({int(ns)})"


def _start(step_ns: int) -> str:
    return f"make_timestamp_ns(epoch_ns(time) // {step_ns} * {step_ns})"
