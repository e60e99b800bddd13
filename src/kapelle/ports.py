"""Every door to the outside. Rooms know these protocols; `app` decides who stands behind them."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kapelle.model.blocks import Acks, Commands, Quarantined, Readings, Sessions
from kapelle.model.entries import Body, Entry, Kind
from kapelle.model.ids import DeviceId, DeviceNo, Flags, Floats, Ints, Longs


class Clock(Protocol):
    """The time, and waiting for it."""

    def now_ns(self) -> int:
        """Return UTC in ns. Never goes back while the process lives."""

    def not_before(self, utc_ns: int) -> None:
        """Go on from this moment where it is later: time already journalled has passed."""

    async def sleep(self, seconds: float) -> None:
        """Wait this long in elapsed time, whatever happens to the wall clock."""


class Places(NamedTuple):
    """Where devices belong: a `label_key` each, of no label where the number is unknown."""

    site: Longs
    feeder: Longs
    zone: Longs
    switched: Flags
    """Whether the device is of a kind that is on or off."""


class Directory(Protocol):
    """Who is who: names, numbers, credentials and ratings of enrolled devices, held in memory."""

    partitions: int
    version: int
    """Changes whenever an answer may have changed, for those who remember answers."""

    def resolve(self, names: Sequence[str]) -> Ints:
        """Return the number of each device name, -1 where nobody bears it."""

    def name(self, device_no: int) -> DeviceId:
        """Return the name of an enrolled device. Raises KeyError where there is none."""

    def authenticate(self, name: str, secret: str) -> DeviceNo | None:
        """Return the device these credentials belong to, or None, in the same time."""

    def generation(self, device_no: Ints) -> Ints:
        """Return a number for each device that changes with its name, its credentials and its
        removal; -1 where the number is unknown. For those who authenticated it once."""

    def nameplate(self, device_no: Ints) -> tuple[Floats, Floats]:
        """Return nameplate up and down of each device. [W] NaN where the number is unknown."""

    def places(self, device_no: Ints) -> Places:
        """Return where each device is, or was when it was removed, and whether it is switched."""

    def everyone(self) -> Ints:
        """Return the number of every enrolled device, rising."""

    def reached_by(self, adapter: str) -> Mapping[str, int]:
        """Return, of the devices an adapter other than MQTT or HTTP reaches, the number of each by
        its address: what its protocol calls it, its own name where it was enrolled without one."""

    def adapters(self) -> Mapping[str, int]:
        """Return how many devices are enrolled under each adapter other than MQTT and HTTP."""


@dataclass(slots=True, eq=False)
class Batch:
    """What a link received since the last time it was asked. One is a batch of one."""

    readings: Readings | None = None
    """`device_no` is -1 where the name could not be resolved; `measured_at_ns` is 0 where the
    device sent no time."""
    raw: Callable[[int], bytes] | None = None
    """Returns what was sent for a row of `readings`, for the quarantine."""
    source: str = ""
    """Adapter and, where one peer sent it all, the peer."""
    unreadable: Quarantined | None = None
    acks: Acks | None = None
    sessions: Sessions | None = None
    receipt: object = None
    """Whatever the link needs to acknowledge the batch; nobody else looks inside."""


class Link(Protocol):
    """An open connection to the devices behind one adapter."""

    def receive(self) -> AsyncIterator[Batch]:
        """Yield what has arrived, in batches, for as long as the link is up.

        At most a bounded amount waits inside; then the link stops reading from its peers.
        Raises LinkLost when the connection behind it is gone.
        """

    def confirm(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """Acknowledge a batch: the journal has it. `refused`: rows in quarantine, and why."""

    def decline(self, batch: Batch, reason: str) -> None:
        """Do not acknowledge a batch: it is not in the journal. The peers will send it again."""

    async def send(self, commands: Commands) -> Flags:
        """Hand each command to its device's transport; return which rows were written.

        False where the device has no session here or its queue is full. Writing is not delivery.
        """


class Adapter(Protocol):
    """One protocol."""

    name: str

    def open(self) -> AbstractAsyncContextManager[Link]:
        """Listen or connect. Every error of the libraries behind it leaves as LinkLost."""


@runtime_checkable
class Listener(Protocol):
    """An adapter that its peers call, at a port of its own."""

    name: str
    host: str
    port: int
    """0 until it listens."""


@runtime_checkable
class Polled(Protocol):
    """An adapter that its devices poll: they learn of a command when they next look."""

    name: str
    told_within_s: float
    """A device that is there has looked by then. [s]"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of one topic's fold at a position."""

    position: int
    columns: Mapping[str, NDArray[np.generic]]
    meta: bytes
    """Whatever is not a column, as MessagePack."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write as the owner of something, until another takes it."""

    name: str
    holder: str
    epoch: int
    """Strictly rising with every acquisition: the fencing token."""


class Journal(Protocol):
    """The durable, ordered log, the only thing roles share.

    Entries live in topics; within a topic each has the next position. A topic has several writers
    (lines of entries); `expected` guards a line, as JetStream guards a subject.
    """

    async def append(
        self,
        topic: str,
        bodies: Sequence[Body],
        *,
        writer: str,
        epoch: int = 0,
        expected: int | None = None,
    ) -> int:
        """Append all bodies, in order and as one, and return the last one's position once durable.

        Args:
            topic: Where to. Made by its first entry.
            bodies: At least one.
            writer: The line these entries belong to.
            epoch: Fencing token of the writer.
            expected: Position of the last entry of this writer in this topic that the caller
                knows of, 0 for none; not checked when None.

        Raises:
            JournalConflict: The line has moved on from `expected`, or holds a higher epoch.
            JournalFull: No space; nothing was written, and it may be tried again.
            JournalFailed: The disk failed; nothing is acknowledged any more.
        """

    def follow(
        self, topic: str, after: int, kinds: Collection[Kind] | None = None
    ) -> AsyncIterator[list[Entry]]:
        """Yield entries after a position, in order, in batches, without end.

        Entries that are damaged or trimmed away are left out (and reported by `damage`).
        `kinds`: only these; None for all. An empty list is never yielded.
        """

    async def read(
        self, topic: str, after: int, limit: int, kinds: Collection[Kind] | None = None
    ) -> list[Entry]:
        """Return at most `limit` entries after a position."""

    async def last(self, topic: str, writer: str | None = None) -> int:
        """Return the last position of a topic, or of one writer in it; 0 where there is none."""

    async def first(self, topic: str) -> int:
        """Return the first position still held; `last + 1` where all or nothing is left."""

    async def trim(self, topic: str, through: int) -> None:
        """Forget entries up to and including a position, but never beyond what some reader still
        needs (`mark`)."""

    async def mark(self, topic: str, reader: str, position: int) -> None:
        """Say that a reader has taken over all up to a position; returns once durable.

        A reader who has marked a topic, be it with 0, finds everything after its mark.
        """

    async def unmark(self, topic: str, reader: str) -> None:
        """Say that a reader will not come back."""

    async def marks(self, topic: str) -> Mapping[str, int]:
        """Return every reader of a topic and its mark."""

    async def save_snapshot(
        self, topic: str, snapshot: Snapshot, *, released: Callable[[], None] | None = None
    ) -> None:
        """Keep a snapshot; the one before stays as the second generation, older ones go.

        Which is newer is told by position: one who was replaced may save what he had, in vain.

        Its columns must not change until `released` is called or this returns; the latter is when
        it is durable.
        """

    async def load_snapshot(self, topic: str) -> Snapshot | None:
        """Return the newest undamaged snapshot, or None."""

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Take a lease that is free or expired, with the next epoch.

        Raises:
            JournalConflict: Somebody holds it; the message names the holder.
        """

    async def renew(self, lease: Lease, ttl_s: float) -> None:
        """Keep a lease. Raises JournalConflict when it was lost."""

    async def release(self, lease: Lease) -> None:
        """Give a lease back at once."""

    def damage(self) -> Sequence[str]:
        """Return what was found damaged since it was opened: topic, position, what is wrong."""
