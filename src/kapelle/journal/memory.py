"""The journal in memory, for tests and simulation: same codec, same rules, no disk, no threads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kapelle.errors import KapelleError
from kapelle.journal.codec import decode, encode
from kapelle.journal.leases import Held, step_acquire, step_release, step_renew
from kapelle.journal.lines import Line, TopicState, step_append, step_mark, step_trim, step_unmark
from kapelle.journal.wakes import Wakes
from kapelle.model.entries import KIND_OF, Body, Entry, Kind
from kapelle.ports import Clock, Lease, Snapshot

_BATCH = 512
_GENERATIONS = 2


@dataclass(frozen=True, slots=True)
class _Stored:
    kind: Kind
    writer: str
    epoch: int
    at_ns: int
    encoded: bytes


@dataclass(slots=True)
class _Topic:
    state: TopicState = field(default_factory=TopicState)
    held: list[_Stored | Entry] = field(default_factory=list)
    """From `state.trimmed + 1` on. An entry takes its bytes' place when it is first read."""
    snapshots: list[Snapshot] = field(default_factory=list)


class MemoryJournal:
    """Everything lives as long as this object: a role that restarts finds it as it left it."""

    def __init__(self, clock: Clock) -> None:
        self.refusing: KapelleError | None = None
        """Raised by every write while set: a disk that is full or has failed, in simulations."""
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        self._leases: dict[str, Held] = {}
        self._wakes = Wakes()

    async def append(
        self,
        topic: str,
        bodies: Sequence[Body],
        *,
        writer: str,
        epoch: int = 0,
        expected: int | None = None,
    ) -> int:
        """See `ports.Journal`. Others run before it returns, as they would during a commit."""
        assert bodies, "an append of nothing"
        self._check_writable()
        encoded = [encode(body) for body in bodies]
        log = self._topics.get(topic) or _Topic()
        log.state = step_append(topic, log.state, len(bodies), writer, epoch, expected)
        self._topics[topic] = log
        at_ns, last = self._clock.now_ns(), log.state.last
        log.held += [
            _Stored(KIND_OF[type(body)], writer, epoch, at_ns, blob)
            for body, blob in zip(bodies, encoded, strict=True)
        ]
        self._wakes.wake((topic,))
        await asyncio.sleep(0)
        return last

    async def follow(
        self, topic: str, after: int, kinds: Collection[Kind] | None = None
    ) -> AsyncIterator[list[Entry]]:
        """See `ports.Journal`."""
        while True:
            end = min(after + _BATCH, self._state(topic).last)
            end = max(end, min(self._state(topic).trimmed, self._state(topic).last))
            if end <= after:
                await self._wakes.wait(topic)
                continue
            entries = self._between(topic, after, end, kinds)
            after = end
            if entries:
                yield entries
                # Whoever catches up would never let others run.
                await asyncio.sleep(0)

    async def read(
        self, topic: str, after: int, limit: int, kinds: Collection[Kind] | None = None
    ) -> list[Entry]:
        """See `ports.Journal`."""
        last, found = self._state(topic).last, list[Entry]()
        while after < last and len(found) < limit:
            end = min(last, after + _BATCH)
            found += self._between(topic, after, end, kinds)
            after = end
        return found[:limit]

    async def last(self, topic: str, writer: str | None = None) -> int:
        """See `ports.Journal`."""
        state = self._state(topic)
        return state.last if writer is None else state.lines.get(writer, Line()).last

    async def first(self, topic: str) -> int:
        """See `ports.Journal`."""
        return self._state(topic).trimmed + 1

    async def trim(self, topic: str, through: int) -> None:
        """See `ports.Journal`."""
        log = self._topics.get(topic)
        if log is not None:
            before = log.state.trimmed
            log.state = step_trim(log.state, through)
            del log.held[: log.state.trimmed - before]

    async def mark(self, topic: str, reader: str, position: int) -> None:
        """See `ports.Journal`."""
        self._check_writable()
        log = self._topics.setdefault(topic, _Topic())
        log.state = step_mark(log.state, reader, position)

    async def unmark(self, topic: str, reader: str) -> None:
        """See `ports.Journal`."""
        self._check_writable()
        log = self._topics.get(topic)
        if log is not None:
            log.state = step_unmark(log.state, reader)

    async def marks(self, topic: str) -> Mapping[str, int]:
        """See `ports.Journal`."""
        return dict(self._state(topic).marks)

    async def save_snapshot(
        self, topic: str, snapshot: Snapshot, *, released: Callable[[], None] | None = None
    ) -> None:
        """See `ports.Journal`."""
        self._check_writable()
        log = self._topics.setdefault(topic, _Topic())
        # By position: an owner that was replaced and does not know it yet may come late.
        others = [held for held in log.snapshots if held.position != snapshot.position]
        ordered = sorted([*others, _copy(snapshot)], key=lambda held: held.position)
        log.snapshots = ordered[-_GENERATIONS:]
        if released is not None:
            released()

    async def load_snapshot(self, topic: str) -> Snapshot | None:
        """See `ports.Journal`. The caller may write into the columns."""
        log = self._topics.get(topic)
        return _copy(log.snapshots[-1]) if log is not None and log.snapshots else None

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `ports.Journal`."""
        self._check_writable()
        held = self._leases.get(name, Held())
        held = step_acquire(held, name, holder, ttl_s, self._clock.now_ns())
        self._leases[name] = held
        return Lease(name, holder, held.epoch)

    async def renew(self, lease: Lease, ttl_s: float) -> None:
        """See `ports.Journal`."""
        self._check_writable()
        held = self._leases.get(lease.name, Held())
        self._leases[lease.name] = step_renew(held, lease, ttl_s, self._clock.now_ns())

    async def release(self, lease: Lease) -> None:
        """See `ports.Journal`."""
        self._leases[lease.name] = step_release(self._leases.get(lease.name, Held()), lease)

    def holder(self, name: str) -> str:
        """Return who holds a lease, or held it last; empty where nobody does."""
        return self._leases.get(name, Held()).holder

    def damage(self) -> Sequence[str]:
        """See `ports.Journal`. Nothing is damaged here."""
        return ()

    def _state(self, topic: str) -> TopicState:
        log = self._topics.get(topic)
        return log.state if log is not None else TopicState()

    def _check_writable(self) -> None:
        if self.refusing is not None:
            raise self.refusing.with_traceback(None)

    def _between(
        self, topic: str, after: int, end: int, kinds: Collection[Kind] | None
    ) -> list[Entry]:
        log = self._topics[topic]
        skipped, entries = log.state.trimmed + 1, list[Entry]()
        for place in range(max(0, after + 1 - skipped), end + 1 - skipped):
            stored = log.held[place]
            if kinds is not None and stored.kind not in kinds:
                continue
            if isinstance(stored, _Stored):
                stored = log.held[place] = _entry(topic, skipped + place, stored)
            entries.append(stored)
        return entries


def _entry(topic: str, position: int, stored: _Stored) -> Entry:
    return Entry(
        topic,
        position,
        stored.kind,
        stored.writer,
        stored.epoch,
        stored.at_ns,
        decode(stored.kind, stored.encoded),
    )


def _copy(snapshot: Snapshot) -> Snapshot:
    columns = {name: np.array(column) for name, column in snapshot.columns.items()}
    return Snapshot(snapshot.position, columns, snapshot.meta)
