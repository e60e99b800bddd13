"""Keeps the VTN's objects over a restart: SQLite beside the registry, written by one thread.

Not the journal: programs, subscriptions and other parties' notes are no facts about the plant, and
nothing of its state follows from them. What gateways measure goes to the journal as all readings.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from kapelle.adapters.keeping import Keeper, Key
from kapelle.adapters.openadr.objects import Kept, Objects, pack, unpack
from kapelle.adapters.openadr.shapes import KEPT, ObjectType
from kapelle.errors import LinkLost
from kapelle.runtime.background import background

_TABLE = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL, made_at_ns INTEGER NOT NULL,
    changed_at_ns INTEGER NOT NULL, by_plant INTEGER NOT NULL,
    seen INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID
"""
_BUSY_S = 5.0
_Row = tuple[ObjectType, str, str, int, int, int, int, bytes]
_Change = tuple[Key, _Row | None]


class Store(Keeper[_Row]):
    """Objects in memory, and the file they are read from and written to."""

    def __init__(self, objects: Objects, connection: sqlite3.Connection) -> None:
        super().__init__("openadr", lambda changes: _write(connection, changes))
        self.objects = objects

    def put(self, kept: Kept) -> None:
        """Add or replace an object. It is durable once `written` has returned."""
        self.objects.put(kept)
        row = (
            kept.kind,
            kept.id,
            kept.owner,
            kept.made_at_ns,
            kept.changed_at_ns,
            int(kept.by_plant),
            int(kept.seen),
            pack(kept),
        )
        self.change((kept.kind, kept.id), row)

    def remove(self, kept: Kept) -> None:
        """Forget an object."""
        self.objects.remove(kept)
        self.change((kept.kind, kept.id), None)


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[Store]:
    """Open the file, made where there is none (":memory:" for none at all).

    Raises:
        LinkLost: It cannot be read or written.
    """
    try:
        connection, objects = await asyncio.to_thread(_open, file)
    except (sqlite3.Error, OSError) as error:
        raise LinkLost("openadr", f"cannot open {file}: {error}") from error
    with contextlib.closing(connection):
        store = Store(objects, connection)
        try:
            async with background() as beside:
                beside.start(store.run(), "OpenADR objects")
                yield store
        finally:
            # However it ends: its thread may be writing still, and is waited for here.
            with contextlib.suppress(sqlite3.Error):
                store.flush()


def _open(file: Path) -> tuple[sqlite3.Connection, Objects]:
    connection = sqlite3.connect(file, timeout=_BUSY_S, check_same_thread=False)
    if str(file) != ":memory:":
        file.chmod(0o600)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(_TABLE)
    rows = connection.execute(
        "SELECT kind, id, owner, made_at_ns, changed_at_ns, by_plant, seen, body FROM objects"
        " ORDER BY made_at_ns, id"
    )
    return connection, Objects(kept for row in rows if (kept := _kept(row)) is not None)


def _kept(row: _Row) -> Kept | None:
    """Return the object of a row; None where a version wrote it that knew other ones."""
    kind, object_id, owner, made_at_ns, changed_at_ns, by_plant, seen, raw = row
    if kind not in KEPT:
        return None
    known: ObjectType = kind
    try:
        body = unpack(known, raw)
    except msgspec.MsgspecError:
        return None
    return Kept(
        known, object_id, owner, made_at_ns, changed_at_ns, body, bool(by_plant), bool(seen)
    )


def _write(connection: sqlite3.Connection, changes: Sequence[_Change]) -> None:
    with connection:
        connection.executemany(
            "DELETE FROM objects WHERE kind = ? AND id = ?",
            [key for key, row in changes if row is None],
        )
        connection.executemany(
            "INSERT OR REPLACE INTO objects"
            " (kind, id, owner, made_at_ns, changed_at_ns, by_plant, seen, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [row for _, row in changes if row is not None],
        )
