"""Simulated devices that speak MQTT, each with a connection of its own."""

import time
from collections.abc import Sequence

from kapelle.config import Config
from kapelle.model.blocks import Commands
from kapelle.model.ids import Ints
from kapelle.sim.agents import Answers
from kapelle.sim.peers import packets, wire
from kapelle.sim.peers.mqtt import Client
from kapelle.sim.peers.party import Ground, Hearing, Meeting, Party, Tally
from kapelle.sim.peers.swarm import Swarm
from kapelle.sim.telemetry import Reports


def configured(config: Config, meeting: Meeting) -> Hearing:
    """See `Side`: every plant hears them."""
    return Hearing(config)


def party(ground: Ground) -> Party:
    """See `Side`."""
    return Clients(ground)


class Clients:
    """The party of MQTT devices."""

    is_read = False

    def __init__(self, ground: Ground) -> None:
        start = ground.start
        self._ground = ground
        self._swarm = Swarm(
            (start.host, start.port),
            ground.rng,
            connects_per_s=start.connects_per_s,
            back_off_s_max=start.back_off_s_max,
            now=time.monotonic,
        )
        self._unreadable = 0
        named = zip(ground.rows.tolist(), ground.names, ground.secrets, strict=True)
        self._clients = {row: self._client(row, name, secret) for row, name, secret in named}

    def _client(self, row: int, name: str, secret: str) -> Client:
        start = self._ground.start
        v5 = self._ground.rng.random() < start.v5_share
        return Client(
            row,
            name,
            secret,
            self._swarm,
            version=packets.V5 if v5 else packets.V311,
            keep_alive_s=start.keep_alive_s,
            now=time.monotonic,
        )

    async def run(self) -> None:
        """See `Party`."""
        enrolled = self._ground.start.secrets
        self._swarm.call_all([c for c in self._clients.values() if c.name in enrolled])
        await self._swarm.run()

    def say(self, reports: Reports) -> None:
        """See `Party`."""
        for row, payload in wire.telemetry(reports):
            self._clients[row].publish(payload)

    def answer(self, answers: Answers, at_ns: int) -> None:
        """See `Party`."""
        for row, payload in wire.answers(answers, at_ns):
            self._clients[row].publish(payload, ack=True)

    def take(self, now_ns: int) -> tuple[Ints, Commands]:
        """See `Party`."""
        rows, block, unreadable = wire.commands(self._swarm.take_commands())
        self._unreadable += unreadable
        return rows, block

    def lose(self, rows: Sequence[int], share_deaf: float) -> None:
        """See `Party`."""
        self._swarm.lose([self._clients[row] for row in rows], share_deaf)

    def bring_back(self, rows: Sequence[int], within_s: float) -> None:
        """See `Party`."""
        self._swarm.bring_back([self._clients[row] for row in rows], within_s)

    def leave(self) -> None:
        """See `Party`."""
        for client in self._clients.values():
            client.leave()

    def connected(self) -> int:
        """See `Party`."""
        return self._swarm.up

    def tally(self) -> Tally:
        """See `Party`."""
        swarm, clients = self._swarm, self._clients.values()
        waits_s, swarm.waits_s = swarm.waits_s, []
        return Tally(
            published=sum(client.published for client in clients),
            acked=swarm.counts.acked,
            repeated=sum(client.repeated for client in clients),
            forgotten=sum(client.forgotten for client in clients),
            commands=swarm.counts.commands,
            unreadable=self._unreadable,
            connects=swarm.counts.connects,
            refused=swarm.counts.refused,
            drops=swarm.counts.drops,
            waits_s=waits_s,
        )
