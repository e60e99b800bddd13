"""Looks at the registry from outside, also while a plant uses it, changing nothing."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from kapelle.model.ids import Ints
from kapelle.registry import outbox, schema
from kapelle.registry.tables import devices, partitions, plant, sites
from kapelle.runtime.doctor import Finding, Verdict

_BACKUP = "restore the registry from a backup"
_INSTALL = "install the version that wrote it or newer"
_SHOWN = 5


@dataclass(slots=True)
class Known:
    """What the registry says about its devices."""

    revision: int = 0
    due: int = 0
    """Changes the journal has yet to hear."""
    enrolled: Ints = field(default_factory=lambda: np.zeros(0, np.int32))
    """Numbers of the devices in the plant, ascending."""
    given: Ints = field(default_factory=lambda: np.zeros(0, np.int32))
    """Numbers that were ever given to a device, ascending."""


def sqlite_file(url: str) -> Path | None:
    """Return the file of a registry in SQLite; None for a server, or one in memory."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database))


def examine_registry(url: str, wanted: int) -> tuple[list[Finding], Known | None]:
    """Check a registry and say what it knows; None where that cannot be read.

    Args:
        url: As in the configuration.
        wanted: Partitions of the plant.

    Raises:
        Invalid: The URL cannot be used.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        text = f"{file} is not there: no device was ever enrolled"
        return [Finding("registry", Verdict.WARN, text, f"where there were, {_BACKUP}")], None
    engine = schema.connect(url)
    try:
        with engine.connect() as connection, closing(connection):
            at = MigrationContext.configure(connection).get_current_revision()
            if at is not None and at not in schema.known():
                text = f"its schema is {at}, newer than this Kapelle's {schema.head()}"
                return [Finding("registry", Verdict.BAD, text, _INSTALL)], None
            flaws = [*_structure(connection), *_contents(connection, wanted)]
            if at is None:
                flaws.append(("it does not say which schema it has", _BACKUP))
            known = _known(connection)
    except SQLAlchemyError as error:
        where = engine.url.render_as_string(hide_password=True)
        cause = getattr(error, "orig", None) or error
        return [Finding("registry", Verdict.BAD, f"{where}: {cause}", _BACKUP)], None
    finally:
        engine.dispose()
    findings = [Finding("registry", Verdict.BAD, what, remedy) for what, remedy in flaws]
    if at in schema.known() - {schema.head()}:
        text = f"its schema is {at}, older than this Kapelle's {schema.head()}"
        remedy = "nothing to do: it is brought up to date at the next start"
        findings.append(Finding("registry", Verdict.WARN, text, remedy))
    if not flaws:
        due = f"; {known.due} changes wait for the journal" if known.due else ""
        text = f"{len(known.enrolled):,} devices at revision {known.revision:,}, sound{due}"
        findings.append(Finding("registry", Verdict.OK, text))
    return findings, known


def compare(known: Known, told: Sequence[Ints], *, settled: bool) -> Finding:
    """Hold the devices the journal has heard of against those of the registry.

    Args:
        known: What the registry says.
        told: Numbers of the active devices of each partition by the journal.
        settled: Whether nothing changed while both were read.
    """
    subject = "registry and journal"
    heard = np.sort(np.concatenate([*told, np.zeros(0, np.int32)]))
    strangers = np.setdiff1d(heard, known.given)
    if len(strangers) and settled:
        what = f"the journal has devices the registry never enrolled: {_some(strangers)}"
        remedy = "the registry is older than the journal: restore a newer one, or both together"
        return Finding(subject, Verdict.BAD, what, remedy)
    missing, gone = np.setdiff1d(known.enrolled, heard), np.setdiff1d(heard, known.enrolled)
    if settled and not known.due and (len(missing) or len(gone)):
        what = f"they differ about {len(missing) + len(gone)} devices: "
        what += _some(np.union1d(missing, gone))
        remedy = "kapelle restore tells the journal anew; or change these devices in any way"
        return Finding(subject, Verdict.BAD, what, remedy)
    if not settled or known.due:
        return Finding(subject, Verdict.OK, "devices are changing just now; not compared")
    return Finding(subject, Verdict.OK, f"the same {len(heard):,} devices")


def _structure(connection: Connection) -> list[tuple[str, str]]:
    flaws: list[tuple[str, str]] = []
    if connection.dialect.name == "sqlite":
        told = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
        flaws += [(line, _BACKUP) for line in told if line != "ok"]
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        flaws += [(f"table {row[0]}, row {row[1]}: {row[2]} is missing", _BACKUP) for row in broken]
    return flaws


def _contents(connection: Connection, wanted: int) -> list[tuple[str, str]]:
    flaws: list[tuple[str, str]] = []
    made = connection.execute(select(plant.c.partitions)).scalar_one_or_none()
    if made != wanted:
        remedy = f"set [plant] partitions = {made}, or restore the registry of this plant"
        flaws.append((f"it is of a plant with {made} partitions, not {wanted}", remedy))
        return flaws
    astray = (
        select(devices.c.device_id)
        .join(sites, sites.c.site == devices.c.site)
        .where(devices.c.device_no % wanted != sites.c.partition)
    )
    ahead = (
        select(devices.c.device_id)
        .join(partitions, partitions.c.partition == devices.c.device_no % wanted)
        .where(devices.c.device_no >= partitions.c.next_row * wanted)
    )
    open_door = select(devices.c.device_id).where(
        devices.c.active == 0, devices.c.credential.is_not(None)
    )
    for query, what in (
        (astray, "lie in another partition than their site"),
        (ahead, "have numbers that would be given out again"),
        (open_door, "were removed and still have credentials"),
    ):
        count = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
        if count:
            names = ", ".join(connection.scalars(query.limit(_SHOWN)))
            flaws.append((f"{count} devices {what}: {names}", _BACKUP))
    return flaws


def _known(connection: Connection) -> Known:
    due = outbox.read_due(connection)
    rows = connection.execute(select(devices.c.device_no, devices.c.active)).all()
    numbers = np.array([row.device_no for row in rows], np.int32)
    active = np.array([row.active for row in rows], bool)
    revision = outbox.read_revision(connection)
    return Known(revision, due.rows, np.sort(numbers[active]), np.sort(numbers))


def _some(numbers: Ints) -> str:
    more = ", …" if len(numbers) > _SHOWN else ""
    return "numbers " + ", ".join(str(number) for number in numbers[:_SHOWN]) + more
