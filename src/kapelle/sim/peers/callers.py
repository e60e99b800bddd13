"""What parties have in common whose devices call the plant, each with a connection of its own."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from kapelle.model.blocks import Commands
from kapelle.model.ids import Ints
from kapelle.sim.agents import Answers
from kapelle.sim.peers.party import Ground, Setpoints, Tally

_FIRST_S = 1.0
_ATTEMPTS_MAX = 10


class Caller(Protocol):
    """A device that connects when it is run, and never again by itself."""

    index: int
    """Its place in the party."""
    up: bool
    """Whether the plant has let it in."""
    overwritten: int
    """Measurements that were replaced before they could be sent."""

    async def run(self, host: str, port: int) -> None:
        """Stay connected until the connection ends. Raises OSError."""

    def cut(self) -> None:
        """Drop the connection without a goodbye."""


C = TypeVar("C", bound=Caller)


class Callers(ABC, Generic[C]):
    """All but what they measure. Listener of each, and most of a `Party`."""

    is_read = False

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._setpoints = Setpoints(ground.rows)
        self._tally = Tally()
        named = zip(ground.names, ground.secrets, strict=True)
        self._callers = [self._made(index, *told) for index, told in enumerate(named)]
        self._place = {row: index for index, row in enumerate(ground.rows.tolist())}
        self._free = [asyncio.Event() for _ in self._callers]
        """Set while a device has its network."""
        self._attempts = [0] * len(self._callers)
        for free in self._free:
            free.set()

    @abstractmethod
    def _made(self, index: int, name: str, secret: str) -> C:
        """Return a device of the party."""

    async def run(self) -> None:
        """See `Party`."""
        async with asyncio.TaskGroup() as group:
            for caller in self._callers:
                group.create_task(self._stay(caller))

    async def _stay(self, caller: C) -> None:
        start, rng, index = self._ground.start, self._ground.rng, caller.index
        await asyncio.sleep(rng.uniform(0.0, len(self._callers) / start.connects_per_s))
        while True:
            await self._free[index].wait()
            try:
                await caller.run(start.host, start.ports[self._ground.protocol])
                self._tally.drops += 1
            except ConnectionRefusedError:
                self._tally.refused += 1
            except OSError:
                self._tally.drops += 1
            pause_s = min(start.back_off_s_max, _FIRST_S * 2.0 ** self._attempts[index])
            self._attempts[index] = min(self._attempts[index] + 1, _ATTEMPTS_MAX)
            await asyncio.sleep(rng.uniform(0.0, pause_s))

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`: a device answers by itself, and shows what it follows."""

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """See `Party`."""
        return self._setpoints.take(now_ns)

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """See `Party`. Every connection breaks: a deaf one would be found at once."""
        for row in rows:
            self._free[self._place[row]].clear()
            self._callers[self._place[row]].cut()

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """See `Party`."""
        loop = asyncio.get_running_loop()
        for row in rows:
            index = self._place[row]
            self._attempts[index] = 0
            loop.call_later(self._ground.rng.uniform(0.0, within_s), self._free[index].set)

    def leave(self) -> None:
        """See `Party`."""
        for caller in self._callers:
            caller.cut()

    def connected(self) -> int:
        """See `Party`."""
        return sum(caller.up for caller in self._callers)

    def tally(self) -> Tally:
        """See `Party`."""
        waits_s, self._tally.waits_s = self._tally.waits_s, []
        forgotten = sum(caller.overwritten for caller in self._callers)
        return replace(
            self._tally, commands=self._setpoints.count, forgotten=forgotten, waits_s=waits_s
        )

    def on_up(self, index: int) -> None:
        """Count it."""
        self._tally.connects += 1
        self._attempts[index] = 0

    def on_setpoint(self, index: int, setpoint_w: float, until_ns: int) -> None:
        """Keep it for the next step."""
        self._setpoints.on_setpoint(index, setpoint_w, until_ns)

    def on_acked(self, index: int, waited_s: float) -> None:
        """Note how long it took."""
        self._tally.wait(waited_s)
