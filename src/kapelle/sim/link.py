"""The simulated fleet behind the ports: an adapter whose devices live in virtual time.

Telemetry is sent at least once: a batch that was not confirmed comes again with the next link, or
a little after it was declined. Commands and answers are sent once and may get lost.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from kapelle.errors import LinkLost
from kapelle.ingest.partition import take
from kapelle.model.blocks import Commands, Quarantined, Readings, Sessions
from kapelle.model.enums import AckStatus, SessionEvent
from kapelle.model.ids import NS_PER_S, Flags, Ints, Longs
from kapelle.ports import Batch, Clock
from kapelle.sim.agents import Answers
from kapelle.sim.air import Air, index_of
from kapelle.sim.arrivals import Orders, acks_of, cut, in_order, raw_of, readings_of
from kapelle.sim.telemetry import Reports, marks
from kapelle.sim.world import World
from kapelle.sim.worst import Asked

_RECONNECT_S = 2.0
"""Devices return within this time when the gateway does. [s]"""
_INBOX_MAX = 64
"""Batches that wait in the link before it stops reading."""
_RETRY_S = 2.0
"""A declined batch is sent again after this. [s]"""


@dataclass(slots=True)
class Ledger:
    """What became of the readings, counted where they are made and where they are confirmed."""

    sent: int = 0
    arrived: int = 0
    accepted: int = 0
    quarantined: int = 0
    blameless: int = 0
    """Of these, readings of devices whose meters tell the truth."""
    declined: int = 0
    poisoned: int = 0
    """Reports that arrived as something nobody can read; none of them is in `arrived`."""
    commands: int = 0
    kept: list[Longs] = field(default_factory=list)
    """`marks` of every reading that was confirmed and not refused."""


class SimAdapter:
    """All devices of a world, behind one protocol that only exists here.

    `drive` moves the world whether or not a link is open; devices outlive the plant.
    """

    name = "sim"

    def __init__(
        self,
        world: World,
        clock: Clock,
        rng: Generator,
        *,
        step_s: float = 0.5,
        transport_acks: bool = True,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        n = len(world.devices)
        self.world = world
        self.ledger = Ledger()
        self.asked = Asked.nothing(n)
        self._clock = clock
        self._rng = rng
        self._step_ns = round(step_s * NS_PER_S)
        self._transport_acks = transport_acks
        self._on_step = on_step
        self._device_no = world.devices.enrolled.device_no
        self._places = index_of(self._device_no)
        start_ns = clock.now_ns()
        self._reports: Air[Reports] = Air(start_ns, self._step_ns)
        self._orders: Air[Orders] = Air(start_ns, self._step_ns)
        self._answers: Air[Answers] = Air(start_ns, self._step_ns)
        self._link: SimLink | None = None
        self._connected = np.zeros(n, np.bool_)
        self._connects_ns = np.full(n, start_ns)
        self._session = 0
        self._turned_ns = start_ns
        self._held: list[tuple[Reports, Longs]] = []
        self._again: list[tuple[int, Batch]] = []

    def places(self, device_no: Ints) -> Ints:
        """Return the place in the fleet of each device number; -1 where nobody bears it."""
        known = (device_no >= 0) & (device_no < len(self._places))
        return np.where(known, self._places[np.where(known, device_no, 0)], -1)

    async def drive(self) -> None:
        """Move the world and everything under way, several times a second, until cancelled."""
        next_ns = self._clock.now_ns()
        while True:
            next_ns += self._step_ns
            wait_ns = next_ns - self._clock.now_ns()
            await self._clock.sleep(max(wait_ns, 0) / NS_PER_S)
            self._step(next_ns)
            if self._on_step is not None:
                self._on_step(next_ns)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["SimLink"]:
        """Open the one link; devices connect to it within a couple of seconds."""
        if self._link is not None:
            raise LinkLost(self.name, "already open")
        link = SimLink(self)
        self._link = link
        jitter_ns = self._rng.uniform(0, _RECONNECT_S * NS_PER_S, size=len(self._connected))
        self._connects_ns = self._clock.now_ns() + jitter_ns.astype(np.int64)
        try:
            yield link
        finally:
            self._link = None
            self._connected[:] = False
            # QoS 1: whatever was not acknowledged is sent again on the next connection.
            self._again += [(0, batch) for batch in link.close()]

    def _step(self, now_ns: int) -> None:
        world = self.world
        self._answer(world.step(now_ns), now_ns)
        arrived = self._orders.take(now_ns)
        if arrived:
            orders = in_order(arrived)
            hears = world.faults.reachable & world.faults.hears(now_ns)
            heard = orders.where(hears[orders.rows])
            if len(heard):
                self._obey(heard, now_ns)
        self._report(world.reports(now_ns), now_ns)
        if self._link is not None and self._link.has_room():
            sessions = self._connect(now_ns)
            self._link.offer(self._arrived(sessions, now_ns))

    def _obey(self, orders: Orders, now_ns: int) -> None:
        if self._transport_acks:
            n = len(orders)
            status = np.full(n, AckStatus.RECEIVED, np.uint8)
            unfenced = np.full(n, -1, np.int64)
            received = Answers(orders.rows, orders.commands.revision, unfenced, status, (b"",) * n)
            self._answer(received, now_ns)
        self._answer(
            self.world.agents.receive_commands(orders.rows, orders.commands, now_ns), now_ns
        )

    def _answer(self, answers: Answers, now_ns: int) -> None:
        """Let answers fly; those of devices out of reach are lost."""
        faults = self.world.faults
        kept = faults.reachable[answers.rows] & faults.delivered(faults.plan.ack_loss, len(answers))
        sent = answers.where(kept)
        self._answers.put(sent, now_ns + faults.delay_ns(faults.plan.telemetry_delay_s, len(sent)))

    def _report(self, reports: Reports, now_ns: int) -> None:
        """Let reports fly: some are lost, some held back, some travel twice."""
        faults, plan = self.world.faults, self.world.faults.plan
        self.ledger.sent += len(reports)
        reports = reports.where(faults.delivered(plan.telemetry_loss, len(reports)))
        held_ns = faults.held_back_ns(len(reports))
        for copy in (reports, reports.where(faults.doubled(len(reports)))):
            flight_ns = faults.delay_ns(plan.telemetry_delay_s, len(copy))
            if copy is reports:
                flight_ns += held_ns
            self._reports.put(copy, now_ns + flight_ns)

    def _connect(self, now_ns: int) -> Sessions | None:
        """Let devices connect, and the gateway notice who has gone."""
        reachable = self.world.faults.reachable
        back = self.world.back
        self._connected[back] = False
        due = reachable & ~self._connected & (now_ns >= self._connects_ns)
        coming = np.flatnonzero(due).astype(np.int32)
        turned = self._connected & self.world.faults.turns(self._turned_ns, now_ns)
        self._turned_ns = now_ns
        # A twin takes over while the other is still there; what flaps is gone, and back next time.
        coming = np.union1d(coming, np.flatnonzero(turned & self.world.faults.contested))
        coming = coming.astype(np.int32)
        flapped = turned & ~self.world.faults.contested
        going = np.flatnonzero(self._connected & (self.world.faults.noticed(now_ns) | flapped))
        if not len(coming) and not len(going):
            return None
        self._connected[coming] = True
        self._connected[going] = False
        session = np.arange(self._session + 1, self._session + 1 + len(coming))
        self._session += len(coming)
        device_no = self._device_no[np.concatenate([coming, going])]
        gone = np.full(len(going), SessionEvent.WILL, np.uint8)
        return Sessions(
            device_no=device_no,
            event=np.concatenate([np.full(len(coming), SessionEvent.UP, np.uint8), gone]),
            session=np.concatenate([session, np.full(len(going), self._session)]),
            at_ns=np.full(len(device_no), now_ns),
        )

    def _arrived(self, sessions: Sessions | None, now_ns: int) -> list[Batch]:
        """Return what has reached the gateway since the last step."""
        batches = [_anew(batch, now_ns) for due_ns, batch in self._again if due_ns <= now_ns]
        self._again = [(due_ns, batch) for due_ns, batch in self._again if due_ns > now_ns]
        # Sessions first: a report belongs to a session that is already known.
        readings = self._readings(now_ns)
        answers = self._answers.take(now_ns)
        acks = acks_of(answers, self._device_no, now_ns) if answers else None
        if sessions is not None or readings is not None or acks is not None:
            readings, unreadable = self._spoilt(readings)
            raw = None if readings is None else raw_of(readings)
            batches.append(Batch(readings, raw, self.name, unreadable, acks, sessions))
        self.ledger.arrived += sum(
            len(batch.readings) for batch in batches if batch.readings is not None
        )
        return batches

    def _readings(self, now_ns: int) -> Readings | None:
        parts = self._held + self._reports.take(now_ns)
        self._held = []
        ready: list[tuple[Reports, Longs]] = []
        for reports, arrives_ns in parts:
            here = self._connected[reports.rows]
            if here.all():
                ready.append((reports, arrives_ns))
                continue
            if here.any():
                ready.append((reports.where(here), arrives_ns[here]))
            self._held.append((reports.where(~here), np.maximum(arrives_ns[~here], now_ns)))
        if not ready:
            return None
        return readings_of(ready, self._device_no, now_ns)

    def _spoilt(self, readings: Readings | None) -> tuple[Readings | None, Quarantined | None]:
        """Let some reports arrive as something nobody can read."""
        if readings is None:
            return None, None
        spoilt = self.world.faults.poisoned(len(readings))
        if not spoilt.any():
            return readings, None
        count = int(spoilt.sum())
        self.ledger.poisoned += count
        unreadable = Quarantined(
            device_no=readings.device_no[spoilt],
            received_at_ns=readings.received_at_ns[spoilt],
            source=(self.name.encode(),) * count,
            reason=(b"json: not JSON; send an object",) * count,
            raw=(b"\xde\xad",) * count,
        )
        rows = np.flatnonzero(~spoilt)
        return take(readings, rows) if len(rows) else None, unreadable

    def take(self, commands: Commands) -> Flags:
        """Put commands on their way; return which had a session to go out on."""
        rows = self.places(commands.device_no)
        written = self._connected[rows] & (rows >= 0)
        faults, plan = self.world.faults, self.world.faults.plan
        self.ledger.commands += len(commands)
        self.asked.note(rows[written], cut(commands, written))
        kept = written & faults.delivered(plan.command_loss, len(rows))
        orders = Orders(rows[kept], cut(commands, kept))
        now_ns = self._clock.now_ns()
        for copy in (orders, orders.where(faults.doubled(len(orders)))):
            flight_ns = faults.delay_ns(plan.command_latency_s, len(copy))
            self._orders.put(copy, now_ns + flight_ns)
        return written

    def confirmed(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Book what the plant accepted and what it put into quarantine."""
        readings = batch.readings
        if readings is None:
            return
        good = np.ones(len(readings), np.bool_)
        good[list(refused)] = False
        self.ledger.quarantined += len(refused)
        lies = self.world.faults.lying[self.places(readings.device_no[~good])]
        self.ledger.blameless += int(np.count_nonzero(~lies))
        self.ledger.accepted += int(good.sum())
        place = self.places(readings.device_no[good])
        self.ledger.kept.append(marks(place, readings.order[good]))

    def declined(self, batch: Batch) -> None:
        """Send a batch again after a while."""
        self.ledger.declined += 1
        self._again.append((self._clock.now_ns() + round(_RETRY_S * NS_PER_S), batch))


class SimLink:
    """The open connection of a `SimAdapter`."""

    def __init__(self, adapter: SimAdapter) -> None:
        self._adapter = adapter
        self._inbox: list[Batch] = []
        self._unconfirmed: dict[int, Batch] = {}
        self._arrived = asyncio.Event()
        self._closed = False

    def has_room(self) -> bool:
        """Return whether it may read on; where not, messages wait with their devices."""
        return len(self._inbox) < _INBOX_MAX

    def offer(self, batches: list[Batch]) -> None:
        """Take what has arrived."""
        for batch in batches:
            self._inbox.append(batch)
            self._unconfirmed[id(batch)] = batch
        if batches:
            self._arrived.set()

    async def receive(self) -> AsyncIterator[Batch]:
        """Yield each batch once; raise LinkLost when the link is closed."""
        while not self._closed:
            while self._inbox:
                yield self._inbox.pop(0)
            self._arrived.clear()
            await self._arrived.wait()
        raise LinkLost(self._adapter.name, "closed")

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Acknowledge a batch; on a link that is gone this reaches nobody."""
        if self._unconfirmed.pop(id(batch), None) is not None:
            self._adapter.confirmed(batch, refused)

    def decline(self, batch: Batch, reason: str) -> None:
        """Leave a batch unacknowledged; its devices send it again."""
        if self._unconfirmed.pop(id(batch), None) is not None:
            self._adapter.declined(batch)

    async def send(self, commands: Commands) -> Flags:
        """Write commands to the devices' connections."""
        if self._closed:
            return np.zeros(len(commands), np.bool_)
        return self._adapter.take(commands)

    def close(self) -> list[Batch]:
        """End the link; return what was never acknowledged, without what only the link knew."""
        self._closed = True
        self._arrived.set()
        lost = [
            Batch(batch.readings, batch.raw, batch.source, batch.unreadable, batch.acks)
            for batch in self._unconfirmed.values()
        ]
        self._unconfirmed.clear()
        return lost


def _anew(batch: Batch, now_ns: int) -> Batch:
    """Return a batch as it looks when it arrives again."""
    readings = batch.readings
    if readings is not None:
        readings = replace(readings, received_at_ns=np.full(len(readings), now_ns))
    return replace(batch, readings=readings)
