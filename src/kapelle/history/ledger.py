"""The ledger of energy: every quarter-hour of every device, as first published and as known since.

It rests on the record alone: on readings as they came, on the corrections people made, and on what
it has said before. So it computes again whatever it doubts, and appends only what is different: a
row once written never changes, and work that a crash cut short is simply done again. What it keeps
beside its rows is small and committed with them (`ledger_state`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from kapelle.errors import Invalid
from kapelle.history.conservation import conservation_error_wh
from kapelle.history.corrections import REGISTERS, check, in_force, reach
from kapelle.history.energy import Grid, Reported, changes, measure
from kapelle.history.ledger_reads import LedgerReads
from kapelle.history.ledger_state import LedgerState, PartitionState
from kapelle.history.order import numbers
from kapelle.history.settings import LATE_DAYS
from kapelle.history.store import Rows, Store
from kapelle.history.tables import DAY_NS, HOUR_NS, QUARTER_NS
from kapelle.model.ids import NS_PER_S, Ints, Longs
from kapelle.model.plant import Correction

WATERMARK_NS = 120 * NS_PER_S
"""A quarter-hour is closed this long after its end; what comes later revises it."""
LATE_REASON = "late readings"
_BACK_NS = (QUARTER_NS, 6 * HOUR_NS, (LATE_DAYS + 1) * DAY_NS)
"""How far is read for readings to go on from: further only for those who have too few."""
_BEFORE = 4
"""Readings from which it is told what a register that jumps is about."""
_CELLS = 1 << 20
"""Intervals computed at once."""
_STEP_NS = 4 * QUARTER_NS
"""A ledger far behind closes this much at once."""

log = logging.getLogger(__name__)


class Ledger:
    """Closes, revises and corrects. One caller at a time: the one that writes to the store."""

    def __init__(self, store: Store, partitions: int) -> None:
        self.store = store
        self.partitions = partitions
        self.state = LedgerState(store.catalog, partitions)
        self._reads = LedgerReads(store)
        self.error_wh = 0.0
        """By how much what was closed differs from what registers counted; 0 unless we err."""

    def note(self, rows: Iterable[Rows]) -> dict[str, bytes | None]:
        """Return the states to commit together with rows: what of them the ledger must look at.

        Call `work` once they are committed; after a crash before that, `work` still finds it.
        """
        return self.state.note(rows)

    def work(self, now_ns: int) -> int:
        """Close what is over, revise and correct what was noted; return how many rows it took.

        `now_ns` is the record's present: what was measured before has come, or comes late.
        """
        return sum(step() for step in self.steps(now_ns))

    def steps(self, now_ns: int) -> list[Callable[[], int]]:
        """Return what `work` does, piece by piece: between two, other work may be done."""
        through_ns = (now_ns - WATERMARK_NS) // QUARTER_NS * QUARTER_NS
        pieces = [partial(self._keep_up, p, through_ns, now_ns) for p in range(self.partitions)]
        return [*pieces, self._correct_asked]

    def _keep_up(self, partition: int, through_ns: int, now_ns: int) -> int:
        made = self._revise_late(partition, now_ns)
        made += self.close(partition, through_ns, now_ns=now_ns)
        return made + self._revise_late(partition, now_ns)

    def _correct_asked(self) -> int:
        made = 0
        for correction in self.state.asked():
            try:
                made += self.correct(correction)
            except Invalid as invalid:
                fields = {"number": correction.correction_no, "reason": str(invalid)}
                log.warning("a correction was left out", extra=fields)
        self.state.forget_asked()
        return made

    def _revise_late(self, partition: int, now_ns: int) -> int:
        device_no, starts_ns, ends_ns = self.state.late(partition)
        if not len(device_no):
            return 0
        return self.revise(partition, device_no, starts_ns, ends_ns, now_ns=now_ns)

    def close(self, partition: int, through_ns: int, *, now_ns: int) -> int:
        """Publish the intervals that ended by `through_ns`; return how many rows it took.

        A device that has said nothing since an edge is not known beyond it. It is left behind, and
        what it turns out to have done is published, as estimated, once it speaks again.
        """
        state = self.state.partition(partition)
        began_ns = state.closed_ns or self._reads.first_ns(partition, through_ns)
        if not began_ns or began_ns >= through_ns:
            return 0
        # Readings ahead of our time by what ingest accepts may already be there.
        rows = self._reads.rows(partition, None, _from_ns(began_ns), now_ns + QUARTER_NS)
        made = 0
        while began_ns < through_ns:
            # Read once, also by a ledger that is hours behind.
            rows = _since(rows, _from_ns(began_ns))
            ends_ns = min(began_ns + _STEP_NS, through_ns)
            here = Reported.of(rows)
            if ends_ns == through_ns:
                # Mostly the only step: readings of many devices are held once, not twice.
                rows = rows.schema.empty_table()
            made += self._close(partition, began_ns, ends_ns, here, now_ns)
            began_ns = ends_ns
        return made

    def revise(
        self, partition: int, device_no: Ints, starts_ns: Longs, ends_ns: Longs, *, now_ns: int
    ) -> int:
        """Compute closed intervals again that late readings touch; return how many rows it took.

        Args:
            partition: Of all the devices.
            device_no: Ascending.
            starts_ns: Earliest late reading of each.
            ends_ns: Latest late reading of each.
            now_ns: The present.
        """
        state = self.state.partition(partition).copy()
        parts = []
        for day in np.unique(starts_ns // DAY_NS).tolist():
            mine = np.flatnonzero(starts_ns // DAY_NS == day)
            first_ns, last_ns = int(starts_ns[mine].min()), int(ends_ns[mine].max())
            for group in _chunked(device_no[mine], (last_ns - first_ns) // QUARTER_NS + 1):
                # What lay in a gap was interpolated between its far ends: both sides may change.
                start_ns, end_ns = self._around(partition, group, first_ns, last_ns, now_ns)
                edges_ns = state.edges_of(group)
                start_ns = min([start_ns, *edges_ns[edges_ns >= 0].tolist()])
                start_ns = start_ns // QUARTER_NS * QUARTER_NS
                end_ns = min(-(-end_ns // QUARTER_NS) * QUARTER_NS, state.closed_ns)
                if start_ns < end_ns:
                    parts += self._settle(partition, state, group, start_ns, end_ns, None, now_ns)
        return self._commit(partition, parts, state, now_ns, {})

    def preview(self, correction: Correction) -> pa.Table:
        """Return what a correction would do, by interval: before and after. Nothing is kept.

        Columns: `starts_at_ns`, `register`, `before_mwh`, `after_mwh`, `before_quality`,
        `after_quality`; only intervals it changes. Energy nobody knows is null.

        Raises:
            Invalid: It cannot be meant.
        """
        before, rows = self._corrected(correction)
        quarter = (numbers(rows, "starts_at_ns") - before.starts_at_ns) // QUARTER_NS
        cells = 0, quarter, numbers(rows, "register").astype(np.intp)
        old_mwh = before.mwh[cells]
        return pa.table(
            {
                "starts_at_ns": rows.column("starts_at_ns"),
                "register": rows.column("register"),
                "before_mwh": pa.array(old_mwh, mask=old_mwh < 0),
                "after_mwh": rows.column("mwh"),
                "before_quality": before.quality[cells],
                "after_quality": rows.column("quality"),
            }
        )

    def correct(self, correction: Correction) -> int:
        """Apply a correction as revisions, or take one back; return how many rows it took.

        One already applied, told by its number, changes nothing.

        Raises:
            Invalid: It cannot be meant.
        """
        partition = correction.device_no % self.partitions
        made = self.state.corrections(partition)
        if any(each.correction_no == correction.correction_no for each in made):
            return 0
        _, rows = self._corrected(correction)
        states = self.state.with_correction(partition, correction)
        self.store.commit(
            [Rows("energy", partition, rows)] if len(rows) else [],
            now_ns=correction.at_ns,
            states=states,
        )
        self.state.forget(partition)
        return len(rows)

    def corrections(self, device_no: int) -> list[Correction]:
        """Return every correction of a device, undone or not, in the order they were made."""
        made = self.state.corrections(device_no % self.partitions)
        return [each for each in made if each.device_no == device_no]

    def _corrected(self, correction: Correction) -> tuple[Grid, pa.Table]:
        """Return what the ledger holds where a correction reaches, and the rows it would append."""
        known = self.corrections(correction.device_no)
        check(correction, known)
        asked = correction
        while asked.method == "undo":
            asked = next(each for each in known if each.correction_no == asked.undoes)
        span = reach(known, asked.starts_at_ns, asked.ends_at_ns)
        device_no = np.array([correction.device_no], np.int32)
        before = self._reads.ledgered(correction.device_no % self.partitions, device_no, *span)
        rows = changes(
            before,
            before.anew(),
            in_force([*known, correction]),
            computed_at_ns=correction.at_ns,
            author=correction.issued_by,
            reason=correction.reason,
        )
        return before, rows

    def _close(
        self, partition: int, began_ns: int, through_ns: int, here: Reported, now_ns: int
    ) -> int:
        state = self.state.partition(partition).copy()
        state.closed_ns = through_ns
        again_ns = _again_ns(began_ns)
        spoke = np.unique(here.device_no[here.measured_at_ns >= began_ns])
        edges_ns = state.edges_of(spoke)
        late, edges_ns = spoke[edges_ns >= 0], edges_ns[edges_ns >= 0]
        parts = []
        for group in _chunked(np.setdiff1d(spoke, late), (through_ns - again_ns) // QUARTER_NS):
            parts += self._settle(partition, state, group, again_ns, through_ns, here, now_ns)
        spans = self.state.spans(partition) | _changed(parts, began_ns)
        for day in np.unique(edges_ns // DAY_NS).tolist():
            mine = edges_ns // DAY_NS == day
            start_ns = int(edges_ns[mine].min())
            for group in _chunked(late[mine], (through_ns - start_ns) // QUARTER_NS):
                parts += self._settle(partition, state, group, start_ns, through_ns, None, now_ns)
        state.forget_before(through_ns - LATE_DAYS * DAY_NS)
        return self._commit(partition, parts, state, now_ns, spans)

    def _settle(
        self,
        partition: int,
        state: PartitionState,
        device_no: Ints,
        starts_at_ns: int,
        ends_at_ns: int,
        here: Reported | None,
        now_ns: int,
    ) -> list[pa.Table]:
        """Measure intervals of some devices and return what is new of them.

        `here`: their readings, where they have been read.
        """
        made = self.state.corrections(partition)
        touched = np.intersect1d(device_no, np.array([c.device_no for c in made], np.int32))
        plain = np.setdiff1d(device_no, touched)
        span = starts_at_ns, ends_at_ns
        parts = []
        if len(plain):
            before = self._reads.ledgered(partition, plain, *span)
            after = self._measured(partition, state, before, *span, here, now_ns)
            parts.append(changes(before, after, [], computed_at_ns=now_ns, reason=LATE_REASON))
            if here is not None:
                self.error_wh += conservation_error_wh(here, after)
        for device in touched.tolist():
            # A correction divides its energy by all it covers, and looks one interval beyond.
            known = self.corrections(device)
            alone = np.array([device], np.int32)
            before = self._reads.ledgered(partition, alone, *reach(known, *span))
            after = self._measured(partition, state, before, *span, here, now_ns)
            in_use = in_force(known)
            parts.append(changes(before, after, in_use, computed_at_ns=now_ns, reason=LATE_REASON))
        return parts

    def _measured(
        self,
        partition: int,
        state: PartitionState,
        before: Grid,
        starts_at_ns: int,
        ends_at_ns: int,
        here: Reported | None,
        now_ns: int,
    ) -> Grid:
        """Return a grid with what readings say of some of its intervals, and note who is behind."""
        grid = before.anew()
        inside = grid.between(starts_at_ns, ends_at_ns)
        lack, last_ns = grid.device_no, min(now_ns, ends_at_ns + DAY_NS) + QUARTER_NS
        for back_ns in _BACK_NS:
            # Of a ledger more than a day behind, `here` reaches beyond what is read further back.
            is_all = here is None or last_ns == now_ns + QUARTER_NS
            is_all &= not self._has_before(partition, starts_at_ns, back_ns)
            if here is None:
                here = self._reads.reported(partition, lack, starts_at_ns - back_ns, last_ns)
            told, here = here.only(lack), None
            state.learn(told, self.partitions)
            early = told.device_no[told.measured_at_ns <= starts_at_ns]
            count = np.bincount(np.searchsorted(lack, early), minlength=len(lack))
            enough = (count >= _BEFORE) | is_all | (back_ns == _BACK_NS[-1])
            ready, lack = lack[enough], lack[~enough]
            metered = state.metered_of(grid.device_no, self.partitions)
            measure(
                told.only(ready), self._reads.meters_of(partition, grid.device_no), metered, inside
            )
            if not len(lack):
                break
        if ends_at_ns >= state.closed_ns:
            state.note_behind(inside, self.partitions)
        return grid

    def _around(
        self, partition: int, device_no: Ints, first_ns: int, last_ns: int, now_ns: int
    ) -> tuple[int, int]:
        """Return from which reading before to which after a time some devices may change: what
        a register that jumps is about is told by several."""
        start_ns, end_ns, lack = first_ns, last_ns, device_no
        for look_ns in _BACK_NS:
            until_ns = min(last_ns + look_ns, now_ns + QUARTER_NS)
            rows = self._reads.reported(partition, lack, first_ns - look_ns, until_ns)
            before, before_ns = rows.nearest(lack, first_ns, -_BEFORE)
            after, after_ns = rows.nearest(lack, last_ns, _BEFORE)
            is_all = not self._has_before(partition, first_ns, look_ns)
            seen = ((before >= _BEFORE) | is_all) & ((after >= _BEFORE) | (until_ns > now_ns))
            seen |= look_ns == _BACK_NS[-1]
            start_ns = min([start_ns, *before_ns[seen].tolist()])
            end_ns = max([end_ns, *np.where(after < _BEFORE, now_ns, after_ns)[seen].tolist()])
            lack = lack[~seen]
            if not len(lack):
                break
        return start_ns, end_ns

    def _has_before(self, partition: int, at_ns: int, back_ns: int) -> bool:
        """Tell whether reading further back than this before a time may find more."""
        return self._reads.has_readings(partition, at_ns - _BACK_NS[-1], at_ns - back_ns)

    def _commit(
        self,
        partition: int,
        parts: Sequence[pa.Table],
        state: PartitionState,
        now_ns: int,
        late: dict[int, tuple[int, int]],
    ) -> int:
        made = pa.concat_tables(parts) if parts else None
        rows = [Rows("energy", partition, made)] if made is not None and len(made) else []
        states: Mapping[str, bytes | None] = self.state.changed(partition, state, late)
        self.store.commit(rows, now_ns=now_ns, states=states)
        self.state.forget(partition)
        return sum(len(part.data) for part in rows)


def _again_ns(began_ns: int) -> int:
    """Return from where on intervals are looked at when those from a time on are closed.

    The quarter-hour before is one of them: where it ends was told by a reading after it, and
    since then one may have come that lies closer.
    """
    return began_ns - QUARTER_NS


def _from_ns(began_ns: int) -> int:
    """Return from where on readings are read when intervals from a time on are closed."""
    return _again_ns(began_ns) - _BACK_NS[0]


def _since(rows: pa.Table, starts_ns: int) -> pa.Table:
    inside = numbers(rows, "measured_at_ns") >= starts_ns
    return rows if inside.all() else rows.filter(pa.array(inside))


def _changed(parts: Sequence[pa.Table], before_ns: int) -> dict[int, tuple[int, int]]:
    """Return the devices of which earlier intervals changed: those before may have to, too."""
    spans: dict[int, tuple[int, int]] = {}
    for part in parts:
        start, device = numbers(part, "starts_at_ns"), numbers(part, "device_no")
        old = (start < before_ns) & (numbers(part, "revision") > 0)
        for no, start_ns in zip(device[old].tolist(), start[old].tolist(), strict=True):
            spans[no] = (min(start_ns, spans.get(no, (start_ns, 0))[0]), before_ns)
    return spans


def _chunked(device_no: Ints, quarters: int) -> Iterator[Ints]:
    most = max(_CELLS // max(quarters * len(REGISTERS), 1), 1)
    for start in range(0, len(device_no), most):
        yield device_no[start : start + most]
