"""The registry: sites, devices and resources in SQL, and what the journal has yet to hear.

Everything here is synchronous; a change is one transaction that writes rows and outbox together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from sqlalchemy import Connection, func, select, tuple_, update

from kapelle.errors import NotFound
from kapelle.model.ids import Ints
from kapelle.registry import credentials, enrolment, outbox, persons, resources
from kapelle.registry.database import Database
from kapelle.registry.device import Device
from kapelle.registry.membership import apply_devices
from kapelle.registry.persons import Person
from kapelle.registry.resources import Resource
from kapelle.registry.rows import COLUMNS, Stored
from kapelle.registry.selection import parse
from kapelle.registry.shape import Shape, shape_of
from kapelle.registry.tables import devices, resource_members, sites


class Cursor(NamedTuple):
    """How far changes have been read: (revision, device_no) of the last row."""

    revision: int
    device_no: int


@dataclass(frozen=True, slots=True)
class Put:
    """What `put_devices` did. Devices that were stored just so are in neither count."""

    created: int
    updated: int
    credentials: dict[str, str]
    """Secret of each new device, by its id. Shown here and never again."""


@dataclass(frozen=True, slots=True)
class Site:
    """One customer connection; all of its devices are in one partition."""

    name: str
    partition: int
    devices: int


class Registry(Database):
    """Sites, devices and resources of one plant.

    Any number of processes may open the same database. Changes take effect one at a time, in
    the order of their revision.
    """

    # Devices.

    def put_devices(self, wanted: Sequence[Device], now_ns: int) -> Put:
        """Enrol devices that are new, replace those that differ as a whole. All or nothing.

        A removed device that comes back keeps its number and gets a new credential.

        Raises:
            Invalid: With a problem for everything wrong with every device.
        """
        enrolment.check(wanted)
        with self._change() as (connection, revision):
            written = enrolment.enrol(connection, wanted, revision, now_ns)
            self._tell(connection, revision, written.rows)
        return Put(written.created, written.updated, written.credentials)

    def remove_devices(self, device_ids: Sequence[str], now_ns: int) -> int:
        """Take devices out of the plant and return how many were in it.

        Their credentials are destroyed, their numbers stay theirs.

        Raises:
            NotFound: With every name nobody bears; nothing was removed.
        """
        with self._change() as (connection, revision):
            stored = _existing(connection, device_ids)
            rows: list[enrolment.Row] = [
                row._asdict()
                | {"active": 0, "credential": None, "credential_at_ns": None}
                | {"updated_at_ns": now_ns, "revision": revision}
                for row in stored.values()
                if row.active
            ]
            if rows:
                enrolment.write(connection, rows)
            self._tell(connection, revision, rows)
        return len(rows)

    def opt_out(self, device_ids: Sequence[str], until_ns: int, now_ns: int) -> int:
        """Leave devices to their owners until a moment, or take them back with one that is past.

        Returns:
            How many it changed.

        Raises:
            NotFound: With every name nobody enrolled bears; nothing was changed.
        """
        until = until_ns if until_ns > now_ns else None
        with self._change() as (connection, revision):
            stored = _existing(connection, device_ids)
            gone = [name for name, row in stored.items() if not row.active]
            if gone:
                raise NotFound(f"removed, enrol them again: {', '.join(gone)}")
            rows: list[enrolment.Row] = [
                row._asdict()
                | {"opted_out_until_ns": until, "updated_at_ns": now_ns, "revision": revision}
                for row in stored.values()
                if row.opted_out_until_ns != until
            ]
            if rows:
                enrolment.write(connection, rows)
            self._tell(connection, revision, rows)
        return len(rows)

    def rotate_credential(self, device_id: str, now_ns: int) -> str:
        """Replace a device's credential and return the new secret; the old one is dead at once.

        Raises:
            NotFound: Nobody enrolled bears the name.
        """
        secret = credentials.new_secret()
        with self._change() as (connection, revision):
            row = _existing(connection, [device_id])[device_id]
            if not row.active:
                raise NotFound(f"device {device_id!r} was removed; enrol it again")
            changed: enrolment.Row = {
                "device_no": row.device_no,
                "credential": credentials.hash_secret(secret),
                "credential_at_ns": now_ns,
                "revision": revision,
            }
            enrolment.write(connection, [changed])
            # The journal carries no credentials, so it is told nothing.
            outbox.set_revision(connection, revision)
        return secret

    def device(self, device_id: str) -> Stored:
        """Return one device, removed or not. Raises NotFound."""
        with self._reading() as connection:
            return _existing(connection, [device_id])[device_id]

    def devices(self, selection: str = "all", after: str = "", limit: int = 1000) -> list[Stored]:
        """Return enrolled devices of a selection in the order of their ids, a page at a time."""
        query = (
            select(*COLUMNS)
            .where(devices.c.active == 1, devices.c.device_id > after, parse(selection).clause())
            .order_by(devices.c.device_id)
            .limit(limit)
        )
        with self._reading() as connection:
            return [Stored(*row) for row in connection.execute(query)]

    def sites(self, after: str = "", limit: int = 1000) -> list[Site]:
        """Return sites by name, a page at a time, with how many devices are enrolled there."""
        query = (
            select(sites.c.site, sites.c.partition, func.count(devices.c.device_no))
            .outerjoin(devices, (devices.c.site == sites.c.site) & (devices.c.active == 1))
            .where(sites.c.site > after)
            .group_by(sites.c.site, sites.c.partition)
            .order_by(sites.c.site)
            .limit(limit)
        )
        with self._reading() as connection:
            return [Site(*row) for row in connection.execute(query)]

    def count(self) -> int:
        """Return how many devices are enrolled."""
        query = select(func.count()).select_from(devices).where(devices.c.active == 1)
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def shape(self) -> Shape:
        """Return what the enrolled devices are like, in numbers."""
        with self._reading() as connection:
            return shape_of(connection)

    # Resources.

    def put_resource(self, name: str, selection: str, now_ns: int) -> Resource:
        """Name the devices of a selection, now and as they come and go. Replaces the old one.

        Raises:
            Invalid: The name or the selection cannot be used.
        """
        with self._change() as (connection, revision):
            if resources.put(connection, name, selection, now_ns):
                self._tell_everywhere(connection, revision, [name])
            return Resource(name, selection, resources.count(connection, name))

    def remove_resource(self, name: str, now_ns: int) -> None:
        """Forget a resource; its devices stay. Raises NotFound."""
        with self._change() as (connection, revision):
            resources.remove(connection, name)
            self._tell_everywhere(connection, revision, [name])

    def resources(self) -> list[Resource]:
        """Return every resource by name, without `all`."""
        with self._reading() as connection:
            return resources.everything(connection)

    def members(self, resource: str, partition: int) -> Ints:
        """Return the device numbers of a resource in one partition, ascending."""
        query = select(resource_members.c.device_no).where(
            resource_members.c.resource == resource,
            resource_members.c.device_no % self.partitions == partition,
        )
        with self._reading() as connection:
            found = np.array(connection.scalars(query).all(), np.int32)
        found.sort()
        return found

    # Persons.

    def add_person(self, name: str, now_ns: int) -> str:
        """Give a person a token and return it: shown here and never again. Raises Invalid."""
        with self._writing() as connection:
            return persons.add(connection, name, now_ns)

    def revoke_person(self, name: str, now_ns: int) -> None:
        """Take a person's token back. Raises NotFound."""
        with self._writing() as connection:
            persons.revoke(connection, name, now_ns)

    def persons(self) -> list[Person]:
        """Return all who ever had a token, by name."""
        with self._reading() as connection:
            return persons.everyone(connection)

    # Changes, for the outbox pump and the directory.

    def revision(self) -> int:
        """Return the number of the last change."""
        with self._reading() as connection:
            return outbox.read_revision(connection)

    def changed(self, after: Cursor, limit: int) -> list[Stored]:
        """Return devices changed after a cursor, oldest change first; removed ones too."""
        place = tuple_(devices.c.revision, devices.c.device_no)
        query = (
            select(*COLUMNS)
            .where(place > tuple_(*after))
            .order_by(devices.c.revision, devices.c.device_no)
            .limit(limit)
        )
        with self._reading() as connection:
            return [Stored(*row) for row in connection.execute(query)]

    def due(self) -> outbox.Due:
        """Return what the journal has yet to hear."""
        with self._reading() as connection:
            return outbox.read_due(connection)

    def settle(self, through: int) -> None:
        """Forget what was due up to a revision: the journal has it."""
        with self._writing() as connection:
            outbox.settle(connection, through)

    def resend(self) -> None:
        """Make everything due again, for a journal that was lost or begun anew."""
        with self._change() as (connection, revision):
            connection.execute(update(devices).values(revision=revision))
            names = [one.name for one in resources.everything(connection)]
            outbox.tell_enrolled(connection, revision)
            self._tell_everywhere(connection, revision, names)

    # How.

    def _tell(self, connection: Connection, revision: int, rows: Sequence[enrolment.Row]) -> None:
        if rows:
            outbox.tell_enrolled(connection, revision)
            told = apply_devices(connection, rows, self.partitions)
            outbox.tell_members(connection, revision, told)
            outbox.set_revision(connection, revision)

    def _tell_everywhere(self, connection: Connection, revision: int, names: Sequence[str]) -> None:
        places = product(names, range(self.partitions))
        outbox.tell_members(connection, revision, places)
        outbox.set_revision(connection, revision)


def _existing(connection: Connection, device_ids: Sequence[str]) -> dict[str, Stored]:
    found = enrolment.stored_by_id(connection, device_ids)
    missing = [name for name in device_ids if name not in found]
    if missing:
        raise NotFound(f"there is no device {', '.join(repr(name) for name in missing)}")
    return found
