"""What a partition's owner tells the plant at a tick: one small body, whatever the fleet's size."""

from math import nan

import numpy as np
from numpy.typing import NDArray

from kapelle.fleet import stages
from kapelle.fleet.capacity.room import reach, room, window_due_s
from kapelle.fleet.claims import Claims, by_rank, owners
from kapelle.fleet.columns import Fleet, is_heard, span
from kapelle.fleet.curve import division, sums, trust
from kapelle.fleet.curve.cells import CellSums
from kapelle.fleet.curve.groups import capped_groups
from kapelle.fleet.curve.limits import HOLD_S
from kapelle.fleet.desired import in_force
from kapelle.fleet.doubt import doubt
from kapelle.fleet.estimation.estimate import in_flight
from kapelle.fleet.estimation.evidence import Witness
from kapelle.fleet.reconciliation.conditions import DISTRUSTED, VOID
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.silence import Hearing
from kapelle.fleet.site_cuts import site_cuts
from kapelle.fleet.spread import spread
from kapelle.fleet.stores import stores
from kapelle.fleet.traits import any_of, has, opted_out
from kapelle.model.enums import (
    Condition,
    DeviceKind,
    Exclusion,
    Freshness,
    Phase,
    Standing,
    Trait,
)
from kapelle.model.ids import ALL, NS_PER_S, Bytes, Flags, Floats, Ints
from kapelle.model.summaries import Curve, ResourceSummary, Summary

_CHUNK = 1 << 15
"""Rows at once, so that what is computed stays in the cache."""
_PHASES = max(Phase) + 1


def summarise(fleet: Fleet, settings: FleetSettings) -> Summary:
    """Sum up every resource with devices here, `all` first, as of the last tick."""
    active = fleet.active[: fleet.size]
    every = np.arange(fleet.size, dtype=np.int32)
    owner = owners(fleet)
    parts = [_summed(fleet, settings, ALL, every if active.all() else every[active], owner)]
    for resource, rows in sorted(fleet.members.items()):
        present = active[rows]
        some = rows if present.all() else rows[present]
        parts.append(_summed(fleet, settings, resource, some, owner))
    return Summary(
        partition=fleet.partition,
        tick_ns=fleet.now_ns,
        position=fleet.position,
        resources=parts,
        spread=spread(fleet),
        reach=reach(fleet),
        following=[signal.order_no for signal in by_rank(in_force(fleet))],
    )


def _summed(
    fleet: Fleet, settings: FleetSettings, resource: str, rows: Ints, owner: Ints | None
) -> ResourceSummary:
    claims = Claims.on(fleet, resource, owner)
    tally = _Tally(fleet, claims, whole=resource == ALL)
    for start in range(0, len(rows), _CHUNK):
        tally.add(fleet, settings, rows[start : start + _CHUNK])
    rationing = division.rationing_of(fleet, resource, announced=True)
    horizon_s = division.horizon_s(fleet, resource, rationing)
    signal = fleet.signals.get(resource)
    level, block_level = (signal.level, signal.block_level) if signal else (0.0, 0.0)
    free = claims.free(rows)
    groups = capped_groups(fleet)
    cells = None if groups is None else CellSums(fleet, groups, free, signal)
    continuous, blocks = sums.summed(fleet, free, level, block_level, horizon_s, rationing, cells)
    sites_up_w, sites_down_w = site_cuts(fleet, free, horizon_s, rationing)
    if horizon_s == HOLD_S and rationing is None:
        down_w, up_w = _reach(continuous, blocks)
    else:
        # An order in force shapes its curve to its own end; headroom is said for 15 minutes.
        down_w, up_w = _headroom(fleet, free)

    window_s = window_due_s(fleet.now_ns)
    # What is another order's to lose is no loss of this one's.
    bound = claims.bound(rows)
    unbound = rows[~bound] if bound.any() else rows
    fading = trust.fading(fleet, unbound, tally.hearing.counts())
    shared_std_w = zip(fleet.names["vendor"], tally.shared_std_w.tolist(), strict=True)
    return ResourceSummary(
        resource=resource,
        devices=len(rows),
        power_w=tally.power_w,
        variance_w2=tally.variance_w2,
        shared_std_w={vendor: std_w for vendor, std_w in shared_std_w if std_w > 0},
        measured_w=tally.measured_w,
        freshness=tally.hearing.by("vendor").sum(axis=0).tolist(),
        oldest_age_s=(fleet.now_ns - tally.oldest_ns) / NS_PER_S if tally.oldest_ns else nan,
        nameplate_w=tally.nameplate_w,
        uncontrolled_w=tally.uncontrolled_w,
        headroom_up_w=up_w,
        headroom_down_w=down_w,
        commanded_w=tally.commanded_w,
        continuous=continuous,
        blocks=blocks,
        phases=tally.phases.tolist(),
        excluded={
            reason.name.lower(): int(tally.excluded[reason])
            for reason in Exclusion
            if reason and tally.excluded[reason]
        },
        by_kind_w={
            kind.name.lower(): float(tally.by_kind_w[kind])
            for kind in DeviceKind
            if tally.kinds >> kind & 1
        },
        vendors=tally.hearing.heard("vendor"),
        providers=tally.hearing.heard("provider"),
        silences=tally.hearing.silences(),
        measured_nameplate_w=tally.measured_nameplate_w,
        fading_w=fading.power_w,
        fading_up_w=fading.up_w,
        fading_down_w=fading.down_w,
        steady_variance_w2=tally.steady_variance_w2,
        steady_std_w=tally.steady_std_w,
        evidence=tally.witness.told(),
        standings=tally.told_standings(),
        export_mwh=tally.export_mwh,
        import_mwh=tally.import_mwh,
        conditions={name.lower(): n for name, n in tally.conditions.items() if n},
        room=None if window_s is None else room(fleet, free, window_s),
        doubt_up_w=tally.doubt_up_w,
        doubt_down_w=tally.doubt_down_w,
        doubt_most_w=tally.doubt_most_w,
        stores=stores(fleet, free, signal) if signal and signal.stores else {},
        rationing=rationing,
        claimed=claims.counts(rows),
        rollout=stages.counts(fleet, free, signal),
        others_w=claims.others_w(rows[bound]),
        leaving_w=claims.leaving_w(rows[bound]),
        cells=None if cells is None else cells.told(),
        sites_up_w=sites_up_w,
        sites_down_w=sites_down_w,
        **tally.counts,
    )


def _reach(*curves: Curve) -> tuple[float, float]:
    """Return how far the curves go from where they are at λ = 0: down, then up. [W]"""
    down_w = up_w = 0.0
    for each in curves:
        at_rest_w = float(np.interp(0.0, each.level, each.power_w))
        down_w += at_rest_w - each.power_w[0]
        up_w += each.power_w[-1] - at_rest_w
    return down_w, up_w


def _headroom(fleet: Fleet, rows: Ints) -> tuple[float, float]:
    """Return how far the controllable rows can move and hold it for 15 minutes: down, then up."""
    down_w = up_w = 0.0
    for start in range(0, len(rows), _CHUNK):
        piece = rows[start : start + _CHUNK]
        part = division.shares(fleet, piece[trust.controllable(fleet, piece)], HOLD_S)
        down_w += float(part.down_w.sum())
        up_w += float(part.up_w.sum())
    return down_w, up_w


class _Tally:
    """Running sums over the rows of one resource."""

    def __init__(self, fleet: Fleet, claims: Claims, *, whole: bool) -> None:
        vendors = len(fleet.names["vendor"])
        self.claims = claims
        self.witness = Witness(fleet, whole=whole)
        self.hearing = Hearing(fleet, whole=whole)
        self.power_w = self.measured_w = self.uncontrolled_w = self.commanded_w = 0.0
        self.nameplate_w = self.measured_nameplate_w = 0.0
        self.doubt_up_w = self.doubt_down_w = self.doubt_most_w = 0.0
        self.export_mwh = self.import_mwh = 0
        self.variance_w2 = self.steady_variance_w2 = self.steady_std_w = 0.0
        self.oldest_ns = 0
        """When the oldest reading counted as live or late was true; 0 without any."""
        self.shared_std_w: Floats = np.zeros(vendors)
        self.counts = {"received": 0, "duplicates": 0, "late": 0, "lost": 0}
        self.phases: NDArray[np.intp] = np.zeros(_PHASES, np.intp)
        self.excluded: NDArray[np.intp] = np.zeros(len(Exclusion), np.intp)
        self.standings: NDArray[np.intp] = np.zeros(len(Standing), np.intp)
        self.conditions = dict.fromkeys((bit.name for bit in Condition), 0)
        self.kinds = 0
        """A bit for each kind that is present."""
        self.by_kind_w: Floats = np.zeros(len(DeviceKind))

    def add(self, fleet: Fleet, settings: FleetSettings, rows: Ints) -> None:
        at = span(rows)
        power_w, freshness, kind = fleet.estimate_w[at], fleet.freshness[at], fleet.kind[at]
        nameplate_w = np.maximum(fleet.nameplate_up_w[at], fleet.nameplate_down_w[at])
        self.power_w += float(power_w.sum())
        self.nameplate_w += float(nameplate_w.sum())
        self.export_mwh += int(fleet.energy_mwh[0, at].sum())
        self.import_mwh += int(fleet.energy_mwh[1, at].sum())
        self.kinds |= int(np.bitwise_or.reduce(np.uint8(1) << kind))
        self.by_kind_w += np.bincount(kind, power_w, len(DeviceKind))
        self.hearing.add(rows, freshness)

        live = freshness == np.uint8(Freshness.LIVE)
        condition = fleet.condition[at]
        if condition.any():
            live &= (condition & VOID) == 0
            for bit in Condition:
                self.conditions[bit.name] += int(np.count_nonzero(condition & np.uint16(bit)))
        standing = fleet.standing[at]
        if standing.any():
            _count(standing, self.standings)
        # `sum(where=...)` takes six times as long.
        counts = live.astype(np.float64)
        self.measured_w += float(np.einsum("i,i", power_w, counts))
        self.measured_nameplate_w += float(np.einsum("i,i", nameplate_w, counts))
        heard = is_heard(freshness)
        if heard.any():
            self.oldest_ns = self.oldest_ns or fleet.now_ns
            # After the first rows hardly any is older than all before.
            older = np.flatnonzero(heard & (fleet.heard_at_ns[at] < self.oldest_ns))
            if len(older):
                self.oldest_ns = int(fleet.heard_at_ns[at][older].min())

        self._add_errors(fleet, settings, rows, heard)

        desired_w = fleet.desired_w[at]
        self.commanded_w += _sum(desired_w, desired_w == desired_w)
        for name in self.counts:
            self.counts[name] += int(getattr(fleet, name)[at].sum(dtype=np.int64))
        phase = fleet.phase[at]
        if phase.any():
            _count(phase, self.phases)
            self.phases[Phase.NONE] = 0
        controlled = trust.controllable(fleet, rows)
        taken = self.claims.taken(rows)
        if taken is not None:
            # Another order's, they are as they are: neither to be counted on nor to be doubted.
            self.uncontrolled_w += _sum(power_w, taken)
            controlled |= taken
        left = np.flatnonzero(~controlled)
        if len(left):
            counted_w = trust.left_alone_w(fleet, rows[left], power_w[left])
            counted_w = np.where(self.claims.bound(rows[left]), power_w[left], counted_w)
            self.uncontrolled_w += float(counted_w.sum())
            more = doubt(fleet, rows[left], counted_w)
            self.doubt_up_w += more.up_w
            self.doubt_down_w += more.down_w
            self.doubt_most_w = max(self.doubt_most_w, more.most_w)
            excluded = fleet.excluded[at][left]
            doubted = (excluded == 0) & ((condition[left] & DISTRUSTED) != 0)
            excluded[doubted] = Exclusion.CONDITION
            if has(any_of(fleet.traits[at]), Trait.OPTED_OUT):
                excluded[opted_out(fleet, rows[left])] = Exclusion.OPTED_OUT
            # Whoever waits for his turn in an order is not lost to it.
            missing = ~fleet.waits[at][left] | (excluded > 0)
            self._add_excluded(excluded[missing], heard[left][missing])

    def _add_errors(self, fleet: Fleet, settings: FleetSettings, rows: Ints, heard: Flags) -> None:
        """Add variances: of those who report regularly, of the silent, and of all others."""
        self.witness.add_news(rows)
        at = span(rows)
        std_w = fleet.estimate_std_w[at].astype(np.float64)
        heard = heard & ((fleet.condition[at] & VOID) == 0)
        steady = heard.copy()
        flying = in_flight(fleet, settings, at)
        steady[flying] = False
        others = np.flatnonzero(~steady)
        std_w[others] = 0.0
        self.steady_variance_w2 += float(np.einsum("i,i", std_w, std_w))
        self.steady_std_w += float(std_w.sum())
        if not len(others):
            return
        every = rows[others].astype(np.intp)
        held = fleet.reverts_at_ns[every] > fleet.now_ns
        held &= fleet.desired_w[every] == fleet.desired_w[every]
        known = (fleet.heard_at_ns[every] > 0) & ~heard[others]
        alone = known & ~held
        if alone.any():
            self.witness.add_silent(every[alone])
        every = every[~alone]
        # Part of each error the devices of a vendor share: it does not average away.
        share = np.where(known[~alone], settings.common_share, 0.0)
        share[heard[others][~alone]] = 1.0
        each_w = fleet.estimate_std_w[every].astype(np.float64)
        shared_w = each_w * share
        self.shared_std_w += np.bincount(fleet.vendor[every], shared_w, len(self.shared_std_w))
        self.variance_w2 += float((each_w * each_w - shared_w * shared_w).sum())

    def told_standings(self) -> list[int]:
        """Return the number of devices in each `Standing`; empty where nobody was asked."""
        self.standings[Standing.NONE] = 0
        return self.standings.tolist() if self.standings.any() else []

    def _add_excluded(self, excluded: NDArray[np.uint8], heard: NDArray[np.bool_]) -> None:
        otherwise = np.where(heard, np.uint8(Exclusion.UNREACHABLE), np.uint8(Exclusion.SILENT))
        reason = np.where(excluded > 0, excluded, otherwise)
        self.excluded += np.bincount(reason, minlength=len(Exclusion))


def _count(codes: Bytes, into: NDArray[np.intp]) -> None:
    """Add how often each code occurs. As bytes, code by code, it costs a quarter of `bincount`."""
    left = len(codes)
    for code in range(len(into)):
        if not left:
            break
        found = int(np.count_nonzero(codes == np.uint8(code)))
        into[code] += found
        left -= found


def _sum(values: Floats, where: Flags) -> float:
    """Return the sum of some values; what is left out may be NaN."""
    count = np.count_nonzero(where)
    if count == len(values):
        return float(values.sum())
    return float(np.where(where, values, 0.0).sum()) if count else 0.0
