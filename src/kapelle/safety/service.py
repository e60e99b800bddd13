"""The last hop: follows commands in the journal, passes the gate, hands them to the transports.

It starts at the present end of each topic: what was never sent is sent again by its owner. What
left before is charged to the limits first: from the accounts it saved, and from the journal since.

A hold needs nothing but this process: the journal, a call (`stop`: API, signal, the gate's own
trip-wire) or a file in the data directory stop it, whichever comes first, and one that the journal
has not heard of is written there once it can be.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from kapelle.errors import JournalFailed, JournalFull, LinkLost
from kapelle.fleet.recall import recall
from kapelle.model.blocks import Commands, Phases
from kapelle.model.entries import Body, Kind
from kapelle.model.enums import Phase
from kapelle.model.ids import PLANT, Bytes, Flags, partition_topic
from kapelle.model.orders import Hold
from kapelle.model.plant import Notice, Tick
from kapelle.ports import Clock, Directory, Journal, Link
from kapelle.safety.accounts import TOPIC, to_snapshot
from kapelle.safety.before import HEARD, WRITER, LeftBefore, hear_orders, saved
from kapelle.safety.gate import PHASE_OF, RULES, check
from kapelle.safety.recharge import charge_again
from kapelle.safety.restart import Left
from kapelle.safety.settings import SafetySettings
from kapelle.safety.state import GateState, go_on, know, rearm

_APPEND_TIMEOUT_S = 10.0
_AGAIN_S = 1.0
"""Pause before a hold that could not be written is tried again. [s]"""
_SAVE_TRIES = 100
_SAVE_AGAIN_S = 0.05
_LOOK_S = 0.2
"""How often the file that holds the plant is looked for. [s]"""

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
        hold_file: Path | None = None,
    ) -> None:
        """`hold_file`: while it is there, the plant is held; None: nobody looks."""
        self.links: list[Link] = []
        """Where commands go; each device's to the first that has a session for it."""
        self.refused: Counter[str] = Counter()
        """Commands that did not pass, by rule."""
        self.sent = 0
        self._state = GateState.of(settings)
        self._journal = journal
        self._directory = directory
        self._clock = clock
        self._settings = settings
        self._partitions = partitions
        self._hold_file = hold_file
        self._stopped_ns = 0
        """When it was last stopped by anything but the journal."""
        self._untold: list[Body] = []
        """What the journal has yet to hear of that."""
        self._is_untold = asyncio.Event()
        self._sending: set[asyncio.Timeout] = set()
        """The deadlines of hand-overs under way."""
        self._done: dict[str, int] = {}
        """Up to where each topic is in the accounts."""
        self._busy = 0
        """Blocks that are being sent."""

    @property
    def held(self) -> bool:
        """Whether nothing leaves now."""
        return self._state.held

    @property
    def reason(self) -> str:
        """Why, if it is held."""
        return self._state.hold_reason

    def hold(self, held: bool, reason: str = "") -> None:
        """Stop every command at once, or let them pass again, without waiting for the journal."""
        if held != self._state.held:
            log.warning("hold" if held else "hold lifted", extra={"reason": reason})
        if not held:
            rearm(self._state)
            # What the journal had no space for is over: written later, it would hold again.
            self._untold = [body for body in self._untold if not isinstance(body, Hold)]
            return
        self._state.held, self._state.hold_reason = True, reason
        # A transport that is slow must not go on for its whole deadline.
        for deadline in self._sending:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())

    def stop(self, reason: str, by: str, *, told: bool = False) -> None:
        """Hold from here: at once, and in the journal as soon as that takes it.

        Lifted by a release in the journal that is younger than this.

        Args:
            reason: Why, for whoever has to lift it.
            by: Who or what stopped it.
            told: The caller writes to the journal himself.
        """
        self._stopped_ns = self._clock.now_ns()
        self.hold(True, reason)
        if not told:
            self._tell(Hold(True, self._stopped_ns, reason, by))

    async def run(self) -> None:
        """Send what passes, until cancelled.

        Raises:
            JournalFailed: The disk failed.
            JournalDamaged: Whether the plant is held cannot be known any more.
        """
        self._look()
        await self._restore()
        view = await recall(self._journal, self._partitions)
        if view.held:
            self.hold(True, view.hold_reason)
        await hear_orders(self._journal, self._state, view, self._done)
        ends = {
            topic: await self._journal.last(topic)
            for topic in map(partition_topic, range(self._partitions))
        }
        left = LeftBefore(self._journal, self._settings, self._clock.now_ns(), self._done, ends)
        async for each in left.in_order():
            self._charge_again(each)
        go_on(self._state, left.now_ns)
        try:
            await self._run(view.position, ends)
        except asyncio.CancelledError:
            with suppress(JournalFailed):
                await self._save()
            raise

    async def _run(self, after: int, ends: Mapping[str, int]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_plant(after))
            group.create_task(self._tell_journal())
            if self._hold_file is not None:
                group.create_task(self._watch_file())
            group.create_task(self._keep_accounts())
            for topic, end in ends.items():
                group.create_task(self._pass_on(topic, end))

    async def _restore(self) -> None:
        """Take up the accounts as they were last saved."""
        found = await saved(self._journal, self._settings)
        if found is None:
            return
        state, self._done = found
        state.held, state.hold_reason = self._state.held, self._state.hold_reason
        self._state = state
        self._clock.not_before(state.now_ns)

    def _charge_again(self, left: Left) -> None:
        at_ns, commands, sure = left
        known = know(self._state, self._directory, commands.device_no)
        charge_again(
            self._state, commands, known, at_ns, self._partitions, self._settings, sure=sure
        )

    async def _keep_accounts(self) -> None:
        while True:
            await self._clock.sleep(self._settings.save_every_s)
            await self._save()

    async def _save(self) -> None:
        """Save the accounts, so that a restart goes on with them.

        Only between two blocks: of one that is being sent nobody could tell later what was charged.
        """
        for _ in range(_SAVE_TRIES):
            if not self._busy:
                break
            await self._clock.sleep(_SAVE_AGAIN_S)
        else:
            return
        taken = to_snapshot(self._state, dict(self._done))
        try:
            async with asyncio.timeout(_APPEND_TIMEOUT_S):
                now_ns = self._clock.now_ns()
                position = await self._journal.append(TOPIC, [Tick(now_ns)], writer=WRITER)
                await self._journal.save_snapshot(TOPIC, replace(taken, position=position))
                await self._journal.trim(TOPIC, position - 1)
        except (JournalFull, TimeoutError) as error:
            log.warning("accounts not saved", extra={"reason": str(error)})

    async def _watch_plant(self, after: int) -> None:
        async for entries in self._journal.follow(PLANT, after, HEARD):
            for entry in entries:
                if isinstance(entry.body, Hold):
                    self._hear(entry.body)
                else:
                    go_on(self._state, self._clock.now_ns())
                    self._state.orders.apply(entry.body)
                self._done[PLANT] = entry.position

    def _hear(self, hold: Hold) -> None:
        if hold.held:
            self.hold(True, hold.reason)
        elif self._is_filed():
            self.stop(f"{self._hold_file} is still there: remove it, then release", "file")
        elif hold.at_ns >= self._stopped_ns:
            self.hold(False, hold.reason)

    async def _watch_file(self) -> None:
        while True:
            self._look()
            await self._clock.sleep(_LOOK_S)

    def _look(self) -> None:
        """Hold if somebody has put the file there. Removing it lifts nothing: `release` does."""
        if not self._state.held and self._is_filed():
            self.stop(f"{self._hold_file} is there", "file")

    def _is_filed(self) -> bool:
        return self._hold_file is not None and self._hold_file.exists()

    def _tell(self, *bodies: Body) -> None:
        self._untold += bodies
        self._is_untold.set()

    async def _tell_journal(self) -> None:
        """Write what was not asked for in the journal; a journal that is full is tried again."""
        while True:
            await self._is_untold.wait()
            bodies = tuple(self._untold)
            if not bodies:
                self._is_untold.clear()
                continue
            try:
                async with asyncio.timeout(_APPEND_TIMEOUT_S):
                    await self._journal.append(PLANT, bodies, writer=WRITER)
            except (JournalFull, TimeoutError) as error:
                log.error("a hold is not in the journal yet", extra={"reason": str(error)})
                await self._clock.sleep(_AGAIN_S)
                continue
            self._untold = [body for body in self._untold if body not in bodies]

    async def _pass_on(self, topic: str, after: int) -> None:
        async for entries in self._journal.follow(topic, after, {Kind.COMMANDS}):
            for entry in entries:
                if isinstance(entry.body, Commands):
                    self._busy += 1
                    try:
                        await self._send(topic, entry.body)
                    finally:
                        self._busy -= 1
                self._done[topic] = entry.position

    async def _send(self, topic: str, commands: Commands) -> None:
        """Check and send in hand-overs small enough for a hold to come between."""
        at_once = self._settings.send_at_once
        phases: list[Phases] = []
        for start in range(0, len(commands), at_once):
            piece = _part(commands, np.arange(start, min(start + at_once, len(commands))))
            self._look()
            now_ns = self._clock.now_ns()
            known = know(self._state, self._directory, piece.device_no)
            broken = check(self._state, piece, known, now_ns, self._partitions, self._settings)
            self._take_note(now_ns)
            passed = np.flatnonzero(broken == 0)
            sent = np.zeros(len(piece), np.bool_)
            if len(passed):
                sent[passed] = await self._hand_over(_part(piece, passed))
            self.sent += int(sent.sum())
            phases += self._findings(piece, broken, sent, now_ns)
        if phases:
            await self._append(topic, phases)

    def _take_note(self, now_ns: int) -> None:
        """Say that the gate has held the plant by itself, if it has."""
        reason, self._state.tripped = self._state.tripped, ""
        if reason:
            self.stop(reason, "trip-wire")
            self._tell(Notice(now_ns, "implausible-commands", f"held: {reason}"))

    async def _hand_over(self, commands: Commands) -> Flags:
        """Offer commands to each transport in turn; what none takes, the owner tries again."""
        sent = np.zeros(len(commands), np.bool_)
        for link in tuple(self.links):
            left = np.flatnonzero(~sent)
            if not len(left) or self._state.held:
                break
            try:
                async with asyncio.timeout(self._settings.send_timeout_s) as deadline:
                    self._sending.add(deadline)
                    try:
                        sent[left] = await link.send(_part(commands, left))
                    finally:
                        self._sending.discard(deadline)
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
                await self._journal.append(topic, phases, writer=WRITER)
        except (JournalFull, TimeoutError) as error:
            # The devices' own answers say the same and more.
            reason = str(error) or f"the journal took longer than {_APPEND_TIMEOUT_S:g} s"
            log.error("phases not written", extra={"topic": topic, "reason": reason})


def _part(commands: Commands, rows: "np.ndarray[tuple[int], np.dtype[np.intp]]") -> Commands:
    """Return some rows of a block."""
    return Commands(*(getattr(commands, name)[rows] for name in Commands.COLUMNS))
