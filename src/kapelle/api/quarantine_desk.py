"""Decides about rows in quarantine: looks first, changes then, and writes down who and why."""

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import numpy as np

from kapelle.adapters.http.problems import Fault, Refused
from kapelle.adapters.replay.codec import Again, Item, decode
from kapelle.adapters.replay.fix import Fix
from kapelle.adapters.replay.link import Replay, ReplayFull
from kapelle.api.quarantine_shapes import (
    FIELDS,
    ActionTold,
    DropAsked,
    FilterAsked,
    MutedTold,
    QuarantineCounted,
    QuarantinedTold,
    ReasonCounted,
    ReplayAsked,
    RowDecided,
    SourceCounted,
    fix_of,
)
from kapelle.api.signing import check_author
from kapelle.api.times import to_datetime, to_ns
from kapelle.errors import JournalFull
from kapelle.history.kept import Kept, Query
from kapelle.history.quarantine import Quarantine
from kapelle.ingest.breaker import Breaker
from kapelle.ingest.check import check
from kapelle.ingest.settings import IngestSettings
from kapelle.model.blocks import Mutings
from kapelle.model.ids import PLANT, partition_topic
from kapelle.model.plant import Verdict
from kapelle.ports import Clock, Directory, Journal

_LATEST_NS = 2**63 - 1
_PAGE = 1_000
_PIECE = 100
_ROWS_TOLD = 20
_WRITER = "api"


class Follower(Protocol):
    """Keeps the projection as new as the journal (`history.quarantine_service`)."""

    quarantine: Quarantine

    async def turn(self) -> None:
        """Read all there is."""


@dataclass(frozen=True, slots=True)
class QuarantineDesk:
    """The doors behind the quarantine routes."""

    follower: Follower
    replay: Replay
    journal: Journal
    directory: Directory
    clock: Clock
    ingest: IngestSettings
    breakers: Mapping[str, Breaker]
    """By protocol; read at each request."""
    lock: asyncio.Lock
    """One decision at a time: what the second finds is what the first left."""

    @property
    def quarantine(self) -> Quarantine:
        """The projection."""
        return self.follower.quarantine

    def query(
        self,
        asked: FilterAsked,
        state: Literal["open", "replayed", "dropped", "any"] = "open",
    ) -> Query:
        """Return a filter as the projection takes it. Refuses a device nobody bears."""
        device_no = None
        if asked.device:
            device_no = int(self.directory.resolve([asked.device])[0])
            if device_no < 0:
                raise Refused(404, "device-unknown", f"no enrolled device is {asked.device!r}")
        return Query(
            code=asked.code,
            source=asked.source,
            device_no=device_no,
            state=state,
            since_ns=_bounded_ns(asked.since, 0),
            until_ns=_bounded_ns(asked.until, _LATEST_NS),
        )

    async def every(self, query: Query) -> AsyncIterator[Sequence[Kept]]:
        """Yield the rows of a query, newest first, page by page."""
        before: int | None = None
        while page := self.quarantine.find(query, _PAGE, before):
            yield page
            before = page[-1].seq
            await asyncio.sleep(0)

    async def count(self) -> QuarantineCounted:
        """Count rows by reason and by source, and name the muted."""
        await self.follower.turn()
        counts = self.quarantine.counts()
        return QuarantineCounted(
            open=counts.open,
            rows=counts.rows,
            bytes=counts.size,
            reasons=[
                ReasonCounted(
                    code=code,
                    open=states.get("open", 0),
                    replayed=states.get("replayed", 0),
                    dropped=states.get("dropped", 0),
                    pushed_out=states.get("pushed-out", 0),
                )
                for code, states in counts.by_code.items()
            ],
            sources=[SourceCounted(source=s, open=n) for s, n in counts.by_source.items()],
            muted=self.muted(),
        )

    async def decide(self, asked: DropAsked, person: str) -> ActionTold:
        """Replay or drop rows, or say what would happen.

        Raises:
            Refused: Nothing was asked for, or the journal has no space.
        """
        check_author(asked.author, person)
        fix = asked.fix.to_fix() if isinstance(asked, ReplayAsked) and asked.fix else Fix()
        _check(asked, fix)
        async with self.lock:
            at_ns = self.clock.now_ns()
            await self.follower.turn()
            rows, matched, skipped = self._meant(asked)
            if fix.payload and len(rows) > 1:
                raise Refused(422, "fix-payload", "one row's payload is replaced at a time")
            if isinstance(asked, ReplayAsked):
                found = await self._try(rows, fix, at_ns)
                if not asked.dry_run:
                    found = await self._replay(rows, found)
            else:
                found = [(Again(_item(kept), kept.raw, None), "") for kept in rows]
            action: Literal["replay", "drop"] = (
                "replay" if isinstance(asked, ReplayAsked) else "drop"
            )
            if not asked.dry_run:
                done = [k for k, (_, why) in zip(rows, found, strict=True) if not why]
                await self._write(done, action, at_ns, person, asked.reason, fix)
                await self.follower.turn()
        told = [self._decided(action, kept, *one) for kept, one in zip(rows, found, strict=True)]
        refused = Counter(one.reason.partition(":")[0] for one in told if one.outcome == "refused")
        outcomes = Counter(one.outcome for one in told)
        return ActionTold(
            dry_run=asked.dry_run,
            action=action,
            matched=matched,
            taken=len(rows),
            stored=outcomes["stored"],
            dropped=outcomes["dropped"],
            refused=dict(sorted(refused.items())),
            skipped=skipped,
            rows=told[:_ROWS_TOLD],
        )

    def _meant(self, asked: DropAsked) -> tuple[list[Kept], int, int]:
        """Return open rows, how many there are of them, and how many ids were in vain."""
        most = self.quarantine.settings.action_rows_max
        if asked.ids is not None:
            ids = list(dict.fromkeys(asked.ids))
            rows = [kept for kept in self.quarantine.read(ids) if kept.state == "open"]
            return rows[:most], len(rows), len(ids) - len(rows)
        assert asked.filter is not None
        query = self.query(asked.filter)
        return self.quarantine.find(query, most), self.quarantine.matching(query), 0

    async def _try(self, rows: Sequence[Kept], fix: Fix, now_ns: int) -> list[tuple[Again, str]]:
        """Decode and check rows as ingest would; return with each why it would be refused."""
        tried: list[tuple[Again, str]] = []
        for start in range(0, len(rows), _PIECE):
            items = [_item(kept) for kept in rows[start : start + _PIECE]]
            for again in decode(items, fix, self.directory, now_ns, self.ingest.age_s_max):
                reason = again.reason
                if again.readings is not None:
                    nameplate = self.directory.nameplate(again.readings.device_no)
                    refused = check(again.readings, nameplate, self.ingest).refused
                    reason = next(iter(refused.values()), "")
                tried.append((again, reason))
            # Thousands of rows take a second, and orders do not wait for them.
            await asyncio.sleep(0)
        return tried

    async def _replay(
        self, rows: Sequence[Kept], tried: Sequence[tuple[Again, str]]
    ) -> list[tuple[Again, str]]:
        try:
            reasons = await self.replay.through([again for again, _ in tried])
        except ReplayFull as full:
            raise Refused(507, "journal-full", f"nothing was decided: {full}") from None
        except TimeoutError:
            raise Refused(
                503, "journal-slow", "not known what was stored; replay again, twice is once"
            ) from None
        return [(again, why) for (again, _), why in zip(tried, reasons, strict=True)]

    async def _write(
        self,
        rows: Sequence[Kept],
        action: Literal["replay", "drop"],
        at_ns: int,
        person: str,
        reason: str,
        fix: Fix,
    ) -> None:
        """Write a verdict for each entry of the journal that rows lie in."""
        places: dict[tuple[int, int], list[int]] = {}
        for kept in rows:
            places.setdefault((kept.partition, kept.position), []).append(kept.place)
        verdicts = [
            Verdict(
                partition=partition,
                position=position,
                rows=sorted(found),
                verdict="replayed" if action == "replay" else "dropped",
                at_ns=at_ns,
                issued_by=person,
                reason=reason,
                fix=fix.text,
            )
            for (partition, position), found in sorted(places.items())
        ]
        if not verdicts:
            return
        try:
            await self.journal.append(PLANT, verdicts, writer=_WRITER)
        except JournalFull as full:
            raise Refused(507, "journal-full", f"the decision was not written: {full}") from None

    def _decided(
        self, action: Literal["replay", "drop"], kept: Kept, again: Again, why: str
    ) -> RowDecided:
        outcome: Literal["stored", "dropped", "refused"] = "stored"
        if action == "drop":
            outcome = "dropped"
        elif why:
            outcome = "refused"
        readings = again.readings
        values = {} if readings is None else {
            metric.name.lower(): float(column[0])
            for metric, column in readings.values.items() if column[0] == column[0]
        }  # fmt: skip
        device_no = kept.device_no if readings is None else int(readings.device_no[0])
        return RowDecided(
            id=kept.id,
            device=self.name(device_no),
            outcome=outcome,
            reason=why,
            before=_as_text(kept.raw),
            after=None if again.raw == kept.raw else _as_text(again.raw),
            values=values,
        )

    def name(self, device_no: int) -> str | None:
        """Return a device's name; None where it has none (any more)."""
        try:
            return self.directory.name(device_no) if device_no >= 0 else None
        except KeyError:
            return None

    def tell(self, kept: Kept) -> QuarantinedTold:
        """Return a row as the API tells it."""
        return QuarantinedTold(
            id=kept.id,
            device=self.name(kept.device_no),
            device_no=kept.device_no if kept.device_no >= 0 else None,
            source=kept.source,
            code=kept.code,
            reason=kept.reason,
            raw=_as_text(kept.raw),
            raw_base64=None if _is_text(kept.raw) else base64.b64encode(kept.raw).decode(),
            received_at=to_datetime(kept.received_at_ns),
            first_seen=to_datetime(kept.first_ns),
            last_seen=to_datetime(kept.last_ns),
            count=kept.count,
            state=kept.state,
            verdict=kept.verdict or None,
            decided_at=to_datetime(kept.decided_at_ns) if kept.decided_at_ns else None,
            decided_by=kept.decided_by or None,
            decision_reason=kept.why or None,
            fix=fix_of(kept.fix),
        )

    def muted(self) -> list[MutedTold]:
        """Return who is muted now."""
        now_ns = self.clock.now_ns()
        return [
            MutedTold(
                device=self.name(mute.device_no),
                protocol=protocol,
                since=to_datetime(mute.since_ns),
                until=to_datetime(mute.until_ns),
                not_kept=mute.not_kept,
            )
            for protocol, breaker in sorted(self.breakers.items())
            for mute in breaker.muted(now_ns)
        ]

    async def unmute(self, names: Sequence[str]) -> list[str]:
        """Listen to devices again at once; return those that were muted."""
        numbers = self.directory.resolve(names).tolist()
        now_ns = self.clock.now_ns()
        unmuted = {
            name: device_no
            for name, device_no in zip(names, numbers, strict=True)
            # Over every protocol, not only the first that muted it.
            if device_no >= 0 and sum(b.unmute(device_no, now_ns) for b in self.breakers.values())
        }
        for device_no in unmuted.values():
            row = np.array([device_no], np.int32)
            at_ns = np.array([now_ns], np.int64)
            topic = partition_topic(device_no % self.directory.partitions)
            with suppress(JournalFull):
                await self.journal.append(topic, [Mutings(row, at_ns, at_ns)], writer=_WRITER)
        return list(unmuted)


def _bounded_ns(at: datetime | None, otherwise_ns: int) -> int:
    # The calendar goes on to the year 9999, and 64 bit only to 2262.
    return otherwise_ns if at is None else max(0, min(to_ns(at), _LATEST_NS))


def _check(asked: DropAsked, fix: Fix) -> None:
    if (asked.ids is None) == (asked.filter is None):
        raise Refused(422, "quarantine-which", "say which rows: either `ids` or `filter`")
    if asked.filter is not None and asked.filter == FilterAsked():
        raise Refused(422, "quarantine-which", "an empty filter means every row; say at least one")
    unknown = [field for field in fix.scale if field not in FIELDS]
    if unknown:
        fault = Fault(f"/fix/scale/{unknown[0]}", f"one of {', '.join(FIELDS)}")
        raise Refused(422, "fix-unusable", f"there is no field {unknown[0]!r}", faults=[fault])


def _item(kept: Kept) -> Item:
    return Item(kept.id, kept.source, kept.device_no, kept.received_at_ns, kept.raw)


def _as_text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
