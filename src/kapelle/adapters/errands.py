"""Carries commands out where that is a conversation with each device: one at a time, newest wins.

A protocol that is asked and answers (OCPP, a vendor's cloud) makes whoever asks wait. Here each
device has a slot of its own, so that one that does not answer holds up nobody else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kapelle.adapters.inbox import Answer, Inbox
from kapelle.model.blocks import Commands
from kapelle.model.enums import AckStatus
from kapelle.model.ids import Flags
from kapelle.ports import Clock
from kapelle.runtime.background import Background


class Command(NamedTuple):
    """One row of `Commands`, as far as a device is told of it."""

    device_no: int
    order_no: int
    revision: int
    epoch: int
    setpoint_w: float
    """NaN releases the device to its own schedule. [W]"""
    not_after_ns: int
    revert_s: float
    """The device returns to its own schedule this long after its last command. [s]"""


class Said(NamedTuple):
    """What a device made of a command."""

    status: AckStatus
    reason: str = ""


_NONE = (-1, -1)
CarryOut = Callable[[Command], Awaitable[Said | None]]


@dataclass(slots=True)
class Counters:
    """What became of errands, since the process started."""

    answered: int = 0
    unanswered: int = 0
    """The device did not answer in time, or its connection broke."""
    overtaken: int = 0
    """A newer command came before it was this one's turn."""
    expired: int = 0


class Errands:
    """Tells each device its newest command, and says what became of it."""

    def __init__(
        self,
        inbox: Inbox,
        beside: Background,
        *,
        clock: Clock,
        carry_out: CarryOut,
        answer_s: float,
        at_once: int = 1_000,
    ) -> None:
        """Make it.

        Args:
            inbox: Where answers go.
            beside: Where conversations run.
            clock: For expiry.
            carry_out: Speaks with the device and returns what it said; None where that is no
                evidence of anything. `OSError` and `TimeoutError` mean that nothing is known.
            answer_s: A device that takes longer has not answered. [s]
            at_once: Conversations at the same time; further ones wait for their turn. Where each
                device has a connection of its own, as many as there may be connections.
        """
        self.counters = Counters()
        self._inbox = inbox
        self._beside = beside
        self._clock = clock
        self._carry_out = carry_out
        self._answer_s = answer_s
        self._turns = asyncio.Semaphore(at_once)
        self._next: dict[int, Command | None] = {}
        """Of each device that is being spoken with, what it is to be told next."""
        self._newest: dict[int, tuple[int, int]] = {}
        """Per device, epoch and revision of the newest command: most devices fence nothing."""

    def offer(self, commands: Commands, present: Container[int]) -> Flags:
        """Take commands for the devices that are present; return which were taken."""
        taken = np.zeros(len(commands), np.bool_)
        for row, command in enumerate(_rows(commands)):
            number = command.device_no
            if number not in present:
                continue
            taken[row] = True
            newest = self._newest.get(number, _NONE)
            if (command.epoch, command.revision) < newest:
                self._overtaken(command, newest[0])
                continue
            self._newest[number] = command.epoch, command.revision
            if number in self._next:
                waiting, self._next[number] = self._next[number], command
                self.counters.overtaken += waiting is not None
            else:
                self._next[number] = command
                self._beside.start(self._serve(number), f"errands of {number}")
        return taken

    def _overtaken(self, command: Command, epoch: int) -> None:
        """Leave out what is older than something the device was, or will be, told."""
        self.counters.overtaken += 1
        if command.epoch < epoch:
            self._answer(command, Said(AckStatus.REJECTED, "stale epoch"))

    async def _serve(self, device_no: int) -> None:
        """Tell one device what it is to be told, until there is nothing more."""
        try:
            while (command := self._next[device_no]) is not None:
                async with self._turns:
                    # While this one waited for its turn, another may have come.
                    command = self._next[device_no] or command
                    self._next[device_no] = None
                    await self._tell(command)
        finally:
            del self._next[device_no]

    async def _tell(self, command: Command) -> None:
        if self._clock.now_ns() > command.not_after_ns:
            self.counters.expired += 1
            self._answer(command, Said(AckStatus.EXPIRED, "expired before it could be told"))
            return
        try:
            async with asyncio.timeout(self._answer_s):
                said = await self._carry_out(command)
        except OSError:
            # TimeoutError is one too. The dispatcher will ask again, or somebody else.
            self.counters.unanswered += 1
            return
        self.counters.answered += 1
        if said is not None:
            self._answer(command, said)

    def _answer(self, command: Command, said: Said) -> None:
        answer = Answer(
            command.device_no, command.revision, said.status, said.reason, command.epoch
        )
        self._inbox.answered(answer)


def _rows(commands: Commands) -> list[Command]:
    columns = (getattr(commands, name).tolist() for name in Command._fields)
    return [Command(*row) for row in zip(*columns, strict=True)]
