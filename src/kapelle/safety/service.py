"""The last hop: follows commands in the journal, passes the gate, hands them to the transports.

It starts at the present end of each topic: what was never sent is sent again by its owner.
"""

import asyncio
import logging
from collections import Counter

import numpy as np

from kapelle.errors import JournalFull, LinkLost
from kapelle.fleet.recall import recall
from kapelle.model.blocks import Commands, Phases
from kapelle.model.entries import Kind
from kapelle.model.enums import Phase
from kapelle.model.ids import PLANT, Bytes, Flags, partition_topic
from kapelle.model.plant import Hold
from kapelle.ports import Clock, Directory, Journal, Link
from kapelle.safety.gate import PHASE_OF, RULES, GateState, check
from kapelle.safety.settings import SafetySettings

_WRITER = "last-hop"
_APPEND_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


class LastHop:
    """Stands between the journal and every transport. `hold` works without anything else."""

    def __init__(
        self,
        *,
        journal: Journal,
        directory: Directory,
        clock: Clock,
        settings: SafetySettings,
        partitions: int,
    ) -> None:
        self.links: list[Link] = []
        """Where commands go; each device's to the first that has a session for it."""
        self.refused: Counter[str] = Counter()
        """Commands that did not pass, by rule."""
        self.sent = 0
        self._state = GateState()
        self._journal = journal
        self._directory = directory
        self._clock = clock
        self._settings = settings
        self._partitions = partitions

    def hold(self, held: bool, reason: str = "") -> None:
        """Stop every command at once, or let them pass again, without waiting for the journal."""
        if held != self._state.held:
            log.warning("hold" if held else "hold lifted", extra={"reason": reason})
        self._state.held, self._state.hold_reason = held, reason

    async def run(self) -> None:
        """Send what passes, until cancelled.

        Raises:
            JournalFailed: The disk failed.
            JournalDamaged: Whether the plant is held cannot be known any more.
        """
        after = await self._recall_hold()
        ends = [
            await self._journal.last(partition_topic(partition))
            for partition in range(self._partitions)
        ]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_hold(after))
            for partition, end in enumerate(ends):
                group.create_task(self._pass_on(partition_topic(partition), end))

    async def _recall_hold(self) -> int:
        view = await recall(self._journal, self._partitions)
        if view.held:
            self.hold(True, view.hold_reason)
        return view.position

    async def _watch_hold(self, after: int) -> None:
        async for entries in self._journal.follow(PLANT, after, {Kind.HOLD}):
            for entry in entries:
                if isinstance(entry.body, Hold):
                    self.hold(entry.body.held, entry.body.reason)

    async def _pass_on(self, topic: str, after: int) -> None:
        async for entries in self._journal.follow(topic, after, {Kind.COMMANDS}):
            for entry in entries:
                if isinstance(entry.body, Commands):
                    await self._send(topic, entry.body)

    async def _send(self, topic: str, commands: Commands) -> None:
        """Check and send in hand-overs small enough for a hold to come between."""
        at_once = self._settings.send_at_once
        phases: list[Phases] = []
        for start in range(0, len(commands), at_once):
            piece = _part(commands, np.arange(start, min(start + at_once, len(commands))))
            now_ns = self._clock.now_ns()
            broken = check(
                self._state,
                piece,
                self._directory.nameplate(piece.device_no),
                now_ns,
                self._partitions,
                self._settings,
            )
            passed = np.flatnonzero(broken == 0)
            sent = np.zeros(len(piece), np.bool_)
            if len(passed):
                sent[passed] = await self._hand_over(_part(piece, passed))
            self.sent += int(sent.sum())
            phases += self._findings(piece, broken, sent, now_ns)
        if phases:
            await self._append(topic, phases)

    async def _hand_over(self, commands: Commands) -> Flags:
        """Offer commands to each transport in turn; what none takes, the owner tries again."""
        sent = np.zeros(len(commands), np.bool_)
        for link in tuple(self.links):
            left = np.flatnonzero(~sent)
            if not len(left):
                break
            try:
                async with asyncio.timeout(self._settings.send_timeout_s):
                    sent[left] = await link.send(_part(commands, left))
            except (LinkLost, TimeoutError) as reason:
                # Whoever opened the link hears of its end too, and opens it again.
                log.warning("commands were not taken", extra={"reason": str(reason)})
        return sent

    def _findings(
        self, commands: Commands, broken: Bytes, sent: Flags, now_ns: int
    ) -> list[Phases]:
        phase = np.where(sent, np.uint8(Phase.SENT), np.uint8(Phase.NONE))
        for place in np.unique(broken[broken > 0]).tolist():
            rule = RULES[place]
            which = broken == place
            self.refused[rule] += int(which.sum())
            phase[which] = PHASE_OF.get(rule, Phase.NONE)
        rows = np.flatnonzero(phase)
        if not len(rows):
            return []
        return [
            Phases(
                device_no=commands.device_no[rows],
                revision=commands.revision[rows],
                phase=phase[rows].astype(np.uint8),
                at_ns=np.full(len(rows), now_ns, np.int64),
            )
        ]

    async def _append(self, topic: str, phases: list[Phases]) -> None:
        try:
            async with asyncio.timeout(_APPEND_TIMEOUT_S):
                await self._journal.append(topic, phases, writer=_WRITER)
        except (JournalFull, TimeoutError) as error:
            # The devices' own answers say the same and more.
            reason = str(error) or f"the journal took longer than {_APPEND_TIMEOUT_S:g} s"
            log.error("phases not written", extra={"topic": topic, "reason": reason})


def _part(commands: Commands, rows: "np.ndarray[tuple[int], np.dtype[np.intp]]") -> Commands:
    """Return some rows of a block."""
    return Commands(*(getattr(commands, name)[rows] for name in Commands.COLUMNS))
