"""Writes devices inside a change: who is new, who differs, and which number each one gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from sqlalchemy import Connection, bindparam, insert, select, update

from kapelle.errors import Invalid, Problem
from kapelle.registry import credentials
from kapelle.registry.device import Device, flaws
from kapelle.registry.membership import chunks
from kapelle.registry.numbering import NEW, Wanted, number
from kapelle.registry.rows import COLUMNS, DESCRIBED, Described, Stored, described
from kapelle.registry.tables import devices, partitions, sites

_described_of = attrgetter(*DESCRIBED)
Row = dict[str, int | str | float | bytes | None]


@dataclass(slots=True)
class Enrolments:
    """What `enrol` wrote."""

    rows: list[Row] = field(default_factory=list)
    """New and changed rows, complete but for what stayed as it was (`created_at_ns`, …)."""
    created: int = 0
    updated: int = 0
    credentials: dict[str, str] = field(default_factory=dict)
    """Secret of each device that is new, by its id; nobody can show it again."""


def check(wanted: Sequence[Device]) -> None:
    """Raise Invalid with every flaw of every device, if there is any."""
    problems = [
        Problem(f"device {device.id!r}, {flaw.field}", flaw.what, flaw.remedy)
        for device in wanted
        for flaw in flaws(device)
    ]
    seen: set[str] = set()
    for device in wanted:
        if device.id in seen:
            problems.append(Problem(f"device {device.id!r}, id", "stands twice", "keep one"))
        seen.add(device.id)
    if problems:
        raise Invalid("these devices cannot be enrolled", problems)


def enrol(
    connection: Connection, wanted: Sequence[Device], revision: int, now_ns: int
) -> Enrolments:
    """Write what differs from what is stored; devices that are the same are left alone.

    Raises:
        Invalid: A device would have to leave its partition (see `numbering.number`).
    """
    stored = stored_by_id(connection, [device.id for device in wanted])
    differing: list[tuple[Device, Described, Stored | None]] = []
    for device in wanted:
        values, before = described(device), stored.get(device.id)
        same = before is not None and before.active and _described_of(before) == values
        if not same or _opted_out_until_ns(device, before) != _opted_out_before(before):
            differing.append((device, values, before))
    numbers = _number(connection, differing)

    result = Enrolments()
    created: list[Row] = []
    updated: list[Row] = []
    for device_no, (device, values, before) in zip(numbers, differing, strict=True):
        row: Row = dict(zip(DESCRIBED, values, strict=True))
        row |= {"device_no": device_no, "device_id": device.id, "active": 1}
        row |= {"revision": revision, "updated_at_ns": now_ns}
        row["opted_out_until_ns"] = _opted_out_until_ns(device, before)
        if before is None or not before.active:
            secret = credentials.new_secret()
            result.credentials[device.id] = secret
            row |= {"credential": credentials.hash_secret(secret), "credential_at_ns": now_ns}
            result.created += 1
        else:
            row |= {"credential": before.credential, "credential_at_ns": before.credential_at_ns}
            result.updated += 1
        if before is None:
            row["created_at_ns"] = now_ns
            created.append(row)
        else:
            updated.append(row)
        result.rows.append(row)
    if created:
        connection.execute(insert(devices), created)
    if updated:
        write(connection, updated)
    return result


def _opted_out_until_ns(device: Device, before: Stored | None) -> int | None:
    if device.opted_out_until_ns is None:
        return _opted_out_before(before)
    return device.opted_out_until_ns or None


def _opted_out_before(before: Stored | None) -> int | None:
    # Who left and comes back takes part anew.
    return before.opted_out_until_ns if before is not None and before.active else None


def write(connection: Connection, rows: Sequence[Row]) -> None:
    """Overwrite the columns given (the same ones in every row) of devices that exist."""
    columns = [name for name in rows[0] if name != "device_no"]
    statement = (
        update(devices)
        .where(devices.c.device_no == bindparam("the_device_no"))
        .values({name: bindparam(name) for name in columns})
    )
    connection.execute(statement, [{"the_device_no": row["device_no"], **row} for row in rows])


def stored_by_id(connection: Connection, device_ids: Sequence[str]) -> dict[str, Stored]:
    """Return the stored rows of these devices, removed ones too, by id."""
    found: dict[str, Stored] = {}
    for chunk in chunks(device_ids):
        rows = connection.execute(select(*COLUMNS).where(devices.c.device_id.in_(chunk)))
        found.update((row.device_id, Stored(*row)) for row in rows)
    return found


def _number(
    connection: Connection, differing: Sequence[tuple[Device, Described, Stored | None]]
) -> list[int]:
    wanted = [
        Wanted(device.id, device.site or device.id, before.device_no if before else NEW)
        for device, _, before in differing
    ]
    next_row = connection.scalars(
        select(partitions.c.next_row).order_by(partitions.c.partition)
    ).all()
    known = _site_partitions(connection, sorted({one.site for one in wanted}))
    result = number(wanted, next_row, known)
    if result.refused:
        raise Invalid(
            "these devices cannot move",
            [_cannot_move(wanted[place], home, target) for place, home, target in result.refused],
        )
    if result.sites:
        rows = [{"site": site, "partition": home} for site, home in result.sites.items()]
        connection.execute(insert(sites), rows)
    moved = [
        {"the_partition": partition, "the_row": row}
        for partition, row in enumerate(result.next_row)
        if row != next_row[partition]
    ]
    if moved:
        statement = update(partitions).where(partitions.c.partition == bindparam("the_partition"))
        connection.execute(statement.values(next_row=bindparam("the_row")), moved)
    return result.device_nos


def _site_partitions(connection: Connection, names: Sequence[str]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for chunk in chunks(names):
        rows = connection.execute(
            select(sites.c.site, sites.c.partition).where(sites.c.site.in_(chunk))
        )
        found.update((site, partition) for site, partition in rows)
    return found


def _cannot_move(one: Wanted, home: int, target: int) -> Problem:
    return Problem(
        f"device {one.device_id!r}, site",
        f"site {one.site!r} is in partition {target} and the device in partition {home}, "
        "which it cannot leave",
        "keep its site, or remove it and enrol it under a new id",
    )
