"""Checks a run against its whole journal: nothing lost, nothing twice, nothing forgotten."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np

from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.columns import Fleet, column_specs
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.readings import apply_readings
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.snapshots import digest, from_snapshot, to_snapshot
from kapelle.model.blocks import Acks, Commands, Phases, Quarantined, Readings
from kapelle.model.entries import Entry
from kapelle.model.enums import Metric, Phase
from kapelle.model.ids import NS_PER_S, Bytes, Ints, Longs, partition_topic
from kapelle.model.plant import Tick
from kapelle.ports import Snapshot
from kapelle.sim.disk import Disk
from kapelle.sim.telemetry import COUNTERS, marks

_CARRIED_OUT = (Phase.ACCEPTED, Phase.APPLIED, Phase.VERIFIED, Phase.COMPLETED)
_IS_OPEN = np.isin(np.arange(32), [Phase.PLANNED, Phase.SENT, Phase.RECEIVED])
_RANK = np.zeros(32, np.int64)
"""How far along the funnel each phase is; 0 for its exits, which may be reopened."""
_RANK[[Phase.PLANNED, Phase.SENT, Phase.RECEIVED, *_CARRIED_OUT]] = range(1, 8)
_OWNERS = ("owner", "dispatch")
_OVERTAKEN_NS_MIN = int(DispatchSettings().overtake_s * NS_PER_S)
"""A setpoint on its way is not replaced by another sooner than this."""
_AGAIN_BLOCKS = 50
_WEEK_NS = 7 * 86_400 * NS_PER_S
_REPEATS = ("duplicates", "undecided")
"""All that reports sent again may change."""
_NOBODY = np.empty(0, np.int32)
_STRANDED_S = 30.0
"""An open command must have come to an end this long after its expiry. [s]"""


@dataclass(slots=True)
class Audit:
    """What the journal shows of a run."""

    fleets: list[Fleet] = field(default_factory=list)
    """Every partition, folded from its first entry."""
    phases: Counter[str] = field(default_factory=Counter)
    """The last phase of every command there was."""
    tries: int = 0
    """Commands sent, counting each try."""
    stranded: int = 0
    readings: int = 0
    """Rows in the journal, repeats included."""
    quarantined: int = 0
    """Rows in the journal that could not be used."""
    lost: int = 0
    """Accepted readings that are not in the journal, or not in the state made from it."""
    applied_twice: int = 0
    """Old or repeated readings that changed the state."""
    overlapped: int = 0
    """Commands given while the one before was on its way and still in time."""
    backwards: int = 0
    """Commands that fell back to an earlier phase."""
    epochs: dict[tuple[str, str], int] = field(default_factory=dict)
    """Highest epoch seen of each owner's line."""
    problems: list[str] = field(default_factory=list)

    @property
    def state_hash(self) -> str:
        """Return one fingerprint of all partitions."""
        hashed = blake2b(digest_size=16)
        for fleet in self.fleets:
            hashed.update(digest(fleet).encode())
        return hashed.hexdigest()

    def commands(self) -> dict[str, int]:
        """Return how many commands ended how; `completed` are all that were carried out."""
        counts = {name.lower(): count for name, count in self.phases.items()}
        done = sum(self.phases[phase.name] for phase in _CARRIED_OUT)
        return counts | {"completed": done, "tries": self.tries}


async def audit(
    disk: Disk,
    partitions: int,
    accepted: Sequence[Longs],
    places: Ints,
    settings: FleetSettings,
) -> Audit:
    """Fold every partition from its first entry, and compare.

    Args:
        disk: With every entry since the start.
        partitions: How many.
        accepted: What the devices were told is safe, as `Ledger.kept` has it.
        places: Place in the fleet of each device number.
        settings: What the plant folded with.
    """
    found = Audit()
    stored: list[Longs] = []
    journal_rows: list[list[Readings]] = []
    for partition in range(partitions):
        told: list[Readings] = []
        journal_rows.append(told)
        fleet = Fleet.empty(partition, partitions)
        topic = partition_topic(partition)
        restored = await disk.journal.load_snapshot(topic)
        for entry in await disk.read_all(topic):
            if isinstance(entry.body, Readings):
                told.append(entry.body)
            elif isinstance(entry.body, Quarantined):
                found.quarantined += len(entry.body)
            _step(found, fleet, entry, settings, places, stored)
            at_snapshot = restored is not None and entry.position == restored.position
            if restored is not None and at_snapshot and not _same(restored, fleet):
                found.problems.append(f"{topic}: snapshot and replay differ")
        _close(found, fleet)
        found.fleets.append(fleet)
    kept = np.unique(np.concatenate([np.empty(0, np.int64), *accepted]))
    held = np.unique(np.concatenate([np.empty(0, np.int64), *stored]))
    _send_again(found, journal_rows, settings)
    found.lost = len(np.setdiff1d(kept, held, assume_unique=True)) + _unfolded(found, kept, places)
    return found


async def audit_commands(disk: Disk, partitions: int, settings: FleetSettings) -> Audit:
    """Fold only what was asked of devices and what became of it; readings are left out.

    The fleets of the result know neither readings nor estimates.
    """
    found = Audit()
    for partition in range(partitions):
        fleet = Fleet.empty(partition, partitions)
        for entry in await disk.read_all(partition_topic(partition)):
            match entry.body:
                case Readings():
                    continue
                case Tick() as tick:
                    fleet.now_ns = max(fleet.now_ns, tick.now_ns)
                case _:
                    _step(found, fleet, entry, settings, _NOBODY, [])
        _close(found, fleet)
        found.fleets.append(fleet)
    return found


def _send_again(found: Audit, told: list[list[Readings]], settings: FleetSettings) -> None:
    """Send a slice of what was stored once more, a week later: nothing may change (R-26)."""
    for fleet, blocks in zip(found.fleets, told, strict=True):
        again = from_snapshot(to_snapshot(fleet))
        for block in blocks[len(blocks) // 3 : len(blocks) // 3 + _AGAIN_BLOCKS]:
            late = replace(block, received_at_ns=block.received_at_ns + _WEEK_NS)
            apply_readings(again, late, settings)
        after, before = to_snapshot(again).columns, to_snapshot(fleet).columns
        changed = [
            name
            for name in column_specs()
            if name not in _REPEATS and after[name].tobytes() != before[name].tobytes()
        ]
        if changed:
            topic = partition_topic(fleet.partition)
            found.problems.append(f"{topic}: sent again, reports change {', '.join(changed)}")


def _same(restored: Snapshot, fleet: Fleet) -> bool:
    return digest(from_snapshot(restored)) == digest(fleet)


def _step(
    found: Audit,
    fleet: Fleet,
    entry: Entry,
    settings: FleetSettings,
    places: Ints,
    stored: list[Longs],
) -> None:
    if entry.writer in _OWNERS:
        line = (entry.topic, entry.writer)
        if entry.epoch < found.epochs.get(line, 0):
            found.problems.append(f"{entry.topic}: {entry.writer} of the past at {entry.position}")
        found.epochs[line] = max(entry.epoch, found.epochs.get(line, 0))
    match entry.body:
        case Readings() as readings:
            stored.append(marks(places[readings.device_no], readings.order))
            found.readings += len(readings)
            _apply_watched(found, fleet, entry, readings, settings)
            return
        case Commands() as commands:
            rows = fleet.rows(commands.device_no)
            newer = commands.revision > fleet.revision[rows]
            _count(found, fleet.phase[rows[newer]])
            found.tries += len(commands)
            _watch_commands(found, fleet, entry, commands)
        case Acks() | Phases() as told:
            phase, revision = _present(fleet, told.device_no)
            apply_entry(fleet, entry, settings)
            after, same = _present(fleet, told.device_no)
            fell = (same == revision) & (_RANK[after] > 0) & (_RANK[after] < _RANK[phase])
            found.backwards += int(fell.sum())
            return
        case _:
            pass
    before_ns = fleet.now_ns
    apply_entry(fleet, entry, settings)
    if fleet.now_ns < before_ns:
        found.problems.append(f"{entry.topic}: the time went back at {entry.position}")


def _watch_commands(found: Audit, fleet: Fleet, entry: Entry, commands: Commands) -> None:
    if (commands.epoch != entry.epoch).any():
        found.problems.append(f"{entry.topic}: foreign epoch in commands at {entry.position}")
    if len(np.unique(commands.device_no)) < len(commands):
        found.problems.append(f"{entry.topic}: one device asked twice at {entry.position}")
    rows = fleet.rows(commands.device_no)
    newer = commands.revision > fleet.revision[rows]
    open_ = _IS_OPEN[fleet.phase[rows]] & (fleet.not_after_ns[rows] > fleet.now_ns)
    young = fleet.now_ns - fleet.tried_at_ns[rows] < _OVERTAKEN_NS_MIN
    # Nobody waits for the answer to a release, nor with one; an order that ends goes first too.
    setpoint = ~np.isnan(commands.setpoint_w) & ~np.isnan(fleet.desired_w[rows])
    setpoint &= commands.order_no == fleet.order_no[rows]
    found.overlapped += int((newer & open_ & young & setpoint).sum())


def _present(fleet: Fleet, device_no: Ints) -> tuple[Bytes, Longs]:
    rows = np.clip(fleet.rows(device_no), 0, max(fleet.size - 1, 0))
    return fleet.phase[rows], fleet.revision[rows]


def _apply_watched(
    found: Audit, fleet: Fleet, entry: Entry, readings: Readings, settings: FleetSettings
) -> None:
    """Apply readings; those no newer than what is known must leave the state as it is."""
    rows, back = np.unique(fleet.rows(readings.device_no), return_inverse=True)
    newest = np.full(len(rows), np.iinfo(np.int64).min)
    np.maximum.at(newest, back, readings.order)
    # Everybody here counts boots and reports, which makes negative numbers; 0 is nothing yet. What
    # the newest report did not say, an older one may.
    held, before = fleet.order[:, rows], fleet.value[:, rows]
    floor_ns = fleet.floor_ns[rows]
    old = (newest <= held) & (held < 0)
    apply_entry(fleet, entry, settings)
    # Whose counters have just proved to begin anew is new with them.
    old &= fleet.floor_ns[rows] == floor_ns
    # Bytes, because NaN is not equal to itself.
    changed = fleet.value[:, rows].view(np.int64) != before.view(np.int64)
    found.applied_twice += int((old & changed).sum())


def _count(found: Audit, phases: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
    for phase, count in zip(*np.unique(phases[phases > 0], return_counts=True), strict=True):
        found.phases[Phase(int(phase)).name] += int(count)


def _close(found: Audit, fleet: Fleet) -> None:
    """Count what is still open at the end, and what should not be any more."""
    phase = fleet.phase[: fleet.size]
    _count(found, phase)
    over_ns = fleet.not_after_ns[: fleet.size] + round(_STRANDED_S * NS_PER_S)
    found.stranded += int((_IS_OPEN[phase] & (over_ns < fleet.now_ns)).sum())


def _unfolded(found: Audit, kept: Longs, places: Ints) -> int:
    """Count devices whose newest accepted reading the state does not know."""
    newest = np.full(int(places.max(initial=-1)) + 1, -1, np.int64)
    np.maximum.at(newest, kept >> 40, kept & COUNTERS)
    missing = 0
    for fleet in found.fleets:
        device_no = fleet.device_nos(np.arange(fleet.size, dtype=np.int32))
        place = np.where(
            device_no < len(places), places[np.minimum(device_no, len(places) - 1)], -1
        )
        known = place >= 0
        held = fleet.order[Metric.POWER_W, : fleet.size][known] & COUNTERS
        # Whose counters began again has lower ones now.
        again = fleet.floor_ns[: fleet.size][known] > 0
        behind = (held < newest[place[known]]) & ~again
        missing += int(behind.sum())
    return missing
