"""Are promises kept as often as they say? Out of sample, with common causes that had to be learned.

Every quarter of an hour the whole of a simulated fleet is called, and the least it gives over the
window is held against what was promised for it. Vendors, regions and feeders fail as a whole at
rates nobody tells the plant; responses wander from window to window, by vendor and by hour. Time is
compressed: outages come so often that some hundred windows hold several of each vendor. Beside
it stands the answer for devices that fail by themselves.
"""

from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from kapelle.dispatch.firm.assembly import portfolio_of
from kapelle.dispatch.firm.mixture import alone, mix
from kapelle.fleet.capacity.recalibration import LEVELS, Recalibration
from kapelle.fleet.capacity.room import reach, room
from kapelle.fleet.columns import Fleet
from kapelle.fleet.curve import division, trust
from kapelle.fleet.desired import apply_acks, apply_commands, apply_phases
from kapelle.fleet.fold import apply_entry
from kapelle.fleet.plant import PlantView, apply_plant
from kapelle.fleet.settings import FleetSettings
from kapelle.fleet.summary import summarise
from kapelle.model.blocks import Acks, Commands, Phases
from kapelle.model.entries import KIND_OF, Body, Entry
from kapelle.model.enums import AckStatus, Exclusion, Freshness, Metric, Phase
from kapelle.model.ids import ALL, NS_PER_S, Flags, Ints
from kapelle.model.summaries import Summary
from kapelle.sim.devices import FleetPlan, make_fleet

SETTINGS = FleetSettings()
WINDOW_S = 900.0
_TICK_S = 60
_SEEN_S = 15.0
"""So long after the beginning of an outage devices count as silent. [s]"""
_SEED = 3000
"""Seeds from here on were never looked at while the method was built."""
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    name: str
    devices: int = 800
    warm: int = 300
    windows: int = 600
    drift: float = 0.0
    """What the second half of the judged windows takes from everybody's log-odds …"""
    worse: float = 1.0
    """… and by how much outages become more frequent then."""
    recalibrate: bool = True
    outages: bool = True


@dataclass(slots=True)
class Score:
    """What came of the judged windows."""

    windows: int = 0
    missed: list[int] = field(default_factory=lambda: [0] * len(LEVELS))
    missed_alone: list[int] = field(default_factory=lambda: [0] * len(LEVELS))
    promised: list[float] = field(default_factory=lambda: [0.0] * len(LEVELS))
    promised_alone: list[float] = field(default_factory=lambda: [0.0] * len(LEVELS))
    """Sums over windows, as parts of the headroom."""

    def add(self, other: "Score") -> None:
        """Take in another run."""
        self.windows += other.windows
        for name in ("missed", "missed_alone", "promised", "promised_alone"):
            mine = getattr(self, name)
            for at, each in enumerate(getattr(other, name)):
                mine[at] += each


class World:
    """Devices, what they share, and when it fails."""

    def __init__(self, case: Case, seed: int) -> None:
        fleet_rng, self._rng, self._outage_rng = np.random.default_rng(seed).spawn(3)
        plan = FleetPlan(case.devices, 1, mix={"battery": 0.5, "ev": 0.2, "load": 0.3})
        block = make_fleet(plan, fleet_rng).part(0, 1)
        count = len(block)
        feeders = np.arange(count) // plan.devices_per_feeder
        block = replace(block, zone=tuple(f"zone-{n % 4}".encode() for n in feeders))
        self.fleet = Fleet.empty(0, 1)
        self._say(block)
        fleet = self.fleet
        fleet.connected[:count] = True
        fleet.own_w[:count] = np.where(fleet.kind[:count] > 0, -0.4, 0.0) * fleet.nameplate_down_w
        self.groups = _groups(fleet)
        scale = {"vendor": 0.03, "region": 0.008, "feeder": 0.003} if case.outages else {}
        self.rate = np.array(
            [self._outage_rng.uniform(0.1, 1.0) * scale.get(n[:6], 0.0) for n, _ in self.groups]
        )
        self.within = np.array([flags for _, flags in self.groups])
        self.until_s = np.full(len(self.groups), -1.0)
        self.since_s = np.full(len(self.groups), -1.0)
        by_vendor = self._rng.normal(2.2, 0.4, len(fleet.names["vendor"]))
        by_kind = self._rng.normal(0.0, 0.3, 8)
        self.odds = by_vendor[fleet.vendor[:count]] + by_kind[fleet.kind[:count]]
        self.odds += self._rng.normal(0.0, 0.6, count)
        self.night = float(self._rng.uniform(0.0, 0.8))

    def _say(self, body: Body) -> None:
        entry = Entry("p", self.fleet.position + 1, KIND_OF[type(body)], "sim", 0, 0, body)
        apply_entry(self.fleet, entry, SETTINGS)

    def fail(self, worse: float) -> list[tuple[float, float]]:
        """Draw what begins in the next window: the group, and when in it. [s]"""
        starts = self._outage_rng.random(len(self.groups)) < 1.0 - np.exp(-self.rate * worse)
        return [
            (int(at), float(self._outage_rng.uniform(0.0, WINDOW_S)))
            for at in np.flatnonzero(starts)
        ]

    def lasts_s(self) -> float:
        """Draw how long an outage lasts. [s]"""
        return float(self._outage_rng.uniform(600.0, 3600.0))

    def down(self, at_s: float) -> Flags:
        """Tell whose group is out."""
        out = (self.since_s <= at_s) & (at_s < self.until_s)
        return np.asarray(self.within[out].any(axis=0), np.bool_)

    def follow(self, rows: Ints, hour: int, drift: float) -> Flags:
        """Draw who follows a command."""
        fleet = self.fleet
        wander = self._rng.normal(0.0, 0.25, len(fleet.names["vendor"]))
        odds = self.odds[rows] + wander[fleet.vendor[rows]] - drift
        odds -= self.night if hour < 6 else 0.0
        return np.asarray(self._rng.random(len(rows)) < 1.0 / (1.0 + np.exp(-odds)), np.bool_)

    def charge(self) -> None:
        """Draw the state of charge of those that store."""
        soc = self._rng.uniform(0.15, 0.9, self.fleet.size)
        stores = ~np.isnan(self.fleet.energy_wh[: self.fleet.size])
        self.fleet.value[Metric.SOC, : self.fleet.size] = np.where(stores, soc, np.nan)


def _groups(fleet: Fleet) -> list[tuple[str, Flags]]:
    """Return who shares a vendor, a region, a feeder."""
    told: list[tuple[str, Flags]] = []
    for table, column in (("vendor", fleet.vendor), ("zone", fleet.zone), ("feeder", fleet.feeder)):
        kind = "region" if table == "zone" else table
        for code in np.unique(column[: fleet.size]).tolist():
            told.append((f"{kind}:{fleet.names[table][code]}", column[: fleet.size] == code))
    return told


def play(case: Case, seed: int) -> Score:
    """Run one case; the same case and seed give the same score."""
    world = World(case, seed)
    fleet, view = world.fleet, PlantView(1)
    recalibration, score = Recalibration(), Score()
    every = np.arange(fleet.size, dtype=np.int32)
    for window in range(case.warm + case.windows):
        start_s = 1_800_000_000.0 + window * WINDOW_S
        late = window >= case.warm + case.windows // 2
        drift, worse = (case.drift, case.worse) if late else (0.0, 1.0)
        world.charge()
        _look(world, view, start_s, whole=True)
        counted = trust.controllable(fleet, every)
        rows = every[counted]
        head_w = division.shares(fleet, rows, WINDOW_S).up_w
        portfolio = portfolio_of(view.rooms, view.firmness, ALL, "up", WINDOW_S)
        mixture, naive = mix(portfolio), alone(portfolio)
        risks = [recalibration.risk(at) for at in range(len(LEVELS))]
        promised_w = mixture.promises_w(risks)
        alone_w = naive.promises_w([1.0 - level for level in LEVELS])

        hour = int(start_s) // 3600 % 24
        follows = world.follow(rows, hour, drift) & ~world.down(start_s)[rows]
        _ask(fleet, rows, follows, window + 1, start_s)
        kept = follows.copy()
        events = dict(world.fail(worse))
        for group, at_s in events.items():
            if world.until_s[group] < start_s + at_s:
                world.since_s[group] = start_s + at_s
                world.until_s[group] = start_s + at_s + world.lasts_s()
                kept &= ~world.within[group][rows]
        for tick in range(_TICK_S, int(WINDOW_S), _TICK_S):
            _look(world, view, start_s + tick, whole=False)
        fleet.excluded[:] = Exclusion.NONE
        delivered_w = float(head_w[kept].sum())
        missed = [delivered_w < each_w for each_w in promised_w]
        if case.recalibrate:
            recalibration.step(risks, missed)
        if window >= case.warm:
            all_w = max(float(head_w.sum()), 1.0)
            score.windows += 1
            for at in range(len(LEVELS)):
                score.missed[at] += missed[at]
                score.missed_alone[at] += delivered_w < alone_w[at]
                score.promised[at] += promised_w[at] / all_w
                score.promised_alone[at] += alone_w[at] / all_w
    return score


def _look(world: World, view: PlantView, at_s: float, *, whole: bool) -> None:
    """Let the plant see who is heard; `whole`: and what each can do."""
    fleet = world.fleet
    fleet.now_ns = int(at_s) * NS_PER_S
    silent = world.down(at_s - _SEEN_S)
    fleet.freshness[: fleet.size] = np.where(silent, Freshness.STALE, Freshness.LIVE)
    counted = reach(fleet)
    parts = []
    if whole:
        every = np.arange(fleet.size, dtype=np.int32)
        told = summarise(fleet, SETTINGS).resources[0]
        parts = [msgspec.structs.replace(told, room=room(fleet, every, WINDOW_S))]
    view.position += 1
    summary = Summary(0, fleet.now_ns, view.position, parts, None, counted)
    entry = Entry("plant", view.position, KIND_OF[Summary], "sim", 0, 0, summary)
    view.position -= 1
    apply_plant(view, entry)


def _ask(fleet: Fleet, rows: Ints, follows: Flags, revision: int, at_s: float) -> None:
    """Command everybody; who follows says so, and of the others nothing is heard."""
    count, at_ns = len(rows), int(at_s) * NS_PER_S
    ones = np.ones(count)
    number = np.full(count, revision, np.int64)
    apply_commands(
        fleet,
        Commands(
            device_no=rows,
            order_no=np.full(count, revision, np.int32),
            revision=number,
            epoch=np.ones(count, np.int64),
            attempt=np.ones(count, np.int32),
            setpoint_w=fleet.own_w[rows] + ones,
            issued_at_ns=np.full(count, at_ns),
            not_after_ns=np.full(count, at_ns + 20 * NS_PER_S),
            ttl_s=20.0 * ones,
            revert_s=120.0 * ones,
        ),
    )
    yes, no = np.flatnonzero(follows), np.flatnonzero(~follows)
    said = Acks(
        device_no=rows[yes],
        revision=number[yes],
        epoch=np.ones(len(yes), np.int64),
        status=np.full(len(yes), AckStatus.APPLIED, np.uint8),
        at_ns=np.full(len(yes), at_ns + 2 * NS_PER_S),
        reason=(b"",) * len(yes),
    )
    apply_acks(fleet, said)
    found = Phases(
        device_no=rows[no],
        revision=number[no],
        phase=np.full(len(no), Phase.UNKNOWN, np.uint8),
        at_ns=np.full(len(no), at_ns + 10 * NS_PER_S),
    )
    apply_phases(fleet, found)


def interval(count: int, odds: float) -> tuple[int, int]:
    """Return the central 95 % of a binomial count."""
    k = np.arange(count + 1)
    steps = np.log((count - k[:-1]) / (k[:-1] + 1.0)) + np.log(odds / (1.0 - odds))
    logs = np.concatenate([[count * np.log1p(-odds)], steps]).cumsum()
    below = np.exp(logs).cumsum()
    return int(np.searchsorted(below, 0.025)), int(np.searchsorted(below, 0.975))


CASES = (
    Case("rates learned"),
    Case("rates learned, not recalibrated", recalibrate=False),
    Case("worse from the middle on", drift=0.6, worse=1.7),
    Case("the same, not recalibrated", drift=0.6, worse=1.7, recalibrate=False),
    Case("no common causes", outages=False),
)


def run(quick: bool) -> list[Row]:
    """Return a row for each case and level; `quick` plays one run of the first case."""
    seeds = range(_SEED, _SEED + (1 if quick else 3))
    rows: list[Row] = []
    for case in CASES[:1] if quick else CASES:
        whole = Score()
        for seed in seeds:
            whole.add(play(case, seed))
        rows += [_row(case, whole, at) for at in range(len(LEVELS))]
    return rows


def _row(case: Case, score: Score, at: int) -> Row:
    risk, count = 1.0 - LEVELS[at], score.windows
    low, high = interval(count, risk)
    mine, naive = score.promised[at] / count, score.promised_alone[at] / count
    return {
        "name": f"P{LEVELS[at] * 100:.0f}, {case.name}",
        "value": score.missed[at] / count * 100,
        "unit": "% of windows short",
        "ratio": naive / mine,
        "peer": "promise for devices that fail alone",
        "note": f"95 % of a binomial count: {low / count * 100:.1f} to {high / count * 100:.1f}; "
        f"alone {score.missed_alone[at] / count * 100:.1f}; promised {mine * 100:.1f} % of "
        f"headroom, alone {naive * 100:.1f}; {count} windows",
    }
