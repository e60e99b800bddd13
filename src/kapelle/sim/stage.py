"""The plant's roles on a simulated stage: started, killed and started again from the journal."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from kapelle import app
from kapelle.app import Doors
from kapelle.errors import JournalConflict
from kapelle.sim.disk import Disk, Door

_RUNS: dict[str, Callable[[Doors], Awaitable[None]]] = {
    "gateway": app.run_gateway,
    "fleet": app.run_fleet,
    "dispatch": app.run_dispatch,
}
ROLES = tuple(_RUNS)
_PAUSE_S = 1.0
"""A role that lost its lease is started again after this. [s]"""


class Stage:
    """Keeps each role alive, but for the times it is made to be dead."""

    def __init__(self, doors: Doors, disk: Disk, group: asyncio.TaskGroup) -> None:
        self.restarts = 0
        """Lives that ended, by kill or by losing a lease."""
        self._doors = doors
        self._disk = disk
        self._group = group
        self._lives: dict[str, tuple[Door, asyncio.Task[None]]] = {}
        self._is_closed = False
        self._stalled: list[asyncio.Task[None]] = []

    def close(self) -> None:
        """Start nothing any more."""
        self._is_closed = True

    def start(self, roles: Iterable[str] = ROLES) -> None:
        """Give roles a new life; one that lives already keeps the one it has."""
        for role in roles:
            if role not in self._lives and not self._is_closed:
                door = Door(self._disk)
                task = self._group.create_task(self._live(role, door), name=role)
                self._lives[role] = (door, task)

    def kill(self, roles: Iterable[str] = ROLES) -> None:
        """End roles as SIGKILL does: from here on nothing of them reaches the journal."""
        for role in roles:
            life = self._lives.pop(role, None)
            if life is not None:
                self.restarts += 1
                door, task = life
                door.shut()
                task.cancel()

    def stall(self, role: str) -> Door:
        """Stop a role without its knowing, and start another in its place; return its door.

        When the door is opened again two of them are awake, and the older must stand down.
        """
        door, task = self._lives.pop(role)
        door.stall()
        self._stalled.append(task)
        self.restarts += 1
        self.start([role])
        return door

    def alive(self) -> list[str]:
        """Return the roles that live now."""
        return [role for role in ROLES if role in self._lives]

    async def _live(self, role: str, door: Door) -> None:
        # One host: whoever comes after a kill finds its own lease, and takes it over at once.
        doors = replace(self._doors, journal=door, holder=f"simulated/{role}")
        while True:
            try:
                await _RUNS[role](doors)
            except* (JournalConflict, TimeoutError):
                # Another took over, the lease ran out or the disk did not answer: the process
                # ends, and its supervisor starts it again.
                self.restarts += 1
            if asyncio.current_task() in self._stalled:
                return
            await self._doors.clock.sleep(_PAUSE_S)
