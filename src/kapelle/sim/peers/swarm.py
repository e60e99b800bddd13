"""Keeps thousands of clients connected: spread connects, full-jitter back-off, keep-alive.

Back-off doubles from 1 s to 120 s and each pause is drawn from the whole range below it, so that
devices that fell together do not return together; it starts afresh only after a minute of quiet.
"""

import asyncio
import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kapelle.sim.peers.mqtt import Client

_FIRST_S = 1.0
_CAP_S = 120.0
_STABLE_S = 60.0
_AT_ONCE = 128
_TURN_S = 0.02
_CONNECT_S_MAX = 10.0
_TEND_S = 5.0
_ROOM_MAX = 100_000
_LATENCIES_MAX = 200_000


@dataclass(slots=True)
class Counts:
    """What happened to all clients together."""

    connects: int = 0
    refused: int = 0
    drops: int = 0
    commands: int = 0
    acked: int = 0


class Swarm:
    """Every client of a fleet, and the loop that connects them. Listener of each."""

    def __init__(
        self,
        address: tuple[str, int],
        rng: random.Random,
        *,
        connects_per_s: float,
        back_off_s_max: float = _CAP_S,
        now: Callable[[], float],
    ) -> None:
        self._address = address
        self._rng = rng
        self._rate = connects_per_s
        self._back_off_s_max = back_off_s_max
        self._now = now
        self._due: list[tuple[float, int, Client]] = []
        self._order = 0
        self._connecting = 0
        self.clients: Sequence[Client] = ()
        self.up = 0
        self.counts = Counts()
        self.commands: list[tuple[int, bytes]] = []
        """Commands that arrived since the last `take_commands`: (index, payload)."""
        self.waits_s: list[float] = []
        """How long publications waited for their acknowledgement, the latest of them."""

    def take_commands(self) -> list[tuple[int, bytes]]:
        """Return the commands that arrived since this was last asked."""
        taken, self.commands = self.commands, []
        return taken

    def call_all(self, clients: Sequence[Client]) -> None:
        """Take these clients in and let them connect, spread by the rate."""
        self.clients = clients
        at = self._now()
        for client in clients:
            self._want(client, at)

    def lose(self, clients: Iterable[Client], share_deaf: float) -> None:
        """Take devices off the network: some connections break, the rest just fall silent."""
        for client in clients:
            client.barred = True
            if self._rng.random() < share_deaf:
                client.deaf = True
            else:
                client.cut("network lost")

    def bring_back(self, clients: Iterable[Client], within_s: float) -> None:
        """Give devices their network back; each tries at its own moment."""
        at = self._now()
        for client in clients:
            client.barred = client.deaf = False
            client.attempts = 0
            # A device that was cut off finds its old connection dead and opens another.
            client.cut("network changed")
            if not client.connected:
                self._want(client, at + self._rng.uniform(0.0, within_s))

    async def run(self) -> None:
        """Connect whoever is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tend())
            credit, before = 1.0, self._now()
            while True:
                now = self._now()
                credit = min(credit + (now - before) * self._rate, max(1.0, self._rate / 10))
                before = now
                while credit >= 1 and self._connecting < _AT_ONCE and self._ready(now):
                    credit -= 1
                    _, _, client = heapq.heappop(self._due)
                    client.wanted = False
                    if not client.barred and not client.connected:
                        self._connecting += 1
                        group.create_task(self._connect(client))
                await asyncio.sleep(_TURN_S)

    def _ready(self, now: float) -> bool:
        return bool(self._due) and self._due[0][0] <= now

    async def _connect(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S_MAX):
                await loop.create_connection(lambda: client, *self._address)
        except OSError as error:
            self.on_down(client, str(error))
        finally:
            self._connecting -= 1

    async def _tend(self) -> None:
        while True:
            now = self._now()
            for place, client in enumerate(self.clients):
                client.tend(now)
                if place % 1000 == 999:
                    await asyncio.sleep(0)
            await asyncio.sleep(_TEND_S)

    def _want(self, client: Client, at: float) -> None:
        if not client.wanted and not client.barred:
            client.wanted = True
            self._order += 1
            heapq.heappush(self._due, (at, self._order, client))

    def on_up(self, client: Client) -> None:
        """Count it."""
        self.up += 1
        self.counts.connects += 1

    def on_down(self, client: Client, reason: str) -> None:
        """Count it, and have the client try again after a pause."""
        now = self._now()
        if client.up_at:
            self.up -= 1
            self.counts.drops += 1
            if now - client.up_at > _STABLE_S:
                client.attempts = 0
            client.up_at = 0.0
        elif reason.startswith("refused"):
            self.counts.refused += 1
        pause_s = self._rng.uniform(0.0, min(self._back_off_s_max, _FIRST_S * 2.0**client.attempts))
        client.attempts = min(client.attempts + 1, 10)
        self._want(client, now + pause_s)

    def on_command(self, client: Client, payload: bytes) -> None:
        """Keep it for the next step; a full room drops it, as a device out of memory would."""
        if len(self.commands) < _ROOM_MAX:
            self.counts.commands += 1
            self.commands.append((client.index, payload))

    def on_acked(self, client: Client, waited_s: float) -> None:
        """Note how long it took."""
        self.counts.acked += 1
        if len(self.waits_s) < _LATENCIES_MAX:
            self.waits_s.append(waited_s)
