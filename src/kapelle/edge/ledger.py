"""What each device was told last: what must not be done twice, or in the wrong order."""

import math
import sqlite3
from typing import NamedTuple


class Told(NamedTuple):
    """The newest command of a device, and what became of it."""

    epoch: int = -1
    revision: int = -1
    setpoint_w: float = math.nan
    """What the device was given last; NaN where it was released. [W]"""
    until_ns: int = 0
    """When that ends by itself."""
    status: int = 0
    """An `AckStatus`; 0 while it is being carried out."""
    reason: str = ""

    @property
    def rank(self) -> tuple[int, int]:
        """Return what tells a newer command from an older one."""
        return self.epoch, self.revision


class Ledger:
    """The newest command of each device, over restarts of the agent."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def newest(self, device: str) -> Told:
        """Return the newest command of a device."""
        found = self._file.execute(
            "SELECT epoch, revision, setpoint_w, until_ns, status, reason FROM told "
            "WHERE device = ?",
            (device,),
        ).fetchone()
        if found is None:
            return Told()
        epoch, revision, setpoint_w, *rest = found
        return Told(epoch, revision, math.nan if setpoint_w is None else setpoint_w, *rest)

    def remember(self, device: str, told: Told) -> None:
        """Remember the newest command of a device; it is durable when this returns.

        Raises:
            OSError: The disk does not take it, so it must not be carried out.
        """
        epoch, revision, setpoint_w, *rest = told
        kept = (device, epoch, revision, None if math.isnan(setpoint_w) else setpoint_w, *rest)
        try:
            with self._file:
                self._file.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?, ?)", kept)
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
