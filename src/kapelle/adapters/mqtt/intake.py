"""What waits between sockets and the consumer: bounded, handed over in batches, acknowledged later.

Shared by the endpoint and by the client of a user's broker.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from kapelle.adapters.mqtt import codec
from kapelle.adapters.mqtt.counters import Counters
from kapelle.errors import LinkLost
from kapelle.model.blocks import Acks, Quarantined, Readings, Sessions
from kapelle.model.enums import SessionEvent
from kapelle.model.ids import Ints, Longs
from kapelle.ports import Batch, Clock

TELEMETRY, ACK, REFUSED = 0, 1, 2
"""What a message is. REFUSED only keeps its answer in line: answers go in the order of arrival."""

_SECOND_NS = 1_000_000_000
_ACK_AGE_NS_MAX = 3_600 * _SECOND_NS


class Peer(Protocol):
    """Whoever waits for an acknowledgement."""

    def acknowledge(self, answers: list[bytes]) -> None:
        """Write answers, in order: the journal has what they answer."""

    def correct(self, answer: bytes, reason: str) -> bytes:
        """Turn an answer into one that says the content was not usable, where there is one."""

    def decline(self, reason: str) -> None:
        """End the connection: the peer sends everything unanswered again on the next one."""


Message = tuple[Peer, bytes, int, bytes, int, str]
"""Peer, answer that says it is durable (empty for none), what it is, payload, arrival, device."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much waits, and how long."""

    waiting_max: int
    waiting_size_max: int
    batch_max: int
    batch_big: int
    linger_s: float


@dataclass(slots=True, eq=False)
class _Receipt:
    messages: list[Message]
    """What each row of `readings` came in."""
    reading_message: Ints
    unusable: dict[int, str]
    own_acks: list[tuple[int, int, int, int, bytes]]
    own_sessions: list[tuple[int, int, int, int]]


class Intake:
    """The receiving half of an MQTT link."""

    def __init__(
        self,
        adapter: str,
        *,
        clock: Clock,
        limits: Limits,
        counters: Counters,
        resolve: Callable[[list[Message]], Ints],
    ) -> None:
        self.adapter = adapter
        self.counters = counters
        self.messages: list[Message] = []
        self.full = False
        """More waits than the bound: whoever adds to it stops reading until called back."""
        self._clock = clock
        self._limits = replace(limits, batch_big=min(limits.batch_big, limits.waiting_max))
        self._resolve = resolve
        self._size = 0
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._held: list[Callable[[], None]] = []
        self._acks: list[tuple[int, int, int, int, bytes]] = []
        self._sessions: list[tuple[int, int, int, int]] = []
        self._lost = ""

    def arrived(self, size: int) -> None:
        """Note that `messages` has grown by payloads of this size."""
        limits = self._limits
        self._size += size
        waiting = len(self.messages)
        if waiting >= limits.batch_big:
            self._ready.set()
            if waiting >= limits.waiting_max or self._size >= limits.waiting_size_max:
                self.full = True
        elif self._size >= limits.waiting_size_max:
            self.full = True
            self._ready.set()
        elif self._timer is None:
            self._linger()

    def overrun(self) -> bool:
        """Tell whether twice the bound waits, so that nobody may be read any more."""
        return (
            len(self.messages) >= 2 * self._limits.waiting_max
            or self._size >= 2 * self._limits.waiting_size_max
        )

    def when_room(self, resume: Callable[[], None]) -> None:
        """Call back once less than half of the bound waits."""
        self._held.append(resume)

    def session(self, device_no: int, event: SessionEvent, number: int) -> None:
        """Note that a connection came or went."""
        self._sessions.append((device_no, int(event), number, self._clock.now_ns()))
        if self._timer is None:
            self._linger()

    def command_answered(self, device_no: int, revision: int, status: int, reason: bytes) -> None:
        """Note what the transport of a device said about a command."""
        self._acks.append((device_no, revision, status, self._clock.now_ns(), reason))
        if self._timer is None:
            self._linger()

    def lose(self, reason: str) -> None:
        """End the link: `receive` raises LinkLost."""
        self._lost = reason or "closed"
        self._ready.set()

    def _linger(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.linger_s, self._ready.set)

    async def receive(self) -> AsyncIterator[Batch]:
        """Yield everything that waits, at most `batch_max` publications at a time."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._lost:
                raise LinkLost(self.adapter, self._lost)
            messages = self._take()
            if messages or self._acks or self._sessions:
                yield self._batch(messages)

    def _take(self) -> list[Message]:
        limits = self._limits
        if len(self.messages) <= limits.batch_max:
            taken, self.messages = self.messages, []
            self._size = 0
        else:
            taken, self.messages = (
                self.messages[: limits.batch_max],
                self.messages[limits.batch_max :],
            )
            self._size -= sum(len(message[3]) for message in taken)
            self._ready.set()
        if self.full and (
            len(self.messages) <= limits.waiting_max // 2
            and self._size <= limits.waiting_size_max // 2
        ):
            self.full = False
            held, self._held = self._held, []
            for resume in held:
                resume()
        return taken

    def _batch(self, messages: list[Message]) -> Batch:
        received = np.array([message[4] for message in messages], np.int64)
        device_no = self._resolve(messages)
        self.counters.publications += len(messages)
        bad: list[tuple[int, str, bytes]] = []
        known = (device_no >= 0).tolist()
        kinds = [message[2] for message in messages]
        for index, here in enumerate(known):
            if not here and kinds[index] != REFUSED:
                reason = (
                    f"device: {messages[index][5]}: is not enrolled; enrol it, or mend its name"
                )
                bad.append((index, reason, messages[index][3]))
        readings, raw, reading_message = self._readings(
            messages, [i for i, k in enumerate(kinds) if k == TELEMETRY and known[i]], bad,
            device_no, received,
        )  # fmt: skip
        acks = self._device_acks(
            messages, [i for i, k in enumerate(kinds) if k == ACK and known[i]], bad,
            device_no, received,
        )  # fmt: skip
        receipt = _Receipt(
            messages,
            reading_message,
            {index: reason for index, reason, _ in bad},
            self._acks,
            self._sessions,
        )
        sessions = _sessions(self._sessions)
        self._acks, self._sessions = [], []
        self.counters.unreadable += len(bad)
        return Batch(
            readings=readings,
            raw=raw,
            source=self.adapter,
            unreadable=self._quarantined(messages, bad, device_no, received),
            acks=acks,
            sessions=sessions,
            receipt=receipt,
        )

    def _readings(
        self,
        messages: list[Message],
        chosen: list[int],
        bad: list[tuple[int, str, bytes]],
        device_no: Ints,
        received: Longs,
    ) -> tuple[Readings | None, Callable[[int], bytes] | None, Ints]:
        if not chosen:
            return None, None, np.array([], np.int32)
        payloads = [messages[index][3] for index in chosen]
        told = codec.decode_telemetry(payloads)
        bad += [(chosen[row.message], row.reason, row.raw) for row in told.unreadable]
        if not len(told.message):
            return None, None, told.message
        message = np.array(chosen, np.int32)[told.message]
        readings = Readings(
            device_no=device_no[message],
            order=told.order,
            measured_at_ns=told.measured_at_ns,
            received_at_ns=received[message],
            quality=np.zeros(len(message), np.uint8),
            values=told.values,
        )
        return readings, codec.RawRows(told.message, told.place, payloads), message

    def _device_acks(
        self,
        messages: list[Message],
        chosen: list[int],
        bad: list[tuple[int, str, bytes]],
        device_no: Ints,
        received: Longs,
    ) -> Acks | None:
        if not chosen and not self._acks:
            return None
        told = codec.decode_acks([messages[index][3] for index in chosen])
        bad += [(chosen[row.message], row.reason, row.raw) for row in told.unreadable]
        message = [chosen[index] for index in told.message]
        own = self._acks
        at_ns = [
            # A device's own time is evidence only where it can be true.
            said if 0 <= came - said <= _ACK_AGE_NS_MAX else came
            for said, came in zip(told.at_ns, received[message].tolist(), strict=True)
        ]
        if not message and not own:
            return None
        return Acks(
            # The transport's answers first: RECEIVED comes before what the device says next.
            device_no=np.array([ack[0] for ack in own] + device_no[message].tolist(), np.int32),
            revision=np.array([ack[1] for ack in own] + told.revision, np.int64),
            epoch=np.array([-1] * len(own) + told.epoch, np.int64),
            status=np.array([ack[2] for ack in own] + told.status, np.uint8),
            at_ns=np.array([ack[3] for ack in own] + at_ns, np.int64),
            reason=(*(ack[4] for ack in own), *told.reason),
        )

    def _quarantined(
        self,
        messages: list[Message],
        bad: Sequence[tuple[int, str, bytes]],
        device_no: Ints,
        received: Longs,
    ) -> Quarantined | None:
        if not bad:
            return None
        index = [row[0] for row in bad]
        return Quarantined(
            device_no=device_no[index],
            received_at_ns=received[index],
            source=tuple(f"{self.adapter}/{messages[at][5]}".encode() for at in index),
            reason=tuple(row[1].encode() for row in bad),
            raw=tuple(row[2] for row in bad),
        )

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Answer every publication of a batch, one write per connection."""
        receipt = batch.receipt
        assert isinstance(receipt, _Receipt)
        unusable = receipt.unusable
        if refused:
            unusable = dict(unusable)
            for row, reason in refused.items():
                unusable.setdefault(int(receipt.reading_message[row]), reason)
        answers: dict[Peer, list[bytes]] = {}
        written = 0
        for index, (peer, answer, kind, _, _, _) in enumerate(receipt.messages):
            if not answer:
                continue
            if unusable and kind != REFUSED and index in unusable:
                answer = peer.correct(answer, unusable[index])
            known = answers.get(peer)
            if known is None:
                answers[peer] = [answer]
            else:
                known.append(answer)
            written += 1
        for peer, theirs in answers.items():
            peer.acknowledge(theirs)
        self.counters.acknowledged += written
        receipt.messages.clear()

    def decline(self, batch: Batch, reason: str) -> None:
        """Answer nothing and end the connections concerned: MQTT repeats only after reconnecting.

        What the transport itself noted waits for the next batch, the newest event per device.
        """
        receipt = batch.receipt
        assert isinstance(receipt, _Receipt)
        self.counters.declined += len(receipt.messages)
        for peer in dict.fromkeys(message[0] for message in receipt.messages):
            peer.decline(reason)
        self._acks = (receipt.own_acks + self._acks)[-self._limits.waiting_max :]
        newest = {row[0]: row for row in receipt.own_sessions + self._sessions}
        self._sessions = sorted(newest.values(), key=lambda row: row[2])
        receipt.messages.clear()
        if self._timer is None:
            self._linger()


def _sessions(rows: list[tuple[int, int, int, int]]) -> Sessions | None:
    if not rows:
        return None
    return Sessions(
        device_no=np.array([row[0] for row in rows], np.int32),
        event=np.array([row[1] for row in rows], np.uint8),
        session=np.array([row[2] for row in rows], np.int64),
        at_ns=np.array([row[3] for row in rows], np.int64),
    )
