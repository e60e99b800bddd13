"""The plant's roles on a simulated stage: started, killed and started again from the journal."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from kapelle import app
from kapelle.app import Doors
from kapelle.errors import JournalConflict
from kapelle.model.ids import partition_topic
from kapelle.sim.clock import PausedClock
from kapelle.sim.disk import Disk, Door

_RUNS: dict[str, Callable[[Doors], Awaitable[None]]] = {
    "gateway": app.run_gateway,
    "fleet": app.run_fleet,
    "dispatch": app.run_dispatch,
}
ROLES = tuple(_RUNS)
_PAUSE_S = 1.0
"""A role that lost its lease is started again after this. [s]"""
_SECOND = "-2"
"""What the name of a role's second process ends with."""
_LEASES = {"fleet": partition_topic(0), "dispatch": "dispatch"}
"""The lease that tells which of two processes of a role acts."""


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a role: what it stands on, and its task."""

    door: Door
    clock: PausedClock
    task: asyncio.Task[None]

    def silence(self, *, paused: bool) -> None:
        """Let nothing pass between it and the journal, nor let it run on where it is paused."""
        self.door.stall()
        if paused:
            self.clock.pause()

    def resume(self) -> None:
        """Let it go on, unaware."""
        self.clock.resume()
        self.door.resume()


class Stage:
    """Keeps each role alive, but for the times it is made to be dead."""

    def __init__(self, doors: Doors, disk: Disk, group: asyncio.TaskGroup) -> None:
        self.restarts = 0
        """Lives that ended, by kill or by losing a lease."""
        self._doors = doors
        self._disk = disk
        self._group = group
        self._lives: dict[str, Life] = {}
        self._is_closed = False
        self._stalled: list[asyncio.Task[None]] = []

    def close(self) -> None:
        """Start nothing any more."""
        self._is_closed = True

    def start(self, roles: Iterable[str] = ROLES) -> None:
        """Give roles a new life; one that lives already keeps the one it has."""
        for role in roles:
            if role not in self._lives and not self._is_closed:
                door, clock = Door(self._disk), PausedClock(self._doors.clock)
                task = self._group.create_task(self._live(role, door, clock), name=role)
                self._lives[role] = Life(door, clock, task)

    def stand_by(self, role: str) -> None:
        """Let a second process of a role wait for the first to fall silent, as on another host."""
        self.start([role + _SECOND])

    def kill(self, roles: Iterable[str] = ROLES) -> None:
        """End roles as SIGKILL does: from here on nothing of them reaches the journal."""
        for role in roles:
            life = self._lives.pop(role, None)
            if life is not None:
                self.restarts += 1
                life.door.shut()
                life.task.cancel()

    def stall(self, role: str) -> Door:
        """Stop a role without its knowing, and start another in its place; return its door.

        When the door is opened again two of them are awake, and the older must stand down.
        """
        life = self._lives.pop(role)
        life.silence(paused=False)
        self._stalled.append(life.task)
        self.restarts += 1
        self.start([role])
        return life.door

    def acting(self, role: str) -> Life:
        """Return the life of a role that holds its lease; of two, one stands by."""
        holder = self._disk.journal.holder(_LEASES[role])
        second = role + _SECOND
        return self._lives[second if holder == _holder(second) else role]

    def alive(self) -> list[str]:
        """Return the roles that live now."""
        return [role for role in ROLES if role in self._lives]

    async def _live(self, name: str, door: Door, clock: PausedClock) -> None:
        # One host: whoever comes after a kill finds its own lease, and takes it over at once.
        doors = replace(self._doors, journal=door, clock=clock, holder=_holder(name))
        run = _RUNS[name.removesuffix(_SECOND)]
        while True:
            try:
                await run(doors)
            except* (JournalConflict, TimeoutError):
                # Another took over, the lease ran out or the disk did not answer: the process
                # ends, and its supervisor starts it again.
                self.restarts += 1
            # A group that is cancelled while one of its tasks fails tells only of the failure.
            if self._is_closed or asyncio.current_task() in self._stalled:
                return
            await clock.sleep(_PAUSE_S)


def _holder(name: str) -> str:
    return f"simulated/{name}"
