"""What was before the last hop started: its accounts, orders, and what has left since."""

import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping

from msgspec.structs import replace

from kapelle.errors import JournalDamaged
from kapelle.fleet.plant import PlantView
from kapelle.fleet.retention import position_at
from kapelle.model.blocks import Commands, Phases
from kapelle.model.entries import Kind
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.orders import Cancel
from kapelle.ports import Journal
from kapelle.safety.accounts import TOPIC, restore
from kapelle.safety.restart import Left, Line
from kapelle.safety.settings import SafetySettings
from kapelle.safety.state import GateState

WRITER = "last-hop"
HEARD = {Kind.HOLD, Kind.ORDER, Kind.AMEND, Kind.CANCEL}
"""What the last hop listens to in the plant's topic."""
_READ_AT_ONCE = 1_000

log = logging.getLogger(__name__)


async def saved(
    journal: Journal, settings: SafetySettings
) -> tuple[GateState, dict[str, int]] | None:
    """Return the accounts as they were last saved, and by topic up to where entries are in them."""
    snapshot = await journal.load_snapshot(TOPIC)
    if snapshot is None:
        return None
    state = GateState.of(settings)
    try:
        return state, restore(state, snapshot)
    except JournalDamaged as damaged:
        log.warning("accounts are drawn up from the journal", extra={"reason": str(damaged)})
        return None


async def hear_orders(
    journal: Journal, state: GateState, view: PlantView, done: dict[str, int]
) -> None:
    """Take up what became of orders since the accounts were saved; older ones as the view has them.

    Args:
        journal: Where they stand.
        state: What the gate remembers; brought up to date.
        view: The plant's topic up to now.
        done: By topic, up to where entries are in the accounts; brought up to date.
    """
    since = done.get(PLANT, view.position)
    while since < view.position and (
        entries := await journal.read(PLANT, since, _READ_AT_ONCE, HEARD)
    ):
        for entry in entries:
            if entry.position <= view.position:
                state.orders.apply(entry.body)
        since = entries[-1].position
    done[PLANT] = view.position
    for number, known in view.orders.items():
        # Of an order that was heard of already this says nothing new; of one amended several times
        # it says only what it has come to, so it comes last.
        state.orders.apply(replace(known.order, issued_by=known.given_by))
        if known.cancelled_at_ns:
            state.orders.apply(Cancel(number, known.cancelled_at_ns))


class LeftBefore:
    """What has left, or may have, since the accounts were saved."""

    def __init__(
        self,
        journal: Journal,
        settings: SafetySettings,
        now_ns: int,
        done: dict[str, int],
        ends: Mapping[str, int],
    ) -> None:
        """`done`: by topic, up to where entries are in the accounts; it moves on to `ends`."""
        self.now_ns = now_ns
        self._journal = journal
        self._counted_s = settings.revert_s_max + settings.valid_s_max
        """What is older matters no more, where there are no accounts."""
        self._done = done
        self._ends = ends
        self._lines = {topic: Line(now_ns) for topic in ends}

    async def in_order(self) -> AsyncIterator[Left]:
        """Yield it in order of time, over all partitions."""
        ready: dict[str, deque[Left]] = {topic: deque() for topic in self._ends}
        oldest_ns = self.now_ns - int(self._counted_s * NS_PER_S)
        for topic in self._ends:
            if topic not in self._done:
                self._done[topic] = await position_at(self._journal, topic, oldest_ns) - 1
        while True:
            for topic, end in self._ends.items():
                while not ready[topic] and self._done[topic] < end:
                    ready[topic] += await self._read(topic, end)
            waiting = [topic for topic in self._ends if ready[topic]]
            if not waiting:
                return
            yield ready[min(waiting, key=lambda topic: ready[topic][0].at_ns)].popleft()

    async def _read(self, topic: str, end: int) -> list[Left]:
        entries = await self._journal.read(
            topic, self._done[topic], _READ_AT_ONCE, {Kind.COMMANDS, Kind.PHASES}
        )
        line = self._lines[topic]
        left: list[Left] = []
        for entry in entries:
            if entry.position > end:
                break
            if isinstance(entry.body, Commands):
                left += line.take(entry.body)
            elif isinstance(entry.body, Phases) and entry.writer == WRITER:
                left += line.hear(entry.body)
        self._done[topic] = min(entries[-1].position, end) if entries else end
        return left + line.end() if self._done[topic] == end else left
