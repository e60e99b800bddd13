"""Corrects energy: shows what would change, writes it down, and says whether it is applied."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from kapelle.adapters.http.problems import Fault, Refused
from kapelle.api import rules
from kapelle.api.energy_shapes import (
    INTERVALS_TOLD,
    CorrectionAsked,
    CorrectionsTold,
    CorrectionTold,
    IntervalChanged,
    RepairTold,
    UndoAsked,
)
from kapelle.api.history_desk import HistoryDesk
from kapelle.api.signing import check_author
from kapelle.api.times import to_datetime, to_ns
from kapelle.errors import JournalConflict, JournalFull
from kapelle.history import repairs
from kapelle.history.energy_series import qualities
from kapelle.history.repairs import Held
from kapelle.model.entries import Kind
from kapelle.model.ids import NS_PER_S, PLANT
from kapelle.model.plant import Correction
from kapelle.ports import Clock, Directory, Journal

WRITER = "energy"
_TRIES = 10
_WAIT_S = 8.0
"""How long an answer waits for the recorder."""
_LOOK_S = 1.0
"""How often the record is looked at for what another process may have done. [s]"""
_PENDING_MAX = 10_000

T = TypeVar("T")


class EnergyDesk:
    """Writes corrections as the line `energy` of the plant's topic.

    A correction is judged by what the ledger holds, so one is written only when those before it
    are applied. Numbers are unique as those of orders are: every append names the last entry of
    the line that was taken into account.
    """

    def __init__(
        self, *, journal: Journal, history: HistoryDesk, directory: Directory, clock: Clock
    ) -> None:
        self._journal = journal
        self._history = history
        self._directory = directory
        self._clock = clock
        self._turn = asyncio.Lock()

    async def correct(self, asked: CorrectionAsked, key: str, person: str) -> RepairTold:
        """Correct the energy of one register, or say what that would do.

        Raises:
            Refused: It cannot be meant, changes nothing, or cannot be written now.
        """
        check_author(asked.author, person)
        mark, value = _mark(key, asked, asked.device_id), _value(asked)
        device_no = await self._history.ask(lambda reader: reader.device_no(asked.device_id))
        starts_at_ns, ends_at_ns = to_ns(asked.starts_at), to_ns(asked.ends_at)
        if ends_at_ns > self._clock.now_ns():
            raise Refused(
                422,
                "correction-early",
                "the period is not over; what is not measured yet cannot be wrong",
                faults=[Fault("/to", "give a time that has passed")],
            )

        def made(number: int, _: Held) -> Correction:
            return Correction(
                correction_no=number,
                device_no=device_no,
                register=asked.register_,
                starts_at_ns=starts_at_ns,
                ends_at_ns=ends_at_ns,
                method=asked.method,
                value=value,
                at_ns=self._clock.now_ns(),
                issued_by=person,
                reason=asked.reason,
                key=mark,
            )

        return await self._act(made, mark, dry_run=asked.dry_run)

    async def undo(self, number: int, asked: UndoAsked, key: str, person: str) -> RepairTold:
        """Take a correction back, or say what that would do."""
        check_author(asked.author, person)
        mark = _mark(key, asked, str(number))

        def made(next_no: int, held: Held) -> Correction:
            undone = held.of(number)
            if undone is None:
                raise Refused(404, "correction-unknown", f"there is no correction {number}")
            return Correction(
                correction_no=next_no,
                device_no=undone.device_no,
                register=undone.register,
                starts_at_ns=undone.starts_at_ns,
                ends_at_ns=undone.ends_at_ns,
                method="undo",
                value=0.0,
                at_ns=self._clock.now_ns(),
                issued_by=person,
                reason=asked.reason,
                undoes=number,
                key=mark,
            )

        return await self._act(made, mark, dry_run=asked.dry_run)

    async def corrections(self, device_id: str, limit: int, before: int | None) -> CorrectionsTold:
        """Return corrections, newest first, of one device where it is named."""
        held, pending = await self._known()
        every = [*held.applied, *pending]
        if device_id:
            number = await self._history.ask(lambda reader: reader.device_no(device_id))
            every = [one for one in every if one.device_no == number]
        back = repairs.taken_back(held.applied)
        applied = {one.correction_no for one in held.applied}
        found = [one for one in every[::-1] if before is None or one.correction_no < before]
        return CorrectionsTold(
            corrections=[
                self._tell(one, one.correction_no in applied, back.get(one.correction_no))
                for one in found[:limit]
            ],
            next_before=found[limit - 1].correction_no if len(found) > limit else None,
        )

    async def _act(
        self, made: Callable[[int, Held], Correction], mark: str, *, dry_run: bool
    ) -> RepairTold:
        async with self._turn:
            for _ in range(_TRIES):
                expected = await self._journal.last(PLANT, WRITER)
                held = await self._settled()
                if mark and not dry_run and (known := _same(held.applied, mark)) is not None:
                    # What it changed stands in the ledger's revisions.
                    return _told(self._tell(known, True, None), None)
                correction = made(max((c.correction_no for c in held.applied), default=0) + 1, held)
                changes = _real(await self._ask(partial(repairs.preview, correction=correction)))
                if not len(changes) and correction.method != "undo":
                    raise Refused(
                        422,
                        "correction-empty",
                        "it would change nothing: the ledger knows no energy of this register "
                        "there, or that is what counts already",
                    )
                if dry_run:
                    return _told(None, changes)
                if await self._append(correction, expected):
                    is_applied = await self._is_applied(correction.correction_no)
                    return _told(self._tell(correction, is_applied, None), changes)
        raise Refused(
            503,
            "line-busy",
            "others correct faster than this; try again",
            headers={"Retry-After": "1"},
        )

    async def _known(self) -> tuple[Held, list[Correction]]:
        """Return what the record holds, and what it has not applied yet."""
        held = await self._ask(repairs.held)
        entries = await self._journal.read(PLANT, held.position, _PENDING_MAX, {Kind.CORRECTION})
        bodies = [entry.body for entry in entries if isinstance(entry.body, Correction)]
        return held, [*held.asked, *bodies]

    async def _settled(self) -> Held:
        """Wait until all that was written is applied; raise Refused where that takes too long."""
        held, pending = await self._known()
        if pending and await self._is_applied(pending[-1].correction_no):
            held, pending = await self._known()
        if pending:
            raise Refused(
                503,
                "corrections-waiting",
                "earlier corrections are not applied yet; see kapelle status",
                headers={"Retry-After": "5"},
            )
        return held

    async def _is_applied(self, number: int) -> bool:
        """Wait a moment for the recorder to apply a correction; return whether it has."""
        by_ns = self._clock.now_ns() + round(_WAIT_S * NS_PER_S)
        ledger = self._history.ledger
        while True:
            steps = ledger.steps
            if (await self._ask(repairs.held)).of(number) is not None:
                return True
            left_s = (by_ns - self._clock.now_ns()) / NS_PER_S
            if left_s <= 0:
                return False
            await ledger.wait_beyond(steps, min(left_s, _LOOK_S))

    async def _append(self, correction: Correction, expected: int) -> bool:
        try:
            await self._journal.append(PLANT, [correction], writer=WRITER, expected=expected)
        except JournalConflict:
            return False
        except JournalFull as error:
            raise Refused(
                507, "journal-full", f"nothing was changed: {error}", headers={"Retry-After": "30"}
            ) from error
        return True

    async def _ask(self, question: Callable[[Path], T]) -> T:
        return await self._history.ask(lambda reader: question(reader.directory))

    def _tell(self, made: Correction, is_applied: bool, undone_by: int | None) -> CorrectionTold:
        try:
            device_id: str | None = self._directory.name(made.device_no)
        except KeyError:
            device_id = None
        return CorrectionTold.model_validate(
            {
                "correction_no": made.correction_no,
                "device_id": device_id,
                "device_no": made.device_no,
                "register": made.register,
                "from": to_datetime(made.starts_at_ns),
                "to": to_datetime(made.ends_at_ns),
                "method": made.method,
                "value": made.value if made.method in ("set", "scale") else None,
                "author": made.issued_by,
                "reason": made.reason,
                "at": to_datetime(made.at_ns),
                "applied": is_applied,
                "undoes": made.undoes or None,
                "undone_by": undone_by,
            }
        )


def _value(asked: CorrectionAsked) -> float:
    if asked.method == "interpolate":
        if asked.value is not None:
            raise Refused(422, "correction-value", "interpolate takes no value")
        return 0.0
    if asked.value is None:
        what = "energy in Wh" if asked.method == "set" else "a factor"
        raise Refused(
            422,
            "correction-value",
            f"{asked.method} needs a value",
            faults=[Fault("/value", f"give {what}")],
        )
    return asked.value


def _real(changes: pa.Table) -> pa.Table:
    """Return the intervals of which something else is told than before."""
    differs = pc.not_equal(changes.column("before_quality"), changes.column("after_quality"))
    before, after = (pc.fill_null(changes.column(name), -1) for name in ("before_mwh", "after_mwh"))
    return changes.filter(pc.or_(differs, pc.not_equal(before, after)))


def _mark(key: str, asked: BaseModel, whose: str) -> str:
    rules.check_key(key)
    digest = hashlib.sha256(f"{whose} {asked.model_dump_json()}".encode()).hexdigest()[:32]
    return f"{key}#{digest}" if key else ""


def _same(made: Sequence[Correction], mark: str) -> Correction | None:
    """Return the correction an idempotency key made; raise Refused where it meant another."""
    prefix = mark.rpartition("#")[0] + "#"
    known = next((one for one in made if one.key.startswith(prefix)), None)
    if known is not None and known.key != mark:
        raise Refused(
            409,
            "key-reused",
            "this Idempotency-Key was used for another request",
            more={"correction_no": known.correction_no},
        )
    return known


def _told(correction: CorrectionTold | None, changes: pa.Table | None) -> RepairTold:
    """Return an answer; `changes` is None where the request only repeated an earlier one."""
    rows = [] if changes is None else changes.slice(0, INTERVALS_TOLD).to_pylist()
    sums = {
        name: 0 if changes is None else pc.sum(changes.column(name)).as_py() or 0
        for name in ("before_mwh", "after_mwh")
    }
    return RepairTold(
        dry_run=correction is None,
        correction=correction,
        intervals=0 if changes is None else len(changes),
        **sums,
        changes=[
            IntervalChanged(
                starts_at=to_datetime(row["starts_at_ns"]),
                before_mwh=row["before_mwh"],
                after_mwh=row["after_mwh"],
                before_quality=qualities(row["before_quality"]),
                after_quality=qualities(row["after_quality"]),
            )
            for row in rows
        ],
    )
