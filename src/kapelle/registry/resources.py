"""Resources: selections of enrolled devices that have a name. Inside a change of the registry."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from kapelle.errors import Invalid, NotFound, Problem
from kapelle.model.ids import ALL
from kapelle.registry.device import id_flaws
from kapelle.registry.membership import apply_resource
from kapelle.registry.selection import parse
from kapelle.registry.tables import resource_members, resources


@dataclass(frozen=True, slots=True)
class Resource:
    """A named selection of enrolled devices."""

    name: str
    selection: str
    devices: int


def put(connection: Connection, name: str, selection: str, now_ns: int) -> bool:
    """Name the devices of a selection, or other ones; return whether that changes anything.

    Raises:
        Invalid: The name or the selection cannot be used.
    """
    _check_name(name)
    parsed = parse(selection)
    known = select(resources.c.selection).where(resources.c.name == name)
    before = connection.execute(known).scalar_one_or_none()
    if before == selection:
        return False
    values = {"selection": selection, "updated_at_ns": now_ns}
    if before is None:
        connection.execute(insert(resources), {"name": name, "created_at_ns": now_ns, **values})
    else:
        connection.execute(update(resources).where(resources.c.name == name).values(values))
    apply_resource(connection, name, parsed)
    return True


def remove(connection: Connection, name: str) -> None:
    """Forget a resource. Raises NotFound."""
    apply_resource(connection, name, None)
    gone = connection.execute(delete(resources).where(resources.c.name == name))
    if not gone.rowcount:
        raise NotFound(f"there is no resource {name!r}")


def everything(connection: Connection) -> list[Resource]:
    """Return every resource by name, without `all`."""
    query = (
        select(resources.c.name, resources.c.selection, func.count(resource_members.c.device_no))
        .outerjoin(resource_members, resource_members.c.resource == resources.c.name)
        .group_by(resources.c.name, resources.c.selection)
        .order_by(resources.c.name)
    )
    return [Resource(*row) for row in connection.execute(query)]


def count(connection: Connection, name: str) -> int:
    """Return how many devices a resource has."""
    members = select(func.count()).where(resource_members.c.resource == name)
    return int(connection.execute(members).scalar_one())


def _check_name(name: str) -> None:
    if name == ALL:
        problem = Problem("name", "`all` is every enrolled device", "choose another name")
        raise Invalid("resource", [problem])
    problems = [Problem("name", flaw.what, flaw.remedy) for flaw in id_flaws(name)]
    if problems:
        raise Invalid("resource", problems)
