"""Keeps `resource_members` equal to what the selections say, inside a change."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.sql import and_, bindparam, literal

from kapelle.registry.selection import Selection, parse
from kapelle.registry.tables import devices, resource_members, resources

T = TypeVar("T")

CHUNK = 1000
"""Bound parameters in one statement; both databases take many more."""


def apply_devices(
    connection: Connection, rows: Sequence[Mapping[str, object]], partitions: int
) -> set[tuple[str, int]]:
    """Put changed devices into the resources that want them and out of all others.

    Returns:
        Resource and partition of every membership that changed.
    """
    selections = {
        name: parse(text)
        for name, text in connection.execute(select(resources.c.name, resources.c.selection))
    }
    if not selections:
        return set()
    numbers = [number for row in rows if isinstance(number := row["device_no"], int)]
    is_in = _memberships(connection, numbers)
    should = {
        (name, number)
        for name, selection in selections.items()
        for number, row in zip(numbers, rows, strict=True)
        if row["active"] and selection.matches(row)
    }
    _remove(connection, sorted(is_in - should))
    _insert(connection, sorted(should - is_in))
    return {(name, device_no % partitions) for name, device_no in is_in ^ should}


def apply_resource(connection: Connection, name: str, selection: Selection | None) -> None:
    """Replace the members of a resource; None: it has none."""
    connection.execute(delete(resource_members).where(resource_members.c.resource == name))
    if selection is None:
        return
    wanted = select(literal(name), devices.c.device_no).where(
        devices.c.active == 1, selection.clause()
    )
    connection.execute(insert(resource_members).from_select(["resource", "device_no"], wanted))


def _memberships(connection: Connection, device_nos: Sequence[int]) -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for chunk in chunks(device_nos):
        rows = connection.execute(
            select(resource_members.c.resource, resource_members.c.device_no).where(
                resource_members.c.device_no.in_(chunk)
            )
        )
        found.update((name, device_no) for name, device_no in rows)
    return found


def _remove(connection: Connection, gone: Sequence[tuple[str, int]]) -> None:
    if gone:
        statement = delete(resource_members).where(
            and_(
                resource_members.c.resource == bindparam("of"),
                resource_members.c.device_no == bindparam("no"),
            )
        )
        connection.execute(statement, [{"of": name, "no": number} for name, number in gone])


def _insert(connection: Connection, come: Sequence[tuple[str, int]]) -> None:
    if come:
        rows = [{"resource": name, "device_no": number} for name, number in come]
        connection.execute(insert(resource_members), rows)


def chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    """Cut a sequence into pieces of at most `CHUNK`."""
    return (items[at : at + CHUNK] for at in range(0, len(items), CHUNK))
