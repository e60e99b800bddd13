"""The agent: reads devices, keeps what they say until the plant has it, carries out commands."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from kapelle.adapters.sunspec.link import Line
from kapelle.adapters.sunspec.settings import DeviceSettings
from kapelle.adapters.sunspec.unit import Unit
from kapelle.edge import wire
from kapelle.edge.buffer import Buffer, Row
from kapelle.edge.duty import TROUBLE, Duty
from kapelle.edge.ledger import Told
from kapelle.edge.pace import Pace
from kapelle.edge.settings import EdgeConfig
from kapelle.edge.uplink import Session, Uplink, turns_to_connect
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock
from kapelle.runtime.background import background
from kapelle.runtime.supervise import keep_open

_log = logging.getLogger(__name__)

_FLUSH_S = 1.0
"""A power cut takes at most so much of what the plant has not acknowledged. [s]"""
FRESH_MAX, STORED_MAX = 30, 100
"""Readings in one publication: below the endpoint's 64 KiB, with all a device can say."""
_PAUSE_S_MAX = 60.0
"""A device that does not answer is asked at least so often. [s]"""
_BATCH_S = 1.0
_ANSWERS_MAX = 16
"""Answers that wait for the plant; it asks again for what is lost beyond."""


class Agent:
    """All devices of one `edge.toml`."""

    def __init__(
        self, config: EdgeConfig, secrets: Mapping[str, str], buffer: Buffer, clock: Clock
    ) -> None:
        self._buffer = buffer
        self._clock = clock
        pace = Pace(config.buffer.catch_up_per_s)
        lines = lines_of(config.sunspec.devices)
        turns = turns_to_connect()
        self.devices = [
            Device(
                Unit(lines[device.host, device.port], device, clock),
                Uplink(device.id, secrets[device.id], config.plant, turns),
                buffer,
                pace,
                clock,
                trust_clock=config.plant.trust_clock,
            )
            for device in config.sunspec.devices
        ]
        self._lines = list(lines.values())

    def is_free(self, _now_ns: int) -> bool:
        """Tell whether nothing depends on the time: no device holds a setpoint of ours."""
        return all(device.duty.is_free() for device in self.devices)

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            async with background() as beside:
                for device in self.devices:
                    name = device.unit.settings.id
                    beside.start(device.poll(), f"poll {name}")
                    beside.start(device.duty.obey(), f"obey {name}")
                    beside.start(device.keep_up(random.Random(name)), f"uplink {name}")
                while True:
                    await self._clock.sleep(_FLUSH_S)
                    self._buffer.flush(self._clock.now_ns())
        finally:
            for line in self._lines:
                line.close()


def lines_of(devices: Sequence[DeviceSettings]) -> dict[tuple[str, int], Line]:
    """Return one line for each host and port: a gateway's units share theirs."""
    slowest: dict[tuple[str, int], float] = {}
    for device in devices:
        place = device.host, device.port
        slowest[place] = max(device.answer_s, slowest.get(place, 0.0))
    return {place: Line(*place, answer_s=answer_s) for place, answer_s in slowest.items()}


class Device:
    """One device: what it says goes up, what the plant says goes down."""

    def __init__(
        self,
        unit: Unit,
        uplink: Uplink,
        buffer: Buffer,
        pace: Pace,
        clock: Clock,
        *,
        trust_clock: bool,
    ) -> None:
        self.unit = unit
        self._id = unit.settings.id
        self._uplink = uplink
        self._buffer = buffer
        self._pace = pace
        self._clock = clock
        self._trust_clock = trust_clock
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._answers: deque[bytes] = deque(maxlen=_ANSWERS_MAX)
        self._trouble = ""
        self.duty = Duty(
            self._id,
            unit,
            self._turn,
            buffer.ledger,
            clock,
            answer=self._answer,
            takes_back=unit.settings.agent_reverts,
        )

    async def poll(self) -> None:
        """Read the device for ever. One that does not answer is asked less and less often."""
        poll_s = self.unit.settings.poll_s
        pause_s = poll_s
        while True:
            begun_ns = self._clock.now_ns()
            longer_s = min(max(_PAUSE_S_MAX, poll_s), 2 * pause_s)
            pause_s = poll_s if await self.look() else longer_s
            spent_s = (self._clock.now_ns() - begun_ns) / NS_PER_S
            await self._clock.sleep(max(0.0, pause_s - spent_s))

    async def look(self) -> bool:
        """Read the device once; return whether it answered."""
        try:
            async with self._turn:
                values, at_ns = await self.unit.poll(self.duty.ours_w())
                if values:
                    self._buffer.add(self._id, values, at_ns)
                    self._news.set()
                await self.duty.take_back()
        except TROUBLE as trouble:
            self._say(str(trouble))
            return False
        self._say("" if values else "it says nothing that can be used")
        return True

    async def keep_up(self, draw: random.Random) -> None:
        """Keep a session with the plant."""
        await keep_open(self._uplink, self._use, clock=self._clock, draw=draw)

    async def _use(self, session: Session) -> None:
        if self.duty.told.status:
            # The plant may have missed it; hearing an answer twice is harmless.
            self._answer(self.duty.told)
        async with background() as beside:
            beside.start(self._hear(session), f"commands of {self._id}")
            await self._speak(session)

    async def _hear(self, session: Session) -> None:
        async for payload in session.commands():
            now_ns = self._clock.now_ns()
            command = wire.command(payload, now_ns, trust_clock=self._trust_clock)
            if command is None:
                _log.warning("a command cannot be read", extra={"device": self._id})
            else:
                self.duty.offer(command)

    async def _speak(self, session: Session) -> None:
        if waiting := self._buffer.waiting(self._id):
            _log.info("readings that were kept follow", extra={"device": self._id, "rows": waiting})
        # What is oldest would pass for the present until the next reading.
        await self._report(session, self._buffer.newest(self._id))
        while True:
            while self._answers:
                await session.answer(self._answers.popleft())
            self._news.clear()
            await self._report(session, self._rows())
            # What was kept follows in batches, not row by row as the pace lets them go.
            later_s = _BATCH_S if self._buffer.has_stored(self._id) else None
            with suppress(TimeoutError):
                async with asyncio.timeout(later_s):
                    await self._news.wait()

    async def _report(self, session: Session, rows: list[Row]) -> None:
        if rows:
            await session.telemetry(wire.together([row.body for row in rows]))
            self._buffer.confirm(self._id, rows)

    def _rows(self) -> list[Row]:
        """Return what to send next: what is new, and as much of what was kept as may go now."""
        rows = self._buffer.fresh(self._id)[-FRESH_MAX:]
        if self._buffer.has_stored(self._id):
            granted = self._pace.take(STORED_MAX, self._clock.now_ns())
            rows += self._buffer.stored(self._id, granted)
        return rows

    def _answer(self, told: Told) -> None:
        status = AckStatus(told.status)
        self._answers.append(
            wire.acknowledgement(
                told.revision, told.epoch, status, told.reason, self._clock.now_ns()
            )
        )
        self._news.set()

    def _say(self, trouble: str) -> None:
        """Say once that a device is in trouble, and once that it is well again."""
        if trouble and not self._trouble:
            _log.warning("device cannot be read", extra={"device": self._id, "reason": trouble})
        elif self._trouble and not trouble:
            _log.info("device is read again", extra={"device": self._id})
        self._trouble = trouble
