"""Turns what links received into what the journal gets: bodies per partition, and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kapelle.ingest.breaker import Breaker, Mute
from kapelle.ingest.check import check
from kapelle.ingest.partition import Block, join, split, take
from kapelle.ingest.settings import IngestSettings
from kapelle.model.blocks import Mutings, Quarantined, Readings
from kapelle.model.entries import Body
from kapelle.ports import Batch, Directory


@dataclass(slots=True)
class Prepared:
    """One commit: what to append where, and what to tell the links afterwards."""

    bodies: dict[int, list[Body]] = field(default_factory=dict)
    """Per partition, in the order they are appended."""
    verdicts: list[tuple[Batch, Mapping[int, str]]] = field(default_factory=list)
    """Each batch with its refused rows, and why."""
    accepted: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    """Rows kept in quarantine, by the code of their reason."""
    muted: int = 0
    """Rows that were counted and not kept."""
    newly_muted: list[Mute] = field(default_factory=list)


def prepare(
    batches: Sequence[Batch],
    directory: Directory,
    breaker: Breaker,
    settings: IngestSettings,
    now_ns: int,
) -> Prepared:
    """Check what came in and sort it by partition. One batch is a sequence of one."""
    prepared = Prepared()
    refuse: list[Quarantined] = [b.unreadable for b in batches if b.unreadable is not None]
    kept = _check_readings(batches, directory, settings, prepared, refuse)
    _add(prepared, [b.sessions for b in batches if b.sessions is not None], directory.partitions)
    _add(prepared, [b.acks for b in batches if b.acks is not None], directory.partitions)
    _add(prepared, kept, directory.partitions)
    prepared.accepted = sum(len(block) for block in kept)
    _add(prepared, _quarantine(refuse, breaker, prepared, now_ns), directory.partitions)
    _add(prepared, _mutings(prepared.newly_muted, now_ns), directory.partitions)
    return prepared


def _check_readings(
    batches: Sequence[Batch],
    directory: Directory,
    settings: IngestSettings,
    prepared: Prepared,
    refuse: list[Quarantined],
) -> list[Readings]:
    """Check all readings as one block, hand each batch its verdict, return what is usable."""
    blocks = [b.readings for b in batches if b.readings is not None and len(b.readings)]
    if not blocks:
        prepared.verdicts = [(batch, {}) for batch in batches]
        return []
    block = join(blocks)
    checked = check(block, directory.nameplate(block.device_no), settings)
    start = 0
    refused = sorted(checked.refused.items())
    place = 0
    for batch in batches:
        end = start + (len(batch.readings) if batch.readings is not None else 0)
        mine: dict[int, str] = {}
        while place < len(refused) and refused[place][0] < end:
            mine[refused[place][0] - start] = refused[place][1]
            place += 1
        prepared.verdicts.append((batch, mine))
        if mine and batch.readings is not None:
            refuse.append(_as_quarantined(batch, batch.readings, mine, settings))
        start = end
    return [checked.kept] if len(checked.kept) else []


def _as_quarantined(
    batch: Batch, readings: Readings, refused: Mapping[int, str], settings: IngestSettings
) -> Quarantined:
    rows = np.fromiter(refused, np.intp, len(refused))
    raw = batch.raw if batch.raw is not None else _nothing
    return Quarantined(
        device_no=readings.device_no[rows],
        received_at_ns=readings.received_at_ns[rows],
        source=(batch.source.encode(),) * len(rows),
        reason=tuple(reason.encode() for reason in refused.values()),
        raw=tuple(raw(row)[: settings.raw_bytes_max] for row in refused),
    )


def _quarantine(
    refuse: Sequence[Quarantined], breaker: Breaker, prepared: Prepared, now_ns: int
) -> list[Quarantined]:
    """Keep what the circuit breaker lets through, and count everything."""
    blocks = [block for block in refuse if len(block)]
    if not blocks:
        return []
    block = join(blocks)
    keep, prepared.newly_muted = breaker.step(block.device_no, now_ns)
    kept = block if keep.all() else take(block, np.flatnonzero(keep))
    prepared.muted = len(block) - len(kept)
    for reason in kept.reason:
        code = code_of(reason.decode(errors="replace"))
        prepared.quarantined[code] = prepared.quarantined.get(code, 0) + 1
    return [kept] if len(kept) else []


def _mutings(muted: Sequence[Mute], now_ns: int) -> list[Mutings]:
    known = [mute for mute in muted if mute.device_no >= 0]
    if not known:
        return []
    return [
        Mutings(
            device_no=np.array([mute.device_no for mute in known], np.int32),
            at_ns=np.full(len(known), now_ns, np.int64),
            until_ns=np.array([mute.until_ns for mute in known], np.int64),
        )
    ]


def code_of(reason: str) -> str:
    """Return the stable part of a reason: `power-unit` of `power-unit: 5000000 W …`."""
    return reason.partition(":")[0][:40]


def _add(prepared: Prepared, blocks: Sequence[Block], partitions: int) -> None:
    if blocks:
        for partition, part in split(join(blocks), partitions):
            prepared.bodies.setdefault(partition, []).append(part)


def _nothing(_: int) -> bytes:
    return b""
