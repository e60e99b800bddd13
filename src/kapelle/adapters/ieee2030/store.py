"""What the server keeps of its clients over a restart: SQLite beside the registry.

The standard lets no server forget a control that runs: by its edition of 2023 clients end one that
has gone from the list, by that of 2018 they go on with it, and nobody could take it back. Nor do
clients say again by themselves what they are set to, or that they have subscribed. Not kept is what
they do make again: mirrors are answered 404.

Not the journal: nothing of the plant's state follows from these notes.
"""

import asyncio
import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from kapelle.adapters.ieee2030.client import Client, Subscription
from kapelle.adapters.ieee2030.codec import Misread, decode
from kapelle.adapters.ieee2030.controls import Control, Controls
from kapelle.adapters.keeping import Keeper, Key
from kapelle.errors import LinkLost

NAME = "ieee2030"
CONTROLS, SUBSCRIPTIONS = "controls", "subscriptions"
DOCUMENTS = {"dercap": "DERCapability", "derg": "DERSettings"}
"""What clients say of themselves once, by the last part of its path."""
_PARTS = (CONTROLS, SUBSCRIPTIONS, *DOCUMENTS)
"""All that is kept of a client."""
_TABLE = """
CREATE TABLE IF NOT EXISTS clients (
    lfdi TEXT NOT NULL, what TEXT NOT NULL, device_no INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (lfdi, what)
) WITHOUT ROWID
"""
_BUSY_S = 5.0
_Row = tuple[int, bytes]


class _Subscriptions(msgspec.Struct, array_like=True):
    last_number: int
    each: list[Subscription]


class Store(Keeper[_Row]):
    """Notes on clients, and the file they are read from and written to."""

    def __init__(self, connection: sqlite3.Connection, found: dict[str, dict[str, _Row]]) -> None:
        super().__init__(NAME, lambda changes: _write(connection, changes))
        self._found = found
        """By LFDI, what was kept of those not heard since the start."""

    def keep(self, client: Client, now_ns: int) -> bool:
        """Keep what has changed of a client; return whether anything is not durable yet.

        Also what was kept for another request or for a command a moment before.
        """
        changed = sorted(client.unkept)
        client.unkept.clear()
        if client.controls.is_unkept:
            client.controls.is_unkept = False
            changed.append(CONTROLS)
        for what in changed:
            self.change((client.lfdi, what), (client.device_no, _body(client, what, now_ns)))
        return any(self.is_waited_for((client.lfdi, what)) for what in _PARTS)

    def forget(self, client: Client) -> None:
        """Forget a client that is not enrolled any more."""
        for what in _PARTS:
            self.change((client.lfdi, what), None)

    def restore(self, client: Client, now_ns: int) -> None:
        """Give a client that is heard for the first time what was kept of it.

        What was kept of another device with the same certificate is not its own.
        """
        for what, (device_no, body) in self._found.pop(client.lfdi, {}).items():
            if device_no != client.device_no:
                self.change((client.lfdi, what), None)
                continue
            # What another version wrote that knew other fields is left out.
            with contextlib.suppress(msgspec.MsgspecError):
                _give_back(client, what, body, now_ns)


def _body(client: Client, what: str, now_ns: int) -> bytes:
    if what == CONTROLS:
        return msgspec.msgpack.encode(client.controls.kept(now_ns))
    if what == SUBSCRIPTIONS:
        each = [*client.subscriptions.values()]
        return msgspec.msgpack.encode(_Subscriptions(client.last_number, each))
    return client.documents[what]


def _give_back(client: Client, what: str, body: bytes, now_ns: int) -> None:
    if what == CONTROLS:
        told = msgspec.msgpack.decode(body, type=list[Control])
        client.controls = Controls.restored(client.lfdi, told, now_ns)
    elif what == SUBSCRIPTIONS:
        kept = msgspec.msgpack.decode(body, type=_Subscriptions)
        client.last_number = kept.last_number
        client.subscriptions = {one.number: one for one in kept.each}
    elif what in DOCUMENTS:
        part = decode(body, (DOCUMENTS[what],))
        if not isinstance(part, Misread):
            client.documents[what] = body
            client.take(part)


@asynccontextmanager
async def opened(file: Path | None) -> AsyncIterator[Store]:
    """Open the file, made where there is none; None keeps nothing over a restart.

    Raises:
        LinkLost: It cannot be read or written.
    """
    try:
        connection, found = await asyncio.to_thread(_open, file)
    except (sqlite3.Error, OSError) as error:
        raise LinkLost(NAME, f"cannot open {file}: {error}") from error
    with contextlib.closing(connection):
        store = Store(connection, found)
        try:
            yield store
        finally:
            # However it ends: its thread may be writing still, and is waited for here.
            with contextlib.suppress(sqlite3.Error):
                store.flush()


def _open(file: Path | None) -> tuple[sqlite3.Connection, dict[str, dict[str, _Row]]]:
    connection = sqlite3.connect(
        ":memory:" if file is None else file, timeout=_BUSY_S, check_same_thread=False
    )
    if file is not None:
        file.chmod(0o600)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(_TABLE)
    found: defaultdict[str, dict[str, _Row]] = defaultdict(dict)
    for lfdi, what, device_no, body in connection.execute("SELECT * FROM clients"):
        found[lfdi][what] = device_no, body
    return connection, dict(found)


def _write(connection: sqlite3.Connection, changes: Sequence[tuple[Key, _Row | None]]) -> None:
    with connection:
        connection.executemany(
            "DELETE FROM clients WHERE lfdi = ? AND what = ?",
            [key for key, row in changes if row is None],
        )
        connection.executemany(
            "INSERT OR REPLACE INTO clients (lfdi, what, device_no, body) VALUES (?, ?, ?, ?)",
            [(*key, *row) for key, row in changes if row is not None],
        )
