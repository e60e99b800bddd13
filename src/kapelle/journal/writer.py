"""The one thread that writes: everything waiting becomes one transaction."""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from kapelle.errors import JournalFailed, JournalFull, KapelleError
from kapelle.journal.codec import checksum
from kapelle.journal.leases import Held
from kapelle.journal.lines import TopicState, step_append, step_mark, step_trim, step_unmark
from kapelle.journal.reserve import Reserve
from kapelle.journal.rows import Row, place
from kapelle.journal.settings import JournalSettings
from kapelle.journal.store import Change, Found, Store, failed, is_full
from kapelle.model.entries import Kind
from kapelle.model.ids import NS_PER_S
from kapelle.runtime.clock import SystemClock

_ESSENTIAL = frozenset({Kind.HOLD, Kind.CANCEL, Kind.AMEND, Kind.PHASES, Kind.NOTICE, Kind.PLAN})
"""What may use the reserve when the disk is full: what stops the plant or tells what it did."""
_TRIM_ROWS = 250
"""Entries deleted in one go, so that appends never wait long behind a trim."""


@dataclass(slots=True)
class Append:
    """Encoded bodies on their way to the disk."""

    topic: str
    bodies: list[tuple[Kind, bytes, int]]
    """Kind, bytes, CRC-32 of the bytes."""
    writer: str
    epoch: int
    expected: int | None
    at_ns: int
    size: int


@dataclass(slots=True)
class Trim:
    """Entries to forget."""

    topic: str
    through: int
    size: int = 0


@dataclass(slots=True)
class Mark:
    """Up to where a reader has taken over all; None: it will not come back."""

    topic: str
    reader: str
    position: int | None
    size: int = 0


@dataclass(slots=True)
class Leasing:
    """A change of one lease."""

    name: str
    step: Callable[[Held], Held]
    size: int = 0


Request = Append | Trim | Mark | Leasing


@dataclass(slots=True)
class Outcome:
    """What became of a group, in the order it was asked for."""

    results: list[int | Held | KapelleError] = field(default_factory=list)
    """Last position of an append, the lease, or why not."""
    topics: dict[str, TopicState] = field(default_factory=dict)
    """Topics as they stand now, where they moved."""
    rows: dict[str, list[Row]] = field(default_factory=dict)
    failure: str = ""
    """Why nothing is written any more, from the moment the disk failed."""


class Writer:
    """Owns the writing connection. Requests go in by `put`, outcomes come out by `settle`."""

    def __init__(
        self,
        store: Store,
        found: Found,
        reserve: Reserve,
        settings: JournalSettings,
        path: Path,
        settle: Callable[[Outcome], None],
    ) -> None:
        self._store = store
        self._watch = SystemClock()
        self._topics = dict(found.topics)
        self._leases = dict(found.leases)
        self._reserve = reserve
        self._settings = settings
        self._path = path
        self._settle = settle
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        # A trim that a crash cut short goes on.
        self._trims = dict.fromkeys(topic for topic, s in found.topics.items() if s.trimmed)
        self._failure = ""
        self._full = not reserve.hold()
        self._log_bytes = 0
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def put(self, request: Request) -> None:
        """Hand over a request; its result is part of a later outcome, in order."""
        self._queue.put(request)

    def open_reserve(self) -> None:
        """The disk is full for others too: refuse what is not essential, and give up the reserve.

        Called by other threads.
        """
        self._full = True
        self._reserve.release()

    def stop(self, timeout_s: float) -> bool:
        """Finish what was handed over and end; return whether it did in time."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._take()
            if group:
                self._settle(self._perform(group))
            if not self._failure:
                self._keep_house(whole=not going)

    def _take(self) -> tuple[list[Request], bool]:
        """Wait for a request, then take everything that waits behind it, up to a size."""
        group: list[Request] = []
        size = 0
        try:
            while size < self._settings.group_bytes:
                request = self._queue.get(block=not group and not self._trims)
                if request is None:
                    return group, False
                group.append(request)
                size += request.size
        except Empty:
            pass
        return group, True

    def _perform(self, group: list[Request]) -> Outcome:
        if self._failure:
            return self._failed(len(group))
        if self._full and self._reserve.hold():
            self._full = False
        began_ns = self._watch.now_ns()
        try:
            try:
                return self._commit(group)
            except sqlite3.Error as error:
                if not is_full(error):
                    raise
                # The reserve now serves what is essential; the rest of the group is refused.
                self.open_reserve()
            return self._commit(group)
        except sqlite3.Error as error:
            if is_full(error):
                return Outcome([self._refusal()] * len(group))
            self._fail(error)
        except Exception as error:  # noqa: BLE001 -- outermost line of the thread: nobody else could say it
            self._failure = f"{self._path}: the writer stopped: {error!r}"
        finally:
            took_s = (self._watch.now_ns() - began_ns) / NS_PER_S
            self._store.timings.commit_s.observe(took_s)
        return self._failed(len(group))

    def _fail(self, error: sqlite3.Error) -> None:
        self._failure = str(failed(error, self._path))
        self._store.abandon()

    def _failed(self, count: int) -> Outcome:
        results: list[int | Held | KapelleError] = []
        results += (JournalFailed(self._failure) for _ in range(count))
        return Outcome(results, failure=self._failure)

    def _commit(self, group: list[Request]) -> Outcome:
        change, outcome, leases = Change(), Outcome(), dict[str, Held]()
        for request in group:
            try:
                if self._full and not _is_essential(request):
                    raise self._refusal()
                match request:
                    case Append():
                        outcome.results.append(self._plan_append(request, change, outcome))
                    case Trim():
                        outcome.results.append(self._plan_trim(request, change, outcome))
                    case Mark():
                        outcome.results.append(self._plan_mark(request, change, outcome))
                    case Leasing():
                        held = leases.get(request.name) or self._leases.get(request.name, Held())
                        leases[request.name] = held = request.step(held)
                        outcome.results.append(held)
            except KapelleError as error:
                outcome.results.append(error)
        change.leases = leases
        if change.rows or change.trimmed or change.marks or leases:
            self._store.write(change)
        self._topics |= outcome.topics
        self._leases |= leases
        self._log_bytes += sum(len(row[-1]) + 200 for row in change.rows) + 20_000
        self._trims |= dict.fromkeys(topic for topic, t in change.trimmed.items() if t)
        return outcome

    def _plan_append(self, request: Append, change: Change, outcome: Outcome) -> int:
        topic, writer, epoch = request.topic, request.writer, request.epoch
        known = outcome.topics.get(topic) or self._topics.get(topic)
        state = known or TopicState()
        position = state.last
        state = step_append(topic, state, len(request.bodies), writer, epoch, request.expected)
        topic_id = self._store.id_of(topic)
        rows = outcome.rows.setdefault(topic, [])
        for kind, body, body_crc in request.bodies:
            position += 1
            crc = checksum(topic, position, kind, writer, epoch, request.at_ns, body_crc)
            row = (place(topic_id, position), int(kind), writer, epoch, request.at_ns, crc, body)
            rows.append(row)
            change.rows.append(row)
        if known is None:
            change.trimmed[topic] = 0
        change.lines[topic, writer] = state.lines[writer]
        outcome.topics[topic] = state
        return position

    def _plan_trim(self, request: Trim, change: Change, outcome: Outcome) -> int:
        state = outcome.topics.get(request.topic) or self._topics.get(request.topic)
        if state is None:
            return 0
        state = outcome.topics[request.topic] = step_trim(state, request.through)
        change.trimmed[request.topic] = state.trimmed
        return state.trimmed

    def _plan_mark(self, request: Mark, change: Change, outcome: Outcome) -> int:
        topic, reader = request.topic, request.reader
        known = outcome.topics.get(topic) or self._topics.get(topic)
        if request.position is None:
            if known is not None:
                outcome.topics[topic] = step_unmark(known, reader)
                change.marks[topic, reader] = None
            return 0
        if known is None:
            change.trimmed[topic] = 0
        state = outcome.topics[topic] = step_mark(known or TopicState(), reader, request.position)
        change.marks[topic, reader] = state.marks[reader]
        return state.marks[reader]

    def _keep_house(self, *, whole: bool) -> None:
        if self._trims:
            self._trim_some()
        if not self._failure:
            self._keep_log_short(whole=whole)
        if self._failure:
            self._settle(self._failed(0))

    def _trim_some(self) -> None:
        """Delete a few of the entries that were already declared forgotten."""
        topic = next(iter(self._trims))
        done = False
        try:
            done = self._store.delete(topic, self._topics[topic].trimmed, _TRIM_ROWS) < _TRIM_ROWS
        except sqlite3.Error as error:
            if not is_full(error):
                self._fail(error)
            done = True
        if done:
            del self._trims[topic]
        self._log_bytes += 10 * 8192

    def _keep_log_short(self, *, whole: bool) -> None:
        if not whole and self._log_bytes < self._settings.wal_bytes:
            return
        try:
            # Readers can hold a part of the log back; when that adds up, they are waited for.
            behind = self._store.log_bytes() > 4 * self._settings.wal_bytes
            self._store.checkpoint(whole=whole or behind)
        except sqlite3.Error as error:
            if not is_full(error):
                self._fail(error)
            elif not self._full:
                self.open_reserve()
        self._log_bytes = 0

    def _refusal(self) -> JournalFull:
        free, kept = self._reserve.free_bytes() >> 20, self._settings.reserve_bytes >> 20
        return JournalFull(
            f"the disk under {self._path} is full ({free} MiB free, of which {kept} MiB are kept "
            "for shutting down); free space there, writing resumes by itself"
        )


def _is_essential(request: Request) -> bool:
    match request:
        case Append():
            return all(kind in _ESSENTIAL for kind, _, _ in request.bodies)
        case Leasing() | Trim() | Mark():
            return True
