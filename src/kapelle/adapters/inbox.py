"""What a link heard, message by message, until the journal has it.

For protocols in which a message is a conversation of its own, a few per second and device: whoever
took one in waits here until it may be acknowledged. (MQTT telemetry comes in the thousands and is
decoded in blocks: `adapters.mqtt.intake`.)
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kapelle.errors import LinkLost
from kapelle.model.blocks import Acks, Quarantined, Readings, Sessions
from kapelle.model.enums import AckStatus, Metric, SessionEvent
from kapelle.ports import Batch, Clock

_LAST_S = 2.0
"""How long a lost link waits until it is stored who went with it. [s]"""
EPOCH_UNSAID = -1
"""Of an answer that does not repeat its command's epoch."""


class Report(NamedTuple):
    """What a device measured at one moment."""

    device_no: int
    values: Mapping[Metric, float]
    """At least one. [unit of the metric]"""
    measured_at_ns: int = 0
    """The device's time; 0 where it said none."""


class Answer(NamedTuple):
    """What a device, or its transport, said about a command."""

    device_no: int
    revision: int
    status: AckStatus
    reason: str = ""
    epoch: int = EPOCH_UNSAID


class Unreadable(NamedTuple):
    """Something a device sent that cannot be used."""

    device_no: int
    """-1 where the sender is not enrolled."""
    reason: str
    """`code: place: what; remedy`."""


@dataclass(slots=True, eq=False)
class Heard:
    """One message of a peer, decoded."""

    peer: str
    """Who sent it, for the quarantine: `cp-17`."""
    raw: bytes
    """As it was sent."""
    reports: Sequence[Report] = ()
    answers: Sequence[Answer] = ()
    unreadable: Sequence[Unreadable] = ()


class NotStored(Exception):
    """The journal did not take a message: the peer must hear that, and send it again."""


@dataclass(frozen=True, slots=True)
class InboxSettings:
    """How much waits, and how long."""

    waiting_max: int = 10_000
    """Messages that wait for the journal; beyond it nobody is read."""
    batch_max: int = 2_048
    """Messages handed over at once."""
    linger_s: float = 0.01
    """How long the first message of a batch waits for others. [s]"""


@dataclass(slots=True, eq=False)
class _Waiting:
    heard: Heard
    received_at_ns: int
    stored: "asyncio.Future[Sequence[str]]"


_Session = tuple[int, int, int, int]
"""Device, event, number of the session, and when. [ns]"""


@dataclass(slots=True, eq=False)
class _Receipt:
    waiting: list[_Waiting]
    message: list[int]
    """Which of them each row of `readings` came in."""
    asides: "_Asides"


@dataclass(slots=True, eq=False)
class _Asides:
    """What the transport itself noted: who came and went, and what became of commands."""

    answers: list[tuple[Answer, int]] = field(default_factory=list)
    sessions: list[_Session] = field(default_factory=list)


def _newest(sessions: list[_Session]) -> list[_Session]:
    """Return the newest event of each device, in the order of their numbers."""
    newest = {row[0]: row for row in sessions}
    return sorted(newest.values(), key=lambda row: row[2])


class Inbox:
    """The receiving half of a link."""

    def __init__(
        self, adapter: str, *, clock: Clock, settings: InboxSettings | None = None
    ) -> None:
        self.adapter = adapter
        self._clock = clock
        self._settings = settings if settings is not None else InboxSettings()
        self._waiting: list[_Waiting] = []
        self._unanswered = 0
        self._asides = _Asides()
        self._sessions_max = self._settings.waiting_max
        self._ready = asyncio.Event()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._lost = ""
        self._last: object = None
        """Receipt of the batch with which a lost link ends."""
        self._last_done = asyncio.Event()

    # What the adapter's connections call.

    async def accept(self, heard: Heard) -> Sequence[str]:
        """Return once a message is durable: why some of its reports could not be used, if any.

        Waits while too much waits already, so that its connection is not read on.

        Raises:
            NotStored: The journal has no room; the peer has the message still.
        """
        while self.full:
            self._roomy.clear()
            await self._roomy.wait()
        return await self._take(heard)

    def hand_in(self, heard: Heard, told: Callable[[bool], None]) -> None:
        """Take a message without waiting; `told` hears whether it became durable.

        For one connection that speaks for thousands, which reads no more while this is `full`.
        """

        def done(stored: "asyncio.Future[Sequence[str]]") -> None:
            told(not stored.cancelled() and stored.exception() is None)

        self._take(heard).add_done_callback(done)

    @property
    def full(self) -> bool:
        """Tell whether as much waits as may."""
        return self._unanswered >= self._settings.waiting_max

    def _take(self, heard: Heard) -> "asyncio.Future[Sequence[str]]":
        stored: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(heard, self._clock.now_ns(), stored))
        self._unanswered += 1
        self._ready.set()
        return stored

    def session(self, device_no: int, event: SessionEvent, number: int) -> None:
        """Note that a connection came or went; `number` rises with every connection."""
        sessions = self._asides.sessions
        if len(sessions) >= self._sessions_max:
            # Who comes and goes while nothing is stored is known by how that ended.
            sessions[:] = _newest(sessions)
            self._sessions_max = max(self._settings.waiting_max, 2 * len(sessions))
        sessions.append((device_no, int(event), number, self._clock.now_ns()))
        self._ready.set()

    def answered(self, answer: Answer) -> None:
        """Note what became of a command."""
        self._asides.answers.append((answer, self._clock.now_ns()))
        self._ready.set()

    def lose(self, reason: str) -> None:
        """End the link: `receive` raises LinkLost."""
        self._lost = reason or "closed"
        self._ready.set()

    # What the link passes on to ingest.

    async def receive(self) -> AsyncIterator[Batch]:
        """Yield everything that waits, in batches. Raises LinkLost after `lose`.

        Where the loss itself ended sessions, a last batch says so before.
        """
        while True:
            await self._ready.wait()
            if not self._lost:
                await asyncio.sleep(self._settings.linger_s)
            is_last = bool(self._lost)
            if is_last and not self._asides.sessions:
                raise LinkLost(self.adapter, self._lost)
            most = self._settings.batch_max
            taken, self._waiting = self._waiting[:most], self._waiting[most:]
            asides, self._asides = self._asides, _Asides()
            if not self._waiting:
                self._ready.clear()
            if taken or asides.answers or asides.sessions:
                batch = self._batch(taken, asides)
                self._last = batch.receipt if is_last else None
                yield batch
            if is_last:
                # Whoever stores batches drops those it holds when a link is lost.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_S):
                        await self._last_done.wait()
                raise LinkLost(self.adapter, self._lost)

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Let everybody of a batch acknowledge: the journal has it."""
        receipt = self._done(batch)
        reasons: dict[int, list[str]] = {}
        for row, reason in refused.items():
            reasons.setdefault(receipt.message[row], []).append(reason)
        for place, waiting in enumerate(receipt.waiting):
            told = [one.reason for one in waiting.heard.unreadable] + reasons.get(place, [])
            if not waiting.stored.done():
                waiting.stored.set_result(told)

    def decline(self, batch: Batch, reason: str) -> None:
        """Let nobody of a batch acknowledge. What the transport noted goes with the next one."""
        receipt = self._done(batch)
        for waiting in receipt.waiting:
            if not waiting.stored.done():
                waiting.stored.set_exception(NotStored(reason))
        before, since = receipt.asides, self._asides
        since.answers = (before.answers + since.answers)[-self._settings.waiting_max :]
        since.sessions = _newest(before.sessions + since.sessions)
        if since.answers or since.sessions:
            self._ready.set()

    def _done(self, batch: Batch) -> _Receipt:
        receipt = batch.receipt
        assert isinstance(receipt, _Receipt)
        if receipt is self._last:
            self._last_done.set()
        self._unanswered -= len(receipt.waiting)
        if self._unanswered <= self._settings.waiting_max // 2:
            self._roomy.set()
        return receipt

    def _batch(self, taken: list[_Waiting], asides: _Asides) -> Batch:
        rows = [(place, one) for place, w in enumerate(taken) for one in w.heard.reports]
        message = [place for place, _ in rows]
        return Batch(
            readings=_readings(rows, taken) if rows else None,
            raw=lambda row: taken[message[row]].heard.raw,
            source=self.adapter,
            unreadable=self._quarantined(taken),
            acks=_acks(taken, asides),
            sessions=_sessions(asides),
            receipt=_Receipt(taken, message, asides),
        )

    def _quarantined(self, taken: list[_Waiting]) -> Quarantined | None:
        bad = [(waiting, one) for waiting in taken for one in waiting.heard.unreadable]
        if not bad:
            return None
        return Quarantined(
            device_no=np.array([one.device_no for _, one in bad], np.int32),
            received_at_ns=np.array([waiting.received_at_ns for waiting, _ in bad], np.int64),
            source=tuple(f"{self.adapter}/{waiting.heard.peer}".encode() for waiting, _ in bad),
            reason=tuple(one.reason.encode() for _, one in bad),
            raw=tuple(waiting.heard.raw for waiting, _ in bad),
        )


def _readings(rows: list[tuple[int, Report]], taken: list[_Waiting]) -> Readings:
    reports = [report for _, report in rows]
    measured_at_ns = np.array([report.measured_at_ns for report in reports], np.int64)
    said = sorted({metric for report in reports for metric in report.values})
    nan = float("nan")
    return Readings(
        device_no=np.array([report.device_no for report in reports], np.int32),
        order=measured_at_ns,
        measured_at_ns=measured_at_ns,
        received_at_ns=np.array([taken[place].received_at_ns for place, _ in rows], np.int64),
        quality=np.zeros(len(rows), np.uint8),
        values={
            metric: np.array([report.values.get(metric, nan) for report in reports])
            for metric in said
        },
    )


def _acks(taken: list[_Waiting], asides: _Asides) -> Acks | None:
    # The transport's own answers first: it knows that a command arrived before the device acts.
    told = asides.answers + [
        (answer, waiting.received_at_ns) for waiting in taken for answer in waiting.heard.answers
    ]
    if not told:
        return None
    return Acks(
        device_no=np.array([answer.device_no for answer, _ in told], np.int32),
        revision=np.array([answer.revision for answer, _ in told], np.int64),
        epoch=np.array([answer.epoch for answer, _ in told], np.int64),
        status=np.array([answer.status for answer, _ in told], np.uint8),
        at_ns=np.array([at_ns for _, at_ns in told], np.int64),
        reason=tuple(answer.reason.encode() for answer, _ in told),
    )


def _sessions(asides: _Asides) -> Sessions | None:
    if not asides.sessions:
        return None
    device_no, event, number, at_ns = zip(*asides.sessions, strict=True)
    return Sessions(
        device_no=np.array(device_no, np.int32),
        event=np.array(event, np.uint8),
        session=np.array(number, np.int64),
        at_ns=np.array(at_ns, np.int64),
    )
