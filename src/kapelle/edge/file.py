"""The agent's file: SQLite, synchronous, for one agent at a time."""

import sqlite3
from contextlib import suppress
from pathlib import Path

from kapelle.errors import DataDirectoryHeld, Invalid, Problem

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    device TEXT NOT NULL, boot INTEGER NOT NULL, seq INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (device, boot, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    device TEXT PRIMARY KEY, epoch INTEGER NOT NULL, revision INTEGER NOT NULL,
    setpoint_w REAL, until_ns INTEGER NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS agent (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


def opened(path: Path) -> sqlite3.Connection:
    """Return the file, made where there is none.

    Raises:
        Invalid: It is not one of ours, or cannot be written.
        DataDirectoryHeld: Another agent uses it.
    """
    file = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(path, timeout=1.0)
        # One agent: two would count each other's starts and send each other's readings.
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT):
            what = f"it has format {version}, this version knows {_FORMAT}"
            remedy = "use the version that wrote it"
            raise Invalid("the buffer cannot be used", [Problem(str(path), what, remedy)])
        file.executescript(_SCHEMA)
        file.execute(f"PRAGMA user_version = {_FORMAT}")
        file.commit()
    except (OSError, sqlite3.Error) as error:
        if file is not None:
            with suppress(sqlite3.Error):
                file.close()
        if "locked" in str(error):
            raise DataDirectoryHeld(f"{path} is used by another agent") from error
        remedy = "name a file this user can write with buffer.file, or move a damaged one away"
        problem = Problem(str(path), str(error), remedy)
        raise Invalid("the buffer cannot be used", [problem]) from error
    return file
