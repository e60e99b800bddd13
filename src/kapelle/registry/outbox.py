"""What the journal has yet to hear: noted with every change, in its transaction."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from kapelle.model.entries import Kind
from kapelle.registry.tables import outbox, plant

_EVERY_PARTITION = -1


@dataclass(frozen=True, slots=True)
class Due:
    """What the journal has yet to hear."""

    through: int
    """Revision up to which this is all."""
    rows: int
    """Rows in the outbox; 0: the journal has heard everything."""
    enrolled_since: int
    """Every device changed in this revision or later is due."""
    members: tuple[tuple[str, int], ...]
    """Resources whose members changed, and in which partition."""


def tell_enrolled(connection: Connection, revision: int) -> None:
    """Note that devices of this revision changed."""
    row = {"revision": revision, "kind": int(Kind.ENROLLED), "resource": ""}
    connection.execute(insert(outbox), {**row, "partition": _EVERY_PARTITION})


def tell_members(connection: Connection, revision: int, told: Iterable[tuple[str, int]]) -> None:
    """Note that the members of resources changed, each in one partition."""
    head = {"revision": revision, "kind": int(Kind.MEMBERS)}
    rows = [{**head, "resource": name, "partition": k} for name, k in sorted(told)]
    if rows:
        connection.execute(insert(outbox), rows)


def lock_revision(connection: Connection) -> int:
    """Wait until no other change is under way, keep others out, return the next revision."""
    locked = connection.execute(select(plant.c.revision).with_for_update())
    return int(locked.scalar_one()) + 1


def set_revision(connection: Connection, revision: int) -> None:
    """Make a revision the last one."""
    connection.execute(update(plant).values(revision=revision))


def read_revision(connection: Connection) -> int:
    """Return the number of the last change."""
    return int(connection.execute(select(plant.c.revision)).scalar_one())


def read_due(connection: Connection) -> Due:
    """Return what the journal has yet to hear."""
    # First the revision: everything noted up to it is then visible to the second question.
    revision = read_revision(connection)
    rows = connection.execute(select(outbox)).all()
    through = max([revision, *(row.revision for row in rows)])
    enrolled = [row.revision for row in rows if row.kind == Kind.ENROLLED]
    members = {(row.resource, row.partition) for row in rows if row.kind == Kind.MEMBERS}
    return Due(through, len(rows), min([through + 1, *enrolled]), tuple(sorted(members)))


def settle(connection: Connection, through: int) -> None:
    """Forget what was due up to a revision."""
    connection.execute(delete(outbox).where(outbox.c.revision <= through))
