"""The agent: reads devices, keeps what they say until the plant has it, carries out commands."""

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from kapelle.adapters.sunspec.link import Declined, Line
from kapelle.adapters.sunspec.settings import DeviceSettings
from kapelle.adapters.sunspec.unit import NotSunSpec, Said, Unit
from kapelle.edge import wire
from kapelle.edge.buffer import Buffer, Row, Told
from kapelle.edge.pace import Pace
from kapelle.edge.settings import EdgeConfig
from kapelle.edge.uplink import Session, Uplink
from kapelle.edge.wire import Command
from kapelle.errors import LinkLost
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock
from kapelle.runtime.background import background
from kapelle.runtime.supervise import keep_open

_log = logging.getLogger(__name__)

_FLUSH_S = 1.0
"""A power cut takes at most so much of what the plant has not acknowledged. [s]"""
_FRESH_MAX, _STORED_MAX = 50, 150
"""Readings in one publication."""
_PAUSE_S_MAX = 60.0
"""A device that does not answer is asked at least so often. [s]"""
_AGAIN_S = 1.0
_ANSWERS_MAX = 16
_TROUBLE = (LinkLost, Declined, NotSunSpec)


class Agent:
    """All devices of one `edge.toml`."""

    def __init__(
        self, config: EdgeConfig, secrets: Mapping[str, str], buffer: Buffer, clock: Clock
    ) -> None:
        self._config = config
        self._buffer = buffer
        self._clock = clock
        pace = Pace(config.buffer.catch_up_per_s)
        lines = lines_of(config.sunspec.devices)
        self.devices = [
            Device(
                Unit(lines[device.host, device.port], device, clock),
                Uplink(device.id, secrets[device.id], config.plant),
                buffer,
                pace,
                clock,
                trust_clock=config.plant.trust_clock,
            )
            for device in config.sunspec.devices
        ]
        self._lines = list(lines.values())

    def is_free(self, now_ns: int) -> bool:
        """Tell whether nothing depends on the time: no device holds a setpoint of ours."""
        return all(device.is_free(now_ns) for device in self.devices)

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            async with background() as beside:
                for device in self.devices:
                    name = device.unit.settings.id
                    beside.start(device.poll(), f"poll {name}")
                    beside.start(device.obey(), f"obey {name}")
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
        self._next: Command | None = None
        self._ordered = asyncio.Event()
        self._news = asyncio.Event()
        self._answers: deque[bytes] = deque(maxlen=_ANSWERS_MAX)
        self._told = buffer.told(self._id)
        self._is_busy = False
        self._trouble = ""

    def is_free(self, now_ns: int) -> bool:
        """Tell whether the device holds no setpoint of ours, and none is on its way."""
        held = not math.isnan(self._told.setpoint_w) and now_ns < self._told.until_ns
        return not held and not self._is_busy and self._next is None

    # Up.

    async def poll(self) -> None:
        """Read the device for ever. One that does not answer is asked less and less often."""
        settings = self.unit.settings
        pause_s = settings.poll_s
        while True:
            begun_ns = self._clock.now_ns()
            try:
                async with self._turn:
                    values, at_ns = await self.unit.poll(self._ours_w())
                    await self._take_back()
            except _TROUBLE as trouble:
                self._say(str(trouble))
                pause_s = min(max(_PAUSE_S_MAX, settings.poll_s), 2 * pause_s)
            else:
                self._say("" if values else "it says nothing that can be used")
                pause_s = settings.poll_s
                if values:
                    self._buffer.add(self._id, values, at_ns)
                    self._news.set()
            spent_s = (self._clock.now_ns() - begun_ns) / NS_PER_S
            await self._clock.sleep(max(0.0, pause_s - spent_s))

    async def keep_up(self, draw: random.Random) -> None:
        """Keep a session with the plant."""
        await keep_open(self._uplink, self._use, clock=self._clock, draw=draw)

    async def _use(self, session: Session) -> None:
        if self._told.status:
            # The plant may have missed it; hearing an answer twice is harmless.
            self._answer(self._told)
        async with background() as beside:
            beside.start(self._hear(session), f"commands of {self._id}")
            await self._speak(session)

    async def _speak(self, session: Session) -> None:
        while True:
            while self._answers:
                await session.answer(self._answers[0])
                self._answers.popleft()
            self._news.clear()
            if rows := self._rows():
                await session.telemetry(wire.together([row.body for row in rows]))
                self._buffer.confirm(rows)
            if not self._buffer.has_stored(self._id):
                await self._news.wait()
            elif not rows:
                await self._clock.sleep(_AGAIN_S)

    def _rows(self) -> list[Row]:
        """Return what to send next: what is new, and as much of what was kept as may go now."""
        rows = self._buffer.fresh(self._id)[-_FRESH_MAX:]
        if self._buffer.has_stored(self._id):
            granted = self._pace.take(_STORED_MAX, self._clock.now_ns())
            rows += self._buffer.stored(self._id, granted)
        return rows

    # Down.

    async def _hear(self, session: Session) -> None:
        async for payload in session.commands():
            now_ns = self._clock.now_ns()
            command = wire.command(payload, now_ns, trust_clock=self._trust_clock)
            if command is None:
                _log.warning("a command cannot be read", extra={"device": self._id})
            else:
                self.offer(command)

    def offer(self, command: Command) -> None:
        """Take a command: each is carried out once, and answered as often as it comes."""
        rank, known = (command.epoch, command.revision), self._told.rank
        if command.epoch < known[0]:
            told = Told(*rank, status=AckStatus.REJECTED, reason="stale epoch")
            self._answer(told)
        elif rank == known and self._told.status:
            self._answer(self._told)
        elif rank > known or (rank == known and not self._is_busy):
            self._next = command
            self._ordered.set()

    async def obey(self) -> None:
        """Carry out commands for ever, the newest first and no other."""
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            command, self._next = self._next, None
            if command is not None:
                self._is_busy = True
                try:
                    await self._carry_out(command)
                finally:
                    self._is_busy = False

    async def _carry_out(self, command: Command) -> None:
        before = self._told
        until_ns = self._clock.now_ns() + int(_or_zero(command.revert_s) * NS_PER_S)
        begun = Told(command.epoch, command.revision, command.setpoint_w, until_ns)
        try:
            self._remember(begun)
            said = await self._tell(command)
            if said is None:
                return
            # What the device refused is as it was, or was taken back.
            held = begun if said.status == AckStatus.APPLIED else before
            if said.status == AckStatus.REJECTED and self.unit.may_have_written:
                held = Told()
            self._remember(
                begun._replace(
                    setpoint_w=held.setpoint_w,
                    until_ns=held.until_ns,
                    status=int(said.status),
                    reason=said.reason,
                )
            )
        except OSError:
            # What cannot be remembered might be done twice, or in the wrong order.
            self._told = before
            return
        self._answer(self._told)

    async def _tell(self, command: Command) -> Said | None:
        """Tell the device until it answers; None where nobody knows what became of it."""
        trouble = "it expired on its way"
        has_written = False
        while self._clock.now_ns() <= command.deadline_ns:
            try:
                async with self._turn:
                    return await self.unit.tell(
                        command.setpoint_w, command.revert_s, command.deadline_ns
                    )
            except _TROUBLE as error:
                trouble = f"the device could not be told: {error}"
                has_written |= self.unit.may_have_written
            if self._next is not None:
                return None
            await self._clock.sleep(_AGAIN_S)
        return None if has_written else Said(AckStatus.EXPIRED, trouble)

    async def _take_back(self) -> None:
        """End a setpoint whose time is over, where the device does not do it by itself."""
        told = self._told
        is_over = not math.isnan(told.setpoint_w) and self._clock.now_ns() >= told.until_ns
        if not self.unit.settings.agent_reverts or not is_over or self._is_busy:
            return
        said = await self.unit.tell(math.nan, math.nan, _NEVER_NS)
        if said.status == AckStatus.APPLIED and told == self._told:
            with suppress(OSError):
                self._remember(told._replace(setpoint_w=math.nan))

    def _ours_w(self) -> float:
        told = self._told
        return told.setpoint_w if self._clock.now_ns() < told.until_ns else math.nan

    def _remember(self, told: Told) -> None:
        self._buffer.tell(self._id, told)
        self._told = told

    def _answer(self, told: Told) -> None:
        self._answers.append(
            wire.acknowledgement(
                told.revision,
                told.epoch,
                AckStatus(told.status),
                told.reason,
                self._clock.now_ns(),
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


_NEVER_NS = (1 << 63) - 1


def _or_zero(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), 1e9)
