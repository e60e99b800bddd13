"""What a device was told, and doing it: once, in time, the newest only, and over restarts."""

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from kapelle.adapters.sunspec.link import Declined
from kapelle.adapters.sunspec.survey import NotSunSpec
from kapelle.adapters.sunspec.unit import Said
from kapelle.edge.ledger import Ledger, Told
from kapelle.edge.wire import Command
from kapelle.errors import LinkLost
from kapelle.model.enums import AckStatus
from kapelle.model.ids import NS_PER_S
from kapelle.ports import Clock

_log = logging.getLogger(__name__)

TROUBLE = (LinkLost, Declined, NotSunSpec)
"""What keeps a device from being read or told, for now."""
_AGAIN_S = 1.0
_NEVER_NS = (1 << 63) - 1


class Tells(Protocol):
    """A device that can be told something."""

    may_have_written: bool

    async def tell(self, setpoint_w: float, revert_s: float, deadline_ns: int) -> Said:
        """See `Unit.tell`."""


class Duty:
    """The commands of one device."""

    def __init__(
        self,
        device: str,
        unit: Tells,
        turn: asyncio.Lock,
        ledger: Ledger,
        clock: Clock,
        *,
        answer: Callable[[Told], None],
        takes_back: bool,
    ) -> None:
        """Make it.

        Args:
            device: Its name in the plant.
            unit: The device.
            turn: Held while anybody speaks with the device.
            ledger: Where commands outlast the agent.
            clock: For expiry.
            answer: Tells the plant what became of a command.
            takes_back: Whether the agent ends setpoints, because the device does not.
        """
        self.told = ledger.newest(device)
        """The newest command, and what became of it."""
        self._device = device
        self._unit = unit
        self._turn = turn
        self._ledger = ledger
        self._clock = clock
        self._answer = answer
        self._takes_back = takes_back
        self._next: Command | None = None
        self._ordered = asyncio.Event()
        self._is_busy = False

    def ours_w(self) -> float:
        """Return the setpoint of ours the device holds; NaN for none. [W]"""
        told = self.told
        return told.setpoint_w if self._clock.now_ns() < told.until_ns else math.nan

    def is_free(self) -> bool:
        """Tell whether the device holds no setpoint of ours, and none is on its way."""
        return math.isnan(self.ours_w()) and not self._is_busy and self._next is None

    def offer(self, command: Command) -> None:
        """Take a command: each is carried out once, and answered as often as it comes."""
        rank, known = (command.epoch, command.revision), self.told.rank
        if command.epoch < known[0]:
            self._answer(Told(*rank, status=AckStatus.REJECTED, reason="stale epoch"))
        elif rank == known and self.told.status:
            self._answer(self.told)
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

    async def take_back(self) -> None:
        """End a setpoint whose time is over, where the device does not do it by itself.

        Whoever calls holds the turn.
        """
        told = self.told
        is_over = not math.isnan(told.setpoint_w) and self._clock.now_ns() >= told.until_ns
        if not self._takes_back or not is_over or self._is_busy:
            return
        said = await self._unit.tell(math.nan, math.nan, _NEVER_NS)
        if said.status == AckStatus.APPLIED and told == self.told:
            _log.info("a setpoint was taken back", extra={"device": self._device})
            with suppress(OSError):
                self._remember(told._replace(setpoint_w=math.nan))

    async def _carry_out(self, command: Command) -> None:
        before = self.told
        until_ns = self._clock.now_ns() + int(_bounded(command.revert_s) * NS_PER_S)
        begun = Told(command.epoch, command.revision, command.setpoint_w, until_ns)
        try:
            self._remember(begun)
            said = await self._tell(command)
            if said is None:
                return
            self._remember(self._outcome(before, begun, said))
        except OSError as error:
            # What cannot be remembered might be done twice, or in the wrong order.
            extra = {"device": self._device, "reason": str(error)}
            _log.error("a command was not carried out: the disk takes nothing", extra=extra)
            self.told = before
            return
        self._answer(self.told)

    def _outcome(self, before: Told, begun: Told, said: Said) -> Told:
        held = before
        if said.status == AckStatus.APPLIED:
            held = begun
        elif said.status == AckStatus.REJECTED and self._unit.may_have_written:
            # What the device did not take as it was asked was taken back.
            held = Told()
        return begun._replace(
            setpoint_w=held.setpoint_w,
            until_ns=held.until_ns,
            status=int(said.status),
            reason=said.reason,
        )

    async def _tell(self, command: Command) -> Said | None:
        """Tell the device until it answers; None where nobody knows what became of it."""
        trouble = "it expired on its way"
        has_written = False
        while self._clock.now_ns() <= command.deadline_ns:
            try:
                async with self._turn:
                    return await self._unit.tell(
                        command.setpoint_w, command.revert_s, command.deadline_ns
                    )
            except TROUBLE as error:
                trouble = f"the device could not be told: {error}"
                has_written |= self._unit.may_have_written
            if self._next is not None:
                return None
            await self._clock.sleep(_AGAIN_S)
        return None if has_written else Said(AckStatus.EXPIRED, trouble)

    def _remember(self, told: Told) -> None:
        self._ledger.remember(self._device, told)
        self.told = told


def _bounded(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), 1e9)
